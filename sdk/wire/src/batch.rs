//! Record batches, magic 2.
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::compression::Compression;

/// Bytes of a batch before its records: base offset (8), length (4), leader epoch (4), magic (1), CRC (4),
/// attributes (2), last offset delta (4), base and max timestamp (16), producer id, epoch, base sequence (14), count (4).
pub const HEADER_BYTES: usize = 61;

/// Why bytes are not a record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the batch claims.
    #[error("truncated")]
    Truncated,
}

/// Identity of an idempotent producer in one batch; all -1 without idempotence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
}

/// Encodes records straight into an open batch.
#[derive(Debug)]
pub struct BatchBuilder {
    records: BytesMut,
    count: u32,
}

/// A batch whose records are final; producer identity and CRC are set by [`Self::header`].
#[derive(Debug, Clone)]
pub struct SealedBatch {
    records: Bytes,
    count: u32,
    compression: Compression,
}

/// Parsed header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
}

/// One whole batch as it stands on the wire or in the log.
#[derive(Debug, Clone)]
pub struct RawBatch {
    bytes: Bytes,
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordRef<'a> {
    /// `None` is null, `Some(&[])` is empty.
    pub key: Option<&'a [u8]>,
    /// `None` is null, `Some(&[])` is empty.
    pub value: Option<&'a [u8]>,
    #[doc(hidden)]
    pub _range: Range<usize>,
}
