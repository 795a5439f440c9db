//! A replica with a clock and a list of effects.

use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;
use uuid::Uuid;

use crate::Tick;
use crate::metadata::{LeaderRecoveryState, PartitionRegistration};
use crate::replica::*;
use crate::storage::{Checkpoint, Directory, FileId, MemoryAside, MemoryDirectory, StorageError, Unsynced};

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
    pub(super) replica: Replica<MemoryDirectory>,
    pub(super) now: Tick,
    pub(super) fx: Vec<Effect>,
}

impl Sut {
    pub(super) fn new(broker: i32, settings: ReplicaSettings) -> Self {
        Self::on(broker, settings, MemoryDirectory::new())
    }

    pub(super) fn on(broker: i32, settings: ReplicaSettings, directory: MemoryDirectory) -> Self {
        let replica = Replica::new(identity(broker), directory, settings).unwrap();
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

    pub(super) fn bytes(&mut self) -> Bytes {
        crate::log::content(self.replica.directory_mut()).unwrap()
    }
}

/// Brokers 1 and 2, both in sync, 1 leads in epoch 0.
pub(super) fn pair(settings: ReplicaSettings) -> (Sut, Sut) {
    let state = registration(&[1, 2], Some(1), 0, 0);
    (Sut::new(1, settings.clone()).with(&state), Sut::new(2, settings).with(&state))
}

/// A directory on a medium that has no room for records.
#[derive(Debug, Default)]
pub(super) struct Full(MemoryDirectory);

impl Directory for Full {
    type Aside = MemoryAside;
    fn names(&self) -> Result<Vec<String>, StorageError> {
        self.0.names()
    }
    fn open(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.0.open(name)
    }
    fn create(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.0.create(name)
    }
    fn set_lazy(&mut self, file: FileId, lazy: bool) {
        self.0.set_lazy(file, lazy);
    }
    fn size(&self, file: FileId) -> u64 {
        self.0.size(file)
    }
    fn synced_len(&self, file: FileId) -> u64 {
        self.0.synced_len(file)
    }
    fn append(&mut self, _file: FileId, _chunks: &[Bytes]) -> Result<u64, StorageError> {
        Err(StorageError::Failed("no space left".into()))
    }
    fn read(&self, file: FileId, at: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        self.0.read(file, at, len, out)
    }
    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.0.read_exact(file, position, buf)
    }
    fn aside(&self, file: FileId) -> Result<MemoryAside, StorageError> {
        self.0.aside(file)
    }
    fn take_back(&mut self, file: FileId, aside: MemoryAside) -> Result<(), StorageError> {
        self.0.take_back(file, aside)
    }
    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError> {
        self.0.set_len(file, len)
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        self.0.rename(from, to)
    }
    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        self.0.remove(name)
    }
    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError> {
        self.0.replace_later(name, content)
    }
    fn begin_sync(&mut self) -> Unsynced {
        self.0.begin_sync()
    }
    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        self.0.mark_synced(done)
    }
    fn sync_now(&mut self) -> Result<(), StorageError> {
        self.0.sync_now()
    }
    fn checkpoint(&self) -> Checkpoint {
        self.0.checkpoint()
    }
    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.0.set_checkpoint(checkpoint)
    }
    fn cleaned_until(&self) -> i64 {
        self.0.cleaned_until()
    }
    fn set_cleaned_until(&mut self, offset: i64) {
        self.0.set_cleaned_until(offset);
    }
    fn was_closed(&self) -> bool {
        self.0.was_closed()
    }
    fn keeps_derived(&self) -> bool {
        self.0.keeps_derived()
    }
}
