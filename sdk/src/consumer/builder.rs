//! Describing a consumer, and checking what was described.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_core::assign::Assignor;
use klamm_core::backoff::Backoff;
use klamm_core::consumer::{FetchSettings, Fetcher, Isolation, OffsetReset};
use klamm_wire::{BoxConnector, Connector};

use super::Consumer;
use super::decode::{Decoder, PoisonPolicy, Reads};
use super::drive::drive;
use super::group::{Group, GroupConfig};
use super::intercept::{Chain, ConsumerInterceptor, Teller};
use super::shared::{ReadSettings, Shared};
use super::strategy::AssignmentStrategy;
use crate::client::{Client, ClientBuilder};
use crate::config::{ClientSettings, HasClient, Kind, Property, apply, client_settings, iso_8601, property};
use crate::deserializer::{Deserializer, Plain};
use crate::error::ConfigError;

#[cfg(test)]
mod tests;

/// Describes a [`Consumer`]. Methods carry Kafka's property names.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ConsumerBuilder<K = Bytes, V = Bytes> {
    options: Options,
    connector: Option<BoxConnector>,
    key_deserializer: Reads<K>,
    value_deserializer: Reads<V>,
    interceptors: Chain<K, V>,
}

impl<K, V> fmt::Debug for ConsumerBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Options {
    client: ClientSettings,
    min_bytes: usize,
    max_wait: Duration,
    max_bytes: usize,
    max_partition_bytes: usize,
    prefetch_bytes: usize,
    reset: OffsetReset,
    isolation: Isolation,
    check_crcs: bool,
    decompressed_batch_max_bytes: usize,
    allow_auto_create: bool,
    max_poll_records: usize,
    poison: PoisonPolicy,
    group_id: Option<String>,
    instance_id: Option<String>,
    session: Duration,
    heartbeat: Duration,
    max_poll: Duration,
    auto_commit: bool,
    auto_commit_interval: Duration,
    strategies: Vec<AssignmentStrategy>,
    rack: Option<String>,
    exclude_internal: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client: ClientSettings::default(),
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            max_bytes: 52_428_800,
            max_partition_bytes: 1_048_576,
            prefetch_bytes: 67_108_864,
            reset: OffsetReset::Latest,
            isolation: Isolation::ReadUncommitted,
            check_crcs: true,
            decompressed_batch_max_bytes: 134_217_728,
            allow_auto_create: true,
            max_poll_records: 500,
            poison: PoisonPolicy::Fail,
            group_id: None,
            instance_id: None,
            session: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
            max_poll: Duration::from_secs(300),
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            strategies: vec![AssignmentStrategy::Range, AssignmentStrategy::CooperativeSticky],
            rack: None,
            exclude_internal: true,
        }
    }
}

impl HasClient for Options {
    fn client(&mut self) -> &mut ClientSettings {
        &mut self.client
    }
}

const RESETS: &[(&str, OffsetReset)] =
    &[("earliest", OffsetReset::Earliest), ("latest", OffsetReset::Latest), ("none", OffsetReset::None)];

const ISOLATIONS: &[(&str, Isolation)] =
    &[("read_uncommitted", Isolation::ReadUncommitted), ("read_committed", Isolation::ReadCommitted)];

