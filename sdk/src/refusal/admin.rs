//! How the administrative apis say no.

use klamm_wire::ErrorCode;
use klamm_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_wire::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use klamm_wire::messages::describe_log_dirs_response::DescribeLogDirsResult;
use klamm_wire::messages::describe_producers_response::{PartitionResponse, TopicResponse};
use klamm_wire::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic;
use klamm_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use klamm_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_wire::messages::update_features_response::UpdatableFeatureResult;
use klamm_wire::messages::*;

use super::{Refusable, text};

impl Refusable for DeleteRecordsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> DeleteRecordsResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(partition.partition_index)
                    .with_low_watermark(-1)
                    .with_error_code(code.0)
            });
            DeleteRecordsTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        DeleteRecordsResponse::default().with_topics(topics.collect())
    }
}

impl Refusable for DescribeLogDirsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> DescribeLogDirsResponse {
        // Before version 3 only a log dir has room for a code.
        let result = DescribeLogDirsResult::default().with_error_code(code.0);
        DescribeLogDirsResponse::default().with_error_code(code.0).with_results(vec![result])
    }
}

impl Refusable for CreatePartitionsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| {
            CreatePartitionsTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code.0)
                .with_error_message(text(reason))
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    }
}

impl Refusable for ElectLeadersRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> ElectLeadersResponse {
        let results: Vec<_> = (self.topic_partitions.iter().flatten())
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    PartitionResult::default()
                        .with_partition_id(*partition)
                        .with_error_code(code.0)
                        .with_error_message(text(reason))
                });
                ReplicaElectionResult::default()
                    .with_topic(topic.topic.clone())
                    .with_partition_result(partitions.collect())
            })
            .collect();
        let response = ElectLeadersResponse::default();
        match results.is_empty() {
            true => response.with_error_code(code.0),
            false => response.with_replica_election_results(results),
        }
    }
}

impl Refusable for IncrementalAlterConfigsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> IncrementalAlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| {
            AlterConfigsResourceResponse::default()
                .with_error_code(code.0)
                .with_error_message(text(reason))
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    }
}

impl Refusable for AlterPartitionReassignmentsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> AlterPartitionReassignmentsResponse {
        let topics: Vec<_> = (self.topics.iter())
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    ReassignablePartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code.0)
                        .with_error_message(text(reason))
                });
                ReassignableTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            })
            .collect();
        let response = AlterPartitionReassignmentsResponse::default();
        match topics.is_empty() {
            true => response.with_error_code(code.0).with_error_message(text(reason)),
            false => response.with_responses(topics),
        }
    }
}

impl Refusable for ListPartitionReassignmentsRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse::default().with_error_code(code.0).with_error_message(text(reason))
    }
}

impl Refusable for DescribeQuorumRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> DescribeQuorumResponse {
        DescribeQuorumResponse::default().with_error_code(code.0).with_error_message(text(reason))
    }
}

impl Refusable for UpdateFeaturesRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> UpdateFeaturesResponse {
        let results = self.feature_updates.iter().map(|update| {
            UpdatableFeatureResult::default()
                .with_feature(update.feature.clone())
                .with_error_code(code.0)
                .with_error_message(text(reason))
        });
        UpdateFeaturesResponse::default()
            .with_error_code(code.0)
            .with_error_message(text(reason))
            .with_results(results.collect())
    }
}

impl Refusable for DescribeProducersRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> DescribeProducersResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|partition| {
                PartitionResponse::default()
                    .with_partition_index(*partition)
                    .with_error_code(code.0)
                    .with_error_message(text(reason))
            });
            TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        DescribeProducersResponse::default().with_topics(topics.collect())
    }
}

impl Refusable for UnregisterBrokerRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> UnregisterBrokerResponse {
        UnregisterBrokerResponse::default().with_error_code(code.0).with_error_message(text(reason))
    }
}

impl Refusable for DescribeTopicPartitionsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> DescribeTopicPartitionsResponse {
        let topics = self.topics.iter().map(|topic| {
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic.name.clone()))
                .with_error_code(code.0)
        });
        DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
    }
}
