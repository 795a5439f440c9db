//! DescribeCluster (60): versions 0 to 2.

use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_wire::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use klamm_wire::seam::Frame;

use super::{Handled, now, text};
use crate::broker::{Broker, LISTENER};
use crate::controller::ControllerNode;
use crate::node::Party;

/// Endpoint type of brokers, the only one a broker can tell.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
/// First version that can show fenced brokers.
const FENCED: i16 = 2;
/// Operations that a principal may do where nothing is forbidden, as bits by operation code.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// At a controller, which describes the controllers: whoever comes by `--bootstrap-controller` finds the others so.
pub(super) fn handle_at_controller(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeClusterRequest>(frame)?;
    // Version 0 has no other kind of endpoint than brokers.
    if version == 0 || request.endpoint_type != CONTROLLERS {
        let (code, message) = match request.endpoint_type {
            _ if version == 0 => (ErrorCode::INVALID_REQUEST, "this is a controller, not a broker"),
            BROKERS => (ErrorCode::MISMATCHED_ENDPOINT_TYPE, "this is a controller, not a broker"),
            _ => (ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, "unknown endpoint type"),
        };
        let refused = DescribeClusterResponse::default()
            .with_error_code(code.0)
            .with_error_message(Some(text(message)));
        return now::<DescribeClusterRequest>(version, &refused);
    }
    let seat = &controller.seat;
    let voters = seat.voters.iter().filter_map(|id| {
        let endpoint = seat.network.remotes()?.endpoint(&Party::Controller(*id))?;
        let shown =
            DescribeClusterBroker::default().with_broker_id(BrokerId(*id)).with_host(text(&endpoint.host));
        Some(shown.with_port(i32::from(endpoint.port)))
    });
    let leader = controller.describe().map_or_else(|head| head.leader, |described| Some(described.leader));
    let mut response = DescribeClusterResponse::default()
        .with_endpoint_type(CONTROLLERS)
        .with_cluster_id(seat.cluster_id.field().unwrap_or_default())
        .with_controller_id(BrokerId(leader.unwrap_or(-1)))
        .with_brokers(voters.collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    now::<DescribeClusterRequest>(version, &response)
}

/// Answers from the image.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeClusterRequest>(frame)?;
    if version >= 1 && request.endpoint_type != BROKERS {
        let (code, message) = match request.endpoint_type {
            2 => (ErrorCode::MISMATCHED_ENDPOINT_TYPE, "this is a broker, not a controller"),
            _ => (ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, "unknown endpoint type"),
        };
        let refused = DescribeClusterResponse::default()
            .with_error_code(code.0)
            .with_error_message(Some(text(message)));
        return now::<DescribeClusterRequest>(version, &refused);
    }
    let show_fenced = version >= FENCED && request.include_fenced_brokers;
    let mut response = DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(broker.identity.cluster_id.field().unwrap_or_default());
    broker.image(|image| {
        let shown = image.brokers().values().filter(|broker| show_fenced || !broker.fenced);
        let shown = shown.filter_map(|broker| {
            let listener = broker.listener(LISTENER)?;
            let shown = DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.id))
                .with_host(text(&listener.host))
                .with_port(i32::from(listener.port))
                .with_rack(broker.rack.as_deref().map(text))
                .with_is_fenced(broker.fenced);
            Some(shown)
        });
        response.brokers = shown.collect();
        response.controller_id = image.live_brokers().next().map_or(BrokerId(-1), |live| BrokerId(live.id));
    });
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    now::<DescribeClusterRequest>(version, &response)
}
