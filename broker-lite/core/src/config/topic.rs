//! Settings of a topic: its own, over those of the broker, over Kafka's defaults.

use std::borrow::Cow;
use std::collections::BTreeMap;

use klamm_wire::Compression;

use super::key::{Key, Via};
use super::{
    BrokerConfig, ConfigError, ConfigSource, DescribedConfig, Synonym, checked, documentation, find, table,
};

/// Settings in force for one topic.
#[derive(Debug, Clone, Copy)]
pub struct TopicConfig<'a> {
    own: &'a BTreeMap<String, String>,
    broker: &'a BrokerConfig,
}

impl<'a> TopicConfig<'a> {
    /// `own` is what [`Image::configs`](crate::metadata::Image::configs) holds for the topic.
    pub fn new(own: &'a BTreeMap<String, String>, broker: &'a BrokerConfig) -> Self {
        Self { own, broker }
    }

    /// Value in force; `None` if it is null or the name unknown.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let key = find(table::TOPIC, name)?;
        if let Some(own) = self.own.get(name) {
            return Some(Cow::Borrowed(own));
        }
        let inherited = vias(key).find_map(|via| self.inherited(via)).map(|(value, _)| value);
        inherited.or(key.default.map(Cow::Borrowed))
    }

    /// Value in force as a number; `None` if it is null, or not a number.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// Value in force as a truth value; `false` if it is none.
    pub fn boolean(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// `min.insync.replicas`, at least 1.
    pub fn min_insync_replicas(&self) -> usize {
        self.int("min.insync.replicas").and_then(|min| usize::try_from(min).ok()).unwrap_or(1).max(1)
    }

    /// `max.message.bytes`.
    pub fn max_message_bytes(&self) -> usize {
        self.int("max.message.bytes").and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
    }

    /// Whether records are made durable before they count: `flush.messages` is 1. Any other value leaves that to the
    /// operating system, as if it were Kafka's default.
    pub fn sync_before_ack(&self) -> bool {
        self.int("flush.messages") == Some(1)
    }

    /// Codec of every batch and its level (`compression.type`, `compression.gzip.level`, `compression.zstd.level`); `None`
    /// keeps the producer's. There is one lz4 encoder, whatever its level.
    pub fn compression(&self) -> Option<(Compression, Option<i32>)> {
        let level = |name: &str| self.int(name).and_then(|level| i32::try_from(level).ok());
        match self.get("compression.type").as_deref() {
            Some("uncompressed") => Some((Compression::None, None)),
            Some("gzip") => Some((Compression::Gzip, level("compression.gzip.level"))),
            Some("zstd") => Some((Compression::Zstd, level("compression.zstd.level"))),
            Some("lz4") => Some((Compression::Lz4, None)),
            Some("snappy") => Some((Compression::Snappy, None)),
            _ => None,
        }
    }

    /// `unclean.leader.election.enable`.
    pub fn unclean_leader_election(&self) -> bool {
        self.boolean("unclean.leader.election.enable")
    }

    /// Where the value in force comes from.
    pub fn source(&self, name: &str) -> ConfigSource {
        if self.own.contains_key(name) {
            return ConfigSource::DynamicTopic;
        }
        let inherited =
            find(table::TOPIC, name).and_then(|key| vias(key).find_map(|via| self.inherited(via)));
        inherited.map_or(ConfigSource::Default, |(_, source)| source)
    }

    /// All settings of the topic, sorted by name.
    pub fn describe(&self) -> Vec<DescribedConfig> {
        table::TOPIC.iter().map(|key| self.describe_key(key)).collect()
    }

    fn describe_key(&self, key: &'static Key) -> DescribedConfig {
        let own = self.own.get(key.name).map(|value| Synonym {
            name: Cow::Borrowed(key.name),
            value: Some(value.clone()),
            source: ConfigSource::DynamicTopic,
        });
        let inherited = vias(key).next().map(|via| self.broker.synonyms(via.broker)).unwrap_or_default();
        let synonyms: Vec<Synonym> = own.into_iter().chain(inherited).collect();
        DescribedConfig {
            name: Cow::Borrowed(key.name),
            value: self.get(key.name).map(Cow::into_owned),
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            kind: Some(key.kind),
            read_only: false,
            sensitive: key.sensitive(),
            synonyms,
            documentation: Some(documentation("topic", key.name)),
        }
    }

    fn inherited(&self, via: &Via) -> Option<(Cow<'a, str>, ConfigSource)> {
        let (value, source) = self.broker.fallback(via.broker)?;
        if via.times == 1 {
            return Some((Cow::Borrowed(value), source));
        }
        // Kafka takes any negative time as "no limit"
        let times = value.parse::<i64>().ok()?.saturating_mul(via.times).max(-1);
        Some((Cow::Owned(times.to_string()), source))
    }
}

fn vias(key: &Key) -> impl Iterator<Item = &'static Via> {
    table::SYNONYMS.iter().find(|(topic, _)| *topic == key.name).into_iter().flat_map(|(_, vias)| vias.iter())
}

/// Checks one topic-level setting, as CreateTopics gives it; returns the value to keep.
///
/// # Errors
///
/// As [`BrokerConfig::set`].
pub fn check_topic_config<'v>(name: &str, value: &'v str) -> Result<&'v str, ConfigError> {
    checked(table::TOPIC, name, value).map(|(_, value)| value)
}
