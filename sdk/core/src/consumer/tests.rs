//! Exact effects of the fetcher. The sequences nobody thought of are in `any_order`.

mod any_order;
mod chunks;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::{NO_HEADERS, NO_PRODUCER};
use klamm_wire::{BatchBuilder, Compression, ErrorCode, RawBatch};
use uuid::Uuid;

use super::*;
use crate::backoff::Backoff;
use crate::{Tick, TopicPartition};

const MS: Duration = Duration::from_millis(1);
const ID: Uuid = Uuid::from_u128(7);

/// A batch of `count` records at `base`, each holding its offset.
pub(crate) fn batch(base: i64, count: i64) -> Bytes {
    packed(base, count, Compression::None)
}

fn packed(base: i64, count: i64, compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for offset in base..base + count {
        builder.append(1_000 + offset, None, Some(offset.to_string().as_bytes()), NO_HEADERS);
    }
    let sealed = builder.seal(compression, None).unwrap();
    let raw = Bytes::from([&sealed.header(NO_PRODUCER)[..], sealed.records()].concat());
    let [header, records] = RawBatch::parse(raw).unwrap().assigned(base, 3);
    Bytes::from([header, records].concat())
}

fn settings() -> FetchSettings {
    FetchSettings {
        min_bytes: 1,
        max_wait: 500 * MS,
        max_bytes: 50_000,
        max_partition_bytes: 1_000,
        isolation: Isolation::ReadUncommitted,
        reset: OffsetReset::Latest,
        prefetch_bytes: 10_000,
        backoff: Backoff::new(100 * MS, 1_000 * MS),
        locate_limit: 60_000 * MS,
        rack: String::new(),
        replica_limit: 300_000 * MS,
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn leader(broker: i32, epoch: i32) -> Location {
    Location::At(Leader { broker, epoch, topic_id: ID })
}

fn target(partition: i32, epoch: i32, offset: i64) -> FetchTarget {
    FetchTarget { partition: tp(partition), topic_id: ID, leader_epoch: epoch, offset }
}

fn refresh() -> Effect {
    Effect::Refresh(BTreeSet::from([Arc::from("t")]))
}

/// A Fetch whose byte limit is what its partitions may bring.
fn fetch(broker: i32, session: (i32, i32), partitions: Vec<FetchTarget>, max_bytes: i32) -> Effect {
    let plan = FetchPlan {
        session_id: session.0,
        session_epoch: session.1,
        max_bytes,
        max_wait: 500 * MS,
        near: true,
        partitions,
        forgotten: vec![],
    };
    Effect::Fetch { broker, plan }
}

fn records(partition: i32, records: Bytes) -> FetchedPartition {
    FetchedPartition { topic_id: ID, partition, records, ..FetchedPartition::default() }
}

fn error(partition: i32, code: ErrorCode) -> FetchedPartition {
    FetchedPartition { topic_id: ID, partition, error: Some(code), ..FetchedPartition::default() }
}

fn answer(broker: i32, session_id: i32, partitions: Vec<FetchedPartition>) -> Event {
    Event::Fetched { broker, answer: FetchAnswer { error: None, session_id, partitions } }
}

fn refused(broker: i32, code: ErrorCode) -> Event {
    Event::Fetched { broker, answer: FetchAnswer { error: Some(code), ..FetchAnswer::default() } }
}

struct Bench {
    fetcher: Fetcher,
    now: Tick,
}

impl Bench {
    fn new(settings: FetchSettings) -> Self {
        Self { fetcher: Fetcher::new(settings, fastrand::Rng::with_seed(1)), now: Tick::ZERO }
    }

    /// Partition 0 led by broker 1 in epoch 3, its first Fetch in flight.
    fn fetching(settings: FetchSettings, offset: i64) -> Self {
        let mut bench = Self::new(settings);
        bench.step(Event::Assign(vec![(tp(0), StartOffset::Offset(offset))]));
        bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut out = vec![];
        self.fetcher.step(self.now, event, &mut out);
        out
    }

    fn take(&mut self) -> (Option<Handout>, Vec<Effect>) {
        let mut out = vec![];
        (self.fetcher.take(self.now, &mut out), out)
    }

    /// Goes to the next deadline.
    fn wait(&mut self) -> Vec<Effect> {
        let at = self.fetcher.deadline().expect("something is due");
        assert!(at > self.now, "a deadline lies ahead");
        self.now = at;
        let mut out = vec![];
        self.fetcher.on_deadline(at, &mut out);
        out
    }
}

#[test]
fn an_assigned_offset_is_fetched_as_soon_as_the_leader_is_known() {
    let mut bench = Bench::new(settings());
    let effects = bench.step(Event::Assign(vec![(tp(0), StartOffset::Offset(5))]));
    assert_eq!(effects, [refresh(), Effect::Wake]);
    assert_eq!(bench.fetcher.position(&tp(0)), Some(5));
    let effects = bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
    assert_eq!(effects, [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
    assert_eq!(bench.fetcher.deadline(), None, "no timer while an answer is outstanding");
}

#[test]
fn the_beginning_is_looked_up_at_the_leader_first() {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::Beginning), (tp(1), StartOffset::Timestamp(77))]));
    let effects = bench.step(Event::Located(vec![(tp(0), leader(1, 3)), (tp(1), leader(1, 4))]));
    let lookup =
        |partition, leader_epoch, timestamp| Lookup { partition: tp(partition), leader_epoch, timestamp };
    let partitions = vec![lookup(0, 3, -2), lookup(1, 4, 77)];
    assert_eq!(effects, [Effect::ListOffsets { broker: 1, lookup: 1, partitions }]);
    assert_eq!(bench.fetcher.position(&tp(0)), None);

    let listed = |partition, offset| ListedOffset {
        partition: tp(partition),
        error: ErrorCode::NONE,
        offset,
        timestamp_ms: -1,
        leader_epoch: -1,
    };
    let effects =
        bench.step(Event::Listed { broker: 1, lookup: 1, offsets: vec![listed(0, 12), listed(1, -1)] });
    let end = vec![lookup(1, 4, -1)];
    assert_eq!(
        effects,
        [
            Effect::ListOffsets { broker: 1, lookup: 2, partitions: end },
            fetch(1, (0, 0), vec![target(0, 3, 12)], 1_000),
            Effect::Wake,
        ],
        "no record is that young: the end instead"
    );
}

