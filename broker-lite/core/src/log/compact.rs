//! Compaction: of each key only the last record stays.
//!
//! ```text
//! ──────── cleaned before ────────│──────── dirty ────────│ active, uncommitted, not durable, or too young
//!      keys that occur again later go         keys noted ─┘
//! ```
//!
//! Offsets stay, and so do batches that tell what an idempotent producer wrote last, if need be without records. A
//! tombstone stays until `delete.retention.ms` after it was first met here; from when on is noted in its batch.
//!
//! ```text
//! begin_cleaning ──▶ Cleaning::step … ──▶ go_on_cleaning ──▶ step … ──▶ go_on_cleaning ──▶ … ──▶ end_cleaning
//!   what is closed      keys                a file to fill     fill it    it takes its place        how far
//! ```
//!
//! Invariant: a segment is replaced as a whole by one with the same base, made durable before, and everything before the
//! recovery point that is remembered; so a crash at any moment leaves the old one or the new one.

use bytes::BytesMut;

use super::clean::{Cleaning, CleaningLimits, Compacted, LastOfProducers, Old, Output};
use super::files::{self, CLEANED, INDEX, LOG, TIME_INDEX};
use super::segment::Segment;
use super::{Log, LogError, LogSettings};
use crate::storage::{Aside, Directory, StorageError, Unsynced};

/// What comes next in a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextInCleaning {
    /// [`Cleaning::step`], until it returns `false`.
    Step,
    /// All is cleaned: make the names durable that [`Log::begin_cleaned_sync`] tells, then [`Log::end_cleaning`].
    Done(Compacted),
    /// The log was cut meanwhile, or is not to be compacted any more; nothing is left of the work.
    GivenUp,
}

