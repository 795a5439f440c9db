//! Groups in a cluster: who coordinates them, what outlives a coordinator, and what waits for replication.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::{Cluster, Side};
use bytes::Bytes;
use klamm_wire::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_wire::messages::*;
use klamm_wire::{ErrorCode, StrBytes};
use support::{Talk, code, topic_name};

const GROUP: &str = "readers";
const OFFSETS: &str = "__consumer_offsets";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

async fn cluster(brokers: u32) -> Cluster {
    let cluster = Cluster::builder()
        .seed(7)
        .brokers(brokers)
        .config("group.initial.rebalance.delay.ms", "0")
        .config("offsets.topic.num.partitions", "5");
    let cluster = cluster.start().await.unwrap();
    cluster.create_topic("t", 2, 1, &[]).await.unwrap();
    cluster
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Asks until there is a coordinator, and talks to it.
async fn coordinator(cluster: &Cluster) -> (i32, Talk) {
    loop {
        for broker in cluster.broker_ids() {
            let Ok(mut talk) = Talk::dial(cluster, broker).await else { continue };
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
            let Ok(answer) = talk.try_ask(4, &request).await else { continue };
            let found = &answer.coordinators[0];
            if found.error_code == 0
                && let Ok(talk) = Talk::named(cluster, found.node_id.0, "reader").await
            {
                return (found.node_id.0, talk);
            }
        }
        pause().await;
    }
}

fn join(member: &str) -> JoinGroupRequest {
    let range = JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range])
}

fn sync(member: &str, generation: i32, assignment: &'static str) -> SyncGroupRequest {
    let part = SyncGroupRequestAssignment::default()
        .with_member_id(text(member))
        .with_assignment(Bytes::from_static(assignment.as_bytes()));
    let parts = if assignment.is_empty() { Vec::new() } else { vec![part] };
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_assignments(parts)
}

fn heartbeat(member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_generation_id(generation)
}

fn commit(member: &str, generation: i32, partition: i32, offset: i64) -> OffsetCommitRequest {
    let part = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![part]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic])
}

/// Asks whoever coordinates until the answer is none of those that ask for patience.
async fn patiently<R: klamm_wire::Request>(
    cluster: &Cluster,
    version: i16,
    request: &R,
    code_of: impl Fn(&R::Response) -> i16,
) -> R::Response {
    let patience = [
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
    ];
    loop {
        let (_, mut talk) = coordinator(cluster).await;
        if let Ok(answer) = talk.try_ask(version, request).await
            && !patience.contains(&ErrorCode(code_of(&answer)))
        {
            return answer;
        }
        pause().await;
    }
}

async fn must_commit(cluster: &Cluster, request: &OffsetCommitRequest) {
    let answer = patiently(cluster, 8, request, |answer| answer.topics[0].partitions[0].error_code).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

async fn committed(cluster: &Cluster, partition: i32) -> i64 {
    let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let answer = patiently(cluster, 8, &request, |answer| answer.groups[0].error_code).await;
    assert_eq!(answer.groups[0].error_code, 0);
    let topics = &answer.groups[0].topics;
    let parts = topics.iter().flat_map(|topic| &topic.partitions);
    parts.clone().find(|part| part.partition_index == partition).map_or(-1, |part| part.committed_offset)
}

/// One member in generation 1 with the assignment `mine`.
async fn member(cluster: &Cluster) -> String {
    let answer = patiently(cluster, 9, &join(""), |answer| answer.error_code).await;
    assert_eq!(code(answer.error_code), ErrorCode::MEMBER_ID_REQUIRED);
    let id = answer.member_id.to_string();
    assert!(id.starts_with("reader-"), "{id}");
    let joined = patiently(cluster, 9, &join(&id), |answer| answer.error_code).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader, joined.member_id);
    let synced = patiently(cluster, 4, &sync(&id, 1, "mine"), |answer| answer.error_code).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"mine"[..]));
    id
}

