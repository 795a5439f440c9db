//! The whole producer against one broker in this process, under virtual time.

use std::time::Duration;

use futures::FutureExt;
use klamm_wire::{Compression, ErrorCode};

use super::*;
use crate::error::Recovery;
use crate::rt::Rt;
use crate::serializer::Plain;

mod blocking;
mod broker;
mod closing;
#[cfg(feature = "metrics")]
mod measuring;
mod ordering;
mod placing;
mod pouring;
#[cfg(feature = "mock")]
mod retrying;
mod telling;
mod tracing_spans;

use broker::{Broker, Produced};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn builder(broker: &Broker) -> ProducerBuilder {
    Producer::builder().bootstrap_servers("here:1").connector(broker.connector())
}

fn line(value: impl Into<String>) -> Record {
    Record::new("t").partition(0).value(value.into())
}

fn now(producer: &Producer) -> Tick {
    producer.inner.accumulator.client.rt().now()
}

/// Everything a test sent is accounted for again.
async fn check_memory<K, V>(producer: &Producer<K, V>) {
    producer.inner.accumulator.client.rt().sleep(MS).await;
    let memory = &producer.inner.accumulator.memory;
    assert_eq!(memory.available(), memory.total());
    assert_eq!(producer.requests_in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn records_arrive_as_they_were_sent_with_null_and_empty_kept_apart() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let record = || Record::new("t").partition(1);
    let first = producer.send(record()).await.unwrap();
    let second = producer.send(record().key("").value("").header("h", "").null_header("n")).await.unwrap();
    let third = producer.send_and_wait(record().key("k").value("v").timestamp(99)).await.unwrap();
    assert_eq!((third.topic(), third.partition, third.offset, third.timestamp), ("t", 1, Some(2), 99));
    assert_eq!((first.await.unwrap().offset, second.await.unwrap().offset), (Some(0), Some(1)));
    let (empty, header) = (Some(vec![]), |name: &str, value| (name.as_bytes().to_vec(), value));
    assert_eq!(
        broker.records(1),
        [
            (None, None, vec![]),
            (empty.clone(), empty.clone(), vec![header("h", empty), header("n", None)]),
            (Some(b"k".to_vec()), Some(b"v".to_vec()), vec![]),
        ]
    );
    assert_eq!(broker.0.lock().requests, 1, "all three lingered into one batch");
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn keys_choose_partitions_as_in_java_and_records_without_spread_over_all() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).build().unwrap();
    for _ in 0..300 {
        drop(producer.send(Record::new("t").value("twenty bytes of text")).await.unwrap());
    }
    producer.flush().await.unwrap();
    let counts: Vec<usize> = (0..broker::PARTITIONS).map(|p| broker.records(p).len()).collect();
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    let keyed = producer.send_and_wait(Record::new("t").key("foobar").value("v")).await.unwrap();
    assert_eq!(keyed.partition, (-790_332_482_i32 & 0x7fff_ffff) % broker::PARTITIONS);
}

#[tokio::test(start_paused = true)]
async fn typed_records_go_through_their_serializers() {
    struct Failing;
    impl Serializer<u8> for Failing {
        fn serialize<'a>(
            &self,
            _: &str,
            headers: &mut crate::record::Headers,
            data: &'a u8,
            scratch: &'a mut Vec<u8>,
        ) -> Result<Option<&'a [u8]>, SerializeError> {
            headers.push(("type".into(), None));
            scratch.push(*data);
            if *data == 0 { Err("zero".into()) } else { Ok(Some(scratch)) }
        }
    }
    let broker = Broker::default();
    let producer: Producer<i32, u8> =
        builder(&broker).key_serializer(Plain).value_serializer(Failing).build().unwrap();
    let record = |value: u8| Record::new("t").partition(0).key(258).value(value);
    let error = producer.send(record(0)).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot serialize the value (u8) for topic \"t\": zero");
    producer.send_and_wait(record(5)).await.unwrap();
    producer.send_and_wait(record(6)).await.unwrap();
    let header = vec![(b"type".to_vec(), None)];
    let logged = |value| (Some(vec![0, 0, 1, 2]), Some(vec![value]), header.clone());
    assert_eq!(broker.records(0), [logged(5), logged(6)]);
}

