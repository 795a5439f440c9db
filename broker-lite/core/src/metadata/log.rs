//! The log of metadata records.
//!
//! In: records from the active controller. Out: record batches, as brokers fetch them.
//! The trait is shaped for a quorum: an append is answered with an offset, and that the offset is
//! committed is seen later, when [`MetadataLog::high_watermark`] has passed it.

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::{NO_HEADERS, NO_PRODUCER};
use klamm_wire::metadata_records::MetadataRecord;
use klamm_wire::{BatchBuilder, BatchHeader, Compression};

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
    /// The records are more than a batch can hold.
    #[error("records do not fit a batch")]
    TooLarge,
}

/// A log of metadata records that one leader at a time appends to.
pub trait MetadataLog {
    /// Leader of the quorum as far as this node knows, and the epoch of its leadership.
    fn leader(&self) -> (Option<i32>, i32);

    /// Appends records as one batch, all or nothing; returns the offset after the last.
    ///
    /// No records append nothing. That the records are committed is seen when
    /// [`Self::high_watermark`] reaches the offset returned.
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

    /// Whole batches from the one that holds `from_offset` on, up to `max_bytes` but at least one;
    /// none at the end.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfRange`] if `from_offset` is below the start or above the end.
    fn read(&self, from_offset: i64, max_bytes: usize) -> Result<Vec<Bytes>, LogError>;
}

/// A quorum of one: what is appended is committed.
///
/// Nothing is ever taken away: the log grows with the number of changes, about 100 B each. Snapshots
/// come with the quorum.
#[derive(Debug)]
pub struct SingleVoter {
    node_id: i32,
    batches: Vec<Stored>,
    end_offset: i64,
}

#[derive(Debug)]
struct Stored {
    base_offset: i64,
    bytes: Bytes,
}

/// The one leader's epoch never changes.
const EPOCH: i32 = 1;

impl SingleVoter {
    /// An empty log, led by `node_id` in epoch 1.
    pub fn new(node_id: i32) -> Self {
        Self { node_id, batches: Vec::new(), end_offset: 0 }
    }

    /// Takes a batch that stands in the log already, when that is opened again.
    pub fn restore(&mut self, header: &BatchHeader, bytes: Bytes) {
        self.batches.push(Stored { base_offset: header.base_offset, bytes });
        self.end_offset = header.next_offset();
    }
}

impl MetadataLog for SingleVoter {
    fn leader(&self) -> (Option<i32>, i32) {
        (Some(self.node_id), EPOCH)
    }

    fn append(&mut self, epoch: i32, wall_ms: i64, records: &[MetadataRecord]) -> Result<i64, LogError> {
        if epoch != EPOCH {
            return Err(LogError::NotLeader { epoch, current: EPOCH });
        }
        if !records.is_empty() {
            let bytes = encode(self.end_offset, epoch, wall_ms, records).ok_or(LogError::TooLarge)?;
            self.batches.push(Stored { base_offset: self.end_offset, bytes });
            self.end_offset += i64::try_from(records.len()).map_err(|_| LogError::TooLarge)?;
        }
        Ok(self.end_offset)
    }

    fn start_offset(&self) -> i64 {
        0
    }

    fn end_offset(&self) -> i64 {
        self.end_offset
    }

    fn high_watermark(&self) -> i64 {
        self.end_offset
    }

    fn read(&self, from_offset: i64, max_bytes: usize) -> Result<Vec<Bytes>, LogError> {
        if !(0..=self.end_offset).contains(&from_offset) {
            return Err(LogError::OutOfRange { offset: from_offset, start: 0, end: self.end_offset });
        }
        if from_offset == self.end_offset {
            return Ok(Vec::new());
        }
        let after = self.batches.partition_point(|batch| batch.base_offset <= from_offset);
        let mut left = max_bytes;
        let mut read = Vec::new();
        for batch in self.batches.iter().skip(after.saturating_sub(1)) {
            if !read.is_empty() && batch.bytes.len() > left {
                break;
            }
            left = left.saturating_sub(batch.bytes.len());
            read.push(batch.bytes.clone());
        }
        Ok(read)
    }
}

/// One batch as it stands in the log; `None` beyond 2 GiB.
fn encode(base_offset: i64, epoch: i32, wall_ms: i64, records: &[MetadataRecord]) -> Option<Bytes> {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for record in records {
        builder.append(wall_ms, None, Some(&record.encode()), NO_HEADERS);
    }
    let sealed = builder.seal(Compression::None, None).ok()?;
    let mut header = BatchHeader::parse(&sealed.header(NO_PRODUCER)).ok()?;
    header.base_offset = base_offset;
    header.partition_leader_epoch = epoch;
    let mut bytes = BytesMut::with_capacity(sealed.len_bytes());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(sealed.records());
    Some(bytes.freeze())
}
