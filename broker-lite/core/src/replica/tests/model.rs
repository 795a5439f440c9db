//! Three replicas, a plain controller and a few clients under random schedules.
//!
//! In: a list of steps (produce, fetch, deliver metadata, answer the leader, elect, kill, restart, fence and let back,
//! let time pass; with `flush.messages` = 1 also the ends of syncs, and losses of power that leave any part of what was not synced).
//! Checked after every step: nothing committed is ever lost, changed or moved. Checked at the end, once everything is
//! healed: all logs are equal, every acknowledged batch is in them once and in order, and the producers' state is that
//! of the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use klamm_wire::ErrorCode;
use proptest::prelude::*;

use super::support::{S, WALL_MS, identity, settings};
use crate::Tick;
use crate::log::content;
use crate::log::testing::{idempotent, plain};
use crate::metadata::PartitionRegistration;
use crate::replica::*;
use crate::storage::MemoryDirectory;

const BROKERS: [i32; 3] = [1, 2, 3];
const MIN_ISR: usize = 2;
const IN_FLIGHT: usize = 5;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A producer sends all it has in flight, and a new batch of `count` records, to `broker`.
    Produce {
        producer: usize,
        count: usize,
        broker: i32,
    },
    /// Someone without idempotence writes with acks=1.
    Scribble {
        broker: i32,
    },
    /// A follower asks its leader, `batches` batches at most; the answer may be held back.
    Fetch {
        broker: i32,
        batches: usize,
        hold: bool,
    },
    /// The oldest answer held back arrives.
    Arrive,
    /// A broker takes the latest metadata.
    Metadata {
        broker: i32,
    },
    /// The controller takes the oldest AlterPartition; its answer may get lost, or come before or after the metadata.
    /// `late`: the leader gives up waiting, and the request arrives after whatever it sends then.
    Controller {
        lose_request: bool,
        lose_answer: bool,
        late: bool,
    },
    Elect {
        choice: usize,
    },
    Kill {
        broker: i32,
    },
    Restart {
        broker: i32,
    },
    /// A broker that lives is not heard of by the controller for a while.
    Fence {
        broker: i32,
    },
    /// All that are fenced are heard of again.
    Unfence,
    Pass {
        ms: u64,
    },
    /// Metadata reaches everybody, the leader gets a batch, everybody fetches twice; every disk keeps up but that of
    /// `slow`.
    Round {
        slow: i32,
    },
    RestartAll,
    /// One of the syncs under way is done.
    Sync {
        choice: usize,
    },
    /// A broker loses power; `kept` unsynced bytes had reached its disk.
    PowerOff {
        broker: i32,
        kept: u64,
    },
    /// All lose power in one moment, in that order for the controller.
    PowerOffAll {
        first: usize,
        kept: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let broker = || prop::sample::select(&BROKERS[..]);
    prop_oneof![
        8 => (0usize..2, 1usize..4, broker()).prop_map(|(producer, count, broker)| Step::Produce { producer, count, broker }),
        1 => broker().prop_map(|broker| Step::Scribble { broker }),
        14 => (broker(), 1usize..4, prop::bool::weighted(0.1)).prop_map(|(broker, batches, hold)| Step::Fetch { broker, batches, hold }),
        1 => Just(Step::Arrive),
        6 => broker().prop_map(|broker| Step::Metadata { broker }),
        4 => (prop::bool::weighted(0.1), prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(|(lose_request, lose_answer, late)| Step::Controller { lose_request, lose_answer, late }),
        1 => (0usize..3).prop_map(|choice| Step::Elect { choice }),
        1 => broker().prop_map(|broker| Step::Kill { broker }),
        3 => broker().prop_map(|broker| Step::Restart { broker }),
        1 => broker().prop_map(|broker| Step::Fence { broker }),
        3 => Just(Step::Unfence),
        2 => prop_oneof![Just(100u64), Just(3_000), Just(11_000)].prop_map(|ms| Step::Pass { ms }),
    ]
}

/// The steps above, on disks that take their time and lose what they have not synced.
fn step_on_disk() -> impl Strategy<Value = Step> {
    let broker = || prop::sample::select(&BROKERS[..]);
    let kept = || prop_oneof![Just(0u64), 0u64..400];
    prop_oneof![
        44 => step(),
        10 => broker().prop_map(|slow| Step::Round { slow }),
        8 => Just(Step::RestartAll),
        9 => (0usize..9).prop_map(|choice| Step::Sync { choice }),
        3 => (broker(), kept()).prop_map(|(broker, kept)| Step::PowerOff { broker, kept }),
        3 => (0usize..3, kept()).prop_map(|(first, kept)| Step::PowerOffAll { first, kept }),
    ]
}

/// One batch: what tells it from all others.
type Identity = (i64, i32, u32, i32);

#[derive(Debug, Default)]
struct Client {
    next_sequence: i32,
    in_flight: VecDeque<(i32, Bytes)>,
    /// Base sequence and promised base offset of what was acknowledged.
    acknowledged: Vec<(i32, i64)>,
}

#[derive(Debug)]
struct Waiting {
    broker: i32,
    incarnation: i64,
    producer: usize,
    base_sequence: i32,
    appended: Appended,
}

#[derive(Debug)]
struct Held {
    broker: i32,
    incarnation: i64,
    leader_epoch: i32,
    fetched: Fetched,
}

struct World {
    now: Tick,
    settings: ReplicaSettings,
    /// Broker, incarnation, generation and end of each sync under way.
    syncing: Vec<(i32, i64, u64, i64)>,
    registration: PartitionRegistration,
    up: BTreeMap<i32, Replica<MemoryDirectory>>,
    down: BTreeMap<i32, MemoryDirectory>,
    /// Alive, but not heard of by the controller.
    fenced: BTreeSet<i32>,
    /// Broker epochs.
    epochs: BTreeMap<i32, i64>,
    asked: VecDeque<(i32, i64, AlterPartition)>,
    held: VecDeque<Held>,
    clients: [Client; 2],
    waiting: Vec<Waiting>,
    /// Everything that was below a high watermark once.
    committed: BTreeMap<i64, Identity>,
    truncations: usize,
    /// Brokers whose power was lost in the midst of a write.
    torn: BTreeSet<i32>,
    /// Recoveries that cut off part of a batch, and power losses that took something.
    cuts: usize,
    losses: usize,
}

impl World {
    fn new(sync_before_ack: bool) -> Self {
        let mut settings = ReplicaSettings { sync_before_ack, ..settings(MIN_ISR) };
        // As on a disk: several segments, with files beside them.
        settings.log.segment_bytes = if sync_before_ack { 400 } else { settings.log.segment_bytes };
        let directory = || match sync_before_ack {
            true => MemoryDirectory::with_derived_files(),
            false => MemoryDirectory::new(),
        };
        let open = |id: &i32| (*id, Replica::new(identity(*id), directory(), settings.clone()).unwrap());
        let mut world = Self {
            now: S,
            syncing: Vec::new(),
            registration: super::support::registration(&BROKERS, Some(1), 0, 0),
            up: BROKERS.iter().map(open).collect(),
            down: BTreeMap::new(),
            fenced: BTreeSet::new(),
            epochs: BROKERS.iter().map(|id| (*id, i64::from(*id))).collect(),
            asked: VecDeque::new(),
            held: VecDeque::new(),
            clients: Default::default(),
            waiting: Vec::new(),
            committed: BTreeMap::new(),
            truncations: 0,
            torn: BTreeSet::new(),
            cuts: 0,
            losses: 0,
            settings,
        };
        BROKERS.iter().for_each(|id| world.metadata(*id));
        world
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Produce { producer, count, broker } => self.produce(producer, count, broker),
            Step::Scribble { broker } => {
                self.on(broker, |replica, now, fx| {
                    let produce = Produce { records: plain(1), acks: 1, api_version: 9 };
                    let _ = replica.append(now, WALL_MS, &produce, fx);
                });
            }
            Step::Fetch { broker, batches, hold } => self.fetch(broker, batches, hold),
            Step::Arrive => {
                if let Some(held) = self.held.pop_front() {
                    self.arrive(&held);
                }
            }
            Step::Metadata { broker } => self.metadata(broker),
            Step::Controller { lose_request, lose_answer, late } => {
                self.controller(lose_request, lose_answer, late);
            }
            Step::Elect { choice } => self.elect(choice),
            Step::Kill { broker } => self.kill(broker),
            Step::Restart { broker } => self.restart(broker),
            Step::Fence { broker } => self.fence(broker),
            Step::Unfence => self.unfence(),
            Step::Pass { ms } => self.pass(Tick::from_millis(ms)),
            Step::Round { slow } => self.round(slow),
            Step::RestartAll => BROKERS.iter().for_each(|id| self.restart(*id)),
            Step::Sync { choice } => self.sync(choice),
            Step::PowerOff { broker, kept } => self.power_off(broker, kept),
            Step::PowerOffAll { first, kept } => {
                (0..3).for_each(|turn| self.power_off(BROKERS[(first + turn) % 3], kept));
            }
        }
        self.collect_acknowledgements();
        self.check_committed();
    }

    /// Does something on a broker that is up, and carries out the effects.
    fn on<T>(
        &mut self,
        broker: i32,
        act: impl FnOnce(&mut Replica<MemoryDirectory>, Tick, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let replica = self.up.get_mut(&broker)?;
        let mut fx = Vec::new();
        let result = act(replica, self.now, &mut fx);
        for effect in fx {
            match effect {
                Effect::AlterPartition(ask) => self.asked.push_back((broker, self.epochs[&broker], ask)),
                Effect::Truncated(_) => self.truncations += 1,
                Effect::StorageFailed(error) => panic!("{error}"),
                Effect::Sync { generation, upto } => {
                    self.syncing.push((broker, self.epochs[&broker], generation, upto));
                }
                _ => {}
            }
        }
        Some(result)
    }

    fn produce(&mut self, producer: usize, count: usize, broker: i32) {
        let client = &mut self.clients[producer];
        if client.in_flight.len() < IN_FLIGHT {
            let value = [producer as u8, client.next_sequence as u8];
            let batch = idempotent(producer as i64, 0, client.next_sequence, &vec![&value[..]; count]);
            client.in_flight.push_back((client.next_sequence, batch));
            client.next_sequence += count as i32;
        }
        self.send_in_flight(producer, broker);
    }

    fn send_in_flight(&mut self, producer: usize, broker: i32) {
        let client = &self.clients[producer];
        for (base_sequence, records) in client.in_flight.clone() {
            let produce = Produce { records, acks: -1, api_version: 9 };
            let sent = self.on(broker, |replica, now, fx| replica.append(now, WALL_MS, &produce, fx));
            match sent {
                Some(Ok(appended)) => {
                    let incarnation = self.epochs[&broker];
                    self.waiting.push(Waiting { broker, incarnation, producer, base_sequence, appended });
                }
                // pipelined requests stop at the first error
                Some(Err(_)) | None => break,
            }
        }
    }

    fn collect_acknowledgements(&mut self) {
        for wait in std::mem::take(&mut self.waiting) {
            let alive = self.epochs[&wait.broker] == wait.incarnation;
            let Some(replica) = self.up.get(&wait.broker).filter(|_| alive) else { continue };
            match replica.acked(wait.appended.leader_epoch, wait.appended.last_offset + 1) {
                Ok(false) => self.waiting.push(wait),
                Err(_) => {}
                Ok(true) => {
                    let client = &mut self.clients[wait.producer];
                    client.in_flight.retain(|(sequence, _)| *sequence != wait.base_sequence);
                    client.acknowledged.push((wait.base_sequence, wait.appended.base_offset));
                }
            }
        }
    }

    fn fetch(&mut self, broker: i32, batches: usize, hold: bool) {
        let incarnation = self.epochs[&broker];
        let Some(position) = self.up.get(&broker).and_then(Replica::fetch_position) else { return };
        let from = FetchFrom {
            fetcher: Fetcher::Replica { id: broker, epoch: incarnation, log_start_offset: 0 },
            offset: position.offset,
            last_fetched_epoch: Some(position.last_fetched_epoch),
            current_leader_epoch: Some(position.current_leader_epoch),
            max_bytes: batches * 90,
            min_one: true,
        };
        let leader_epoch = position.current_leader_epoch;
        let answer = self.on(position.leader, |leader, now, fx| leader.read(now, &from, fx));
        let Some(Ok(fetched)) = answer else { return };
        let held = Held { broker, incarnation, leader_epoch, fetched };
        if hold {
            self.held.push_back(held);
        } else {
            self.arrive(&held);
        }
    }

    fn arrive(&mut self, held: &Held) {
        if self.epochs[&held.broker] != held.incarnation {
            return;
        }
        let Held { leader_epoch, fetched, .. } = held;
        self.on(held.broker, |replica, now, fx| {
            if let Some(diverging) = fetched.diverging {
                let _ = replica.truncate(now, *leader_epoch, diverging, fx);
                return;
            }
            let answer = FetchedFromLeader {
                leader_epoch: *leader_epoch,
                records: fetched.records.concat().into(),
                high_watermark: fetched.high_watermark,
                log_start_offset: fetched.log_start_offset,
            };
            let _ = replica.append_fetched(now, &answer, fx);
        });
    }

    fn metadata(&mut self, broker: i32) {
        let registration = self.registration.clone();
        let alive = BROKERS.into_iter().filter(|id| self.is_active(*id));
        let alive: BTreeMap<i32, i64> = alive.map(|id| (id, self.epochs[&id])).collect();
        self.on(broker, |replica, now, fx| {
            replica.apply_metadata(now, &registration, &|id| alive.get(&id).copied(), fx);
        });
    }

    fn is_active(&self, broker: i32) -> bool {
        self.up.contains_key(&broker) && !self.fenced.contains(&broker)
    }

    fn controller(&mut self, lose_request: bool, lose_answer: bool, late: bool) {
        let Some((broker, incarnation, ask)) = self.asked.pop_front() else { return };
        let lost = Err(ErrorCode::REQUEST_TIMED_OUT);
        let verdict = if lose_request || late { lost.clone() } else { self.alter(broker, &ask) };
        let answer = if lose_answer { lost } else { verdict };
        if self.epochs[&broker] == incarnation {
            self.on(broker, |replica, now, fx| {
                replica.alter_partition_answered(now, ask.proposal, answer, fx);
            });
        }
        if late && !lose_request {
            self.asked.push_back((broker, incarnation, ask));
        }
    }

    fn alter(&mut self, broker: i32, ask: &AlterPartition) -> Result<AlteredPartition, ErrorCode> {
        let state = &mut self.registration;
        if ask.leader_epoch != state.leader_epoch || state.leader != Some(broker) {
            return Err(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if ask.partition_epoch != state.partition_epoch {
            return Err(ErrorCode::INVALID_UPDATE_VERSION);
        }
        let eligible = |member: &IsrMember| {
            let same = member.broker_epoch == -1 || member.broker_epoch == self.epochs[&member.broker_id];
            same && self.up.contains_key(&member.broker_id) && !self.fenced.contains(&member.broker_id)
        };
        if !ask.isr.iter().all(eligible) {
            state.partition_epoch += 1;
            return Err(ErrorCode::INELIGIBLE_REPLICA);
        }
        state.isr = ask.isr.iter().map(|member| member.broker_id).collect();
        state.partition_epoch += 1;
        Ok(AlteredPartition {
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            isr: state.isr.clone(),
            leader_recovery_state: ask.leader_recovery_state,
            partition_epoch: state.partition_epoch,
        })
    }

    fn elect(&mut self, choice: usize) {
        let living: Vec<i32> =
            self.registration.isr.iter().copied().filter(|id| self.is_active(*id)).collect();
        let leader = living.get(choice % living.len().max(1)).copied();
        let state = &mut self.registration;
        if leader != state.leader {
            state.leader = leader;
            state.leader_epoch += 1;
            state.partition_epoch += 1;
        }
    }

    /// The controller fences the dead at once: nothing that happens before is harder than a slow metadata delivery.
    fn kill(&mut self, broker: i32) {
        let Some(replica) = self.up.remove(&broker) else { return };
        self.down.insert(broker, replica.into_directory());
        self.lose(broker);
    }

    /// It runs, and the controller thinks it does not.
    fn fence(&mut self, broker: i32) {
        if self.up.contains_key(&broker) && self.fenced.insert(broker) {
            self.lose(broker);
        }
    }

    fn unfence(&mut self) {
        self.fenced.clear();
        if self.registration.leader.is_none() {
            self.elect(0);
        }
    }

    /// What the controller does about one that is not there.
    fn lose(&mut self, broker: i32) {
        let state = &mut self.registration;
        if state.isr.len() > 1 && state.isr.contains(&broker) {
            state.isr.retain(|id| *id != broker);
            state.partition_epoch += 1;
        }
        if state.leader == Some(broker) {
            self.elect(0);
        }
    }

    fn power_off(&mut self, broker: i32, kept: u64) {
        if !self.up.contains_key(&broker) {
            return;
        }
        self.kill(broker);
        let directory = self.down.get_mut(&broker).unwrap();
        let before = content(directory).unwrap();
        directory.power_off_torn(&mut |_| kept);
        self.losses += usize::from(content(directory).unwrap() != before);
        self.torn.insert(broker);
    }

    fn round(&mut self, slow: i32) {
        BROKERS.iter().for_each(|id| self.metadata(*id));
        if let Some(leader) = self.registration.leader {
            self.produce(0, 1, leader);
        }
        for id in BROKERS.into_iter().chain(BROKERS) {
            self.fetch(id, 100, false);
            while let Some(choice) = self.syncing.iter().position(|(broker, ..)| *broker != slow) {
                self.sync(choice);
            }
        }
    }

    fn sync(&mut self, choice: usize) {
        if self.syncing.is_empty() {
            return;
        }
        let (broker, incarnation, generation, upto) = self.syncing.remove(choice % self.syncing.len());
        if self.epochs[&broker] == incarnation {
            self.on(broker, |replica, now, fx| replica.synced(now, generation, upto, fx));
        }
    }

    fn restart(&mut self, broker: i32) {
        let Some(directory) = self.down.remove(&broker) else { return };
        let replica = Replica::new(identity(broker), directory, self.settings.clone()).unwrap();
        let torn = self.torn.remove(&broker);
        assert!(torn || replica.recovered_from().is_none(), "a kill damages nothing");
        self.cuts += usize::from(replica.recovered_from().is_some());
        *self.epochs.get_mut(&broker).unwrap() += 10;
        self.fenced.remove(&broker);
        self.up.insert(broker, replica);
        if self.registration.leader.is_none() {
            self.elect(0);
        }
    }

    fn pass(&mut self, time: Tick) {
        let until = self.now + time;
        loop {
            let due = self.up.iter().filter_map(|(id, replica)| Some((replica.deadline()?, *id))).min();
            match due.filter(|(at, _)| *at <= until) {
                Some((at, broker)) => {
                    self.now = self.now.max(at);
                    self.on(broker, |replica, now, fx| replica.on_deadline(now, fx));
                    let again = self.up[&broker].deadline();
                    assert!(
                        again.is_none_or(|again| again > self.now),
                        "a deadline must not stay due: {again:?}"
                    );
                }
                None => break,
            }
        }
        self.now = until;
    }

    /// Nothing below any high watermark may differ from what was there before, on any broker, for ever.
    fn check_committed(&mut self) {
        for (broker, replica) in &self.up {
            for (base, identity) in batches(replica) {
                if base >= replica.high_watermark() {
                    break;
                }
                let known = *self.committed.entry(base).or_insert(identity);
                assert_eq!(known, identity, "broker {broker} has something else at committed offset {base}");
            }
        }
        let leader = self.registration.leader.and_then(|id| self.up.get(&id));
        if let Some(leader) = leader {
            let held: BTreeMap<i64, Identity> = batches(leader).into_iter().collect();
            for (base, identity) in &self.committed {
                assert_eq!(held.get(base), Some(identity), "the leader has lost committed offset {base}");
            }
        }
    }

    /// Brings everybody up and lets them talk until nothing changes any more.
    fn heal(&mut self) {
        BROKERS.iter().for_each(|id| self.restart(*id));
        self.unfence();
        for _ in 0..100 {
            BROKERS.iter().for_each(|id| self.metadata(*id));
            self.pass(Tick::from_millis(200));
            while !self.asked.is_empty() {
                self.controller(false, false, false);
            }
            BROKERS.iter().for_each(|id| self.fetch(*id, 100, false));
            while !self.syncing.is_empty() {
                self.sync(0);
            }
            self.collect_acknowledgements();
            self.check_committed();
            let leader = self.registration.leader.unwrap();
            (0..2).for_each(|producer| self.send_in_flight(producer, leader));
        }
    }

    fn check_healed(&self) {
        let leader = &self.up[&self.registration.leader.unwrap()];
        let log = batches(leader);
        for replica in self.up.values() {
            assert_eq!(batches(replica), log, "{} differs", replica.identity());
            assert_eq!(replica.log().verify(), []);
            assert_eq!(replica.log().producers(), leader.log().producers());
            assert_eq!(self.registration.isr.len(), BROKERS.len(), "everybody is back in the ISR");
            assert_eq!(replica.high_watermark(), replica.log_end_offset());
        }
        for (producer, client) in self.clients.iter().enumerate() {
            let written: Vec<(i32, i64)> = log
                .iter()
                .filter(|(_, identity)| identity.0 == producer as i64)
                .map(|(base, identity)| (identity.1, *base))
                .collect();
            assert!(
                client.in_flight.is_empty(),
                "everything is acknowledged in the end: {:?}",
                client.in_flight
            );
            assert!(written.is_sorted_by(|a, b| a.0 < b.0), "twice or out of order: {written:?}");
            for promised in &client.acknowledged {
                assert!(written.contains(promised), "acknowledged, but not there: {promised:?}");
            }
        }
    }

    fn check_rebuilt(&mut self) {
        for (id, replica) in std::mem::take(&mut self.up) {
            let (live, epochs) = (replica.log().producers().clone(), replica.log().epochs().clone());
            let again = Replica::new(identity(id), replica.into_directory(), self.settings.clone()).unwrap();
            assert_eq!(again.log().producers(), &live, "producers rebuilt from the log");
            let written = |epoch: i32| batches(&again).iter().any(|(_, identity)| identity.3 == epoch);
            let kept: Vec<_> =
                epochs.entries().iter().filter(|entry| written(entry.epoch)).copied().collect();
            assert_eq!(again.log().epochs().entries(), kept, "epochs rebuilt from the log");
        }
    }
}

/// Base offset and identity (producer, sequence, CRC, leader epoch) of every batch.
fn batches(replica: &Replica<MemoryDirectory>) -> Vec<(i64, Identity)> {
    let all = replica.log().batches().map(|found| *found.unwrap().1.header());
    all.map(|h| (h.base_offset, (h.producer_id, h.base_sequence, h.crc, h.partition_leader_epoch))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Committed records are never lost or changed, duplicates never appended, and all replicas end up equal.
    #[test]
    fn whatever_happens_nothing_committed_is_lost(steps in prop::collection::vec(step(), 0..150)) {
        let mut world = World::new(false);
        steps.into_iter().for_each(|step| world.run(step));
        world.heal();
        world.check_healed();
        world.check_rebuilt();
    }

    /// The same, although any of the brokers may lose power at any moment, or all at once.
    #[test]
    fn with_flush_messages_1_no_loss_of_power_loses_anything_committed(
        steps in prop::collection::vec(step_on_disk(), 0..200),
    ) {
        let mut world = World::new(true);
        steps.into_iter().for_each(|step| world.run(step));
        world.heal();
        world.check_healed();
        world.check_rebuilt();
    }
}

/// Goal: a proposal that was refused is over, although a request for it may be under way still: taken later, it would
/// put a follower into the ISR that the leader waits for no more. Seed 6268 of the simulation lost committed records. The
/// controller here is a plain one; that the real one does its part is tested there, and by a planted bug.
#[test]
fn a_proposal_that_was_refused_is_not_carried_out_later() {
    let mut world = World::new(false);
    let produce = Step::Produce { producer: 0, count: 1, broker: 1 };
    let take = |late| Step::Controller { lose_request: false, lose_answer: false, late };
    let meet = |world: &mut World| {
        BROKERS.iter().for_each(|id| world.run(Step::Metadata { broker: *id }));
        (2..=3).for_each(|broker| world.run(Step::Fetch { broker, batches: 9, hold: false }));
    };
    // 3 has left the ISR, and catches up
    world.run(Step::Fence { broker: 3 });
    world.run(Step::Unfence);
    meet(&mut world);
    assert_eq!(world.registration.isr, [1, 2]);
    world.run(take(true));
    world.run(Step::Pass { ms: 3_000 });
    assert_eq!(world.asked.len(), 2, "asked again");
    // the repetition overtakes the first request, and is refused
    world.asked.rotate_left(1);
    world.run(Step::Fence { broker: 3 });
    world.run(take(false));
    // committed without 3
    BROKERS.iter().for_each(|id| world.run(Step::Metadata { broker: *id }));
    for step in [produce, Step::Fetch { broker: 2, batches: 9, hold: false }] {
        world.run(step);
        world.run(Step::Fetch { broker: 2, batches: 9, hold: false });
    }
    assert_eq!(world.up[&1].high_watermark(), 1);
    world.run(Step::Unfence);
    world.run(take(false));
    assert_eq!(world.registration.isr, [1, 2], "3 has not the record that is committed");
    world.heal();
    world.check_healed();
}

/// Goal: a truncation that was not durable is undone by a loss of power; the high watermark that was learned for what came
/// in its place must not be remembered then.
#[test]
fn what_a_truncation_has_taken_and_a_loss_of_power_brings_back_is_not_committed() {
    let mut world = World::new(true);
    let steps = [
        Step::Produce { producer: 0, count: 1, broker: 1 },
        // all of the batch had reached the disk
        Step::PowerOff { broker: 1, kept: 70 },
        Step::Round { slow: 1 },
        Step::Restart { broker: 1 },
        Step::Round { slow: 1 },
        Step::Pass { ms: 11_000 },
        Step::PowerOffAll { first: 0, kept: 0 },
        Step::RestartAll,
    ];
    steps.into_iter().for_each(|step| world.run(step));
    world.heal();
    world.check_healed();
}

/// Goal: the check above can fail. The same loss of power, with and without the setting.
#[test]
fn without_flush_messages_1_a_loss_of_power_of_all_loses_what_was_acknowledged() {
    let schedule = |world: &mut World| {
        world.run(Step::Produce { producer: 0, count: 1, broker: 1 });
        for _ in 0..2 {
            BROKERS.iter().for_each(|id| world.run(Step::Fetch { broker: *id, batches: 9, hold: false }));
            while !world.syncing.is_empty() {
                world.run(Step::Sync { choice: 0 });
            }
        }
        assert_eq!(world.clients[0].acknowledged, [(0, 0)]);
        (0..3).for_each(|turn| world.power_off(BROKERS[turn], 0));
        BROKERS.iter().for_each(|id| world.restart(*id));
        let leader = world.registration.leader.unwrap();
        world.up[&leader].log_end_offset()
    };
    assert_eq!(schedule(&mut World::new(true)), 1);
    assert_eq!(schedule(&mut World::new(false)), 0, "acknowledged by all, and gone");
}

/// Goal: the schedules above do reach the rare events; a property test that never truncates proves little.
#[test]
fn the_random_schedules_truncate_and_commit() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut truncated, mut committed, mut acknowledged) = (0, 0, 0);
    for _ in 0..60 {
        let steps = prop::collection::vec(step(), 150).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(false);
        steps.into_iter().for_each(|step| world.run(step));
        truncated += usize::from(world.truncations > 0);
        committed += usize::from(world.committed.len() > 2);
        acknowledged += usize::from(world.clients.iter().any(|client| client.acknowledged.len() > 1));
    }
    assert!(truncated >= 6, "{truncated} of 60 schedules truncated");
    assert!(committed >= 30, "{committed} of 60 schedules committed");
    assert!(acknowledged >= 20, "{acknowledged} of 60 schedules acknowledged");
}

/// Goal: as above, for the schedules with losses of power.
#[test]
fn the_random_losses_of_power_take_something_and_tear_batches() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut lost, mut cut, mut acknowledged) = (0, 0, 0);
    for _ in 0..60 {
        let steps = prop::collection::vec(step_on_disk(), 200).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(true);
        steps.into_iter().for_each(|step| world.run(step));
        lost += usize::from(world.losses > 0);
        cut += usize::from(world.cuts > 0);
        acknowledged += usize::from(world.clients.iter().any(|client| client.acknowledged.len() > 1));
    }
    assert!(lost >= 20, "{lost} of 60 schedules lost unsynced bytes");
    assert!(cut >= 6, "{cut} of 60 schedules tore a batch");
    assert!(acknowledged >= 15, "{acknowledged} of 60 schedules acknowledged");
}
