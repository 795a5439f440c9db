//! Exact effects of the sender, and a model of brokers against which any order of events is tried.

use std::time::Duration;

use klamm_wire::{ErrorCode, ProducerStamp};

use super::*;
use crate::Tick;
use crate::backoff::Backoff;

mod stalled;
mod world;

const MS: Duration = Duration::from_millis(1);
const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

fn settings() -> Settings {
    Settings {
        acks: Acks::All,
        idempotent: true,
        linger: 5 * MS,
        delivery_timeout: 3000 * MS,
        retries: u32::MAX,
        backoff: Backoff::new(100 * MS, 1000 * MS),
        max_in_flight: 5,
        max_request_bytes: 10_000,
    }
}

/// A sender whose partitions 0 and 1 are led by a connected broker 1, and which has its producer id.
struct Desk {
    sender: Sender,
    now: Tick,
    next: u64,
}

impl Desk {
    fn new(settings: Settings) -> Self {
        let sender = Sender::new(settings, fastrand::Rng::with_seed(1));
        let mut desk = Self { sender, now: MS, next: 0 };
        for partition in [P0, P1] {
            desk.feed(Event::Leader { partition, leader: Some(1) });
        }
        desk.feed(Event::Connected { broker: 1 });
        desk.feed(Event::ProducerId { id: 9, epoch: 0 });
        desk
    }

    fn feed(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.sender.step(self.now, event, &mut out);
        self.sender.advance(self.now, &mut out);
        out
    }

    fn at(&mut self, now: Tick) -> Vec<Effect> {
        self.now = now;
        let mut out = Vec::new();
        self.sender.advance(now, &mut out);
        out
    }

    /// Opens a batch of three records and seals it as full.
    fn full(&mut self, partition: PartitionId) -> Vec<Effect> {
        let batch = BatchId::new(self.next);
        self.next += 1;
        let mut out = self.feed(Event::Opened { partition, batch });
        out.extend(self.feed(Event::Sealed { batch, bytes: 1000, records: 3 }));
        out
    }

    fn answer(
        &mut self,
        request: u64,
        partition: PartitionId,
        code: ErrorCode,
        base_offset: i64,
    ) -> Vec<Effect> {
        let answer = Answer { code, base_offset, log_append_time: -1, message: None };
        self.feed(Event::Answered { request: RequestId(request), answers: vec![(partition, answer)] })
    }
}

fn stamp(producer_epoch: i16, base_sequence: i32) -> ProducerStamp {
    ProducerStamp { producer_id: 9, producer_epoch, base_sequence }
}

fn drained(partition: PartitionId, batch: u64, epoch: i16, sequence: i32) -> Drained {
    Drained { partition, batch: BatchId::new(batch), stamp: stamp(epoch, sequence) }
}

fn produce<const N: usize>(request: u64, batches: [Drained; N]) -> Effect {
    Effect::Produce(Produce { request: RequestId(request), broker: 1, batches: batches.to_vec() })
}

fn written(batch: u64, base_offset: i64) -> [Effect; 2] {
    let outcome = Outcome::Written { base_offset: Some(base_offset), log_append_time: None };
    [Effect::Resolve(BatchId::new(batch), outcome), Effect::Free(BatchId::new(batch))]
}

#[test]
fn an_open_batch_lingers_then_is_sealed_then_sent() {
    let mut desk = Desk::new(settings());
    assert_eq!(desk.feed(Event::Opened { partition: P0, batch: BatchId::new(0) }), []);
    assert_eq!(desk.sender.deadline(), Some(6 * MS));
    assert_eq!(desk.at(5 * MS), []);
    assert_eq!(desk.at(6 * MS), [Effect::Seal(BatchId::new(0))]);
    assert_eq!(
        desk.feed(Event::Sealed { batch: BatchId::new(0), bytes: 100, records: 1 }),
        [produce(0, [drained(P0, 0, 0, 0)])]
    );
    assert_eq!(desk.answer(0, P0, ErrorCode::NONE, 70), written(0, 70));
    assert_eq!((desk.sender.unresolved(), desk.sender.in_flight(), desk.sender.deadline()), (0, 0, None));
}