#[test]
fn records_are_queued_and_the_next_fetch_goes_on_behind_them() {
    let mut bench = Bench::fetching(settings(), 5);
    let effects = bench.step(answer(1, 9, vec![records(0, batch(5, 3))]));
    assert_eq!(effects, [fetch(1, (9, 1), vec![target(0, 3, 8)], 1_000), Effect::Wake]);
    assert_eq!(bench.fetcher.position(&tp(0)), Some(5), "fetched is not handed out");
    let (item, _) = bench.take();
    let Some(Handout::Chunk(chunk)) = item else { panic!("no chunk") };
    assert_eq!((chunk.from, chunk.next), (5, 8));
    assert_eq!(bench.fetcher.position(&tp(0)), Some(8));
}

#[test]
fn a_partition_with_enough_queued_holds_its_leader_back_until_it_is_taken() {
    let mut bench = Bench::fetching(FetchSettings { prefetch_bytes: 150, ..settings() }, 0);
    let data = Bytes::from([batch(0, 5), batch(5, 5)].concat());
    assert!(data.len() > 150);
    let effects = bench.step(answer(1, 9, vec![records(0, data)]));
    assert_eq!(effects, [Effect::Wake]);
    let (_, effects) = bench.take();
    assert_eq!(effects, [fetch(1, (9, 1), vec![target(0, 3, 10)], 150)]);
}

#[test]
fn nothing_is_fetched_without_room_but_a_waiting_reader_is_served() {
    let mut bench = Bench::fetching(settings(), 0);
    assert_eq!(bench.step(Event::Held(9_500)), []);
    assert_eq!(bench.step(answer(1, 9, vec![records(0, batch(0, 1))])), [Effect::Wake]);
    let (item, effects) = bench.take();
    assert!(item.is_some());
    assert_eq!(effects, [], "the application may still drop what it holds");
    let (item, effects) = bench.take();
    assert_eq!(item, None);
    assert_eq!(effects, [fetch(1, (9, 1), vec![target(0, 3, 1)], 1_000)]);

    let mut bench = Bench::fetching(settings(), 0);
    bench.step(Event::Held(9_500));
    bench.step(answer(1, 9, vec![records(0, batch(0, 1))]));
    assert_eq!(bench.step(Event::Held(9_000)), [fetch(1, (9, 1), vec![target(0, 3, 1)], 1_000)]);
}

#[test]
fn the_budget_is_shared_between_the_leaders() {
    let mut bench = Bench::new(FetchSettings { prefetch_bytes: 1_500, ..settings() });
    bench.step(Event::Assign((0..3).map(|p| (tp(p), StartOffset::Offset(0))).collect()));
    let effects = bench.step(Event::Located((0..3).map(|p| (tp(p), leader(p + 1, 3))).collect()));
    let all: Vec<_> = (0..3).map(|p| fetch(p + 1, (0, 0), vec![target(p, 3, 0)], 500)).collect();
    assert_eq!(effects, all);
}

#[test]
fn a_former_leader_leads_to_new_metadata_and_the_new_leader_is_asked_at_once() {
    let mut bench = Bench::fetching(settings(), 5);
    let effects = bench.step(answer(1, 0, vec![error(0, ErrorCode::NOT_LEADER_OR_FOLLOWER)]));
    assert_eq!(effects, [refresh()]);
    assert_eq!(bench.step(Event::Located(vec![(tp(0), leader(1, 3))])), [], "no news");
    let effects = bench.step(Event::Located(vec![(tp(0), leader(2, 4))]));
    assert_eq!(effects, [fetch(2, (0, 0), vec![target(0, 4, 5)], 1_000)]);
    assert_eq!(bench.step(Event::Located(vec![(tp(0), leader(1, 3))])), [], "old news");
}

