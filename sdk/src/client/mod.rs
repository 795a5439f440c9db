//! One client of one cluster: connections, metadata, requests.
//!
//! In: requests of producers, consumers and admin clients. Out: answers, and snapshots of the cluster. What to
//! ask for metadata, and when, is decided by `klamm_core::metadata::Refresh`; whom to dial, and when, by
//! `klamm_core::reconnect::Reconnect`.

mod builder;
mod refresh;
mod shared;
pub(crate) mod throttle;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use klamm_core::Tick;
use klamm_core::metadata::{BrokerMetadata, ClusterMetadata, Event, Query, TopicMetadata, TopicPattern};
use klamm_wire::codec::{self, CodecError};
use klamm_wire::messages::MetadataRequest;
use klamm_wire::negotiation::VersionTable;
use klamm_wire::{ErrorCode, Frame, Request};
use tokio::sync::futures::Notified;

use crate::admin::Admin;
use crate::config::{ClientSettings, Kind, apply};
use crate::error::{ClientError, ConfigError, MetadataError, RequestError};
use crate::rt::{Rt, Task};

pub use builder::ClientBuilder;
use shared::Shared;

/// Encodes a request in the version agreed on.
pub(crate) type Encode<'a> = dyn Fn(i16) -> Result<Frame, CodecError> + Sync + 'a;

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
    /// JoinGroup and SyncGroup, which are answered when all members have come.
    Group,
    /// Heartbeats of a group: nothing may hold them up.
    Heartbeat,
}

