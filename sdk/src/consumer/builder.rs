//! Describing a consumer, and checking what was described.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_core::backoff::Backoff;
use klamm_core::consumer::{FetchSettings, Fetcher, Isolation, OffsetReset};
use klamm_wire::{BoxConnector, Connector};

use super::Consumer;
use super::drive::drive;
use super::shared::{ReadSettings, Shared};
use crate::client::{Client, ClientBuilder};
use crate::config::{ClientSettings, HasClient, Kind, Property, apply, client_settings, property};
use crate::deserializer::{Deserializer, Plain};
use crate::error::ConfigError;

/// Describes a [`Consumer`]. Methods carry Kafka's property names.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ConsumerBuilder<K = Bytes, V = Bytes> {
    options: Options,
    connector: Option<BoxConnector>,
    key_deserializer: Arc<dyn Deserializer<K>>,
    value_deserializer: Arc<dyn Deserializer<V>>,
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
    property("auto.offset.reset", |o, v| v.one_of(RESETS).map(|reset| o.reset = reset)),
    property("isolation.level", |o, v| v.one_of(ISOLATIONS).map(|isolation| o.isolation = isolation)),
    property("check.crcs", |o, v| v.flag().map(|on| o.check_crcs = on)),
    property("allow.auto.create.topics", |o, v| v.flag().map(|on| o.allow_auto_create = on)),
    property("max.poll.records", |o, v| {
        v.number(1..=i32::MAX as usize).map(|count| o.max_poll_records = count)
    }),
];

impl ConsumerBuilder {
    pub(super) fn new() -> Self {
        Self {
            options: Options::default(),
            connector: None,
            key_deserializer: Arc::new(Plain),
            value_deserializer: Arc::new(Plain),
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
    /// A reader that waits is served even if the records kept by the application use up all of it.
    pub fn prefetch_max_bytes(mut self, bytes: usize) -> Self {
        self.options.prefetch_bytes = bytes;
        self
    }

    /// What to do when a position does not exist in the log (`auto.offset.reset`).
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

    /// Makes keys of another type.
    pub fn key_deserializer<T>(self, deserializer: impl Deserializer<T>) -> ConsumerBuilder<T, V> {
        ConsumerBuilder {
            options: self.options,
            connector: self.connector,
            key_deserializer: Arc::new(deserializer),
            value_deserializer: self.value_deserializer,
        }
    }

    /// Makes values of another type.
    pub fn value_deserializer<T>(self, deserializer: impl Deserializer<T>) -> ConsumerBuilder<K, T> {
        ConsumerBuilder {
            options: self.options,
            connector: self.connector,
            key_deserializer: self.key_deserializer,
            value_deserializer: Arc::new(deserializer),
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
        // A client of its own: two consumers on one connection would wait for each other's long polls.
        let mut settings = options.client.clone();
        // An answer may hold one batch beyond its limit; it must not be taken for garbage.
        settings.max_response_bytes = settings.max_response_bytes.max(options.max_bytes.saturating_mul(2));
        let client = ClientBuilder { settings, connector: self.connector }.build()?;
        let fetcher = Fetcher::new(options.fetch_settings(), client.rt().rng("consumer"));
        let settings = ReadSettings {
            check_crcs: options.check_crcs,
            decompressed_batch_max_bytes: options.decompressed_batch_max_bytes,
            allow_auto_create: options.allow_auto_create,
            isolation: options.isolation,
            max_poll_records: options.max_poll_records,
        };
        let shared = Arc::new(Shared::new(client, settings, fetcher));
        let task = shared.client.rt().spawn(drive(shared.clone()));
        Ok(Consumer::start(shared, task, self.key_deserializer, self.value_deserializer))
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
            ("prefetch_max_bytes", self.prefetch_bytes),
            ("decompressed_batch_max_bytes", self.decompressed_batch_max_bytes),
        ] {
            if value == 0 {
                return Err(ConfigError::invalid(setting, value, "at least 1"));
            }
        }
        Ok(())
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
            locate_limit: self.client.api_timeout(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_properties_file_is_read_and_group_settings_are_refused_by_name() {
        let builder = ConsumerBuilder::from_properties([
            ("bootstrap.servers", "localhost:9092"),
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("fetch.max.wait.ms", "20"),
            ("max.partition.fetch.bytes", "1000"),
        ])
        .unwrap();
        assert_eq!(builder.options.reset, OffsetReset::Earliest);
        assert_eq!(builder.options.isolation, Isolation::ReadCommitted);
        assert_eq!(builder.options.max_wait, Duration::from_millis(20));
        assert_eq!(builder.options.max_partition_bytes, 1_000);

        let refused = ConsumerBuilder::from_properties([("group.id", "g")]).unwrap_err().to_string();
        assert!(refused.contains("group.id") && refused.contains("not supported yet"), "{refused}");
        let unknown = ConsumerBuilder::from_properties([("fetch.max.byte", "1")]).unwrap_err().to_string();
        assert!(unknown.contains("fetch.max.bytes"), "{unknown}");
    }

    /// Goal: whoever leaves a setting out gets what Kafka 4.3 would do. The values are those of its definitions.
    #[test]
    fn the_defaults_are_kafkas() {
        let kafkas = [
            ("fetch.min.bytes", "1"),
            ("fetch.max.wait.ms", "500"),
            ("fetch.max.bytes", "52428800"),
            ("max.partition.fetch.bytes", "1048576"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_uncommitted"),
            ("check.crcs", "true"),
            ("allow.auto.create.topics", "true"),
            ("max.poll.records", "500"),
        ];
        let ours = format!("{:?}", Options::default());
        for pair in kafkas {
            let told = ConsumerBuilder::from_properties([pair]).unwrap();
            assert_eq!(format!("{:?}", told.options), ours, "{}", pair.0);
        }
        for property in PROPERTIES {
            assert!(kafkas.iter().any(|(name, _)| *name == property.name), "{} is not listed", property.name);
        }
    }

    #[tokio::test]
    async fn impossible_settings_name_the_setting() {
        let error = ConsumerBuilder::new()
            .bootstrap_servers("localhost:9092")
            .fetch_max_bytes(1 << 40)
            .build()
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("fetch.max.bytes=1099511627776"), "{error}");
        assert!(ConsumerBuilder::new().build().unwrap_err().to_string().contains("bootstrap.servers"));
    }
}
