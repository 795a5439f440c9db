//! What the client knows about the cluster, and when it asks again.
//!
//! [`ClusterMetadata`] is one immutable snapshot; [`Refresh`] is the machine that makes the next one.

mod pattern;
mod refresh;
mod update;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_wire::ErrorCode;
use uuid::Uuid;

use klamm_wire::messages::metadata_response::MetadataResponseTopic;

pub use pattern::{PatternError, TopicPattern};
pub use refresh::{Effect, Event, Query, Refresh, RefreshSettings};

/// A broker as it advertises itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerMetadata {
    /// Broker id.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// `broker.rack`, if set.
    pub rack: Option<String>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMetadata {
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
    /// What the broker said about the partition.
    pub error: ErrorCode,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Name.
    pub name: Arc<str>,
    /// Id; nil if the broker is too old to tell.
    pub id: Uuid,
    /// `true` for Kafka's own topics.
    pub internal: bool,
    /// All partitions, in order of their index.
    pub partitions: Vec<PartitionMetadata>,
    /// What the broker said about the topic; anything but `NONE` means that it cannot be used now.
    pub error: ErrorCode,
    /// It does not exist any more, by brokers that must know. Others may not have heard of it yet.
    pub gone: bool,
}

impl TopicMetadata {
    /// Whether it has its partitions, for all that is known: also if a broker was asked that has not heard of it.
    pub fn is_there(&self) -> bool {
        self.error.is_ok() || self.error.is_retriable() && !self.gone && !self.partitions.is_empty()
    }

    /// Finds a partition by its index.
    pub fn partition(&self, index: i32) -> Option<&PartitionMetadata> {
        let guess = usize::try_from(index).ok().and_then(|at| self.partitions.get(at));
        guess
            .filter(|partition| partition.partition == index)
            .or_else(|| self.partitions.iter().find(|partition| partition.partition == index))
    }
}

/// One snapshot of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// Grows with every snapshot; 0 before the first answer.
    pub version: u64,
    /// Id of the cluster.
    pub cluster_id: Option<String>,
    /// Broker id to send admin requests to.
    pub controller: Option<i32>,
    /// All brokers by id.
    pub brokers: BTreeMap<i32, BrokerMetadata>,
    /// The topics asked for, by name or by pattern.
    pub topics: BTreeMap<Arc<str>, Arc<TopicMetadata>>,
    /// Which topics match the pattern that is followed, once all topics were told.
    pub matched: Option<Arc<MatchedTopics>>,
}

/// Topics that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedTopics {
    /// The pattern.
    pub pattern: TopicPattern,
    /// Their names.
    pub topics: BTreeSet<Arc<str>>,
}

impl ClusterMetadata {
    /// Leader and leader epoch of a partition, if there is a leader.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let partition = self.topics.get(topic)?.partition(partition)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// Finds a topic by its id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicMetadata>> {
        self.topics.values().find(|topic| topic.id == id && !id.is_nil())
    }
}

/// Reads what one answer tells of a topic.
pub fn read_topic(name: &Arc<str>, told: &MetadataResponseTopic) -> TopicMetadata {
    update::topic(name, None, told, false)
}
