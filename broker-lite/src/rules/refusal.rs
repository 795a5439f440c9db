//! Answers that are nothing but an error, for each API, and the errors that an answer carries.

mod admin;
mod groups;

use klamm_wire::ErrorCode;
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_response};
use klamm_wire::messages::alter_partition_response::AlterPartitionResponse;
use klamm_wire::messages::create_topics_response::CreatableTopicResult;
use klamm_wire::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use klamm_wire::messages::delete_topics_response::DeletableTopicResult;
use klamm_wire::messages::describe_configs_response::DescribeConfigsResult;
use klamm_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use klamm_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use klamm_wire::messages::*;
use klamm_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use klamm_wire::seam::Frame;

/// The request, refused with `code` in everything it names; `None` if there is no room for an error. `real` is the
/// answer it would have got, where that is known.
pub(crate) fn refusal(
    request: &Frame,
    code: ErrorCode,
    real: Option<&Frame>,
) -> Result<Option<Frame>, CodecError> {
    let (frame, version, code) = (request.clone(), request.api_version, code.0);
    let refused = match request.api_key {
        0 => {
            let request = decode_request::<ProduceRequest>(frame)?;
            if request.acks == 0 {
                return Ok(None);
            }
            encode_response::<ProduceRequest>(version, &produce(request, code))
        }
        1 => encode_response::<FetchRequest>(version, &fetch(decode_request(frame)?, code)),
        2 => encode_response::<ListOffsetsRequest>(version, &list_offsets(decode_request(frame)?, code)),
        3 => {
            let Some(real) = real else { return Ok(None) };
            let mut response = decode_response::<MetadataRequest>(real.clone())?;
            for topic in &mut response.topics {
                topic.error_code = code;
                topic.partitions.clear();
            }
            encode_response::<MetadataRequest>(version, &response)
        }
        8..=16 | 42 | 47 => return groups::refusal(request, code),
        18 => {
            let response = ApiVersionsResponse::default().with_error_code(code);
            encode_response::<ApiVersionsRequest>(version, &response)
        }
        19 => {
            let topics = decode_request::<CreateTopicsRequest>(frame)?
                .topics
                .into_iter()
                .map(|topic| CreatableTopicResult::default().with_name(topic.name).with_error_code(code));
            let response = CreateTopicsResponse::default().with_topics(topics.collect());
            encode_response::<CreateTopicsRequest>(version, &response)
        }
        20 => encode_response::<DeleteTopicsRequest>(version, &delete_topics(decode_request(frame)?, code)),
        21 => encode_response::<DeleteRecordsRequest>(version, &delete_records(decode_request(frame)?, code)),
        22 => {
            let response = InitProducerIdResponse::default()
                .with_error_code(code)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            encode_response::<InitProducerIdRequest>(version, &response)
        }
        23 => {
            encode_response::<OffsetForLeaderEpochRequest>(version, &epoch_ends(decode_request(frame)?, code))
        }
        32 => {
            let resources = decode_request::<DescribeConfigsRequest>(frame)?.resources.into_iter();
            let results = resources.map(|resource| {
                DescribeConfigsResult::default()
                    .with_error_code(code)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name)
            });
            let response = DescribeConfigsResponse::default().with_results(results.collect());
            encode_response::<DescribeConfigsRequest>(version, &response)
        }
        52 => {
            let response = VoteResponse::default().with_error_code(code);
            encode_response::<VoteRequest>(version, &response)
        }
        53 => {
            let response = BeginQuorumEpochResponse::default().with_error_code(code);
            encode_response::<BeginQuorumEpochRequest>(version, &response)
        }
        54 => {
            let response = EndQuorumEpochResponse::default().with_error_code(code);
            encode_response::<EndQuorumEpochRequest>(version, &response)
        }
        55 => {
            let response = DescribeQuorumResponse::default().with_error_code(code);
            encode_response::<DescribeQuorumRequest>(version, &response)
        }
        59 => {
            let response = FetchSnapshotResponse::default().with_error_code(code);
            encode_response::<FetchSnapshotRequest>(version, &response)
        }
        56 => {
            let response = AlterPartitionResponse::default().with_error_code(code);
            encode_response::<AlterPartitionRequest>(version, &response)
        }
        60 => {
            let response = DescribeClusterResponse::default().with_error_code(code);
            encode_response::<DescribeClusterRequest>(version, &response)
        }
        61 => encode_response::<DescribeProducersRequest>(version, &producers(decode_request(frame)?, code)),
        62 => {
            let response = BrokerRegistrationResponse::default().with_error_code(code).with_broker_epoch(-1);
            encode_response::<BrokerRegistrationRequest>(version, &response)
        }
        63 => {
            let response = BrokerHeartbeatResponse::default().with_error_code(code).with_is_fenced(true);
            encode_response::<BrokerHeartbeatRequest>(version, &response)
        }
        67 => {
            let response = AllocateProducerIdsResponse::default().with_error_code(code);
            encode_response::<AllocateProducerIdsRequest>(version, &response)
        }
        _ => return admin::refusal(request, code),
    };
    refused.map(Some)
}

