//! The connector that applications are given in tests.

use std::collections::BTreeMap;
use std::future::ready;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use klamm_wire::seam::BoxFuture;
use klamm_wire::{Endpoint, ErrorCode, Frame, Link, LinkError, Request};
use parking_lot::Mutex;
use tower::Service;

use super::cluster::Cluster;
use super::journal::{Entry, Journal};
use super::link;
use super::log::MockRecord;
use super::responder::{Action, Head, Responder};
use super::script::{InOrder, On, Scripts, Unused};
use crate::refusal;
use crate::rt::Rt;

/// As many as [`TcpConnector`](crate::TcpConnector) has by default.
const IN_FLIGHT: usize = 128;
const JOURNAL_LIMIT: usize = 65_536;
/// Requests without script that are kept for [`MockConnector::verify`].
const MOST_UNSCRIPTED: usize = 100;

/// A cluster that does what a test says. Clones are the same one.
///
/// Out of the box it has brokers with ids from 1 on, knows its topics and their leaders, and gives out producer ids:
/// a `Producer`, a `Consumer` and an `Admin` come up without a script. What else is asked, a test says beforehand:
///
/// * [`accept_produce`](Self::accept_produce) takes what producers send, [`records`](Self::records) serves consumers;
/// * [`on`](Self::on) begins a script for requests of one type; scripts are consulted in the order in which they were
///   written, before anything that the mock does by itself;
/// * a request that nothing was said about is refused with `INVALID_REQUEST`, logged, and named by
///   [`verify`](Self::verify).
///
/// Requests name topics, never ids: the mock offers Produce and Fetch up to version 12 unless
/// [told otherwise](MockConnectorBuilder::offer).
///
/// ```
/// use klamm::mock::MockConnector;
/// use klamm::mock::messages::ProduceRequest;
/// use klamm::{ErrorCode, Producer, Record};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mock = MockConnector::builder().brokers(3).topic("orders", 6).build();
/// mock.accept_produce();
/// // The first attempt finds too few replicas, the second one goes through.
/// mock.on::<ProduceRequest>().topic("orders").times(1).error(ErrorCode::NOT_ENOUGH_REPLICAS);
///
/// let producer = Producer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build().unwrap();
/// let written = producer.send_and_wait(Record::new("orders").key("customer-7").value("3 apples")).await.unwrap();
///
/// assert_eq!(written.offset, Some(0));
/// assert_eq!(mock.requests::<ProduceRequest>().len(), 2);
/// mock.verify().unwrap();
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct MockConnector {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    scripts: Arc<Scripts>,
    journal: Journal,
    responder: Option<Arc<dyn Responder>>,
    max_in_flight: usize,
    connections: AtomicU64,
    /// Its time is the mock's; made by the first connection.
    origin: OnceLock<Rt>,
    unscripted: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("cluster", &self.cluster)
            .field("scripts", &self.scripts)
            .finish_non_exhaustive()
    }
}

/// Describes a [`MockConnector`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct MockConnectorBuilder {
    brokers: u16,
    topics: Vec<(String, i32)>,
    offered: BTreeMap<i16, (i16, i16)>,
    max_in_flight: usize,
    journal_limit: usize,
    responder: Option<Arc<dyn Responder>>,
}

