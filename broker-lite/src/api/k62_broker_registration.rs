//! BrokerRegistration (62): versions 0 to 4; from brokers to the controller.

use std::sync::Arc;

use klamm_wire::messages::BrokerRegistrationRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide};
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<BrokerRegistrationRequest>(controller, frame, |machine, now, request| {
        machine.register_broker(now, request)
    })
}