fn produce(request: ProduceRequest, code: i16) -> ProduceResponse {
    let topics = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|data| {
            PartitionProduceResponse::default()
                .with_index(data.index)
                .with_error_code(code)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions)
    });
    ProduceResponse::default().with_responses(topics.collect())
}

fn fetch(request: FetchRequest, code: i16) -> FetchResponse {
    if request.topics.is_empty() {
        // a request of a session that names none of its partitions
        return FetchResponse::default().with_error_code(code);
    }
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            PartitionData::default()
                .with_partition_index(wanted.partition)
                .with_error_code(code)
                .with_high_watermark(-1)
                .with_last_stable_offset(-1)
                .with_log_start_offset(-1)
                .with_aborted_transactions(None)
                .with_preferred_read_replica(BrokerId(-1))
                .with_records(Some(Default::default()))
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.topic)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    FetchResponse::default().with_responses(topics.collect())
}

fn producers(request: DescribeProducersRequest, code: i16) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let answer = |index: &i32| {
            describe_producers_response::PartitionResponse::default()
                .with_partition_index(*index)
                .with_error_code(code)
        };
        let partitions = topic.partition_indexes.iter().map(answer).collect();
        describe_producers_response::TopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn list_offsets(request: ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code)
                .with_timestamp(-1)
                .with_offset(-1)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn delete_topics(request: DeleteTopicsRequest, code: i16) -> DeleteTopicsResponse {
    let result =
        |name: Option<TopicName>| DeletableTopicResult::default().with_name(name).with_error_code(code);
    let by_name = request.topic_names.into_iter().map(|name| result(Some(name)));
    let either = request.topics.into_iter().map(|state| result(state.name).with_topic_id(state.topic_id));
    DeleteTopicsResponse::default().with_responses(by_name.chain(either).collect())
}

fn delete_records(request: DeleteRecordsRequest, code: i16) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code)
                .with_low_watermark(-1)
        });
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn epoch_ends(request: OffsetForLeaderEpochRequest, code: i16) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_error_code(code)
                .with_leader_epoch(-1)
                .with_end_offset(-1)
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Every error that an answer carries, each once, in the order of their first place.
pub(crate) fn errors_in(answer: &Frame) -> Vec<ErrorCode> {
    // What cannot be read carries none: it is what the broker itself has written.
    let mut codes = codes(answer.clone()).unwrap_or_default();
    let mut found: Vec<ErrorCode> = Vec::new();
    for code in codes.drain(..).filter(|code| *code != 0).map(ErrorCode) {
        if !found.contains(&code) {
            found.push(code);
        }
    }
    found
}