#[test]
fn an_open_batch_stays_open_for_more_records_while_its_broker_takes_none() {
    let mut desk = Desk::new(Settings { max_in_flight: 1, linger: Duration::ZERO, ..settings() });
    desk.full(P0);
    assert_eq!(desk.feed(Event::Opened { partition: P1, batch: BatchId::new(1) }), []);
    let mut expected = written(0, 0).to_vec();
    expected.push(Effect::Seal(BatchId::new(1)));
    assert_eq!(desk.answer(0, P0, ErrorCode::NONE, 0), expected);
}

#[test]
fn batches_of_one_leader_share_a_request_up_to_its_limit() {
    let mut desk = Desk::new(Settings { max_request_bytes: 2500, ..settings() });
    desk.feed(Event::Leader { partition: PartitionId(2), leader: Some(1) });
    let mut out = Vec::new();
    for (partition, batch) in [(P0, 0), (P1, 1), (PartitionId(2), 2)] {
        let batch = BatchId::new(batch);
        desk.sender.step(desk.now, Event::Opened { partition, batch }, &mut out);
        desk.sender.step(desk.now, Event::Sealed { batch, bytes: 1000, records: 1 }, &mut out);
    }
    desk.sender.advance(desk.now, &mut out);
    let two = [drained(P0, 0, 0, 0), drained(P1, 1, 0, 0)];
    assert_eq!(out, [produce(0, two), produce(1, [drained(PartitionId(2), 2, 0, 0)])]);
}

#[test]
fn until_the_first_acknowledgement_only_one_batch_of_a_partition_is_in_flight() {
    let mut desk = Desk::new(settings());
    assert_eq!(desk.full(P0), [produce(0, [drained(P0, 0, 0, 0)])]);
    for _ in 0..6 {
        assert_eq!(desk.full(P0), []);
    }
    let mut expected = written(0, 0).to_vec();
    expected.extend((1..=5).map(|n| produce(n, [drained(P0, n, 0, 3 * n as i32)])));
    assert_eq!(desk.answer(0, P0, ErrorCode::NONE, 0), expected, "then as many as max.in.flight allows");
}

/// Goal: a new log takes whatever comes first, so what is behind must wait until that is known to be written.
#[test]
fn in_a_topic_created_again_only_one_batch_is_in_flight_until_the_first_acknowledgement() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    desk.feed(Event::Recreated { partition: P0 });
    assert_eq!(desk.full(P0), [produce(1, [drained(P0, 1, 0, 3)])]);
    assert_eq!(desk.full(P0), []);
    let mut expected = written(1, 0).to_vec();
    expected.push(produce(2, [drained(P0, 2, 0, 6)]));
    assert_eq!(desk.answer(1, P0, ErrorCode::NONE, 0), expected);
}

/// Goal: order survives a retry, however the answers come in.
#[test]
fn a_failed_batch_is_sent_again_before_those_behind_it() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    desk.full(P0);
    desk.full(P0);
    assert_eq!(desk.answer(1, P0, ErrorCode::NOT_ENOUGH_REPLICAS, -1), []);
    assert_eq!(desk.answer(2, P0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1), []);
    let wake = desk.sender.deadline().unwrap();
    assert!((80 * MS..=121 * MS).contains(&wake), "{wake:?}");
    assert_eq!(desk.at(wake), [produce(3, [drained(P0, 1, 0, 3)])]);
    let mut expected = written(1, 3).to_vec();
    expected.push(produce(4, [drained(P0, 2, 0, 6)]));
    assert_eq!(desk.answer(3, P0, ErrorCode::NONE, 3), expected);
    assert_eq!(desk.answer(4, P0, ErrorCode::DUPLICATE_SEQUENCE_NUMBER, 6), written(2, 6));
    assert_eq!(desk.sender.retries(), 2, "each of the two was sent again once");
}

#[test]
fn a_new_leader_is_tried_at_once() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    let refresh = Effect::Refresh("a broker is not the leader it was taken for");
    assert_eq!(desk.answer(0, P0, ErrorCode::NOT_LEADER_OR_FOLLOWER, -1), [refresh]);
    assert_eq!(desk.feed(Event::Leader { partition: P0, leader: Some(2) }), [Effect::Connect(2)]);
    let Some(Effect::Produce(request)) = desk.feed(Event::Connected { broker: 2 }).pop() else { panic!() };
    assert_eq!((request.broker, request.batches), (2, vec![drained(P0, 0, 0, 0)]));
}

