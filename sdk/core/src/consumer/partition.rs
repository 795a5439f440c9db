//! What is known of one assigned partition.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ErrorCode;
use uuid::Uuid;

use super::event::{
    BY_DURATION, Chunk, Handout, Leader, OffsetReset, PartitionFailure, StartOffset, Watermarks,
};
use crate::{Tick, TopicPartition};

/// ListOffsets timestamps with a meaning of their own.
const LATEST: i64 = -1;
pub(crate) const EARLIEST: i64 = -2;

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
    /// Known, but not from this leader: ask it whether its log still has what was fetched before (KIP-320).
    Validate {
        /// First offset that has not been fetched.
        offset: i64,
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
            StartOffset::Checked { offset, leader_epoch: 0.. } => Self::Validate { offset, asked: None },
            StartOffset::Offset(offset) | StartOffset::Checked { offset, .. } => Self::Fetch { offset },
            StartOffset::Committed => Self::Wait,
        }
    }

    pub(crate) fn locate(timestamp: i64) -> Self {
        Self::Locate { timestamp, asked: None }
    }

    /// Where to go when the offset does not exist; `None` if the application decides.
    pub(crate) fn reset(policy: OffsetReset) -> Option<Self> {
        match policy {
            OffsetReset::Earliest => Some(Self::locate(EARLIEST)),
            OffsetReset::Latest => Some(Self::locate(LATEST)),
            OffsetReset::ByDuration(_) => Some(Self::locate(BY_DURATION)),
            OffsetReset::None => None,
        }
    }

    /// Number of the lookup in flight.
    pub(crate) fn asked(self) -> Option<u64> {
        match self {
            Self::Locate { asked, .. } | Self::Validate { asked, .. } => asked,
            Self::Wait | Self::Fetch { .. } => None,
        }
    }

    /// The stage after a lookup of `timestamp` was answered by `offset`.
    pub(crate) fn located(timestamp: i64, offset: i64) -> Self {
        match offset {
            // No record is that young: go on with what will be written.
            ..0 if timestamp >= 0 || timestamp == BY_DURATION => Self::locate(LATEST),
            ..0 => Self::locate(timestamp),
            _ => Self::Fetch { offset },
        }
    }
}

