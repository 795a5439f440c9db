//! What is known of one assigned partition.

use std::collections::VecDeque;

use klamm_wire::ErrorCode;

use super::event::{Chunk, Handout, Leader, LogBounds, LogEnd, OffsetReset, PartitionFailure, StartOffset};
use crate::{Tick, TopicPartition};

/// ListOffsets timestamps with a meaning of their own.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Where the next fetch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody has said yet where to begin.
    Wait,
    /// Not known yet: ask the leader.
    Locate {
        /// Timestamp to ask for.
        timestamp: i64,
        /// Number of the lookup in flight.
        asked: Option<u64>,
    },
    /// Known.
    Fetch {
        /// First offset that has not been fetched.
        offset: i64,
    },
}

impl Stage {
    pub(crate) fn start(at: StartOffset) -> Self {
        match at {
            StartOffset::Beginning => Self::locate(EARLIEST),
            StartOffset::End => Self::locate(LATEST),
            // Negative ones would be taken for codes.
            StartOffset::Timestamp(ms) => Self::locate(ms.max(0)),
            StartOffset::Offset(offset) | StartOffset::Checked { offset, .. } => Self::Fetch { offset },
            StartOffset::Committed => Self::Wait,
        }
    }

    fn locate(timestamp: i64) -> Self {
        Self::Locate { timestamp, asked: None }
    }

    /// Where to go when the offset does not exist; `None` if the application decides.
    pub(crate) fn reset(policy: OffsetReset) -> Option<Self> {
        match policy {
            OffsetReset::Earliest => Some(Self::locate(EARLIEST)),
            OffsetReset::Latest => Some(Self::locate(LATEST)),
            OffsetReset::None => None,
        }
    }

    /// The stage after a lookup of `timestamp` was answered by `offset`.
    pub(crate) fn located(timestamp: i64, offset: i64) -> Self {
        match offset {
            // No record is that young: go on with what will be written.
            ..0 if timestamp >= 0 => Self::locate(LATEST),
            ..0 => Self::locate(timestamp),
            _ => Self::Fetch { offset },
        }
    }
}

fn epoch(start: StartOffset) -> i32 {
    match start {
        StartOffset::Checked { leader_epoch, .. } => leader_epoch,
        _ => -1,
    }
}

/// Failures in a row and the moment of the next attempt.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pub(crate) failures: u32,
    pub(crate) at: Option<Tick>,
}

impl Retry {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether an attempt may be made; forgets a moment that has come.
    pub(crate) fn due(&mut self, now: Tick) -> bool {
        if self.at.is_some_and(|at| at <= now) {
            self.at = None;
        }
        self.at.is_none()
    }
}

/// One assigned partition.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Changes whenever everything in flight or queued becomes worthless.
    pub(crate) generation: u64,
    pub(crate) stage: Stage,
    pub(crate) leader: Option<Leader>,
    /// Epoch of the record before the offset to fetch; -1 if unknown.
    pub(crate) epoch: i32,
    /// Replica that the leader sent this consumer to (KIP-392), and until when.
    pub(crate) preferred: Option<(i32, Tick)>,
    /// Of the log, when last told.
    pub(crate) bounds: LogBounds,
    pub(crate) paused: bool,
    pub(crate) retry: Retry,
    /// Since when there has been no leader, and what the metadata says about it.
    pub(crate) lost: Option<(Tick, ErrorCode)>,
    /// What the reader has not taken yet, in order.
    pub(crate) queue: VecDeque<Handout>,
    pub(crate) queued_bytes: usize,
}

impl Partition {
    pub(crate) fn new(now: Tick, generation: u64, start: StartOffset) -> Self {
        Self {
            generation,
            stage: Stage::start(start),
            leader: None,
            epoch: epoch(start),
            preferred: None,
            bounds: LogBounds::default(),
            paused: false,
            retry: Retry::default(),
            lost: Some((now, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    /// Drops what is queued and in flight, and goes on at `start`. Pause and leader stay.
    pub(crate) fn restart(&mut self, generation: u64, start: StartOffset) {
        self.generation = generation;
        self.stage = Stage::start(start);
        self.epoch = epoch(start);
        self.retry.clear();
        self.queue.clear();
        self.queued_bytes = 0;
    }

    /// Offset to be handed out next, as far as the queue tells, and epoch of the record before; `None` while it is being
    /// looked up.
    pub(crate) fn position(&self) -> Option<(i64, i32)> {
        let queued = self.queue.iter().find_map(|item| match item {
            Handout::Chunk(chunk) => Some((chunk.from, chunk.epoch)),
            Handout::Failed { .. } => None,
        });
        queued.or(match self.stage {
            Stage::Fetch { offset } => Some((offset, self.epoch)),
            Stage::Wait | Stage::Locate { .. } => None,
        })
    }

    /// Where to go on when the log has other records than those that were read: where it parts, or at the position if that
    /// comes first.
    pub(crate) fn parted(&self, end: LogEnd) -> Option<StartOffset> {
        let (position, _) = self.position()?;
        Some(StartOffset::Checked { offset: position.min(end.offset).max(0), leader_epoch: end.epoch })
    }

    /// Broker to fetch from.
    pub(crate) fn source(&self) -> Option<i32> {
        self.preferred.map(|(broker, _)| broker).or(self.leader.map(|leader| leader.broker))
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.queued_bytes += chunk.records.len();
        self.queue.push_back(Handout::Chunk(chunk));
    }

    /// Queues a failure, unless the application has not seen the last one yet.
    pub(crate) fn fail(&mut self, partition: &TopicPartition, failure: PartitionFailure) {
        if !self.has_failed() {
            self.queue.push_back(Handout::Failed { partition: partition.clone(), failure });
        }
    }

    /// Whether a failure waits to be seen; until then nothing more is fetched.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.queue.back(), Some(Handout::Failed { .. }))
    }

    pub(crate) fn pop(&mut self) -> Option<Handout> {
        let item = self.queue.pop_front();
        if let Some(Handout::Chunk(chunk)) = &item {
            self.queued_bytes = self.queued_bytes.saturating_sub(chunk.records.len());
        }
        item
    }

    /// Takes what the metadata says. Returns `true` if there is someone new to ask.
    pub(crate) fn move_to(&mut self, leader: Leader) -> bool {
        let stale =
            self.leader.is_some_and(|old| old.topic_id == leader.topic_id && leader.epoch < old.epoch);
        if stale || self.leader == Some(leader) {
            return false;
        }
        self.leader = Some(leader);
        self.preferred = None;
        self.retry.clear();
        true
    }
}
