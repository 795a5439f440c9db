//! AlterPartition (56): a leader changes its ISR by compare-and-set (KIP-497, KIP-903).

use klamm_wire::ErrorCode;
use klamm_wire::messages::alter_partition_request::{BrokerState, PartitionData};
use klamm_wire::messages::alter_partition_response as answer;
use klamm_wire::messages::{AlterPartitionRequest, AlterPartitionResponse, BrokerId};
use klamm_wire::planted::{Bug, planted};
use uuid::Uuid;

use super::{Controller, Outcome, election};
use crate::metadata::{LeaderRecoveryState, PartitionRegistration};

impl Controller {
    /// AlterPartition (56), versions 2 and 3.
    ///
    /// Every partition stands alone: one that is refused does not hold back the others. The answer
    /// shows the registration after the change, or a code:
    ///
    /// * `NOT_CONTROLLER`: the leader knows a later epoch than this controller.
    /// * `FENCED_LEADER_EPOCH`, `INVALID_REQUEST`: it does not lead any more, or never did.
    /// * `INVALID_UPDATE_VERSION`: the registration has changed; read it, then ask again.
    /// * `NEW_LEADER_ELECTED`: it is carried out, and has completed a reassignment by which another broker leads.
    /// * `INELIGIBLE_REPLICA`: a member is fenced, shutting down, or has restarted since it caught up. The partition epoch
    ///   is raised by it, which Kafka does not do: the leader goes back to the committed ISR, so no other copy of its
    ///   request, sent before a connection broke, may be carried out once the member is back.
    pub fn alter_partition(&mut self, request: &AlterPartitionRequest) -> Outcome<AlterPartitionResponse> {
        let response = AlterPartitionResponse::default();
        if let Err(code) = self.check_epoch(request.broker_id.0, request.broker_epoch) {
            return self.outcome(response.with_error_code(code.0));
        }
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = answer::PartitionData::default().with_partition_index(partition.partition_index);
                match self.alter_one(request.broker_id.0, topic.topic_id, partition) {
                    Ok(now) => show(index, &now),
                    Err(code) => index.with_error_code(code.0),
                }
            });
            let partitions = partitions.collect();
            topics
                .push(answer::TopicData::default().with_topic_id(topic.topic_id).with_partitions(partitions));
        }
        self.outcome(response.with_topics(topics))
    }

    fn alter_one(
        &mut self,
        broker: i32,
        topic_id: Uuid,
        asked: &PartitionData,
    ) -> Result<PartitionRegistration, ErrorCode> {
        let topic = self.image.topic_by_id(topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        let current = topic.partitions.get(&asked.partition_index);
        let current = current.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let isr = members(asked);
        let recovery = check(broker, current, asked, &isr)?;
        if isr.iter().any(|member| !self.is_eligible(member)) {
            if !planted(Bug::RefusedProposalStands) {
                self.emit(election::touch(topic_id, asked.partition_index));
            }
            return Err(ErrorCode::INELIGIBLE_REPLICA);
        }
        self.reconsider(topic_id, asked.partition_index, |proposal| {
            proposal.isr = isr.iter().map(|member| member.broker_id.0).collect();
            proposal.recovery = recovery;
        });
        let now = self.image.partition(topic_id, asked.partition_index);
        let now = now.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        // the change has completed a reassignment that takes the leader away
        if now.leader == Some(broker) { Ok(now.clone()) } else { Err(ErrorCode::NEW_LEADER_ELECTED) }
    }

    /// Whether a replica may be in sync: alive, staying, and the process the leader has seen catch up.
    fn is_eligible(&self, member: &BrokerState) -> bool {
        let broker = self.image.broker(member.broker_id.0).filter(|broker| broker.is_active());
        broker.is_some_and(|broker| member.broker_epoch == -1 || member.broker_epoch == broker.epoch)
    }
}

/// The ISR asked for; version 2 tells no broker epochs.
fn members(asked: &PartitionData) -> Vec<BrokerState> {
    if asked.new_isr_with_epochs.is_empty() {
        let without_epoch = |id: &BrokerId| BrokerState::default().with_broker_id(*id).with_broker_epoch(-1);
        return asked.new_isr.iter().map(without_epoch).collect();
    }
    asked.new_isr_with_epochs.clone()
}

fn check(
    broker: i32,
    current: &PartitionRegistration,
    asked: &PartitionData,
    isr: &[BrokerState],
) -> Result<LeaderRecoveryState, ErrorCode> {
    if asked.leader_epoch > current.leader_epoch || asked.partition_epoch > current.partition_epoch {
        return Err(ErrorCode::NOT_CONTROLLER);
    }
    if asked.leader_epoch < current.leader_epoch {
        return Err(ErrorCode::FENCED_LEADER_EPOCH);
    }
    if current.leader != Some(broker) {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    if asked.partition_epoch < current.partition_epoch && !planted(Bug::NoCompareAndSet) {
        return Err(ErrorCode::INVALID_UPDATE_VERSION);
    }
    let ids: Vec<i32> = isr.iter().map(|member| member.broker_id.0).collect();
    let once = |id: &i32| ids.iter().filter(|other| *other == id).count() == 1;
    let valid = ids.iter().all(|id| current.replicas.contains(id) && once(id)) && ids.contains(&broker);
    let recovery = LeaderRecoveryState::from_code(asked.leader_recovery_state);
    match (current.leader_recovery_state, recovery) {
        (_, Some(LeaderRecoveryState::Recovered)) if valid => Ok(LeaderRecoveryState::Recovered),
        // nobody can be in sync with a leader that does not know yet what it has
        (LeaderRecoveryState::Recovering, Some(recovery)) if valid && ids.len() == 1 => Ok(recovery),
        _ => Err(ErrorCode::INVALID_REQUEST),
    }
}

fn show(answer: answer::PartitionData, now: &PartitionRegistration) -> answer::PartitionData {
    answer
        .with_leader_id(BrokerId(now.leader.unwrap_or(-1)))
        .with_leader_epoch(now.leader_epoch)
        .with_isr(now.isr.iter().copied().map(BrokerId).collect())
        .with_leader_recovery_state(now.leader_recovery_state.code())
        .with_partition_epoch(now.partition_epoch)
}
