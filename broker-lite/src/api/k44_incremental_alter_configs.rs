//! IncrementalAlterConfigs (44): versions 0 and 1. The broker asked refuses what it knows to be wrong, and passes the rest on.

use std::sync::Arc;

use broker_lite_core::controller::{Refusal, ResourceChange, check_at_broker};
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::incremental_alter_configs_request::AlterConfigsResource;
use klamm_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use klamm_wire::seam::Frame;

use super::{Handled, Merge, decide, forward_rest, now};
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
    let resources: Vec<ResourceChange<'_>> = request.resources.iter().map(ResourceChange::from).collect();
    let refused = check_at_broker(broker.id(), &resources);
    let rest = request.resources.iter().zip(&refused).filter(|(_, refused)| refused.is_none());
    let rest: Vec<AlterConfigsResource> = rest.map(|(resource, _)| resource.clone()).collect();
    let merge: Merge<IncrementalAlterConfigsRequest> = {
        let asked = request.resources.clone();
        Box::new(move |answer| {
            let mut answered = answer.responses.into_iter();
            let all = asked.into_iter().zip(refused).map(|(resource, refused)| {
                let own = AlterConfigsResourceResponse::default()
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name);
                match refused {
                    Some(Refusal(code, reason)) => {
                        own.with_error_code(code.0).with_error_message(Some(reason.into()))
                    }
                    None => answered.next().unwrap_or(own.with_error_code(ErrorCode::UNKNOWN_SERVER_ERROR.0)),
                }
            });
            IncrementalAlterConfigsResponse::default().with_responses(all.collect())
        })
    };
    if rest.is_empty() {
        return now::<IncrementalAlterConfigsRequest>(
            version,
            &merge(IncrementalAlterConfigsResponse::default()),
        );
    }
    forward_rest(broker, version, &request.with_resources(rest), merge)
}
