//! Batches as they come: cut off a buffer, checked, placed in a log, read record by record.
//!
//! In: any bytes. Out: slices of them. Nothing is copied but what has to be decompressed.

use bytes::Bytes;

use super::header::{HEADER_BYTES, LENGTH_PREFIX, SUMMED_FROM, TimestampType};
use super::{BatchError, BatchHeader};
use crate::compression::Compression;
use crate::crc::{crc32c, crc32c_of_two};
use crate::varint::{read_i32, read_i64};

/// Shortest record: six one-byte varints (timestamp, offset, key, value, headers, its length) and the attributes.
const MIN_RECORD: usize = 7;

/// One whole batch as it stands on the wire or in the log; its length and magic are checked.
#[derive(Debug, Clone)]
pub struct RawBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RawBatch {
    /// Takes the next whole batch off the front of `buf`, without copying.
    ///
    /// `None` at the end, and when only the beginning of a batch is left: a Fetch answer may end
    /// within a batch. After an error the rest is unreadable and `buf` is left empty.
    pub fn split(buf: &mut Bytes) -> Option<Result<Self, BatchError>> {
        let size = match whole_size(buf) {
            Ok(size) => size,
            Err(BatchError::Truncated { .. }) => return None,
            Err(error) => {
                buf.clear();
                return Some(Err(error));
            }
        };
        let bytes = buf.split_to(size);
        Some(BatchHeader::parse(&bytes).map(|header| Self { header, bytes }))
    }

    /// Takes `bytes` as exactly one batch.
    ///
    /// # Errors
    ///
    /// As [`BatchHeader::parse`], and [`BatchError::Trailing`] if more follows.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let size = whole_size(&bytes)?;
        if size < bytes.len() {
            return Err(BatchError::Trailing { extra: bytes.len() - size });
        }
        let header = BatchHeader::parse(&bytes)?;
        Ok(Self { header, bytes })
    }

    /// The parsed header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Compares the CRC with the bytes.
    ///
    /// # Errors
    ///
    /// [`BatchError::Crc`].
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c(self.bytes.get(SUMMED_FROM..).unwrap_or_default());
        if computed == self.header.crc {
            return Ok(());
        }
        Err(BatchError::Crc { base_offset: self.header.base_offset, stored: self.header.crc, computed })
    }

    /// The records: a slice of the batch, or, if compressed, at most `limit_bytes` decompressed.
    ///
    /// # Errors
    ///
    /// [`BatchError::Count`], [`BatchError::UnknownCodec`] or [`BatchError::Compression`].
    pub fn records(&self, limit_bytes: usize) -> Result<Records, BatchError> {
        Records::of(&self.header, self.packed_records(), limit_bytes)
    }

    /// Checks everything a broker checks before it appends a producer's batch: record count against
    /// offsets, offset deltas 0, 1, 2…, lengths, and that nothing is left over. Not the CRC.
    ///
    /// # Errors
    ///
    /// As [`Self::records`], and [`BatchError::Record`].
    pub fn validate_records(&self, limit_bytes: usize) -> Result<(), BatchError> {
        let BatchHeader { base_offset, count, last_offset_delta, .. } = self.header;
        if count < 1 || i64::from(last_offset_delta) != i64::from(count) - 1 {
            return Err(BatchError::Count { count });
        }
        let records = self.records(limit_bytes)?;
        for (index, record) in (0u32..).zip(records.iter()) {
            if record?.offset != base_offset.wrapping_add(i64::from(index)) {
                return Err(BatchError::Record { base_offset, index, reason: "offset delta out of order" });
            }
        }
        Ok(())
    }

    /// The batch at its place in the log: a new header, and the records shared with this batch.
    /// These fields lie outside the CRC, which stays as it is.
    pub fn assigned(&self, base_offset: i64, leader_epoch: i32) -> [Bytes; 2] {
        let header = BatchHeader { base_offset, partition_leader_epoch: leader_epoch, ..self.header };
        [Bytes::copy_from_slice(&header.encode()), self.packed_records()]
    }

    /// As [`Self::assigned`], with `time_ms` as the time of every record (`LogAppendTime`) and a new CRC.
    pub fn assigned_with_append_time(&self, base_offset: i64, leader_epoch: i32, time_ms: i64) -> [Bytes; 2] {
        let mut header = BatchHeader { base_offset, partition_leader_epoch: leader_epoch, ..self.header };
        header.set_log_append_time(time_ms);
        let records = self.packed_records();
        header.crc = crc32c_of_two(&header.encode()[SUMMED_FROM..], &records);
        [Bytes::copy_from_slice(&header.encode()), records]
    }

    fn packed_records(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES.min(self.bytes.len())..)
    }
}

