//! What goes into the fetcher and what comes out of it.

use std::collections::BTreeSet;
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
    /// Go to the first record of the last so many (KIP-1106), by the clock of this machine and the records' timestamps; to the end
    /// if there is none.
    ByDuration(Duration),
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
    /// `retry.backoff.ms`, `retry.backoff.max.ms`.
    pub backoff: Backoff,
    /// How long a partition may have no leader until the application is told (`default.api.timeout.ms`, or `request.timeout.ms` if
    /// that is longer). One that is older than what was read is taken after half of it at the latest.
    pub locate_limit: Duration,
    /// `client.rack`; empty without one.
    pub rack: String,
    /// How long a follower is read before its leader is asked again (`metadata.max.age.ms`).
    pub replica_limit: Duration,
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

/// Where to begin in a partition of a certain topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartIn {
    /// The partition.
    pub partition: TopicPartition,
    /// Id of its topic; nil if unknown.
    pub topic_id: Uuid,
    /// Offset and the epoch of the record before it (-1 if unknown); without one, as `auto.offset.reset` says.
    pub place: Option<(i64, i32)>,
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
    /// As [`Event::Begin`], where offsets are those of certain topics: where there is another topic of that name by now, they count for
    /// nothing.
    BeginIn(Vec<StartIn>),
    /// The application wants to go on elsewhere.
    Seek(TopicPartition, StartOffset),
    /// Hand out nothing and fetch nothing of these until [`Event::Resume`].
    Pause(Vec<TopicPartition>),
    /// Go on with these.
    Resume(Vec<TopicPartition>),
    /// With `true` the partition has a reader of its own, which takes by [`Fetcher::take_from`](super::Fetcher::take_from)
    /// and holds back nobody else; with `false` it is read together with the others again.
    SetApart(TopicPartition, bool),
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
    /// A broker answered [`Effect::EndsOfEpochs`]; without an answer comes [`Event::ListFailed`].
    Ended {
        /// The broker.
        broker: i32,
        /// Number of the lookup.
        lookup: u64,
        /// Its answer; `None` if it does not know the question.
        ends: Option<Vec<EndOfEpoch>>,
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
    /// Ask where leader epochs end (KIP-320); answer with [`Event::Ended`] or [`Event::ListFailed`].
    EndsOfEpochs {
        /// The broker.
        broker: i32,
        /// Number to give back.
        lookup: u64,
        /// What to ask for.
        partitions: Vec<EpochLookup>,
    },
    /// Say that the log of a partition was cut before its position, and that reading goes on where it differs, or as
    /// `auto.offset.reset` says if nobody knows where that is.
    WasCut {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
        /// First offset at which the log differs.
        diverges: Option<i64>,
    },
    /// Say that a topic was deleted and created again, and that the new one is read from its beginning.
    Recreated {
        /// The partition.
        partition: TopicPartition,
        /// The position in the former topic, if there was one.
        offset: Option<i64>,
    },
    /// What was fetched of this partition from the offset on is not in its log any more. A reader gives up a chunk of another
    /// generation than [`Fetcher::generation`](super::Fetcher::generation) says; if it stands before the offset, it goes on
    /// there with [`Event::Seek`].
    Void {
        /// The partition.
        partition: TopicPartition,
        /// First offset that counts no more; [`i64::MIN`] for everything, [`i64::MAX`] if nobody has seen what is gone.
        from: i64,
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
    /// There is something to take, or a position became known: wake whoever waits.
    Wake,
    /// There is something to take from this partition, which has a reader of its own.
    WakeReader(TopicPartition),
    /// Memory is short, and chunks that wait long keep answers alive that hold more than theirs: copy those that
    /// [`Fetcher::pinned`](super::Fetcher::pinned) names.
    Unpin,
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
    /// How long the broker may wait for records.
    pub max_wait: Duration,
    /// The broker may name a follower in the client's rack; else it is to send records itself.
    pub near: bool,
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
}

/// One partition of a [`Effect::ListOffsets`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The partition.
    pub partition: TopicPartition,
    /// Epoch of the leader that is asked; -1 if unknown.
    pub leader_epoch: i32,
    /// Milliseconds since the Unix epoch, or one of Kafka's negative codes. [`BY_DURATION`]: as long ago as
    /// [`OffsetReset::ByDuration`] says, for whoever has a clock.
    pub timestamp: i64,
}

/// See [`Lookup::timestamp`].
pub const BY_DURATION: i64 = i64::MIN;

/// One partition of an [`Effect::EndsOfEpochs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochLookup {
    /// The partition.
    pub partition: TopicPartition,
    /// Epoch of the leader that is asked.
    pub leader_epoch: i32,
    /// Epoch of the last record that was fetched.
    pub epoch: i32,
}

/// Where an epoch ends, as a leader says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfEpoch {
    /// The partition.
    pub partition: TopicPartition,
    /// What went wrong, if anything.
    pub error: ErrorCode,
    /// The epoch asked for, or the largest one before it; -1 if the leader has none.
    pub epoch: i32,
    /// First offset behind that epoch; -1 if the leader has none.
    pub end: i64,
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

/// How far the log of a partition reaches, as the broker told that was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watermarks {
    /// First offset there is; `None` from brokers that do not tell (Fetch 4).
    pub low: Option<i64>,
    /// Offset behind the last record that is replicated: the high watermark.
    pub high: i64,
    /// First offset of the oldest open transaction, or the high watermark if there is none; `None` from brokers that do not tell.
    pub last_stable: Option<i64>,
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
    /// Follower that is nearer to this client (KIP-392).
    pub preferred_replica: Option<i32>,
    /// How far the log reaches, if the answer tells.
    pub watermarks: Option<Watermarks>,
    /// Transactions whose records are to be left out (only with read_committed).
    pub aborted: Vec<Aborted>,
    /// Batches, the last one often cut off.
    pub records: Bytes,
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
    /// The partition. The name of its topic is an allocation that chunks of this assignment and `topic_id` share, and no others:
    /// whoever keeps it can tell what was read from a topic from what was read from a later one of the same name.
    pub partition: TopicPartition,
    /// Id of the topic that it was fetched from; nil if unknown.
    pub topic_id: Uuid,
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
    /// They lie in memory that holds records of other partitions, too.
    pub shared: bool,
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
    /// The broker refuses.
    Refused(ErrorCode),
    /// There has been no leader for [`FetchSettings::locate_limit`](super::FetchSettings).
    NoLeader(ErrorCode),
    /// The log was cut before the position: a leader that did not have all of it was elected (KIP-320).
    Truncated {
        /// The position.
        offset: i64,
        /// First offset at which the log differs from what was fetched, if the leader knows.
        diverges: Option<i64>,
    },
    /// What the broker sent is not a batch at or after this offset.
    Corrupt {
        /// The position.
        offset: i64,
    },
}
