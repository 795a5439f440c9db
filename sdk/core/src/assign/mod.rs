//! Who reads which partition of a group: assignors, and the bytes by which members of a group tell each other.
//!
//! ```text
//! each member ──Subscription──▶ coordinator ──all of them──▶ leader: Assignor::assign ──Assignment──▶ each member
//! ```
//!
//! The four assignors give what Apache Kafka's give, so that it does not matter who leads a mixed group. Where Java's
//! answer depends on the order of its hash maps, that order is computed (`java`). Three things are ours: nobody gets a
//! partition of a topic that it did not subscribe to (Java's sticky assignors can, where a pattern matched nothing yet or
//! a subscription shrank), what a member claims of partitions that do not exist is ignored, and an assignor remembers no
//! generation of an earlier call. Strings are compared as UTF-8, which differs from Java's order beyond U+FFFF only.
//!
//! Invariant: each partition of a topic that somebody subscribed to goes to exactly one of its subscribers; only the
//! cooperative assignor leaves out those which their owner has to give up first.

mod cooperative;
mod java;
mod protocol;
mod racks;
mod range;
mod round_robin;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::TopicPartition;

pub use cooperative::CooperativeStickyAssignor;
pub use protocol::{
    MalformedMetadata, read_assignment, read_subscription, write_assignment, write_subscription,
};
pub use range::RangeAssignor;
pub use round_robin::RoundRobinAssignor;
pub use sticky::StickyAssignor;

/// What a member tells the leader of its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Names of the topics it wants to read.
    pub topics: Vec<Arc<str>>,
    /// What its assignor says to the leader's assignor.
    pub user_data: Option<Bytes>,
    /// What it reads at this moment and would like to keep (KIP-429); empty under the eager protocol.
    pub owned: Vec<TopicPartition>,
    /// Generation in which it got what it owns (KIP-792); `None` for a new member, or one too old to tell.
    pub generation: Option<i32>,
    /// Where it runs (`client.rack`, KIP-881).
    pub rack: Option<Arc<str>>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Id given by the coordinator.
    pub id: Arc<str>,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// What it wants.
    pub subscription: Subscription,
}

/// What a member is told to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// These partitions, in order.
    pub partitions: Vec<TopicPartition>,
    /// What the leader's assignor says to the member's assignor.
    pub user_data: Option<Bytes>,
}

/// An assignment for each member, by member id.
pub type GroupAssignment = BTreeMap<Arc<str>, Assignment>;

/// The topics a group can read: for each its partitions from 0 on, for each partition the racks that have a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topics(BTreeMap<Arc<str>, Vec<BTreeSet<Arc<str>>>>);

impl Topics {
    /// Adds a topic whose racks are not known.
    pub fn insert(&mut self, topic: impl Into<Arc<str>>, partitions: usize) {
        self.0.insert(topic.into(), vec![BTreeSet::new(); partitions]);
    }

    /// Adds a topic with the racks of each partition's replicas.
    pub fn insert_with_racks(&mut self, topic: impl Into<Arc<str>>, racks: Vec<BTreeSet<Arc<str>>>) {
        self.0.insert(topic.into(), racks);
    }

    /// How many partitions a topic has; `None` if it is unknown.
    pub fn partitions(&self, topic: &str) -> Option<usize> {
        self.0.get(topic).map(Vec::len)
    }

    /// Every topic with the racks of each of its partitions, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &[BTreeSet<Arc<str>>])> {
        self.0.iter().map(|(topic, racks)| (topic, racks.as_slice()))
    }
}

/// How a group changes over to a new assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RebalanceProtocol {
    /// Everybody gives up everything before joining.
    Eager,
    /// Everybody keeps what it has, gives up only what goes to others, and joins once more (KIP-429).
    Cooperative,
}

/// An assignor could not assign; the group tries again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("assignor `{assignor}` failed: {reason}")]
pub struct AssignError {
    /// Its name.
    pub assignor: String,
    /// What it said.
    pub reason: String,
}

/// Decides, on the leader of a group, who reads what.
///
/// All members have to know an assignor of the same [`name`](Self::name). Only what is asked of it on one member happens
/// on that member: [`assign`](Self::assign) on the leader, the rest on everyone.
pub trait Assignor: fmt::Debug + Send {
    /// The name members agree on, for example `range`.
    fn name(&self) -> &str;

    /// The protocols it can be used with. A member uses the highest that all its assignors support.
    fn protocols(&self) -> &[RebalanceProtocol] {
        &[RebalanceProtocol::Eager]
    }

    /// Its version, for assignors that read their own user data.
    fn version(&self) -> i16 {
        0
    }

    /// What the leader's assignor shall know of this member, beyond its subscription to `topics`.
    fn user_data(&self, topics: &[Arc<str>]) -> Option<Bytes> {
        let _ = topics;
        None
    }

    /// Assigns all partitions of the subscribed `topics` to the `members`, which come in the coordinator's order.
    /// A member that is not mentioned in the answer gets nothing.
    ///
    /// # Errors
    ///
    /// [`AssignError`] if it cannot be done; nobody gets anything then.
    fn assign(&self, topics: &Topics, members: &[Member]) -> Result<GroupAssignment, AssignError>;

    /// Hears what this member got, and in which generation.
    fn on_assignment(&mut self, assignment: &Assignment, generation: i32) {
        let _ = (assignment, generation);
    }
}

/// Members in the order in which turns are taken: static ones first, by instance id; the others by member id.
fn in_turn(members: &[Member]) -> Vec<&Member> {
    let mut sorted: Vec<&Member> = members.iter().collect();
    sorted.sort_by_key(|member| match &member.instance {
        Some(instance) => (false, instance),
        None => (true, &member.id),
    });
    sorted
}

/// The answer of an assignor that has no user data; members without partitions are told so.
fn answer(given: BTreeMap<Arc<str>, Vec<TopicPartition>>, members: &[Member]) -> GroupAssignment {
    let mut all: GroupAssignment =
        members.iter().map(|member| (member.id.clone(), Assignment::default())).collect();
    for (id, mut partitions) in given {
        partitions.sort();
        all.insert(id, Assignment { partitions, user_data: None });
    }
    all
}
