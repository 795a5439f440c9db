//! Scripts: which requests, what happens to them, how often.
//!
//! In: requests, in the order in which the mock sees them. Out: the action of the first script that takes the request.
//!
//! Invariant: a script takes no more requests than it may, and one that stands in an order takes none before all
//! scripts in front of it are used up.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{RangeFrom, RangeInclusive, RangeToInclusive};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::messages::{
    AlterPartitionReassignmentsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeTopicPartitionsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, TopicName,
};
use klamm_wire::negotiation::ApiName;
use klamm_wire::{ErrorCode, Frame, Request, codec};
use parking_lot::Mutex;

use super::cluster::Cluster;
use super::responder::{Action, Head};
use crate::refusal::Refusable;

/// A request that names topics, so that a script can ask for one.
pub trait NamesTopics: Request {
    /// `true` if the request is about this partition of this topic; `None` stands for any.
    fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool;
}

macro_rules! names_partitions {
    ($($request:ident: $topics:ident, $topic:ident, $partitions:ident, $partition:ident;)*) => {$(
        impl NamesTopics for $request {
            fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool {
                let is = |name: &TopicName| topic.is_none_or(|topic| topic == name.as_str());
                self.$topics.iter().filter(|named| is(&named.$topic)).any(|named| match partition {
                    Some(wanted) => named.$partitions.iter().any(|partition| partition.$partition == wanted),
                    None => true,
                })
            }
        }
    )*};
}

names_partitions! {
    ProduceRequest: topic_data, name, partition_data, index;
    FetchRequest: topics, topic, partitions, partition;
    ListOffsetsRequest: topics, name, partitions, partition_index;
    OffsetForLeaderEpochRequest: topics, topic, partitions, partition;
    DeleteRecordsRequest: topics, name, partitions, partition_index;
    AlterPartitionReassignmentsRequest: topics, name, partitions, partition_index;
}

/// A topic alone; with a partition, another request is meant.
fn is_topic<'a>(
    names: impl IntoIterator<Item = &'a TopicName>,
    topic: Option<&str>,
    partition: Option<i32>,
) -> bool {
    let is = |name: &TopicName| topic.is_none_or(|topic| topic == name.as_str());
    partition.is_none() && names.into_iter().any(is)
}

/// The same of an encoded request.
fn names<R: NamesTopics>(frame: &Frame, topic: Option<&str>, partition: Option<i32>) -> bool {
    codec::decode_request::<R>(frame.clone()).is_ok_and(|request| request.names(topic, partition))
}

impl NamesTopics for MetadataRequest {
    fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool {
        is_topic(self.topics.iter().flatten().filter_map(|topic| topic.name.as_ref()), topic, partition)
    }
}

impl NamesTopics for CreateTopicsRequest {
    fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool {
        is_topic(self.topics.iter().map(|topic| &topic.name), topic, partition)
    }
}

impl NamesTopics for CreatePartitionsRequest {
    fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool {
        is_topic(self.topics.iter().map(|topic| &topic.name), topic, partition)
    }
}

impl NamesTopics for DescribeTopicPartitionsRequest {
    fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool {
        is_topic(self.topics.iter().map(|topic| &topic.name), topic, partition)
    }
}

impl NamesTopics for DeleteTopicsRequest {
    fn names(&self, topic: Option<&str>, partition: Option<i32>) -> bool {
        let named = self.topics.iter().filter_map(|topic| topic.name.as_ref());
        is_topic(self.topic_names.iter().chain(named), topic, partition)
    }
}

/// How often a script takes a request: `2`, `1..`, `2..=3` or `..=3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    min: usize,
    max: Option<usize>,
}

impl Times {
    const ANY: Self = Self { min: 0, max: None };

    fn allow(self, used: usize) -> bool {
        self.max.is_none_or(|max| used < max)
    }

    fn met(self, used: usize) -> bool {
        used >= self.min
    }

    /// The next one of an order may follow.
    fn used_up(self, used: usize) -> bool {
        used >= self.max.unwrap_or(self.min)
    }
}

impl From<usize> for Times {
    fn from(exactly: usize) -> Self {
        Self { min: exactly, max: Some(exactly) }
    }
}