/// Goal: KIP-219. The broker answers nothing meanwhile anyway, and other brokers have nothing to do with it.
#[test]
fn a_broker_that_asks_for_silence_gets_it_and_others_go_on() {
    let mut desk = Desk::new(settings());
    desk.feed(Event::Leader { partition: P1, leader: Some(2) });
    desk.feed(Event::Connected { broker: 2 });
    desk.full(P0);
    desk.feed(Event::Throttled { broker: 1, until: 501 * MS });
    desk.feed(Event::Throttled { broker: 1, until: 301 * MS });
    assert_eq!(desk.answer(0, P0, ErrorCode::NONE, 0), written(0, 0), "what was sent before is answered");
    assert_eq!(desk.full(P0), []);
    assert_eq!(desk.sender.deadline(), Some(501 * MS), "the longest pause counts");
    let Some(Effect::Produce(other)) = desk.full(P1).pop() else { panic!("broker 2 has not asked") };
    assert_eq!(other.broker, 2);
    assert_eq!(desk.at(500 * MS), []);
    assert_eq!(desk.at(501 * MS), [produce(2, [drained(P0, 1, 0, 3)])]);
}

/// Goal: a pause is no reason to wake up again and again.
#[test]
fn a_pause_is_waited_for_once_also_where_the_connection_is_to_be_made_again() {
    let mut desk = Desk::new(settings());
    desk.feed(Event::Throttled { broker: 1, until: 2001 * MS });
    assert_eq!(desk.sender.deadline(), None, "with nothing to send there is nothing to wait for");
    desk.feed(Event::Unreachable { broker: 1 });
    assert_eq!(desk.full(P0), []);
    assert_eq!(desk.sender.deadline(), Some(2001 * MS));
    assert_eq!(desk.at(2001 * MS), [Effect::Connect(1)]);
}

/// Goal: `delivery.timeout.ms` holds whatever the broker asks for.
#[test]
fn a_pause_longer_than_the_delivery_timeout_fails_what_waits_for_its_end() {
    let mut desk = Desk::new(settings());
    desk.feed(Event::Throttled { broker: 1, until: 9000 * MS });
    desk.full(P0);
    let failure = Failure::TimedOut { waited: 3000 * MS, maybe_written: false, last: None };
    let failed = Effect::Resolve(BatchId::new(0), Outcome::Failed(failure));
    assert_eq!(desk.at(3001 * MS), [failed, Effect::Free(BatchId::new(0))]);
}

/// Goal: whoever sent to a topic that is gone hears that it is gone, also where no broker answered.
#[test]
fn a_batch_that_times_out_names_what_the_metadata_say_of_its_topic() {
    for (known_again, last) in
        [(false, Some(Cause::Code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))), (true, Some(Cause::NoAnswer))]
    {
        let mut desk = Desk::new(settings());
        desk.full(P0);
        desk.feed(Event::Lost { request: RequestId(0), maybe_written: false, retriable: true });
        desk.feed(Event::Unknown { partition: P0, code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION });
        if known_again {
            desk.feed(Event::Leader { partition: P0, leader: Some(1) });
        }
        let failure = Failure::TimedOut { waited: 3000 * MS, maybe_written: false, last };
        let failed = Effect::Resolve(BatchId::new(0), Outcome::Failed(failure));
        assert!(desk.at(3001 * MS).contains(&failed), "{known_again}");
    }
}

#[test]
fn without_a_leader_metadata_are_asked_for_again_and_again() {
    let mut desk = Desk::new(settings());
    desk.feed(Event::Leader { partition: P0, leader: None });
    let refresh = || Effect::Refresh("a partition to produce to has no leader");
    assert_eq!(desk.full(P0), [refresh()]);
    assert_eq!(desk.sender.deadline(), Some(101 * MS));
    assert_eq!(desk.at(101 * MS), [refresh()]);
    assert_eq!(
        desk.feed(Event::Leader { partition: P0, leader: Some(1) }),
        [produce(0, [drained(P0, 0, 0, 0)])]
    );
}

/// Goal: one batch that cannot be sent must not keep what all others leave behind.
#[test]
fn the_timers_of_batches_that_are_done_are_forgotten_although_an_older_one_waits() {
    let mut desk = Desk::new(settings());
    desk.feed(Event::Leader { partition: P0, leader: None });
    desk.feed(Event::Opened { partition: P0, batch: BatchId::new(0) });
    desk.next = 1;
    for n in 0..5000 {
        desk.full(P1);
        desk.answer(n, P1, ErrorCode::NONE, n as i64);
        assert!(desk.sender.timers() <= 2 * (2 * 2 + 64), "{} after {n}", desk.sender.timers());
    }
    assert_eq!(desk.sender.unresolved(), 1);
    let out = desk.at(3001 * MS);
    assert!(out.contains(&Effect::Seal(BatchId::new(0))), "and what waits still ends in time: {out:?}");
}

