//! The contract of connectors, over every connector there is, each also with an idle fault layer around it; and over
//! connectors that are broken on purpose, to see that each part of it can fail.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests report by printing and panicking"
)]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::Error;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use broker_lite::Cluster;
use futures::FutureExt;
use futures::future::BoxFuture;
use klamm::fault::{FaultLayer, Layer};
use klamm::mock::MockConnector;
use klamm::{
    BoxConnector, Client, Connector, Endpoint, Frame, Link, LinkError, NewTopic, Producer, Record,
    TcpConnector,
};
use klamm_tests::contract::{self, Part, Peer};
use klamm_tests::process::ApacheKafka;
use klamm_tests::skipped;
use tower::{Service, service_fn};

const TOPIC: &str = "contract";
const IN_FLIGHT: usize = 8;

fn endpoint(bootstrap: &str) -> Endpoint {
    let (host, port) = bootstrap.rsplit_once(':').expect("host:port");
    Endpoint::new(host, port.parse().expect("a port"))
}

async fn cluster(tcp: bool) -> Cluster {
    let builder = Cluster::builder().brokers(1).tcp(tcp).topic(TOPIC, Some(Peer::PARTITIONS), Some(1));
    builder.start().await.expect("broker-lite starts")
}

fn mock() -> (MockConnector, Endpoint) {
    let mock = MockConnector::builder().topic(TOPIC, Peer::PARTITIONS).max_in_flight(IN_FLIGHT).build();
    mock.accept_produce();
    let endpoint = mock.endpoint(1);
    (mock, endpoint)
}

fn tcp() -> TcpConnector {
    TcpConnector::new().max_in_flight(IN_FLIGHT)
}

fn peer(connector: impl Connector, endpoint: Endpoint) -> Peer {
    Peer { connector: connector.erase(), endpoint, topic: TOPIC.to_owned() }
}

/// Checks a connector, and then the same with a fault layer around it that does nothing.
async fn check(connector: impl Connector, endpoint: Endpoint) {
    let plain = peer(connector, endpoint);
    contract::check(&plain).await.expect("the contract is kept");
    let connector = FaultLayer::new(1).layer(plain.connector.clone()).erase();
    let with_layer = Peer { connector, ..plain };
    contract::check(&with_layer).await.expect("the contract is kept with a fault layer");
}

#[tokio::test]
async fn tcp_to_broker_lite_keeps_the_contract() {
    let cluster = cluster(true).await;
    check(tcp(), endpoint(&cluster.bootstrap())).await;
}

#[tokio::test]
async fn the_handle_of_broker_lite_keeps_the_contract() {
    let cluster = cluster(false).await;
    check(cluster.handle(), endpoint(&cluster.bootstrap())).await;
}

#[tokio::test(start_paused = true)]
async fn a_mock_keeps_the_contract() {
    let (mock, endpoint) = mock();
    check(mock, endpoint).await;
}

#[tokio::test]
async fn tcp_to_apache_kafka_keeps_the_contract() -> Result<(), Error> {
    if let Some(reason) = ApacheKafka::missing() {
        skipped("Apache Kafka", &reason);
        return Ok(());
    }
    let kafka = ApacheKafka::start(1)?;
    let client = Client::builder().bootstrap_servers(kafka.bootstrap()).build().map_err(Error::other)?;
    let topic = NewTopic::new(TOPIC).partitions(Peer::PARTITIONS).replicas(1);
    let created = client.admin().create_topics([topic]).await.map_err(Error::other)?;
    created.all().map_err(Error::other)?;
    // Answered once the broker leads them, which is later than it says so.
    let producer: Producer = Producer::builder().client(&client).build().map_err(Error::other)?;
    for partition in 0..Peer::PARTITIONS {
        let record = Record::new(TOPIC).partition(partition).value("leader");
        producer.send_and_wait(record).await.map_err(Error::other)?;
    }
    check(tcp(), endpoint(kafka.bootstrap())).await;
    Ok(())
}

/// Goal: each part of the contract can fail.
///
/// Checks that a connector which is broken in one way is caught by the part that is about it, and that the same
/// connector without its bug is not.
async fn assert_caught<B: Bug>(part: Part, bug: B) {
    let (mock, endpoint) = mock();
    let kept = part.check(&peer(mock.clone(), endpoint.clone())).await;
    assert_eq!(kept, Ok(()), "{}", part.name);
    let caught = part.check(&peer(planted(mock, bug), endpoint)).await;
    let said = caught.expect_err(part.name);
    println!("{}: {said}", part.name);
}

/// A way to be broken: what is done in place of passing a call on to the link.
trait Bug: Clone + Send + Sync + 'static {
    fn poll_ready(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        link.poll_ready(cx)
    }

    fn call(&mut self, link: &mut Link, frame: Frame) -> Answer {
        link.call(frame)
    }
}

type Answer = BoxFuture<'static, Result<Frame, LinkError>>;

struct Planted<B> {
    link: Link,
    bug: B,
}

impl<B: Bug> Service<Frame> for Planted<B> {
    type Response = Frame;
    type Error = LinkError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.bug.poll_ready(&mut self.link, cx)
    }

    fn call(&mut self, frame: Frame) -> Answer {
        self.bug.call(&mut self.link, frame)
    }
}

