//! Moving replicas between brokers (KIP-455).

use klamm_core::TopicPartition;
use klamm_wire::codec;
use klamm_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use klamm_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use klamm_wire::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ListPartitionReassignmentsRequest, TopicName,
};

use super::Admin;
use super::call::{How, by_topic, verdict};
use super::error::AdminError;
use super::results::{PartitionResults, Results};

/// Where the replicas of one partition shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    partition: TopicPartition,
    replicas: Option<Vec<i32>>,
}

impl Reassignment {
    /// The partition shall have its replicas on these brokers, the preferred leader first. Takes the place of a
    /// reassignment under way.
    pub fn to(partition: impl Into<TopicPartition>, brokers: impl IntoIterator<Item = i32>) -> Self {
        Self { partition: partition.into(), replicas: Some(brokers.into_iter().collect()) }
    }

    /// The reassignment under way shall be undone.
    pub fn cancel(partition: impl Into<TopicPartition>) -> Self {
        Self { partition: partition.into(), replicas: None }
    }
}

/// A reassignment that has begun and is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReassignmentUnderWay {
    /// The partition.
    pub partition: TopicPartition,
    /// All its replicas now: those that stay, those that come and those that go.
    pub replicas: Vec<i32>,
    /// Replicas that are being made.
    pub adding: Vec<i32>,
    /// Replicas that go once those are in sync.
    pub removing: Vec<i32>,
}

impl Admin {
    /// Begins, replaces or cancels reassignments; returns when the controller has taken that down. Data moves
    /// afterwards: [`list_reassignments`](Self::list_reassignments) shows what is not over.
    ///
    /// The number of replicas may change. Asked twice because an answer was lost, it ends as if asked once.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::Reassignment;
    ///
    /// admin.reassign_partitions([Reassignment::to(("orders", 0), [4, 2, 3])]).await?.all()?;
    /// while !admin.list_reassignments_of([("orders", 0)]).await?.is_empty() {
    ///     tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// AlterPartitionReassignments, api key 45, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. What was refused is an error in the results; cancelling what
    /// is not under way is NO_REASSIGNMENT_IN_PROGRESS.
    pub async fn reassign_partitions(
        &self,
        reassignments: impl IntoIterator<Item = Reassignment>,
    ) -> Result<PartitionResults<()>, AdminError> {
        self.reassign(reassignments, true).await
    }

    /// Without `may_change`, a controller that knows how (version 1, KIP-860) refuses to change the number of replicas.
    pub(super) async fn reassign(
        &self,
        reassignments: impl IntoIterator<Item = Reassignment>,
        may_change: bool,
    ) -> Result<PartitionResults<()>, AdminError> {
        const CANCELLED: &[klamm_wire::ErrorCode] = &[klamm_wire::ErrorCode::NO_REASSIGNMENT_IN_PROGRESS];
        let wanted: Vec<_> = reassignments.into_iter().map(|r| (r.partition, r.replicas)).collect();
        let partitions: Vec<_> = wanted.iter().map(|(partition, _)| partition.clone()).collect();
        let encode = |version, wanted: &[(TopicPartition, Option<Vec<i32>>)]| {
            let topics = by_topic(wanted.iter().cloned()).map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(partition, replicas)| {
                    let ids = |ids: Vec<i32>| ids.into_iter().map(BrokerId).collect();
                    ReassignablePartition::default()
                        .with_partition_index(partition)
                        .with_replicas(replicas.map(ids))
                });
                ReassignableTopic::default().with_name(TopicName(topic)).with_partitions(partitions.collect())
            });
            let request = AlterPartitionReassignmentsRequest::default()
                .with_topics(topics.collect())
                .with_allow_replication_factor_change(may_change || version < 1)
                .with_timeout_ms(self.timeout_ms());
            codec::encode_request(version, &request)
        };
        let how = How { already: CANCELLED, ..How::controller() };
        let told = self
            .attempts()
            .ask_each::<AlterPartitionReassignmentsRequest, _, _, _>(&how, wanted, encode, |response| {
                verdict(response.error_code, response.error_message.as_ref())?;
                let told = response.responses.into_iter().flat_map(|topic| {
                    topic.partitions.into_iter().map(move |partition| {
                        let name = TopicPartition::new(topic.name.as_str(), partition.partition_index);
                        (name, verdict(partition.error_code, partition.error_message.as_ref()))
                    })
                });
                Ok(told.collect())
            })
            .await?;
        Ok(Results::in_order(partitions, &told))
    }

    /// All reassignments under way.
    ///
    /// ListPartitionReassignments, api key 46, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time, or the broker refuses.
    pub async fn list_reassignments(&self) -> Result<Vec<ReassignmentUnderWay>, AdminError> {
        self.reassignments_under_way(None).await
    }

    /// Those of the reassignments under way that move these partitions.
    ///
    /// # Errors
    ///
    /// As [`list_reassignments`](Self::list_reassignments).
    pub async fn list_reassignments_of<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<Vec<ReassignmentUnderWay>, AdminError> {
        let topics = by_topic(partitions.into_iter().map(|partition| (partition.into(), ())));
        let topics = topics.map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(partition, ())| partition).collect();
            ListPartitionReassignmentsTopics::default()
                .with_name(TopicName(topic))
                .with_partition_indexes(partitions)
        });
        let topics: Vec<_> = topics.collect();
        match topics.is_empty() {
            true => Ok(Vec::new()),
            false => self.reassignments_under_way(Some(topics)).await,
        }
    }

    async fn reassignments_under_way(
        &self,
        topics: Option<Vec<ListPartitionReassignmentsTopics>>,
    ) -> Result<Vec<ReassignmentUnderWay>, AdminError> {
        let request = ListPartitionReassignmentsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(self.timeout_ms());
        let encode = |version| codec::encode_request(version, &request);
        let answer = self
            .attempts()
            .ask_whole::<ListPartitionReassignmentsRequest>(&How::controller(), &encode, |answer| {
                verdict(answer.error_code, answer.error_message.as_ref())
            })
            .await?;
        let ids = |ids: Vec<BrokerId>| ids.into_iter().map(|id| id.0).collect();
        let mut under_way: Vec<_> = (answer.topics.into_iter())
            .flat_map(|topic| {
                topic.partitions.into_iter().map(move |partition| ReassignmentUnderWay {
                    partition: TopicPartition::new(topic.name.as_str(), partition.partition_index),
                    replicas: ids(partition.replicas),
                    adding: ids(partition.adding_replicas),
                    removing: ids(partition.removing_replicas),
                })
            })
            .collect();
        under_way.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(under_way)
    }
}
