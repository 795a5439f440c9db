//! DescribeProducers (61): version 0, of the replica held here, whether it leads or not.

use std::sync::Arc;

use broker_lite_core::producer_state::ProducerEntry;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use klamm_wire::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, StrBytes};

use super::k03_metadata::is_topic_name;
use super::{Handled, now, text};
use crate::broker::{Broker, TopicRef};

/// Tells the idempotent producers of each partition, by id.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DescribeProducersRequest>(frame)?;
    let topics = request.topics.into_iter().map(|topic| {
        let describe = |index: &i32| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            match producers(broker, &topic.name, *index) {
                Ok(producers) => answer.with_active_producers(producers),
                Err((code, message)) => answer.with_error_code(code.0).with_error_message(message),
            }
        };
        let partitions = topic.partition_indexes.iter().map(describe).collect();
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    let response = DescribeProducersResponse::default().with_topics(topics.collect());
    now::<DescribeProducersRequest>(version, &response)
}

type Refused = (ErrorCode, Option<StrBytes>);

fn producers(broker: &Broker, topic: &str, index: i32) -> Result<Vec<ProducerState>, Refused> {
    if !is_topic_name(topic) {
        let message = format!("{topic:?} is no name of a topic");
        return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, Some(text(&message))));
    }
    let partition = broker.partition(TopicRef::Name(topic), index).map_err(|code| {
        let known = broker.image(|image| image.topic(topic).is_some());
        (code, (!known).then(|| text(&format!("there is no topic {topic}"))))
    })?;
    let look = partition
        .look(|replica| replica.log().producers().iter().map(|(id, entry)| described(id, entry)).collect());
    look.ok_or((ErrorCode::NOT_LEADER_OR_FOLLOWER, None))
}

fn described(id: i64, entry: &ProducerEntry) -> ProducerState {
    let last = entry.batches.back();
    ProducerState::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(i32::from(entry.epoch))
        .with_last_sequence(last.map_or(-1, |batch| batch.last_sequence))
        .with_last_timestamp(last.map_or(-1, |batch| batch.timestamp))
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}
