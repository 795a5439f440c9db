//! Unequal subscriptions: keep what is valid, give the rest to whoever has least, then move partitions while that makes
//! it more even; undo the moves if the whole did not become more even.

use std::collections::BTreeSet;

use super::movements::Movements;
use super::{Problem, Slot, Solution};
use crate::assign::java;

pub(super) fn solve(problem: &Problem<'_>) -> Solution {
    let mut balance = Balance::new(problem);
    let free = balance.keep();
    balance.run(free);
    Solution { given: balance.given, transferred: None }
}

struct Balance<'p> {
    problem: &'p Problem<'p>,
    /// Subscribers of each topic.
    takers: Vec<Vec<usize>>,
    /// All partitions, those with fewest subscribers first.
    all: Vec<Slot>,
    given: Vec<Vec<Slot>>,
    /// By topic and partition.
    owners: Vec<Vec<Option<usize>>>,
    /// Owner in an earlier generation than the latest, by topic and partition.
    former: Vec<Vec<Option<usize>>>,
    /// Members whose share can change, by size of their share.
    queue: BTreeSet<(usize, usize)>,
    movements: Movements,
    took_away: bool,
}

impl<'p> Balance<'p> {
    fn new(problem: &'p Problem<'p>) -> Self {
        let mut takers = vec![Vec::new(); problem.topic_count()];
        for (member, topics) in problem.wanted.iter().enumerate() {
            for topic in topics {
                takers[*topic].push(member);
            }
        }
        let mut topics: Vec<usize> = (0..takers.len()).collect();
        topics.sort_by_key(|topic| takers[*topic].len());
        let nobody: Vec<Vec<Option<usize>>> =
            (0..takers.len()).map(|topic| vec![None; problem.partitions_of(topic)]).collect();
        Self {
            problem,
            all: topics
                .into_iter()
                .flat_map(|topic| (0..problem.partitions_of(topic)).map(move |at| (topic, at)))
                .collect(),
            given: vec![Vec::new(); problem.len()],
            owners: nobody.clone(),
            former: former(problem, nobody),
            queue: BTreeSet::new(),
            movements: Movements::default(),
            took_away: false,
            takers,
        }
    }

    /// Members keep what is still theirs; returns what is to be given.
    fn keep(&mut self) -> Vec<Slot> {
        for (member, owned) in self.problem.owned.iter().enumerate() {
            for slot in owned {
                if !self.problem.wanted[member].contains(&slot.0) || self.problem.far(member, *slot) {
                    self.took_away = true;
                } else {
                    self.given[member].push(*slot);
                    self.owners[slot.0][slot.1] = Some(member);
                }
            }
        }
        self.queue = (0..self.given.len()).map(|member| (self.given[member].len(), member)).collect();
        self.all.iter().copied().filter(|slot| self.owners[slot.0][slot.1].is_none()).collect()
    }

    fn run(&mut self, free: Vec<Slot>) {
        let first_time = self.queue.last().is_none_or(|(most, _)| *most == 0);
        let mut left = free.clone();
        if self.problem.racks_matter() {
            left.retain(|slot| !self.give_to_least(*slot, true));
        }
        for slot in left {
            self.give_to_least(slot, false);
        }
        let movable = |slot: &Slot| self.takers[slot.0].len() >= 2;
        let all: Vec<Slot> = self.all.iter().copied().filter(movable).collect();
        let free: Vec<Slot> = free.into_iter().filter(movable).collect();
        let members: Vec<usize> = self.queue.iter().map(|(_, member)| *member).collect();
        let fixed: Vec<usize> = members.into_iter().filter(|member| !self.can_change(*member)).collect();
        for member in fixed {
            self.queue.remove(&(self.given[member].len(), member));
        }

        let before = (self.given.clone(), self.owners.clone());
        let score = self.score();
        if !self.took_away {
            self.even_out(&free);
        }
        if self.even_out(&all) && !first_time && self.score() >= score {
            (self.given, self.owners) = before;
        }
    }

    fn give_to_least(&mut self, slot: Slot, near: bool) -> bool {
        let suits = |member: usize| {
            self.problem.wanted[member].contains(&slot.0) && !(near && self.problem.far(member, slot))
        };
        let Some(least) = self.queue.iter().copied().find(|(_, member)| suits(*member)) else {
            return false;
        };
        self.queue.remove(&least);
        self.given[least.1].push(slot);
        self.owners[slot.0][slot.1] = Some(least.1);
        self.queue.insert((least.0 + 1, least.1));
        true
    }

