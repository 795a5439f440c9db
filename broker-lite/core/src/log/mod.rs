//! The log of one replica: record batches in a row, and what can be derived from them.
//!
//! In: whole batches, already placed (offset and leader epoch are in their headers). Out: the same batches by offset,
//! by time and by leader epoch.
//!
//! ```text
//! storage   │batch│batch│batch│…        bytes, the only truth
//! index     offset, time ──▶ position   ┐
//! epochs    leader epoch ──▶ offset     ├ rebuilt from the batches when the log is opened
//! producers id ──▶ last five batches    ┘
//! ```
//!
//! Invariant: offsets have no gaps and leader epochs never fall from one batch to the next.

mod index;
mod scan;

pub use scan::{Batches, Cause, Damage};

use bytes::Bytes;
use klamm_wire::BatchHeader;
use klamm_wire::planted::{Bug, planted};

use crate::epoch::EpochCache;
use crate::producer_state::ProducerStates;
use crate::replica::{EpochEnd, FoundOffset};
use crate::storage::{Checkpoint, Storage, StorageError};
use index::SparseIndex;

/// Why a log could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stored bytes are not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The offset lies outside the log.
    #[error("offset {offset} is not in {start}..={end}")]
    OutOfRange {
        /// Offset asked for.
        offset: i64,
        /// First offset of the log.
        start: i64,
        /// Offset of the next record.
        end: i64,
    },
    /// The batch does not continue the log.
    #[error("a batch at offset {offset} of epoch {epoch} cannot follow offset {end} of epoch {last_epoch}")]
    NotNext {
        /// Its base offset.
        offset: i64,
        /// Its leader epoch.
        epoch: i32,
        /// Offset of the next record.
        end: i64,
        /// Epoch of the last record, or -1.
        last_epoch: i32,
    },
}

/// The log of one replica.
#[derive(Debug)]
pub struct Log<S> {
    storage: S,
    index: SparseIndex,
    epochs: EpochCache,
    producers: ProducerStates,
    start_offset: i64,
    end_offset: i64,
}

impl<S: Storage> Log<S> {
    /// Opens what the storage holds. The log ends before the first batch that is torn, damaged or out of order: the
    /// rest is cut off, and returned as the second value is why. Epochs of which no record is left are forgotten.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn open(storage: S) -> Result<(Self, Option<Damage>), StorageError> {
        let checkpoint = storage.checkpoint();
        let mut log = Self {
            storage,
            index: SparseIndex::default(),
            epochs: EpochCache::default(),
            producers: ProducerStates::default(),
            start_offset: checkpoint.log_start_offset,
            end_offset: checkpoint.log_start_offset,
        };
        let damage = log.rebuild()?;
        Ok((log, damage))
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// First offset that may be read.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// Offset of the next record.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Offset behind the last batch that survives a loss of power as a whole.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`].
    pub fn synced_offset(&self) -> Result<i64, LogError> {
        let synced = self.storage.synced();
        if synced >= self.storage.end() {
            return Ok(self.end_offset);
        }
        let near = self.index.before_position(synced).map_or(self.storage.start(), |entry| entry.position);
        let mut position = near;
        while let Some(header) = self.header_at(position)? {
            position += header.size_bytes() as u64;
            if position > synced {
                return Ok(header.base_offset.max(self.start_offset));
            }
        }
        Ok(self.end_offset)
    }

