//! Cluster metadata: the log of records that the controller writes, and the image they add up to.

mod apply;
mod broker;
mod checkpoint;
mod delta;
mod image;
mod partition;

pub use apply::ImageError;
pub(crate) use apply::{LEADER_UNCHANGED, RECOVERY_UNCHANGED};
pub use broker::{BrokerRegistration, Listener};
pub use checkpoint::Checkpoint;
pub use delta::{Delta, RemovedTopic};
pub use image::{ConfigResource, Image, Topic};
pub use klamm_wire::metadata_records::MetadataRecord;
pub use partition::{LeaderRecoveryState, PartitionRegistration};

/// Name of the topic that brokers fetch the metadata records from.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// Id of [`METADATA_TOPIC`].
pub const METADATA_TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(1);

#[cfg(test)]
mod tests;
