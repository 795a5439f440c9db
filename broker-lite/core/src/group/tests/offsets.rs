//! What is committed, by whom, and for how long.

use klamm_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn delete_offset(world: &mut World) -> u64 {
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(TopicName(text("orders")))
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    let request = OffsetDeleteRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(vec![topic]);
    world.step(|coordinator, turn, to| coordinator.delete_offsets(turn, to, &request))
}

fn delete_group(world: &mut World) -> u64 {
    world.step(|coordinator, turn, to| coordinator.delete(turn, to, &GroupId(text(GROUP))))
}

fn deleted(world: &World, token: u64) -> ErrorCode {
    match &world.answers[&token] {
        Response::Delete(answer) => ErrorCode(answer.error_code),
        Response::DeleteOffsets(answer) => ErrorCode(answer.topics[0].partitions[0].error_code),
        Response::Failed(code) => *code,
        other => panic!("not an answer to a deletion: {other:?}"),
    }
}

#[test]
fn anybody_commits_for_a_group_without_members() {
    let mut world = World::new(settings());
    let token = world.commit("", -1, 5);
    assert_eq!(world.committed(token), ErrorCode::NONE);
    assert_eq!(world.offset(), 5);
    assert_eq!(world.shown_state(), "Empty");
    world.fail_over();
    assert_eq!(world.offset(), 5);
}

#[test]
fn a_commit_is_acknowledged_and_shown_when_it_is_replicated() {
    let mut world = World::new(settings());
    world.replicates = false;
    let token = world.commit("", -1, 5);
    assert!(!world.answers.contains_key(&token));
    assert_eq!((world.offset(), world.shown_state().as_str()), (-1, "Dead"));
    world.replicate();
    assert_eq!(world.committed(token), ErrorCode::NONE);
    assert_eq!((world.offset(), world.shown_state().as_str()), (5, "Empty"));
}

#[test]
fn of_two_commits_only_the_one_that_is_replicated_is_acknowledged() {
    let mut world = World::new(settings());
    world.replicates = false;
    let first = world.commit("", -1, 5);
    let second = world.commit("", -1, 6);
    world.replicate_to(1);
    assert_eq!(world.committed(first), ErrorCode::NONE);
    assert!(!world.answers.contains_key(&second));
    assert_eq!(world.offset(), 5);
}

#[test]
fn a_commit_that_takes_too_long_is_told_so_and_counts_when_it_is_replicated() {
    let mut world = World::new(settings());
    world.replicates = false;
    let token = world.commit("", -1, 5);
    world.pass(6 * S);
    assert_eq!(world.committed(token), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    world.replicate();
    assert_eq!(world.offset(), 5);
}

#[test]
fn a_stable_fetch_waits_for_commits_on_their_way() {
    let mut world = World::new(settings());
    world.replicates = false;
    world.commit("", -1, 5);
    let fetch = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_topics(None);
    let token = world.step(|coordinator, turn, to| coordinator.fetch(turn, to, fetch, true));
    assert!(!world.answers.contains_key(&token));
    world.replicate();
    let Response::Fetch(answer) = &world.answers[&token] else { panic!() };
    assert_eq!(answer.topics[0].partitions[0].committed_offset, 5);
}

#[test]
fn who_may_commit_is_a_member_in_its_generation() {
    let mut world = World::new(settings());
    let unknown = world.commit("somebody", 3, 1);
    assert_eq!(world.committed(unknown), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(world.state(), None, "asking makes no group");
    let request = World::commit_request("somebody", 3, 1);
    let unknown = world.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 8));
    assert_eq!(world.committed(unknown), ErrorCode::ILLEGAL_GENERATION);
    let (one, two) = world.stable_pair();
    for (member, generation, code) in [
        (one.as_str(), 1, ErrorCode::NONE),
        (&one, 0, ErrorCode::ILLEGAL_GENERATION),
        (&one, -1, ErrorCode::ILLEGAL_GENERATION),
        ("somebody", 1, ErrorCode::UNKNOWN_MEMBER_ID),
        ("", -1, ErrorCode::UNKNOWN_MEMBER_ID),
    ] {
        let token = world.commit(member, generation, 7);
        assert_eq!(world.committed(token), code, "{member} in {generation}");
    }
    // who has not joined again yet may still commit what it has done
    world.join(&join(&one, None, &["range"]), 9);
    let token = world.commit(&two, 1, 8);
    assert_eq!(world.committed(token), ErrorCode::NONE);
    world.join(&join(&two, None, &["range"]), 9);
    let token = world.commit(&two, 2, 9);
    assert_eq!(world.committed(token), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(world.offset(), 8);
}

#[test]
fn a_commit_keeps_its_member_alive() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    for offset in 0..5 {
        world.pass(4 * S);
        let token = world.commit(&one, 1, offset);
        assert_eq!(world.committed(token), ErrorCode::NONE);
        world.heartbeat(&two, 1);
    }
    assert_eq!(world.state(), Some(State::Stable));
}

#[test]
fn metadata_that_is_too_large_is_refused_and_what_stands_beside_it_is_not() {
    let mut world = World::new(GroupSettings { offset_metadata_max: 4, ..settings() });
    let mut request = World::commit_request("", -1, 5);
    let mut second = request.topics[0].partitions[0].clone().with_partition_index(1);
    second.committed_metadata = Some(text("notes"));
    request.topics[0].partitions.push(second);
    let token = world.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 9));
    let Response::Commit(answer) = &world.answers[&token] else { panic!() };
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|p| ErrorCode(p.error_code)).collect();
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::OFFSET_METADATA_TOO_LARGE]);
    assert_eq!(world.offset(), 5);
    // UTF-16 units count, as in Kafka
    request.topics[0].partitions[1].committed_metadata = Some(text("\u{e9}\u{e9}\u{e9}\u{e9}"));
    let token = world.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 9));
    let Response::Commit(answer) = &world.answers[&token] else { panic!() };
    assert_eq!(answer.topics[0].partitions[1].error_code, 0);
}

