//! The answer by which a broker refuses a request, for every api that this client speaks.
//!
//! In: a request, and an error code. Out: the answer with that code wherever the api has room for one: at every
//! partition, topic or resource that the request names, else at the top.

mod admin;
mod group;

use klamm_wire::codec;
use klamm_wire::messages::api_versions_response::ApiVersion;
use klamm_wire::messages::create_topics_response::CreatableTopicResult;
use klamm_wire::messages::delete_topics_response::DeletableTopicResult;
use klamm_wire::messages::describe_configs_response::DescribeConfigsResult;
use klamm_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_wire::messages::metadata_response::MetadataResponseTopic;
use klamm_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use klamm_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use klamm_wire::messages::{
    AlterPartitionReassignmentsRequest, ApiVersionsRequest, ApiVersionsResponse, BrokerId,
    ConsumerGroupDescribeRequest, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
    DescribeTopicPartitionsRequest, ElectLeadersRequest, FetchRequest, FetchResponse, FindCoordinatorRequest,
    HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, InitProducerIdResponse,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, ListOffsetsResponse,
    ListPartitionReassignmentsRequest, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    ProduceRequest, ProduceResponse, ProducerId, SyncGroupRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};
use klamm_wire::negotiation::CLIENT_RANGES;
use klamm_wire::{ErrorCode, Frame, Request, StrBytes};

/// A request that can be refused with an error code.
pub trait Refusable: Request {
    /// The answer that refuses this request. `reason` goes where the api has room for a text.
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> Self::Response;
}

fn text(reason: Option<&str>) -> Option<StrBytes> {
    reason.map(|reason| StrBytes::from_string(reason.to_owned()))
}

impl Refusable for ProduceRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> ProduceResponse {
        let topics = self.topic_data.iter().map(|topic| {
            let partitions = topic.partition_data.iter().map(|partition| {
                PartitionProduceResponse::default()
                    .with_index(partition.index)
                    .with_error_code(code.0)
                    .with_error_message(text(reason))
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
            });
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partition_responses(partitions.collect())
        });
        ProduceResponse::default().with_responses(topics.collect())
    }
}

impl Refusable for FetchRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> FetchResponse {
        // A request of a fetch session may name no partition: then the whole of it is refused.
        if self.topics.is_empty() {
            return FetchResponse::default().with_error_code(code.0);
        }
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                PartitionData::default()
                    .with_partition_index(partition.partition)
                    .with_error_code(code.0)
                    .with_high_watermark(-1)
                    .with_last_stable_offset(-1)
                    .with_log_start_offset(-1)
                    .with_aborted_transactions(None)
                    .with_preferred_read_replica(BrokerId(-1))
                    .with_records(Some(bytes::Bytes::new()))
            });
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions.collect())
        });
        FetchResponse::default().with_responses(topics.collect())
    }
}

impl Refusable for ListOffsetsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> ListOffsetsResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code.0)
                    .with_offset(-1)
                    .with_timestamp(-1)
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

impl Refusable for MetadataRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> MetadataResponse {
        let topics = self.topics.iter().flatten().map(|topic| {
            MetadataResponseTopic::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_error_code(code.0)
        });
        let response = MetadataResponse::default().with_topics(topics.collect());
        match response.topics.is_empty() {
            true => response.with_error_code(code.0),
            false => response,
        }
    }
}

impl Refusable for ApiVersionsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> ApiVersionsResponse {
        let range = |&(key, min, max): &(i16, i16, i16)| {
            ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
        };
        ApiVersionsResponse::default()
            .with_error_code(code.0)
            .with_api_keys(CLIENT_RANGES.iter().map(range).collect())
    }
}

impl Refusable for CreateTopicsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> CreateTopicsResponse {
        let topics = self.topics.iter().map(|topic| {
            CreatableTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code.0)
                .with_error_message(text(reason))
                .with_configs(None)
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    }
}

impl Refusable for DeleteTopicsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> DeleteTopicsResponse {
        let named =
            self.topic_names.iter().map(|name| DeletableTopicResult::default().with_name(Some(name.clone())));
        let topics = self.topics.iter().map(|topic| {
            DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id)
        });
        let refused = named.chain(topics);
        let refused = refused.map(|topic| topic.with_error_code(code.0).with_error_message(text(reason)));
        DeleteTopicsResponse::default().with_responses(refused.collect())
    }
}

impl Refusable for InitProducerIdRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> InitProducerIdResponse {
        InitProducerIdResponse::default().with_error_code(code.0).with_producer_id(ProducerId(-1))
    }
}

impl Refusable for OffsetForLeaderEpochRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> OffsetForLeaderEpochResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                EpochEndOffset::default().with_partition(partition.partition).with_error_code(code.0)
            });
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }
}

impl Refusable for DescribeConfigsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| {
            DescribeConfigsResult::default()
                .with_error_code(code.0)
                .with_error_message(text(reason))
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }
}

