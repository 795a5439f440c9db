//! Code that chooses a partition for each record that names none: yours, or one of those that other clients have.
//!
//! | records of other clients | use | property |
//! |---|---|---|
//! | Java, and whoever has its defaults | nothing, it is the default | |
//! | Java with `partitioner.ignore.keys` | [`partitioner_ignore_keys`](crate::ProducerBuilder::partitioner_ignore_keys) | `partitioner.ignore.keys=true` |
//! | Java's `RoundRobinPartitioner` | [`RoundRobin`] | `partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner` |
//! | librdkafka and its bindings, by default | [`Librdkafka::ConsistentRandom`] | `partitioner=consistent_random` |
//! | librdkafka with another `partitioner` | [`Librdkafka`] | `partitioner=NAME` |
//! | Sarama by default | [`Librdkafka::Fnv1aRandom`] | `partitioner=fnv1a_random` |
//!
//! A record's own partition ([`Record::partition`](crate::Record::partition)) goes before all of them. The default
//! places keys by murmur2, and records without one on the [sticky](Placement::Sticky) partition.
//!
//! ```
//! use klamm::partitioner::{Partitioner, Placement, Unplaced};
//!
//! /// Keeps partition 0 for one customer, and leaves the rest to chance.
//! struct Vip;
//!
//! impl Partitioner for Vip {
//!     fn partition(&self, record: &Unplaced<'_>) -> Placement {
//!         match record.key() {
//!             Some(b"customer-7") => Placement::Partition(0),
//!             _ => Placement::Sticky,
//!         }
//!     }
//! }
//!
//! let record = Unplaced::new("orders", 6).with_key(b"customer-7");
//! assert_eq!(Vip.partition(&record), Placement::Partition(0));
//! ```

mod known;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use known::{Librdkafka, RoundRobin};

/// Chooses partitions for records that name none (`partitioner.class`).
///
/// Runs in the task that calls `send`, once for each such record, after the serializers; several tasks may be in it
/// at once. One that panics, or names a partition that the topic does not have, fails that `send` with
/// [`SendError::Partitioner`](crate::SendError::Partitioner) and nothing else.
pub trait Partitioner: Send + Sync + 'static {
    /// Says where the record goes.
    fn partition(&self, record: &Unplaced<'_>) -> Placement;
}

/// What a [`Partitioner`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// To the partition with this index.
    Partition(i32),
    /// Where records without a key go: one partition until it has had `batch.size` bytes, then another. With
    /// `partitioner.adaptive.partitioning.enable` those are preferred that have few batches waiting.
    Sticky,
    /// To any partition that has a leader, drawn for this record alone. Makes small batches; see [`Self::Sticky`].
    Random,
}

/// A record that a [`Partitioner`] is to find a partition for.
#[derive(Clone)]
pub struct Unplaced<'a> {
    topic: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    partitions: i32,
    available: Available<'a>,
}

/// How to learn which partitions have a leader.
#[derive(Clone)]
pub(crate) enum Available<'a> {
    All,
    Listed(Arc<[i32]>),
    Ask(&'a dyn Fn() -> Arc<[i32]>),
}

impl<'a> Unplaced<'a> {
    /// A record of a topic with so many partitions, all of them with a leader; for tests of partitioners.
    pub fn new(topic: &'a str, partitions: i32) -> Self {
        Self { topic, key: None, value: None, partitions, available: Available::All }
    }

    /// Gives it a serialized key.
    #[must_use]
    pub fn with_key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// Gives it a serialized value.
    #[must_use]
    pub fn with_value(mut self, value: &'a [u8]) -> Self {
        self.value = Some(value);
        self
    }

    /// Says which partitions have a leader.
    #[must_use]
    pub fn with_available(mut self, partitions: impl IntoIterator<Item = i32>) -> Self {
        self.available = Available::Listed(partitions.into_iter().collect());
        self
    }

    pub(crate) fn of(
        topic: &'a str,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        partitions: i32,
        available: &'a dyn Fn() -> Arc<[i32]>,
    ) -> Self {
        Self { topic, key, value, partitions, available: Available::Ask(available) }
    }

    /// Name of the topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The serialized key; `None` is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The serialized value; `None` is null.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Number of partitions, at least 1.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// The partitions that have a leader, in ascending order: those that records can be sent to at once. Costs a
    /// look at the metadata, and a new list only when they have changed.
    pub fn available(&self) -> Arc<[i32]> {
        match &self.available {
            Available::All => (0..self.partitions).collect(),
            Available::Listed(listed) => listed.clone(),
            Available::Ask(ask) => ask(),
        }
    }
}

impl fmt::Debug for Unplaced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unplaced")
            .field("topic", &self.topic)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("value_bytes", &self.value.map(<[u8]>::len))
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

/// What a [`Partitioner`] did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionerError {
    /// It named a partition that the topic does not have.
    #[error("named partition {partition} of {partitions}; it must be at least 0 and less than that")]
    NoSuchPartition {
        /// What it named.
        partition: i32,
        /// Partitions there are.
        partitions: i32,
    },
    /// It panicked.
    #[error("panicked: {message}")]
    Panicked {
        /// What the panic said, if that was text.
        message: String,
    },
}
