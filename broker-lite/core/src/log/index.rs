//! Sparse index: which position an offset or a time is near.
//!
//! Invariant: entries rise in offset and position, the first one is the first batch held, and an entry stands at the
//! first byte of a batch.

/// Bytes between entries, as Kafka's `index.interval.bytes`.
const INTERVAL_BYTES: u64 = 4096;

/// The first byte of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) position: u64,
    /// Largest timestamp of all batches before this one.
    pub(super) max_timestamp_before: i64,
}

#[derive(Debug, Default)]
pub(super) struct SparseIndex {
    entries: Vec<Entry>,
    max_timestamp: Option<i64>,
}

impl SparseIndex {
    /// Notes a batch that was appended at `position`.
    pub(super) fn appended(&mut self, offset: i64, position: u64, max_timestamp: i64) {
        let due = self.entries.last().is_none_or(|last| position - last.position >= INTERVAL_BYTES);
        let before = self.max_timestamp.unwrap_or(i64::MIN);
        if due {
            self.entries.push(Entry { offset, position, max_timestamp_before: before });
        }
        self.max_timestamp = Some(before.max(max_timestamp));
    }

    /// Where to begin looking for the batch that holds `offset`; `None` if it lies before everything.
    pub(super) fn before_offset(&self, offset: i64) -> Option<Entry> {
        self.at(self.entries.partition_point(|entry| entry.offset <= offset))
    }

    /// Where to begin looking for a batch boundary at or before `position`.
    pub(super) fn before_position(&self, position: u64) -> Option<Entry> {
        self.at(self.entries.partition_point(|entry| entry.position <= position))
    }

    /// Where to begin looking for the first batch with a timestamp of at least `timestamp`.
    pub(super) fn before_timestamp(&self, timestamp: i64) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp);
        self.at(after.max(1))
    }

    fn at(&self, after: usize) -> Option<Entry> {
        after.checked_sub(1).and_then(|index| self.entries.get(index)).copied()
    }

    /// Forgets the entries at and behind `position`; returns the last one left. The batches from there up to `position`
    /// must then be noted again with [`Self::again`].
    pub(super) fn truncate_to(&mut self, position: u64) -> Option<Entry> {
        self.entries.truncate(self.entries.partition_point(|entry| entry.position < position));
        let last = self.entries.last().copied();
        self.max_timestamp = last.map(|entry| entry.max_timestamp_before);
        last
    }

    /// Notes the timestamp of a batch that is still there after [`Self::truncate_to`].
    pub(super) fn again(&mut self, max_timestamp: i64) {
        self.max_timestamp = Some(self.max_timestamp.unwrap_or(i64::MIN).max(max_timestamp));
    }

    /// Forgets what lies before `position`, where a batch with this offset begins.
    pub(super) fn truncate_prefix(&mut self, position: u64, offset: i64) {
        let gone = self.entries.partition_point(|entry| entry.position < position);
        self.entries.drain(..gone);
        if self.entries.first().is_none_or(|first| first.position > position) {
            self.entries.insert(0, Entry { offset, position, max_timestamp_before: i64::MIN });
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.max_timestamp = None;
    }
}
