//! Settings of topics, brokers and the like: what they are, where they come from, and how they change.

use std::collections::BTreeMap;
use std::fmt;

use futures::future::join_all;
use klamm_wire::messages::create_topics_response::CreatableTopicConfigs;
use klamm_wire::messages::describe_configs_request::DescribeConfigsResource;
use klamm_wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use klamm_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use klamm_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use klamm_wire::{StrBytes, codec};

use super::Admin;
use super::call::{How, Verdict, text, verdict};
use super::error::{AdminError, Refused};
use super::results::{ConfigResults, Results};
use crate::client::Target;

/// What has settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// One broker, by its id.
    Broker(i32),
    /// All brokers: what the cluster keeps for those that have no value of their own.
    ClusterDefault,
    /// The log levels of one broker, by its id.
    BrokerLogger(i32),
    /// A subscription to the metrics of clients (KIP-714).
    ClientMetrics(String),
    /// A group (KIP-848).
    Group(String),
}

impl ConfigResource {
    /// A topic.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::Topic(name.into())
    }

    fn code(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) | Self::ClusterDefault => 4,
            Self::BrokerLogger(_) => 8,
            Self::ClientMetrics(_) => 16,
            Self::Group(_) => 32,
        }
    }

    fn name(&self) -> StrBytes {
        match self {
            Self::Topic(name) | Self::ClientMetrics(name) | Self::Group(name) => text(name),
            Self::Broker(id) | Self::BrokerLogger(id) => StrBytes::from_string(id.to_string()),
            Self::ClusterDefault => StrBytes::default(),
        }
    }

    fn read(code: i8, name: &str) -> Option<Self> {
        match code {
            2 => Some(Self::Topic(name.to_owned())),
            4 if name.is_empty() => Some(Self::ClusterDefault),
            4 => name.parse().ok().map(Self::Broker),
            8 => name.parse().ok().map(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics(name.to_owned())),
            32 => Some(Self::Group(name.to_owned())),
            _ => None,
        }
    }

    /// What a broker has of its own only that broker knows.
    fn owner(&self) -> Option<i32> {
        match self {
            Self::Broker(id) | Self::BrokerLogger(id) => Some(*id),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name:?}"),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::ClusterDefault => f.write_str("all brokers"),
            Self::BrokerLogger(id) => write!(f, "the loggers of broker {id}"),
            Self::ClientMetrics(name) => write!(f, "client metrics {name:?}"),
            Self::Group(name) => write!(f, "group {name:?}"),
        }
    }
}

/// Where a value comes from; the ones further up win over those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Set for the topic.
    Topic,
    /// Set for the log levels of the broker.
    BrokerLogger,
    /// Set for the subscription to metrics.
    ClientMetrics,
    /// Set for the group.
    Group,
    /// Set for the broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    ClusterDefault,
    /// In the broker's properties file.
    StaticBroker,
    /// Kafka's default.
    Default,
    /// One that this client does not know.
    Unknown(i8),
}

impl From<i8> for ConfigSource {
    fn from(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::Broker,
            3 => Self::ClusterDefault,
            4 => Self::StaticBroker,
            5 => Self::Default,
            6 => Self::BrokerLogger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            code => Self::Unknown(code),
        }
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 16 bits.
    Short,
    /// A whole number of 64 bits.
    Long,
    /// A number.
    Double,
    /// Texts with commas between.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
    /// The broker does not say, or says something that this client does not know.
    Unknown(i8),
}

