//! The machine by hand: exact answers and exact effects.

mod durable;
mod model;
mod support;

use klamm_wire::{Compression, ErrorCode, ProducerStamp, RawBatch};

use bytes::Bytes;

use super::*;
use crate::log::testing::{forged, idempotent, plain, produced};
use crate::storage::Directory;
use support::*;

fn code<T: std::fmt::Debug>(result: Result<T, AppendError>) -> ErrorCode {
    result.unwrap_err().code
}

// ---- appending -----------------------------------------------------------------------------------------------------

#[test]
fn a_single_replica_commits_at_once() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    let appended = leader.append(&plain(3), -1).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset, appended.log_append_time), (0, 2, -1));
    assert_eq!(leader.fx(), [Effect::Appended(3), Effect::HighWatermark(3)]);
    assert_eq!(leader.replica.acked(0, 3), Ok(true));
    assert_eq!(leader.append(&plain(2), 0).unwrap().base_offset, 3);
}

#[test]
fn an_append_carries_offset_and_leader_epoch_into_the_batch() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 7, 9));
    leader.append(&plain(3), -1).unwrap();
    leader.append(&plain(2), -1).unwrap();
    let stored: Vec<_> = leader.replica.log().batches().map(|found| *found.unwrap().1.header()).collect();
    assert_eq!(stored.iter().map(|h| h.base_offset).collect::<Vec<_>>(), [0, 3]);
    assert!(stored.iter().all(|header| header.partition_leader_epoch == 7));
}

/// Goal: each kind of bad batch gets Kafka's code, and nothing of it reaches the log.
#[test]
fn bad_batches_are_refused_with_kafkas_codes() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    let good = plain(3);
    let values: &[&[u8]] = &[b"x"];
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut old_magic = good.to_vec();
    old_magic[16] = 1;
    let mut negative_length = good.to_vec();
    negative_length[8] = 0xff;
    let cases: Vec<(&str, Bytes, ErrorCode)> = vec![
        ("nothing", Bytes::new(), ErrorCode::INVALID_RECORD),
        ("cut short", good.slice(..good.len() - 1), ErrorCode::INVALID_RECORD),
        ("two batches", [&good[..], &good[..]].concat().into(), ErrorCode::INVALID_RECORD),
        ("magic 1", old_magic.into(), ErrorCode::INVALID_RECORD),
        ("negative length", negative_length.into(), ErrorCode::CORRUPT_MESSAGE),
        ("wrong CRC", flipped.into(), ErrorCode::CORRUPT_MESSAGE),
        ("base offset", forged(&good, |h| h.base_offset = 5), ErrorCode::INVALID_RECORD),
        ("count", forged(&good, |h| h.count = 4), ErrorCode::INVALID_RECORD),
        (
            "count and delta",
            forged(&good, |h| (h.count, h.last_offset_delta) = (4, 3)),
            ErrorCode::INVALID_RECORD,
        ),
        (
            "delta and count",
            forged(&good, |h| (h.count, h.last_offset_delta) = (2, 1)),
            ErrorCode::INVALID_RECORD,
        ),
        ("no record", forged(&good, |h| (h.count, h.last_offset_delta) = (0, -1)), ErrorCode::INVALID_RECORD),
        ("negative delta", forged(&good, |h| h.last_offset_delta = -1), ErrorCode::INVALID_RECORD),
        ("control", forged(&good, |h| h.attributes = 0x20), ErrorCode::INVALID_RECORD),
        ("transactional", forged(&good, |h| h.attributes = 0x10), ErrorCode::INVALID_TXN_STATE),
        ("no codec", forged(&good, |h| h.attributes = 7), ErrorCode::UNSUPPORTED_COMPRESSION_TYPE),
        ("not gzip", forged(&good, |h| h.attributes = 1), ErrorCode::INVALID_RECORD),
        ("producer without sequence", forged(&good, |h| h.producer_id = 4), ErrorCode::INVALID_RECORD),
        (
            "from the future",
            produced(ProducerStamp::default(), WALL_MS + 3_600_001, values, Compression::None),
            ErrorCode::INVALID_TIMESTAMP,
        ),
        (
            "too large",
            produced(ProducerStamp::default(), 0, &[&vec![0; 1_048_588][..]], Compression::None),
            ErrorCode::MESSAGE_TOO_LARGE,
        ),
    ];
    for (what, records, expected) in cases {
        assert_eq!(code(leader.append(&records, -1)), expected, "{what}");
    }
    assert_eq!(leader.replica.log_end_offset(), 0);
    assert_eq!(leader.fx(), []);
    leader.append(&good, -1).unwrap();
}

#[test]
fn acks_are_minus_one_zero_or_one() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    assert_eq!(code(leader.append(&plain(1), 2)), ErrorCode::INVALID_REQUIRED_ACKS);
    assert_eq!(code(leader.append(&plain(1), -2)), ErrorCode::INVALID_REQUIRED_ACKS);
}

