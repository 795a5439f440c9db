//! A replica with a clock and a list of effects.

use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;
use uuid::Uuid;

use crate::Tick;
use crate::metadata::{LeaderRecoveryState, PartitionRegistration};
use crate::replica::*;
use crate::storage::{Checkpoint, MemoryStorage, Storage, StorageError};

pub(super) const S: Tick = Tick::from_secs(1);
pub(super) const WALL_MS: i64 = 1_700_000_000_000;

pub(super) fn identity(broker_id: i32) -> ReplicaIdentity {
    ReplicaIdentity { topic_id: Uuid::from_u128(9), topic: Arc::from("t"), partition: 0, broker_id }
}

/// 10 s until a follower lags.
pub(super) fn settings(min_insync_replicas: usize) -> ReplicaSettings {
    ReplicaSettings { replica_lag_time_max: 10 * S, min_insync_replicas, ..ReplicaSettings::default() }
}

/// All replicas in sync.
pub(super) fn registration(
    replicas: &[i32],
    leader: Option<i32>,
    leader_epoch: i32,
    partition_epoch: i32,
) -> PartitionRegistration {
    PartitionRegistration {
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
        leader,
        leader_epoch,
        partition_epoch,
        ..PartitionRegistration::default()
    }
}

/// Broker N has epoch 100 + N.
pub(super) fn alive(id: i32) -> Option<i64> {
    Some(100 + i64::from(id))
}

pub(super) fn alter(proposal: u64, leader_epoch: i32, partition_epoch: i32, isr: &[(i32, i64)]) -> Effect {
    Effect::AlterPartition(AlterPartition {
        proposal,
        topic_id: Uuid::from_u128(9),
        partition: 0,
        leader_epoch,
        partition_epoch,
        isr: isr.iter().map(|&(broker_id, broker_epoch)| IsrMember { broker_id, broker_epoch }).collect(),
        leader_recovery_state: LeaderRecoveryState::Recovered,
    })
}

pub(super) fn altered(leader_epoch: i32, partition_epoch: i32, isr: &[i32]) -> AlteredPartition {
    AlteredPartition {
        leader: Some(1),
        leader_epoch,
        isr: isr.to_vec(),
        leader_recovery_state: LeaderRecoveryState::Recovered,
        partition_epoch,
    }
}

pub(super) fn fetch_as(fetcher: Fetcher, offset: i64) -> FetchFrom {
    FetchFrom {
        fetcher,
        offset,
        last_fetched_epoch: None,
        current_leader_epoch: None,
        max_bytes: 1 << 20,
        min_one: true,
    }
}

pub(super) struct Sut {
    pub(super) replica: Replica<MemoryStorage>,
    pub(super) now: Tick,
    pub(super) fx: Vec<Effect>,
}

impl Sut {
    pub(super) fn new(broker: i32, settings: ReplicaSettings) -> Self {
        Self::on(broker, settings, MemoryStorage::new())
    }

    pub(super) fn on(broker: i32, settings: ReplicaSettings, storage: MemoryStorage) -> Self {
        let replica = Replica::new(identity(broker), storage, settings).unwrap();
        Self { replica, now: Tick::ZERO, fx: Vec::new() }
    }

    pub(super) fn with(mut self, registration: &PartitionRegistration) -> Self {
        self.apply(registration);
        self.fx.clear();
        self
    }

    pub(super) fn apply(&mut self, registration: &PartitionRegistration) {
        self.replica.apply_metadata(self.now, registration, &alive, &mut self.fx);
    }

    pub(super) fn append(&mut self, records: &Bytes, acks: i16) -> Result<Appended, AppendError> {
        let produce = Produce { records: records.clone(), acks, api_version: 9 };
        self.replica.append(self.now, WALL_MS, &produce, &mut self.fx)
    }

    pub(super) fn read(&mut self, from: &FetchFrom) -> Result<Fetched, ErrorCode> {
        self.replica.read(self.now, from, &mut self.fx)
    }

    /// A fetch of a follower that has everything before `offset`.
    pub(super) fn fetched_by(&mut self, id: i32, offset: i64) -> Result<Fetched, ErrorCode> {
        let epoch = 100 + i64::from(id);
        self.read(&fetch_as(Fetcher::Replica { id, epoch, log_start_offset: 0 }, offset))
    }

    /// Fetches from `leader` and takes the answer.
    pub(super) fn fetch(&mut self, leader: &mut Self) -> Result<(), ErrorCode> {
        let id = self.replica.identity().broker_id;
        let position = self.replica.fetch_position().unwrap();
        let epoch = 100 + i64::from(id);
        let from = FetchFrom {
            last_fetched_epoch: Some(position.last_fetched_epoch),
            current_leader_epoch: Some(position.current_leader_epoch),
            ..fetch_as(Fetcher::Replica { id, epoch, log_start_offset: 0 }, position.offset)
        };
        let fetched = leader.read(&from)?;
        let leader_epoch = position.current_leader_epoch;
        if let Some(diverging) = fetched.diverging {
            return self.replica.truncate(self.now, leader_epoch, diverging, &mut self.fx);
        }
        self.follow(&FetchedFromLeader {
            leader_epoch,
            records: fetched.records.concat().into(),
            high_watermark: fetched.high_watermark,
            log_start_offset: fetched.log_start_offset,
        })
    }

    pub(super) fn follow(&mut self, fetched: &FetchedFromLeader) -> Result<(), ErrorCode> {
        self.replica.append_fetched(self.now, fetched, &mut self.fx)
    }

    pub(super) fn pass(&mut self, now: Tick) {
        self.now = now;
        self.replica.on_deadline(now, &mut self.fx);
    }

    pub(super) fn answer(&mut self, proposal: u64, answer: Result<AlteredPartition, ErrorCode>) {
        self.replica.alter_partition_answered(self.now, proposal, answer, &mut self.fx);
    }

    /// The effects since the last call.
    pub(super) fn fx(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.fx)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let storage = self.replica.log().storage();
        let mut out = Vec::new();
        storage.read(storage.start(), (storage.end() - storage.start()) as usize, &mut out).unwrap();
        out.concat()
    }
}

/// Brokers 1 and 2, both in sync, 1 leads in epoch 0.
pub(super) fn pair(settings: ReplicaSettings) -> (Sut, Sut) {
    let state = registration(&[1, 2], Some(1), 0, 0);
    (Sut::new(1, settings.clone()).with(&state), Sut::new(2, settings).with(&state))
}

/// Storage on a medium that takes no write.
#[derive(Debug, Default)]
pub(super) struct Broken(MemoryStorage);

impl Storage for Broken {
    fn start(&self) -> u64 {
        self.0.start()
    }
    fn end(&self) -> u64 {
        self.0.end()
    }
    fn synced(&self) -> u64 {
        self.0.synced()
    }
    fn append(&mut self, _chunks: &[Bytes]) -> Result<u64, StorageError> {
        Err(StorageError::Failed("no space left".into()))
    }
    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        self.0.read(position, len, out)
    }
    fn read_exact(&self, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.0.read_exact(position, buf)
    }
    fn truncate_to(&mut self, position: u64) -> Result<(), StorageError> {
        self.0.truncate_to(position)
    }
    fn truncate_prefix(&mut self, position: u64) -> Result<(), StorageError> {
        self.0.truncate_prefix(position)
    }
    fn mark_synced(&mut self, position: u64) {
        self.0.mark_synced(position);
    }
    fn checkpoint(&self) -> Checkpoint {
        self.0.checkpoint()
    }
    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.0.set_checkpoint(checkpoint)
    }
}
