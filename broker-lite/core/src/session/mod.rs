//! Fetch sessions of one broker (KIP-227): what each fetcher wants and was told last, so that a request names only what
//! changed, and an answer tells only what is new.
//!
//! In: fetch requests, what the partitions say, and which partitions changed meanwhile. Out: which partitions to look at
//! for a request, and which of them to answer with.
//!
//! ```text
//! epoch 0 ──answer──▶ session, epoch 1 ──request with epoch n──▶ look at what is due ──answer──▶ epoch n + 1
//!                          ▲ named again, touched, more to read, refused: due ┘
//! ```
//!
//! Invariant: a partition that is not due has told everything: looking at it again would change nothing. So a session of
//! ten thousand idle partitions costs nothing.

mod cache;

pub use cache::{SessionLimits, Sessions};

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use crate::Tick;

/// How a session names a partition: by topic id, or in versions before 13 by name. The other one is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionPartition {
    /// Topic id, or nil.
    pub topic_id: Uuid,
    /// Topic name, or empty.
    pub topic: StrBytes,
    /// Partition.
    pub partition: i32,
}

/// What a fetcher wants of one partition, as it stands in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Leader epoch the fetcher knows, or -1.
    pub current_leader_epoch: i32,
    /// Epoch of the record before `fetch_offset`, or -1.
    pub last_fetched_epoch: i32,
    /// First offset of a follower's log, or -1.
    pub log_start_offset: i64,
    /// Most bytes wanted.
    pub max_bytes: i32,
}

/// What one look at a partition found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// High watermark, or -1.
    pub high_watermark: i64,
    /// First offset of the log, or -1.
    pub log_start_offset: i64,
    /// There are records, or something else that is told whether it was told before or not.
    pub telling: bool,
    /// There are records: the partition's turn is the last one, afterwards.
    pub records: bool,
    /// It is an error, so what was told before does not count any more.
    pub failed: bool,
    /// It is worth another look with the next request, changed or not: there are records that did not fit.
    pub more: bool,
}

/// A fetch request, as far as sessions are concerned.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// Session, or 0.
    pub id: i32,
    /// 0 asks for a new session, -1 for none; else the request's number in the session.
    pub epoch: i32,
    /// It comes from a follower, whose sessions are worth more.
    pub follower: bool,
    /// It names topics by id.
    pub topic_ids: bool,
    /// Partitions that are new or changed, with the name of the topic where that is known.
    pub wanted: Vec<(SessionPartition, Wanted, Option<Arc<str>>)>,
    /// Partitions to forget.
    pub forgotten: Vec<SessionPartition>,
}

/// What a request amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Everything wanted is in the request.
    Whole {
        /// The answer may open a session: [`Sessions::create`].
        may_create: bool,
    },
    /// The session knows what is wanted.
    Incremental {
        /// Session.
        id: i32,
        /// Its epoch from now on; the answer is void when it is another one by then.
        epoch: i32,
    },
    /// To be answered with this code, without partitions.
    Refused(ErrorCode),
}

/// One partition to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Partition.
    pub partition: SessionPartition,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// Name of its topic, if it was known when the partition was named.
    pub topic: Option<Arc<str>>,
}

/// One session.
#[derive(Debug)]
struct Session {
    follower: bool,
    topic_ids: bool,
    created: Tick,
    last_used: Tick,
    looked_at_all: Tick,
    epoch: i32,
    partitions: BTreeMap<SessionPartition, Cached>,
    /// Partitions that are due, by turn.
    queue: BTreeMap<u64, SessionPartition>,
    /// Turns given out so far.
    turns: u64,
}

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    topic: Option<Arc<str>>,
    /// What was told last.
    high_watermark: i64,
    log_start_offset: i64,
    /// Its place among the others, as in Kafka's linked map: that of its naming, until records of it were told.
    turn: u64,
}

