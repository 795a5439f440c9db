//! DeleteTopics (20): versions 1 to 6; brokers pass it on to the controller.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::DeleteTopicsRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<DeleteTopicsRequest>(controller, frame, |machine, _, request| machine.delete_topics(request))
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    decode_request::<DeleteTopicsRequest>(frame.clone())?;
    pass_on(broker, frame, |_, _| Box::pin(std::future::ready(())))
}
