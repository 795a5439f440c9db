//! The records themselves.
//!
//! Generated from Kafka 4.3.0's schemas by tests/tools/kafka_schemas.py; do not edit.
#![cfg_attr(rustfmt, rustfmt::skip)]
#![allow(clippy::field_reassign_with_default)]

use bytes::BytesMut;
use uuid::Uuid;

use super::value::{TagWriter, Value, read_whole};
use crate::schema::{Cursor, Malformed};

/// One record of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataRecord {
    /// Type 0.
    RegisterBroker(RegisterBrokerRecord),
    /// Type 1.
    UnregisterBroker(UnregisterBrokerRecord),
    /// Type 2.
    Topic(TopicRecord),
    /// Type 3.
    Partition(PartitionRecord),
    /// Type 4.
    Config(ConfigRecord),
    /// Type 5.
    PartitionChange(PartitionChangeRecord),
    /// Type 9.
    RemoveTopic(RemoveTopicRecord),
    /// Type 12.
    FeatureLevel(FeatureLevelRecord),
    /// Type 15.
    ProducerIds(ProducerIdsRecord),
    /// Type 17.
    BrokerRegistrationChange(BrokerRegistrationChangeRecord),
    /// Type 20.
    NoOp(NoOpRecord),
}

impl MetadataRecord {
    /// Record type and the version it is written in.
    pub(super) fn stamp(&self) -> (u32, i16) {
        match self {
            Self::RegisterBroker(_) => (0, 4),
            Self::UnregisterBroker(_) => (1, 0),
            Self::Topic(_) => (2, 0),
            Self::Partition(_) => (3, 2),
            Self::Config(_) => (4, 0),
            Self::PartitionChange(_) => (5, 2),
            Self::RemoveTopic(_) => (9, 0),
            Self::FeatureLevel(_) => (12, 0),
            Self::ProducerIds(_) => (15, 0),
            Self::BrokerRegistrationChange(_) => (17, 3),
            Self::NoOp(_) => (20, 0),
        }
    }

    pub(super) fn write(&self, version: i16, out: &mut BytesMut) {
        match self {
            Self::RegisterBroker(record) => record.write(version, out),
            Self::UnregisterBroker(record) => record.write(version, out),
            Self::Topic(record) => record.write(version, out),
            Self::Partition(record) => record.write(version, out),
            Self::Config(record) => record.write(version, out),
            Self::PartitionChange(record) => record.write(version, out),
            Self::RemoveTopic(record) => record.write(version, out),
            Self::FeatureLevel(record) => record.write(version, out),
            Self::ProducerIds(record) => record.write(version, out),
            Self::BrokerRegistrationChange(record) => record.write(version, out),
            Self::NoOp(record) => record.write(version, out),
        }
    }

    /// Highest version known of a record type.
    pub(super) fn last_version(kind: u32) -> Option<i16> {
        match kind {
            0 => Some(4),
            1 => Some(0),
            2 => Some(0),
            3 => Some(2),
            4 => Some(0),
            5 => Some(2),
            9 => Some(0),
            12 => Some(0),
            15 => Some(0),
            17 => Some(3),
            20 => Some(0),
            _ => None,
        }
    }

    /// Reads the record of a type for which [`Self::last_version`] knows a version.
    pub(super) fn read(kind: u32, version: i16, bytes: &mut Cursor<'_>) -> Result<Option<Self>, Malformed> {
        Ok(Some(match kind {
            0 => Self::RegisterBroker(Value::read(version, bytes)?),
            1 => Self::UnregisterBroker(Value::read(version, bytes)?),
            2 => Self::Topic(Value::read(version, bytes)?),
            3 => Self::Partition(Value::read(version, bytes)?),
            4 => Self::Config(Value::read(version, bytes)?),
            5 => Self::PartitionChange(Value::read(version, bytes)?),
            9 => Self::RemoveTopic(Value::read(version, bytes)?),
            12 => Self::FeatureLevel(Value::read(version, bytes)?),
            15 => Self::ProducerIds(Value::read(version, bytes)?),
            17 => Self::BrokerRegistrationChange(Value::read(version, bytes)?),
            20 => Self::NoOp(Value::read(version, bytes)?),
            _ => return Ok(None),
        }))
    }
}

