//! Settings of a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use super::key::Key;
use super::{ConfigError, ConfigSource, DescribedConfig, Synonym, checked, documentation, find, table};

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
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let (key, value) = checked(table::BROKER, name, value)?;
        self.given.insert(key.name, value.to_owned());
        Ok(())
    }

    /// Checks the settings against each other; call it when all are set.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Contradiction`] for the first pair that does not fit.
    pub fn check(&self) -> Result<(), ConfigError> {
        let number = |name| self.int(name).unwrap_or_default();
        if number("broker.heartbeat.interval.ms") > number("broker.session.timeout.ms") / 2 {
            return Err(ConfigError::Contradiction {
                name: "broker.heartbeat.interval.ms",
                reason: "must be at most half of broker.session.timeout.ms".to_owned(),
            });
        }
        if number("replica.fetch.wait.max.ms") > number("replica.lag.time.max.ms") {
            return Err(ConfigError::Contradiction {
                name: "replica.fetch.wait.max.ms",
                reason: "must be at most replica.lag.time.max.ms, or followers leave the ISR for no reason"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Value in force; `None` if it is null or the name unknown.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self.given.get(name) {
            Some(value) => Some(value),
            None => find(table::BROKER, name)?.default,
        }
    }

    /// Whether the property was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Value in force as a number; `None` if it is null, or not a number.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// Value in force as a time, for settings in ms; `None` if it is null, negative, or not a number.
    pub fn millis(&self, name: &str) -> Option<Duration> {
        self.get(name)?.parse().ok().map(Duration::from_millis)
    }

    /// Value in force as a truth value; `false` if it is none.
    pub fn boolean(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// All settings of the broker, sorted by name.
    ///
    /// `dynamic` and `dynamic_default` are what the image holds for this broker and for all brokers.
    pub fn describe(
        &self,
        dynamic: &BTreeMap<String, String>,
        dynamic_default: &BTreeMap<String, String>,
    ) -> Vec<DescribedConfig> {
        table::BROKER.iter().map(|key| self.describe_key(key, dynamic, dynamic_default)).collect()
    }

    fn describe_key(
        &self,
        key: &'static Key,
        dynamic: &BTreeMap<String, String>,
        dynamic_default: &BTreeMap<String, String>,
    ) -> DescribedConfig {
        let places = [
            (dynamic.get(key.name).map(String::as_str), ConfigSource::DynamicBroker),
            (dynamic_default.get(key.name).map(String::as_str), ConfigSource::DynamicDefaultBroker),
            (self.given.get(key.name).map(String::as_str), ConfigSource::StaticBroker),
            (key.default, ConfigSource::Default),
        ];
        let set = places.into_iter().filter_map(|(value, source)| Some((value?, source)));
        let synonyms: Vec<Synonym> = set
            .map(|(value, source)| Synonym {
                name: key.name,
                value: (!key.sensitive()).then(|| value.to_owned()),
                source,
            })
            .collect();
        DescribedConfig {
            name: key.name,
            value: synonyms.first().and_then(|first| first.value.clone()),
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            kind: key.kind,
            read_only: !key.dynamic,
            sensitive: key.sensitive(),
            synonyms,
            documentation: documentation("broker", key.name),
        }
    }

    /// What this broker gives to a topic setting through its setting `name`: value and source; `None` if null.
    pub(super) fn fallback(&self, name: &str) -> Option<(&str, ConfigSource)> {
        match self.given.get(name) {
            Some(value) => Some((value, ConfigSource::StaticBroker)),
            None => Some((find(table::BROKER, name)?.default?, ConfigSource::Default)),
        }
    }
}