impl Refusable for DescribeClusterRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> DescribeClusterResponse {
        DescribeClusterResponse::default().with_error_code(code.0).with_error_message(text(reason))
    }
}

macro_rules! by_key {
    ($($request:ident),* $(,)?; without throttle time: $($silent:ident),*) => {
        /// The answer that refuses an encoded request; `None` if the api is not one of this client's, or the
        /// request cannot be read.
        pub(crate) fn refuse(request: Frame, code: ErrorCode, reason: Option<&str>) -> Option<Frame> {
            let version = request.api_version;
            match request.api_key {
                $($request::KEY => {
                    let request = codec::decode_request::<$request>(request).ok()?;
                    codec::encode_response::<$request>(version, &request.refused(code, reason)).ok()
                })*
                $($silent::KEY => {
                    let request = codec::decode_request::<$silent>(request).ok()?;
                    codec::encode_response::<$silent>(version, &request.refused(code, reason)).ok()
                })*
                _ => None,
            }
        }

        /// An encoded answer that asks the client to pause; left as it is if its api is not one of this client's.
        pub(crate) fn throttle(answer: Frame, ms: i32) -> Frame {
            let version = answer.api_version;
            let throttled = match answer.api_key {
                $($request::KEY => codec::decode_response::<$request>(answer.clone()).ok().and_then(|response| {
                    codec::encode_response::<$request>(version, &response.with_throttle_time_ms(ms)).ok()
                }),)*
                _ => None,
            };
            throttled.unwrap_or(answer)
        }

        #[cfg(test)]
        const KEYS: &[i16] = &[$($request::KEY,)* $($silent::KEY),*];
    };
}

by_key! {
    ProduceRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ApiVersionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, InitProducerIdRequest, OffsetForLeaderEpochRequest, DescribeConfigsRequest,
    DescribeClusterRequest, DeleteRecordsRequest, DescribeLogDirsRequest, CreatePartitionsRequest,
    ElectLeadersRequest, IncrementalAlterConfigsRequest, AlterPartitionReassignmentsRequest,
    ListPartitionReassignmentsRequest, UpdateFeaturesRequest, DescribeProducersRequest, UnregisterBrokerRequest,
    DescribeTopicPartitionsRequest, FindCoordinatorRequest, JoinGroupRequest, SyncGroupRequest, HeartbeatRequest,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, DescribeGroupsRequest, ListGroupsRequest,
    DeleteGroupsRequest, OffsetDeleteRequest, ConsumerGroupDescribeRequest;
    without throttle time: DescribeQuorumRequest
}

/// Refuses a Metadata request by changing the answer to it, because an answer without brokers would take them away
/// from the client.
pub(crate) fn refuse_metadata(request: Frame, answer: Frame, code: ErrorCode) -> Option<Frame> {
    let version = answer.api_version;
    let refused = codec::decode_request::<MetadataRequest>(request).ok()?.refused(code, None);
    let known = codec::decode_response::<MetadataRequest>(answer).ok()?;
    let all =
        known.topics.iter().map(|topic| topic.clone().with_error_code(code.0).with_partitions(Vec::new()));
    let topics = if refused.topics.is_empty() { all.collect() } else { refused.topics };
    let response = known.with_topics(topics).with_error_code(refused.error_code);
    codec::encode_response::<MetadataRequest>(version, &response).ok()
}

