//! Reads records from assigned partitions.

#![allow(unused_variables, missing_docs, clippy::missing_docs_in_private_items)] // until the bodies land

mod record;

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use klamm_core::TopicPartition;
use klamm_wire::Connector;

use crate::deserializer::Deserializer;

pub use record::{ConsumerRecord, RecordHeader, TimestampType};

/// Where to start reading a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// The first record there is.
    Beginning,
    /// The end as it is when asked: only records written later.
    End,
    /// This offset.
    Offset(i64),
    /// The first record whose timestamp (milliseconds since the Unix epoch) is not earlier; the end if there is none.
    Timestamp(i64),
}

/// Why the consumer could not go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// Closed.
    #[error("the consumer is closed")]
    Closed,
}

/// Reads records. Cheap to share by reference: every method takes `&self`.
#[derive(Debug)]
pub struct Consumer<K = Bytes, V = Bytes> {
    types: PhantomData<fn() -> (K, V)>,
}

/// Settings of a [`Consumer`].
#[derive(Debug)]
pub struct ConsumerBuilder<K = Bytes, V = Bytes> {
    types: PhantomData<fn() -> (K, V)>,
}

impl Consumer {
    /// Starts with Kafka's defaults.
    pub fn builder() -> ConsumerBuilder {
        unimplemented!()
    }
}

impl<K, V> ConsumerBuilder<K, V> {
    pub fn bootstrap_servers(self, list: impl Into<String>) -> Self {
        unimplemented!()
    }
    pub fn connector(self, connector: impl Connector) -> Self {
        unimplemented!()
    }
    pub fn client_id(self, id: impl Into<String>) -> Self {
        unimplemented!()
    }
    pub fn key_deserializer<T>(self, d: impl Deserializer<T>) -> ConsumerBuilder<T, V> {
        unimplemented!()
    }
    pub fn value_deserializer<T>(self, d: impl Deserializer<T>) -> ConsumerBuilder<K, T> {
        unimplemented!()
    }
    pub fn build(self) -> Result<Consumer<K, V>, crate::consumer::ConsumerError> {
        unimplemented!()
    }
}

impl<K, V> Consumer<K, V> {
    /// Replaces the assignment.
    pub fn assign<P: Into<TopicPartition>>(&self, partitions: impl IntoIterator<Item = (P, StartOffset)>) {
        unimplemented!()
    }
    /// Stops reading everything.
    pub fn unassign(&self) {
        unimplemented!()
    }
    pub async fn recv(&self) -> Result<ConsumerRecord<K, V>, ConsumerError> {
        unimplemented!()
    }
    pub async fn poll(
        &self,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<ConsumerRecord<K, V>>, ConsumerError> {
        unimplemented!()
    }
    pub fn stream(&self) -> impl Stream<Item = Result<ConsumerRecord<K, V>, ConsumerError>> + Send + '_
    where
        K: Send + 'static,
        V: Send + 'static,
    {
        futures::stream::empty()
    }
    pub fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
        unimplemented!()
    }
    pub async fn position(&self, partition: &TopicPartition) -> Result<i64, ConsumerError> {
        unimplemented!()
    }
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        unimplemented!()
    }
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        unimplemented!()
    }
    pub async fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, i64)>, ConsumerError> {
        unimplemented!()
    }
    pub async fn end_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, i64)>, ConsumerError> {
        unimplemented!()
    }
    pub async fn close(self) -> Result<(), ConsumerError> {
        unimplemented!()
    }
}
