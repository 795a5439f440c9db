//! Commits that overtake each other.

use std::collections::BTreeMap;

use klamm_wire::planted::{Bug, plant};
use proptest::prelude::*;

use super::one::partitions;
use crate::TopicPartition;
use crate::group::*;

fn offsets<const N: usize>(offsets: [(i32, i64); N]) -> Offsets {
    let name = |partition| TopicPartition::new("t", partition);
    offsets.map(|(partition, offset)| (name(partition), offset.into())).into()
}

#[test]
fn a_later_commit_that_is_acknowledged_speaks_for_an_earlier_one() {
    let mut order = CommitOrder::default();
    let (first, second) = (order.begin(), order.begin());
    let (old, new) = (offsets([(0, 10), (1, 10)]), offsets([(0, 5)]));
    assert_eq!(order.attempt(first, &old), Attempt::Send(old.clone()), "nothing later was tried yet");
    assert_eq!(order.attempt(second, &new), Attempt::Send(new.clone()));
    assert_eq!(order.attempt(first, &old), Attempt::Wait(second));
    order.acknowledged(second, &new);
    order.end(second);
    assert_eq!(order.attempt(first, &old), Attempt::Send(offsets([(1, 10)])), "only what is not said yet");
    order.acknowledged(first, &old);
    assert_eq!(order.committed(&partitions([0])[0]), Some(&5.into()), "also if its answer was late");
}

#[test]
fn a_later_commit_that_is_given_up_lets_an_earlier_one_go_on() {
    let mut order = CommitOrder::default();
    let (first, second) = (order.begin(), order.begin());
    let old = offsets([(0, 10)]);
    order.attempt(second, &offsets([(0, 20)]));
    assert_eq!(order.attempt(first, &old), Attempt::Wait(second));
    order.end(second);
    assert_eq!(order.attempt(first, &old), Attempt::Send(old));
}

/// Goal: a thousand commits that were refused while the coordinator was away cost no more than their number.
#[test]
fn an_earlier_commit_waits_for_the_latest_one_and_for_nobody_once_all_is_said() {
    let mut order = CommitOrder::default();
    let [first, second, third] = std::array::from_fn(|_| order.begin());
    let of = |at| offsets([(0, at)]);
    order.attempt(second, &of(20));
    assert_eq!(order.attempt(third, &of(30)), Attempt::Send(of(30)));
    assert_eq!(order.attempt(first, &of(10)), Attempt::Wait(third));
    order.acknowledged(second, &of(20));
    assert_eq!(order.attempt(first, &of(10)), Attempt::Send(Offsets::new()), "the second was said");
}

#[test]
fn commits_of_other_partitions_do_not_wait_for_each_other() {
    let mut order = CommitOrder::default();
    let (first, second) = (order.begin(), order.begin());
    order.attempt(second, &offsets([(1, 20)]));
    assert_eq!(order.attempt(first, &offsets([(0, 10)])), Attempt::Send(offsets([(0, 10)])));
}

#[test]
fn what_others_may_have_committed_since_is_not_known_and_the_order_stays() {
    let mut order = CommitOrder::default();
    let (first, second) = (order.begin(), order.begin());
    let (old, new) = (offsets([(0, 10)]), offsets([(0, 20)]));
    order.attempt(second, &new);
    order.acknowledged(second, &new);
    order.end(second);
    order.forget(|_| true);
    assert_eq!(order.committed(&partitions([0])[0]), None);
    assert_eq!(order.attempt(first, &old), Attempt::Send(Offsets::new()));
}

/// A commit: its number, what it says, and whether an attempt is on its way.
struct Open {
    number: u64,
    offsets: Offsets,
    sent: Option<Offsets>,
}

/// A coordinator takes attempts in the order in which they are sent, takes some, refuses some, and is not heard by all.
fn live(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut order = CommitOrder::default();
    let mut open: Vec<Open> = Vec::new();
    let mut acknowledged = BTreeMap::<TopicPartition, u64>::new();
    for _ in 0..200 {
        if open.is_empty() || rng.u8(0..4) == 0 {
            let number = order.begin();
            let (which, at) = (rng.u8(..), i64::from(rng.u8(..)));
            let some = (0..3).filter(|index| which >> index & 1 == 1);
            let offsets = some.map(|index| (TopicPartition::new("t", index), at.into())).collect();
            open.push(Open { number, offsets, sent: None });
            continue;
        }
        let at = rng.usize(..open.len());
        let commit = &mut open[at];
        match commit.sent.take() {
            None => match order.attempt(commit.number, &commit.offsets) {
                Attempt::Wait(later) => {
                    let number = commit.number;
                    assert!(
                        number < later && open.iter().any(|other| other.number == later),
                        "waits for nobody"
                    );
                }
                Attempt::Send(left) if left.is_empty() => order.end(open.remove(at).number),
                Attempt::Send(left) => {
                    for name in left.keys() {
                        let known = acknowledged.get(name).copied().unwrap_or(0);
                        assert!(known < commit.number, "{name} of {known} is overwritten");
                    }
                    commit.sent = Some(left);
                }
            },
            Some(sent) => match rng.u8(0..4) {
                0 => {} // refused for now
                1 => order.end(open.remove(at).number),
                _ => {
                    order.acknowledged(commit.number, &sent);
                    for name in sent.keys() {
                        let known = acknowledged.entry(name.clone()).or_default();
                        *known = commit.number.max(*known);
                    }
                    order.end(open.remove(at).number);
                }
            },
        }
    }
    // Whoever began last never waits.
    if let Some(last) = open.iter().max_by_key(|commit| commit.number) {
        let attempt = order.attempt(last.number, &last.offsets);
        assert!(matches!(attempt, Attempt::Send(_)));
    }
}

/// Goal: the property can fail.
#[test]
fn a_commit_that_does_not_look_for_later_ones_is_found() {
    let found = |seed| {
        plant(Some(Bug::CommitOvertakes));
        let lived = std::panic::catch_unwind(|| live(seed));
        plant(None);
        lived.is_err()
    };
    assert!((0..20).any(found));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn what_was_acknowledged_is_never_overwritten_by_an_earlier_commit(seed in any::<u64>()) {
        live(seed);
    }
}
