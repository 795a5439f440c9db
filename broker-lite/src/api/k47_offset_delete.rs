//! OffsetDelete (47): version 0.

use std::sync::Arc;

use broker_lite_core::group::Response;
use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use klamm_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use klamm_wire::seam::Frame;

use super::{Handled, groups, now};
use crate::broker::Broker;

/// Forgets what exists, and refuses the rest.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let mut request = decode_request::<OffsetDeleteRequest>(frame)?;
    let refused = |code: ErrorCode| OffsetDeleteResponse::default().with_error_code(code.0);
    if request.group_id.is_empty() {
        return now::<OffsetDeleteRequest>(version, &refused(ErrorCode::INVALID_GROUP_ID));
    }
    let mut response = OffsetDeleteResponse::default();
    let asked = std::mem::take(&mut request.topics);
    broker.image(|image| {
        for mut topic in asked {
            let parts = std::mem::take(&mut topic.partitions);
            let exists = |part: &OffsetDeleteRequestPartition| {
                groups::has_partition(image, &topic.name, part.partition_index)
            };
            let (known, unknown): (Vec<_>, Vec<_>) = parts.into_iter().partition(exists);
            if !unknown.is_empty() {
                add_unknown(&mut response, &topic, &unknown);
            }
            if !known.is_empty() {
                request.topics.push(topic.with_partitions(known));
            }
        }
    });
    let asked = broker.groups.ask(broker, &request.group_id, |coordinator, turn, to| {
        coordinator.delete_offsets(turn, to, &request);
    });
    groups::answer::<OffsetDeleteRequest>(version, asked, move |answer| match answer {
        Response::DeleteOffsets(deleted) => {
            for topic in deleted.topics {
                let is = |known: &OffsetDeleteResponseTopic| known.name == topic.name;
                let name = topic.name.clone();
                let new = || OffsetDeleteResponseTopic::default().with_name(name);
                groups::place_of(&mut response.topics, is, new).partitions.extend(topic.partitions);
            }
            response
        }
        other => refused(groups::failure(&other)),
    })
}

fn add_unknown(
    response: &mut OffsetDeleteResponse,
    topic: &OffsetDeleteRequestTopic,
    parts: &[OffsetDeleteRequestPartition],
) {
    let answer = |part: &OffsetDeleteRequestPartition| {
        OffsetDeleteResponsePartition::default()
            .with_partition_index(part.partition_index)
            .with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0)
    };
    let is = |known: &OffsetDeleteResponseTopic| known.name == topic.name;
    let new = || OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
    groups::place_of(&mut response.topics, is, new).partitions.extend(parts.iter().map(answer));
}
