//! What a voter is told, what it asks its peers, and what it wants done.

use std::time::Duration;

use klamm_wire::ErrorCode;

use crate::Tick;
use crate::config::BrokerConfig;
use crate::log::LogError;

/// This moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Now {
    /// By the clock that only runs.
    pub tick: Tick,
    /// Milliseconds since the Unix epoch, for what is told and written.
    pub wall_ms: i64,
}

/// Names a snapshot: all records below an offset, the last of which belongs to an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// Offset of the first record that is not in it.
    pub end_offset: i64,
    /// Epoch of the last one that is.
    pub epoch: i32,
}

/// What a voter must not forget, Kafka's file `quorum-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct QuorumState {
    /// Latest epoch the voter has heard of.
    pub epoch: i32,
    /// Leader of that epoch, if it has heard of one.
    pub leader: Option<i32>,
    /// Whom it has given its vote in that epoch.
    pub voted: Option<i32>,
}

/// Time limits of a quorum, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// `controller.quorum.election.timeout.ms`: a round of votes takes one to two of it.
    pub election_timeout: Duration,
    /// `controller.quorum.election.backoff.max.ms`: longest pause after a lost election.
    pub election_backoff_max: Duration,
    /// `controller.quorum.fetch.timeout.ms`: silence after which a leader is taken for dead, and, by half as much more,
    /// its followers by the leader.
    pub fetch_timeout: Duration,
    /// `controller.quorum.request.timeout.ms`: the driver gives a request up after it.
    pub request_timeout: Duration,
    /// `controller.quorum.retry.backoff.ms`: pause before a request that failed is sent again.
    pub retry_backoff: Duration,
}

impl Settings {
    /// As a node is configured.
    pub fn new(config: &BrokerConfig) -> Self {
        let millis = |name: &str, default| config.millis(name).unwrap_or(Duration::from_millis(default));
        Self {
            election_timeout: millis("controller.quorum.election.timeout.ms", 1_000),
            election_backoff_max: millis("controller.quorum.election.backoff.max.ms", 1_000),
            fetch_timeout: millis("controller.quorum.fetch.timeout.ms", 2_000),
            request_timeout: millis("controller.quorum.request.timeout.ms", 2_000),
            retry_backoff: millis("controller.quorum.retry.backoff.ms", 20),
        }
    }
}

/// What one voter asks another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Vote (52).
    Vote(Vote),
    /// BeginQuorumEpoch (53): the sender leads.
    BeginEpoch {
        /// The sender.
        leader: i32,
        /// Its epoch.
        epoch: i32,
    },
    /// EndQuorumEpoch (54): the sender has led.
    EndEpoch {
        /// The sender.
        leader: i32,
        /// Its epoch.
        epoch: i32,
        /// The others, those with the longest logs first.
        successors: Vec<i32>,
    },
    /// Fetch (1) of the metadata log.
    Fetch(Fetch),
    /// FetchSnapshot (59).
    FetchSnapshot {
        /// Epoch of the leader that is asked.
        epoch: i32,
        /// Which one.
        id: SnapshotId,
        /// First byte wanted.
        position: u64,
    },
}

/// Asks for a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// Epoch to lead; with `pre_vote`, the epoch there is.
    pub epoch: i32,
    /// Who asks.
    pub candidate: i32,
    /// Epoch of its last record.
    pub last_epoch: i32,
    /// End of its log.
    pub last_offset: i64,
    /// Whether it only wants to know (KIP-996).
    pub pre_vote: bool,
}

/// Asks for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Epoch of the leader that is asked.
    pub epoch: i32,
    /// Where the log of who asks ends: it holds everything before, durably.
    pub offset: i64,
    /// Epoch of its last record.
    pub last_epoch: i32,
    /// High watermark it knows (KIP-1166), `i64::MAX` if it does not say.
    pub high_watermark: i64,
}

/// Who fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replica {
    /// A voter, by id.
    Voter(i32),
    /// Somebody who follows without a vote: a broker by id, or a consumer (-1).
    Observer(i32),
}

/// What every answer says of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// Why not, or none.
    pub error: ErrorCode,
    /// Leader as far as the sender knows.
    pub leader: Option<i32>,
    /// Its epoch.
    pub epoch: i32,
}

