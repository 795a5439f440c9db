//! What a leader knows of its followers, and what it has proposed to the controller.
//!
//! In: fetches of followers, the clock, answers of the controller. Out: who is in sync.
//!
//! Invariant: the maximal ISR contains the committed one, so nothing that the controller may have made of a proposal
//! is left out of the high watermark.

use std::collections::BTreeMap;

use klamm_wire::planted::{Bug, planted};

use crate::Tick;

/// How far one follower is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Follower {
    /// Its log end, known from its last fetch to this leader.
    pub(super) end_offset: Option<i64>,
    /// First offset of its log, known likewise.
    pub(super) start_offset: i64,
    /// Epoch of its broker as of that fetch, -1 if it did not tell.
    pub(super) broker_epoch: Option<i64>,
    last_fetch: Option<Tick>,
    leader_end_at_last_fetch: i64,
    caught_up: Option<Tick>,
}

impl Follower {
    /// As a new leadership sees it: members of the ISR are given the benefit of the doubt.
    pub(super) fn begin(&mut self, now: Tick, in_sync: bool, leader_end: i64, keep_end: bool) {
        if !keep_end {
            *self = Self { leader_end_at_last_fetch: -1, ..Self::default() };
        } else {
            self.leader_end_at_last_fetch = leader_end;
            self.last_fetch = in_sync.then_some(now);
        }
        self.caught_up = in_sync.then_some(now);
    }

    /// Takes its fetch. It was caught up now if it has everything, and at the time of its previous fetch if it now asks
    /// for what did not exist then.
    pub(super) fn fetched(&mut self, now: Tick, offset: i64, leader_end: i64, broker_epoch: i64) {
        if offset >= leader_end {
            self.caught_up = self.caught_up.max(Some(now));
        } else if offset >= self.leader_end_at_last_fetch {
            self.caught_up = self.caught_up.max(self.last_fetch);
        }
        self.end_offset = Some(offset);
        self.broker_epoch = Some(broker_epoch);
        self.leader_end_at_last_fetch = self.leader_end_at_last_fetch.max(leader_end);
        self.last_fetch = Some(now);
    }

    /// Notes that the log, which ended at `leader_end`, is about to grow. A follower that had everything, and has been
    /// heard of within `lag_max`, has had it until now: one that has nothing to fetch need not fetch to stay in sync.
    pub(super) fn left_behind(&mut self, now: Tick, leader_end: i64, lag_max: Tick) {
        let heard = self.last_fetch.is_some_and(|at| now <= at.saturating_add(lag_max));
        if self.end_offset == Some(leader_end) && heard {
            self.caught_up = self.caught_up.max(Some(now));
        }
    }

    /// When it last had everything.
    pub(super) fn caught_up(&self) -> Option<Tick> {
        self.caught_up
    }

    /// When it counts as lagging, unless it catches up before; `None`: never, as it has everything.
    pub(super) fn lags_at(&self, leader_end: i64, lag_max: Tick) -> Option<Tick> {
        if self.end_offset == Some(leader_end) {
            return None;
        }
        Some(self.caught_up.map_or(Tick::ZERO, |at| at.saturating_add(lag_max)))
    }

    /// Whether it has everything, or had not long ago.
    pub(super) fn is_caught_up(&self, now: Tick, leader_end: i64, lag_max: Tick) -> bool {
        self.lags_at(leader_end, lag_max).is_none_or(|at| now < at)
    }
}

/// An ISR the controller has been asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) id: u64,
    pub(super) isr: Vec<i32>,
    /// When to ask again; `None` while an answer, or newer metadata, is awaited.
    pub(super) ask_again_at: Option<Tick>,
}

/// State of a leader.
#[derive(Debug, Clone)]
pub(super) struct Leading {
    /// First epoch of this uninterrupted leadership.
    pub(super) since_epoch: i32,
    /// Where the log ended when the current epoch began.
    pub(super) epoch_start: i64,
    pub(super) followers: BTreeMap<i32, Follower>,
    pub(super) proposal: Option<Proposal>,
    /// Nothing is proposed before this time: the last proposal was refused.
    pub(super) propose_after: Tick,
    /// A follower that is about to join the ISR holds the high watermark back until then at the longest.
    pub(super) watermark_waits_until: Option<Tick>,
}

impl Leading {
    pub(super) fn new(epoch: i32, epoch_start: i64) -> Self {
        Self {
            since_epoch: epoch,
            epoch_start,
            followers: BTreeMap::new(),
            proposal: None,
            propose_after: Tick::ZERO,
            watermark_waits_until: None,
        }
    }

    /// Whether `broker` is in the committed ISR or in the proposed one.
    pub(super) fn in_maximal_isr(&self, committed: &[i32], broker: i32) -> bool {
        if planted(Bug::StaleIsr)
            && let Some(proposal) = &self.proposal
        {
            return proposal.isr.contains(&broker);
        }
        committed.contains(&broker) || self.proposal.as_ref().is_some_and(|p| p.isr.contains(&broker))
    }

    /// Size of the union of the committed and the proposed ISR.
    pub(super) fn maximal_isr_len(&self, committed: &[i32]) -> usize {
        let proposed = self.proposal.iter().flat_map(|proposal| &proposal.isr);
        committed.len() + proposed.filter(|id| !committed.contains(id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Tick = Tick::from_secs(1);

    fn in_sync(leader_end: i64) -> Follower {
        let mut follower = Follower::default();
        follower.begin(S, true, leader_end, false);
        follower
    }

    /// Goal: a follower under constant load never sees the end of the log, and still is in sync.
    #[test]
    fn a_follower_that_asks_for_what_is_new_was_caught_up_at_its_previous_fetch() {
        let mut follower = in_sync(0);
        follower.fetched(2 * S, 0, 10, 1);
        follower.fetched(5 * S, 10, 20, 1);
        assert_eq!(follower.lags_at(20, 10 * S), Some(12 * S), "as of 2 s");
        follower.fetched(6 * S, 20, 30, 1);
        assert_eq!(follower.lags_at(30, 10 * S), Some(15 * S), "as of 5 s");
    }

    #[test]
    fn a_follower_that_falls_behind_keeps_its_last_time() {
        let mut follower = in_sync(0);
        follower.fetched(2 * S, 0, 10, 1);
        follower.fetched(5 * S, 9, 20, 1);
        assert_eq!(follower.lags_at(20, 10 * S), Some(11 * S), "as of the start of the leadership");
        assert!(follower.is_caught_up(10 * S, 20, 10 * S));
        assert!(!follower.is_caught_up(11 * S, 20, 10 * S));
    }

    #[test]
    fn a_follower_with_everything_never_lags() {
        let mut follower = in_sync(10);
        follower.fetched(2 * S, 10, 10, 1);
        assert_eq!(follower.lags_at(10, S), None);
    }

    #[test]
    fn a_follower_out_of_sync_starts_without_credit() {
        let mut follower = Follower::default();
        follower.begin(100 * S, false, 0, false);
        follower.fetched(101 * S, 0, 10, 1);
        assert!(!follower.is_caught_up(101 * S, 10, 1000 * S));
    }
}
