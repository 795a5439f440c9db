//! Reassignments (KIP-455): AlterPartitionReassignments (45) and ListPartitionReassignments (46).
//!
//! ```text
//! [1,2] ──to [1,3]──▶ [1,3,2] adding 3, removing 2 ──3 is in sync──▶ [1,3]      (see `election`)
//!   ▲                          │
//!   └───────── cancelled ──────┘
//! ```
//!
//! The target may be replaced while it is under way. What counts as added is measured against the replicas from before;
//! whom the first target added and the second does not name is dropped at once, unless it is in sync already.

use klamm_wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use klamm_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use klamm_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};
use klamm_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use super::create_topics::{bad_assignment, ids};
use super::{Controller, Outcome, Refusal};
use crate::metadata::{PartitionRegistration, Topic};

impl Controller {
    /// AlterPartitionReassignments (45), versions 0 and 1. Every partition stands alone.
    ///
    /// * `NO_REASSIGNMENT_IN_PROGRESS`: there is none to cancel.
    /// * `INVALID_REPLICA_ASSIGNMENT`: a target is not registered or named twice, there is none, or nobody who is in sync
    ///   would be left after cancelling.
    /// * `INVALID_REPLICATION_FACTOR`: the number of replicas would change, which version 1 can forbid (KIP-860).
    pub fn alter_partition_reassignments(
        &mut self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> Outcome<AlterPartitionReassignmentsResponse> {
        let keep_factor = !request.allow_replication_factor_change;
        let mut responses = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let partitions = topic.partitions.iter().map(|asked| {
                let answer =
                    ReassignablePartitionResponse::default().with_partition_index(asked.partition_index);
                match self.reassign(&topic.name, asked, keep_factor) {
                    Ok(()) => answer.with_error_message(None),
                    Err(refusal) => answer.with_error_code(refusal.0.0).with_error_message(refusal.message()),
                }
            });
            let partitions = partitions.collect();
            responses.push(
                ReassignableTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        let response = AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(request.allow_replication_factor_change)
            .with_error_message(None)
            .with_responses(responses);
        self.outcome(response)
    }

    fn reassign(
        &mut self,
        topic: &str,
        asked: &ReassignablePartition,
        keep_factor: bool,
    ) -> Result<(), Refusal> {
        let number = asked.partition_index;
        let unknown = |reason| Refusal(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, reason);
        let topic = self.image.topic(topic).ok_or_else(|| unknown(format!("no topic {topic}")))?;
        let current = topic.partitions.get(&number);
        let current = current.ok_or_else(|| unknown(format!("no partition {}-{number}", topic.name)))?;
        let id = topic.id;
        match &asked.replicas {
            None => {
                let unclean = self.image.topic_config(&topic.name, &self.settings).unclean_leader_election();
                self.cancel(id, number, &current.clone(), unclean)
            }
            Some(target) => {
                let target = ids(target);
                self.check_assignment(number, &target, None)?;
                let factor = intended(current).len();
                if keep_factor && factor != target.len() {
                    let reason = format!("{} replicas instead of {factor}", target.len());
                    return Err(Refusal(ErrorCode::INVALID_REPLICATION_FACTOR, reason));
                }
                let (adding, removing) = difference(current, &target);
                self.reconsider(id, number, |proposal| {
                    proposal.replicas = target;
                    proposal.replicas.extend(&removing);
                    proposal.adding = adding;
                    proposal.removing = removing;
                });
                Ok(())
            }
        }
    }

    /// Goes back to the replicas from before; those added must leave, in sync or not.
    fn cancel(
        &mut self,
        topic: Uuid,
        partition: i32,
        current: &PartitionRegistration,
        unclean_allowed: bool,
    ) -> Result<(), Refusal> {
        if !is_reassigning(current) {
            let reason = "no reassignment of this partition is under way";
            return Err(Refusal::new(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, reason));
        }
        let original = original(current);
        let in_sync = current.isr.iter().chain(&current.elr).any(|id| original.contains(id));
        if original.is_empty() || (!in_sync && !unclean_allowed) {
            let reason = format!("partition {partition}: none of the replicas from before is in sync");
            return Err(bad_assignment(reason));
        }
        self.reconsider(topic, partition, |proposal| {
            proposal.isr.retain(|id| original.contains(id));
            proposal.replicas = original;
            proposal.adding.clear();
            proposal.removing.clear();
        });
        Ok(())
    }

    /// ListPartitionReassignments (46): those of the partitions named, or all.
    pub fn list_partition_reassignments(
        &mut self,
        request: &ListPartitionReassignmentsRequest,
    ) -> Outcome<ListPartitionReassignmentsResponse> {
        let topics: Vec<OngoingTopicReassignment> = match &request.topics {
            None => self.image.topics().filter_map(|topic| ongoing(topic, |_| true)).collect(),
            Some(asked) => {
                let found = asked.iter().filter_map(|asked| {
                    let topic = self.image.topic(&asked.name)?;
                    ongoing(topic, |partition| asked.partition_indexes.contains(&partition))
                });
                found.collect()
            }
        };
        self.outcome(
            ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics),
        )
    }
}

pub(super) fn is_reassigning(partition: &PartitionRegistration) -> bool {
    !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
}

fn without(ids: &[i32], out: &[i32]) -> Vec<i32> {
    ids.iter().copied().filter(|id| !out.contains(id)).collect()
}

/// Replicas from before the reassignment that is under way.
fn original(partition: &PartitionRegistration) -> Vec<i32> {
    without(&partition.replicas, &partition.adding_replicas)
}

/// Replicas once the reassignment that is under way is complete.
fn intended(partition: &PartitionRegistration) -> Vec<i32> {
    without(&partition.replicas, &partition.removing_replicas)
}

/// What a new target adds and removes, in the order of ids.
fn difference(current: &PartitionRegistration, target: &[i32]) -> (Vec<i32>, Vec<i32>) {
    let (mut adding, mut removing) =
        (without(target, &original(current)), without(&current.replicas, target));
    let counts = |id: &i32| current.isr.contains(id) || current.elr.contains(id);
    removing.retain(|id| counts(id) || !current.adding_replicas.contains(id));
    adding.sort_unstable();
    removing.sort_unstable();
    (adding, removing)
}

fn ongoing(topic: &Topic, wanted: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment> {
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    let under_way = topic.partitions.iter().filter(|(number, one)| is_reassigning(one) && wanted(**number));
    let partitions: Vec<OngoingPartitionReassignment> = under_way
        .map(|(number, one)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(*number)
                .with_replicas(brokers(&one.replicas))
                .with_adding_replicas(brokers(&one.adding_replicas))
                .with_removing_replicas(brokers(&one.removing_replicas))
        })
        .collect();
    let name = TopicName(StrBytes::from_string(topic.name.to_string()));
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment::default().with_name(name).with_partitions(partitions))
}
