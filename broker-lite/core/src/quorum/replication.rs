//! What is in the log: fetches, on both sides, and how far records are committed.

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::{
    Download, Effect, Fetch, Fetched, Head, Leader, Now, OBSERVER_SESSION, OBSERVERS, Progress, QuorumLog,
    Replica, Response, Role, SnapshotId, Voter, VoterError,
};
use crate::Tick;

impl Leader {
    pub(super) fn progress(&self, voter: i32) -> Progress {
        self.voters.get(&voter).copied().unwrap_or(Progress::UNKNOWN)
    }
}

/// At the leader.
impl Voter {
    /// Answers a Fetch. Voters are given everything, observers only what is committed.
    ///
    /// An answer with no records in it may be held back and asked for again when something has changed; see
    /// [`Self::is_news`].
    ///
    /// # Errors
    ///
    /// [`VoterError`]: the process must end.
    pub fn fetch<L: QuorumLog>(
        &mut self,
        now: Now,
        replica: Replica,
        fetch: &Fetch,
        max_bytes: usize,
        log: &L,
        fx: &mut Vec<Effect>,
    ) -> Result<Response<L::Records>, VoterError> {
        if let Err(head) = self.check_leads(fetch.epoch) {
            return Ok(Response::Fetch { head, high_watermark: -1, fetched: Fetched::Refused });
        }
        let fetched = match self.place(fetch, log) {
            Some(elsewhere) => elsewhere,
            None => {
                self.note_fetch(now, replica, fetch.offset, log);
                self.advance(fx);
                let limit = match replica {
                    Replica::Voter(_) => log.end_offset(),
                    Replica::Observer(_) => self.high_watermark,
                };
                if fetch.offset < limit {
                    Fetched::Records(log.read(fetch.offset, limit, max_bytes)?)
                } else {
                    Fetched::Records(log.none())
                }
            }
        };
        let head = self.head(ErrorCode::NONE);
        let high_watermark = if self.active_epoch().is_some() { self.high_watermark } else { -1 };
        self.drive(now.tick, log, fx);
        Ok(Response::Fetch { head, high_watermark, fetched })
    }

    /// Whether an answer tells something that the one who asked does not know.
    pub fn is_news<L: QuorumLog>(fetch: &Fetch, response: &Response<L::Records>) -> bool {
        match response {
            Response::Fetch { head, high_watermark, fetched: Fetched::Records(records) } => {
                head.error != ErrorCode::NONE
                    || !L::is_none(records)
                    || *high_watermark > fetch.high_watermark
            }
            _ => true,
        }
    }

    /// Whether this voter leads in the epoch that a request names.
    ///
    /// # Errors
    ///
    /// What to answer if not.
    pub fn check_leads(&self, epoch: i32) -> Result<(), Head> {
        // A consumer, or a broker that knows nothing yet, names none.
        let error = match () {
            () if epoch >= 0 && epoch < self.epoch => ErrorCode::FENCED_LEADER_EPOCH,
            () if epoch > self.epoch => ErrorCode::UNKNOWN_LEADER_EPOCH,
            () if self.leading().is_none() => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            () => return Ok(()),
        };
        Err(self.head(error))
    }

    /// Notes that a replica is fetching a snapshot, so it is alive.
    pub fn note_snapshot_fetch(&mut self, now: Now, replica: Replica) {
        if let Replica::Voter(id) = replica {
            self.note_alive(now, id);
        }
    }

    /// What to answer instead of records, where the two logs do not fit.
    fn place<L: QuorumLog>(&self, fetch: &Fetch, log: &L) -> Option<Fetched<L::Records>> {
        let Fetch { offset, last_epoch, .. } = *fetch;
        if (offset == 0 && log.start_offset() == 0) || planted(Bug::VoterKeepsTail) {
            return None;
        }
        if let Some(snapshot) = log.snapshot() {
            let (start, first) = (log.start_offset(), log.start_epoch());
            let no_prefix =
                last_epoch >= 0 && (last_epoch < first || (offset == start && last_epoch != first));
            if offset < start || (start > 0 && no_prefix) {
                return Some(Fetched::Snapshot(snapshot));
            }
        }
        if last_epoch < 0 {
            let beyond = offset < log.start_offset() || offset > log.end_offset();
            return beyond
                .then(|| Fetched::Diverging { epoch: log.last_epoch(), end_offset: log.end_offset() });
        }
        let (epoch, end_offset) = log.end_of_epoch(last_epoch);
        (epoch != last_epoch || end_offset < offset).then_some(Fetched::Diverging { epoch, end_offset })
    }

    fn note_fetch<L: QuorumLog>(&mut self, now: Now, replica: Replica, offset: i64, log: &L) {
        let end = log.end_offset();
        match replica {
            Replica::Voter(id) => {
                self.note_alive(now, id);
                let Role::Leader(leader) = &mut self.role else { return };
                if let Some(progress) = leader.voters.get_mut(&id) {
                    progress.fetched(now, offset, end);
                    leader.told.insert(id);
                }
            }
            Replica::Observer(id) if id >= 0 => {
                let Role::Leader(leader) = &mut self.role else { return };
                let recent = |progress: &Progress| {
                    progress.fetched.is_some_and(|fetched| fetched.tick + OBSERVER_SESSION > now.tick)
                };
                leader.observers.retain(|_, progress| recent(progress));
                if leader.observers.len() < OBSERVERS || leader.observers.contains_key(&id) {
                    leader.observers.entry(id).or_insert(Progress::UNKNOWN).fetched(now, offset, end);
                }
            }
            Replica::Observer(_) => {}
        }
    }

