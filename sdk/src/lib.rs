//! Async Kafka client.

mod admin;
mod client;
mod config;
mod connection;
pub mod consumer;
pub mod deserializer;
mod error;
#[cfg(test)]
mod fake;
pub mod interceptor;
pub mod producer;
pub mod record;
mod rt;
pub mod serializer;
mod tcp;

pub use admin::{
    Admin, AdminError, BrokerDescription, ClusterDescription, CreatedTopic, NewTopic, PartitionDescription,
    TopicDescription, TopicError, TopicResults,
};
pub use bytes::Bytes;
pub use client::{Client, ClientBuilder};
pub use config::MetadataRecovery;
pub use consumer::{
    Consumer, ConsumerBuilder, ConsumerError, ConsumerRecord, Isolation, OffsetReset, RecordHeader,
    StartOffset,
};
pub use deserializer::Deserializer;
pub use error::{ClientError, ConfigError, MetadataError, Recovery, RequestError};
pub use interceptor::{Interceptor, Refusal};
pub use klamm_core::TopicPartition;
pub use klamm_wire::{BoxConnector, Compression, Connector, Endpoint, ErrorCode, Frame, Link, LinkError};
pub use producer::{Acks, Delivery, Producer, ProducerBuilder, RecordMetadata, SendError, TrySendError};
pub use record::{Headers, Record};
pub use serializer::{Plain, SerializeError, Serializer};
pub use tcp::TcpConnector;
