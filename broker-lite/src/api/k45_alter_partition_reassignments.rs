//! AlterPartitionReassignments (45): versions 0 and 1; brokers pass it on to the controller.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::AlterPartitionReassignmentsRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<AlterPartitionReassignmentsRequest>(controller, frame, |machine, _, request| {
        machine.alter_partition_reassignments(request)
    })
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    decode_request::<AlterPartitionReassignmentsRequest>(frame.clone())?;
    pass_on(broker, frame, |_, _| Box::pin(std::future::ready(())))
}
