//! One client of one cluster: connections, metadata, requests.
#![allow(dead_code)]

mod builder;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use klamm_core::Tick;
use klamm_core::metadata::{ClusterMetadata, TopicMetadata};
use klamm_wire::negotiation::VersionTable;
use klamm_wire::{Frame, Request};
use tokio::sync::futures::Notified;

use crate::admin::Admin;
use crate::config::ClientSettings;
use crate::error::{ClientError, MetadataError, RequestError};
use crate::rt::Rt;

pub use builder::ClientBuilder;

/// Which broker a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// This broker.
    Broker(i32),
    /// Any broker, connected ones first.
    Any,
    /// The broker that Metadata names as controller, else any.
    Controller,
}

/// Which of the connections to one broker. A broker answers one connection in order, so a long poll has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Everything that is answered soon.
    Main,
    /// Fetch.
    Fetch,
}

/// A connection to a Kafka cluster, shared by producers, consumers and admin clients.
///
/// Cheap to clone. Dropping the last clone closes its connections and ends its tasks.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {}

impl Client {
    /// Starts to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A builder filled from Kafka properties, for example `[("bootstrap.servers", "localhost:9092")]`.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`](crate::ConfigError) for an impossible value or an unknown name.
    pub fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<ClientBuilder, crate::ConfigError> {
        let _ = properties;
        unimplemented!()
    }

    /// Waits until a broker has answered, at most `timeout`.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::NotReached`] naming each address that was tried and what happened there.
    pub async fn ready(&self, timeout: Duration) -> Result<(), ClientError> {
        let _ = timeout;
        unimplemented!()
    }

    /// Administration over this client.
    pub fn admin(&self) -> Admin {
        unimplemented!()
    }

    /// The runtime's time, chance and tasks.
    pub(crate) fn rt(&self) -> &Rt {
        unimplemented!()
    }

    /// The shared settings.
    pub(crate) fn settings(&self) -> &ClientSettings {
        unimplemented!()
    }

    /// Sends one request and waits for its answer, at most `request.timeout.ms`.
    ///
    /// Connects if need be, picks the version, encodes, decodes. Never sends twice.
    pub(crate) async fn call<R: Request>(
        &self,
        to: Target,
        lane: Lane,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        let _ = (to, lane, request);
        unimplemented!()
    }

    /// Like [`Self::call`], waiting at most `limit` instead of `request.timeout.ms`.
    pub(crate) async fn call_within<R: Request>(
        &self,
        to: Target,
        lane: Lane,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, RequestError> {
        let _ = (to, lane, request, limit);
        unimplemented!()
    }

    /// Sends an encoded request; the order of calls of this function is the order at the broker.
    ///
    /// The frame is on its way (or queued behind a connection being made) when this returns, not only when the
    /// future is polled. The answer is awaited at most `request.timeout.ms`; a connection whose answer is late
    /// is closed, because everything behind it would be late too.
    pub(crate) fn send_frame(
        &self,
        broker: i32,
        lane: Lane,
        frame: Frame,
    ) -> impl Future<Output = Result<Frame, RequestError>> + Send + 'static {
        let _ = (broker, lane, frame);
        async { unimplemented!() }
    }

    /// The version of an api to use with a broker; `None` before the first connection, or if there is none.
    pub(crate) fn version(&self, broker: i32, api_key: i16) -> Option<i16> {
        let _ = (broker, api_key);
        unimplemented!()
    }

    /// Connects to a broker if need be and returns what it speaks. Waits at most `request.timeout.ms`.
    pub(crate) async fn connected(&self, broker: i32, lane: Lane) -> Result<Arc<VersionTable>, RequestError> {
        let _ = (broker, lane);
        unimplemented!()
    }

    /// `true` if a frame sent now would not wait for a connection.
    pub(crate) fn is_connected(&self, broker: i32, lane: Lane) -> bool {
        let _ = (broker, lane);
        unimplemented!()
    }

    /// The current snapshot. Looking does not keep a topic from being dropped after `metadata.max.idle.ms`;
    /// [`Self::topic`] and [`Self::cached_topic`] do.
    pub(crate) fn metadata(&self) -> Arc<ClusterMetadata> {
        unimplemented!()
    }

    /// A topic that is known and usable now; marks it as used. Cheap enough for every record.
    pub(crate) fn cached_topic(&self, name: &str) -> Option<Arc<TopicMetadata>> {
        let _ = name;
        unimplemented!()
    }

    /// Waits until a topic is known and usable, at most until `deadline`.
    ///
    /// Topics asked for at the same time share requests. `allow_auto_create` lets the broker create it.
    pub(crate) async fn topic(
        &self,
        name: &str,
        allow_auto_create: bool,
        deadline: Tick,
    ) -> Result<Arc<TopicMetadata>, MetadataError> {
        let _ = (name, allow_auto_create, deadline);
        unimplemented!()
    }

    /// Asks for new metadata soon: calls are coalesced and kept `retry.backoff.ms` apart.
    pub(crate) fn request_refresh(&self, why: &'static str) {
        let _ = why;
        unimplemented!()
    }

    /// Resolves at the next snapshot after this call (it counts from the call, not from the first poll).
    pub(crate) fn changed(&self) -> Notified<'_> {
        unimplemented!()
    }

    /// A broker has told the new leader of a partition in an answer (KIP-951). Older epochs are ignored.
    pub(crate) fn apply_leader_hint(&self, topic: &str, partition: i32, leader: i32, leader_epoch: i32) {
        let _ = (topic, partition, leader, leader_epoch);
        unimplemented!()
    }
}
