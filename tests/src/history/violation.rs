//! What can be wrong with a history, each with its evidence and in one sentence.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Op;

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the variants of Violation say it")]
pub enum Rule {
    Lost,
    WrongOffset,
    Duplicated,
    Ghost,
    Phantom,
    Reordered,
    ReadUncommitted,
    Skipped,
    MovedBack,
    NotOwned,
    CommitMovedBack,
    Redelivered,
    TwoOwners,
    CommittedAhead,
    CommittedAfterLoss,
    CommittedLate,
    GenerationMovedBack,
    Undelivered,
    LogsDiffer,
    LogBroken,
    DifferentReads,
    TwoOutcomes,
    NoLog,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 23] = [
        Self::Lost,
        Self::WrongOffset,
        Self::Duplicated,
        Self::Ghost,
        Self::Phantom,
        Self::Reordered,
        Self::ReadUncommitted,
        Self::Skipped,
        Self::MovedBack,
        Self::NotOwned,
        Self::CommitMovedBack,
        Self::Redelivered,
        Self::TwoOwners,
        Self::CommittedAhead,
        Self::CommittedAfterLoss,
        Self::CommittedLate,
        Self::GenerationMovedBack,
        Self::Undelivered,
        Self::LogsDiffer,
        Self::LogBroken,
        Self::DifferentReads,
        Self::TwoOutcomes,
        Self::NoLog,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A record and who sent it when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The record.
    pub op: Op,
    /// Its producer.
    pub producer: Arc<str>,
    /// When it was sent.
    pub at: Duration,
}

/// A client and a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub client: Arc<str>,
    /// When.
    pub at: Duration,
}

/// A partition by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
}

/// An offset of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Partition.
    pub partition: Where,
    /// Offset.
    pub offset: i64,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The offset is not below the end of the log.
    BeyondTheEnd,
    /// No record.
    Nothing,
    /// A record, with the leader epoch of its batch (-1 if unknown).
    Record(Op, i32),
}

/// Whose log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOf {
    /// The committed log at the end.
    Final,
    /// A broker's replica.
    Broker(i32),
}

/// Why a record has no business where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFrom {
    /// Nobody sent it.
    Anybody,
    /// It was sent to another partition.
    Here(Sent, Where),
    /// It was read before it was sent.
    Before(Seen),
}

/// One thing that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the sentences of Display name the fields")]
pub enum Violation {
    /// Acknowledged, with acks that the run promises to keep, and not in the log.
    Lost { record: Sent, partition: Where, offset: Option<i64>, acked_at: Duration, holds: Option<Holds> },
    /// Acknowledged at an offset at which it does not stand.
    WrongOffset {
        record: Sent,
        partition: Where,
        offset: Option<i64>,
        acked_at: Duration,
        holds: Option<Holds>,
        found: Spot,
    },
    /// More than once in the log, from a producer that writes at most once.
    Duplicated { record: Sent, first: Spot, second: Spot },
    /// In the log, although the producer said that it is not.
    Ghost { record: Sent, failed_at: Duration, spot: Spot },
    /// In the log or read, and nobody wrote it there.
    Phantom { op: Op, spot: Spot, not_from: NotFrom },
    /// Two records of one producer stand in another order than it accepted them.
    Reordered { earlier: Sent, earlier_spot: Spot, later: Sent, later_spot: Spot },
    /// A consumer read what the log does not hold there.
    ReadUncommitted { reader: Seen, spot: Spot, read: Holds, holds: Holds },
    /// A consumer passed over records that the log holds.
    Skipped {
        reader: Seen,
        partition: Where,
        expected: i64,
        read: i64,
        missed: usize,
        first_missed: (i64, Op),
    },
    /// A consumer went back by itself.
    MovedBack { reader: Seen, partition: Where, expected: i64, read: i64 },
    /// A consumer read from a partition that it had given back or lost.
    NotOwned { reader: Seen, spot: Spot, gone_at: Duration },
    /// What a group has committed went back by itself: in a later commit, or in the answer to a member.
    CommitMovedBack {
        group: Arc<str>,
        partition: Where,
        before: Seen,
        offset: i64,
        after: Seen,
        then: Option<i64>,
        fetched: bool,
    },
    /// A member read again what its group had committed before it was given the partition.
    Redelivered { reader: Seen, spot: Spot, committed: i64, by: Seen },
    /// Two members of a group own one partition.
    TwoOwners { group: Arc<str>, partition: Where, first: Seen, second: Seen, generation: Option<i32> },
    /// A member committed what it was not done with: records that were never handed out, or not worked on yet.
    CommittedAhead { member: Seen, partition: Where, offset: i64, done: Option<i64> },
    /// A member committed a partition that it knew to be lost, and was heard.
    CommittedAfterLoss { member: Seen, partition: Where, offset: i64 },
    /// A commit of an earlier generation was taken after the group had gone on.
    CommittedLate { member: Seen, partition: Where, offset: i64, generation: i32, then: i32, since: Seen },
    /// A group's generation went back.
    GenerationMovedBack { group: Arc<str>, before: Seen, from: i32, after: Seen, to: i32 },
    /// No member of the group has worked on a record.
    Undelivered { group: Arc<str>, spot: Spot, missed: usize, op: Op },
    /// Two logs of one partition differ where both must be equal.
    LogsDiffer { one: LogOf, other: LogOf, spot: Spot, one_holds: Holds, other_holds: Holds },
    /// A log contradicts itself: offsets that do not grow, epochs that fall, records outside of its bounds.
    LogBroken { log: LogOf, spot: Spot, after: Option<(i64, i32)>, epoch: i32, bounds: (i64, i64) },
    /// Two consumers read different records at one offset.
    DifferentReads { spot: Spot, first: Seen, first_read: Holds, second: Seen, second_read: Holds },
    /// A producer reported two outcomes for one record.
    TwoOutcomes { record: Sent, first_at: Duration, second_at: Duration },
    /// Nothing can be said about a partition whose log is missing: the run must hand it in.
    NoLog { partition: Where, acked: u64, reads: u64 },
}

