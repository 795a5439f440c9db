//! One thing that happened, in as few bytes as it takes: a history is millions of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many bytes of a record's value say which record it is; the rest may be anything.
pub const VALUE_BYTES: usize = 8;

/// One attempt of an application to send one record, and at the same time the name of that record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Op(pub(super) u32);

impl Op {
    /// A record that nobody in this history has sent: its value cannot be read.
    pub const ALIEN: Self = Self(u32::MAX);

    /// What a record must carry as (the first bytes of) its value: the number and a check of it.
    pub fn value(self) -> [u8; VALUE_BYTES] {
        let mut bytes = [0; VALUE_BYTES];
        bytes[..4].copy_from_slice(&self.0.to_be_bytes());
        bytes[4..].copy_from_slice(&check(self.0).to_be_bytes());
        bytes
    }

    /// Which record has this value; [`Op::ALIEN`] if it is none of [`Op::value`]'s.
    pub fn of_value(bytes: &[u8]) -> Self {
        let Some((number, rest)) = bytes.split_first_chunk::<4>() else { return Self::ALIEN };
        let number = u32::from_be_bytes(*number);
        if rest.first_chunk::<4>() == Some(&check(number).to_be_bytes()) { Self(number) } else { Self::ALIEN }
    }

    /// Place of this record in the order in which records were sent, from 0.
    pub fn number(self) -> u32 {
        self.0
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// So that a damaged value is not taken for another record's.
fn check(number: u32) -> u32 {
    (number ^ 0x6b6c_616d).wrapping_mul(0x9e37_79b1).rotate_left(15)
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALIEN => f.write_str("a record that nobody sent"),
            Self(number) => write!(f, "record {number}"),
        }
    }
}

/// A producer or a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Client(pub(super) u32);

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub(super) u32);

/// A consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group(pub(super) u32);

/// A commit on its way: the number of the event with which it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitSent(pub(super) u32);

/// One event, when it was recorded and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds since the run began.
    pub at_ns: u64,
    /// Who it happened to; for a mark, nobody in particular.
    pub client: Client,
    /// What.
    pub event: Event,
}

/// What happened. Each is recorded by the method of [`History`](super::History) of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the recorder's methods say it")]
pub enum Event {
    Invoked { op: Op, partition: Option<Partition> },
    Accepted { op: Op, partition: Partition },
    Acked { op: Op, partition: Partition, offset: Option<i64> },
    Failed { op: Op, maybe_written: bool },
    Assigned { partition: Partition, start: Option<i64>, generation: Option<i32> },
    Seek { partition: Partition, to: Option<i64> },
    Read { partition: Partition, offset: i64, op: Op, leader_epoch: i32 },
    Revoked { partition: Partition },
    Lost { partition: Partition },
    Began { partition: Partition, offset: i64 },
    Done { partition: Partition, offset: i64 },
    Joined { generation: i32, asked_ns: u64 },
    Synced { generation: i32 },
    Given { partition: Partition, generation: i32 },
    CommitSent { partition: Partition, offset: i64, generation: i32 },
    Committed { partition: Partition, offset: i64, sent: Option<CommitSent> },
    CommitReset { partition: Partition },
    CommitFetched { partition: Partition, offset: Option<i64>, asked_ns: u64 },
    Mark { text: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_takes_no_more_than_48_bytes() {
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_value_names_its_record_and_a_damaged_one_names_nobody() {
        for op in [Op(0), Op(1), Op(77_777), Op(u32::MAX - 1)] {
            assert_eq!(Op::of_value(&[&op.value()[..], b"padding"].concat()), op);
            for bit in 0..8 * VALUE_BYTES {
                let mut value = op.value();
                value[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Op::of_value(&value), Op::ALIEN, "bit {bit} of {op:?}");
            }
        }
        assert_eq!(Op::of_value(b"short"), Op::ALIEN);
    }
}
