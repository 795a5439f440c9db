//! A quorum on a lossy network and disks that forget what was not synced, driven by one seed; what may never happen is
//! looked for after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use klamm_wire::RawBatch;
use klamm_wire::metadata_records::{ConfigRecord, MetadataRecord};

use crate::log::Syncing;
use crate::metadata::{Checkpoint, Delta, Image};
use crate::quorum::*;
use crate::storage::{Directory, MemoryDirectory};

const MS: Duration = Duration::from_millis(1);
/// Histories.
const SEEDS: u64 = 200;
/// Bytes of a snapshot that are sent at a time.
const PART: usize = 64;

pub(super) fn settings() -> Settings {
    Settings {
        election_timeout: 50 * MS,
        election_backoff_max: 50 * MS,
        fetch_timeout: 100 * MS,
        request_timeout: 100 * MS,
        retry_backoff: 10 * MS,
    }
}

type Store = MetadataStore<MemoryDirectory>;

struct Process {
    voter: Voter,
    store: Store,
    image: Image,
    /// Tells events of this process from those of an earlier one.
    incarnation: u64,
    flushes: Flushes,
}

/// What is to become durable, as the driver of a voter does it: one flush at a time, all that came meanwhile with the next.
#[derive(Default)]
struct Flushes {
    under_way: bool,
    wanted: bool,
    state: Option<QuorumState>,
    /// What the next flush makes durable, and the one under way.
    asked: u64,
    done: u64,
    /// What the process has found on its disk may not be durable.
    inherited: bool,
    held: Vec<(u64, Event)>,
}

impl Flushes {
    fn claim(&mut self) {
        if std::mem::take(&mut self.inherited) {
            (self.asked, self.wanted) = (self.asked + 1, true);
        }
    }
}

struct Node {
    /// While no process has it.
    disk: Option<MemoryDirectory>,
    /// What the voter's state must never fall behind: of what was written, and of what survives a loss of power.
    written: QuorumState,
    state: QuorumState,
    process: Option<Process>,
    incarnation: u64,
}

/// A request that is under way.
#[derive(Clone, Copy)]
struct Ask {
    incarnation: u64,
    number: u64,
    /// What has to be durable before the outcome is told.
    asked: u64,
}

enum Event {
    Deadline {
        node: i32,
        incarnation: u64,
    },
    Request {
        from: i32,
        to: i32,
        ask: Ask,
        request: Request,
    },
    Outcome {
        to: i32,
        from: i32,
        ask: Ask,
        response: Option<Response<Vec<Bytes>>>,
    },
    Synced {
        node: i32,
        incarnation: u64,
        cut: u64,
        count: u64,
        state: QuorumState,
        sync: Syncing,
    },
    Start(i32),
    /// By a kill, or by a loss of power.
    Crash(i32, bool),
    Append,
    Snapshot,
    Cut(BTreeSet<i32>),
    Quiet,
}

struct Sim {
    rng: fastrand::Rng,
    now: Duration,
    nodes: BTreeMap<i32, Node>,
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    /// Those who cannot be reached by the others.
    apart: BTreeSet<i32>,
    loss: f64,
    /// The power goes when it hurts most: while something becomes durable.
    storm: bool,
    leaders: BTreeMap<i32, i32>,
    /// Each committed batch, by its offset.
    committed: BTreeMap<i64, Bytes>,
    committed_end: i64,
    appended: u32,
    elections: u32,
    truncations: u32,
    loaded: u32,
}

