//! Plans to requests, answers to events.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use klamm_wire::messages::fetch_response::PartitionData;
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use klamm_wire::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use klamm_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use super::event::{
    Aborted, EndOfEpoch, EpochLookup, FetchAnswer, FetchPlan, FetchSettings, FetchTarget, FetchedPartition,
    Isolation, ListedOffset, Lookup, Watermarks,
};
use crate::TopicPartition;

impl Isolation {
    /// The byte on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

fn topic_name(name: &Arc<str>) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

fn failure(code: i16) -> Option<ErrorCode> {
    (code != ErrorCode::NONE.0).then_some(ErrorCode(code))
}

impl FetchPlan {
    /// The request. Topics carry both name and id; the version decides which one is sent.
    pub fn request(&self, settings: &FetchSettings) -> FetchRequest {
        let max_wait_ms = i32::try_from(self.max_wait.as_millis()).unwrap_or(i32::MAX);
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(settings.min_bytes)
            .with_max_bytes(self.max_bytes)
            .with_isolation_level(settings.isolation.code())
            .with_rack_id(StrBytes::from_string(if self.near {
                settings.rack.clone()
            } else {
                String::new()
            }))
            .with_session_id(self.session_id)
            .with_session_epoch(self.session_epoch)
            .with_topics(self.topics(settings.max_partition_bytes))
            .with_forgotten_topics_data(self.forgotten_topics())
    }

    /// Partitions keep their order; those of one topic that follow each other share an entry.
    fn topics(&self, max_partition_bytes: i32) -> Vec<FetchTopic> {
        let mut topics: Vec<(&FetchTarget, Vec<FetchPartition>)> = Vec::new();
        for target in &self.partitions {
            let partition = FetchPartition::default()
                .with_partition(target.partition.partition)
                .with_current_leader_epoch(target.leader_epoch)
                .with_fetch_offset(target.offset)
                .with_partition_max_bytes(max_partition_bytes);
            match topics.last_mut() {
                Some((first, partitions)) if first.partition.topic == target.partition.topic => {
                    partitions.push(partition);
                }
                _ => topics.push((target, vec![partition])),
            }
        }
        let entry = |(first, partitions): (&FetchTarget, _)| {
            FetchTopic::default()
                .with_topic(topic_name(&first.partition.topic))
                .with_topic_id(first.topic_id)
                .with_partitions(partitions)
        };
        topics.into_iter().map(entry).collect()
    }

    fn forgotten_topics(&self) -> Vec<ForgottenTopic> {
        let mut topics: BTreeMap<(&Arc<str>, Uuid), Vec<i32>> = BTreeMap::new();
        for (partition, id) in &self.forgotten {
            topics.entry((&partition.topic, *id)).or_default().push(partition.partition);
        }
        let entry = |((topic, id), partitions)| {
            ForgottenTopic::default()
                .with_topic(topic_name(topic))
                .with_topic_id(id)
                .with_partitions(partitions)
        };
        topics.into_iter().map(entry).collect()
    }
}

impl From<FetchResponse> for FetchAnswer {
    fn from(response: FetchResponse) -> Self {
        let mut partitions = Vec::new();
        for topic in response.responses {
            let name = topic.topic.to_string();
            partitions.extend(topic.partitions.into_iter().map(|p| fetched(&name, topic.topic_id, p)));
        }
        Self { error: failure(response.error_code), session_id: response.session_id, partitions }
    }
}

fn fetched(topic: &str, topic_id: Uuid, data: PartitionData) -> FetchedPartition {
    let leader = data.current_leader;
    let aborted = data.aborted_transactions.unwrap_or_default();
    let told = |offset: i64| Some(offset).filter(|offset| *offset >= 0);
    let watermarks = told(data.high_watermark).map(|high| Watermarks {
        low: told(data.log_start_offset),
        high,
        last_stable: told(data.last_stable_offset),
    });
    FetchedPartition {
        topic: topic.to_owned(),
        topic_id,
        partition: data.partition_index,
        error: failure(data.error_code),
        current_leader: (leader.leader_id.0 >= 0).then_some((leader.leader_id.0, leader.leader_epoch)),
        preferred_replica: Some(data.preferred_read_replica.0).filter(|broker| *broker >= 0),
        watermarks: watermarks.filter(|_| data.error_code == ErrorCode::NONE.0),
        aborted: aborted
            .into_iter()
            .map(|t| Aborted { producer_id: t.producer_id.0, first_offset: t.first_offset })
            .collect(),
        records: data.records.unwrap_or_default(),
    }
}

/// The ListOffsets request for `partitions`.
pub fn list_offsets_request(
    partitions: &[Lookup],
    isolation: Isolation,
    timeout_ms: i32,
) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for lookup in partitions {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(lookup.partition.partition)
            .with_current_leader_epoch(lookup.leader_epoch)
            .with_timestamp(lookup.timestamp);
        topics.entry(&lookup.partition.topic).or_default().push(partition);
    }
    let topic = |(name, partitions)| {
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation.code())
        .with_timeout_ms(timeout_ms)
        .with_topics(topics.into_iter().map(topic).collect())
}

/// The offsets in a ListOffsets response.
pub fn listed_offsets(response: ListOffsetsResponse) -> Vec<ListedOffset> {
    let mut offsets = Vec::new();
    for topic in response.topics {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        offsets.extend(topic.partitions.into_iter().map(|partition| ListedOffset {
            partition: TopicPartition { topic: name.clone(), partition: partition.partition_index },
            error: ErrorCode(partition.error_code),
            offset: partition.offset,
            timestamp_ms: partition.timestamp,
            leader_epoch: partition.leader_epoch,
        }));
    }
    offsets
}

/// The OffsetForLeaderEpoch request for `partitions`.
pub fn ends_of_epochs_request(partitions: &[EpochLookup]) -> OffsetForLeaderEpochRequest {
    let mut topics: BTreeMap<&Arc<str>, Vec<OffsetForLeaderPartition>> = BTreeMap::new();
    for lookup in partitions {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(lookup.partition.partition)
            .with_current_leader_epoch(lookup.leader_epoch)
            .with_leader_epoch(lookup.epoch);
        topics.entry(&lookup.partition.topic).or_default().push(partition);
    }
    let topic = |(name, partitions)| {
        OffsetForLeaderTopic::default().with_topic(topic_name(name)).with_partitions(partitions)
    };
    OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(topics.into_iter().map(topic).collect())
}

/// What an OffsetForLeaderEpoch response says.
pub fn ends_of_epochs(response: OffsetForLeaderEpochResponse) -> Vec<EndOfEpoch> {
    let mut ends = Vec::new();
    for topic in response.topics {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        ends.extend(topic.partitions.into_iter().map(|partition| EndOfEpoch {
            partition: TopicPartition { topic: name.clone(), partition: partition.partition },
            error: ErrorCode(partition.error_code),
            epoch: partition.leader_epoch,
            end: partition.end_offset,
        }));
    }
    ends
}