impl Violation {
    /// The rule that it breaks.
    pub fn rule(&self) -> Rule {
        match self {
            Self::Lost { .. } => Rule::Lost,
            Self::WrongOffset { .. } => Rule::WrongOffset,
            Self::Duplicated { .. } => Rule::Duplicated,
            Self::Ghost { .. } => Rule::Ghost,
            Self::Phantom { .. } => Rule::Phantom,
            Self::Reordered { .. } => Rule::Reordered,
            Self::ReadUncommitted { .. } => Rule::ReadUncommitted,
            Self::Skipped { .. } => Rule::Skipped,
            Self::MovedBack { .. } => Rule::MovedBack,
            Self::NotOwned { .. } => Rule::NotOwned,
            Self::CommitMovedBack { .. } => Rule::CommitMovedBack,
            Self::Redelivered { .. } => Rule::Redelivered,
            Self::TwoOwners { .. } => Rule::TwoOwners,
            Self::CommittedAhead { .. } => Rule::CommittedAhead,
            Self::CommittedAfterLoss { .. } => Rule::CommittedAfterLoss,
            Self::CommittedLate { .. } => Rule::CommittedLate,
            Self::GenerationMovedBack { .. } => Rule::GenerationMovedBack,
            Self::Undelivered { .. } => Rule::Undelivered,
            Self::LogsDiffer { .. } => Rule::LogsDiffer,
            Self::LogBroken { .. } => Rule::LogBroken,
            Self::DifferentReads { .. } => Rule::DifferentReads,
            Self::TwoOutcomes { .. } => Rule::TwoOutcomes,
            Self::NoLog { .. } => Rule::NoLog,
        }
    }
}

/// A time as reports show it.
pub(super) struct At(pub(super) Duration);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s", self.0.as_secs_f64())
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} (sent at {})", self.op, self.producer, At(self.at))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.client, At(self.at))
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}", self.partition, self.offset)
    }
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeyondTheEnd => f.write_str("nothing (beyond the end)"),
            Self::Nothing => f.write_str("nothing"),
            Self::Record(op, -1) => write!(f, "{op}"),
            Self::Record(op, epoch) => write!(f, "{op} of epoch {epoch}"),
        }
    }
}

impl fmt::Display for LogOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final => f.write_str("the final log"),
            Self::Broker(id) => write!(f, "the log of broker {id}"),
        }
    }
}

