//! Async Kafka client.

#![allow(clippy::unimplemented)] // until the bodies land

pub mod consumer;
pub mod deserializer;

pub use bytes::Bytes;
pub use consumer::{Consumer, ConsumerError, ConsumerRecord, StartOffset};
pub use deserializer::Deserializer;
pub use klamm_core::TopicPartition;
