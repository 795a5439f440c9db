//! Offsets of a group without being its member.

use klamm_wire::ErrorCode;

use super::one::{One, code, partitions};
use crate::assign::RebalanceProtocol;
use crate::group::*;

fn offsets() -> Offsets {
    [(partitions([0])[0].clone(), CommittedOffset::new(9).leader_epoch(4))].into()
}

fn alone() -> One {
    One::new(RebalanceProtocol::Eager, false)
}

#[test]
fn who_is_no_member_commits_without_generation_once_the_coordinator_is_known() {
    let mut one = alone();
    assert_eq!(one.member.deadline(), None, "nothing is asked before somebody commits");
    let later = Effect::CommitDone(1, Err(CommitRefusal::Later(Refusal::NoAnswer)));
    assert_eq!(one.step(Event::Commit(1, offsets())), [later, Effect::FindCoordinator]);
    assert_eq!(one.step(Event::Coordinator(Ok(3))), []);
    let sent =
        Effect::Commit { id: 2, coordinator: 3, member_id: "".into(), generation: -1, offsets: offsets() };
    assert_eq!(one.step(Event::Commit(2, offsets())), [sent]);
    assert_eq!(one.step(Event::Committed(2, Ok(()))), [Effect::CommitDone(2, Ok(()))]);
}

#[test]
fn who_is_no_member_is_told_that_the_group_has_members() {
    let mut one = alone();
    one.step(Event::Commit(1, offsets()));
    one.step(Event::Coordinator(Ok(3)));
    one.step(Event::Commit(2, offsets()));
    let refusal = code(ErrorCode::UNKNOWN_MEMBER_ID);
    let told = CommitRefusal::HasMembers(ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(one.step(Event::Committed(2, Err(refusal))), [Effect::CommitDone(2, Err(told))]);
}

#[test]
fn who_is_no_member_begins_where_the_group_committed() {
    let mut one = alone();
    assert_eq!(one.step(Event::Want(partitions([0, 1]))), [Effect::FindCoordinator]);
    let effects = one.step(Event::Coordinator(Ok(3)));
    let [Effect::FetchOffsets { ticket, coordinator: 3, .. }] = effects[..] else { panic!("{effects:?}") };
    let again = one.step(Event::Offsets(ticket, Err(code(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS))));
    assert_eq!(again, []);
    let at = one.member.deadline().unwrap();
    let effects = one.wait(at);
    let [Effect::FetchOffsets { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let found: std::collections::BTreeMap<_, _> =
        partitions([0, 1]).into_iter().zip([Some(CommittedOffset::new(5)), None]).collect();
    assert_eq!(one.step(Event::Offsets(ticket, Ok(found.clone()))), [Effect::Start(found)]);
    assert_eq!(one.member.deadline(), None);
}

#[test]
fn who_may_not_read_the_groups_offsets_is_told_once_and_may_try_again() {
    let mut one = alone();
    one.step(Event::Want(partitions([0])));
    let effects = one.step(Event::Coordinator(Err(code(ErrorCode::GROUP_AUTHORIZATION_FAILED))));
    assert_eq!(effects, [Effect::Fail(Fatal::Refused(ErrorCode::GROUP_AUTHORIZATION_FAILED))]);
    assert_eq!(one.member.deadline(), None, "no spin");
    assert_eq!(one.step(Event::Want(partitions([0]))), [Effect::FindCoordinator]);
}

#[test]
fn a_member_commits_only_what_it_owns_and_so_does_who_has_no_group() {
    let mut one = alone();
    one.step(Event::Subscribe(["t".into()].into()));
    let refused = CommitRefusal::NotOwned(partitions([0])[0].clone());
    assert_eq!(one.step(Event::Commit(1, offsets())), [Effect::CommitDone(1, Err(refused.clone()))]);
    let mut one = alone();
    one.member.settings.alone = false;
    assert_eq!(one.step(Event::Commit(1, offsets())), [Effect::CommitDone(1, Err(refused))]);
}

fn starts(effects: &[Effect]) -> Vec<i32> {
    let of = |effect: &Effect| match effect {
        Effect::Start(found) => found.keys().map(|name| name.partition).collect(),
        _ => Vec::new(),
    };
    effects.iter().flat_map(of).collect()
}

/// Answers the one request for offsets, with nothing committed.
fn answer(one: &mut One, effects: &[Effect]) -> Vec<Effect> {
    let [.., Effect::FetchOffsets { ticket, partitions, .. }] = effects else { panic!("{effects:?}") };
    let found = partitions.iter().map(|name| (name.clone(), None)).collect();
    one.step(Event::Offsets(*ticket, Ok(found)))
}

#[test]
fn partitions_that_are_wanted_one_by_one_all_begin_where_the_group_committed() {
    let mut one = alone();
    one.step(Event::ByHand(partitions([0, 1])));
    let asked = one.step(Event::Coordinator(Ok(3)));
    assert_eq!(one.step(Event::Want(partitions([2]))), []);
    assert_eq!(one.step(Event::Want(partitions([3]))), []);
    let more = answer(&mut one, &asked);
    assert_eq!(starts(&more), [0, 1]);
    let rest = answer(&mut one, &more);
    assert_eq!((starts(&rest), rest.len()), (vec![2, 3], 1));
}

#[test]
fn what_is_assigned_by_hand_anew_replaces_what_waits_also_with_nothing() {
    for (chosen, begin) in [(partitions([1, 2]).to_vec(), vec![1, 2]), (Vec::new(), vec![])] {
        let mut one = alone();
        one.step(Event::ByHand(partitions([0, 1])));
        let asked = one.step(Event::Coordinator(Ok(3)));
        let effects = one.step(Event::ByHand(chosen));
        assert_eq!(answer(&mut one, &asked), [], "the answer to what is not wanted any more");
        let begun = if begin.is_empty() { effects } else { answer(&mut one, &effects) };
        assert_eq!(starts(&begun), begin);
        assert_eq!(one.member.deadline(), None);
    }
}

#[test]
fn who_wants_a_partition_again_is_not_told_what_was_committed_before() {
    let mut one = alone();
    one.step(Event::ByHand(partitions([0, 1])));
    let asked = one.step(Event::Coordinator(Ok(3)));
    one.step(Event::Want(partitions([1])));
    let effects = answer(&mut one, &asked);
    assert_eq!(starts(&effects), [0], "that answer may be older than what was wanted last");
    assert_eq!(starts(&answer(&mut one, &effects)), [1]);
}

#[test]
fn who_was_a_member_commits_nothing_more_until_it_assigns_by_hand() {
    let mut one = One::stable(RebalanceProtocol::Eager, false, partitions([0]));
    let effects = one.step(Event::Unsubscribe);
    let [_, Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
    let effects = one.step(Event::Told(call));
    let [Effect::Leave { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    one.step(Event::Left(ticket, Ok(())));
    assert!(one.member.is_idle());
    let refused = CommitRefusal::NotOwned(partitions([0])[0].clone());
    assert_eq!(one.step(Event::Commit(1, offsets())), [Effect::CommitDone(1, Err(refused))]);
    one.step(Event::ByHand(Vec::new()));
    let effects = one.step(Event::Commit(2, offsets()));
    assert!(matches!(effects[..], [Effect::Commit { id: 2, generation: -1, .. }]), "{effects:?}");
}
