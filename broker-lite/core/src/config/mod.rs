//! Settings under Kafka's names: which exist, what they take, and where a value in force comes from.
//!
//! In: names and values as text. Out: checked values, or a [`ConfigError`] that names the setting, the
//! value and what would be right. The names, types, defaults and limits are Kafka 4.3.0's own.

mod broker;
mod change;
mod key;
mod log;
mod support;
mod table;
mod topic;

pub use broker::BrokerConfig;
pub use change::{check_broker_change, check_topic_configs, default_of, is_list};
pub use topic::{TopicConfig, check_topic_config};

use std::borrow::Cow;

use key::Key;

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
    /// Kafka has the setting; broker-lite takes nothing but its default.
    #[error("{name} {reason}")]
    Unsupported {
        /// Name of the setting.
        name: &'static str,
        /// `is not supported yet`, or `is set by broker-lite itself`.
        reason: &'static str,
    },
    /// Two settings contradict each other.
    #[error("{name} {reason}")]
    Contradiction {
        /// Name of the setting to change.
        name: &'static str,
        /// What would be right, with the other one's name.
        reason: String,
    },
}

/// Type of a setting; the codes are those of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// Whole number of 32 bits.
    Int = 3,
    /// Whole number of 16 bits.
    Short = 4,
    /// Whole number of 64 bits.
    Long = 5,
    /// Number with a fraction.
    Double = 6,
    /// Texts with commas between them.
    List = 7,
    /// Name of a Java class.
    Class = 8,
    /// Text that is never shown.
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
    pub name: Cow<'static, str>,
    /// Value there; `None` for null, or hidden.
    pub value: Option<String>,
    /// Which place it is.
    pub source: ConfigSource,
}

/// One setting as DescribeConfigs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Name.
    pub name: Cow<'static, str>,
    /// Value in force; `None` for null, or if sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Type; `None` for a name that Kafka does not know.
    pub kind: Option<ConfigType>,
    /// Cannot be changed while running.
    pub read_only: bool,
    /// The value is never shown.
    pub sensitive: bool,
    /// Where else it could come from; first the one in force.
    pub synonyms: Vec<Synonym>,
    /// Where Kafka documents it; `None` for a name that it does not know.
    pub documentation: Option<String>,
}

/// The setting of that name in a table sorted by name.
fn find(table: &'static [Key], name: &str) -> Option<&'static Key> {
    table.binary_search_by(|key| key.name.cmp(name)).ok().and_then(|at| table.get(at))
}

/// Checks a value for the setting of that name; returns the setting and the trimmed value.
fn checked<'v>(
    table: &'static [Key],
    name: &str,
    value: &'v str,
) -> Result<(&'static Key, &'v str), ConfigError> {
    let value = value.trim();
    let Some(key) = find(table, name) else {
        return Err(ConfigError::Unknown { name: name.to_owned(), nearest: nearest(table, name) });
    };
    key.check(value).map_err(|reason| ConfigError::Invalid {
        name: name.to_owned(),
        value: key.shown(value).to_owned(),
        reason,
    })?;
    match support::refusal(key.name).or_else(|| support::refusal_of_value(key.name, value)) {
        Some(reason) if key.default != Some(value) => {
            Err(ConfigError::Unsupported { name: key.name, reason })
        }
        _ => Ok((key, value)),
    }
}

/// Whether a broker's or topic's setting is taken at this value and shown by DescribeConfigs, but not acted on yet:
/// files are not preallocated by `log.preallocate`, for example. Unknown names and defaults are not meant.
pub fn is_without_effect(name: &str, value: &str) -> bool {
    let key = find(table::BROKER, name).or_else(|| find(table::TOPIC, name));
    let value = value.trim();
    let acted_on = support::ACTED_ON.contains(&name);
    key.is_some_and(|key| key.default != Some(value)) && !acted_on
}

/// The name that was probably meant: the same setting on the other level, or the one spelt most alike.
fn nearest(table: &'static [Key], name: &str) -> Option<&'static str> {
    let twin = table::SYNONYMS.iter().find_map(|(topic, broker)| {
        let first = broker.first().map(|via| via.broker);
        if *topic == name { first } else { broker.iter().any(|via| via.broker == name).then_some(*topic) }
    });
    if let Some(twin) = twin.filter(|twin| find(table, twin).is_some()) {
        return Some(twin);
    }
    let limit = name.len() / 3;
    table
        .iter()
        .map(|key| (strsim::damerau_levenshtein(name, key.name), key.name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Where Kafka documents a setting.
fn documentation(level: &str, name: &str) -> String {
    format!("https://kafka.apache.org/documentation/#{level}configs_{name}")
}

#[cfg(test)]
mod tests;
