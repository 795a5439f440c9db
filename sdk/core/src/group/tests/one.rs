//! One member, by the exact list of effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ErrorCode;

use crate::assign::{Assignment, RebalanceProtocol};
use crate::backoff::Backoff;
use crate::group::*;
use crate::{Tick, TopicPartition};

const S: Tick = Duration::from_secs(1);

pub(super) fn settings(protocol: RebalanceProtocol, is_static: bool) -> GroupSettings {
    GroupSettings {
        alone: true,
        is_static,
        protocol,
        session: 10 * S,
        heartbeat: 3 * S,
        max_poll: 60 * S,
        request: 5 * S,
        backoff: Backoff::new(S / 10, S),
    }
}

pub(super) struct One {
    pub(super) member: Membership,
    pub(super) now: Tick,
}

pub(super) fn partitions<const N: usize>(numbers: [i32; N]) -> Vec<TopicPartition> {
    numbers.map(|number| TopicPartition::new("t", number)).into()
}

fn topics() -> BTreeSet<Arc<str>> {
    ["t".into()].into()
}

/// A join that the coordinator has taken; with the members to whom leads.
fn joined(generation: i32, members: Option<Vec<JoinedMember>>) -> Joined {
    Joined { generation, assignor: "a".into(), member_id: "m".into(), members, stands: false }
}

pub(super) fn code(code: ErrorCode) -> Refusal {
    Refusal::Code(code)
}

impl One {
    pub(super) fn new(protocol: RebalanceProtocol, is_static: bool) -> Self {
        let member = Membership::new(settings(protocol, is_static), fastrand::Rng::with_seed(1));
        Self { member, now: S }
    }

