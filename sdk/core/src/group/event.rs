//! What goes into a membership and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_wire::ErrorCode;

use crate::assign::{Assignment, RebalanceProtocol};
use crate::backoff::Backoff;
use crate::{Tick, TopicPartition};

/// Where a group goes on in a partition, as it is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CommittedOffset {
    /// Offset of the next record to read.
    pub offset: i64,
    /// Leader epoch of the record before, if known: whoever goes on here notices if that was truncated away (KIP-320).
    pub leader_epoch: Option<i32>,
    /// Whatever the application wants to know again; at most `offset.metadata.max.bytes` of the broker, by default 4,096 B.
    pub metadata: String,
}

impl CommittedOffset {
    /// This is the next record to read; without epoch and metadata.
    pub fn new(offset: i64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Sets the leader epoch of the record before; -1 for unknown.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.leader_epoch = Some(epoch).filter(|epoch| *epoch >= 0);
        self
    }

    /// Sets the metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = metadata.into();
        self
    }
}

impl From<i64> for CommittedOffset {
    fn from(offset: i64) -> Self {
        Self::new(offset)
    }
}

/// What is committed.
pub type Offsets = BTreeMap<TopicPartition, CommittedOffset>;

/// Settings of a membership.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// Offsets may be committed without being a member, because a `group.id` is set.
    pub alone: bool,
    /// `true` with a `group.instance.id`: the member does not leave when it ends (KIP-345).
    pub is_static: bool,
    /// What all assignors of this member support.
    pub protocol: RebalanceProtocol,
    /// `session.timeout.ms`.
    pub session: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat: Duration,
    /// `max.poll.interval.ms`: also how long the coordinator waits for members, and how long a listener may take.
    pub max_poll: Duration,
    /// `request.timeout.ms`.
    pub request: Duration,
    /// `retry.backoff.ms`, `retry.backoff.max.ms`.
    pub backoff: Backoff,
}

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The broker said so.
    Code(ErrorCode),
    /// No answer: the connection broke, or time was over.
    NoAnswer,
}

/// A JoinGroup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Generation of the group.
    pub generation: i32,
    /// Assignor that the coordinator chose.
    pub assignor: Arc<str>,
    /// Id of this member.
    pub member_id: Arc<str>,
    /// All members with what they told, if this one leads.
    pub members: Option<Vec<JoinedMember>>,
    /// A static leader is back, and the assignment stands as it was (KIP-814).
    pub stands: bool,
}

/// A member as the leader hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Member id.
    pub id: Arc<str>,
    /// `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// Its subscription, in bytes.
    pub metadata: Bytes,
}

/// Answer to JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAnswer {
    /// The member is in.
    Joined(Joined),
    /// It shall join again with this id (KIP-394).
    MemberIdRequired(Arc<str>),
    /// It is not in.
    Refused(Refusal),
}

/// What the leader's assignor chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Assignments in bytes, by member id.
    pub assignments: Vec<(Arc<str>, Bytes)>,
    /// What the topics of the group were like: the leader joins again when that changes.
    pub shapes: Shapes,
    /// Partitions that a member owns are given to nobody: whoever gives them up joins again, and then they go to others
    /// (KIP-429). The leader does so if nobody has after `session.timeout.ms`: a process that began anew does not know what it
    /// had to give up.
    pub withheld: bool,
}

/// What assignments depend on in the metadata of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions it has; none if it does not exist.
    pub partitions: usize,
    /// For members with a rack, the racks of each partition's replicas (KIP-881); `None` where that of one is not known now, as
    /// its broker is down. Else empty.
    pub racks: Vec<Option<BTreeSet<Arc<str>>>>,
}

/// Topics by name.
pub type Shapes = BTreeMap<Arc<str>, TopicShape>;

impl TopicShape {
    /// So many partitions, wherever they are.
    pub fn new(partitions: usize) -> Self {
        Self { partitions, racks: Vec::new() }
    }