#[test]
fn a_batch_that_expands_beyond_the_limit_is_too_large() {
    let limits = ReplicaSettings { decompression_limit_bytes: 10_000, ..settings(1) };
    let mut leader = Sut::new(1, limits).with(&registration(&[1], Some(1), 0, 0));
    let bomb = produced(ProducerStamp::default(), 0, &[&vec![0; 20_000][..]], Compression::Gzip);
    assert!(bomb.len() < 1_000);
    assert_eq!(code(leader.append(&bomb, -1)), ErrorCode::MESSAGE_TOO_LARGE);
}

#[test]
fn zstd_needs_produce_7() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    let records = forged(&plain(1), |h| h.attributes = 4);
    let produce = Produce { records, acks: -1, api_version: 6 };
    let refused = leader.replica.append(leader.now, WALL_MS, &produce, &mut Vec::new());
    assert_eq!(code(refused), ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
}

#[test]
fn a_compacted_topic_names_the_records_without_key() {
    let compacted = ReplicaSettings { require_key: true, ..settings(1) };
    let mut leader = Sut::new(1, compacted).with(&registration(&[1], Some(1), 0, 0));
    let error = leader.append(&plain(2), -1).unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_RECORD);
    assert_eq!(error.record_errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn log_append_time_replaces_the_producers_timestamps() {
    let stamping = ReplicaSettings { message_timestamp_type: TimestampType::LogAppendTime, ..settings(1) };
    let mut leader = Sut::new(1, stamping).with(&registration(&[1], Some(1), 0, 0));
    assert_eq!(leader.append(&plain(2), -1).unwrap().log_append_time, WALL_MS);
    let (_, batch) = leader.replica.log().batches().next().unwrap().unwrap();
    let records = batch.records(1_000).unwrap();
    assert!(records.iter().all(|record| record.unwrap().timestamp == WALL_MS));
    assert_eq!(leader.replica.log().verify(), []);
}

/// Goal: a lookup by time may trust the headers, whatever a producer wrote there.
#[test]
fn a_max_timestamp_that_the_records_contradict_is_put_right() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&forged(&plain(2), |h| h.max_timestamp = 999_999_999), -1).unwrap();
    let (_, batch) = leader.replica.log().batches().next().unwrap().unwrap();
    assert_eq!(batch.header().max_timestamp, 1_001);
    assert_eq!(leader.replica.log().verify(), [], "with a CRC that fits");
}

#[test]
fn a_retry_gets_the_offsets_of_the_original_and_is_not_appended() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    let first = leader.append(&idempotent(5, 0, 0, &[b"a", b"b"]), -1).unwrap();
    leader.append(&idempotent(5, 0, 2, &[b"c"]), -1).unwrap();
    leader.fx();
    let again = leader.append(&idempotent(5, 0, 0, &[b"a", b"b"]), -1).unwrap();
    assert_eq!((again.base_offset, again.last_offset, again.duplicate), (0, 1, true));
    assert!(!first.duplicate);
    assert_eq!((leader.replica.log_end_offset(), leader.fx()), (3, vec![]));
    assert_eq!(
        code(leader.append(&idempotent(5, 0, 4, &[b"x"]), -1)),
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
    );
    leader.append(&idempotent(5, 1, 0, &[b"x"]), -1).unwrap();
    assert_eq!(code(leader.append(&idempotent(5, 0, 3, &[b"x"]), -1)), ErrorCode::INVALID_PRODUCER_EPOCH);
}