fn codes(frame: Frame) -> Result<Vec<i16>, CodecError> {
    Ok(match frame.api_key {
        0 => {
            let response = decode_response::<ProduceRequest>(frame)?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            partitions.map(|answer| answer.error_code).collect()
        }
        1 => {
            let response = decode_response::<FetchRequest>(frame)?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
            let partitions = partitions.map(|answer| answer.error_code);
            std::iter::once(response.error_code).chain(partitions).collect()
        }
        2 => {
            let response = decode_response::<ListOffsetsRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|answer| answer.error_code).collect()
        }
        3 => {
            let response = decode_response::<MetadataRequest>(frame)?;
            let of_topic = |topic: &metadata_response::MetadataResponseTopic| {
                let partitions = topic.partitions.iter().map(|partition| partition.error_code);
                std::iter::once(topic.error_code).chain(partitions).collect::<Vec<_>>()
            };
            std::iter::once(response.error_code).chain(response.topics.iter().flat_map(of_topic)).collect()
        }
        8..=16 | 42 | 47 => return groups::codes(frame),
        18 => vec![decode_response::<ApiVersionsRequest>(frame)?.error_code],
        19 => {
            let topics = decode_response::<CreateTopicsRequest>(frame)?.topics;
            topics.iter().map(|topic| topic.error_code).collect()
        }
        20 => {
            let topics = decode_response::<DeleteTopicsRequest>(frame)?.responses;
            topics.iter().map(|topic| topic.error_code).collect()
        }
        21 => {
            let topics = decode_response::<DeleteRecordsRequest>(frame)?.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|answer| answer.error_code).collect()
        }
        22 => vec![decode_response::<InitProducerIdRequest>(frame)?.error_code],
        23 => {
            let topics = decode_response::<OffsetForLeaderEpochRequest>(frame)?.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|answer| answer.error_code).collect()
        }
        32 => {
            let results = decode_response::<DescribeConfigsRequest>(frame)?.results;
            results.iter().map(|result| result.error_code).collect()
        }
        52 => {
            let response = decode_response::<VoteRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            std::iter::once(response.error_code).chain(partitions.map(|answer| answer.error_code)).collect()
        }
        53 => {
            let response = decode_response::<BeginQuorumEpochRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            std::iter::once(response.error_code).chain(partitions.map(|answer| answer.error_code)).collect()
        }
        54 => {
            let response = decode_response::<EndQuorumEpochRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            std::iter::once(response.error_code).chain(partitions.map(|answer| answer.error_code)).collect()
        }
        55 => {
            let response = decode_response::<DescribeQuorumRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            std::iter::once(response.error_code).chain(partitions.map(|answer| answer.error_code)).collect()
        }
        59 => {
            let response = decode_response::<FetchSnapshotRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            std::iter::once(response.error_code).chain(partitions.map(|answer| answer.error_code)).collect()
        }
        56 => {
            let response = decode_response::<AlterPartitionRequest>(frame)?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            let partitions = partitions.map(|answer| answer.error_code);
            std::iter::once(response.error_code).chain(partitions).collect()
        }
        60 => vec![decode_response::<DescribeClusterRequest>(frame)?.error_code],
        61 => {
            let topics = decode_response::<DescribeProducersRequest>(frame)?.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|answer| answer.error_code).collect()
        }
        62 => vec![decode_response::<BrokerRegistrationRequest>(frame)?.error_code],
        63 => vec![decode_response::<BrokerHeartbeatRequest>(frame)?.error_code],
        67 => vec![decode_response::<AllocateProducerIdsRequest>(frame)?.error_code],
        _ => return admin::codes(frame),
    })
}

#[cfg(test)]
mod tests {
    use klamm_wire::codec::encode_request;
    use klamm_wire::messages::delete_records_request::DeleteRecordsTopic;
    use klamm_wire::messages::{fetch_request, produce_request};
    use klamm_wire::{Request, StrBytes};

    use super::*;
    use crate::api::{BROKER, CONTROLLER};

    fn request<R: Request + Default>(version: i16, request: &R) -> Frame {
        encode_request(version, request).unwrap()
    }

