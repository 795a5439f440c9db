//! A small cluster that answers, fails, moves leaders and forgets sessions in any order, and what must hold
//! whatever it does: every record once and in order, one Fetch per leader, the budget kept, and everything read
//! in the end. A second fetcher is told the same and looks at all partitions each time: it must say the same.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;

use super::super::demand::Want;
use super::super::partition::Stage;
use super::*;

const PARTITIONS: i32 = 4;
const BROKERS: i32 = 3;
const END: i64 = 30;
const BUDGET: usize = 1_000;

/// What happens next; numbers are taken modulo whatever there is.
#[derive(Debug, Clone)]
enum Act {
    Answer(usize),
    Fail(usize),
    /// It was answered before its broker lost leadership, and not for every partition that was looked up.
    AnswerLate(usize),
    /// The broker did it, but the answer was lost.
    Lose(usize),
    PartitionError(usize, i16),
    ForgetSessions,
    MoveLeader(i32, i32),
    Take,
    /// Reads a few records, then gives the rest back as pausing does.
    TakeSome(usize),
    /// Reads a few records, then finds the rest damaged.
    Damage(usize),
    DropRecords,
    Seek(i32, i64),
    Pause(i32),
    Resume(i32),
    SetApart(i32, bool),
    /// What the reader of a partition of its own takes.
    TakeApart(i32),
    Add(i32),
    Remove(i32),
    Assign(u8),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let code = prop_oneof![Just(6i16), Just(74), Just(76), Just(3), Just(100), Just(-1), Just(56), Just(5)];
    prop_oneof![
        8 => any::<usize>().prop_map(Act::Answer),
        2 => any::<usize>().prop_map(Act::Fail),
        4 => any::<usize>().prop_map(Act::AnswerLate),
        2 => any::<usize>().prop_map(Act::Lose),
        2 => (any::<usize>(), code).prop_map(|(which, code)| Act::PartitionError(which, code)),
        1 => Just(Act::ForgetSessions),
        2 => (0..PARTITIONS, 0..BROKERS).prop_map(|(p, b)| Act::MoveLeader(p, b)),
        6 => Just(Act::Take),
        2 => (1usize..4).prop_map(Act::TakeSome),
        1 => (0usize..4).prop_map(Act::Damage),
        4 => Just(Act::DropRecords),
        1 => (0..PARTITIONS, 0..END).prop_map(|(p, to)| Act::Seek(p, to)),
        1 => (0..PARTITIONS).prop_map(Act::Pause),
        2 => (0..PARTITIONS).prop_map(Act::Resume),
        2 => (0..PARTITIONS, any::<bool>()).prop_map(|(p, apart)| Act::SetApart(p, apart)),
        4 => (0..PARTITIONS).prop_map(Act::TakeApart),
        1 => (0..PARTITIONS).prop_map(Act::Add),
        1 => (0..PARTITIONS).prop_map(Act::Remove),
        1 => any::<u8>().prop_map(Act::Assign),
        3 => (1u16..2_000).prop_map(Act::Wait),
    ]
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Right,
    Late,
    Lost,
    With(ErrorCode),
}

/// A request that waits for its answer.
#[derive(Debug, Clone)]
enum Request {
    Fetch(i32, FetchPlan),
    List(i32, u64, Vec<Lookup>),
    Ends(i32, u64, Vec<EpochLookup>),
}

#[derive(Default)]
struct ServerSession {
    id: i32,
    epoch: i32,
    /// Offset and leader epoch by partition.
    partitions: BTreeMap<TopicPartition, (i64, i32)>,
}

/// What a walk over all partitions finds that a broker is wanted for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walked {
    wanted: BTreeMap<TopicPartition, Want>,
    full: bool,
    held_back: bool,
    starving: bool,
    refused: bool,
}

