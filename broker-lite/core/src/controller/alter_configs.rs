//! IncrementalAlterConfigs (44) and AlterConfigs (33): settings of topics and brokers while they run.
//!
//! Both are checked twice, as in Kafka: the broker that is asked refuses what it knows to be wrong
//! ([`check_at_broker`]), the controller checks the settings that would result and writes them to the log.

use std::collections::BTreeMap;

use klamm_wire::messages::alter_configs_request::AlterConfigsResource as Replacement;
use klamm_wire::messages::alter_configs_response::AlterConfigsResourceResponse as Replaced;
use klamm_wire::messages::incremental_alter_configs_request::AlterConfigsResource as Increment;
use klamm_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Incremented;
use klamm_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use klamm_wire::metadata_records::ConfigRecord;
use klamm_wire::{ErrorCode, StrBytes};

use super::create_topics::repeated;
use super::{Controller, Outcome, Refusal};
use crate::config;
use crate::metadata::ConfigResource;

const MIN_INSYNC: &str = "min.insync.replicas";
const UNCLEAN: &str = "unclean.leader.election.enable";
/// Largest value, as in Kafka.
const MAX_VALUE_BYTES: usize = i16::MAX as usize;

/// What is to be done with one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Operation {
    fn from_code(code: i8) -> Result<Self, Refusal> {
        match code {
            0 => Ok(Self::Set),
            1 => Ok(Self::Delete),
            2 => Ok(Self::Append),
            3 => Ok(Self::Subtract),
            _ => Err(Refusal(ErrorCode::INVALID_REQUEST, format!("operation {code} is not known"))),
        }
    }
}

/// One change of one setting, as either request asks for it.
#[derive(Debug, Clone, Copy)]
struct Change<'a> {
    name: &'a str,
    operation: i8,
    value: Option<&'a str>,
}

/// A resource with its changes.
#[derive(Debug)]
pub struct ResourceChange<'a> {
    kind: i8,
    name: &'a str,
    changes: Vec<Change<'a>>,
    /// Settings that are not named are deleted.
    replaces: bool,
}

impl<'a> From<&'a Increment> for ResourceChange<'a> {
    fn from(resource: &'a Increment) -> Self {
        let changes = resource.configs.iter().map(|config| Change {
            name: &config.name,
            operation: config.config_operation,
            value: config.value.as_deref(),
        });
        let (kind, name) = (resource.resource_type, &*resource.resource_name);
        Self { kind, name, changes: changes.collect(), replaces: false }
    }
}

impl<'a> From<&'a Replacement> for ResourceChange<'a> {
    fn from(resource: &'a Replacement) -> Self {
        let changes = resource.configs.iter().map(|config| Change {
            name: &config.name,
            operation: 0,
            value: config.value.as_deref(),
        });
        let (kind, name) = (resource.resource_type, &*resource.resource_name);
        Self { kind, name, changes: changes.collect(), replaces: true }
    }
}

/// What each resource is refused for by the broker that is asked, `None` where it is for the controller to decide.
pub fn check_at_broker(broker: i32, resources: &[ResourceChange<'_>]) -> Vec<Option<Refusal>> {
    let twice = repeated(resources.iter().map(|resource| (resource.kind, resource.name)));
    let check = |resource: &ResourceChange<'_>| {
        if twice.contains(&(resource.kind, resource.name)) {
            return Err(Refusal::new(ErrorCode::INVALID_REQUEST, "the request names this resource twice"));
        }
        resource.check_at_broker(broker)
    };
    resources.iter().map(|resource| check(resource).err()).collect()
}

