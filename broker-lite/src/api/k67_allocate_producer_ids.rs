//! AllocateProducerIds (67): version 0; from brokers to the controller.

use std::sync::Arc;

use klamm_wire::messages::AllocateProducerIdsRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide};
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<AllocateProducerIdsRequest>(controller, frame, |machine, _, request| {
        machine.allocate_producer_ids(request)
    })
}