const PROPERTIES: &[Property<Options>] = &[
    property("fetch.min.bytes", |o, v| v.bytes(0).map(|bytes| o.min_bytes = bytes)),
    property("fetch.max.wait.ms", |o, v| {
        v.number(0..=i32::MAX as u64).map(|ms| o.max_wait = Duration::from_millis(ms))
    }),
    property("fetch.max.bytes", |o, v| v.bytes(0).map(|bytes| o.max_bytes = bytes)),
    property("max.partition.fetch.bytes", |o, v| v.bytes(0).map(|bytes| o.max_partition_bytes = bytes)),
    property("auto.offset.reset", |o, v| match v.text().strip_prefix("by_duration:") {
        Some(text) => {
            let must = || v.must_be("by_duration: and a duration of ISO 8601, for example by_duration:PT1H");
            iso_8601(text).ok_or_else(must).map(|ago| o.reset = OffsetReset::ByDuration(ago))
        }
        None => v.one_of(RESETS).map(|reset| o.reset = reset),
    }),
    property("isolation.level", |o, v| v.one_of(ISOLATIONS).map(|isolation| o.isolation = isolation)),
    property("check.crcs", |o, v| v.flag().map(|on| o.check_crcs = on)),
    property("allow.auto.create.topics", |o, v| v.flag().map(|on| o.allow_auto_create = on)),
    property("max.poll.records", |o, v| {
        v.number(1..=i32::MAX as usize).map(|count| o.max_poll_records = count)
    }),
    property("group.id", |o, v| {
        o.group_id = Some(v.text().to_owned());
        Ok(())
    }),
    property("group.instance.id", |o, v| {
        o.instance_id = Some(v.text().to_owned());
        Ok(())
    }),
    property("client.rack", |o, v| {
        o.rack = Some(v.text().to_owned()).filter(|rack| !rack.is_empty());
        Ok(())
    }),
    property("exclude.internal.topics", |o, v| v.flag().map(|on| o.exclude_internal = on)),
    property("session.timeout.ms", |o, v| v.millis(1).map(|limit| o.session = limit)),
    property("heartbeat.interval.ms", |o, v| v.millis(1).map(|pause| o.heartbeat = pause)),
    property("max.poll.interval.ms", |o, v| v.millis(1).map(|limit| o.max_poll = limit)),
    property("enable.auto.commit", |o, v| v.flag().map(|on| o.auto_commit = on)),
    property("auto.commit.interval.ms", |o, v| v.millis(1).map(|pause| o.auto_commit_interval = pause)),
    property("partition.assignment.strategy", |o, v| {
        let strategies: Option<Vec<_>> = v.list().map(AssignmentStrategy::parse).collect();
        let known = || {
            v.must_be("a list of range, roundrobin, sticky, cooperative-sticky, or Kafka's classes for them")
        };
        strategies.ok_or_else(known).map(|strategies| o.strategies = strategies)
    }),
];

impl ConsumerBuilder {
    pub(super) fn new() -> Self {
        Self {
            options: Options::default(),
            connector: None,
            key_deserializer: Reads::by(Plain),
            value_deserializer: Reads::by(Plain),
            interceptors: Chain::default(),
        }
    }

    pub(super) fn from_properties<N: AsRef<str>, T: AsRef<str>>(
        properties: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Self, ConfigError> {
        let mut builder = Self::new();
        apply(Kind::Consumer, PROPERTIES, &mut builder.options, properties)?;
        Ok(builder)
    }
}

impl<K: 'static, V: 'static> ConsumerBuilder<K, V> {
    client_settings!(options.client);

    /// Reaches the cluster of this client, by its connector and with its settings of connections and metadata. The
    /// connections are the consumer's own: on a shared one, two consumers would wait for each other's long polls.
    pub fn client(mut self, client: &Client) -> Self {
        let origin = client.origin();
        self.options.client = origin.settings.clone();
        self.connector = origin.connector.clone();
        self
    }

    /// Opens connections by something else than TCP, for example a broker in this process.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(connector.erase());
        self
    }

    /// The broker waits until it has so many bytes (`fetch.min.bytes`). Default: 1.
    pub fn fetch_min_bytes(mut self, bytes: usize) -> Self {
        self.options.min_bytes = bytes;
        self
    }

    /// The broker waits at most this long for them (`fetch.max.wait.ms`). Default: 500 ms.
    pub fn fetch_max_wait_ms(mut self, wait: Duration) -> Self {
        self.options.max_wait = wait;
        self
    }

