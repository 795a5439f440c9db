//! Describing a producer, and checking what was described.

mod presets;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_core::backoff::Backoff;
use klamm_core::producer::{Acks, Settings};
use klamm_wire::{BoxConnector, Compression, CompressionError, Connector};

use crate::client::Client;
use crate::config::{ClientSettings, HasClient, Kind, Property, Value, apply, client_settings, property};
use crate::error::ConfigError;
use crate::interceptor::Interceptor;
use crate::partitioner::{Librdkafka, Partitioner, RoundRobin};
use crate::serializer::{Plain, Serializer};

use super::Producer;
use super::intercept::Member;
use super::place::Placing;
use super::slot::{Packing, Packings};
use super::spread::Spreading;

/// Describes a [`Producer`]. Methods carry Kafka's property names.
///
/// Presets set several of them by one call: [`high_throughput`](Self::high_throughput), [`reliable`](Self::reliable),
/// [`highly_reliable`](Self::highly_reliable), [`ordered`](Self::ordered). Each sets what it names and leaves the rest
/// alone; of two calls that set the same, preset or not, the later one counts.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProducerBuilder<K = Bytes, V = Bytes> {
    options: Options,
    client: Option<Client>,
    connector: Option<BoxConnector>,
    key_serializer: Arc<dyn Serializer<K>>,
    value_serializer: Arc<dyn Serializer<V>>,
    interceptors: Vec<Member<K, V>>,
}

/// What a builder was told; `None` where the default depends on the rest.
#[derive(Debug, Clone)]
struct Options {
    client: ClientSettings,
    acks: Acks,
    /// A preset was asked for that these acks contradict.
    misfit: bool,
    idempotence: Option<bool>,
    batch_size: usize,
    linger: Duration,
    buffer_memory: usize,
    max_block: Option<Duration>,
    /// `block.on.buffer.full`
    block_on_full: Option<bool>,
    max_request_size: usize,
    max_in_flight: usize,
    retries: u32,
    delivery_timeout: Option<Duration>,
    compression: Compression,
    levels: Levels,
    topic_compressions: BTreeMap<String, Compression>,
    ignore_keys: bool,
    partitioner: Option<Chosen>,
    spreading: Spreading,
}

/// A partitioner, and the name of the property that chose it.
#[derive(Clone)]
struct Chosen {
    by: &'static str,
    partitioner: Arc<dyn Partitioner>,
}

/// `compression.*.level`, as given.
#[derive(Debug, Clone, Copy, Default)]
struct Levels {
    gzip: Option<i32>,
    lz4: Option<i32>,
    zstd: Option<i32>,
}

/// What a producer runs on: checked, and free of contradictions.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) core: Settings,
    pub(super) request_timeout: Duration,
    pub(super) batch_size: usize,
    pub(super) buffer_memory: usize,
    pub(super) max_block: Duration,
    pub(super) placing: Placing,
    pub(super) spreading: Spreading,
    pub(super) packings: Packings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client: ClientSettings::default(),
            acks: Acks::All,
            misfit: false,
            idempotence: None,
            batch_size: 16_384,
            linger: Duration::from_millis(5),
            buffer_memory: 33_554_432,
            max_block: None,
            block_on_full: None,
            max_request_size: 1_048_576,
            max_in_flight: 5,
            retries: i32::MAX as u32,
            delivery_timeout: None,
            compression: Compression::None,
            levels: Levels::default(),
            topic_compressions: BTreeMap::new(),
            ignore_keys: false,
            partitioner: None,
            spreading: Spreading { adaptive: true, availability_timeout: Duration::ZERO },
        }
    }
}

impl HasClient for Options {
    fn client(&mut self) -> &mut ClientSettings {
        &mut self.client
    }
}