impl Session {
    fn new(request: &SessionRequest, now: Tick) -> Self {
        Self {
            follower: request.follower,
            topic_ids: request.topic_ids,
            created: now,
            last_used: now,
            looked_at_all: now,
            epoch: next_epoch(INITIAL),
            partitions: BTreeMap::new(),
            queue: BTreeMap::new(),
            turns: 0,
        }
    }

    fn want(&mut self, partition: &SessionPartition, wanted: Wanted, topic: Option<&Arc<str>>) {
        match self.partitions.get_mut(partition) {
            Some(cached) => {
                if cached.wanted.current_leader_epoch != wanted.current_leader_epoch {
                    // what was told to a fetcher of another epoch may not have reached it
                    cached.high_watermark = -1;
                }
                cached.wanted = wanted;
                cached.topic = topic.cloned().or(cached.topic.take());
            }
            None => {
                let cached = Cached {
                    wanted,
                    topic: topic.cloned(),
                    high_watermark: -1,
                    log_start_offset: -1,
                    turn: self.turns,
                };
                self.turns += 1;
                self.partitions.insert(partition.clone(), cached);
            }
        }
        self.touch(partition);
    }

    fn touch(&mut self, partition: &SessionPartition) {
        if let Some(cached) = self.partitions.get(partition) {
            self.queue.entry(cached.turn).or_insert_with(|| partition.clone());
        }
    }

    fn touch_all(&mut self) {
        let all = self.partitions.iter().map(|(partition, cached)| (cached.turn, partition.clone()));
        self.queue = all.collect();
    }

    /// Those due, in order of turn.
    fn due(&self) -> Vec<Due> {
        let due = |partition: &SessionPartition| {
            let cached = self.partitions.get(partition)?;
            Some(Due { partition: partition.clone(), wanted: cached.wanted, topic: cached.topic.clone() })
        };
        self.queue.values().filter_map(due).collect()
    }

    /// Whether there is anything to tell that was not told.
    fn is_news(&self, partition: &SessionPartition, found: &Found) -> bool {
        self.partitions.get(partition).is_some_and(|cached| {
            found.telling
                || found.failed
                || cached.high_watermark != found.high_watermark
                || cached.log_start_offset != found.log_start_offset
        })
    }

    /// Leaves out of turn what has nothing to tell.
    fn settle(&mut self, looked: &[(SessionPartition, Found)]) {
        for (partition, found) in looked {
            if found.more || self.is_news(partition, found) {
                self.touch(partition);
            } else if let Some(cached) = self.partitions.get(partition) {
                self.queue.remove(&cached.turn);
            }
        }
    }

    fn forget(&mut self, forgotten: &[SessionPartition]) {
        for cached in forgotten.iter().filter_map(|partition| self.partitions.remove(partition)) {
            self.queue.remove(&cached.turn);
        }
    }

    /// Notes what is being told; `true` for each partition that belongs into the answer.
    fn tell(&mut self, looked: &[(SessionPartition, Found)]) -> Vec<bool> {
        let told = looked.iter().map(|(partition, found)| {
            let news = self.is_news(partition, found);
            let Some(cached) = self.partitions.get_mut(partition) else { return false };
            cached.told(found);
            self.queue.remove(&cached.turn);
            if found.records {
                // So that none starves.
                cached.turn = self.turns;
                self.turns += 1;
            }
            if found.telling || found.failed || found.more {
                self.queue.insert(cached.turn, partition.clone());
            }
            news
        });
        told.collect()
    }
}

impl Cached {
    /// An error is told until it goes away, and what comes then is news.
    fn told(&mut self, found: &Found) {
        self.high_watermark = if found.failed { -1 } else { found.high_watermark };
        self.log_start_offset = found.log_start_offset;
    }
}

/// Epochs that ask for a session, and for none.
const INITIAL: i32 = 0;
const FINAL: i32 = -1;

/// The epoch behind one: after the largest one comes 1, as 0 opens a session.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
