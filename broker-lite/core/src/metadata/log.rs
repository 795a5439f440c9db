//! The log of metadata records.
//!
//! In: records from the active controller. Out: record batches, as brokers fetch them.
//! The trait is shaped for a quorum: an append is answered with an offset, and that the offset is
//! committed is seen later, when [`MetadataLog::high_watermark`] has passed it.

use bytes::Bytes;

use super::MetadataRecord;

/// Why the log refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// This node does not lead the quorum in that epoch.
    #[error("not the leader of the metadata quorum in epoch {epoch} (current epoch {current})")]
    NotLeader {
        /// Epoch of the caller.
        epoch: i32,
        /// Epoch of the log.
        current: i32,
    },
    /// No record has that offset.
    #[error("offset {offset} is outside {start}..={end}")]
    OutOfRange {
        /// Offset asked for.
        offset: i64,
        /// First offset of the log.
        start: i64,
        /// Offset of the next record.
        end: i64,
    },
    /// The records cannot be made a batch.
    #[error("records do not fit a batch")]
    Unencodable,
}

/// A log of metadata records that one leader at a time appends to.
pub trait MetadataLog {
    /// Leader of the quorum as far as this node knows, and the epoch of its leadership.
    fn leader(&self) -> (Option<i32>, i32);

    /// Appends records as one batch, all or nothing; returns the offset after the last.
    ///
    /// # Errors
    ///
    /// [`LogError::NotLeader`] if `epoch` is not that of this node's leadership.
    fn append(&mut self, epoch: i32, wall_ms: i64, records: &[MetadataRecord]) -> Result<i64, LogError>;

    /// First offset that can be read.
    fn start_offset(&self) -> i64;

    /// Offset of the next record.
    fn end_offset(&self) -> i64;

    /// Records below this offset are committed.
    fn high_watermark(&self) -> i64;

    /// Whole batches from the one that holds `from_offset` on, up to `max_bytes` but at least one; empty at the end.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfRange`] if `from_offset` is below the start or above the end.
    fn read(&self, from_offset: i64, max_bytes: usize) -> Result<Vec<Bytes>, LogError>;
}

/// A quorum of one: what is appended is committed.
///
/// Nothing is ever taken away: the log grows with the number of changes. Snapshots come with the quorum.
#[derive(Debug)]
pub struct SingleVoter {
    _node_id: i32,
}

impl SingleVoter {
    /// An empty log, led by `node_id` in epoch 1.
    pub fn new(_node_id: i32) -> Self {
        unimplemented!()
    }
}

impl MetadataLog for SingleVoter {
    fn leader(&self) -> (Option<i32>, i32) {
        unimplemented!()
    }
    fn append(&mut self, _epoch: i32, _wall_ms: i64, _records: &[MetadataRecord]) -> Result<i64, LogError> {
        unimplemented!()
    }
    fn start_offset(&self) -> i64 {
        unimplemented!()
    }
    fn end_offset(&self) -> i64 {
        unimplemented!()
    }
    fn high_watermark(&self) -> i64 {
        unimplemented!()
    }
    fn read(&self, _from_offset: i64, _max_bytes: usize) -> Result<Vec<Bytes>, LogError> {
        unimplemented!()
    }
}