/// As the plan was once made: by looking at every partition.
fn walk(fetcher: &Fetcher, now: Tick) -> BTreeMap<i32, Walked> {
    let settings = fetcher.settings();
    let enough = (settings.prefetch_bytes / fetcher.partitions.len().max(1)).max(1);
    let next = settings.max_partition_bytes as usize;
    let apart = fetcher.partitions.iter().filter(|(_, p)| p.apart);
    let apart: BTreeSet<i32> = apart.filter_map(|(_, p)| p.source()).collect();
    let mut found: BTreeMap<i32, Walked> = BTreeMap::new();
    for (name, partition) in fetcher.partitions.iter() {
        let (Some(leader), Some(source), false) = (partition.leader, partition.source(), partition.paused)
        else {
            continue;
        };
        let walked = found.entry(source).or_default();
        let Stage::Fetch { offset } = partition.stage else { continue };
        if partition.retry.at.is_some() || partition.has_failed() {
            continue;
        }
        let queued = partition.queued_bytes;
        if apart.contains(&source) && queued > 0 && (queued + next > enough || queued > next) {
            walked.held_back = true;
            continue;
        }
        walked.full |= queued >= enough || queued > next;
        walked.starving |= partition.starving && partition.queue.is_empty();
        walked.refused |= partition.refused.at.is_some_and(|at| at > now);
        let target = FetchTarget {
            partition: name.clone(),
            topic_id: leader.topic_id,
            leader_epoch: leader.epoch,
            offset,
        };
        walked.wanted.insert(name.clone(), Want { target, generation: partition.generation });
    }
    found
}

struct World {
    fetcher: Fetcher,
    /// Told the same, and made to look at every partition each time.
    walker: Fetcher,
    now: Tick,
    logs: Vec<Vec<(i64, Bytes)>>,
    leaders: Vec<(i32, i32)>,
    sessions: Vec<ServerSession>,
    next_session: i32,
    pending: Vec<Request>,
    wake: bool,
    /// Next offset the application must see, by assigned partition; `None` until the first record after a lookup.
    expected: BTreeMap<TopicPartition, i64>,
    /// Bytes of chunks that the application still holds.
    kept: usize,
    /// Bytes of chunks in the fetcher's queues.
    queued: usize,
}

impl World {
    fn new(sizes: &[u8]) -> Self {
        let log = |partition: usize| {
            let (mut at, mut batches) = (0, vec![]);
            for size in sizes.iter().cycle().skip(partition) {
                let count = i64::from(*size).min(END - at);
                batches.push((at + count, batch(at, count)));
                at += count;
                if at == END {
                    return batches;
                }
            }
            batches
        };
        let settings = FetchSettings {
            prefetch_bytes: BUDGET,
            max_partition_bytes: 200,
            reset: OffsetReset::Earliest,
            ..settings()
        };
        let fetcher = || Fetcher::new(settings.clone(), fastrand::Rng::with_seed(3));
        let mut world = Self {
            fetcher: fetcher(),
            walker: fetcher(),
            now: Tick::ZERO,
            logs: (0..PARTITIONS as usize).map(log).collect(),
            leaders: (0..PARTITIONS).map(|p| (p % BROKERS, 3)).collect(),
            sessions: (0..BROKERS).map(|_| ServerSession::default()).collect(),
            next_session: 1,
            pending: vec![],
            wake: false,
            expected: BTreeMap::new(),
            kept: 0,
            queued: 0,
        };
        world.assign(u8::MAX);
        world
    }

    fn assign(&mut self, mask: u8) {
        let wanted: Vec<_> = (0..PARTITIONS).filter(|p| mask & (1 << p) != 0).map(tp).collect();
        self.expected = wanted.iter().map(|name| (name.clone(), 0)).collect();
        self.step(Event::Assign(wanted.into_iter().map(|name| (name, StartOffset::Beginning)).collect()));
        self.tell_leaders();
    }

    fn tell_leaders(&mut self) {
        let all = (0..PARTITIONS).map(|p| {
            let (broker, epoch) = self.leaders[p as usize];
            (tp(p), leader(broker, epoch))
        });
        let all = all.collect();
        self.step(Event::Located(all));
    }

