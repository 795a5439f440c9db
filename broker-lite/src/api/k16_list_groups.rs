//! ListGroups (16): versions 0 to 5. Each broker lists the groups that it coordinates.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::{ListGroupsRequest, ListGroupsResponse};
use klamm_wire::seam::Frame;

use super::{Handled, now};
use crate::broker::Broker;

/// Answers at once.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<ListGroupsRequest>(frame)?;
    let listed = broker
        .groups
        .look_at_all(|coordinator| coordinator.list(&request.states_filter, &request.types_filter));
    let response = match listed {
        Ok(groups) => ListGroupsResponse::default().with_groups(groups.into_iter().flatten().collect()),
        Err(code) => ListGroupsResponse::default().with_error_code(code.0),
    };
    now::<ListGroupsRequest>(version, &response)
}
