//! Vote (52): versions 0 to 2; between voters.

use std::sync::Arc;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::quorum::{Head, Request as Asked, Response, Vote};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_request};
use klamm_wire::messages::vote_request::{PartitionData, TopicData};
use klamm_wire::messages::{BrokerId, VoteRequest, VoteResponse, vote_response};
use klamm_wire::seam::Frame;

use super::quorum::{head, leader_endpoint, leader_id, misdirected, only, topic};
use super::{Handled, now, reply_when_durable, text};
use crate::cluster_id::ClusterId;
use crate::controller::{Answered, ControllerNode};

const VERSION: i16 = 2;

pub(super) fn request(cluster_id: &ClusterId, to: i32, vote: &Vote) -> Result<Frame, CodecError> {
    let partition = PartitionData::default()
        .with_partition_index(0)
        .with_replica_epoch(vote.epoch)
        .with_replica_id(BrokerId(vote.candidate))
        .with_last_offset_epoch(vote.last_epoch)
        .with_last_offset(vote.last_offset)
        .with_pre_vote(vote.pre_vote);
    let topic = TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
    let request = VoteRequest::default()
        .with_cluster_id(cluster_id.field())
        .with_voter_id(BrokerId(to))
        .with_topics(vec![topic]);
    encode_request(VERSION, &request)
}

pub(super) fn response(frame: Frame) -> Result<Answered, CodecError> {
    let answer = decode_response::<VoteRequest>(frame)?;
    let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let granted = found.is_some_and(|found| found.vote_granted);
    let head =
        head(answer.error_code, found.map(|found| (found.error_code, found.leader_id, found.leader_epoch)));
    Ok(Response::Vote { head, granted })
}

/// At a voter.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<VoteRequest>(frame)?;
    let refused =
        |code: ErrorCode| now::<VoteRequest>(version, &VoteResponse::default().with_error_code(code.0));
    if !controller.seat.cluster_id.fits(request.cluster_id.as_deref()) {
        return refused(ErrorCode::INCONSISTENT_CLUSTER_ID);
    }
    let topic = only(&request.topics).filter(|topic| &**topic.topic_name == METADATA_TOPIC);
    let partition = topic.and_then(|topic| only(&topic.partitions));
    let Some(asked) = partition.filter(|partition| partition.partition_index == 0) else {
        return refused(ErrorCode::INVALID_REQUEST);
    };
    let voter = if version >= 1 { request.voter_id.0 } else { -1 };
    if let Some(head) = misdirected(controller, voter, asked.replica_epoch) {
        return now::<VoteRequest>(version, &answer(controller, version, &head, false));
    }
    let vote = Vote {
        epoch: asked.replica_epoch,
        candidate: asked.replica_id.0,
        last_epoch: asked.last_offset_epoch,
        last_offset: asked.last_offset,
        pre_vote: version >= 2 && asked.pre_vote,
    };
    reply_when_durable::<VoteRequest>(controller, version, &Asked::Vote(vote), |answered| {
        let granted = matches!(answered, Response::Vote { granted: true, .. });
        answer(controller, version, answered.head(), granted)
    })
}

fn answer(controller: &ControllerNode, version: i16, head: &Head, granted: bool) -> VoteResponse {
    let partition = vote_response::PartitionData::default()
        .with_error_code(head.error.0)
        .with_leader_id(leader_id(head))
        .with_leader_epoch(head.epoch)
        .with_vote_granted(granted);
    let topic = vote_response::TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
    let endpoint = leader_endpoint(controller, head).filter(|_| version >= 1).map(|(leader, at)| {
        let endpoint = vote_response::NodeEndpoint::default().with_node_id(leader);
        endpoint.with_host(text(&at.host)).with_port(at.port)
    });
    VoteResponse::default().with_topics(vec![topic]).with_node_endpoints(endpoint.into_iter().collect())
}