impl From<RegisterBrokerRecord> for MetadataRecord {
    fn from(record: RegisterBrokerRecord) -> Self {
        Self::RegisterBroker(record)
    }
}

impl From<UnregisterBrokerRecord> for MetadataRecord {
    fn from(record: UnregisterBrokerRecord) -> Self {
        Self::UnregisterBroker(record)
    }
}

impl From<TopicRecord> for MetadataRecord {
    fn from(record: TopicRecord) -> Self {
        Self::Topic(record)
    }
}

impl From<PartitionRecord> for MetadataRecord {
    fn from(record: PartitionRecord) -> Self {
        Self::Partition(record)
    }
}

impl From<ConfigRecord> for MetadataRecord {
    fn from(record: ConfigRecord) -> Self {
        Self::Config(record)
    }
}

impl From<PartitionChangeRecord> for MetadataRecord {
    fn from(record: PartitionChangeRecord) -> Self {
        Self::PartitionChange(record)
    }
}

impl From<RemoveTopicRecord> for MetadataRecord {
    fn from(record: RemoveTopicRecord) -> Self {
        Self::RemoveTopic(record)
    }
}

impl From<FeatureLevelRecord> for MetadataRecord {
    fn from(record: FeatureLevelRecord) -> Self {
        Self::FeatureLevel(record)
    }
}

impl From<ProducerIdsRecord> for MetadataRecord {
    fn from(record: ProducerIdsRecord) -> Self {
        Self::ProducerIds(record)
    }
}

impl From<BrokerRegistrationChangeRecord> for MetadataRecord {
    fn from(record: BrokerRegistrationChangeRecord) -> Self {
        Self::BrokerRegistrationChange(record)
    }
}

impl From<NoOpRecord> for MetadataRecord {
    fn from(record: NoOpRecord) -> Self {
        Self::NoOp(record)
    }
}

/// Metadata record type 0, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBrokerRecord {
    /// `BrokerId`, int32, every version.
    pub broker_id: i32,
    /// `IsMigratingZkBroker`, bool, from version 2.
    pub is_migrating_zk_broker: bool,
    /// `IncarnationId`, uuid, every version.
    pub incarnation_id: Uuid,
    /// `BrokerEpoch`, int64, every version.
    pub broker_epoch: i64,
    /// `EndPoints`, []BrokerEndpoint, every version.
    pub end_points: Vec<BrokerEndpoint>,
    /// `Features`, []BrokerFeature, every version.
    pub features: Vec<BrokerFeature>,
    /// `Rack`, string, nullable, every version.
    pub rack: Option<String>,
    /// `Fenced`, bool, every version.
    pub fenced: bool,
    /// `InControlledShutdown`, bool, from version 1.
    pub in_controlled_shutdown: bool,
    /// `LogDirs`, []uuid, from version 3, tag 0.
    pub log_dirs: Vec<Uuid>,
    /// `CordonedLogDirs`, []uuid, nullable, from version 4, tag 1.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl Default for RegisterBrokerRecord {
    fn default() -> Self {
        Self {
            broker_id: 0,
            is_migrating_zk_broker: false,
            incarnation_id: Uuid::nil(),
            broker_epoch: 0,
            end_points: Vec::new(),
            features: Vec::new(),
            rack: Some(String::new()),
            fenced: true,
            in_controlled_shutdown: false,
            log_dirs: Vec::new(),
            cordoned_log_dirs: None,
        }
    }
}

