//! Changes of settings while running: which are possible, and what they must look like.

use std::collections::BTreeMap;

use super::key::Key;
use super::{ConfigError, ConfigType, broker, checked, find, support, table};
use crate::metadata::ConfigResource;

/// Whether a setting of this resource type is a list, to which elements can be added.
pub fn is_list(kind: i8, name: &str) -> bool {
    key(kind, name).is_some_and(|key| key.kind == ConfigType::List)
}

/// Kafka's default of a setting of this resource type.
pub fn default_of(kind: i8, name: &str) -> Option<&'static str> {
    key(kind, name)?.default
}

fn key(kind: i8, name: &str) -> Option<&'static Key> {
    match kind {
        ConfigResource::TOPIC => find(table::TOPIC, name),
        ConfigResource::BROKER => broker::find_key(name),
        _ => None,
    }
}

/// Checks a change of a broker's setting while it runs; `None` deletes it. As in Kafka, a name that is not known is taken:
/// it may be a plug-in's.
///
/// # Errors
///
/// [`ConfigError`] if the setting is read at the start only, or the value is not allowed.
pub fn check_broker_change(name: &str, value: Option<&str>) -> Result<(), ConfigError> {
    let Some(key) = broker::find_key(name) else { return Ok(()) };
    if !key.dynamic {
        return Err(ConfigError::Unsupported { name: key.name, reason: "cannot be changed while running" });
    }
    if let Some(reason) = support::refusal(key.name) {
        return Err(ConfigError::Unsupported { name: key.name, reason });
    }
    let Some(value) = value.map(str::trim) else { return Ok(()) };
    let invalid =
        |reason| ConfigError::Invalid { name: name.to_owned(), value: key.shown(value).to_owned(), reason };
    key.check(value).map_err(invalid)
}

/// Checks all settings of a topic, each alone and against each other.
///
/// # Errors
///
/// [`ConfigError`] for the first that is unknown, not allowed, or contradicts another.
pub fn check_topic_configs(configs: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in configs {
        checked(table::TOPIC, name, value)?;
    }
    let number = |name| {
        let value = configs.get(name).map(String::as_str);
        value.or_else(|| find(table::TOPIC, name)?.default)?.parse::<i64>().ok()
    };
    if number("min.compaction.lag.ms") > number("max.compaction.lag.ms") {
        return Err(ConfigError::Contradiction {
            name: "min.compaction.lag.ms",
            reason: "must be at most max.compaction.lag.ms".to_owned(),
        });
    }
    Ok(())
}

/// Checks a list of throttled replicas: `*`, or `PARTITION:BROKER` with commas between them.
pub(super) fn check_throttled_replicas(value: &str) -> Result<(), String> {
    let one = |element: &str| {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        element.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
    };
    if value.is_empty() || value == "*" || value.split(',').all(|element| one(element.trim())) {
        return Ok(());
    }
    Err("must be * or a list of PARTITION:BROKER".to_owned())
}
