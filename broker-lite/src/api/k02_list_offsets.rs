//! ListOffsets (2): versions 1 to 11.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_lite_core::replica::{FoundOffset, ListedBy, OffsetAt};
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use klamm_wire::messages::{ListOffsetsRequest, TopicName};
use klamm_wire::seam::Frame;

use super::{Handled, now};
use crate::broker::{Broker, TopicRef};

/// All transactions, or only those that are committed.
const ISOLATION_LEVELS: std::ops::RangeInclusive<i8> = 0..=1;
/// First version that knows OFFSET_NOT_AVAILABLE (KIP-207).
const NOT_AVAILABLE: i16 = 5;
/// Special timestamps with the version that introduced each: largest timestamp, earliest local, latest tiered,
/// earliest pending upload.
const SPECIAL: &[(i64, i16)] = &[(-3, 7), (-4, 8), (-5, 9), (-6, 11)];

/// Answers from the leader's log.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<ListOffsetsRequest>(frame)?;
    let by = ListedBy::from_wire(request.replica_id.0);
    let twice = named_twice(&request);
    let refused = !ISOLATION_LEVELS.contains(&request.isolation_level);
    let topics = each_topic_once(request.topics).into_iter().map(|topic| {
        let find = |wanted: &ListOffsetsPartition| {
            let found = match twice.contains(&(topic.name.clone(), wanted.partition_index)) {
                _ if refused => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
                true => Err(ErrorCode::INVALID_REQUEST),
                false => find(broker, version, &topic.name, wanted, by),
            };
            let code = match found.err().unwrap_or(ErrorCode::NONE) {
                ErrorCode::OFFSET_NOT_AVAILABLE if version < NOT_AVAILABLE => ErrorCode::LEADER_NOT_AVAILABLE,
                code => code,
            };
            let found = found.unwrap_or(FoundOffset::NONE);
            ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code.0)
                .with_timestamp(found.timestamp)
                .with_offset(found.offset)
                .with_leader_epoch(if version >= 4 { found.leader_epoch } else { -1 })
        };
        let mut seen = BTreeSet::new();
        let each = topic.partitions.iter().filter(|wanted| seen.insert(wanted.partition_index));
        let partitions = each.map(find).collect();
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    now::<ListOffsetsRequest>(version, &ListOffsetsResponse::default().with_topics(topics.collect()))
}

/// Brings together what is asked of one topic, and leaves out topics of which nothing is.
fn each_topic_once(topics: Vec<ListOffsetsTopic>) -> Vec<ListOffsetsTopic> {
    let mut places = BTreeMap::new();
    let mut once: Vec<ListOffsetsTopic> = Vec::with_capacity(topics.len());
    for topic in topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let place = *places.entry(topic.name.clone()).or_insert(once.len());
        match once.get_mut(place) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => once.push(topic),
        }
    }
    once
}

/// Partitions that are asked for more than once.
fn named_twice(request: &ListOffsetsRequest) -> BTreeSet<(TopicName, i32)> {
    let mut seen = BTreeSet::new();
    let named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.clone(), partition.partition_index))
    });
    named.filter(|named| !seen.insert(named.clone())).collect()
}

fn find(
    broker: &Broker,
    version: i16,
    topic: &str,
    wanted: &ListOffsetsPartition,
    by: ListedBy,
) -> Result<FoundOffset, ErrorCode> {
    let known_from = SPECIAL.iter().find(|(timestamp, _)| *timestamp == wanted.timestamp);
    if known_from.is_some_and(|(_, first)| version < *first) {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    let at = OffsetAt::from_wire(wanted.timestamp).ok_or(ErrorCode::UNSUPPORTED_VERSION)?;
    let partition = broker.partition(TopicRef::Name(topic), wanted.partition_index)?;
    let epoch = (wanted.current_leader_epoch != -1).then_some(wanted.current_leader_epoch);
    let found = partition.look(|replica| replica.list_offset(at, epoch, by));
    found.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
}