#[test]
fn the_same_leader_is_asked_again_after_the_backoff() {
    for code in [ErrorCode::FENCED_LEADER_EPOCH, ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::UNKNOWN_LEADER_EPOCH]
    {
        let mut bench = Bench::fetching(settings(), 5);
        assert_eq!(bench.step(answer(1, 0, vec![error(0, code)])), [refresh()], "{code}");
        let effects = bench.wait();
        assert!(bench.now >= 80 * MS && bench.now <= 120 * MS);
        assert_eq!(effects, [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
    }
}

#[test]
fn a_newer_leader_in_an_answer_is_passed_on() {
    let mut bench = Bench::fetching(settings(), 5);
    let data =
        FetchedPartition { current_leader: Some((2, 4)), ..error(0, ErrorCode::NOT_LEADER_OR_FOLLOWER) };
    let effects = bench.step(answer(1, 0, vec![data]));
    assert_eq!(effects, [Effect::LeaderHint { partition: tp(0), leader: 2, epoch: 4 }, refresh()]);
}

#[test]
fn a_broken_connection_backs_off_and_the_next_request_replaces_the_session() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(answer(1, 9, vec![]));
    assert_eq!(bench.step(Event::FetchFailed { broker: 1 }), [refresh()]);
    assert_eq!(bench.wait(), [fetch(1, (9, 0), vec![target(0, 3, 5)], 1_000)]);
}

#[test]
fn a_lost_session_is_replaced_at_once_but_not_in_a_busy_loop() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(answer(1, 9, vec![]));
    let effects = bench.step(refused(1, ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
    assert_eq!(effects, [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
    let effects = bench.step(refused(1, ErrorCode::INVALID_FETCH_SESSION_EPOCH));
    assert_eq!(effects, [refresh()], "the second time it waits");
    assert_eq!(bench.wait(), [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
}

fn out_of_range() -> Event {
    answer(1, 0, vec![error(0, ErrorCode::OFFSET_OUT_OF_RANGE)])
}

/// Who says so may have been deposed: metadata are looked at, and it is asked again.
fn doubt(bench: &mut Bench) {
    for _ in 0..5 {
        assert_eq!(bench.step(out_of_range()), [refresh()]);
        let again = bench.wait();
        assert!(matches!(again[..], [Effect::Fetch { broker: 1, .. }]), "{again:?}");
    }
}

#[test]
fn out_of_range_follows_the_policy_once_it_is_sure() {
    for (reset, timestamp) in [(OffsetReset::Earliest, -2), (OffsetReset::Latest, -1)] {
        let mut bench = Bench::fetching(FetchSettings { reset, ..settings() }, 5);
        let partitions = vec![Lookup { partition: tp(0), leader_epoch: 3, timestamp }];
        doubt(&mut bench);
        assert_eq!(bench.step(out_of_range()), [Effect::ListOffsets { broker: 1, lookup: 1, partitions }]);
    }
    let mut bench = Bench::fetching(FetchSettings { reset: OffsetReset::None, ..settings() }, 5);
    doubt(&mut bench);
    assert_eq!(bench.step(out_of_range()), [Effect::Wake]);
    assert_eq!(bench.wait(), [], "not asked again before the application has seen it");
    let failure = PartitionFailure::OutOfRange { offset: 5 };
    let (item, effects) = bench.take();
    assert_eq!(item, Some(Handout::Failed { partition: tp(0), failure }));
    assert_eq!(effects, [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
    let effects = bench.step(Event::Seek(tp(0), StartOffset::Offset(2)));
    assert_eq!(effects, [Effect::Wake], "one fetch at a time");
    let effects = bench.step(out_of_range());
    assert_eq!(effects, [fetch(1, (0, 0), vec![target(0, 3, 2)], 1_000)], "the old answer is nobody's");
}

#[test]
fn records_before_an_out_of_range_offset_are_still_handed_out() {
    let mut bench = Bench::fetching(FetchSettings { reset: OffsetReset::Earliest, ..settings() }, 5);
    bench.step(answer(1, 0, vec![records(0, batch(5, 3))]));
    doubt(&mut bench);
    bench.step(out_of_range());
    assert_eq!(bench.fetcher.position(&tp(0)), Some(5));
    assert!(bench.take().0.is_some());
    assert_eq!(bench.fetcher.position(&tp(0)), None);
}

#[test]
fn an_answer_from_before_a_seek_is_dropped() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(Event::Seek(tp(0), StartOffset::Offset(5)));
    let effects = bench.step(answer(1, 0, vec![records(0, batch(5, 3))]));
    assert_eq!(effects, [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
    assert_eq!(bench.take().0, None);
}

#[test]
fn an_added_partition_waits_for_its_start_and_others_go_on() {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::Offset(0))]));
    bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
    bench.step(answer(1, 9, vec![records(0, batch(0, 2))]));
    bench.step(Event::Add(vec![tp(1), tp(2)]));
    bench.step(Event::Located(vec![(tp(0), leader(1, 3)), (tp(1), leader(2, 3)), (tp(2), leader(2, 3))]));
    assert!(matches!(bench.take().0, Some(Handout::Chunk(chunk)) if chunk.partition == tp(0)), "it is kept");
    let effects = bench.step(Event::Begin(vec![(tp(1), Some((7, -1))), (tp(0), Some((99, -1)))]));
    assert!(effects.contains(&fetch(2, (0, 0), vec![target(1, 3, 7)], 1_000)), "{effects:?}");
    assert_eq!(bench.fetcher.position(&tp(0)), Some(2), "who has a position keeps it");
    assert_eq!(bench.fetcher.position(&tp(2)), None);
    let effects = bench.step(Event::Begin(vec![(tp(2), None)]));
    assert!(matches!(effects[..], [Effect::ListOffsets { broker: 2, .. }, ..]), "{effects:?}");
    bench.step(Event::Remove(vec![tp(1), tp(2)]));
    bench.step(answer(2, 9, vec![records(1, batch(7, 2))]));
    assert_eq!(bench.take().0, None, "what was under way is dropped");
    assert_eq!(bench.fetcher.assignment().cloned().collect::<Vec<_>>(), [tp(0)]);
}

#[test]
fn without_a_committed_offset_and_a_policy_the_application_is_told() {
    let mut bench = Bench::new(FetchSettings { reset: OffsetReset::None, ..settings() });
    bench.step(Event::Add(vec![tp(0)]));
    bench.step(Event::Begin(vec![(tp(0), None)]));
    let failed = Handout::Failed { partition: tp(0), failure: PartitionFailure::NoOffset };
    assert_eq!(bench.take().0, Some(failed));
}

#[test]
fn a_paused_partition_leaves_the_session_and_keeps_what_is_queued() {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::Offset(0)), (tp(1), StartOffset::Offset(0))]));
    bench.step(Event::Located(vec![(tp(0), leader(1, 3)), (tp(1), leader(1, 3))]));
    bench.step(Event::Pause(vec![tp(0)]));
    let effects = bench.step(answer(1, 9, vec![records(0, batch(0, 2))]));
    let plan = FetchPlan {
        session_id: 9,
        session_epoch: 1,
        max_bytes: 1_000,
        max_wait: 500 * MS,
        near: true,
        partitions: vec![],
        forgotten: vec![(tp(0), ID)],
    };
    assert_eq!(effects, [Effect::Fetch { broker: 1, plan }]);
    assert_eq!(bench.take().0, None);
    assert_eq!(bench.step(Event::Resume(vec![tp(0)])), [Effect::Wake]);
    assert!(matches!(bench.take().0, Some(Handout::Chunk(chunk)) if chunk.from == 0));
}

#[test]
fn a_partition_without_leader_is_asked_for_again_and_reported_after_the_limit() {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::Beginning)]));
    let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    bench.step(Event::Located(vec![(tp(0), Location::Unknown(code))]));
    let mut asked = 0;
    while bench.now < 60_000 * MS {
        assert_eq!(bench.take().0, None, "at {:?}", bench.now);
        asked += bench.wait().iter().filter(|effect| **effect == refresh()).count();
    }
    assert!((55..80).contains(&asked), "about once a second, not {asked} times");
    let failed = Handout::Failed { partition: tp(0), failure: PartitionFailure::NoLeader(code) };
    assert_eq!(bench.take().0, Some(failed));
    let effects = bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
    assert!(matches!(effects[..], [Effect::ListOffsets { broker: 1, .. }]), "it goes on by itself");
}

