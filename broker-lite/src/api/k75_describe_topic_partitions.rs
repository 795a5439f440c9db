//! DescribeTopicPartitions (75): version 0, page by page (KIP-966).

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_lite_core::metadata::{Image, PartitionRegistration, Topic};
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition as Partition,
    DescribeTopicPartitionsResponseTopic as Answer,
};
use klamm_wire::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use klamm_wire::seam::Frame;

use super::k03_metadata::{TOPIC_OPERATIONS, is_topic_name, live_leader};
use super::{Handled, now, text};
use crate::broker::Broker;

/// Most partitions of one answer (`max.request.partition.size.limit`).
const LIMIT: &str = "max.request.partition.size.limit";

/// Answers from the image, topics in the order of their names.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeTopicPartitionsRequest>(frame)?;
    let most = broker.config.int(LIMIT).and_then(|most| i32::try_from(most).ok()).unwrap_or(2_000);
    let room = usize::try_from(request.response_partition_limit.min(most)).unwrap_or(0).max(1);
    let response = match broker.image(|image| describe(image, &request, room)) {
        Some(response) => response,
        None => refused(&request),
    };
    now::<DescribeTopicPartitionsRequest>(version, &response)
}

/// What a cursor that points nowhere gets.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| {
        Answer::default().with_error_code(ErrorCode::INVALID_REQUEST.0).with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn describe(
    image: &Image,
    request: &DescribeTopicPartitionsRequest,
    mut room: usize,
) -> Option<DescribeTopicPartitionsResponse> {
    let from = request.cursor.as_ref().map(|cursor| (&**cursor.topic_name, cursor.partition_index));
    let all = request.topics.is_empty();
    let names: BTreeSet<&str> = match all {
        true => image.topics().map(|topic| &*topic.name).collect(),
        false => request.topics.iter().map(|topic| &**topic.name).collect(),
    };
    if from.is_some_and(|(topic, partition)| partition < 0 || (!all && !names.contains(topic))) {
        return None;
    }
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.into_iter().filter(|name| from.is_none_or(|(first, _)| *name >= first)) {
        let cursor =
            |partition| Cursor::default().with_topic_name(topic_name(name)).with_partition_index(partition);
        if room == 0 {
            response.next_cursor = Some(cursor(0));
            break;
        }
        let first = from.filter(|(topic, _)| *topic == name).map_or(0, |(_, partition)| partition);
        let Some(topic) = image.topic(name) else {
            if !all {
                response.topics.push(unknown(name));
            }
            continue;
        };
        let mut left = topic.partitions.range(first..);
        let shown: Vec<Partition> =
            left.by_ref().take(room).map(|(number, partition)| show(image, *number, partition)).collect();
        room -= shown.len();
        let next = left.next().map(|(number, _)| *number);
        response.topics.push(found(topic, shown));
        if let Some(next) = next {
            response.next_cursor = Some(cursor(next));
            break;
        }
    }
    Some(response)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn unknown(name: &str) -> Answer {
    let code = match is_topic_name(name) {
        true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        false => ErrorCode::INVALID_TOPIC_EXCEPTION,
    };
    let answer = Answer::default().with_error_code(code.0).with_name(Some(topic_name(name)));
    answer.with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn found(topic: &Topic, partitions: Vec<Partition>) -> Answer {
    Answer::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions)
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn show(image: &Image, number: i32, partition: &PartitionRegistration) -> Partition {
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    Partition::default()
        .with_partition_index(number)
        .with_leader_id(BrokerId(live_leader(image, partition).unwrap_or(-1)))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
        .with_eligible_leader_replicas(Some(ids(&partition.elr)))
        .with_last_known_elr(Some(ids(&partition.last_known_elr)))
        .with_offline_replicas(ids(&image.offline_replicas(partition)))
}
