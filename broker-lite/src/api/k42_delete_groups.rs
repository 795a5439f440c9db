//! DeleteGroups (42): versions 0 to 2. The answer waits until the tombstones are replicated.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::delete_groups_response::DeletableGroupResult;
use klamm_wire::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use klamm_wire::seam::Frame;

use super::{Handled, groups};
use crate::broker::Broker;

/// Deletes each group once, however often it is named.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let mut named = BTreeSet::new();
    let mut ids = decode_request::<DeleteGroupsRequest>(frame)?.groups_names;
    ids.retain(|id| named.insert(id.clone()));
    let ask = |id: &GroupId| {
        broker.groups.ask(broker, id, |coordinator, turn, to| coordinator.delete(turn, to, id))
    };
    let asked = ids.iter().map(ask).collect();
    groups::answer_all::<DeleteGroupsRequest>(version, asked, move |responses| {
        let result = |(id, response)| match response {
            Response::Delete(result) => result,
            other => {
                DeletableGroupResult::default().with_group_id(id).with_error_code(groups::failure(&other).0)
            }
        };
        let results = ids.into_iter().zip(responses).map(result);
        DeleteGroupsResponse::default().with_results(results.collect())
    })
}
