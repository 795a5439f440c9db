//! ElectLeaders (43): preferred and unclean elections that an operator asks for.

use klamm_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use klamm_wire::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use klamm_wire::{ErrorCode, StrBytes};

use super::{Controller, Outcome, Refusal};

/// Which leader is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first replica, if it is in sync.
    Preferred,
    /// Anyone, if nobody leads.
    Unclean,
}

impl Kind {
    fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Preferred),
            1 => Some(Self::Unclean),
            _ => None,
        }
    }
}

impl Controller {
    /// ElectLeaders (43), versions 0 to 2. Every partition stands alone; without a list all are meant, and those that
    /// need no election are left out of the answer.
    ///
    /// * `ELECTION_NOT_NEEDED`: the preferred replica leads, or for an unclean election, anybody does.
    /// * `PREFERRED_LEADER_NOT_AVAILABLE`: it is not in sync, or not alive.
    /// * `ELIGIBLE_LEADERS_NOT_AVAILABLE`: no replica is alive.
    pub fn elect_leaders(&mut self, request: &ElectLeadersRequest) -> Outcome<ElectLeadersResponse> {
        let kind = Kind::from_code(request.election_type);
        let asked: Vec<(TopicName, Vec<i32>)> = match &request.topic_partitions {
            Some(topics) => {
                topics.iter().map(|topic| (topic.topic.clone(), topic.partitions.clone())).collect()
            }
            None if kind.is_none() => Vec::new(),
            None => self.every_partition(),
        };
        let everything = request.topic_partitions.is_none();
        let mut response = ElectLeadersResponse::default();
        if kind.is_none() {
            response.error_code = ErrorCode::INVALID_REQUEST.0;
        }
        for (topic, partitions) in asked {
            let mut results = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let done = match kind {
                    Some(kind) => self.elect_one(&topic, partition, kind),
                    None => Err(unknown_kind(request.election_type)),
                };
                let result = PartitionResult::default().with_partition_id(partition);
                match done {
                    Ok(()) => results.push(result.with_error_message(None)),
                    Err(Refusal(ErrorCode::ELECTION_NOT_NEEDED, _)) if everything => {}
                    Err(refusal) => results
                        .push(result.with_error_code(refusal.0.0).with_error_message(refusal.message())),
                }
            }
            let result = ReplicaElectionResult::default().with_topic(topic).with_partition_result(results);
            response.replica_election_results.push(result);
        }
        self.outcome(response)
    }

    fn every_partition(&self) -> Vec<(TopicName, Vec<i32>)> {
        let name = |name: &str| TopicName(StrBytes::from_string(name.to_owned()));
        let topics = self.image.topics();
        topics.map(|topic| (name(&topic.name), topic.partitions.keys().copied().collect())).collect()
    }

    fn elect_one(&mut self, topic: &str, number: i32, kind: Kind) -> Result<(), Refusal> {
        let unknown = |reason| Refusal(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, reason);
        let topic = self.image.topic(topic).ok_or_else(|| unknown(format!("no topic {topic}")))?;
        let partition = topic.partitions.get(&number);
        let partition = partition.ok_or_else(|| unknown(format!("no partition {}-{number}", topic.name)))?;
        let settled = match kind {
            Kind::Preferred => {
                partition.leader.is_some() && partition.leader == partition.replicas.first().copied()
            }
            Kind::Unclean => partition.leader.is_some(),
        };
        if settled {
            let reason = "the partition has the leader that is asked for";
            return Err(Refusal::new(ErrorCode::ELECTION_NOT_NEEDED, reason));
        }
        let changed = self.reconsider(topic.id, number, |proposal| {
            proposal.preferred = kind == Kind::Preferred;
            proposal.unclean_allowed = kind == Kind::Unclean;
        });
        match kind {
            _ if changed => Ok(()),
            Kind::Preferred => Err(Refusal::new(
                ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
                "the preferred replica is not in sync, or not alive",
            )),
            Kind::Unclean => {
                Err(Refusal::new(ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE, "no replica is alive"))
            }
        }
    }
}

fn unknown_kind(code: i8) -> Refusal {
    Refusal(
        ErrorCode::INVALID_REQUEST,
        format!("election type {code}; there are 0, preferred, and 1, unclean"),
    )
}
