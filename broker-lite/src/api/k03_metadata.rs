//! Metadata (3): versions 0 to 13, from this broker's image; creates topics that are asked for, if allowed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::{Image, PartitionRegistration, Topic};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, decode_response, encode_request};
use klamm_wire::messages::create_topics_request::CreatableTopic;
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::{BrokerId, CreateTopicsRequest, MetadataRequest, MetadataResponse, TopicName};
use klamm_wire::seam::Frame;
use uuid::Uuid;

use super::{Handled, now, reply, text};
use crate::broker::{Broker, LISTENER};
use crate::node::Answer;

/// First version in which no topics means none; before, it means all.
const EMPTY_IS_NONE: i16 = 1;
/// First version in which topics may be asked for by id. 10 and 11 have the field, and refuse it.
const TOPIC_IDS: i16 = 12;
/// Operations that a principal may do where nothing is forbidden, as bits by operation code.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
pub(super) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Longest wait for an auto-created topic to have leaders; afterwards the client is told to ask again.
const AUTO_CREATE_WAIT: Duration = Duration::from_secs(1);
const CREATE_TOPICS_VERSION: i16 = 7;
/// Versions that carry the operations allowed on the cluster; later ones leave that to DescribeCluster.
const CLUSTER_OPERATIONS_IN: std::ops::RangeInclusive<i16> = 8..=10;
/// Topics that Kafka makes for itself.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__share_group_state", "__transaction_state"];
/// Longest topic name.
const NAME_MAX: usize = 249;

/// Answers from the image, at once unless topics have to be created first.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<MetadataRequest>(frame)?;
    let missing = missing_topics(broker, &request);
    if missing.is_empty() {
        return now::<MetadataRequest>(version, &answer(broker, version, &request, &[]));
    }
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        let refused = create(&broker, missing).await;
        reply::<MetadataRequest>(version, &answer(&broker, version, &request, &refused))
    })))
}

/// Topics to be created because they are asked for.
fn missing_topics(broker: &Broker, request: &MetadataRequest) -> Vec<TopicName> {
    let allowed = request.allow_auto_topic_creation && broker.config.boolean("auto.create.topics.enable");
    let Some(topics) = request.topics.as_ref().filter(|_| allowed) else { return Vec::new() };
    broker.image(|image| {
        let named = topics.iter().filter_map(|topic| topic.name.clone());
        named.filter(|name| is_topic_name(name) && image.topic(name).is_none()).collect()
    })
}

