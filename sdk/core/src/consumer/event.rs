//! What goes into the fetcher and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_wire::ErrorCode;
use uuid::Uuid;

use crate::TopicPartition;
use crate::backoff::Backoff;

/// Where to start reading a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// The first record there is.
    Beginning,
    /// The end as it is when asked: only records written later.
    End,
    /// This offset; if it does not exist, `auto.offset.reset` applies.
    Offset(i64),
    /// The first record whose timestamp (milliseconds since the Unix epoch) is not earlier; the end if there
    /// is none.
    Timestamp(i64),
    /// This offset, if the record before it is of this leader epoch still; if that was truncated away, where the logs part
    /// (KIP-320). An epoch of -1 is not compared.
    Checked {
        /// Offset of the next record.
        offset: i64,
        /// Epoch of the record before.
        leader_epoch: i32,
    },
    /// Where the group `group.id` committed; if it did not, `auto.offset.reset` applies.
    Committed,
}

/// Which records of transactions are seen (`isolation.level`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All, also those of open and aborted transactions.
    #[default]
    ReadUncommitted,
    /// Only those of committed transactions, up to the first one still open.
    ReadCommitted,
}

/// What to do when the position does not exist in the log (`auto.offset.reset`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// Go to the first record there is.
    Earliest,
    /// Go to the end.
    #[default]
    Latest,
    /// Tell the application.
    None,
}

/// Settings of the fetcher.
#[derive(Debug, Clone)]
pub struct FetchSettings {
    /// `fetch.min.bytes`.
    pub min_bytes: i32,
    /// `fetch.max.wait.ms`.
    pub max_wait: Duration,
    /// `fetch.max.bytes`.
    pub max_bytes: i32,
    /// `max.partition.fetch.bytes`.
    pub max_partition_bytes: i32,
    /// `isolation.level`.
    pub isolation: Isolation,
    /// `auto.offset.reset`.
    pub reset: OffsetReset,
    /// Most bytes fetched, asked for, or held by records that the application still has.
    pub prefetch_bytes: usize,
    /// `client.rack`: brokers may send the consumer to a replica in its rack (KIP-392).
    pub rack: Option<Arc<str>>,
    /// How long to fetch from there until the leader is asked again (`metadata.max.age.ms`).
    pub preferred_max_age: Duration,
    /// `retry.backoff.ms`, `retry.backoff.max.ms`.
    pub backoff: Backoff,
    /// How long a partition may have no leader until the application is told (`default.api.timeout.ms`).
    pub locate_limit: Duration,
}

/// Leader of a partition, as the metadata tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Broker id.
    pub broker: i32,
    /// Leader epoch; -1 if unknown.
    pub epoch: i32,
    /// Id of the topic; nil if unknown.
    pub topic_id: Uuid,
}

/// What the metadata says about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// It has a leader.
    At(Leader),
    /// It has none, or topic or partition are not known (yet).
    Unknown(ErrorCode),
    /// Asking again will not help, for example an invalid topic name.
    Refused(ErrorCode),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The application wants exactly these partitions, each read from the start given.
    Assign(Vec<(TopicPartition, StartOffset)>),
    /// These are assigned, too; nothing is read of them before [`Event::Begin`] or [`Event::Seek`] says where.
    Add(Vec<TopicPartition>),
    /// These are not assigned any more; the others go on.
    Remove(Vec<TopicPartition>),
    /// Read these from here, after a record of this epoch (-1 if unknown), or as `auto.offset.reset` says without an offset,
    /// unless they have a position already.
    Begin(Vec<(TopicPartition, Option<(i64, i32)>)>),
    /// The application wants to go on elsewhere.
    Seek(TopicPartition, StartOffset),
    /// Hand out nothing and fetch nothing of these until [`Event::Resume`].
    Pause(Vec<TopicPartition>),
    /// Go on with these.
    Resume(Vec<TopicPartition>),
    /// The metadata changed.
    Located(Vec<(TopicPartition, Location)>),
    /// A broker answered [`Effect::Fetch`].
    Fetched {
        /// The broker.
        broker: i32,
        /// Its answer.
        answer: FetchAnswer,
    },
    /// [`Effect::Fetch`] got no answer.
    FetchFailed {
        /// The broker.
        broker: i32,
    },
    /// A broker answered [`Effect::ListOffsets`].
    Listed {
        /// The broker.
        broker: i32,
        /// Number of the lookup.
        lookup: u64,
        /// Its answer.
        offsets: Vec<ListedOffset>,
    },
    /// [`Effect::ListOffsets`] got no answer.
    ListFailed {
        /// The broker.
        broker: i32,
        /// Number of the lookup.
        lookup: u64,
    },
    /// So many bytes of answers are alive now, in the queue, in the reader or in records of the application.
    Held(usize),
    /// The reader took a chunk, could not go on with it at `from`, and dropped the rest: fetch it again.
    Refetch {
        /// Partition of the chunk.
        partition: TopicPartition,
        /// Generation of the chunk.
        generation: u64,
        /// Offset to fetch.
        from: i64,
    },
}

/// What the driver has to do, in the order emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a Fetch; answer with [`Event::Fetched`] or [`Event::FetchFailed`].
    Fetch {
        /// To this broker.
        broker: i32,
        /// What to ask for.
        plan: FetchPlan,
    },
    /// Send a ListOffsets; answer with [`Event::Listed`] or [`Event::ListFailed`].
    ListOffsets {
        /// To this broker.
        broker: i32,
        /// Number to give back.
        lookup: u64,
        /// What to ask for.
        partitions: Vec<Lookup>,
    },
    /// Ask for metadata of these topics, then report [`Event::Located`] when it changed.
    Refresh(BTreeSet<Arc<str>>),
    /// A broker told of a newer leader (KIP-951).
    LeaderHint {
        /// The partition.
        partition: TopicPartition,
        /// Broker id of its leader.
        leader: i32,
        /// Epoch of its leader.
        epoch: i32,
    },
    /// The log has other records than those that were read: reading goes on where they part (KIP-320). To be logged.
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// Where it stood.
        offset: i64,
        /// Where it goes on.
        at: i64,
    },
    /// There is something to take, or a position became known: wake whoever waits.
    Wake,
}

