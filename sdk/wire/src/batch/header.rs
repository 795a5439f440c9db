//! The 61 bytes in front of the records.

use std::ops::Range;

use super::BatchError;
use crate::compression::Compression;

/// Bytes of a batch before its records: base offset (8), length (4), leader epoch (4), magic (1), CRC (4),
/// attributes (2), last offset delta (4), base and max timestamp (16), producer id, epoch, base sequence (14), count (4).
pub const HEADER_BYTES: usize = 61;
/// Base offset and length, which the length does not count.
pub(super) const LENGTH_PREFIX: usize = 12;
pub(super) const CRC: Range<usize> = 17..21;
/// Where the bytes begin that the CRC covers.
pub(super) const SUMMED_FROM: usize = 21;
const MAGIC_AT: usize = 16;
const MAGIC: i8 = 2;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Identity of an idempotent producer in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
}

/// The stamp of a producer without idempotence.
pub const NO_PRODUCER: ProducerStamp =
    ProducerStamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 };

impl Default for ProducerStamp {
    fn default() -> Self {
        NO_PRODUCER
    }
}

/// What the timestamps of a batch mean (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Each record carries the producer's time.
    CreateTime,
    /// Every record has the broker's time, which is the header's max timestamp.
    LogAppendTime,
}

/// Header of a batch, field by field in the order of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes behind this field.
    pub length: i32,
    /// Epoch of the leader that appended the batch, or -1.
    pub partition_leader_epoch: i32,
    /// Format, always 2 here.
    pub magic: i8,
    /// CRC-32C from the attributes to the end.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control, delete horizon.
    pub attributes: i16,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are added to.
    pub base_timestamp: i64,
    /// Largest timestamp, or the append time.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; what follows it may be missing.
    ///
    /// # Errors
    ///
    /// [`BatchError::Truncated`], [`BatchError::UnsupportedMagic`] or [`BatchError::Length`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let truncated = BatchError::Truncated { need: HEADER_BYTES, have: bytes.len() };
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic as i8 != MAGIC
        {
            return Err(BatchError::UnsupportedMagic { magic: magic as i8 });
        }
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(truncated)?;
        let header = Self {
            base_offset: i64::from_be_bytes(field::<0, 8>(bytes)),
            length: i32::from_be_bytes(field::<8, 4>(bytes)),
            partition_leader_epoch: i32::from_be_bytes(field::<12, 4>(bytes)),
            magic: i8::from_be_bytes(field::<16, 1>(bytes)),
            crc: u32::from_be_bytes(field::<17, 4>(bytes)),
            attributes: i16::from_be_bytes(field::<21, 2>(bytes)),
            last_offset_delta: i32::from_be_bytes(field::<23, 4>(bytes)),
            base_timestamp: i64::from_be_bytes(field::<27, 8>(bytes)),
            max_timestamp: i64::from_be_bytes(field::<35, 8>(bytes)),
            producer_id: i64::from_be_bytes(field::<43, 8>(bytes)),
            producer_epoch: i16::from_be_bytes(field::<51, 2>(bytes)),
            base_sequence: i32::from_be_bytes(field::<53, 4>(bytes)),
            count: i32::from_be_bytes(field::<57, 4>(bytes)),
        };
        if header.length < (HEADER_BYTES - LENGTH_PREFIX) as i32 {
            return Err(BatchError::Length { length: header.length });
        }
        Ok(header)
    }

    /// The bytes of this header, the CRC as it stands in the field.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put::<0, 8>(&mut out, self.base_offset.to_be_bytes());
        put::<8, 4>(&mut out, self.length.to_be_bytes());
        put::<12, 4>(&mut out, self.partition_leader_epoch.to_be_bytes());
        put::<16, 1>(&mut out, self.magic.to_be_bytes());
        put::<17, 4>(&mut out, self.crc.to_be_bytes());
        put::<21, 2>(&mut out, self.attributes.to_be_bytes());
        put::<23, 4>(&mut out, self.last_offset_delta.to_be_bytes());
        put::<27, 8>(&mut out, self.base_timestamp.to_be_bytes());
        put::<35, 8>(&mut out, self.max_timestamp.to_be_bytes());
        put::<43, 8>(&mut out, self.producer_id.to_be_bytes());
        put::<51, 2>(&mut out, self.producer_epoch.to_be_bytes());
        put::<53, 4>(&mut out, self.base_sequence.to_be_bytes());
        put::<57, 4>(&mut out, self.count.to_be_bytes());
        out
    }

    /// Codec of the records.
    ///
    /// # Errors
    ///
    /// [`BatchError::UnknownCodec`].
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes)
            .ok_or(BatchError::UnknownCodec { attributes: self.attributes })
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Gives every record the broker's time. The CRC is stale afterwards.
    pub(super) fn set_log_append_time(&mut self, time_ms: i64) {
        self.attributes |= LOG_APPEND_TIME;
        self.max_timestamp = time_ms;
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a commit or abort marker instead of users' records.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether an idempotent producer wrote the batch.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Offset of the last record; in a compacted log the record itself may be gone.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Offset behind the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Sequence of the last record, or -1 without a producer; sequences go on from 0 after `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        (i64::from(self.base_sequence) + i64::from(self.last_offset_delta)).rem_euclid(1 << 31) as i32
    }

    /// Bytes of the whole batch, header included.
    pub fn size_bytes(&self) -> usize {
        LENGTH_PREFIX + usize::try_from(self.length).unwrap_or_default()
    }
}

fn field<const AT: usize, const LEN: usize>(bytes: &[u8; HEADER_BYTES]) -> [u8; LEN] {
    let mut out = [0; LEN];
    out.copy_from_slice(&bytes[AT..AT + LEN]);
    out
}

fn put<const AT: usize, const LEN: usize>(out: &mut [u8; HEADER_BYTES], value: [u8; LEN]) {
    out[AT..AT + LEN].copy_from_slice(&value);
}