    pub(super) fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.member.step(self.now, event, &mut out);
        out
    }

    pub(super) fn wait(&mut self, until: Tick) -> Vec<Effect> {
        let mut out = Vec::new();
        self.now = until;
        self.member.on_deadline(self.now, &mut out);
        out
    }

    /// Joins as a member that does not lead, up to the given assignment; returns what follows it.
    pub(super) fn join(
        &mut self,
        effects: &[Effect],
        generation: i32,
        assigned: Vec<TopicPartition>,
    ) -> Vec<Effect> {
        let Some(Effect::Join { ticket, .. }) = effects.iter().find(|e| matches!(e, Effect::Join { .. }))
        else {
            panic!("no join in {effects:?}");
        };
        let answer = joined(generation, None);
        let effects = self.step(Event::Join(*ticket, JoinAnswer::Joined(answer)));
        let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        self.step(Event::Sync(ticket, Ok(Ok(Assignment { partitions: assigned, user_data: None }))))
    }

    /// A stable member with these partitions, whose offsets are known.
    pub(super) fn stable(
        protocol: RebalanceProtocol,
        is_static: bool,
        assigned: Vec<TopicPartition>,
    ) -> Self {
        let mut one = Self::new(protocol, is_static);
        assert_eq!(one.step(Event::Subscribe(topics())), [Effect::FindCoordinator]);
        let effects = one.step(Event::Coordinator(Ok(1)));
        let effects = one.join(&effects, 1, assigned.clone());
        let [Effect::Adopt(_, _, 1), Effect::Add(added), Effect::Tell(call, told)] = &effects[..] else {
            panic!("{effects:?}");
        };
        let expected = Call::Assigned(assigned.clone(), Reason::SubscriptionChanged);
        assert_eq!((added, told), (&assigned, &expected));
        let effects = one.step(Event::Told(*call));
        let [Effect::FetchOffsets { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let found: BTreeMap<_, _> =
            assigned.into_iter().map(|name| (name, Some(CommittedOffset::new(5)))).collect();
        assert_eq!(one.step(Event::Offsets(ticket, Ok(found.clone()))), [Effect::Start(found)]);
        assert!(one.member.is_stable());
        one
    }

    fn beat(&mut self) -> u64 {
        let effects = self.wait(self.now + 3 * S);
        let [Effect::Heartbeat { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        ticket
    }

    pub(super) fn refuse_beat(&mut self, with: ErrorCode) -> Vec<Effect> {
        let ticket = self.beat();
        self.step(Event::Heartbeat(ticket, Err(code(with))))
    }
}

#[test]
fn a_member_id_that_is_required_is_joined_with_at_once() {
    let mut one = One::new(RebalanceProtocol::Eager, false);
    one.step(Event::Subscribe(topics()));
    let effects = one.step(Event::Coordinator(Ok(4)));
    let [Effect::Join { ticket, coordinator: 4, ref member_id, generation: None, limit, .. }] = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!((member_id.as_ref(), limit), ("", 65 * S));
    let effects = one.step(Event::Join(ticket, JoinAnswer::MemberIdRequired("m-1".into())));
    let [Effect::Join { ref member_id, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(member_id.as_ref(), "m-1");
    assert_eq!(
        one.step(Event::Join(ticket, JoinAnswer::Refused(Refusal::NoAnswer))),
        [],
        "that ticket is void"
    );
}

#[test]
fn an_eager_member_joins_only_when_the_listener_has_given_everything_up() {
    let mut one = One::stable(RebalanceProtocol::Eager, false, partitions([0, 1]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let told = Call::Revoked(partitions([0, 1]), Reason::Rebalance);
    let [Effect::Stop(stopped), Effect::Tell(call, call_told)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((stopped, call_told), (&partitions([0, 1]), &told));

    let offsets: Offsets = [(TopicPartition::new("t", 0), 9.into())].into();
    let effects = one.step(Event::Commit(7, offsets.clone()));
    assert!(matches!(&effects[..], [Effect::Commit { id: 7, generation: 1, .. }]), "{effects:?}");
    assert_eq!(one.step(Event::Committed(7, Ok(()))), [Effect::CommitDone(7, Ok(()))]);

    let effects = one.step(Event::Told(*call));
    let [Effect::Join { ref owned, .. }] = effects[..] else { panic!("{effects:?}") };
    assert!(owned.is_empty());
    let effects = one.step(Event::Commit(8, offsets));
    let refused = CommitRefusal::NotOwned(TopicPartition::new("t", 0));
    assert_eq!(effects, [Effect::CommitDone(8, Err(refused))], "revoked is not committed any more");
}

#[test]
fn a_listener_that_takes_too_long_is_abandoned_and_the_group_goes_on() {
    let mut one = One::stable(RebalanceProtocol::Eager, false, partitions([0]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Stop(_), Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
    let begun = one.now;
    one.step(Event::Polled(None));
    while one.now < begun + 60 * S {
        let effects = one.wait(one.now + 3 * S);
        for effect in effects {
            match effect {
                Effect::Heartbeat { ticket, .. } => {
                    one.step(Event::Heartbeat(ticket, Err(code(ErrorCode::REBALANCE_IN_PROGRESS))));
                }
                Effect::Abandon(id) => assert_eq!((id, one.now), (call, begun + 60 * S)),
                Effect::Join { .. } => assert_eq!(one.now, begun + 60 * S),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(one.step(Event::Told(call)), [], "too late to matter");
}

#[test]
fn a_cooperative_member_keeps_what_stays_and_joins_again_after_giving_up_the_rest() {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0, 1]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Join { ref owned, generation: Some(1), .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(*owned, partitions([0, 1]), "nothing is given up before");
    let effects = one.join(&effects, 2, partitions([1, 2]));
    let gone = Call::Revoked(partitions([0]), Reason::GivenAway);
    let [Effect::Stop(stopped), Effect::Tell(call, told)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((stopped, told), (&partitions([0]), &gone));
    let effects = one.step(Event::Told(*call));
    let [Effect::Adopt(_, _, 2), Effect::Add(added), Effect::Tell(call, told)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((added, told), (&partitions([2]), &Call::Assigned(partitions([2]), Reason::Rebalance)));
    let effects = one.step(Event::Told(*call));
    let [Effect::Join { ref owned, generation: Some(2), .. }, Effect::FetchOffsets { .. }] = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*owned, partitions([1, 2]));
}

#[test]
fn whoever_the_coordinator_gave_up_has_lost_everything_and_commits_nothing() {
    for (with, id) in [(ErrorCode::UNKNOWN_MEMBER_ID, ""), (ErrorCode::ILLEGAL_GENERATION, "m")] {
        let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0]));
        let effects = one.refuse_beat(with);
        let lost = Call::Lost(partitions([0]), Reason::Expelled);
        let [Effect::Stop(_), Effect::Tell(call, told)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(*told, lost);
        let effects = one.step(Event::Commit(1, [(TopicPartition::new("t", 0), 9.into())].into()));
        assert!(
            matches!(&effects[..], [Effect::CommitDone(1, Err(CommitRefusal::NotOwned(_)))]),
            "{effects:?}"
        );
        let effects = one.step(Event::Told(*call));
        let [Effect::Join { ref member_id, generation: None, .. }] = effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(member_id.as_ref(), id);
    }
}

#[test]
fn a_silent_coordinator_costs_the_session_and_a_moved_one_does_not() {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0]));
    let effects = one.refuse_beat(ErrorCode::NOT_COORDINATOR);
    assert_eq!(effects, []);
    let at = one.member.deadline().unwrap();
    assert_eq!(one.wait(at), [Effect::FindCoordinator]);
    let effects = one.step(Event::Coordinator(Ok(2)));
    let [Effect::Heartbeat { coordinator: 2, generation: 1, ticket, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let sent = one.now;
    one.step(Event::Heartbeat(ticket, Ok(())));
    one.beat();
    let effects = one.wait(sent + 10 * S);
    assert!(
        matches!(
            &effects[..],
            [Effect::Stop(_), Effect::Tell(_, Call::Lost(_, Reason::SessionTimedOut)), ..]
        ),
        "{effects:?}"
    );
}

/// Answers every heartbeat until the member does something else, or until then.
fn answer_until(one: &mut One, until: Tick) -> Vec<Effect> {
    let mut effects = Vec::new();
    while effects.is_empty() && one.now < until {
        for effect in one.wait(one.now + S) {
            match effect {
                Effect::Heartbeat { ticket, .. } => drop(one.step(Event::Heartbeat(ticket, Ok(())))),
                other => effects.push(other),
            }
        }
    }
    effects
}

#[test]
fn who_has_records_has_to_come_back_and_without_any_the_last_call_counts() {
    for back in [false, true] {
        let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0]));
        one.step(Event::Held(Some(one.now)));
        assert_eq!(answer_until(&mut one, 40 * S), []);
        one.step(Event::Polled(Some(40 * S)));
        if back {
            one.step(Event::Held(None));
        }
        answer_until(&mut one, 200 * S);
        assert!(one.member.is_stalled());
        let since = if back { 40 * S } else { S };
        assert_eq!(
            one.now,
            since + 60 * S,
            "that others ask is no excuse; who is done with all has none to excuse"
        );
        one.step(Event::Polled(None));
        assert_eq!(one.member.is_stalled(), !back, "nor is it afterwards");
    }
}

#[test]
fn closing_revokes_then_leaves_unless_static() {
    for is_static in [false, true] {
        let mut one = One::stable(RebalanceProtocol::Eager, is_static, partitions([0]));
        let effects = one.step(Event::Close);
        let [Effect::Stop(_), Effect::Tell(call, Call::Revoked(_, Reason::Closed))] = effects[..] else {
            panic!("{effects:?}");
        };
        let effects = one.step(Event::Told(call));
        if is_static {
            assert_eq!(effects, [Effect::Closed]);
        } else {
            let [Effect::Leave { ticket, coordinator: 1, ref member_id, reason: Reason::Closed }] =
                effects[..]
            else {
                panic!("{effects:?}");
            };
            assert_eq!(&**member_id, "m");
            assert_eq!(one.step(Event::Left(ticket, Ok(()))), [Effect::Closed]);
        }
    }
}

/// A member that has given up all it had while nobody knew the coordinator.
fn ending(event: Event) -> One {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0]));
    assert_eq!(one.refuse_beat(ErrorCode::NOT_COORDINATOR), []);
    let effects = one.step(event);
    let [Effect::Stop(_), Effect::Tell(call, Call::Revoked(..))] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Told(call)), [], "it has to be found first");
    let at = one.member.deadline().unwrap();
    assert_eq!(one.wait(at), [Effect::FindCoordinator]);
    one
}

/// Goal: the others need not wait for the session of who went while its coordinator moved.
#[test]
fn who_ends_while_the_coordinator_is_unknown_finds_it_and_leaves() {
    for event in [Event::Close, Event::Unsubscribe] {
        let mut one = ending(event.clone());
        let effects = one.step(Event::Coordinator(Ok(2)));
        let [Effect::Leave { ticket, coordinator: 2, .. }] = effects[..] else { panic!("{effects:?}") };
        // It has just become the coordinator, and then is none any more.
        let loading = one.step(Event::Left(ticket, Err(code(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS))));
        assert_eq!(loading, []);
        let at = one.member.deadline().unwrap();
        let effects = one.wait(at);
        let Some(Effect::Leave { ticket, .. }) =
            effects.iter().find(|effect| matches!(effect, Effect::Leave { .. }))
        else {
            panic!("{effects:?}");
        };
        assert_eq!(one.step(Event::Left(*ticket, Err(Refusal::NoAnswer))), []);
        let at = one.member.deadline().unwrap();
        assert_eq!(one.wait(at), [Effect::FindCoordinator]);
        let effects = one.step(Event::Coordinator(Ok(3)));
        let [Effect::Leave { ticket, coordinator: 3, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = one.step(Event::Left(ticket, Ok(())));
        assert_eq!(effects.contains(&Effect::Closed), matches!(event, Event::Close), "{effects:?}");
        assert!(one.member.is_idle());
        assert_eq!(one.member.deadline(), None);
    }
}

#[test]
fn who_finds_no_coordinator_until_its_session_is_over_has_left() {
    let mut one = ending(Event::Close);
    let begun = one.now;
    let mut closed = false;
    let unavailable = code(ErrorCode::COORDINATOR_NOT_AVAILABLE);
    let mut effects = one.step(Event::Coordinator(Err(unavailable)));
    while !closed {
        assert!(effects.iter().all(|effect| matches!(effect, Effect::FindCoordinator)), "{effects:?}");
        effects = match effects.is_empty() {
            true => one.wait(one.member.deadline().unwrap()),
            false => one.step(Event::Coordinator(Err(unavailable))),
        };
        closed = effects.contains(&Effect::Closed);
    }
    assert!(one.now > begun && one.now <= begun + 10 * S, "{:?}", one.now - begun);
    assert_eq!(one.member.deadline(), None);
}

#[test]
fn who_was_never_told_a_member_id_or_is_static_has_nobody_to_leave() {
    let mut one = One::new(RebalanceProtocol::Eager, false);
    one.step(Event::Subscribe(topics()));
    assert_eq!(one.step(Event::Close), [Effect::Closed]);
    let mut one = One::stable(RebalanceProtocol::Cooperative, true, partitions([0]));
    assert_eq!(one.refuse_beat(ErrorCode::NOT_COORDINATOR), []);
    let effects = one.step(Event::Close);
    let [Effect::Stop(_), Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Told(call)), [Effect::Closed]);
}

#[test]
fn refusals_that_nothing_helps_against_are_told_once() {
    for with in [
        ErrorCode::FENCED_INSTANCE_ID,
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode::GROUP_AUTHORIZATION_FAILED,
        ErrorCode::GROUP_MAX_SIZE_REACHED,
        ErrorCode::INVALID_SESSION_TIMEOUT,
    ] {
        let mut one = One::new(RebalanceProtocol::Eager, false);
        one.step(Event::Subscribe(topics()));
        let effects = one.step(Event::Coordinator(Ok(1)));
        let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = one.step(Event::Join(ticket, JoinAnswer::Refused(code(with))));
        assert_eq!(effects, [Effect::Fail(Fatal::Refused(with))]);
        assert_eq!(one.member.deadline(), None, "no spin");
        assert!(
            matches!(&one.step(Event::Subscribe(topics()))[..], [Effect::Join { .. }]),
            "a new try is possible"
        );
    }
}

#[test]
fn a_coordinator_that_is_loading_is_asked_again_after_a_pause() {
    let mut one = One::new(RebalanceProtocol::Eager, false);
    one.step(Event::Subscribe(topics()));
    let effects = one.step(Event::Coordinator(Ok(1)));
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let loading = JoinAnswer::Refused(code(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    assert_eq!(one.step(Event::Join(ticket, loading)), []);
    let at = one.member.deadline().unwrap();
    assert!(at > one.now);
    assert!(matches!(&one.wait(at)[..], [Effect::Join { coordinator: 1, .. }]));
}

/// The leader of a group, which has assigned these topics.
fn leader(shapes: Shapes) -> One {
    leader_that_withholds(shapes, false)
}

fn leader_that_withholds(shapes: Shapes, withheld: bool) -> One {
    let mut one = One::new(RebalanceProtocol::Cooperative, false);
    one.step(Event::Subscribe(topics()));
    let effects = one.step(Event::Coordinator(Ok(1)));
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    assign(&mut one, ticket, shapes, withheld);
    one
}

/// The answer to a join makes it the leader, and it assigns itself the first partition.
fn assign(one: &mut One, ticket: u64, shapes: Shapes, withheld: bool) {
    let members = Some(Vec::new());
    let answer = joined(3, members);
    let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(answer)));
    let [Effect::Lead { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let chosen = Chosen { assignments: vec![("m".into(), "x".into())], shapes, withheld };
    let effects = one.step(Event::Led(ticket, Ok(chosen)));
    let [Effect::Sync { ticket, ref assignments, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(assignments.len(), 1);
    let assignment = Assignment { partitions: partitions([0]), user_data: None };
    let effects = one.step(Event::Sync(ticket, Ok(Ok(assignment))));
    if let [.., Effect::Tell(id, _)] = effects[..] {
        one.step(Event::Told(id));
    }
}

fn shapes<const N: usize>(topics: [(&str, usize); N]) -> Shapes {
    topics.into_iter().map(|(topic, partitions)| (topic.into(), TopicShape::new(partitions))).collect()
}

#[test]
fn a_leader_joins_again_when_the_groups_topics_have_other_partitions() {
    let told = shapes([("t", 2), ("later", 0)]);
    for (now, joins) in [
        (told.clone(), false),
        (shapes([("other", 7)]), false), // not a topic of the group
        (shapes([("t", 3), ("later", 0)]), true),
        (shapes([("t", 2), ("later", 1)]), true), // one that appears
        (shapes([("t", 0), ("later", 0)]), true), // one that is deleted
        (shapes([("later", 0)]), false),          // nobody knows
    ] {
        let effects = leader(told.clone()).step(Event::Topics(now.clone()));
        let joined = effects.iter().any(|effect| matches!(effect, Effect::Join { .. }));
        assert_eq!(joined, joins, "{now:?}: {effects:?}");
    }
    let mut one = leader(shapes([("t", 2), ("u", 1)]));
    assert_eq!(one.member.led_topics().map(|topic| &**topic).collect::<Vec<_>>(), ["t", "u"]);
    assert!(!one.step(Event::Topics(shapes([("u", 0)]))).is_empty(), "a topic that only others read");
}

/// Goal: a process that began anew does not know that others wait for what it had before; no partition stays with nobody.
#[test]
fn a_leader_joins_again_if_nobody_gives_up_what_it_has_withheld() {
    for withheld in [true, false] {
        let mut one = leader_that_withholds(shapes([("t", 2)]), withheld);
        let session = one.member.settings.session;
        let until = one.now + session;
        let Some((ticket, at)) = next_join(&mut one, until) else {
            assert!(!withheld);
            continue;
        };
        assert!(withheld && at == one.now, "{at:?}");
        // The owner is silent, and the group has to wait for it at each rebalance: less and less often.
        assign(&mut one, ticket, shapes([("t", 2)]), true);
        let at = one.now + 2 * session;
        assert_eq!(next_join(&mut one, at).map(|(_, joined)| joined), Some(at));
    }
}

/// Polls and beats until the member joins; `None` if it does not until then.
fn next_join(one: &mut One, until: Tick) -> Option<(u64, Tick)> {
    while let Some(at) = one.member.deadline().filter(|at| *at <= until) {
        for effect in one.wait(at) {
            match effect {
                Effect::Heartbeat { ticket, .. } => drop(one.step(Event::Heartbeat(ticket, Ok(())))),
                Effect::Join { ticket, .. } => return Some((ticket, at)),
                other => panic!("{other:?}"),
            }
        }
        one.step(Event::Polled(Some(one.now)));
    }
    None
}

/// Goal: the join of a static member tells what it owns; it stalls and loses that, and its group gives one of the partitions to
/// another, which waits until it is given up. Seed 4581 of the simulation: nobody read it any more.
#[test]
fn what_was_told_to_be_owned_and_lost_before_the_answer_is_given_up_by_joining_again() {
    for is_static in [true, false] {
        let mut one = One::stable(RebalanceProtocol::Cooperative, is_static, partitions([0, 1]));
        let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
        assert!(matches!(&effects[..], [Effect::Join { owned, .. }] if owned.len() == 2), "{effects:?}");
        one.step(Event::Polled(Some(one.now)));
        let at = one.now + one.member.settings.max_poll;
        let effects = one.wait(at);
        let lost = effects.iter().find_map(|effect| match effect {
            Effect::Tell(id, Call::Lost(..)) => Some(*id),
            _ => None,
        });
        one.step(Event::Told(lost.expect("stalled")));
        let effects = one.step(Event::Polled(Some(one.now)));
        let [Effect::Join { ticket, ref owned, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(owned[..], []);
        let answer = joined(2, None);
        let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(answer)));
        let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let assignment = Assignment { partitions: partitions([0]), user_data: None };
        let effects = one.step(Event::Sync(ticket, Ok(Ok(assignment))));
        let [.., Effect::Tell(id, Call::Assigned(..))] = effects[..] else { panic!("{effects:?}") };
        let effects = one.step(Event::Told(id));
        let again = effects.iter().any(|e| matches!(e, Effect::Join { owned, .. } if owned.len() == 1));
        assert_eq!(again, is_static, "one that leaves makes the others join: {effects:?}");
    }
}

/// Goal: one change costs one rebalance, also where the metadata tell of it in two steps.
#[test]
fn a_leader_that_is_joining_already_does_not_join_once_more_for_what_it_is_going_to_assign() {
    let mut one = leader(shapes([("t", 2)]));
    let effects = one.step(Event::Topics(shapes([("t", 3)])));
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Topics(shapes([("t", 4)]))), []);
    let answer = joined(4, Some(Vec::new()));
    let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(answer)));
    let [Effect::Lead { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let chosen =
        Chosen { assignments: vec![("m".into(), "x".into())], shapes: shapes([("t", 4)]), withheld: false };
    let effects = one.step(Event::Led(ticket, Ok(chosen)));
    let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let assignment = Assignment { partitions: partitions([0]), user_data: None };
    let effects = one.step(Event::Sync(ticket, Ok(Ok(assignment))));
    assert!(matches!(effects[..], [Effect::Adopt(_, _, 4)]), "{effects:?}");
    assert!(one.member.is_stable());
}

/// Goal: the assignor looks at the metadata itself; what the member is told of them may come later.
#[test]
fn a_leader_that_assigned_more_than_it_was_told_of_does_not_join_again() {
    for (told, joins) in [(None, false), (Some(4), false), (Some(5), true)] {
        let mut one = leader(shapes([("t", 2)]));
        let effects = one.step(Event::Topics(shapes([("t", 3)])));
        let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let answer = joined(4, Some(Vec::new()));
        let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(answer)));
        let [Effect::Lead { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let assignments = vec![("m".into(), "x".into())];
        let chosen = Chosen { assignments, shapes: shapes([("t", 4)]), withheld: false };
        let effects = one.step(Event::Led(ticket, Ok(chosen)));
        let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        if let Some(partitions) = told {
            assert_eq!(one.step(Event::Topics(shapes([("t", partitions)]))), []);
        }
        let assignment = Assignment { partitions: partitions([0]), user_data: None };
        let effects = one.step(Event::Sync(ticket, Ok(Ok(assignment))));
        let joined = effects.iter().any(|effect| matches!(effect, Effect::Join { .. }));
        assert_eq!(joined, joins, "told of {told:?}: {effects:?}");
    }
}

/// Goal: a cooperative member that commits while it waits for its assignment does not begin the next rebalance by that.
#[test]
fn a_commit_that_meets_the_rebalance_of_its_own_generation_is_no_reason_to_join_again() {
    let refusal = code(ErrorCode::REBALANCE_IN_PROGRESS);
    let later = Effect::CommitDone(1, Err(CommitRefusal::Later(refusal)));
    let offsets: Offsets = [(TopicPartition::new("t", 0), 9.into())].into();
    for answered_late in [false, true] {
        let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0]));
        let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
        let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let answer = joined(2, None);
        let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(answer)));
        let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = one.step(Event::Commit(1, offsets.clone()));
        assert!(matches!(effects[..], [Effect::Commit { generation: 2, .. }]), "{effects:?}");
        let assignment = Assignment { partitions: partitions([0]), user_data: None };
        let assigned = Event::Sync(ticket, Ok(Ok(assignment)));
        let refused = Event::Committed(1, Err(refusal));
        let (first, then) = if answered_late { (assigned, refused) } else { (refused, assigned) };
        let mut effects = one.step(first);
        effects.extend(one.step(then));
        assert!(effects.contains(&later), "{effects:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Join { .. })), "{effects:?}");
        assert!(one.member.is_stable());
        // Whoever has its assignment hears so of the next one.
        one.step(Event::Commit(1, offsets.clone()));
        let effects = one.step(Event::Committed(1, Err(refusal)));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Join { .. })), "{effects:?}");
    }
}

