//! BeginQuorumEpoch (53): versions 0 and 1; between voters.

use std::sync::Arc;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::quorum::{Request as Asked, Response};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_request};
use klamm_wire::messages::begin_quorum_epoch_request::{PartitionData, TopicData};
use klamm_wire::messages::{BeginQuorumEpochRequest, BeginQuorumEpochResponse, BrokerId};
use klamm_wire::seam::Frame;

use super::quorum::{epoch_answer, head, misdirected, only, topic};
use super::{Handled, now, reply_when_durable};
use crate::cluster_id::ClusterId;
use crate::controller::{Answered, ControllerNode};

const VERSION: i16 = 1;

pub(super) fn request(cluster_id: &ClusterId, to: i32, leader: i32, epoch: i32) -> Result<Frame, CodecError> {
    let partition = PartitionData::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
    let topic = TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
    let request = BeginQuorumEpochRequest::default()
        .with_cluster_id(cluster_id.field())
        .with_voter_id(BrokerId(to))
        .with_topics(vec![topic]);
    encode_request(VERSION, &request)
}

pub(super) fn response(frame: Frame) -> Result<Answered, CodecError> {
    let answer = decode_response::<BeginQuorumEpochRequest>(frame)?;
    let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let inner = found.map(|found| (found.error_code, found.leader_id, found.leader_epoch));
    Ok(Response::Epoch(head(answer.error_code, inner)))
}

/// At a voter.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<BeginQuorumEpochRequest>(frame)?;
    let refused = |code: ErrorCode| {
        now::<BeginQuorumEpochRequest>(version, &BeginQuorumEpochResponse::default().with_error_code(code.0))
    };
    if !controller.seat.cluster_id.fits(request.cluster_id.as_deref()) {
        return refused(ErrorCode::INCONSISTENT_CLUSTER_ID);
    }
    let topic = only(&request.topics).filter(|topic| &**topic.topic_name == METADATA_TOPIC);
    let partition = topic.and_then(|topic| only(&topic.partitions));
    let Some(told) = partition.filter(|partition| partition.partition_index == 0) else {
        return refused(ErrorCode::INVALID_REQUEST);
    };
    let voter = if version >= 1 { request.voter_id.0 } else { -1 };
    if let Some(head) = misdirected(controller, voter, told.leader_epoch) {
        return now::<BeginQuorumEpochRequest>(version, &answer(controller, version, &head));
    }
    let told = Asked::BeginEpoch { leader: told.leader_id.0, epoch: told.leader_epoch };
    reply_when_durable::<BeginQuorumEpochRequest>(controller, version, &told, |answered| {
        answer(controller, version, answered.head())
    })
}

epoch_answer!(BeginQuorumEpochResponse, begin_quorum_epoch_response);