#[tokio::test(start_paused = true)]
async fn the_topic_of_offsets_comes_into_being_when_a_coordinator_is_first_looked_for() {
    let cluster = cluster(3).await;
    let mut talk = Talk::to(&cluster, 1).await;
    let request = FindCoordinatorRequest::default().with_key(text(GROUP));
    let answer = talk.ask(3, &request).await;
    assert_eq!(code(answer.error_code), ErrorCode::NONE, "whoever asks first waits for it");
    assert_eq!(cluster.coordinator_of(GROUP), Some(answer.node_id.0));
    let answer = talk.metadata(Some(OFFSETS)).await;
    let topic = &answer.topics[0];
    assert!(topic.is_internal);
    assert_eq!((topic.partitions.len(), topic.partitions[0].replica_nodes.len()), (5, 3));
    // transactions have no coordinator yet
    let request = FindCoordinatorRequest::default().with_key(text("t")).with_key_type(1);
    let answer = talk.ask(3, &request).await;
    assert_eq!(code(answer.error_code), ErrorCode::COORDINATOR_NOT_AVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_for_a_coordinator_is_told_to_ask_again_if_there_is_none_in_time() {
    let cluster = cluster(3).await;
    let mut talk = Talk::to(&cluster, 1).await;
    let cut = cluster.cut(1, Side::Controller);
    for version in [3, 6] {
        let request = FindCoordinatorRequest::default();
        let request = match version {
            6 => request.with_coordinator_keys(vec![text(GROUP), text("others")]),
            _ => request.with_key(text(GROUP)),
        };
        let begun = tokio::time::Instant::now();
        let answer = talk.ask(version, &request).await;
        let codes: Vec<_> = match version {
            6 => answer.coordinators.iter().map(|found| found.error_code).collect(),
            _ => vec![answer.error_code],
        };
        let told = ErrorCode::COORDINATOR_NOT_AVAILABLE.0;
        assert!(codes.iter().all(|code| *code == told), "{codes:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    cut.heal();
    assert!(coordinator(&cluster).await.0 > 0);
}

#[tokio::test(start_paused = true)]
async fn another_broker_coordinates_nothing_of_this_group() {
    let cluster = cluster(3).await;
    let (broker, _) = coordinator(&cluster).await;
    let other = cluster.broker_ids().into_iter().find(|id| *id != broker).unwrap();
    let mut talk = Talk::to(&cluster, other).await;
    let answer = talk.ask(4, &heartbeat("m", 1)).await;
    assert_eq!(code(answer.error_code), ErrorCode::NOT_COORDINATOR);
    let answer = talk.ask(8, &commit("", -1, 0, 5)).await;
    assert_eq!(code(answer.topics[0].partitions[0].error_code), ErrorCode::NOT_COORDINATOR);
}

#[tokio::test(start_paused = true)]
async fn a_failover_keeps_the_generation_the_assignment_and_the_offsets() {
    let cluster = cluster(3).await;
    let id = member(&cluster).await;
    must_commit(&cluster, &commit(&id, 1, 0, 42)).await;
    let before = cluster.coordinator_of(GROUP).unwrap();
    cluster.kill(before).unwrap();
    let beat = patiently(&cluster, 4, &heartbeat(&id, 1), |answer| answer.error_code).await;
    assert_eq!(beat.error_code, 0);
    assert_ne!(cluster.coordinator_of(GROUP), Some(before));
    let synced = patiently(&cluster, 4, &sync(&id, 1, ""), |answer| answer.error_code).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"mine"[..]));
    assert_eq!(committed(&cluster, 0).await, 42);
    cluster.restart(before).await.unwrap();
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_moved_tells_whoever_waits_and_the_next_one_goes_on() {
    let cluster = cluster(3).await;
    let id = member(&cluster).await;
    let before = cluster.coordinator_of(GROUP).unwrap();
    // a second member waits for the first one to join again
    let (_, mut talk) = coordinator(&cluster).await;
    let second = talk.ask(9, &join("")).await.member_id.to_string();
    let frame = klamm_wire::codec::encode_request(9, &join(&second)).unwrap();
    let waits = talk.send(frame).await.unwrap();
    let after = cluster.move_coordinator(GROUP).await.unwrap();
    assert_ne!(after, before);
    let answer = klamm_wire::codec::decode_response::<JoinGroupRequest>(waits.await.unwrap()).unwrap();
    assert_eq!(code(answer.error_code), ErrorCode::NOT_COORDINATOR);
    let beat = patiently(&cluster, 4, &heartbeat(&id, 1), |answer| answer.error_code).await;
    assert_eq!(beat.error_code, 0, "generation 1 goes on");
    // and back again
    let again = cluster.move_coordinator(GROUP).await.unwrap();
    assert_ne!(again, after);
    let beat = patiently(&cluster, 4, &heartbeat(&id, 1), |answer| answer.error_code).await;
    assert_eq!(beat.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_acknowledged_when_it_is_replicated_and_not_before() {
    let cluster = cluster(3).await;
    let id = member(&cluster).await;
    let leader = cluster.coordinator_of(GROUP).unwrap();
    let mut talk = Talk::to(&cluster, leader).await;
    let others: Vec<_> = cluster.broker_ids().into_iter().filter(|other| *other != leader).collect();
    let cuts: Vec<_> = others.iter().map(|other| cluster.cut(leader, *other)).collect();
    let frame = klamm_wire::codec::encode_request(8, &commit(&id, 1, 1, 7)).unwrap();
    let mut waits = talk.send(frame).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waits).await;
    assert!(early.is_err(), "acknowledged while no follower can have it");
    drop(cuts);
    let answer = waits.await.unwrap();
    let answer = klamm_wire::codec::decode_response::<OffsetCommitRequest>(answer).unwrap();
    let answered = code(answer.topics[0].partitions[0].error_code);
    assert!([ErrorCode::NONE, ErrorCode::NOT_COORDINATOR].contains(&answered), "{answered}");
    if answered.is_ok() {
        cluster.kill(leader).unwrap();
        assert_eq!(committed(&cluster, 1).await, 7);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_for_a_partition_that_is_not_there_is_refused_alone() {
    let cluster = cluster(3).await;
    let id = member(&cluster).await;
    let missing = commit(&id, 1, 9, 7);
    let (_, mut talk) = coordinator(&cluster).await;
    let answer = talk.ask(8, &missing).await;
    let codes = code(answer.topics[0].partitions[0].error_code);
    assert_eq!(codes, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let beat = talk.ask(4, &heartbeat(&id, 1)).await;
    assert_eq!(beat.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn administrators_see_groups_and_remove_them() {
    let cluster = cluster(1).await;
    let id = member(&cluster).await;
    let (_, mut talk) = coordinator(&cluster).await;
    let listed = talk.ask(5, &ListGroupsRequest::default()).await;
    let shown = &listed.groups[0];
    assert_eq!((&**shown.group_id, &*shown.group_state, &*shown.group_type), (GROUP, "Stable", "classic"));
    let described = talk.ask(6, &DescribeGroupsRequest::default().with_groups(vec![group()])).await;
    let shown = &described.groups[0];
    assert_eq!((&*shown.group_state, &*shown.protocol_data), ("Stable", "range"));
    assert_eq!((&*shown.members[0].member_id, &*shown.members[0].client_id), (&*id, "reader"));
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let answer = talk.ask(2, &delete).await;
    assert_eq!(code(answer.results[0].error_code), ErrorCode::NON_EMPTY_GROUP);
    let member = MemberIdentity::default().with_member_id(text(&id));
    let leave = LeaveGroupRequest::default().with_group_id(group()).with_members(vec![member]);
    let answer = talk.ask(5, &leave).await;
    assert_eq!((answer.error_code, answer.members[0].error_code), (0, 0));
    let answer = talk.ask(2, &delete).await;
    assert_eq!(answer.results[0].error_code, 0);
    let described = talk.ask(6, &DescribeGroupsRequest::default().with_groups(vec![group()])).await;
    assert_eq!(code(described.groups[0].error_code), ErrorCode::GROUP_ID_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_deleted_topic_are_forgotten() {
    let cluster = cluster(1).await;
    must_commit(&cluster, &commit("", -1, 0, 5)).await;
    assert_eq!(committed(&cluster, 0).await, 5);
    let mut talk = Talk::to(&cluster, 1).await;
    let delete =
        DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]).with_timeout_ms(10_000);
    assert_eq!(talk.ask(4, &delete).await.responses[0].error_code, 0);
    while committed(&cluster, 0).await != -1 {
        pause().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_cluster_of_one_broker_remembers_its_groups() {
    let cluster = cluster(1).await;
    let id = member(&cluster).await;
    cluster.kill(1).unwrap();
    cluster.restart(1).await.unwrap();
    let beat = patiently(&cluster, 4, &heartbeat(&id, 1), |answer| answer.error_code).await;
    assert_eq!(beat.error_code, 0);
    let synced = patiently(&cluster, 4, &sync(&id, 1, ""), |answer| answer.error_code).await;
    assert_eq!(&synced.assignment[..], b"mine");
}

/// Goal: what groups commit does not hang on fewer brokers for good because one was down when the first group came.
#[tokio::test(start_paused = true)]
async fn the_offsets_topic_has_a_replica_on_a_broker_that_is_down_when_it_comes_into_being() {
    let cluster = cluster(3).await;
    cluster.create_topic("witness", 1, 3, &[]).await.unwrap();
    cluster.kill(3).unwrap();
    cluster.until_isr("witness", 0, |isr| isr.len() == 2).await;
    must_commit(&cluster, &commit("", -1, 0, 5)).await;
    for partition in 0..5 {
        assert_eq!(cluster.isr_of(OFFSETS, partition).len(), 2);
    }
    cluster.restart(3).await.unwrap();
    for partition in 0..5 {
        cluster.until_isr(OFFSETS, partition, |isr| isr.len() == 3).await;
    }
}