#[cfg(test)]
mod tests {
    use klamm_wire::messages::TopicName;
    use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic};
    use klamm_wire::messages::metadata_request::MetadataRequestTopic;
    use klamm_wire::messages::metadata_response::MetadataResponseBroker;
    use klamm_wire::negotiation::ApiName;

    use super::*;
    use crate::client::throttle::pause;

    fn name(name: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(name))
    }

    #[test]
    fn every_api_that_this_client_speaks_can_be_refused_and_throttled_in_every_version() {
        for &(key, min, max) in CLIENT_RANGES {
            assert!(KEYS.contains(&key), "{}", ApiName(key));
            for version in min..=max {
                let what = format!("{} {version}", ApiName(key));
                let request = empty_request(key, version);
                let answer = refuse(request, ErrorCode::KAFKA_STORAGE_ERROR, Some("why")).expect(&what);
                assert_eq!((answer.api_key, answer.api_version), (key, version), "{what}");
                codec::decode_any_response(key, version, answer.clone().into_contiguous()).expect(&what);
                let edited = throttle(answer, 77);
                codec::decode_any_response(key, version, edited.clone().into_contiguous()).expect(&what);
                let unread = [ProduceRequest::KEY, ApiVersionsRequest::KEY, DescribeQuorumRequest::KEY];
                if !unread.contains(&key) {
                    let told = throttle_time(edited.clone());
                    assert_eq!(pause(&edited).as_millis() as i32, told, "{what}");
                    assert_eq!(told, if version == max { 77 } else { told }, "{what}");
                }
            }
        }
    }

    /// As the decoder reads it; 0 in a version without.
    fn throttle_time(answer: Frame) -> i32 {
        macro_rules! read {
            ($($request:ident),*) => {
                match answer.api_key {
                    $($request::KEY => codec::decode_response::<$request>(answer).unwrap().throttle_time_ms,)*
                    key => panic!("{}", ApiName(key)),
                }
            };
        }
        read!(
            FetchRequest,
            ListOffsetsRequest,
            MetadataRequest,
            CreateTopicsRequest,
            DeleteTopicsRequest,
            InitProducerIdRequest,
            OffsetForLeaderEpochRequest,
            DescribeConfigsRequest,
            DescribeClusterRequest,
            DeleteRecordsRequest,
            DescribeLogDirsRequest,
            CreatePartitionsRequest,
            ElectLeadersRequest,
            IncrementalAlterConfigsRequest,
            AlterPartitionReassignmentsRequest,
            ListPartitionReassignmentsRequest,
            UpdateFeaturesRequest,
            DescribeProducersRequest,
            UnregisterBrokerRequest,
            DescribeTopicPartitionsRequest,
            FindCoordinatorRequest,
            JoinGroupRequest,
            SyncGroupRequest,
            HeartbeatRequest,
            LeaveGroupRequest,
            OffsetCommitRequest,
            OffsetFetchRequest,
            DescribeGroupsRequest,
            ListGroupsRequest,
            DeleteGroupsRequest,
            OffsetDeleteRequest,
            ConsumerGroupDescribeRequest
        )
    }

    fn empty_request(key: i16, version: i16) -> Frame {
        macro_rules! empty {
            ($($request:ident),*) => {
                match key {
                    $($request::KEY => codec::encode_request(version, &$request::default()).unwrap(),)*
                    _ => panic!("{}", ApiName(key)),
                }
            };
        }
        empty!(
            ProduceRequest,
            FetchRequest,
            ListOffsetsRequest,
            MetadataRequest,
            ApiVersionsRequest,
            CreateTopicsRequest,
            DeleteTopicsRequest,
            InitProducerIdRequest,
            OffsetForLeaderEpochRequest,
            DescribeConfigsRequest,
            DescribeClusterRequest,
            DeleteRecordsRequest,
            DescribeLogDirsRequest,
            CreatePartitionsRequest,
            ElectLeadersRequest,
            IncrementalAlterConfigsRequest,
            AlterPartitionReassignmentsRequest,
            ListPartitionReassignmentsRequest,
            UpdateFeaturesRequest,
            DescribeProducersRequest,
            UnregisterBrokerRequest,
            DescribeTopicPartitionsRequest,
            DescribeQuorumRequest,
            FindCoordinatorRequest,
            JoinGroupRequest,
            SyncGroupRequest,
            HeartbeatRequest,
            LeaveGroupRequest,
            OffsetCommitRequest,
            OffsetFetchRequest,
            DescribeGroupsRequest,
            ListGroupsRequest,
            DeleteGroupsRequest,
            OffsetDeleteRequest,
            ConsumerGroupDescribeRequest
        )
    }

    #[test]
    fn every_partition_that_is_asked_for_is_refused() {
        let partitions = (0..3).map(|p| FetchPartition::default().with_partition(p)).collect();
        let topic = FetchTopic::default().with_topic(name("t")).with_partitions(partitions);
        let request = FetchRequest::default().with_topics(vec![topic]);
        let frame = codec::encode_request(12, &request).unwrap();
        let answer = refuse(frame, ErrorCode::NOT_LEADER_OR_FOLLOWER, None).unwrap();
        let answer = codec::decode_response::<FetchRequest>(answer).unwrap();
        let codes: Vec<_> =
            answer.responses[0].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
        assert_eq!(codes, [(0, 6), (1, 6), (2, 6)]);
        assert_eq!(answer.responses[0].topic, name("t"));
        assert_eq!(answer.error_code, 0);
    }

    #[test]
    fn refused_metadata_keep_their_brokers() {
        let asked = MetadataRequestTopic::default().with_name(Some(name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let known = MetadataResponse::default()
            .with_brokers(vec![MetadataResponseBroker::default().with_node_id(BrokerId(4))])
            .with_topics(vec![MetadataResponseTopic::default().with_name(Some(name("t")))]);
        let request = codec::encode_request(12, &request).unwrap();
        let known = codec::encode_response::<MetadataRequest>(12, &known).unwrap();
        let answer = refuse_metadata(request, known, ErrorCode::LEADER_NOT_AVAILABLE).unwrap();
        let answer = codec::decode_response::<MetadataRequest>(answer).unwrap();
        assert_eq!(answer.brokers[0].node_id, BrokerId(4));
        assert_eq!(answer.topics[0].error_code, ErrorCode::LEADER_NOT_AVAILABLE.0);
    }
}