/// Goal: a split keeps the timer of the whole for its parts, also of the later ones alone.
#[test]
fn the_timer_of_a_part_that_is_left_is_kept() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    let whole = BatchId::new(0);
    desk.answer(0, P0, ErrorCode::MESSAGE_TOO_LARGE, -1);
    desk.feed(split(whole, [1, 2]));
    desk.answer(1, P0, ErrorCode::NONE, 0);
    for n in 3..300 {
        desk.full(P1);
        desk.answer(n, P1, ErrorCode::NONE, 0);
    }
    assert_eq!(desk.sender.unresolved(), 1);
    let out = desk.at(3001 * MS);
    assert!(
        matches!(&out[..], [Effect::Resolve(part, Outcome::Failed(_))] if *part == whole.part(1)),
        "{out:?}"
    );
}

/// Goal: KIP-360. The broker has lost earlier batches; what is left starts a new epoch at sequence 0.
#[test]
fn a_gap_that_no_retry_can_close_starts_a_new_epoch() {
    let mut desk = Desk::new(settings());
    for n in 0..3 {
        desk.full(P0);
        if n == 0 {
            desk.answer(0, P0, ErrorCode::NONE, 0);
        }
    }
    assert_eq!(desk.answer(1, P0, ErrorCode::UNKNOWN_PRODUCER_ID, -1), []);
    assert_eq!(
        desk.at(desk.now + 500 * MS),
        [],
        "the batch behind it is still in flight under the old epoch"
    );
    assert_eq!(
        desk.answer(2, P0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
        [produce(3, [drained(P0, 1, 1, 0)])]
    );
    let mut expected = written(1, 3).to_vec();
    expected.push(produce(4, [drained(P0, 2, 1, 3)]));
    assert_eq!(desk.answer(3, P0, ErrorCode::NONE, 3), expected);
}

/// Goal: what is behind a batch that is refused for good fails for no fault of its own, and uses up no retry.
#[test]
fn a_batch_behind_one_that_is_refused_starts_the_new_epoch_although_no_retry_is_allowed() {
    let mut desk = Desk::new(Settings { retries: 0, ..settings() });
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    for _ in 0..3 {
        desk.full(P0);
    }
    let code = ErrorCode::INVALID_RECORD;
    let failure = Failure::Rejected { code, message: None, maybe_written: false };
    assert_eq!(
        desk.answer(1, P0, code, -1),
        [Effect::Resolve(BatchId::new(1), Outcome::Failed(failure)), Effect::Free(BatchId::new(1))]
    );
    assert_eq!(desk.answer(2, P0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1), []);
    assert_eq!(
        desk.answer(3, P0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
        [produce(4, [drained(P0, 2, 1, 0)])]
    );
    let mut expected = written(2, 3).to_vec();
    expected.push(produce(5, [drained(P0, 3, 1, 3)]));
    assert_eq!(desk.answer(4, P0, ErrorCode::NONE, 3), expected);
}

/// Goal: a batch before the refused one may be in the log, and goes on under its own sequence.
#[test]
fn a_refused_batch_with_another_one_before_it_changes_nothing_for_that_one() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    desk.full(P0);
    desk.full(P0);
    desk.answer(1, P0, ErrorCode::REQUEST_TIMED_OUT, -1);
    desk.answer(2, P0, ErrorCode::INVALID_RECORD, -1);
    assert_eq!(desk.at(desk.sender.deadline().unwrap()), [produce(3, [drained(P0, 1, 0, 3)])]);
}

#[test]
fn each_limit_of_requests_in_flight_is_used_up_and_not_exceeded() {
    for max_in_flight in 1..=5 {
        let mut desk = Desk::new(Settings { max_in_flight, ..settings() });
        desk.full(P0);
        desk.answer(0, P0, ErrorCode::NONE, 0);
        let sent: usize = (0..8).map(|_| desk.full(P0).len()).sum();
        assert_eq!((sent, desk.sender.in_flight_at(1)), (max_in_flight, max_in_flight));
        assert_eq!(desk.answer(1, P0, ErrorCode::NONE, 3).len(), 3, "resolved, freed, and one more sent");
    }
}

/// Goal: each failure is worth one retry and a longer pause, spread at random, and the count allowed is exact.
#[test]
fn attempts_are_counted_and_their_pauses_grow() {
    for retries in [0_u32, 1, 3] {
        let mut desk =
            Desk::new(Settings { retries, delivery_timeout: Duration::from_secs(60), ..settings() });
        let mut attempts = desk.full(P0).len() as u32;
        let failed = loop {
            let before = desk.now;
            let out = desk.answer(u64::from(attempts - 1), P0, ErrorCode::NOT_ENOUGH_REPLICAS, -1);
            if !out.is_empty() {
                break out;
            }
            let wake = desk.sender.deadline().unwrap();
            let nominal = 100 * MS * (1 << (attempts - 1));
            assert!(
                (nominal * 8 / 10..=nominal * 12 / 10).contains(&(wake - before)),
                "{attempts}: {wake:?}"
            );
            assert_ne!(wake - before, nominal, "no jitter");
            attempts += desk.at(wake).len() as u32;
        };
        assert_eq!(attempts, retries + 1);
        let last = Cause::Code(ErrorCode::NOT_ENOUGH_REPLICAS);
        let failure = Failure::Exhausted { maybe_written: false, last };
        assert_eq!(failed[0], Effect::Resolve(BatchId::new(0), Outcome::Failed(failure)));
    }
}

/// Goal: whoever sends a record again must know whether that can make a copy of it.
#[test]
fn every_failure_says_whether_the_batch_may_be_written() {
    let lost = |maybe_written| Event::Lost { request: RequestId(0), maybe_written, retriable: true };
    let unspoken = |maybe_written| Event::Lost { request: RequestId(0), maybe_written, retriable: false };
    let told = |code| Event::Answered {
        request: RequestId(0),
        answers: vec![(P0, Answer { code, base_offset: -1, log_append_time: -1, message: None })],
    };
    let forgotten = Event::Answered { request: RequestId(0), answers: vec![] };
    for (event, expected) in [
        (lost(true), true),
        (lost(false), false),
        (unspoken(true), true),
        (unspoken(false), false),
        (forgotten, true),
        (told(ErrorCode::REQUEST_TIMED_OUT), true),
        (told(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND), true),
        (told(ErrorCode::NOT_LEADER_OR_FOLLOWER), true),
        (told(ErrorCode::KAFKA_STORAGE_ERROR), true),
        (told(ErrorCode::NETWORK_EXCEPTION), true),
        (told(ErrorCode::UNKNOWN_SERVER_ERROR), true),
        (told(ErrorCode::NOT_ENOUGH_REPLICAS), false),
        (told(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), false),
        (told(ErrorCode::UNKNOWN_TOPIC_ID), false),
        (told(ErrorCode::LEADER_NOT_AVAILABLE), false),
        (told(ErrorCode::INVALID_RECORD), false),
        (told(ErrorCode::INVALID_TIMESTAMP), false),
        (told(ErrorCode::CORRUPT_MESSAGE), false),
        (told(ErrorCode::TOPIC_AUTHORIZATION_FAILED), false),
        (told(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), false),
    ] {
        let mut desk = Desk::new(Settings { retries: 0, ..settings() });
        desk.full(P0);
        let out = desk.feed(event.clone());
        let failed = out.iter().find_map(|effect| match effect {
            Effect::Resolve(_, Outcome::Failed(failure)) => Some(failure.maybe_written()),
            _ => None,
        });
        assert_eq!(failed, Some(expected), "{event:?}: {out:?}");
    }
}

#[test]
fn a_batch_that_times_out_in_flight_says_that_it_may_be_written_and_keeps_its_place() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    desk.full(P0);
    let timed_out = Failure::TimedOut { waited: 3000 * MS, maybe_written: true, last: None };
    assert_eq!(desk.at(3001 * MS), [Effect::Resolve(BatchId::new(1), Outcome::Failed(timed_out))]);
    assert_eq!(desk.full(P0), [produce(2, [drained(P0, 2, 0, 6)])]);
    let refresh = Effect::Refresh("a produce request got no answer");
    assert_eq!(
        desk.feed(Event::Lost { request: RequestId(1), maybe_written: true, retriable: true }),
        [refresh, Effect::Free(BatchId::new(1))]
    );
    assert_eq!(desk.full(P0), [], "nothing new before the lost sequence is accounted for");
    // The one behind it is refused, so the lost one is not in the log: new epoch.
    desk.feed(Event::Connected { broker: 1 });
    assert_eq!(desk.answer(2, P0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1), []);
    assert_eq!(desk.at(desk.sender.deadline().unwrap()), [produce(3, [drained(P0, 2, 1, 0)])]);
}

