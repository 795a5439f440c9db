//! Metadata (3): versions 0 to 13, from this broker's image; creates topics that are asked for, if allowed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::{Image, PartitionRegistration, Topic};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, decode_response, encode_request};
use klamm_wire::messages::create_topics_request::CreatableTopic;
use klamm_wire::messages::create_topics_response::CreatableTopicResult;
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::{BrokerId, CreateTopicsRequest, MetadataRequest, MetadataResponse, TopicName};
use klamm_wire::seam::Frame;
use uuid::Uuid;

use super::{Handled, now, text};
use crate::broker::{Broker, GivenUp, LISTENER};

/// First version in which no topics means none; before, it means all.
const EMPTY_IS_NONE: i16 = 1;
/// First version in which topics may be asked for by id. 10 and 11 have the field, and refuse it.
const TOPIC_IDS: i16 = 12;
/// Operations that a principal may do where nothing is forbidden, as bits by operation code.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
pub(super) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Longest time for the controller to create what is asked for.
const AUTO_CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// First version with an error code of its own.
const TOP_LEVEL_CODE: i16 = 13;
const CREATE_TOPICS_VERSION: i16 = 7;
/// Versions that carry the operations allowed on the cluster; later ones leave that to DescribeCluster.
const CLUSTER_OPERATIONS_IN: std::ops::RangeInclusive<i16> = 8..=10;
/// Topics that Kafka makes for itself.
pub(super) const INTERNAL: [&str; 3] = ["__consumer_offsets", "__share_group_state", "__transaction_state"];
/// Longest topic name.
const NAME_MAX: usize = 249;

/// Answers from the image, at once; topics that are asked for come into being behind it, as with Kafka.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<MetadataRequest>(frame)?;
    if is_refused(version, &request) {
        return now::<MetadataRequest>(version, &refused(version, &request));
    }
    let missing = missing_topics(broker, &request);
    if !missing.is_empty() {
        let creator = broker.clone();
        broker.life.spawn(async move { create(&creator, missing).await });
    }
    now::<MetadataRequest>(version, &answer(broker, version, &request))
}

/// Whether topics are asked for by id in a version that cannot, or neither by name nor by id.
fn is_refused(version: i16, request: &MetadataRequest) -> bool {
    let mut topics = request.topics.iter().flatten();
    match version >= TOPIC_IDS {
        true => {
            topics.clone().all(|topic| topic.topic_id.is_nil()) && topics.any(|topic| topic.name.is_none())
        }
        false => topics.any(|topic| topic.name.is_none() || !topic.topic_id.is_nil()),
    }
}

/// The whole request is refused: no brokers, and every topic as it was asked for.
fn refused(version: i16, request: &MetadataRequest) -> MetadataResponse {
    let code = ErrorCode::INVALID_REQUEST;
    let topic = |topic: &MetadataRequestTopic| {
        MetadataResponseTopic::default()
            .with_error_code(code.0)
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
    };
    let topics = request.topics.iter().flatten().map(topic).collect();
    let response = MetadataResponse::default().with_controller_id(BrokerId(-1)).with_topics(topics);
    if version >= TOP_LEVEL_CODE { response.with_error_code(code.0) } else { response }
}

/// Topics to be created because they are asked for.
fn missing_topics(broker: &Broker, request: &MetadataRequest) -> Vec<TopicName> {
    let allowed = request.allow_auto_topic_creation && broker.config.boolean("auto.create.topics.enable");
    let Some(topics) = request.topics.as_ref().filter(|_| allowed) else { return Vec::new() };
    broker.image(|image| {
        let named = topics.iter().filter_map(|topic| topic.name.clone());
        let mut creating = broker.creating.lock();
        let wanted = named.filter(|name| is_topic_name(name) && image.topic(name).is_none());
        wanted.filter(|name| creating.insert(name.clone())).collect()
    })
}

/// Creates topics with the cluster's defaults.
async fn create(broker: &Broker, names: Vec<TopicName>) {
    let topic = |name: &TopicName| {
        CreatableTopic::default().with_name(name.clone()).with_num_partitions(-1).with_replication_factor(-1)
    };
    create_marked(broker, names.iter().map(topic).collect()).await;
}

