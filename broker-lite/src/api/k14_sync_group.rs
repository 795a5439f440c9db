//! SyncGroup (14): versions 0 to 5. The answer waits until the assignment is replicated.

use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::{SyncGroupRequest, SyncGroupResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups, now};
use crate::broker::Broker;

/// First version that has to say which protocol it means (KIP-559).
const NAMES_PROTOCOL: i16 = 5;

/// Hands in the assignment, or asks for it.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<SyncGroupRequest>(frame)?;
    let refused = |code: ErrorCode| SyncGroupResponse::default().with_error_code(code.0);
    let named = request.protocol_type.is_some() && request.protocol_name.is_some();
    if version >= NAMES_PROTOCOL && !named {
        return now::<SyncGroupRequest>(version, &refused(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
    }
    let asked = broker.groups.ask(broker, &request.group_id, |coordinator, turn, to| {
        coordinator.sync(turn, to, &request);
    });
    groups::answer::<SyncGroupRequest>(version, asked, move |response| match response {
        Response::Sync(response) => response,
        other => refused(groups::failure(&other)),
    })
}
