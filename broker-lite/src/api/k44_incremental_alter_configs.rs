//! IncrementalAlterConfigs (44): versions 0 and 1. The broker asked refuses what it knows to be wrong, and passes the rest on.

use std::sync::Arc;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::incremental_alter_configs_request::AlterConfigsResource;
use klamm_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use klamm_wire::seam::Frame;

use super::alter_configs::Alteration;
use super::{Handled, decide};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<IncrementalAlterConfigsRequest>(controller, frame, |machine, _, request| {
        machine.incremental_alter_configs(request)
    })
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<IncrementalAlterConfigsRequest>(frame)?;
    let resources = request.resources.clone();
    let alteration = Alteration {
        narrowed: |request: IncrementalAlterConfigsRequest, rest| request.with_resources(rest),
        told: |resource: AlterConfigsResource, code, message| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(code.0)
                .with_error_message(message)
        },
        answers: |response: IncrementalAlterConfigsResponse| response.responses,
        response: |all| IncrementalAlterConfigsResponse::default().with_responses(all),
    };
    alteration.forward(broker, version, request, resources)
}
