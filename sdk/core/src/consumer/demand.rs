//! What the assigned partitions want of their brokers, kept up to date: a plan costs what changed since the last one, not what
//! is assigned.
//!
//! ```text
//! Partitions ──changed──▶ View of each ──▶ Demand of its broker, timers
//! ```
//!
//! Invariant: after a plan, demands and timers are what a walk over all partitions would find.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use super::event::{FetchSettings, FetchTarget};
use super::fetcher::Broker;
use super::partition::{Partition, Stage};
use crate::{Tick, TopicPartition};

/// The assigned partitions. Whoever may have changed one has marked it by that.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    all: BTreeMap<TopicPartition, Partition>,
    changed: BTreeSet<TopicPartition>,
    /// How many of each topic.
    topics: BTreeMap<Arc<str>, usize>,
}

impl Partitions {
    pub(crate) fn get(&self, name: &TopicPartition) -> Option<&Partition> {
        self.all.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &TopicPartition) -> Option<&mut Partition> {
        let found = self.all.get_mut(name)?;
        if !self.changed.contains(name) {
            self.changed.insert(name.clone());
        }
        Some(found)
    }

    pub(crate) fn contains_key(&self, name: &TopicPartition) -> bool {
        self.all.contains_key(name)
    }

    pub(crate) fn insert(&mut self, name: TopicPartition, partition: Partition) {
        self.changed.insert(name.clone());
        if self.all.insert(name.clone(), partition).is_none() {
            self.topics.entry(name.topic).or_default().add_assign(1);
        }
    }

    pub(crate) fn remove(&mut self, name: &TopicPartition) -> Option<Partition> {
        let removed = self.all.remove(name)?;
        self.changed.insert(name.clone());
        if let Some(count) = self.topics.get_mut(&name.topic) {
            *count -= 1;
            if *count == 0 {
                self.topics.remove(&name.topic);
            }
        }
        Some(removed)
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> BTreeMap<TopicPartition, Partition> {
        self.topics.clear();
        let all = std::mem::take(&mut self.all);
        self.changed.extend(all.keys().cloned());
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Partition)> + Clone {
        self.all.iter()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &TopicPartition> {
        self.all.keys()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    /// The names of those that fit.
    pub(crate) fn named(&self, fits: impl Fn(&Partition) -> bool) -> Vec<TopicPartition> {
        self.all.iter().filter(|(_, partition)| fits(partition)).map(|(name, _)| name.clone()).collect()
    }

    /// All are to be looked at again.
    pub(crate) fn mark_all(&mut self) {
        self.changed.extend(self.all.keys().cloned());
    }

    pub(crate) fn mark(&mut self, name: TopicPartition) {
        self.changed.insert(name);
    }

    /// What changed since this was called last.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<TopicPartition> {
        std::mem::take(&mut self.changed)
    }
}

/// What a partition is to be fetched from, and its generation, by which an answer is known to be still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) target: FetchTarget,
    pub(crate) generation: u64,
}

/// Wanted partitions of one broker, in order.
pub(crate) type Wanted = BTreeMap<TopicPartition, Want>;

/// What a partition needs to know of its leader before it can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Where to begin.
    Offset,
    /// Whether the log still has what was fetched before.
    Epoch,
}

/// Sizes that decide whether a partition has enough queued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the budget for each partition.
    share: usize,
    /// Bytes of one answer.
    answer: usize,
    locate_limit: Duration,
}

impl Limits {
    pub(crate) fn new(settings: &FetchSettings, partitions: usize) -> Self {
        Self {
            share: (settings.prefetch_bytes / partitions.max(1)).max(1),
            answer: usize::try_from(settings.max_partition_bytes).unwrap_or(0),
            locate_limit: settings.locate_limit,
        }
    }
}

/// One partition as its broker's plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    leader: Option<i32>,
    source: Option<i32>,
    apart: bool,
    paused: bool,
    want: Option<Want>,
    /// It has enough queued, its share or more than one answer: wait until the reader has taken some of it. More would lie in
    /// memory that is cold, or new, by the time it is read.
    full: bool,
    /// It has so much queued that it is left out where partitions have readers of their own.
    ahead: bool,
    /// Its own reader waits for it.
    starving: bool,
    /// Its follower has just refused.
    refused: bool,
    question: Option<Question>,
    /// A chunk waits long in memory that is shared.
    pinned: bool,
    /// When something is due.
    due: Option<Tick>,
    /// When something ends that nobody waits for.
    over: Option<Tick>,
}