/// An answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Response<R> {
    /// To [`Request::Vote`].
    Vote {
        /// Of the quorum.
        head: Head,
        /// Whether the vote is given.
        granted: bool,
    },
    /// To [`Request::BeginEpoch`] and [`Request::EndEpoch`].
    Epoch(Head),
    /// To [`Request::Fetch`].
    Fetch {
        /// Of the quorum.
        head: Head,
        /// Records below it are committed, -1 while the leader does not know.
        high_watermark: i64,
        /// What it got.
        fetched: Fetched<R>,
    },
    /// To [`Request::FetchSnapshot`].
    Snapshot {
        /// Of the quorum.
        head: Head,
        /// Which one.
        id: SnapshotId,
        /// Bytes of the whole.
        size: u64,
        /// Where the part begins.
        position: u64,
        /// The part.
        bytes: bytes::Bytes,
    },
}

impl<R> Response<R> {
    /// What the answer says of the quorum.
    pub fn head(&self) -> &Head {
        match self {
            Self::Epoch(head)
            | Self::Vote { head, .. }
            | Self::Fetch { head, .. }
            | Self::Snapshot { head, .. } => head,
        }
    }
}

/// What a Fetch got.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fetched<R> {
    /// Nothing: see the error.
    Refused,
    /// Records, maybe none.
    Records(R),
    /// The logs part: the leader's largest epoch not above the one asked for, and where it ends.
    Diverging {
        /// Epoch.
        epoch: i32,
        /// Its end.
        end_offset: i64,
    },
    /// The records wanted are only in this snapshot any more.
    Snapshot(SnapshotId),
}

/// What a voter wants done, to be done in order.
///
/// What follows a [`Self::Persist`] may happen only once that is durable; so may the answer of the step that asked for it.
/// Only a request for a vote, no pre-vote, may leave before, if its outcome is not told to the voter before: nobody counts on
/// the vote of a candidate for itself but the candidate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make this durable in place of what was there. If only the leader differs from what is durable, the next sync is soon
    /// enough: epoch and vote bind a voter, the leader of an epoch is found again.
    Persist(QuorumState),
    /// Send a request; tell the outcome with `number`, after `request.timeout` at the latest.
    Send {
        /// Voter.
        to: i32,
        /// Tells the outcome from those of other requests.
        number: u64,
        /// What.
        request: Request,
    },
    /// Make the log durable up to `end`, then say so with `cut`.
    Sync {
        /// Where the log ends.
        end: i64,
        /// How often the log was cut before.
        cut: u64,
    },
    /// The voter leads from now on; nothing it decides counts before [`super::Voter::active_epoch`] says so.
    Elected {
        /// Its epoch.
        epoch: i32,
    },
    /// The voter leads no more.
    Deposed {
        /// The epoch it led.
        epoch: i32,
    },
    /// Records below this offset are committed.
    HighWatermark(i64),
    /// The log was cut back to this offset.
    Truncated(i64),
    /// The log was replaced by a snapshot.
    SnapshotLoaded(SnapshotId),
}

/// Why a voter cannot go on: its log failed, or the quorum broke its promises. Its process must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoterError {
    /// The log cannot be read or written.
    #[error("metadata log: {0}")]
    Log(#[from] LogError),
    /// What a peer said contradicts what is committed.
    #[error("voter {id}: {cause}")]
    Broken {
        /// This voter.
        id: i32,
        /// How.
        cause: String,
    },
}

/// How far a replica is, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Progress {
    /// End of its log, -1 if unknown.
    pub end: i64,
    /// When it last fetched.
    pub fetched: Option<Now>,
    /// Wall-clock ms at which it last had everything there was, -1 if never.
    pub caught_up_ms: i64,
    /// Where the leader's log ended at its last fetch, and when that was.
    pub(super) seen_end: (i64, i64),
}

impl Progress {
    pub(super) const UNKNOWN: Self = Self { end: -1, fetched: None, caught_up_ms: -1, seen_end: (-1, -1) };

    /// Notes a fetch from `offset` while the leader's log ends at `end`.
    pub(super) fn fetched(&mut self, now: Now, offset: i64, end: i64) {
        if offset >= end {
            self.caught_up_ms = self.caught_up_ms.max(now.wall_ms);
        } else if self.seen_end.0 > 0 && offset >= self.seen_end.0 {
            self.caught_up_ms = self.caught_up_ms.max(self.seen_end.1);
        }
        self.seen_end = (end, now.wall_ms);
        self.end = offset;
        self.fetched = Some(now);
    }
}