/// Goal: `delivery.timeout.ms` holds for records whose leader was never there to have their batch closed.
#[test]
fn an_open_batch_times_out_without_a_leader_and_without_a_connection() {
    for leader in [None, Some(7)] {
        let mut desk = Desk::new(settings());
        desk.feed(Event::Leader { partition: P0, leader });
        desk.feed(Event::Opened { partition: P0, batch: BatchId::new(0) });
        desk.at(2000 * MS);
        assert!(desk.at(3001 * MS).contains(&Effect::Seal(BatchId::new(0))), "nobody else would close it");
        let out = desk.feed(Event::Sealed { batch: BatchId::new(0), bytes: 10, records: 1 });
        let failure = Failure::TimedOut { waited: 3000 * MS, maybe_written: false, last: None };
        assert_eq!(
            out[..2],
            [Effect::Resolve(BatchId::new(0), Outcome::Failed(failure)), Effect::Free(BatchId::new(0))]
        );
        assert_eq!(desk.sender.unresolved(), 0);
    }
}

#[test]
fn a_timed_out_batch_that_was_written_after_all_needs_no_new_epoch() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    desk.full(P0);
    desk.at(3001 * MS);
    assert_eq!(desk.answer(1, P0, ErrorCode::NONE, 3), [Effect::Free(BatchId::new(1))]);
    assert_eq!(desk.full(P0), [produce(2, [drained(P0, 2, 0, 6)])]);
}