/// A client of a Kafka cluster, shared by producers, consumers and admin clients.
///
/// Cheap to clone. Dropping the last clone closes its connections and ends its tasks.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    origin: ClientBuilder,
    _refresh: Task,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Client {
    /// Starts to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A builder filled from Kafka properties, for example `[("bootstrap.servers", "localhost:9092")]`.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for the first impossible value, and for the first name that is unknown (with the
    /// nearest known one) or not supported yet.
    pub fn from_properties<K: AsRef<str>, V: AsRef<str>>(
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Result<ClientBuilder, ConfigError> {
        let mut builder = ClientBuilder::default();
        apply(Kind::Client, &[], &mut builder, properties)?;
        Ok(builder)
    }

    fn start(origin: ClientBuilder, shared: Arc<Shared>) -> Self {
        let refresh = shared.rt().spawn(refresh::drive(shared.clone()));
        Self { inner: Arc::new(Inner { shared, origin, _refresh: refresh }) }
    }

    /// The builder this client came from, for another one with connections of its own.
    pub(crate) fn origin(&self) -> &ClientBuilder {
        &self.inner.origin
    }

    /// Waits until a broker answers and the cluster's brokers are known, at most `timeout`; for health checks.
    ///
    /// Asks a broker every time: a client that was ready once need not be ready now.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::NotReached`] naming each address that was tried and what happened there.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; the client goes on trying by itself.
    pub async fn ready(&self, timeout: Duration) -> Result<(), ClientError> {
        let (shared, rt) = (&self.inner.shared, self.rt());
        let started = rt.now();
        let deadline = started.saturating_add(timeout);
        let request = Query { topics: Some(Vec::new()), auto_create: false, of: None }.request();
        let encode = |version| codec::encode_request(version, &request);
        loop {
            let changed = shared.changed();
            if shared.is_closed() {
                return Err(ClientError::Closed);
            }
            let asked = shared.call::<MetadataRequest>(Target::Any, Lane::Main, &encode, deadline).await;
            if asked.is_ok() && !self.metadata().brokers.is_empty() {
                return Ok(());
            }
            let pause = rt.now().saturating_add(shared.settings.retry_backoff).min(deadline);
            rt.before(pause, changed).await;
            if rt.now() >= deadline {
                return Err(ClientError::NotReached { waited: rt.now() - started, causes: shared.causes() });
            }
        }
    }

    /// Administration over this client.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The runtime's time, chance and tasks.
    pub(crate) fn rt(&self) -> &Rt {
        self.inner.shared.rt()
    }

    /// The shared settings.
    pub(crate) fn settings(&self) -> &ClientSettings {
        &self.inner.shared.settings
    }

    /// Sends one request and waits for its answer, at most `request.timeout.ms`.
    ///
    /// Connects if need be, picks the version, encodes, decodes. Never sends twice.
    pub(crate) async fn call<R: Request + Sync>(
        &self,
        to: Target,
        lane: Lane,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        self.call_within(to, lane, request, self.settings().request_timeout).await
    }

    /// Like [`Self::call`], waiting at most `limit` instead of `request.timeout.ms`.
    pub(crate) async fn call_within<R: Request + Sync>(
        &self,
        to: Target,
        lane: Lane,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, RequestError> {
        self.call_encoded::<R>(to, lane, &|version| codec::encode_request(version, request), limit).await
    }

    /// Like [`Self::call_within`], for a request that looks different from version to version.
    pub(crate) async fn call_encoded<R: Request>(
        &self,
        to: Target,
        lane: Lane,
        encode: &Encode<'_>,
        limit: Duration,
    ) -> Result<R::Response, RequestError> {
        let deadline = self.rt().now().saturating_add(limit);
        self.inner.shared.call::<R>(to, lane, encode, deadline).await
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
        let deadline = self.rt().now().saturating_add(self.settings().request_timeout);
        let sent = self.inner.shared.connection(broker, lane).map(|to| to.send(frame, deadline));
        async move { sent?.await }
    }

    /// The version of an api to use with a broker; `None` before the first connection, or if there is none.
    pub(crate) fn version(&self, broker: i32, api_key: i16) -> Option<i16> {
        self.inner.shared.versions(broker)?.pick(api_key).ok()
    }

    /// Connects to a broker if need be and returns what it speaks. Waits at most `request.timeout.ms`.
    pub(crate) async fn connected(&self, broker: i32, lane: Lane) -> Result<Arc<VersionTable>, RequestError> {
        let deadline = self.rt().now().saturating_add(self.settings().request_timeout);
        self.inner.shared.connection(broker, lane)?.connected(deadline).await
    }

    /// `true` if a frame sent now would not wait for a connection.
    pub(crate) fn is_connected(&self, broker: i32, lane: Lane) -> bool {
        self.inner.shared.connection(broker, lane).is_ok_and(|to| to.in_flight().is_some())
    }

    /// A broker asks for a pause: until it is over, [`Self::call`] sends nothing more on that connection.
    ///
    /// Answers to [`Self::call`] are obeyed by themselves; whoever uses [`Self::send_frame`] paces itself.
    pub(crate) fn mute(&self, broker: i32, lane: Lane, pause: Duration) {
        if !pause.is_zero()
            && let Ok(connection) = self.inner.shared.connection(broker, lane)
        {
            connection.mute(pause);
        }
    }

    /// Until when a broker has asked for silence on a connection, if that is not over.
    pub(crate) fn muted_until(&self, broker: i32, lane: Lane) -> Option<Tick> {
        self.inner.shared.known(broker, lane)?.muted_until()
    }

    /// The current snapshot. Looking does not keep a topic from being dropped after `metadata.max.idle.ms`;
    /// [`Self::topic`] and [`Self::cached_topic`] do.
    pub(crate) fn metadata(&self) -> Arc<ClusterMetadata> {
        self.inner.shared.snapshot()
    }

    /// A topic that is known and usable now; marks it as used. Cheap enough for every record.
    pub(crate) fn cached_topic(&self, name: &str) -> Option<Arc<TopicMetadata>> {
        self.inner.shared.cached_topic(name)
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
        let (shared, rt) = (&self.inner.shared, self.rt());
        if let Some(topic) = shared.cached_topic(name) {
            return Ok(topic);
        }
        let started = rt.now();
        let topic = || name.to_owned();
        let wanted = || Event::Wanted { topic: name.into(), auto_create: allow_auto_create };
        let mut code = None;
        shared.step(wanted());
        loop {
            let changed = shared.changed();
            if shared.is_closed() {
                return Err(MetadataError::Closed);
            }
            if let Some(usable) = shared.cached_topic(name) {
                return Ok(usable);
            }
            match self.metadata().topics.get(name).map(|topic| topic.error) {
                Some(refused) if !refused.is_ok() && !refused.is_retriable() => {
                    return Err(MetadataError::Topic { topic: topic(), code: refused });
                }
                Some(told) => code = Some(told),
                // Dropped while this task slept: wanted still.
                None => drop(shared.step(wanted())),
            }
            if rt.before(deadline, changed).await.is_none() {
                let waited = rt.now().saturating_sub(started);
                return Err(match code {
                    Some(ErrorCode::NONE) | None => {
                        MetadataError::TimedOut { topic: topic(), waited, causes: shared.causes() }
                    }
                    Some(code) => MetadataError::UnknownTopic { topic: topic(), waited, code },
                });
            }
        }
    }

    /// A topic if it is known and usable now, else `None`; then it is asked for in the background.
    ///
    /// A refusal told before is returned once, and the topic asked for again.
    pub(crate) fn topic_now(
        &self,
        name: &str,
        allow_auto_create: bool,
    ) -> Result<Option<Arc<TopicMetadata>>, MetadataError> {
        let shared = &self.inner.shared;
        if let Some(topic) = shared.cached_topic(name) {
            return Ok(Some(topic));
        }
        let told = self.metadata().topics.get(name).map(|topic| topic.error);
        shared.step(Event::Wanted { topic: name.into(), auto_create: allow_auto_create });
        match told.filter(|code| !code.is_ok() && !code.is_retriable()) {
            Some(code) => Err(MetadataError::Topic { topic: name.to_owned(), code }),
            None => Ok(None),
        }
    }

    /// Finds and keeps all topics that match, now and with every refresh; `None`: no longer. One pattern a client.
    pub(crate) fn follow(&self, pattern: Option<TopicPattern>) {
        self.inner.shared.step(Event::Follow(pattern));
    }

    /// Asks for new metadata soon: calls are coalesced and kept `retry.backoff.ms` apart.
    pub(crate) fn request_refresh(&self, why: &'static str) {
        tracing::debug!(why, "metadata doubted");
        self.inner.shared.step(Event::Doubted);
    }

    /// Resolves at the next snapshot after this call (it counts from the call, not from the first poll).
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.inner.shared.changed()
    }

    /// Brokers that could not be reached lately, by address.
    pub(crate) fn causes(&self) -> Vec<(String, RequestError)> {
        self.inner.shared.causes()
    }

    /// A broker has told the new leader of a partition in an answer, maybe with its address (KIP-951). Older epochs are
    /// ignored.
    pub(crate) fn apply_leader_hint(
        &self,
        topic: &str,
        partition: i32,
        (leader, leader_epoch): (i32, i32),
        endpoint: Option<BrokerMetadata>,
    ) {
        self.inner.shared.step(Event::Leader { topic, partition, leader, leader_epoch, endpoint });
    }
}

#[cfg(test)]
mod tests;