impl std::fmt::Debug for MockConnectorBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockConnectorBuilder")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl MockConnectorBuilder {
    /// Number of brokers, with ids from 1 on. Default: 1.
    pub fn brokers(mut self, brokers: u16) -> Self {
        self.brokers = brokers;
        self
    }

    /// Adds a topic; its partitions are led by the brokers in turn, beginning with 1.
    pub fn topic(mut self, name: impl Into<String>, partitions: i32) -> Self {
        self.topics.push((name.into(), partitions));
        self
    }

    /// Offers an api in these versions instead of those that this client speaks.
    pub fn offer<R: Request>(mut self, min: i16, max: i16) -> Self {
        self.offered.insert(R::KEY, (min, max));
        self
    }

    /// Requests in flight on one connection before it says that it is not ready. Default: 128, at least 1.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests.max(1);
        self
    }

    /// Requests that the journal keeps, the newest ones. Default: 65536.
    pub fn journal_limit(mut self, requests: usize) -> Self {
        self.journal_limit = requests;
        self
    }

    /// Asks this before any script.
    pub fn responder(mut self, responder: impl Responder) -> Self {
        self.responder = Some(Arc::new(responder));
        self
    }

    /// Makes the mock.
    pub fn build(self) -> MockConnector {
        let cluster = Arc::new(Cluster::new(self.brokers, &self.offered));
        for (name, partitions) in &self.topics {
            cluster.add_topic(name, *partitions);
        }
        let inner = Inner {
            scripts: Arc::new(Scripts::new(cluster.clone())),
            cluster,
            journal: Journal::new(self.journal_limit),
            responder: self.responder,
            max_in_flight: self.max_in_flight,
            connections: AtomicU64::new(0),
            origin: OnceLock::new(),
            unscripted: Mutex::default(),
        };
        MockConnector { inner: Arc::new(inner) }
    }
}

impl Default for MockConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl MockConnector {
    /// One broker without topics.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts to describe a mock.
    pub fn builder() -> MockConnectorBuilder {
        MockConnectorBuilder {
            brokers: 1,
            topics: Vec::new(),
            offered: BTreeMap::new(),
            max_in_flight: IN_FLIGHT,
            journal_limit: JOURNAL_LIMIT,
            responder: None,
        }
    }

    /// The brokers' addresses, for `bootstrap.servers`. Nothing but a mock's clients knows them.
    pub fn bootstrap(&self) -> String {
        self.inner.cluster.bootstrap()
    }

    /// The address of one broker.
    pub fn endpoint(&self, broker: i32) -> Endpoint {
        self.inner.cluster.endpoint(broker)
    }

    /// Adds a topic, or partitions to one.
    pub fn topic(&self, name: &str, partitions: i32) {
        self.inner.cluster.add_topic(name, partitions);
    }

    /// The broker that leads a partition now.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.inner.cluster.leader(topic, partition)
    }

    /// Lets another broker lead a partition, or none, under a new leader epoch. Clients learn it as they would: from
    /// a refusal, then from the metadata.
    pub fn move_leader(&self, topic: &str, partition: i32, to: impl Into<Option<i32>>) {
        self.inner.cluster.move_leader(topic, partition, to.into());
    }

    /// Writes what producers send into a log in memory, at offsets that count up from 0 in each partition, and serves
    /// it to consumers. A batch that an idempotent producer sends again is written once.
    pub fn accept_produce(&self) {
        self.inner.cluster.accept_produce();
    }

    /// Appends records to a partition and serves them to consumers. The topic is made if there is none.
    pub fn records<I>(&self, topic: &str, partition: i32, records: I)
    where
        I: IntoIterator,
        I::Item: Into<MockRecord>,
    {
        let records: Vec<MockRecord> = records.into_iter().map(Into::into).collect();
        self.inner.cluster.write(topic, partition, &records);
    }

    /// What a partition holds: records that were given to it, and those that producers have sent.
    pub fn written(&self, topic: &str, partition: i32) -> Vec<MockRecord> {
        self.inner.cluster.written(topic, partition)
    }

    /// Begins a script for requests of one type.
    #[track_caller]
    pub fn on<R: Request + 'static>(&self) -> On<R> {
        On::new(self.inner.scripts.clone(), None, Location::caller())
    }

    /// Begins scripts that take requests only one after the other, whatever their APIs.
    ///
    /// ```
    /// use klamm::ErrorCode;
    /// use klamm::mock::MockConnector;
    /// use klamm::mock::messages::{MetadataRequest, ProduceRequest};
    ///
    /// let mock = MockConnector::builder().topic("orders", 1).build();
    /// mock.accept_produce();
    /// let order = mock.in_order();
    /// order.on::<ProduceRequest>().error(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    /// order.on::<MetadataRequest>().topic("orders").as_usual();
    /// order.on::<ProduceRequest>().as_usual();
    /// assert!(mock.verify().is_err(), "nothing has been asked yet");
    /// ```
    pub fn in_order(&self) -> InOrder {
        InOrder::new(self.inner.scripts.clone())
    }

    /// Every request so far, in the order in which the mock saw them.
    pub fn journal(&self) -> Vec<Entry> {
        self.inner.journal.entries()
    }

    /// Every request of one type so far.
    pub fn requests<R: Request>(&self) -> Vec<R> {
        self.inner.journal.requests()
    }

    /// Waits until there were `count` requests of this type.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn until_requests<R: Request>(&self, count: usize) {
        self.inner.journal.until(R::KEY, count).await;
    }

    /// Whether everything came as it was scripted.
    ///
    /// # Errors
    ///
    /// Lists scripts that were used less often than they say, and requests that nothing was said about.
    pub fn verify(&self) -> Result<(), Unused> {
        let (scripts, requests) = (self.inner.scripts.unused(), self.inner.unscripted.lock().clone());
        match scripts.is_empty() && requests.is_empty() {
            true => Ok(()),
            false => Err(Unused { scripts, requests }),
        }
    }
}

