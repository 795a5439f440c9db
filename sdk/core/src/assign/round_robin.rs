//! All partitions of all topics in order, dealt out in turn to those who subscribed to them.

use std::collections::{BTreeMap, BTreeSet};

use super::{AssignError, Assignor, GroupAssignment, Member, Topics, answer, in_turn};
use crate::TopicPartition;

/// Kafka's `roundrobin` (`org.apache.kafka.clients.consumer.RoundRobinAssignor`).
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobinAssignor;

impl Assignor for RoundRobinAssignor {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(&self, topics: &Topics, members: &[Member]) -> Result<GroupAssignment, AssignError> {
        let turns = in_turn(members);
        let wanted: Vec<BTreeSet<&str>> = turns
            .iter()
            .map(|member| member.subscription.topics.iter().map(AsRef::as_ref).collect())
            .collect();
        let mut given = BTreeMap::<_, Vec<TopicPartition>>::new();
        let mut turn = 0;
        for (topic, racks) in topics.iter() {
            for partition in 0..racks.len() {
                let next = (0..turns.len()).map(|step| (turn + step) % turns.len());
                let Some(taker) = next.into_iter().find(|at| wanted[*at].contains(topic.as_ref())) else {
                    break;
                };
                let partition = TopicPartition { topic: topic.clone(), partition: partition as i32 };
                given.entry(turns[taker].id.clone()).or_default().push(partition);
                turn = (taker + 1) % turns.len();
            }
        }
        Ok(answer(given, members))
    }
}
