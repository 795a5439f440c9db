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

mod types;

pub use types::{
    AlterPartition, AlteredPartition, AppendError, Appended, Effect, EpochEnd, FetchFrom, FetchPosition,
    Fetched, FetchedFromLeader, Fetcher, FoundOffset, IsrMember, OffsetAt, Produce, ReplicaIdentity,
    ReplicaSettings, Role, TimestampType,
};

use klamm_wire::ErrorCode;

use crate::Tick;
use crate::metadata::PartitionRegistration;
use crate::storage::{Storage, StorageError};

/// One replica of one partition. See the module.
#[derive(Debug)]
pub struct Replica<S> {
    storage: S,
}

impl<S: Storage> Replica<S> {
    /// Opens a replica from what its storage holds: rebuilds epochs, producers and offsets, and cuts a torn or damaged
    /// tail. It is [`Role::Offline`] until metadata comes.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn new(
        _identity: ReplicaIdentity,
        _storage: S,
        _settings: ReplicaSettings,
    ) -> Result<Self, StorageError> {
        unimplemented!()
    }

    /// Takes the storage back, as a kill leaves it.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Which replica this is.
    pub fn identity(&self) -> &ReplicaIdentity {
        unimplemented!()
    }

    /// Replaces the settings, after a change of the topic's configuration.
    pub fn set_settings(&mut self, _settings: ReplicaSettings) {
        unimplemented!()
    }

    /// Takes the partition's state from the metadata.
    ///
    /// Call it when the registration changes, and also when the epoch, the fencing or a controlled shutdown of one of
    /// the replicas' brokers does: `alive` tells the epoch of a broker that may join an ISR, `None` for one that may not.
    pub fn apply_metadata(
        &mut self,
        _now: Tick,
        _registration: &PartitionRegistration,
        _alive: &dyn Fn(i32) -> Option<i64>,
        _fx: &mut Vec<Effect>,
    ) {
        unimplemented!()
    }

    /// Appends one batch as leader.
    ///
    /// With acks=-1 the answer waits until [`Self::acked`] says so for `last_offset + 1`.
    ///
    /// # Errors
    ///
    /// Kafka's code; nothing was appended.
    pub fn append(
        &mut self,
        _now: Tick,
        _wall_ms: i64,
        _produce: &Produce,
        _fx: &mut Vec<Effect>,
    ) -> Result<Appended, AppendError> {
        unimplemented!()
    }

    /// Tells whether everything before `offset` is committed: `Ok(false)` means wait.
    ///
    /// `leader_epoch` is the one in [`Appended`].
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER` if another leader may have come in between, `NOT_ENOUGH_REPLICAS_AFTER_APPEND` if the
    /// ISR has shrunk below `min.insync.replicas`.
    pub fn acked(&self, _leader_epoch: i32, _offset: i64) -> Result<bool, ErrorCode> {
        unimplemented!()
    }

    /// Serves a fetch. That of a follower also tells how far the follower is, which may move the high watermark and
    /// the ISR.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE`, `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH`, `NOT_LEADER_OR_FOLLOWER`,
    /// `KAFKA_STORAGE_ERROR`.
    pub fn read(
        &mut self,
        _now: Tick,
        _from: &FetchFrom,
        _fx: &mut Vec<Effect>,
    ) -> Result<Fetched, ErrorCode> {
        unimplemented!()
    }

    /// Where a follower asks next; `None` for any other role.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        unimplemented!()
    }

    /// Appends what a follower has fetched, all or nothing of each batch, and follows the leader's high watermark and log start.
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH` for an answer of an earlier leadership, `CORRUPT_MESSAGE`, `OFFSET_OUT_OF_RANGE` for
    /// batches that do not continue this log; ask again from [`Self::fetch_position`].
    pub fn append_fetched(
        &mut self,
        _now: Tick,
        _fetched: &FetchedFromLeader,
        _fx: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        unimplemented!()
    }

    /// Truncates a follower whose leader answered with a diverging epoch; ask again from [`Self::fetch_position`].
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH` for an answer of an earlier leadership, `KAFKA_STORAGE_ERROR`.
    pub fn truncate(
        &mut self,
        _now: Tick,
        _leader_epoch: i32,
        _diverging: EpochEnd,
        _fx: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        unimplemented!()
    }

    /// Moves a follower into the leader's range after `OFFSET_OUT_OF_RANGE`. The leader's range comes from ListOffsets
    /// (earliest and latest, asked as a replica).
    ///
    /// # Errors
    ///
    /// As [`Self::truncate`].
    pub fn out_of_range(
        &mut self,
        _now: Tick,
        _leader_epoch: i32,
        _leader_start: i64,
        _leader_end: i64,
        _fx: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        unimplemented!()
    }

    /// Answers ListOffsets. `as_replica` reads to the end of the log, everybody else to the high watermark.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and `OFFSET_NOT_AVAILABLE` while a new leader does not know its high watermark.
    pub fn list_offset(
        &self,
        _at: OffsetAt,
        _current_leader_epoch: Option<i32>,
        _as_replica: bool,
    ) -> Result<FoundOffset, ErrorCode> {
        unimplemented!()
    }

    /// Answers OffsetForLeaderEpoch.
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH`, `NOT_LEADER_OR_FOLLOWER`.
    pub fn offset_for_leader_epoch(
        &self,
        _current_leader_epoch: Option<i32>,
        _epoch: i32,
    ) -> Result<EpochEnd, ErrorCode> {
        unimplemented!()
    }

    /// Takes the controller's answer to `proposal`. An answer that got lost is an error too: `REQUEST_TIMED_OUT` or any
    /// other code that does not tell what became of it is asked again.
    pub fn alter_partition_answered(
        &mut self,
        _now: Tick,
        _proposal: u64,
        _answer: Result<AlteredPartition, ErrorCode>,
        _fx: &mut Vec<Effect>,
    ) {
        unimplemented!()
    }

    /// When [`Self::on_deadline`] wants to run; may lie in the past.
    pub fn deadline(&self) -> Option<Tick> {
        unimplemented!()
    }

    /// Does whatever is due at `now`.
    pub fn on_deadline(&mut self, _now: Tick, _fx: &mut Vec<Effect>) {
        unimplemented!()
    }

    /// What this replica does at the moment.
    pub fn role(&self) -> Role {
        unimplemented!()
    }

    /// Epoch of the latest leadership known; -1 before any metadata.
    pub fn leader_epoch(&self) -> i32 {
        unimplemented!()
    }

    /// Committed ISR, as far as known here.
    pub fn isr(&self) -> &[i32] {
        unimplemented!()
    }

    /// Everything before this offset is committed.
    pub fn high_watermark(&self) -> i64 {
        unimplemented!()
    }

    /// Offset of the next record.
    pub fn log_end_offset(&self) -> i64 {
        unimplemented!()
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> i64 {
        unimplemented!()
    }

    /// Forgets idempotent producers that wrote nothing since `before_ms` (`producer.id.expiration.ms`).
    pub fn expire_producers(&mut self, _before_ms: i64) {
        unimplemented!()
    }

    /// Remembers high watermark and log start now, for a clean shutdown.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn checkpoint(&mut self) -> Result<(), StorageError> {
        unimplemented!()
    }

    /// The storage, for faults.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }
}