#[tokio::test(start_paused = true)]
async fn every_codec_that_can_encode_round_trips_whether_full_or_lingering() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4] {
        let broker = Broker::default();
        let producer: Producer = builder(&broker).compression_type(codec).batch_size(1000).build().unwrap();
        let lines: Vec<_> = (0..50).map(|i| format!("{i} {}", "x".repeat(90))).collect();
        for text in &lines {
            drop(producer.send(line(text.clone())).await.unwrap());
        }
        producer.flush().await.unwrap();
        assert_eq!(broker.values(0), lines);
        let batches = broker.batches(0);
        assert!(batches.len() >= 5 && batches.iter().all(|b| b.header().compression() == Ok(codec)));
        check_memory(&producer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_may_have_a_codec_of_its_own_whether_its_batches_are_full_or_lingering() {
    for (own, by_type) in [(Compression::Gzip, Compression::None), (Compression::None, Compression::Lz4)] {
        let broker = Broker::default();
        let builder = builder(&broker).compression_type(by_type).topic_compression("t", own).batch_size(500);
        let producer: Producer = builder.build().unwrap();
        for partition in 0..2 {
            for _ in 0..9 {
                let record = Record::new("t").partition(partition).value("x".repeat(100));
                drop(producer.send(record).await.unwrap());
            }
        }
        drop(producer.send(Record::new("other").partition(2).value("x".repeat(100))).await.unwrap());
        producer.flush().await.unwrap();
        let codecs =
            |partition| broker.batches(partition).into_iter().map(|b| b.header().compression().unwrap());
        assert!(codecs(0).chain(codecs(1)).all(|codec| codec == own));
        assert!(codecs(0).count() > 1);
        assert_eq!(codecs(2).collect::<Vec<_>>(), [by_type]);
        check_memory(&producer).await;
    }
}

/// Goal: one copy, in order, whatever goes wrong on the way.
#[tokio::test(start_paused = true)]
async fn order_and_exactly_one_copy_survive_refusals() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(100).build().unwrap();
    producer.send_and_wait(line("first")).await.unwrap();
    let codes = [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER];
    broker.0.lock().script.extend(codes.map(Produced::Refused));
    broker.0.lock().script.extend([Produced::Refused(codes[1]); 3]);
    let mut deliveries = Vec::new();
    for i in 0..40 {
        deliveries.push(producer.send(line(format!("line {i}"))).await.unwrap());
    }
    for (i, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, Some(i as i64 + 1));
    }
    let sequences: Vec<_> =
        broker.batches(0).iter().map(|b| (b.header().base_sequence, b.header().count)).collect();
    for pair in sequences.windows(2) {
        assert_eq!(pair[1].0, pair[0].0 + pair[0].1, "{sequences:?}");
    }
    assert_eq!(broker.batches(0)[0].header().producer_id, 7);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_made_again_and_the_batch_sent_again_with_its_sequence() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    broker.0.lock().script.push_back(Produced::Lost);
    producer.send_and_wait(line("again")).await.unwrap();
    // This broker keeps no producer state, so the copy shows; a real one answers by sequence.
    let sequences: Vec<_> = broker.batches(0).iter().map(|b| b.header().base_sequence).collect();
    assert_eq!(sequences, [0, 0]);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_for_good_fails_alone() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::INVALID_RECORD));
    let error = producer.send_and_wait(line("bad")).await.unwrap_err();
    assert!(matches!(error, SendError::Rejected { code: ErrorCode::INVALID_RECORD, .. }), "{error}");
    assert_eq!((error.recovery(), error.maybe_written()), (Recovery::Fix, false));
    assert_eq!(producer.send_and_wait(line("good")).await.unwrap().offset, Some(0));
    let header = *broker.batches(0)[0].header();
    assert_eq!((header.producer_epoch, header.base_sequence), (1, 0), "a new epoch after the gap");
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_time_is_up_says_whether_it_may_be_written() {
    let broker = Broker::default();
    let timeouts = builder(&broker).request_timeout_ms(2 * S).delivery_timeout_ms(3 * S);
    let producer: Producer = timeouts.build().unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    let began = now(&producer);
    let error = producer.send_and_wait(line("lost")).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { maybe_written: true, .. }), "{error}");
    assert!((3 * S..4 * S).contains(&(now(&producer) - began)));
    assert_eq!(error.recovery(), Recovery::Retry);
    broker.0.lock().always = Some(Produced::Refused(ErrorCode::NOT_ENOUGH_REPLICAS));
    producer.inner.accumulator.client.rt().sleep(3 * S).await;
    let error = producer.send_and_wait(line("refused")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "record of t-0 not acknowledged within 3s; last answer: NOT_ENOUGH_REPLICAS (19)"
    );
    assert!(!error.maybe_written());
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn acks_none_resolves_without_an_answer_and_without_an_offset() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).acks(Acks::None).build().unwrap();
    let written = producer.send_and_wait(line("quick")).await.unwrap();
    assert_eq!((written.offset, broker.values(0)), (None, vec!["quick".to_owned()]));
    assert_eq!(broker.batches(0)[0].header().producer_id, -1);
}