    /// Most bytes of one answer, but one batch always comes whole (`fetch.max.bytes`). Default: 50 MiB.
    pub fn fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.options.max_bytes = bytes;
        self
    }

    /// Most bytes of one partition in one answer, but one batch always comes whole
    /// (`max.partition.fetch.bytes`). Default: 1 MiB.
    pub fn max_partition_fetch_bytes(mut self, bytes: usize) -> Self {
        self.options.max_partition_bytes = bytes;
        self
    }

    /// Bytes that may be fetched ahead, asked for, and held by records that were not dropped yet, together. Not
    /// a property of Kafka. Default: 64 MiB.
    ///
    /// A reader that waits is served even if the records kept by the application use up all of it. Of each partition no more than
    /// two answers of `max.partition.fetch.bytes` are fetched ahead: who reads more slowly than records come gains nothing by
    /// more, and reads them faster out of memory that was used just before.
    pub fn prefetch_max_bytes(mut self, bytes: usize) -> Self {
        self.options.prefetch_bytes = bytes;
        self
    }

    /// What to do when a position does not exist in the log (`auto.offset.reset`; `by_duration:PT1H` is KIP-1106).
    /// A broker that refuses a position is asked again for about two and a half seconds first: it may have been deposed.
    /// Default: [`OffsetReset::Latest`].
    pub fn auto_offset_reset(mut self, policy: OffsetReset) -> Self {
        self.options.reset = policy;
        self
    }

    /// Which records of transactions are seen (`isolation.level`). Default: [`Isolation::ReadUncommitted`].
    pub fn isolation_level(mut self, isolation: Isolation) -> Self {
        self.options.isolation = isolation;
        self
    }

    /// Whether the checksum of each batch is compared with its bytes (`check.crcs`). Default: on.
    pub fn check_crcs(mut self, on: bool) -> Self {
        self.options.check_crcs = on;
        self
    }

    /// Most bytes that one compressed batch may expand to; a larger one is an error, never memory. Not a
    /// property of Kafka. Default: 128 MiB.
    pub fn decompressed_batch_max_bytes(mut self, bytes: usize) -> Self {
        self.options.decompressed_batch_max_bytes = bytes;
        self
    }

    /// Whether assigning a topic that does not exist may create it, if the broker allows that too
    /// (`allow.auto.create.topics`). Default: on.
    pub fn allow_auto_create_topics(mut self, on: bool) -> Self {
        self.options.allow_auto_create = on;
        self
    }

    /// Most records in one item of [`Consumer::batches`] (`max.poll.records`). Default: 500.
    pub fn max_poll_records(mut self, count: usize) -> Self {
        self.options.max_poll_records = count;
        self
    }

    /// The group that [`Consumer::subscribe`] joins (`group.id`). Default: none, then it joins `default` and says so in the log.
    pub fn group_id(mut self, id: impl Into<String>) -> Self {
        self.options.group_id = Some(id.into());
        self
    }

    /// Makes the member static (`group.instance.id`, KIP-345): it does not leave when it is closed, and who comes back with the
    /// same id within `session.timeout.ms` gets the same partitions without a rebalance. Default: none.
    pub fn group_instance_id(mut self, id: impl Into<String>) -> Self {
        self.options.instance_id = Some(id.into());
        self
    }

    /// Where this consumer runs (`client.rack`, as `broker.rack` of the brokers). Brokers with a `replica.selector.class` let it
    /// read from a replica there (KIP-392), and rack-aware assignors give it partitions that have one there (KIP-881).
    /// Default: none.
    pub fn client_rack(mut self, rack: impl Into<String>) -> Self {
        self.options.rack = Some(rack.into()).filter(|rack| !rack.is_empty());
        self
    }

    /// Whether patterns leave out Kafka's own topics, as `__consumer_offsets` (`exclude.internal.topics`). By name they can be
    /// subscribed to either way. Default: on.
    pub fn exclude_internal_topics(mut self, on: bool) -> Self {
        self.options.exclude_internal = on;
        self
    }

    /// How the group's partitions are shared out, the preferred one first (`partition.assignment.strategy`). To change over to
    /// another, offer both until all members do. Default: range, then cooperative-sticky.
    pub fn partition_assignment_strategy(
        mut self,
        strategies: impl IntoIterator<Item = AssignmentStrategy>,
    ) -> Self {
        self.options.strategies = strategies.into_iter().collect();
        self
    }

    /// How long the coordinator waits for a heartbeat before others get the partitions (`session.timeout.ms`).
    /// Default: 45 s.
    pub fn session_timeout_ms(mut self, limit: Duration) -> Self {
        self.options.session = limit;
        self
    }

    /// Time between heartbeats, which also tell of rebalances (`heartbeat.interval.ms`). Default: 3 s.
    pub fn heartbeat_interval_ms(mut self, pause: Duration) -> Self {
        self.options.heartbeat = pause;
        self
    }

    /// How long the application may take between two calls for records before others get the partitions, and a listener before
    /// it is given up (`max.poll.interval.ms`). Default: 5 min.
    pub fn max_poll_interval_ms(mut self, limit: Duration) -> Self {
        self.options.max_poll = limit;
        self
    }

    /// Whether positions are committed by themselves (`enable.auto.commit`): of records that were handed out *and* are done,
    /// because the application asked for more. Default: on.
    pub fn enable_auto_commit(mut self, on: bool) -> Self {
        self.options.auto_commit = on;
        self
    }

    /// How often (`auto.commit.interval.ms`). Default: 5 s.
    pub fn auto_commit_interval_ms(mut self, pause: Duration) -> Self {
        self.options.auto_commit_interval = pause;
        self
    }

    /// What to do with records that a deserializer refuses. Not a property of Kafka. Default: [`PoisonPolicy::Fail`].
    pub fn poison_policy(mut self, policy: PoisonPolicy) -> Self {
        self.options.poison = policy;
        self
    }

    /// Adds an interceptor behind the others (`interceptor.classes`). Each is shown a record that was cloned before, so that one
    /// that panics leaves no trace.
    pub fn interceptor(mut self, interceptor: impl ConsumerInterceptor<K, V>) -> Self
    where
        K: Clone,
        V: Clone,
    {
        self.interceptors.push(interceptor);
        self
    }

    /// Makes keys of another type. Call it before [`Self::interceptor`]: interceptors added before are dropped, because they
    /// expect the old type.
    pub fn key_deserializer<T: 'static>(self, deserializer: impl Deserializer<T>) -> ConsumerBuilder<T, V> {
        ConsumerBuilder {
            options: self.options,
            connector: self.connector,
            key_deserializer: Reads::by(deserializer),
            value_deserializer: self.value_deserializer,
            interceptors: Chain::default(),
        }
    }

    /// Makes values of another type. Call it before [`Self::interceptor`]: interceptors added before are dropped, because they
    /// expect the old type.
    pub fn value_deserializer<T: 'static>(self, deserializer: impl Deserializer<T>) -> ConsumerBuilder<K, T> {
        ConsumerBuilder {
            options: self.options,
            connector: self.connector,
            key_deserializer: self.key_deserializer,
            value_deserializer: Reads::by(deserializer),
            interceptors: Chain::default(),
        }
    }

    /// Checks the settings and starts the consumer. It connects in the background; nothing is fetched before
    /// something is assigned.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for an impossible setting, and outside of a tokio runtime.
    pub fn build(self) -> Result<Consumer<K, V>, ConfigError> {
        let options = self.options;
        options.check()?;
        let assignors = options.assignors()?;
        // A client of its own: two consumers on one connection would wait for each other's long polls.
        let mut settings = options.client.clone();
        // An answer may hold one batch beyond its limit; it must not be taken for garbage.
        settings.max_response_bytes = settings.max_response_bytes.max(options.max_bytes.saturating_mul(2));
        let client = ClientBuilder { settings, connector: self.connector }.start()?;
        let fetcher = Fetcher::new(options.fetch_settings(), client.rt().rng("consumer"));
        let settings = ReadSettings {
            check_crcs: options.check_crcs,
            decompressed_batch_max_bytes: options.decompressed_batch_max_bytes,
            allow_auto_create: options.allow_auto_create,
            isolation: options.isolation,
            max_poll_records: options.max_poll_records,
        };
        let interceptors = Arc::new(self.interceptors);
        let commits = Teller::new(client.rt(), &interceptors);
        let shared = Arc::new(Shared::new(client, settings, fetcher, commits));
        let task = shared.client.rt().spawn(drive(shared.clone()));
        let group = Group::new(shared.clone(), options.group(), assignors);
        let decoder = Decoder {
            key: self.key_deserializer,
            value: self.value_deserializer,
            poison: options.poison,
            interceptors,
        };
        Ok(Consumer::start(shared, group, task, decoder))
    }
}