/// One Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPlan {
    /// Fetch session, or 0 (KIP-227).
    pub session_id: i32,
    /// 0 asks for a new session, then counts the requests of the session.
    pub session_epoch: i32,
    /// Most bytes to answer with, not counting that one batch is always sent.
    pub max_bytes: i32,
    /// Partitions that are new to the session or changed.
    pub partitions: Vec<FetchTarget>,
    /// Partitions that leave the session.
    pub forgotten: Vec<(TopicPartition, Uuid)>,
}

/// One partition of a [`FetchPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTarget {
    /// The partition.
    pub partition: TopicPartition,
    /// Id of its topic; nil if unknown.
    pub topic_id: Uuid,
    /// Epoch of the leader that is asked; -1 if unknown.
    pub leader_epoch: i32,
    /// First offset wanted.
    pub offset: i64,
    /// Epoch of the record before; -1 if unknown. The broker tells when its log has another one (KIP-320).
    pub last_epoch: i32,
}

/// One partition of a [`Effect::ListOffsets`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The partition.
    pub partition: TopicPartition,
    /// Epoch of the leader that is asked; -1 if unknown.
    pub leader_epoch: i32,
    /// Milliseconds since the Unix epoch, or one of Kafka's negative codes.
    pub timestamp: i64,
}

/// One partition of a ListOffsets answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// What went wrong, if anything.
    pub error: ErrorCode,
    /// The offset; -1 if there is none for the timestamp.
    pub offset: i64,
    /// Timestamp of the record at the offset; -1 if not asked for.
    pub timestamp_ms: i64,
    /// Epoch of the record at the offset; -1 if unknown.
    pub leader_epoch: i32,
}

/// A Fetch answer.
#[derive(Debug, Clone, Default)]
pub struct FetchAnswer {
    /// What went wrong with the whole request, if anything.
    pub error: Option<ErrorCode>,
    /// Session granted, or 0.
    pub session_id: i32,
    /// Partitions that have something to tell.
    pub partitions: Vec<FetchedPartition>,
}

/// One partition of a Fetch answer.
#[derive(Debug, Clone, Default)]
pub struct FetchedPartition {
    /// Name of the topic; empty where the id is used instead (Fetch v13).
    pub topic: String,
    /// Id of the topic, or nil.
    pub topic_id: Uuid,
    /// Index of the partition.
    pub partition: i32,
    /// What went wrong, if anything.
    pub error: Option<ErrorCode>,
    /// Leader and epoch, if the broker knows of a newer one (KIP-951).
    pub current_leader: Option<(i32, i32)>,
    /// The log has another record before the offset asked for: end of the last epoch that both may share.
    pub diverging: Option<LogEnd>,
    /// Broker to fetch from instead (KIP-392).
    pub preferred: Option<i32>,
    /// Where the log begins and ends.
    pub bounds: LogBounds,
    /// Transactions whose records are to be left out (only with read_committed).
    pub aborted: Vec<Aborted>,
    /// Batches, the last one often cut off.
    pub records: Bytes,
}

/// Where a log begins and ends; -1 where the broker did not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// First offset there is.
    pub start: i64,
    /// Behind the last record that is replicated: the high watermark.
    pub high: i64,
    /// First offset of the oldest open transaction, or the high watermark.
    pub stable: i64,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self { start: -1, high: -1, stable: -1 }
    }
}

/// Where an epoch ends in a broker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The epoch.
    pub epoch: i32,
    /// Offset behind its last record.
    pub offset: i64,
}

/// A transaction that was aborted (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Producer of the transaction.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
}

/// What one Fetch brought for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The partition.
    pub partition: TopicPartition,
    /// Changes with every assignment and seek.
    pub generation: u64,
    /// First offset to hand out; a compressed batch may begin before it.
    pub from: i64,
    /// Epoch of the record before; -1 if unknown.
    pub epoch: i32,
    /// Position once the chunk has been read to its end.
    pub next: i64,
    /// Transactions whose records are to be left out.
    pub aborted: Vec<Aborted>,
    /// The batches.
    pub records: Bytes,
}

/// Something for the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handout {
    /// Records to decode.
    Chunk(Chunk),
    /// A partition cannot go on by itself. It is tried again, and told again, as long as the cause lasts.
    Failed {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        failure: PartitionFailure,
    },
}

/// Why a partition cannot go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionFailure {
    /// The position does not exist and there is no policy for that.
    OutOfRange {
        /// The position.
        offset: i64,
    },
    /// The group has not committed an offset, and there is no policy for that.
    NoOffset,
    /// The log was truncated below the position, and there is no policy for that.
    Truncated {
        /// The position.
        offset: i64,
        /// First offset that is not what it was.
        at: i64,
    },
    /// The broker refuses.
    Refused(ErrorCode),
    /// There has been no leader for `default.api.timeout.ms`.
    NoLeader(ErrorCode),
    /// What the broker sent is not a batch at or after this offset.
    Corrupt {
        /// The position.
        offset: i64,
    },
}

/// Wanted partitions of one session, in order.
pub(crate) type Wanted = BTreeMap<TopicPartition, FetchTarget>;
