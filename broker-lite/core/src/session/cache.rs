//! All sessions of a broker, and which one has to go for a new one.

use std::collections::BTreeMap;

use klamm_wire::ErrorCode;

use super::{
    Due, FINAL, Found, INITIAL, Opened, Session, SessionPartition, SessionRequest, Wanted, next_epoch,
};
use crate::Tick;

/// How many sessions there may be, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Most sessions (`max.incremental.fetch.session.cache.slots`); with 0 every fetch is a whole one.
    pub slots: usize,
    /// A session that was not used for longer may go for any other one. Kafka's is two minutes.
    pub stale_after: Tick,
    /// Each partition of a follower's session is looked at at least so often: only then does its leader learn that a
    /// follower that has everything is still there.
    pub look_at_all_every: Tick,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { slots: 1_000, stale_after: Tick::from_secs(120), look_at_all_every: Tick::from_secs(7) }
    }
}

/// The fetch sessions of one broker.
#[derive(Debug, Default)]
pub struct Sessions {
    limits: SessionLimits,
    sessions: BTreeMap<i32, Session>,
}

impl Sessions {
    /// Without any session.
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, sessions: BTreeMap::new() }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Number of partitions in a session, `None` if it is gone.
    pub fn partitions(&self, id: i32) -> Option<usize> {
        self.sessions.get(&id).map(|session| session.partitions.len())
    }

    /// Whether the session is there and its epoch is this one: no later request has come.
    pub fn is_current(&self, id: i32, epoch: i32) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.epoch == epoch)
    }

    /// Takes a request. Sessions that end by it are added to `ended`.
    pub fn open(&mut self, now: Tick, request: &SessionRequest, ended: &mut Vec<i32>) -> Opened {
        if matches!(request.epoch, INITIAL | FINAL) {
            // whichever session it names is over
            if self.sessions.remove(&request.id).is_some() {
                ended.push(request.id);
            }
            return Opened::Whole { may_create: request.epoch == INITIAL };
        }
        let Some(session) = self.sessions.get_mut(&request.id) else {
            return Opened::Refused(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        };
        if session.epoch != request.epoch {
            return Opened::Refused(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.topic_ids != request.topic_ids {
            return Opened::Refused(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        for (partition, wanted, topic) in &request.wanted {
            session.want(partition, *wanted, topic.as_ref());
        }
        session.forget(&request.forgotten);
        if session.partitions.is_empty() {
            self.sessions.remove(&request.id);
            ended.push(request.id);
            return Opened::Whole { may_create: false };
        }
        session.last_used = now;
        session.epoch = next_epoch(session.epoch);
        if session.follower && now.saturating_sub(session.looked_at_all) >= self.limits.look_at_all_every {
            session.looked_at_all = now;
            session.touch_all();
        }
        Opened::Incremental { id: request.id, epoch: session.epoch }
    }

    /// Opens a session with the answer to a whole request, if there is room or one that is worth less: its id, or 0.
    ///
    /// `told` is what the answer tells of each partition, in the answer's order, which becomes the session's; `chance`
    /// gives random numbers.
    pub fn create(
        &mut self,
        now: Tick,
        request: &SessionRequest,
        told: &[(SessionPartition, Found)],
        chance: &mut dyn FnMut() -> i32,
        ended: &mut Vec<i32>,
    ) -> i32 {
        let size = request.wanted.len();
        if self.sessions.len() >= self.limits.slots {
            match self.evictable(now, request.follower, size) {
                Some(id) => {
                    self.sessions.remove(&id);
                    ended.push(id);
                }
                None => return 0,
            }
        }
        let id = loop {
            let id = chance() & i32::MAX;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session::new(request, now);
        let named = request.wanted.iter().map(|(partition, wanted, topic)| (partition, (*wanted, topic)));
        let named: BTreeMap<_, _> = named.collect();
        for (partition, found) in told {
            let Some((wanted, topic)) = named.get(partition) else { continue };
            session.want(partition, *wanted, topic.as_ref());
            if let Some(cached) = session.partitions.get_mut(partition) {
                cached.told(found);
            }
        }
        self.sessions.insert(id, session);
        id
    }

    /// A session that may go for a new one: one not used for long, else the least of those that are worth less, where a
    /// follower's is worth more than a consumer's and a large one more than a small one. A session that is still young
    /// goes only if it is a consumer's, and for a follower's.
    fn evictable(&self, now: Tick, follower: bool, size: usize) -> Option<i32> {
        let oldest = self.sessions.iter().min_by_key(|(id, session)| (session.last_used, **id));
        if let Some((id, session)) = oldest
            && now.saturating_sub(session.last_used) > self.limits.stale_after
        {
            return Some(*id);
        }
        let worth = |id: i32, session: &Session| (session.follower, session.partitions.len(), id);
        let grown_up =
            |session: &Session| session.last_used.saturating_sub(session.created) > self.limits.stale_after;
        let candidates =
            self.sessions.iter().filter(|(_, session)| grown_up(session) || (follower && !session.follower));
        let least = candidates.map(|(id, session)| worth(*id, session)).min()?;
        ((follower, size, 0) >= least).then_some(least.2)
    }

    /// Partitions to look at for the session's request, in order of turn.
    pub fn due(&self, id: i32) -> Vec<Due> {
        self.sessions.get(&id).map(Session::due).unwrap_or_default()
    }

    /// Notes that partitions have changed.
    pub fn touch<'a>(&mut self, id: i32, partitions: impl IntoIterator<Item = &'a SessionPartition>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            partitions.into_iter().for_each(|partition| session.touch(partition));
        }
    }

    /// Takes what was found where the request goes on waiting: what has nothing to tell is not looked at again before
    /// it changes.
    pub fn settle(&mut self, id: i32, looked: &[(SessionPartition, Found)]) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.settle(looked);
        }
    }

    /// Takes what was found and is being answered; `true` for each partition that belongs into the answer.
    ///
    /// # Errors
    ///
    /// `INVALID_FETCH_SESSION_EPOCH` if a later request has come meanwhile, or the session is over.
    pub fn tell(
        &mut self,
        id: i32,
        epoch: i32,
        looked: &[(SessionPartition, Found)],
    ) -> Result<Vec<bool>, ErrorCode> {
        let session = self.sessions.get_mut(&id).filter(|session| session.epoch == epoch);
        session.map(|session| session.tell(looked)).ok_or(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
    }
}

/// So that a test, or a tool, can name a partition in a line.
impl Wanted {
    /// From this offset on, by a fetcher that knows no epochs.
    pub fn from_offset(fetch_offset: i64, max_bytes: i32) -> Self {
        Self {
            fetch_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes,
        }
    }
}