#[test]
fn a_refused_batch_fails_alone_and_the_next_starts_a_new_epoch() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    let code = ErrorCode::INVALID_RECORD;
    let failure = Failure::Rejected { code, message: None, maybe_written: false };
    assert_eq!(
        desk.answer(0, P0, code, -1),
        [Effect::Resolve(BatchId::new(0), Outcome::Failed(failure)), Effect::Free(BatchId::new(0))]
    );
    assert_eq!(desk.full(P0), [produce(1, [drained(P0, 1, 1, 0)])]);
}

fn split(batch: BatchId, parts: impl IntoIterator<Item = u32>) -> Event {
    let part = |records| Part { bytes: 300, records };
    Event::Split { batch, parts: parts.into_iter().map(part).collect() }
}

/// Goal: the parts stand where the whole stood, with its sequences, before whatever is behind.
#[test]
fn a_batch_that_is_too_large_goes_out_in_parts_in_its_place() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    desk.full(P0);
    desk.full(P0);
    let whole = BatchId::new(1);
    assert_eq!(desk.answer(1, P0, ErrorCode::MESSAGE_TOO_LARGE, -1), [Effect::Split(whole)]);
    assert_eq!(desk.answer(2, P0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1), [], "it waits behind");
    assert_eq!(desk.full(P0), [], "and so does whatever is new");
    let first = drained(P0, 1, 0, 3);
    assert_eq!(desk.feed(split(whole, [1, 2])), [produce(3, [first])], "at once");
    let second = Drained { batch: whole.part(1), ..drained(P0, 1, 0, 4) };
    let mut expected = written(1, 3).to_vec();
    expected.push(produce(4, [second]));
    assert_eq!(desk.answer(3, P0, ErrorCode::NONE, 3), expected);
    // The second part is too large as well, and is split again.
    assert_eq!(desk.answer(4, P0, ErrorCode::RECORD_LIST_TOO_LARGE, -1), [Effect::Split(whole.part(1))]);
    assert_eq!(desk.feed(split(whole.part(1), [1, 1])), [produce(5, [second])]);
    let outcome = |offset| Outcome::Written { base_offset: Some(offset), log_append_time: None };
    for (request, first) in [(5, 1), (6, 2)] {
        let id = whole.part(first);
        let offset = 3 + i64::from(first);
        let next = match first {
            1 => vec![produce(6, [Drained { batch: whole.part(2), ..drained(P0, 1, 0, 5) }])],
            // What is new goes along with what was sent before.
            _ => vec![produce(7, [drained(P0, 2, 0, 6)]), produce(8, [drained(P0, 3, 0, 9)])],
        };
        let resolved = [Effect::Resolve(id, outcome(offset)), Effect::Free(id)];
        assert_eq!(desk.answer(request, P0, ErrorCode::NONE, offset), [&resolved[..], &next[..]].concat());
    }
}