impl Sim {
    fn new(seed: u64, voters: i32) -> Self {
        let nodes = (1..=voters).map(|id| {
            (
                id,
                Node {
                    disk: Some(MemoryDirectory::new()),
                    written: QuorumState::default(),
                    state: QuorumState::default(),
                    process: None,
                    incarnation: 0,
                },
            )
        });
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            nodes: nodes.collect(),
            events: BTreeMap::new(),
            sequence: 0,
            apart: BTreeSet::new(),
            loss: 0.0,
            storm: false,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_end: 0,
            appended: 0,
            elections: 0,
            truncations: 0,
            loaded: 0,
        }
    }

    fn now(&self) -> Now {
        Now { tick: self.now, wall_ms: 1_767_225_600_000 + self.now.as_millis() as i64 }
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((when, self.sequence), event);
    }

    fn after(&mut self, most_ms: u64, event: Event) {
        let wait = Duration::from_micros(self.rng.u64(0..=most_ms * 1_000));
        self.at(self.now + wait, event);
    }

    fn start(&mut self, id: i32) {
        let (now, rng) = (self.now(), self.rng.fork());
        let voters: BTreeSet<i32> = self.nodes.keys().copied().collect();
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(storage) = node.disk.take() else { return };
        node.incarnation += 1;
        let (store, state) = Store::open(storage).unwrap();
        let found = state.unwrap_or_default();
        assert!(found == node.state || found == node.written, "voter {id} has forgotten");
        node.written = found;
        let voter = Voter::new(now, id, voters, settings(), state, &store, rng);
        let image = match store.latest_snapshot() {
            Some((id, bytes)) => Checkpoint::read(id, bytes).unwrap(),
            None => Image::default(),
        };
        let flushes = Flushes { inherited: true, ..Flushes::default() };
        node.process = Some(Process { voter, store, image, incarnation: node.incarnation, flushes });
        self.step(id, |_, _, _, _| ());
    }

    fn crash(&mut self, id: i32, power: bool) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(process) = node.process.take() else { return };
        // Whoever waits for an answer hears that the connection is gone.
        let unanswered: Vec<_> = process.flushes.held.into_iter().map(|(_, event)| event).collect();
        let mut storage = process.store.into_directory();
        if power {
            storage.power_off();
        }
        node.disk = Some(storage);
        let wait = self.rng.u64(1..=300);
        self.after(wait, Event::Start(id));
        for event in unanswered {
            if let Event::Outcome { to, from, ask, .. } = event
                && to != id
            {
                self.after(100, Event::Outcome { to, from, ask, response: None });
            }
        }
    }

    fn step<R>(
        &mut self,
        id: i32,
        act: impl FnOnce(&mut Voter, &mut Store, Now, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        let now = self.now();
        let process = self.nodes.get_mut(&id)?.process.as_mut()?;
        let mut fx = Vec::new();
        let result = act(&mut process.voter, &mut process.store, now, &mut fx);
        for effect in fx {
            self.apply(id, effect);
        }
        self.flush(id);
        let process = self.nodes.get(&id)?.process.as_ref()?;
        let (deadline, incarnation) = (process.voter.deadline(), process.incarnation);
        if let Some(deadline) = deadline {
            self.at(deadline.max(self.now), Event::Deadline { node: id, incarnation });
        }
        Some(result)
    }

    fn flush(&mut self, id: i32) {
        let voters: BTreeSet<i32> = self.nodes.keys().copied().collect();
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(Process { voter, store, flushes, incarnation, .. }) = &mut node.process else { return };
        if !flushes.wanted || flushes.under_way {
            return;
        }
        (flushes.wanted, flushes.under_way) = (false, true);
        if let Some(state) = flushes.state.take() {
            store.note(&state, &voters).unwrap();
            node.written = state;
        }
        let sync = store.log_mut().begin_sync().unwrap();
        let (cut, count, state, incarnation) = (voter.cuts(), flushes.asked, node.written, *incarnation);
        self.after(5, Event::Synced { node: id, incarnation, cut, count, state, sync });
        if self.storm && self.rng.u8(0..40) == 0 {
            self.after(10, Event::Crash(id, true));
        }
    }

    /// Lets happen what rests on a flush.
    fn once_durable(&mut self, id: i32, event: Event) {
        let flushes = &mut self.nodes.get_mut(&id).unwrap().process.as_mut().unwrap().flushes;
        if flushes.asked <= flushes.done {
            self.after(10, event);
        } else {
            flushes.held.push((flushes.asked, event));
        }
    }

    fn apply(&mut self, id: i32, effect: Effect) {
        let node = self.nodes.get_mut(&id).unwrap();
        let process = node.process.as_mut().unwrap();
        let incarnation = process.incarnation;
        match effect {
            Effect::Persist(state) => {
                let before = process.flushes.state.unwrap_or(node.written);
                assert!(state.epoch >= before.epoch, "the epoch fell");
                let revoted =
                    state.epoch == before.epoch && before.voted.is_some() && state.voted != before.voted;
                assert!(!revoted, "voter {id} changed its vote in epoch {}", state.epoch);
                let flushes = &mut process.flushes;
                (flushes.asked, flushes.wanted) = (flushes.asked + 1, true);
                (flushes.state, flushes.inherited) = (Some(state), false);
            }
            Effect::Send { to, number, request } => {
                if !matches!(request, Request::Vote(vote) if vote.pre_vote) {
                    process.flushes.claim();
                }
                let early = matches!(request, Request::Vote(_));
                let ask = Ask { incarnation, number, asked: process.flushes.asked };
                let event = Event::Request { from: id, to, ask, request };
                if early { self.after(10, event) } else { self.once_durable(id, event) }
            }
            Effect::Sync { .. } => process.flushes.wanted = true,
            Effect::Elected { epoch } => {
                self.elections += 1;
                let first = *self.leaders.entry(epoch).or_insert(id);
                assert_eq!(first, id, "two leaders in epoch {epoch}");
                self.check_complete(id);
            }
            Effect::Deposed { .. } => {}
            Effect::HighWatermark(offset) => self.check_committed(id, offset),
            Effect::Truncated(_) => self.truncations += 1,
            Effect::SnapshotLoaded(snapshot) => {
                self.loaded += 1;
                let bytes = process.store.snapshot_bytes(snapshot).unwrap();
                process.image = Checkpoint::read(snapshot, bytes).unwrap();
            }
        }
    }

    fn batches(store: &Store) -> BTreeMap<i64, Bytes> {
        let batches = store.log().batches().map(|batch| batch.unwrap().1);
        batches.map(|batch| (batch.header().base_offset, batch.bytes().clone())).collect()
    }

    /// Goal: whoever is elected has everything that was ever committed.
    fn check_complete(&self, id: i32) {
        let store = &self.nodes[&id].process.as_ref().unwrap().store;
        let batches = Self::batches(store);
        assert!(store.end_offset() >= self.committed_end, "voter {id} leads without what is committed");
        for (offset, batch) in self.committed.range(store.start_offset()..) {
            assert_eq!(batches.get(offset), Some(batch), "leader {id} at offset {offset}");
        }
    }

    /// Goal: what is committed once, anywhere, is the same for everybody and for ever.
    fn check_committed(&mut self, id: i32, offset: i64) {
        let process = self.nodes.get_mut(&id).unwrap().process.as_mut().unwrap();
        for (at, batch) in Self::batches(&process.store).range(..offset) {
            let known = self.committed.entry(*at).or_insert_with(|| batch.clone());
            assert_eq!(known, batch, "voter {id} at offset {at}");
        }
        self.committed_end = self.committed_end.max(offset);
        for (_, batch) in Self::batches(&process.store).range(..offset) {
            let batch = RawBatch::parse(batch.clone()).unwrap();
            process.image.apply_batch(&batch, &mut Delta::default()).unwrap();
        }
    }

    fn passes(&mut self, from: i32, to: i32) -> bool {
        self.apart.contains(&from) == self.apart.contains(&to) && self.rng.f64() >= self.loss
    }

    fn serve(&mut self, from: i32, to: i32, request: &Request) -> Option<Response<Vec<Bytes>>> {
        if let Some(process) = &mut self.nodes.get_mut(&to)?.process
            && matches!(request, Request::Vote(vote) if !vote.pre_vote)
        {
            process.flushes.claim();
        }
        self.step(to, |voter, store, now, fx| match request {
            Request::Fetch(fetch) => voter.fetch(now, Replica::Voter(from), fetch, 300, store, fx).unwrap(),
            Request::FetchSnapshot { epoch, id, position } => {
                let head = voter.check_leads(*epoch).err();
                let ok =
                    Head { error: klamm_wire::ErrorCode::NONE, leader: voter.leader(), epoch: voter.epoch() };
                let whole = store.snapshot_bytes(*id).cloned().unwrap_or_default();
                let begin = (*position as usize).min(whole.len());
                let bytes = whole.slice(begin..whole.len().min(begin + PART));
                voter.note_snapshot_fetch(now, Replica::Voter(from));
                let (id, size, position) = (*id, whole.len() as u64, *position);
                Response::Snapshot { head: head.unwrap_or(ok), id, size, position, bytes }
            }
            request => voter.on_request(now, request, store, fx),
        })
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::Deadline { node, incarnation } => {
                let due = self.nodes[&node].process.as_ref().is_some_and(|process| {
                    process.incarnation == incarnation
                        && process.voter.deadline().is_some_and(|deadline| deadline <= self.now)
                });
                if due {
                    self.step(node, |voter, store, now, fx| voter.on_deadline(now, store, fx).unwrap());
                }
            }
            Event::Request { from, to, ask, request } => {
                let mut response = None;
                if self.passes(from, to) {
                    response = self.serve(from, to, &request);
                    if self.rng.u8(0..20) == 0 {
                        // The network delivers it twice.
                        self.serve(from, to, &request);
                    }
                    if !self.passes(to, from) {
                        response = None;
                    }
                }
                let answered = response.is_some();
                let outcome = Event::Outcome { to: from, from: to, ask, response };
                if answered { self.once_durable(to, outcome) } else { self.after(100, outcome) }
            }
            Event::Outcome { to, from, ask, response } => {
                let Some(process) = self.nodes.get_mut(&to).unwrap().process.as_mut() else { return };
                if process.incarnation != ask.incarnation {
                    return;
                }
                // The request for a vote may have left before the vote for itself was durable.
                if process.flushes.done < ask.asked {
                    process.flushes.held.push((ask.asked, Event::Outcome { to, from, ask, response }));
                    return;
                }
                self.step(to, |voter, store, now, fx| {
                    voter.on_response(now, from, ask.number, response.as_ref(), store, fx).unwrap();
                });
            }
            Event::Synced { node: id, incarnation, cut, count, state, sync } => {
                let node = self.nodes.get_mut(&id).unwrap();
                let of = |process: &&mut Process| process.incarnation == incarnation;
                let Some(process) = node.process.as_mut().filter(of) else { return };
                (process.flushes.under_way, process.flushes.done) = (false, count);
                node.state = state;
                self.step(id, |voter, store, now, fx| {
                    if voter.cuts() == cut {
                        store.log_mut().end_sync(&sync).unwrap();
                    } else {
                        store.log_mut().directory_mut().mark_synced(&sync.unsynced).unwrap();
                    }
                    voter.synced(now, sync.upto, cut, store, fx);
                });
                let flushes = &mut self.nodes.get_mut(&id).unwrap().process.as_mut().unwrap().flushes;
                let due: Vec<_> = flushes.held.extract_if(.., |(held, _)| *held <= count).collect();
                due.into_iter().for_each(|(_, event)| self.after(10, event));
            }
            Event::Start(id) => self.start(id),
            Event::Crash(id, power) => self.crash(id, power),
            Event::Append => {
                self.appended += 1;
                let (name, count) = (format!("key-{}", self.appended % 7), self.appended);
                for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.step(id, |voter, store, now, fx| {
                        // Also before the leadership is committed.
                        let Some(epoch) = voter.leading() else { return };
                        let record = ConfigRecord {
                            resource_type: 4,
                            name: name.clone(),
                            value: Some(format!("{count} of {id}")),
                            ..ConfigRecord::default()
                        };
                        store.append_records(epoch, now.wall_ms, &[MetadataRecord::from(record)]).unwrap();
                        voter.appended(store, fx);
                    });
                }
            }
            Event::Snapshot => {
                for node in self.nodes.values_mut() {
                    let Some(Process { store, image, .. }) = &mut node.process else { continue };
                    let end_offset = image.next_offset();
                    if self.rng.bool() && end_offset > store.start_offset() {
                        let snapshot = SnapshotId { end_offset, epoch: store.epoch_before(end_offset) };
                        let bytes = Checkpoint::write(snapshot, image, 0).unwrap();
                        store.keep_snapshot(snapshot, bytes).unwrap();
                    }
                }
            }
            Event::Cut(apart) => self.apart = apart,
            Event::Quiet => {
                self.apart.clear();
                (self.loss, self.storm) = (0.0, false);
            }
        }
    }

    fn run(&mut self, until: Duration) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((when, _), event) = entry.remove_entry();
            self.now = when;
            self.carry_out(event);
        }
        self.now = until;
    }

    /// Goal: with everybody up and nothing wrong, one leads and all have the same.
    fn check_rest(&mut self) {
        self.at(self.now, Event::Append);
        self.run(self.now + 2_000 * MS);
        let processes: Vec<_> = self.nodes.values().map(|node| node.process.as_ref().unwrap()).collect();
        let active = processes.iter().filter(|process| process.voter.active_epoch().is_some()).count();
        assert_eq!(active, 1, "one voter leads");
        for process in &processes {
            let (voter, store) = (&process.voter, &process.store);
            assert_eq!(store.end_offset(), self.committed_end, "voter {}", voter.id());
            assert_eq!(voter.high_watermark(), self.committed_end, "voter {}", voter.id());
            assert_eq!(process.image, processes[0].image);
        }
    }
}

