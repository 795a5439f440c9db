//! Coordinators that move, load, are old or silent, against a mock under virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::messages::delete_groups_response::DeletableGroupResult;
use klamm_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use klamm_wire::messages::find_coordinator_response::Coordinator;
use klamm_wire::messages::leave_group_response::MemberResponse;
use klamm_wire::messages::list_groups_response::ListedGroup;
use klamm_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use klamm_wire::messages::*;

use super::*;
use crate::TopicPartition;
use crate::admin::AdminError;
use crate::admin::tests::{admin, cluster};
use crate::admin::topics::topic_name;
use crate::error::Recovery;
use crate::mock::MockConnector;

/// Broker 1 coordinates groups that begin with `a`, broker 2 all others.
fn coordinated(mock: &MockConnector) {
    mock.on::<FindCoordinatorRequest>().answer_with(|request, _| {
        let node = |key: &str| BrokerId(if key.starts_with('a') { 1 } else { 2 });
        if request.coordinator_keys.is_empty() {
            return FindCoordinatorResponse::default().with_node_id(node(&request.key));
        }
        let found = request
            .coordinator_keys
            .iter()
            .map(|key| Coordinator::default().with_key(key.clone()).with_node_id(node(key)));
        FindCoordinatorResponse::default().with_coordinators(found.collect())
    });
}

fn asked<R: klamm_wire::Request>(mock: &MockConnector) -> Vec<i32> {
    let entries = mock.journal().into_iter().filter(|entry| entry.request::<R>().is_some());
    entries.map(|entry| entry.head.broker).collect()
}

fn deleted(group: &GroupId, code: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult::default().with_group_id(group.clone()).with_error_code(code.0)
}

#[tokio::test(start_paused = true)]
async fn coordinators_are_found_in_one_request_and_each_is_asked_once_for_all_its_groups() {
    let mock = cluster().build();
    coordinated(&mock);
    mock.on::<DeleteGroupsRequest>().answer_with(|request, _| {
        let results = request.groups_names.iter().map(|group| deleted(group, ErrorCode::NONE));
        DeleteGroupsResponse::default().with_results(results.collect())
    });
    let results = admin(&mock).delete_groups(["a1", "b1", "a2", "b2"]).await.unwrap();
    let names: Vec<_> = results.iter().map(|(name, told)| (name.as_str(), told.is_ok())).collect();
    assert_eq!(names, [("a1", true), ("b1", true), ("a2", true), ("b2", true)]);
    assert_eq!(mock.requests::<FindCoordinatorRequest>().len(), 1);
    assert_eq!(asked::<DeleteGroupsRequest>(&mock), [1, 2]);
}

