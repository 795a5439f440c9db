//! Administration: topics and the cluster.
//!
//! In: what shall be. Out: one result per topic. Calls that change something are sent again only if the broker
//! cannot have carried them out; calls that only look are sent again until `default.api.timeout.ms` is over.

use std::collections::BTreeMap;

use klamm_core::Tick;
use klamm_core::backoff::Backoff;
use klamm_core::metadata::{PartitionMetadata, Query};
use klamm_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, TopicName,
};
use klamm_wire::{ErrorCode, Request, StrBytes, codec};
use uuid::Uuid;

use crate::client::{Client, ClientBuilder, Encode, Lane, Target};
use crate::config::{Kind, apply};
use crate::error::{ConfigError, Recovery, RequestError};

/// Creates, describes and deletes topics, and describes the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: Option<i32>,
    replicas: Option<i16>,
    assignment: BTreeMap<i32, Vec<i32>>,
    configs: BTreeMap<String, Option<String>>,
}

impl NewTopic {
    /// A topic with the broker's default number of partitions and replicas.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replicas: None,
            assignment: BTreeMap::new(),
            configs: BTreeMap::new(),
        }
    }

    /// A topic for [`ProducerBuilder::high_throughput`](crate::ProducerBuilder::high_throughput): three partitions, so
    /// that three brokers share the load, of two replicas. What is set here can be set again by later calls.
    pub fn high_throughput(name: impl Into<String>) -> Self {
        Self::new(name).partitions(3).replicas(2)
    }

    /// A topic for [`ProducerBuilder::reliable`](crate::ProducerBuilder::reliable): three partitions of three replicas,
    /// of which two must have a record before it is acknowledged (`min.insync.replicas=2`). One broker can be lost
    /// without losing records and without a pause in taking them; with two gone, nothing is acknowledged. What is set
    /// here can be set again by later calls.
    pub fn reliable(name: impl Into<String>) -> Self {
        Self::new(name).partitions(3).replicas(3).config("min.insync.replicas", "2")
    }

    /// A topic for [`ProducerBuilder::highly_reliable`](crate::ProducerBuilder::highly_reliable): as
    /// [`reliable`](Self::reliable), and each replica syncs records to its disk before they count as written
    /// (`flush.messages=1`), so that not even a loss of power of all brokers loses what was acknowledged.
    ///
    /// broker-lite keeps that promise: a record is not acknowledged before it is synced. Apache Kafka syncs as well
    /// then, after each append.
    pub fn highly_reliable(name: impl Into<String>) -> Self {
        Self::reliable(name).config("flush.messages", "1")
    }

    /// Number of partitions.
    #[must_use]
    pub fn partitions(mut self, count: i32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// Number of replicas of each partition.
    #[must_use]
    pub fn replicas(mut self, count: i16) -> Self {
        self.replicas = Some(count);
        self
    }

    /// Places one partition on these brokers, the preferred leader first. Partitions are then placed by hand
    /// altogether, and numbers of partitions and replicas must not be given.
    #[must_use]
    pub fn place(mut self, partition: i32, brokers: impl IntoIterator<Item = i32>) -> Self {
        self.assignment.insert(partition, brokers.into_iter().collect());
        self
    }

    /// Sets a topic setting, for example `min.insync.replicas`.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), Some(value.into()));
        self
    }

    fn request(&self) -> CreatableTopic {
        let place = |(partition, brokers): (&i32, &Vec<i32>)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*partition)
                .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
        };
        let config = |(name, value): (&String, &Option<String>)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_value(value.clone().map(StrBytes::from_string))
        };
        CreatableTopic::default()
            .with_name(topic_name(&self.name))
            .with_num_partitions(self.partitions.unwrap_or(-1))
            .with_replication_factor(self.replicas.unwrap_or(-1))
            .with_assignments(self.assignment.iter().map(place).collect())
            .with_configs(self.configs.iter().map(config).collect())
    }
}

