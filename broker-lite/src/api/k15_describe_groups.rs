//! DescribeGroups (15): versions 0 to 6.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::describe_groups_response::DescribedGroup;
use klamm_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use klamm_wire::seam::Frame;

use super::{Handled, now};
use crate::broker::Broker;

/// Operations that a principal may do with a group where nothing is forbidden, as bits by operation code.
const OPERATIONS: i32 = 0b1101_0100_1000;
/// First version that asks for them.
const OPERATIONS_FROM: i16 = 3;

/// Answers at once.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeGroupsRequest>(frame)?;
    let with_operations = request.include_authorized_operations && version >= OPERATIONS_FROM;
    let describe = |id: &GroupId| {
        let found = broker.groups.look(broker, id, |coordinator| coordinator.describe(id, version));
        let mut group = found.unwrap_or_else(|code| {
            DescribedGroup::default().with_group_id(id.clone()).with_error_code(code.0)
        });
        if with_operations && group.error_code == 0 {
            group.authorized_operations = OPERATIONS;
        }
        group
    };
    let response =
        DescribeGroupsResponse::default().with_groups(request.groups.iter().map(describe).collect());
    now::<DescribeGroupsRequest>(version, &response)
}
