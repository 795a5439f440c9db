//! Snapshots of the metadata (KIP-630): an image written as records, in the format of Kafka's `.checkpoint` files.
//!
//! ```text
//! SnapshotHeader │ records, up to so many to a batch │ SnapshotFooter      offsets from 0, all of the snapshot's epoch
//! ```

use bytes::{Bytes, BytesMut};
use klamm_wire::metadata_records::{
    ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord, TopicRecord,
};
use klamm_wire::{RawBatch, metadata_records};

use super::{BrokerRegistration, ConfigResource, Delta, Image, PartitionRegistration};
use crate::quorum::SnapshotId;
use crate::quorum::control::{self, Place};

/// Records in one batch of a snapshot.
const BATCH_RECORDS: usize = 500;
/// Most bytes a batch may have when decompressed.
const BATCH_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// A snapshot's file.
#[derive(Debug)]
pub struct Checkpoint;

impl Checkpoint {
    /// Name of the file.
    pub fn file_name(id: SnapshotId) -> String {
        format!("{:020}-{:010}.checkpoint", id.end_offset, id.epoch)
    }

    /// The image as a file's bytes; `None` beyond 2 GiB a batch.
    pub fn write(id: SnapshotId, image: &Image, wall_ms: i64) -> Option<Bytes> {
        let mut bytes = BytesMut::new();
        let mut offset = 0;
        let place = |offset| Place { offset, epoch: id.epoch, wall_ms };
        let mut push = |batch: Option<(klamm_wire::BatchHeader, Bytes)>| {
            let (header, batch) = batch?;
            bytes.extend_from_slice(&batch);
            Some(header.next_offset())
        };
        offset = push(control::control(
            place(offset),
            control::SNAPSHOT_HEADER,
            &control::snapshot_header(wall_ms),
        ))?;
        for records in image.records().chunks(BATCH_RECORDS) {
            offset = push(control::batch(place(offset), records.iter().map(MetadataRecord::encode)))?;
        }
        push(control::control(place(offset), control::SNAPSHOT_FOOTER, &control::snapshot_footer()))?;
        Some(bytes.freeze())
    }

    /// The image that a file's bytes add up to.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the bytes: damaged, cut short, or of records that are not known here.
    pub fn read(id: SnapshotId, bytes: &Bytes) -> Result<Image, String> {
        let (mut bytes, mut image) = (bytes.clone(), Image::default());
        let mut whole = false;
        while let Some(batch) = RawBatch::split(&mut bytes) {
            let batch = batch.map_err(|error| error.to_string())?;
            batch.verify_crc().map_err(|error| error.to_string())?;
            let records = batch.records(BATCH_LIMIT_BYTES).map_err(|error| error.to_string())?;
            for record in &records {
                let record = record.map_err(|error| error.to_string())?;
                if batch.header().is_control() {
                    whole = record.key.and_then(|key| key.get(2..4))
                        == Some(&control::SNAPSHOT_FOOTER.to_be_bytes());
                    continue;
                }
                let decoded = MetadataRecord::decode(record.value.unwrap_or_default());
                let decoded = decoded.map_err(|error| error.to_string())?;
                image.apply(&decoded, &mut Delta::default()).map_err(|error| error.to_string())?;
            }
        }
        if !whole || !bytes.is_empty() {
            return Err("the snapshot is cut short".to_owned());
        }
        image.next_offset = id.end_offset;
        Ok(image)
    }
}

impl Image {
    /// Records that add up to this image, in an order in which they can be applied.
    pub fn records(&self) -> Vec<MetadataRecord> {
        let mut records: Vec<MetadataRecord> = Vec::new();
        for (name, feature_level) in &self.features {
            records.push(FeatureLevelRecord { name: name.clone(), feature_level: *feature_level }.into());
        }
        records.extend(self.brokers.values().map(|broker| broker.record().into()));
        for topic in self.topics.values() {
            records.push(TopicRecord { name: topic.name.to_string(), topic_id: topic.id }.into());
            let partitions = topic.partitions.iter();
            records.extend(partitions.map(|(number, partition)| partition.record(topic.id, *number).into()));
        }
        for (resource, settings) in &self.configs {
            let (resource_type, resource_name) = match resource {
                ConfigResource::Topic(name) => (ConfigResource::TOPIC, name.clone()),
                ConfigResource::Broker(None) => (ConfigResource::BROKER, String::new()),
                ConfigResource::Broker(Some(id)) => (ConfigResource::BROKER, id.to_string()),
                ConfigResource::Other(kind, name) => (*kind, name.clone()),
            };
            records.extend(settings.iter().map(|(name, value)| {
                let (name, value) = (name.clone(), Some(value.clone()));
                ConfigRecord { resource_type, resource_name: resource_name.clone(), name, value }.into()
            }));
        }
        if self.next_producer_id > 0 {
            let next_producer_id = self.next_producer_id;
            records.push(ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id }.into());
        }
        records
    }
}

impl BrokerRegistration {
    fn record(&self) -> metadata_records::RegisterBrokerRecord {
        let end_points = self.listeners.iter().map(|listener| metadata_records::BrokerEndpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: listener.port,
            security_protocol: listener.security_protocol,
        });
        let features = self.features.iter().map(|(name, (min, max))| metadata_records::BrokerFeature {
            name: name.clone(),
            min_supported_version: *min,
            max_supported_version: *max,
        });
        metadata_records::RegisterBrokerRecord {
            broker_id: self.id,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch,
            end_points: end_points.collect(),
            features: features.collect(),
            rack: self.rack.clone(),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            log_dirs: self.log_dirs.clone(),
            ..Default::default()
        }
    }
}

impl PartitionRegistration {
    fn record(&self, topic_id: uuid::Uuid, partition_id: i32) -> PartitionRecord {
        let some = |replicas: &Vec<i32>| (!replicas.is_empty()).then(|| replicas.clone());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader.unwrap_or(-1),
            leader_recovery_state: self.leader_recovery_state.code(),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            eligible_leader_replicas: some(&self.elr),
            last_known_elr: some(&self.last_known_elr),
            ..Default::default()
        }
    }
}
