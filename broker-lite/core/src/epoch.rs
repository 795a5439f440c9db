//! Where each leader epoch begins in a log: what replicas compare to find where they part (KIP-101, KIP-279).
//!
//! In: epochs of appended batches, truncations. Out: the end of an epoch.
//!
//! Invariant: epochs and start offsets both rise strictly from entry to entry.

use bytes::Bytes;

use crate::replica::EpochEnd;

/// An epoch and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// Leader epoch.
    pub epoch: i32,
    /// Offset of its first record, or where that would be.
    pub start_offset: i64,
}

/// The epochs of one log, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochStart>,
}

impl EpochCache {
    /// Notes that records from `start_offset` on belong to `epoch`.
    ///
    /// Entries that contradict it (a later or equal epoch, or one that would begin no earlier) are forgotten: their
    /// leaders never wrote anything that is still there.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) {
        if epoch < 0 {
            return;
        }
        if let Some(last) = self.entries.last()
            && last.epoch == epoch
            && last.start_offset <= start_offset
        {
            return;
        }
        while self.entries.last().is_some_and(|e| e.epoch >= epoch || e.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochStart { epoch, start_offset });
    }

    /// The latest epoch, or `None` in a log without any.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epochs, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// Epoch of the record at `offset`, or `None` if it lies before every epoch known.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).and_then(|index| self.entries.get(index)).map(|entry| entry.epoch)
    }

    /// The largest epoch not above `epoch`, and where it ends in a log that ends at `log_end`.
    ///
    /// An epoch above all known ones, or -1, has no end: both fields are -1. One below all known ones ends where the
    /// first known one begins.
    pub fn end_of(&self, epoch: i32, log_end: i64) -> EpochEnd {
        let unknown = EpochEnd { epoch: -1, end_offset: -1 };
        if epoch == -1 {
            return unknown;
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let floor = after.checked_sub(1).and_then(|index| self.entries.get(index));
        match (floor, self.entries.get(after)) {
            (Some(floor), None) if floor.epoch == epoch => EpochEnd { epoch, end_offset: log_end },
            (_, None) => unknown,
            (Some(floor), Some(next)) => EpochEnd { epoch: floor.epoch, end_offset: next.start_offset },
            (None, Some(next)) => EpochEnd { epoch, end_offset: next.start_offset },
        }
    }

    /// Forgets the epochs that begin at or after `end_offset`, where the log now ends.
    pub fn truncate_from_end(&mut self, end_offset: i64) {
        while self.entries.last().is_some_and(|entry| entry.start_offset >= end_offset) {
            self.entries.pop();
        }
    }

    /// Forgets the epochs that end at or before `start_offset`, where the log now begins.
    pub fn truncate_from_start(&mut self, start_offset: i64) {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if let Some(index) = after.checked_sub(1) {
            self.entries.drain(..index);
            if let Some(first) = self.entries.first_mut() {
                first.start_offset = start_offset;
            }
        }
    }

    /// The content of Kafka's file `leader-epoch-checkpoint`.
    pub fn encode(&self) -> Bytes {
        let mut text = format!("0\n{}\n", self.entries.len());
        for EpochStart { epoch, start_offset } in &self.entries {
            text.push_str(&format!("{epoch} {start_offset}\n"));
        }
        text.into()
    }

    /// Reads that file; `None` if it is malformed.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(content).ok()?.lines();
        let (version, count) = (lines.next()?, lines.next()?.parse::<usize>().ok()?);
        let mut cache = Self::default();
        for line in lines {
            let (epoch, start_offset) = line.split_once(' ')?;
            let (epoch, start_offset) = (epoch.parse().ok()?, start_offset.parse().ok()?);
            cache.entries.push(EpochStart { epoch, start_offset });
        }
        let rising = cache.entries.is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset);
        (version == "0" && cache.entries.len() == count && rising).then_some(cache)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        entries.iter().for_each(|&(epoch, start)| cache.assign(epoch, start));
        cache
    }

    fn starts(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn only_the_first_batch_of_an_epoch_makes_an_entry() {
        assert_eq!(starts(&cache(&[(1, 0), (1, 5), (3, 9), (3, 12)])), [(1, 0), (3, 9)]);
    }

    #[test]
    fn an_epoch_that_wrote_nothing_gives_way_to_the_next() {
        assert_eq!(starts(&cache(&[(1, 0), (2, 9), (3, 9)])), [(1, 0), (3, 9)]);
    }

    /// Goal: exactly the answers a follower's truncation relies on.
    #[test]
    fn the_end_of_an_epoch_is_where_the_next_known_one_begins() {
        let cache = cache(&[(2, 10), (4, 20), (7, 30)]);
        let end = |epoch| (cache.end_of(epoch, 35).epoch, cache.end_of(epoch, 35).end_offset);
        assert_eq!(end(7), (7, 35), "the latest ends with the log");
        assert_eq!(end(4), (4, 30));
        assert_eq!(end(5), (4, 30), "an unknown one: the one before it");
        assert_eq!(end(1), (1, 10), "below all: nothing of it is here");
        assert_eq!(end(8), (-1, -1), "above all");
        assert_eq!(end(-1), (-1, -1));
        assert_eq!(end(-2), (-2, 10), "below all, as Kafka does: only -1 is none");
        assert_eq!(EpochCache::default().end_of(0, 5), EpochEnd { epoch: -1, end_offset: -1 });
    }

    #[test]
    fn the_file_is_kafkas_and_nothing_else_is_taken_for_it() {
        let known = cache(&[(2, 10), (4, 20)]);
        assert_eq!(&known.encode()[..], b"0\n2\n2 10\n4 20\n");
        assert_eq!(EpochCache::decode(&known.encode()), Some(known));
        assert_eq!(EpochCache::decode(b"0\n0\n"), Some(EpochCache::default()));
        for bad in
            ["", "0\n", "1\n0\n", "0\n2\n2 10\n", "0\n1\n2\n", "0\n2\n2 10\n2 20\n", "0\n2\n2 10\n3 9\n"]
        {
            assert_eq!(EpochCache::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn truncation_cuts_either_end() {
        let mut cut = cache(&[(2, 10), (4, 20), (7, 30)]);
        cut.truncate_from_end(30);
        assert_eq!(starts(&cut), [(2, 10), (4, 20)]);
        cut.truncate_from_start(15);
        assert_eq!(starts(&cut), [(2, 15), (4, 20)]);
        cut.truncate_from_start(20);
        assert_eq!(starts(&cut), [(4, 20)]);
        cut.truncate_from_start(25);
        assert_eq!(starts(&cut), [(4, 25)]);
        assert_eq!((cut.epoch_at(24), cut.epoch_at(25)), (None, Some(4)));
    }
}
