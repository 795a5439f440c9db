//! `__consumer_offsets`, which comes into being when somebody first looks for a coordinator.

use std::sync::Arc;

use klamm_wire::StrBytes;
use klamm_wire::messages::TopicName;
use klamm_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use super::TOPIC;
use crate::api::create_internal;
use crate::broker::Broker;

/// Has the topic created behind whoever asks, unless that is under way already. As Kafka's, but for the number of
/// replicas, which is at most that of the brokers that are registered, also of those that are down.
pub(crate) fn create(broker: &Arc<Broker>) {
    let name = TopicName(StrBytes::from_static_str(TOPIC));
    if !broker.creating.lock().insert(name.clone()) {
        return;
    }
    let setting = |name: &str, default: i64| broker.config.int(name).unwrap_or(default);
    let replicas = setting("offsets.topic.replication.factor", 3);
    let config = |name: &'static str, value: String| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(name)
        .with_num_partitions(i32::try_from(setting("offsets.topic.num.partitions", 50)).unwrap_or(50))
        .with_replication_factor(i16::try_from(replicas).unwrap_or(3))
        .with_configs(vec![
            config("cleanup.policy", "compact".to_owned()),
            config("compression.type", "producer".to_owned()),
            config("segment.bytes", setting("offsets.topic.segment.bytes", 100 << 20).to_string()),
        ]);
    let creator = broker.clone();
    broker.life.spawn(async move { create_internal(&creator, topic).await });
}