    /// Does the same to both fetchers; whatever they say has to be the same.
    fn both<T: PartialEq + Debug>(&mut self, act: impl Fn(&mut Fetcher, Tick) -> T) -> T {
        let said = act(&mut self.fetcher, self.now);
        self.walker.partitions.mark_all();
        let other = act(&mut self.walker, self.now);
        assert_eq!(said, other, "one looks at what has changed, the other one at everything");
        assert_eq!(self.fetcher.deadline(), self.walker.deadline());
        said
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the fetchers take it")]
    fn step(&mut self, event: Event) {
        let out = self.both(|fetcher, now| {
            let mut out = vec![];
            fetcher.step(now, event.clone(), &mut out);
            out
        });
        self.check_demands(&out);
        self.apply(out);
    }

    /// What brokers are wanted for is what a walk finds, and is what those know that were just asked.
    fn check_demands(&self, effects: &[Effect]) {
        let mut walked = walk(&self.fetcher, self.now);
        for (id, broker) in &self.fetcher.brokers {
            let found = walked.remove(id);
            let demand = &broker.demand;
            assert_eq!(demand.is_active(), found.is_some());
            let found = found.unwrap_or_default();
            let asks_for = if found.full { 0 } else { found.wanted.len() };
            assert_eq!(demand.asks_for(), asks_for, "broker {id}: {found:?}, {demand:?}");
            assert_eq!((demand.is_starving(), demand.is_refused()), (found.starving, found.refused));
            let asked = effects.iter().find_map(|effect| match effect {
                Effect::Fetch { broker, plan } if broker == id => Some(plan),
                _ => None,
            });
            if let Some(plan) = asked {
                assert_eq!(broker.session.known(), &found.wanted, "broker {id}");
                assert_eq!(plan.max_wait < 500 * MS, found.held_back);
                assert_eq!(plan.near, !found.refused);
            }
        }
        assert!(walked.is_empty(), "brokers are missing: {walked:?}");
        let brokers = self.fetcher.brokers.values().filter_map(|broker| broker.retry.at);
        let partitions = self.fetcher.partitions.iter().map(|(_, partition)| partition);
        let lost = partitions.clone().filter(|p| !p.has_failed()).filter_map(|p| p.lost);
        let lost = lost.map(|(since, _)| since + self.fetcher.settings().locate_limit);
        let due = brokers.chain(partitions.filter_map(|p| p.retry.at)).chain(lost).min();
        assert_eq!(self.fetcher.deadline(), due);
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch { broker, plan } => {
                    let busy = self.pending.iter().any(|r| matches!(r, Request::Fetch(b, _) if *b == broker));
                    assert!(!busy, "two fetches to broker {broker}");
                    self.pending.push(Request::Fetch(broker, plan));
                    self.check_budget();
                }
                Effect::ListOffsets { broker, lookup, partitions } => {
                    self.pending.push(Request::List(broker, lookup, partitions));
                }
                Effect::Wake => self.wake = true,
                Effect::EndsOfEpochs { broker, lookup, partitions } => {
                    self.pending.push(Request::Ends(broker, lookup, partitions));
                }
                Effect::WasCut { partition, .. }
                | Effect::Void { partition, .. }
                | Effect::Recreated { partition, .. } => panic!("no log was cut, not even of {partition}"),
                Effect::Refresh(_) | Effect::LeaderHint { .. } | Effect::WakeReader(_) | Effect::Unpin => {}
            }
        }
    }

    /// Whenever a Fetch goes out, what is asked for, queued and kept fits into the budget. Only while a reader
    /// waits with empty hands does not count what the application keeps, and then each leader's answer may have
    /// exceeded its limit by one batch.
    fn check_budget(&self) {
        if self.fetcher.partitions.iter().any(|(_, partition)| partition.apart) {
            return; // whose reader waits is served whatever others have queued
        }
        let asked = |r: &Request| if let Request::Fetch(_, plan) = r { plan.max_bytes as usize } else { 0 };
        let asked: usize = self.pending.iter().map(asked).sum();
        let used = asked + self.queued;
        if self.fetcher.starving && self.fetcher.ready.is_empty() {
            let largest = self.logs.iter().flatten().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
            assert!(used <= BUDGET + largest * BROKERS as usize, "{asked} asked for, {} queued", self.queued);
        } else {
            assert!(
                used + self.kept <= BUDGET,
                "{asked} asked for, {} queued, {} kept",
                self.queued,
                self.kept
            );
        }
    }

    fn held(&mut self) {
        self.step(Event::Held(self.kept + self.queued));
    }

    fn answer(&mut self, request: Request, how: How) {
        match request {
            Request::Fetch(broker, plan) => {
                let answer = self.serve(broker, &plan, how);
                let bytes: usize = answer.partitions.iter().map(|p| p.records.len()).sum();
                assert!(bytes <= plan.max_bytes as usize + 400, "the model's broker keeps the limit");
                if how == How::Lost {
                    return self.step(Event::FetchFailed { broker });
                }
                let before = self.fetcher_queue();
                self.step(Event::Held(self.kept + self.queued + bytes));
                self.step(Event::Fetched { broker, answer });
                self.queued += self.fetcher_queue() - before;
                self.held();
            }
            Request::List(broker, lookup, _) | Request::Ends(broker, lookup, _) if how == How::Lost => {
                self.step(Event::ListFailed { broker, lookup });
            }
            Request::Ends(broker, lookup, partitions) => {
                let left_out = usize::from(how == How::Late);
                let ends = partitions.iter().skip(left_out).map(|wanted| {
                    let (leader, _) = self.leaders[wanted.partition.partition as usize];
                    let wrong = match how {
                        How::With(code) => Some(code),
                        _ => (leader != broker).then_some(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                    };
                    let error = wrong.unwrap_or(ErrorCode::NONE);
                    EndOfEpoch { partition: wanted.partition.clone(), error, epoch: wanted.epoch, end: END }
                });
                let ends = Some(ends.collect());
                self.step(Event::Ended { broker, lookup, ends });
            }
            Request::List(broker, lookup, partitions) => {
                let left_out = usize::from(how == How::Late);
                let offsets = partitions.iter().skip(left_out).map(|wanted| {
                    let (leader, _) = self.leaders[wanted.partition.partition as usize];
                    let wrong = match how {
                        How::With(code) => Some(code),
                        _ => (leader != broker).then_some(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                    };
                    ListedOffset {
                        partition: wanted.partition.clone(),
                        error: wrong.unwrap_or(ErrorCode::NONE),
                        offset: if wanted.timestamp == -2 { 0 } else { END },
                        timestamp_ms: -1,
                        leader_epoch: -1,
                    }
                });
                let offsets = offsets.collect();
                self.step(Event::Listed { broker, lookup, offsets });
            }
        }
    }

    fn fetcher_queue(&self) -> usize {
        self.fetcher.partitions.iter().map(|(_, p)| p.queued_bytes).sum()
    }

    /// What a broker answers, sessions included.
    fn serve(&mut self, broker: i32, plan: &FetchPlan, how: How) -> FetchAnswer {
        let session = &mut self.sessions[broker as usize];
        let refuse = |code| FetchAnswer { error: Some(code), ..FetchAnswer::default() };
        if plan.session_epoch == 0 {
            *session = ServerSession { id: self.next_session, epoch: 1, ..ServerSession::default() };
            self.next_session += 1;
        } else if session.id != plan.session_id {
            return refuse(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        } else if session.epoch != plan.session_epoch {
            return refuse(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        } else {
            session.epoch += 1;
        }
        for (name, _) in &plan.forgotten {
            session.partitions.remove(name);
        }
        for target in &plan.partitions {
            session.partitions.insert(target.partition.clone(), (target.offset, target.leader_epoch));
        }
        let mut room = plan.max_bytes as usize;
        let mut first = true;
        let mut partitions = vec![];
        for (name, (offset, epoch)) in &session.partitions {
            let index = name.partition;
            let (leader, current) = self.leaders[index as usize];
            let code = match how {
                How::With(code) => Some(code),
                How::Late => None,
                _ if leader != broker => Some(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                _ if *epoch < current => Some(ErrorCode::FENCED_LEADER_EPOCH),
                _ => None,
            };
            if let Some(code) = code {
                partitions.push(error(index, code));
                continue;
            }
            let mut bytes = vec![];
            for (_, batch) in self.logs[index as usize].iter().filter(|(end, _)| end > offset) {
                if !first && bytes.len() + batch.len() > room.min(200) {
                    break;
                }
                first = false;
                bytes.extend_from_slice(batch);
            }
            room = room.saturating_sub(bytes.len());
            partitions.push(records(index, Bytes::from(bytes)));
        }
        FetchAnswer { error: None, session_id: session.id, partitions }
    }

    /// Takes a chunk and reads at most `limit` records of it.
    fn take(&mut self, limit: usize, then: impl FnOnce(&mut Self, ChunkReader)) -> bool {
        self.take_of(None, limit, then)
    }

    /// As [`Self::take`], with a partition for its own reader.
    fn take_of(
        &mut self,
        apart: Option<i32>,
        limit: usize,
        then: impl FnOnce(&mut Self, ChunkReader),
    ) -> bool {
        let (item, out) = self.both(|fetcher, now| {
            let mut out = vec![];
            let item = match apart {
                Some(partition) => fetcher.take_from(now, &tp(partition), &mut out),
                None => fetcher.take(now, &mut out),
            };
            (item, out)
        });
        if let Some(Handout::Chunk(chunk)) = &item {
            self.queued -= chunk.records.len();
            self.kept += chunk.records.len();
        }
        self.apply(out);
        match item {
            None => return false,
            Some(Handout::Failed { .. }) => {}
            Some(Handout::Chunk(chunk)) => {
                let mut reader = ChunkReader::new(chunk, true, 0);
                for _ in 0..limit {
                    let Some(record) = reader.next(&|bytes| bytes).unwrap() else { return true };
                    let expected = self.expected.get_mut(reader.partition()).expect("assigned");
                    assert_eq!(record.offset, *expected, "of {}", reader.partition());
                    *expected += 1;
                }
                then(self, reader);
            }
        }
        true
    }

    fn give_back(&mut self, reader: ChunkReader) {
        let rest = reader.into_rest();
        self.kept -= rest.records.len();
        let before = self.fetcher_queue();
        self.both(|fetcher, _| fetcher.give_back(rest.clone()));
        self.queued += self.fetcher_queue() - before;
        self.wake = true;
    }

    fn wait(&mut self, by: Duration) {
        self.now += by;
        let out = self.both(|fetcher, now| {
            let mut out = vec![];
            fetcher.on_deadline(now, &mut out);
            out
        });
        assert!(self.fetcher.deadline().is_none_or(|at| at > self.now), "a deadline that came stays due");
        self.apply(out);
    }

    fn act(&mut self, act: &Act) {
        let pending = |world: &mut Self, which: usize| {
            (!world.pending.is_empty()).then(|| {
                let at = which % world.pending.len();
                world.pending.remove(at)
            })
        };
        match *act {
            Act::Answer(which) => {
                if let Some(request) = pending(self, which) {
                    self.answer(request, How::Right);
                }
            }
            Act::AnswerLate(which) => {
                if let Some(request) = pending(self, which) {
                    self.answer(request, How::Late);
                }
            }
            Act::Fail(which) => match pending(self, which) {
                Some(Request::Fetch(broker, _)) => self.step(Event::FetchFailed { broker }),
                Some(Request::List(broker, lookup, _) | Request::Ends(broker, lookup, _)) => {
                    self.step(Event::ListFailed { broker, lookup });
                }
                None => {}
            },
            Act::Lose(which) => {
                if let Some(request) = pending(self, which) {
                    self.answer(request, How::Lost);
                }
            }
            Act::PartitionError(which, code) => {
                if let Some(request) = pending(self, which) {
                    self.answer(request, How::With(ErrorCode(code)));
                }
            }
            Act::ForgetSessions => self.sessions.iter_mut().for_each(|s| *s = ServerSession::default()),
            Act::MoveLeader(partition, to) => {
                let (leader, epoch) = &mut self.leaders[partition as usize];
                (*leader, *epoch) = (to, *epoch + 1);
                if to != 0 {
                    self.tell_leaders(); // else the errors of the brokers tell first
                }
            }
            Act::Take => {
                self.take(usize::MAX, |_, _| {});
            }
            Act::TakeSome(limit) => {
                self.take(limit, Self::give_back);
            }
            Act::Damage(limit) => {
                self.take(limit, |world, reader| {
                    let (partition, generation) = (reader.partition().clone(), reader.generation());
                    let before = world.fetcher_queue();
                    let from = reader.position();
                    world.step(Event::Refetch { partition, generation, from });
                    world.queued -= before - world.fetcher_queue();
                });
            }
            Act::DropRecords => {
                self.kept = 0;
                self.held();
            }
            Act::Seek(partition, to) => {
                if let Some(expected) = self.expected.get_mut(&tp(partition)) {
                    *expected = to;
                    let before = self.fetcher_queue();
                    self.step(Event::Seek(tp(partition), StartOffset::Offset(to)));
                    self.queued -= before - self.fetcher_queue();
                }
            }
            Act::Pause(partition) => self.step(Event::Pause(vec![tp(partition)])),
            Act::Resume(partition) => self.step(Event::Resume(vec![tp(partition)])),
            Act::SetApart(partition, apart) => self.step(Event::SetApart(tp(partition), apart)),
            Act::TakeApart(partition) => {
                self.take_of(Some(partition), usize::MAX, |_, _| {});
            }
            Act::Add(partition) => {
                self.remove(partition);
                self.step(Event::Add(vec![tp(partition)]));
                self.expected.insert(tp(partition), 0);
                self.step(Event::Begin(vec![(tp(partition), Some((0, -1)))]));
                self.tell_leaders();
            }
            Act::Remove(partition) => self.remove(partition),
            Act::Assign(mask) => {
                self.assign(mask);
                self.queued = self.fetcher_queue();
            }
            Act::Wait(ms) => self.wait(u32::from(ms) * MS),
        }
    }

    fn remove(&mut self, partition: i32) {
        let before = self.fetcher_queue();
        self.step(Event::Remove(vec![tp(partition)]));
        self.queued -= before - self.fetcher_queue();
        self.expected.remove(&tp(partition));
    }

    /// With brokers that answer and a reader that reads, every record arrives.
    fn finish(&mut self) {
        (0..PARTITIONS).for_each(|partition| self.act(&Act::Resume(partition)));
        (0..PARTITIONS).for_each(|partition| self.act(&Act::SetApart(partition, false)));
        self.tell_leaders();
        for _ in 0..1_000 {
            if self.expected.values().all(|next| *next == END) {
                return;
            }
            // A broker here never waits for records: one round of answers, then the clock moves.
            for request in std::mem::take(&mut self.pending) {
                self.answer(request, How::Right);
                while self.take(usize::MAX, |_, _| {}) {}
            }
            while self.take(usize::MAX, |_, _| {}) {}
            if let Some(at) = self.fetcher.deadline() {
                self.wait(at.saturating_sub(self.now));
                self.tell_leaders();
            }
        }
        panic!("stuck at {:?}", self.expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Goal: no interleaving loses, repeats or reorders a record, breaks the budget or stands still.
    #[test]
    fn every_record_arrives_once_and_in_order(
        sizes in prop::collection::vec(1u8..6, 1..5),
        acts in prop::collection::vec(act(), 0..120),
    ) {
        let mut world = World::new(&sizes);
        for act in acts {
            let positions: Vec<_> = world.expected.keys().map(|name| {
                (name.clone(), world.fetcher.position(name))
            }).collect();
            let asked_back = matches!(
                act,
                Act::Seek(..)
                    | Act::Assign(_)
                    | Act::Add(_)
                    | Act::TakeSome(_)
                    | Act::Damage(_)
                    | Act::PartitionError(..)
            );
            world.act(&act);
            for (name, before) in positions {
                if let (false, Some(before), Some(after)) = (asked_back, before, world.fetcher.position(&name)) {
                    prop_assert!(after >= before, "{} went from {} back to {}", name, before, after);
                }
            }
        }
        world.finish();
    }
}
