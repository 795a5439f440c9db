//! Static members (KIP-345).

use super::*;

fn stable(world: &mut World) -> (String, String) {
    let first = world.join(&join("", Some("i1"), &["range"]), 9);
    let second = world.join(&join("", Some("i2"), &["range"]), 9);
    world.pass(10 * S);
    let (one, two) = (world.joined(first), world.joined(second));
    let (one, two) = (one.member_id.to_string(), two.member_id.to_string());
    let waits = world.sync(&two, 1, &[]);
    let leader = world.sync(&one, 1, &[(&one, "a"), (&two, "b")]);
    assert_eq!(world.assignment(leader), Ok("a".to_owned()));
    assert_eq!(world.assignment(waits), Ok("b".to_owned()));
    (one, two)
}

#[test]
fn a_static_member_that_is_back_takes_its_place_without_a_rebalance_and_fences_its_earlier_life() {
    let mut world = World::new(settings());
    let (one, two) = stable(&mut world);
    let token = world.join(&join("", Some("i2"), &["range"]), 9);
    let answer = world.joined(token);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert!(answer.member_id.starts_with("i2-") && *answer.member_id != *two);
    assert!(!answer.skip_assignment && answer.members.is_empty());
    assert_eq!(world.state(), Some(State::Stable));
    let new = answer.member_id.to_string();
    let token = world.sync(&new, 1, &[]);
    assert_eq!(world.assignment(token), Ok("b".to_owned()));
    assert_eq!(world.heartbeat_as(&two, Some("i2"), 1), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::NONE);
    let commit = World::commit_request(&two, 1, 9).with_group_instance_id(Some(text("i2")));
    let token = world.step(|coordinator, turn, to| coordinator.commit(turn, to, &commit, 9));
    assert_eq!(world.committed(token), ErrorCode::FENCED_INSTANCE_ID);
    world.fail_over();
    assert_eq!(world.heartbeat_as(&new, Some("i2"), 1), ErrorCode::NONE);
}

#[test]
fn a_leader_that_is_back_need_not_assign_and_is_told_the_members_from_version_9_on() {
    let mut world = World::new(settings());
    let (one, _) = stable(&mut world);
    let token = world.join(&join("", Some("i1"), &["range"]), 9);
    let answer = world.joined(token);
    assert!(answer.skip_assignment);
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(answer.members.len(), 2);
    let before = answer.leader;
    // an older client must not think that it leads
    let token = world.join(&join("", Some("i1"), &["range"]), 8);
    let answer = world.joined(token);
    assert_eq!(answer.leader, before);
    assert_ne!(answer.leader, answer.member_id);
    assert!(answer.members.is_empty());
    assert_ne!(*one, *answer.member_id);
}

#[test]
fn an_earlier_life_that_waits_is_told_that_it_is_fenced() {
    let mut world = World::new(settings());
    let first = world.join(&join("", Some("i1"), &["range"]), 9);
    world.join(&join("", Some("i1"), &["range"]), 9);
    assert_eq!(ErrorCode(world.joined(first).error_code), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.coordinator.groups[GROUP].members.len(), 1);
}

#[test]
fn a_static_member_that_offers_something_else_rebalances() {
    let mut world = World::new(settings());
    let (one, two) = stable(&mut world);
    let token = world.join(&join("", Some("i2"), &["sticky", "range"]), 9);
    assert_eq!(world.joined(token).error_code, 0, "range is still the choice");
    assert_eq!(world.state(), Some(State::Stable));
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::NONE);
    assert_eq!(world.leave(&[(&one, None)]), [ErrorCode::NONE]);
    assert_eq!(world.state(), Some(State::PreparingRebalance));
    assert_eq!(world.heartbeat_as(&two, Some("i2"), 1), ErrorCode::FENCED_INSTANCE_ID);
}

#[test]
fn a_replacement_that_cannot_be_written_is_undone() {
    let mut world = World::new(settings());
    let (_, two) = stable(&mut world);
    world.log.refuses = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
    let token = world.join(&join("", Some("i2"), &["range"]), 9);
    assert_eq!(ErrorCode(world.joined(token).error_code), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(world.heartbeat_as(&two, Some("i2"), 1), ErrorCode::NONE);
    world.log.refuses = None;
    world.replicates = false;
    let token = world.join(&join("", Some("i2"), &["range"]), 9);
    world.pass(6 * S);
    assert_eq!(ErrorCode(world.joined(token).error_code), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(world.heartbeat_as(&two, Some("i2"), 1), ErrorCode::NONE);
}

#[test]
fn a_static_member_is_waited_for_until_its_session_is_over_not_only_for_a_rebalance() {
    let mut world = World::new(settings());
    let request = |member: &str, instance| {
        join(member, instance, &["range"]).with_session_timeout_ms(100_000).with_rebalance_timeout_ms(20_000)
    };
    let first = world.join(&request("", Some("i1")), 9);
    world.join(&request("", Some("i2")), 9);
    world.pass(10 * S);
    let one = world.joined(first).member_id.to_string();
    world.sync(&one, 1, &[]);
    let again = world.join(&request(&one, Some("i1")), 9);
    world.pass(25 * S);
    assert_eq!(world.joined(again).members.len(), 2, "i2 is still a member");
}

#[test]
fn a_replacement_that_a_rebalance_overtakes_is_answered_once_and_stays() {
    let mut world = World::new(settings());
    let (one, _) = stable(&mut world);
    world.replicates = false;
    let token = world.join(&join("", Some("i2"), &["range"]), 9);
    world.join(&join(&one, Some("i1"), &["range"]), 9);
    assert_eq!(world.joined(token).generation_id, 2, "by the rebalance");
    world.pass(6 * S);
    assert_eq!(world.state(), Some(State::CompletingRebalance));
    let new = world.joined(token).member_id.to_string();
    assert_eq!(world.heartbeat_as(&new, Some("i2"), 2), ErrorCode::NONE);
}

#[test]
fn a_static_leader_that_stays_away_is_no_leader_and_still_a_member() {
    let mut world = World::new(settings());
    let request = |member: &str, instance, protocols: &[&str]| {
        let request = join(member, Some(instance), protocols);
        request.with_session_timeout_ms(100_000).with_rebalance_timeout_ms(20_000)
    };
    let first = world.join(&request("", "i1", &["range"]), 9);
    let second = world.join(&request("", "i2", &["range"]), 9);
    world.pass(10 * S);
    let (one, two) = (world.joined(first).member_id, world.joined(second).member_id);
    world.sync(&one, 1, &[]);
    world.sync(&two, 1, &[]);
    let again = world.join(&request(&two, "i2", &["range", "sticky"]), 9);
    world.pass(25 * S);
    let answer = world.joined(again);
    assert_eq!(answer.leader, two);
    assert_eq!((answer.generation_id, answer.members.len()), (2, 2));
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut world = World::new(settings());
    stable(&mut world);
    let left = world.leave(&[("", Some("i2")), ("", Some("i3")), ("", None)]);
    assert_eq!(left, [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::UNKNOWN_MEMBER_ID]);
    assert_eq!(world.coordinator.groups[GROUP].members.len(), 1);
}
