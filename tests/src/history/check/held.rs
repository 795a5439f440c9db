//! A log to look things up in.

use super::super::violation::Holds;
use super::super::{Log, LogRecord};

/// The records of a log by offset: at once where offsets have no gaps, else by halving.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) log: &'a Log,
    first: i64,
}

impl<'a> Held<'a> {
    pub(super) fn new(log: &'a Log) -> Self {
        Self { log, first: log.records.first().map_or(0, |record| record.offset) }
    }

    /// Index of the first record at or behind an offset.
    pub(super) fn index(&self, offset: i64) -> usize {
        let records = &self.log.records;
        if offset <= self.first {
            return 0;
        }
        let guess = usize::try_from(offset - self.first).unwrap_or(usize::MAX);
        if records.get(guess).is_some_and(|record| record.offset == offset) {
            return guess;
        }
        records.partition_point(|record| record.offset < offset)
    }

    pub(super) fn find(&self, offset: i64) -> Option<&'a LogRecord> {
        self.log.records.get(self.index(offset)).filter(|record| record.offset == offset)
    }

    /// What stands at an offset that is not below the log's start.
    pub(super) fn holds(&self, offset: i64) -> Holds {
        match self.find(offset) {
            Some(record) => Holds::Record(record.op, record.leader_epoch),
            None if offset >= self.log.end => Holds::BeyondTheEnd,
            None => Holds::Nothing,
        }
    }

    /// How many records stand between two offsets, and the first of them.
    pub(super) fn between(&self, from: i64, to: i64) -> (usize, Option<&'a LogRecord>) {
        let (from, to) = (self.index(from), self.index(to));
        (to.saturating_sub(from), self.log.records.get(from).filter(|_| from < to))
    }
}
