//! What goes because it is old, or too much: whole segments from the front, below the high watermark.

use super::{Log, LogError};
use crate::Tick;
use crate::storage::{Directory, StorageError};

impl<D: Directory> Log<D> {
    /// Deletes the segments that `retention.ms` and `retention.bytes` do not keep; returns whether there were any.
    /// The last one may be among them, if all of it is committed: a new one is begun then.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`].
    pub fn retain(&mut self, wall_ms: i64, high_watermark: i64) -> Result<bool, LogError> {
        let (settings, mut size) = (&self.settings, self.len_bytes());
        if !settings.delete {
            return Ok(false);
        }
        let mut gone = 0;
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1).map_or(self.end_offset, |next| next.base);
            let len = segment.len(&self.directory);
            let is_empty_end = number + 1 == self.segments.len() && len == 0;
            if next > high_watermark || is_empty_end {
                break;
            }
            let newest = segment.index.max_timestamp().unwrap_or(-1);
            // of a segment without timestamps nobody knows how old it is
            let expired =
                settings.retention_ms.is_some_and(|ms| newest >= 0 && wall_ms.saturating_sub(newest) > ms);
            let surplus = settings
                .retention_bytes
                .is_some_and(|limit| size.saturating_sub(limit) >= len && size > limit);
            if !expired && !surplus {
                break;
            }
            size -= len;
            gone += 1;
        }
        if gone == 0 {
            return Ok(false);
        }
        if gone == self.segments.len() {
            self.roll(self.end_offset)?;
        }
        let start = self.segments.get(gone).map_or(self.end_offset, |first| first.base);
        self.advance_start(start)?;
        // compaction may have left the log's beginning behind its first segment's
        while self.segments.len() > 1 && self.segments.get(1).is_some_and(|next| next.base <= start) {
            let first = self.segments.remove(0);
            self.doom_segment(&first)?;
        }
        let first = self.segments.first().map_or(start, |first| first.base);
        self.remove_snapshots(|at| at < first)?;
        Ok(true)
    }

    /// Removes the files of deleted segments whose time (`file.delete.delay.ms`) is over.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn remove_doomed(&mut self, now: Tick) -> Result<(), StorageError> {
        let delay = self.settings.file_delete_delay;
        for (due, _) in &mut self.doomed {
            due.get_or_insert(now.saturating_add(delay));
        }
        let (over, waiting) = std::mem::take(&mut self.doomed)
            .into_iter()
            .partition(|(due, _)| due.is_some_and(|due| due <= now));
        self.doomed = waiting;
        let over: Vec<(Option<Tick>, String)> = over;
        over.iter().try_for_each(|(_, name)| self.directory.remove(name))
    }
}