impl View {
    pub(crate) fn of(name: &TopicPartition, partition: &Partition, limits: Limits, now: Tick) -> Self {
        let idle = partition.retry.at.is_none() && !partition.has_failed();
        let (leader, source) = (partition.leader, partition.source());
        let want = match (leader, partition.stage) {
            (Some(leader), Stage::Fetch { offset }) if idle && !partition.paused => Some(Want {
                target: FetchTarget {
                    partition: name.clone(),
                    topic_id: leader.topic_id,
                    leader_epoch: leader.epoch,
                    offset,
                },
                generation: partition.generation,
            }),
            _ => None,
        };
        let question = match partition.stage {
            Stage::Locate { asked: None, .. } => Some(Question::Offset),
            Stage::Validate { asked: None, .. } => Some(Question::Epoch),
            _ => None,
        };
        let refused = partition.refused.at.filter(|at| *at > now);
        let replica = partition.replica.map(|(_, until)| until);
        let wanted = want.is_some();
        let queued = partition.queued_bytes;
        Self {
            leader: leader.map(|leader| leader.broker),
            source,
            apart: partition.apart,
            paused: partition.paused,
            full: wanted && (queued >= limits.share || queued > limits.answer),
            ahead: wanted
                && queued > 0
                && (queued.saturating_add(limits.answer) > limits.share || queued > limits.answer),
            starving: wanted && partition.starving && partition.queue.is_empty(),
            refused: wanted && refused.is_some(),
            question: question.filter(|_| idle && leader.is_some()),
            pinned: (partition.apart || partition.paused) && partition.pinned().is_some(),
            due: partition.retry.at.into_iter().chain(lost_at(partition, limits.locate_limit)).min(),
            over: refused.into_iter().chain(replica).min(),
            want,
        }
    }
}

/// When a partition without leader is reported.
fn lost_at(partition: &Partition, limit: Duration) -> Option<Tick> {
    let (since, _) = partition.lost.filter(|_| !partition.has_failed())?;
    since.checked_add(limit)
}

/// What the partitions of one broker want of it.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Partitions that it leads, and those that are read from it.
    concerned: usize,
    /// Read from it, and not paused.
    active: usize,
    /// With readers of their own.
    apart: usize,
    wanted: Wanted,
    full: BTreeSet<TopicPartition>,
    ahead: BTreeSet<TopicPartition>,
    starving: BTreeSet<TopicPartition>,
    refused: BTreeSet<TopicPartition>,
    offsets: BTreeSet<TopicPartition>,
    epochs: BTreeSet<TopicPartition>,
    /// What its session may have to be told.
    changed: BTreeSet<TopicPartition>,
    /// What was left out of the last Fetch.
    left_out: BTreeSet<TopicPartition>,
}

impl Demand {
    /// A view comes, or goes.
    pub(crate) fn count(&mut self, id: i32, name: &TopicPartition, view: &View, comes: bool) {
        let step = |count: &mut usize, counts: bool| match comes {
            true => *count += usize::from(counts),
            false => *count -= usize::from(counts),
        };
        let note = |set: &mut BTreeSet<TopicPartition>, belongs: bool| {
            match (belongs, comes) {
                (false, _) => false,
                (true, true) => set.insert(name.clone()),
                (true, false) => set.remove(name),
            };
        };
        if view.leader == Some(id) {
            step(&mut self.concerned, true);
            note(&mut self.offsets, view.question == Some(Question::Offset));
            note(&mut self.epochs, view.question == Some(Question::Epoch));
        }
        if view.source != Some(id) {
            return;
        }
        step(&mut self.concerned, true);
        step(&mut self.active, !view.paused);
        step(&mut self.apart, view.apart);
        note(&mut self.full, view.full);
        note(&mut self.ahead, view.ahead);
        note(&mut self.starving, view.starving);
        note(&mut self.refused, view.refused);
        if let Some(want) = &view.want {
            match comes {
                true => drop(self.wanted.insert(name.clone(), want.clone())),
                false => drop(self.wanted.remove(name)),
            }
            self.changed.insert(name.clone());
        }
    }

    pub(crate) fn is_nobody(&self) -> bool {
        self.concerned == 0
    }

    /// Whether it is read from, or might be.
    pub(crate) fn is_active(&self) -> bool {
        self.active > 0
    }

