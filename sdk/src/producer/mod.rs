//! Sends records.

#![allow(unused_variables, missing_docs)] // until the bodies land

mod error;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use klamm_wire::{Compression, Connector};

use crate::error::ConfigError;
use crate::interceptor::Interceptor;
use crate::record::Record;
use crate::serializer::Serializer;

pub use error::{SendError, TrySendError};

/// Where a record ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition index.
    pub partition: i32,
    /// Offset in the partition; unknown with `acks=0`, or when a retry found the record already written.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch, as stored by the broker.
    pub timestamp: i64,
}

/// The acknowledgement of one accepted record. Dropping it does not cancel the record.
#[derive(Debug)]
pub struct Delivery(());

impl Future for Delivery {
    type Output = Result<RecordMetadata, SendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        unimplemented!()
    }
}

/// How many replicas must hold a record before the broker answers (`acks`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acks {
    /// Do not wait; the offset of the record stays unknown.
    None,
    /// The leader only.
    Leader,
    /// Every in-sync replica. Required for idempotence.
    #[default]
    All,
}

/// Sends records. Clones share one sender task, one buffer and one set of connections.
#[derive(Debug)]
pub struct Producer<K = Bytes, V = Bytes> {
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for Producer<K, V> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

/// Settings of a [`Producer`], named after Kafka's properties.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProducerBuilder<K = Bytes, V = Bytes> {
    types: PhantomData<fn() -> (K, V)>,
}

impl Producer {
    /// Starts with Kafka's defaults.
    pub fn builder() -> ProducerBuilder {
        unimplemented!()
    }
}

impl<K, V> ProducerBuilder<K, V> {
    pub fn bootstrap_servers(self, list: impl Into<String>) -> Self {
        unimplemented!()
    }
    pub fn connector(self, connector: impl Connector) -> Self {
        unimplemented!()
    }
    pub fn client_id(self, id: impl Into<String>) -> Self {
        unimplemented!()
    }
    pub fn acks(self, acks: Acks) -> Self {
        unimplemented!()
    }
    pub fn enable_idempotence(self, on: bool) -> Self {
        unimplemented!()
    }
    pub fn batch_size(self, bytes: usize) -> Self {
        unimplemented!()
    }
    pub fn linger(self, linger: Duration) -> Self {
        unimplemented!()
    }
    pub fn buffer_memory(self, bytes: usize) -> Self {
        unimplemented!()
    }
    pub fn max_block(self, limit: Duration) -> Self {
        unimplemented!()
    }
    pub fn max_request_size(self, bytes: usize) -> Self {
        unimplemented!()
    }
    pub fn max_in_flight_requests_per_connection(self, n: usize) -> Self {
        unimplemented!()
    }
    pub fn retries(self, n: u32) -> Self {
        unimplemented!()
    }
    pub fn request_timeout(self, limit: Duration) -> Self {
        unimplemented!()
    }
    pub fn delivery_timeout(self, limit: Duration) -> Self {
        unimplemented!()
    }
    pub fn compression_type(self, compression: Compression) -> Self {
        unimplemented!()
    }
    pub fn key_serializer<T>(self, serializer: impl Serializer<T>) -> ProducerBuilder<T, V> {
        unimplemented!()
    }
    pub fn value_serializer<T>(self, serializer: impl Serializer<T>) -> ProducerBuilder<K, T> {
        unimplemented!()
    }
    /// Adds an interceptor behind the others. Call it after the serializers are chosen.
    pub fn interceptor(self, interceptor: impl Interceptor<K, V>) -> Self {
        unimplemented!()
    }
    /// Checks the settings; starts the sender task. Connects in the background.
    pub fn build(self) -> Result<Producer<K, V>, ConfigError> {
        unimplemented!()
    }
}

impl<K, V> Producer<K, V> {
    /// Returns when the record is accepted.
    pub async fn send(&self, record: Record<K, V>) -> Result<Delivery, SendError> {
        unimplemented!()
    }
    /// Accepts the record at once, or gives it back.
    pub fn try_send(&self, record: Record<K, V>) -> Result<Delivery, TrySendError<K, V>> {
        unimplemented!()
    }
    /// Returns when the record is acknowledged.
    pub async fn send_and_wait(&self, record: Record<K, V>) -> Result<RecordMetadata, SendError> {
        unimplemented!()
    }
    /// Returns when everything accepted before is acknowledged or failed.
    pub async fn flush(&self) {
        unimplemented!()
    }
    /// Flushes for at most `timeout`, then fails what is left.
    pub async fn close(self, timeout: Duration) -> Result<(), SendError> {
        unimplemented!()
    }
}
