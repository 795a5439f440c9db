//! An open batch, and a closed one that waits for its header.
//!
//! In: records. Out: the records section, and 61 header bytes as a chunk of its own, so that
//! producer id, epoch and sequence can be set when the batch is sent, also a second time.

use bytes::{Bytes, BytesMut};

use super::header::{CRC, HEADER_BYTES, LENGTH_PREFIX, SUMMED_FROM};
use super::{BatchError, BatchHeader, ProducerStamp, Records};
use crate::compression::{Compression, CompressionError};
use crate::crc::{crc32c, crc32c_before};
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
}

impl BatchBuilder {
    /// Starts a batch in `buf`, whose content is dropped and whose memory is used.
    pub fn new(mut buf: BytesMut) -> Self {
        buf.clear();
        Self { records: buf, count: 0, base_timestamp: -1, max_timestamp: -1 }
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
        self.records.reserve(length + MAX_LEN_32);

        let mut head = Head::new();
        head.put((length as u64) << 1);
        head.put(0); // attributes, unused
        head.put(timestamp_delta);
        head.put(offset_field);
        head.put(length_field(key));
        if let Some(key) = key {
            head.flush(&mut self.records);
            self.records.extend_from_slice(key);
        }
        head.put(length_field(value));
        head.flush(&mut self.records);
        if let Some(value) = value {
            self.records.extend_from_slice(value);
        }
        self.append_headers(headers);
        offset_delta
    }

    #[inline]
    fn append_headers<H: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, headers: &[(H, Option<V>)]) {
        let mut head = Head::new();
        head.put((headers.len() as u64) << 1);
        for (name, value) in headers {
            let value = value.as_ref().map(AsRef::as_ref);
            head.put(length_field(Some(name.as_ref())));
            head.flush(&mut self.records);
            self.records.extend_from_slice(name.as_ref());
            head.put(length_field(value));
            head.flush(&mut self.records);
            self.records.extend_from_slice(value.unwrap_or_default());
        }
        head.flush(&mut self.records);
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

    /// Closes the batch: compresses the records and sums them.
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
        if compression != Compression::None {
            let packed = compression.compress(level, &self.records)?;
            // back into the memory the batch came with, so that `reclaim` can return it to its pool
            self.records.clear();
            self.records.extend_from_slice(&packed);
        }
        let size_bytes = self.records.len();
        if i32::try_from(size_bytes + HEADER_BYTES).is_err() {
            return Err(CompressionError::TooLarge { size_bytes });
        }
        let records = self.records.freeze();
        Ok(SealedBatch {
            records_crc: crc32c(&records),
            records,
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
    records_crc: u32,
    count: u32,
    compression: Compression,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl SealedBatch {
    /// The bytes that go before [`Self::records`]: base offset 0, leader epoch -1.
    pub fn header(&self, stamp: ProducerStamp) -> [u8; HEADER_BYTES] {
        let mut bytes = self.fields(stamp).encode();
        let crc = crc32c_before(&bytes[SUMMED_FROM..], self.records_crc, self.records.len());
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

/// A run of varints on its way into the batch, at most those in front of a value.
struct Head {
    bytes: [u8; 32],
    used: usize,
}

impl Head {
    #[inline]
    fn new() -> Self {
        Self { bytes: [0; 32], used: 0 }
    }

    /// Adds a varint; the longest run is length, attributes, timestamp, offset, key and value: 31 bytes.
    #[inline]
    fn put(&mut self, value: u64) {
        if let Some(free) = self.bytes.get_mut(self.used..) {
            self.used += varint::put_unsigned(free, value).unwrap_or_default();
        }
    }

    #[inline]
    fn flush(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(self.bytes.get(..self.used).unwrap_or_default());
        self.used = 0;
    }
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