#[test]
fn a_refused_topic_is_reported_at_once() {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::Beginning)]));
    let code = ErrorCode::INVALID_TOPIC_EXCEPTION;
    assert_eq!(bench.step(Event::Located(vec![(tp(0), Location::Refused(code))])), [Effect::Wake]);
    let failed = Handout::Failed { partition: tp(0), failure: PartitionFailure::Refused(code) };
    assert_eq!(bench.take().0, Some(failed));
}

#[test]
fn bytes_that_are_no_batch_are_reported_and_fetched_again_later() {
    let mut bench = Bench::fetching(settings(), 5);
    let effects = bench.step(answer(1, 0, vec![records(0, Bytes::from(vec![0xff; 90]))]));
    assert_eq!(effects, [Effect::Wake]);
    let failure = PartitionFailure::Corrupt { offset: 5 };
    let (item, effects) = bench.take();
    assert_eq!((item, effects), (Some(Handout::Failed { partition: tp(0), failure }), vec![]));
    assert_eq!(bench.wait(), [fetch(1, (0, 0), vec![target(0, 3, 5)], 1_000)]);
}

#[test]
fn a_chunk_the_reader_cannot_read_is_fetched_again_from_there() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(answer(1, 0, vec![records(0, batch(5, 3))]));
    let (Some(Handout::Chunk(chunk)), _) = bench.take() else { panic!("no chunk") };
    let again = |generation| Event::Refetch { partition: tp(0), generation, from: 6 };
    assert_eq!(bench.step(again(chunk.generation + 1)), [], "someone else's chunk");
    assert_eq!(bench.fetcher.position(&tp(0)), Some(8));
    bench.step(again(chunk.generation));
    assert_eq!(bench.fetcher.position(&tp(0)), Some(6));
}

