//! Which of several commits of a partition counts: the one that began last, whichever was answered first.
//!
//! A commit that is refused for now is tried again later, and by then a later one may be on its way, or acknowledged: what
//! the earlier one would say of that partition is old.
//!
//! Invariant: no attempt at a commit follows one at a later commit of the same partition, unless that was given up.

use std::collections::{BTreeMap, BTreeSet};

use klamm_wire::planted::{Bug, planted};

use super::event::{CommittedOffset, Offsets};
use crate::TopicPartition;

/// What is to be done about a commit now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Send these; none if later commits have said it all.
    Send(Offsets),
    /// The later commit of this number is about one of the partitions and not over: look again when it is.
    Wait(u64),
}

/// Orders the commits of a member. Driven by calls instead of events: it waits for nothing and asks for nothing.
#[derive(Debug, Default)]
pub struct CommitOrder {
    last: u64,
    /// Commits that are not over, and the partitions for which they were tried.
    open: BTreeMap<u64, BTreeSet<TopicPartition>>,
    /// The latest commit of each partition that was acknowledged; without offset if others may have committed since.
    acknowledged: BTreeMap<TopicPartition, (u64, Option<CommittedOffset>)>,
}

impl CommitOrder {
    /// A commit begins. Offsets that are to be committed by this number are looked up afterwards: whatever is
    /// later than they are then has a higher number.
    pub fn begin(&mut self) -> u64 {
        self.last += 1;
        self.open.insert(self.last, BTreeSet::new());
        self.last
    }

    /// A commit is to be tried, for the first time or again.
    pub fn attempt(&mut self, number: u64, offsets: &Offsets) -> Attempt {
        if planted(Bug::CommitOvertakes) {
            return Attempt::Send(offsets.clone());
        }
        let said = |name: &TopicPartition| self.acknowledged.get(name).is_some_and(|(by, _)| *by > number);
        let left: Offsets = offsets
            .iter()
            .filter(|(name, _)| !said(name))
            .map(|(name, at)| (name.clone(), at.clone()))
            .collect();
        // The latest of them: if it is acknowledged, nobody has to wait for those between.
        let mut later = self.open.range(number.saturating_add(1)..).rev();
        let blocks = |(_, tried): &(&u64, &BTreeSet<_>)| left.keys().any(|name| tried.contains(name));
        if let Some((number, _)) = later.find(blocks) {
            return Attempt::Wait(*number);
        }
        if let Some(partitions) = self.open.get_mut(&number) {
            partitions.extend(left.keys().cloned());
        }
        Attempt::Send(left)
    }

    /// The coordinator has taken these.
    pub fn acknowledged(&mut self, number: u64, offsets: &Offsets) {
        for (name, at) in offsets {
            let known = self.acknowledged.entry(name.clone()).or_default();
            if known.0 <= number {
                *known = (number, Some(at.clone()));
            }
        }
    }

    /// The commit is over: acknowledged, refused, or given up.
    pub fn end(&mut self, number: u64) {
        self.open.remove(&number);
        if self.open.is_empty() {
            // Whatever begins from here on is later.
            self.acknowledged.retain(|_, (_, at)| at.is_some());
        }
    }

    /// What was committed last, as far as this member knows.
    pub fn committed(&self, partition: &TopicPartition) -> Option<&CommittedOffset> {
        self.acknowledged.get(partition).and_then(|(_, at)| at.as_ref())
    }

    /// Whatever was committed of these, others may have committed since.
    pub fn forget(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        self.acknowledged.iter_mut().filter(|(name, _)| which(name)).for_each(|(_, (_, at))| *at = None);
    }
}
