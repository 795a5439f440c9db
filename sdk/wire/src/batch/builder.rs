//! An open batch, and a closed one that waits for its header.
//!
//! In: records. Out: the records section, and 61 header bytes as a chunk of its own, so that
//! producer id, epoch and sequence can be set when the batch is sent, also a second time.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{CRC, HEADER_BYTES, LENGTH_PREFIX, SUMMED_FROM};
use super::{BatchError, BatchHeader, ProducerStamp, Records};
use crate::compression::{Compression, CompressionError};
use crate::crc::{Crc32c, crc32c, crc32c_of_both};
use crate::varint::{self, MAX_LEN_32, MAX_LEN_64, zigzag};

/// For records without headers, where the element type could not be inferred.
pub const NO_HEADERS: &[(&[u8], Option<&[u8]>)] = &[];

/// Everything in a record but key, value and headers, at its longest.
const MAX_RECORD_OVERHEAD: usize = 1 + MAX_LEN_64 + 5 * MAX_LEN_32;

/// Encodes records straight into an open batch.
///
/// A plain value without lock; appending allocates only when the memory it was given runs out.
#[derive(Debug)]
pub struct BatchBuilder {
    records: BytesMut,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// Of the first `summed` bytes, which were summed while they were in the CPU's cache.
    sum: Crc32c,
    summed: usize,
}

impl BatchBuilder {
    /// Free bytes behind the records that [`Self::append`] wants for its work. Memory of this much
    /// more than the largest records section is never reallocated.
    pub const SLACK_BYTES: usize = RUN + MAX_LEN_32;

    /// Starts a batch in `buf`, whose content is dropped and whose memory is used.
    pub fn new(mut buf: BytesMut) -> Self {
        buf.clear();
        let (sum, summed) = (Crc32c::default(), 0);
        Self { records: buf, count: 0, base_timestamp: -1, max_timestamp: -1, sum, summed }
    }

    /// Most bytes that one record can need in a batch.
    pub fn upper_bound<H: AsRef<[u8]>, V: AsRef<[u8]>>(
        key_len: Option<usize>,
        value_len: Option<usize>,
        headers: &[(H, Option<V>)],
    ) -> usize {
        let headers: usize = headers
            .iter()
            .map(|(name, value)| {
                2 * MAX_LEN_32 + name.as_ref().len() + value.as_ref().map_or(0, |v| v.as_ref().len())
            })
            .sum();
        MAX_RECORD_OVERHEAD + key_len.unwrap_or(0) + value_len.unwrap_or(0) + headers
    }

    /// Appends a record and returns its offset less the batch's base offset.
    ///
    /// `None` is null, which Kafka keeps apart from empty. The caller minds the size: see
    /// [`Self::upper_bound`] and [`Self::len_bytes`].
    #[inline]
    pub fn append<H: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(H, Option<V>)],
    ) -> u32 {
        let offset_delta = self.count;
        if offset_delta == 0 {
            self.base_timestamp = timestamp_ms;
            self.max_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        self.count += 1;

        let timestamp_delta = zigzag(timestamp_ms.wrapping_sub(self.base_timestamp));
        let offset_field = u64::from(offset_delta) << 1;
        let length = 1
            + varint::len_unsigned(timestamp_delta)
            + varint::len_unsigned(offset_field)
            + field_len(key)
            + field_len(value)
            + headers_len(headers);
        self.records.reserve(length + Self::SLACK_BYTES);

        append_run(&mut self.records, |run| {
            run.put((length as u64) << 1);
            run.put(0); // attributes, unused
            run.put(timestamp_delta);
            run.put(offset_field);
            run.put(length_field(key));
            if key.is_none() {
                run.put(length_field(value));
            }
        });
        if let Some(key) = key {
            self.records.extend_from_slice(key);
            append_run(&mut self.records, |run| run.put(length_field(value)));
        }
        if let Some(value) = value {
            self.records.extend_from_slice(value);
        }
        if headers.is_empty() {
            self.records.put_u8(0);
        } else {
            self.append_headers(headers);
        }
        if self.records.len() - self.summed > SUM_BYTES {
            self.sum_up();
        }
        offset_delta
    }

    #[cold]
    fn sum_up(&mut self) {
        self.sum.update(&self.records[self.summed..]);
        self.summed = self.records.len();
    }

    fn append_headers<H: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, headers: &[(H, Option<V>)]) {
        append_run(&mut self.records, |run| run.put((headers.len() as u64) << 1));
        for (name, value) in headers {
            self.append_field(Some(name.as_ref()));
            self.append_field(value.as_ref().map(AsRef::as_ref));
        }
    }

    fn append_field(&mut self, field: Option<&[u8]>) {
        append_run(&mut self.records, |run| run.put(length_field(field)));
        self.records.extend_from_slice(field.unwrap_or_default());
    }

    /// Bytes the batch would have now, header included, uncompressed.
    pub fn len_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is no record yet. An empty batch can be sealed but is not to be sent.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Closes the batch: compresses the records if asked to.
    ///
    /// # Errors
    ///
    /// See [`Compression::check_level`]; a producer that calls it at start meets no error here but
    /// [`CompressionError::TooLarge`], beyond 2 GiB.
    pub fn seal(
        mut self,
        compression: Compression,
        level: Option<i32>,
    ) -> Result<SealedBatch, CompressionError> {
        let uncompressed_bytes = self.records.len();
        if compression != Compression::None {
            let packed = compression.compress(level, &self.records)?;
            // back into the memory the batch came with, so that `reclaim` can return it to its pool
            self.records.clear();
            self.records.extend_from_slice(&packed);
            (self.sum, self.summed) = (Crc32c::default(), 0);
        }
        self.sum_up();
        let size_bytes = self.records.len();
        if i32::try_from(size_bytes + HEADER_BYTES).is_err() {
            return Err(CompressionError::TooLarge { size_bytes });
        }
        let records = self.records.freeze();
        Ok(SealedBatch {
            records,
            sum: self.sum.value(),
            uncompressed_bytes,
            count: self.count,
            compression,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        })
    }
}