#[test]
fn a_new_assignment_keeps_known_leaders_and_drops_the_rest() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(answer(1, 9, vec![records(0, batch(5, 3))]));
    let effects = bench.step(Event::Assign(vec![(tp(0), StartOffset::Offset(1))]));
    assert_eq!(effects, [Effect::Wake]);
    assert_eq!(bench.take().0, None);
    let effects = bench.step(answer(1, 9, vec![records(0, batch(8, 1))]));
    assert_eq!(effects, [fetch(1, (9, 2), vec![target(0, 3, 1)], 1_000)]);
    assert_eq!(bench.step(Event::Assign(vec![])), [Effect::Wake]);
    assert_eq!(bench.step(answer(1, 9, vec![])), []);
}

/// Goal: KIP-392. The leader names a follower, which is read until it refuses, the leader changes or the time is over.
#[test]
fn a_follower_that_the_leader_names_is_read_until_it_refuses_or_the_time_is_over() {
    let mut bench = Bench::fetching(settings(), 5);
    assert_eq!(there(&bench.step(answer(1, 9, vec![nearer(2)]))), (2, true));
    assert_eq!(there(&bench.step(answer(2, 8, vec![records(0, batch(5, 2))]))), (2, true));
    // What a follower says is not the last word.
    let back = bench.step(answer(2, 8, vec![error(0, ErrorCode::OFFSET_OUT_OF_RANGE)]));
    assert_eq!(there(&back), (1, false), "it is to send records itself");
    bench.now += 150 * MS;
    assert_eq!(there(&bench.step(answer(1, 9, vec![nearer(2)]))), (2, true));
    let effects = bench.step(Event::FetchFailed { broker: 2 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Fetch { broker: 1, .. })), "{effects:?}");
    bench.now += 300 * MS;
    assert_eq!(there(&bench.step(answer(1, 9, vec![nearer(3)]))), (3, true));
    bench.now += 300_000 * MS;
    assert_eq!(there(&bench.step(answer(3, 7, vec![records(0, Bytes::new())]))), (1, true), "after so long");
    assert_eq!(bench.fetcher.position(&tp(0)), Some(5), "what was fetched is there to be taken");
}

fn nearer(to: i32) -> FetchedPartition {
    FetchedPartition { preferred_replica: Some(to), ..records(0, Bytes::new()) }
}

/// Who is asked first, and whether it may name a follower.
fn there(effects: &[Effect]) -> (i32, bool) {
    match effects {
        [Effect::Fetch { broker, plan }, ..] => (*broker, plan.near),
        other => panic!("{other:?}"),
    }
}

/// Goal: a follower that always refuses, or cannot be reached, costs a request now and then; its leader is read meanwhile.
#[test]
fn a_follower_that_refuses_is_asked_again_more_and_more_slowly_and_the_leader_sends_records_meanwhile() {
    for unreachable in [false, true] {
        let mut bench = Bench::fetching(settings(), 0);
        let (mut asked, mut next, mut leader_asked) = (vec![], 0, false);
        while bench.now < 10_000 * MS {
            let busy = |broker| bench.fetcher.brokers.get(&broker).is_some_and(|b| b.in_flight.is_some());
            if busy(2) {
                asked.push(bench.now);
                match unreachable {
                    true => bench.step(Event::FetchFailed { broker: 2 }),
                    false => bench.step(answer(2, 0, vec![error(0, ErrorCode::NOT_LEADER_OR_FOLLOWER)])),
                };
            } else if busy(1) {
                // The leader of a client with a rack only says where to go.
                let may_name = std::mem::take(&mut leader_asked) || bench.now == Tick::ZERO;
                let data = if may_name { nearer(2) } else { records(0, batch(next, 1)) };
                next += i64::from(!may_name);
                let effects = bench.step(answer(1, 0, vec![data]));
                leader_asked =
                    matches!(effects[..], [Effect::Fetch { broker: 1, ref plan }, ..] if plan.near);
                bench.take();
            }
            bench.now += 5 * MS;
            let mut out = vec![];
            bench.fetcher.on_deadline(bench.now, &mut out);
            leader_asked |= out.iter().any(|e| matches!(e, Effect::Fetch { broker: 1, plan } if plan.near));
        }
        assert!((8..20).contains(&asked.len()), "asked {} times: {asked:?}", asked.len());
        assert!(next > 500, "the leader was read meanwhile: {next}");
    }
}

/// Another topic under the same name.
fn recreated(broker: i32, epoch: i32) -> Location {
    Location::At(Leader { broker, epoch, topic_id: Uuid::from_u128(8) })
}