impl From<i8> for ConfigKind {
    fn from(code: i8) -> Self {
        match code {
            1 => Self::Boolean,
            2 => Self::String,
            3 => Self::Int,
            4 => Self::Short,
            5 => Self::Long,
            6 => Self::Double,
            7 => Self::List,
            8 => Self::Class,
            9 => Self::Password,
            code => Self::Unknown(code),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Kafka's name of it.
    pub name: String,
    /// Its value; `None` if it has none, or if it is sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// `true` if it can only be changed in a properties file, with a restart.
    pub read_only: bool,
    /// `true` if its value is never shown.
    pub sensitive: bool,
    /// How the value is written; known from DescribeConfigs 3 on.
    pub kind: ConfigKind,
    /// Everything that sets it, the winner first, if [asked for](DescribeConfigs::synonyms).
    pub synonyms: Vec<ConfigSynonym>,
    /// What it is for, if [asked for](DescribeConfigs::documentation).
    pub documentation: Option<String>,
}

/// One of the things that set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigSynonym {
    /// The name there: `log.retention.ms` for a topic's `retention.ms`, for example.
    pub name: String,
    /// The value there; `None` if it is sensitive.
    pub value: Option<String>,
    /// What sets it.
    pub source: ConfigSource,
}

impl ConfigEntry {
    pub(super) fn of_created(told: CreatableTopicConfigs) -> Self {
        Self {
            name: told.name.as_str().to_owned(),
            value: told.value.map(|value| value.as_str().to_owned()),
            source: told.config_source.into(),
            read_only: told.read_only,
            sensitive: told.is_sensitive,
            kind: ConfigKind::Unknown(0),
            synonyms: Vec::new(),
            documentation: None,
        }
    }
}

impl From<DescribeConfigsResourceResult> for ConfigEntry {
    fn from(told: DescribeConfigsResourceResult) -> Self {
        let string = |text: StrBytes| text.as_str().to_owned();
        let synonyms = told.synonyms.into_iter().map(|synonym| ConfigSynonym {
            name: string(synonym.name),
            value: synonym.value.map(string),
            source: synonym.source.into(),
        });
        Self {
            name: string(told.name),
            value: told.value.map(string),
            source: told.config_source.into(),
            read_only: told.read_only,
            sensitive: told.is_sensitive,
            kind: told.config_type.into(),
            synonyms: synonyms.collect(),
            documentation: told.documentation.map(string),
        }
    }
}

/// Which settings to describe, and how much of them.
///
/// ```
/// use klamm::{ConfigResource, DescribeConfigs};
///
/// let question = DescribeConfigs::of([ConfigResource::topic("orders"), ConfigResource::Broker(1)]).synonyms();
/// # let _ = question;
/// ```
#[derive(Debug, Clone)]
pub struct DescribeConfigs {
    resources: Vec<ConfigResource>,
    keys: Option<Vec<String>>,
    synonyms: bool,
    documentation: bool,
}

impl DescribeConfigs {
    /// All settings of these.
    pub fn of(resources: impl IntoIterator<Item = ConfigResource>) -> Self {
        let resources = resources.into_iter().collect();
        Self { resources, keys: None, synonyms: false, documentation: false }
    }

    /// Only settings of these names.
    #[must_use]
    pub fn keys<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.keys = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Also everything that sets each of them.
    #[must_use]
    pub fn synonyms(mut self) -> Self {
        self.synonyms = true;
        self
    }

    /// Also what each of them is for.
    #[must_use]
    pub fn documentation(mut self) -> Self {
        self.documentation = true;
        self
    }

    fn request(&self, resources: &[(ConfigResource, ())]) -> DescribeConfigsRequest {
        let keys = self.keys.as_ref().map(|keys| keys.iter().map(|key| text(key)).collect::<Vec<_>>());
        let resource = |(resource, ()): &(ConfigResource, ())| {
            DescribeConfigsResource::default()
                .with_resource_type(resource.code())
                .with_resource_name(resource.name())
                .with_configuration_keys(keys.clone())
        };
        DescribeConfigsRequest::default()
            .with_resources(resources.iter().map(resource).collect())
            .with_include_synonyms(self.synonyms)
            .with_include_documentation(self.documentation)
    }
}

/// Changes to the settings of one resource. What is not named stays as it is.
///
/// ```no_run
/// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
/// use klamm::ConfigUpdate;
///
/// let orders = ConfigUpdate::topic("orders").set("retention.ms", "86400000").reset("max.message.bytes");
/// admin.alter_configs([orders]).await?.all()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ConfigUpdate {
    resource: ConfigResource,
    changes: Vec<AlterableConfig>,
}

impl ConfigUpdate {
    /// Changes of these settings.
    pub fn of(resource: ConfigResource) -> Self {
        Self { resource, changes: Vec::new() }
    }

    /// Changes of the settings of a topic.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::of(ConfigResource::topic(name))
    }

    /// Changes of the settings of one broker.
    pub fn broker(id: i32) -> Self {
        Self::of(ConfigResource::Broker(id))
    }

    /// Gives it this value.
    #[must_use]
    pub fn set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), 0, Some(value.into()))
    }

    /// Takes its value away, so that the next source counts.
    #[must_use]
    pub fn reset(self, name: impl Into<String>) -> Self {
        self.change(name.into(), 1, None)
    }

    /// Adds to a list what is not in it yet.
    #[must_use]
    pub fn append(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), 2, Some(value.into()))
    }

    /// Takes something out of a list.
    #[must_use]
    pub fn subtract(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), 3, Some(value.into()))
    }

    fn change(mut self, name: String, operation: i8, value: Option<String>) -> Self {
        let change = AlterableConfig::default()
            .with_name(StrBytes::from_string(name))
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_string));
        self.changes.push(change);
        self
    }
}

