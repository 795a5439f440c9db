//! DescribeQuorum (55): versions 0 to 2; the leader of the quorum answers it, brokers pass it on.

use std::sync::Arc;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::quorum::{Described, Progress};
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use klamm_wire::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_wire::seam::Frame;

use super::quorum::topic;
use super::{Handled, forward as pass_on, now, text};
use crate::broker::{Broker, CONTROLLER_LISTENER};
use crate::controller::ControllerNode;
use crate::node::Party;

/// At a controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeQuorumRequest>(frame)?;
    let one = match &request.topics[..] {
        [topic] => &**topic.topic_name == METADATA_TOPIC && topic.partitions.len() == 1,
        _ => false,
    };
    let asked = request.topics.iter().flat_map(|topic| &topic.partitions).next();
    if !one || asked.is_none_or(|asked| asked.partition_index != 0) {
        let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        return now::<DescribeQuorumRequest>(version, &unknown(version, &request, code));
    }
    let response = match controller.describe() {
        Ok(described) => told(version, &described, |id| listeners(controller, id)),
        Err(head) => refused(version, head.error),
    };
    now::<DescribeQuorumRequest>(version, &response)
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    decode_request::<DescribeQuorumRequest>(frame.clone())?;
    pass_on(broker, frame, |_, _| Box::pin(async {}))
}

fn refused(version: i16, error: ErrorCode) -> DescribeQuorumResponse {
    let response = DescribeQuorumResponse::default().with_error_code(error.0);
    if version < 2 { response } else { response.with_error_message(Some(text("this voter does not lead"))) }
}

/// Where a voter listens; a controller without a port of its own listens nowhere.
fn listeners(controller: &ControllerNode, voter: i32) -> Vec<Listener> {
    let endpoint =
        controller.seat.network.remotes().and_then(|remotes| remotes.endpoint(&Party::Controller(voter)));
    let listener = endpoint.map(|endpoint| {
        let listener =
            Listener::default().with_name(text(CONTROLLER_LISTENER)).with_host(text(&endpoint.host));
        listener.with_port(endpoint.port)
    });
    listener.into_iter().collect()
}

fn unknown(version: i16, request: &DescribeQuorumRequest, error: ErrorCode) -> DescribeQuorumResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let answer = PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.0);
            if version < 2 {
                return answer;
            }
            let reason =
                format!("partition 0 of {METADATA_TOPIC} alone has a quorum: ask for it, and nothing else");
            answer.with_error_message(Some(text(&reason)))
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn told(
    version: i16,
    described: &Described,
    listeners: impl Fn(i32) -> Vec<Listener>,
) -> DescribeQuorumResponse {
    let states = |replicas: &[(i32, Progress)]| {
        let state = |(id, progress): &(i32, Progress)| {
            let state =
                ReplicaState::default().with_replica_id(BrokerId(*id)).with_log_end_offset(progress.end);
            if version == 0 {
                return state;
            }
            state
                .with_last_fetch_timestamp(progress.fetched.map_or(-1, |fetched| fetched.wall_ms))
                .with_last_caught_up_timestamp(progress.caught_up_ms)
        };
        replicas.iter().map(state).collect::<Vec<_>>()
    };
    let partition = PartitionData::default()
        .with_leader_id(BrokerId(described.leader))
        .with_leader_epoch(described.epoch)
        .with_high_watermark(described.high_watermark)
        .with_current_voters(states(&described.voters))
        .with_observers(states(&described.observers));
    let topic = TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
    let response = DescribeQuorumResponse::default().with_topics(vec![topic]);
    if version < 2 {
        return response;
    }
    let nodes = described
        .voters
        .iter()
        .map(|(id, _)| Node::default().with_node_id(BrokerId(*id)).with_listeners(listeners(*id)));
    response.with_nodes(nodes.collect())
}
