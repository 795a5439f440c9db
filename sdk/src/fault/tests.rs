//! Every fault, between a real client and a mock of its brokers, under virtual time.

use std::time::Duration;

use klamm_wire::messages::{FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest};
use klamm_wire::{ErrorCode, Frame, Request, codec};

use super::*;
use crate::mock::MockConnector;
use crate::{Acks, Client, ClientError, Consumer, Producer, ProducerBuilder, Record, StartOffset};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

struct Bench {
    mock: MockConnector,
    layer: FaultLayer,
    faults: FaultHandle,
    rt: Rt,
}

fn bench_with(mock: MockConnector, seed: u64) -> Bench {
    mock.accept_produce();
    let layer = FaultLayer::new(seed);
    let faults = layer.handle();
    Bench { mock, layer, faults, rt: Rt::current().unwrap() }
}

fn bench() -> Bench {
    bench_with(MockConnector::builder().topic("t", 3).build(), 1)
}

impl Bench {
    fn connector(&self) -> FaultConnector<MockConnector> {
        self.layer.layer(self.mock.clone())
    }

    fn producer(&self) -> ProducerBuilder {
        Producer::builder().bootstrap_servers(self.mock.bootstrap()).connector(self.connector())
    }

    fn consumer(&self) -> Consumer {
        let builder = Consumer::builder().bootstrap_servers(self.mock.bootstrap());
        builder.connector(self.connector()).build().unwrap()
    }

    async fn link(&self) -> Link {
        self.connector().call(self.mock.endpoint(1)).await.unwrap()
    }

    /// Requests of a type that reached the broker, and records in the log.
    fn reached<R: Request>(&self) -> (usize, usize) {
        (self.mock.requests::<R>().len(), self.mock.written("t", 0).len())
    }
}

fn record(value: &str) -> Record {
    Record::new("t").partition(0).value(value.to_owned())
}