impl Admin {
    /// Describes settings, each resource's in the order of their names.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::{ConfigResource, DescribeConfigs};
    ///
    /// let question = DescribeConfigs::of([ConfigResource::topic("orders")]).keys(["retention.ms"]);
    /// for entry in admin.describe_configs(question).await?.all()?.concat() {
    ///     println!("{} = {:?}, from {:?}", entry.name, entry.value, entry.source);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// DescribeConfigs, api key 32; a broker's settings from that broker, all else from any.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if nobody answers in time. What does not exist, or belongs to a broker that does not
    /// answer, is an error in the results.
    pub async fn describe_configs(
        &self,
        question: DescribeConfigs,
    ) -> Result<ConfigResults<Vec<ConfigEntry>>, AdminError> {
        const DOCUMENTATION: (i16, &str) = (3, "asking for documentation");
        let needs = question.documentation.then_some(DOCUMENTATION);
        let wanted = question.resources.iter().map(|resource| (resource.clone(), ())).collect();
        let told = self.per_owner(wanted, async |how, wanted| {
            let encode = |version, wanted: &[(ConfigResource, ())]| {
                codec::encode_request(version, &question.request(wanted))
            };
            let read = |response: <DescribeConfigsRequest as klamm_wire::Request>::Response| {
                let described = response.results.into_iter().filter_map(|result| {
                    let resource = ConfigResource::read(result.resource_type, &result.resource_name)?;
                    let verdict = verdict(result.error_code, result.error_message.as_ref());
                    let entries = || {
                        let mut entries: Vec<_> = result.configs.into_iter().map(ConfigEntry::from).collect();
                        entries.sort_by(|a, b| a.name.cmp(&b.name));
                        entries
                    };
                    Some((resource, verdict.map(|()| entries())))
                });
                Ok(described.collect())
            };
            let how = How { needs, ..how };
            self.attempts().ask_each::<DescribeConfigsRequest, _, _, _>(&how, wanted, encode, read).await
        });
        Ok(Results::in_order(question.resources.iter().cloned(), &told.await?))
    }

    /// Changes settings; returns when they are changed. Brokers act on it a little later.
    ///
    /// All changes of one resource are made, or none. Asked twice because an answer was lost, it ends as if asked once.
    ///
    /// IncrementalAlterConfigs, api key 44; a broker's settings through that broker, all else through any.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if nobody answers in time. What was refused is an error in the results.
    pub async fn alter_configs(
        &self,
        updates: impl IntoIterator<Item = ConfigUpdate>,
    ) -> Result<ConfigResults<()>, AdminError> {
        let wanted: Vec<_> = updates.into_iter().map(|update| (update.resource, update.changes)).collect();
        let resources: Vec<_> = wanted.iter().map(|(resource, _)| resource.clone()).collect();
        let told = self.per_owner(wanted, async |how, wanted| {
            let encode = |version, wanted: &[(ConfigResource, Vec<AlterableConfig>)]| {
                let resource = |(resource, changes): &(ConfigResource, Vec<AlterableConfig>)| {
                    AlterConfigsResource::default()
                        .with_resource_type(resource.code())
                        .with_resource_name(resource.name())
                        .with_configs(changes.clone())
                };
                let request = IncrementalAlterConfigsRequest::default()
                    .with_resources(wanted.iter().map(resource).collect())
                    .with_validate_only(self.validate_only);
                codec::encode_request(version, &request)
            };
            let read = |response: <IncrementalAlterConfigsRequest as klamm_wire::Request>::Response| {
                let altered = response.responses.into_iter().filter_map(|result| {
                    let resource = ConfigResource::read(result.resource_type, &result.resource_name)?;
                    Some((resource, verdict(result.error_code, result.error_message.as_ref())))
                });
                Ok(altered.collect())
            };
            self.attempts()
                .ask_each::<IncrementalAlterConfigsRequest, _, _, _>(&how, wanted, encode, read)
                .await
        });
        Ok(Results::in_order(resources, &told.await?))
    }

    /// Asks everybody at once who knows of something. Who does not answer fails for itself, unless nobody does.
    async fn per_owner<T, V>(
        &self,
        wanted: Vec<(ConfigResource, T)>,
        ask: impl AsyncFn(
            How,
            Vec<(ConfigResource, T)>,
        ) -> Result<BTreeMap<ConfigResource, Verdict<V>>, AdminError>,
    ) -> Result<BTreeMap<ConfigResource, Verdict<V>>, AdminError> {
        let mut groups: BTreeMap<Option<i32>, Vec<(ConfigResource, T)>> = BTreeMap::new();
        for (resource, what) in wanted {
            groups.entry(resource.owner()).or_default().push((resource, what));
        }
        let asked = groups.into_iter().map(async |(owner, group)| {
            let to = owner.map_or(Target::Any, Target::Broker);
            let resources: Vec<_> = group.iter().map(|(resource, _)| resource.clone()).collect();
            let how = How { to, again: How::controller().again, ..How::any() };
            (resources, ask(how, group).await)
        });
        let mut told = BTreeMap::new();
        let mut failed = None;
        let mut answered = false;
        for (resources, answer) in join_all(asked).await {
            match answer {
                Ok(verdicts) => {
                    answered = true;
                    told.extend(verdicts);
                }
                Err(error) => {
                    let refuse = |resource| (resource, Err(Refused::unanswered(&error)));
                    told.extend(resources.into_iter().map(refuse));
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if !answered => Err(error),
            _ => Ok(told),
        }
    }
}