impl Service<Endpoint> for MockConnector {
    type Response = Link;
    type Error = LinkError;
    type Future = BoxFuture<Result<Link, LinkError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        Box::pin(ready(self.inner.open(endpoint)))
    }
}

impl Inner {
    fn open(self: &Arc<Self>, endpoint: Endpoint) -> Result<Link, LinkError> {
        let Some(broker) = self.cluster.broker(&endpoint) else {
            return Err(LinkError::NoBroker { endpoint: Box::new(endpoint) });
        };
        let rt = Rt::without_chance().map_err(|error| LinkError::Closed {
            cause: Some(Arc::new(std::io::Error::other(error.to_string()))),
        })?;
        self.origin.get_or_init(|| rt.clone());
        let head = Head {
            at: Duration::ZERO,
            broker,
            connection: self.connections.fetch_add(1, Ordering::Relaxed),
            client_id: endpoint.client_id,
            api_key: 0,
            api_version: 0,
        };
        let (clock, mock, own) = (self.clone(), self.clone(), rt.clone());
        let now = move || clock.origin.get().map_or(Duration::ZERO, Rt::now);
        let decide = move |head: Head, frame: Frame| mock.decide(&own, &head, &frame);
        Ok(link::open(&rt, head, self.max_in_flight, Box::new(now), Box::new(decide)))
    }

    fn decide(&self, rt: &Rt, head: &Head, frame: &Frame) -> Action {
        let frame = Frame { body: vec![frame.clone().into_contiguous()], ..*frame };
        self.journal.write(Entry { head: head.clone(), frame: frame.clone() });
        let asked = self.responder.as_ref().map(|responder| responder.respond(head, frame.clone()));
        let usual = || self.usual(rt, head, &frame);
        let scripted = || match self.scripts.take(head, &frame) {
            Some(action) => complete(action, &usual),
            None => usual(),
        };
        complete(asked.unwrap_or(Action::Default), &scripted)
    }

    /// What the mock does by itself; else a refusal that clients do not retry, and that says what is missing where
    /// the api has room for it.
    fn usual(&self, rt: &Rt, head: &Head, frame: &Frame) -> Action {
        if let Some(action) = self.cluster.respond(rt, head, frame.clone()) {
            return action;
        }
        let reason = format!("the mock has no script for {head}");
        tracing::error!("{reason}");
        let mut unscripted = self.unscripted.lock();
        if unscripted.len() < MOST_UNSCRIPTED && !unscripted.contains(&reason) {
            unscripted.push(reason.clone());
        }
        match refusal::refuse(frame.clone(), ErrorCode::INVALID_REQUEST, Some(&reason)) {
            Some(answer) => Action::Answer(answer),
            None => Action::DropConnection { reason },
        }
    }
}

/// Puts what would have happened otherwise where an action asks for it.
fn complete(action: Action, otherwise: &dyn Fn() -> Action) -> Action {
    match action {
        Action::Default => otherwise(),
        Action::LoseAnswer => {
            drop(otherwise());
            Action::DropConnection { reason: "the answer was lost".to_owned() }
        }
        Action::Delayed(by, inner) => Action::Delayed(by, Box::new(complete(*inner, otherwise))),
        decided => decided,
    }
}