/// Goal: neither a move nor a coordinator that still loads reaches the caller, and settled groups are not asked for again.
#[tokio::test(start_paused = true)]
async fn groups_that_move_or_load_are_looked_for_again_and_the_others_are_left_alone() {
    let mock = cluster().build();
    let finds = std::sync::atomic::AtomicUsize::new(0);
    mock.on::<FindCoordinatorRequest>().answer_with(move |request, _| {
        let moved = finds.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let found = request.coordinator_keys.iter().chain(Some(&request.key).filter(|key| !key.is_empty()));
        let found = found.map(|key| {
            let node = if key.as_str() == "moves" && moved { 3 } else { 1 };
            Coordinator::default().with_key(key.clone()).with_node_id(BrokerId(node))
        });
        FindCoordinatorResponse::default().with_coordinators(found.collect())
    });
    let order = mock.in_order();
    let codes = |codes: &'static [(&'static str, ErrorCode)]| {
        let results = codes.iter().map(|(group, code)| deleted(&group_id(group), *code));
        DeleteGroupsResponse::default().with_results(results.collect())
    };
    order.on::<DeleteGroupsRequest>().broker(1).answer(codes(&[
        ("loads", ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
        ("moves", ErrorCode::NOT_COORDINATOR),
        ("stays", ErrorCode::NONE),
    ]));
    mock.on::<DeleteGroupsRequest>().broker(1).answer(codes(&[("loads", ErrorCode::NONE)]));
    mock.on::<DeleteGroupsRequest>().broker(3).answer(codes(&[("moves", ErrorCode::NONE)]));
    let results = admin(&mock).delete_groups(["loads", "moves", "stays"]).await.unwrap();
    assert_eq!(results.all().unwrap().len(), 3);
    let names: Vec<_> = mock.requests::<DeleteGroupsRequest>().iter().map(|r| r.groups_names.len()).collect();
    assert_eq!(names, [3, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_never_comes_is_an_error_in_time_that_asks_for_another_try() {
    let mock = cluster().build();
    mock.on::<FindCoordinatorRequest>().error(ErrorCode::COORDINATOR_NOT_AVAILABLE);
    let admin = admin(&mock).within(Duration::from_secs(3));
    let begun = tokio::time::Instant::now();
    let error = admin.describe_groups(["a", "b"]).await.unwrap().all().unwrap_err();
    assert_eq!((error.code, error.recovery()), (ErrorCode::COORDINATOR_NOT_AVAILABLE, Recovery::Retry));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_silent_takes_no_other_group_along() {
    let mock = cluster().build();
    coordinated(&mock);
    mock.on::<DescribeGroupsRequest>().broker(1).drop_connection();
    mock.on::<DescribeGroupsRequest>().answer_with(|request, _| {
        let described = request.groups.iter().map(|group| {
            DescribedGroup::default().with_group_id(group.clone()).with_group_state(text("Empty"))
        });
        DescribeGroupsResponse::default().with_groups(described.collect())
    });
    let admin = admin(&mock).within(Duration::from_secs(3));
    let results = admin.describe_groups(["a", "b"]).await.unwrap();
    assert!(results.of("b").unwrap().is_ok());
    let error = results.of("a").unwrap().as_ref().unwrap_err();
    assert_eq!(error.recovery(), Recovery::Retry);
    let error = admin.describe_groups(["a"]).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Retry);
}

/// What one partition has, in the layout of several groups, or of one.
fn fetched(request: &OffsetFetchRequest) -> OffsetFetchResponse {
    let of = |group: &GroupId| i64::from(group.as_str().as_bytes()[1] - b'0');
    if request.groups.is_empty() {
        let partition = OffsetFetchResponsePartition::default().with_committed_offset(of(&request.group_id));
        let topic = OffsetFetchResponseTopic::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition]);
        return OffsetFetchResponse::default().with_topics(vec![topic]);
    }
    let group = |asked: &offset_fetch_request::OffsetFetchRequestGroup| {
        let partition = OffsetFetchResponsePartitions::default().with_committed_offset(of(&asked.group_id));
        let topic = OffsetFetchResponseTopics::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition]);
        OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone()).with_topics(vec![topic])
    };
    OffsetFetchResponse::default().with_groups(request.groups.iter().map(group).collect())
}

