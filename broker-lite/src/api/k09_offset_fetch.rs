//! OffsetFetch (9): versions 1 to 10; several groups from version 8 on, topics by id from version 10 on.

use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_offset_fetch;
use klamm_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use klamm_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups};
use crate::broker::Broker;

const TOPIC_IDS: i16 = 10;
/// First version that asks for several groups.
const BATCHED: i16 = 8;
/// First version with an error code for the whole answer.
const TOP_LEVEL_CODE: i16 = 2;

/// One group: what is asked of its coordinator, and what is known without.
struct Part {
    asked: OffsetFetchRequestGroup,
    /// Topics by ids that nobody knows.
    unknown: Vec<OffsetFetchRequestTopics>,
}

/// Looks up what is replicated, or waits for what is on its way if a stable answer is asked for.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_offset_fetch(frame)?;
    let stable = request.require_stable;
    let parts: Vec<_> = if version >= BATCHED {
        request.groups.into_iter().map(|group| part(broker, version, group)).collect()
    } else {
        vec![Part { asked: single(request), unknown: Vec::new() }]
    };
    let ask = |part: &Part| {
        let fetch = part.asked.clone();
        broker.groups.ask(broker, &part.asked.group_id, move |coordinator, turn, to| {
            coordinator.fetch(turn, to, fetch, stable);
        })
    };
    let asked = parts.iter().map(ask).collect();
    let broker = broker.clone();
    groups::answer_all::<OffsetFetchRequest>(version, asked, move |responses| {
        let fetched = parts.into_iter().zip(responses);
        let mut found: Vec<_> =
            fetched.map(|(part, response)| fetched_part(&broker, version, part, response)).collect();
        if version >= BATCHED {
            return OffsetFetchResponse::default().with_groups(found);
        }
        found.pop().map(alone).unwrap_or_default()
    })
}

/// The one group of older versions.
fn single(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topic = |topic: OffsetFetchRequestTopic| {
        OffsetFetchRequestTopics::default()
            .with_name(topic.name)
            .with_partition_indexes(topic.partition_indexes)
    };
    let topics = request.topics.map(|topics| topics.into_iter().map(topic).collect());
    OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)
}

fn part(broker: &Broker, version: i16, mut asked: OffsetFetchRequestGroup) -> Part {
    let mut unknown = Vec::new();
    if version >= TOPIC_IDS
        && let Some(topics) = asked.topics.take()
    {
        let mut known = Vec::new();
        broker.image(|image| {
            for topic in topics {
                match groups::topic_name(image, true, &topic.name, topic.topic_id) {
                    Some(name) => known.push(topic.with_name(name)),
                    None => unknown.push(topic),
                }
            }
        });
        asked.topics = Some(known);
    }
    Part { asked, unknown }
}

fn fetched_part(broker: &Broker, version: i16, part: Part, response: Response) -> OffsetFetchResponseGroup {
    let Part { asked, unknown } = part;
    let mut group = match response {
        Response::Fetch(group) => group,
        other => return failed(version, &asked, groups::failure(&other)),
    };
    if version >= TOPIC_IDS {
        broker.image(|image| {
            group.topics.retain_mut(|topic| {
                if topic.topic_id.is_nil() {
                    topic.topic_id = image.topic(&topic.name).map(|topic| topic.id).unwrap_or_default();
                }
                !topic.topic_id.is_nil()
            });
        });
    }
    let refused = unknown.iter().map(|topic| nothing(topic, ErrorCode::UNKNOWN_TOPIC_ID));
    group.topics.extend(refused);
    group
}

fn failed(version: i16, asked: &OffsetFetchRequestGroup, code: ErrorCode) -> OffsetFetchResponseGroup {
    let group = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
    if version >= TOP_LEVEL_CODE {
        return group.with_error_code(code.0);
    }
    let topics = asked.topics.iter().flatten().map(|topic| nothing(topic, code));
    group.with_topics(topics.collect())
}

fn nothing(topic: &OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics {
    let partition = |number: &i32| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*number)
            .with_committed_offset(-1)
            .with_error_code(code.0)
    };
    OffsetFetchResponseTopics::default()
        .with_name(topic.name.clone())
        .with_topic_id(topic.topic_id)
        .with_partitions(topic.partition_indexes.iter().map(partition).collect())
}

/// In the form of versions that know of one group only.
fn alone(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let partition = |part: OffsetFetchResponsePartitions| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(part.partition_index)
            .with_committed_offset(part.committed_offset)
            .with_committed_leader_epoch(part.committed_leader_epoch)
            .with_metadata(part.metadata)
            .with_error_code(part.error_code)
    };
    let topic = |topic: OffsetFetchResponseTopics| {
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    };
    OffsetFetchResponse::default()
        .with_error_code(group.error_code)
        .with_topics(group.topics.into_iter().map(topic).collect())
}
