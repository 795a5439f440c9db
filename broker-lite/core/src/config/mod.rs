//! Settings under Kafka's names: which exist, what they take, and where a value in force comes from.
//!
//! In: names and values as text. Out: checked values, or a [`ConfigError`] that names the setting, the
//! value and what would be right.

use std::collections::BTreeMap;
use std::time::Duration;

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has that name.
    #[error("unknown setting {name:?}{}", .nearest.map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    Unknown {
        /// Name that was given.
        name: String,
        /// Known name that is spelt most alike, if any is near.
        nearest: Option<&'static str>,
    },
    /// The value cannot be taken.
    #[error("invalid value {value:?} for {name}: {reason}")]
    Invalid {
        /// Name of the setting.
        name: String,
        /// Value that was given.
        value: String,
        /// What would be right.
        reason: String,
    },
    /// Kafka has the setting; broker-lite has not what it sets.
    #[error("{name} is not supported yet")]
    Unsupported {
        /// Name of the setting.
        name: String,
    },
}

/// Type of a setting; the codes are those of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ConfigType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

/// Where a value in force comes from; the codes are those of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for the topic.
    DynamicTopic = 1,
    /// Set for the broker while running.
    DynamicBroker = 2,
    /// Set for all brokers while running.
    DynamicDefaultBroker = 3,
    /// Given when the broker started.
    StaticBroker = 4,
    /// Kafka's default.
    Default = 5,
}

/// Another place a value can come from, in falling order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// Name there.
    pub name: &'static str,
    /// Value there; `None` for null, or hidden.
    pub value: Option<String>,
    /// Which place it is.
    pub source: ConfigSource,
}

/// One setting as DescribeConfigs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Name.
    pub name: &'static str,
    /// Value in force; `None` for null, or if sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Type.
    pub kind: ConfigType,
    /// Cannot be changed while running.
    pub read_only: bool,
    /// The value is never shown.
    pub sensitive: bool,
    /// Where else it could come from; first the one in force.
    pub synonyms: Vec<Synonym>,
    /// Where Kafka documents it.
    pub documentation: String,
}

/// Settings of a broker (or of the controller): what was given, over Kafka's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerConfig {
    given: BTreeMap<&'static str, String>,
}

impl BrokerConfig {
    /// Kafka's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one property.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the name is unknown, the value is not valid, or what it asks for is not there yet.
    pub fn set(&mut self, _name: &str, _value: &str) -> Result<(), ConfigError> {
        unimplemented!()
    }

    /// Value in force; `None` if it is null or the name unknown.
    pub fn get(&self, _name: &str) -> Option<&str> {
        unimplemented!()
    }

    /// Whether the property was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Value in force as a number; `None` if it is null, or not a number.
    pub fn int(&self, _name: &str) -> Option<i64> {
        unimplemented!()
    }

    /// Value in force as a time, for settings in ms; `None` if it is null, negative, or not a number.
    pub fn millis(&self, _name: &str) -> Option<Duration> {
        unimplemented!()
    }

    /// Value in force as a truth value; `false` if it is none.
    pub fn boolean(&self, _name: &str) -> bool {
        unimplemented!()
    }

    /// All settings of the broker, sorted by name.
    pub fn describe(
        &self,
        _dynamic: &BTreeMap<String, String>,
        _dynamic_default: &BTreeMap<String, String>,
    ) -> Vec<DescribedConfig> {
        unimplemented!()
    }
}

/// Settings in force for one topic: its own, over those of the broker, over Kafka's defaults.
#[derive(Debug, Clone, Copy)]
pub struct TopicConfig<'a> {
    _own: &'a BTreeMap<String, String>,
    _broker: &'a BrokerConfig,
}

impl<'a> TopicConfig<'a> {
    /// `own` is what [`Image::configs`](crate::metadata::Image::configs) holds for the topic.
    pub fn new(own: &'a BTreeMap<String, String>, broker: &'a BrokerConfig) -> Self {
        Self { _own: own, _broker: broker }
    }

    /// Value in force; `None` if it is null or the name unknown.
    pub fn get(&self, _name: &str) -> Option<String> {
        unimplemented!()
    }

    /// Value in force as a number; `None` if it is null, or not a number.
    pub fn int(&self, _name: &str) -> Option<i64> {
        unimplemented!()
    }

    /// Value in force as a truth value; `false` if it is none.
    pub fn boolean(&self, _name: &str) -> bool {
        unimplemented!()
    }

    /// `min.insync.replicas`.
    pub fn min_insync_replicas(&self) -> usize {
        unimplemented!()
    }

    /// All settings of the topic, sorted by name.
    pub fn describe(&self) -> Vec<DescribedConfig> {
        unimplemented!()
    }
}

/// Checks one topic-level setting, as CreateTopics gives it.
///
/// # Errors
///
/// As [`BrokerConfig::set`].
pub fn check_topic_config(_name: &str, _value: &str) -> Result<(), ConfigError> {
    unimplemented!()
}
