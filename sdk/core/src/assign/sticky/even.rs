//! Equal subscriptions: everyone gets the same number of partitions, or one more.
//!
//! Members keep what they had up to their share, then the rest is dealt out: to those below the smaller share first, in
//! turn and within racks where racks matter, then to those that get one more.

use std::collections::{BTreeMap, VecDeque};

use super::{Problem, Slot, Solution};

pub(super) fn solve(problem: &Problem<'_>) -> Solution {
    let members = problem.len();
    if members == 0 {
        return Solution { given: Vec::new(), transferred: Some(Vec::new()) };
    }
    let total = problem.total();
    let mut deal = Deal {
        problem,
        share: total / members,
        larger_share: total.div_ceil(members),
        larger_at_most: total % members,
        larger: 0,
        below: Vec::new(),
        at_share: VecDeque::new(),
        given: vec![Vec::new(); members],
        given_up: BTreeMap::new(),
        transferred: Vec::new(),
    };
    deal.keep();
    let mut free = deal.free();
    deal.below.sort_unstable();
    deal.at_share.make_contiguous().sort_unstable();
    problem.sort_by_neighbours(&mut free);
    if problem.racks_matter() {
        free = deal.near(&free);
    }
    deal.rest(&free);
    Solution { given: deal.given, transferred: Some(deal.transferred) }
}

struct Deal<'p> {
    problem: &'p Problem<'p>,
    share: usize,
    larger_share: usize,
    /// How many members get the larger share, and how many have it.
    larger_at_most: usize,
    larger: usize,
    /// Members that have less than the share.
    below: Vec<usize>,
    /// Members that have the share and may get one more.
    at_share: VecDeque<usize>,
    given: Vec<Vec<Slot>>,
    /// Whose a partition was that its owner does not keep.
    given_up: BTreeMap<Slot, usize>,
    transferred: Vec<Slot>,
}

impl Deal<'_> {
    fn keep(&mut self) {
        for member in self.problem.order.iter().copied() {
            let mut had = Vec::new();
            for slot in &self.problem.owned[member] {
                match self.problem.far(member, *slot) {
                    true => {
                        self.given_up.insert(*slot, member);
                    }
                    false => had.push(*slot),
                }
            }
            had.sort_by_key(|(topic, partition)| (*partition, *topic));
            had.retain(|slot| !self.problem.disputed.contains(slot));
            let keeps = if had.len() < self.share {
                self.below.push(member);
                had.len()
            } else if had.len() >= self.larger_share && self.larger < self.larger_at_most {
                self.one_more_is_larger();
                self.larger_share
            } else {
                if self.larger < self.larger_at_most {
                    self.at_share.push_back(member);
                }
                self.share
            };
            self.given_up.extend(had.split_off(keeps).into_iter().map(|slot| (slot, member)));
            self.given[member] = had;
        }
    }

    fn one_more_is_larger(&mut self) {
        self.larger += 1;
        if self.larger == self.larger_at_most {
            self.at_share.clear();
        }
    }

    /// What nobody keeps, in order.
    fn free(&self) -> Vec<Slot> {
        let kept: std::collections::BTreeSet<&Slot> = self.given.iter().flatten().collect();
        let topics = 0..self.problem.topic_count();
        let all = topics.flat_map(|topic| (0..self.problem.partitions_of(topic)).map(move |at| (topic, at)));
        all.filter(|slot| !kept.contains(slot)).collect()
    }

    /// Gives what can be given within racks, in turn; returns the rest.
    fn near(&mut self, free: &[Slot]) -> Vec<Slot> {
        let mut left = Vec::new();
        let mut turn = 0;
        for slot in free {
            let below = self.below.len();
            let next = (0..below).map(|step| (turn + step) % below);
            if let Some(at) = next.into_iter().find(|at| self.problem.in_rack(self.below[*at], *slot)) {
                let member = self.below[at];
                turn = at + 1;
                if self.given[member].len() + 1 >= self.share {
                    self.below.remove(at);
                    turn = at;
                    if self.share < self.larger_share && self.larger < self.larger_at_most {
                        self.at_share.push_back(member);
                    }
                }
                turn = if self.below.is_empty() { 0 } else { turn % self.below.len() };
                self.give(*slot, member);
            } else if let Some(at) =
                self.at_share.iter().position(|member| self.problem.in_rack(*member, *slot))
            {
                let member = self.at_share[at];
                self.at_share.remove(at);
                self.one_more_is_larger();
                self.give(*slot, member);
            } else {
                left.push(*slot);
            }
        }
        left
    }

    fn rest(&mut self, free: &[Slot]) {
        let mut turn = 0;
        for slot in free {
            if turn >= self.below.len() {
                turn = 0;
            }
            let member = match self.below.get(turn) {
                Some(member) => *member,
                None => {
                    // The shares add up to the total, so somebody is always left; fewest is as good as any.
                    let fewest = || (0..self.given.len()).min_by_key(|member| self.given[*member].len());
                    match self.at_share.pop_front().or_else(fewest) {
                        Some(member) => member,
                        None => return,
                    }
                }
            };
            let from_below = !self.below.is_empty();
            if self.give(*slot, member) == self.share && from_below {
                self.below.remove(turn);
                self.at_share.push_back(member);
            } else if from_below {
                turn += 1;
            }
        }
    }

    fn give(&mut self, slot: Slot, member: usize) -> usize {
        self.given[member].push(slot);
        let from_another = self.given_up.get(&slot).is_some_and(|owner| *owner != member);
        if from_another || self.problem.disputed.contains(&slot) {
            self.transferred.push(slot);
        }
        self.given[member].len()
    }
}
