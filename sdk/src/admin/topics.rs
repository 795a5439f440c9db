//! Topics come, are described, and go.

use std::collections::{BTreeMap, BTreeSet};

use klamm_core::metadata::PartitionMetadata;
use klamm_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_wire::messages::create_topics_response::CreatableTopicResult;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use klamm_wire::messages::describe_topic_partitions_response::{
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::metadata_response::MetadataResponseTopic;
use klamm_wire::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest, MetadataRequest,
    TopicName,
};
use klamm_wire::negotiation::NegotiationError;
use klamm_wire::{ErrorCode, codec};
use uuid::Uuid;

use super::Admin;
use super::call::{Attempts, How, Repeat, Verdict, api, text, verdict};
use super::configs::ConfigEntry;
use super::error::AdminError;
use super::results::{Results, TopicIdResults, TopicResults};
use crate::error::RequestError;

/// Partitions that one page of DescribeTopicPartitions may hold; a broker may say fewer
/// (`max.request.partition.size.limit`).
const PAGE: i32 = 2_000;

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

    /// The broker chooses a number.
    fn leaves_a_choice(&self) -> bool {
        self.assignment.is_empty() && (self.partitions.is_none() || self.replicas.is_none())
    }

    fn request(&self) -> CreatableTopic {
        let place = |(partition, brokers): (&i32, &Vec<i32>)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*partition)
                .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
        };
        let config = |(name, value): (&String, &Option<String>)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(value.as_deref().map(text))
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
    /// All settings the topic has; `None` if the broker does not tell, or this client may not see them.
    pub configs: Option<Vec<ConfigEntry>>,
}

/// A topic's name and id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicListing {
    /// Name.
    pub name: String,
    /// Id; nil if the broker is too old to tell.
    pub id: Uuid,
    /// `true` for Kafka's own topics.
    pub internal: bool,
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
    /// Broker ids of all replicas, the preferred leader first. During a reassignment also those that are leaving.
    pub replicas: Vec<i32>,
    /// Broker ids of the replicas in sync.
    pub isr: Vec<i32>,
    /// Broker ids of the replicas that are offline.
    pub offline: Vec<i32>,
    /// Broker ids of the replicas that are not in sync but hold everything acknowledged, and may lead (KIP-966);
    /// `None` if the broker does not tell.
    pub elr: Option<Vec<i32>>,
    /// Broker ids of what was the last `elr`, after an unclean shutdown; `None` if the broker does not tell.
    pub last_known_elr: Option<Vec<i32>>,
}

impl From<PartitionMetadata> for PartitionDescription {
    fn from(known: PartitionMetadata) -> Self {
        let PartitionMetadata { partition, leader, leader_epoch, replicas, isr, offline, error: _ } = known;
        Self { partition, leader, leader_epoch, replicas, isr, offline, elr: None, last_known_elr: None }
    }
}

impl From<&DescribeTopicPartitionsResponsePartition> for PartitionDescription {
    fn from(told: &DescribeTopicPartitionsResponsePartition) -> Self {
        let ids = |ids: &Vec<BrokerId>| ids.iter().map(|id| id.0).collect();
        Self {
            partition: told.partition_index,
            leader: Some(told.leader_id.0).filter(|id| *id >= 0),
            leader_epoch: told.leader_epoch,
            replicas: ids(&told.replica_nodes),
            isr: ids(&told.isr_nodes),
            offline: ids(&told.offline_replicas),
            elr: told.eligible_leader_replicas.as_ref().map(ids),
            last_known_elr: told.last_known_elr.as_ref().map(ids),
        }
    }
}

impl Admin {
    /// Creates topics; returns when the controller has created them. Some brokers may learn of them a little
    /// later: producers and consumers of this crate wait for that.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::{ErrorCode, NewTopic};
    ///
    /// let orders = NewTopic::new("orders").partitions(6).replicas(3).config("retention.ms", "604800000");
    /// for (name, result) in admin.create_topics([orders]).await? {
    ///     match result {
    ///         Ok(created) => println!("{name} has the id {}", created.id),
    ///         Err(error) if error.code == ErrorCode::TOPIC_ALREADY_EXISTS => println!("{name} is there"),
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// CreateTopics, api key 19, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. A topic that exists, or cannot be, is an error in the
    /// results. TOPIC_ALREADY_EXISTS with `maybe_done` may mean that this very call has created it: compare
    /// [`describe_topics`](Self::describe_topics) with what you wanted.
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<TopicResults<CreatedTopic>, AdminError> {
        const SILENT: (i16, &str) = (4, "leaving the number of partitions or replicas to the broker");
        let wanted: Vec<_> = topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        let how = How {
            needs: wanted.iter().any(|(_, topic)| topic.leaves_a_choice()).then_some(SILENT),
            already: &[ErrorCode::TOPIC_ALREADY_EXISTS],
            ..How::controller()
        };
        let encode = |version, topics: &[(String, NewTopic)]| {
            let request = CreateTopicsRequest::default()
                .with_topics(topics.iter().map(|(_, topic)| topic.request()).collect())
                .with_validate_only(self.validate_only)
                .with_timeout_ms(self.timeout_ms());
            codec::encode_request(version, &request)
        };
        let told = self
            .attempts()
            .ask_each::<CreateTopicsRequest, _, _, _>(&how, wanted, encode, |response| {
                Ok(response.topics.into_iter().map(created).collect())
            })
            .await?;
        Ok(Results::in_order(names, &told))
    }