impl From<RangeFrom<usize>> for Times {
    fn from(range: RangeFrom<usize>) -> Self {
        Self { min: range.start, max: None }
    }
}

impl From<RangeInclusive<usize>> for Times {
    fn from(range: RangeInclusive<usize>) -> Self {
        Self { min: *range.start(), max: Some(*range.end()) }
    }
}

impl From<RangeToInclusive<usize>> for Times {
    fn from(range: RangeToInclusive<usize>) -> Self {
        Self { min: 0, max: Some(range.end) }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, Some(max)) if min == max => write!(f, "{min}"),
            (min, Some(max)) => write!(f, "{min} to {max}"),
            (min, None) => write!(f, "at least {min}"),
        }
    }
}

type Act = Box<dyn FnMut(&Head, &Frame) -> Action + Send>;

struct Script {
    wanted: Wanted,
    times: Times,
    delay: Option<Duration>,
    order: Option<Order>,
    used: Mutex<usize>,
    act: Mutex<Act>,
    at: &'static Location<'static>,
}

/// The scripts of one order, first to last.
type Order = Arc<Mutex<Vec<Arc<Script>>>>;

/// Whether an encoded request is about a topic and a partition.
type Names = fn(&Frame, Option<&str>, Option<i32>) -> bool;

/// Which requests a script takes.
#[derive(Clone)]
struct Wanted {
    api_key: i16,
    broker: Option<i32>,
    client: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    /// Set with either of the two above.
    names: Option<Names>,
    matching: Arc<dyn Fn(&Frame) -> bool + Send + Sync>,
    text: String,
}

impl Wanted {
    fn takes(&self, head: &Head, frame: &Frame) -> bool {
        head.api_key == self.api_key
            && self.broker.is_none_or(|broker| broker == head.broker)
            && self.client.as_ref().is_none_or(|client| head.client_id.as_deref() == Some(client))
            && self.names.is_none_or(|names| names(frame, self.topic.as_deref(), self.partition))
            && (self.matching)(frame)
    }
}

impl Script {
    /// Counts one more use, if there may be one.
    fn claim(self: &Arc<Self>) -> bool {
        let in_front = |order: &Order| {
            let scripts = order.lock();
            scripts.iter().take_while(|other| !Arc::ptr_eq(other, self)).all(|other| other.is_used_up())
        };
        if !self.order.as_ref().is_none_or(in_front) {
            return false;
        }
        let mut used = self.used.lock();
        let free = self.times.allow(*used);
        *used += usize::from(free);
        free
    }

    fn is_used_up(&self) -> bool {
        self.times.used_up(*self.used.lock())
    }

    fn act(&self, head: &Head, frame: &Frame) -> Action {
        let action = (self.act.lock())(head, frame);
        match self.delay {
            Some(delay) => Action::Delayed(delay, Box::new(action)),
            None => action,
        }
    }
}

/// All scripts of a mock.
pub(super) struct Scripts {
    scripts: Mutex<Vec<Arc<Script>>>,
    cluster: Arc<Cluster>,
}

impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripts").field("count", &self.scripts.lock().len()).finish_non_exhaustive()
    }
}

impl Scripts {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { scripts: Mutex::default(), cluster }
    }

    /// What the first script that takes the request makes of it.
    pub(super) fn take(&self, head: &Head, frame: &Frame) -> Option<Action> {
        // Code of the test runs without any lock of all scripts, so that it may add some.
        let scripts = self.scripts.lock().clone();
        let script = scripts.into_iter().find(|script| script.wanted.takes(head, frame) && script.claim())?;
        Some(script.act(head, frame))
    }

    pub(super) fn unused(&self) -> Vec<String> {
        let scripts = self.scripts.lock();
        let unmet = scripts.iter().filter_map(|script| {
            let used = *script.used.lock();
            let Script { times, wanted, at, .. } = &**script;
            (!times.met(used)).then(|| format!("{} ({at}): used {used} of {times} times", wanted.text))
        });
        unmet.collect()
    }
}