impl Value for RegisterBrokerRecord {
    const MIN_BYTES: usize = 33;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.broker_id.write(version, out);
        if version >= 2 { self.is_migrating_zk_broker.write(version, out); }
        self.incarnation_id.write(version, out);
        self.broker_epoch.write(version, out);
        self.end_points.write(version, out);
        self.features.write(version, out);
        self.rack.write(version, out);
        self.fenced.write(version, out);
        if version >= 1 { self.in_controlled_shutdown.write(version, out); }
        let mut tags = TagWriter::default();
        if version >= 3 && !self.log_dirs.is_empty() { tags.put(0, version, &self.log_dirs); }
        if version >= 4 && self.cordoned_log_dirs.is_some() { tags.put(1, version, &self.cordoned_log_dirs); }
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.broker_id = Value::read(version, bytes)?;
        if version >= 2 { record.is_migrating_zk_broker = Value::read(version, bytes)?; }
        record.incarnation_id = Value::read(version, bytes)?;
        record.broker_epoch = Value::read(version, bytes)?;
        record.end_points = Value::read(version, bytes)?;
        record.features = Value::read(version, bytes)?;
        record.rack = Value::read(version, bytes)?;
        record.fenced = Value::read(version, bytes)?;
        if version >= 1 { record.in_controlled_shutdown = Value::read(version, bytes)?; }
        let mut tags = bytes.tags()?;
        while let Some((tag, mut content)) = tags.next(bytes)? {
            match tag {
                0 if version >= 3 => record.log_dirs = read_whole(version, &mut content)?,
                1 if version >= 4 => record.cordoned_log_dirs = read_whole(version, &mut content)?,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// Element of [`RegisterBrokerRecord::end_points`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerEndpoint {
    /// `Name`, string, every version.
    pub name: String,
    /// `Host`, string, every version.
    pub host: String,
    /// `Port`, uint16, every version.
    pub port: u16,
    /// `SecurityProtocol`, int16, every version.
    pub security_protocol: i16,
}

impl Value for BrokerEndpoint {
    const MIN_BYTES: usize = 7;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.name.write(version, out);
        self.host.write(version, out);
        self.port.write(version, out);
        self.security_protocol.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.name = Value::read(version, bytes)?;
        record.host = Value::read(version, bytes)?;
        record.port = Value::read(version, bytes)?;
        record.security_protocol = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Element of [`RegisterBrokerRecord::features`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerFeature {
    /// `Name`, string, every version.
    pub name: String,
    /// `MinSupportedVersion`, int16, every version.
    pub min_supported_version: i16,
    /// `MaxSupportedVersion`, int16, every version.
    pub max_supported_version: i16,
}

impl Value for BrokerFeature {
    const MIN_BYTES: usize = 6;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.name.write(version, out);
        self.min_supported_version.write(version, out);
        self.max_supported_version.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.name = Value::read(version, bytes)?;
        record.min_supported_version = Value::read(version, bytes)?;
        record.max_supported_version = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 1, version 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnregisterBrokerRecord {
    /// `BrokerId`, int32, every version.
    pub broker_id: i32,
    /// `BrokerEpoch`, int64, every version.
    pub broker_epoch: i64,
}

impl Value for UnregisterBrokerRecord {
    const MIN_BYTES: usize = 13;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.broker_id.write(version, out);
        self.broker_epoch.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.broker_id = Value::read(version, bytes)?;
        record.broker_epoch = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 2, version 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicRecord {
    /// `Name`, string, every version.
    pub name: String,
    /// `TopicId`, uuid, every version.
    pub topic_id: Uuid,
}

impl Value for TopicRecord {
    const MIN_BYTES: usize = 18;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.name.write(version, out);
        self.topic_id.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.name = Value::read(version, bytes)?;
        record.topic_id = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 3, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecord {
    /// `PartitionId`, int32, every version.
    pub partition_id: i32,
    /// `TopicId`, uuid, every version.
    pub topic_id: Uuid,
    /// `Replicas`, []int32, every version.
    pub replicas: Vec<i32>,
    /// `Isr`, []int32, every version.
    pub isr: Vec<i32>,
    /// `RemovingReplicas`, []int32, every version.
    pub removing_replicas: Vec<i32>,
    /// `AddingReplicas`, []int32, every version.
    pub adding_replicas: Vec<i32>,
    /// `Leader`, int32, every version.
    pub leader: i32,
    /// `LeaderRecoveryState`, int8, every version, tag 0.
    pub leader_recovery_state: i8,
    /// `LeaderEpoch`, int32, every version.
    pub leader_epoch: i32,
    /// `PartitionEpoch`, int32, every version.
    pub partition_epoch: i32,
    /// `Directories`, []uuid, from version 1.
    pub directories: Vec<Uuid>,
    /// `EligibleLeaderReplicas`, []int32, nullable, from version 2, tag 1.
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// `LastKnownElr`, []int32, nullable, from version 2, tag 2.
    pub last_known_elr: Option<Vec<i32>>,
}

impl Default for PartitionRecord {
    fn default() -> Self {
        Self {
            partition_id: -1,
            topic_id: Uuid::nil(),
            replicas: Vec::new(),
            isr: Vec::new(),
            removing_replicas: Vec::new(),
            adding_replicas: Vec::new(),
            leader: -1,
            leader_recovery_state: 0,
            leader_epoch: -1,
            partition_epoch: -1,
            directories: Vec::new(),
            eligible_leader_replicas: None,
            last_known_elr: None,
        }
    }
}

impl Value for PartitionRecord {
    const MIN_BYTES: usize = 37;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.partition_id.write(version, out);
        self.topic_id.write(version, out);
        self.replicas.write(version, out);
        self.isr.write(version, out);
        self.removing_replicas.write(version, out);
        self.adding_replicas.write(version, out);
        self.leader.write(version, out);
        self.leader_epoch.write(version, out);
        self.partition_epoch.write(version, out);
        if version >= 1 { self.directories.write(version, out); }
        let mut tags = TagWriter::default();
        if self.leader_recovery_state != 0 { tags.put(0, version, &self.leader_recovery_state); }
        if version >= 2 && self.eligible_leader_replicas.is_some() { tags.put(1, version, &self.eligible_leader_replicas); }
        if version >= 2 && self.last_known_elr.is_some() { tags.put(2, version, &self.last_known_elr); }
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.partition_id = Value::read(version, bytes)?;
        record.topic_id = Value::read(version, bytes)?;
        record.replicas = Value::read(version, bytes)?;
        record.isr = Value::read(version, bytes)?;
        record.removing_replicas = Value::read(version, bytes)?;
        record.adding_replicas = Value::read(version, bytes)?;
        record.leader = Value::read(version, bytes)?;
        record.leader_epoch = Value::read(version, bytes)?;
        record.partition_epoch = Value::read(version, bytes)?;
        if version >= 1 { record.directories = Value::read(version, bytes)?; }
        let mut tags = bytes.tags()?;
        while let Some((tag, mut content)) = tags.next(bytes)? {
            match tag {
                0 => record.leader_recovery_state = read_whole(version, &mut content)?,
                1 if version >= 2 => record.eligible_leader_replicas = read_whole(version, &mut content)?,
                2 if version >= 2 => record.last_known_elr = read_whole(version, &mut content)?,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// Metadata record type 4, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRecord {
    /// `ResourceType`, int8, every version.
    pub resource_type: i8,
    /// `ResourceName`, string, every version.
    pub resource_name: String,
    /// `Name`, string, every version.
    pub name: String,
    /// `Value`, string, nullable, every version.
    pub value: Option<String>,
}

impl Default for ConfigRecord {
    fn default() -> Self {
        Self {
            resource_type: 0,
            resource_name: String::new(),
            name: String::new(),
            value: Some(String::new()),
        }
    }
}

impl Value for ConfigRecord {
    const MIN_BYTES: usize = 5;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.resource_type.write(version, out);
        self.resource_name.write(version, out);
        self.name.write(version, out);
        self.value.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.resource_type = Value::read(version, bytes)?;
        record.resource_name = Value::read(version, bytes)?;
        record.name = Value::read(version, bytes)?;
        record.value = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 5, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionChangeRecord {
    /// `PartitionId`, int32, every version.
    pub partition_id: i32,
    /// `TopicId`, uuid, every version.
    pub topic_id: Uuid,
    /// `Isr`, []int32, nullable, every version, tag 0.
    pub isr: Option<Vec<i32>>,
    /// `Leader`, int32, every version, tag 1.
    pub leader: i32,
    /// `Replicas`, []int32, nullable, every version, tag 2.
    pub replicas: Option<Vec<i32>>,
    /// `RemovingReplicas`, []int32, nullable, every version, tag 3.
    pub removing_replicas: Option<Vec<i32>>,
    /// `AddingReplicas`, []int32, nullable, every version, tag 4.
    pub adding_replicas: Option<Vec<i32>>,
    /// `LeaderRecoveryState`, int8, every version, tag 5.
    pub leader_recovery_state: i8,
    /// `Directories`, []uuid, nullable, from version 1, tag 8.
    pub directories: Option<Vec<Uuid>>,
    /// `EligibleLeaderReplicas`, []int32, nullable, from version 2, tag 6.
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// `LastKnownElr`, []int32, nullable, from version 2, tag 7.
    pub last_known_elr: Option<Vec<i32>>,
}

impl Default for PartitionChangeRecord {
    fn default() -> Self {
        Self {
            partition_id: -1,
            topic_id: Uuid::nil(),
            isr: None,
            leader: -2,
            replicas: None,
            removing_replicas: None,
            adding_replicas: None,
            leader_recovery_state: -1,
            directories: None,
            eligible_leader_replicas: None,
            last_known_elr: None,
        }
    }
}

impl Value for PartitionChangeRecord {
    const MIN_BYTES: usize = 21;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.partition_id.write(version, out);
        self.topic_id.write(version, out);
        let mut tags = TagWriter::default();
        if self.isr.is_some() { tags.put(0, version, &self.isr); }
        if self.leader != -2 { tags.put(1, version, &self.leader); }
        if self.replicas.is_some() { tags.put(2, version, &self.replicas); }
        if self.removing_replicas.is_some() { tags.put(3, version, &self.removing_replicas); }
        if self.adding_replicas.is_some() { tags.put(4, version, &self.adding_replicas); }
        if self.leader_recovery_state != -1 { tags.put(5, version, &self.leader_recovery_state); }
        if version >= 2 && self.eligible_leader_replicas.is_some() { tags.put(6, version, &self.eligible_leader_replicas); }
        if version >= 2 && self.last_known_elr.is_some() { tags.put(7, version, &self.last_known_elr); }
        if version >= 1 && self.directories.is_some() { tags.put(8, version, &self.directories); }
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.partition_id = Value::read(version, bytes)?;
        record.topic_id = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while let Some((tag, mut content)) = tags.next(bytes)? {
            match tag {
                0 => record.isr = read_whole(version, &mut content)?,
                1 => record.leader = read_whole(version, &mut content)?,
                2 => record.replicas = read_whole(version, &mut content)?,
                3 => record.removing_replicas = read_whole(version, &mut content)?,
                4 => record.adding_replicas = read_whole(version, &mut content)?,
                5 => record.leader_recovery_state = read_whole(version, &mut content)?,
                6 if version >= 2 => record.eligible_leader_replicas = read_whole(version, &mut content)?,
                7 if version >= 2 => record.last_known_elr = read_whole(version, &mut content)?,
                8 if version >= 1 => record.directories = read_whole(version, &mut content)?,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// Metadata record type 9, version 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoveTopicRecord {
    /// `TopicId`, uuid, every version.
    pub topic_id: Uuid,
}

impl Value for RemoveTopicRecord {
    const MIN_BYTES: usize = 17;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.topic_id.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.topic_id = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 12, version 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureLevelRecord {
    /// `Name`, string, every version.
    pub name: String,
    /// `FeatureLevel`, int16, every version.
    pub feature_level: i16,
}

impl Value for FeatureLevelRecord {
    const MIN_BYTES: usize = 4;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.name.write(version, out);
        self.feature_level.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.name = Value::read(version, bytes)?;
        record.feature_level = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 15, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerIdsRecord {
    /// `BrokerId`, int32, every version.
    pub broker_id: i32,
    /// `BrokerEpoch`, int64, every version.
    pub broker_epoch: i64,
    /// `NextProducerId`, int64, every version.
    pub next_producer_id: i64,
}

impl Default for ProducerIdsRecord {
    fn default() -> Self {
        Self {
            broker_id: 0,
            broker_epoch: -1,
            next_producer_id: 0,
        }
    }
}

impl Value for ProducerIdsRecord {
    const MIN_BYTES: usize = 21;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.broker_id.write(version, out);
        self.broker_epoch.write(version, out);
        self.next_producer_id.write(version, out);
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.broker_id = Value::read(version, bytes)?;
        record.broker_epoch = Value::read(version, bytes)?;
        record.next_producer_id = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}

/// Metadata record type 17, versions 0 to 3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerRegistrationChangeRecord {
    /// `BrokerId`, int32, every version.
    pub broker_id: i32,
    /// `BrokerEpoch`, int64, every version.
    pub broker_epoch: i64,
    /// `Fenced`, int8, every version, tag 0.
    pub fenced: i8,
    /// `InControlledShutdown`, int8, from version 1, tag 1.
    pub in_controlled_shutdown: i8,
    /// `LogDirs`, []uuid, from version 2, tag 2.
    pub log_dirs: Vec<Uuid>,
    /// `CordonedLogDirs`, []uuid, nullable, from version 3, tag 3.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl Value for BrokerRegistrationChangeRecord {
    const MIN_BYTES: usize = 13;

    fn write(&self, version: i16, out: &mut BytesMut) {
        self.broker_id.write(version, out);
        self.broker_epoch.write(version, out);
        let mut tags = TagWriter::default();
        if self.fenced != 0 { tags.put(0, version, &self.fenced); }
        if version >= 1 && self.in_controlled_shutdown != 0 { tags.put(1, version, &self.in_controlled_shutdown); }
        if version >= 2 && !self.log_dirs.is_empty() { tags.put(2, version, &self.log_dirs); }
        if version >= 3 && self.cordoned_log_dirs.is_some() { tags.put(3, version, &self.cordoned_log_dirs); }
        tags.finish(out);
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut record = Self::default();
        record.broker_id = Value::read(version, bytes)?;
        record.broker_epoch = Value::read(version, bytes)?;
        let mut tags = bytes.tags()?;
        while let Some((tag, mut content)) = tags.next(bytes)? {
            match tag {
                0 => record.fenced = read_whole(version, &mut content)?,
                1 if version >= 1 => record.in_controlled_shutdown = read_whole(version, &mut content)?,
                2 if version >= 2 => record.log_dirs = read_whole(version, &mut content)?,
                3 if version >= 3 => record.cordoned_log_dirs = read_whole(version, &mut content)?,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// Metadata record type 20, version 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoOpRecord {}

impl Value for NoOpRecord {
    const MIN_BYTES: usize = 1;

    fn write(&self, _: i16, out: &mut BytesMut) {
        let tags = TagWriter::default();
        tags.finish(out);
    }

    fn read(_: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let record = Self::default();
        let mut tags = bytes.tags()?;
        while tags.next(bytes)?.is_some() {}
        Ok(record)
    }
}
