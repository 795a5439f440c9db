//! JoinGroup (11): versions 0 to 9. The answer waits for the other members.

use std::sync::Arc;

use broker_lite_core::group::{Caller, Response};
use klamm_wire::codec::decode_request;
use klamm_wire::messages::{JoinGroupRequest, JoinGroupResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups};
use crate::broker::Broker;
use crate::node::Peer;

/// First version whose protocol name can be null.
const NULLABLE_NAME: i16 = 7;

/// Joins.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame, peer: &Peer) -> Handled {
    let version = frame.api_version;
    let mut request = decode_request::<JoinGroupRequest>(frame)?;
    if version == 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let host = peer.host();
    let caller = Caller { client_id: peer.client_id(), host: &host };
    let asked = broker.groups.ask(broker, &request.group_id, |coordinator, turn, to| {
        coordinator.join(turn, to, &request, version, caller);
    });
    groups::answer::<JoinGroupRequest>(version, asked, move |response| {
        let mut response = match response {
            Response::Join(response) => response,
            other => JoinGroupResponse::default()
                .with_error_code(groups::failure(&other).0)
                .with_protocol_name(None),
        };
        if version < NULLABLE_NAME {
            response.protocol_name.get_or_insert_default();
        }
        response
    })
}
