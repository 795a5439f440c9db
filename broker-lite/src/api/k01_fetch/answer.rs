//! Fields of a Fetch answer, as Kafka fills them in.

use std::collections::BTreeMap;

use broker_lite_core::replica::Fetched;
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::codec::PartitionChunks;
use klamm_wire::messages::fetch_request::FetchTopic;
use klamm_wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use klamm_wire::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};

use super::read::Look;
use super::{SESSIONS, TOPIC_IDS};
use crate::api::text;
use crate::broker::{Broker, LeaderHint, TopicRef};

/// First version that tells where the leader is (KIP-951).
const LEADER_HINTS: i16 = 16;

/// A partition that was read. `aborted`: with the list of aborted transactions, of which there are none.
pub(super) fn answered(partition: i32, fetched: Fetched, aborted: bool) -> (PartitionData, Vec<Bytes>) {
    let diverging = fetched.diverging.map_or_else(EpochEndOffset::default, |end| {
        EpochEndOffset::default().with_epoch(end.epoch).with_end_offset(end.end_offset)
    });
    let data = PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(fetched.high_watermark)
        .with_last_stable_offset(fetched.last_stable_offset)
        .with_log_start_offset(fetched.log_start_offset)
        .with_diverging_epoch(diverging)
        .with_aborted_transactions(aborted.then(Vec::new))
        .with_preferred_read_replica(BrokerId(fetched.preferred_read_replica.unwrap_or(-1)))
        .with_records(Some(Bytes::new()));
    (data, fetched.records)
}

/// A replica that refused.
pub(super) fn refused(partition: i32, code: ErrorCode) -> PartitionData {
    unknown(partition, code).with_aborted_transactions(None)
}

/// A partition that is not known at all.
pub(super) fn unknown(partition: i32, code: ErrorCode) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code.0)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(Some(Vec::new()))
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Bytes::new()))
}

/// Puts partitions that follow each other under one topic, and returns their records in the same order.
pub(super) fn grouped(version: i16, response: &mut FetchResponse, looks: Vec<Look>) -> Vec<PartitionChunks> {
    let mut records: Vec<PartitionChunks> = Vec::new();
    for look in looks {
        let same = |last: &FetchableTopicResponse| {
            last.topic_id == look.partition.topic_id && *last.topic == look.partition.topic
        };
        if !response.responses.last().is_some_and(same) {
            let topic = FetchableTopicResponse::default()
                .with_topic(if version >= TOPIC_IDS {
                    TopicName::default()
                } else {
                    TopicName(look.partition.topic.clone())
                })
                .with_topic_id(look.partition.topic_id);
            response.responses.push(topic);
            records.push(Vec::new());
        }
        if let (Some(topic), Some(chunks)) = (response.responses.last_mut(), records.last_mut()) {
            topic.partitions.push(look.data);
            chunks.push(look.records);
        }
    }
    records
}

/// Answers a request that cannot be served at all: also partition by partition, as long as topics have names.
pub(super) fn refused_whole(version: i16, request: &FetchRequest, code: ErrorCode) -> FetchResponse {
    let topic = |topic: &FetchTopic| {
        let partitions = topic.partitions.iter().map(|asked| unknown(asked.partition, code)).collect();
        FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    };
    let mut response = FetchResponse::default();
    if version >= SESSIONS {
        response = response.with_error_code(code.0).with_session_id(request.session_id);
    }
    if version < TOPIC_IDS {
        response.responses = request.topics.iter().map(topic).collect();
    }
    response
}

/// Tells a client that is at the wrong broker where the right one is (KIP-951); a follower knows where brokers are.
pub(super) fn add_leaders(broker: &Broker, version: i16, follower: bool, response: &mut FetchResponse) {
    if version < LEADER_HINTS {
        return;
    }
    let mut endpoints = BTreeMap::new();
    for topic in &mut response.responses {
        for answer in &mut topic.partitions {
            let code = ErrorCode(answer.error_code);
            if !matches!(code, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH) {
                continue;
            }
            let Some(leader) = broker.leader_hint(TopicRef::Id(topic.topic_id), answer.partition_index)
            else {
                continue;
            };
            answer.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader.id))
                .with_leader_epoch(leader.epoch);
            if leader.endpoint.is_some() && !follower {
                endpoints.insert(leader.id, leader);
            }
        }
    }
    response.node_endpoints = endpoints.values().filter_map(endpoint).collect();
}

fn endpoint(leader: &LeaderHint) -> Option<NodeEndpoint> {
    let at = leader.endpoint.as_ref()?;
    let endpoint = NodeEndpoint::default()
        .with_node_id(BrokerId(leader.id))
        .with_host(text(&at.host))
        .with_port(at.port)
        .with_rack(at.rack.as_deref().map(text));
    Some(endpoint)
}
