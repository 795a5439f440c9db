//! Who coordinates a group, and how to make it another broker.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::Image;
use klamm_wire::StrBytes;
use klamm_wire::codec::encode_request;
use klamm_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use klamm_wire::messages::elect_leaders_request::TopicPartitions;
use klamm_wire::messages::{AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest, TopicName};
use klamm_wire::seam::Frame;

use super::{Cluster, ClusterError};
use crate::group::{self, TOPIC};
use crate::node::Party;

/// Longest wait for another coordinator.
const LIMIT: Duration = Duration::from_secs(30);
const LIMIT_MS: i32 = 30_000;
/// Pause before the election is asked for again: the replica may not be in sync yet.
const PAUSE: Duration = Duration::from_millis(20);
const REASSIGN_VERSION: i16 = 0;
const ELECT_VERSION: i16 = 2;

impl Cluster {
    /// The broker that coordinates a group, as the controller's metadata has it; `None` while there is none, because nobody
    /// has asked for a coordinator yet for example.
    pub fn coordinator_of(&self, group: &str) -> Option<i32> {
        self.started.journal.image(|image| {
            let partition = group::partition_in(image, group)?;
            super::leader(image, TOPIC, partition)
        })
    }

    /// Makes another replica of the group's partition of `__consumer_offsets` its leader, as an administrator would: the
    /// next one in the list becomes the preferred leader, and is elected. Returns the new coordinator once it leads; the
    /// groups of the partition are loaded there a moment later, with the same generations and offsets.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotReady`] if there is no other replica in sync within 30 s, or no such topic yet.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the coordinator may move all the same.
    pub async fn move_coordinator(&self, group: &str) -> Result<i32, ClusterError> {
        let place = self.started.journal.image(|image| place(image, group));
        let missing = || ClusterError::NotReady {
            limit: Duration::ZERO,
            missing: format!("a second replica of the coordinator of group {group}"),
        };
        let (partition, before, mut replicas) = place.ok_or_else(missing)?;
        let alive = |id: &i32| {
            self.started.journal.image(|image| {
                image.broker(*id).is_some_and(broker_lite_core::metadata::BrokerRegistration::is_active)
            })
        };
        let next =
            replicas.iter().copied().find(|id| Some(*id) != before && alive(id)).ok_or_else(missing)?;
        replicas.retain(|id| *id != next);
        replicas.insert(0, next);
        let moved = async {
            self.ask_for(reassign(partition, &replicas)).await;
            while self.coordinator_of(group) != Some(next) {
                self.ask_for(elect(partition)).await;
                self.started.rt.sleep(PAUSE).await;
            }
        };
        self.within(LIMIT, "another coordinator", moved).await?;
        Ok(next)
    }

    /// What is refused now is asked for again.
    async fn ask_for(&self, request: Option<Frame>) {
        let Some(frame) = request else { return };
        let me = Party::Client(Some(Arc::from("cluster")));
        if let Err(error) = self.ask_controller(&me, frame).await {
            tracing::debug!(%error, "a coordinator is not moved yet");
        }
    }
}

/// Partition, leader and replicas.
fn place(image: &Image, group: &str) -> Option<(i32, Option<i32>, Vec<i32>)> {
    let partition = group::partition_in(image, group)?;
    let found = image.topic(TOPIC)?.partitions.get(&partition)?;
    Some((partition, found.leader, found.replicas.clone()))
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn reassign(partition: i32, replicas: &[i32]) -> Option<Frame> {
    let replicas = replicas.iter().copied().map(BrokerId).collect();
    let partition =
        ReassignablePartition::default().with_partition_index(partition).with_replicas(Some(replicas));
    let topic = ReassignableTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request =
        AlterPartitionReassignmentsRequest::default().with_timeout_ms(LIMIT_MS).with_topics(vec![topic]);
    encode_request(REASSIGN_VERSION, &request).ok()
}

fn elect(partition: i32) -> Option<Frame> {
    let partitions = TopicPartitions::default().with_topic(topic()).with_partitions(vec![partition]);
    let request = ElectLeadersRequest::default()
        .with_timeout_ms(LIMIT_MS)
        .with_topic_partitions(Some(vec![partitions]));
    encode_request(ELECT_VERSION, &request).ok()
}