    pub(super) fn differs(&self, other: &Self) -> bool {
        let moved = |(one, other): (&Option<BTreeSet<_>>, &Option<BTreeSet<_>>)| {
            one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one != other)
        };
        self.partitions != other.partitions || self.racks.iter().zip(&other.racks).any(moved)
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The application wants these topics.
    Subscribe(BTreeSet<Arc<str>>),
    /// What the application wants by a pattern is these topics now.
    Matched(BTreeSet<Arc<str>>),
    /// The application wants none any more.
    Unsubscribe,
    /// The application is done; [`Effect::Closed`] follows.
    Close,
    /// The application last asked for records then; `None`: it waits for them at this moment.
    Polled(Option<Tick>),
    /// Since then somebody has had records without asking for more, the first of them; `None`: nobody has any. Whoever has some
    /// has to come back: that others ask, or wait, is no excuse.
    Held(Option<Tick>),
    /// The metadata changed: what topics are like now. Those that were not told are not known.
    Topics(Shapes),
    /// Answer to [`Effect::FindCoordinator`].
    Coordinator(Result<i32, Refusal>),
    /// Answer to [`Effect::Join`].
    Join(u64, JoinAnswer),
    /// Answer to [`Effect::Lead`]; an error is what the assignor said.
    Led(u64, Result<Chosen, String>),
    /// Answer to [`Effect::Sync`]; an error in the text if the assignment cannot be read.
    Sync(u64, Result<Result<Assignment, String>, Refusal>),
    /// Answer to [`Effect::Heartbeat`].
    Heartbeat(u64, Result<(), Refusal>),
    /// Answer to [`Effect::Leave`].
    Left(u64, Result<(), Refusal>),
    /// The listener has returned from this call.
    Told(u64),
    /// The application, or the driver for it, wants to commit.
    Commit(u64, Offsets),
    /// The application, which is no member, has chosen by itself what it reads: these partitions where the group committed.
    /// [`Effect::Start`] follows. Replaces what it has chosen before.
    ByHand(Vec<TopicPartition>),
    /// These partitions, too, are to be read from where the group has committed by now. [`Effect::Start`] follows.
    Want(Vec<TopicPartition>),
    /// Answer to [`Effect::Commit`].
    Committed(u64, Result<(), Refusal>),
    /// Answer to [`Effect::FetchOffsets`]; `None` for a partition that nobody committed.
    Offsets(u64, Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, Refusal>),
}

/// Why partitions change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Members came or went, or the leader wants another assignment.
    Rebalance,
    /// This member subscribed to other topics.
    SubscriptionChanged,
    /// Topics of the group have other partitions than before, or have them in other racks.
    PartitionsChanged,
    /// Topics of the subscription were created or deleted, as this member noticed: the leader of the group, members that follow a
    /// pattern, and whoever loses by an assignment nothing but partitions of topics that its own metadata know to be deleted. Each
    /// looks at its metadata at its own time, so the same change is a [`Self::Rebalance`] or [`Self::GivenAway`] to members that have
    /// not seen it yet. The partitions are taken from every member that has some; the reason is for people and logs.
    TopicsChanged,
    /// A rebalance gave them to another member, or to nobody because their topic was deleted and this member has not heard of it
    /// ([`Self::TopicsChanged`]).
    GivenAway,
    /// The application unsubscribed.
    Unsubscribed,
    /// The consumer is being closed.
    Closed,
    /// The application did not ask for records within `max.poll.interval.ms`.
    PollStalled,
    /// The coordinator was not heard of within `session.timeout.ms`.
    SessionTimedOut,
    /// The coordinator does not know this member, or not in this generation.
    Expelled,
    /// The group cannot be gone on with.
    Failed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rebalance => "the group is rebalancing",
            Self::SubscriptionChanged => "the subscription changed",
            Self::PartitionsChanged => "partitions were added or moved to other racks",
            Self::TopicsChanged => "subscribed topics were created or deleted",
            Self::GivenAway => "the rebalance gave them to another member",
            Self::Unsubscribed => "the consumer unsubscribed",
            Self::Closed => "the consumer is being closed",
            Self::PollStalled => "no records were asked for within max.poll.interval.ms",
            Self::SessionTimedOut => "the coordinator was not heard of within session.timeout.ms",
            Self::Expelled => "the coordinator does not know this member any more",
            Self::Failed => "the membership failed",
        })
    }
}

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// These are read from now on, since a rebalance that this member joined for a reason.
    Assigned(Vec<TopicPartition>, Reason),
    /// These are given up; they can be committed until the listener returns.
    Revoked(Vec<TopicPartition>, Reason),
    /// These are gone, and maybe read by others already; they cannot be committed.
    Lost(Vec<TopicPartition>, Reason),
}

/// Why a membership cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The coordinator refuses this member.
    #[error("the group coordinator refuses: {_0}{}", cure(*_0))]
    Refused(ErrorCode),
    /// The assignor of this member, which leads, failed.
    #[error("the assignor failed: {0}")]
    Assignor(String),
    /// The leader sent an assignment that cannot be read.
    #[error("the leader's assignment cannot be read: {0}")]
    Assignment(String),
}