/// Creates a topic of the cluster's own, which is marked as being created, with as many replicas as that says or, where there are
/// fewer brokers, as many as there are. How many are registered, the controller knows; what this broker has been told may be old.
pub(crate) async fn create_internal(broker: &Broker, topic: CreatableTopic) {
    let names = [topic.name.clone()];
    let mut replicas = topic.replication_factor;
    loop {
        let told = ask_to_create(broker, vec![topic.clone().with_replication_factor(replicas)]).await;
        let fewer = told.iter().find_map(|(code, reason)| brokers_there_are(*code, reason.as_deref()?));
        match fewer.filter(|fewer| (1..replicas).contains(fewer)) {
            Some(fewer) => replicas = fewer,
            None => break,
        }
    }
    unmark(broker, &names);
}

/// How many brokers there are, if too many replicas were refused; the answer has it in its text alone
/// ([`PlacementError::TooFewBrokers`](broker_lite_core::placement::PlacementError::TooFewBrokers)).
fn brokers_there_are(code: ErrorCode, reason: &str) -> Option<i16> {
    let (_, count) = reason
        .rsplit_once("registered brokers, ")
        .filter(|_| code == ErrorCode::INVALID_REPLICATION_FACTOR)?;
    count.parse().ok()
}

/// Creates topics that are marked as being created, and takes the marks away.
async fn create_marked(broker: &Broker, topics: Vec<CreatableTopic>) {
    let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
    ask_to_create(broker, topics).await;
    unmark(broker, &names);
}

fn unmark(broker: &Broker, names: &[TopicName]) {
    let mut creating = broker.creating.lock();
    for name in names {
        creating.remove(name);
    }
}

/// What came of each and why, if the controller has answered.
async fn ask_to_create(broker: &Broker, topics: Vec<CreatableTopic>) -> Vec<(ErrorCode, Option<String>)> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(i32::try_from(AUTO_CREATE_TIMEOUT.as_millis()).unwrap_or(i32::MAX));
    let Ok(frame) = encode_request(CREATE_TOPICS_VERSION, &request) else { return Vec::new() };
    let answer = broker.ask_controller("auto-create", GivenUp::WhenDoubted, frame).await;
    let response = answer.ok().and_then(|frame| decode_response::<CreateTopicsRequest>(frame).ok());
    let told = |topic: CreatableTopicResult| {
        let code = ErrorCode(topic.error_code);
        if !matches!(code, ErrorCode::NONE | ErrorCode::TOPIC_ALREADY_EXISTS) {
            tracing::info!(broker = broker.id(), topic = %topic.name.0, %code, "not created by being asked for");
        }
        (code, topic.error_message.map(|reason| reason.to_string()))
    };
    response.unwrap_or_default().topics.into_iter().map(told).collect()
}

pub(super) fn live_leader(image: &Image, partition: &PartitionRegistration) -> Option<i32> {
    partition.leader.filter(|id| image.broker(*id).is_some_and(|broker| !broker.fenced))
}

fn answer(broker: &Broker, version: i16, request: &MetadataRequest) -> MetadataResponse {
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
                wanted_topics(image, version, topics)
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
fn wanted_topics(image: &Image, version: i16, topics: &[MetadataRequestTopic]) -> Vec<MetadataResponseTopic> {
    let by_id = version >= TOPIC_IDS && topics.iter().any(|topic| !topic.topic_id.is_nil());
    let mut seen = BTreeSet::new();
    let once = topics.iter().filter(|topic| {
        let key = if by_id { (topic.topic_id, None) } else { (Uuid::nil(), topic.name.clone()) };
        (!by_id || !topic.topic_id.is_nil()) && seen.insert(key)
    });
    once.map(|topic| wanted(image, version, by_id, topic)).collect()
}

fn wanted(image: &Image, version: i16, by_id: bool, topic: &MetadataRequestTopic) -> MetadataResponseTopic {
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
        Some(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
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
