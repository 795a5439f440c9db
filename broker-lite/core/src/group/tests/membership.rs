//! How groups come together and fall apart.

use super::*;

#[test]
fn a_member_without_an_id_is_given_one_and_comes_back_with_it() {
    let mut world = World::new(settings());
    let id = world.first_join(&["range"]);
    assert!(id.starts_with("client-"), "{id}");
    assert_eq!(world.state(), Some(State::Empty));
    let stranger = world.join(&join("client-made-up", None, &["range"]), 9);
    assert_eq!(ErrorCode(world.joined(stranger).error_code), ErrorCode::UNKNOWN_MEMBER_ID);
    world.join(&join(&id, None, &["range"]), 9);
    assert_eq!(world.state(), Some(State::PreparingRebalance));
    // before version 4 the id comes with the answer
    let old = world.join(&join("", None, &["range"]), 3);
    world.pass(10 * S);
    assert!(world.joined(old).member_id.starts_with("client-"));
}

#[test]
fn an_id_that_does_not_come_back_is_forgotten_after_the_session_time_out() {
    let mut world = World::new(settings());
    let id = world.first_join(&["range"]);
    world.pass(11 * S);
    let late = world.join(&join(&id, None, &["range"]), 9);
    assert_eq!(ErrorCode(world.joined(late).error_code), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn the_first_members_wait_for_others_as_long_as_they_keep_coming() {
    let mut world = World::new(settings());
    let (_, first) = world.member(&["range"]);
    world.pass(2 * S);
    let (_, second) = world.member(&["range"]);
    world.pass(2 * S);
    assert!(!world.answers.contains_key(&first), "prolonged at 3 s by 3 s");
    world.pass(2 * S);
    assert_eq!(world.joined(first).generation_id, 1);
    assert_eq!(world.joined(second).generation_id, 1);
    assert_eq!(world.joined(first).members.len(), 2, "the leader is told of all");
    assert!(world.joined(second).members.is_empty());
}

#[test]
fn without_an_initial_delay_a_member_joins_at_once() {
    let settings = GroupSettings { initial_rebalance_delay: Duration::ZERO, ..settings() };
    let mut world = World::new(settings);
    let (_, token) = world.member(&["range"]);
    world.pass(Duration::ZERO);
    assert_eq!(world.joined(token).generation_id, 1);
}

#[test]
fn an_assignment_is_handed_out_when_it_is_replicated_and_not_before() {
    let mut world = World::new(settings());
    let (one, _) = world.member(&["range"]);
    let (two, _) = world.member(&["range"]);
    world.pass(10 * S);
    world.replicates = false;
    let waits = world.sync(&two, 1, &[]);
    let leader = world.sync(&one, 1, &[(&one, "a"), (&two, "b")]);
    assert_eq!(world.state(), Some(State::CompletingRebalance));
    assert!(!world.answers.contains_key(&leader) && !world.answers.contains_key(&waits));
    world.replicate();
    assert_eq!(world.assignment(leader), Ok("a".to_owned()));
    assert_eq!(world.assignment(waits), Ok("b".to_owned()));
    assert_eq!(world.state(), Some(State::Stable));
}

#[test]
fn an_assignment_that_cannot_be_replicated_in_time_is_withdrawn() {
    let mut world = World::new(settings());
    let (one, _) = world.member(&["range"]);
    world.pass(10 * S);
    world.replicates = false;
    let token = world.sync(&one, 1, &[(&one, "a")]);
    world.pass(6 * S);
    assert_eq!(world.assignment(token), Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert_eq!(world.state(), Some(State::PreparingRebalance));
    world.replicate();
    assert_eq!(world.state(), Some(State::PreparingRebalance), "too late");
}

#[test]
fn a_log_that_refuses_withdraws_the_assignment_in_the_coordinators_words() {
    let mut world = World::new(settings());
    let (one, _) = world.member(&["range"]);
    world.pass(10 * S);
    world.log.refuses = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
    let token = world.sync(&one, 1, &[(&one, "a")]);
    assert_eq!(world.assignment(token), Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    world.log.refuses = None;
    let again = world.join(&join(&one, None, &["range"]), 9);
    assert_eq!(world.joined(again).generation_id, 2);
}

#[test]
fn a_new_member_begins_a_rebalance_that_heartbeats_tell_of() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::NONE);
    let (_, third) = world.member(&["range"]);
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::REBALANCE_IN_PROGRESS);
    let first = world.join(&join(&one, None, &["range"]), 9);
    assert!(!world.answers.contains_key(&first), "two is missing");
    let second = world.join(&join(&two, None, &["range"]), 9);
    for token in [first, second, third] {
        assert_eq!(world.joined(token).generation_id, 2);
    }
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(world.heartbeat("nobody", 2), ErrorCode::UNKNOWN_MEMBER_ID);
    let old = world.sync(&one, 1, &[]);
    assert_eq!(world.assignment(old), Err(ErrorCode::ILLEGAL_GENERATION));
}

#[test]
fn whoever_does_not_come_back_within_the_rebalance_time_out_is_out() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let (_, third) = world.member(&["range"]);
    let first = world.join(&join(&one, None, &["range"]), 9);
    // its heartbeats alone do not keep it
    for _ in 0..12 {
        world.heartbeat(&two, 1);
        world.pass(5 * S);
    }
    assert_eq!(world.joined(first).members.len(), 2);
    assert_eq!(world.joined(third).generation_id, 2);
    assert_eq!(world.heartbeat(&two, 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leader_that_does_not_come_back_is_followed_by_one_that_did() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let (_, third) = world.member(&["range"]);
    let second = world.join(&join(&two, None, &["range"]), 9);
    world.pass(100 * S);
    let (second, third) = (world.joined(second), world.joined(third));
    assert_ne!(&*second.leader, &*one);
    assert_eq!(second.leader, third.leader);
    assert_eq!(second.members.len() + third.members.len(), 2, "one of them has to assign");
}

#[test]
fn a_silent_member_is_removed_after_its_session_time_out() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    for _ in 0..3 {
        world.pass(4 * S);
        world.heartbeat(&one, 1);
    }
    assert_eq!(world.state(), Some(State::PreparingRebalance), "two is gone");
    let token = world.join(&join(&one, None, &["range"]), 9);
    assert_eq!(world.joined(token).generation_id, 2);
    assert_eq!(world.heartbeat(&two, 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_member_that_waits_for_the_others_may_be_silent() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let (_, third) = world.member(&["range"]);
    world.join(&join(&one, None, &["range"]), 9);
    for _ in 0..8 {
        world.heartbeat(&two, 1);
        world.pass(5 * S);
    }
    let second = world.join(&join(&two, None, &["range"]), 9);
    assert_eq!(world.joined(second).generation_id, 2);
    assert_eq!(world.coordinator.groups[GROUP].members.len(), 3);
    assert_eq!(world.joined(third).generation_id, 2);
}

#[test]
fn whoever_does_not_ask_for_its_assignment_in_time_is_out() {
    let mut world = World::new(settings());
    let (one, _) = world.member(&["range"]);
    let (two, _) = world.member(&["range"]);
    world.pass(10 * S);
    let token = world.sync(&one, 1, &[(&one, "a"), (&two, "b")]);
    assert_eq!(world.assignment(token), Ok("a".to_owned()));
    for _ in 0..13 {
        world.heartbeat(&one, 1);
        world.heartbeat(&two, 1);
        world.pass(5 * S);
    }
    assert_eq!(world.state(), Some(State::PreparingRebalance));
    assert_eq!(world.heartbeat(&two, 1), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn leaving_rebalances_and_the_last_one_empties_the_group() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    assert_eq!(
        world.leave(&[(&two, None), ("nobody", None)]),
        [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID]
    );
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(world.leave(&[(&one, None)]), [ErrorCode::NONE]);
    assert_eq!(world.state(), Some(State::Empty));
    assert_eq!(world.coordinator.groups[GROUP].generation, 2);
    assert_eq!(world.leave(&[(&one, None)]), [ErrorCode::UNKNOWN_MEMBER_ID]);
}

#[test]
fn the_protocol_is_what_most_like_best_among_those_that_all_have() {
    let mut world = World::new(settings());
    let (_, first) = world.member(&["sticky", "range", "own"]);
    world.member(&["range", "sticky"]);
    world.member(&["range", "sticky"]);
    let stranger = world.join(&join("", None, &["roundrobin"]), 9);
    assert_eq!(ErrorCode(world.joined(stranger).error_code), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let connector = join("", None, &["range"]).with_protocol_type(text("connect"));
    let connector = world.join(&connector, 9);
    assert_eq!(ErrorCode(world.joined(connector).error_code), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    world.pass(20 * S);
    assert_eq!(world.joined(first).protocol_name.as_deref(), Some("range"));
}

#[test]
fn a_group_takes_no_more_members_than_its_limit() {
    let mut world = World::new(GroupSettings { max_size: 2, ..settings() });
    let (one, _) = world.stable_pair();
    let token = world.join(&join("", None, &["range"]), 9);
    assert_eq!(ErrorCode(world.joined(token).error_code), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::NONE, "the others are not troubled");
}

#[test]
fn session_time_outs_beyond_the_limits_and_groups_without_a_name_are_refused() {
    let mut world = World::new(settings());
    for ms in [5_999, 1_800_001, -1] {
        let token = world.join(&join("", None, &["range"]).with_session_timeout_ms(ms), 9);
        assert_eq!(ErrorCode(world.joined(token).error_code), ErrorCode::INVALID_SESSION_TIMEOUT);
    }
    let nameless = join("", None, &["range"]).with_group_id(GroupId::default());
    let token = world.join(&nameless, 9);
    assert_eq!(ErrorCode(world.joined(token).error_code), ErrorCode::INVALID_GROUP_ID);
    assert_eq!(world.state(), None);
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_the_generation_it_is_in() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let token = world.join(&join(&two, None, &["range"]), 9);
    assert_eq!(world.joined(token).generation_id, 1);
    assert_eq!(world.state(), Some(State::Stable));
    // a leader that does wants to assign anew
    world.join(&join(&one, None, &["range"]), 9);
    assert_eq!(world.state(), Some(State::PreparingRebalance));
}

#[test]
fn a_failover_keeps_generation_and_assignments_and_members_go_on() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let token = world.commit(&one, 1, 42);
    assert_eq!(world.committed(token), ErrorCode::NONE);
    world.fail_over();
    assert_eq!(world.heartbeat(&one, 1), ErrorCode::NONE);
    let token = world.sync(&two, 1, &[]);
    assert_eq!(world.assignment(token), Ok("b".to_owned()));
    assert_eq!(world.offset(), 42);
    world.pass(11 * S);
    assert_eq!(world.state(), Some(State::Empty), "sessions begin anew, and end");
}

#[test]
fn whoever_waits_is_told_when_the_coordinator_goes() {
    let mut world = World::new(settings());
    let (one, two) = world.stable_pair();
    let (_, third) = world.member(&["range"]);
    let first = world.join(&join(&one, None, &["range"]), 9);
    world.replicates = false;
    let commit = world.commit(&two, 1, 5);
    world.fail_over();
    for token in [first, third, commit] {
        assert_eq!(world.answers[&token], Response::Failed(ErrorCode::NOT_COORDINATOR));
    }
}

#[test]
fn a_new_group_that_cannot_be_written_down_is_none() {
    let mut world = World::new(settings());
    world.log.refuses = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
    let token = world.join(&join("", None, &["range"]), 3);
    assert_eq!(ErrorCode(world.joined(token).error_code), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(world.state(), None);
    assert_eq!(world.coordinator.timers.next(), None);
}