fn planted<B: Bug>(mock: MockConnector, bug: B) -> BoxConnector {
    let dial = move |endpoint: Endpoint| {
        let (mut mock, bug) = (mock.clone(), bug.clone());
        async move {
            let link = mock.call(endpoint).await?;
            Ok::<_, LinkError>(Link::new(Planted { link, bug }))
        }
    };
    service_fn(dial).erase()
}

/// Every second Produce request waits until the next one has overtaken it.
#[derive(Clone, Default)]
struct Overtakes {
    held: Option<Arc<Mutex<Slot>>>,
}

#[derive(Default)]
struct Slot {
    frame: Option<Frame>,
    answer: Option<Answer>,
}

impl Bug for Overtakes {
    fn call(&mut self, link: &mut Link, frame: Frame) -> Answer {
        if frame.api_key != 0 {
            return link.call(frame);
        }
        match self.held.take() {
            None => {
                let slot = Arc::new(Mutex::new(Slot { frame: Some(frame), answer: None }));
                self.held = Some(slot.clone());
                poll_fn(move |cx| match &mut slot.lock().unwrap().answer {
                    Some(answer) => answer.poll_unpin(cx),
                    None => {
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                })
                .boxed()
            }
            Some(slot) => {
                let overtaking = link.call(frame);
                let mut slot = slot.lock().unwrap();
                slot.answer = slot.frame.take().map(|frame| link.call(frame));
                overtaking
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_on_which_requests_overtake_each_other_is_caught() {
    assert_caught(contract::ORDER, Overtakes::default()).await;
}

/// Always ready.
#[derive(Clone)]
struct Boundless;

impl Bug for Boundless {
    fn poll_ready(&mut self, _: &mut Link, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_without_a_limit_is_caught() {
    assert_caught(contract::LIMITED, Boundless).await;
}

/// Wakes nobody when there is room again.
#[derive(Clone)]
struct Forgetful;

impl Bug for Forgetful {
    fn poll_ready(&mut self, link: &mut Link, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        link.poll_ready(&mut Context::from_waker(std::task::Waker::noop()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_does_not_say_when_it_is_ready_again_is_caught() {
    assert_caught(contract::LIMITED, Forgetful).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_ready_after_an_error_is_caught() {
    assert_caught(contract::FINAL, Boundless).await;
}

/// Answers what comes after an error with nothing.
#[derive(Clone, Default)]
struct Undead {
    died: Arc<Mutex<bool>>,
}

impl Bug for Undead {
    fn call(&mut self, link: &mut Link, frame: Frame) -> Answer {
        let (api_key, api_version) = (frame.api_key, frame.api_version);
        let (died, answer) = (self.died.clone(), link.call(frame));
        async move {
            let answer = answer.await;
            match answer {
                Err(_) if std::mem::replace(&mut *died.lock().unwrap(), true) => {
                    Ok(Frame::new(api_key, api_version, klamm::Bytes::new()))
                }
                answer => answer,
            }
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_answers_after_an_error_is_caught() {
    assert_caught(contract::FINAL, Undead::default()).await;
}

/// Sends a request only when its answer is polled for.
struct LazyLink(Arc<Mutex<Link>>);

impl Service<Frame> for LazyLink {
    type Response = Frame;
    type Error = LinkError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.lock().unwrap().poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Answer {
        let link = self.0.clone();
        async move {
            let answer = link.lock().unwrap().call(frame);
            answer.await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_sends_only_what_is_waited_for_is_caught() {
    let (mock, endpoint) = mock();
    let dial = move |endpoint: Endpoint| {
        let mut mock = mock.clone();
        async move {
            let link = mock.call(endpoint).await?;
            Ok::<_, LinkError>(Link::new(LazyLink(Arc::new(Mutex::new(link)))))
        }
    };
    let said = contract::DROPPED.check(&peer(service_fn(dial), endpoint)).await.expect_err("it is caught");
    println!("{said}");
}

/// Gives the oldest answer to whoever asks first.
#[derive(Clone, Default)]
struct Shifts {
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Bug for Shifts {
    fn call(&mut self, link: &mut Link, frame: Frame) -> Answer {
        self.answers.lock().unwrap().push_back(link.call(frame));
        let answers = self.answers.clone();
        async move {
            let oldest = answers.lock().unwrap().pop_front();
            oldest.expect("one for each").await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_gives_the_answer_of_a_dropped_future_to_another_one_is_caught() {
    assert_caught(contract::DROPPED, Shifts::default()).await;
}

/// Waits for an answer to everything.
#[derive(Clone)]
struct Expectant;

impl Bug for Expectant {
    fn call(&mut self, link: &mut Link, frame: Frame) -> Answer {
        match frame.expects_reply {
            true => link.call(frame),
            false => {
                let written = link.call(frame);
                async move {
                    let _written = written.await;
                    std::future::pending().await
                }
                .boxed()
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_waits_for_an_answer_that_does_not_come_is_caught() {
    assert_caught(contract::UNANSWERED, Expectant).await;
}

/// Resolves what expects no answer without sending it.
#[derive(Clone)]
struct Swallows;

impl Bug for Swallows {
    fn call(&mut self, link: &mut Link, frame: Frame) -> Answer {
        match frame.expects_reply {
            true => link.call(frame),
            false => std::future::ready(Ok(Frame { body: Vec::new(), ..frame })).boxed(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_forgets_what_expects_no_answer_is_caught() {
    assert_caught(contract::UNANSWERED, Swallows).await;
}
