//! The metadata quorum in every order of events, exhaustively within bounds: until there is no state left to go on from.
//!
//! The scopes of the daily tests are small; `tests/run model` goes through a larger one, and prints how many states there
//! are.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "everything is tiny")]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests report by printing and panicking"
)]

mod kept;
mod log;
mod model;
mod node;

use std::num::NonZeroUsize;
use std::time::Instant;

use model::{Bounds, PROMISES, Quorum, SIGHTS};
use node::{Driver, Early};
use stateright::{Checker, HasDiscoveries, Model};

const DRIVER: Driver = Driver { forgets_votes: false, syncs_at_once: true, late_votes: false, early: None };
/// As it is in truth: requests for votes leave, and all that is to be durable becomes so some time.
const LATE: Driver = Driver { syncs_at_once: false, late_votes: true, ..DRIVER };

/// Looks at every state within the bounds, and tells what it has met with.
fn explore(bounds: Bounds) -> Vec<&'static str> {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let checker = Quorum::new(bounds).checker().threads(threads).spawn_bfs().join();
    // It ends early only when everything it looks for has been found, so not as long as one promise holds.
    for promise in PROMISES {
        if let Some(path) = checker.discovery(promise) {
            panic!("«{promise}» falls: {:#?}", path.into_actions());
        }
    }
    let met: Vec<_> = SIGHTS.into_iter().filter(|sight| checker.discovery(sight).is_some()).collect();
    let [voters, messages, steps] = checker.model().parts();
    println!(
        "{} states ({} steps, {} deep), all there are within {bounds:?}, in {:.0?}; made of {voters} voters, {messages} \
         messages and {steps} steps of one voter; met with {met:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed(),
    );
    met
}

/// Which promise falls with a mistake. Prints how far one has to go for it.
fn fell(quorum: Quorum, mistake: &str) -> &'static str {
    let checker = quorum.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let fell = PROMISES.into_iter().find_map(|promise| Some((promise, checker.discovery(promise)?)));
    let (promise, path) = fell.unwrap_or_else(|| panic!("{mistake} is not found"));
    let (steps, states) = (path.into_actions().len(), checker.unique_state_count());
    println!("{mistake}: «{promise}» falls after {steps} steps, {states} states");
    promise
}

#[test]
fn within_two_epochs_and_a_crash_no_order_of_events_breaks_a_promise() {
    let met = explore(Bounds { epochs: 2, entries: 1, crashes: 1, driver: DRIVER });
    assert_eq!(met, SIGHTS, "the scope is too small");
}

#[test]
fn within_an_epoch_with_late_fsyncs_no_order_of_events_breaks_a_promise() {
    let late = Driver { syncs_at_once: false, ..DRIVER };
    let met = explore(Bounds { epochs: 1, entries: 1, crashes: 1, driver: late });
    assert!(met.contains(&SIGHTS[0]), "the scope is too small");
}

#[test]
fn within_an_epoch_with_late_votes_no_order_of_events_breaks_a_promise() {
    let met = explore(Bounds { epochs: 1, entries: 0, crashes: 1, driver: LATE });
    assert!(met.contains(&SIGHTS[5]), "the scope is too small");
}

#[test]
fn whatever_counts_before_it_is_durable_is_found() {
    let falls = |early, promise: usize| {
        let driver = Driver { early: Some(early), ..LATE };
        let quorum = Quorum::new(Bounds { epochs: 1, entries: 0, crashes: 1, driver });
        assert_eq!(fell(quorum, &format!("{early:?} before it is durable")), PROMISES[promise]);
    };
    falls(Early::Answer, 0);
    falls(Early::OwnVote, 0);
    falls(Early::Fsync, 0);
    falls(Early::Log, 6);
}

#[test]
fn a_vote_that_is_answered_before_it_is_durable_is_found() {
    let driver = Driver { forgets_votes: true, ..DRIVER };
    let quorum = Quorum::new(Bounds { epochs: 1, entries: 0, crashes: 1, driver });
    assert_eq!(fell(quorum, "a vote forgotten in a crash"), PROMISES[3]);
}

#[cfg(feature = "planted")]
mod planted {
    use klamm_wire::planted::Bug;

    use super::*;

    fn falls(epochs: i32, bug: Bug) -> &'static str {
        let bounds = Bounds { epochs, entries: 1, crashes: 0, driver: DRIVER };
        fell(Quorum::new(bounds).with_bug(bug), &format!("{bug:?}"))
    }

    #[test]
    fn a_voter_that_votes_twice_is_found() {
        assert_eq!(falls(1, Bug::VoteTwice), PROMISES[3]);
    }

    #[test]
    fn a_voter_that_does_not_compare_logs_is_found() {
        assert_eq!(falls(2, Bug::VoteForShorterLog), PROMISES[2]);
    }

    #[test]
    fn a_follower_that_does_not_truncate_is_found() {
        let promise = falls(2, Bug::VoterKeepsTail);
        assert!([PROMISES[1], PROMISES[5]].contains(&promise), "{promise}");
    }

    /// Raft's figure 8: epoch 3 replicates a record of epoch 1, and the leader of epoch 2 comes back as that of epoch 4.
    #[test]
    fn a_leader_that_counts_replicas_of_earlier_records_is_found() {
        let bounds = Bounds { epochs: 4, entries: 0, crashes: 0, driver: DRIVER };
        let quorum = Quorum::new(bounds).after_two_leaders().with_bug(Bug::CommitEarlierEpoch);
        assert_eq!(fell(quorum, "CommitEarlierEpoch"), PROMISES[2]);
    }
}

/// `tests/run model`: minutes, in release.
#[test]
#[ignore = "takes minutes; see tests/run model"]
fn within_three_epochs_and_a_crash_no_order_of_events_breaks_a_promise() {
    let met = explore(Bounds { epochs: 3, entries: 2, crashes: 1, driver: DRIVER });
    assert_eq!(met, SIGHTS, "the scope is too small");
}

/// `tests/run model`: so does that of a vote, whose request left before.
#[test]
#[ignore = "takes minutes; see tests/run model"]
fn with_late_votes_and_a_crash_no_order_of_events_breaks_a_promise() {
    let met = explore(Bounds { epochs: 2, entries: 0, crashes: 1, driver: LATE });
    assert!(met.contains(&SIGHTS[1]), "the scope is too small");
}

/// `tests/run model`: an fsync ends whenever it may be, so that a crash loses what is counted nowhere yet.
#[test]
#[ignore = "takes minutes; see tests/run model"]
fn with_late_fsyncs_and_a_crash_no_order_of_events_breaks_a_promise() {
    let late = Driver { syncs_at_once: false, ..DRIVER };
    let met = explore(Bounds { epochs: 2, entries: 1, crashes: 1, driver: late });
    assert_eq!(met, SIGHTS, "the scope is too small");
}