#[tokio::test(start_paused = true)]
async fn offsets_of_many_groups_are_fetched_together_and_one_by_one_from_old_brokers() {
    for (newest, requests) in [(9, vec![1, 2]), (7, vec![1, 2, 2])] {
        let mock = cluster()
            .offer::<OffsetFetchRequest>(1, newest)
            .offer::<FindCoordinatorRequest>(0, if newest < 8 { 3 } else { 6 })
            .build();
        coordinated(&mock);
        mock.on::<OffsetFetchRequest>().answer_with(|request, _| fetched(request));
        let offsets = admin(&mock).list_group_offsets(["a1", "b2", "b3"]).await.unwrap().all().unwrap();
        let place = TopicPartition::new("orders", 0);
        let told: Vec<_> = offsets
            .iter()
            .map(|of| of.of(&place).unwrap().as_ref().unwrap().as_ref().map(|o| o.offset))
            .collect();
        assert_eq!(told, [Some(1), Some(2), Some(3)]);
        let mut asked = asked::<OffsetFetchRequest>(&mock);
        asked.sort_unstable();
        assert_eq!(asked, requests, "version {newest}");
        let finds = mock.requests::<FindCoordinatorRequest>().len();
        assert_eq!(finds, if newest < 8 { 3 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_is_gone_after_a_lost_answer_and_the_error_says_that_this_call_may_have_done_it() {
    let mock = cluster().build();
    coordinated(&mock);
    mock.on::<DeleteGroupsRequest>().times(1).drop_connection();
    mock.on::<DeleteGroupsRequest>().answer_with(|request, _| {
        let results = request.groups_names.iter().map(|group| deleted(group, ErrorCode::GROUP_ID_NOT_FOUND));
        DeleteGroupsResponse::default().with_results(results.collect())
    });
    let admin = admin(&mock);
    let error = admin.delete_groups(["a"]).await.unwrap().all().unwrap_err();
    assert_eq!((error.code, error.maybe_done), (ErrorCode::GROUP_ID_NOT_FOUND, true));
    let error = admin.delete_groups(["a"]).await.unwrap().all().unwrap_err();
    assert!(!error.maybe_done, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_active_group_keeps_its_offsets_and_the_error_names_its_members_and_the_cure() {
    let mock = cluster().build();
    coordinated(&mock);
    mock.on::<OffsetCommitRequest>().answer_with(|request, _| {
        assert_eq!((request.generation_id_or_member_epoch, request.member_id.as_str()), (-1, ""));
        let partition =
            OffsetCommitResponsePartition::default().with_error_code(ErrorCode::UNKNOWN_MEMBER_ID.0);
        let topic = OffsetCommitResponseTopic::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition]);
        OffsetCommitResponse::default().with_topics(vec![topic])
    });
    let member = |client: &str| {
        DescribedGroupMember::default()
            .with_member_id(text(client))
            .with_client_id(text(client))
            .with_client_host(text("/10.0.0.1"))
    };
    let group = DescribedGroup::default()
        .with_group_id(group_id("a"))
        .with_group_state(text("Stable"))
        .with_protocol_type(text("consumer"))
        .with_members(["one", "two", "three", "too"].map(member).into());
    mock.on::<DescribeGroupsRequest>().answer(DescribeGroupsResponse::default().with_groups(vec![group]));
    let error = admin(&mock).alter_group_offsets("a", [(("orders", 0), 5)]).await.unwrap_err();
    let words = "group \"a\" is Stable with 4 members (one at /10.0.0.1, three at /10.0.0.1, too at /10.0.0.1 and \
        1 more): stop them or remove them, and ask again";
    assert_eq!(error.to_string(), words);
    assert_eq!((error.recovery(), error.maybe_written()), (Recovery::Fix, false));
    assert!(matches!(error, AdminError::GroupActive { state: GroupState::Stable, .. }));
}

/// Goal: a broker before version 6 says Dead, and that is not sold as a group.
#[tokio::test(start_paused = true)]
async fn a_group_that_old_brokers_call_dead_does_not_exist() {
    let mock = cluster().offer::<DescribeGroupsRequest>(0, 5).build();
    coordinated(&mock);
    let dead = DescribedGroup::default().with_group_id(group_id("a")).with_group_state(text("Dead"));
    mock.on::<DescribeGroupsRequest>().answer(DescribeGroupsResponse::default().with_groups(vec![dead]));
    let error = admin(&mock).describe_groups(["a"]).await.unwrap().all().unwrap_err();
    assert_eq!((error.code, error.recovery()), (ErrorCode::GROUP_ID_NOT_FOUND, Recovery::Fix));
}

/// Goal: bytes that members made up crash nobody, and are not taken for an empty assignment.
#[tokio::test(start_paused = true)]
async fn an_assignment_that_cannot_be_read_is_none() {
    let mock = cluster().build();
    coordinated(&mock);
    let member = |id: &str, bytes: &'static [u8]| {
        DescribedGroupMember::default()
            .with_member_id(text(id))
            .with_member_metadata(bytes.into())
            .with_member_assignment(bytes.into())
    };
    let group = DescribedGroup::default()
        .with_group_id(group_id("a"))
        .with_group_state(text("Stable"))
        .with_protocol_type(text("consumer"))
        .with_members(vec![member("odd", b"\0\0\x7f\xff\xff\xff"), member("new", b"")]);
    mock.on::<DescribeGroupsRequest>().answer(DescribeGroupsResponse::default().with_groups(vec![group]));
    let group = admin(&mock).describe_groups(["a"]).await.unwrap().all().unwrap().remove(0);
    let told: BTreeMap<_, _> =
        group.members.into_iter().map(|member| (member.id, member.assignment)).collect();
    assert_eq!(told, [("new".to_owned(), Some(vec![])), ("odd".to_owned(), None)].into());
}

#[tokio::test(start_paused = true)]
async fn groups_of_brokers_that_answer_are_listed_and_the_others_are_named() {
    let mock = cluster().build();
    mock.on::<DescribeClusterRequest>().answer({
        let broker = |id: i32| {
            describe_cluster_response::DescribeClusterBroker::default()
                .with_broker_id(BrokerId(id))
                .with_port(9092)
        };
        DescribeClusterResponse::default().with_brokers((1..=3).map(broker).collect())
    });
    mock.on::<ListGroupsRequest>().broker(2).silence();
    let order = mock.in_order();
    order
        .on::<ListGroupsRequest>()
        .broker(1)
        .answer(ListGroupsResponse::default().with_error_code(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0));
    mock.on::<ListGroupsRequest>().answer_with(|request, head| {
        assert_eq!(request.states_filter, [text("Stable")]);
        let group = ListedGroup::default()
            .with_group_id(group_id(&format!("of-{}", head.broker)))
            .with_group_state(text("Stable"))
            .with_group_type(text("share"));
        ListGroupsResponse::default().with_groups(vec![group])
    });
    let admin = admin(&mock).within(Duration::from_secs(5));
    let which = ListGroups::all().in_state(GroupState::Stable);
    let listed = admin.list_groups(which).await.unwrap();
    let ids: Vec<_> = listed.groups.iter().map(|group| (group.id.as_str(), group.coordinator)).collect();
    assert_eq!(ids, [("of-1", 1), ("of-3", 3)]);
    assert_eq!(listed.groups[0].group_type, Some(GroupType::Share));
    assert_eq!(listed.unanswered.iter().map(|error| error.broker).collect::<Vec<_>>(), [2]);
    assert_eq!(listed.all().unwrap_err().broker, 2);
}

#[tokio::test(start_paused = true)]
async fn states_that_a_broker_is_too_old_to_tell_are_refused_by_name() {
    let mock = cluster().offer::<ListGroupsRequest>(0, 3).build();
    mock.on::<ListGroupsRequest>().answer(ListGroupsResponse::default());
    let cluster = DescribeClusterResponse::default().with_brokers(vec![
        describe_cluster_response::DescribeClusterBroker::default().with_broker_id(BrokerId(1)),
    ]);
    mock.on::<DescribeClusterRequest>().answer(cluster);
    let admin = admin(&mock);
    assert!(admin.list_groups(ListGroups::all()).await.unwrap().groups.is_empty());
    let error = admin.list_groups(ListGroups::all().in_state(GroupState::Empty)).await.unwrap_err();
    assert!(matches!(error, AdminError::TooOld { offered: 3, needed: 4, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn members_that_left_after_a_lost_answer_may_have_been_removed_by_it() {
    let mock = cluster().build();
    coordinated(&mock);
    mock.on::<LeaveGroupRequest>().times(1).drop_connection();
    mock.on::<LeaveGroupRequest>().answer_with(|request, _| {
        let told = request.members.iter().map(|member| {
            assert!(member.reason.is_some());
            MemberResponse::default()
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(ErrorCode::UNKNOWN_MEMBER_ID.0)
        });
        LeaveGroupResponse::default().with_members(told.collect())
    });
    let removed = admin(&mock).remove_members("a", MembersToRemove::instances(["one"])).await.unwrap();
    let error = removed.all().unwrap_err();
    assert_eq!((error.member.as_str(), error.maybe_done), ("one", true));
}
