//! One segment: a file of batches, and its index.
//!
//! Invariant: all offsets in it are at least its base and at most 2^31 - 1 above it.

use bytes::Bytes;
use klamm_wire::BatchHeader;

use super::LogError;
use super::files::{INDEX, LOG, TIME_INDEX, of_offset};
use super::index::{Added, Indexed, OFFSET_ENTRY_BYTES, SparseIndex, TIME_ENTRY_BYTES};
use super::scan::{self, Damage};
use crate::storage::{Directory, FileId, StorageError};

/// Largest size of a segment: positions are 31 bits in Kafka's files.
const MAX_BYTES: u64 = i32::MAX as u64;
/// Entries for `.index` that are written at a time.
const UNWRITTEN_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: i64,
    pub(super) log: FileId,
    /// `.index` and `.timeindex`, where they are kept.
    indexes: Option<(FileId, FileId)>,
    /// Entries that these do not hold yet: nobody believes the files before the segment is closed.
    unwritten: (Vec<u8>, Vec<u8>),
    pub(super) index: SparseIndex,
    /// Max timestamp of the first batch: from when on the segment ages.
    pub(super) first_timestamp: Option<i64>,
}

impl Segment {
    /// A new, empty segment.
    pub(super) fn create<D: Directory>(directory: &mut D, base: i64) -> Result<Self, StorageError> {
        let log = directory.create(&of_offset(base, LOG))?;
        let mut segment = Self::of(base, log);
        if directory.keeps_derived() {
            segment.indexes = Some(create_indexes(directory, base)?);
        }
        Ok(segment)
    }

    /// As [`Self::create`], with names that end so: it is to be renamed.
    pub(super) fn create_as<D: Directory>(
        directory: &mut D,
        base: i64,
        suffix: &str,
    ) -> Result<Self, StorageError> {
        let name = |extension| format!("{}.{suffix}", of_offset(base, extension));
        let mut segment = Self::of(base, directory.create(&name(LOG))?);
        if directory.keeps_derived() {
            let offsets = directory.create(&name(INDEX))?;
            segment.indexes = Some((offsets, directory.create(&name(TIME_INDEX))?));
        }
        Ok(segment)
    }

    /// A segment found in the directory, without its index.
    pub(super) fn open<D: Directory>(directory: &mut D, base: i64) -> Result<Self, StorageError> {
        Ok(Self::of(base, directory.open(&of_offset(base, LOG))?))
    }

    fn of(base: i64, log: FileId) -> Self {
        let (index, unwritten) = (SparseIndex::default(), Default::default());
        Self { base, log, indexes: None, unwritten, index, first_timestamp: None }
    }

    pub(super) fn len<D: Directory>(&self, directory: &D) -> u64 {
        directory.size(self.log)
    }

