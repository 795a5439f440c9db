//! What is to happen when, over all groups of a coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Tick;

/// What a time limit is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The members of this group have had their time to join.
    Join(Arc<str>),
    /// They have had their time to fetch their assignment.
    Sync(Arc<str>),
    /// A member of this group has been silent for its session time-out.
    Session(Arc<str>, Arc<str>),
}

/// Time limits, each set at most once.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Tick>,
    order: BTreeSet<(Tick, Timer)>,
}

impl Timers {
    /// Sets a time limit in place of an earlier one.
    pub(super) fn set(&mut self, timer: Timer, at: Tick) {
        if let Some(before) = self.at.insert(timer.clone(), at) {
            self.order.remove(&(before, timer.clone()));
        }
        self.order.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first that is due.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}