/// Size of the batch at the front of `bytes`, if the whole of it is there.
fn whole_size(bytes: &[u8]) -> Result<usize, BatchError> {
    let have = bytes.len();
    let truncated = |need| BatchError::Truncated { need, have };
    // the length before the magic: a cut within the header of the next batch is no error
    let length: &[u8; 4] = bytes.get(8..).and_then(<[u8]>::first_chunk).ok_or(truncated(HEADER_BYTES))?;
    let length = i32::from_be_bytes(*length);
    let size = match usize::try_from(length) {
        Ok(length) => LENGTH_PREFIX + length,
        Err(_) => return Err(BatchError::Length { length }),
    };
    if have >= HEADER_BYTES {
        return match BatchHeader::parse(bytes) {
            Ok(_) if size > have => Err(truncated(size)),
            Ok(_) => Ok(size),
            Err(error) => Err(error),
        };
    }
    // not even a header is left: whole only if it is an old, shorter format, or nonsense
    match BatchHeader::parse(bytes) {
        Err(error @ BatchError::UnsupportedMagic { .. }) => Err(error),
        _ if size < HEADER_BYTES => Err(BatchError::Length { length }),
        _ => Err(truncated(size)),
    }
}

/// The records of one batch, decompressed.
#[derive(Debug, Clone)]
pub struct Records {
    body: Bytes,
    count: u32,
    base_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl Records {
    pub(super) fn of(header: &BatchHeader, packed: Bytes, limit_bytes: usize) -> Result<Self, BatchError> {
        let body = match header.compression()? {
            Compression::None => packed,
            codec => Bytes::from(codec.decompress(&packed, limit_bytes)?),
        };
        let count = match usize::try_from(header.count) {
            Ok(count) if count <= body.len() / MIN_RECORD => count as u32,
            _ => return Err(BatchError::Count { count: header.count }),
        };
        let append_time =
            (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp);
        Ok(Self {
            body,
            count,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time,
        })
    }

    /// The bytes that every [`RecordRef`] points into: `body().slice_ref(value)` keeps a value
    /// alive without copying it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Number of records the batch claims, no more than its bytes can hold.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Decodes one record after the other, and ends after the first error.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter { records: self, at: 0, index: 0, ended: false }
    }

    /// Goes on where another iterator over the same records stood, see [`RecordsIter::position`].
    pub fn iter_from(&self, position: RecordsPosition) -> RecordsIter<'_> {
        RecordsIter { records: self, at: position.at, index: position.index, ended: false }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordRef<'a>, BatchError>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// Where an iterator stands, without borrowing the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordsPosition {
    at: usize,
    index: u32,
}

/// Iterator over the records of a batch.
#[derive(Debug, Clone)]
pub struct RecordsIter<'a> {
    records: &'a Records,
    at: usize,
    index: u32,
    ended: bool,
}

impl<'a> RecordsIter<'a> {
    /// Remembers the place for [`Records::iter_from`].
    pub fn position(&self) -> RecordsPosition {
        RecordsPosition { at: self.at, index: self.index }
    }