/// A topic as it was created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Name.
    pub name: String,
    /// Id; nil if the broker is too old to tell.
    pub id: Uuid,
    /// Number of partitions, if the broker tells.
    pub partitions: Option<i32>,
    /// Number of replicas of each partition, if the broker tells.
    pub replicas: Option<i16>,
}

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Id; nil if the broker is too old to tell.
    pub id: Uuid,
    /// `true` for Kafka's own topics.
    pub internal: bool,
    /// All partitions, in order of their index.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Index of the partition.
    pub partition: i32,
    /// Broker id of the leader, if there is one.
    pub leader: Option<i32>,
    /// Epoch of the leader; -1 if the broker does not tell.
    pub leader_epoch: i32,
    /// Broker ids of all replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Broker ids of the replicas in sync.
    pub isr: Vec<i32>,
    /// Broker ids of the replicas that are offline.
    pub offline: Vec<i32>,
}

impl From<PartitionMetadata> for PartitionDescription {
    fn from(known: PartitionMetadata) -> Self {
        let PartitionMetadata { partition, leader, leader_epoch, replicas, isr, offline, error: _ } = known;
        Self { partition, leader, leader_epoch, replicas, isr, offline }
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// Id of the cluster.
    pub cluster_id: String,
    /// The broker that takes admin requests.
    pub controller: Option<i32>,
    /// All brokers, by id.
    pub brokers: Vec<BrokerDescription>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Broker id.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// `broker.rack`, if set.
    pub rack: Option<String>,
}

/// One result per topic, in the order asked for.
#[derive(Debug, Clone)]
#[must_use = "each topic may have failed by itself"]
pub struct TopicResults<T> {
    results: Vec<(String, Result<T, TopicError>)>,
}

impl<T> TopicResults<T> {
    /// All values, or the first error.
    ///
    /// # Errors
    ///
    /// Returns the first [`TopicError`].
    pub fn all(self) -> Result<Vec<T>, TopicError> {
        self.results.into_iter().map(|(_, result)| result).collect()
    }

    /// The result for one topic.
    pub fn of(&self, topic: &str) -> Option<&Result<T, TopicError>> {
        self.results.iter().find(|(name, _)| name == topic).map(|(_, result)| result)
    }

    /// Every topic with its result.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Result<T, TopicError>)> {
        self.results.iter().map(|(name, result)| (&**name, result))
    }
}

impl<T> IntoIterator for TopicResults<T> {
    type Item = (String, Result<T, TopicError>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}

/// Why nothing was done for one topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic:?}: {code}{}", .message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
#[non_exhaustive]
pub struct TopicError {
    /// Name of the topic.
    pub topic: String,
    /// What the broker said.
    pub code: ErrorCode,
    /// The broker's own words.
    pub message: Option<String>,
}

impl TopicError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self.code {
            // "Retriable" to Kafka, because another broker may know the topic: here all of them were asked.
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Recovery::Fix,
            code if code.is_retriable() => Recovery::Retry,
            _ => Recovery::Fix,
        }
    }
}

/// Why a whole call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The broker refused the request as a whole.
    #[error("refused: {code}{}", .message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused {
        /// What the broker said.
        code: ErrorCode,
        /// The broker's own words.
        message: Option<String>,
    },
}