/// Goal: a split is no retry: Java does not count it either.
#[test]
fn a_batch_is_split_although_no_retry_is_allowed() {
    let mut desk = Desk::new(Settings { retries: 0, ..settings() });
    desk.full(P0);
    let whole = BatchId::new(0);
    assert_eq!(desk.answer(0, P0, ErrorCode::MESSAGE_TOO_LARGE, -1), [Effect::Split(whole)]);
    assert_eq!(desk.feed(split(whole, [2, 1])), [produce(1, [drained(P0, 0, 0, 0)])]);
}

/// Goal: what cannot be split may have been written by an attempt before the one that was refused for its size.
#[test]
fn a_batch_that_cannot_be_split_says_whether_it_may_be_written() {
    for maybe_written in [false, true] {
        let mut desk = Desk::new(settings());
        desk.full(P0);
        desk.feed(Event::Lost { request: RequestId(0), maybe_written, retriable: true });
        desk.feed(Event::Connected { broker: 1 });
        desk.at(desk.sender.deadline().unwrap());
        let batch = BatchId::new(0);
        assert_eq!(desk.answer(1, P0, ErrorCode::MESSAGE_TOO_LARGE, -1), [Effect::Split(batch)]);
        let out = desk.feed(Event::Unsealable { batch });
        let failed = Outcome::Failed(Failure::Unsealable { maybe_written });
        assert_eq!(out, [Effect::Resolve(batch, failed), Effect::Free(batch)]);
    }
}

#[test]
fn a_single_record_that_is_too_large_fails_with_its_size() {
    let mut desk = Desk::new(settings());
    let batch = BatchId::new(0);
    desk.feed(Event::Opened { partition: P0, batch });
    desk.feed(Event::Sealed { batch, bytes: 7000, records: 1 });
    let code = ErrorCode::MESSAGE_TOO_LARGE;
    let failure = Failure::TooLarge { code, bytes: 7000, maybe_written: false };
    let failed = Effect::Resolve(batch, Outcome::Failed(failure));
    assert_eq!(desk.answer(0, P0, code, -1), [failed, Effect::Free(batch)]);
}

/// Goal: whoever splits may take his time, and the producer's end does not wait for it.
#[test]
fn a_batch_that_is_being_split_is_given_up_with_the_others_and_comes_back_to_nobody() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    let whole = BatchId::new(0);
    desk.answer(0, P0, ErrorCode::MESSAGE_TOO_LARGE, -1);
    let failed = Outcome::Failed(Failure::Aborted { maybe_written: false });
    assert_eq!(desk.feed(Event::Abort), [Effect::Resolve(whole, failed), Effect::Free(whole)]);
    assert_eq!(desk.feed(split(whole, [2, 1])), []);
}

/// Goal: `delivery.timeout.ms` counts from when the records were accepted, split or not.
#[test]
fn parts_have_the_delivery_timeout_of_the_whole() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    let whole = BatchId::new(0);
    desk.answer(0, P0, ErrorCode::MESSAGE_TOO_LARGE, -1);
    desk.at(2000 * MS);
    desk.feed(split(whole, [1, 2]));
    let failed =
        |maybe_written, last| Outcome::Failed(Failure::TimedOut { waited: 3000 * MS, maybe_written, last });
    let last = Some(Cause::Code(ErrorCode::MESSAGE_TOO_LARGE));
    let out = desk.at(3001 * MS);
    assert_eq!(
        out,
        [
            Effect::Resolve(whole, failed(true, last)),
            Effect::Resolve(whole.part(1), failed(false, last)),
            Effect::Free(whole.part(1)),
        ],
        "the first part is in flight"
    );
}

#[test]
fn retries_end_after_the_number_allowed() {
    let mut desk = Desk::new(Settings { retries: 1, idempotent: false, acks: Acks::Leader, ..settings() });
    let out = desk.full(P0);
    let anonymous = ProducerStamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
    assert!(matches!(&out[..], [Effect::Produce(p)] if p.batches[0].stamp == anonymous));
    desk.answer(0, P0, ErrorCode::NOT_ENOUGH_REPLICAS, -1);
    desk.at(desk.sender.deadline().unwrap());
    let last = Cause::Code(ErrorCode::NOT_ENOUGH_REPLICAS);
    let failure = Failure::Exhausted { maybe_written: false, last };
    assert_eq!(
        desk.answer(1, P0, ErrorCode::NOT_ENOUGH_REPLICAS, -1),
        [Effect::Resolve(BatchId::new(0), Outcome::Failed(failure)), Effect::Free(BatchId::new(0))]
    );
}

