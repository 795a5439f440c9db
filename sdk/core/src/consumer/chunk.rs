//! Decoding a chunk, batch by batch and record by record, on the reader's side.
//!
//! In: a [`Chunk`] as it was fetched. Out: its records, as slices of the fetched (or decompressed) bytes.
//! Control batches, aborted transactions and records before the position are left out.
//!
//! Invariant: [`ChunkReader::position`] only grows, and a record is handed out only at or after it.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_wire::batch::{BatchHeader, HeaderRef, Records, RecordsIter, RecordsPosition, TimestampType};
use klamm_wire::{BatchError, Compression, RawBatch, RecordRef};
use uuid::Uuid;

use super::event::{Aborted, Chunk};
use crate::TopicPartition;

/// Why a chunk cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A batch is damaged, or would expand beyond the limit.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A record claims an offset behind the end of its batch.
    #[error("offset {offset} lies outside of its batch")]
    Offset {
        /// The offset.
        offset: i64,
    },
}

/// One decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRecord {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// What the timestamp means.
    pub timestamp_type: TimestampType,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is null.
    pub value: Option<Bytes>,
    /// Names and values of the headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Reads one [`Chunk`].
#[derive(Debug)]
pub struct ChunkReader {
    /// As it was fetched.
    whole: Chunk,
    /// What of it has not been opened.
    rest: Bytes,
    /// Transactions that begin behind the open batch, the last one first.
    aborted: Vec<Aborted>,
    check_crcs: bool,
    decompressed_limit: usize,
    open: Option<ChunkBatch>,
    position: i64,
    /// Epoch of the record before.
    epoch: i32,
    /// Offset behind the batch that cannot be read.
    behind_failure: Option<i64>,
    /// Producers whose records at this place belong to an aborted transaction.
    aborting: BTreeSet<i64>,
}

/// One batch, its records not decoded yet.
#[derive(Debug, Clone)]
pub struct ChunkBatch {
    header: BatchHeader,
    records: Records,
    at: RecordsPosition,
    /// The bytes records are sliced from: those of the chunk, or the decompressed ones.
    body: Bytes,
    /// First offset to hand out.
    from: i64,
}

impl ChunkReader {
    /// Starts to read `chunk`; one batch is decompressed to at most `decompressed_limit` bytes.
    pub fn new(chunk: Chunk, check_crcs: bool, decompressed_limit: usize) -> Self {
        let mut aborted = chunk.aborted.clone();
        aborted.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self {
            rest: chunk.records.clone(),
            position: chunk.from,
            epoch: chunk.epoch,
            whole: chunk,
            aborted,
            check_crcs,
            decompressed_limit,
            open: None,
            behind_failure: None,
            aborting: BTreeSet::new(),
        }
    }

    /// The chunk without the records that were handed out, to be read later.
    pub fn into_rest(self) -> Chunk {
        Chunk { from: self.position, epoch: self.epoch, ..self.whole }
    }