    /// A request of this API and version that names something, if it can.
    fn naming(api_key: i16, version: i16) -> Frame {
        let name =
            || TopicName(StrBytes::from_static_str(if (version >= 13) && api_key < 2 { "" } else { "t" }));
        match api_key {
            0 => {
                let data =
                    produce_request::PartitionProduceData::default().with_records(Some(Default::default()));
                let topic = produce_request::TopicProduceData::default()
                    .with_name(name())
                    .with_partition_data(vec![data]);
                request(version, &ProduceRequest::default().with_acks(1).with_topic_data(vec![topic]))
            }
            1 => {
                let topic = fetch_request::FetchTopic::default()
                    .with_topic(name())
                    .with_partitions(vec![Default::default()]);
                request(version, &FetchRequest::default().with_topics(vec![topic]))
            }
            2 => {
                let topic = list_offsets_request::ListOffsetsTopic::default()
                    .with_name(name())
                    .with_partitions(vec![Default::default()]);
                request(version, &ListOffsetsRequest::default().with_topics(vec![topic]))
            }
            3 => request(version, &MetadataRequest::default()),
            8..=16 | 42 | 47 => groups::tests::naming(api_key, version),
            18 => request(version, &ApiVersionsRequest::default()),
            19 => {
                let topic = create_topics_request::CreatableTopic::default().with_name(name());
                request(version, &CreateTopicsRequest::default().with_topics(vec![topic]))
            }
            20 if version < 6 => {
                request(version, &DeleteTopicsRequest::default().with_topic_names(vec![name()]))
            }
            20 => {
                let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name()));
                request(version, &DeleteTopicsRequest::default().with_topics(vec![topic]))
            }
            21 => {
                let topic =
                    DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![Default::default()]);
                request(version, &DeleteRecordsRequest::default().with_topics(vec![topic]))
            }
            22 => request(version, &InitProducerIdRequest::default()),
            23 => {
                let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                    .with_topic(name())
                    .with_partitions(vec![Default::default()]);
                request(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]))
            }
            32 => {
                let resource =
                    describe_configs_request::DescribeConfigsResource::default().with_resource_type(2);
                request(version, &DescribeConfigsRequest::default().with_resources(vec![resource]))
            }
            52 => request(version, &VoteRequest::default()),
            53 => request(version, &BeginQuorumEpochRequest::default()),
            54 => request(version, &EndQuorumEpochRequest::default()),
            55 => request(version, &DescribeQuorumRequest::default()),
            56 => request(version, &AlterPartitionRequest::default()),
            59 => request(version, &FetchSnapshotRequest::default()),
            60 => request(version, &DescribeClusterRequest::default()),
            61 => {
                let topic = describe_producers_request::TopicRequest::default()
                    .with_name(name())
                    .with_partition_indexes(vec![0]);
                request(version, &DescribeProducersRequest::default().with_topics(vec![topic]))
            }
            62 => request(version, &BrokerRegistrationRequest::default()),
            63 => request(version, &BrokerHeartbeatRequest::default()),
            67 => request(version, &AllocateProducerIdsRequest::default()),
            other => admin::tests::naming(other, version)
                .unwrap_or_else(|| panic!("api key {other} is offered and not tested")),
        }
    }

    /// Goal: whatever is offered can be refused by a rule, in every version, and the refusal can be read.
    #[test]
    fn every_api_that_is_offered_can_be_refused_in_each_version() {
        let code = ErrorCode::UNKNOWN_SERVER_ERROR;
        for offered in BROKER.iter().chain(CONTROLLER) {
            for version in offered.min.max(if offered.api_key == 0 { 3 } else { 0 })..=offered.max {
                let topic = metadata_response::MetadataResponseTopic::default()
                    .with_name(Some(TopicName(StrBytes::from_static_str("t"))));
                let real = MetadataResponse::default().with_topics(vec![topic]);
                let real = encode_response::<MetadataRequest>(9, &real).unwrap();
                let real = Frame { api_version: 9, ..real };
                let request = naming(offered.api_key, version);
                if offered.api_key == 3 && version != 9 {
                    continue;
                }
                let refused = refusal(&request, code, Some(&real)).unwrap();
                let refused = refused.unwrap_or_else(|| panic!("{offered:?} {version}"));
                assert_eq!((refused.api_key, refused.api_version), (offered.api_key, version));
                assert_eq!(errors_in(&refused), [code], "{offered:?} {version}");
            }
        }
    }
}
