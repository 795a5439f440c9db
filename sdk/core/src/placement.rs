//! Where replicas go that have to leave a broker.
//!
//! In: the brokers in service with their racks, where every partition's replicas are and shall be. Out: the moves to
//! begin now. It looks at what is, not at what it said before: asked again after whatever has happened, it goes on from
//! there.
//!
//! ```text
//! replica on the leaving broker ──move──▶ under way ──new replica in sync──▶ gone
//!                                             │
//!                                             └── target is dead: another move
//! ```
//!
//! Invariant: a move never names a broker twice, never a dead one as new, and never changes the number of replicas.

use std::collections::BTreeMap;

use crate::TopicPartition;

/// A partition as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which one.
    pub partition: TopicPartition,
    /// Where its replicas shall be, the preferred leader first: as they are, unless a reassignment is under way.
    pub target: Vec<i32>,
    /// Those of the target that are still being made.
    pub adding: Vec<i32>,
    /// Those that go when the others have come.
    pub removing: Vec<i32>,
}

/// A reassignment to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Of this partition.
    pub partition: TopicPartition,
    /// To these brokers, the preferred leader first.
    pub to: Vec<i32>,
}

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Begin these.
    pub moves: Vec<Move>,
    /// Wait for these.
    pub under_way: Vec<TopicPartition>,
    /// These come later: enough are under way.
    pub waiting: Vec<TopicPartition>,
}

impl Step {
    /// Every partition that still has a replica on the leaving broker.
    pub fn left(&self) -> impl Iterator<Item = &TopicPartition> {
        self.moves.iter().map(|begun| &begun.partition).chain(&self.under_way).chain(&self.waiting)
    }
}

/// A replica has nowhere to go: every broker in service has one already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{partition} has {replicas} replicas, and only {others} other brokers are in service: \
    add a broker, or give the topic fewer replicas"
)]
pub struct NoRoom {
    /// The partition.
    pub partition: TopicPartition,
    /// How many replicas it has.
    pub replicas: usize,
    /// How many brokers are in service without the leaving one.
    pub others: usize,
}

/// What has to be done so that no replica is left on `leaving`: at most `at_once` partitions move at a time.
///
/// `brokers` are those in service, with their racks; whether `leaving` is one of them does not matter. Partitions that
/// are not to be moved count as load if they are among `fixed`.
///
/// # Errors
///
/// [`NoRoom`] for the first partition that cannot be moved; then nothing is begun.
pub fn evacuate(
    leaving: i32,
    brokers: &BTreeMap<i32, Option<String>>,
    partitions: &[Placed],
    fixed: &[Placed],
    at_once: usize,
) -> Result<Step, NoRoom> {
    let mut load = Load::new(leaving, brokers, partitions.iter().chain(fixed));
    let mut step = Step::default();
    let mut wanted = Vec::new();
    for placed in partitions {
        let dead = |id: &i32| *id != leaving && !brokers.contains_key(id);
        let stays = placed.target.contains(&leaving);
        if stays || placed.removing.contains(&leaving) {
            match stays || placed.adding.iter().any(dead) {
                true => wanted.push(placed),
                false => step.under_way.push(placed.partition.clone()),
            }
        }
    }
    for placed in &wanted {
        let others = load.brokers.len();
        if placed.target.len() > others {
            let replicas = placed.target.len();
            return Err(NoRoom { partition: placed.partition.clone(), replicas, others });
        }
    }
    let free = at_once.max(1).saturating_sub(step.under_way.len());
    for placed in wanted {
        let partition = placed.partition.clone();
        let to = if step.moves.len() < free { load.replace(leaving, placed) } else { None };
        match to {
            Some(to) => step.moves.push(Move { partition, to }),
            None => step.waiting.push(partition),
        }
    }
    Ok(step)
}

/// How much each broker has, with what was decided so far.
struct Load<'a> {
    brokers: BTreeMap<i32, Held<'a>>,
}

struct Held<'a> {
    rack: Option<&'a str>,
    replicas: usize,
    leads: usize,
}

impl<'a> Load<'a> {
    fn new<'p>(
        leaving: i32,
        brokers: &'a BTreeMap<i32, Option<String>>,
        partitions: impl Iterator<Item = &'p Placed>,
    ) -> Self {
        let held = |rack: &'a Option<String>| Held { rack: rack.as_deref(), replicas: 0, leads: 0 };
        let others = brokers.iter().filter(|(id, _)| **id != leaving);
        let mut load = Self { brokers: others.map(|(id, rack)| (*id, held(rack))).collect() };
        for placed in partitions {
            load.count(&placed.target, 1);
        }
        load
    }

    fn count(&mut self, target: &[i32], by: isize) {
        for (place, id) in target.iter().enumerate() {
            if let Some(held) = self.brokers.get_mut(id) {
                held.replicas = held.replicas.saturating_add_signed(by);
                held.leads = held.leads.saturating_add_signed(if place == 0 { by } else { 0 });
            }
        }
    }

    /// The target with another broker for each that cannot stay: in a rack of its own if there is one, with as few
    /// replicas as possible.
    fn replace(&mut self, leaving: i32, placed: &Placed) -> Option<Vec<i32>> {
        let mut to = placed.target.clone();
        let gone = |id: i32, load: &Self| {
            id == leaving || placed.adding.contains(&id) && !load.brokers.contains_key(&id)
        };
        self.count(&placed.target, -1);
        for place in 0..to.len() {
            if !gone(to[place], self) {
                continue;
            }
            let rack = |id: &i32| self.brokers.get(id).and_then(|held| held.rack);
            let kept: Vec<i32> = to.iter().copied().filter(|id| !gone(*id, self)).collect();
            let shared = |held: &Held<'_>| {
                kept.iter().filter(|id| held.rack.is_some() && rack(id) == held.rack).count()
            };
            let free = self.brokers.iter().filter(|(id, _)| !to.contains(id));
            let best = free.min_by_key(|(id, held)| (shared(held), held.replicas, held.leads, **id));
            to[place] = *best?.0;
        }
        if placed.target.first() == Some(&leaving) {
            let leads = |id: &i32| self.brokers.get(id).map_or(usize::MAX, |held| held.leads);
            let first = (0..to.len()).min_by_key(|place| leads(&to[*place]))?;
            to[..=first].rotate_right(1);
        }
        self.count(&to, 1);
        Some(to)
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