/// Goal: no record of the new topic is skipped, however long it is, and none of the old one handed out after it is known.
#[test]
fn a_topic_that_was_created_again_is_read_from_its_beginning() {
    for reset in [OffsetReset::Latest, OffsetReset::Earliest, OffsetReset::ByDuration(MS)] {
        for gone_meanwhile in [false, true] {
            let mut bench = Bench::fetching(FetchSettings { reset, ..settings() }, 5);
            bench.step(answer(1, 9, vec![records(0, batch(5, 3))]));
            if gone_meanwhile {
                let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                bench.step(Event::Located(vec![(tp(0), Location::Unknown(code))]));
            }
            let effects = bench.step(Event::Located(vec![(tp(0), recreated(2, 0))]));
            let lookup = Lookup { partition: tp(0), leader_epoch: 0, timestamp: -2 };
            let told = [
                Effect::Recreated { partition: tp(0), offset: Some(5) },
                Effect::Void { partition: tp(0), from: i64::MIN },
                Effect::ListOffsets { broker: 2, lookup: 1, partitions: vec![lookup] },
                Effect::Wake,
            ];
            assert_eq!(effects, told);
            assert_eq!(bench.take().0, None, "what was queued is of the old topic");
            assert_eq!(
                bench.step(answer(1, 9, vec![records(0, batch(8, 3))])),
                [],
                "and so is what comes late"
            );
            let listed = ListedOffset {
                partition: tp(0),
                error: ErrorCode::NONE,
                offset: 0,
                timestamp_ms: -1,
                leader_epoch: -1,
            };
            let effects = bench.step(Event::Listed { broker: 2, lookup: 1, offsets: vec![listed] });
            let Effect::Fetch { broker: 2, plan } = &effects[0] else { panic!("{effects:?}") };
            assert_eq!((plan.partitions[0].offset, plan.partitions[0].topic_id), (0, Uuid::from_u128(8)));
        }
    }
}

/// Goal: whoever keeps positions knows of which topic they are.
#[test]
fn chunks_and_positions_tell_their_topic_and_a_start_in_another_one_counts_for_nothing() {
    let [old, new] = [ID, Uuid::from_u128(8)];
    let mut bench = Bench::fetching(FetchSettings { reset: OffsetReset::Earliest, ..settings() }, 5);
    let chunk = |bench: &mut Bench, base| {
        bench.step(answer(1, 9, vec![records(0, batch(base, 2))]));
        match bench.take().0 {
            Some(Handout::Chunk(chunk)) => chunk,
            other => panic!("{other:?}"),
        }
    };
    let chunks = [5, 7].map(|base| chunk(&mut bench, base));
    assert!(Arc::ptr_eq(&chunks[0].partition.topic, &chunks[1].partition.topic), "one name for one topic");
    assert_eq!((chunks[0].topic_id, bench.fetcher.place_in_topic(&tp(0))), (old, Some(((9, 3), old))));
    bench.step(Event::Located(vec![(tp(0), recreated(1, 0))]));
    assert_eq!(bench.fetcher.place_in_topic(&tp(0)), None, "nowhere in the new one yet");

    let begin = |bench: &mut Bench, topic_id| {
        bench.step(Event::BeginIn(vec![StartIn { partition: tp(0), topic_id, place: Some((7, -1)) }]));
        bench.fetcher.place_in_topic(&tp(0))
    };
    let added = || {
        let mut bench = Bench::new(FetchSettings { reset: OffsetReset::Earliest, ..settings() });
        bench.step(Event::Add(vec![tp(0)]));
        bench
    };
    let mut bench = added();
    assert_eq!(begin(&mut bench, new), Some(((7, -1), new)));
    bench.step(Event::Located(vec![(tp(0), recreated(1, 0))]));
    assert_eq!(bench.fetcher.place_in_topic(&tp(0)), Some(((7, -1), new)));

    let mut bench = added();
    begin(&mut bench, old);
    let effects = bench.step(Event::Located(vec![(tp(0), recreated(1, 0))]));
    assert_eq!(effects[0], Effect::Recreated { partition: tp(0), offset: Some(7) });
    assert_eq!(bench.fetcher.place_in_topic(&tp(0)), None);

    let mut bench = added();
    bench.step(Event::Located(vec![(tp(0), recreated(1, 0))]));
    assert_eq!(begin(&mut bench, old), None, "it is looked up where to begin");
}

#[test]
fn without_a_policy_the_application_is_told_that_its_topic_was_created_again() {
    let mut bench = Bench::fetching(FetchSettings { reset: OffsetReset::None, ..settings() }, 5);
    bench.step(answer(1, 9, vec![records(0, batch(5, 3))]));
    bench.step(Event::Located(vec![(tp(0), recreated(2, 0))]));
    let failure = PartitionFailure::Truncated { offset: 5, diverges: Some(0) };
    assert_eq!(bench.take(), (Some(Handout::Failed { partition: tp(0), failure }), vec![]));
    let effects = bench.step(Event::Seek(tp(0), StartOffset::Offset(0)));
    assert!(matches!(&effects[0], Effect::Fetch { broker: 2, plan } if plan.partitions[0].offset == 0));
}

#[test]
fn whoever_waits_for_a_start_gets_it_in_the_topic_that_was_created_again() {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::End)]));
    bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
    let effects = bench.step(Event::Located(vec![(tp(0), recreated(1, 0))]));
    let lookup = Lookup { partition: tp(0), leader_epoch: 0, timestamp: -1 };
    let asked = Effect::ListOffsets { broker: 1, lookup: 2, partitions: vec![lookup] };
    assert!(effects.contains(&asked), "{effects:?}");
}

