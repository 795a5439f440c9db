//! The log of one replica: record batches in a row, and what can be derived from them.
//!
//! In: whole batches, already placed (offset and leader epoch are in their headers). Out: the same batches by offset,
//! by time and by leader epoch.
//!
//! ```text
//! segments  │batch│batch│…│   │batch│batch│…│   │batch│…      bytes, the only truth; the last one grows
//! index     offset, time ──▶ position   ┐
//! epochs    leader epoch ──▶ offset     ├ derived; kept in files beside the segments where that pays (a disk)
//! producers id ──▶ last five batches    ┘
//! ```
//!
//! Invariant: offsets rise and leader epochs never fall from one batch to the next. Offsets may be left out, where
//! compaction has taken records away.

mod clean;
mod compact;
mod files;
mod index;
mod recover;
mod retention;
mod scan;
mod segment;
mod settings;

pub use clean::{Cleaning, CleaningLimits, Compacted};
pub use compact::NextInCleaning;
pub use files::{LEADER_EPOCHS, PARTITION_METADATA};
pub use recover::content;
pub use scan::{Batches, Cause, Damage};
pub use settings::LogSettings;

use bytes::Bytes;
use klamm_wire::BatchHeader;

use crate::Tick;
use crate::epoch::EpochCache;
use crate::producer_state::ProducerStates;
use crate::replica::{EpochEnd, FoundOffset};
use crate::storage::{Checkpoint, Directory, StorageError, Unsynced};
use scan::{Before, Place};
use segment::Segment;

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
pub struct Log<D> {
    directory: D,
    settings: LogSettings,
    /// Oldest first; empty only before the first append.
    segments: Vec<Segment>,
    epochs: EpochCache,
    /// The epochs have changed since they were last written down.
    epochs_changed: bool,
    producers: ProducerStates,
    start_offset: i64,
    end_offset: i64,
    /// Everything before it was made durable.
    recovery_point: i64,
    /// Offsets may have been left out.
    has_gaps: bool,
    /// Everything before this offset was compacted.
    cleaned_until: i64,
    /// Counts how often the log was cut.
    generation: u64,
    /// Files that wait for their deletion, and when that is due.
    doomed: Vec<(Option<Tick>, String)>,
}

/// A sync that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syncing {
    /// End of the log when it began.
    pub upto: i64,
    /// What to make durable.
    pub unsynced: Unsynced,
}

impl<D: Directory> Log<D> {
    /// Gives the directory back, as a kill leaves it.
    pub fn into_directory(self) -> D {
        self.directory
    }

    /// First offset that may be read.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// Offset of the next record.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Everything before this offset was made durable, as far as this log knows.
    pub fn recovery_point(&self) -> i64 {
        self.recovery_point
    }

    /// Whether offsets may have been left out, as compaction does.
    pub fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// Name of the file that holds an offset, if any is to be found there.
    pub fn segment_name(&self, offset: i64) -> Option<String> {
        let after = self.segments.partition_point(|segment| segment.base <= offset);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        Some(files::of_offset(segment.base, files::LOG))
    }

    /// Whether a segment is full that is not durable.
    pub fn has_rolled(&self) -> bool {
        self.segments.last().is_some_and(|active| active.base > self.recovery_point)
    }

