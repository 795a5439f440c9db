//! Real producers, consumers and admin clients against a mock, under virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm_wire::messages::{
    CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, ProduceResponse,
};
use klamm_wire::{Endpoint, ErrorCode, Frame, codec};
use tower::Service;

use super::*;
use crate::rt::Rt;
use crate::{
    Acks, Client, Consumer, ConsumerError, ConsumerRecord, Delivery, LinkError, NewTopic, Producer,
    ProducerBuilder, Record, RecordMetadata, RecordSink, RecordSource, SendError, StartOffset,
    TopicPartition,
};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn mock() -> MockConnector {
    let mock = MockConnector::builder().brokers(3).topic("orders", 6).build();
    mock.accept_produce();
    mock
}

fn producer(mock: &MockConnector) -> ProducerBuilder {
    Producer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).client_id("svc")
}

fn consumer(mock: &MockConnector) -> Consumer {
    Consumer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build().unwrap()
}

fn order(partition: i32, value: &str) -> Record {
    Record::new("orders").partition(partition).value(value.to_owned())
}

async fn link(mock: &MockConnector) -> crate::Link {
    mock.clone().call(mock.endpoint(1)).await.unwrap()
}

fn metadata() -> Frame {
    codec::encode_request(12, &MetadataRequest::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn producer_consumer_and_admin_come_up_without_a_script() {
    let mock = MockConnector::builder().brokers(3).topic("orders", 6).build();
    let client =
        Client::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build().unwrap();
    client.ready(5 * S).await.unwrap();
    let described = client.admin().describe_topics(["orders"]).await.unwrap().all().unwrap();
    let leaders: Vec<_> = described[0].partitions.iter().map(|partition| partition.leader).collect();
    assert_eq!(leaders, [1, 2, 3, 1, 2, 3].map(Some));
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_written_at_offsets_that_count_up_and_can_be_read() {
    let mock = mock();
    let sent = producer(&mock).build().unwrap();
    for (value, offset) in [("a", 0), ("b", 1)] {
        assert_eq!(sent.send_and_wait(order(4, value)).await.unwrap().offset, Some(offset));
    }
    assert_eq!(sent.send_and_wait(order(1, "c")).await.unwrap().offset, Some(0));
    let written: Vec<_> = mock.written("orders", 4).iter().map(|r| r.value().unwrap().clone()).collect();
    assert_eq!(written, ["a", "b"]);

    let consumer = consumer(&mock);
    consumer.assign([(("orders", 4), StartOffset::Beginning)]);
    let read = consumer.poll(10, S).await.unwrap();
    assert_eq!(read.iter().map(|r| r.value.clone().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    // What comes later is waited for, not polled for.
    let fetches = mock.requests::<FetchRequest>().len();
    mock.records("orders", 4, [Record::new("orders").key("k").value("d").header("h", "1").timestamp(77)]);
    let late = consumer.recv().await.unwrap();
    assert_eq!((late.offset, late.timestamp_ms, late.headers.len()), (2, 77, 1));
    assert!(mock.requests::<FetchRequest>().len() <= fetches + 2);
    let partition = TopicPartition::new("orders", 4);
    assert_eq!(consumer.end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition], 3);
    let found = consumer.offsets_for_times([(partition.clone(), 77)]).await.unwrap();
    assert_eq!(found[&partition].unwrap().0, 0, "the producer's records are newer than 1970");
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_waits_for_records_without_asking_all_the_time() {
    let mock = MockConnector::new();
    mock.records("t", 0, [("k", "v")]);
    let consumer = consumer(&mock);
    consumer.assign([(("t", 0), StartOffset::Beginning)]);
    assert_eq!(consumer.recv().await.unwrap().key.unwrap(), "k");
    assert!(consumer.poll(1, 60 * S).await.unwrap().is_empty());
    let fetches = mock.requests::<FetchRequest>().len();
    assert!((50..=130).contains(&fetches), "one long poll of 500 ms after the other: {fetches}");
    consumer.seek(&TopicPartition::new("t", 0), StartOffset::Offset(0)).unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_script_is_named_in_the_error_the_journal_and_the_verdict() {
    let mock = MockConnector::builder().topic("orders", 1).build();
    let producer = producer(&mock).build().unwrap();
    let error = producer.send_and_wait(order(0, "a")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no script for Produce 12 (client \"svc\", broker 1)"), "{text}");
    let unused = mock.verify().unwrap_err();
    assert_eq!(unused.requests.len(), 1);
    assert!(unused.to_string().contains("Produce 12"), "{unused}");
    assert!(mock.journal().iter().any(|entry| entry.request::<ProduceRequest>().is_some()));

    let mock = MockConnector::builder().topic("orders", 1).build();
    let consumer = consumer(&mock);
    consumer.assign([(("orders", 0), StartOffset::Offset(0))]);
    let refused = consumer.recv().await.unwrap_err();
    assert!(matches!(refused, ConsumerError::Refused { code: ErrorCode::INVALID_REQUEST, .. }), "{refused}");
    assert!(mock.verify().unwrap_err().to_string().contains("Fetch 12"));

    let client =
        Client::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build().unwrap();
    let created = client.admin().create_topics([NewTopic::new("t")]).await.unwrap().all();
    assert!(created.unwrap_err().to_string().contains("no script for CreateTopics"));
}

#[tokio::test(start_paused = true)]
async fn scripts_take_what_they_match_in_order_and_no_more_than_they_may() {
    let mock = mock();
    let first = mock.on::<ProduceRequest>().topic("orders").partition(1).broker(2).client("svc").times(2);
    let first = first.error(ErrorCode::NOT_ENOUGH_REPLICAS);
    first.then().times(1).drop_connection();
    let other = mock.on::<ProduceRequest>().topic("payments").silence();
    let other_client = mock.on::<ProduceRequest>().client("other").silence();
    let other_broker = mock.on::<ProduceRequest>().broker(9).silence();
    let none = mock.on::<ProduceRequest>().matching(|request| request.acks == 1).silence();
    let producer = producer(&mock).build().unwrap();
    assert_eq!(producer.send_and_wait(order(0, "not matched")).await.unwrap().offset, Some(0));
    assert_eq!(mock.requests::<ProduceRequest>().len(), 1);
    let unused = mock.verify().unwrap_err();
    assert_eq!(unused.scripts.len(), 2, "{unused}");
    assert!(unused.scripts[0].starts_with("Produce of \"orders\" partition 1 to broker 2 from \"svc\" ("));
    assert!(unused.scripts[0].contains("tests.rs:") && unused.scripts[0].ends_with("used 0 of 2 times"));

    assert_eq!(producer.send_and_wait(order(1, "matched")).await.unwrap().offset, Some(0));
    assert_eq!(mock.requests::<ProduceRequest>().len(), 5, "two refusals, a broken connection, the last one");
    assert_eq!(
        [first.used(), other.used(), other_client.used(), other_broker.used(), none.used()],
        [2, 0, 0, 0, 0]
    );
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_order_holds_across_apis() {
    let mock = mock();
    let in_order = mock.in_order();
    let refused = in_order.on::<ProduceRequest>().error(ErrorCode::NOT_ENOUGH_REPLICAS);
    let fetched = in_order.on::<FetchRequest>().times(1..).as_usual();
    let written = in_order.on::<ProduceRequest>().as_usual();
    let used = || [refused.used(), fetched.used().min(1), written.used()];
    let producer = producer(&mock).build().unwrap();
    producer.send_and_wait(order(0, "a")).await.unwrap();
    assert_eq!(used(), [1, 0, 0], "the second attempt came before its turn and was answered as usual");
    assert_eq!(mock.verify().unwrap_err().scripts.len(), 2);
    let consumer = consumer(&mock);
    consumer.assign([(("orders", 0), StartOffset::Beginning)]);
    consumer.recv().await.unwrap();
    assert_eq!(used(), [1, 1, 0]);
    producer.send_and_wait(order(0, "b")).await.unwrap();
    assert_eq!(used(), [1, 1, 1]);
    producer.send_and_wait(order(0, "c")).await.unwrap();
    assert_eq!(used(), [1, 1, 1], "once");
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_are_typed_and_made_of_the_request() {
    let mock = mock();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    mock.on::<ProduceRequest>().answer_with(move |request, head| {
        count.fetch_add(1, Ordering::SeqCst);
        assert_eq!((head.broker, head.client_id.as_deref()), (1, Some("svc")));
        let mut response = request.refused(ErrorCode::NONE, None);
        response.responses[0].partition_responses[0].base_offset = 4711;
        response
    });
    let producer = producer(&mock).build().unwrap();
    assert_eq!(producer.send_and_wait(order(0, "a")).await.unwrap().offset, Some(4711));
    assert_eq!(seen.load(Ordering::SeqCst), 1);

    let mock = MockConnector::builder().topic("orders", 1).build();
    mock.on::<ProduceRequest>().times(1).answer(ProduceResponse::default());
    mock.accept_produce();
    let producer = self::producer(&mock).build().unwrap();
    let written = producer.send_and_wait(order(0, "an answer that lacks the partition is none")).await;
    assert_eq!(written.unwrap().offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_a_record_that_was_written_and_it_is_not_written_again() {
    let mock = mock();
    mock.on::<ProduceRequest>().times(1).lose_answer();
    let producer = producer(&mock).build().unwrap();
    assert_eq!(producer.send_and_wait(order(0, "once")).await.unwrap().offset, Some(0));
    assert_eq!(mock.requests::<ProduceRequest>().len(), 2);
    assert_eq!(mock.written("orders", 0).len(), 1);
    mock.verify().unwrap();
}

/// Goal: batches behind one that was refused wait for it, as at a broker that checks sequences.
#[tokio::test(start_paused = true)]
async fn order_survives_a_refusal_with_several_requests_in_flight() {
    let mock = mock();
    let producer = producer(&mock).batch_size(200).build().unwrap();
    producer.send_and_wait(order(0, "first")).await.unwrap();
    mock.on::<ProduceRequest>().times(1).delay(S).error(ErrorCode::NOT_ENOUGH_REPLICAS);
    let mut deliveries = Vec::new();
    for n in 0..40 {
        deliveries.push(producer.send(order(0, &n.to_string())).await.unwrap());
    }
    for (offset, delivery) in (1..).zip(deliveries) {
        assert_eq!(delivery.await.unwrap().offset, Some(offset));
    }
    assert!(producer.retries() > 1, "those in flight behind it as well");
}

#[tokio::test(start_paused = true)]
async fn late_answers_and_silence_take_virtual_time_only() {
    let mock = mock();
    let rt = Rt::current().unwrap();
    mock.on::<ProduceRequest>().times(1).delay(7 * S).as_usual();
    let producer = producer(&mock).build().unwrap();
    producer.send_and_wait(order(0, "late")).await.unwrap();
    assert!((7 * S..8 * S).contains(&rt.now()), "{:?}", rt.now());

    mock.on::<ProduceRequest>().times(1).silence();
    let asked = rt.now();
    producer.send_and_wait(order(0, "after request.timeout.ms")).await.unwrap();
    assert!((30 * S..32 * S).contains(&(rt.now() - asked)), "{:?}", rt.now() - asked);
    let journal = mock.journal();
    let asked: Vec<_> =
        journal.iter().filter(|entry| entry.head.is::<ProduceRequest>()).map(|entry| entry.head.at).collect();
    assert!(asked[1] >= 7 * S && asked[2] >= asked[1] + 30 * S, "{asked:?}");
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_is_found_again() {
    let mock = mock();
    let producer = producer(&mock).build().unwrap();
    producer.send_and_wait(order(0, "at broker 1")).await.unwrap();
    assert_eq!(mock.leader("orders", 0), Some(1));
    mock.move_leader("orders", 0, 3);
    assert_eq!(producer.send_and_wait(order(0, "at broker 3")).await.unwrap().offset, Some(1));
    let last = mock.journal().into_iter().rev().find(|entry| entry.head.is::<ProduceRequest>()).unwrap();
    assert_eq!(last.head.broker, 3);
    let consumer = consumer(&mock);
    consumer.assign([(("orders", 0), StartOffset::Beginning)]);
    assert_eq!(consumer.recv().await.unwrap().offset, 0);
    mock.move_leader("orders", 0, 2);
    assert_eq!(consumer.recv().await.unwrap().offset, 1);
    mock.records("orders", 0, ["more"]);
    assert_eq!(consumer.recv().await.unwrap().offset, 2);
}

#[tokio::test(start_paused = true)]
async fn refused_metadata_leave_the_client_its_brokers() {
    let mock = mock();
    mock.on::<MetadataRequest>().topic("orders").times(2).error(ErrorCode::LEADER_NOT_AVAILABLE);
    let producer = producer(&mock).build().unwrap();
    assert_eq!(producer.send_and_wait(order(0, "a")).await.unwrap().offset, Some(0));
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_test_can_wait_for_requests() {
    let mock = mock();
    mock.on::<ProduceRequest>().silence();
    let producer = producer(&mock).build().unwrap();
    let _delivery = producer.send(order(0, "a")).await.unwrap();
    mock.until_requests::<ProduceRequest>(1).await;
    assert_eq!(mock.requests::<ProduceRequest>()[0].topic_data[0].partition_data[0].index, 0);
    let rt = Rt::current().unwrap();
    assert!(rt.before(rt.now() + S, mock.until_requests::<ProduceRequest>(2)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn acks_none_is_written_without_an_answer() {
    let mock = mock();
    let producer = producer(&mock).acks(Acks::None).build().unwrap();
    assert_eq!(producer.send_and_wait(order(0, "a")).await.unwrap().offset, None);
    mock.until_requests::<ProduceRequest>(1).await;
    tokio::task::yield_now().await;
    assert_eq!(mock.written("orders", 0).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_script_that_panics_ends_its_connection_and_says_so() {
    let mock = mock();
    mock.on::<MetadataRequest>().act(|_, _| panic!("planted"));
    let mut link = link(&mock).await;
    let error = link.call(metadata()).await.unwrap_err().to_string();
    assert!(error.contains("panicked at Metadata 12"), "{error}");
    assert!(link.call(metadata()).await.is_err(), "an error is final");
}

#[tokio::test(start_paused = true)]
async fn a_responder_is_asked_first_and_may_leave_it_to_the_mock() {
    let mut responder = MockResponder::new();
    let close = |_: &Head, _: Frame| Action::DropConnection { reason: "not today".into() };
    responder.expect_respond().times(1).returning(close);
    responder.expect_respond().returning(|_, _| Action::Default);
    let mock = MockConnector::builder().responder(responder).build();
    let error = link(&mock).await.call(metadata()).await.unwrap_err();
    assert_eq!(error.to_string(), "connection closed: not today");
    link(&mock).await.call(metadata()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_api_is_refused_by_the_mock_itself() {
    let mut responder = MockResponder::new();
    responder.expect_respond().returning(|_, _| Action::Answer(Frame::new(1, 12, crate::Bytes::new())));
    let mock = MockConnector::builder().responder(responder).build();
    let error = link(&mock).await.call(metadata()).await.unwrap_err().to_string();
    assert!(error.contains("Metadata 12") && error.contains("was answered with Fetch 12"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_no_mocks_is_refused() {
    let error = MockConnector::new().call(Endpoint::new("localhost", 9092)).await.unwrap_err();
    assert!(matches!(error, LinkError::NoBroker { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_journal_keeps_the_newest_requests() {
    let mock = MockConnector::builder().journal_limit(2).build();
    let mut link = link(&mock).await;
    for version in [10, 11, 12] {
        link.call(codec::encode_request(version, &MetadataRequest::default()).unwrap()).await.unwrap();
    }
    let versions: Vec<_> = mock.journal().iter().map(|entry| entry.head.api_version).collect();
    assert_eq!(versions, [11, 12]);
}

#[tokio::test(start_paused = true)]
async fn what_was_called_is_carried_out_although_the_link_is_dropped() {
    let mock = MockConnector::new();
    let mut link = link(&mock).await;
    for _ in 0..3 {
        drop(link.call(metadata()));
    }
    drop(link);
    mock.until_requests::<MetadataRequest>(3).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_link_fails_what_is_in_flight() {
    let mock = MockConnector::new();
    mock.on::<MetadataRequest>().silence();
    let mut link = link(&mock).await;
    let answer = link.call(metadata());
    drop(link);
    let rt = Rt::current().unwrap();
    assert!(rt.before(rt.now() + 60 * S, answer).await.expect("nobody waits for ever").is_err());
}

/// What an application would write: it knows the traits only.
async fn forward(source: &dyn RecordSource, sink: Arc<dyn RecordSink>) -> Result<usize, SendError> {
    source.assign(vec![(TopicPartition::new("in", 0), StartOffset::Beginning)]);
    let mut count = 0;
    while let Ok(record) = source.recv().await {
        let copy =
            Record::new("out").key(record.key.unwrap_or_default()).value(record.value.unwrap_or_default());
        sink.send(copy).await?.await?;
        count += 1;
    }
    sink.close(S).await?;
    Ok(count)
}

#[tokio::test]
async fn an_application_is_tested_with_mocks_of_the_traits() {
    let mut source: MockConsumer = MockConsumer::new();
    source.expect_assign().times(1).withf(|partitions| partitions.len() == 1).return_const(());
    let mut offsets = 0..2;
    source.expect_recv().times(3).returning(move || {
        answer(match offsets.next() {
            Some(offset) => Ok(ConsumerRecord::new("in", 0, offset).key("k").value("v")),
            None => Err(ConsumerError::Closed),
        })
    });
    let mut sink: MockProducer = MockProducer::new();
    sink.expect_send()
        .times(2)
        .withf(|record| record.topic() == "out" && record.value_ref().unwrap() == "v")
        .returning(|record| answer(Ok(Delivery::acknowledged(RecordMetadata::new(record.topic(), 0, 9)))));
    sink.expect_close().times(1).returning(|_| answer(Ok(())));
    assert_eq!(forward(&source, Arc::new(sink)).await.unwrap(), 2);
}

/// Goal: whoever mocks `send` has mocked the callback with it.
#[tokio::test]
async fn a_callback_runs_once_the_mocked_delivery_is_known() {
    let mut sink: MockProducer = MockProducer::new();
    let (delivery, pending) = Delivery::pending("t", 0);
    sink.expect_send().times(1).return_once(move |_| answer(Ok(delivery)));
    sink.expect_send().times(1).returning(|_| answer(Err(SendError::Compression { maybe_written: false })));
    let (tell, told) = tokio::sync::oneshot::channel();
    let record = || Record::new("t").value("v");
    sink.send_with_callback(record(), Box::new(move |outcome| drop(tell.send(outcome)))).await.unwrap();
    pending.acknowledge(7);
    assert_eq!(told.await.unwrap().unwrap().offset, Some(7));
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let never = Box::new(move |_| tell.send(()).unwrap_or_default());
    assert!(sink.send_with_callback(record(), never).await.is_err());
    assert!(told.await.is_err(), "dropped uncalled");
}

#[tokio::test]
async fn a_failed_delivery_reaches_the_application() {
    let mut source: MockConsumer = MockConsumer::new();
    source.expect_assign().return_const(());
    source.expect_recv().returning(|| answer(Ok(ConsumerRecord::new("in", 0, 0))));
    let mut sink: MockProducer = MockProducer::new();
    let closed = SendError::Closed { maybe_written: true };
    sink.expect_send().return_once(move |_| answer(Ok(Delivery::failed("out", 0, closed))));
    let error = forward(&source, Arc::new(sink)).await.unwrap_err();
    assert!(error.maybe_written());
}

#[tokio::test(start_paused = true)]
async fn the_same_application_runs_over_a_mock_of_the_brokers() {
    let mock = MockConnector::builder().topic("out", 1).build();
    mock.accept_produce();
    mock.records("in", 0, [("k", "1"), ("k", "2")]);
    let source = Arc::new(consumer(&mock));
    let sink = Arc::new(producer(&mock).build().unwrap());
    let (reader, closer) = (source.clone(), source);
    let forwarding = Rt::current().unwrap().spawn(async move { forward(&*reader, sink).await });
    while mock.written("out", 0).len() < 2 {
        Rt::current().unwrap().sleep(MS).await;
    }
    RecordSource::close(&*closer).await.unwrap();
    assert_eq!(forwarding.await.unwrap().unwrap(), 2);
    assert!(!mock.journal().iter().any(|entry| entry.head.is::<CreateTopicsRequest>()));
}

/// Goal: the same seed gives the same requests at the same moments, byte for byte.
#[test]
fn a_simulated_run_repeats_byte_for_byte() {
    fn run(seed: u64) -> String {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = klamm_wire::ambient::enter(seed, || 1_700_000_000_000);
        runtime.block_on(async {
            let mock = mock();
            mock.on::<ProduceRequest>().times(3).drop_connection();
            mock.on::<ProduceRequest>().times(2).error(ErrorCode::NOT_ENOUGH_REPLICAS);
            let producer = producer(&mock).build().unwrap();
            let consumer = consumer(&mock);
            consumer.assign((0..6).map(|partition| (("orders", partition), StartOffset::Beginning)));
            let sends =
                (0..200).map(|n| {
                    let producer = producer.clone();
                    async move {
                        producer.send_and_wait(Record::new("orders").value(n.to_string())).await.unwrap()
                    }
                });
            futures::future::join_all(sends).await;
            let mut read = Vec::new();
            while read.len() < 200 {
                read.push(consumer.recv().await.unwrap());
            }
            producer.close(S).await.unwrap();
            format!("{:?}\n{read:?}", mock.journal())
        })
    }
    let first = run(7);
    assert!(first == run(7), "two runs of one seed differ");
    assert!(first != run(8), "the seed decides something");
}
