//! Opening a log, and checking it.
//!
//! ```text
//!            recovery point
//! segments ──────────┼──────────▶
//!   believed: index  │ looked through, byte by byte, and cut at the first
//!   from its files   │ damage; after a shutdown in order believed, too
//! ```

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use klamm_wire::BatchHeader;
use klamm_wire::planted::{Bug, planted};

use super::files::{self, CLEANED, DELETED, INDEX, LEADER_EPOCHS, SNAPSHOT, SWAP, TIME_INDEX};
use super::scan::{self, Before, Cause, Damage, Place};
use super::segment::Segment;
use super::{Log, LogError, LogSettings};
use crate::epoch::EpochCache;
use crate::producer_state::ProducerStates;
use crate::storage::{Directory, StorageError, read_file};

/// What is left over of writing a file of another name.
const TEMPORARY: &str = "tmp";

impl<D: Directory> Log<D> {
    /// Opens what the directory holds. The log ends before the first batch that is torn, damaged or out of order: the
    /// rest is cut off, and returned as the second value is why. Epochs of which no record is left are forgotten.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn open(directory: D, settings: LogSettings) -> Result<(Self, Option<Damage>), StorageError> {
        let checkpoint = directory.checkpoint();
        let mut log = Self {
            directory,
            settings,
            segments: Vec::new(),
            epochs: EpochCache::default(),
            epochs_changed: false,
            producers: ProducerStates::default(),
            start_offset: checkpoint.log_start_offset,
            end_offset: checkpoint.log_start_offset,
            recovery_point: checkpoint.recovery_point,
            has_gaps: false,
            cleaned_until: 0,
            generation: 0,
            doomed: Vec::new(),
        };
        let damage = log.rebuild()?;
        Ok((log, damage))
    }

    /// Derives everything from the directory, and cuts off what is no log any more.
    fn rebuild(&mut self) -> Result<Option<Damage>, StorageError> {
        let names = self.tidy()?;
        let mut knows_epochs = self.load_epochs(&names)?;
        let bases: Vec<i64> = names.iter().filter_map(|name| files::segment_offset(name)).collect();
        if let Some(first) = bases.first() {
            self.start_offset = self.start_offset.max(*first);
            self.end_offset = *first;
        }
        let mut damage = None;
        for (number, base) in bases.iter().enumerate() {
            let next = bases.get(number + 1).copied();
            if damage.is_none() {
                damage = match self.missing_before(*base) {
                    None => self.open_segment(*base, next, &mut knows_epochs)?,
                    missing => missing,
                };
            }
            if damage.is_some() && self.segments.last().is_none_or(|last| last.base < *base) {
                for extension in files::OF_SEGMENT {
                    self.directory.remove(&files::of_offset(*base, extension))?;
                }
            }
        }
        if self.end_offset < self.start_offset {
            self.restart_at(self.start_offset)?;
        }
        self.recovery_point = self.recovery_point.min(self.end_offset);
        self.cleaned_until = self.directory.cleaned_until().min(self.end_offset);
        self.epochs.truncate_from_end(self.end_offset);
        self.epochs.truncate_from_start(self.start_offset);
        if damage.is_some() {
            let end = self.end_offset;
            self.remove_snapshots(|at| at > end)?;
        }
        match self.rebuild_producers() {
            Err(LogError::Storage(error)) => return Err(error),
            Err(error) if damage.is_none() => return Err(StorageError::Failed(error.to_string())),
            // Behind the damage there is nothing, unless it was kept on purpose.
            _ => {}
        }
        Ok(damage)
    }

    /// Removes what a process has left half done; returns the names of the rest.
    fn tidy(&mut self) -> Result<Vec<String>, StorageError> {
        let mut half_done = BTreeSet::new();
        let mut swaps = Vec::new();
        for name in self.directory.names()? {
            let Some((file, suffix)) = name.rsplit_once('.') else { continue };
            match suffix {
                SWAP => swaps.push(file.to_owned()),
                TEMPORARY | DELETED => self.directory.remove(&name)?,
                CLEANED => {
                    half_done.extend(base_of(file));
                    self.directory.remove(&name)?;
                }
                _ => {}
            }
        }
        // Kafka renames one or several cleaned segments to `.swap`, in order; then those they came from go.
        let complete = half_done.first().copied().unwrap_or(i64::MAX);
        for file in swaps {
            let base = base_of(&file);
            half_done.extend(base);
            if base.is_none_or(|base| base >= complete) {
                self.directory.remove(&format!("{file}.{SWAP}"))?;
                continue;
            }
            self.directory.rename(&format!("{file}.{SWAP}"), &file)?;
            if let Some(base) = files::segment_offset(&file) {
                self.remove_replaced(base)?;
            }
        }
        // Which index belongs to which segment nobody knows.
        for base in half_done {
            for extension in [INDEX, TIME_INDEX] {
                self.directory.remove(&files::of_offset(base, extension))?;
            }
        }
        self.directory.names()
    }

    /// Removes the segments whose records are in the one that begins at `base`.
    fn remove_replaced(&mut self, base: i64) -> Result<(), StorageError> {
        let segment = Segment::open(&mut self.directory, base)?;
        let (mut position, mut end) = (0, base);
        while let Ok(Some(header)) = segment.header_at(&self.directory, position) {
            position += header.size_bytes() as u64;
            end = header.next_offset();
        }
        for other in self.directory.names()?.iter().filter_map(|name| files::segment_offset(name)) {
            if other > base && other < end {
                let replaced = Segment::open(&mut self.directory, other)?;
                self.remove_segment(&replaced)?;
            }
        }
        Ok(())
    }

    /// Takes the epochs from their file; `false` if there is none that can be read: they are derived from the batches then.
    fn load_epochs(&mut self, names: &[String]) -> Result<bool, StorageError> {
        if !self.directory.keeps_derived() || names.iter().all(|name| name != LEADER_EPOCHS) {
            return Ok(false);
        }
        let content = read_file(&mut self.directory, LEADER_EPOCHS)?;
        let known = EpochCache::decode(&content);
        self.epochs = known.clone().unwrap_or_default();
        Ok(known.is_some())
    }

    /// Behind the recovery point each segment begins where the one before ended, or else its end is lost: compaction, which
    /// leaves such gaps, keeps before that point. A gap that no segment can span is none of those.
    fn missing_before(&self, base: i64) -> Option<Damage> {
        let (end, last) = (self.end_offset, self.segments.last()?);
        let span = 0..=i64::from(i32::MAX);
        let lost = end > self.recovery_point && !self.directory.was_closed() && span.contains(&(base - end));
        let cause = Cause::Offset { expected: end };
        (lost && base != end && self.recovery_point >= 0).then(|| Damage::new(0, base, cause).of(last.base))
    }

    /// Opens the segment that begins at `base`, the next one at `next`, and moves the end of the log behind it.
    fn open_segment(
        &mut self,
        base: i64,
        next: Option<i64>,
        knows_epochs: &mut bool,
    ) -> Result<Option<Damage>, StorageError> {
        let mut segment = Segment::open(&mut self.directory, base)?;
        let believed = self.directory.was_closed() || next.is_some_and(|next| next <= self.recovery_point);
        self.has_gaps |= !self.segments.is_empty() && base > self.end_offset;
        self.end_offset = self.end_offset.max(base);
        if believed && *knows_epochs && segment.load_index(&mut self.directory)? {
            let at = segment.index.before_position(u64::MAX);
            // what is not looked at may have some
            self.has_gaps |= at > 0;
            let mut of_file = true;
            let damage = self.walk(&mut segment, at, true, |log, (_, header), _| {
                of_file &= log.agrees(header);
                Ok(())
            })?;
            if damage.is_none() && of_file {
                self.segments.push(segment);
                return Ok(None);
            }
            if !of_file {
                // Whoever compares epochs would be told wrong ends: the batches say better from here on.
                *knows_epochs = false;
                self.epochs.truncate_from_end(base);
            }
            self.end_offset = base;
        }
        let knows_epochs = *knows_epochs;
        if !believed {
            self.epochs.truncate_from_end(base);
        }
        segment.reset_index(&mut self.directory)?;
        let interval = self.settings.index_interval_bytes;
        let mut cut_at = 0;
        let damage = self.walk(&mut segment, 0, believed, |log, (segment, header), at| {
            cut_at = at + header.size_bytes() as u64;
            if !(believed && knows_epochs) {
                log.epochs.assign(header.partition_leader_epoch, header.base_offset);
                log.epochs_changed = true;
            }
            segment.note(&mut log.directory, header, at, interval)
        })?;
        if damage.is_some() && !planted(Bug::KeepTornBatch) {
            self.directory.set_len(segment.log, cut_at)?;
        }
        if next.is_some() {
            segment.close(&mut self.directory)?;
        }
        self.segments.push(segment);
        Ok(damage)
    }

    /// Whether the epochs are those of this batch.
    fn agrees(&self, header: &BatchHeader) -> bool {
        let known = self.epochs.epoch_at(header.base_offset.max(self.start_offset));
        header.next_offset() <= self.start_offset || known == Some(header.partition_leader_epoch)
    }

    /// Goes from batch to batch of a segment, and moves the end of the log along; the CRC is summed unless the bytes are
    /// `believed`.
    fn walk(
        &mut self,
        segment: &mut Segment,
        from: u64,
        believed: bool,
        mut each: impl FnMut(&mut Self, (&mut Segment, &BatchHeader), u64) -> Result<(), StorageError>,
    ) -> Result<Option<Damage>, StorageError> {
        let mut position = from;
        let mut end = (from == 0).then_some(self.end_offset);
        while position < segment.len(&self.directory) {
            let epoch = self.epochs.latest().filter(|_| !believed);
            let before = Before { end, epoch };
            let found = if believed {
                scan::header(&self.directory, segment.log, position)
                    .and_then(|header| placed(header, position, before))
            } else {
                let batch = scan::batch(&self.directory, segment.log, position, before);
                batch.map(|batch| *batch.header())
            };
            let header = match found {
                Ok(header) if header.last_offset() - segment.base <= i64::from(i32::MAX) => header,
                Ok(header) => {
                    let cause = Cause::Offset { expected: self.end_offset };
                    return Ok(Some(Damage::new(position, header.base_offset, cause).of(segment.base)));
                }
                Err(damage) => return Ok(Some(damage.of(segment.base))),
            };
            self.has_gaps |= end.is_some_and(|end| header.base_offset > end);
            self.end_offset = header.next_offset();
            end = Some(self.end_offset);
            each(self, (segment, &header), position)?;
            position += header.size_bytes() as u64;
        }
        Ok(None)
    }

    /// Derives the producers from the latest snapshot that can be believed, and the batches behind it.
    pub(super) fn rebuild_producers(&mut self) -> Result<(), LogError> {
        self.producers.clear();
        let believed = if self.directory.was_closed() { self.end_offset } else { self.recovery_point };
        let from = self.load_snapshot(believed.min(self.end_offset))?;
        let mut place = match from {
            Some(offset) => self.place_of(offset)?,
            None => Place { segment: 0, position: 0 },
        };
        while let Some((found, header)) = self.header_at(place)? {
            if from.is_none_or(|from| header.base_offset >= from) {
                self.producers.appended(&header);
            }
            place = Place { position: found.position + header.size_bytes() as u64, ..found };
        }
        Ok(())
    }

    /// Takes the producers from the latest sound snapshot at or before `upto`; returns where it was taken.
    fn load_snapshot(&mut self, upto: i64) -> Result<Option<i64>, StorageError> {
        let names = if self.directory.keeps_derived() { self.directory.names()? } else { Vec::new() };
        let mut offsets: Vec<i64> = names
            .iter()
            .filter_map(|name| files::offset_in(name, SNAPSHOT))
            .filter(|at| *at <= upto)
            .collect();
        offsets.sort_unstable();
        while let Some(offset) = offsets.pop() {
            let content = read_file(&mut self.directory, &files::of_offset(offset, SNAPSHOT))?;
            if let Some(producers) = ProducerStates::decode(&content) {
                self.producers = producers;
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// Writes the producers down as they are at the end of the log.
    pub(super) fn take_snapshot(&mut self) -> Result<(), StorageError> {
        if !self.directory.keeps_derived() {
            return Ok(());
        }
        let file = self.directory.create(&files::of_offset(self.end_offset, SNAPSHOT))?;
        self.directory.append(file, &[self.producers.encode()])?;
        Ok(())
    }

    pub(super) fn remove_snapshots(&mut self, which: impl Fn(i64) -> bool) -> Result<(), StorageError> {
        if !self.directory.keeps_derived() {
            return Ok(());
        }
        for name in self.directory.names()? {
            if files::offset_in(&name, SNAPSHOT).is_some_and(&which) {
                self.directory.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Offset behind the last batch that survives a loss of power as a whole, as far as the directory knows.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`].
    pub fn synced_offset(&self) -> Result<i64, LogError> {
        let mut durable = self.recovery_point.clamp(self.start_offset, self.end_offset);
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1).map_or(self.end_offset, |next| next.base);
            if next <= durable {
                continue;
            }
            let synced = self.directory.synced_len(segment.log);
            if synced < segment.len(&self.directory) {
                let mut at = segment.index.before_position(synced);
                while let Some(header) = segment.header_at(&self.directory, at)? {
                    at += header.size_bytes() as u64;
                    if at > synced {
                        return Ok(header.base_offset.max(durable));
                    }
                }
            }
            durable = next;
        }
        Ok(durable)
    }

    /// Checks every byte of the log again: CRC of every batch, offsets that rise, the epochs it was appended with, and that
    /// the end is where the log believes it is. Empty if all is well.
    ///
    /// A wrong CRC does not hide what follows in later segments; a length that cannot be true hides the rest of its own.
    pub fn verify(&self) -> Vec<Damage> {
        let mut damages = Vec::new();
        let mut before = self.segments.first().map_or(self.end_offset, |first| first.base);
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1).map(|next| next.base);
            before = before.max(segment.base);
            let mut position = 0;
            while position < segment.len(&self.directory) {
                let header = match scan::header(&self.directory, segment.log, position) {
                    Ok(header) => header,
                    Err(damage) => {
                        damages.push(damage.of(segment.base));
                        break;
                    }
                };
                let found = self.verify_batch(segment, position, before);
                let moved = found.as_ref().is_err_and(|damage| matches!(damage.cause, Cause::Offset { .. }));
                damages.extend(found.err().map(|damage| damage.of(segment.base)));
                position += header.size_bytes() as u64;
                let begins = if moved && !self.has_gaps { before } else { header.base_offset };
                before = begins.saturating_add(i64::from(header.last_offset_delta)).saturating_add(1);
            }
            if let Some(expected) = next.filter(|next| before > *next) {
                damages.push(Damage::new(position, before, Cause::Offset { expected }).of(segment.base));
            }
        }
        let end = before.max(self.start_offset);
        if damages.is_empty() && end != self.end_offset {
            let last = self.segments.last().map_or(0, |last| last.base);
            damages.push(Damage::new(0, end, Cause::Offset { expected: self.end_offset }).of(last));
        }
        damages
    }

    fn verify_batch(&self, segment: &Segment, position: u64, least: i64) -> Result<(), Damage> {
        let before = Before { end: Some(least), epoch: None };
        let batch = scan::batch(&self.directory, segment.log, position, before)?;
        let (offset, epoch) = (batch.header().base_offset, batch.header().partition_leader_epoch);
        if offset != least && !self.has_gaps {
            return Err(Damage::new(position, offset, Cause::Offset { expected: least }));
        }
        match self.epochs.epoch_at(offset.max(self.start_offset)) {
            Some(expected) if expected != epoch && batch.header().next_offset() > self.start_offset => {
                Err(Damage::new(position, offset, Cause::Epoch { epoch, expected }))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn remove_segment(&mut self, segment: &Segment) -> Result<(), StorageError> {
        for extension in files::OF_SEGMENT {
            self.directory.remove(&files::of_offset(segment.base, extension))?;
        }
        Ok(())
    }

    /// Takes a segment's files out of sight; they are removed when `file.delete.delay.ms` is over.
    pub(super) fn doom_segment(&mut self, segment: &Segment) -> Result<(), StorageError> {
        if !self.directory.keeps_derived() {
            return self.remove_segment(segment);
        }
        for extension in files::OF_SEGMENT {
            let name = files::of_offset(segment.base, extension);
            let doomed = format!("{name}.{DELETED}");
            match self.directory.rename(&name, &doomed) {
                Ok(()) => self.doomed.push((None, doomed)),
                Err(StorageError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The offset that a file of a segment is named after.
fn base_of(file: &str) -> Option<i64> {
    let (_, extension) = file.rsplit_once('.')?;
    files::offset_in(file, extension)
}

fn placed(header: BatchHeader, position: u64, before: Before) -> Result<BatchHeader, Damage> {
    scan::check_place(&header, before)
        .map(|()| header)
        .map_err(|cause| Damage::new(position, header.base_offset, cause))
}

/// The bytes of all segments in a directory, oldest first, whether they make a log or not.
///
/// # Errors
///
/// What the storage says.
pub fn content<D: Directory>(directory: &mut D) -> Result<Bytes, StorageError> {
    let mut whole = BytesMut::new();
    for name in directory.names()? {
        if files::segment_offset(&name).is_some() {
            whole.extend_from_slice(&read_file(directory, &name)?);
        }
    }
    Ok(whole.freeze())
}