#[test]
fn without_acknowledgements_a_written_request_is_success_without_offset() {
    let mut desk = Desk::new(Settings { idempotent: false, acks: Acks::None, ..settings() });
    desk.full(P0);
    let outcome = Outcome::Written { base_offset: None, log_append_time: None };
    assert_eq!(
        desk.feed(Event::Answered { request: RequestId(0), answers: vec![] }),
        [Effect::Resolve(BatchId::new(0), outcome), Effect::Free(BatchId::new(0))]
    );
}

#[test]
fn a_producer_id_is_asked_for_while_the_first_batch_lingers() {
    let mut sender = Sender::new(settings(), fastrand::Rng::with_seed(1));
    let mut out = Vec::new();
    sender.step(MS, Event::Leader { partition: P0, leader: Some(1) }, &mut out);
    sender.step(MS, Event::Connected { broker: 1 }, &mut out);
    sender.step(MS, Event::Opened { partition: P0, batch: BatchId::new(0) }, &mut out);
    sender.advance(MS, &mut out);
    assert_eq!(std::mem::take(&mut out), [Effect::InitProducerId]);
    sender.step(MS, Event::Sealed { batch: BatchId::new(0), bytes: 10, records: 1 }, &mut out);
    sender.advance(MS, &mut out);
    assert_eq!(out, []);
    sender.step(2 * MS, Event::NoProducerId { code: None }, &mut out);
    sender.advance(2 * MS, &mut out);
    assert_eq!(out, []);
    let wake = sender.deadline().unwrap();
    sender.advance(wake, &mut out);
    assert_eq!(std::mem::take(&mut out), [Effect::InitProducerId]);
    let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    sender.step(wake, Event::NoProducerId { code: Some(code) }, &mut out);
    sender.advance(wake, &mut out);
    let failed = Outcome::Failed(Failure::NoProducerId { code });
    assert_eq!(out, [Effect::Resolve(BatchId::new(0), failed), Effect::Free(BatchId::new(0))]);
}

#[test]
fn a_flush_hurries_what_is_open_and_ends_when_all_of_it_is_resolved() {
    let mut desk = Desk::new(Settings { linger: Duration::from_secs(60), ..settings() });
    assert_eq!(desk.feed(Event::Flush { ticket: 1 }), [Effect::Flushed(1)], "nothing to wait for");
    desk.feed(Event::Opened { partition: P0, batch: BatchId::new(0) });
    assert_eq!(desk.feed(Event::Flush { ticket: 2 }), [Effect::Seal(BatchId::new(0))]);
    desk.feed(Event::Opened { partition: P1, batch: BatchId::new(1) });
    desk.feed(Event::Sealed { batch: BatchId::new(0), bytes: 10, records: 1 });
    let [resolve, free] = written(0, 5);
    assert_eq!(desk.answer(0, P0, ErrorCode::NONE, 5), [resolve, Effect::Flushed(2), free]);
}

#[test]
fn one_in_flight_keeps_order_without_idempotence() {
    let plain = Settings { idempotent: false, max_in_flight: 1, ..settings() };
    let mut desk = Desk::new(plain);
    desk.full(P0);
    assert_eq!(desk.full(P0), []);
    desk.answer(0, P0, ErrorCode::REQUEST_TIMED_OUT, -1);
    let out = desk.at(desk.sender.deadline().unwrap());
    assert!(matches!(&out[..], [Effect::Produce(p)] if p.batches[0].batch == BatchId::new(0)), "{out:?}");
}

#[test]
fn giving_up_everything_tells_what_may_be_written() {
    let mut desk = Desk::new(settings());
    desk.full(P0);
    desk.full(P0);
    let failed = |maybe_written| Outcome::Failed(Failure::Aborted { maybe_written });
    assert_eq!(
        desk.feed(Event::Abort),
        [
            Effect::Resolve(BatchId::new(0), failed(true)),
            Effect::Free(BatchId::new(0)),
            Effect::Resolve(BatchId::new(1), failed(false)),
            Effect::Free(BatchId::new(1)),
        ]
    );
    assert_eq!(desk.sender.deadline(), None);
}
