//! Truncated logs (KIP-320) and replicas in the consumer's rack (KIP-392).

use super::*;

fn plans(effects: &[Effect]) -> Vec<(i32, Vec<FetchTarget>)> {
    let plan = |effect: &Effect| match effect {
        Effect::Fetch { broker, plan } => Some((*broker, plan.partitions.clone())),
        _ => None,
    };
    effects.iter().filter_map(plan).collect()
}

/// Partition 0 led by broker 1 in epoch 3, fetched behind a record of epoch 2.
fn checked(reset: OffsetReset) -> Bench {
    let mut bench = Bench::new(FetchSettings { reset, ..settings() });
    let start = StartOffset::Checked { offset: 40, leader_epoch: 2 };
    bench.step(Event::Assign(vec![(tp(0), start)]));
    let effects = bench.step(Event::Located(vec![(tp(0), leader(1, 3))]));
    assert_eq!(plans(&effects), [(1, vec![after(0, 40, 2)])]);
    bench
}

fn parted(epoch: i32, offset: i64) -> FetchedPartition {
    FetchedPartition { diverging: Some(LogEnd { epoch, offset }), ..records(0, Bytes::new()) }
}

#[test]
fn a_fetch_says_which_epoch_the_record_before_was_of() {
    let mut bench = checked(OffsetReset::Latest);
    let effects = bench.step(answer(1, 9, vec![records(0, batch(40, 2))]));
    assert_eq!(plans(&effects), [(1, vec![after(0, 42, 3)])]);
    assert_eq!(bench.fetcher.place(&tp(0)), Some((40, 2)), "the batch is not handed out");
    let Some(Handout::Chunk(chunk)) = bench.take().0 else { panic!("a chunk") };
    let mut reader = ChunkReader::new(chunk, true, 0);
    assert_eq!((reader.position(), reader.epoch()), (40, 2));
    reader.next(&|bytes| bytes).unwrap();
    assert_eq!((reader.position(), reader.epoch()), (41, 3));
    let rest = reader.into_rest();
    assert_eq!((rest.from, rest.epoch), (41, 3));
    bench.step(Event::Seek(tp(0), StartOffset::Offset(7)));
    let effects = bench.step(answer(1, 9, vec![]));
    assert_eq!(plans(&effects), [(1, vec![after(0, 7, -1)])], "of that place no epoch is known");
}

#[test]
fn reading_goes_on_where_a_truncated_log_parts_from_what_was_read() {
    let mut bench = checked(OffsetReset::Latest);
    let effects = bench.step(answer(1, 9, vec![parted(1, 30)]));
    assert_eq!(effects[..1], [Effect::Truncated { partition: tp(0), offset: 40, at: 30 }]);
    assert_eq!(plans(&effects), [(1, vec![after(0, 30, 1)])]);
    assert_eq!(bench.fetcher.position(&tp(0)), Some(30));
}

#[test]
fn what_was_fetched_of_a_truncated_log_and_not_handed_out_is_dropped() {
    let mut bench = checked(OffsetReset::Latest);
    bench.step(answer(1, 9, vec![records(0, batch(40, 10))]));
    let effects = bench.step(answer(1, 9, vec![parted(3, 45)]));
    assert_eq!(plans(&effects), [(1, vec![after(0, 40, 3)])], "nothing that was handed out is gone");
    assert_eq!(bench.take().0, None);
}

#[test]
fn without_a_policy_the_application_hears_of_a_truncated_log() {
    let mut bench = checked(OffsetReset::None);
    bench.step(answer(1, 9, vec![parted(1, 30)]));
    let failure = PartitionFailure::Truncated { offset: 40, at: 30 };
    assert_eq!(bench.take().0, Some(Handout::Failed { partition: tp(0), failure }));
}

fn nearby(broker: i32) -> FetchedPartition {
    FetchedPartition { preferred: Some(broker), ..records(0, Bytes::new()) }
}

#[test]
fn a_leader_sends_a_consumer_to_a_replica_and_gets_it_back_after_a_while() {
    let mut bench = Bench::fetching(settings(), 5);
    let effects = bench.step(answer(1, 9, vec![nearby(2)]));
    assert_eq!(plans(&effects), [(2, vec![target(0, 3, 5)])], "at once, and only there");
    let effects = bench.step(answer(2, 8, vec![records(0, batch(5, 1))]));
    assert_eq!(plans(&effects), [(2, vec![after(0, 6, 3)])]);
    bench.now = 301_000 * MS;
    let effects = bench.step(answer(2, 8, vec![]));
    assert_eq!(plans(&effects), [(1, vec![after(0, 6, 3)])], "the leader may know a better one by now");
}

#[test]
fn a_replica_that_fails_or_lags_leads_back_to_the_leader_and_to_no_reset() {
    for trouble in [
        answer(2, 8, vec![error(0, ErrorCode::OFFSET_OUT_OF_RANGE)]),
        answer(2, 8, vec![error(0, ErrorCode::NOT_LEADER_OR_FOLLOWER)]),
        Event::FetchFailed { broker: 2 },
    ] {
        let mut bench = Bench::fetching(settings(), 5);
        bench.step(answer(1, 9, vec![nearby(2)]));
        let mut effects = bench.step(trouble.clone());
        while plans(&effects).is_empty() {
            effects = bench.wait();
        }
        assert_eq!(plans(&effects), [(1, vec![])], "the leader has it in its session, {trouble:?}");
    }
}

#[test]
fn a_new_leader_is_asked_itself() {
    let mut bench = Bench::fetching(settings(), 5);
    bench.step(answer(1, 9, vec![nearby(2)]));
    let effects = bench.step(Event::Located(vec![(tp(0), leader(3, 4))]));
    assert_eq!(plans(&effects), [(3, vec![target(0, 4, 5)])]);
}