impl ResourceChange<'_> {
    fn check_at_broker(&self, broker: i32) -> Result<(), Refusal> {
        let invalid = |reason: String| Err(Refusal(ErrorCode::INVALID_REQUEST, reason));
        if let Some(name) = repeated(self.changes.iter().map(|change| change.name)).first() {
            return invalid(format!("{name} is named twice"));
        }
        for change in &self.changes {
            let operation = Operation::from_code(change.operation)?;
            if operation != Operation::Delete && change.value.is_none() {
                return invalid(format!("{} is null", change.name));
            }
        }
        match self.kind {
            ConfigResource::TOPIC if self.name.is_empty() => {
                invalid("there are no settings of all topics: name one".to_owned())
            }
            ConfigResource::TOPIC => Ok(()),
            ConfigResource::BROKER if self.name.is_empty() => self.check_broker_settings(),
            ConfigResource::BROKER => match self.name.parse::<i32>() {
                Ok(id) if id == broker => self.check_broker_settings(),
                Ok(id) => invalid(format!("this is broker {broker}; ask broker {id} itself")),
                Err(_) => invalid(format!("a broker is named by its id, not {:?}", self.name)),
            },
            other => invalid(format!("resource type {other} has no settings here")),
        }
    }

    fn check_broker_settings(&self) -> Result<(), Refusal> {
        for change in &self.changes {
            let value = match Operation::from_code(change.operation)? {
                Operation::Set => change.value,
                Operation::Append | Operation::Subtract if !config::is_list(self.kind, change.name) => {
                    return Err(not_a_list(change.name));
                }
                _ => None,
            };
            config::check_broker_change(change.name, value)
                .map_err(|error| Refusal(ErrorCode::INVALID_REQUEST, error.to_string()))?;
        }
        Ok(())
    }

    /// What the changes make of the settings: name to new value, `None` to delete it.
    fn applied(
        &self,
        current: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Option<String>>, Refusal> {
        let mut settings = BTreeMap::new();
        for change in &self.changes {
            let value = match Operation::from_code(change.operation)? {
                Operation::Set => change.value.map(|value| value.trim().to_owned()),
                Operation::Delete => None,
                _ if !config::is_list(self.kind, change.name) => return Err(not_a_list(change.name)),
                operation => {
                    let old = current.get(change.name).map(String::as_str);
                    let old = old.or_else(|| config::default_of(self.kind, change.name)).unwrap_or_default();
                    Some(edited(old, change.value.unwrap_or_default(), operation))
                }
            };
            settings.insert(change.name.to_owned(), value);
        }
        if self.replaces {
            let unnamed =
                current.keys().filter(|name| !self.changes.iter().any(|change| change.name == **name));
            settings.extend(unnamed.map(|name| (name.clone(), None)).collect::<Vec<_>>());
        }
        Ok(settings)
    }
}

fn not_a_list(name: &str) -> Refusal {
    Refusal(
        ErrorCode::INVALID_CONFIG,
        format!("{name} is not a list: nothing can be added to it or taken away"),
    )
}

/// A list with elements added or taken away.
fn edited(old: &str, elements: &str, operation: Operation) -> String {
    let mut list: Vec<&str> = old.split(',').filter(|element| !element.is_empty()).collect();
    for element in elements.split(',') {
        match operation {
            Operation::Subtract => list.retain(|old| *old != element),
            _ if !list.contains(&element) => list.push(element),
            _ => {}
        }
    }
    list.join(",")
}

/// What became of one resource.
struct Altered {
    kind: i8,
    name: StrBytes,
    code: i16,
    message: Option<StrBytes>,
}

impl Controller {
    /// IncrementalAlterConfigs (44), versions 0 and 1. Every resource stands alone.
    ///
    /// * `INVALID_CONFIG`: a setting is unknown or its value not allowed, or an append to what is not a list.
    /// * `UNKNOWN_TOPIC_OR_PARTITION`, `BROKER_ID_NOT_REGISTERED`: there is no such resource.
    pub fn incremental_alter_configs(
        &mut self,
        request: &IncrementalAlterConfigsRequest,
    ) -> Outcome<IncrementalAlterConfigsResponse> {
        let resources: Vec<_> = request.resources.iter().map(ResourceChange::from).collect();
        let responses = self.alter_all(&resources, request.validate_only, |told| {
            Incremented::default()
                .with_resource_type(told.kind)
                .with_resource_name(told.name)
                .with_error_code(told.code)
                .with_error_message(told.message)
        });
        self.outcome(IncrementalAlterConfigsResponse::default().with_responses(responses))
    }

    /// AlterConfigs (33), versions 0 to 2: as [`Self::incremental_alter_configs`], but every setting that is not named is
    /// deleted.
    pub fn alter_configs(&mut self, request: &AlterConfigsRequest) -> Outcome<AlterConfigsResponse> {
        let resources: Vec<_> = request.resources.iter().map(ResourceChange::from).collect();
        let responses = self.alter_all(&resources, request.validate_only, |told| {
            Replaced::default()
                .with_resource_type(told.kind)
                .with_resource_name(told.name)
                .with_error_code(told.code)
                .with_error_message(told.message)
        });
        self.outcome(AlterConfigsResponse::default().with_responses(responses))
    }