fn epoch(start: StartOffset) -> i32 {
    match start {
        StartOffset::Checked { leader_epoch, .. } => leader_epoch.max(-1),
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
    /// The topic that is read, also while it has no leader; nil if its id is unknown.
    topic: Uuid,
    /// The topic's name as chunks have it, once there is one: see [`Chunk::partition`].
    label: Option<Arc<str>>,
    /// Follower to read from instead, until then (KIP-392).
    pub(crate) replica: Option<(i32, Tick)>,
    /// Refusals of followers: until then the leader is read, whomever it names.
    pub(crate) refused: Retry,
    /// Epoch of the record before the offset to fetch, or as ListOffsets told it with that offset; -1 if unknown.
    pub(crate) epoch: i32,
    /// Since when the metadata name a leader of an earlier epoch than that.
    doubted: Option<Tick>,
    pub(crate) paused: bool,
    /// It has a reader of its own.
    pub(crate) apart: bool,
    /// That reader found nothing to take and waits.
    pub(crate) starving: bool,
    pub(crate) retry: Retry,
    /// Since when there has been no leader, and what the metadata says about it.
    pub(crate) lost: Option<(Tick, ErrorCode)>,
    /// What the reader has not taken yet, in order.
    pub(crate) queue: VecDeque<Handout>,
    pub(crate) queued_bytes: usize,
    /// Where the reader could not go on the last time, and how often in a row.
    pub(crate) stuck: Option<(i64, u32)>,
    /// As the last answer told them.
    pub(crate) watermarks: Option<Watermarks>,
}

impl Partition {
    pub(crate) fn new(now: Tick, generation: u64, start: StartOffset) -> Self {
        Self {
            generation,
            stage: Stage::start(start),
            leader: None,
            topic: Uuid::nil(),
            label: None,
            replica: None,
            refused: Retry::default(),
            epoch: epoch(start),
            doubted: None,
            paused: false,
            apart: false,
            starving: false,
            retry: Retry::default(),
            lost: Some((now, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
            queue: VecDeque::new(),
            queued_bytes: 0,
            stuck: None,
            watermarks: None,
        }
    }

    /// Begins where nothing was read before, with what is known of the one it replaces.
    pub(crate) fn inherit(&mut self, now: Tick, old: &Self) {
        self.doubted = old.doubted;
        if let Some(leader) = old.leader {
            self.move_to(leader);
            self.lost = None;
            self.doubt_leader(now);
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

    /// Offset to be handed out next, as far as the queue tells; `None` while it is being looked up.
    pub(crate) fn position(&self) -> Option<i64> {
        self.place().map(|(offset, _)| offset)
    }

    /// As [`Self::position`], with the epoch of the record before; -1 if unknown.
    pub(crate) fn place(&self) -> Option<(i64, i32)> {
        let queued = self.queue.iter().find_map(|item| match item {
            Handout::Chunk(chunk) => Some((chunk.from, chunk.epoch)),
            Handout::Failed { .. } => None,
        });
        queued.or(match self.stage {
            Stage::Fetch { offset } | Stage::Validate { offset, .. } => Some((offset, self.epoch)),
            Stage::Wait | Stage::Locate { .. } => None,
        })
    }

    /// As [`Self::place`], with the id of the topic that it is a place of; nil if unknown.
    pub(crate) fn place_in_topic(&self) -> Option<((i64, i32), Uuid)> {
        self.place().map(|place| (place, self.topic))
    }

    /// It is to be a partition of this topic, as far as is known; `false` if it is one of another.
    pub(crate) fn expect(&mut self, topic: Uuid) -> bool {
        if self.topic.is_nil() {
            self.topic = topic;
        }
        topic.is_nil() || self.topic == topic
    }

    /// Its topic, and how chunks of that name it.
    pub(crate) fn topic(&mut self, name: &TopicPartition) -> (Uuid, TopicPartition) {
        let label = self.label.get_or_insert_with(|| Arc::from(&*name.topic)).clone();
        (self.topic, TopicPartition { topic: label, partition: name.partition })
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.queued_bytes += chunk.records.len();
        self.queue.push_back(Handout::Chunk(chunk));
    }

    /// The first chunk that waits in memory shared with other partitions.
    pub(crate) fn pinned(&self) -> Option<&Chunk> {
        self.queue.iter().find_map(|item| match item {
            Handout::Chunk(chunk) if chunk.shared => Some(chunk),
            _ => None,
        })
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

    /// Whether a leader leads the same partition of another topic: the one that was read was deleted, and its name given to a
    /// new one. The metadata do not go back to a former one that a broker still tells of (`metadata::witness`).
    pub(crate) fn is_recreated(&self, leader: &Leader) -> bool {
        let told = leader.topic_id;
        !self.topic.is_nil() && !told.is_nil() && told != self.topic
    }

    /// Drops everything of the topic that was read until now, but for the way to begin that was asked for and is being looked up.
    /// Returns the position in the former topic, if there was one.
    pub(crate) fn leave_topic(&mut self, generation: u64) -> Option<i64> {
        self.topic = Uuid::nil();
        self.label = None;
        self.leader = None;
        let (position, stage) = match self.stage {
            Stage::Fetch { offset } | Stage::Validate { offset, .. } => (Some(offset), Stage::Wait),
            Stage::Locate { timestamp, .. } => (None, Stage::locate(timestamp)),
            Stage::Wait => (None, Stage::Wait),
        };
        let position = self.position().or(position);
        self.restart(generation, StartOffset::Committed);
        self.stage = stage;
        position
    }

    /// Whether a leader is of an earlier epoch than what is to be read behind: whoever named it lags behind, and what it would
    /// say of its log is not to be believed.
    fn is_older(&self, leader: &Leader) -> bool {
        let same = self.topic.is_nil() || leader.topic_id.is_nil() || leader.topic_id == self.topic;
        same && (0..self.epoch).contains(&leader.epoch)
    }

    /// Has no leader rather than one that [is older](Self::is_older) than the place to begin at, which somebody else has read up
    /// to.
    pub(crate) fn doubt_leader(&mut self, now: Tick) {
        if self.leader.as_ref().is_some_and(|leader| self.is_older(leader)) {
            self.leader = None;
            self.doubted.get_or_insert(now);
            self.lost.get_or_insert((now, ErrorCode::UNKNOWN_LEADER_EPOCH));
        }
    }

    /// Takes what the metadata says. A leader that [is older](Self::is_older) is taken when no other was named for `patience`:
    /// then nobody knows of what was read any more, and it says so when it is asked for the end of that epoch.
    pub(crate) fn located(&mut self, now: Tick, leader: Leader, patience: Duration) {
        if !self.is_older(&leader) {
            self.doubted = None;
        } else if self.leader.is_none() {
            let since = *self.doubted.get_or_insert(now);
            if now.saturating_sub(since) < patience {
                self.lost = Some((since, ErrorCode::UNKNOWN_LEADER_EPOCH));
                return;
            }
            self.doubted = None;
            if let Stage::Fetch { offset } = self.stage {
                self.stage = Stage::Validate { offset, asked: None };
            }
        }
        self.move_to(leader);
    }

    /// Goes to a leader, unless it was left before.
    pub(crate) fn move_to(&mut self, leader: Leader) {
        let stale =
            self.leader.is_some_and(|old| old.topic_id == leader.topic_id && leader.epoch < old.epoch);
        if stale || self.leader == Some(leader) {
            return;
        }
        if self.leader.is_some_and(|old| old.topic_id != leader.topic_id) {
            self.watermarks = None;
        }
        self.leader = Some(leader);
        if !leader.topic_id.is_nil() && leader.topic_id != self.topic {
            self.topic = leader.topic_id;
            self.label = None;
        }
        self.replica = None;
        self.retry.clear();
        if let Stage::Fetch { offset } | Stage::Validate { offset, .. } = self.stage
            && self.epoch >= 0
            && leader.epoch > self.epoch
        {
            self.stage = Stage::Validate { offset, asked: None };
        }
    }

    /// The leader's log still has what was fetched.
    pub(crate) fn validated(&mut self) {
        if let Stage::Validate { offset, .. } = self.stage {
            self.stage = Stage::Fetch { offset };
        }
    }

    /// The broker to fetch from.
    pub(crate) fn source(&self) -> Option<i32> {
        let leader = self.leader?.broker;
        Some(self.replica.map_or(leader, |(broker, _)| broker))
    }

    /// The new leader's log ends before what was fetched: goes on where it differs, and drops what was not handed out behind.
    pub(crate) fn cut(&mut self, generation: u64, diverges: i64) {
        let at = self.position().map_or(diverges, |position| position.min(diverges));
        self.restart(generation, StartOffset::Offset(at));
    }

    /// Drops what is queued, and goes back to the place behind what was taken, which has to be compared again.
    pub(crate) fn go_back(&mut self, generation: u64) -> Option<(i64, i32)> {
        let (offset, leader_epoch) = self.place()?;
        self.restart(generation, StartOffset::Checked { offset, leader_epoch });
        Some((offset, leader_epoch))
    }
}