/// Goal: a retry that goes to the next leader is known there too.
#[test]
fn a_follower_learns_the_producers_from_the_batches() {
    let (mut leader, mut follower) = pair(settings(1));
    leader.append(&idempotent(5, 0, 0, &[b"a", b"b"]), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(follower.replica.log().producers(), leader.replica.log().producers());
    follower.apply(&registration(&[1, 2], Some(2), 1, 1));
    let again = follower.append(&idempotent(5, 0, 0, &[b"a", b"b"]), -1).unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
}

#[test]
fn nobody_but_the_leader_appends() {
    let (_, mut follower) = pair(settings(1));
    assert_eq!(code(follower.append(&plain(1), -1)), ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let mut fresh = Sut::new(1, settings(1));
    assert_eq!(code(fresh.append(&plain(1), -1)), ErrorCode::NOT_LEADER_OR_FOLLOWER);
}

// ---- high watermark ------------------------------------------------------------------------------------------------

/// Goal: the slowest in-sync replica decides what is committed, not the fastest.
#[test]
fn the_high_watermark_is_the_least_end_of_the_isr() {
    let mut leader = Sut::new(1, settings(2)).with(&registration(&[1, 2, 3], Some(1), 0, 0));
    let appended = leader.append(&plain(10), -1).unwrap();
    leader.fx();
    leader.fetched_by(2, 10).unwrap();
    assert_eq!(leader.replica.high_watermark(), 0, "3 has not reported");
    leader.fetched_by(3, 0).unwrap();
    assert_eq!(leader.replica.high_watermark(), 0, "3 has nothing");
    assert_eq!(leader.replica.acked(appended.leader_epoch, 10), Ok(false));
    assert_eq!(leader.fx(), []);
    leader.fetched_by(3, 10).unwrap();
    assert_eq!(leader.fx(), [Effect::HighWatermark(10)]);
    assert_eq!(leader.replica.acked(appended.leader_epoch, 10), Ok(true));
}

#[test]
fn a_new_leader_keeps_its_high_watermark_until_the_followers_report() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    follower.fetch(&mut leader).unwrap();
    leader.append(&plain(10), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    assert_eq!((follower.replica.high_watermark(), follower.replica.log_end_offset()), (10, 20));
    follower.fx();
    follower.apply(&registration(&[1, 2], Some(2), 1, 1));
    assert_eq!(follower.fx(), [Effect::RoleChanged(Role::Leader { leader_epoch: 1 })]);
    assert_eq!(follower.replica.high_watermark(), 10);
    assert_eq!(
        follower.replica.list_offset(OffsetAt::Latest, None, ListedBy::Client),
        Err(ErrorCode::OFFSET_NOT_AVAILABLE)
    );
    follower.fetched_by(1, 20).unwrap();
    assert_eq!(follower.fx(), [Effect::HighWatermark(20)]);
}

#[test]
fn the_high_watermark_stays_while_too_few_replicas_are_in_sync() {
    let mut leader = Sut::new(1, settings(2)).with(&registration(&[1, 2, 3], Some(1), 0, 0));
    leader.append(&plain(10), 1).unwrap();
    leader.apply(&PartitionRegistration { isr: vec![1], ..registration(&[1, 2, 3], Some(1), 0, 1) });
    leader.fx();
    assert_eq!(code(leader.append(&plain(1), -1)), ErrorCode::NOT_ENOUGH_REPLICAS);
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.fx(), [Effect::Appended(11)], "KIP-966: not committed");
    leader.pass(60 * S);
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.replica.high_watermark(), 0, "not even when nobody else is about to join");
}

#[test]
fn fewer_replicas_than_min_insync_need_all_of_them() {
    let mut leader = Sut::new(1, settings(2)).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&plain(1), -1).unwrap();
    assert_eq!(leader.replica.high_watermark(), 1);
}

#[test]
fn a_committed_append_is_reported_when_the_isr_has_shrunk_meanwhile() {
    let mut leader = Sut::new(1, settings(2)).with(&registration(&[1, 2], Some(1), 0, 0));
    leader.append(&plain(1), -1).unwrap();
    leader.fetched_by(2, 1).unwrap();
    leader.apply(&PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 0, 1) });
    assert_eq!(leader.replica.acked(0, 1), Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
}

