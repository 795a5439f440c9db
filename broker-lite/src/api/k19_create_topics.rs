//! CreateTopics (19): versions 2 to 7; brokers pass it on to the controller.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::config::is_without_effect;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::CreateTopicsRequest;
use klamm_wire::messages::create_topics_request::CreatableTopic;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// Longest wait for a new topic to show up in this broker's own metadata, so that a client that asks
/// next finds it. Kafka does not wait at all; the topic exists either way.
const SHOW_UP: Duration = Duration::from_millis(500);

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<CreateTopicsRequest>(controller, frame, |machine, _, request| {
        for topic in request.topics.iter().filter(|_| !request.validate_only) {
            warn_without_effect(topic);
        }
        machine.create_topics(request)
    })
}

fn warn_without_effect(topic: &CreatableTopic) {
    for config in &topic.configs {
        let value = config.value.as_deref().unwrap_or_default();
        if is_without_effect(&config.name, value) {
            let (topic, name) = (&**topic.name, &*config.name);
            tracing::warn!(topic, name, value, "setting is accepted, but broker-lite does not act on it yet");
        }
    }
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let request = decode_request::<CreateTopicsRequest>(frame.clone())?;
    pass_on(broker, frame, move |broker, answer| {
        let created: Vec<_> = klamm_wire::codec::decode_response::<CreateTopicsRequest>(answer)
            .map(|answer| answer.topics)
            .unwrap_or_default()
            .into_iter()
            .filter(|topic| topic.error_code == 0 && !request.validate_only)
            .map(|topic| topic.name)
            .collect();
        Box::pin(async move {
            let shown = broker
                .until_told(|image| created.iter().all(|name| image.topic(name).is_some()).then_some(()));
            tokio::select! {
                biased;
                () = shown => {}
                () = broker.rt.sleep(SHOW_UP) => {}
            }
        })
    })
}