#[test]
fn offsets_of_a_group_without_members_expire_after_the_retention_and_the_group_with_them() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let token = world.commit(&one, 1, 5);
    assert_eq!(world.committed(token), ErrorCode::NONE);
    world.leave(&[(&one, None), (&two, None)]);
    world.pass(6 * DAY);
    assert_eq!(world.offset(), 5);
    world.pass(2 * DAY);
    assert_eq!((world.offset(), world.state()), (-1, None));
    world.fail_over();
    assert_eq!((world.offset(), world.state()), (-1, None), "there are tombstones");
}

#[test]
fn a_simple_consumers_offset_ages_from_its_commit_and_an_explicit_time_is_kept() {
    let mut world = World::new(settings());
    world.commit("", -1, 5);
    world.pass(6 * DAY);
    world.commit("", -1, 6);
    world.pass(6 * DAY);
    assert_eq!(world.offset(), 6);
    world.pass(2 * DAY);
    assert_eq!(world.offset(), -1);
    let request = World::commit_request("", -1, 7).with_retention_time_ms(3_600_000);
    world.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 4));
    world.fail_over();
    assert_eq!(world.offset(), 7);
    world.pass(2 * Duration::from_secs(3600));
    assert_eq!(world.offset(), -1);
}

#[test]
fn offsets_of_topics_that_are_read_do_not_expire() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    world.commit(&one, 1, 5);
    for _ in 0..(9 * 24 * 60) {
        for _ in 0..10 {
            world.now += 6 * S;
            world.heartbeat(&one, 1);
            world.heartbeat(&two, 1);
        }
        world.pass(Duration::ZERO);
    }
    assert_eq!(world.offset(), 5);
}

#[test]
fn a_deleted_group_is_gone_when_that_is_replicated() {
    let mut world = World::new(settings());
    let missing = delete_group(&mut world);
    assert_eq!(deleted(&world, missing), ErrorCode::GROUP_ID_NOT_FOUND);
    world.commit("", -1, 5);
    world.replicates = false;
    let token = delete_group(&mut world);
    assert!(!world.answers.contains_key(&token));
    assert_eq!((world.offset(), world.shown_state().as_str()), (5, "Empty"), "still shown");
    // whoever commits now makes another group of the same name
    let commit = world.commit("", -1, 6);
    world.replicate();
    assert_eq!(deleted(&world, token), ErrorCode::NONE);
    assert_eq!(world.committed(commit), ErrorCode::NONE);
    assert_eq!(world.offset(), 6);
    world.fail_over();
    assert_eq!(world.offset(), 6);
}

#[test]
fn what_is_committed_while_its_group_is_deleted_does_not_outlive_it() {
    let mut world = World::new(settings());
    world.commit("", -1, 5);
    world.replicates = false;
    let mut request = World::commit_request("", -1, 6);
    request.topics[0].partitions[0].partition_index = 1;
    let commit = world.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 9));
    let token = delete_group(&mut world);
    world.replicate();
    assert_eq!(world.committed(commit), ErrorCode::NONE);
    assert_eq!(deleted(&world, token), ErrorCode::NONE);
    let forgotten = |record: &&GroupRecord| matches!(record, GroupRecord::Offset { value: None, .. });
    assert_eq!(world.log.records.iter().filter(forgotten).count(), 2, "one for each partition");
    assert_eq!((world.offset(), world.state()), (-1, None));
    world.fail_over();
    assert_eq!((world.offset(), world.state()), (-1, None));
}

#[test]
fn a_group_with_members_is_not_deleted_and_nor_are_offsets_of_what_it_reads() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    world.commit(&one, 1, 5);
    let token = delete_group(&mut world);
    assert_eq!(deleted(&world, token), ErrorCode::NON_EMPTY_GROUP);
    let token = delete_offset(&mut world);
    assert_eq!(deleted(&world, token), ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
    world.leave(&[(&one, None), (&two, None)]);
    let token = delete_offset(&mut world);
    assert_eq!(deleted(&world, token), ErrorCode::NONE);
    assert_eq!(world.offset(), -1);
    world.fail_over();
    assert_eq!(world.offset(), -1);
}

#[test]
fn offsets_of_a_deleted_topic_are_forgotten() {
    let mut world = World::new(settings());
    world.commit("", -1, 5);
    world.step(|coordinator, turn, _| coordinator.topics_deleted(turn, &[Arc::from("other")]));
    assert_eq!(world.offset(), 5);
    world.step(|coordinator, turn, _| coordinator.topics_deleted(turn, &[Arc::from("orders")]));
    assert_eq!(world.offset(), -1);
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut world = World::new(settings());
    world.stable_pair();
    let list = |states: &[&str], types: &[&str]| {
        let texts = |names: &[&str]| names.iter().map(|name| text(name)).collect::<Vec<_>>();
        world.coordinator.list(&texts(states), &texts(types)).len()
    };
    assert_eq!(list(&[], &[]), 1);
    assert_eq!(list(&["stable"], &["Classic"]), 1);
    assert_eq!(list(&["Empty"], &[]), 0);
    assert_eq!(list(&[], &["consumer"]), 0);
    let shown = world.coordinator.describe(&GroupId(text(GROUP)), 6);
    assert_eq!((&*shown.group_state, &*shown.protocol_data), ("Stable", "range"));
    assert_eq!(shown.members.len(), 2);
    assert_eq!(&*shown.members[0].client_host, "/127.0.0.1");
}