/// What a test asked for and did not get; see [`MockConnector::verify`](super::MockConnector::verify).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .scripts.iter().chain(.requests).map(String::as_str).collect::<Vec<_>>().join("\n"))]
#[non_exhaustive]
pub struct Unused {
    /// Scripts that were not used as often as they say: what they wait for, and where they were written.
    pub scripts: Vec<String>,
    /// Requests that no script took and that the mock does not answer by itself.
    pub requests: Vec<String>,
}

/// A script under construction: which requests of type `R` it takes. Finished by saying what happens to them.
#[must_use = "a script does nothing until it says what happens"]
pub struct On<R> {
    scripts: Arc<Scripts>,
    wanted: Wanted,
    times: Option<Times>,
    delay: Option<Duration>,
    order: Option<Order>,
    at: &'static Location<'static>,
    request: PhantomData<fn(R)>,
}

impl<R> fmt::Debug for On<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("On").field("wanted", &self.wanted.text).finish_non_exhaustive()
    }
}

impl<R: Request + 'static> On<R> {
    pub(super) fn new(
        scripts: Arc<Scripts>,
        order: Option<&InOrder>,
        at: &'static Location<'static>,
    ) -> Self {
        let wanted = Wanted {
            api_key: R::KEY,
            broker: None,
            client: None,
            topic: None,
            partition: None,
            names: None,
            matching: Arc::new(|_| true),
            text: ApiName(R::KEY).to_string(),
        };
        let order = order.map(|order| order.order.clone());
        Self { scripts, wanted, times: None, delay: None, order, at, request: PhantomData }
    }

    /// Only requests about this topic.
    pub fn topic(mut self, topic: impl Into<String>) -> Self
    where
        R: NamesTopics,
    {
        let topic = topic.into();
        self.wanted.text = format!("{} of {topic:?}", self.wanted.text);
        self.wanted.topic = Some(topic);
        self.wanted.names = Some(names::<R>);
        self
    }

    /// Only requests about this partition, of the topic named by [`Self::topic`] or of any.
    pub fn partition(mut self, partition: i32) -> Self
    where
        R: NamesTopics,
    {
        self.wanted.text = format!("{} partition {partition}", self.wanted.text);
        self.wanted.partition = Some(partition);
        self.wanted.names = Some(names::<R>);
        self
    }

    /// Only requests of the client with this `client.id`.
    pub fn client(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.wanted.text = format!("{} from {id:?}", self.wanted.text);
        self.wanted.client = Some(id);
        self
    }

    /// Only requests to this broker; ids begin with 1.
    pub fn broker(mut self, id: i32) -> Self {
        self.wanted.text = format!("{} to broker {id}", self.wanted.text);
        self.wanted.broker = Some(id);
        self
    }

    /// Only requests of which this is true.
    pub fn matching(mut self, matches: impl Fn(&R) -> bool + Send + Sync + 'static) -> Self {
        let before = self.wanted.matching;
        self.wanted.matching = Arc::new(move |frame| {
            before(frame) && codec::decode_request::<R>(frame.clone()).is_ok_and(|request| matches(&request))
        });
        self.wanted.text = format!("{} matching a closure", self.wanted.text);
        self
    }

    /// How often: `2`, `1..`, `2..=3` or `..=3`. Used up, the script takes nothing any more, and
    /// [`verify`](super::MockConnector::verify) says so if it was used less.
    ///
    /// Default: as often as there are requests, also never; in an [order](InOrder), once.
    pub fn times(mut self, times: impl Into<Times>) -> Self {
        self.times = Some(times.into());
        self
    }

    /// Whatever happens, happens so much later.
    pub fn delay(mut self, by: Duration) -> Self {
        self.delay = Some(by);
        self
    }

    /// Answers with this.
    pub fn answer(self, response: R::Response) -> Scripted<R>
    where
        R::Response: Send + 'static,
    {
        self.finish(Box::new(move |head, _| Action::answer::<R>(head, &response)))
    }

    /// Answers with what the closure makes of the request. It must not wait.
    pub fn answer_with(
        self,
        mut respond: impl FnMut(&R, &Head) -> R::Response + Send + 'static,
    ) -> Scripted<R> {
        self.act(move |request, head| Action::answer::<R>(head, &respond(request, head)))
    }

    /// Does what the closure decides. It must not wait.
    pub fn act(self, mut decide: impl FnMut(&R, &Head) -> Action + Send + 'static) -> Scripted<R> {
        self.finish(Box::new(move |head, frame| match codec::decode_request::<R>(frame.clone()) {
            Ok(request) => decide(&request, head),
            Err(error) => Action::DropConnection { reason: error.to_string() },
        }))
    }

    /// Answers with this error code, for everything that the request names.
    pub fn error(self, code: ErrorCode) -> Scripted<R>
    where
        R: Refusable,
    {
        let cluster = self.scripts.cluster.clone();
        self.finish(Box::new(move |head, frame| cluster.refuse(head, frame.clone(), code)))
    }

    /// Ends the connection instead of an answer. The request is not carried out.
    pub fn drop_connection(self) -> Scripted<R> {
        let dropped = || Action::DropConnection { reason: "dropped by a script".to_owned() };
        self.finish(Box::new(move |_, _| dropped()))
    }

    /// Carries the request out as the mock does by itself, and then ends the connection instead of an answer.
    pub fn lose_answer(self) -> Scripted<R> {
        self.finish(Box::new(|_, _| Action::LoseAnswer))
    }

    /// Says nothing, nor to whatever is asked on the same connection later, as a broker that hangs.
    pub fn silence(self) -> Scripted<R> {
        self.finish(Box::new(|_, _| Action::Silence))
    }

    /// Does what the mock does by itself: to count requests, to put them into an order, or to be late.
    pub fn as_usual(self) -> Scripted<R> {
        self.finish(Box::new(|_, _| Action::Default))
    }

    fn finish(self, act: Act) -> Scripted<R> {
        let Self { scripts, wanted, times, delay, order, at, request } = self;
        let unsaid = if order.is_some() { Times::from(1) } else { Times::ANY };
        let script = Arc::new(Script {
            wanted,
            times: times.unwrap_or(unsaid),
            delay,
            order: order.clone(),
            used: Mutex::new(0),
            act: Mutex::new(act),
            at,
        });
        if let Some(order) = &order {
            order.lock().push(script.clone());
        }
        scripts.scripts.lock().push(script.clone());
        Scripted { script, scripts, order, request }
    }
}