const CODECS: &[(&str, Compression)] = &[
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

const ACKS: &[(&str, Acks)] =
    &[("all", Acks::All), ("-1", Acks::All), ("1", Acks::Leader), ("0", Acks::None)];

impl Levels {
    /// Codec, what was given, and Kafka's default.
    fn all(self) -> [(Compression, Option<i32>, i32); 3] {
        [
            (Compression::Gzip, self.gzip, -1),
            (Compression::Lz4, self.lz4, 9),
            (Compression::Zstd, self.zstd, 3),
        ]
    }
}

fn level_setting(codec: Compression) -> String {
    format!("compression.{codec}.level")
}

/// Refuses a level that the codec does not have.
fn check_level(codec: Compression, level: i32) -> Result<(), ConfigError> {
    match codec.check_level(Some(level)) {
        Err(CompressionError::Level { allowed, .. }) => {
            Err(ConfigError::invalid(level_setting(codec), level, allowed))
        }
        _ => Ok(()),
    }
}

fn level(codec: Compression, value: &Value<'_>) -> Result<i32, ConfigError> {
    let level = value.number(i32::MIN..=i32::MAX)?;
    check_level(codec, level).map(|()| level)
}

const ROUND_ROBIN: &str = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
const CLASSES: &str = "empty for the default, or org.apache.kafka.clients.producer.RoundRobinPartitioner; \
    other classes cannot be loaded, write a Partitioner and give it to the builder";

const PROPERTIES: &[Property<Options>] = &[
    property("acks", |o, v| v.one_of(ACKS).map(|acks| o.acks = acks)),
    property("enable.idempotence", |o, v| v.flag().map(|on| o.idempotence = Some(on))),
    property("batch.size", |o, v| v.bytes(0).map(|bytes| o.batch_size = bytes)),
    property("linger.ms", |o, v| v.millis(0).map(|linger| o.linger = linger)),
    property("buffer.memory", |o, v| v.number(0..=usize::MAX).map(|bytes| o.buffer_memory = bytes)),
    property("max.block.ms", |o, v| v.millis(0).map(|limit| o.max_block = Some(limit))),
    property("block.on.buffer.full", |o, v| v.flag().map(|on| o.block_on_full = Some(on))),
    property("max.request.size", |o, v| v.bytes(0).map(|bytes| o.max_request_size = bytes)),
    property("max.in.flight.requests.per.connection", |o, v| {
        v.number(1..=i32::MAX as usize).map(|n| o.max_in_flight = n)
    }),
    property("retries", |o, v| v.number(0..=i32::MAX as u32).map(|n| o.retries = n)),
    property("delivery.timeout.ms", |o, v| v.millis(0).map(|limit| o.delivery_timeout = Some(limit))),
    property("compression.type", |o, v| v.one_of(CODECS).map(|codec| o.compression = codec)),
    property("compression.gzip.level", |o, v| level(Compression::Gzip, v).map(|l| o.levels.gzip = Some(l))),
    property("compression.lz4.level", |o, v| level(Compression::Lz4, v).map(|l| o.levels.lz4 = Some(l))),
    property("compression.zstd.level", |o, v| level(Compression::Zstd, v).map(|l| o.levels.zstd = Some(l))),
    property("partitioner.ignore.keys", |o, v| v.flag().map(|on| o.ignore_keys = on)),
    property("partitioner.adaptive.partitioning.enable", |o, v| v.flag().map(|on| o.spreading.adaptive = on)),
    property("partitioner.availability.timeout.ms", |o, v| {
        v.millis(0).map(|limit| o.spreading.availability_timeout = limit)
    }),
    property("partitioner.class", |o, v| match v.text() {
        "" => Ok(()),
        ROUND_ROBIN | "RoundRobinPartitioner" => {
            o.choose(v, "partitioner.class", Arc::new(RoundRobin::new()))
        }
        _ => Err(v.must_be(CLASSES)),
    }),
    property("partitioner", |o, v| {
        let known = Librdkafka::ALL.map(|known| (known.name(), known));
        let known = v.one_of(&known)?;
        o.choose(v, "partitioner", Arc::new(known))
    }),
];

impl ProducerBuilder {
    pub(super) fn new() -> Self {
        Self {
            options: Options::default(),
            client: None,
            connector: None,
            key_serializer: Arc::new(Plain),
            value_serializer: Arc::new(Plain),
            interceptors: Vec::new(),
        }
    }

    pub(super) fn from_properties<N: AsRef<str>, T: AsRef<str>>(
        properties: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Self, ConfigError> {
        let mut builder = Self::new();
        apply(Kind::Producer, PROPERTIES, &mut builder.options, properties)?;
        Ok(builder)
    }
}

impl<K, V> ProducerBuilder<K, V> {
    client_settings!(options.client);

    /// Uses a client that exists already, and its connections, instead of making one of its own; the settings
    /// of connections and metadata given here are then without effect.
    pub fn client(mut self, client: &Client) -> Self {
        self.client = Some(client.clone());
        self
    }

    /// Opens connections by something else than TCP, for example a broker in this process.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(connector.erase());
        self
    }

    /// How many replicas must hold a record before the broker answers (`acks`). Default: [`Acks::All`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.options.acks = acks;
        self.options.misfit = false;
        self
    }

    /// Whether retries leave exactly one copy of each record, in order (`enable.idempotence`). Needs
    /// [`Acks::All`], retries, and at most 5 requests in flight. Default: on; acks or retries that do not allow it turn it
    /// off, more requests in flight are refused.
    pub fn enable_idempotence(mut self, on: bool) -> Self {
        self.options.idempotence = Some(on);
        self
    }

    /// Size at which a batch is full (`batch.size`); 0 makes every record a batch. Default: 16 KiB.
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.options.batch_size = bytes;
        self
    }

    /// Waits up to this long for a batch to fill (`linger.ms`). Default: 5 ms.
    pub fn linger_ms(mut self, linger: Duration) -> Self {
        self.options.linger = linger;
        self
    }

    /// Bytes that all records together may take that are not acknowledged yet (`buffer.memory`).
    /// Default: 32 MiB.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.options.buffer_memory = bytes;
        self
    }

    /// How long `send` may wait for metadata and for room in the buffer, together (`max.block.ms`). With 0, `send`
    /// fails at once where it would wait, as [`try_send`](Producer::try_send) does: also for the first record of a topic,
    /// whose metadata it has only asked for then. Default: 60 s.
    ///
    /// Files for old clients say `block.on.buffer.full=false` where 0 is meant here, and `true` where waiting has no end;
    /// both are understood, if `max.block.ms` is left out.
    pub fn max_block_ms(mut self, limit: Duration) -> Self {
        self.options.max_block = Some(limit);
        self
    }

    /// Largest request, and with it the largest record (`max.request.size`). Default: 1 MiB.
    pub fn max_request_size(mut self, bytes: usize) -> Self {
        self.options.max_request_size = bytes;
        self
    }

    /// Requests that may wait for an answer of one broker (`max.in.flight.requests.per.connection`). Without
    /// idempotence, more than 1 lets a retry change the order. Default: 5.
    pub fn max_in_flight_requests_per_connection(mut self, requests: usize) -> Self {
        self.options.max_in_flight = requests;
        self
    }

    /// How often a batch is sent again (`retries`). Better left alone: `delivery_timeout_ms` bounds retries by
    /// time. Default: 2147483647.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// How long a record may take from being accepted to being acknowledged or failed
    /// (`delivery.timeout.ms`), at least `linger_ms` and `request_timeout_ms` together. Default: 2 minutes.
    pub fn delivery_timeout_ms(mut self, limit: Duration) -> Self {
        self.options.delivery_timeout = Some(limit);
        self
    }

    /// Compresses batches (`compression.type`). Default: [`Compression::None`].
    ///
    /// A batch that is full is compressed by the task that filled it, one whose linger is over on a thread of the runtime's
    /// pool for blocking work (`tokio::task::spawn_blocking`): it waits while the application keeps all of these busy.
    pub fn compression_type(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
        self
    }

    /// Compresses the batches of one topic differently than [`Self::compression_type`] says; levels are those of the
    /// codec. Not a property of Kafka. Default: none differs.
    pub fn topic_compression(mut self, topic: impl Into<String>, compression: Compression) -> Self {
        self.options.topic_compressions.insert(topic.into(), compression);
        self
    }

    /// Level of gzip, 1 (fast) to 9 (small), or -1 for the codec's own (`compression.gzip.level`). Default: -1.
    pub fn compression_gzip_level(mut self, level: i32) -> Self {
        self.options.levels.gzip = Some(level);
        self
    }

    /// Level of lz4 (`compression.lz4.level`). Only 9 is possible, which is Kafka's default and stands for its fast
    /// encoder: the encoder here is of that kind, and has no levels. Default: 9.
    pub fn compression_lz4_level(mut self, level: i32) -> Self {
        self.options.levels.lz4 = Some(level);
        self
    }

    /// Level of zstd, -131072 (fast) to 22 (small) (`compression.zstd.level`). Default: 3.
    pub fn compression_zstd_level(mut self, level: i32) -> Self {
        self.options.levels.zstd = Some(level);
        self
    }

    /// Lets something else than Kafka's default choose the partitions of records that name none
    /// (`partitioner.class`; librdkafka's own by `partitioner`): see [`crate::partitioner`]. Default: murmur2 of the
    /// key as in Java; records without one fill a batch of one partition, then one of another.
    pub fn partitioner_class(mut self, partitioner: impl Partitioner) -> Self {
        self.options.partitioner =
            Some(Chosen { by: "partitioner.class", partitioner: Arc::new(partitioner) });
        self
    }

    /// Whether records without a key prefer partitions that have few batches waiting, so that a slow broker gets
    /// less of them (`partitioner.adaptive.partitioning.enable`, KIP-794). Off, all partitions get as much. Default:
    /// on.
    pub fn partitioner_adaptive_partitioning_enable(mut self, on: bool) -> Self {
        self.options.spreading.adaptive = on;
        self
    }

    /// Leaves partitions out for records without a key whose broker has been taking nothing of what is ready for it
    /// for longer than this, unless all are so; 0 leaves none out (`partitioner.availability.timeout.ms`, KIP-794).
    /// Needs adaptive partitioning. Default: 0.
    pub fn partitioner_availability_timeout_ms(mut self, limit: Duration) -> Self {
        self.options.spreading.availability_timeout = limit;
        self
    }

    /// Spreads records with a key like those without (`partitioner.ignore.keys`). Without effect on a partitioner of
    /// your own. Default: off.
    pub fn partitioner_ignore_keys(mut self, on: bool) -> Self {
        self.options.ignore_keys = on;
        self
    }

    /// Sets how keys become bytes, and with that their type (`key.serializer`). Call it before
    /// [`Self::interceptor`]: interceptors added before are dropped, because they expect the old type.
    pub fn key_serializer<T>(self, serializer: impl Serializer<T>) -> ProducerBuilder<T, V> {
        ProducerBuilder {
            options: self.options,
            client: self.client,
            connector: self.connector,
            key_serializer: Arc::new(serializer),
            value_serializer: self.value_serializer,
            interceptors: Vec::new(),
        }
    }

    /// Sets how values become bytes, and with that their type (`value.serializer`). Call it before
    /// [`Self::interceptor`]: interceptors added before are dropped, because they expect the old type.
    pub fn value_serializer<T>(self, serializer: impl Serializer<T>) -> ProducerBuilder<K, T> {
        ProducerBuilder {
            options: self.options,
            client: self.client,
            connector: self.connector,
            key_serializer: self.key_serializer,
            value_serializer: Arc::new(serializer),
            interceptors: Vec::new(),
        }
    }

    /// Adds an interceptor behind the others (`interceptor.classes`). Each is shown a record that was cloned before, so
    /// that one that panics leaves no trace in it.
    pub fn interceptor(mut self, interceptor: impl Interceptor<K, V>) -> Self
    where
        K: Clone,
        V: Clone,
    {
        self.interceptors.push(Member::new(interceptor));
        self
    }

    /// Checks the settings and starts the sender. Connections are made in the background.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for impossible settings, alone or together, or outside of a tokio runtime.
    pub fn build(self) -> Result<Producer<K, V>, ConfigError>
    where
        K: 'static,
        V: 'static,
    {
        let client = match self.client {
            Some(client) => client,
            None => {
                let mut builder = Client::builder();
                builder.settings = self.options.client.clone();
                builder.connector = self.connector;
                builder.start()?
            }
        };
        let checked = self.options.check(client.settings())?;
        Ok(Producer::start(client, checked, self.key_serializer, self.value_serializer, self.interceptors))
    }
}