/// Goal: an acknowledgement never speaks of another leadership's records.
#[test]
fn an_append_of_an_earlier_leadership_is_not_acknowledged() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 0, 0));
    let appended = leader.append(&plain(1), -1).unwrap();
    leader.apply(&registration(&[1, 2], Some(2), 1, 1));
    assert_eq!(leader.replica.acked(appended.leader_epoch, 1), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    leader.apply(&registration(&[1, 2], Some(1), 2, 2));
    assert_eq!(leader.replica.acked(appended.leader_epoch, 1), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(leader.replica.acked(2, 1), Ok(false));
    leader.apply(&registration(&[1, 2], Some(1), 3, 3));
    assert_eq!(leader.replica.acked(2, 1), Ok(false), "led without a break since epoch 2");
}

// ---- ISR -----------------------------------------------------------------------------------------------------------

/// Goal: a paused follower holds the high watermark back until the controller has taken it out of the ISR.
#[test]
fn a_lagging_follower_counts_until_its_removal_is_committed() {
    let mut leader = Sut::new(1, settings(2)).with(&registration(&[1, 2, 3], Some(1), 0, 0));
    leader.append(&plain(10), -1).unwrap();
    leader.fetched_by(2, 10).unwrap();
    leader.fx();
    assert_eq!(leader.replica.deadline(), Some(10 * S), "replica.lag.time.max.ms after the leadership began");
    leader.pass(9 * S);
    assert_eq!(leader.fx(), []);
    leader.pass(10 * S);
    assert_eq!(leader.fx(), [alter(0, 0, 0, &[(1, 101), (2, 102)])]);
    assert_eq!(leader.replica.high_watermark(), 0);
    assert_eq!(leader.replica.deadline(), None, "while an answer is awaited");
    leader.answer(0, Ok(altered(0, 1, &[1, 2])));
    assert_eq!(leader.fx(), [Effect::HighWatermark(10)]);
    assert_eq!(leader.replica.isr(), [1, 2]);
}

#[test]
fn a_follower_that_is_back_counts_at_once_and_joins_with_its_broker_epoch() {
    let small = PartitionRegistration { isr: vec![1, 2], ..registration(&[1, 2, 3], Some(1), 0, 0) };
    let mut leader = Sut::new(1, settings(2)).with(&small);
    leader.append(&plain(10), -1).unwrap();
    leader.fetched_by(2, 10).unwrap();
    leader.fx();
    leader.fetched_by(3, 9).unwrap();
    assert_eq!(leader.fx(), [], "below the high watermark");
    leader.fetched_by(3, 10).unwrap();
    assert_eq!(leader.fx(), [alter(0, 0, 0, &[(1, 101), (2, 102), (3, 103)])]);
    leader.append(&plain(5), -1).unwrap();
    leader.fetched_by(2, 15).unwrap();
    leader.pass(60 * S);
    leader.fetched_by(2, 15).unwrap();
    assert_eq!(
        leader.replica.high_watermark(),
        10,
        "3 counts before the controller has answered, however slow"
    );
    leader.answer(0, Ok(altered(0, 1, &[1, 2, 3])));
    leader.fetched_by(3, 15).unwrap();
    assert_eq!(leader.replica.high_watermark(), 15);
}

#[test]
fn a_follower_needs_everything_of_earlier_epochs_to_join() {
    let small = PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 0, 0) };
    let mut leader = Sut::new(1, settings(2)).with(&small);
    leader.append(&plain(10), 1).unwrap();
    leader.apply(&PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 1, 1) });
    leader.fx();
    leader.fetched_by(2, 5).unwrap();
    assert_eq!(leader.fx(), [], "the high watermark is 0, but the epoch began at 10");
    leader.fetched_by(2, 10).unwrap();
    assert_eq!(leader.fx(), [alter(0, 1, 1, &[(1, 101), (2, 102)])]);
}

/// Goal: KIP-903, a broker that restarted meanwhile may not join on the strength of what it had before.
#[test]
fn a_fetch_from_before_a_restart_neither_counts_nor_joins() {
    let small = PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 0, 0) };
    let mut leader = Sut::new(1, settings(1)).with(&small);
    let fetch = |epoch| fetch_as(Fetcher::Replica { id: 2, epoch, log_start_offset: 0 }, 0);
    assert_eq!(leader.read(&fetch(101)), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER), "registered as 102");
    leader.read(&fetch(103)).unwrap();
    assert_eq!(leader.fx(), [], "a registration the leader has not heard of yet");
    leader.read(&fetch(-1)).unwrap();
    assert_eq!(leader.fx(), [alter(0, 0, 0, &[(1, 101), (2, -1)])], "before Fetch 15 there is no epoch");
}

#[test]
fn a_fenced_broker_does_not_join() {
    let small = PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 0, 0) };
    let mut leader = Sut::new(1, settings(1));
    leader.replica.apply_metadata(S, &small, &|id| (id != 2).then_some(100 + i64::from(id)), &mut Vec::new());
    leader.fetched_by(2, 0).unwrap();
    assert_eq!(leader.fx(), []);
    leader.apply(&small);
    leader.fetched_by(2, 0).unwrap();
    assert_eq!(
        leader.fx(),
        [alter(0, 0, 0, &[(1, 101), (2, 102)])],
        "unfenced: the same registration, asked again"
    );
}

#[test]
fn each_answer_to_a_proposal_is_taken_as_kafka_does() {
    let lagging = || {
        let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 0, 0));
        leader.append(&plain(10), 1).unwrap();
        leader.pass(10 * S);
        leader.fx();
        leader
    };
    let asked = |again| vec![alter(again, 0, 0, &[(1, 101)])];

    let mut leader = lagging();
    leader.answer(0, Err(ErrorCode::REQUEST_TIMED_OUT));
    let at = leader.now + leader.replica.settings().alter_partition_backoff;
    assert_eq!(leader.replica.deadline(), Some(at));
    leader.pass(at);
    assert_eq!(leader.fx(), asked(0), "lost: the same again");
    assert_eq!(leader.replica.high_watermark(), 0);

    let mut leader = lagging();
    leader.answer(0, Err(ErrorCode::INVALID_UPDATE_VERSION));
    leader.pass(60 * S);
    assert_eq!(leader.fx(), [], "overtaken: newer metadata will tell");
    leader.apply(&registration(&[1, 2], Some(1), 0, 1));
    leader.pass(61 * S);
    assert_eq!(leader.fx(), [alter(1, 0, 1, &[(1, 101)])]);

    let mut leader = lagging();
    leader.answer(0, Err(ErrorCode::INELIGIBLE_REPLICA));
    assert_eq!(leader.fx(), []);
    leader.pass(at);
    assert_eq!(leader.fx(), asked(1), "refused: a new proposal after a pause");

    let mut leader = lagging();
    leader.apply(&registration(&[1, 2], Some(1), 0, 1));
    leader.answer(0, Ok(altered(0, 1, &[1])));
    assert_eq!(leader.replica.isr(), [1, 2], "an answer that metadata has overtaken");
    assert_eq!(leader.replica.high_watermark(), 0);
}

