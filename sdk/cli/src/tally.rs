//! What became of the records.

use std::fmt;
use std::mem::discriminant;

use klamm::{RecordMetadata, SendError};

/// Kinds of reasons that are told.
const REASONS: usize = 3;

/// Counts records, and keeps the first reasons why some were not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records read.
    pub(crate) records: u64,
    /// Those of them that were acknowledged.
    pub(crate) acknowledged: u64,
    maybe_written: u64,
    /// The first of each kind, and how many of that kind there were.
    reasons: Vec<(Reason, u64)>,
}

#[derive(Debug)]
enum Reason {
    Send(SendError),
    TooLong { limit: usize },
    GivenUp,
}

impl Reason {
    fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Send(one), Self::Send(other)) => discriminant(one) == discriminant(other),
            _ => discriminant(self) == discriminant(other),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => error.fmt(f),
            Self::TooLong { limit } => {
                write!(f, "a line exceeds the limit of {limit} B (max.request.size)")
            }
            Self::GivenUp => f.write_str("given up at the second interrupt"),
        }
    }
}

impl Tally {
    /// It is known what became of one record.
    pub(crate) fn settled(&mut self, outcome: Result<RecordMetadata, SendError>) {
        match outcome {
            Ok(_) => self.acknowledged += 1,
            Err(error) => self.failed(error),
        }
    }

    /// One record was not acknowledged.
    pub(crate) fn failed(&mut self, error: SendError) {
        self.maybe_written += u64::from(error.maybe_written());
        self.because(Reason::Send(error), 1);
    }

    /// A line is longer than any record may be.
    pub(crate) fn too_long(&mut self, limit: usize) {
        self.because(Reason::TooLong { limit }, 1);
    }

    /// Nobody waits any more for what is open.
    pub(crate) fn give_up(&mut self) {
        let open = self.open();
        self.maybe_written += open;
        self.because(Reason::GivenUp, open);
    }

    fn open(&self) -> u64 {
        self.records - self.acknowledged - self.reasons.iter().map(|(_, count)| count).sum::<u64>()
    }

    fn because(&mut self, reason: Reason, count: u64) {
        match self.reasons.iter_mut().find(|(known, _)| known.is_alike(&reason)) {
            Some((_, known)) => *known += count,
            None if count > 0 => self.reasons.push((reason, count)),
            None => {}
        }
    }

    /// Records that were not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.records - self.acknowledged
    }
}

impl fmt::Display for Tally {
    /// `3 of 10 records were not acknowledged, 1 of them may be in the log all the same: REASON; REASON (2 records)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lost, all) = (self.unacknowledged(), self.records);
        let were = if all == 1 { "record was" } else { "records were" };
        write!(f, "{lost} of {all} {were} not acknowledged")?;
        if self.maybe_written > 0 {
            write!(f, " ({} of them may be in the log all the same)", self.maybe_written)?;
        }
        for (place, (reason, count)) in self.reasons.iter().take(REASONS).enumerate() {
            f.write_str(if place == 0 { ": " } else { "; " })?;
            reason.fmt(f)?;
            if self.reasons.len() > 1 {
                write!(f, " ({count} of them)")?;
            }
        }
        match self.reasons.len().saturating_sub(REASONS) {
            0 => Ok(()),
            more => write!(f, "; and {more} other reasons"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn late(ms: u64) -> SendError {
        SendError::TimedOut {
            at: None,
            waited: Duration::from_millis(ms),
            maybe_written: ms > 100,
            last: None,
        }
    }

    #[test]
    fn reasons_of_one_kind_are_told_once_with_their_count() {
        let mut tally = Tally { records: 10, acknowledged: 7, ..Tally::default() };
        tally.failed(late(100));
        assert!(
            tally.to_string().starts_with("3 of 10 records were not acknowledged: record not ack"),
            "{tally}"
        );
        tally.failed(late(200));
        tally.too_long(9);
        assert_eq!(
            tally.to_string(),
            "3 of 10 records were not acknowledged (1 of them may be in the log all the same): record not \
             acknowledged within 100ms (2 of them); a line exceeds the limit of 9 B (max.request.size) (1 of them)"
        );
    }

    #[test]
    fn what_is_open_when_giving_up_is_counted_as_not_acknowledged() {
        let mut tally = Tally { records: 10, acknowledged: 7, ..Tally::default() };
        tally.too_long(9);
        tally.give_up();
        let told = tally.to_string();
        assert!(told.contains("3 of 10") && told.contains("2 of them may be"), "{told}");
        assert!(told.ends_with("given up at the second interrupt (2 of them)"), "{told}");
    }

    #[test]
    fn nothing_is_open_and_nothing_told_when_all_is_acknowledged() {
        let mut tally = Tally { records: 1, acknowledged: 1, ..Tally::default() };
        tally.give_up();
        assert_eq!((tally.unacknowledged(), tally.reasons.len()), (0, 0));
    }
}
