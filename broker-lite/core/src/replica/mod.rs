//! One replica of one partition: leader or follower, as a pure state machine over a [`Log`].
//!
//! In: metadata from the controller, produce and fetch requests, answers of the leader and the controller, the clock.
//! Out: answers, and [`Effect`]s for the driver. Nothing here waits, locks or reads a clock.
//!
//! ```text
//!            leader == me                    follower fetches ──▶ high watermark = least end of the maximal ISR
//! metadata ──────────────▶ Leader ──────────▶ slow follower   ──▶ AlterPartition without it
//!     │                                       caught up again ──▶ AlterPartition with it
//!     └──leader == other──▶ Follower ──fetch──▶ diverging: truncate by epoch, ask again
//!                                              batches: append as they are
//! ```
//!
//! Invariant: a record below the high watermark is on every member of the committed ISR, so whichever of them leads
//! next has it.

mod check;
mod delete;
mod durable;
mod follow;
mod isr;
mod leader;
mod produce;
mod serve;
mod types;

pub use klamm_wire::batch::TimestampType;
pub use types::{
    AlterPartition, AlteredPartition, AppendError, Appended, Effect, EpochEnd, FetchFrom, FetchPosition,
    Fetched, FetchedFromLeader, Fetcher, FoundOffset, IsrMember, ListedBy, OffsetAt, Produce,
    ReplicaIdentity, ReplicaSettings, Role,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use crate::Tick;
use crate::log::{Damage, Log, LogError};
use crate::metadata::PartitionRegistration;
use crate::storage::{Directory, StorageError};
use durable::Durability;
use leader::Leading;

/// One replica of one partition. See the module.
#[derive(Debug)]
pub struct Replica<D> {
    identity: ReplicaIdentity,
    /// Shared by the partitions of a topic.
    settings: Arc<ReplicaSettings>,
    log: Log<D>,
    recovered_from: Option<Damage>,
    high_watermark: i64,
    /// When the high watermark is written down; `None` if it already is.
    checkpoint_at: Option<Tick>,
    role: Role,
    /// `Some` exactly while the role is leader.
    leading: Option<Leading>,
    leader_epoch: i32,
    partition_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    /// Epochs of the replicas' brokers that may join an ISR.
    alive: BTreeMap<i32, i64>,
    next_proposal: u64,
    failed: bool,
    durability: Durability,
}

impl<D: Directory> Replica<D> {
    /// Opens a replica from what its directory holds: rebuilds epochs, producers and offsets, and cuts a torn or damaged
    /// tail. It is [`Role::Offline`] until metadata comes.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn new(
        identity: ReplicaIdentity,
        directory: D,
        settings: impl Into<Arc<ReplicaSettings>>,
    ) -> Result<Self, StorageError> {
        let settings = settings.into();
        let checkpoint = directory.checkpoint();
        let (log, recovered_from) = Log::open(directory, settings.log.clone())?;
        let high_watermark = checkpoint.high_watermark.clamp(log.start_offset(), log.end_offset());
        // what cannot be read back was checked a moment ago: nothing of it counts
        let durable = match planted(Bug::TrustUnsyncedTail) {
            true => log.end_offset(),
            false => log.synced_offset().unwrap_or(log.start_offset()),
        };
        let durability = Durability::new(durable);
        Ok(Self {
            identity,
            settings,
            log,
            recovered_from,
            high_watermark,
            checkpoint_at: None,
            role: Role::Offline,
            leading: None,
            leader_epoch: -1,
            partition_epoch: -1,
            replicas: Vec::new(),
            isr: Vec::new(),
            alive: BTreeMap::new(),
            next_proposal: 0,
            failed: false,
            durability,
        })
    }

    /// Takes the directory back, as a kill leaves it.
    pub fn into_directory(self) -> D {
        self.log.into_directory()
    }

    /// Which replica this is.
    pub fn identity(&self) -> &ReplicaIdentity {
        &self.identity
    }

    /// The settings in force.
    pub fn settings(&self) -> &ReplicaSettings {
        &self.settings
    }

    /// Takes the partition's state from the metadata.
    ///
    /// Call it when the registration changes, and also when the epoch, the fencing or a controlled shutdown of one of
    /// the replicas' brokers does: `alive` tells the epoch of a broker that may join an ISR, `None` for one that may not.
    pub fn apply_metadata(
        &mut self,
        now: Tick,
        registration: &PartitionRegistration,
        alive: &dyn Fn(i32) -> Option<i64>,
        fx: &mut Vec<Effect>,
    ) {
        let members = registration.replicas.iter();
        self.alive = members.filter_map(|id| alive(*id).map(|epoch| (*id, epoch))).collect();
        let known = (self.leader_epoch, self.partition_epoch);
        // after a restart metadata may be replayed from before what the log has seen
        let seen = self.log.epochs().latest().map_or(known.0, |epoch| epoch.max(known.0));
        if registration.leader_epoch < seen || registration.partition_epoch < known.1 || self.failed {
            self.advance_high_watermark(now, fx);
            return;
        }
        if registration.partition_epoch > known.1 {
            self.partition_epoch = registration.partition_epoch;
            self.replicas.clone_from(&registration.replicas);
            self.isr.clone_from(&registration.isr);
            if let Some(leading) = &mut self.leading {
                leading.proposal = None;
            }
        }
        let new_epoch = registration.leader_epoch > known.0;
        if registration.leader_epoch > known.0.saturating_add(1) {
            // somebody else may have led in the epochs between: what was known of followers is void
            self.leading = None;
        }
        self.leader_epoch = registration.leader_epoch;
        self.take_role(now, registration, new_epoch, fx);
        self.sync_if_due(fx);
        self.advance_high_watermark(now, fx);
    }

    fn take_role(
        &mut self,
        now: Tick,
        registration: &PartitionRegistration,
        new_epoch: bool,
        fx: &mut Vec<Effect>,
    ) {
        let me = self.identity.broker_id;
        let leader_epoch = self.leader_epoch;
        let held = self.replicas.contains(&me);
        let role = match registration.leader {
            Some(leader) if held && leader == me => Role::Leader { leader_epoch },
            Some(leader) if held => Role::Follower { leader, leader_epoch },
            _ => Role::Offline,
        };
        if let Role::Leader { .. } = role {
            self.lead(now, new_epoch);
            if new_epoch && planted(Bug::ForgetProducers) {
                self.log.expire_producers(i64::MAX);
            }
        } else {
            self.leading = None;
        }
        if new_epoch && matches!(role, Role::Follower { .. }) && planted(Bug::TruncateToHighWatermark) {
            let cut = self.log.truncate_to(self.high_watermark);
            if cut.is_ok_and(|cut| cut) {
                fx.push(Effect::Truncated(self.log.end_offset()));
                self.cut(fx);
            }
        }
        if role != self.role {
            self.role = role;
            fx.push(Effect::RoleChanged(role));
        }
    }

    /// Begins or goes on leading. The high watermark stays where it is until the followers report.
    fn lead(&mut self, now: Tick, new_epoch: bool) {
        let end = self.log.end_offset();
        let begins = self.leading.is_none();
        let mut leading = self.leading.take().unwrap_or_else(|| Leading::new(self.leader_epoch, end));
        leading.followers.retain(|id, _| self.replicas.contains(id));
        if new_epoch || begins {
            leading.epoch_start = end;
            self.log.begin_epoch(self.leader_epoch);
        }
        for id in self.replicas.iter().filter(|id| **id != self.identity.broker_id) {
            let joined = !leading.followers.contains_key(id);
            let follower = leading.followers.entry(*id).or_default();
            if new_epoch || begins || joined {
                follower.begin(now, self.isr.contains(id), end, !begins && !joined);
            }
        }
        self.leading = Some(leading);
    }

    /// When [`Self::on_deadline`] wants to run; may lie in the past.
    pub fn deadline(&self) -> Option<Tick> {
        [self.checkpoint_at, self.leader_deadline(), self.flush_deadline()].into_iter().flatten().min()
    }

    /// Does whatever is due at `now`.
    pub fn on_deadline(&mut self, now: Tick, fx: &mut Vec<Effect>) {
        if self.checkpoint_at.is_some_and(|at| at <= now)
            && let Err(error) = self.checkpoint()
        {
            self.fail(&error, fx);
        }
        self.flush_on_deadline(now, fx);
        self.leader_on_deadline(now, fx);
    }

    /// What this replica does at the moment.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Epoch of the latest leadership known; -1 before any metadata.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Version of the registration this replica acts on; -1 before any metadata.
    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// Committed ISR, as far as known here.
    pub fn isr(&self) -> &[i32] {
        &self.isr
    }

    /// Everything before this offset is committed.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Offset of the next record.
    pub fn log_end_offset(&self) -> i64 {
        self.log.end_offset()
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> i64 {
        self.log.start_offset()
    }

    /// The log, to look into: its batches, its epochs, [`Log::verify`].
    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    /// What was wrong with the tail that was cut off when the replica was opened.
    pub fn recovered_from(&self) -> Option<&Damage> {
        self.recovered_from.as_ref()
    }

    /// Forgets idempotent producers that wrote nothing since `before_ms` (`producer.id.expiration.ms`).
    pub fn expire_producers(&mut self, before_ms: i64) {
        self.log.expire_producers(before_ms);
    }

    /// Completes the files beside the log and remembers the offsets, before a shutdown in order. Everything must be made
    /// durable after that.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.log.close()?;
        self.checkpoint()
    }

    /// Remembers high watermark, log start and what is durable now. With `flush.messages` = 1 the high watermark is
    /// remembered only as far as this replica's own log is durable: a loss of power may bring back what a truncation has
    /// taken, and that must not pass for committed.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn checkpoint(&mut self) -> Result<(), StorageError> {
        self.checkpoint_at = None;
        self.log.checkpoint(self.high_watermark.min(self.durable_end()))
    }

    /// The directory, for faults.
    pub fn directory_mut(&mut self) -> &mut D {
        self.log.directory_mut()
    }

    /// Moves the high watermark up, never down.
    fn raise_high_watermark(&mut self, now: Tick, to: i64, fx: &mut Vec<Effect>) {
        let to = to.min(self.log.end_offset());
        if to > self.high_watermark {
            self.high_watermark = to;
            self.checkpoint_at
                .get_or_insert(now.saturating_add(self.settings.high_watermark_checkpoint_interval));
            fx.push(Effect::HighWatermark(to));
        }
    }

    /// Takes the replica offline for good: a failed write says nothing about what is on the medium.
    fn fail(&mut self, error: &StorageError, fx: &mut Vec<Effect>) {
        self.failed = true;
        self.leading = None;
        self.checkpoint_at = None;
        self.stop_syncing();
        fx.push(Effect::StorageFailed(error.to_string()));
        if self.role != Role::Offline {
            self.role = Role::Offline;
            fx.push(Effect::RoleChanged(Role::Offline));
        }
    }

    /// Kafka's code for a log that cannot be written.
    fn write_failed(&mut self, error: LogError, fx: &mut Vec<Effect>) -> ErrorCode {
        match error {
            LogError::Storage(error) => {
                self.fail(&error, fx);
                ErrorCode::KAFKA_STORAGE_ERROR
            }
            error => read_failed(&error),
        }
    }

    /// Whether a request that knows `current` may be served here (KIP-320).
    fn check_leader_epoch(&self, current: Option<i32>) -> Result<(), ErrorCode> {
        match current {
            _ if self.failed => Err(ErrorCode::KAFKA_STORAGE_ERROR),
            _ if planted(Bug::NoEpochCheck) => Ok(()),
            // -1 is none
            Some(current) if current != -1 && current < self.leader_epoch => {
                Err(ErrorCode::FENCED_LEADER_EPOCH)
            }
            Some(current) if current > self.leader_epoch => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }

    /// Whether the leadership of `leader_epoch` goes on without a break.
    fn check_still_leading(&self, leader_epoch: i32) -> Result<&Leading, ErrorCode> {
        if self.failed {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let leading = self.check_leader()?;
        if leader_epoch < leading.since_epoch { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) } else { Ok(leading) }
    }

    fn check_leader(&self) -> Result<&Leading, ErrorCode> {
        self.leading.as_ref().ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)
    }
}

/// Kafka's code for a log that cannot be read.
fn read_failed(error: &LogError) -> ErrorCode {
    match error {
        LogError::OutOfRange { .. } | LogError::NotNext { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        LogError::Damaged(_) => ErrorCode::CORRUPT_MESSAGE,
        LogError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

#[cfg(test)]
mod tests;
