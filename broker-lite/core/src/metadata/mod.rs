//! Cluster metadata: the log of records that the controller writes, and the image they add up to.

mod image;
mod log;
mod partition;

pub use image::{
    BrokerRegistration, ConfigResource, Delta, Image, ImageError, Listener, PartitionView, RemovedTopic,
    Topic,
};
pub use log::{LogError, MetadataLog, SingleVoter};
pub use partition::{LeaderRecoveryState, PartitionRegistration};

/// Name of the topic that brokers fetch the metadata records from.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// Id of [`METADATA_TOPIC`].
pub const METADATA_TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(1);

/// One record of the metadata log. (Stand-in until `klamm_wire::metadata_records` lands.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataRecord;
