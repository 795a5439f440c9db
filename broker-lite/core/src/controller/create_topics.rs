//! CreateTopics (19).

use std::collections::{BTreeMap, BTreeSet};

use klamm_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use klamm_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use klamm_wire::messages::{BrokerId, CreateTopicsRequest, CreateTopicsResponse};
use klamm_wire::metadata_records::{ConfigRecord, PartitionRecord, TopicRecord};
use klamm_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use super::{Controller, Outcome, Refusal, names};
use crate::config::{self, TopicConfig};
use crate::metadata::ConfigResource;
use crate::placement::{self, Candidate};

/// Most partitions one request may create, as in Kafka: they go into one batch of the log.
pub(super) const MAX_PARTITIONS: i64 = 10_000;

/// A topic that passed all checks.
struct Plan {
    partitions: Vec<Vec<i32>>,
    configs: BTreeMap<String, String>,
}

impl Controller {
    /// CreateTopics (19), versions 2 to 7.
    ///
    /// Every topic stands alone, but for the number of partitions that a request may ask for. One that is named more than
    /// once is refused once.
    pub fn create_topics(&mut self, request: &CreateTopicsRequest) -> Outcome<CreateTopicsResponse> {
        let twice = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        let wanted = request.topics.iter().map(|topic| self.wanted_partitions(topic));
        let too_many = wanted.fold(0, i64::saturating_add) > MAX_PARTITIONS;
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut named = BTreeSet::new();
        for topic in request.topics.iter().filter(|topic| named.insert(topic.name.as_str())) {
            let planned = if twice.contains(topic.name.as_str()) {
                Err(Refusal(ErrorCode::INVALID_REQUEST, "the request names this topic twice".to_owned()))
            } else if request.timeout_ms <= 0 {
                let reason = format!("nothing can be done within {} ms", request.timeout_ms);
                Err(Refusal(ErrorCode::REQUEST_TIMED_OUT, reason))
            } else if too_many {
                Err(too_many_partitions())
            } else {
                self.plan(topic)
            };
            let result = CreatableTopicResult::default().with_name(topic.name.clone());
            topics.push(match planned {
                Ok(plan) => self.create(result, topic.name.as_str(), plan, request.validate_only),
                Err(refusal) => result
                    .with_error_code(refusal.0.0)
                    .with_error_message(refusal.message())
                    .with_num_partitions(-1)
                    .with_replication_factor(-1),
            });
        }
        self.outcome(CreateTopicsResponse::default().with_topics(topics))
    }

    fn wanted_partitions(&self, topic: &CreatableTopic) -> i64 {
        match topic.num_partitions {
            -1 if topic.assignments.is_empty() => self.settings.int("num.partitions").unwrap_or(1),
            -1 => i64::try_from(topic.assignments.len()).unwrap_or(i64::MAX),
            given => i64::from(given).max(0),
        }
    }

    fn plan(&mut self, topic: &CreatableTopic) -> Result<Plan, Refusal> {
        names::check_new(&topic.name, &self.image)?;
        let configs = checked_configs(topic)?;
        let partitions = if topic.assignments.is_empty() {
            let replicas = self.wanted_replicas(topic)?;
            let partitions = usize::try_from(self.wanted_partitions(topic)).unwrap_or(0);
            if partitions == 0 || topic.num_partitions < -1 {
                let reason = format!("{} partitions; at least 1 is needed", topic.num_partitions);
                return Err(Refusal(ErrorCode::INVALID_PARTITIONS, reason));
            }
            self.place(partitions, replicas)?
        } else {
            self.assigned(topic)?
        };
        Ok(Plan { partitions, configs })
    }

    fn wanted_replicas(&self, topic: &CreatableTopic) -> Result<usize, Refusal> {
        let replicas = match topic.replication_factor {
            -1 => self.settings.int("default.replication.factor").unwrap_or(1),
            given => i64::from(given),
        };
        match usize::try_from(replicas) {
            Ok(replicas) if replicas > 0 => Ok(replicas),
            _ => {
                let reason = format!("replication factor {replicas}; at least 1 is needed");
                Err(Refusal(ErrorCode::INVALID_REPLICATION_FACTOR, reason))
            }
        }
    }

