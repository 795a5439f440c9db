//! AlterConfigs (33): versions 0 to 2. The broker asked refuses what it knows to be wrong, and passes the rest on.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::alter_configs_request::AlterConfigsResource;
use klamm_wire::messages::alter_configs_response::AlterConfigsResourceResponse;
use klamm_wire::messages::{AlterConfigsRequest, AlterConfigsResponse};
use klamm_wire::seam::Frame;

use super::alter_configs::Alteration;
use super::{Handled, decide};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<AlterConfigsRequest>(controller, frame, |machine, _, request| machine.alter_configs(request))
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<AlterConfigsRequest>(frame)?;
    let resources = request.resources.clone();
    let alteration = Alteration {
        narrowed: |request: AlterConfigsRequest, rest| request.with_resources(rest),
        told: |resource: AlterConfigsResource, code, message| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code.0)
                .with_error_message(message)
        },
        answers: |response: AlterConfigsResponse| response.responses,
        response: |all| AlterConfigsResponse::default().with_responses(all),
    };
    alteration.forward(broker, version, request, resources)
}