fn metadata() -> Frame {
    codec::encode_request(12, &MetadataRequest::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_rules_nothing_changes() {
    let bench = bench();
    let producer = bench.producer().build().unwrap();
    for n in 0..3 {
        assert_eq!(producer.send_and_wait(record("v")).await.unwrap().offset, Some(n));
    }
    let consumer = bench.consumer();
    consumer.assign([(("t", 0), StartOffset::Beginning)]);
    assert_eq!(consumer.poll(10, S).await.unwrap().len(), 3);
    assert_eq!((bench.faults.hits(), producer.retries()), (0, 0));
}

/// Goal: each fault is met once, costs one more attempt, and the record is in the log exactly once.
#[tokio::test(start_paused = true)]
async fn a_produce_request_survives_each_fault_that_may_meet_it() {
    // What happens, requests that reach the broker, how long it takes.
    for (fault, reached, takes) in [
        (Fault::CutBefore, 1, Duration::ZERO..S),
        (Fault::CutAfter, 2, Duration::ZERO..S),
        (Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS), 1, Duration::ZERO..S),
        (Fault::FailAfter(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND), 2, Duration::ZERO..S),
        (Fault::DropRequest, 1, 30 * S..32 * S),
        (Fault::DropAnswer, 2, 30 * S..32 * S),
    ] {
        let bench = bench();
        let rule = bench.faults.on(ApiKey::Produce).times(1).then(fault.clone());
        let producer = bench.producer().build().unwrap();
        let began = bench.rt.now();
        assert_eq!(producer.send_and_wait(record("once")).await.unwrap().offset, Some(0), "{fault:?}");
        let took = bench.rt.now() - began;
        assert_eq!(bench.reached::<ProduceRequest>(), (reached, 1), "{fault:?}");
        assert!(takes.contains(&took), "{fault:?} took {took:?}");
        assert_eq!((rule.hits(), bench.faults.hits(), producer.retries()), (1, 1, 1), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn delays_are_waited_out_and_pipelined_requests_share_them() {
    for (fault, reaches) in
        [(Fault::DelayRequest((5 * S).into()), 5 * S), (Fault::DelayAnswer((5 * S).into()), Duration::ZERO)]
    {
        let bench = bench();
        let mut link = bench.link().await;
        let _rule = bench.faults.on_any().then(fault);
        let answers: Vec<_> = (0..10).map(|_| link.call(metadata())).collect();
        for answer in futures::future::join_all(answers).await {
            answer.unwrap();
        }
        assert!((5 * S..5 * S + 20 * MS).contains(&bench.rt.now()), "{:?}", bench.rt.now());
        for entry in bench.mock.journal() {
            assert!((reaches..reaches + 20 * MS).contains(&entry.head.at), "{:?}", entry.head.at);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_is_not_overtaken() {
    let bench = bench();
    let mut link = bench.link().await;
    let _rule = bench.faults.on(ApiKey::Metadata).times(1).then(Fault::DelayRequest(S.into()));
    let late = link.call(metadata());
    let prompt = link.call(codec::encode_request(2, &ListOffsetsRequest::default()).unwrap());
    prompt.await.unwrap();
    assert!(bench.rt.now() >= S);
    late.await.unwrap();
    let keys: Vec<_> = bench.mock.journal().iter().map(|entry| entry.head.api_key).collect();
    assert_eq!(keys, [3, 2]);
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_shared_by_what_is_in_flight_each_way() {
    let bench = bench();
    let mut link = bench.link().await;
    let answer = link.call(metadata()).await.unwrap();
    let (request_bytes, answer_bytes) = (metadata().len_bytes() as u64, answer.len_bytes() as u64);
    let _rule = bench.faults.on_any().then(Fault::Bandwidth(10));
    let began = bench.rt.now();
    let answers: Vec<_> = (0..10).map(|_| link.call(metadata())).collect();
    futures::future::join_all(answers).await;
    let took = (bench.rt.now() - began).as_secs_f64();
    // The first request passes alone, then ten answers, which take longer than requests.
    let expected = (request_bytes + 10 * answer_bytes) as f64 / 10.0;
    assert!((expected..expected + 0.1).contains(&took), "{took} s, expected {expected} s");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_answer_says_so_and_is_otherwise_the_same() {
    let bench = bench();
    let mut link = bench.link().await;
    let plain = codec::decode_response::<MetadataRequest>(link.call(metadata()).await.unwrap()).unwrap();
    let _rule = bench.faults.on_any().then(Fault::Throttle(3 * S));
    let told = codec::decode_response::<MetadataRequest>(link.call(metadata()).await.unwrap()).unwrap();
    assert_eq!(told, plain.with_throttle_time_ms(3000));
}

#[tokio::test(start_paused = true)]
async fn after_a_cut_everything_in_flight_and_everything_later_fails() {
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        let bench = bench();
        let mut link = bench.link().await;
        let slow = bench.mock.on::<MetadataRequest>().delay(S).as_usual();
        let in_front = link.call(metadata());
        let _rule = bench.faults.on(ApiKey::ListOffsets).then(fault.clone());
        let cut = link.call(codec::encode_request(2, &ListOffsetsRequest::default()).unwrap());
        let behind = link.call(metadata());
        let error = cut.await.unwrap_err().to_string();
        assert!(error.contains("cut by a fault"), "{error}");
        assert_eq!(in_front.await.is_ok(), fault == Fault::CutAfter, "answers leave in order");
        assert!(behind.await.is_err());
        for _ in 0..2 {
            let ready = std::future::poll_fn(|cx| link.poll_ready(cx)).await;
            assert_eq!(ready.unwrap_err().to_string(), error);
            let refused = link.call(metadata()).await.unwrap_err();
            assert!(matches!(refused, LinkError::NotSent { .. }), "{refused:?}");
            assert_eq!(refused.to_string(), format!("not sent: {error}"));
        }
        assert!(slow.used() >= 1);
    }
}

/// Goal: the peer sees the end of a connection that was cut, also while the client has not noticed.
#[tokio::test(start_paused = true)]
async fn a_cut_closes_the_connection_behind_at_once() {
    let open = std::sync::Arc::new(());
    let held = open.clone();
    let connector = tower::service_fn(move |_: Endpoint| {
        let held = held.clone();
        let answer = move |frame: Frame| {
            let _held = &held;
            std::future::ready(Ok(Frame { body: vec![crate::Bytes::new()], ..frame }))
        };
        std::future::ready(Ok::<_, LinkError>(Link::new(tower::service_fn(answer))))
    });
    let layer = FaultLayer::new(1);
    let mut connector = layer.layer(connector);
    let mut link = connector.call(Endpoint::new("here", 1)).await.unwrap();
    link.call(metadata()).await.unwrap();
    let before = std::sync::Arc::strong_count(&open);
    let _rule = layer.handle().on_any().then(Fault::CutAfter);
    assert!(link.call(metadata()).await.is_err());
    tokio::task::yield_now().await;
    assert!(std::sync::Arc::strong_count(&open) < before, "the link behind is gone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_behind_a_dropped_answer_and_no_more_is_taken_than_fits() {
    for fault in [Fault::DropAnswer, Fault::DropRequest] {
        let bench = bench();
        let mut link = bench.link().await;
        let _rule = bench.faults.on_any().times(1).then(fault);
        let mut waiting = Vec::new();
        while futures::FutureExt::now_or_never(std::future::poll_fn(|cx| link.poll_ready(cx))).is_some() {
            waiting.push(link.call(metadata()));
            bench.rt.sleep(MS).await;
            assert!(waiting.len() < 1000, "there is a limit");
        }
        assert!(bench.rt.before(bench.rt.now() + 60 * S, &mut waiting[1]).await.is_none());
        drop(link);
        for answer in waiting {
            assert!(answer.await.is_err(), "nobody waits for ever");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_answer_does_not_wait_for_the_answers_in_front_of_it() {
    let bench = bench();
    let mut link = bench.link().await;
    bench.mock.on::<FetchRequest>().silence();
    let _fetch = link.call(codec::encode_request(12, &FetchRequest::default()).unwrap());
    let mut written = codec::encode_request(9, &ProduceRequest::default()).unwrap();
    written.expects_reply = false;
    let resolved = bench.rt.before(bench.rt.now() + 60 * S, link.call(written)).await;
    assert_eq!(resolved.expect("it does not wait for the Fetch").unwrap().len_bytes(), 0);
    let producer = bench.producer().acks(Acks::None).build().unwrap();
    producer.send_and_wait(record("v")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refused_metadata_leave_the_client_its_brokers() {
    let bench = bench();
    let code = ErrorCode::LEADER_NOT_AVAILABLE;
    let rule = bench.faults.on(ApiKey::Metadata).times(2).then(Fault::Refuse(code));
    let producer = bench.producer().build().unwrap();
    producer.send_and_wait(record("v")).await.unwrap();
    assert_eq!(rule.hits(), 2);
}

#[tokio::test(start_paused = true)]
async fn connections_are_refused_late_or_never_made() {
    let bench = bench();
    let client = || {
        let builder = Client::builder().bootstrap_servers(bench.mock.bootstrap());
        builder.connector(bench.connector()).build().unwrap()
    };
    let refused = bench.faults.on_dial().to("broker-1.mock:9092").then(DialFault::Refuse);
    let error = client().ready(S).await.unwrap_err();
    assert!(matches!(error, ClientError::NotReached { .. }));
    assert!(error.to_string().contains("no broker listens at broker-1.mock:9092"), "{error}");
    assert!(refused.hits() > 1);
    drop(refused);

    let hung = bench.faults.on_dial().times(1).then(DialFault::Hang);
    let began = bench.rt.now();
    client().ready(60 * S).await.unwrap();
    let took = bench.rt.now() - began;
    assert!((30 * S..40 * S).contains(&took), "after socket.connection.setup.timeout.max.ms: {took:?}");
    assert_eq!(hung.hits(), 1);

    let _late = bench.faults.on_dial().then(DialFault::Delay((2 * S..=3 * S).into()));
    let began = bench.rt.now();
    client().ready(60 * S).await.unwrap();
    assert!(bench.rt.now() - began >= 2 * S);
}

#[tokio::test(start_paused = true)]
async fn rules_end_with_their_guard_and_can_be_switched_off_all_together() {
    let bench = bench();
    let mut link = bench.link().await;
    let rule = bench.faults.on(ApiKey::Metadata).then(Fault::DelayAnswer(S.into()));
    bench.faults.on(ApiKey::Metadata).then(Fault::DelayAnswer(S.into())).keep();
    let mut takes = async || {
        let began = bench.rt.now();
        link.call(metadata()).await.unwrap();
        (bench.rt.now() - began).as_secs()
    };
    assert_eq!(takes().await, 2);
    bench.faults.disable();
    assert_eq!(takes().await, 0);
    bench.faults.enable();
    assert_eq!(takes().await, 2);
    rule.until_hits(2).await;
    drop(rule);
    assert_eq!(takes().await, 1);
    assert_eq!(bench.faults.hits(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_rule_is_about_one_address_and_one_client() {
    let mock = MockConnector::builder().brokers(2).topic("t", 2).build();
    let bench = bench_with(mock, 1);
    let second =
        bench.faults.on(ApiKey::Produce).to("broker-2.mock:9092").then(Fault::DelayAnswer(MS.into()));
    let mine = bench.faults.on(ApiKey::Produce).client("mine").then(Fault::DelayAnswer(MS.into()));
    let producer = bench.producer().client_id("mine").build().unwrap();
    producer.send_and_wait(record("to broker 1")).await.unwrap();
    assert_eq!((second.hits(), mine.hits()), (0, 1));
    producer.send_and_wait(record("to broker 2").partition(1)).await.unwrap();
    assert_eq!((second.hits(), mine.hits()), (1, 2));
}

/// Goal: with many faults at once, what an idempotent producer sends is in the log once and in order, and a seed
/// repeats byte for byte.
#[test]
fn order_and_one_copy_survive_many_faults_and_the_seed_repeats_them() {
    fn run(seed: u64) -> (String, u64) {
        let builder = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let _entered = klamm_wire::ambient::enter(seed, || 1_700_000_000_000);
        builder.unwrap().block_on(async {
            let bench = bench_with(MockConnector::builder().brokers(2).topic("t", 3).build(), seed);
            let on = |fault| bench.faults.on(ApiKey::Produce).probability(0.15).then(fault).keep();
            on(Fault::CutAfter);
            on(Fault::CutBefore);
            on(Fault::FailAfter(ErrorCode::REQUEST_TIMED_OUT));
            on(Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS));
            on(Fault::DropAnswer);
            bench.faults.on_any().then(Fault::DelayRequest((MS..=20 * MS).into())).keep();
            bench.faults.on_any().then(Fault::DelayAnswer((MS..=20 * MS).into())).keep();
            let producer = bench.producer().batch_size(300).delivery_timeout_ms(3600 * S).build().unwrap();
            let mut deliveries = Vec::new();
            for n in 0..300 {
                deliveries.push(producer.send(record(&n.to_string())).await.unwrap());
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
            let written = bench.mock.written("t", 0);
            let values: Vec<_> = written.iter().map(|record| record.value().unwrap().clone()).collect();
            let expected: Vec<_> = (0..300).map(|n| n.to_string()).collect();
            assert_eq!(values, expected, "seed {seed}");
            assert!(producer.retries() > 5 && bench.faults.hits() > 50, "the faults happened");
            (format!("{:?}", bench.mock.journal()), bench.faults.hits())
        })
    }
    let runs: Vec<_> = (1..=5).map(run).collect();
    for (seed, first) in (1..).zip(&runs) {
        assert!(*first == run(seed), "two runs of seed {seed} differ");
    }
    assert!(runs[0] != runs[1]);
}
