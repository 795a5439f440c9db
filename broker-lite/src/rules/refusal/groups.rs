//! The same for what concerns groups.

use klamm_wire::codec::{
    CodecError, decode_offset_commit, decode_offset_fetch, decode_request, decode_response, encode_response,
};
use klamm_wire::messages::delete_groups_response::DeletableGroupResult;
use klamm_wire::messages::describe_groups_response::DescribedGroup;
use klamm_wire::messages::find_coordinator_response::Coordinator;
use klamm_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_wire::messages::*;
use klamm_wire::seam::Frame;

/// First versions that ask for several coordinators, and for offsets of several groups.
const COORDINATORS: i16 = 4;
const GROUPS: i16 = 8;

/// As [`super::refusal`].
pub(super) fn refusal(request: &Frame, code: i16) -> Result<Option<Frame>, CodecError> {
    let (frame, version) = (request.clone(), request.api_version);
    let refused = match request.api_key {
        8 => encode_response::<OffsetCommitRequest>(version, &commit(decode_offset_commit(frame)?, code)),
        9 => {
            let request = decode_offset_fetch(frame)?;
            // before version 2 there is room in partitions only, and none is looked for here
            let response = if version >= GROUPS {
                let refuse = |group: offset_fetch_request::OffsetFetchRequestGroup| {
                    OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(code)
                };
                OffsetFetchResponse::default().with_groups(request.groups.into_iter().map(refuse).collect())
            } else {
                let topics = request.topics.unwrap_or_default().into_iter();
                let topics = topics.filter(|_| version < 2).map(|topic| fetched(topic, code)).collect();
                OffsetFetchResponse::default().with_error_code(code).with_topics(topics)
            };
            encode_response::<OffsetFetchRequest>(version, &response)
        }
        10 => {
            let keys = decode_request::<FindCoordinatorRequest>(frame)?.coordinator_keys;
            let refuse =
                |key| Coordinator::default().with_key(key).with_error_code(code).with_node_id(BrokerId(-1));
            let response = match version >= COORDINATORS {
                true => FindCoordinatorResponse::default()
                    .with_coordinators(keys.into_iter().map(refuse).collect()),
                false => FindCoordinatorResponse::default().with_error_code(code).with_node_id(BrokerId(-1)),
            };
            encode_response::<FindCoordinatorRequest>(version, &response)
        }
        11 => {
            let member = decode_request::<JoinGroupRequest>(frame)?.member_id;
            let response = JoinGroupResponse::default().with_error_code(code).with_member_id(member);
            encode_response::<JoinGroupRequest>(version, &response)
        }
        12 => {
            encode_response::<HeartbeatRequest>(version, &HeartbeatResponse::default().with_error_code(code))
        }
        13 => encode_response::<LeaveGroupRequest>(
            version,
            &LeaveGroupResponse::default().with_error_code(code),
        ),
        14 => {
            encode_response::<SyncGroupRequest>(version, &SyncGroupResponse::default().with_error_code(code))
        }
        15 => {
            let groups = decode_request::<DescribeGroupsRequest>(frame)?.groups.into_iter();
            let refuse = |id| DescribedGroup::default().with_group_id(id).with_error_code(code);
            let response = DescribeGroupsResponse::default().with_groups(groups.map(refuse).collect());
            encode_response::<DescribeGroupsRequest>(version, &response)
        }
        16 => encode_response::<ListGroupsRequest>(
            version,
            &ListGroupsResponse::default().with_error_code(code),
        ),
        42 => {
            let groups = decode_request::<DeleteGroupsRequest>(frame)?.groups_names.into_iter();
            let refuse = |id| DeletableGroupResult::default().with_group_id(id).with_error_code(code);
            let response = DeleteGroupsResponse::default().with_results(groups.map(refuse).collect());
            encode_response::<DeleteGroupsRequest>(version, &response)
        }
        47 => encode_response::<OffsetDeleteRequest>(
            version,
            &OffsetDeleteResponse::default().with_error_code(code),
        ),
        _ => return Ok(None),
    };
    refused.map(Some)
}

fn commit(request: OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    let topic = |topic: offset_commit_request::OffsetCommitRequestTopic| {
        let refuse = |part: &offset_commit_request::OffsetCommitRequestPartition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(part.partition_index)
                .with_error_code(code)
        };
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partitions(topic.partitions.iter().map(refuse).collect())
    };
    OffsetCommitResponse::default().with_topics(request.topics.into_iter().map(topic).collect())
}

fn fetched(
    topic: offset_fetch_request::OffsetFetchRequestTopic,
    code: i16,
) -> offset_fetch_response::OffsetFetchResponseTopic {
    let refuse = |number: &i32| {
        offset_fetch_response::OffsetFetchResponsePartition::default()
            .with_partition_index(*number)
            .with_committed_offset(-1)
            .with_error_code(code)
    };
    offset_fetch_response::OffsetFetchResponseTopic::default()
        .with_name(topic.name)
        .with_partitions(topic.partition_indexes.iter().map(refuse).collect())
}