impl<D: Directory> Log<D> {
    /// Begins to compact what is worth it; `None` if nothing is, or if that is not the topic's policy. The checkpoint that
    /// is set here must be durable before the second part begins: gaps behind the recovery point would be taken for
    /// losses.
    ///
    /// # Errors
    ///
    /// [`LogError::Storage`].
    pub fn begin_cleaning(&mut self, limits: CleaningLimits) -> Result<Option<Cleaning<D::Aside>>, LogError> {
        let Some(until) = self.dirty_until(limits.wall_ms, limits.high_watermark) else { return Ok(None) };
        self.checkpoint(self.directory.checkpoint().high_watermark)?;
        let mut segments = Vec::new();
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            if segment.base < until {
                let file = self.directory.aside(segment.log)?;
                segments.push(Old { base: segment.base, next: next.base, file });
            }
        }
        let range = (self.cleaned_until, until);
        let LogSettings { index_interval_bytes, delete_retention_ms, .. } = self.settings;
        let last = self.last_of_producers();
        let generation = self.generation;
        let cleaning = Cleaning::new(
            generation,
            segments,
            range,
            index_interval_bytes,
            delete_retention_ms,
            last,
            limits,
        );
        Ok(Some(cleaning))
    }

    /// Puts the segment that was cleaned in its place, and begins with the next one.
    ///
    /// # Errors
    ///
    /// [`LogError::Storage`].
    pub fn go_on_cleaning(
        &mut self,
        cleaning: &mut Cleaning<D::Aside>,
    ) -> Result<NextInCleaning, StorageError> {
        if cleaning.generation != self.generation || !self.settings.compact {
            self.give_up_cleaning(cleaning)?;
            return Ok(NextInCleaning::GivenUp);
        }
        let mut number = cleaning.number;
        if let Some(output) = cleaning.output.take() {
            self.put_in_place(output, &mut cleaning.done)?;
            number += 1;
        }
        while let Some(old) = cleaning.segments.get(number).filter(|old| old.base < cleaning.until()) {
            // retention may have taken it
            if self.segments.iter().any(|segment| segment.base == old.base) {
                let output = self.output(old.base)?;
                cleaning.fill(number, output);
                return Ok(NextInCleaning::Step);
            }
            number += 1;
        }
        self.cleaned_until = cleaning.until();
        self.drop_empty()?;
        Ok(NextInCleaning::Done(cleaning.done))
    }

    /// Removes what a compaction has left half done. Returns whether the log is still the one that it began with.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn give_up_cleaning(&mut self, cleaning: &mut Cleaning<D::Aside>) -> Result<bool, StorageError> {
        if let Some(output) = cleaning.output.take() {
            self.discard(output.segment.base)?;
        }
        Ok(cleaning.generation == self.generation)
    }

    /// The names that a compaction has changed, for whoever owns the disk.
    pub fn begin_cleaned_sync(&mut self) -> Unsynced {
        Unsynced { files: Vec::new(), renames: Vec::new(), ..self.directory.begin_sync() }
    }

    /// Notes that these names are durable, and remembers how far the log is compacted.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn end_cleaning(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        self.directory.mark_synced(done)?;
        self.directory.set_cleaned_until(self.cleaned_until);
        Ok(())
    }

    fn output(&mut self, base: i64) -> Result<Output<D::Aside>, StorageError> {
        let segment = Segment::create_as(&mut self.directory, base, CLEANED)?;
        let file = self.directory.aside(segment.log)?;
        let indexes = match segment.index_files() {
            Some((offsets, times)) => {
                let aside = |file| Ok((self.directory.aside(file)?, BytesMut::new()));
                Some([aside(offsets)?, aside(times)?])
            }
            None => None,
        };
        Ok(Output { segment, file, indexes, changed: false })
    }

    fn put_in_place(&mut self, output: Output<D::Aside>, done: &mut Compacted) -> Result<(), StorageError> {
        let Output { segment, file, indexes, changed } = output;
        let base = segment.base;
        let Some(number) = self.segments.iter().position(|old| old.base == base) else {
            return self.discard(base);
        };
        let before = self.segments.get(number).map_or(0, |old| old.len(&self.directory));
        done.before += before;
        if !changed {
            done.after += before;
            return self.discard(base);
        }
        done.after += file.size();
        done.segments += 1;
        self.directory.take_back(segment.log, file)?;
        if let (Some((offsets, times)), Some([(offsets_aside, _), (times_aside, _)])) =
            (segment.index_files(), indexes)
        {
            self.directory.take_back(offsets, offsets_aside)?;
            self.directory.take_back(times, times_aside)?;
        }
        // As long as one of them is left under its other name, an index counts for nothing (`Log::tidy`).
        for extension in self.extensions() {
            let name = files::of_offset(base, extension);
            self.directory.rename(&format!("{name}.{CLEANED}"), &name)?;
        }
        if let Some(old) = self.segments.get_mut(number) {
            *old = segment;
        }
        self.has_gaps = true;
        Ok(())
    }

    fn discard(&mut self, base: i64) -> Result<(), StorageError> {
        for extension in self.extensions() {
            self.directory.remove(&format!("{}.{CLEANED}", files::of_offset(base, extension)))?;
        }
        Ok(())
    }

    fn extensions(&self) -> &'static [&'static str] {
        if self.directory.keeps_derived() { &[LOG, INDEX, TIME_INDEX] } else { &[LOG] }
    }

    /// Where compaction has to end if it is worth it now.
    fn dirty_until(&self, wall_ms: i64, high_watermark: i64) -> Option<i64> {
        let settings = &self.settings;
        if !settings.compact {
            return None;
        }
        let young = |segment: &Segment| {
            let newest = segment.index.max_timestamp().unwrap_or(i64::MIN);
            settings.min_compaction_lag_ms > 0
                && wall_ms.saturating_sub(newest) < settings.min_compaction_lag_ms
        };
        let committed = high_watermark.min(self.recovery_point);
        let (mut clean, mut dirty, mut until, mut oldest) = (0, 0, None, None);
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            let len = segment.len(&self.directory);
            if next.base <= self.cleaned_until {
                clean += len;
            } else if next.base <= committed && !young(segment) {
                dirty += len;
                until = Some(next.base);
                let first = segment.first_timestamp.filter(|first| *first >= 0);
                oldest = [oldest, first].into_iter().flatten().min();
            } else {
                break;
            }
        }
        let late =
            oldest.is_some_and(|first: i64| wall_ms.saturating_sub(first) > settings.max_compaction_lag_ms);
        // as Kafka, more than the ratio, not as much
        let worth = u128::from(dirty) * 1_000_000
            > u128::from(clean + dirty) * u128::from(settings.min_cleanable_dirty_millionths);
        until.filter(|_| dirty > 0 && (worth || late))
    }

    /// Last offset of the last batch of each idempotent producer.
    fn last_of_producers(&self) -> LastOfProducers {
        let last = self.producers.iter();
        last.filter_map(|(id, entry)| Some((id, entry.batches.back()?.last_offset))).collect()
    }

    /// Removes segments of which nothing is left, but for the first, which tells where the log begins, and the last.
    fn drop_empty(&mut self) -> Result<(), StorageError> {
        let mut number = 1;
        while number + 1 < self.segments.len() {
            if self.segments.get(number).is_some_and(|segment| segment.len(&self.directory) == 0) {
                let empty = self.segments.remove(number);
                self.remove_segment(&empty)?;
            } else {
                number += 1;
            }
        }
        Ok(())
    }
}
