//! The state of the cluster that the metadata records add up to.
//!
//! In: records, in the order of the log (see `apply`). Out: answers to questions. The controller and
//! every broker hold one; all are equal at the same offset.
//!
//! A clone shares its topics and brokers with the original until one of the two changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::metadata_records::ConfigRecord;
use uuid::Uuid;

use super::{BrokerRegistration, PartitionRegistration};
use crate::config::{BrokerConfig, TopicConfig};

/// One topic with its partitions, which are numbered 0..n without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: Arc<str>,
    /// Id; a topic that is deleted and created again has another one.
    pub id: Uuid,
    /// Partitions by number.
    pub partitions: BTreeMap<i32, PartitionRegistration>,
}

/// What a setting belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// A broker by id, or every broker (`None`).
    Broker(Option<i32>),
    /// Any other resource type code that a log may hold, with its name.
    Other(i8, String),
}

impl ConfigResource {
    /// Resource type code of topics in requests and records.
    pub const TOPIC: i8 = 2;
    /// Resource type code of brokers; the empty name is every broker.
    pub const BROKER: i8 = 4;

    /// Reads type code and name as requests and records give them.
    pub fn new(kind: i8, name: &str) -> Self {
        match (kind, name) {
            (Self::TOPIC, _) => Self::Topic(name.to_owned()),
            (Self::BROKER, "") => Self::Broker(None),
            (Self::BROKER, id) if id.parse::<i32>().is_ok() => Self::Broker(id.parse().ok()),
            _ => Self::Other(kind, name.to_owned()),
        }
    }
}

/// The state of the cluster at one offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub(super) next_offset: i64,
    pub(super) brokers: BTreeMap<i32, Arc<BrokerRegistration>>,
    pub(super) topics: BTreeMap<Uuid, Arc<Topic>>,
    pub(super) names: BTreeMap<Arc<str>, Uuid>,
    pub(super) configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    pub(super) features: BTreeMap<String, i16>,
    pub(super) next_producer_id: i64,
}

/// Where the id of the cluster is kept, so that every node learns it from the log: a setting of a resource of a type that
/// Kafka has no use for, which its tools show and pass over. Kafka itself has the id only in `meta.properties`.
const CLUSTER: (i8, &str) = (0, "cluster");
const CLUSTER_ID: &str = "cluster.id";

static NO_CONFIGS: BTreeMap<String, String> = BTreeMap::new();

impl Image {
    /// Offset of the next record to apply.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Every registered broker by id, fenced ones too.
    pub fn brokers(&self) -> &BTreeMap<i32, Arc<BrokerRegistration>> {
        &self.brokers
    }

    /// One broker, fenced or not.
    pub fn broker(&self, id: i32) -> Option<&BrokerRegistration> {
        self.brokers.get(&id).map(Arc::as_ref)
    }

    /// Brokers that clients may be shown, by id: those not fenced.
    pub fn live_brokers(&self) -> impl Iterator<Item = &BrokerRegistration> {
        self.brokers.values().map(Arc::as_ref).filter(|broker| !broker.fenced)
    }

    /// Epoch of a broker that is not fenced.
    pub fn live_epoch(&self, id: i32) -> Option<i64> {
        self.broker(id).filter(|broker| !broker.fenced).map(|broker| broker.epoch)
    }

    /// Epoch of a broker on which replicas may be in sync: not fenced, and not shutting down.
    pub fn active_epoch(&self, id: i32) -> Option<i64> {
        self.broker(id).filter(|broker| broker.is_active()).map(|broker| broker.epoch)
    }

    /// Whether partitions may be led by this broker, and replicas on it be in sync.
    pub fn is_active(&self, id: i32) -> bool {
        self.active_epoch(id).is_some()
    }

    /// Every topic, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().filter_map(|id| self.topic_by_id(*id))
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topic_by_id(*id))
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Topic> {
        self.topics.get(&id).map(Arc::as_ref)
    }

    /// One partition.
    pub fn partition(&self, topic: Uuid, partition: i32) -> Option<&PartitionRegistration> {
        self.topic_by_id(topic)?.partitions.get(&partition)
    }

    /// Replicas of `partition` whose broker is fenced or gone, in replica order.
    pub fn offline_replicas(&self, partition: &PartitionRegistration) -> Vec<i32> {
        partition.replicas.iter().copied().filter(|id| self.live_epoch(*id).is_none()).collect()
    }

    /// Settings that were set for a resource, by name.
    pub fn configs(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        self.configs.get(resource).unwrap_or(&NO_CONFIGS)
    }

    /// Settings in force for a topic on a broker with the settings `broker`.
    pub fn topic_config<'a>(&'a self, name: &str, broker: &'a BrokerConfig) -> TopicConfig<'a> {
        TopicConfig::new(self.configs(&ConfigResource::Topic(name.to_owned())), broker)
    }

    /// Id of the cluster, once its first controller has written it down.
    pub fn cluster_id(&self) -> Option<&str> {
        self.configs(&ConfigResource::new(CLUSTER.0, CLUSTER.1)).get(CLUSTER_ID).map(String::as_str)
    }

    /// The record by which the first controller writes down the id of the cluster.
    pub fn cluster_id_record(id: &str) -> ConfigRecord {
        ConfigRecord {
            resource_type: CLUSTER.0,
            resource_name: CLUSTER.1.to_owned(),
            name: CLUSTER_ID.to_owned(),
            value: Some(id.to_owned()),
        }
    }

    /// Finalized level of each feature.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// First producer id that no block has handed out.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }
}
