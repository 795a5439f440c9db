//! OffsetForLeaderEpoch (23): versions 2 to 4.

use std::sync::Arc;

use broker_lite_core::replica::EpochEnd;
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use klamm_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use klamm_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use klamm_wire::seam::Frame;

use super::{Handled, now};
use crate::broker::{Broker, TopicRef};

/// Answers from the leader's epochs.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<OffsetForLeaderEpochRequest>(frame)?;
    let topics = request.topics.into_iter().map(|topic| {
        let answer = |wanted: &OffsetForLeaderPartition| {
            let end = end_of(broker, &topic.topic, wanted);
            let code = end.err().unwrap_or(ErrorCode::NONE);
            let end = end.unwrap_or(EpochEnd { epoch: -1, end_offset: -1 });
            EpochEndOffset::default()
                .with_error_code(code.0)
                .with_partition(wanted.partition)
                .with_leader_epoch(end.epoch)
                .with_end_offset(end.end_offset)
        };
        let partitions = topic.partitions.iter().map(answer).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    let response = OffsetForLeaderEpochResponse::default().with_topics(topics.collect());
    now::<OffsetForLeaderEpochRequest>(version, &response)
}

fn end_of(broker: &Broker, topic: &str, wanted: &OffsetForLeaderPartition) -> Result<EpochEnd, ErrorCode> {
    let partition = broker.partition(TopicRef::Name(topic), wanted.partition)?;
    let epoch = (wanted.current_leader_epoch != -1).then_some(wanted.current_leader_epoch);
    let end = partition.look(|replica| replica.offset_for_leader_epoch(epoch, wanted.leader_epoch));
    end.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
}
