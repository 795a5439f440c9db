//! Requests about groups that reach deep: there is a group with one member, and what is sent names it and its generation.
//!
//! Ids of members are drawn by the broker. Inputs say [`MEMBER`] instead, which is as long, and is replaced in each cluster
//! by the id that the member has there; so an input stays a replay.

use bytes::Bytes;
use klamm_wire::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use klamm_wire::{ErrorCode, StrBytes, codec};

use super::front_door::request;

/// Stands for the member's id: the client id of these conversations, and a UUID.
pub(super) const MEMBER: &str = "fuzzer-00000000-0000-0000-0000-000000000000";
const GROUP: &str = "readers";
const TOPIC: &str = "orders";
const JOIN: i16 = 11;
/// The last version that takes a member in without sending it back for its id.
const JOIN_AT_ONCE: u8 = 3;
const FIND: i16 = 10;
const FIND_VERSION: u8 = 4;
/// Attempts until the coordinator is there.
const ATTEMPTS: usize = 200;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

fn find() -> FindCoordinatorRequest {
    FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP), text("others")])
}

fn join(member: &'static str) -> JoinGroupRequest {
    // Version 3, two topics, no user data.
    let subscription = b"\0\x03\0\0\0\x01\0\x06orders\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff";
    let range = JoinGroupRequestProtocol::default().with_name(text("range"));
    let range = range.with_metadata(Bytes::from_static(subscription));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(1_800_000)
        .with_rebalance_timeout_ms(5_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range])
}

fn sync(generation: i32) -> SyncGroupRequest {
    let assignment = b"\0\x03\0\0\0\x01\0\x06orders\0\0\0\x02\0\0\0\0\0\0\0\x01\xff\xff\xff\xff";
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text(MEMBER))
        .with_assignment(Bytes::from_static(assignment));
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(MEMBER))
        .with_assignments(vec![assignment])
}

/// Makes the group, its first generation and a committed offset, by conversations; the id of its member.
///
/// # Panics
///
/// If the broker does not take it in.
#[allow(clippy::panic, reason = "this is how a fuzz target reports")]
pub(super) fn found(mut converse: impl FnMut(&[u8]) -> Vec<Bytes>) -> String {
    let mut answered = |frames: &[u8], api_key: i16, version: u8| {
        let mut answer =
            converse(frames).into_iter().next().unwrap_or_else(|| panic!("api {api_key}: no answer"));
        let header = codec::decode_response_header(api_key, version.into(), &mut answer);
        header.unwrap_or_else(|error| panic!("{error}"));
        answer
    };
    for _ in 0..ATTEMPTS {
        answered(&request(FIND_VERSION, &find()), FIND, FIND_VERSION);
        let answer = answered(&request(JOIN_AT_ONCE, &join("")), JOIN, JOIN_AT_ONCE);
        let joined = read_join(answer);
        if ErrorCode(joined.error_code).is_ok() {
            let member = joined.member_id.to_string();
            assert_eq!((member.len(), joined.generation_id), (MEMBER.len(), 1), "{member}");
            answered(&named(&request(3, &sync(1)), &member), 14, 3);
            answered(&named(&request(7, &commit(1)), &member), 8, 7);
            return member;
        }
    }
    panic!("there is no coordinator after {ATTEMPTS} attempts");
}

#[allow(clippy::panic, reason = "this is how a fuzz target reports")]
fn read_join(answer: Bytes) -> JoinGroupResponse {
    let version = JOIN_AT_ONCE.into();
    let frame =
        klamm_wire::Frame { api_key: JOIN, api_version: version, body: vec![answer], expects_reply: true };
    codec::decode_response::<JoinGroupRequest>(frame).unwrap_or_else(|error| panic!("{error}"))
}

/// The input with this member's id wherever [`MEMBER`] stands.
pub(super) fn named(input: &[u8], member: &str) -> Vec<u8> {
    let mut input = input.to_vec();
    if member.len() == MEMBER.len() {
        let mut at = 0;
        while let Some(found) = input[at..].windows(MEMBER.len()).position(|part| part == MEMBER.as_bytes()) {
            at += found;
            input[at..at + MEMBER.len()].copy_from_slice(member.as_bytes());
        }
    }
    input
}

fn commit(generation: i32) -> OffsetCommitRequest {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(5)
            .with_committed_metadata(Some(text("why")))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![partition(0), partition(1)]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(MEMBER))
        .with_topics(vec![topic])
}

/// Requests that make sense to this group, or nearly.
pub(super) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let wanted = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
    let fetch = |topics: Option<Vec<_>>| {
        let wanted = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(topics);
        OffsetFetchRequest::default().with_groups(vec![wanted])
    };
    let heartbeat =
        HeartbeatRequest::default().with_group_id(group()).with_generation_id(1).with_member_id(text(MEMBER));
    let leaves = MemberIdentity::default().with_member_id(text(MEMBER));
    let leave = LeaveGroupRequest::default().with_group_id(group()).with_members(vec![leaves]);
    let stranger = join("").with_group_instance_id(Some(text("one"))).with_group_id(GroupId(text("others")));
    let alone = commit(-1).with_member_id(StrBytes::default()).with_group_id(GroupId(text("others")));
    let deleted = OffsetDeleteRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![OffsetDeleteRequestPartition::default().with_partition_index(0)]);
    let deleted = OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![deleted]);
    vec![
        ("find-coordinator", request(FIND_VERSION, &find())),
        ("join-anew", request(9, &join("").with_group_id(GroupId(text("strangers"))))),
        ("join-again", request(9, &join(MEMBER))),
        ("join-static", request(9, &stranger)),
        (
            "sync",
            request(
                5,
                &sync(1).with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
            ),
        ),
        ("sync-later", request(3, &sync(2))),
        ("heartbeat", request(4, &heartbeat)),
        ("commit", request(9, &commit(1))),
        ("commit-later", request(8, &commit(2))),
        ("commit-alone", request(8, &alone)),
        ("fetch-offsets", request(8, &fetch(Some(vec![wanted])))),
        ("fetch-all-offsets", request(9, &fetch(None))),
        ("describe-groups", request(5, &DescribeGroupsRequest::default().with_groups(vec![group()]))),
        ("list-groups", request(5, &ListGroupsRequest::default())),
        ("delete-offsets", request(0, &deleted)),
        ("leave", request(5, &leave)),
        ("delete-groups", request(2, &DeleteGroupsRequest::default().with_groups_names(vec![group()]))),
    ]
}
