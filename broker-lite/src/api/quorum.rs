//! The quorum's requests between voters: from the machine's terms to Kafka's messages, and back.

use std::time::Duration;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::quorum::{Head, Request};
use klamm_wire::ErrorCode;
use klamm_wire::codec::CodecError;
use klamm_wire::messages::{BrokerId, TopicName};
use klamm_wire::seam::{Endpoint, Frame};

use super::{k01_fetch, k52_vote, k53_begin_quorum_epoch, k54_end_quorum_epoch, k59_fetch_snapshot, text};
use crate::controller::{Answered, ControllerNode, Seat};
use crate::node::Party;

/// The request as a frame. `wait` is how long a Fetch may be held where there is nothing new.
pub(crate) fn encode_request(
    seat: &Seat,
    request: &Request,
    to: i32,
    wait: Duration,
) -> Result<Frame, CodecError> {
    match request {
        Request::Vote(vote) => k52_vote::request(&seat.cluster_id, to, vote),
        Request::BeginEpoch { leader, epoch } => {
            k53_begin_quorum_epoch::request(&seat.cluster_id, to, *leader, *epoch)
        }
        Request::EndEpoch { leader, epoch, successors } => {
            k54_end_quorum_epoch::request(&seat.cluster_id, *leader, *epoch, successors)
        }
        Request::Fetch(fetch) => k01_fetch::metadata::request(seat, fetch, wait),
        Request::FetchSnapshot { epoch, id, position } => {
            let asker = k59_fetch_snapshot::Asker::Voter(seat.id);
            k59_fetch_snapshot::request(&seat.cluster_id, asker, *epoch, *id, *position)
        }
    }
}

/// The answer to `request`.
pub(crate) fn decode_response(request: &Request, frame: Frame) -> Result<Answered, CodecError> {
    match request {
        Request::Vote(_) => k52_vote::response(frame),
        Request::BeginEpoch { .. } => k53_begin_quorum_epoch::response(frame),
        Request::EndEpoch { .. } => k54_end_quorum_epoch::response(frame),
        Request::Fetch(_) => k01_fetch::metadata::response(frame),
        Request::FetchSnapshot { .. } => k59_fetch_snapshot::response(frame),
    }
}

/// What an answer says of the quorum, where one of its errors stands at the top and one in the partition.
pub(super) fn head(top: i16, inner: Option<(i16, BrokerId, i32)>) -> Head {
    let Some((code, leader, epoch)) = inner else {
        let error = if top == 0 { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION } else { ErrorCode(top) };
        return Head { error, leader: None, epoch: -1 };
    };
    let error = if top == 0 { code } else { top };
    Head { error: ErrorCode(error), leader: Some(leader.0).filter(|id| *id >= 0), epoch }
}

pub(super) fn leader_id(head: &Head) -> BrokerId {
    BrokerId(head.leader.unwrap_or(-1))
}

pub(super) fn topic() -> TopicName {
    TopicName(text(METADATA_TOPIC))
}

/// Where the leader listens, as far as this voter knows it.
pub(super) fn leader_endpoint(controller: &ControllerNode, head: &Head) -> Option<(BrokerId, Endpoint)> {
    let leader = head.leader?;
    let endpoint = controller.seat.network.remotes()?.endpoint(&Party::Controller(leader))?;
    Some((BrokerId(leader), endpoint))
}

/// `answer`, for the two requests about epochs, whose answers have the same fields in types of their own.
macro_rules! epoch_answer {
    ($answer:ident, $parts:ident) => {
        fn answer(
            controller: &ControllerNode,
            version: i16,
            head: &broker_lite_core::quorum::Head,
        ) -> $answer {
            use klamm_wire::messages::$parts::{NodeEndpoint, PartitionData, TopicData};
            let partition = PartitionData::default()
                .with_error_code(head.error.0)
                .with_leader_id($crate::api::quorum::leader_id(head))
                .with_leader_epoch(head.epoch);
            let topic = TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
            let leader = $crate::api::quorum::leader_endpoint(controller, head).filter(|_| version >= 1);
            let endpoint = leader.map(|(leader, at)| {
                let endpoint = NodeEndpoint::default().with_node_id(leader);
                endpoint.with_host($crate::api::text(&at.host)).with_port(at.port)
            });
            $answer::default().with_topics(vec![topic]).with_node_endpoints(endpoint.into_iter().collect())
        }
    };
}
pub(super) use epoch_answer;

/// The one element of a list that may have no other.
pub(super) fn only<T>(list: &[T]) -> Option<&T> {
    match list {
        [one] => Some(one),
        _ => None,
    }
}

/// What this voter knows of the quorum, with an error.
pub(super) fn head_with(controller: &ControllerNode, error: ErrorCode) -> Head {
    match controller.describe() {
        Ok(described) => Head { error, leader: Some(described.leader), epoch: described.epoch },
        Err(head) => Head { error, ..head },
    }
}

/// The answer to what was meant for another voter: -1 means whoever gets it.
pub(super) fn misdirected(controller: &ControllerNode, voter: i32, epoch: i32) -> Option<Head> {
    if voter < 0 || voter == controller.seat.id {
        return None;
    }
    let head = head_with(controller, ErrorCode::INVALID_VOTER_KEY);
    let error = if epoch < head.epoch { ErrorCode::FENCED_LEADER_EPOCH } else { head.error };
    Some(Head { error, ..head })
}