/// A cooperative member with both partitions that has joined generation 2, whose sync met `refusal`.
fn unsynced(refusal: Refusal) -> (One, Vec<Effect>) {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0, 1]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(joined(2, None))));
    let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let effects = one.step(Event::Sync(ticket, Err(refusal)));
    (one, effects)
}

fn generation_of_a_commit(one: &mut One, id: u64) -> i32 {
    let offsets: Offsets = [(TopicPartition::new("t", 0), 9.into())].into();
    let effects = one.step(Event::Commit(id, offsets));
    let [Effect::Commit { generation, .. }] = effects[..] else { panic!("{effects:?}") };
    generation
}

#[test]
fn a_generation_that_went_with_its_coordinator_is_given_up_for_the_one_before_when_that_is_refused() {
    let illegal = code(ErrorCode::ILLEGAL_GENERATION);
    let (mut one, _) = unsynced(code(ErrorCode::NOT_COORDINATOR));
    one.wait(one.now + S);
    let effects = one.step(Event::Coordinator(Ok(2)));
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    // It may have been written down.
    assert_eq!(generation_of_a_commit(&mut one, 1), 2);
    let effects = one.step(Event::Committed(1, Err(illegal)));
    assert_eq!(effects, [Effect::CommitDone(1, Err(CommitRefusal::Later(illegal)))]);
    assert_eq!(generation_of_a_commit(&mut one, 2), 1);
    assert_eq!(one.step(Event::Committed(2, Ok(()))), [Effect::CommitDone(2, Ok(()))]);
    let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(joined(2, None))));
    assert!(matches!(effects[..], [Effect::Sync { generation: 2, .. }]), "{effects:?}");
    // While an assignment may come, its generation stands.
    assert_eq!(generation_of_a_commit(&mut one, 3), 2);
    one.step(Event::Committed(3, Err(illegal)));
    assert_eq!(generation_of_a_commit(&mut one, 4), 2);
}