    fn can_change(&self, member: usize) -> bool {
        let most: usize =
            self.problem.wanted[member].iter().map(|topic| self.problem.partitions_of(*topic)).sum();
        let given = &self.given[member];
        given.len() < most || given.iter().any(|slot| self.takers[slot.0].len() >= 2)
    }

    /// Sum of the differences between all pairs of members whose share can change.
    fn score(&self) -> usize {
        let sizes: Vec<usize> = self.queue.iter().map(|(_, member)| self.given[*member].len()).collect();
        let pairs = sizes
            .iter()
            .enumerate()
            .flat_map(|(at, one)| sizes[at + 1..].iter().map(|two| one.abs_diff(*two)));
        pairs.sum()
    }

    fn is_even(&self) -> bool {
        let (Some((least, _)), Some((most, _))) = (self.queue.first(), self.queue.last()) else {
            return true;
        };
        if least + 1 >= *most {
            return true;
        }
        let most_of =
            |topic: &usize| self.owners[*topic].iter().flatten().map(|owner| self.given[*owner].len()).max();
        let largest: Vec<usize> = (0..self.takers.len()).map(|topic| most_of(&topic).unwrap_or(0)).collect();
        let lacks = |(size, member): &(usize, usize)| {
            self.problem.wanted[*member].iter().any(|topic| size + 1 < largest[*topic])
        };
        !self.queue.iter().any(lacks)
    }

    fn even_out(&mut self, slots: &[Slot]) -> bool {
        let mut any = false;
        loop {
            let mut moved = false;
            for slot in slots {
                if self.is_even() {
                    break;
                }
                moved |= self.improve(*slot);
            }
            any |= moved;
            if !moved {
                return any;
            }
        }
    }

    /// Moves a partition to somebody with at least two fewer: its former owner, or whoever has least.
    fn improve(&mut self, slot: Slot) -> bool {
        let Some(owner) = self.owners[slot.0][slot.1] else {
            return false;
        };
        let has = self.given[owner].len();
        let lower = |member: usize| has > self.given[member].len() + 1;
        if let Some(former) = self.former[slot.0][slot.1].filter(|former| lower(*former)) {
            self.shift(slot, owner, former);
            return true;
        }
        // Looking within the rack first, as Kafka does, finds the same taker.
        if !self.takers[slot.0].iter().any(|member| lower(*member)) {
            return false;
        }
        let least = self.queue.iter().find(|(_, member)| self.problem.wanted[*member].contains(&slot.0));
        let Some((_, least)) = least.copied() else {
            return false;
        };
        self.shift(slot, owner, least);
        true
    }

    fn shift(&mut self, slot: Slot, owner: usize, to: usize) {
        let slot = self.movements.instead_of(slot, owner, to);
        let Some(from) = self.owners[slot.0][slot.1] else {
            return;
        };
        for member in [from, to] {
            self.queue.remove(&(self.given[member].len(), member));
        }
        self.movements.record(slot, java::partition_hash_code(&self.problem.name_of(slot)), from, to);
        self.given[from].retain(|held| *held != slot);
        self.given[to].push(slot);
        self.owners[slot.0][slot.1] = Some(to);
        for member in [from, to] {
            self.queue.insert((self.given[member].len(), member));
        }
    }
}

/// Who had each partition in the latest of the generations that are over; of two in one generation, whom Java meets first.
/// Somebody who does not want its topic any more gets nothing back.
fn former(problem: &Problem<'_>, mut former: Vec<Vec<Option<usize>>>) -> Vec<Vec<Option<usize>>> {
    for member in problem.order.iter().copied() {
        let (claimed, generation) = &problem.past[member];
        let known = generation.unwrap_or(-1);
        if known >= problem.generation {
            continue;
        }
        let generation_of = |other: usize| problem.past[other].1.unwrap_or(-1);
        for slot in claimed.iter().filter(|slot| problem.wanted[member].contains(&slot.0)) {
            let place = &mut former[slot.0][slot.1];
            if place.is_none_or(|other| known > generation_of(other)) {
                *place = Some(member);
            }
        }
    }
    former
}