    pub(super) fn place(&mut self, partitions: usize, replicas: usize) -> Result<Vec<Vec<i32>>, Refusal> {
        let candidates = self.image.brokers().values().map(|broker| Candidate {
            id: broker.id,
            rack: broker.rack.as_deref(),
            fenced: !broker.is_active(),
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        placement::place(&candidates, partitions, replicas, &mut self.rng)
            .map_err(|error| Refusal(ErrorCode::INVALID_REPLICATION_FACTOR, error.to_string()))
    }

    fn assigned(&self, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refusal> {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let reason = "with a manual assignment, partitions and replication factor must be -1";
            return Err(Refusal(ErrorCode::INVALID_REQUEST, reason.to_owned()));
        }
        let mut by_index = BTreeMap::new();
        for CreatableReplicaAssignment { partition_index, broker_ids, .. } in &topic.assignments {
            if by_index.insert(*partition_index, ids(broker_ids)).is_some() {
                return Err(bad_assignment(format!("partition {partition_index} is assigned twice")));
            }
        }
        if !by_index.keys().copied().eq((0..).take(by_index.len())) {
            return Err(bad_assignment("partitions must be numbered from 0 on without gaps".to_owned()));
        }
        let partitions: Vec<Vec<i32>> = by_index.into_values().collect();
        let first = partitions.first().map_or(0, Vec::len);
        for (partition, replicas) in (0..).zip(&partitions) {
            self.check_assignment(partition, replicas, Some(first))?;
            self.check_some_active(partition, replicas)?;
        }
        Ok(partitions)
    }

    /// Checks who shall hold a partition; `factor` is how many that should be, if not any number.
    pub(super) fn check_assignment(
        &self,
        partition: i32,
        replicas: &[i32],
        factor: Option<usize>,
    ) -> Result<(), Refusal> {
        let fail = |reason: String| Err(bad_assignment(format!("partition {partition}: {reason}")));
        if replicas.is_empty() {
            return fail("no replicas".to_owned());
        }
        if let Some(id) = replicas.iter().find(|id| self.image.broker(**id).is_none()) {
            return fail(format!("no broker {id} is registered"));
        }
        if let Some(id) = repeated(replicas.iter()).first() {
            return fail(format!("broker {id} is named twice"));
        }
        match factor.filter(|factor| *factor != replicas.len()) {
            Some(factor) => fail(format!("{} replicas where others have {factor}", replicas.len())),
            None => Ok(()),
        }
    }

    pub(super) fn check_some_active(&self, partition: i32, replicas: &[i32]) -> Result<(), Refusal> {
        if replicas.iter().any(|id| self.image.is_active(*id)) {
            return Ok(());
        }
        Err(bad_assignment(format!("partition {partition}: all its brokers are fenced or shutting down")))
    }

    fn create(
        &mut self,
        result: CreatableTopicResult,
        name: &str,
        plan: Plan,
        validate_only: bool,
    ) -> CreatableTopicResult {
        let partitions = i32::try_from(plan.partitions.len()).unwrap_or(i32::MAX);
        let replicas = plan.partitions.first().map_or(0, Vec::len);
        let topic_config = TopicConfig::new(&plan.configs, &self.settings);
        let configs = topic_config.describe().into_iter().map(|config| {
            CreatableTopicConfigs::default()
                .with_config_source(topic_config.source(&config.name) as i8)
                .with_name(StrBytes::from_string(config.name.into_owned()))
                .with_value(config.value.map(StrBytes::from_string))
                .with_read_only(config.read_only)
                .with_is_sensitive(config.sensitive)
        });
        let configs: Vec<CreatableTopicConfigs> = configs.collect();
        let topic_id = self.new_topic_id();
        let result = result
            .with_topic_id(topic_id)
            .with_error_message(None)
            .with_num_partitions(partitions)
            .with_replication_factor(i16::try_from(replicas).unwrap_or(i16::MAX))
            .with_configs(Some(configs));
        if validate_only {
            return result;
        }
        self.emit(TopicRecord { name: name.to_owned(), topic_id });
        for (key, value) in plan.configs {
            self.emit(ConfigRecord {
                resource_type: ConfigResource::TOPIC,
                resource_name: name.to_owned(),
                name: key,
                value: Some(value),
            });
        }
        for (partition, replicas) in (0..).zip(plan.partitions) {
            self.emit_partition(topic_id, partition, replicas);
        }
        result
    }

    /// A random id (UUID version 4), never one of the reserved ones: those are of no version.
    fn new_topic_id(&mut self) -> Uuid {
        loop {
            let id = uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid();
            // Kafka's tools print ids in base 64 and would take one with a leading '-' for an option
            let leading_dash = id.as_bytes()[0] >> 2 == 62;
            if !leading_dash && self.image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }

    /// Replicas on living brokers start in sync, the first of them as leader.
    pub(super) fn emit_partition(&mut self, topic_id: Uuid, partition_id: i32, replicas: Vec<i32>) {
        let isr: Vec<i32> = replicas.iter().copied().filter(|id| self.image.is_active(*id)).collect();
        let directories = replicas.iter().map(|id| self.log_dir(*id)).collect();
        self.emit(PartitionRecord {
            partition_id,
            topic_id,
            leader: isr.first().copied().unwrap_or(-1),
            isr,
            leader_epoch: 0,
            partition_epoch: 0,
            directories,
            replicas,
            ..PartitionRecord::default()
        });
    }
}

fn checked_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let invalid = |reason: String| Refusal(ErrorCode::INVALID_CONFIG, reason);
    let mut configs = BTreeMap::new();
    for given in &topic.configs {
        let Some(value) = &given.value else {
            return Err(invalid(format!("{} is null", given.name.as_str())));
        };
        let value = config::check_topic_config(&given.name, value).map_err(|e| invalid(e.to_string()))?;
        configs.insert(given.name.to_string(), value.to_owned());
    }
    Ok(configs)
}

pub(super) fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}

pub(super) fn bad_assignment(reason: String) -> Refusal {
    Refusal(ErrorCode::INVALID_REPLICA_ASSIGNMENT, reason)
}

pub(super) fn too_many_partitions() -> Refusal {
    let reason = format!("one request may create at most {MAX_PARTITIONS} partitions");
    Refusal(ErrorCode::POLICY_VIOLATION, reason)
}

/// Elements that occur more than once.
pub(super) fn repeated<T: Ord>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let (mut seen, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for one in all {
        if let Some((one, ())) = seen.remove_entry(&one) {
            twice.insert(one);
        } else if !twice.contains(&one) {
            seen.insert(one, ());
        }
    }
    twice
}