impl Options {
    /// Takes a partitioner by name; two properties that name one would leave it to their order which is meant.
    fn choose(
        &mut self,
        value: &Value<'_>,
        by: &'static str,
        partitioner: Arc<dyn Partitioner>,
    ) -> Result<(), ConfigError> {
        if let Some(other) = self.partitioner.as_ref().filter(|chosen| chosen.by != by) {
            return Err(value.must_be(format!("left out, because {} is given, too", other.by)));
        }
        self.partitioner = Some(Chosen { by, partitioner });
        Ok(())
    }

    fn placing(&self) -> Placing {
        match &self.partitioner {
            Some(chosen) => Placing::Custom(chosen.partitioner.clone()),
            None if self.ignore_keys => Placing::Sticky,
            None => Placing::ByKey,
        }
    }

    fn check(&self, client: &ClientSettings) -> Result<Checked, ConfigError> {
        if self.misfit {
            let expected =
                "0 or 1 with high_throughput, which gives up safety for speed; reliable is for all";
            return Err(ConfigError::invalid("acks", "all", expected));
        }
        let acks_all = self.acks == Acks::All;
        if self.idempotence == Some(true) {
            self.check_idempotence()?;
        }
        if self.idempotence.is_none() && self.max_in_flight > 5 {
            let setting = "max.in.flight.requests.per.connection";
            let expected = "at most 5, or else with enable.idempotence=false";
            return Err(ConfigError::invalid(setting, self.max_in_flight, expected));
        }
        if self.max_in_flight == 0 {
            let setting = "max.in.flight.requests.per.connection";
            return Err(ConfigError::invalid(setting, 0, "at least 1"));
        }
        let possible = acks_all && self.retries > 0;
        Ok(Checked {
            core: Settings {
                acks: self.acks,
                idempotent: self.idempotence.unwrap_or(possible),
                linger: self.linger,
                delivery_timeout: self.delivery_timeout(client.request_timeout)?,
                retries: self.retries,
                backoff: Backoff::new(client.retry_backoff, client.retry_backoff_max),
                max_in_flight: self.max_in_flight,
                max_request_bytes: self.max_request_size,
            },
            request_timeout: client.request_timeout,
            batch_size: self.batch_size,
            buffer_memory: self.buffer_memory,
            max_block: self.max_block()?,
            placing: self.placing(),
            spreading: self.spreading,
            packings: self.packings()?,
        })
    }

