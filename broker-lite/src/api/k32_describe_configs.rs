//! DescribeConfigs (32): versions 1 to 4, for topics and for the node asked.

use std::sync::Arc;

use broker_lite_core::config::{BrokerConfig, DescribedConfig, TopicConfig};
use broker_lite_core::metadata::{ConfigResource, Image};
use klamm_wire::codec::decode_request;
use klamm_wire::messages::describe_configs_request::DescribeConfigsResource;
use klamm_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use klamm_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, StrBytes};

use super::k03_metadata::is_topic_name;
use super::{Handled, now, text};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// Resource type codes.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Type of a setting that Kafka does not know.
const UNKNOWN_TYPE: i8 = 0;

/// Answers from the image and this broker's own settings.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    answer(frame, |request| {
        broker.image(|image| respond(broker.id(), image, &broker.settings(image), request))
    })
}

/// At a controller: from what it knows committed and its own settings, whether it leads or not.
pub(super) fn handle_at_controller(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    answer(frame, |request| {
        controller.settings(|image, settings| respond(controller.seat.id, image, settings, request))
    })
}

fn answer(frame: Frame, respond: impl FnOnce(&DescribeConfigsRequest) -> DescribeConfigsResponse) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeConfigsRequest>(frame)?;
    now::<DescribeConfigsRequest>(version, &respond(&request))
}

fn respond(
    node: i32,
    image: &Image,
    settings: &BrokerConfig,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(node, image, settings, resource) {
            Ok(configs) => {
                let wanted = |config: &DescribedConfig| {
                    let keys = resource.configuration_keys.as_ref();
                    keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| **key == config.name))
                };
                let shown = configs.into_iter().filter(wanted).map(|config| show(config, request));
                result.with_configs(shown.collect())
            }
            Err((code, message)) => result.with_error_code(code.0).with_error_message(Some(text(&message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    node: i32,
    image: &Image,
    settings: &BrokerConfig,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribedConfig>, (ErrorCode, String)> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC if !is_topic_name(name) => {
            Err((ErrorCode::INVALID_TOPIC_EXCEPTION, format!("{name:?} is not a name for a topic")))
        }
        TOPIC if image.topic(name).is_some() => {
            let own = image.configs(&ConfigResource::Topic(name.to_owned()));
            Ok(TopicConfig::new(own, settings).describe())
        }
        TOPIC => Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("topic {name} does not exist"))),
        BROKER if name == node.to_string() => Ok(settings.describe()),
        BROKER if name.is_empty() => Ok(settings.describe_all_brokers()),
        BROKER => {
            Err((ErrorCode::INVALID_REQUEST, format!("unexpected broker id {name:?}, this is broker {node}")))
        }
        other => Err((ErrorCode::INVALID_REQUEST, format!("resource type {other} has no settings here"))),
    }
}

fn show(config: DescribedConfig, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms = config.synonyms.into_iter().filter(|_| request.include_synonyms).map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name.into_owned()))
            .with_value(synonym.value.map(StrBytes::from_string))
            .with_source(synonym.source as i8)
    });
    let documentation = config.documentation.filter(|_| request.include_documentation);
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(config.name.into_owned()))
        .with_value(config.value.map(StrBytes::from_string))
        .with_read_only(config.read_only)
        .with_config_source(config.source as i8)
        .with_is_sensitive(config.sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(config.kind.map_or(UNKNOWN_TYPE, |kind| kind as i8))
        .with_documentation(documentation.map(StrBytes::from_string))
}
