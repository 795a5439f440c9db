//! More partitions, and who leads them.

use std::collections::BTreeMap;

use klamm_core::TopicPartition;
use klamm_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use klamm_wire::messages::elect_leaders_request::TopicPartitions;
use klamm_wire::messages::{
    BrokerId, CreatePartitionsRequest, ElectLeadersRequest, ElectLeadersResponse, TopicName,
};
use klamm_wire::{ErrorCode, codec};

use super::Admin;
use super::call::{How, Verdict, by_topic, verdict};
use super::error::AdminError;
use super::results::{PartitionResults, Results, TopicResults};
use super::topics::topic_name;

/// A topic that shall have more partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartitions {
    topic: String,
    count: i32,
    placed: Vec<Vec<i32>>,
}

impl NewPartitions {
    /// The topic shall have `count` partitions altogether.
    pub fn new(topic: impl Into<String>, count: i32) -> Self {
        Self { topic: topic.into(), count, placed: Vec::new() }
    }

    /// Places the next new partition on these brokers, the preferred leader first. If one is placed by hand, all new
    /// ones must be.
    #[must_use]
    pub fn place(mut self, brokers: impl IntoIterator<Item = i32>) -> Self {
        self.placed.push(brokers.into_iter().collect());
        self
    }

    fn request(&self) -> CreatePartitionsTopic {
        let place = |brokers: &Vec<i32>| {
            let brokers = brokers.iter().map(|id| BrokerId(*id)).collect();
            CreatePartitionsAssignment::default().with_broker_ids(brokers)
        };
        let placed = (!self.placed.is_empty()).then(|| self.placed.iter().map(place).collect());
        CreatePartitionsTopic::default()
            .with_name(topic_name(&self.topic))
            .with_count(self.count)
            .with_assignments(placed)
    }
}

/// Who may be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// Any live replica, if none is in sync. **Loses every record that it does not have.**
    Unclean,
}

/// What an election came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Elected {
    /// The partition has another leader.
    NewLeader,
    /// It has the leader it should have; nothing was done.
    NotNeeded,
}

impl Admin {
    /// Adds partitions to topics. Records with a key go to other partitions from then on. Returns when the controller
    /// has made them; some brokers may learn of them a little later.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::NewPartitions;
    ///
    /// admin.create_partitions([NewPartitions::new("orders", 60)]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// CreatePartitions, api key 37, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. A topic that has as many partitions already, or more, is
    /// an error in the results (INVALID_PARTITIONS); with `maybe_done` it may have them by this very call.
    pub async fn create_partitions(
        &self,
        topics: impl IntoIterator<Item = NewPartitions>,
    ) -> Result<TopicResults<()>, AdminError> {
        let wanted: Vec<_> = topics.into_iter().map(|topic| (topic.topic.clone(), topic)).collect();
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        let how = How { already: &[ErrorCode::INVALID_PARTITIONS], ..How::controller() };
        let encode = |version, topics: &[(String, NewPartitions)]| {
            let request = CreatePartitionsRequest::default()
                .with_topics(topics.iter().map(|(_, topic)| topic.request()).collect())
                .with_validate_only(self.validate_only)
                .with_timeout_ms(self.timeout_ms());
            codec::encode_request(version, &request)
        };
        let told = self
            .attempts()
            .ask_each::<CreatePartitionsRequest, _, _, _>(&how, wanted, encode, |response| {
                let grown = response.results.into_iter().map(|topic| {
                    let verdict = verdict(topic.error_code, topic.error_message.as_ref());
                    (topic.name.as_str().to_owned(), verdict)
                });
                Ok(grown.collect())
            })
            .await?;
        Ok(Results::in_order(names, &told))
    }

    /// Has leaders elected for these partitions. That a partition needs no election is no error.
    ///
    /// ElectLeaders, api key 43, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. Where nobody can be elected, that is an error in the
    /// results.
    pub async fn elect_leaders<P: Into<TopicPartition>>(
        &self,
        election: Election,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<PartitionResults<Elected>, AdminError> {
        let partitions: Vec<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), ())).collect();
        let encode = |version, partitions: &[(TopicPartition, ())]| {
            let topics = by_topic(partitions.iter().cloned()).map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(partition, ())| partition).collect();
                TopicPartitions::default().with_topic(TopicName(topic)).with_partitions(partitions)
            });
            codec::encode_request(version, &self.election(election, Some(topics.collect())))
        };
        let told = self
            .attempts()
            .ask_each::<ElectLeadersRequest, _, _, _>(&How::controller(), wanted, encode, |response| {
                verdict(response.error_code, None).map(|()| elected(response).collect())
            })
            .await?;
        Ok(Results::in_order(partitions, &told))
    }

    /// Has leaders elected for all partitions that need it, and tells of those.
    ///
    /// ElectLeaders, api key 43, to the controller.
    ///
    /// # Errors
    ///
    /// As [`elect_leaders`](Self::elect_leaders).
    pub async fn elect_all_leaders(
        &self,
        election: Election,
    ) -> Result<PartitionResults<Elected>, AdminError> {
        let request = self.election(election, None);
        let encode = |version| codec::encode_request(version, &request);
        let answer = self
            .attempts()
            .ask_whole::<ElectLeadersRequest>(&How::controller(), &encode, |answer| {
                verdict(answer.error_code, None)
            })
            .await?;
        let told: BTreeMap<_, _> = elected(answer).collect(); // in the order of their names
        Ok(Results::in_each(told))
    }

    fn election(&self, election: Election, topics: Option<Vec<TopicPartitions>>) -> ElectLeadersRequest {
        ElectLeadersRequest::default()
            .with_election_type(match election {
                Election::Preferred => 0,
                Election::Unclean => 1,
            })
            .with_topic_partitions(topics)
            .with_timeout_ms(self.timeout_ms())
    }
}

fn elected(response: ElectLeadersResponse) -> impl Iterator<Item = (TopicPartition, Verdict<Elected>)> {
    response.replica_election_results.into_iter().flat_map(|topic| {
        topic.partition_result.into_iter().map(move |result| {
            let partition = TopicPartition::new(topic.topic.as_str(), result.partition_id);
            let verdict = match ErrorCode(result.error_code) {
                ErrorCode::ELECTION_NOT_NEEDED => Ok(Elected::NotNeeded),
                _ => verdict(result.error_code, result.error_message.as_ref()).map(|()| Elected::NewLeader),
            };
            (partition, verdict)
        })
    })
}
