//! Who leads: votes, beginnings and ends of leaderships, and the time limits of all roles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::{
    Ballot, Effect, Head, Leader, LeaderChange, Now, Progress, QuorumLog, Request, Response, Role, Vote,
    Voter, VoterError,
};
use crate::Tick;

impl Voter {
    /// Acts on time that has passed.
    ///
    /// # Errors
    ///
    /// [`VoterError`]: the process must end.
    pub fn on_deadline<L: QuorumLog>(
        &mut self,
        now: Now,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        let tick = now.tick;
        match &mut self.role {
            Role::Unattached { deadline } | Role::Follower { deadline, .. } if *deadline <= tick => {
                self.stand(now, log, fx)?;
            }
            Role::Prospective { deadline, .. } if *deadline <= tick => self.give_up(tick, fx),
            Role::Candidate { deadline, .. } if *deadline <= tick => self.stand(now, log, fx)?,
            Role::Resigned { deadline, .. } if *deadline <= tick => {
                // Nothing more may come of the epoch in which it has led.
                let next = self.next_epoch()?;
                self.detach(tick, next, fx);
            }
            Role::Leader(leader) => {
                if leader.check <= tick && self.voters.len() > 1 {
                    self.resign(now, log, fx);
                } else if leader.tell_again <= tick {
                    let half = self.settings.fetch_timeout / 2;
                    leader.tell_again = tick + half.max(Duration::from_millis(1));
                    let silent = |progress: &Progress| {
                        progress.fetched.is_none_or(|fetched| fetched.tick + half < tick)
                    };
                    let silent = leader.voters.iter().filter(|(_, progress)| silent(progress));
                    let silent: Vec<i32> = silent.map(|(id, _)| *id).collect();
                    leader.told.retain(|id| !silent.contains(id));
                }
            }
            _ => {}
        }
        self.drive(tick, log, fx);
        Ok(())
    }

    /// Gives a leadership up in order: the others hear of it, and who has most of the log stands for election at once.
    /// Does nothing in any other role.
    pub fn resign<L: QuorumLog>(&mut self, now: Now, log: &L, fx: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else { return };
        let mut successors: Vec<(i64, i32)> =
            leader.voters.iter().map(|(id, progress)| (-progress.end, *id)).collect();
        successors.sort_unstable();
        let successors = successors.into_iter().map(|(_, id)| id).collect();
        let deadline = now.tick + self.election_timeout();
        self.become_role(Role::Resigned { deadline, successors, told: BTreeSet::new() }, fx);
        self.leader = None;
        self.persist(fx);
        self.drive(now.tick, log, fx);
    }

    /// Whether it has given a leadership up and not told all others yet.
    pub fn is_leaving(&self) -> bool {
        matches!(&self.role, Role::Resigned { told, .. } if told.len() + 1 < self.voters.len())
    }

    /// Takes a request about leadership: anything but a Fetch or FetchSnapshot, which are refused.
    pub fn on_request<L: QuorumLog>(
        &mut self,
        now: Now,
        request: &Request,
        log: &L,
        fx: &mut Vec<Effect>,
    ) -> Response<L::Records> {
        let response = match request {
            Request::Vote(vote) => {
                let (error, granted) = self.on_vote(now.tick, vote, log, fx);
                Response::Vote { head: self.head(error), granted }
            }
            Request::BeginEpoch { leader, epoch } => {
                let error = self.on_begin(now.tick, *leader, *epoch, fx);
                Response::Epoch(self.head(error))
            }
            Request::EndEpoch { leader, epoch, successors } => {
                let error = self.on_end(now.tick, *leader, *epoch, successors, fx);
                Response::Epoch(self.head(error))
            }
            Request::Fetch(_) | Request::FetchSnapshot { .. } => {
                Response::Epoch(self.head(ErrorCode::INVALID_REQUEST))
            }
        };
        self.drive(now.tick, log, fx);
        response
    }