    fn alter_all<A>(
        &mut self,
        resources: &[ResourceChange<'_>],
        validate_only: bool,
        answer: impl Fn(Altered) -> A,
    ) -> Vec<A> {
        let twice = repeated(resources.iter().map(|resource| (resource.kind, resource.name)));
        let mut alter = |resource: &ResourceChange<'_>| {
            if twice.contains(&(resource.kind, resource.name)) {
                return Err(Refusal::new(
                    ErrorCode::INVALID_REQUEST,
                    "the request names this resource twice",
                ));
            }
            self.alter_resource(resource, validate_only)
        };
        let done = resources.iter().map(|resource| {
            let (code, message) = match alter(resource) {
                Ok(()) => (ErrorCode::NONE, None),
                Err(refusal) => (refusal.0, refusal.message()),
            };
            let name = StrBytes::from_string(resource.name.to_owned());
            answer(Altered { kind: resource.kind, name, code: code.0, message })
        });
        done.collect()
    }

    fn alter_resource(&mut self, asked: &ResourceChange<'_>, validate_only: bool) -> Result<(), Refusal> {
        let resource = ConfigResource::new(asked.kind, asked.name);
        let current = self.image.configs(&resource);
        let changes = asked.applied(current)?;
        for (name, value) in &changes {
            self.check_setting(&resource, name, value.as_deref())?;
        }
        if let ConfigResource::Topic(_) = resource {
            let mut all = current.clone();
            for (name, value) in &changes {
                match value {
                    Some(value) => all.insert(name.clone(), value.clone()),
                    None => all.remove(name),
                };
            }
            config::check_topic_configs(&all)
                .map_err(|error| Refusal(ErrorCode::INVALID_CONFIG, error.to_string()))?;
        }
        self.check_exists(&resource)?;
        if validate_only {
            return Ok(());
        }
        // A broker's setting is written even if it stays the same: it makes the broker look again, as in Kafka.
        let always = asked.kind == ConfigResource::BROKER;
        let current = current.clone();
        for (name, value) in changes {
            if always || current.get(&name) != value.as_ref() {
                self.write_setting(&resource, asked, name, value);
            }
        }
        Ok(())
    }

    fn check_setting(
        &self,
        resource: &ConfigResource,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), Refusal> {
        let invalid = |reason: String| Err(Refusal(ErrorCode::INVALID_CONFIG, reason));
        let min_insync = name == MIN_INSYNC && self.elr_enabled();
        match resource {
            ConfigResource::Broker(Some(_)) if min_insync => {
                return invalid(format!(
                    "{MIN_INSYNC} is one for all brokers while eligible leader replicas are on"
                ));
            }
            ConfigResource::Broker(None) if min_insync && value.is_none() => {
                return invalid(format!("{MIN_INSYNC} is needed while eligible leader replicas are on"));
            }
            ConfigResource::Broker(_) => {
                let error = config::check_broker_change(name, value).err();
                if let Some(error) = error {
                    return Err(Refusal(ErrorCode::INVALID_REQUEST, error.to_string()));
                }
            }
            _ => {}
        }
        match value.filter(|value| value.len() > MAX_VALUE_BYTES) {
            Some(value) => {
                invalid(format!("{name} has {} bytes, at most {MAX_VALUE_BYTES} are kept", value.len()))
            }
            None => Ok(()),
        }
    }

    fn check_exists(&self, resource: &ConfigResource) -> Result<(), Refusal> {
        match resource {
            ConfigResource::Topic(name) if self.image.topic(name).is_none() => {
                Err(Refusal(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("no topic {name}")))
            }
            ConfigResource::Broker(Some(id)) if self.image.broker(*id).is_none() => {
                Err(Refusal(ErrorCode::BROKER_ID_NOT_REGISTERED, format!("no broker {id} is registered")))
            }
            ConfigResource::Other(kind, name) => Err(Refusal(
                ErrorCode::INVALID_REQUEST,
                format!("resource {name:?} of type {kind} has no settings here"),
            )),
            _ => Ok(()),
        }
    }

    fn write_setting(
        &mut self,
        resource: &ConfigResource,
        asked: &ResourceChange<'_>,
        name: String,
        value: Option<String>,
    ) {
        let (min_insync, unclean) = (name == MIN_INSYNC, name == UNCLEAN);
        self.emit(ConfigRecord {
            resource_type: asked.kind,
            resource_name: asked.name.to_owned(),
            name,
            value,
        });
        if min_insync {
            self.reconsider_eligible(resource);
        }
        if unclean {
            self.elect_leaderless();
        }
    }

    /// Who was eligible under the old `min.insync.replicas` may not be under the new one: with a smaller one, records are
    /// committed that only the ISR has.
    fn reconsider_eligible(&mut self, resource: &ConfigResource) {
        let topic = match resource {
            ConfigResource::Topic(name) => self.image.topic(name).map(|topic| topic.id),
            _ => None,
        };
        for (id, partition) in self.partitions_where(|p| !p.elr.is_empty()) {
            if topic.is_none_or(|topic| topic == id) {
                self.reconsider(id, partition, |_| {});
            }
        }
    }
}
