//! EndQuorumEpoch (54): versions 0 and 1; between voters.

use std::sync::Arc;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::quorum::{Request as Asked, Response};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_request};
use klamm_wire::messages::end_quorum_epoch_request::{PartitionData, ReplicaInfo, TopicData};
use klamm_wire::messages::{BrokerId, EndQuorumEpochRequest, EndQuorumEpochResponse};
use klamm_wire::seam::Frame;

use super::quorum::{epoch_answer, head, only, topic};
use super::{Handled, now, reply_when_durable};
use crate::cluster_id::ClusterId;
use crate::controller::{Answered, ControllerNode};

const VERSION: i16 = 1;

pub(super) fn request(
    cluster_id: &ClusterId,
    leader: i32,
    epoch: i32,
    successors: &[i32],
) -> Result<Frame, CodecError> {
    let candidate = |id: &i32| ReplicaInfo::default().with_candidate_id(BrokerId(*id));
    let partition = PartitionData::default()
        .with_leader_id(BrokerId(leader))
        .with_leader_epoch(epoch)
        .with_preferred_candidates(successors.iter().map(candidate).collect());
    let topic = TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
    let request =
        EndQuorumEpochRequest::default().with_cluster_id(cluster_id.field()).with_topics(vec![topic]);
    encode_request(VERSION, &request)
}

pub(super) fn response(frame: Frame) -> Result<Answered, CodecError> {
    let answer = decode_response::<EndQuorumEpochRequest>(frame)?;
    let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let inner = found.map(|found| (found.error_code, found.leader_id, found.leader_epoch));
    Ok(Response::Epoch(head(answer.error_code, inner)))
}

/// At a voter.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<EndQuorumEpochRequest>(frame)?;
    let refused = |code: ErrorCode| {
        now::<EndQuorumEpochRequest>(version, &EndQuorumEpochResponse::default().with_error_code(code.0))
    };
    if !controller.seat.cluster_id.fits(request.cluster_id.as_deref()) {
        return refused(ErrorCode::INCONSISTENT_CLUSTER_ID);
    }
    let topic = only(&request.topics).filter(|topic| &**topic.topic_name == METADATA_TOPIC);
    let partition = topic.and_then(|topic| only(&topic.partitions));
    let Some(told) = partition.filter(|partition| partition.partition_index == 0) else {
        return refused(ErrorCode::INVALID_REQUEST);
    };
    let successors = match version {
        0 => told.preferred_successors.clone(),
        _ => told.preferred_candidates.iter().map(|info| info.candidate_id.0).collect(),
    };
    let told = Asked::EndEpoch { leader: told.leader_id.0, epoch: told.leader_epoch, successors };
    reply_when_durable::<EndQuorumEpochRequest>(controller, version, &told, |answered| {
        answer(controller, version, answered.head())
    })
}

epoch_answer!(EndQuorumEpochResponse, end_quorum_epoch_response);