    fn on_vote<L: QuorumLog>(
        &mut self,
        now: Tick,
        vote: &Vote,
        log: &L,
        fx: &mut Vec<Effect>,
    ) -> (ErrorCode, bool) {
        // A candidate's log ends before the epoch that it asks for.
        let ahead = if vote.pre_vote { vote.last_epoch > vote.epoch } else { vote.last_epoch >= vote.epoch };
        if vote.last_epoch < 0 || vote.last_offset < 0 || ahead {
            return (ErrorCode::INVALID_REQUEST, false);
        }
        if let Some(error) = self.refused(vote.candidate, vote.epoch) {
            return (error, false);
        }
        if vote.epoch > self.epoch {
            self.detach(now, vote.epoch, fx);
        }
        let complete = (vote.last_epoch, vote.last_offset) >= (log.last_epoch(), log.end_offset())
            || planted(Bug::VoteForShorterLog);
        if vote.pre_vote {
            let granted = match &self.role {
                Role::Leader(_) => false,
                // Somebody who still hears from the leader does not help to unseat it.
                Role::Follower { fetched, .. } => !fetched && complete,
                _ => complete,
            };
            return (ErrorCode::NONE, granted);
        }
        let granted = match self.voted {
            Some(voted) if planted(Bug::VoteTwice) => voted != self.id && complete,
            // It may have lost what it had when it asked first: its vote for itself need not have been durable then.
            Some(voted) => voted == vote.candidate && complete,
            None => self.leader.is_none() && complete,
        };
        if granted && self.voted != Some(vote.candidate) {
            self.voted = Some(vote.candidate);
            let deadline = now + self.election_timeout();
            self.become_role(Role::Unattached { deadline }, fx);
            self.persist(fx);
        }
        (ErrorCode::NONE, granted)
    }

