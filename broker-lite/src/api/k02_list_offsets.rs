//! ListOffsets (2): versions 1 to 11.

use std::sync::Arc;

use broker_lite_core::replica::{FoundOffset, OffsetAt};
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::ListOffsetsRequest;
use klamm_wire::messages::list_offsets_request::ListOffsetsPartition;
use klamm_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use klamm_wire::seam::Frame;

use super::{Handled, now};
use crate::broker::{Broker, TopicRef};

/// Answers from the leader's log.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<ListOffsetsRequest>(frame)?;
    let as_replica = request.replica_id.0 >= 0;
    let topics = request.topics.into_iter().map(|topic| {
        let find = |wanted: &ListOffsetsPartition| {
            let found = find(broker, &topic.name, wanted, as_replica);
            let code = found.err().unwrap_or(ErrorCode::NONE);
            let found = found.unwrap_or(FoundOffset::NONE);
            ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code.0)
                .with_timestamp(found.timestamp)
                .with_offset(found.offset)
                .with_leader_epoch(if version >= 4 { found.leader_epoch } else { -1 })
        };
        let partitions = topic.partitions.iter().map(find).collect();
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    now::<ListOffsetsRequest>(version, &ListOffsetsResponse::default().with_topics(topics.collect()))
}

fn find(
    broker: &Broker,
    topic: &str,
    wanted: &ListOffsetsPartition,
    as_replica: bool,
) -> Result<FoundOffset, ErrorCode> {
    let at = OffsetAt::from_wire(wanted.timestamp).ok_or(ErrorCode::INVALID_REQUEST)?;
    let partition = broker.partition(TopicRef::Name(topic), wanted.partition_index)?;
    let epoch = (wanted.current_leader_epoch >= 0).then_some(wanted.current_leader_epoch);
    let found = partition.look(|replica| replica.list_offset(at, epoch, as_replica));
    found.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
}