    /// How the batches of each topic are compressed. A level that has no effect is refused, unless it is Kafka's default.
    fn packings(&self) -> Result<Packings, ConfigError> {
        let default = self.packing("compression.type".into(), self.compression)?;
        let mut by_topic = BTreeMap::new();
        for (topic, compression) in &self.topic_compressions {
            let packing = self.packing(format!("topic_compression({topic})").into(), *compression)?;
            by_topic.insert(topic.clone(), packing);
        }
        let used = by_topic.values().chain([&default]).map(|packing| packing.compression);
        let used: BTreeSet<Compression> = used.collect();
        for (codec, given, kafkas) in self.levels.all() {
            let Some(given) = given.filter(|given| *given != kafkas) else { continue };
            check_level(codec, given)?;
            if !used.contains(&codec) {
                let expected =
                    format!("left out, because nothing is compressed by {codec} (compression.type)");
                return Err(ConfigError::invalid(level_setting(codec), given, expected));
            }
        }
        Ok(Packings { default, by_topic })
    }

    fn packing(&self, setting: Cow<'static, str>, compression: Compression) -> Result<Packing, ConfigError> {
        if compression.check_level(None).is_err() {
            let expected = format!(
                "another codec; for {compression}, build klamm with its feature `{compression}`, which needs a C compiler"
            );
            return Err(ConfigError::invalid(setting, compression, expected));
        }
        let level = self.levels.all().into_iter().find(|(codec, ..)| *codec == compression);
        let level = level.and_then(|(_, given, _)| given);
        level.map_or(Ok(()), |level| check_level(compression, level))?;
        Ok(Packing { compression, level })
    }

