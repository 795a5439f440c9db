//! The sticky assignment for groups that change over cooperatively (KIP-429).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::protocol::int32;
use super::sticky::{Past, Problem, Slot, solve};
use super::{AssignError, Assignment, Assignor, GroupAssignment, Member, RebalanceProtocol, Topics, answer};

/// Kafka's `cooperative-sticky` (`org.apache.kafka.clients.consumer.CooperativeStickyAssignor`).
///
/// A partition that changes owner is given to nobody at first: its owner sees that it is to give it up, does so, joins
/// again, and the next assignment gives it to the new owner. All others are read throughout.
///
/// Where Java's would make a group with racks (KIP-881) change hands for ever, this one leaves racks out of account.
#[derive(Debug, Clone)]
pub struct CooperativeStickyAssignor {
    generation: i32,
}

impl Default for CooperativeStickyAssignor {
    fn default() -> Self {
        Self { generation: -1 }
    }
}

impl Assignor for CooperativeStickyAssignor {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn protocols(&self) -> &[RebalanceProtocol] {
        &[RebalanceProtocol::Eager, RebalanceProtocol::Cooperative]
    }

    fn user_data(&self, _: &[Arc<str>]) -> Option<Bytes> {
        let mut out = BytesMut::new();
        out.put_i32(self.generation);
        Some(out.freeze())
    }

    fn assign(&self, topics: &Topics, members: &[Member]) -> Result<GroupAssignment, AssignError> {
        let step = step(topics, members);
        let placed = members.iter().any(|member| member.subscription.rack.is_some());
        if placed && step.withheld && !comes_to_rest(topics, members, &step.given) {
            let anywhere: Vec<Member> = members.iter().cloned().map(without_rack).collect();
            return Ok(self::step(topics, &anywhere).given);
        }
        Ok(step.given)
    }

    fn on_assignment(&mut self, _: &Assignment, generation: i32) {
        self.generation = generation;
    }
}

/// What a generation gives.
pub(super) struct Step {
    pub(super) given: GroupAssignment,
    /// Some partitions have to be given up first.
    withheld: bool,
}

/// A generation, as Java's gives it.
pub(super) fn step(topics: &Topics, members: &[Member]) -> Step {
    let problem = Problem::new(topics, members, past);
    let mut solution = solve(&problem);
    let withheld: BTreeSet<Slot> = match solution.transferred {
        Some(transferred) => transferred.into_iter().collect(),
        None => changing_hands(&problem, &solution.given),
    };
    for slots in &mut solution.given {
        slots.retain(|slot| !withheld.contains(slot));
    }
    Step { given: answer(problem.named(&solution.given), members), withheld: !withheld.is_empty() }
}

/// Generations after which a group must rest in which nothing but its assignments changes.
const SOON: i32 = 3;

/// Whether partitions stop changing hands. Where racks matter they may not: what is far from its owner is taken from it in each
/// generation, and evenness may give it to somebody who is as far.
pub(super) fn comes_to_rest(topics: &Topics, members: &[Member], given: &GroupAssignment) -> bool {
    let latest = members.iter().filter_map(|member| past(member).generation).max().unwrap_or(-1);
    let (mut members, mut given) = (members.to_vec(), given.clone());
    for later in 1..=SOON {
        for member in &mut members {
            let owned = given.remove(&member.id).map(|assignment| assignment.partitions);
            member.subscription.owned = owned.unwrap_or_default();
            member.subscription.generation = Some(latest.saturating_add(later));
        }
        let step = step(topics, &members);
        if !step.withheld {
            return true;
        }
        given = step.given;
    }
    false
}

fn without_rack(mut member: Member) -> Member {
    member.subscription.rack = None;
    member
}

/// Members that are too old to name their generation in the subscription have it in their user data.
fn past(member: &Member) -> Past {
    let subscription = &member.subscription;
    let in_user_data =
        || subscription.user_data.clone().map(|mut data| int32(&mut data, "generation").unwrap_or(-1));
    Past { partitions: subscription.owned.clone(), generation: subscription.generation.or_else(in_user_data) }
}

/// What somebody gets who does not own it, and somebody owns who does not get it.
fn changing_hands(problem: &Problem<'_>, given: &[Vec<Slot>]) -> BTreeSet<Slot> {
    let mut gained = BTreeSet::new();
    let mut lost = BTreeSet::new();
    for (member, slots) in given.iter().enumerate() {
        let mut owned = problem.told_to_own(member);
        for slot in slots {
            if !owned.remove(&problem.name_of(*slot)) {
                gained.insert(*slot);
            }
        }
        lost.extend(owned);
    }
    gained.retain(|slot| lost.contains(&problem.name_of(*slot)));
    gained
}
