//! Applying records to an [`Image`].
//!
//! Invariant: a record that is refused has changed nothing.

use std::sync::Arc;

use klamm_wire::metadata_records::{
    BrokerRegistrationChangeRecord, ConfigRecord, MetadataRecord, PartitionChangeRecord, PartitionRecord,
    ProducerIdsRecord, TopicRecord, UnregisterBrokerRecord,
};
use klamm_wire::{RawBatch, RecordRef};
use uuid::Uuid;

use super::{
    BrokerRegistration, ConfigResource, Delta, Image, LeaderRecoveryState, PartitionRegistration,
    RemovedTopic, Topic,
};

/// Most bytes a batch of the log may have when decompressed.
const BATCH_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// Why a record does not fit the image: the log is damaged, or written by something newer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata record at offset {offset}: {reason}")]
pub struct ImageError {
    /// Offset of the record.
    pub offset: i64,
    /// What was wrong.
    pub reason: String,
}

impl Image {
    /// Applies one record, which stands at [`Self::next_offset`].
    ///
    /// # Errors
    ///
    /// [`ImageError`] if the record speaks of something that does not exist.
    pub fn apply(&mut self, record: &MetadataRecord, delta: &mut Delta) -> Result<(), ImageError> {
        self.apply_record(record, delta).map_err(|reason| ImageError { offset: self.next_offset, reason })?;
        self.next_offset += 1;
        Ok(())
    }

    /// Applies the records of one batch of the log; those below [`Self::next_offset`] are skipped.
    ///
    /// # Errors
    ///
    /// [`ImageError`] if the batch cannot be read or leaves a gap. The records before the bad one are applied.
    pub fn apply_batch(&mut self, batch: &RawBatch, delta: &mut Delta) -> Result<(), ImageError> {
        let header = batch.header();
        let fail = |offset, reason: String| ImageError { offset, reason };
        if header.base_offset > self.next_offset {
            return Err(fail(header.base_offset, format!("expected offset {}", self.next_offset)));
        }
        batch.verify_crc().map_err(|error| fail(header.base_offset, error.to_string()))?;
        if !header.is_control() {
            let records = batch.records(BATCH_LIMIT_BYTES);
            let records = records.map_err(|error| fail(header.base_offset, error.to_string()))?;
            for record in &records {
                let record = record.map_err(|error| fail(self.next_offset, error.to_string()))?;
                self.apply_entry(&record, delta)?;
            }
        }
        self.next_offset = self.next_offset.max(header.next_offset());
        Ok(())
    }

    fn apply_entry(&mut self, record: &RecordRef<'_>, delta: &mut Delta) -> Result<(), ImageError> {
        if record.offset < self.next_offset {
            return Ok(());
        }
        let decoded = MetadataRecord::decode(record.value.unwrap_or_default())
            .map_err(|error| ImageError { offset: record.offset, reason: error.to_string() })?;
        self.apply(&decoded, delta)
    }

    fn apply_record(&mut self, record: &MetadataRecord, delta: &mut Delta) -> Result<(), String> {
        match record {
            MetadataRecord::RegisterBroker(record) => {
                self.brokers.insert(record.broker_id, Arc::new(BrokerRegistration::from(record)));
                delta.brokers.insert(record.broker_id);
            }
            MetadataRecord::UnregisterBroker(record) => self.unregister(record, delta)?,
            MetadataRecord::BrokerRegistrationChange(record) => self.change_broker(record, delta)?,
            MetadataRecord::Topic(record) => self.add_topic(record)?,
            MetadataRecord::Partition(record) => self.add_partition(record, delta)?,
            MetadataRecord::PartitionChange(record) => self.change_partition(record, delta)?,
            MetadataRecord::RemoveTopic(record) => self.remove_topic(record.topic_id, delta)?,
            MetadataRecord::Config(record) => self.set_config(record, delta),
            MetadataRecord::FeatureLevel(record) => {
                if record.feature_level == 0 {
                    self.features.remove(&record.name);
                } else {
                    self.features.insert(record.name.clone(), record.feature_level);
                }
            }
            MetadataRecord::ProducerIds(record) => self.allocate(record)?,
            MetadataRecord::NoOp(_) => {}
            _ => return Err("of a type that is not known here".to_owned()),
        }
        Ok(())
    }

    fn unregister(&mut self, record: &UnregisterBrokerRecord, delta: &mut Delta) -> Result<(), String> {
        let id = record.broker_id;
        if self.broker(id).is_none_or(|broker| broker.epoch != record.broker_epoch) {
            return Err(format!("broker {id} is not registered in epoch {}", record.broker_epoch));
        }
        self.brokers.remove(&id);
        delta.brokers.insert(id);
        Ok(())
    }

