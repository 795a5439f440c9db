//! UpdateFeatures (57): versions 0 to 2; brokers pass it on to the controller.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::UpdateFeaturesRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    decide::<UpdateFeaturesRequest>(controller, frame, move |machine, _, request| {
        machine.update_features(request, version)
    })
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    decode_request::<UpdateFeaturesRequest>(frame.clone())?;
    pass_on(broker, frame, |_, _| Box::pin(std::future::ready(())))
}
