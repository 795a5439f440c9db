//! What a listener is told of the reasons for which partitions come.

use std::time::Duration;

use klamm_wire::ErrorCode;

use super::one::{One, partitions};
use crate::Tick;
use crate::assign::RebalanceProtocol;
use crate::group::*;

const S: Tick = Duration::from_secs(1);

/// Goal: the listener hears why that JoinGroup was sent whose assignment it gets.
#[test]
fn an_assignment_is_told_with_the_reason_of_its_join() {
    let told_for = |effects: &[Effect]| match effects.last() {
        Some(Effect::Tell(call, Call::Assigned(_, reason))) => (*call, *reason),
        _ => panic!("{effects:?}"),
    };
    let mut one = One::stable(RebalanceProtocol::Eager, false, partitions([0]));
    let mut rebalance = |during: &[Event]| {
        let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
        let [Effect::Stop(_), Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
        for event in during {
            one.step(event.clone());
        }
        let effects = one.step(Event::Told(call));
        let effects = one.join(&effects, 2, partitions([0]));
        let (call, reason) = told_for(&effects);
        one.step(Event::Told(call));
        reason
    };
    assert_eq!(rebalance(&[]), Reason::Rebalance);
    let more = ["t".into(), "u".into()].into();
    assert_eq!(
        rebalance(&[Event::Subscribe(more)]),
        Reason::SubscriptionChanged,
        "that JoinGroup tells them"
    );
    assert_eq!(rebalance(&[Event::Polled(None)]), Reason::Rebalance);

    // It has nothing to lose any more when it stalls: it was about to join for another reason.
    let effects = one.refuse_beat(ErrorCode::REBALANCE_IN_PROGRESS);
    let [Effect::Stop(_), Effect::Tell(call, _)] = effects[..] else { panic!("{effects:?}") };
    one.step(Event::Told(call));
    one.step(Event::Polled(Some(one.now)));
    let effects = one.wait(one.now + 61 * S);
    assert!(one.member.is_stalled(), "{effects:?}");
    let effects = one.step(Event::Polled(None));
    let effects = one.join(&effects, 3, partitions([0]));
    assert_eq!(told_for(&effects).1, Reason::PollStalled);
}

#[test]
fn a_stalled_application_leaves_and_is_back_with_the_next_poll() {
    for is_static in [false, true] {
        let mut one = One::stable(RebalanceProtocol::Cooperative, is_static, partitions([0]));
        let mut effects = Vec::new();
        while effects.is_empty() {
            for effect in one.wait(one.now + S) {
                match effect {
                    Effect::Heartbeat { ticket, .. } => drop(one.step(Event::Heartbeat(ticket, Ok(())))),
                    other => effects.push(other),
                }
            }
        }
        assert_eq!(one.now, 61 * S);
        let left =
            effects.iter().filter(|e| matches!(e, Effect::Leave { reason: Reason::PollStalled, .. })).count();
        assert_eq!(left, usize::from(!is_static), "static members only fall silent: {effects:?}");
        let Some(Effect::Tell(call, Call::Lost(_, Reason::PollStalled))) = effects.last() else {
            panic!("{effects:?}");
        };
        assert_eq!(one.step(Event::Told(*call)), []);
        assert_eq!(one.member.deadline(), None, "nothing happens while nobody polls");
        let effects = one.step(Event::Polled(None));
        assert!(matches!(&effects[..], [Effect::Join { .. }]), "{effects:?}");
    }
}