impl Options {
    fn check(&self) -> Result<(), ConfigError> {
        let limit = i32::MAX as usize;
        let sizes = [
            ("fetch.min.bytes", self.min_bytes, 0),
            ("fetch.max.bytes", self.max_bytes, 0),
            ("max.partition.fetch.bytes", self.max_partition_bytes, 0),
            ("max.poll.records", self.max_poll_records, 1),
        ];
        for (setting, value, least) in sizes {
            if value < least || value > limit {
                return Err(ConfigError::invalid(setting, value, format!("from {least} to {limit}")));
            }
        }
        if self.max_wait.as_millis() > limit as u128 {
            let value = self.max_wait.as_millis();
            return Err(ConfigError::invalid("fetch.max.wait.ms", value, format!("at most {limit}")));
        }
        for (setting, value) in [
            ("session.timeout.ms", self.session),
            ("heartbeat.interval.ms", self.heartbeat),
            ("max.poll.interval.ms", self.max_poll),
            ("auto.commit.interval.ms", self.auto_commit_interval),
        ] {
            let ms = value.as_millis();
            if ms == 0 || ms > limit as u128 {
                return Err(ConfigError::invalid(setting, ms, format!("from 1 to {limit}")));
            }
        }
        if self.heartbeat >= self.session {
            let below = format!("below session.timeout.ms={}", self.session.as_millis());
            return Err(ConfigError::invalid("heartbeat.interval.ms", self.heartbeat.as_millis(), below));
        }
        if self.group_id.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::invalid("group.id", "", "at least one character"));
        }
        if let Some(id) = self.instance_id.as_ref().filter(|id| !is_instance_id(id)) {
            let must = "1 to 249 letters, digits, '.', '_' and '-', and neither . nor ..";
            return Err(ConfigError::invalid("group.instance.id", id, must));
        }
        for (setting, value) in [
            ("prefetch_max_bytes", self.prefetch_bytes),
            ("decompressed_batch_max_bytes", self.decompressed_batch_max_bytes),
        ] {
            if value == 0 {
                return Err(ConfigError::invalid(setting, value, "at least 1"));
            }
        }
        Ok(())
    }

    fn assignors(&self) -> Result<Vec<Box<dyn Assignor>>, ConfigError> {
        let assignors: Vec<_> = self.strategies.iter().map(AssignmentStrategy::build).collect();
        let names: BTreeSet<&str> = assignors.iter().map(|assignor| assignor.name()).collect();
        if names.is_empty() || names.len() < assignors.len() {
            let value = format!("{:?}", self.strategies);
            return Err(ConfigError::invalid(
                "partition.assignment.strategy",
                value,
                "at least one, each once",
            ));
        }
        Ok(assignors)
    }

    fn group(&self) -> GroupConfig {
        GroupConfig {
            group_id: self.group_id.clone().unwrap_or_else(|| "default".to_owned()),
            named: self.group_id.is_some(),
            instance_id: self.instance_id.clone(),
            session: self.session,
            heartbeat: self.heartbeat,
            max_poll: self.max_poll,
            auto_commit: self.auto_commit.then_some(self.auto_commit_interval),
            rack: self.rack.as_deref().map(Arc::from),
            exclude_internal: self.exclude_internal,
        }
    }

    fn fetch_settings(&self) -> FetchSettings {
        let int = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
        FetchSettings {
            min_bytes: int(self.min_bytes),
            max_wait: self.max_wait,
            max_bytes: int(self.max_bytes),
            max_partition_bytes: int(self.max_partition_bytes),
            isolation: self.isolation,
            reset: self.reset,
            prefetch_bytes: self.prefetch_bytes,
            backoff: Backoff::new(self.client.retry_backoff, self.client.retry_backoff_max),
            locate_limit: self.client.patience(),
            rack: self.rack.clone().unwrap_or_default(),
            replica_limit: self.client.metadata_max_age,
        }
    }
}

/// As Kafka's clients have it: the rule for names of topics.
fn is_instance_id(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&id.len()) && id.bytes().all(legal) && id != "." && id != ".."
}
