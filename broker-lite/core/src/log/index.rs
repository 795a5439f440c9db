//! Sparse index of one segment: which position an offset or a time is near.
//!
//! Kept in memory, and, on a disk, in Kafka's files: `.index` (relative offset, position, 4 B each) and `.timeindex`
//! (timestamp 8 B, relative offset 4 B).
//!
//! Invariant: entries rise; an offset entry names the last offset of a batch and where that batch begins; a time entry
//! names the largest timestamp so far and the last offset of the batch that has it.

/// Bytes of one entry in `.index`.
pub(super) const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of one entry in `.timeindex`.
pub(super) const TIME_ENTRY_BYTES: usize = 12;
/// Kafka's word for no timestamp.
const NO_TIMESTAMP: i64 = -1;

/// A batch: its last offset, from the segment's base on, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OffsetEntry {
    last: u32,
    position: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeEntry {
    pub(super) timestamp: i64,
    last: u32,
}

/// What a batch adds to the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) offset: Option<[u8; OFFSET_ENTRY_BYTES]>,
    pub(super) time: Option<[u8; TIME_ENTRY_BYTES]>,
}

/// A batch as the index sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Indexed {
    pub(super) last_offset: i64,
    pub(super) max_timestamp: i64,
    pub(super) position: u64,
    pub(super) size: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct SparseIndex {
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    /// The largest timestamp so far; not always among the entries yet.
    latest: Option<TimeEntry>,
    since_last: u64,
}

impl SparseIndex {
    /// Notes a batch at the end of the segment that begins at `base`, with an entry every `interval` bytes.
    pub(super) fn appended(&mut self, base: i64, batch: Indexed, interval: u64) -> Added {
        let last = relative(base, batch.last_offset);
        if batch.max_timestamp > self.latest.map_or(NO_TIMESTAMP, |latest| latest.timestamp) {
            self.latest = Some(TimeEntry { timestamp: batch.max_timestamp, last });
        }
        let mut added = Added::default();
        if self.since_last > interval {
            let entry = OffsetEntry { last, position: u32::try_from(batch.position).unwrap_or(u32::MAX) };
            self.offsets.push(entry);
            added = Added { offset: Some(entry.encode()), time: self.add_time() };
            self.since_last = 0;
        }
        self.since_last += batch.size;
        added
    }

    /// Adds an entry for the largest timestamp if there is none yet, as is done when a segment is closed.
    pub(super) fn add_time(&mut self) -> Option<[u8; TIME_ENTRY_BYTES]> {
        let latest = self.latest?;
        if self.times.last().is_some_and(|known| known.timestamp >= latest.timestamp) {
            return None;
        }
        self.times.push(latest);
        Some(latest.encode())
    }

    /// Where to begin looking for the batch that holds the offset.
    pub(super) fn before_offset(&self, base: i64, offset: i64) -> u64 {
        let wanted = relative(base, offset);
        let after = self.offsets.partition_point(|entry| entry.last <= wanted);
        after.checked_sub(1).and_then(|at| self.offsets.get(at)).map_or(0, |entry| entry.position.into())
    }

    /// Where to begin looking for a batch boundary at or before `position`.
    pub(super) fn before_position(&self, position: u64) -> u64 {
        let after = self.offsets.partition_point(|entry| u64::from(entry.position) <= position);
        after.checked_sub(1).and_then(|at| self.offsets.get(at)).map_or(0, |entry| entry.position.into())
    }

    /// Where to begin looking for the first batch with a timestamp of at least `timestamp`.
    pub(super) fn before_timestamp(&self, base: i64, timestamp: i64) -> u64 {
        let after = self.times.partition_point(|entry| entry.timestamp < timestamp);
        let before = after.checked_sub(1).and_then(|at| self.times.get(at));
        before.map_or(0, |entry| self.before_offset(base, base + i64::from(entry.last)))
    }

    /// The largest timestamp in the segment, if any batch has one.
    pub(super) fn max_timestamp(&self) -> Option<i64> {
        self.latest.map(|latest| latest.timestamp)
    }

    /// Forgets what lies at or behind `position`. The batches from the position returned up to there must be noted again.
    pub(super) fn truncate_to(&mut self, position: u64) -> u64 {
        self.offsets.truncate(self.offsets.partition_point(|entry| u64::from(entry.position) < position));
        let last = self.offsets.last().copied();
        // an entry for the time stands with every entry for the offset, so nothing before the last one is missing
        let kept = last.map_or(0, |last| self.times.partition_point(|time| time.last <= last.last));
        self.times.truncate(kept);
        self.latest = self.times.last().copied();
        self.since_last = 0;
        last.map_or(0, |entry| entry.position.into())
    }

    /// What the files hold; `None` if that can be no index of a segment of so many bytes.
    pub(super) fn decode(offsets: &[u8], times: &[u8], size: u64) -> Option<Self> {
        let whole =
            offsets.len().is_multiple_of(OFFSET_ENTRY_BYTES) && times.len().is_multiple_of(TIME_ENTRY_BYTES);
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).ok();
        let mut index = Self::default();
        for entry in offsets.chunks_exact(OFFSET_ENTRY_BYTES) {
            index.offsets.push(OffsetEntry { last: word(&entry[..4])?, position: word(&entry[4..])? });
        }
        for entry in times.chunks_exact(TIME_ENTRY_BYTES) {
            let timestamp = entry[..8].try_into().map(i64::from_be_bytes).ok()?;
            index.times.push(TimeEntry { timestamp, last: word(&entry[8..])? });
        }
        index.latest = index.times.last().copied();
        let rising = index.offsets.is_sorted_by(|a, b| a.last < b.last && a.position < b.position)
            && index.times.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.last <= b.last)
            && index.offsets.last().is_none_or(|last| u64::from(last.position) < size);
        (whole && rising).then_some(index)
    }

    /// Entries, for the sizes of the files.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.offsets.len(), self.times.len())
    }
}

impl OffsetEntry {
    fn encode(self) -> [u8; OFFSET_ENTRY_BYTES] {
        let mut bytes = [0; OFFSET_ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.last.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }
}

impl TimeEntry {
    fn encode(self) -> [u8; TIME_ENTRY_BYTES] {
        let mut bytes = [0; TIME_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.last.to_be_bytes());
        bytes
    }
}

/// An offset from the segment's base on. Segments are rolled before this could overflow.
fn relative(base: i64, offset: i64) -> u32 {
    u32::try_from(offset.saturating_sub(base).max(0)).unwrap_or(u32::MAX)
}
