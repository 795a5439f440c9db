//! Administration: topics, partitions, settings, brokers, records, consumer groups.
//!
//! In: what shall be, or what is asked. Out: one result per thing named. Who is asked, and what may be asked twice, is
//! decided in `call`; each other file knows one family of requests.
//!
//! ```text
//! topics  partitions  reassignments  configs  records  cluster  log_dirs  quorum  features  groups
//!     └────────┴────────────┴───────────┴────────┴────────┴────────┴────────┴────────┴────────┘
//!                            call: attempts within default.api.timeout.ms        drain: reassigns until nothing is left
//! ```

mod call;
mod cluster;
mod configs;
mod drain;
mod error;
mod features;
mod groups;
mod log_dirs;
mod partitions;
mod quorum;
mod reassignments;
mod records;
mod results;
#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;
mod topics;

use std::time::Duration;

pub use cluster::{BrokerDescription, ClusterDescription};
pub use configs::{
    ConfigEntry, ConfigKind, ConfigResource, ConfigSource, ConfigSynonym, ConfigUpdate, DescribeConfigs,
};
pub use drain::{Drain, DrainError, DrainProgress, Drained};
pub use error::{
    AdminError, BrokerError, ConfigsError, FeatureError, GroupAdminError, MemberError, PartitionError,
    TopicError, TopicIdError,
};
pub use features::{FeatureLevels, FeatureUpdate, Features, FinalizedFeature};
pub use groups::{
    GroupDescription, GroupLag, GroupListing, GroupListings, GroupMember, GroupOffset, GroupOffsets,
    GroupState, GroupType, ListGroups, MembersToRemove, OffsetsOfGroup, PartitionLag,
};
pub use log_dirs::{LogDirDescription, ReplicaOnDisk};
pub use partitions::{Elected, Election, NewPartitions};
pub use quorum::{QuorumDescription, QuorumNode, QuorumReplica};
pub use reassignments::{Reassignment, ReassignmentUnderWay};
pub use records::{ListedOffset, OffsetSpec, ProducerOnPartition, RecordsBefore};
pub use results::{
    BrokerResults, ConfigResults, FeatureResults, GroupResults, MemberResults, PartitionResults, Results,
    TopicIdResults, TopicResults,
};
pub use topics::{CreatedTopic, NewTopic, PartitionDescription, TopicDescription, TopicListing};

use crate::client::{Client, ClientBuilder};
use crate::config::{Kind, apply};
use crate::error::ConfigError;

/// Administers a cluster. Cheap to clone; comes from [`Client::admin`].
///
/// # Time, attempts, and what happens twice
///
/// A call ends within `default.api.timeout.ms`, or what [`within`](Self::within) says. Until then it asks again after
/// NOT_CONTROLLER, time-outs and lost connections, `retry.backoff.ms` apart at first. If an answer is lost, nobody
/// knows whether the request was carried out; what can be done twice without harm is asked for again all the same.
/// Where the second answer then says that it is done already (TOPIC_ALREADY_EXISTS, say), that is what you are told,
/// with `maybe_done` set: it was this call, or somebody else. What a repetition could do harm with, deleting a topic
/// by its name or records up to the high watermark, is never repeated; the error says `maybe_written`.
///
/// # Cancel safety
///
/// Of all calls: once sent, a request is carried out even if the future is dropped; only the answer is lost.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    timeout: Option<Duration>,
    validate_only: bool,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, timeout: None, validate_only: false }
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

    /// The same, with another limit for each call than `default.api.timeout.ms`.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// What asks the cluster whether it would do something, without doing it (`validate_only`).
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::NewTopic;
    ///
    /// let orders = NewTopic::reliable("orders").config("retention.ms", "one week");
    /// let refused = admin.validate().create_topics([orders]).await?.all().unwrap_err();
    /// println!("{refused}"); // topic "orders": INVALID_CONFIG (40): Invalid value one week for configuration ...
    /// # Ok(())
    /// # }
    /// ```
    pub fn validate(&self) -> Validate {
        Validate(Self { validate_only: true, ..self.clone() })
    }
}

/// Asks whether the cluster would do something, without doing it; comes from [`Admin::validate`].
///
/// Errors are those of the methods of [`Admin`] that do it.
#[derive(Debug, Clone)]
pub struct Validate(Admin);

impl Validate {
    /// Whether [`Admin::create_topics`] would succeed, and what the topics would be like. Their ids are nil.
    ///
    /// # Errors
    ///
    /// As [`Admin::create_topics`].
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<TopicResults<CreatedTopic>, AdminError> {
        self.0.create_topics(topics).await
    }

    /// Whether [`Admin::create_partitions`] would succeed.
    ///
    /// # Errors
    ///
    /// As [`Admin::create_partitions`].
    pub async fn create_partitions(
        &self,
        partitions: impl IntoIterator<Item = NewPartitions>,
    ) -> Result<TopicResults<()>, AdminError> {
        self.0.create_partitions(partitions).await
    }

    /// Whether [`Admin::alter_configs`] would succeed.
    ///
    /// # Errors
    ///
    /// As [`Admin::alter_configs`].
    pub async fn alter_configs(
        &self,
        updates: impl IntoIterator<Item = ConfigUpdate>,
    ) -> Result<ConfigResults<()>, AdminError> {
        self.0.alter_configs(updates).await
    }

    /// Whether [`Admin::update_features`] would succeed.
    ///
    /// # Errors
    ///
    /// As [`Admin::update_features`].
    pub async fn update_features(
        &self,
        updates: impl IntoIterator<Item = FeatureUpdate>,
    ) -> Result<FeatureResults<()>, AdminError> {
        self.0.update_features(updates).await
    }
}