    /// Those of which it has to be asked where to begin.
    pub(crate) fn offsets(&self) -> &BTreeSet<TopicPartition> {
        &self.offsets
    }

    /// Those of which it has to be asked where epochs end.
    pub(crate) fn epochs(&self) -> &BTreeSet<TopicPartition> {
        &self.epochs
    }

    /// Where partitions have readers of their own, one that has enough queued holds nobody up: it is left out.
    fn leaves_out(&self) -> bool {
        self.apart > 0
    }

    fn any(&self, set: &BTreeSet<TopicPartition>) -> bool {
        match self.leaves_out() {
            true => set.iter().any(|name| !self.ahead.contains(name)),
            false => !set.is_empty(),
        }
    }

    /// Partitions to be asked for; 0 also if one has enough queued and nobody is left out.
    pub(crate) fn asks_for(&self) -> usize {
        match (self.any(&self.full), self.leaves_out()) {
            (true, _) => 0,
            (false, true) => self.wanted.len() - self.ahead.len(),
            (false, false) => self.wanted.len(),
        }
    }

    /// A partition's own reader waits for it.
    pub(crate) fn is_starving(&self) -> bool {
        self.any(&self.starving)
    }

    /// A follower has just refused: its leader is to send records itself.
    pub(crate) fn is_refused(&self) -> bool {
        self.any(&self.refused)
    }

    /// For the session: what is wanted, what is left out of it, and what of both may be news.
    pub(crate) fn for_session(&mut self) -> (&Wanted, &BTreeSet<TopicPartition>, BTreeSet<TopicPartition>) {
        let left_out = if self.leaves_out() { self.ahead.clone() } else { BTreeSet::new() };
        let before = std::mem::replace(&mut self.left_out, left_out);
        self.changed.extend(self.left_out.symmetric_difference(&before).cloned());
        (&self.wanted, &self.left_out, std::mem::take(&mut self.changed))
    }
}

/// The view of each partition, and what follows from all of them.
#[derive(Debug, Default)]
pub(crate) struct Views {
    all: BTreeMap<TopicPartition, View>,
    due: BTreeSet<(Tick, TopicPartition)>,
    over: BTreeSet<(Tick, TopicPartition)>,
    pinned: BTreeSet<TopicPartition>,
    /// How many partitions there were when their shares were computed.
    sharing: usize,
}

impl Views {
    /// When something is due.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Those of which a chunk waits long in memory that is shared, and perhaps some more.
    pub(crate) fn pinned(&self) -> &BTreeSet<TopicPartition> {
        &self.pinned
    }

    /// Marks what is to be looked at again because of the time, or because shares are others.
    pub(crate) fn mark(&mut self, partitions: &mut Partitions, now: Tick) {
        if std::mem::replace(&mut self.sharing, partitions.len()) != partitions.len() {
            partitions.mark_all();
        }
        for timers in [&self.due, &self.over] {
            let passed = timers.iter().take_while(|(at, _)| *at <= now);
            passed.for_each(|(_, name)| partitions.mark(name.clone()));
        }
    }

    /// Puts the view of a partition in the place of the one before; `None` if it is not assigned any more.
    pub(crate) fn replace(
        &mut self,
        name: &TopicPartition,
        view: Option<View>,
        brokers: &mut BTreeMap<i32, Broker>,
    ) {
        let before = self.all.get(name);
        if before == view.as_ref() {
            return;
        }
        if let Some(before) = self.all.remove(name) {
            self.count(name, &before, brokers, false);
        }
        if let Some(view) = view {
            self.count(name, &view, brokers, true);
            self.all.insert(name.clone(), view);
        }
    }

    fn count(
        &mut self,
        name: &TopicPartition,
        view: &View,
        brokers: &mut BTreeMap<i32, Broker>,
        comes: bool,
    ) {
        for (at, timers) in [(view.due, &mut self.due), (view.over, &mut self.over)] {
            match (at, comes) {
                (None, _) => {}
                (Some(at), true) => drop(timers.insert((at, name.clone()))),
                (Some(at), false) => drop(timers.remove(&(at, name.clone()))),
            }
        }
        match view.pinned && comes {
            true => drop(self.pinned.insert(name.clone())),
            false => drop(self.pinned.remove(name)),
        }
        let concerned: BTreeSet<i32> = view.leader.into_iter().chain(view.source).collect();
        for id in concerned {
            brokers.entry(id).or_default().demand.count(id, name, view, comes);
        }
    }
}
