//! Errands of leaders: proposals of a new ISR to the controller, and the time after which a slow
//! follower is dropped from it.
//!
//! Invariant: one AlterPartition request is under way at a time; what is proposed meanwhile goes
//! into the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_lite_core::metadata::LeaderRecoveryState;
use broker_lite_core::replica::{AlterPartition, AlteredPartition};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_wire::messages::{AlterPartitionRequest, AlterPartitionResponse, BrokerId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Broker, GivenUp, Partition};
use crate::rt::Tick;

const ALTER_PARTITION_VERSION: i16 = 3;
/// Pause after a request that got no answer from the controller.
const PAUSE: Duration = Duration::from_millis(20);

/// Proposals that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct IsrKeeper {
    waiting: Mutex<Vec<(Arc<Partition>, AlterPartition)>>,
    proposed: Notify,
    /// What [`watch_deadlines`] sleeps until, in ns; `u64::MAX` for ever.
    armed_ns: AtomicU64,
    deadline_changed: Notify,
}

/// A deadline as [`IsrKeeper::armed_ns`] holds it.
fn nanos(deadline: Option<Tick>) -> u64 {
    deadline.map_or(u64::MAX, |at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX))
}

impl IsrKeeper {
    /// Takes one proposal; its answer goes to the replica. One of the same partition that still waits is void: asked for
    /// together, the answer to it would be taken for the answer to both.
    pub(crate) fn propose(&self, partition: Arc<Partition>, proposal: AlterPartition) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|(other, _)| !Arc::ptr_eq(other, &partition));
        waiting.push((partition, proposal));
        drop(waiting);
        self.proposed.notify_one();
    }

    /// Takes the deadline of a replica that has changed.
    pub(crate) fn deadline(&self, deadline: Option<Tick>) {
        if nanos(deadline) < self.armed_ns.load(Ordering::SeqCst) {
            self.deadline_changed.notify_one();
        }
    }
}

/// Runs due deadlines of all replicas.
pub(crate) async fn watch_deadlines(broker: Arc<Broker>) {
    let first = || {
        let partitions = broker.partitions();
        let deadlines =
            partitions.iter().filter_map(|partition| partition.look(|replica| replica.deadline()).flatten());
        deadlines.min()
    };
    loop {
        let next = first();
        broker.isr.armed_ns.store(nanos(next), Ordering::SeqCst);
        // What changed before the store has compared itself with an older value: look once more.
        if nanos(first()) < nanos(next) {
            continue;
        }
        tokio::select! {
            biased;
            () = broker.isr.deadline_changed.notified() => continue,
            () = broker.rt.sleep_until_some(next) => {}
        }
        let now = broker.rt.now();
        for partition in broker.partitions() {
            let due = partition.look(|replica| replica.deadline()).flatten().is_some_and(|at| at <= now);
            if due {
                partition.with(&broker, |replica, fx| replica.on_deadline(now, fx));
            }
        }
    }
}

/// Sends proposals to the controller and its answers to the replicas.
pub(crate) async fn send_proposals(broker: Arc<Broker>) {
    loop {
        broker.isr.proposed.notified().await;
        loop {
            let batch = std::mem::take(&mut *broker.isr.waiting.lock());
            if batch.is_empty() {
                break;
            }
            match ask(&broker, &batch).await {
                Ok(response) => hand_out(&broker, &batch, &response),
                Err(cause) => {
                    tracing::debug!(broker = broker.id(), cause, "no answer to AlterPartition");
                    broker.rt.sleep(PAUSE).await;
                    let lost = |(partition, proposal): &(Arc<Partition>, AlterPartition)| {
                        answer(&broker, partition, proposal, Err(ErrorCode::REQUEST_TIMED_OUT));
                    };
                    batch.iter().for_each(lost);
                }
            }
        }
    }
}

async fn ask(
    broker: &Broker,
    batch: &[(Arc<Partition>, AlterPartition)],
) -> Result<AlterPartitionResponse, String> {
    let request = AlterPartitionRequest::default()
        .with_broker_id(BrokerId(broker.id()))
        .with_broker_epoch(broker.registration().epoch)
        .with_topics(batch.iter().map(|(_, proposal)| topic_data(proposal)).collect());
    let frame = encode_request(ALTER_PARTITION_VERSION, &request).map_err(|e| e.to_string())?;
    let answer =
        broker.ask_controller("isr", GivenUp::WhenDoubted, frame).await.map_err(|e| e.to_string())?;
    decode_response::<AlterPartitionRequest>(answer).map_err(|e| e.to_string())
}

fn topic_data(proposal: &AlterPartition) -> TopicData {
    let member = |member: &broker_lite_core::replica::IsrMember| {
        BrokerState::default()
            .with_broker_id(BrokerId(member.broker_id))
            .with_broker_epoch(member.broker_epoch)
    };
    let partition = PartitionData::default()
        .with_partition_index(proposal.partition)
        .with_leader_epoch(proposal.leader_epoch)
        .with_partition_epoch(proposal.partition_epoch)
        .with_leader_recovery_state(proposal.leader_recovery_state.code())
        .with_new_isr_with_epochs(proposal.isr.iter().map(member).collect());
    TopicData::default().with_topic_id(proposal.topic_id).with_partitions(vec![partition])
}

fn hand_out(broker: &Broker, batch: &[(Arc<Partition>, AlterPartition)], response: &AlterPartitionResponse) {
    for (partition, proposal) in batch {
        let result = match ErrorCode(response.error_code) {
            ErrorCode::NONE => find(response, proposal),
            refused => Err(refused),
        };
        answer(broker, partition, proposal, result);
    }
}

fn find(response: &AlterPartitionResponse, proposal: &AlterPartition) -> Result<AlteredPartition, ErrorCode> {
    let topic = response.topics.iter().filter(|topic| topic.topic_id == proposal.topic_id);
    let mut partitions = topic.flat_map(|topic| &topic.partitions);
    let found = partitions.find(|found| found.partition_index == proposal.partition);
    let found = found.ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
    if found.error_code != 0 {
        return Err(ErrorCode(found.error_code));
    }
    Ok(AlteredPartition {
        leader: Some(found.leader_id.0).filter(|id| *id >= 0),
        leader_epoch: found.leader_epoch,
        isr: found.isr.iter().map(|id| id.0).collect(),
        leader_recovery_state: LeaderRecoveryState::from_code(found.leader_recovery_state)
            .unwrap_or_default(),
        partition_epoch: found.partition_epoch,
    })
}

fn answer(
    broker: &Broker,
    partition: &Arc<Partition>,
    proposal: &AlterPartition,
    result: Result<AlteredPartition, ErrorCode>,
) {
    let now = broker.rt.now();
    partition.with(broker, |replica, fx| {
        replica.alter_partition_answered(now, proposal.proposal, result, fx);
    });
    partition.wake_all();
}
