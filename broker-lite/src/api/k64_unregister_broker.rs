//! UnregisterBroker (64): version 0; brokers pass it on to the controller.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::UnregisterBrokerRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<UnregisterBrokerRequest>(controller, frame, |machine, _, request| {
        machine.unregister_broker(request)
    })
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    decode_request::<UnregisterBrokerRequest>(frame.clone())?;
    pass_on(broker, frame, |_, _| Box::pin(std::future::ready(())))
}
