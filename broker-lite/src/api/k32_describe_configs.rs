//! DescribeConfigs (32): versions 1 to 4, for topics and for the broker asked.

use std::sync::Arc;

use broker_lite_core::config::{DescribedConfig, TopicConfig};
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

/// Resource type codes.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Type of a setting that Kafka does not know.
const UNKNOWN_TYPE: i8 = 0;

/// Answers from the image and this broker's own settings.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeConfigsRequest>(frame)?;
    let results = request.resources.iter().map(|resource| {
        let described = broker.image(|image| describe(broker, image, resource));
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match described {
            Ok(configs) => {
                let wanted = |config: &DescribedConfig| {
                    let keys = resource.configuration_keys.as_ref();
                    keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| **key == config.name))
                };
                let shown = configs.into_iter().filter(wanted).map(|config| show(config, &request));
                result.with_configs(shown.collect())
            }
            Err((code, message)) => result.with_error_code(code.0).with_error_message(Some(text(&message))),
        }
    });
    let response = DescribeConfigsResponse::default().with_results(results.collect());
    now::<DescribeConfigsRequest>(version, &response)
}

fn describe(
    broker: &Broker,
    image: &Image,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribedConfig>, (ErrorCode, String)> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC if !is_topic_name(name) => {
            Err((ErrorCode::INVALID_TOPIC_EXCEPTION, format!("{name:?} is not a name for a topic")))
        }
        TOPIC if image.topic(name).is_some() => {
            let own = image.configs(&ConfigResource::Topic(name.to_owned()));
            Ok(TopicConfig::new(own, &broker.settings(image)).describe())
        }
        TOPIC => Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("topic {name} does not exist"))),
        BROKER if name == broker.id().to_string() => Ok(broker.settings(image).describe()),
        BROKER if name.is_empty() => Ok(broker.settings(image).describe_all_brokers()),
        BROKER => {
            let own = broker.id();
            Err((ErrorCode::INVALID_REQUEST, format!("unexpected broker id {name:?}, this is broker {own}")))
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
