//! The metadata quorum in every order of events, as far as bounds allow: messages lost, late, twice and overtaken,
//! crashes that lose what is not durable, and time limits that pass at any moment.
//!
//! The tests of this file are small; `tests/run model` goes further, and says how far.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "everything is tiny")]
#![allow(clippy::panic, clippy::print_stdout, reason = "tests report by printing and panicking")]

mod log;
mod model;

use std::num::NonZeroUsize;
use std::time::Instant;

use model::{Bounds, Mistake, PROMISES, Quorum};
use stateright::{Checker, HasDiscoveries, Model};

/// Looks at every state within the bounds.
fn check(bounds: Bounds) {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let quorum = Quorum { bounds, mistake: None };
    let checker = quorum.checker().threads(threads).target_max_depth(bounds.steps + 2).spawn_bfs().join();
    println!(
        "{} states ({} steps, {} deep) within {bounds:?}, in {:.0?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    assert!(checker.is_done());
    for promise in PROMISES {
        checker.assert_no_discovery(promise);
    }
}

/// Which promise falls first with a mistake, and by how many steps.
fn found(bounds: Bounds, mistake: Mistake) -> (&'static str, usize) {
    let quorum = Quorum { bounds, mistake: Some(mistake) };
    let checker = quorum
        .checker()
        .target_max_depth(bounds.steps + 2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let fell = PROMISES.into_iter().find_map(|promise| Some((promise, checker.discovery(promise)?)));
    let (promise, path) = fell.unwrap_or_else(|| panic!("{mistake:?} is not found"));
    println!("{mistake:?}: «{promise}» falls, {} states", checker.unique_state_count());
    (promise, path.into_actions().len())
}

const SMALL: Bounds =
    Bounds { voters: 3, epochs: 2, entries: 1, messages: 6, duplicates: 0, crashes: 1, steps: 5 };

#[test]
fn within_a_small_scope_no_order_of_events_breaks_a_promise() {
    check(SMALL);
}

#[test]
fn a_vote_that_a_crash_loses_is_found() {
    let (promise, _) = found(SMALL, Mistake::VoteNotKept);
    assert!([PROMISES[0], PROMISES[3]].contains(&promise), "{promise}");
}

#[cfg(feature = "planted")]
#[test]
fn a_voter_that_votes_twice_is_found() {
    let (promise, _) = found(SMALL, Mistake::VoteTwice);
    assert!([PROMISES[0], PROMISES[3]].contains(&promise), "{promise}");
}

/// `tests/run model`: minutes, in release.
#[test]
#[ignore = "takes minutes; see tests/run model"]
fn within_a_larger_scope_no_order_of_events_breaks_a_promise() {
    check(Bounds { voters: 3, epochs: 3, entries: 2, messages: 6, duplicates: 1, crashes: 1, steps: 6 });
}