#[tokio::test(start_paused = true)]
async fn send_waits_for_room_in_turn_and_not_longer_than_max_block() {
    let broker = Broker::default();
    let small = builder(&broker).batch_size(200).buffer_memory(400).max_block_ms(5 * S);
    let producer: Producer = small.linger_ms(60 * S).delivery_timeout_ms(120 * S).build().unwrap();
    drop(producer.send(line("known")).await.unwrap());
    producer.flush().await.unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    let mut held = Vec::new();
    for partition in 0..2 {
        held.push(producer.send(line("x".repeat(50)).partition(partition)).await.unwrap());
    }
    let began = now(&producer);
    let refused = producer.try_send(line("y".repeat(50)).partition(2)).unwrap_err();
    assert!(matches!(refused.reason, SendError::BufferFull { .. }), "{refused}");
    assert_eq!(refused.record.value_ref().map(|v| v.len()), Some(50), "the record comes back");
    let error = producer.send(line("y".repeat(50)).partition(2)).await.unwrap_err();
    assert!(matches!(error, SendError::BufferFull { waited } if waited >= 5 * S), "{error}");
    assert!((5 * S..6 * S).contains(&(now(&producer) - began)));
    assert_eq!((error.recovery(), error.maybe_written()), (Recovery::Retry, false));
    drop(held);
}

/// Goal: nobody who waits for room waits for the linger of a batch that was opened meanwhile.
#[tokio::test(start_paused = true)]
async fn while_someone_waits_for_room_nothing_lingers() {
    let broker = Broker::default();
    let small = builder(&broker).batch_size(100).buffer_memory(100).linger_ms(600 * S);
    let producer: Producer = small.build().unwrap();
    let began = now(&producer);
    let sends = (0..20).map(|i| producer.send(line(format!("{i}")).partition(i % 3)));
    let deliveries = futures::future::try_join_all(sends).await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!(futures::future::try_join_all(deliveries).await.unwrap().len(), 20);
    assert!(now(&producer) - began < S);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_dropped_while_it_waits_is_never_sent_and_keeps_no_room() {
    let broker = Broker::default();
    let small = builder(&broker).batch_size(200).buffer_memory(200).max_block_ms(60 * S);
    let producer: Producer = small.build().unwrap();
    broker.0.lock().always = Some(Produced::Refused(ErrorCode::NOT_ENOUGH_REPLICAS));
    let first = producer.send(line("first")).await.unwrap();
    producer.inner.accumulator.client.rt().sleep(S).await;
    assert!(producer.send(line("dropped").partition(1)).now_or_never().is_none());
    broker.0.lock().always = None;
    first.await.unwrap();
    producer.send_and_wait(line("second").partition(1)).await.unwrap();
    assert_eq!(broker.values(1), ["second"]);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn try_send_gives_the_record_back_until_the_topic_is_known() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let refused = producer.try_send(line("early")).unwrap_err();
    assert!(matches!(refused.reason, SendError::NotReady { .. }), "{refused}");
    producer.inner.accumulator.client.rt().sleep(S).await;
    let delivery = producer.try_send(*refused.record).unwrap();
    assert_eq!(delivery.await.unwrap().offset, Some(0));
}

/// Goal: asking again and again costs nothing but the asking.
#[tokio::test(start_paused = true)]
async fn try_send_in_a_loop_starts_no_tasks_and_names_a_topic_that_is_refused() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    for _ in 0..100 {
        assert!(matches!(producer.try_send(line("early")).unwrap_err().reason, SendError::NotReady { .. }));
    }
    assert_eq!(tasks.num_alive_tasks(), before);

    broker.0.lock().refused = Some(ErrorCode::INVALID_TOPIC_EXCEPTION);
    let other = || Record::new("other").value("x");
    assert!(matches!(producer.try_send(other()).unwrap_err().reason, SendError::NotReady { .. }));
    producer.inner.accumulator.client.rt().sleep(S).await;
    let reason = producer.try_send(other()).unwrap_err().reason;
    assert!(matches!(reason, SendError::Metadata(_)), "{reason}");
}