    /// The partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.whole.partition
    }

    /// Id of the topic that it was fetched from; nil if unknown.
    pub fn topic_id(&self) -> Uuid {
        self.whole.topic_id
    }

    /// Generation of the chunk.
    pub fn generation(&self) -> u64 {
        self.whole.generation
    }

    /// Offset to be handed out next.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Leader epoch of the record before; -1 if unknown.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// After an error: the offset behind the batch that cannot be read, if its header can be believed that far.
    pub fn behind_failure(&self) -> Option<i64> {
        self.behind_failure.or_else(|| self.open.as_ref().map(|open| open.header.next_offset()))
    }

    /// Decodes the next record; `None` at the end of the chunk.
    ///
    /// `keep` wraps decompressed bytes, so that their memory can be accounted for.
    ///
    /// # Errors
    ///
    /// [`ChunkError`] if a batch is damaged; nothing behind it can be read.
    pub fn next(&mut self, keep: &impl Fn(Bytes) -> Bytes) -> Result<Option<ChunkRecord>, ChunkError> {
        self.next_as(keep, |_, batch, record| batch.materialize(record))
    }

    /// As [`Self::next`]; `make` says what becomes of the record, once it is known that there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    #[inline] // into the reader's crate: whatever is made is built where it is handed out
    pub fn next_as<T>(
        &mut self,
        keep: &impl Fn(Bytes) -> Bytes,
        make: impl FnOnce(&TopicPartition, &ChunkBatch, &RecordRef<'_>) -> T,
    ) -> Result<Option<T>, ChunkError> {
        loop {
            let Some(open) = &mut self.open else {
                if !self.open_next(keep)? {
                    self.position = self.position.max(self.whole.next);
                    return Ok(None);
                }
                continue;
            };
            let mut records = open.records.iter_from(open.at);
            let Some(record) = records.next() else {
                self.position = self.position.max(open.header.next_offset());
                self.epoch = open.header.partition_leader_epoch;
                self.open = None;
                continue;
            };
            let record = record?;
            let at = records.position();
            if record.offset > open.header.last_offset() {
                return Err(ChunkError::Offset { offset: record.offset });
            }
            if record.offset >= self.position {
                let made = make(&self.whole.partition, open, &record);
                (self.position, self.epoch) = (record.offset + 1, open.header.partition_leader_epoch);
                open.at = at;
                return Ok(Some(made));
            }
            open.at = at;
        }
    }

    /// Takes the next batch whole, or what is left of the one being read; `None` at the end of the chunk. The position moves
    /// behind it.
    ///
    /// # Errors
    ///
    /// As [`Self::next`]; what is wrong with single records turns up when they are decoded.
    pub fn next_batch(&mut self, keep: &impl Fn(Bytes) -> Bytes) -> Result<Option<ChunkBatch>, ChunkError> {
        if self.open.is_none() && !self.open_next(keep)? {
            self.position = self.position.max(self.whole.next);
            return Ok(None);
        }
        let batch = self.open.take().map(|batch| ChunkBatch { from: self.position, ..batch });
        if let Some(batch) = &batch {
            self.position = self.position.max(batch.header.next_offset());
            self.epoch = batch.header.partition_leader_epoch;
        }
        Ok(batch)
    }

    /// Opens the next batch that has records for the application; `false` if there is none.
    fn open_next(&mut self, keep: &impl Fn(Bytes) -> Bytes) -> Result<bool, ChunkError> {
        while let Some(batch) = RawBatch::split(&mut self.rest) {
            let batch = batch?;
            let header = *batch.header();
            self.behind_failure = Some(header.next_offset());
            if self.check_crcs {
                batch.verify_crc()?;
            }
            if self.skips(&batch)? {
                self.position = self.position.max(header.next_offset());
                self.epoch = header.partition_leader_epoch;
                continue;
            }
            let records = batch.records(self.decompressed_limit)?;
            self.behind_failure = None;
            let body = match header.compression()? {
                Compression::None => records.body().clone(),
                _ => keep(records.body().clone()),
            };
            let from = self.position;
            self.open = Some(ChunkBatch { header, records, at: RecordsPosition::default(), body, from });
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the application shall not see a batch: a marker, or part of an aborted transaction.
    fn skips(&mut self, batch: &RawBatch) -> Result<bool, ChunkError> {
        let header = batch.header();
        while let Some(Aborted { producer_id, .. }) =
            self.aborted.pop_if(|transaction| transaction.first_offset <= header.last_offset())
        {
            self.aborting.insert(producer_id);
        }
        if header.is_control() {
            if self.aborting.contains(&header.producer_id) && self.is_abort_marker(batch)? {
                self.aborting.remove(&header.producer_id);
            }
            return Ok(true);
        }
        let behind = header.last_offset() < self.position;
        Ok(behind || header.is_transactional() && self.aborting.contains(&header.producer_id))
    }

    /// The key of a marker is version (2 bytes) and type (2 bytes): 0 aborts, 1 commits.
    fn is_abort_marker(&self, batch: &RawBatch) -> Result<bool, ChunkError> {
        let records = batch.records(self.decompressed_limit)?;
        let marker = records.iter().next().transpose()?;
        Ok(marker.and_then(|record| record.key?.get(2..4)).is_some_and(|kind| kind == [0, 0]))
    }
}

impl ChunkBatch {
    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// First offset to hand out; records before it are left out.
    pub fn from(&self) -> i64 {
        self.from.max(self.header.base_offset)
    }

    /// Decodes one record after the other, borrowed from the batch, and ends after the first error.
    #[inline]
    pub fn iter(&self) -> ChunkBatchIter<'_> {
        let (from, last) = (self.from, self.header.last_offset());
        ChunkBatchIter { records: self.records.iter_from(self.at), from, last }
    }

    /// A part of one of its records, which shares the batch's memory.
    #[inline]
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.body.slice_ref(part)
    }

    /// A record of this batch that shares its memory.
    pub fn materialize(&self, record: &RecordRef<'_>) -> ChunkRecord {
        let slice = |bytes: &[u8]| self.share(bytes);
        ChunkRecord {
            offset: record.offset,
            timestamp_ms: record.timestamp,
            timestamp_type: self.header.timestamp_type(),
            leader_epoch: self.header.partition_leader_epoch,
            key: record.key.map(slice),
            value: record.value.map(slice),
            headers: record
                .headers()
                .map(|HeaderRef { name, value }| (slice(name), value.map(slice)))
                .collect(),
        }
    }
}

/// Iterator over the records of a [`ChunkBatch`].
#[derive(Debug, Clone)]
pub struct ChunkBatchIter<'a> {
    records: RecordsIter<'a>,
    from: i64,
    last: i64,
}

impl<'a> Iterator for ChunkBatchIter<'a> {
    type Item = Result<RecordRef<'a>, ChunkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.last == i64::MIN {
                return None;
            }
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error.into())),
            };
            if record.offset > self.last {
                self.last = i64::MIN;
                return Some(Err(ChunkError::Offset { offset: record.offset }));
            }
            if record.offset >= self.from {
                self.from = record.offset + 1;
                return Some(Ok(record));
            }
        }
    }
}