/// Goal: with `auto.offset.reset=none` an error comes only if records were handed out that are gone.
#[test]
fn without_a_policy_a_cut_behind_what_was_taken_goes_unnoticed_and_one_before_it_is_told() {
    let mut bench = Bench::fetching(FetchSettings { reset: OffsetReset::None, ..settings() }, 5);
    bench.step(answer(1, 9, vec![records(0, batch(5, 2))]));
    bench.take();
    bench.step(answer(1, 9, vec![records(0, batch(7, 3))]));
    bench.step(Event::Located(vec![(tp(0), leader(2, 4))]));
    let end = |end| Some(vec![EndOfEpoch { partition: tp(0), error: ErrorCode::NONE, epoch: 3, end }]);
    let effects = bench.step(Event::Ended { broker: 2, lookup: 1, ends: end(8) });
    let void = Effect::Void { partition: tp(0), from: i64::MAX };
    assert!(effects.contains(&void), "a chunk that is open is compared again: {effects:?}");
    assert_eq!(bench.take().0, None, "what was fetched behind 7 is fetched again");
    let effects = bench.step(Event::Ended { broker: 2, lookup: 2, ends: end(8) });
    assert!(matches!(&effects[0], Effect::Fetch { broker: 2, plan } if plan.partitions[0].offset == 7));
    bench.step(Event::Located(vec![(tp(0), leader(1, 6))]));
    bench.step(Event::Ended { broker: 1, lookup: 3, ends: end(6) });
    let failure = PartitionFailure::Truncated { offset: 7, diverges: Some(6) };
    assert_eq!(bench.take().0, Some(Handout::Failed { partition: tp(0), failure }));
}

#[test]
fn a_new_leader_is_asked_whether_it_has_what_was_fetched_before_it_is_read() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(answer(1, 9, vec![records(0, batch(5, 2))]));
    bench.take();
    let effects = bench.step(Event::Located(vec![(tp(0), leader(2, 4))]));
    let partitions = vec![EpochLookup { partition: tp(0), leader_epoch: 4, epoch: 3 }];
    assert_eq!(effects, [Effect::EndsOfEpochs { broker: 2, lookup: 1, partitions }]);
    // The former leader's late answer counts no more.
    assert_eq!(bench.step(answer(1, 9, vec![records(0, batch(7, 2))])), []);
    let end = |end| EndOfEpoch { partition: tp(0), error: ErrorCode::NONE, epoch: 3, end };
    let effects = bench.step(Event::Ended { broker: 2, lookup: 1, ends: Some(vec![end(7)]) });
    assert!(
        matches!(&effects[..], [Effect::Fetch { broker: 2, plan }, Effect::Wake] if plan.partitions[0].offset == 7)
    );
    // The next one has less.
    bench.step(answer(2, 8, vec![records(0, batch(7, 3))]));
    let effects = bench.step(Event::Located(vec![(tp(0), leader(1, 6))]));
    assert!(matches!(effects[..], [Effect::EndsOfEpochs { broker: 1, lookup: 2, .. }]), "{effects:?}");
    let effects = bench.step(Event::Ended { broker: 1, lookup: 2, ends: Some(vec![end(6)]) });
    let cut = Effect::WasCut { partition: tp(0), offset: 10, diverges: Some(6) };
    assert_eq!(effects[..2], [cut, Effect::Void { partition: tp(0), from: 6 }]);
    assert_eq!(bench.fetcher.position(&tp(0)), Some(6), "what was not handed out behind it is dropped");
    // One from before KIP-320 cannot tell.
    bench.step(answer(1, 9, vec![records(0, batch(6, 2))]));
    bench.step(Event::Located(vec![(tp(0), leader(2, 7))]));
    assert_eq!(
        bench.step(Event::Ended { broker: 2, lookup: 3, ends: None }),
        [],
        "a Fetch is under way there"
    );
    let effects = bench.step(answer(2, 8, vec![]));
    assert!(
        matches!(&effects[..], [Effect::Fetch { broker: 2, plan }, ..] if plan.partitions[0].offset == 8)
    );
}

