//! The state of the cluster that the metadata records add up to.
//!
//! In: records, in the order of the log. Out: answers to questions, and [`Delta`]s that tell a broker what
//! it has to look at again. The controller and every broker hold one; all are equal at the same offset.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_wire::RawBatch;
use uuid::Uuid;

use super::{MetadataRecord, PartitionRegistration};

/// One address a broker listens at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name of the listener, for example `PLAINTEXT`.
    pub name: String,
    /// Host that clients shall dial.
    pub host: String,
    /// Port that clients shall dial.
    pub port: u16,
    /// Security protocol code, 0 for PLAINTEXT.
    pub security_protocol: i16,
}

/// One broker as the controller has registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Broker id.
    pub id: i32,
    /// Epoch of this registration: the offset the controller was at when it made it.
    pub epoch: i64,
    /// Identity of the process; a restarted broker has another one.
    pub incarnation_id: Uuid,
    /// Where the broker listens, in the order it gave.
    pub listeners: Vec<Listener>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Feature name to supported (min, max) level.
    pub features: BTreeMap<String, (i16, i16)>,
    /// Log directories.
    pub log_dirs: Vec<Uuid>,
    /// `true` while the broker must not lead, nor be shown to clients.
    pub fenced: bool,
    /// `true` while its leaderships are being moved away.
    pub in_controlled_shutdown: bool,
}

impl BrokerRegistration {
    /// Whether partitions may be led by this broker.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// The listener of this name, or `None`.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }
}

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

/// Why a record does not fit the image. The log is damaged, or written by something newer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata record at offset {offset}: {reason}")]
pub struct ImageError {
    /// Offset of the record.
    pub offset: i64,
    /// What was wrong.
    pub reason: String,
}

/// A topic that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedTopic {
    /// Name it had.
    pub name: Arc<str>,
    /// Its id.
    pub id: Uuid,
    /// Partitions it had.
    pub partitions: Vec<i32>,
}

/// What changed, so that a broker looks again at nothing else.
///
/// A partition of a removed topic is never in `partitions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Partitions that were created or changed.
    pub partitions: BTreeSet<(Uuid, i32)>,
    /// Topics that were removed.
    pub removed_topics: Vec<RemovedTopic>,
    /// Brokers that registered, left, or changed: fenced, unfenced, new epoch.
    pub brokers: BTreeSet<i32>,
    /// Resources whose settings changed.
    pub configs: BTreeSet<ConfigResource>,
}

/// One partition as Metadata and DescribeTopicPartitions show it.
#[derive(Debug, Clone, Copy)]
pub struct PartitionView<'a> {
    /// Number of the partition.
    pub partition: i32,
    /// Its registration.
    pub registration: &'a PartitionRegistration,
}

/// The state of the cluster at one offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    next_offset: i64,
}

impl Image {
    /// Offset of the next record to apply.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Applies one record, which stands at [`Self::next_offset`].
    ///
    /// # Errors
    ///
    /// [`ImageError`] if the record speaks of something that does not exist.
    pub fn apply(&mut self, _record: &MetadataRecord, _delta: &mut Delta) -> Result<(), ImageError> {
        unimplemented!()
    }

    /// Applies the records of one batch of the log; those below [`Self::next_offset`] are skipped.
    ///
    /// # Errors
    ///
    /// [`ImageError`] if the batch cannot be read or leaves a gap.
    pub fn apply_batch(&mut self, _batch: &RawBatch, _delta: &mut Delta) -> Result<(), ImageError> {
        unimplemented!()
    }

    /// Every registered broker by id, fenced ones too.
    pub fn brokers(&self) -> &BTreeMap<i32, Arc<BrokerRegistration>> {
        unimplemented!()
    }

    /// One broker, fenced or not.
    pub fn broker(&self, _id: i32) -> Option<&BrokerRegistration> {
        unimplemented!()
    }

    /// Brokers that clients may be shown, by id: those not fenced.
    pub fn live_brokers(&self) -> impl Iterator<Item = &BrokerRegistration> {
        std::iter::empty()
    }

    /// Epoch of a broker that is not fenced.
    pub fn live_epoch(&self, _id: i32) -> Option<i64> {
        unimplemented!()
    }

    /// Every topic, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        std::iter::empty()
    }

    /// A topic by name.
    pub fn topic(&self, _name: &str) -> Option<&Topic> {
        unimplemented!()
    }

    /// A topic by id.
    pub fn topic_by_id(&self, _id: Uuid) -> Option<&Topic> {
        unimplemented!()
    }

    /// One partition.
    pub fn partition(&self, _topic: Uuid, _partition: i32) -> Option<&PartitionRegistration> {
        unimplemented!()
    }

    /// Replicas of `partition` whose broker is fenced or gone, in replica order.
    pub fn offline_replicas(&self, _partition: &PartitionRegistration) -> Vec<i32> {
        unimplemented!()
    }

    /// Settings that were set for a resource, by name.
    pub fn configs(&self, _resource: &ConfigResource) -> &BTreeMap<String, String> {
        unimplemented!()
    }

    /// Finalized level of each feature.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        unimplemented!()
    }

    /// First producer id that no block has handed out.
    pub fn next_producer_id(&self) -> i64 {
        unimplemented!()
    }
}
