//! AlterPartition (56): versions 2 and 3; from brokers to the controller.

use std::sync::Arc;

use klamm_wire::messages::AlterPartitionRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide};
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<AlterPartitionRequest>(controller, frame, |machine, _, request| machine.alter_partition(request))
}