    /// Deletes topics; returns when the controller has deleted them. Some brokers may learn of it a little later.
    ///
    /// A request whose answer is lost is not sent again: somebody may have created a topic of the same name since.
    /// [`delete_topics_by_id`](Self::delete_topics_by_id) knows the one from the other, and is repeated.
    ///
    /// DeleteTopics, api key 20, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. A topic that does not exist is an error in the results.
    pub async fn delete_topics<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<TopicResults<()>, AdminError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let wanted = names.iter().map(|name| (name.clone(), ())).collect();
        let how = How { repeat: Repeat::Harmful, ..How::controller() };
        let state = |name: &String| DeleteTopicState::default().with_name(Some(topic_name(name)));
        let encode = |version: i16, names: &[(String, ())]| {
            let names = names.iter().map(|(name, ())| name);
            let request = DeleteTopicsRequest::default().with_timeout_ms(self.timeout_ms());
            let request = match version {
                6.. => request.with_topics(names.map(state).collect()),
                _ => request.with_topic_names(names.map(|name| topic_name(name)).collect()),
            };
            codec::encode_request(version, &request)
        };
        let told = self
            .attempts()
            .ask_each::<DeleteTopicsRequest, _, _, _>(&how, wanted, encode, |response| {
                let deleted = response.responses.into_iter().filter_map(|topic| {
                    let verdict = verdict(topic.error_code, topic.error_message.as_ref());
                    Some((topic.name?.as_str().to_owned(), verdict))
                });
                Ok(deleted.collect())
            })
            .await?;
        Ok(Results::in_order(names, &told))
    }

    /// Deletes the topics with these ids, and no later one of the same name.
    ///
    /// DeleteTopics, api key 20 (version 6, KIP-516), to the controller.
    ///
    /// # Errors
    ///
    /// As [`delete_topics`](Self::delete_topics). UNKNOWN_TOPIC_ID with `maybe_done` means that the topic is gone, maybe
    /// by this call.
    pub async fn delete_topics_by_id(
        &self,
        ids: impl IntoIterator<Item = Uuid>,
    ) -> Result<TopicIdResults<()>, AdminError> {
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let wanted = ids.iter().map(|id| (*id, ())).collect();
        let how = How {
            needs: Some((6, "deleting a topic by its id")),
            already: &[ErrorCode::UNKNOWN_TOPIC_ID],
            ..How::controller()
        };
        let encode = |version: i16, ids: &[(Uuid, ())]| {
            let state =
                |(id, ()): &(Uuid, ())| DeleteTopicState::default().with_name(None).with_topic_id(*id);
            let request = DeleteTopicsRequest::default()
                .with_topics(ids.iter().map(state).collect())
                .with_timeout_ms(self.timeout_ms());
            codec::encode_request(version, &request)
        };
        let told =
            self.attempts()
                .ask_each::<DeleteTopicsRequest, _, _, _>(&how, wanted, encode, |response| {
                    let deleted = response.responses.into_iter().map(|topic| {
                        (topic.topic_id, verdict(topic.error_code, topic.error_message.as_ref()))
                    });
                    Ok(deleted.collect())
                })
                .await?;
        Ok(Results::in_order(ids, &told))
    }

    /// All topics that this client may see, in the order of their names; Kafka's own among them, marked.
    ///
    /// Metadata, api key 3, to any broker.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>, AdminError> {
        let encode = |version: i16| {
            // Version 0 has no null, and asks for all topics by naming none.
            let topics = (version == 0).then(Vec::new);
            let request =
                MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(version < 4);
            codec::encode_request(version, &request)
        };
        let answer = self.attempts().ask::<MetadataRequest>(&How::any(), &encode).await?;
        let listed = answer.topics.iter().filter_map(|topic| {
            let name = topic.name.as_ref()?.as_str().to_owned();
            Some(TopicListing { name, id: topic.topic_id, internal: topic.is_internal })
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Describes topics as one broker knows them.
    ///
    /// DescribeTopicPartitions, api key 75, page by page (KIP-966), where the broker has it; else Metadata, api key 3,
    /// which does not know the eligible leader replicas. To any broker.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. A topic that does not exist is an error in the results.
    pub async fn describe_topics<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<TopicResults<TopicDescription>, AdminError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if distinct.is_empty() {
            return Ok(Results::in_order(names, &BTreeMap::new()));
        }
        let mut attempts = self.attempts();
        let told = match pages(&mut attempts, &distinct).await {
            Err(AdminError::Request(RequestError::Version(NegotiationError::NotOffered { .. }))) => {
                let topics = distinct.iter().map(|name| named(name)).collect();
                let told = from_metadata(&mut attempts, &How::any(), topics).await?;
                told.into_iter().map(|(name, _, verdict)| (name, verdict)).collect()
            }
            told => told?,
        };
        Ok(Results::in_order(names, &told))
    }

    /// Describes topics by their ids, as one broker knows them.
    ///
    /// Metadata, api key 3 (version 12, KIP-516), to any broker.
    ///
    /// # Errors
    ///
    /// As [`describe_topics`](Self::describe_topics).
    pub async fn describe_topics_by_id(
        &self,
        ids: impl IntoIterator<Item = Uuid>,
    ) -> Result<TopicIdResults<TopicDescription>, AdminError> {
        let ids: Vec<Uuid> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(Results::in_order(ids, &BTreeMap::new()));
        }
        let how = How { needs: Some((12, "describing a topic by its id")), ..How::any() };
        let topics = ids.iter().map(|id| MetadataRequestTopic::default().with_topic_id(*id).with_name(None));
        let told = from_metadata(&mut self.attempts(), &how, topics.collect()).await?;
        Ok(Results::in_order(ids, &told.into_iter().map(|(_, id, verdict)| (id, verdict)).collect()))
    }
}