fn history(seed: u64, voters: i32) -> Sim {
    let mut sim = Sim::new(seed, voters);
    for id in 1..=voters {
        sim.after(20, Event::Start(id));
    }
    sim.loss = f64::from(sim.rng.u32(0..=20)) / 100.0;
    sim.storm = sim.rng.bool();
    for _ in 0..60 {
        sim.after(6_000, Event::Append);
    }
    for _ in 0..sim.rng.u32(0..=12) {
        sim.after(6_000, Event::Snapshot);
    }
    for _ in 0..sim.rng.u32(0..=10) {
        let id = sim.rng.i32(1..=voters);
        let power = sim.rng.u8(0..3) > 0;
        sim.after(6_000, Event::Crash(id, power));
    }
    for _ in 0..sim.rng.u32(0..=10) {
        let apart = (1..=voters).filter(|_| sim.rng.u8(0..3) == 0).collect();
        sim.after(6_000, Event::Cut(apart));
    }
    sim.at(6_000 * MS, Event::Quiet);
    sim.run(8_000 * MS);
    sim.check_rest();
    sim
}

#[test]
fn one_leads_per_epoch_and_what_is_committed_stays() {
    let (mut elections, mut truncations, mut loaded, mut committed) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let sim = history(seed, [1, 3, 3, 5][(seed % 4) as usize]);
        (elections, truncations) = (elections + sim.elections, truncations + sim.truncations);
        (loaded, committed) = (loaded + sim.loaded, committed + sim.committed_end);
    }
    println!(
        "{elections} elections, {truncations} truncations, {loaded} snapshots loaded, {committed} records"
    );
    assert!(
        elections > 400 && truncations > 20 && loaded > 20 && committed > 2_000,
        "the histories are too tame"
    );
}

#[test]
fn a_voter_that_votes_twice_is_found() {
    klamm_wire::planted::plant(Some(klamm_wire::planted::Bug::VoteTwice));
    let found = (0..50).any(|seed| std::panic::catch_unwind(|| history(seed, 3)).is_err());
    klamm_wire::planted::plant(None);
    assert!(found);
}

#[test]
fn equal_seeds_give_equal_histories() {
    let told = |sim: &Sim| (sim.elections, sim.truncations, sim.committed.clone(), sim.leaders.clone());
    assert_eq!(told(&history(7, 3)), told(&history(7, 3)));
}
