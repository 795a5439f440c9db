//! An async Kafka client: producer, consumer and admin over a connector that can be swapped.
//!
//! | for | begin at |
//! |---|---|
//! | sending records | [`Producer`] |
//! | reading partitions | [`Consumer`] |
//! | topics, partitions, settings, brokers, groups | [`Admin`], from [`Client::admin`] |
//! | sharing connections, health checks | [`Client`], [`Client::ready`] |
//! | code that is tested without a broker | [`RecordSink`], [`RecordSource`], and `mock` (a feature) |
//! | which partition a record goes to | [`partitioner`] |
//! | what happens when the network fails | [`fault`] |
//!
//! ```no_run
//! use klamm::{Client, Consumer, Producer, Record, StartOffset};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().bootstrap_servers("localhost:9092").build()?;
//!
//! let producer: Producer = Producer::builder().client(&client).build()?; // acks=all, idempotent
//! let delivery = producer.send(Record::new("orders").key("customer-7").value("3 apples")).await?; // accepted
//! println!("written at offset {:?}", delivery.await?.offset); // acknowledged
//! producer.close(std::time::Duration::from_secs(30)).await?;
//!
//! let consumer: Consumer = Consumer::builder().client(&client).build()?;
//! consumer.assign([(("orders", 0), StartOffset::Beginning)]);
//! let record = consumer.recv().await?;
//! println!("{:?} = {:?}", record.key, record.value); // `None` is null, an empty value is empty
//! # Ok(())
//! # }
//! ```
//!
//! Builder methods carry Kafka's property names in snake case (`buffer.memory` is
//! [`buffer_memory`](ProducerBuilder::buffer_memory)); `from_properties` takes the names as they are. Errors of a
//! call tell by `recovery` what to do next ([`Recovery`]); every future says what dropping it means.
//!
//! In tests, [`connector`](ClientBuilder::connector) takes something else than the network: brokers that answer by
//! script (`mock::MockConnector`), a cluster inside the process whose leaders can be killed (the crate `broker-lite`), or
//! any connector with faults around it ([`fault::FaultLayer`]).
//!
//! Not there yet: TLS, SASL, transactions, the group protocol of KIP-848. Their settings are refused by name.
//!
//! Everything needs a tokio runtime with time and I/O enabled (I/O only for TCP); outside of one, constructors return an
//! error. What happens inside is told through `tracing` only.
//!
//! Features, all off by default: `zstd` adds encoding of that codec (it needs a C compiler; decoding always works);
//! `mock` adds the module `mock`, and the crate mockall with it; `json` adds `Json`, keys and values by serde;
//! `metrics` measures producers through the facade of that name.

mod admin;
mod client;
mod config;
mod connection;
pub mod consumer;
mod conversation;
pub mod deserializer;
mod error;
#[cfg(test)]
mod fake;
pub mod fault;
pub mod interceptor;
#[cfg(feature = "json")]
mod json;
#[cfg(test)]
mod listener;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
#[cfg(feature = "mock")]
pub mod mock;
pub mod partitioner;
pub mod producer;
pub mod record;
#[cfg_attr(not(feature = "mock"), allow(unreachable_pub, reason = "`mock` shows it to users"))]
mod refusal;
mod rt;
pub mod serializer;
mod sink;
mod source;
mod tcp;

pub use admin::{
    Admin, AdminError, BrokerDescription, BrokerError, BrokerResults, ClusterDescription, ConfigEntry,
    ConfigKind, ConfigResource, ConfigResults, ConfigSource, ConfigSynonym, ConfigUpdate, ConfigsError,
    CreatedTopic, DescribeConfigs, Drain, DrainError, DrainProgress, Drained, Elected, Election,
    FeatureError, FeatureLevels, FeatureResults, FeatureUpdate, Features, FinalizedFeature, GroupAdminError,
    GroupDescription, GroupLag, GroupListing, GroupListings, GroupMember, GroupOffset, GroupOffsets,
    GroupResults, GroupState, GroupType, ListGroups, ListedOffset, LogDirDescription, MemberError,
    MemberResults, MembersToRemove, NewPartitions, NewTopic, OffsetSpec, OffsetsOfGroup,
    PartitionDescription, PartitionError, PartitionLag, PartitionResults, ProducerOnPartition,
    QuorumDescription, QuorumNode, QuorumReplica, Reassignment, ReassignmentUnderWay, RecordsBefore,
    ReplicaOnDisk, Results, TopicDescription, TopicError, TopicIdError, TopicIdResults, TopicListing,
    TopicResults, Validate,
};
pub use bytes::Bytes;
pub use client::{Client, ClientBuilder};
pub use config::MetadataRecovery;
pub use consumer::{
    AssignmentStrategy, BatchView, CommitError, CommittedOffset, Consumer, ConsumerBuilder, ConsumerError,
    ConsumerInterceptor, ConsumerRecord, CustomAssignor, FileOffsetStore, FileStoreError, GroupError,
    Isolation, OffsetReset, OffsetStore, OffsetStoreError, PartitionStream, PatternError, PoisonPolicy,
    RebalanceContext, RebalanceListener, RebalanceReason, RecordHeader, RecordView, StartOffset,
    StoredOffset, StoredOffsets, Watermarks,
};
pub use deserializer::Deserializer;
pub use error::{ClientError, ConfigError, MetadataError, Recovery, RequestError};
pub use interceptor::{Extensions, Interceptor, Refusal};
#[cfg(feature = "json")]
pub use json::Json;
pub use klamm_core::TopicPartition;
pub use klamm_core::assign;
pub use klamm_wire::messages::ApiKey;
pub use klamm_wire::{BoxConnector, Compression, Connector, Endpoint, ErrorCode, Frame, Link, LinkError};
pub use partitioner::Partitioner;
pub use producer::{
    Acks, Callback, Delivery, PendingDelivery, Producer, ProducerBuilder, RecordMetadata, SendError,
    TrySendError,
};
pub use record::{Headers, Record};
pub use serializer::{Plain, SerializeError, Serializer};
pub use sink::RecordSink;
pub use source::{Offsets, RecordSource};
pub use tcp::TcpConnector;
pub use uuid::Uuid;
