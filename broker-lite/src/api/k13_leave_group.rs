//! LeaveGroup (13): versions 0 to 5; one member, or several from version 3 on.

use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::messages::{LeaveGroupRequest, LeaveGroupResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups};
use crate::broker::Broker;

/// First version that names several.
const BATCHED: i16 = 3;

/// Leaves at once.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let mut request = decode_request::<LeaveGroupRequest>(frame)?;
    if version < BATCHED {
        request.members = vec![MemberIdentity::default().with_member_id(request.member_id.clone())];
    }
    let asked = broker.groups.ask(broker, &request.group_id, |coordinator, turn, to| {
        coordinator.leave(turn, to, &request);
    });
    groups::answer::<LeaveGroupRequest>(version, asked, move |response| match response {
        Response::Leave(response) if version >= BATCHED => response,
        Response::Leave(response) => {
            let code = response.members.first().map_or(response.error_code, |member| member.error_code);
            LeaveGroupResponse::default().with_error_code(code)
        }
        other => LeaveGroupResponse::default().with_error_code(groups::failure(&other).0),
    })
}