/// A script that is in force.
pub struct Scripted<R> {
    script: Arc<Script>,
    scripts: Arc<Scripts>,
    order: Option<Order>,
    request: PhantomData<fn(R)>,
}

impl<R> fmt::Debug for Scripted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, used) = (&self.script.wanted.text, self.used());
        f.debug_struct("Scripted").field("wanted", text).field("used", &used).finish_non_exhaustive()
    }
}

impl<R> Scripted<R> {
    /// How many requests it has taken.
    pub fn used(&self) -> usize {
        *self.script.used.lock()
    }

    /// Another script for the same requests, for when this one is used up.
    #[track_caller]
    pub fn then(&self) -> On<R> {
        On {
            scripts: self.scripts.clone(),
            wanted: self.script.wanted.clone(),
            times: None,
            delay: None,
            order: self.order.clone(),
            at: Location::caller(),
            request: PhantomData,
        }
    }
}

/// Scripts that take requests only in the order in which they were written, whatever their APIs.
///
/// A request that comes before its turn is left to other scripts, and to what the mock does by itself.
#[derive(Clone)]
#[must_use = "an order holds only what is written with its `on`"]
pub struct InOrder {
    scripts: Arc<Scripts>,
    order: Order,
}

impl fmt::Debug for InOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrder").field("count", &self.order.lock().len()).finish_non_exhaustive()
    }
}

impl InOrder {
    pub(super) fn new(scripts: Arc<Scripts>) -> Self {
        Self { scripts, order: Order::default() }
    }

    /// The next script of the order; taken once, unless it says otherwise.
    #[track_caller]
    pub fn on<R: Request + 'static>(&self) -> On<R> {
        On::new(self.scripts.clone(), Some(self), Location::caller())
    }
}