/// Creates topics with the cluster's defaults; returns those that were refused, with the reason.
async fn create(broker: &Arc<Broker>, names: Vec<TopicName>) -> Vec<(TopicName, ErrorCode)> {
    let topic = |name: &TopicName| {
        CreatableTopic::default().with_name(name.clone()).with_num_partitions(-1).with_replication_factor(-1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics(names.iter().map(topic).collect())
        .with_timeout_ms(i32::try_from(AUTO_CREATE_WAIT.as_millis()).unwrap_or(i32::MAX));
    let Ok(frame) = encode_request(CREATE_TOPICS_VERSION, &request) else { return Vec::new() };
    let answer = broker.ask_controller("auto-create", frame).await;
    let response = answer.ok().and_then(|frame| decode_response::<CreateTopicsRequest>(frame).ok());
    let refused: Vec<_> = response
        .unwrap_or_default()
        .topics
        .into_iter()
        .map(|topic| (topic.name, ErrorCode(topic.error_code)))
        .filter(|(_, code)| !matches!(*code, ErrorCode::NONE | ErrorCode::TOPIC_ALREADY_EXISTS))
        .collect();
    let led = broker.until_image(|image| {
        let mut wanted = names.iter().filter(|name| refused.iter().all(|(other, _)| other != *name));
        wanted.all(|name| image.topic(name).is_some_and(|topic| is_led(image, topic))).then_some(())
    });
    tokio::select! {
        biased;
        () = led => {}
        () = broker.rt.sleep(AUTO_CREATE_WAIT) => {}
    }
    refused
}

fn is_led(image: &Image, topic: &Topic) -> bool {
    topic.partitions.values().all(|partition| live_leader(image, partition).is_some())
}

pub(super) fn live_leader(image: &Image, partition: &PartitionRegistration) -> Option<i32> {
    partition.leader.filter(|id| image.broker(*id).is_some_and(|broker| !broker.fenced))
}

fn answer(
    broker: &Broker,
    version: i16,
    request: &MetadataRequest,
    refused: &[(TopicName, ErrorCode)],
) -> MetadataResponse {
    broker.image(|image| {
        let brokers: Vec<_> = image
            .live_brokers()
            .filter_map(|live| {
                let listener = live.listener(LISTENER)?;
                let shown = MetadataResponseBroker::default()
                    .with_node_id(BrokerId(live.id))
                    .with_host(text(&listener.host))
                    .with_port(i32::from(listener.port))
                    .with_rack(live.rack.as_deref().map(text));
                Some(shown)
            })
            .collect();
        let controller = brokers.first().map_or(BrokerId(-1), |broker| broker.node_id);
        let mut topics = match &request.topics {
            Some(topics) if version >= EMPTY_IS_NONE || !topics.is_empty() => {
                wanted_topics(image, version, topics, refused)
            }
            _ => image.topics().map(|topic| found(image, version, topic)).collect::<Vec<_>>(),
        };
        if request.include_topic_authorized_operations && version >= *CLUSTER_OPERATIONS_IN.start() {
            let known = topics.iter_mut().filter(|topic| topic.name.is_some());
            known.for_each(|topic| topic.topic_authorized_operations = TOPIC_OPERATIONS);
        }
        let mut response = MetadataResponse::default()
            .with_brokers(brokers)
            .with_cluster_id(broker.identity.cluster_id.field())
            .with_controller_id(controller)
            .with_topics(topics);
        if request.include_cluster_authorized_operations && CLUSTER_OPERATIONS_IN.contains(&version) {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        response
    })
}

/// Each topic once, however often it is asked for; as soon as one is asked for by id, only those are.
fn wanted_topics(
    image: &Image,
    version: i16,
    topics: &[MetadataRequestTopic],
    refused: &[(TopicName, ErrorCode)],
) -> Vec<MetadataResponseTopic> {
    let by_id = version >= TOPIC_IDS && topics.iter().any(|topic| !topic.topic_id.is_nil());
    let mut seen = BTreeSet::new();
    let once = topics.iter().filter(|topic| {
        let key = if by_id { (topic.topic_id, None) } else { (Uuid::nil(), topic.name.clone()) };
        (!by_id || !topic.topic_id.is_nil()) && seen.insert(key)
    });
    once.map(|topic| wanted(image, version, by_id, topic, refused)).collect()
}

fn wanted(
    image: &Image,
    version: i16,
    by_id: bool,
    topic: &MetadataRequestTopic,
    refused: &[(TopicName, ErrorCode)],
) -> MetadataResponseTopic {
    let existing = match &topic.name {
        _ if by_id => image.topic_by_id(topic.topic_id),
        Some(name) => image.topic(name),
        None => None,
    };
    if let Some(existing) = existing {
        return self::found(image, version, existing);
    }
    let code = match &topic.name {
        _ if by_id => ErrorCode::UNKNOWN_TOPIC_ID,
        Some(name) if !is_topic_name(name) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        Some(name) => refused
            .iter()
            .find(|(other, _)| other == name)
            .map_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, |(_, code)| *code),
        None => ErrorCode::INVALID_REQUEST,
    };
    let name = match by_id {
        true => None,
        false => topic.name.clone().or_else(|| Some(TopicName::default())),
    };
    let internal = name.as_ref().is_some_and(|name| INTERNAL.contains(&&***name));
    let id = if by_id { topic.topic_id } else { Uuid::nil() };
    MetadataResponseTopic::default()
        .with_error_code(code.0)
        .with_name(name)
        .with_topic_id(id)
        .with_is_internal(internal)
}

fn found(image: &Image, version: i16, topic: &Topic) -> MetadataResponseTopic {
    // the first version leaves out whom nobody can reach, and says so
    let live = |id: &i32| version > 0 || image.broker(*id).is_some_and(|broker| !broker.fenced);
    let ids = |ids: &[i32]| ids.iter().copied().filter(live).map(BrokerId).collect::<Vec<_>>();
    let partition = |(number, partition): (&i32, &PartitionRegistration)| {
        let leader = live_leader(image, partition);
        let all = partition.replicas.iter().chain(&partition.isr).all(live);
        let code = match leader {
            None => ErrorCode::LEADER_NOT_AVAILABLE,
            Some(_) if !all => ErrorCode::REPLICA_NOT_AVAILABLE,
            Some(_) => ErrorCode::NONE,
        };
        MetadataResponsePartition::default()
            .with_error_code(code.0)
            .with_partition_index(*number)
            .with_leader_id(BrokerId(leader.unwrap_or(-1)))
            // also without a leader: a client that forgot it would believe one that was deposed
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_offline_replicas(ids(&image.offline_replicas(partition)))
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_topic_id(topic.id)
        .with_is_internal(INTERNAL.contains(&&*topic.name))
        .with_partitions(topic.partitions.iter().map(partition).collect())
}

pub(super) fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX && name.bytes().all(allowed)
}