/// As [`super::codes`].
pub(super) fn codes(frame: Frame) -> Result<Vec<i16>, CodecError> {
    let version = frame.api_version;
    Ok(match frame.api_key {
        8 => {
            let topics = decode_response::<OffsetCommitRequest>(frame)?.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        9 => {
            let response = decode_response::<OffsetFetchRequest>(frame)?;
            let whole = (2..GROUPS).contains(&version).then_some(response.error_code);
            let alone = response.topics.iter().flat_map(|topic| &topic.partitions);
            let groups = response.groups.iter().flat_map(|group| {
                let parts = group.topics.iter().flat_map(|topic| &topic.partitions);
                std::iter::once(group.error_code).chain(parts.map(|part| part.error_code))
            });
            whole.into_iter().chain(alone.map(|part| part.error_code)).chain(groups).collect()
        }
        10 if version >= COORDINATORS => {
            let found = decode_response::<FindCoordinatorRequest>(frame)?.coordinators;
            found.iter().map(|coordinator| coordinator.error_code).collect()
        }
        10 => vec![decode_response::<FindCoordinatorRequest>(frame)?.error_code],
        11 => vec![decode_response::<JoinGroupRequest>(frame)?.error_code],
        12 => vec![decode_response::<HeartbeatRequest>(frame)?.error_code],
        13 => {
            let response = decode_response::<LeaveGroupRequest>(frame)?;
            let members = response.members.iter().map(|member| member.error_code);
            std::iter::once(response.error_code).chain(members).collect()
        }
        14 => vec![decode_response::<SyncGroupRequest>(frame)?.error_code],
        15 => {
            let groups = decode_response::<DescribeGroupsRequest>(frame)?.groups;
            groups.iter().map(|group| group.error_code).collect()
        }
        16 => vec![decode_response::<ListGroupsRequest>(frame)?.error_code],
        42 => {
            let results = decode_response::<DeleteGroupsRequest>(frame)?.results;
            results.iter().map(|result| result.error_code).collect()
        }
        47 => {
            let response = decode_response::<OffsetDeleteRequest>(frame)?;
            let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
            std::iter::once(response.error_code).chain(parts.map(|part| part.error_code)).collect()
        }
        _ => Vec::new(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use klamm_wire::codec::encode_request;
    use klamm_wire::{Request, StrBytes};

    use super::*;

    fn request<R: Request>(version: i16, request: &R) -> Frame {
        encode_request(version, request).unwrap()
    }

    /// A request that names something, if it can.
    pub(crate) fn naming(api_key: i16, version: i16) -> Frame {
        let topic = || TopicName(StrBytes::from_static_str("t"));
        match api_key {
            // empty names, zeros and nulls: a topic id of 16 bytes in the middle, and one partition
            8 if version == 10 => {
                let mut body = vec![1, 0, 0, 0, 0, 1, 0, 2];
                body.extend([0; 16]);
                body.push(2);
                body.extend([0; 4 + 8 + 4 + 1 + 3]);
                Frame::new(8, 10, body.into())
            }
            8 => {
                let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                    .with_name(topic())
                    .with_partitions(vec![Default::default()]);
                request(version, &OffsetCommitRequest::default().with_topics(vec![topic]))
            }
            9 if version == 10 => Frame::new(9, 10, vec![2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0].into()),
            9 if version >= GROUPS => {
                let group = offset_fetch_request::OffsetFetchRequestGroup::default();
                request(version, &OffsetFetchRequest::default().with_groups(vec![group]))
            }
            9 => {
                let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(topic())
                    .with_partition_indexes(vec![0]);
                request(version, &OffsetFetchRequest::default().with_topics(Some(vec![topic])))
            }
            10 if version >= COORDINATORS => {
                let keys = vec![StrBytes::from_static_str("g")];
                request(version, &FindCoordinatorRequest::default().with_coordinator_keys(keys))
            }
            10 => request(version, &FindCoordinatorRequest::default()),
            11 => request(version, &JoinGroupRequest::default()),
            12 => request(version, &HeartbeatRequest::default()),
            13 => request(version, &LeaveGroupRequest::default()),
            14 => request(version, &SyncGroupRequest::default()),
            15 => request(version, &DescribeGroupsRequest::default().with_groups(vec![GroupId::default()])),
            16 => request(version, &ListGroupsRequest::default()),
            42 => {
                request(version, &DeleteGroupsRequest::default().with_groups_names(vec![GroupId::default()]))
            }
            _ => request(version, &OffsetDeleteRequest::default()),
        }
    }
}