    /// Size of all segments.
    pub fn len_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len(&self.directory)).sum()
    }

    /// The leader epochs.
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// The idempotent producers.
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// The directory.
    pub fn directory(&self) -> &D {
        &self.directory
    }

    /// The directory, for faults and for other files. What is changed of the log behind its back makes it wrong.
    pub fn directory_mut(&mut self) -> &mut D {
        &mut self.directory
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: LogSettings) {
        self.settings = settings;
    }

    /// Remembers this high watermark, the start of the log, and how far it is durable.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn checkpoint(&mut self, high_watermark: i64) -> Result<(), StorageError> {
        let (log_start_offset, recovery_point) = (self.start_offset, self.recovery_point);
        self.directory.set_checkpoint(Checkpoint { high_watermark, log_start_offset, recovery_point })
    }

    /// Begins an epoch where the log ends: the caller is its leader.
    pub fn begin_epoch(&mut self, epoch: i32) {
        self.epochs.assign(epoch, self.end_offset);
        self.epochs_changed = true;
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
        let before = Before { end: Some(self.end_offset), epoch: Some(last_epoch) };
        if scan::check_place(header, before).is_err() {
            return Err(LogError::NotNext {
                offset: header.base_offset,
                epoch: header.partition_leader_epoch,
                end: self.end_offset,
                last_epoch,
            });
        }
        self.has_gaps |= header.base_offset > self.end_offset;
        self.roll_if_due(header)?;
        let interval = self.settings.index_interval_bytes;
        if let Some(active) = self.segments.last_mut() {
            let position = self.directory.append(active.log, chunks)?;
            active.note(&mut self.directory, header, position, interval)?;
        }
        self.note(header);
        Ok(())
    }

    /// Brings epochs, producers and end up to date with a batch at the end of the log.
    fn note(&mut self, header: &BatchHeader) {
        if self.epochs.latest() != Some(header.partition_leader_epoch) {
            self.epochs.assign(header.partition_leader_epoch, header.base_offset);
            self.epochs_changed = true;
        }
        self.producers.appended(header);
        self.end_offset = header.next_offset();
    }

    /// Begins a new segment if the batch does not fit into the last one, or that is too old.
    fn roll_if_due(&mut self, header: &BatchHeader) -> Result<(), StorageError> {
        if let Some(active) = self.segments.last() {
            let (size, limit) = (header.size_bytes() as u64, self.settings.segment_bytes);
            let fits = active.fits(&self.directory, size, header.last_offset(), limit);
            if fits && !self.is_aged(active, header.max_timestamp) {
                return Ok(());
            }
        }
        let far = header.last_offset().saturating_sub(self.end_offset) > i64::from(i32::MAX);
        self.roll(if far { header.base_offset } else { self.end_offset })
    }

    fn is_aged(&self, active: &Segment, timestamp: i64) -> bool {
        let Some(first) = active.first_timestamp.filter(|first| *first >= 0) else { return false };
        let LogSettings { mut segment_ms, segment_jitter_ms, compact, max_compaction_lag_ms, .. } =
            self.settings;
        if compact && max_compaction_lag_ms > 0 {
            segment_ms = segment_ms.min(max_compaction_lag_ms);
        }
        // not chance, but different from segment to segment
        let spread = segment_jitter_ms.min(segment_ms).max(0) as u64;
        let drawn = (active.base as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        let jitter = drawn.checked_rem(spread).unwrap_or(0) as i64;
        timestamp.saturating_sub(first) > segment_ms.saturating_sub(jitter)
    }

    /// Closes the last segment and begins one at `base`.
    fn roll(&mut self, base: i64) -> Result<(), StorageError> {
        if let Some(active) = self.segments.last_mut() {
            active.close(&mut self.directory)?;
            self.take_snapshot()?;
        }
        self.segments.push(Segment::create(&mut self.directory, base)?);
        Ok(())
    }

    /// Makes the files of the first segment before there is anything for it: their names are then durable with whichever sync
    /// comes first.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn prepare(&mut self) -> Result<(), StorageError> {
        if self.segments.is_empty() { self.roll(self.end_offset) } else { Ok(()) }
    }

    /// Completes what is kept beside the segments, before a shutdown in order.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn close(&mut self) -> Result<(), StorageError> {
        if let Some(active) = self.segments.last_mut() {
            active.close(&mut self.directory)?;
        }
        self.write_epochs()?;
        self.take_snapshot()
    }

    /// Writes the epochs down if they have changed; durable with the next sync. Whoever moves the recovery point, or closes the
    /// log in order, has done so before: what is believed later without a look at its batches is believed with its epochs.
    fn write_epochs(&mut self) -> Result<(), StorageError> {
        if self.epochs_changed && self.settings.keeps_epochs && self.directory.keeps_derived() {
            self.directory.replace_later(LEADER_EPOCHS, self.epochs.encode())?;
        }
        self.epochs_changed = false;
        Ok(())
    }

    /// Begins to make everything durable; carry it out, then call [`Self::end_sync`].
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn begin_sync(&mut self) -> Result<Syncing, StorageError> {
        self.write_epochs()?;
        Ok(Syncing { upto: self.end_offset, unsynced: self.directory.begin_sync() })
    }

    /// Notes that the sync is done, and that nothing was cut off meanwhile.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn end_sync(&mut self, done: &Syncing) -> Result<(), StorageError> {
        self.directory.mark_synced(&done.unsynced)?;
        self.recovery_point = self.recovery_point.max(done.upto.min(self.end_offset));
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
        let Some((mut from, first)) = self.batch_at(offset)? else { return Ok(out) };
        let end = self.place_of(limit)?;
        let mut left = max_bytes as u64;
        let mut wanted = min_one.then_some(first.size_bytes() as u64);
        while from < end {
            let Some(segment) = self.segments.get(from.segment) else { break };
            let segment_end =
                if from.segment == end.segment { end.position } else { segment.len(&self.directory) };
            let mut to = self.last_boundary(segment, from.position, segment_end, left)?;
            if let Some(size) = wanted.take().filter(|_| to == from.position) {
                to = (from.position + size).min(segment_end);
            }
            self.directory.read(segment.log, from.position, (to - from.position) as usize, &mut out)?;
            left = left.saturating_sub(to - from.position);
            if to < segment_end || left == 0 {
                break;
            }
            from = Place { segment: from.segment + 1, position: 0 };
        }
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
        let late = |segment: &Segment| segment.index.max_timestamp().is_some_and(|max| max >= timestamp);
        let Some(number) = self.segments.iter().position(late) else { return Ok(None) };
        let near =
            self.segments.get(number).map_or(0, |found| found.index.before_timestamp(found.base, timestamp));
        for found in Batches::new(self, Place { segment: number, position: near }) {
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
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1).map_or(self.end_offset, |next| next.base);
            // a segment that may be read as a whole need not be gone through
            if next <= limit && segment.base >= self.start_offset {
                latest = latest.max(segment.index.max_timestamp());
                continue;
            }
            let mut position = 0;
            while let Some(header) = segment.header_at(&self.directory, position)? {
                if header.base_offset >= limit {
                    break;
                }
                if header.next_offset() > self.start_offset {
                    latest = latest.max(Some(header.max_timestamp));
                }
                position += header.size_bytes() as u64;
            }
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
            self.epochs_changed = true;
            return Ok(false);
        }
        if offset < self.start_offset {
            self.restart_at(offset)?;
            return Ok(true);
        }
        let (place, mut end_offset) = match self.batch_at(offset)? {
            Some((place, header)) if header.base_offset < offset => (place, header.base_offset),
            Some((place, _)) => (place, offset),
            None => (self.end_place(), offset),
        };
        if end_offset < self.start_offset {
            self.restart_at(self.start_offset)?;
            return Ok(true);
        }
        self.lower_cleaned(end_offset);
        self.lower_recovery_point(end_offset)?;
        while self.segments.len() > place.segment + 1 {
            if let Some(last) = self.segments.pop() {
                self.remove_segment(&last)?;
            }
        }
        let interval = self.settings.index_interval_bytes;
        if let Some(last) = self.segments.last_mut() {
            let left = last.truncate_to(&mut self.directory, place.position, interval)?;
            end_offset = left.max(self.start_offset);
        }
        self.end_offset = end_offset;
        self.epochs.truncate_from_end(end_offset);
        self.epochs_changed = true;
        self.remove_snapshots(|at| at > end_offset)?;
        if self.producers.reaches(end_offset) {
            self.rebuild_producers()?;
        }
        Ok(true)
    }

    /// What lies behind `offset` is about to change: it was not compacted, and a compaction under way is void.
    fn lower_cleaned(&mut self, offset: i64) {
        self.generation += 1;
        if self.cleaned_until > offset {
            self.cleaned_until = offset;
            self.directory.set_cleaned_until(offset);
        }
    }

    /// What lies behind `offset` is about to change: nobody may take it for durable, now or after a loss of power.
    fn lower_recovery_point(&mut self, offset: i64) -> Result<(), StorageError> {
        self.recovery_point = self.recovery_point.min(offset);
        let known = self.directory.checkpoint();
        if known.recovery_point > offset {
            self.directory.set_checkpoint(Checkpoint { recovery_point: offset, ..known })?;
        }
        Ok(())
    }

    /// Empties the log; the next record gets `offset`.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn restart_at(&mut self, offset: i64) -> Result<(), StorageError> {
        self.lower_cleaned(0);
        self.lower_recovery_point(offset.min(self.start_offset))?;
        for segment in std::mem::take(&mut self.segments) {
            self.remove_segment(&segment)?;
        }
        self.remove_snapshots(|_| true)?;
        // An old segment that comes back must not stand beside the new one.
        self.directory.sync_now()?;
        let high_watermark = self.directory.checkpoint().high_watermark.min(offset);
        let checkpoint = Checkpoint { high_watermark, log_start_offset: offset, recovery_point: offset };
        self.directory.set_checkpoint(checkpoint)?;
        self.epochs.clear();
        self.epochs_changed = true;
        self.producers.clear();
        self.start_offset = offset;
        self.end_offset = offset;
        self.recovery_point = offset;
        if offset > 0 {
            self.segments.push(Segment::create(&mut self.directory, offset)?);
        }
        Ok(())
    }

    /// Gives up the records before `offset`, which must lie in the log; what lies before the start already is no error.
    /// Segments that lie before it as a whole go, but for the last one.
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
        let checkpoint = self.directory.checkpoint();
        self.directory.set_checkpoint(Checkpoint { log_start_offset: offset, ..checkpoint })?;
        self.start_offset = offset;
        self.epochs.truncate_from_start(offset);
        self.epochs_changed = true;
        while self.segments.get(1).is_some_and(|next| next.base <= offset) {
            let first = self.segments.remove(0);
            self.doom_segment(&first)?;
        }
        Ok(())
    }

    /// The place of a batch: `place`, or the beginning of the next segment that is not empty; `None` at the end.
    fn at_batch(&self, mut place: Place) -> Option<Place> {
        loop {
            let segment = self.segments.get(place.segment)?;
            if place.position < segment.len(&self.directory) {
                return Some(place);
            }
            place = Place { segment: place.segment + 1, position: 0 };
        }
    }

    /// The header of the batch at a place; `None` at the end.
    fn header_at(&self, place: Place) -> Result<Option<(Place, BatchHeader)>, LogError> {
        let Some(place) = self.at_batch(place) else { return Ok(None) };
        let Some(segment) = self.segments.get(place.segment) else { return Ok(None) };
        Ok(segment.header_at(&self.directory, place.position)?.map(|header| (place, header)))
    }

    /// The batch that holds `offset`, or the first one behind it.
    fn batch_at(&self, offset: i64) -> Result<Option<(Place, BatchHeader)>, LogError> {
        let after = self.segments.partition_point(|segment| segment.base <= offset);
        let number = after.saturating_sub(1);
        let Some(segment) = self.segments.get(number) else { return Ok(None) };
        let mut place =
            Place { segment: number, position: segment.index.before_offset(segment.base, offset) };
        while let Some((found, header)) = self.header_at(place)? {
            if header.next_offset() > offset {
                return Ok(Some((found, header)));
            }
            place = Place { position: found.position + header.size_bytes() as u64, ..found };
        }
        Ok(None)
    }

    /// Where the batch that holds `offset` begins, or the first one behind it; the end for the end of the log.
    fn place_of(&self, offset: i64) -> Result<Place, LogError> {
        if offset >= self.end_offset {
            return Ok(self.end_place());
        }
        Ok(self.batch_at(offset)?.map_or(self.end_place(), |(place, _)| place))
    }

    fn end_place(&self) -> Place {
        let position = self.segments.last().map_or(0, |last| last.len(&self.directory));
        Place { segment: self.segments.len().saturating_sub(1), position }
    }

    /// The last batch boundary in `from..=end` that is at most `max_bytes` away from `from`.
    fn last_boundary(&self, segment: &Segment, from: u64, end: u64, max_bytes: u64) -> Result<u64, LogError> {
        let furthest = from.saturating_add(max_bytes);
        if furthest >= end {
            return Ok(end);
        }
        let mut to = segment.index.before_position(furthest).max(from);
        while let Some(header) = segment.header_at(&self.directory, to)? {
            let next = to + header.size_bytes() as u64;
            if next > furthest {
                break;
            }
            to = next;
        }
        Ok(to)
    }

    /// Every batch, checked one by one; ends after the first damage.
    pub fn batches(&self) -> Batches<'_, D> {
        Batches::new(self, Place { segment: 0, position: 0 })
    }
}

#[cfg(test)]
mod cleaning_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
