//! ListConfigResources (74): versions 0 and 1.

use std::sync::Arc;

use broker_lite_core::metadata::{ConfigResource, Image};
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::list_config_resources_response::ConfigResource as Listed;
use klamm_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use klamm_wire::seam::Frame;

use super::{Handled, now, text};
use crate::broker::Broker;

/// Resource type codes beside those of topics and brokers.
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
/// All that can be listed, in the order of Kafka's answer.
const ALL: &[i8] = &[GROUP, CLIENT_METRICS, BROKER_LOGGER, ConfigResource::BROKER, ConfigResource::TOPIC];

/// Answers from the image: there are neither groups nor client metrics with settings yet.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<ListConfigResourcesRequest>(frame)?;
    let listable = if version == 0 { &[CLIENT_METRICS] } else { ALL };
    if request.resource_types.iter().any(|kind| !listable.contains(kind)) {
        let code = ErrorCode::UNSUPPORTED_VERSION;
        let refused = ListConfigResourcesResponse::default().with_error_code(code.0);
        return now::<ListConfigResourcesRequest>(version, &refused);
    }
    let wanted = |kind: &&i8| request.resource_types.is_empty() || request.resource_types.contains(kind);
    let resources = broker.image(|image| {
        let kinds = listable.iter().filter(wanted);
        kinds.flat_map(|kind| list(image, *kind)).collect::<Vec<_>>()
    });
    let response = ListConfigResourcesResponse::default().with_config_resources(resources);
    now::<ListConfigResourcesRequest>(version, &response)
}

fn list(image: &Image, kind: i8) -> Vec<Listed> {
    let listed = |name: &str| Listed::default().with_resource_name(text(name)).with_resource_type(kind);
    match kind {
        BROKER_LOGGER | ConfigResource::BROKER => {
            image.brokers().keys().map(|id| listed(&id.to_string())).collect()
        }
        ConfigResource::TOPIC => image.topics().map(|topic| listed(&topic.name)).collect(),
        _ => Vec::new(),
    }
}