    fn check_idempotence(&self) -> Result<(), ConfigError> {
        let wrong = |setting, value: String, expected| Err(ConfigError::invalid(setting, value, expected));
        match self.acks {
            Acks::All => {}
            Acks::Leader => return wrong("acks", "1".into(), "all with enable.idempotence=true"),
            Acks::None => return wrong("acks", "0".into(), "all with enable.idempotence=true"),
        }
        if self.max_in_flight > 5 {
            let setting = "max.in.flight.requests.per.connection";
            return wrong(setting, self.max_in_flight.to_string(), "at most 5 with enable.idempotence=true");
        }
        if self.retries == 0 {
            return wrong("retries", "0".into(), "more than 0 with enable.idempotence=true");
        }
        Ok(())
    }

    fn max_block(&self) -> Result<Duration, ConfigError> {
        match (self.block_on_full, self.max_block) {
            (Some(on), Some(limit)) => {
                let expected = format!("left out, because max.block.ms={} is given, too", limit.as_millis());
                Err(ConfigError::invalid("block.on.buffer.full", on, expected))
            }
            (Some(false), None) => Ok(Duration::ZERO),
            (Some(true), None) => Ok(Duration::MAX),
            (None, limit) => Ok(limit.unwrap_or(Duration::from_secs(60))),
        }
    }

    /// As in Kafka, only a limit that was asked for is refused; the default one gives way.
    fn delivery_timeout(&self, request_timeout: Duration) -> Result<Duration, ConfigError> {
        let least = self.linger.saturating_add(request_timeout);
        match self.delivery_timeout {
            Some(limit) if limit < least => {
                let expected =
                    format!("at least linger.ms and request.timeout.ms together, {}", least.as_millis());
                Err(ConfigError::invalid("delivery.timeout.ms", limit.as_millis(), expected))
            }
            Some(limit) => Ok(limit),
            None => Ok(least.max(Duration::from_secs(120))),
        }
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.by)
    }
}

impl<K, V> fmt::Debug for ProducerBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
