//! Which replicas follow one broker, and what the next request has to tell of them.
//!
//! In: replicas that come, go, are refused or throttled. Out: rounds, each naming what the session does not know yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{EpochEnd, FetchPosition, Replica};
use klamm_wire::planted::{Bug, planted};

use super::Key;
use crate::broker::{CopySide, Partition};
use crate::disk::Stored;
use crate::rt::Tick;

/// First pause after a leader refused a partition, mostly because it has not read the metadata yet.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause of a throttled replica before the rate is looked at again: it may have been raised.
const THROTTLED: Duration = Duration::from_millis(500);

/// Replicas that follow one broker.
#[derive(Debug, Default)]
pub(super) struct Following {
    pub(super) tracked: BTreeMap<Key, Tracked>,
    /// Those that may want another position than the session knows.
    pub(super) changed: BTreeSet<Key>,
    /// Those left out for a while, by the time they are asked for again.
    pub(super) paused: BTreeSet<(Tick, Key)>,
    /// Those that leave the session.
    pub(super) forgotten: BTreeSet<Key>,
}

#[derive(Debug, Clone)]
pub(super) struct Tracked {
    pub(super) partition: Arc<Partition>,
    not_before: Option<Tick>,
    pub(super) pause: Duration,
    /// Position that the session knows, and the number of the request that told it.
    pub(super) told: Option<(FetchPosition, u64)>,
    /// Where the leader of an epoch last said that its log parts from this one.
    parted: Option<(i32, EpochEnd)>,
}

impl Tracked {
    fn waits_for_throttle(&self) -> bool {
        let me = self.partition.identity.broker_id;
        self.partition.is_throttled(CopySide::Follower)
            && self.partition.look(|replica| !replica.isr().contains(&me)).unwrap_or(false)
    }
}

impl Following {
    pub(super) fn add(&mut self, key: Key, partition: &Arc<Partition>) {
        let before = self.tracked.get(&key).filter(|before| Arc::ptr_eq(&before.partition, partition));
        let (told, parted) = before.map_or((None, None), |before| (before.told, before.parted));
        let (partition, not_before, pause) = (partition.clone(), None, FIRST_PAUSE);
        let tracked = Tracked { partition, not_before, pause, told, parted };
        if let Some(Tracked { not_before: Some(at), .. }) = self.tracked.insert(key, tracked) {
            self.paused.remove(&(at, key));
        }
        self.changed.insert(key);
    }

    pub(super) fn remove(&mut self, key: &Key) -> bool {
        if planted(Bug::NoEpochCheck) {
            // what the earlier leader has not answered yet is taken in, too
            self.changed.remove(key);
            return false;
        }
        let Some(gone) = self.tracked.remove(key) else { return false };
        if let Some(at) = gone.not_before {
            self.paused.remove(&(at, *key));
        }
        self.changed.remove(key);
        self.forgotten.insert(*key);
        true
    }

    /// A new session knows nothing.
    pub(super) fn begin_session(&mut self) {
        self.forgotten.clear();
        for (key, tracked) in &mut self.tracked {
            tracked.told = None;
            if tracked.not_before.is_none() {
                self.changed.insert(*key);
            }
        }
    }

    /// Leaves a partition out for a while, longer each time.
    pub(super) fn pause(&mut self, key: &Key, now: Tick, longest: Duration) {
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        let at = now.saturating_add(tracked.pause);
        tracked.pause = (tracked.pause * 2).min(longest);
        self.leave_out(key, at);
    }

    /// Notes where the log of an epoch's leader parts from this one; `true` if it parted there before. What was cut off has
    /// been fetched again then, so one of the two is wrong about its epochs, and asking again at once does not help.
    pub(super) fn parts_again(&mut self, key: &Key, leader_epoch: i32, at: EpochEnd) -> bool {
        let at = (leader_epoch, at);
        self.tracked.get_mut(key).is_some_and(|tracked| tracked.parted.replace(at) == Some(at))
    }

    pub(super) fn leave_out(&mut self, key: &Key, at: Tick) {
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        if let Some(before) = tracked.not_before.replace(at) {
            self.paused.remove(&(before, *key));
        }
        if tracked.told.take().is_some() {
            self.forgotten.insert(*key);
        }
        self.paused.insert((at, *key));
        self.changed.remove(key);
    }

    pub(super) fn resume(&mut self, now: Tick) {
        while let Some((at, key)) = self.paused.first().copied().filter(|(at, _)| *at <= now) {
            self.paused.remove(&(at, key));
            if let Some(tracked) = self.tracked.get_mut(&key) {
                tracked.not_before = None;
                self.changed.insert(key);
            }
        }
    }

    /// Whether the session has any partition, or will have.
    pub(super) fn is_idle(&self) -> bool {
        self.changed.is_empty() && self.paused.len() == self.tracked.len()
    }

    /// What request number `round` has to tell; `None` while a replica waits for the disk.
    ///
    /// `blocked` says until when replicas that are throttled and not in sync are left out.
    pub(super) fn next_round(&mut self, now: Tick, round: u64, blocked: Option<Tick>) -> Option<Round> {
        self.resume(now);
        if let Some(until) = blocked {
            let until = until.min(now + THROTTLED);
            let waits =
                |key: &&Key| self.tracked.get(key).is_some_and(|tracked| tracked.waits_for_throttle());
            let waiting: Vec<Key> = self.changed.iter().filter(waits).copied().collect();
            waiting.iter().for_each(|key| self.leave_out(key, until));
        }
        let mut named = BTreeMap::new();
        let mut settled = Vec::new();
        for key in &self.changed {
            let Some(tracked) = self.tracked.get(key) else { continue };
            let look = |replica: &mut Replica<Stored>| (replica.fetch_position(), replica.is_sync_due());
            let (position, sync_due) = tracked.partition.look(look).unwrap_or_default();
            if sync_due {
                return None;
            }
            let told = tracked.told.map(|(position, _)| position);
            match position {
                Some(position) if told != Some(position) => {
                    named.insert(*key, position);
                }
                _ => settled.push(*key),
            }
        }
        settled.iter().for_each(|key| {
            self.changed.remove(key);
        });
        for (key, position) in &named {
            self.changed.remove(key);
            self.forgotten.remove(key);
            if let Some(tracked) = self.tracked.get_mut(key) {
                tracked.told = Some((*position, round));
            }
        }
        let forgotten = std::mem::take(&mut self.forgotten);
        Some(Round { number: round, named, forgotten, next_retry: self.paused.first().map(|(at, _)| *at) })
    }
}

/// What one request tells.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) named: BTreeMap<Key, FetchPosition>,
    pub(super) forgotten: BTreeSet<Key>,
    pub(super) next_retry: Option<Tick>,
}
