//! The same for what operators ask: partitions, reassignments, elections, settings, features.

use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_response};
use klamm_wire::messages::*;
use klamm_wire::seam::Frame;

use crate::api::k35_describe_log_dirs as log_dirs;

/// As [`super::refusal`].
pub(super) fn refusal(request: &Frame, code: i16) -> Result<Option<Frame>, CodecError> {
    let (frame, version) = (request.clone(), request.api_version);
    let refused = match request.api_key {
        33 => {
            let resources =
                decode_request::<AlterConfigsRequest>(frame)?.resources.into_iter().map(|resource| {
                    alter_configs_response::AlterConfigsResourceResponse::default()
                        .with_error_code(code)
                        .with_resource_type(resource.resource_type)
                        .with_resource_name(resource.resource_name)
                });
            let response = AlterConfigsResponse::default().with_responses(resources.collect());
            encode_response::<AlterConfigsRequest>(version, &response)
        }
        35 => log_dirs::encode(version, &log_dirs::refused(code)),
        37 => {
            let topics = decode_request::<CreatePartitionsRequest>(frame)?.topics.into_iter().map(|topic| {
                create_partitions_response::CreatePartitionsTopicResult::default()
                    .with_name(topic.name)
                    .with_error_code(code)
            });
            let response = CreatePartitionsResponse::default().with_results(topics.collect());
            encode_response::<CreatePartitionsRequest>(version, &response)
        }
        43 => encode_response::<ElectLeadersRequest>(
            version,
            &elect_leaders(decode_request(frame)?, version, code),
        ),
        44 => {
            let resources = decode_request::<IncrementalAlterConfigsRequest>(frame)?.resources;
            let resources = resources.into_iter().map(|resource| {
                incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name)
            });
            let response = IncrementalAlterConfigsResponse::default().with_responses(resources.collect());
            encode_response::<IncrementalAlterConfigsRequest>(version, &response)
        }
        45 => {
            let response = AlterPartitionReassignmentsResponse::default().with_error_code(code);
            encode_response::<AlterPartitionReassignmentsRequest>(version, &response)
        }
        46 => {
            let response = ListPartitionReassignmentsResponse::default().with_error_code(code);
            encode_response::<ListPartitionReassignmentsRequest>(version, &response)
        }
        57 => {
            let response = UpdateFeaturesResponse::default().with_error_code(code);
            encode_response::<UpdateFeaturesRequest>(version, &response)
        }
        64 => {
            let response = UnregisterBrokerResponse::default().with_error_code(code);
            encode_response::<UnregisterBrokerRequest>(version, &response)
        }
        74 => {
            let response = ListConfigResourcesResponse::default().with_error_code(code);
            encode_response::<ListConfigResourcesRequest>(version, &response)
        }
        75 => {
            let topics =
                decode_request::<DescribeTopicPartitionsRequest>(frame)?.topics.into_iter().map(|topic| {
                    describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic::default()
                        .with_name(Some(topic.name))
                        .with_error_code(code)
                });
            let response = DescribeTopicPartitionsResponse::default().with_topics(topics.collect());
            encode_response::<DescribeTopicPartitionsRequest>(version, &response)
        }
        _ => return Ok(None),
    };
    refused.map(Some)
}

/// Version 0 has room for an error only in what the request names.
fn elect_leaders(request: ElectLeadersRequest, version: i16, code: i16) -> ElectLeadersResponse {
    if version > 0 {
        return ElectLeadersResponse::default().with_error_code(code);
    }
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            elect_leaders_response::PartitionResult::default()
                .with_partition_id(*partition)
                .with_error_code(code)
        });
        elect_leaders_response::ReplicaElectionResult::default()
            .with_partition_result(partitions.collect())
            .with_topic(topic.topic)
    });
    ElectLeadersResponse::default().with_replica_election_results(topics.collect())
}

/// As [`super::codes`].
pub(super) fn codes(frame: Frame) -> Result<Vec<i16>, CodecError> {
    let and = |first: i16, others: Vec<i16>| std::iter::once(first).chain(others).collect();
    Ok(match frame.api_key {
        33 => {
            let response = decode_response::<AlterConfigsRequest>(frame)?;
            response.responses.iter().map(|resource| resource.error_code).collect()
        }
        35 => {
            let response = log_dirs::decode(frame)?;
            and(response.error_code, response.results.iter().map(|result| result.error_code).collect())
        }
        37 => {
            let response = decode_response::<CreatePartitionsRequest>(frame)?;
            response.results.iter().map(|topic| topic.error_code).collect()
        }
        43 => {
            let response = decode_response::<ElectLeadersRequest>(frame)?;
            let partitions =
                response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            and(response.error_code, partitions.map(|partition| partition.error_code).collect())
        }
        44 => {
            let response = decode_response::<IncrementalAlterConfigsRequest>(frame)?;
            response.responses.iter().map(|resource| resource.error_code).collect()
        }
        45 => {
            let response = decode_response::<AlterPartitionReassignmentsRequest>(frame)?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
            and(response.error_code, partitions.map(|partition| partition.error_code).collect())
        }
        46 => vec![decode_response::<ListPartitionReassignmentsRequest>(frame)?.error_code],
        57 => {
            let response = decode_response::<UpdateFeaturesRequest>(frame)?;
            and(response.error_code, response.results.iter().map(|result| result.error_code).collect())
        }
        64 => vec![decode_response::<UnregisterBrokerRequest>(frame)?.error_code],
        74 => vec![decode_response::<ListConfigResourcesRequest>(frame)?.error_code],
        75 => {
            let response = decode_response::<DescribeTopicPartitionsRequest>(frame)?;
            response.topics.iter().map(|topic| topic.error_code).collect()
        }
        _ => Vec::new(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use klamm_wire::codec::encode_request;
    use klamm_wire::{Request, StrBytes};

    use super::*;

    fn request<R: Request + Default>(version: i16, request: &R) -> Option<Frame> {
        Some(encode_request(version, request).unwrap())
    }

    /// A request of this API and version that names something, if it can.
    pub(crate) fn naming(api_key: i16, version: i16) -> Option<Frame> {
        let name = || TopicName(StrBytes::from_static_str("t"));
        match api_key {
            33 => {
                let resource = alter_configs_request::AlterConfigsResource::default();
                request(version, &AlterConfigsRequest::default().with_resources(vec![resource]))
            }
            35 => {
                let frame = request(version.min(4), &DescribeLogDirsRequest::default())?;
                Some(Frame { api_version: version, ..frame })
            }
            37 => {
                let topic = create_partitions_request::CreatePartitionsTopic::default().with_name(name());
                request(version, &CreatePartitionsRequest::default().with_topics(vec![topic]))
            }
            43 => {
                let topic = elect_leaders_request::TopicPartitions::default()
                    .with_topic(name())
                    .with_partitions(vec![0]);
                request(version, &ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])))
            }
            44 => {
                let resource = incremental_alter_configs_request::AlterConfigsResource::default();
                request(version, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]))
            }
            45 => request(version, &AlterPartitionReassignmentsRequest::default()),
            46 => request(version, &ListPartitionReassignmentsRequest::default()),
            57 => request(version, &UpdateFeaturesRequest::default()),
            64 => request(version, &UnregisterBrokerRequest::default()),
            74 => request(version, &ListConfigResourcesRequest::default()),
            75 => {
                let topic = describe_topic_partitions_request::TopicRequest::default().with_name(name());
                request(version, &DescribeTopicPartitionsRequest::default().with_topics(vec![topic]))
            }
            _ => None,
        }
    }
}
