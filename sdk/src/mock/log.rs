//! A partition's records in memory: what the mock serves, and what it is sent.

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::NO_PRODUCER;
use klamm_wire::{BatchBuilder, Compression, ErrorCode, RawBatch};

use crate::record::{Headers, Record};

/// Most that a batch may expand to when the mock looks for a timestamp.
const DECOMPRESSED_LIMIT: usize = 64 << 20;
/// As many as a broker remembers of each producer.
const REMEMBERED: usize = 5;

/// A record that a [`MockConnector`](super::MockConnector) serves: made from a value, a pair of key and value, or a
/// whole [`Record`], whose topic and partition do not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MockRecord {
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Headers,
    timestamp: i64,
}

macro_rules! values {
    ($($value:ty),*) => {$(
        impl From<$value> for MockRecord {
            fn from(value: $value) -> Self {
                Self { value: Some(value.into()), ..Self::default() }
            }
        }
    )*};
}

values!(&'static str, String, Bytes, Vec<u8>);

impl<K: Into<Bytes>, V: Into<Bytes>> From<(K, V)> for MockRecord {
    fn from((key, value): (K, V)) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }
}

impl From<Record> for MockRecord {
    fn from(record: Record) -> Self {
        let Record { key, value, headers, timestamp, .. } = record;
        Self { key, value, headers, timestamp: timestamp.unwrap_or_default() }
    }
}

/// Who wrote a batch, and where it ended up.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    producer_id: i64,
    epoch: i16,
    base_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

/// The batches of one partition, from offset 0 on.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: Vec<RawBatch>,
    /// The newest of each producer, so that a batch sent again is not written twice, and none before its turn.
    remembered: Vec<Remembered>,
}

impl Log {
    /// Offset of the next record.
    pub(super) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.header().next_offset())
    }

    /// Writes records as one batch.
    pub(super) fn write(&mut self, records: &[MockRecord], leader_epoch: i32) {
        if records.is_empty() {
            return;
        }
        let mut builder = BatchBuilder::new(BytesMut::new());
        for record in records {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            builder.append(record.timestamp, key, value, &record.headers);
        }
        let Ok(sealed) = builder.seal(Compression::None, None) else { return };
        let bytes = [&sealed.header(NO_PRODUCER)[..], sealed.records()].concat();
        if let Ok(batch) = RawBatch::parse(bytes.into()) {
            self.append(&batch, leader_epoch);
        }
    }

    /// Writes what a Produce request carries and gives the offset of its first record.
    pub(super) fn produce(&mut self, mut records: Bytes, leader_epoch: i32) -> Result<i64, ErrorCode> {
        let mut first = None;
        while let Some(batch) = RawBatch::split(&mut records) {
            let batch = batch.map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
            batch.verify_crc().map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
            let offset = self.append_in_sequence(&batch, leader_epoch)?;
            first.get_or_insert(offset);
        }
        first.ok_or(ErrorCode::INVALID_RECORD)
    }

    fn append_in_sequence(&mut self, batch: &RawBatch, leader_epoch: i32) -> Result<i64, ErrorCode> {
        let header = batch.header();
        let (producer_id, epoch, base_sequence) =
            (header.producer_id, header.producer_epoch, header.base_sequence);
        if producer_id < 0 {
            return Ok(self.append(batch, leader_epoch));
        }
        let mine = || self.remembered.iter().filter(|known| known.producer_id == producer_id);
        let mut again = mine().filter(|known| (known.epoch, known.base_sequence) == (epoch, base_sequence));
        if let Some(known) = again.next() {
            return Ok(known.base_offset);
        }
        if let Some(newest) = mine().next_back() {
            let next =
                if newest.epoch == epoch { newest.last_sequence.wrapping_add(1) & i32::MAX } else { 0 };
            if epoch < newest.epoch {
                return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
            }
            if base_sequence != next {
                return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
            }
        }
        if mine().count() >= REMEMBERED
            && let Some(oldest) = self.remembered.iter().position(|known| known.producer_id == producer_id)
        {
            self.remembered.remove(oldest);
        }
        let last_sequence = header.last_sequence();
        let base_offset = self.append(batch, leader_epoch);
        self.remembered.push(Remembered { producer_id, epoch, base_sequence, last_sequence, base_offset });
        Ok(base_offset)
    }

    fn append(&mut self, batch: &RawBatch, leader_epoch: i32) -> i64 {
        let base = self.end();
        let bytes = batch.assigned(base, leader_epoch).concat();
        // Only the offset and the epoch differ from a batch that was read already.
        self.batches.extend(RawBatch::parse(bytes.into()));
        base
    }

    /// Whole batches from the one that holds `offset`, at least one if `first` and at most `limit` bytes else.
    pub(super) fn read(&self, offset: i64, limit: usize, first: bool) -> Vec<Bytes> {
        let (mut taken, mut size) = (Vec::new(), 0);
        for batch in self.batches.iter().filter(|batch| batch.header().next_offset() > offset) {
            size += batch.bytes().len();
            if size > limit && !(first && taken.is_empty()) {
                break;
            }
            taken.push(batch.bytes().clone());
        }
        taken
    }

    /// Offset and timestamp of the first record that is not older than `timestamp`.
    pub(super) fn find(&self, timestamp: i64) -> Option<(i64, i64)> {
        let newer = self.batches.iter().filter(|batch| batch.header().max_timestamp >= timestamp);
        for batch in newer {
            let Ok(records) = batch.records(DECOMPRESSED_LIMIT) else { continue };
            let mut records = records.iter().flatten();
            if let Some(found) = records.find(|record| record.timestamp >= timestamp) {
                return Some((found.offset, found.timestamp));
            }
        }
        None
    }

    /// The newest epoch up to `epoch` that has records, and the offset behind its last one: -1 and the log's start if there is none.
    pub(super) fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        let up_to =
            self.batches.iter().map(RawBatch::header).filter(|header| header.partition_leader_epoch <= epoch);
        up_to.last().map_or((-1, 0), |header| (header.partition_leader_epoch, header.next_offset()))
    }

    /// Every record, for tests that look at what was sent.
    pub(super) fn records(&self) -> Vec<MockRecord> {
        let mut all = Vec::new();
        for batch in &self.batches {
            let Ok(records) = batch.records(DECOMPRESSED_LIMIT) else { continue };
            all.extend(records.iter().flatten().map(|record| {
                MockRecord {
                    key: record.key.map(Bytes::copy_from_slice),
                    value: record.value.map(Bytes::copy_from_slice),
                    headers: record
                        .headers()
                        .map(|h| {
                            (
                                String::from_utf8_lossy(h.name).into_owned(),
                                h.value.map(Bytes::copy_from_slice),
                            )
                        })
                        .collect(),
                    timestamp: record.timestamp,
                }
            }));
        }
        all
    }
}

impl MockRecord {
    /// The key, or `None` if it is null.
    pub fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// The value, or `None` if it is null.
    pub fn value(&self) -> Option<&Bytes> {
        self.value.as_ref()
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Milliseconds since the Unix epoch.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }
}