/// A cooperative member with both partitions that leads generation 2, whose coordinator has moved meanwhile; and its lead.
fn leads_what_is_gone() -> (One, u64) {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0, 1]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(joined(2, Some(Vec::new())))));
    let [Effect::Lead { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    one.refuse_beat(ErrorCode::NOT_COORDINATOR);
    (one, ticket)
}

fn beats_in(effects: &[Effect]) -> Option<(u64, i32)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Heartbeat { ticket, generation, .. } => Some((*ticket, *generation)),
        _ => None,
    })
}

#[test]
fn a_heartbeat_that_is_refused_in_a_generation_that_is_gone_costs_nothing() {
    let illegal = code(ErrorCode::ILLEGAL_GENERATION);
    let (mut one, _) = unsynced(code(ErrorCode::NOT_COORDINATOR));
    let effects = one.step(Event::Subscribe(["u".into()].into()));
    assert!(matches!(effects[..], [Effect::Stop(_), Effect::Tell(_, Call::Revoked(..))]), "{effects:?}");
    one.wait(one.now + S);
    let effects = one.step(Event::Coordinator(Ok(2)));
    let Some((beat, 2)) = beats_in(&effects) else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Heartbeat(beat, Err(illegal))), []);
    let effects = one.wait(one.now + 3 * S);
    let Some((beat, 1)) = beats_in(&effects) else { panic!("{effects:?}") };
    // The one before is not known either.
    one.step(Event::Heartbeat(beat, Err(illegal)));
    assert_eq!(one.member.owned().len(), 0);
}