    fn note_alive(&mut self, now: Now, id: i32) {
        let majority = self.voters.len() / 2 + 1;
        let within = self.settings.fetch_timeout * 3 / 2;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.voters.contains_key(&id) {
            leader.heard.insert(id);
            if leader.heard.len() + 1 >= majority {
                leader.heard.clear();
                leader.check = now.tick + within;
            }
        }
    }

    /// The leader has appended to its log.
    pub fn appended<L: QuorumLog>(&mut self, log: &L, fx: &mut Vec<Effect>) {
        self.want_sync(log, fx);
    }

    /// Moves the high watermark to what a majority has, once a record of this leadership is among it.
    fn advance(&mut self, fx: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else { return };
        let mut ends: Vec<i64> = leader.voters.values().map(|progress| progress.end).collect();
        ends.push(self.durable_end);
        ends.sort_unstable_by_key(|end| std::cmp::Reverse(*end));
        let Some(committed) = ends.get(self.voters.len() / 2).copied() else { return };
        let own = committed > leader.epoch_start || planted(Bug::CommitEarlierEpoch);
        if own && committed > self.high_watermark {
            self.high_watermark = committed;
            fx.push(Effect::HighWatermark(committed));
        }
    }

    pub(super) fn want_sync<L: QuorumLog>(&mut self, log: &L, fx: &mut Vec<Effect>) {
        let end = log.end_offset();
        if end > self.durable_end {
            fx.push(Effect::Sync { end, cut: self.cut });
        }
    }
}

/// At a follower, and at everybody.
impl Voter {
    /// The log is durable up to `end`, as [`Effect::Sync`] asked for when it had been cut `cut` times.
    pub fn synced<L: QuorumLog>(&mut self, now: Now, end: i64, cut: u64, log: &L, fx: &mut Vec<Effect>) {
        if cut == self.cut {
            self.durable_end = self.durable_end.max(end.min(log.end_offset()));
            self.advance(fx);
            self.drive(now.tick, log, fx);
        }
    }

    pub(super) fn take_fetched<L: QuorumLog>(
        &mut self,
        now: Tick,
        from: i32,
        high_watermark: i64,
        fetched: &Fetched<L::Records>,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        match fetched {
            Fetched::Refused => self.pause(now, from, self.settings.retry_backoff),
            Fetched::Records(records) => {
                if !L::is_none(records) {
                    log.append(records)?;
                    self.want_sync(log, fx);
                }
                // Only now is it known that all there is here is in the leader's log, too.
                let known = high_watermark.min(log.end_offset());
                if known > self.high_watermark {
                    self.high_watermark = known;
                    fx.push(Effect::HighWatermark(known));
                }
            }
            Fetched::Diverging { epoch, end_offset } => {
                let (own_epoch, own_end) = log.end_of_epoch(*epoch);
                let to = if own_epoch == *epoch { own_end.min(*end_offset) } else { own_end };
                self.cut_back(to, log, fx)?;
            }
            Fetched::Snapshot(id) => {
                if id.end_offset < log.end_offset() && id.end_offset <= self.high_watermark {
                    let cause = format!("the leader sends a snapshot up to {} that is here", id.end_offset);
                    return Err(VoterError::Broken { id: self.id, cause });
                }
            }
        }
        self.starting = false;
        if let Role::Follower { deadline, fetched: heard, download } = &mut self.role {
            *deadline = now + self.settings.fetch_timeout;
            *heard = true;
            if let Fetched::Snapshot(id) = fetched {
                *download = Some(Download { id: *id, position: 0 });
            }
        }
        Ok(())
    }

    fn cut_back<L: QuorumLog>(
        &mut self,
        to: i64,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        if to < self.high_watermark {
            let cause =
                format!("the leader's log parts from this one at {to}, below {}", self.high_watermark);
            return Err(VoterError::Broken { id: self.id, cause });
        }
        log.truncate_to(to)?;
        self.cut += 1;
        self.durable_end = self.durable_end.min(log.end_offset());
        fx.push(Effect::Truncated(log.end_offset()));
        self.want_sync(log, fx);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    pub(super) fn take_snapshot<L: QuorumLog>(
        &mut self,
        now: Tick,
        id: SnapshotId,
        size: u64,
        position: u64,
        bytes: &[u8],
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        let fetch_timeout = self.settings.fetch_timeout;
        let Role::Follower { deadline, fetched, download } = &mut self.role else { return Ok(()) };
        (*deadline, *fetched) = (now + fetch_timeout, true);
        let expected = download.filter(|wanted| wanted.id == id && wanted.position == position);
        // What the leader says of it may be anything.
        let end = position.saturating_add(bytes.len() as u64);
        if expected.is_none() || (bytes.is_empty() && end < size) || end > size {
            *download = None;
            return Ok(());
        }
        log.receive_snapshot(id, position, bytes);
        if end < size {
            *download = Some(Download { id, position: end });
            return Ok(());
        }
        *download = None;
        if log.load_snapshot(id)? {
            self.cut += 1;
            self.durable_end = log.end_offset();
            fx.push(Effect::SnapshotLoaded(id));
            if id.end_offset > self.high_watermark {
                self.high_watermark = id.end_offset;
                fx.push(Effect::HighWatermark(id.end_offset));
            }
        }
        Ok(())
    }
}