#[test]
fn under_load_the_high_watermark_waits_for_a_follower_that_is_about_to_join() {
    let small = PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 0, 0) };
    let mut leader = Sut::new(1, settings(1)).with(&small);
    leader.append(&plain(10), 1).unwrap();
    leader.fetched_by(2, 10).unwrap();
    leader.answer(0, Err(ErrorCode::INELIGIBLE_REPLICA));
    leader.append(&plain(10), 1).unwrap();
    assert_eq!(leader.replica.high_watermark(), 10, "2 was caught up a moment ago");
    leader.pass(leader.now + 10 * S);
    assert_eq!(leader.replica.high_watermark(), 20, "but not for longer than replica.lag.time.max.ms");
}

// ---- fetching ------------------------------------------------------------------------------------------------------

#[test]
fn a_consumer_reads_to_the_high_watermark_and_a_follower_to_the_end() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 0, 0));
    leader.append(&plain(10), 1).unwrap();
    leader.fetched_by(2, 10).unwrap();
    leader.append(&plain(10), 1).unwrap();
    let consumer = |offset| fetch_as(Fetcher::Consumer { follower_ok: false }, offset);
    let fetched = leader.read(&consumer(0)).unwrap();
    assert_eq!((fetched.len_bytes(), fetched.high_watermark), (plain(10).len(), 10));
    assert_eq!(leader.read(&consumer(15)).unwrap().records, Vec::<Bytes>::new(), "not committed: wait");
    assert_eq!(leader.read(&consumer(21)), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(leader.fetched_by(2, 0).unwrap().len_bytes(), 2 * plain(10).len());
}

#[test]
fn fetchers_with_another_leader_epoch_are_told_who_is_behind() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 5, 5));
    let with = |epoch| FetchFrom {
        current_leader_epoch: Some(epoch),
        ..fetch_as(Fetcher::Consumer { follower_ok: true }, 0)
    };
    assert_eq!(leader.read(&with(4)), Err(ErrorCode::FENCED_LEADER_EPOCH));
    assert_eq!(leader.read(&with(6)), Err(ErrorCode::UNKNOWN_LEADER_EPOCH));
    assert!(leader.read(&with(5)).is_ok());
    assert!(leader.read(&with(-1)).is_ok(), "-1 is none");
    assert_eq!(leader.replica.offset_for_leader_epoch(Some(4), 0), Err(ErrorCode::FENCED_LEADER_EPOCH));
    leader.apply(&registration(&[1, 2], Some(2), 6, 6));
    assert!(leader.read(&with(6)).is_ok(), "a follower may serve consumers (KIP-392)");
    assert_eq!(
        leader.read(&fetch_as(Fetcher::Consumer { follower_ok: false }, 0)),
        Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
    );
    assert_eq!(leader.fetched_by(2, 0), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(
        leader.replica.list_offset(OffsetAt::Latest, None, ListedBy::Client),
        Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
    );
}

/// Goal: a follower with another history is not served, and its offset is not counted.
#[test]
fn a_diverging_follower_is_told_where_the_logs_part() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 3, 3));
    leader.append(&plain(10), 1).unwrap();
    leader.apply(&registration(&[1, 2], Some(1), 7, 7));
    leader.append(&plain(10), 1).unwrap();
    leader.fx();
    let fetch = |offset, last| FetchFrom {
        last_fetched_epoch: Some(last),
        ..fetch_as(Fetcher::Replica { id: 2, epoch: 102, log_start_offset: 0 }, offset)
    };
    let diverging = |found: Result<Fetched, ErrorCode>| {
        let found = found.unwrap();
        assert!(found.records.is_empty() || found.diverging.is_none());
        found.diverging.map(|end| (end.epoch, end.end_offset))
    };
    assert_eq!(diverging(leader.read(&fetch(15, 5))), Some((3, 10)), "an epoch this log has nothing of");
    assert_eq!(diverging(leader.read(&fetch(12, 3))), Some((3, 10)), "more of an epoch than this log has");
    assert_eq!(leader.fx(), [], "such a fetch tells nothing");
    assert_eq!(leader.replica.high_watermark(), 0);
    assert_eq!(diverging(leader.read(&fetch(10, 3))), None);
    assert_eq!(diverging(leader.read(&fetch(20, 7))), None);
    assert_eq!(leader.read(&fetch(20, 8)), Err(ErrorCode::OFFSET_OUT_OF_RANGE), "an epoch of the future");
}