#[test]
fn who_leads_a_generation_that_is_gone_joins_again_with_what_it_owns() {
    let (mut one, lead) = leads_what_is_gone();
    one.wait(one.now + S);
    let effects = one.step(Event::Coordinator(Ok(2)));
    let Some((beat, 2)) = beats_in(&effects) else { panic!("{effects:?}") };
    let effects = one.step(Event::Heartbeat(beat, Err(code(ErrorCode::ILLEGAL_GENERATION))));
    let [Effect::Join { ref owned, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(*owned, partitions([0, 1]));
    let chosen = Chosen { assignments: Vec::new(), shapes: Shapes::new(), withheld: false };
    assert_eq!(one.step(Event::Led(lead, Ok(chosen))), []);
}

#[test]
fn who_closes_amid_a_generation_that_is_gone_commits_in_the_one_before() {
    let illegal = code(ErrorCode::ILLEGAL_GENERATION);
    let (mut one, lead) = leads_what_is_gone();
    one.wait(one.now + S);
    one.step(Event::Coordinator(Ok(2)));
    let effects = one.step(Event::Close);
    assert!(matches!(effects[..], [Effect::Stop(_), Effect::Tell(_, Call::Revoked(..))]), "{effects:?}");
    // Two at a time: the second one's refusal is no news.
    assert_eq!((generation_of_a_commit(&mut one, 1), generation_of_a_commit(&mut one, 2)), (2, 2));
    for id in [1, 2] {
        let effects = one.step(Event::Committed(id, Err(illegal)));
        assert_eq!(effects, [Effect::CommitDone(id, Err(CommitRefusal::Later(illegal)))]);
    }
    assert_eq!(generation_of_a_commit(&mut one, 3), 1);
    let chosen = Chosen { assignments: Vec::new(), shapes: Shapes::new(), withheld: false };
    assert_eq!(one.step(Event::Led(lead, Ok(chosen))), [], "it would sync in another generation");
}

#[test]
fn a_second_commit_that_is_refused_in_a_generation_that_is_gone_is_tried_again_like_the_first() {
    let illegal = code(ErrorCode::ILLEGAL_GENERATION);
    let (mut one, _) = unsynced(code(ErrorCode::NOT_COORDINATOR));
    one.step(Event::Close);
    one.wait(one.now + S);
    one.step(Event::Coordinator(Ok(2)));
    assert_eq!((generation_of_a_commit(&mut one, 1), generation_of_a_commit(&mut one, 2)), (2, 2));
    for id in [1, 2] {
        let effects = one.step(Event::Committed(id, Err(illegal)));
        assert_eq!(effects, [Effect::CommitDone(id, Err(CommitRefusal::Later(illegal)))]);
    }
    assert_eq!(generation_of_a_commit(&mut one, 3), 1);
    one.step(Event::Committed(3, Err(illegal)));
    assert_eq!(one.member.owned().len(), 0, "the one before is not known either");
}

#[test]
fn who_syncs_in_a_generation_that_is_not_known_any_more_keeps_what_it_owns_and_joins_again() {
    let illegal = code(ErrorCode::ILLEGAL_GENERATION);
    let (mut one, effects) = unsynced(illegal);
    let [Effect::Join { ticket, ref owned, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(*owned, partitions([0, 1]));
    // The one before is not known either.
    assert_eq!(generation_of_a_commit(&mut one, 1), 1);
    one.step(Event::Committed(1, Err(illegal)));
    let effects = one.step(Event::Join(ticket, JoinAnswer::Refused(code(ErrorCode::UNKNOWN_MEMBER_ID))));
    let lost = Call::Lost(partitions([0, 1]), Reason::Expelled);
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Tell(_, call) if *call == lost)),
        "{effects:?}"
    );
}

#[test]
fn a_leader_joins_again_when_partitions_move_to_other_racks() {
    let racks = |racks: [Option<&[&str]>; 2]| -> Shapes {
        let set = |racks: &[&str]| racks.iter().map(|rack| Arc::from(*rack)).collect();
        let racks = racks.into_iter().map(|racks| racks.map(set)).collect();
        [("t".into(), TopicShape { partitions: 2, racks })].into()
    };
    let told = racks([Some(&["a", "b"]), Some(&["a"])]);
    for (now, joins) in [
        (racks([Some(&["b", "a"]), Some(&["a"])]), false),
        (racks([None, Some(&["a"])]), false), // a broker is down
        (racks([Some(&["a", "b"]), Some(&["c"])]), true),
        (shapes([("t", 2)]), false),
    ] {
        let effects = leader(told.clone()).step(Event::Topics(now.clone()));
        assert_eq!(!effects.is_empty(), joins, "{now:?}: {effects:?}");
    }
}

/// Goal: a reason is what this member knows, and never that a topic is gone when something else was taken, too.
#[test]
fn who_loses_partitions_of_a_deleted_topic_hears_so_if_its_metadata_know_of_it_and_nothing_else_is_taken() {
    let [t, u] = ["t", "u"].map(|topic| TopicPartition::new(topic, 0));
    for (gone, left, reason) in [
        (vec!["u"], vec![t.clone()], Reason::TopicsChanged),
        (vec![], vec![t.clone()], Reason::GivenAway),
        (vec!["u"], vec![], Reason::GivenAway),
        (vec!["t", "u"], vec![], Reason::TopicsChanged),
    ] {
        let mut one = One::new(RebalanceProtocol::Cooperative, false);
        one.step(Event::Subscribe(["t".into(), "u".into()].into()));
        let effects = one.step(Event::Coordinator(Ok(1)));
        let assigned = vec![t.clone(), u.clone()];
        let effects = one.join(&effects, 1, assigned.clone());
        let Some(Effect::Tell(call, _)) = effects.last() else { panic!("{effects:?}") };
        let effects = one.step(Event::Told(*call));
        let [Effect::FetchOffsets { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        one.step(Event::Offsets(ticket, Ok(assigned.iter().map(|name| (name.clone(), None)).collect())));
        let told = ["t", "u"].map(|topic| (topic, if gone.contains(&topic) { 0 } else { 1 }));
        one.step(Event::Topics(shapes(told)));
        let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
        let effects = one.join(&effects, 2, left.clone());
        let lost: Vec<_> = assigned.into_iter().filter(|name| !left.contains(name)).collect();
        let Some(Effect::Tell(_, call)) = effects.last() else { panic!("{effects:?}") };
        assert_eq!(*call, Call::Revoked(lost, reason), "{gone:?} are gone");
    }
}

#[test]
fn a_member_by_pattern_joins_again_when_other_topics_match_and_says_why() {
    let mut one = leader(shapes([("t", 1)]));
    assert_eq!(one.step(Event::Matched(topics())), [], "no news");
    let both: BTreeSet<Arc<str>> = ["t".into(), "u".into()].into();
    let effects = one.step(Event::Matched(both.clone()));
    assert!(matches!(&effects[..], [Effect::Join { topics, .. }] if *topics == both), "{effects:?}");

    let mut one = leader(shapes([("t", 1)]));
    let effects = one.step(Event::Matched(BTreeSet::new()));
    let [Effect::Stop(_), Effect::Tell(id, ref call)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(*call, Call::Revoked(partitions([0]), Reason::TopicsChanged));
    let effects = one.step(Event::Told(id));
    assert!(matches!(&effects[..], [Effect::Join { topics, .. }] if topics.is_empty()), "{effects:?}");

    let mut idle = One::new(RebalanceProtocol::Eager, false);
    assert_eq!(
        idle.step(Event::Matched(topics())),
        [],
        "who has not subscribed, or no longer, is left alone"
    );
}

#[test]
fn to_subscribe_to_the_same_topics_once_more_disturbs_nobody() {
    let mut one = One::stable(RebalanceProtocol::Eager, false, partitions([0, 1]));
    assert_eq!(one.step(Event::Subscribe(topics())), []);
    assert!(one.member.is_stable());
    let effects = one.step(Event::Subscribe(["t".into(), "u".into()].into()));
    let [Effect::Stop(_), Effect::Tell(_, Call::Revoked(ref gone, Reason::SubscriptionChanged))] =
        effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*gone, partitions([0, 1]));
}

#[test]
fn a_static_leader_that_is_back_looks_whether_what_stands_covers_all_partitions() {
    for (assigned, joins) in [(2, false), (1, true), (0, true)] {
        let mut one = One::new(RebalanceProtocol::Eager, true);
        one.step(Event::Subscribe(topics()));
        one.step(Event::Topics(shapes([("t", 2)])));
        let effects = one.step(Event::Coordinator(Ok(1)));
        let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let members = Some(Vec::new());
        let joined =
            Joined { generation: 3, assignor: "a".into(), member_id: "m".into(), members, stands: true };
        let effects = one.step(Event::Join(ticket, JoinAnswer::Joined(joined)));
        let [Effect::Lead { ticket, stands: true, .. }] = effects[..] else { panic!("{effects:?}") };
        let chosen = Chosen { assignments: Vec::new(), shapes: shapes([("t", assigned)]), withheld: false };
        let effects = one.step(Event::Led(ticket, Ok(chosen)));
        let [Effect::Sync { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = one.step(Event::Sync(ticket, Ok(Ok(Assignment::default()))));
        let joined = effects.iter().any(|effect| matches!(effect, Effect::Join { .. }));
        assert_eq!(joined, joins, "{assigned} of 2 partitions are assigned: {effects:?}");
    }
}

/// Goal: what is done is committed by whoever closes amid a rebalance. The coordinator may be in the next generation already,
/// and takes commits of that one only, once its leader has assigned.
#[test]
fn who_closes_amid_a_rebalance_goes_through_with_it_so_that_it_can_commit() {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0, 1]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Join { ticket: join, .. }] = effects[..] else { panic!("{effects:?}") };
    let effects = one.step(Event::Close);
    let [Effect::Stop(_), Effect::Tell(call, Call::Revoked(..))] = effects[..] else { panic!("{effects:?}") };
    let offsets: Offsets = [(TopicPartition::new("t", 0), 9.into())].into();
    let effects = one.step(Event::Commit(1, offsets.clone()));
    assert!(matches!(effects[..], [Effect::Commit { generation: 1, .. }]), "{effects:?}");
    let illegal = code(ErrorCode::ILLEGAL_GENERATION);
    let later = [Effect::CommitDone(1, Err(CommitRefusal::Later(illegal)))];
    assert_eq!(one.step(Event::Committed(1, Err(illegal))), later, "the answer to the join is on its way");

    let members = Some(Vec::new());
    let answer = joined(2, members);
    let effects = one.step(Event::Join(join, JoinAnswer::Joined(answer)));
    let [Effect::Lead { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let chosen =
        Chosen { assignments: vec![("m".into(), "x".into())], shapes: Shapes::new(), withheld: false };
    let effects = one.step(Event::Led(ticket, Ok(chosen)));
    let [Effect::Sync { ticket, generation: 2, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Sync(ticket, Ok(Ok(Assignment::default())))), [], "nothing is taken over");
    let effects = one.step(Event::Commit(2, offsets));
    assert!(matches!(effects[..], [Effect::Commit { generation: 2, .. }]), "{effects:?}");
    one.step(Event::Committed(2, Ok(())));
    let effects = one.step(Event::Told(call));
    let [Effect::Leave { ticket, reason: Reason::Closed, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Left(ticket, Ok(()))), [Effect::Closed]);
}

/// Goal: a static member does not leave. If the group is in its next generation and it leads, the others have no assignment, and
/// cannot commit, as long as its session lasts: seed 16223 of the simulation.
#[test]
fn a_static_member_that_closes_amid_a_rebalance_does_its_part_first() {
    let closing = |leads: bool| {
        let mut one = One::stable(RebalanceProtocol::Cooperative, true, partitions([0]));
        let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
        let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = one.step(Event::Close);
        let [Effect::Stop(_), Effect::Tell(call, Call::Revoked(..))] = effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(one.step(Event::Told(call)), [], "its part is not done");
        let members = leads.then(Vec::new);
        let answer = joined(2, members);
        (one, Event::Join(ticket, JoinAnswer::Joined(answer)))
    };
    let (mut one, joined) = closing(true);
    let effects = one.step(joined);
    let [Effect::Lead { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let chosen =
        Chosen { assignments: vec![("m".into(), "x".into())], shapes: Shapes::new(), withheld: false };
    let effects = one.step(Event::Led(ticket, Ok(chosen)));
    let [Effect::Sync { ticket, generation: 2, .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.step(Event::Sync(ticket, Ok(Ok(Assignment::default())))), [Effect::Closed]);

    // Another one leads: nobody waits for this one.
    let (mut one, joined) = closing(false);
    let effects = one.step(joined);
    assert!(matches!(effects[..], [Effect::Sync { .. }, Effect::Closed]), "{effects:?}");

    // Nobody answers.
    let (mut one, _) = closing(false);
    let at = one.member.deadline().expect("not for ever");
    assert_eq!(at, one.now + 3 * one.member.settings.heartbeat);
    assert_eq!(one.wait(at), [Effect::Closed]);
}

#[test]
fn who_is_refused_at_the_join_while_it_closes_has_nothing_more_to_commit() {
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Join { ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    let effects = one.step(Event::Close);
    let [Effect::Stop(_), Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
    let unknown = code(ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(one.step(Event::Join(ticket, JoinAnswer::Refused(unknown))), []);
    one.step(Event::Commit(1, [(TopicPartition::new("t", 0), 9.into())].into()));
    let effects = one.step(Event::Committed(1, Err(unknown)));
    let told = CommitRefusal::Expelled(ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(effects.last(), Some(&Effect::CommitDone(1, Err(told))));
    assert_eq!(one.step(Event::Told(call)), [Effect::Closed]);
}

/// Goal: a request that waits for its connection does not leave when the partition is somebody else's.
#[test]
fn a_commit_that_was_not_answered_is_called_back_when_its_partition_goes() {
    let offsets = |index| Offsets::from([(TopicPartition::new("t", index), 9.into())]);
    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0, 1]));
    one.step(Event::Commit(1, offsets(0)));
    let effects = one.refuse_beat(ErrorCode::UNKNOWN_MEMBER_ID);
    let void = CommitRefusal::NotOwned(partitions([0])[0].clone());
    let recalled = [Effect::Recall(1), Effect::CommitDone(1, Err(void.clone()))];
    assert!(effects.ends_with(&recalled), "{effects:?}");
    assert_eq!(one.step(Event::Committed(1, Ok(()))), [], "too late to matter");

    let mut one = One::stable(RebalanceProtocol::Cooperative, false, partitions([0, 1]));
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let effects = one.join(&effects, 2, partitions([1]));
    let [Effect::Stop(_), Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
    one.step(Event::Commit(1, offsets(0)));
    one.step(Event::Commit(2, offsets(1)));
    let effects = one.step(Event::Told(call));
    assert!(effects.contains(&Effect::Recall(1)) && !effects.contains(&Effect::Recall(2)), "{effects:?}");
    assert!(effects.contains(&Effect::CommitDone(1, Err(void))));
}
