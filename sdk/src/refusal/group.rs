//! How the apis of consumer groups say no.

use klamm_wire::messages::consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup;
use klamm_wire::messages::delete_groups_response::DeletableGroupResult;
use klamm_wire::messages::describe_groups_response::DescribedGroup;
use klamm_wire::messages::find_coordinator_response::Coordinator;
use klamm_wire::messages::leave_group_response::MemberResponse;
use klamm_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_wire::messages::{
    BrokerId, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest,
    DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use klamm_wire::{ErrorCode, StrBytes};

use super::{Refusable, text};

impl Refusable for FindCoordinatorRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> FindCoordinatorResponse {
        let nowhere = BrokerId(-1);
        // Version 4 has only the list.
        if !self.key.is_empty() {
            return FindCoordinatorResponse::default().with_error_code(code.0).with_node_id(nowhere);
        }
        let coordinators = self.coordinator_keys.iter().map(|key| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(nowhere)
                .with_error_code(code.0)
                .with_error_message(text(reason))
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    }
}

impl Refusable for JoinGroupRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> JoinGroupResponse {
        JoinGroupResponse::default()
            .with_error_code(code.0)
            .with_generation_id(-1)
            .with_protocol_name(Some(StrBytes::default()))
            .with_member_id(self.member_id.clone())
    }
}

impl Refusable for SyncGroupRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> SyncGroupResponse {
        SyncGroupResponse::default().with_error_code(code.0)
    }
}

impl Refusable for HeartbeatRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> HeartbeatResponse {
        HeartbeatResponse::default().with_error_code(code.0)
    }
}

impl Refusable for LeaveGroupRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> LeaveGroupResponse {
        let members = self.members.iter().map(|member| {
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(code.0)
        });
        LeaveGroupResponse::default().with_error_code(code.0).with_members(members.collect())
    }
}

impl Refusable for OffsetCommitRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> OffsetCommitResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code.0)
            });
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        OffsetCommitResponse::default().with_topics(topics.collect())
    }
}

impl Refusable for OffsetFetchRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> OffsetFetchResponse {
        // Version 8 has only the list.
        if !self.group_id.is_empty() {
            return OffsetFetchResponse::default().with_error_code(code.0);
        }
        let groups = self.groups.iter().map(|group| {
            OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone()).with_error_code(code.0)
        });
        OffsetFetchResponse::default().with_groups(groups.collect())
    }
}

impl Refusable for DescribeGroupsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> DescribeGroupsResponse {
        // The text is of version 6 only, and the version is not known here.
        let groups = self
            .groups
            .iter()
            .map(|group| DescribedGroup::default().with_group_id(group.clone()).with_error_code(code.0));
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }
}

impl Refusable for ListGroupsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> ListGroupsResponse {
        ListGroupsResponse::default().with_error_code(code.0)
    }
}

impl Refusable for DeleteGroupsRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> DeleteGroupsResponse {
        let results = self.groups_names.iter().map(|group| {
            DeletableGroupResult::default().with_group_id(group.clone()).with_error_code(code.0)
        });
        DeleteGroupsResponse::default().with_results(results.collect())
    }
}

impl Refusable for OffsetDeleteRequest {
    fn refused(&self, code: ErrorCode, _: Option<&str>) -> OffsetDeleteResponse {
        OffsetDeleteResponse::default().with_error_code(code.0)
    }
}

impl Refusable for ConsumerGroupDescribeRequest {
    fn refused(&self, code: ErrorCode, reason: Option<&str>) -> ConsumerGroupDescribeResponse {
        let groups = self.group_ids.iter().map(|group| {
            DescribedConsumerGroup::default()
                .with_group_id(group.clone())
                .with_error_code(code.0)
                .with_error_message(text(reason))
        });
        ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
    }
}
