//! OffsetCommit (8): versions 2 to 10; topics by id from version 10 on. The answer waits until the offsets are replicated.

use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_offset_commit;
use klamm_wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use klamm_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_wire::messages::{OffsetCommitRequest, OffsetCommitResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups, now};
use crate::broker::Broker;

const TOPIC_IDS: i16 = 10;

/// Commits what exists, and refuses the rest.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let mut request = decode_offset_commit(frame)?;
    let mut response = OffsetCommitResponse::default();
    let asked = std::mem::take(&mut request.topics);
    broker.image(|image| {
        for topic in asked {
            let by_id = version >= TOPIC_IDS;
            let Some(name) = groups::topic_name(image, by_id, &topic.name, topic.topic_id) else {
                let code = match by_id {
                    true => ErrorCode::UNKNOWN_TOPIC_ID,
                    false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                };
                add(&mut response, &topic, code);
                continue;
            };
            let mut topic = topic.with_name(name);
            let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
                .into_iter()
                .partition(|part| groups::has_partition(image, &topic.name, part.partition_index));
            if !unknown.is_empty() {
                let unknown = topic.clone().with_partitions(unknown);
                add(&mut response, &unknown, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            }
            if !known.is_empty() {
                request.topics.push(topic.with_partitions(known));
            }
        }
    });
    if request.topics.is_empty() {
        return now::<OffsetCommitRequest>(version, &response);
    }
    let asked = broker.groups.ask(broker, &request.group_id, |coordinator, turn, to| {
        coordinator.commit(turn, to, &request, version);
    });
    groups::answer::<OffsetCommitRequest>(version, asked, move |answer| {
        match answer {
            Response::Commit(committed) => {
                for topic in committed.topics {
                    let (name, id) = (topic.name.clone(), topic.topic_id);
                    place(&mut response, &name, id).partitions.extend(topic.partitions);
                }
            }
            other => {
                let code = groups::failure(&other);
                request.topics.iter().for_each(|topic| add(&mut response, topic, code));
            }
        }
        response
    })
}

fn place<'a>(
    response: &'a mut OffsetCommitResponse,
    name: &klamm_wire::messages::TopicName,
    id: uuid::Uuid,
) -> &'a mut OffsetCommitResponseTopic {
    let is = |topic: &OffsetCommitResponseTopic| topic.topic_id == id && topic.name == *name;
    groups::place_of(&mut response.topics, is, || {
        OffsetCommitResponseTopic::default().with_name(name.clone()).with_topic_id(id)
    })
}

fn add(response: &mut OffsetCommitResponse, topic: &OffsetCommitRequestTopic, code: ErrorCode) {
    let answers = topic.partitions.iter().map(|part| {
        OffsetCommitResponsePartition::default()
            .with_partition_index(part.partition_index)
            .with_error_code(code.0)
    });
    place(response, &topic.name, topic.topic_id).partitions.extend(answers);
}
