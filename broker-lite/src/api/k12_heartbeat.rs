//! Heartbeat (12): versions 0 to 4.

use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::{HeartbeatRequest, HeartbeatResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups};
use crate::broker::Broker;

/// Answers at once. While the coordinator is still loading, every heartbeat is a good one, as with Kafka.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<HeartbeatRequest>(frame)?;
    let asked = broker.groups.ask(broker, &request.group_id, |coordinator, turn, to| {
        coordinator.heartbeat(turn, to, &request);
    });
    groups::answer::<HeartbeatRequest>(version, asked, |response| {
        let code = match response {
            Response::Heartbeat(code) => code,
            Response::Failed(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => ErrorCode::NONE,
            other => groups::failure(&other),
        };
        HeartbeatResponse::default().with_error_code(code.0)
    })
}
