//! What a voter needs of its log.

use super::types::SnapshotId;
use crate::log::LogError;

/// The log of one voter, and its latest snapshot.
///
/// Offsets and epochs mean what they mean in a partition's log; a log whose records are all in its snapshot ends with
/// that one's offset and epoch.
pub trait QuorumLog {
    /// A stretch of the log, as it goes over the wire.
    type Records: Clone + std::fmt::Debug;

    /// First offset that can be read.
    fn start_offset(&self) -> i64;

    /// Epoch of the record before that one, 0 if there never was one.
    fn start_epoch(&self) -> i32;

    /// Offset of the next record.
    fn end_offset(&self) -> i64;

    /// Epoch of the last record, 0 if there never was one.
    fn last_epoch(&self) -> i32;

    /// The largest epoch not above `epoch` of which there are records, and where it ends here; for one below all, that
    /// before the start.
    fn end_of_epoch(&self, epoch: i32) -> (i32, i64);

    /// The latest snapshot.
    fn snapshot(&self) -> Option<SnapshotId>;

    /// No records.
    fn none(&self) -> Self::Records;

    /// Whether there are no records in it.
    fn is_none(records: &Self::Records) -> bool;

    /// Whole batches from `offset` on and before `limit`, of about `max_bytes`, but at least one if there is one.
    ///
    /// # Errors
    ///
    /// What the storage says.
    fn read(&self, offset: i64, limit: i64, max_bytes: usize) -> Result<Self::Records, LogError>;

    /// Appends what another voter's log holds; what does not continue the log is an error.
    ///
    /// # Errors
    ///
    /// [`LogError::NotNext`], or what the storage says.
    fn append(&mut self, records: &Self::Records) -> Result<(), LogError>;

    /// Appends the record with which a leadership begins.
    ///
    /// # Errors
    ///
    /// What the storage says.
    fn append_leader_change(&mut self, change: &LeaderChange) -> Result<(), LogError>;

    /// Cuts the log so that it ends at `offset` at the latest.
    ///
    /// # Errors
    ///
    /// What the storage says.
    fn truncate_to(&mut self, offset: i64) -> Result<(), LogError>;

    /// Takes in a part of a snapshot; the first one, at position 0, gives up what was there of another.
    fn receive_snapshot(&mut self, id: SnapshotId, position: u64, bytes: &[u8]);

    /// Puts the snapshot that was received in place of the log; `false` if it is damaged.
    ///
    /// # Errors
    ///
    /// What the storage says.
    fn load_snapshot(&mut self, id: SnapshotId) -> Result<bool, LogError>;
}

/// The record with which a leadership begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderChange {
    /// Who leads.
    pub leader: i32,
    /// In which epoch.
    pub epoch: i32,
    /// All voters.
    pub voters: Vec<i32>,
    /// Those that voted for it.
    pub granting: Vec<i32>,
    /// When, in ms since the Unix epoch.
    pub wall_ms: i64,
}