/// What helps against a refusal.
fn cure(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::FENCED_INSTANCE_ID => {
            ": another consumer has joined with this group.instance.id since; give each its own"
        }
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL => {
            ": the members of the group have no assignor in common with this one, or the group is of another protocol; offer \
             one of theirs in partition.assignment.strategy, or use another group.id"
        }
        ErrorCode::INVALID_GROUP_ID => ": group.id must not be empty",
        ErrorCode::INVALID_SESSION_TIMEOUT => {
            ": session.timeout.ms must lie between the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        ErrorCode::GROUP_MAX_SIZE_REACHED => {
            ": the group has as many members as the brokers' group.max.size allows; let one leave, or raise it"
        }
        ErrorCode::GROUP_AUTHORIZATION_FAILED => ": the client needs READ on the group",
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => ": the client needs READ on the topics",
        _ => "",
    }
}

/// Why a commit was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitRefusal {
    /// The partition is not owned (any more); the commit must not be tried again.
    NotOwned(TopicPartition),
    /// The coordinator does not take it from this member any more; what was not committed is read again by others.
    Expelled(ErrorCode),
    /// The group has members, and who is none may not commit for it.
    HasMembers(ErrorCode),
    /// Not now: a rebalance, or the coordinator is not known. Worth another attempt.
    Later(Refusal),
    /// It will not be taken, for example because metadata are too large.
    Refused(ErrorCode),
}

/// What the driver has to do, in the order emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask who coordinates the group; answer with [`Event::Coordinator`].
    FindCoordinator,
    /// Send a JoinGroup.
    Join {
        /// Number to give back.
        ticket: u64,
        /// Broker id.
        coordinator: i32,
        /// Empty at first.
        member_id: Arc<str>,
        /// What the member wants.
        topics: BTreeSet<Arc<str>>,
        /// What it still reads; nothing under the eager protocol.
        owned: Vec<TopicPartition>,
        /// Generation in which it got that.
        generation: Option<i32>,
        /// How long to wait for the answer.
        limit: Duration,
    },
    /// Run the assignor; answer with [`Event::Led`].
    Lead {
        /// Number to give back.
        ticket: u64,
        /// Its name.
        assignor: Arc<str>,
        /// All members.
        members: Vec<JoinedMember>,
        /// The assignment stands: nothing is to be assigned, only [`Chosen::shapes`] to be told.
        stands: bool,
    },
    /// Send a SyncGroup.
    Sync {
        /// Number to give back.
        ticket: u64,
        /// Broker id.
        coordinator: i32,
        /// Id of this member.
        member_id: Arc<str>,
        /// Generation joined.
        generation: i32,
        /// Name of the assignor.
        assignor: Arc<str>,
        /// What the leader chose; empty for the others.
        assignments: Vec<(Arc<str>, Bytes)>,
    },
    /// Send a Heartbeat.
    Heartbeat {
        /// Number to give back.
        ticket: u64,
        /// Broker id.
        coordinator: i32,
        /// Id of this member.
        member_id: Arc<str>,
        /// Its generation.
        generation: i32,
    },
    /// Send a LeaveGroup; answer with [`Event::Left`].
    Leave {
        /// Number to give back.
        ticket: u64,
        /// Broker id.
        coordinator: i32,
        /// Id of this member.
        member_id: Arc<str>,
        /// Shown in the broker's log (KIP-800).
        reason: Reason,
    },
    /// Tell the member's assignor what it got, in which generation.
    Adopt(Arc<str>, Assignment, i32),
    /// These belong to the member now; do not read them before [`Effect::Start`].
    Add(Vec<TopicPartition>),
    /// Hand out nothing of these any more.
    Stop(Vec<TopicPartition>),
    /// Call the listener; answer with [`Event::Told`].
    Tell(u64, Call),
    /// The listener took too long: give this call up.
    Abandon(u64),
    /// Ask for committed offsets; answer with [`Event::Offsets`].
    FetchOffsets {
        /// Number to give back.
        ticket: u64,
        /// Broker id.
        coordinator: i32,
        /// Of these.
        partitions: Vec<TopicPartition>,
    },
    /// Read these from here on, or by `auto.offset.reset`; unless the application has sought meanwhile.
    Start(BTreeMap<TopicPartition, Option<CommittedOffset>>),
    /// Send an OffsetCommit; answer with [`Event::Committed`].
    Commit {
        /// Number to give back.
        id: u64,
        /// Broker id.
        coordinator: i32,
        /// Id of this member; empty for none.
        member_id: Arc<str>,
        /// Its generation; -1 for none.
        generation: i32,
        /// What to commit.
        offsets: Offsets,
    },
    /// A commit that was not answered is void: do not send it if it is not sent yet, and do not wait for it.
    Recall(u64),
    /// What became of a commit.
    CommitDone(u64, Result<(), CommitRefusal>),
    /// Tell the application. Nothing is owned any more.
    Fail(Fatal),
    /// Everything is given up and said.
    Closed,
}