/// A batch whose records are final; [`Self::header`] sets the rest as often as it is sent.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    records: Bytes,
    /// Checksum of the records.
    sum: u32,
    uncompressed_bytes: usize,
    count: u32,
    compression: Compression,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl SealedBatch {
    /// The bytes that go before [`Self::records`]: base offset 0, leader epoch -1.
    pub fn header(&self, stamp: ProducerStamp) -> [u8; HEADER_BYTES] {
        let mut bytes = self.fields(stamp).encode();
        let crc = crc32c_of_both(crc32c(&bytes[SUMMED_FROM..]), self.sum, self.records.len());
        bytes[CRC].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn fields(&self, stamp: ProducerStamp) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            length: (HEADER_BYTES - LENGTH_PREFIX + self.records.len()) as i32,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: self.compression.id(),
            last_offset_delta: (self.count as i32).wrapping_sub(1),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: stamp.producer_id,
            producer_epoch: stamp.producer_epoch,
            base_sequence: stamp.base_sequence,
            count: self.count as i32,
        }
    }

    /// The records section, compressed if it was asked for.
    pub fn records(&self) -> &Bytes {
        &self.records
    }

    /// Bytes of the records section before it was compressed.
    pub fn uncompressed_bytes(&self) -> usize {
        self.uncompressed_bytes
    }

    /// Bytes of the whole batch, header included.
    pub fn len_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Codec of the records.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Largest timestamp; -1 without records.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Reads the records back, as when a batch that is too large for the broker has to be split.
    /// Their offsets count from 0.
    ///
    /// # Errors
    ///
    /// [`BatchError::Compression`] if they expand beyond `limit_bytes`.
    pub fn decode(&self, limit_bytes: usize) -> Result<Records, BatchError> {
        Records::of(&self.fields(super::NO_PRODUCER), self.records.clone(), limit_bytes)
    }

    /// Returns the memory for the next batch, if nothing else holds it any more.
    pub fn reclaim(self) -> Option<BytesMut> {
        let mut memory = self.records.try_into_mut().ok()?;
        memory.clear();
        Some(memory)
    }
}

/// Bytes that are summed at once. As many are still in the cache nearest to the CPU, where summing costs a third.
const SUM_BYTES: usize = 16 * 1024;

/// Room for the varints between two fields. The longest run is length, attributes, timestamp, offset,
/// null key and value: 27 bytes.
const RUN: usize = 32;

/// Varints written in place at the end of the batch.
///
/// Room of a fixed size is cleared, which takes two instructions, filled, and cut to what was used:
/// so no byte costs a look at the capacity, and nothing is copied.
struct Run<'a> {
    room: &'a mut [u8; RUN],
    used: usize,
}

impl Run<'_> {
    #[inline(always)]
    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.room[self.used % RUN] = value as u8 | 0x80;
            self.used += 1;
            value >>= 7;
        }
        self.room[self.used % RUN] = value as u8;
        self.used += 1;
    }
}

#[inline(always)]
fn append_run(out: &mut BytesMut, write: impl FnOnce(&mut Run<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; RUN]);
    let mut used = 0;
    if let Some(room) = out.last_chunk_mut::<RUN>() {
        let mut run = Run { room, used };
        write(&mut run);
        used = run.used;
    }
    out.truncate(start + used);
}

/// Length of a nullable field as a varint; -1 is null.
#[inline]
fn length_field(field: Option<&[u8]>) -> u64 {
    field.map_or(1, |bytes| (bytes.len() as u64) << 1)
}

#[inline]
fn field_len(field: Option<&[u8]>) -> usize {
    varint::len_unsigned(length_field(field)) + field.map_or(0, <[u8]>::len)
}

#[inline]
fn headers_len<H: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(H, Option<V>)]) -> usize {
    let mut total = varint::len_unsigned((headers.len() as u64) << 1);
    for (name, value) in headers {
        total += field_len(Some(name.as_ref())) + field_len(value.as_ref().map(AsRef::as_ref));
    }
    total
}
