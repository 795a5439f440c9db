//! Record batches, magic 2.
//!
//! Out: [`BatchBuilder`] encodes records into an open batch, [`SealedBatch`] closes it and makes its header.
//! In: [`RawBatch`] cuts whole batches off a buffer without copying, [`Records`] iterates over borrowed records.
//!
//! ```text
//! header 61 │ record │ record │ …          compressed: header 61 │ all records as one compressed run
//! record = length, attributes, timestamp delta, offset delta, key, value, headers   (varints, zigzag)
//! ```
//!
//! Invariant: base offset, length, leader epoch, magic and the CRC itself lie outside the CRC, so a
//! broker can place a batch in its log without touching, or summing, the records.

mod builder;
mod header;
mod reader;

pub use builder::{BatchBuilder, NO_HEADERS, SealedBatch};
pub use header::{BatchHeader, HEADER_BYTES, NO_PRODUCER, ProducerStamp, TimestampType};
pub use reader::{HeaderRef, Headers, RawBatch, RecordRef, Records, RecordsIter, RecordsPosition};

use crate::compression::CompressionError;

/// Why bytes are not a record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than a batch, or this batch, needs.
    #[error("batch truncated: {have} of {need} B")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Bytes follow the one batch that was expected.
    #[error("{extra} B follow the batch")]
    Trailing {
        /// Number of bytes.
        extra: usize,
    },
    /// The length field is impossible.
    #[error("impossible batch length {length}")]
    Length {
        /// As it stands in the header.
        length: i32,
    },
    /// Magic 0 or 1, before Kafka 0.11, or one of the future.
    #[error("batch format (magic) {magic} is not supported, only 2")]
    UnsupportedMagic {
        /// As it stands in the header.
        magic: i8,
    },
    /// The bytes have changed since they were summed.
    #[error("batch at offset {base_offset} is corrupt: its CRC is {computed:#010x}, not {stored:#010x}")]
    Crc {
        /// Base offset in the header.
        base_offset: i64,
        /// CRC in the header.
        stored: u32,
        /// CRC of the bytes.
        computed: u32,
    },
    /// Bits 0 to 2 of the attributes name no codec.
    #[error("unknown codec in batch attributes {attributes:#06x}")]
    UnknownCodec {
        /// As they stand in the header.
        attributes: i16,
    },
    /// The record count is negative, more than the bytes can hold, or at odds with the offsets.
    #[error("impossible record count {count}")]
    Count {
        /// As it stands in the header.
        count: i32,
    },
    /// The records could not be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record is malformed.
    #[error("record {index} of the batch at offset {base_offset}: {reason}")]
    Record {
        /// Base offset in the header.
        base_offset: i64,
        /// Position in the batch, from 0.
        index: u32,
        /// What is wrong.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests;