// ---- following -----------------------------------------------------------------------------------------------------

#[test]
fn a_follower_appends_the_leaders_batches_as_they_are() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    leader.append(&plain(5), -1).unwrap();
    follower.fx();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(follower.fx(), [Effect::Appended(15)]);
    assert_eq!(follower.bytes(), leader.bytes());
    follower.fetch(&mut leader).unwrap();
    assert_eq!(follower.fx(), [Effect::HighWatermark(15)], "with the fetch that shows it has everything");
}

#[test]
fn a_followers_high_watermark_never_passes_its_own_end() {
    let (_, mut follower) = pair(settings(2));
    let empty =
        FetchedFromLeader { leader_epoch: 0, records: Bytes::new(), high_watermark: 50, log_start_offset: 0 };
    follower.follow(&empty).unwrap();
    assert_eq!(follower.replica.high_watermark(), 0);
}

#[test]
fn a_follower_refuses_what_does_not_continue_its_log() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    let good: Bytes = leader.bytes();
    let answer = |records: Bytes, leader_epoch| FetchedFromLeader {
        leader_epoch,
        records,
        high_watermark: 0,
        log_start_offset: 0,
    };
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(follower.follow(&answer(flipped.into(), 0)), Err(ErrorCode::CORRUPT_MESSAGE));
    assert_eq!(follower.follow(&answer(good.clone(), -1)), Err(ErrorCode::FENCED_LEADER_EPOCH));
    assert_eq!(follower.replica.log_end_offset(), 0);
    follower.follow(&answer(good.clone(), 0)).unwrap();
    assert_eq!(
        follower.follow(&answer(good, 0)),
        Err(ErrorCode::OFFSET_OUT_OF_RANGE),
        "the same answer twice"
    );
}

/// Goal: a follower of a compacted topic takes what is left.
#[test]
fn a_follower_goes_on_across_offsets_that_compaction_has_left_out() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    let later = RawBatch::parse(leader.bytes()).unwrap().assigned(30, 0).concat();
    let answer = FetchedFromLeader {
        leader_epoch: 0,
        records: [&leader.bytes()[..], &later].concat().into(),
        high_watermark: 40,
        log_start_offset: 0,
    };
    follower.follow(&answer).unwrap();
    assert_eq!((follower.replica.log_end_offset(), follower.replica.high_watermark()), (40, 40));
    let mut read =
        |offset| follower.read(&fetch_as(Fetcher::Consumer { follower_ok: true }, offset)).unwrap();
    assert_eq!(read(20).len_bytes(), later.len(), "the first batch behind the gap");
    assert_eq!(read(0).len_bytes(), 2 * later.len());
}

/// Goal: KIP-101. What the high watermark does not cover yet may be committed all the same.
#[test]
fn becoming_a_follower_does_not_truncate_to_the_high_watermark() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(follower.replica.high_watermark(), 0);
    follower.apply(&registration(&[1, 2], Some(1), 1, 1));
    assert_eq!(follower.replica.log_end_offset(), 10);
}

#[test]
fn a_deposed_leader_cuts_what_only_it_has() {
    let (mut old, mut new) = pair(settings(2));
    old.append(&plain(10), -1).unwrap();
    new.fetch(&mut old).unwrap();
    old.append(&plain(7), 1).unwrap();
    let change = registration(&[1, 2], Some(2), 1, 1);
    new.apply(&change);
    new.append(&plain(3), -1).unwrap();
    old.apply(&change);
    old.fx();
    old.fetch(&mut new).unwrap();
    assert_eq!(old.fx(), [Effect::Truncated(10)]);
    old.fetch(&mut new).unwrap();
    assert_eq!(old.bytes(), new.bytes());
    assert_eq!(old.replica.log().epochs(), new.replica.log().epochs());
}

/// Goal: KIP-279. The leader's answer names an epoch the follower has nothing of: one more round.
#[test]
fn a_follower_goes_back_epoch_by_epoch_until_the_logs_agree() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 1, 1));
    let mut follower = Sut::new(2, settings(1)).with(&registration(&[1, 2], Some(1), 1, 1));
    leader.append(&plain(10), 1).unwrap();
    follower.fetch(&mut leader).unwrap();
    // epochs 2 and 4 wrote on the follower only, epoch 3 on the leader only
    follower.apply(&registration(&[1, 2], Some(2), 2, 2));
    follower.append(&plain(5), 1).unwrap();
    leader.apply(&registration(&[1, 2], Some(1), 3, 3));
    leader.append(&plain(2), 1).unwrap();
    follower.apply(&registration(&[1, 2], Some(2), 4, 4));
    follower.append(&plain(5), 1).unwrap();
    let last = registration(&[1, 2], Some(1), 5, 5);
    leader.apply(&last);
    follower.apply(&last);
    follower.fx();
    (0..4).for_each(|_| follower.fetch(&mut leader).unwrap());
    assert_eq!(follower.fx()[..2], [Effect::Truncated(15), Effect::Truncated(10)]);
    assert_eq!(follower.bytes(), leader.bytes());
}