fn created(topic: CreatableTopicResult) -> (String, Verdict<CreatedTopic>) {
    let name = topic.name.as_str().to_owned();
    let verdict = verdict(topic.error_code, topic.error_message.as_ref()).map(|()| CreatedTopic {
        name: name.clone(),
        id: topic.topic_id,
        partitions: Some(topic.num_partitions).filter(|count| *count >= 0),
        replicas: Some(topic.replication_factor).filter(|count| *count >= 0),
        configs: topic.configs.map(|configs| configs.into_iter().map(ConfigEntry::of_created).collect()),
    });
    (name, verdict)
}

type Described = BTreeMap<String, Verdict<TopicDescription>>;

/// Describes topics page by page.
async fn pages(attempts: &mut Attempts<'_>, names: &BTreeSet<&str>) -> Result<Described, AdminError> {
    let mut described = Described::new();
    let mut at: Option<(String, i32)> = None;
    loop {
        let from = at.as_ref().map_or("", |(topic, _)| topic);
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(
                names.range(from..).map(|name| TopicRequest::default().with_name(topic_name(name))).collect(),
            )
            .with_response_partition_limit(PAGE)
            .with_cursor(at.as_ref().map(|(topic, partition)| {
                Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(*partition)
            }));
        let encode = |version| codec::encode_request(version, &request);
        let answer = attempts.ask::<DescribeTopicPartitionsRequest>(&How::any(), &encode).await?;
        for topic in &answer.topics {
            add_page(&mut described, topic);
        }
        let Some(next) = answer.next_cursor else { break };
        let next = (next.topic_name.as_str().to_owned(), next.partition_index);
        if at.as_ref().is_some_and(|at| next <= *at) || !names.contains(next.0.as_str()) {
            let reason = "its cursor does not move forward";
            return Err(AdminError::Senseless { api: api::<DescribeTopicPartitionsRequest>(), reason });
        }
        at = Some(next);
    }
    for topic in described.values_mut().flatten() {
        topic.partitions.sort_by_key(|partition| partition.partition);
        topic.partitions.dedup_by_key(|partition| partition.partition);
    }
    Ok(described)
}

fn add_page(described: &mut Described, topic: &DescribeTopicPartitionsResponseTopic) {
    let Some(name) = &topic.name else { return };
    let name = name.as_str().to_owned();
    let new = || {
        verdict(topic.error_code, None).map(|()| TopicDescription {
            name: name.clone(),
            id: topic.topic_id,
            internal: topic.is_internal,
            partitions: Vec::new(),
        })
    };
    let place = described.entry(name.clone()).or_insert_with(new);
    if place.as_ref().is_ok_and(|known| known.id != topic.topic_id) {
        *place = new(); // created again between two pages
    }
    if let Ok(known) = place {
        known.partitions.extend(topic.partitions.iter().map(PartitionDescription::from));
    }
}

async fn from_metadata(
    attempts: &mut Attempts<'_>,
    how: &How,
    topics: Vec<MetadataRequestTopic>,
) -> Result<Vec<(String, Uuid, Verdict<TopicDescription>)>, AdminError> {
    let encode = |version: i16| {
        let request = MetadataRequest::default()
            .with_topics(Some(topics.clone()))
            .with_allow_auto_topic_creation(version < 4);
        codec::encode_request(version, &request)
    };
    let answer = attempts.ask::<MetadataRequest>(how, &encode).await?;
    Ok(answer.topics.iter().map(describe).collect())
}

fn describe(topic: &MetadataResponseTopic) -> (String, Uuid, Verdict<TopicDescription>) {
    let name = topic.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default();
    let verdict = verdict(topic.error_code, None).map(|()| {
        let known = klamm_core::metadata::read_topic(&name.as_str().into(), topic);
        TopicDescription {
            name: name.clone(),
            id: known.id,
            internal: known.internal,
            partitions: known.partitions.into_iter().map(Into::into).collect(),
        }
    });
    (name, topic.topic_id, verdict)
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(topic_name(name)))
}

/// The name of a topic, as messages have it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