/// Goal: records with a key are not sent to partitions that are no more.
#[tokio::test(start_paused = true)]
async fn a_topic_created_again_with_fewer_partitions_has_only_those() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).max_block_ms(S).build().unwrap();
    for partition in 0..3 {
        producer.send_and_wait(line("before").partition(partition)).await.unwrap();
    }
    (broker.0.lock().partitions, broker.0.lock().topic_id) = (1, 6);
    producer.inner.accumulator.client.request_refresh("it was deleted");
    producer.inner.accumulator.client.rt().sleep(S).await;
    for key in ["a", "b", "c", "d"] {
        let written = producer.send_and_wait(Record::new("t").key(key).value("after")).await.unwrap();
        assert_eq!(written.partition, 0);
    }
    assert_eq!(producer.send_and_wait(Record::new("t").value("after")).await.unwrap().partition, 0);
    let error = producer.send(line("nowhere").partition(2)).await.unwrap_err();
    assert_eq!(error.to_string(), "topic \"t\" has no partition 2, only 1");
}

/// Goal: a topic that grows is not refused by whichever broker hears of it last.
#[tokio::test(start_paused = true)]
async fn a_partition_that_appears_late_is_waited_for() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    producer.send_and_wait(line("first")).await.unwrap();
    let late = async { producer.send_and_wait(line("late").partition(3)).await };
    let grow = async {
        Rt::current().unwrap().sleep(2 * S).await;
        broker.0.lock().partitions = 4;
    };
    let (written, ()) = tokio::join!(late, grow);
    assert_eq!(written.unwrap().partition, 3);
}

#[tokio::test(start_paused = true)]
async fn metadata_and_room_share_one_max_block() {
    let broker = Broker::default();
    broker.0.lock().ignorant = usize::MAX;
    let producer: Producer = builder(&broker).max_block_ms(5 * S).build().unwrap();
    let began = now(&producer);
    let error = producer.send(line("where")).await.unwrap_err();
    assert!(matches!(error, SendError::Metadata(_)), "{error}");
    assert!((5 * S..6 * S).contains(&(now(&producer) - began)));
    assert!(error.to_string().contains("\"t\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_exist_is_an_error_that_names_it() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).max_block_ms(5 * S).build().unwrap();
    let began = now(&producer);
    let error = producer.send(line("nowhere").partition(3)).await.unwrap_err();
    assert_eq!(error.to_string(), "topic \"t\" has no partition 3, only 3");
    assert!((5 * S..6 * S).contains(&(now(&producer) - began)), "as long as max.block.ms, as in Kafka");
    assert!(producer.send(line("negative").partition(-1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_record_over_the_limit_is_refused_and_the_next_one_goes_through() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).max_request_size(1000).build().unwrap();
    let error = producer.send(line("x".repeat(1000))).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { limit_bytes: 1000, .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::Fix);
    // Larger than a batch, but not than a request: a batch of its own.
    let producer: Producer = builder(&broker).batch_size(100).build().unwrap();
    producer.send_and_wait(line("x".repeat(500))).await.unwrap();
    assert_eq!(broker.values(0), ["x".repeat(500)]);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_does_not_wait_for_the_linger() {
    let broker = Broker::default();
    let lazy = builder(&broker).linger_ms(600 * S).delivery_timeout_ms(3600 * S);
    let producer: Producer = lazy.build().unwrap();
    let began = now(&producer);
    let delivery = producer.send(line("now")).await.unwrap();
    producer.flush().await.unwrap();
    assert!(delivery.now_or_never().unwrap().is_ok());
    assert!(now(&producer) - began < S);
}

#[tokio::test(start_paused = true)]
async fn close_flushes_and_refuses_what_comes_later_on_every_clone() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).linger_ms(60 * S).build().unwrap();
    let clone = producer.clone();
    let delivery = producer.send(line("last")).await.unwrap();
    producer.close(10 * S).await.unwrap();
    assert_eq!(delivery.await.unwrap().offset, Some(0));
    let error = clone.send(line("late")).await.unwrap_err();
    assert!(matches!(error, SendError::Closed { maybe_written: false }), "{error}");
    assert_eq!(error.recovery(), Recovery::Rebuild);
    assert!(clone.flush().await.is_err());
    clone.close(S).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_hears_of_a_close_at_once() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).buffer_memory(200).build().unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    drop(producer.send(line("stuck")).await.unwrap());
    let (clone, began) = (producer.clone(), now(&producer));
    let waiter = async {
        let error = clone.send(line("waits").partition(1)).await.unwrap_err();
        (now(&clone) - began, error)
    };
    let (closed, (waited, error)) = futures::future::join(producer.close(9 * S), waiter).await;
    assert!(closed.is_err() && waited < S, "{waited:?}");
    assert!(matches!(error, SendError::Closed { maybe_written: false }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_after_its_time_and_tells_the_deliveries() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    let delivery = producer.send(line("stuck")).await.unwrap();
    let error = producer.close(2 * S).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { waited, .. } if waited == 2 * S), "{error}");
    assert!(matches!(delivery.await, Err(SendError::Closed { maybe_written: true })));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_clone_ends_the_sender_and_fails_what_is_left() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).linger_ms(60 * S).build().unwrap();
    let clone = producer.clone();
    let delivery = producer.send(line("gone")).await.unwrap();
    drop(producer);
    assert!(matches!(&*clone.inner.tasks.lock(), Tasks::Running(sender, _) if !sender.is_finished()));
    drop(clone);
    assert!(matches!(delivery.await, Err(SendError::Closed { maybe_written: false })));
    assert_eq!(broker.0.lock().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_split_while_everybody_waits_for_room() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(1_000).buffer_memory(1_000).build().unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::MESSAGE_TOO_LARGE));
    let mut deliveries = Vec::new();
    for i in 0..40 {
        deliveries.push(producer.send(line(format!("{i} {}", "x".repeat(100)))).await.unwrap());
    }
    for (delivery, i) in deliveries.into_iter().zip(0..) {
        assert_eq!(delivery.await.unwrap().offset, Some(i));
    }
    check_memory(&producer).await;
}

