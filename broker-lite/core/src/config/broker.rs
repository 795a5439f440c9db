//! Settings of a broker.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::key::{Key, Valid, dynamic};
use super::{
    ConfigError, ConfigSource, ConfigType, DescribedConfig, Synonym, checked, documentation, find, table,
};

/// Places of a broker's settings, the strongest first.
const SOURCES: [ConfigSource; 4] = [
    ConfigSource::DynamicBroker,
    ConfigSource::DynamicDefaultBroker,
    ConfigSource::StaticBroker,
    ConfigSource::Default,
];

/// Settings that exist only while running, sorted by name: Kafka shows them when they are set.
static RUNNING: &[Key] = &[
    dynamic("follower.replication.throttled.rate", ConfigType::Long, None, Valid::AtLeast(0)),
    dynamic("leader.replication.throttled.rate", ConfigType::Long, None, Valid::AtLeast(0)),
    dynamic("replica.alter.log.dirs.io.max.bytes.per.second", ConfigType::Long, None, Valid::AtLeast(0)),
];

/// The setting of that name that a running broker has.
pub(super) fn find_key(name: &str) -> Option<&'static Key> {
    find(table::BROKER, name).or_else(|| find(RUNNING, name))
}

/// Settings of a broker (or of the controller): what was set while running, over what was given at the start, over
/// Kafka's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerConfig {
    given: BTreeMap<&'static str, String>,
    /// Set while running: for this broker, and for all brokers.
    own: BTreeMap<String, String>,
    all: BTreeMap<String, String>,
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

    /// The same settings with those that nobody can choose, as the broker has them: its id, its listeners and the like.
    /// Names that are not known are left out.
    #[must_use]
    pub fn running_with(mut self, own: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let known = own.into_iter().filter(|(name, _)| find(table::BROKER, name).is_some());
        self.given.extend(known);
        self
    }

    /// The same settings under what the metadata hold for this broker (`own`) and for all brokers (`all`). What cannot be
    /// changed while running is left as it is.
    #[must_use]
    pub fn under(&self, own: &BTreeMap<String, String>, all: &BTreeMap<String, String>) -> Self {
        let layer = |configs: &BTreeMap<String, String>| {
            let mut layer = configs.clone();
            layer.retain(|name, _| find_key(name).is_none_or(|key| key.dynamic));
            layer
        };
        Self { given: self.given.clone(), own: layer(own), all: layer(all) }
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
        self.fallback(name).map(|(value, _)| value)
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
    pub fn describe(&self) -> Vec<DescribedConfig> {
        let more = self.own.keys().chain(self.all.keys()).map(String::as_str);
        let names = table::BROKER.iter().map(|key| key.name).chain(more).collect::<BTreeSet<_>>();
        names.into_iter().map(|name| self.describe_one(name, |_| true)).collect()
    }

    /// What was set for all brokers while running, sorted by name.
    pub fn describe_all_brokers(&self) -> Vec<DescribedConfig> {
        let only = |source| source == ConfigSource::DynamicDefaultBroker;
        self.all.keys().map(|name| self.describe_one(name, only)).collect()
    }

    fn describe_one(&self, name: &str, shown: impl Fn(ConfigSource) -> bool) -> DescribedConfig {
        let mut synonyms = self.synonyms(name);
        synonyms.retain(|synonym| shown(synonym.source));
        let key = find_key(name);
        // What Kafka does not know might be a secret.
        let sensitive = key.is_none_or(Key::sensitive);
        DescribedConfig {
            name: owned(key, name),
            value: self.get(name).filter(|_| !sensitive).map(str::to_owned),
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            kind: key.map(|key| key.kind),
            read_only: key.is_none_or(|key| !key.dynamic),
            sensitive,
            synonyms,
            documentation: key.map(|key| documentation("broker", key.name)),
        }
    }

    /// Where the value of a setting could come from: place by place, and in each by each of its names. As in Kafka, those
    /// before the first that has the name itself are not shown.
    pub(super) fn synonyms(&self, name: &str) -> Vec<Synonym> {
        let twins = table::SYNONYMS.iter().find_map(|(_, vias)| {
            vias.first().filter(|first| first.broker == name)?;
            Some(vias.iter().map(|via| via.broker).collect::<Vec<_>>())
        });
        let names = twins.unwrap_or_else(|| vec![name]);
        let found = SOURCES.into_iter().flat_map(|source| {
            names.iter().filter_map(move |name| {
                let (key, value) = (find_key(name), self.value_at(source, name)?);
                let value = Some(value.to_owned()).filter(|_| !key.is_none_or(Key::sensitive));
                Some(Synonym { name: owned(key, name), value, source })
            })
        });
        found.skip_while(|synonym| synonym.name != name).collect()
    }

    /// The value that one place has for a setting.
    fn value_at(&self, source: ConfigSource, name: &str) -> Option<&str> {
        let value = match source {
            ConfigSource::DynamicTopic => None,
            ConfigSource::DynamicBroker => self.own.get(name),
            ConfigSource::DynamicDefaultBroker => self.all.get(name),
            ConfigSource::StaticBroker => self.given.get(name),
            ConfigSource::Default => return find(table::BROKER, name)?.default,
        };
        value.map(String::as_str)
    }

    /// What this broker gives to a topic setting through its setting `name`: value and source; `None` if null.
    pub(super) fn fallback(&self, name: &str) -> Option<(&str, ConfigSource)> {
        SOURCES.into_iter().find_map(|source| Some((self.value_at(source, name)?, source)))
    }
}

fn owned(key: Option<&'static Key>, name: &str) -> Cow<'static, str> {
    key.map_or_else(|| Cow::Owned(name.to_owned()), |key| Cow::Borrowed(key.name))
}
