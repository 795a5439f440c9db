//! Balanced assignments that move as few partitions as possible.
//!
//! Two ways, as in Kafka: [`even`] where all members subscribed to the same topics, [`uneven`] otherwise.

mod even;
mod movements;
mod problem;
mod uneven;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::protocol::{int32, partitions, put_partitions};
use super::{AssignError, Assignment, Assignor, GroupAssignment, Member, Topics, answer};
use crate::TopicPartition;

pub(super) use problem::{Past, Problem};

/// Partitions by index of topic and number.
pub(super) type Slot = (usize, usize);

/// Kafka's `sticky` (`org.apache.kafka.clients.consumer.StickyAssignor`), for the eager protocol: what a member had is
/// told as user data, because it owns nothing any more when it joins.
#[derive(Debug, Clone, Default)]
pub struct StickyAssignor {
    had: Option<(Vec<TopicPartition>, i32)>,
}

impl Assignor for StickyAssignor {
    fn name(&self) -> &str {
        "sticky"
    }

    fn user_data(&self, _: &[Arc<str>]) -> Option<Bytes> {
        let (had, generation) = self.had.as_ref()?;
        let mut out = BytesMut::new();
        put_partitions(&mut out, had);
        out.put_i32(*generation);
        Some(out.freeze())
    }

    fn assign(&self, topics: &Topics, members: &[Member]) -> Result<GroupAssignment, AssignError> {
        let problem = Problem::new(topics, members, past);
        let solution = solve(&problem);
        Ok(answer(problem.named(&solution.given), members))
    }

    fn on_assignment(&mut self, assignment: &Assignment, generation: i32) {
        let mut had = assignment.partitions.clone();
        had.sort();
        self.had = Some((had, generation));
    }
}

/// What a member had, by its user data: version 0 has no generation, and what cannot be read counts for nothing.
fn past(member: &Member) -> Past {
    let mut left = match &member.subscription.user_data {
        Some(data) if !data.is_empty() => data.clone(),
        _ => return Past::default(),
    };
    match partitions(&mut left) {
        Ok(partitions) if left.is_empty() => Past { partitions, generation: None },
        Ok(partitions) => match int32(&mut left, "generation") {
            Ok(generation) => Past { partitions, generation: Some(generation) },
            Err(_) => Past { partitions, generation: None },
        },
        Err(_) => Past { partitions: Vec::new(), generation: Some(-1) },
    }
}

/// Who gets what, and what of it somebody else has to give up first.
pub(super) struct Solution {
    /// By member, as the problem numbers them.
    pub(super) given: Vec<Vec<Slot>>,
    /// Known only where subscriptions are equal.
    pub(super) transferred: Option<Vec<Slot>>,
}

pub(super) fn solve(problem: &Problem<'_>) -> Solution {
    if problem.equal { even::solve(problem) } else { uneven::solve(problem) }
}