/// Goal: KIP-951. The new leader is tried at once, without a backoff and a round of metadata that list it.
#[tokio::test(start_paused = true)]
async fn a_new_leader_is_found_at_the_address_in_the_answer_although_the_metadata_do_not_list_it() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    producer.send_and_wait(line("first")).await.unwrap();
    broker.0.lock().script.push_back(Produced::Moved);
    let started = tokio::time::Instant::now();
    producer.send_and_wait(line("second")).await.unwrap();
    assert!(broker.0.lock().dialled.iter().any(|host| host == "moved"));
    assert!(started.elapsed() < 50 * MS, "{:?}", started.elapsed());
}

/// Goal: KIP-794. Only what has no place of its own counts when it is time to move on.
#[tokio::test(start_paused = true)]
async fn records_with_a_partition_of_their_own_do_not_move_the_others_on() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(500).build().unwrap();
    let anywhere = || Record::new("t").value("x".repeat(100));
    let first = producer.send_and_wait(anywhere()).await.unwrap().partition;
    for round in 0..3 {
        for _ in 0..3 {
            drop(producer.send(Record::new("t").partition(first).value("x".repeat(100))).await.unwrap());
        }
        // It finds the batch full in which the others are.
        drop(producer.send(Record::new("t").partition(first).value("x".repeat(60))).await.unwrap());
        let next = producer.send_and_wait(Record::new("t").value("x".repeat(50))).await.unwrap();
        assert_eq!(next.partition, first, "round {round}");
    }
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_single_record_that_is_too_large_names_where_it_was_to_go_and_what_helps() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).retries(0).build().unwrap();
    for (code, cure) in [
        (ErrorCode::MESSAGE_TOO_LARGE, "max.message.bytes"),
        (ErrorCode::RECORD_LIST_TOO_LARGE, "segment.bytes"),
    ] {
        broker.0.lock().script.push_back(Produced::Refused(code));
        let error = producer.send_and_wait(line("x".repeat(500))).await.unwrap_err();
        let SendError::Rejected { at: Some(at), maybe_written: false, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((at.to_string().as_str(), error.recovery()), ("t-0", Recovery::Fix));
        let said = error.to_string();
        assert!(said.contains("570 B") && said.contains(cure), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_lose_nothing_and_keep_their_own_order() {
    const TASKS: usize = 8;
    const EACH: usize = 2000;
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(500).buffer_memory(20_000).build().unwrap();
    let rt = producer.inner.accumulator.client.rt().clone();
    let tasks = (0..TASKS).map(|task| {
        let producer = producer.clone();
        rt.spawn(async move {
            let mut deliveries = Vec::new();
            for i in 0..EACH {
                let record = Record::new("t").key(format!("task {task}")).value(format!("{task} {i}"));
                deliveries.push(producer.send(record).await.unwrap());
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
        })
    });
    assert!(futures::future::join_all(tasks).await.iter().all(Option::is_some));
    let mut next = [0; TASKS];
    for partition in 0..broker::PARTITIONS {
        for value in broker.values(partition) {
            let (task, i) = value.split_once(' ').unwrap();
            let task: usize = task.parse().unwrap();
            assert_eq!(i.parse::<usize>().unwrap(), next[task], "task {task}");
            next[task] += 1;
        }
    }
    assert_eq!(next, [EACH; TASKS]);
    check_memory(&producer).await;
}
