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