    /// Why nothing is taken from who claims to be `voter` in `epoch`.
    fn refused(&self, voter: i32, epoch: i32) -> Option<ErrorCode> {
        if epoch < self.epoch {
            return Some(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if voter < 0 {
            return Some(ErrorCode::INVALID_REQUEST);
        }
        // Nobody else can say that this voter leads; or a forged epoch would depose it.
        (!self.voters.contains(&voter) || voter == self.id).then_some(ErrorCode::INCONSISTENT_VOTER_SET)
    }

    fn on_begin(&mut self, now: Tick, leader: i32, epoch: i32, fx: &mut Vec<Effect>) -> ErrorCode {
        if let Some(error) = self.refused(leader, epoch) {
            return error;
        }
        if !self.hear_of(now, epoch, Some(leader), fx) && self.leader != Some(leader) {
            return ErrorCode::INVALID_REQUEST;
        }
        ErrorCode::NONE
    }

    fn on_end(
        &mut self,
        now: Tick,
        leader: i32,
        epoch: i32,
        successors: &[i32],
        fx: &mut Vec<Effect>,
    ) -> ErrorCode {
        if let Some(error) = self.refused(leader, epoch) {
            return error;
        }
        self.hear_of(now, epoch, Some(leader), fx);
        if self.leader != Some(leader) {
            return ErrorCode::INVALID_REQUEST;
        }
        let rank = successors.iter().position(|id| *id == self.id).unwrap_or(successors.len());
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let wait =
            self.settings.election_timeout.saturating_mul(rank).min(self.settings.election_backoff_max);
        if let Role::Follower { deadline, fetched, .. } = &mut self.role {
            *deadline = (*deadline).min(now + wait);
            *fetched = false;
        }
        ErrorCode::NONE
    }

    /// Takes the outcome of a request, the answer or `None` if there is none. One that nobody waits for is ignored.
    ///
    /// # Errors
    ///
    /// [`VoterError`]: the process must end.
    pub fn on_response<L: QuorumLog>(
        &mut self,
        now: Now,
        from: i32,
        number: u64,
        response: Option<&Response<L::Records>>,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        if self.waits_for(from) != Some(number) {
            return Ok(());
        }
        self.outbound.remove(&from);
        match response {
            None => {
                self.doubt(now.tick, from);
                self.pause(now.tick, from, self.settings.retry_backoff);
            }
            Some(response) => self.take_response(now, from, response, log, fx)?,
        }
        self.drive(now.tick, log, fx);
        Ok(())
    }

    fn take_response<L: QuorumLog>(
        &mut self,
        now: Now,
        from: i32,
        response: &Response<L::Records>,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        let tick = now.tick;
        let Head { error, leader, epoch } = *response.head();
        let leader = leader.filter(|leader| *leader != self.id && self.voters.contains(leader));
        if self.hear_of(tick, epoch, leader, fx) || epoch < self.epoch {
            return Ok(());
        }
        if error != ErrorCode::NONE {
            self.doubt(tick, from);
            self.pause(tick, from, self.settings.retry_backoff);
            return Ok(());
        }
        match (response, &mut self.role) {
            (
                Response::Vote { granted, .. },
                Role::Prospective { ballot, .. } | Role::Candidate { ballot, .. },
            ) => {
                ballot.refused.remove(&from);
                if *granted {
                    ballot.granted.insert(from)
                } else {
                    ballot.refused.insert(from)
                };
                // The leader itself says that it leads.
                if !granted && self.leader == Some(from) && leader == Some(from) {
                    self.give_up(tick, fx);
                    return Ok(());
                }
                self.count(now, from, log, fx)?;
            }
            (Response::Epoch(_), Role::Leader(leader)) => {
                leader.told.insert(from);
            }
            (Response::Epoch(_), Role::Resigned { told, .. }) => {
                told.insert(from);
            }
            (Response::Fetch { high_watermark, fetched, .. }, Role::Follower { .. }) => {
                self.take_fetched(tick, from, *high_watermark, fetched, log, fx)?;
            }
            (Response::Snapshot { id, size, position, bytes, .. }, Role::Follower { .. }) => {
                self.take_snapshot(tick, *id, *size, *position, bytes, log, fx)?;
            }
            // An answer of the wrong kind.
            _ => self.pause(tick, from, self.settings.retry_backoff),
        }
        Ok(())
    }

    /// A voter that has just started, and only remembers its leader, does not wait long for one that does not answer as such.
    fn doubt(&mut self, now: Tick, from: i32) {
        if !self.starting || self.leader != Some(from) {
            return;
        }
        let soon = now + self.start_pause();
        if let Role::Follower { deadline, fetched: false, .. } = &mut self.role {
            *deadline = (*deadline).min(soon);
        }
    }

    /// Counts the votes after one has come in.
    fn count<L: QuorumLog>(
        &mut self,
        now: Now,
        from: i32,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        match &self.role {
            Role::Prospective { ballot, .. } => {
                if self.is_majority(ballot.granted.len()) {
                    return self.campaign(now, log, fx);
                }
                if self.is_majority(ballot.refused.len()) {
                    self.give_up(now.tick, fx);
                } else if ballot.refused.contains(&from) {
                    // It may still hear from the leader, and soon not any more.
                    self.pause(now.tick, from, self.settings.retry_backoff);
                }
            }
            Role::Candidate { ballot, .. } => {
                if self.is_majority(ballot.granted.len()) {
                    return self.lead(now, log, fx);
                }
                if self.is_majority(ballot.refused.len()) {
                    self.losses += 1;
                    let growing = self.settings.retry_backoff.saturating_mul(1 << self.losses.min(10));
                    let pause = self.up_to(growing.min(self.settings.election_backoff_max));
                    if let Role::Candidate { deadline, .. } = &mut self.role {
                        *deadline = (*deadline).min(now.tick + pause);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Acts on an epoch, and its leader, that somebody has told of; `true` if that was news.
    fn hear_of(&mut self, now: Tick, epoch: i32, leader: Option<i32>, fx: &mut Vec<Effect>) -> bool {
        let leader = leader.filter(|leader| *leader != self.id);
        match leader {
            Some(leader) if epoch > self.epoch || (epoch == self.epoch && self.awaits_leader()) => {
                self.follow(now, epoch, leader, fx);
                true
            }
            None if epoch > self.epoch => {
                self.detach(now, epoch, fx);
                true
            }
            _ => false,
        }
    }

    /// Whether it does not know the leader of its epoch, and does not hold back from it either.
    fn awaits_leader(&self) -> bool {
        self.leader.is_none() && !matches!(self.role, Role::Leader(_) | Role::Resigned { .. })
    }

    /// Asks whether a majority would vote for it.
    fn stand<L: QuorumLog>(&mut self, now: Now, log: &mut L, fx: &mut Vec<Effect>) -> Result<(), VoterError> {
        let ballot = Ballot { granted: BTreeSet::from([self.id]), refused: BTreeSet::new() };
        let deadline = now.tick + self.election_timeout();
        let alone = self.is_majority(ballot.granted.len());
        self.become_role(Role::Prospective { ballot, deadline }, fx);
        if alone { self.campaign(now, log, fx) } else { Ok(()) }
    }

    /// Goes back to waiting after nothing came of asking.
    fn give_up(&mut self, now: Tick, fx: &mut Vec<Effect>) {
        self.starting = false;
        match self.leader.filter(|leader| *leader != self.id) {
            Some(_) => {
                let deadline = now + self.settings.fetch_timeout;
                self.become_role(Role::Follower { deadline, fetched: false, download: None }, fx);
            }
            None => {
                let deadline = now + self.election_timeout();
                self.become_role(Role::Unattached { deadline }, fx);
            }
        }
    }

    fn campaign<L: QuorumLog>(
        &mut self,
        now: Now,
        log: &mut L,
        fx: &mut Vec<Effect>,
    ) -> Result<(), VoterError> {
        let ballot = Ballot { granted: BTreeSet::from([self.id]), refused: BTreeSet::new() };
        let deadline = now.tick + self.election_timeout();
        let alone = self.is_majority(ballot.granted.len());
        self.become_role(Role::Candidate { ballot, deadline }, fx);
        self.starting = false;
        self.epoch = self.next_epoch()?;
        self.leader = None;
        self.voted = Some(self.id);
        self.persist(fx);
        if alone { self.lead(now, log, fx) } else { Ok(()) }
    }

    fn next_epoch(&self) -> Result<i32, VoterError> {
        let none_left = || VoterError::Broken { id: self.id, cause: "no epoch is left".to_owned() };
        self.epoch.checked_add(1).ok_or_else(none_left)
    }

    fn lead<L: QuorumLog>(&mut self, now: Now, log: &mut L, fx: &mut Vec<Effect>) -> Result<(), VoterError> {
        let Role::Candidate { ballot, .. } = &self.role else { return Ok(()) };
        let change = LeaderChange {
            leader: self.id,
            epoch: self.epoch,
            voters: self.voters.iter().copied().collect(),
            granting: ballot.granted.iter().copied().collect(),
            wall_ms: now.wall_ms,
        };
        let leader = Leader {
            epoch_start: log.end_offset(),
            voters: self.others().into_iter().map(|id| (id, Progress::UNKNOWN)).collect(),
            observers: BTreeMap::new(),
            told: BTreeSet::new(),
            tell_again: now.tick + self.settings.fetch_timeout / 2,
            heard: BTreeSet::new(),
            check: now.tick + self.settings.fetch_timeout * 3 / 2,
        };
        self.become_role(Role::Leader(leader), fx);
        self.leader = Some(self.id);
        self.losses = 0;
        self.persist(fx);
        fx.push(Effect::Elected { epoch: self.epoch });
        log.append_leader_change(&change)?;
        self.want_sync(log, fx);
        Ok(())
    }

    fn follow(&mut self, now: Tick, epoch: i32, leader: i32, fx: &mut Vec<Effect>) {
        self.starting = false;
        let deadline = now + self.settings.fetch_timeout;
        self.become_role(Role::Follower { deadline, fetched: false, download: None }, fx);
        if epoch > self.epoch {
            self.voted = None;
        }
        self.epoch = epoch;
        self.leader = Some(leader);
        self.losses = 0;
        self.persist(fx);
    }

    /// Enters a later epoch of which it knows no leader.
    fn detach(&mut self, now: Tick, epoch: i32, fx: &mut Vec<Effect>) {
        // One that was about to stand for election goes on with its wait, or a voter that cannot win could hold it up.
        let deadline = match &self.role {
            Role::Unattached { deadline } if *deadline > now => *deadline,
            _ => now + self.election_timeout(),
        };
        self.become_role(Role::Unattached { deadline }, fx);
        self.epoch = epoch;
        self.leader = None;
        self.voted = None;
        self.persist(fx);
    }
}