#[test]
fn a_follower_out_of_the_leaders_range_moves_into_it() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    let mut fx = Vec::new();
    follower.replica.out_of_range(S, 0, 40, 60, &mut fx).unwrap();
    assert_eq!(fx, [Effect::Truncated(40), Effect::HighWatermark(40)]);
    let position = follower.replica.fetch_position().unwrap();
    assert_eq!((position.offset, position.log_start_offset, position.last_fetched_epoch), (40, 40, -1));
    assert_eq!(
        follower.replica.out_of_range(S, 9, 0, 0, &mut fx),
        Err(ErrorCode::FENCED_LEADER_EPOCH),
        "an answer of another leadership"
    );
}

/// Goal: after an unclean election the new leader's shorter log is the truth, also about what is committed.
#[test]
fn the_high_watermark_follows_a_truncation_below_it() {
    let (mut old, mut other) = pair(settings(1));
    old.append(&plain(10), -1).unwrap();
    other.fetch(&mut old).unwrap();
    old.append(&plain(10), -1).unwrap();
    old.apply(&PartitionRegistration { isr: vec![1], ..registration(&[1, 2], Some(1), 0, 1) });
    old.pass(60 * S);
    old.append(&plain(10), -1).unwrap();
    assert_eq!(old.replica.high_watermark(), 30);
    let unclean = PartitionRegistration { isr: vec![2], ..registration(&[1, 2], Some(2), 1, 2) };
    old.apply(&unclean);
    other.apply(&unclean);
    old.fetch(&mut other).unwrap();
    assert_eq!((old.replica.log_end_offset(), old.replica.high_watermark()), (10, 10));
    let again = Sut::on(1, settings(1), old.replica.into_directory());
    assert_eq!(again.replica.high_watermark(), 10, "written down at once");
}

#[test]
fn a_follower_gives_up_what_the_leader_has_given_up() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(10), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    let empty =
        FetchedFromLeader { leader_epoch: 0, records: Bytes::new(), high_watermark: 10, log_start_offset: 4 };
    follower.follow(&empty).unwrap();
    assert_eq!(follower.replica.log_start_offset(), 4);
}

// ---- life and death ------------------------------------------------------------------------------------------------

#[test]
fn a_restart_finds_log_and_high_watermark_again() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&idempotent(5, 0, 0, &[b"a", b"b"]), -1).unwrap();
    assert_eq!(
        leader.replica.deadline(),
        Some(leader.now + 5 * S),
        "the high watermark is to be written down"
    );
    leader.pass(leader.now + 5 * S);
    assert_eq!(leader.replica.deadline(), None);
    leader.append(&idempotent(5, 0, 2, &[b"c"]), -1).unwrap();
    let before = (leader.replica.log().producers().clone(), leader.replica.log().epochs().clone());
    let again = Sut::on(1, settings(1), leader.replica.into_directory());
    assert_eq!((again.replica.log_end_offset(), again.replica.high_watermark()), (3, 2));
    assert_eq!((again.replica.log().producers().clone(), again.replica.log().epochs().clone()), before);
    assert_eq!(again.replica.role(), Role::Offline);
}

/// Goal: nothing may be called committed that the storage has lost.
#[test]
fn a_high_watermark_beyond_what_power_off_left_is_cut() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&plain(10), -1).unwrap();
    leader.replica.directory_mut().sync_now().unwrap();
    leader.append(&plain(10), -1).unwrap();
    leader.replica.checkpoint().unwrap();
    let mut storage = leader.replica.into_directory();
    storage.power_off();
    let again = Sut::on(1, settings(1), storage);
    assert_eq!((again.replica.log_end_offset(), again.replica.high_watermark()), (10, 10));
}

#[test]
fn roles_are_told_once_and_old_metadata_changes_nothing() {
    let mut sut = Sut::new(1, settings(1));
    sut.apply(&registration(&[1, 2], Some(2), 3, 5));
    sut.apply(&registration(&[1, 2], Some(2), 3, 5));
    assert_eq!(sut.fx(), [Effect::RoleChanged(Role::Follower { leader: 2, leader_epoch: 3 })]);
    sut.apply(&registration(&[1, 2], Some(1), 2, 4));
    assert_eq!((sut.fx(), sut.replica.leader_epoch()), (vec![], 3));
    sut.apply(&registration(&[1, 2], None, 4, 6));
    assert_eq!(sut.fx(), [Effect::RoleChanged(Role::Offline)]);
    sut.apply(&registration(&[2, 3], Some(2), 5, 7));
    assert_eq!(sut.fx(), [], "not held here any more");
}

