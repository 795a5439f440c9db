//! The smallest log that a voter can work with.

use broker_lite_core::log::LogError;
use broker_lite_core::quorum::{LeaderChange, QuorumLog, SnapshotId};

/// A record: of which leadership, and its content; 0 is the record with which a leadership begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) epoch: i32,
    pub(crate) content: u8,
}

/// Records and where they belong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stretch {
    offset: i64,
    entries: Vec<Entry>,
}

/// A log in which nothing is compacted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct SmallLog {
    pub(crate) entries: Vec<Entry>,
    /// What a loss of power leaves: the log as it was last synced, from before a truncation, too.
    pub(crate) disk: Vec<Entry>,
}

impl SmallLog {
    pub(crate) fn up_to(&self, offset: i64) -> &[Entry] {
        &self.entries[..self.entries.len().min(offset as usize)]
    }

    pub(crate) fn synced(&mut self, end: i64) {
        self.disk = self.up_to(end).to_vec();
    }

    /// What the next process finds.
    pub(crate) fn after_crash(&self, power_off: bool) -> Self {
        let kept = if power_off { &self.disk } else { &self.entries };
        Self { entries: kept.clone(), disk: kept.clone() }
    }

    /// Whether two logs are equal up to the last record that both hold of one epoch at one offset.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        let pairs = || self.entries.iter().zip(&other.entries);
        let agree = pairs().rposition(|(one, two)| one.epoch == two.epoch).map_or(0, |last| last + 1);
        pairs().take(agree).all(|(one, two)| one == two)
    }
}

impl QuorumLog for SmallLog {
    type Records = Stretch;

    fn start_offset(&self) -> i64 {
        0
    }

    fn start_epoch(&self) -> i32 {
        0
    }

    fn end_offset(&self) -> i64 {
        self.entries.len() as i64
    }

    fn last_epoch(&self) -> i32 {
        self.entries.last().map_or(0, |last| last.epoch)
    }

    fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        let end = self.entries.partition_point(|entry| entry.epoch <= epoch);
        (self.entries[..end].last().map_or(0, |last| last.epoch), end as i64)
    }

    fn snapshot(&self) -> Option<SnapshotId> {
        None
    }

    fn none(&self) -> Stretch {
        Stretch { offset: self.end_offset(), entries: Vec::new() }
    }

    fn is_none(records: &Stretch) -> bool {
        records.entries.is_empty()
    }

    /// A record counts as a byte.
    fn read(&self, offset: i64, limit: i64, max_bytes: usize) -> Result<Stretch, LogError> {
        let entries = self.up_to(limit).iter().skip(offset as usize).take(max_bytes.max(1)).copied();
        Ok(Stretch { offset, entries: entries.collect() })
    }

    fn append(&mut self, records: &Stretch) -> Result<(), LogError> {
        let first = records.entries.first().map_or(i32::MAX, |first| first.epoch);
        if records.offset != self.end_offset() || first < self.last_epoch() {
            let (end, last_epoch) = (self.end_offset(), self.last_epoch());
            return Err(LogError::NotNext { offset: records.offset, epoch: first, end, last_epoch });
        }
        self.entries.extend(&records.entries);
        Ok(())
    }

    fn append_leader_change(&mut self, change: &LeaderChange) -> Result<(), LogError> {
        self.entries.push(Entry { epoch: change.epoch, content: 0 });
        Ok(())
    }

    fn truncate_to(&mut self, offset: i64) -> Result<(), LogError> {
        self.entries.truncate(offset as usize);
        Ok(())
    }

    fn receive_snapshot(&mut self, _id: SnapshotId, _position: u64, _bytes: &[u8]) {}

    fn load_snapshot(&mut self, _id: SnapshotId) -> Result<bool, LogError> {
        Ok(false)
    }
}