impl AdminError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Request(error) => error.recovery(),
            Self::Refused { code, .. } if code.is_retriable() => Recovery::Retry,
            Self::Refused { .. } => Recovery::Fix,
        }
    }

    /// Returns `true` if the broker may have carried out the call despite this error.
    pub fn maybe_written(&self) -> bool {
        matches!(self, Self::Request(error) if error.maybe_written())
    }
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// A builder of the client underneath, filled from Kafka's properties of admin clients. Call
    /// [`Client::admin`] on what it builds.
    ///
    /// # Errors
    ///
    /// As [`Client::from_properties`].
    pub fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<ClientBuilder, ConfigError> {
        let mut builder = ClientBuilder::default();
        apply(Kind::Admin, &[], &mut builder, properties)?;
        Ok(builder)
    }

    /// Creates topics; returns when the controller has created them. Some brokers may learn of them a little
    /// later: producers and consumers of this crate wait for that.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer within `default.api.timeout.ms`. A topic that exists, or
    /// cannot be, is an error in the results.
    ///
    /// # Cancel safety
    ///
    /// Once sent, the request is carried out even if the future is dropped.
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<TopicResults<CreatedTopic>, AdminError> {
        let topics: Vec<NewTopic> = topics.into_iter().collect();
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(NewTopic::request).collect())
            .with_timeout_ms(self.timeout_ms());
        let names = topics.into_iter().map(|topic| topic.name).collect();
        let encode = |version| codec::encode_request(version, &request);
        let nobody =
            |response: &CreateTopicsResponse| no_controller(response.topics.iter().map(|t| t.error_code));
        let call = Call { change: Change::Yes, to: Target::Controller, again: &nobody, encode: &encode };
        self.per_topic::<CreateTopicsRequest, _>(names, call, |response| {
            let created = response.topics.into_iter().map(|topic| {
                let result = CreatedTopic {
                    name: topic.name.0.as_str().to_owned(),
                    id: topic.topic_id,
                    partitions: Some(topic.num_partitions).filter(|count| *count >= 0),
                    replicas: Some(topic.replication_factor).filter(|count| *count >= 0),
                };
                outcome(result.name.clone(), topic.error_code, topic.error_message.as_ref(), result)
            });
            created.collect()
        })
        .await
    }

    /// Deletes topics; returns when the controller has deleted them. Some brokers may learn of it a little later.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer within `default.api.timeout.ms`. A topic that does not exist
    /// is an error in the results.
    ///
    /// # Cancel safety
    ///
    /// Once sent, the request is carried out even if the future is dropped.
    pub async fn delete_topics<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<TopicResults<()>, AdminError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let state = |name: &String| DeleteTopicState::default().with_name(Some(topic_name(name)));
        let encode = |version: i16| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(self.timeout_ms());
            let request = match version {
                6.. => request.with_topics(names.iter().map(state).collect()),
                _ => request.with_topic_names(names.iter().map(|name| topic_name(name)).collect()),
            };
            codec::encode_request(version, &request)
        };
        let nobody =
            |response: &DeleteTopicsResponse| no_controller(response.responses.iter().map(|t| t.error_code));
        let call = Call { change: Change::Yes, to: Target::Controller, again: &nobody, encode: &encode };
        self.per_topic::<DeleteTopicsRequest, _>(names.clone(), call, |response| {
            let deleted = response.responses.into_iter().filter_map(|topic| {
                let name = topic.name?.0.as_str().to_owned();
                Some(outcome(name, topic.error_code, topic.error_message.as_ref(), ()))
            });
            deleted.collect()
        })
        .await
    }

    /// Describes topics as one broker knows them.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer within `default.api.timeout.ms`. A topic that does not exist
    /// is an error in the results.
    pub async fn describe_topics<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<TopicResults<TopicDescription>, AdminError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let topics = names.iter().map(|name| name.as_str().into()).collect();
        let request = Query { topics, auto_create: false }.request();
        let encode = |version| codec::encode_request(version, &request);
        let call = Call { change: Change::No, to: Target::Any, again: &|_| false, encode: &encode };
        self.per_topic::<MetadataRequest, _>(names, call, |response| {
            let described = response.topics.iter().filter_map(|topic| {
                let name = topic.name.as_ref()?.0.as_str();
                let known = klamm_core::metadata::read_topic(&name.into(), topic);
                let description = TopicDescription {
                    name: name.to_owned(),
                    id: known.id,
                    internal: known.internal,
                    partitions: known.partitions.into_iter().map(Into::into).collect(),
                };
                Some(outcome(name.to_owned(), topic.error_code, None, description))
            });
            described.collect()
        })
        .await
    }

    /// Describes the cluster.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer within `default.api.timeout.ms`, or the broker refuses.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        let request = DescribeClusterRequest::default().with_endpoint_type(1);
        let encode = |version| codec::encode_request(version, &request);
        let again = |response: &DescribeClusterResponse| ErrorCode(response.error_code).is_retriable();
        let call = Call { change: Change::No, to: Target::Any, again: &again, encode: &encode };
        let response = self.retried::<DescribeClusterRequest>(call).await?;
        let code = ErrorCode(response.error_code);
        if !code.is_ok() {
            let message = response.error_message.map(|message| message.as_str().to_owned());
            return Err(AdminError::Refused { code, message });
        }
        let broker = |broker: klamm_wire::messages::describe_cluster_response::DescribeClusterBroker| {
            let port = u16::try_from(broker.port).ok()?;
            let rack = broker.rack.map(|rack| rack.as_str().to_owned());
            Some(BrokerDescription {
                id: broker.broker_id.0,
                host: broker.host.as_str().to_owned(),
                port,
                rack,
            })
        };
        let mut brokers: Vec<_> = response.brokers.into_iter().filter_map(broker).collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            cluster_id: response.cluster_id.as_str().to_owned(),
            controller: Some(response.controller_id.0).filter(|id| *id >= 0),
            brokers,
        })
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.settings().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    async fn per_topic<R: Request, T>(
        &self,
        names: Vec<String>,
        call: Call<'_, R>,
        read: impl FnOnce(R::Response) -> BTreeMap<String, Result<T, TopicError>>,
    ) -> Result<TopicResults<T>, AdminError> {
        if names.is_empty() {
            return Ok(TopicResults { results: Vec::new() });
        }
        let response = self.retried(call).await?;
        let mut told = read(response);
        let result = |name: String| {
            let missing = || TopicError {
                topic: name.clone(),
                code: ErrorCode::UNKNOWN_SERVER_ERROR,
                message: Some("the broker's answer does not name the topic".to_owned()),
            };
            let result = told.remove(&name).unwrap_or_else(|| Err(missing()));
            (name, result)
        };
        Ok(TopicResults { results: names.into_iter().map(result).collect() })
    }

    /// Sends a request until there is an answer that does not ask to try again.
    async fn retried<R: Request>(&self, call: Call<'_, R>) -> Result<R::Response, AdminError> {
        let (rt, settings) = (self.client.rt(), self.client.settings());
        let deadline: Tick = rt.now().saturating_add(settings.api_timeout());
        let backoff = Backoff::new(settings.retry_backoff, settings.retry_backoff_max);
        let mut rng = rt.rng("admin");
        for attempt in 1u32.. {
            let limit = settings.request_timeout.min(deadline.saturating_sub(rt.now()));
            let result = self.client.call_encoded::<R>(call.to, Lane::Main, call.encode, limit).await;
            let pause = backoff.delay(attempt, &mut rng);
            let over = rt.now() + pause >= deadline;
            match result {
                Ok(response) if over || !(call.again)(&response) => return Ok(response),
                Err(error) if over || !call.change.may_repeat(&error) => return Err(error.into()),
                _ => rt.sleep(pause).await,
            }
        }
        Err(RequestError::Closed.into())
    }
}

/// What to ask, whom, and when to ask again.
struct Call<'a, R: Request> {
    change: Change,
    to: Target,
    /// `true` for an answer by which nothing was done.
    again: &'a (dyn Fn(&R::Response) -> bool + Sync),
    encode: &'a Encode<'a>,
}

/// The active controller was not found, so nothing was done for any topic.
fn no_controller(mut codes: impl ExactSizeIterator<Item = i16>) -> bool {
    codes.len() > 0 && codes.all(|code| ErrorCode(code) == ErrorCode::NOT_CONTROLLER)
}

/// Whether a request changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Yes,
    No,
}

impl Change {
    fn may_repeat(self, error: &RequestError) -> bool {
        error.recovery() == Recovery::Retry && (self == Self::No || !error.maybe_written())
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn outcome<T>(
    topic: String,
    code: i16,
    message: Option<&StrBytes>,
    value: T,
) -> (String, Result<T, TopicError>) {
    let code = ErrorCode(code);
    let message = message.map(|message| message.as_str().to_owned());
    let result =
        if code.is_ok() { Ok(value) } else { Err(TopicError { topic: topic.clone(), code, message }) };
    (topic, result)
}