    fn change_broker(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
        delta: &mut Delta,
    ) -> Result<(), String> {
        let (id, epoch) = (record.broker_id, record.broker_epoch);
        let Some(broker) = self.brokers.get_mut(&id).filter(|broker| broker.epoch == epoch) else {
            return Err(format!("broker {id} is not registered in epoch {epoch}"));
        };
        let broker = Arc::make_mut(broker);
        match record.fenced {
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            _ => {}
        }
        if record.in_controlled_shutdown == 1 {
            broker.in_controlled_shutdown = true;
        }
        if !record.log_dirs.is_empty() {
            broker.log_dirs.clone_from(&record.log_dirs);
        }
        delta.brokers.insert(id);
        Ok(())
    }

    fn add_topic(&mut self, record: &TopicRecord) -> Result<(), String> {
        let (id, name) = (record.topic_id, Arc::<str>::from(record.name.as_str()));
        if self.topics.contains_key(&id) || self.names.contains_key(&name) {
            return Err(format!("topic {name} ({id}) exists"));
        }
        self.names.insert(Arc::clone(&name), id);
        self.topics.insert(id, Arc::new(Topic { name, id, partitions: Default::default() }));
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut Topic, String> {
        self.topics.get_mut(&id).map(Arc::make_mut).ok_or_else(|| format!("no topic has the id {id}"))
    }

    fn add_partition(&mut self, record: &PartitionRecord, delta: &mut Delta) -> Result<(), String> {
        let registration = PartitionRegistration::try_from(record)?;
        let topic = self.topic_mut(record.topic_id)?;
        topic.partitions.insert(record.partition_id, registration);
        delta.partitions.insert((record.topic_id, record.partition_id));
        Ok(())
    }

    fn change_partition(&mut self, record: &PartitionChangeRecord, delta: &mut Delta) -> Result<(), String> {
        let (id, partition) = (record.topic_id, record.partition_id);
        let topic = self.topic_mut(id)?;
        let current = topic.partitions.get_mut(&partition);
        let current = current.ok_or_else(|| format!("{} has no partition {partition}", topic.name))?;
        *current = current.changed(record)?;
        delta.partitions.insert((id, partition));
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid, delta: &mut Delta) -> Result<(), String> {
        let topic = self.topics.remove(&id).ok_or_else(|| format!("no topic has the id {id}"))?;
        self.names.remove(&topic.name);
        self.configs.remove(&ConfigResource::Topic(topic.name.to_string()));
        let partitions = topic.partitions.keys().copied().collect();
        delta.remove_topic(RemovedTopic { name: Arc::clone(&topic.name), id, partitions });
        Ok(())
    }

    fn set_config(&mut self, record: &ConfigRecord, delta: &mut Delta) {
        let resource = ConfigResource::new(record.resource_type, &record.resource_name);
        let configs = self.configs.entry(resource.clone()).or_default();
        match &record.value {
            Some(value) => configs.insert(record.name.clone(), value.clone()),
            None => configs.remove(&record.name),
        };
        if configs.is_empty() {
            self.configs.remove(&resource);
        }
        delta.configs.insert(resource);
    }

    fn allocate(&mut self, record: &ProducerIdsRecord) -> Result<(), String> {
        if record.next_producer_id <= self.next_producer_id {
            return Err(format!("producer ids from {} on are taken", record.next_producer_id));
        }
        self.next_producer_id = record.next_producer_id;
        Ok(())
    }
}

/// `-1` in a record means nobody.
fn leader(id: i32) -> Option<i32> {
    (id >= 0).then_some(id)
}

impl TryFrom<&PartitionRecord> for PartitionRegistration {
    type Error = String;

    fn try_from(record: &PartitionRecord) -> Result<Self, String> {
        Ok(Self {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            leader: leader(record.leader),
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            leader_recovery_state: recovery(record.leader_recovery_state)?,
        })
    }
}

impl PartitionRegistration {
    /// The registration after `record`: absent fields stay, both epochs follow.
    fn changed(&self, record: &PartitionChangeRecord) -> Result<Self, String> {
        let mut next = self.clone();
        let set = |field: &mut Vec<i32>, value: &Option<Vec<i32>>| {
            if let Some(value) = value {
                field.clone_from(value);
            }
        };
        set(&mut next.replicas, &record.replicas);
        set(&mut next.isr, &record.isr);
        set(&mut next.elr, &record.eligible_leader_replicas);
        set(&mut next.last_known_elr, &record.last_known_elr);
        set(&mut next.removing_replicas, &record.removing_replicas);
        set(&mut next.adding_replicas, &record.adding_replicas);
        if record.leader != LEADER_UNCHANGED {
            next.leader = leader(record.leader);
            next.leader_epoch += 1;
        }
        if record.leader_recovery_state != RECOVERY_UNCHANGED {
            next.leader_recovery_state = recovery(record.leader_recovery_state)?;
        }
        next.partition_epoch += 1;
        Ok(next)
    }
}

/// Leader field of a PartitionChangeRecord that keeps the leader.
pub(crate) const LEADER_UNCHANGED: i32 = -2;
/// Recovery field of a PartitionChangeRecord that keeps the state.
pub(crate) const RECOVERY_UNCHANGED: i8 = -1;

fn recovery(code: i8) -> Result<LeaderRecoveryState, String> {
    LeaderRecoveryState::from_code(code).ok_or_else(|| format!("leader recovery state {code}"))
}