    #[cold]
    fn fail(&mut self, reason: &'static str) -> Option<Result<RecordRef<'a>, BatchError>> {
        self.ended = true;
        let (base_offset, index) = (self.records.base_offset, self.index);
        Some(Err(BatchError::Record { base_offset, index, reason }))
    }
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let body: &'a [u8] = &self.records.body;
        if self.index >= self.records.count {
            if self.at < body.len() {
                return self.fail("bytes are left over behind the last record");
            }
            self.ended = true;
            return None;
        }
        match decode_record(body, &mut self.at, self.records) {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => self.fail(reason),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // an error ends it early, or adds one item at the end
        (0, Some((self.records.count.saturating_sub(self.index)) as usize + 1))
    }
}

#[inline]
fn decode_record<'a>(body: &'a [u8], at: &mut usize, batch: &Records) -> Result<RecordRef<'a>, &'static str> {
    let mut start = *at;
    let length = read_i32(body, &mut start).ok_or("length is truncated")?;
    let length = usize::try_from(length).map_err(|_| "length is negative")?;
    let end = start.checked_add(length).ok_or("length overflows")?;
    let bytes = body.get(start..end).ok_or("longer than the batch")?;

    let mut at_field = 1; // attributes, unused
    let timestamp_delta = read_i64(bytes, &mut at_field).ok_or("bad timestamp delta")?;
    let offset_delta = read_i32(bytes, &mut at_field).ok_or("bad offset delta")?;
    let key = read_field(bytes, &mut at_field).ok_or("bad key")?;
    let value = read_field(bytes, &mut at_field).ok_or("bad value")?;
    let header_count = read_i32(bytes, &mut at_field).ok_or("bad header count")?;
    let header_count = u32::try_from(header_count).map_err(|_| "negative header count")?;
    let headers = Headers { bytes: bytes.get(at_field..).unwrap_or_default(), left: header_count };
    headers.check()?;

    *at = end;
    Ok(RecordRef {
        offset: batch.base_offset.wrapping_add(i64::from(offset_delta)),
        timestamp: match batch.append_time {
            Some(time) => time,
            None => batch.base_timestamp.wrapping_add(timestamp_delta),
        },
        key,
        value,
        headers,
    })
}

/// Reads a nullable field: the outer `None` is an error, the inner one null.
#[inline]
fn read_field<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    let length = read_i32(bytes, at)?;
    if length < 0 {
        return (length == -1).then_some(None);
    }
    let end = at.checked_add(length as usize)?;
    let field = bytes.get(*at..end)?;
    *at = end;
    Some(Some(field))
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch, of the kind the batch's [`TimestampType`] tells.
    pub timestamp: i64,
    /// `None` is null, `Some(&[])` is empty.
    pub key: Option<&'a [u8]>,
    /// `None` is null, `Some(&[])` is empty.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> RecordRef<'a> {
    /// The headers, in order; one name may occur more than once.
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRef<'a> {
    /// Name; UTF-8 if its producer kept to the rules.
    pub name: &'a [u8],
    /// `None` is null, `Some(&[])` is empty.
    pub value: Option<&'a [u8]>,
}

/// Iterator over the headers of a record. They were checked when the record was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Headers<'a> {
    #[inline]
    fn check(&self) -> Result<(), &'static str> {
        if self.left == 0 && self.bytes.is_empty() {
            return Ok(());
        }
        self.check_each()
    }

    fn check_each(&self) -> Result<(), &'static str> {
        let mut rest = self.clone();
        for _ in 0..self.left {
            rest.read().ok_or("bad header")?;
        }
        if rest.bytes.is_empty() { Ok(()) } else { Err("bytes are left over in the record") }
    }

    fn read(&mut self) -> Option<HeaderRef<'a>> {
        let mut at = 0;
        let name = read_field(self.bytes, &mut at)??;
        let value = read_field(self.bytes, &mut at)?;
        self.bytes = self.bytes.get(at..)?;
        Some(HeaderRef { name, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = HeaderRef<'a>;

    fn next(&mut self) -> Option<HeaderRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.read()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}
