//! The input of the sticky assignors, in numbers: members by rank of their id, topics by rank of their name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Slot;
use crate::TopicPartition;
use crate::assign::{Member, Topics, java, racks};

type Racks = BTreeSet<Arc<str>>;

/// What a member had before.
#[derive(Debug, Clone, Default)]
pub(in crate::assign) struct Past {
    pub(in crate::assign) partitions: Vec<TopicPartition>,
    pub(in crate::assign) generation: Option<i32>,
}

pub(in crate::assign) struct Problem<'a> {
    /// Subscribed topics that exist: name, and the racks of each partition.
    topics: Vec<(&'a Arc<str>, &'a [Racks])>,
    /// By id.
    members: Vec<&'a Member>,
    /// Members in the order in which Java comes across them.
    pub(super) order: Vec<usize>,
    /// Topics of each member.
    pub(super) wanted: Vec<BTreeSet<usize>>,
    /// Whether everyone wants the same.
    pub(super) equal: bool,
    /// What each member claims, generations not looked at.
    pub(super) past: Vec<(Vec<Slot>, Option<i32>)>,
    /// What each member had and nobody in a later generation has.
    pub(super) owned: Vec<Vec<Slot>>,
    /// What two members of one generation claim.
    pub(super) disputed: BTreeSet<Slot>,
    /// Highest generation of all, or -1.
    pub(super) generation: i32,
    /// Racks of the members, empty unless racks matter.
    racks: Vec<Option<&'a str>>,
    /// Members in the racks of each partition; empty if no member has a rack.
    neighbours: BTreeMap<Slot, usize>,
}

impl<'a> Problem<'a> {
    pub(in crate::assign) fn new(
        topics: &'a Topics,
        members: &'a [Member],
        past: impl Fn(&Member) -> Past,
    ) -> Self {
        let mut order: Vec<&Member> = members.iter().collect();
        java::sort_as_hash_map(&mut order, |member| member.id.as_ref());
        let mut by_id = order.clone();
        by_id.sort_by(|a, b| a.id.cmp(&b.id));
        by_id.dedup_by(|a, b| a.id == b.id);
        let rank = |member: &&Member| by_id.binary_search_by(|other| other.id.cmp(&member.id)).ok();
        let order: Vec<usize> = order.iter().filter_map(rank).collect();

        let subscribed: BTreeSet<&Arc<str>> =
            by_id.iter().flat_map(|member| &member.subscription.topics).collect();
        let topics: Vec<_> =
            topics.iter().filter(|(name, racks)| !racks.is_empty() && subscribed.contains(name)).collect();
        let number = |name: &Arc<str>| topics.binary_search_by(|(other, _)| other.cmp(&name)).ok();
        let wanted =
            by_id.iter().map(|member| member.subscription.topics.iter().filter_map(number).collect());
        let names =
            |member: &&&'a Member| -> BTreeSet<&'a Arc<str>> { member.subscription.topics.iter().collect() };
        let first = by_id.first().map(|member| names(&member));
        let equal = by_id.iter().all(|member| Some(names(&member)) == first);

        let slot = |partition: &TopicPartition| {
            let topic = number(&partition.topic)?;
            let at = usize::try_from(partition.partition).ok()?;
            (at < topics[topic].1.len()).then_some((topic, at))
        };
        let past = by_id.iter().map(|member| {
            let past = past(member);
            (past.partitions.iter().filter_map(slot).collect(), past.generation)
        });
        let mut problem = Self {
            order,
            wanted: wanted.collect(),
            equal,
            past: past.collect(),
            owned: vec![Vec::new(); by_id.len()],
            disputed: BTreeSet::new(),
            generation: -1,
            racks: vec![None; by_id.len()],
            neighbours: BTreeMap::new(),
            topics,
            members: by_id,
        };
        problem.settle_claims();
        problem.place();
        problem
    }

    /// Whoever had a partition in the latest generation keeps it; two in the same generation both lose it. The other
    /// claimant's generation is the one in its subscription, also where this one's comes out of user data.
    fn settle_claims(&mut self) {
        let mut owners = BTreeMap::<Slot, usize>::new();
        for member in self.order.clone() {
            let (claimed, generation) = self.past[member].clone();
            let generation = generation.unwrap_or(-1);
            self.generation = self.generation.max(generation);
            for slot in claimed {
                let other = owners.get(&slot).copied();
                let told = other.map(|other| self.members[other].subscription.generation.unwrap_or(-1));
                if told.is_some_and(|told| told > generation) {
                    continue;
                }
                if let Some(other) = other {
                    self.owned[other].retain(|kept| *kept != slot);
                }
                if told == Some(generation) {
                    self.disputed.insert(slot);
                } else {
                    self.owned[member].push(slot);
                }
                owners.insert(slot, member);
            }
        }
    }

    fn place(&mut self) {
        let rack = |member: &&'a Member| member.subscription.rack.as_deref().filter(|rack| !rack.is_empty());
        let told: Vec<Option<&str>> = self.members.iter().map(rack).collect();
        let places: BTreeSet<&str> = told.iter().copied().flatten().collect();
        if places.is_empty() {
            return;
        }
        let mut population = BTreeMap::<&str, usize>::new();
        for rack in told.iter().flatten() {
            *population.entry(*rack).or_default() += 1;
        }
        for (topic, (_, racks)) in self.topics.iter().enumerate() {
            for (partition, racks) in racks.iter().enumerate() {
                let here = racks.iter().filter_map(|rack| population.get(rack.as_ref())).sum();
                self.neighbours.insert((topic, partition), here);
            }
        }
        if racks::matter(&places, self.topics.iter().flat_map(|(_, racks)| racks.iter())) {
            self.racks = told;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn partitions_of(&self, topic: usize) -> usize {
        self.topics[topic].1.len()
    }

    pub(super) fn total(&self) -> usize {
        self.topics.iter().map(|(_, racks)| racks.len()).sum()
    }

    pub(in crate::assign) fn name_of(&self, slot: Slot) -> TopicPartition {
        TopicPartition { topic: self.topics[slot.0].0.clone(), partition: slot.1 as i32 }
    }

    /// What a member owns by its subscription, generations not looked at.
    pub(in crate::assign) fn told_to_own(&self, member: usize) -> BTreeSet<TopicPartition> {
        self.members[member].subscription.owned.iter().cloned().collect()
    }

    pub(in crate::assign) fn named(&self, given: &[Vec<Slot>]) -> BTreeMap<Arc<str>, Vec<TopicPartition>> {
        let names = |slots: &Vec<Slot>| slots.iter().map(|slot| self.name_of(*slot)).collect();
        self.members.iter().zip(given).map(|(member, slots)| (member.id.clone(), names(slots))).collect()
    }

    /// `true` if some members are matched with partitions in their rack.
    pub(super) fn racks_matter(&self) -> bool {
        self.racks.iter().any(Option::is_some)
    }

    pub(super) fn in_rack(&self, member: usize, slot: Slot) -> bool {
        self.racks[member].is_some_and(|rack| self.topics[slot.0].1[slot.1].contains(rack))
    }

    pub(super) fn far(&self, member: usize, slot: Slot) -> bool {
        self.racks[member].is_some() && !self.in_rack(member, slot)
    }

    /// Those with fewest members nearby first; stable.
    pub(super) fn sort_by_neighbours(&self, slots: &mut [Slot]) {
        if !self.neighbours.is_empty() {
            slots.sort_by_key(|slot| self.neighbours.get(slot).copied().unwrap_or(0));
        }
    }
}