    /// Takes the index from its files; `false` if they are not there, or not what they should be.
    pub(super) fn load_index<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        if !directory.keeps_derived() {
            return Ok(false);
        }
        let mut whole = |extension| -> Result<Option<(FileId, Bytes)>, StorageError> {
            match directory.open(&of_offset(self.base, extension)) {
                Ok(file) => {
                    let (len, mut chunks) = (directory.size(file) as usize, Vec::new());
                    directory.read(file, 0, len, &mut chunks)?;
                    Ok(Some((file, crate::storage::joined(chunks))))
                }
                Err(StorageError::Missing(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let (Some(offsets), Some(times)) = (whole(INDEX)?, whole(TIME_INDEX)?) else { return Ok(false) };
        let Some(index) = SparseIndex::decode(&offsets.1, &times.1, directory.size(self.log)) else {
            return Ok(false);
        };
        self.index = index;
        self.indexes = Some((offsets.0, times.0));
        let first = scan::header(directory, self.log, 0).ok();
        self.first_timestamp = first.map(|header| header.max_timestamp);
        Ok(true)
    }

    /// Begins a new index, to be filled by [`Self::note`].
    pub(super) fn reset_index<D: Directory>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        self.index = SparseIndex::default();
        self.unwritten = Default::default();
        self.first_timestamp = None;
        if directory.keeps_derived() {
            self.indexes = Some(create_indexes(directory, self.base)?);
        }
        Ok(())
    }

    /// The files of its index, where they are kept.
    pub(super) fn index_files(&self) -> Option<(FileId, FileId)> {
        self.indexes
    }

    /// Notes a batch at `position` in the index; returns what that adds to the files.
    pub(super) fn noted(&mut self, header: &BatchHeader, position: u64, interval: u64) -> Added {
        self.first_timestamp.get_or_insert(header.max_timestamp);
        let batch = Indexed {
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            position,
            size: header.size_bytes() as u64,
        };
        self.index.appended(self.base, batch, interval)
    }

    /// Notes a batch at `position` in the index.
    pub(super) fn note<D: Directory>(
        &mut self,
        directory: &mut D,
        header: &BatchHeader,
        position: u64,
        interval: u64,
    ) -> Result<(), StorageError> {
        let added = self.noted(header, position, interval);
        self.write(directory, added)
    }

    /// Adds entries to the files, some at a time: a write for each would cost as much as the batch's own.
    fn write<D: Directory>(&mut self, directory: &mut D, added: Added) -> Result<(), StorageError> {
        if self.indexes.is_none() {
            return Ok(());
        }
        self.unwritten.0.extend(added.offset.iter().flatten());
        self.unwritten.1.extend(added.time.iter().flatten());
        if self.unwritten.0.len() < UNWRITTEN_BYTES {
            return Ok(());
        }
        self.write_rest(directory)
    }

    fn write_rest<D: Directory>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        let Some((offsets, times)) = self.indexes else { return Ok(()) };
        for (file, entries) in [(offsets, &mut self.unwritten.0), (times, &mut self.unwritten.1)] {
            if !entries.is_empty() {
                directory.append(file, &[Bytes::from(std::mem::take(entries))])?;
            }
        }
        Ok(())
    }

    /// Completes the index: nothing more will be appended.
    pub(super) fn close<D: Directory>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        let time = self.index.add_time();
        self.write(directory, Added { offset: None, time })?;
        self.write_rest(directory)?;
        if let Some((offsets, times)) = self.indexes {
            directory.set_lazy(offsets, false);
            directory.set_lazy(times, false);
        }
        Ok(())
    }

    /// Cuts everything from `position` on; returns where the batches left end.
    pub(super) fn truncate_to<D: Directory>(
        &mut self,
        directory: &mut D,
        position: u64,
        interval: u64,
    ) -> Result<i64, LogError> {
        directory.set_len(self.log, position)?;
        let mut at = self.index.truncate_to(position);
        if let Some((offsets, times)) = self.indexes {
            let (offset_entries, time_entries) = self.index.len();
            let left = [
                (offsets, offset_entries * OFFSET_ENTRY_BYTES, &mut self.unwritten.0),
                (times, time_entries * TIME_ENTRY_BYTES, &mut self.unwritten.1),
            ];
            for (file, bytes, unwritten) in left {
                unwritten.truncate((bytes as u64).saturating_sub(directory.size(file)) as usize);
                directory.set_len(file, bytes as u64)?;
            }
        }
        if position == 0 {
            self.first_timestamp = None;
        }
        let mut end = self.base;
        while let Some(header) = self.header_at(directory, at)? {
            self.note(directory, &header, at, interval)?;
            at += header.size_bytes() as u64;
            end = header.next_offset();
        }
        Ok(end)
    }

    /// The header of the batch at `position`; `None` at the end.
    pub(super) fn header_at<D: Directory>(
        &self,
        directory: &D,
        position: u64,
    ) -> Result<Option<BatchHeader>, Damage> {
        if position >= directory.size(self.log) {
            return Ok(None);
        }
        scan::header(directory, self.log, position).map(Some).map_err(|damage| damage.of(self.base))
    }

    /// Whether a batch of so many bytes up to this offset still fits.
    pub(super) fn fits<D: Directory>(&self, directory: &D, size: u64, last_offset: i64, limit: u64) -> bool {
        let (used, limit) = (self.len(directory), limit.min(MAX_BYTES));
        let near = last_offset.saturating_sub(self.base) <= i64::from(i32::MAX);
        near && (used == 0 || used.saturating_add(size) <= limit)
    }
}

fn create_indexes<D: Directory>(directory: &mut D, base: i64) -> Result<(FileId, FileId), StorageError> {
    let offsets = directory.create(&of_offset(base, INDEX))?;
    let times = directory.create(&of_offset(base, TIME_INDEX))?;
    // While the segment grows they are of no use after a loss of power.
    directory.set_lazy(offsets, true);
    directory.set_lazy(times, true);
    Ok((offsets, times))
}