/// `offset N`, or that none was said.
struct Offset(Option<i64>);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, "offset {offset}"),
            None => f.write_str("no offset"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { record, partition, offset, acked_at, holds } => {
                let (offset, at) = (Offset(*offset), At(*acked_at));
                write!(
                    f,
                    "{record} was acknowledged in {partition} at {offset}, at {at}, and is not in the log"
                )?;
                holds.map_or(Ok(()), |holds| write!(f, "; that offset holds {holds}"))
            }
            Self::WrongOffset { record, partition, offset, acked_at, holds, found } => {
                let (offset, at) = (Offset(*offset), At(*acked_at));
                write!(
                    f,
                    "{record} was acknowledged in {partition} at {offset}, at {at}, but stands at {found}"
                )?;
                holds.map_or(Ok(()), |holds| write!(f, "; that offset holds {holds}"))
            }
            Self::Duplicated { record, first, second } => {
                write!(f, "{record} is in the log more than once: at {first} and at {second}")
            }
            Self::Ghost { record, failed_at, spot } => {
                write!(f, "{record} failed at {} as not written, but stands at {spot}", At(*failed_at))
            }
            Self::Phantom { op, spot, not_from } => match not_from {
                NotFrom::Anybody => write!(f, "{spot} holds {op}, which nobody has written"),
                NotFrom::Here(sent, to) => write!(f, "{spot} holds {sent}, which was written to {to}"),
                NotFrom::Before(reader) => {
                    write!(f, "{reader} read {op} at {spot}, which nobody had written by then")
                }
            },
            Self::Reordered { earlier, earlier_spot, later, later_spot } => {
                write!(f, "{earlier} was accepted before {later}, but stands behind it: ")?;
                write!(f, "at {earlier_spot}, the other at {later_spot}")
            }
            Self::ReadUncommitted { reader, spot, read, holds } => {
                write!(f, "{reader} read {read} at {spot}, where the log holds {holds}")
            }
            Self::Skipped { reader, partition, expected, read, missed, first_missed: (offset, op) } => {
                write!(f, "{reader} went from offset {expected} of {partition} to {read} and missed ")?;
                write!(f, "{missed} records, the first of them {op} at offset {offset}")
            }
            Self::MovedBack { reader, partition, expected, read } => {
                write!(f, "{reader} read offset {read} of {partition}, although {expected} was next")
            }
            Self::NotOwned { reader, spot, gone_at } => {
                write!(f, "{reader} read {spot}, which was no longer its own since {}", At(*gone_at))
            }
            Self::CommitMovedBack { group, partition, before, offset, after, then, fetched } => {
                let verb = if *fetched { "was told" } else { "committed" };
                write!(f, "offset {offset} of {partition} was committed in group {group} by {before}, ")?;
                write!(f, "but {after} {verb} {}", Offset(*then))
            }
            Self::Redelivered { reader, spot, committed, by } => {
                write!(f, "{reader} was given {spot} again, although {by} had committed offset {committed}")
            }
            Self::TwoOwners { group, partition, first, second, generation } => {
                write!(f, "{partition} was assigned in group {group} to {second}, but also to {first}")?;
                match generation {
                    Some(generation) => write!(f, ", both in generation {generation}"),
                    None => f.write_str(", which had not given it back"),
                }
            }
            Self::CommittedAhead { member, partition, offset, done } => {
                write!(f, "{member} committed offset {offset} of {partition}, but was done up to ")?;
                write!(f, "{}", Offset(*done))
            }
            Self::CommittedAfterLoss { member, partition, offset } => {
                write!(f, "{member} committed offset {offset} of {partition} after it had lost it")
            }
            Self::CommittedLate { member, partition, offset, generation, then, since } => {
                write!(f, "{member} committed offset {offset} of {partition} in generation {generation}, ")?;
                write!(f, "although {since} was in generation {then} already")
            }
            Self::GenerationMovedBack { group, before, from, after, to } => {
                write!(
                    f,
                    "group {group} was in generation {from} by {before}, but {after} was told its assignment in generation {to}"
                )
            }
            Self::Undelivered { group, spot, missed, op } => {
                write!(
                    f,
                    "group {group} was never done with {missed} records, the first of them {op} at {spot}"
                )
            }
            Self::LogsDiffer { one, other, spot, one_holds, other_holds } => {
                write!(f, "{one} holds {one_holds} at {spot}, {other} holds {other_holds}")
            }
            Self::LogBroken { log, spot, after, epoch, bounds: (start, end) } => {
                write!(f, "{log} is broken at {spot}, epoch {epoch}: it goes from {start} to {end}")?;
                after.map_or(Ok(()), |(offset, epoch)| {
                    write!(f, " and the record before has offset {offset} and epoch {epoch}")
                })
            }
            Self::DifferentReads { spot, first, first_read, second, second_read } => {
                write!(f, "{first} read {first_read} at {spot}, {second} read {second_read} there")
            }
            Self::TwoOutcomes { record, first_at, second_at } => {
                write!(f, "{record} has two outcomes, at {} and at {}", At(*first_at), At(*second_at))
            }
            Self::NoLog { partition, acked, reads } => {
                write!(f, "{partition} cannot be judged, as its final log is missing: ")?;
                write!(f, "{acked} acknowledged records, {reads} reads")
            }
        }
    }
}
