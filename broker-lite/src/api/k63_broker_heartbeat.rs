//! BrokerHeartbeat (63): versions 0 to 2; from brokers to the controller.

use std::sync::Arc;

use klamm_wire::messages::BrokerHeartbeatRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide};
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<BrokerHeartbeatRequest>(controller, frame, |machine, now, request| {
        machine.heartbeat(now, request)
    })
}