/// Goal: a broker that lags behind the metadata names a leader that was deposed before the last commit; that one does not know
/// the epoch that was committed, and would be taken for one whose log was cut.
#[test]
fn a_leader_that_is_older_than_the_place_to_begin_at_is_not_asked() {
    let old = |broker| Event::Located(vec![(tp(0), leader(broker, 4))]);
    let committed = (tp(0), Some((9, 5)));
    type Place = (TopicPartition, Option<(i64, i32)>);
    let ways: [fn(&mut Bench, Place) -> Vec<Effect>; 3] = [
        |bench, committed| {
            bench.step(Event::Add(vec![tp(0)]));
            bench.step(Event::Located(vec![(tp(0), leader(1, 4))]));
            bench.step(Event::Begin(vec![committed]))
        },
        |bench, (name, place)| {
            let (offset, leader_epoch) = place.unwrap();
            bench.step(Event::Assign(vec![(name, StartOffset::Checked { offset, leader_epoch })]))
        },
        |bench, (name, place)| {
            bench.step(Event::Assign(vec![(tp(0), StartOffset::Committed)]));
            bench.step(Event::Located(vec![(tp(0), leader(1, 4))]));
            let (offset, leader_epoch) = place.unwrap();
            bench.step(Event::Seek(name, StartOffset::Checked { offset, leader_epoch }))
        },
    ];
    for begin in ways {
        let mut bench = Bench::new(settings());
        let effects = begin(&mut bench, committed.clone());
        assert!(matches!(effects[0], Effect::Refresh(_)), "{effects:?}");
        let half = settings().locate_limit / 2;
        bench.now += half / 2;
        let asks = |effects: &[Effect]| {
            effects.iter().any(|e| matches!(e, Effect::EndsOfEpochs { .. } | Effect::Fetch { .. }))
        };
        let effects = bench.step(old(1));
        assert!(!asks(&effects), "{effects:?}");
        let effects = bench.step(Event::Located(vec![(tp(0), leader(2, 5))]));
        assert!(asks(&effects), "the new leader is asked: {effects:?}");
    }
}

/// Goal: what was committed is of another cluster's life: nobody knows of that epoch any more, and that the log has grown beyond
/// the offset since does not make it valid.
#[test]
fn a_leader_that_stays_older_is_asked_after_a_while_and_the_policy_applies() {
    for reset in [OffsetReset::Earliest, OffsetReset::None] {
        let mut bench = Bench::new(FetchSettings { reset, ..settings() });
        let place = StartOffset::Checked { offset: 9, leader_epoch: 7 };
        bench.step(Event::Assign(vec![(tp(0), place)]));
        let old = || Event::Located(vec![(tp(0), leader(1, 4))]);
        assert_eq!(bench.step(old()), []);
        bench.now += settings().locate_limit / 4;
        // The next assignment goes on doubting.
        bench.step(Event::Assign(vec![(tp(0), place)]));
        bench.now += settings().locate_limit / 4;
        let partitions = vec![EpochLookup { partition: tp(0), leader_epoch: 4, epoch: 7 }];
        let effects = bench.step(old());
        assert!(effects.contains(&Effect::EndsOfEpochs { broker: 1, lookup: 1, partitions }), "{effects:?}");
        let unknown = EndOfEpoch { partition: tp(0), error: ErrorCode::NONE, epoch: -1, end: -1 };
        let effects = bench.step(Event::Ended { broker: 1, lookup: 1, ends: Some(vec![unknown]) });
        if reset == OffsetReset::None {
            let failure = PartitionFailure::Truncated { offset: 9, diverges: None };
            assert_eq!(bench.take().0, Some(Handout::Failed { partition: tp(0), failure }));
            continue;
        }
        assert_eq!(effects[0], Effect::WasCut { partition: tp(0), offset: 9, diverges: None });
        let looks = |effect: &Effect| matches!(effect, Effect::ListOffsets { partitions, .. } if partitions[0].timestamp == -2);
        assert!(effects.iter().any(looks), "{effects:?}");
    }
}

/// Reads from the end, which the leader of epoch 3 has told to be offset 9.
fn at_a_place_that_was_looked_up() -> Bench {
    let mut bench = Bench::new(settings());
    bench.step(Event::Assign(vec![(tp(0), StartOffset::End)]));
    bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
    let end = ListedOffset {
        partition: tp(0),
        error: ErrorCode::NONE,
        offset: 9,
        timestamp_ms: -1,
        leader_epoch: 3,
    };
    bench.step(Event::Listed { broker: 1, lookup: 1, offsets: vec![end] });
    bench
}

#[test]
fn a_place_that_was_looked_up_is_compared_with_a_new_leader_before_anything_was_read() {
    let mut bench = at_a_place_that_was_looked_up();
    let effects = bench.step(Event::Located(vec![(tp(0), leader(2, 4))]));
    let partitions = vec![EpochLookup { partition: tp(0), leader_epoch: 4, epoch: 3 }];
    assert_eq!(effects, [Effect::EndsOfEpochs { broker: 2, lookup: 2, partitions }]);
}

#[test]
fn a_reader_whose_only_leader_left_is_an_older_one_asks_it_how_far_the_logs_agree() {
    let mut bench = at_a_place_that_was_looked_up();
    bench.step(Event::Located(vec![(tp(0), Location::Unknown(ErrorCode::LEADER_NOT_AVAILABLE))]));
    assert_eq!(bench.step(Event::Located(vec![(tp(0), leader(2, 2))])), []);
    bench.now += settings().locate_limit / 2;
    let effects = bench.step(Event::Located(vec![(tp(0), leader(2, 2))]));
    let partitions = vec![EpochLookup { partition: tp(0), leader_epoch: 2, epoch: 3 }];
    assert_eq!(effects, [Effect::EndsOfEpochs { broker: 2, lookup: 2, partitions }]);
}
