//! ElectLeaders (43): versions 0 to 2; brokers pass it on to the controller.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::ElectLeadersRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<ElectLeadersRequest>(controller, frame, |machine, _, request| machine.elect_leaders(request))
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    decode_request::<ElectLeadersRequest>(frame.clone())?;
    pass_on(broker, frame, |_, _| Box::pin(std::future::ready(())))
}