/// Goal: a broker that replays old metadata after a restart must not lead, nor forget epochs its log has seen.
#[test]
fn metadata_from_before_the_logs_last_epoch_is_not_believed() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 3, 3));
    leader.append(&plain(1), 1).unwrap();
    leader.apply(&registration(&[1, 2], Some(1), 7, 7));
    leader.append(&plain(1), 1).unwrap();
    let epochs = leader.replica.log().epochs().clone();
    let mut again = Sut::on(1, settings(1), leader.replica.into_directory());
    again.apply(&registration(&[1, 2], Some(1), 3, 3));
    assert_eq!((again.replica.role(), again.fx()), (Role::Offline, vec![]));
    assert_eq!(again.replica.log().epochs(), &epochs);
    again.apply(&registration(&[1, 2], Some(2), 8, 8));
    assert_eq!(again.replica.role(), Role::Follower { leader: 2, leader_epoch: 8 });
}

/// Goal: a failed write is never tried again, and never acknowledged.
#[test]
fn a_storage_that_fails_takes_the_replica_offline() {
    let identity = identity(1);
    let mut replica = Replica::new(identity, Full::default(), settings(1)).unwrap();
    let mut fx = Vec::new();
    replica.apply_metadata(S, &registration(&[1], Some(1), 0, 0), &alive, &mut fx);
    fx.clear();
    let produce = Produce { records: plain(1), acks: -1, api_version: 9 };
    let error = replica.append(S, WALL_MS, &produce, &mut fx).unwrap_err();
    assert_eq!(error.code, ErrorCode::KAFKA_STORAGE_ERROR);
    assert!(matches!(fx[..], [Effect::StorageFailed(_), Effect::RoleChanged(Role::Offline)]), "{fx:?}");
    replica.apply_metadata(S, &registration(&[1], Some(1), 1, 1), &alive, &mut fx);
    assert_eq!(replica.role(), Role::Offline);
    assert_eq!(
        replica.append(S, WALL_MS, &produce, &mut fx).unwrap_err().code,
        ErrorCode::KAFKA_STORAGE_ERROR
    );
}

#[test]
fn offsets_are_listed_by_time_and_place() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1, 2], Some(1), 2, 2));
    leader.append(&plain(10), 1).unwrap();
    leader.fetched_by(2, 10).unwrap();
    leader.append(&produced(ProducerStamp::default(), 5_000, &[b"x"], Compression::None), 1).unwrap();
    let list = |at, by| {
        let found = leader.replica.list_offset(at, None, by).unwrap();
        (found.offset, found.timestamp, found.leader_epoch)
    };
    let none = (-1, -1, -1);
    assert_eq!(list(OffsetAt::Earliest, ListedBy::Client), (0, -1, 2));
    assert_eq!(list(OffsetAt::Latest, ListedBy::Client), (10, -1, 2));
    assert_eq!(list(OffsetAt::Latest, ListedBy::Replica), (11, -1, 2));
    assert_eq!(list(OffsetAt::Timestamp(1_004), ListedBy::Client), (4, 1_004, 2));
    assert_eq!(list(OffsetAt::Timestamp(5_000), ListedBy::Client), none, "not committed");
    assert_eq!(list(OffsetAt::MaxTimestamp, ListedBy::Client), none, "neither is the latest one");
    assert_eq!(list(OffsetAt::MaxTimestamp, ListedBy::Debugger), (10, 5_000, 2));
    assert_eq!(list(OffsetAt::Tiered, ListedBy::Client), none);
    assert_eq!(OffsetAt::from_wire(-7), None);
}

/// Goal: whoever leads again after epochs it has not seen does not know what its followers did meanwhile.
#[test]
fn a_leadership_with_a_gap_in_its_epochs_begins_anew() {
    let mut leader = Sut::new(1, settings(2)).with(&registration(&[1, 2, 3], Some(1), 5, 5));
    let appended = leader.append(&plain(3), -1).unwrap();
    leader.fetched_by(2, 3).unwrap();
    assert_eq!(leader.replica.acked(appended.leader_epoch, 3), Ok(false), "3 is in the ISR, too");
    leader.apply(&registration(&[1, 2], Some(1), 7, 7));
    assert_eq!(leader.replica.high_watermark(), 0, "what 2 had in epoch 5 it may have cut off in epoch 6");
    let stale = leader.replica.acked(appended.leader_epoch, 3);
    assert_eq!(stale, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    leader.fetched_by(2, 3).unwrap();
    assert_eq!(leader.replica.high_watermark(), 3);
}