    /// Size of the log, in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.storage.end().saturating_sub(self.storage.start())
    }

    /// The leader epochs.
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// The idempotent producers.
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The storage, for faults and checkpoints. What is appended or cut behind the log's back makes it wrong.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Remembers this high watermark, and the start of the log.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn checkpoint(&mut self, high_watermark: i64) -> Result<(), StorageError> {
        self.storage.set_checkpoint(Checkpoint { high_watermark, log_start_offset: self.start_offset })
    }

    /// Begins an epoch where the log ends: the caller is its leader.
    pub fn begin_epoch(&mut self, epoch: i32) {
        self.epochs.assign(epoch, self.end_offset);
    }

    /// Forgets idempotent producers whose last batch is older than `before_ms`.
    pub fn expire_producers(&mut self, before_ms: i64) {
        self.producers.expire(before_ms);
    }

    /// Appends one batch, whose header says where it belongs. `chunks` are its bytes, header included.
    ///
    /// # Errors
    ///
    /// [`LogError::NotNext`] if it does not continue the log, [`LogError::Storage`].
    pub fn append(&mut self, header: &BatchHeader, chunks: &[Bytes]) -> Result<(), LogError> {
        let last_epoch = self.epochs.latest().unwrap_or(-1);
        if header.base_offset != self.end_offset
            || header.last_offset_delta < 0
            || header.partition_leader_epoch < last_epoch
        {
            return Err(LogError::NotNext {
                offset: header.base_offset,
                epoch: header.partition_leader_epoch,
                end: self.end_offset,
                last_epoch,
            });
        }
        let position = self.storage.append(chunks)?;
        self.note(header, position);
        Ok(())
    }

    /// Whole batches from the one that holds `offset` on, all of them before `limit`, of at most `max_bytes` together.
    /// With `min_one` the first batch comes even if it is larger.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfRange`] if `offset` is not in the log (its end is fine), [`LogError::Damaged`],
    /// [`LogError::Storage`].
    pub fn read(
        &self,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Vec<Bytes>, LogError> {
        if offset < self.start_offset || offset > self.end_offset {
            let (start, end) = (self.start_offset, self.end_offset);
            return Err(LogError::OutOfRange { offset, start, end });
        }
        let mut out = Vec::new();
        if offset >= limit {
            return Ok(out);
        }
        let Some((from, first)) = self.batch_at(offset)? else { return Ok(out) };
        let end = self.position_of(limit)?;
        let first_end = from + first.size_bytes() as u64;
        let mut to = self.last_boundary(from, end, max_bytes)?;
        if to == from && min_one {
            to = first_end.min(end);
        }
        self.storage.read(from, (to - from) as usize, &mut out)?;
        Ok(out)
    }

    /// The largest epoch not above `epoch`, and where it ends in this log.
    pub fn end_of_epoch(&self, epoch: i32) -> EpochEnd {
        self.epochs.end_of(epoch, self.end_offset)
    }

    /// The first record before `limit` at or after a time.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`].
    pub fn at_timestamp(
        &self,
        timestamp: i64,
        limit: i64,
        decompression_limit_bytes: usize,
    ) -> Result<Option<FoundOffset>, LogError> {
        let Some(near) = self.index.before_timestamp(timestamp) else { return Ok(None) };
        for found in self.batches_from(near.position) {
            let (position, batch) = found?;
            let header = batch.header();
            if header.base_offset >= limit {
                break;
            }
            if header.max_timestamp < timestamp || header.next_offset() <= self.start_offset {
                continue;
            }
            let damaged = |error| Damage::new(position, header.base_offset, Cause::Batch(error));
            let records = batch.records(decompression_limit_bytes).map_err(damaged)?;
            for record in &records {
                let record = record.map_err(damaged)?;
                if record.timestamp >= timestamp && record.offset >= self.start_offset {
                    return Ok(Some(FoundOffset {
                        offset: record.offset,
                        timestamp: record.timestamp,
                        leader_epoch: header.partition_leader_epoch,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The first record before `limit` that has the largest timestamp.
    ///
    /// # Errors
    ///
    /// As [`Self::at_timestamp`].
    pub fn at_max_timestamp(
        &self,
        limit: i64,
        decompression_limit_bytes: usize,
    ) -> Result<Option<FoundOffset>, LogError> {
        let mut latest = None;
        let mut position = self.storage.start();
        while let Some(header) = self.header_at(position)? {
            if header.base_offset >= limit {
                break;
            }
            if header.next_offset() > self.start_offset {
                latest = latest.max(Some(header.max_timestamp));
            }
            position += header.size_bytes() as u64;
        }
        match latest {
            Some(timestamp) => self.at_timestamp(timestamp, limit, decompression_limit_bytes),
            None => Ok(None),
        }
    }

    /// Cuts the log so that it ends at `offset` at the latest; a batch that reaches beyond goes as a whole.
    /// Returns `true` if records were cut off. Epochs that begin there are forgotten in any case.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`].
    pub fn truncate_to(&mut self, offset: i64) -> Result<bool, LogError> {
        if offset >= self.end_offset {
            self.epochs.truncate_from_end(offset);
            return Ok(false);
        }
        if offset < self.start_offset {
            self.restart_at(offset)?;
            return Ok(true);
        }
        let (position, end_offset) = match self.batch_at(offset)? {
            Some((position, header)) => (position, header.base_offset),
            None => (self.storage.end(), self.end_offset),
        };
        if end_offset < self.start_offset {
            self.restart_at(self.start_offset)?;
            return Ok(true);
        }
        self.storage.truncate_to(position)?;
        self.end_offset = end_offset;
        self.epochs.truncate_from_end(end_offset);
        if let Some(near) = self.index.truncate_to(position) {
            let mut at = near.position;
            while let Some(header) = self.header_at(at)? {
                self.index.again(header.max_timestamp);
                at += header.size_bytes() as u64;
            }
        }
        if self.producers.reaches(end_offset) {
            self.rebuild_producers()?;
        }
        Ok(true)
    }

    /// Empties the log; the next record gets `offset`.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn restart_at(&mut self, offset: i64) -> Result<(), StorageError> {
        let high_watermark = self.storage.checkpoint().high_watermark.min(offset);
        self.storage.truncate_to(self.storage.start())?;
        self.storage.set_checkpoint(Checkpoint { high_watermark, log_start_offset: offset })?;
        self.index.clear();
        self.epochs.clear();
        self.producers.clear();
        self.start_offset = offset;
        self.end_offset = offset;
        Ok(())
    }

    /// Gives up the records before `offset`, which must lie in the log; what lies before the start already is no error.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfRange`], [`LogError::Damaged`], [`LogError::Storage`].
    pub fn advance_start(&mut self, offset: i64) -> Result<(), LogError> {
        if offset <= self.start_offset {
            return Ok(());
        }
        if offset > self.end_offset {
            let (start, end) = (self.start_offset, self.end_offset);
            return Err(LogError::OutOfRange { offset, start, end });
        }
        let checkpoint = self.storage.checkpoint();
        self.storage.set_checkpoint(Checkpoint { log_start_offset: offset, ..checkpoint })?;
        let position = self.position_of(offset)?;
        self.start_offset = offset;
        self.epochs.truncate_from_start(offset);
        self.storage.truncate_prefix(position)?;
        match self.header_at(self.storage.start())? {
            Some(first) => self.index.truncate_prefix(self.storage.start(), first.base_offset),
            None => self.index.clear(),
        }
        Ok(())
    }

    /// The header of the batch at `position`; `None` at the end.
    fn header_at(&self, position: u64) -> Result<Option<BatchHeader>, LogError> {
        if position >= self.storage.end() {
            return Ok(None);
        }
        Ok(Some(scan::header(&self.storage, position)?))
    }

    /// The batch that holds `offset`, or the first one behind it.
    fn batch_at(&self, offset: i64) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let near = self.index.before_offset(offset).map_or(self.storage.start(), |entry| entry.position);
        let mut position = near;
        while let Some(header) = self.header_at(position)? {
            if header.next_offset() > offset {
                return Ok(Some((position, header)));
            }
            position += header.size_bytes() as u64;
        }
        Ok(None)
    }

    /// Where the batch that holds `offset` begins; the end of the storage for the end of the log.
    fn position_of(&self, offset: i64) -> Result<u64, LogError> {
        if offset >= self.end_offset {
            return Ok(self.storage.end());
        }
        Ok(self.batch_at(offset)?.map_or(self.storage.end(), |(position, _)| position))
    }

    /// The last batch boundary in `from..=end` that is at most `max_bytes` away from `from`.
    fn last_boundary(&self, from: u64, end: u64, max_bytes: usize) -> Result<u64, LogError> {
        let furthest = from.saturating_add(max_bytes as u64);
        if furthest >= end {
            return Ok(end);
        }
        let mut to = self.index.before_position(furthest).map_or(from, |entry| entry.position.max(from));
        while let Some(header) = self.header_at(to)? {
            let next = to + header.size_bytes() as u64;
            if next > furthest {
                break;
            }
            to = next;
        }
        Ok(to)
    }

    /// Brings index, epochs, producers and end up to date with a batch at the end of the storage.
    fn note(&mut self, header: &BatchHeader, position: u64) {
        self.index.appended(header.base_offset, position, header.max_timestamp);
        self.epochs.assign(header.partition_leader_epoch, header.base_offset);
        self.producers.appended(header);
        self.end_offset = header.next_offset();
    }

    /// Derives everything from the storage, and cuts off what is no log any more.
    fn rebuild(&mut self) -> Result<Option<Damage>, StorageError> {
        let first = scan::header(&self.storage, self.storage.start()).ok();
        if let Some(first) = first.filter(|_| self.storage.start() < self.storage.end()) {
            self.start_offset = self.start_offset.max(first.base_offset);
            self.end_offset = first.base_offset;
        }
        let mut position = self.storage.start();
        let mut damage = None;
        while position < self.storage.end() {
            match scan::batch(&self.storage, position, Some(self.end_offset), self.epochs.latest()) {
                Ok(batch) => {
                    let header = *batch.header();
                    self.note(&header, position);
                    position += header.size_bytes() as u64;
                }
                Err(found) => {
                    damage = Some(found);
                    break;
                }
            }
        }
        if !planted(Bug::KeepTornBatch) {
            self.storage.truncate_to(position)?;
        }
        if self.end_offset < self.start_offset {
            self.restart_at(self.start_offset)?;
        }
        self.epochs.truncate_from_start(self.start_offset);
        Ok(damage)
    }

    fn rebuild_producers(&mut self) -> Result<(), LogError> {
        self.producers.clear();
        let mut position = self.storage.start();
        while let Some(header) = self.header_at(position)? {
            self.producers.appended(&header);
            position += header.size_bytes() as u64;
        }
        Ok(())
    }

    /// Every batch with its position, checked one by one; ends after the first damage.
    pub fn batches(&self) -> Batches<'_, S> {
        self.batches_from(self.storage.start())
    }

    fn batches_from(&self, position: u64) -> Batches<'_, S> {
        Batches::new(&self.storage, position)
    }

    /// Checks every byte of the log again: CRC of every batch, offsets without gaps, the epochs it was appended with,
    /// and that the end is where the log believes it is. Empty if all is well.
    ///
    /// A wrong CRC does not hide what follows; a length that cannot be true does.
    pub fn verify(&self) -> Vec<Damage> {
        let mut damages = Vec::new();
        let mut position = self.storage.start();
        let mut expected = self.index.before_position(position).map_or(self.end_offset, |first| first.offset);
        while position < self.storage.end() {
            let header = match scan::header(&self.storage, position) {
                Ok(header) => header,
                Err(damage) => {
                    damages.push(damage);
                    return damages;
                }
            };
            if let Err(damage) = self.verify_batch(position, expected) {
                damages.push(damage);
            }
            position += header.size_bytes() as u64;
            expected = header.next_offset();
        }
        if damages.is_empty() && expected != self.end_offset {
            damages.push(Damage::new(position, expected, Cause::Offset { expected: self.end_offset }));
        }
        damages
    }

    fn verify_batch(&self, position: u64, offset: i64) -> Result<(), Damage> {
        let batch = scan::batch(&self.storage, position, Some(offset), None)?;
        let epoch = batch.header().partition_leader_epoch;
        match self.epochs.epoch_at(offset) {
            Some(expected) if expected != epoch => {
                Err(Damage::new(position, offset, Cause::Epoch { epoch, expected }))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
