//! One voter of the metadata quorum: KRaft (KIP-595), with pre-votes (KIP-996), a leader that resigns when it hears from no
//! majority, and snapshots (KIP-630), among a fixed set of voters.
//!
//! In: requests and answers of peers, the clock, ends of fsyncs. Out: [`Effect`]s, and answers.
//!
//! ```text
//!                 silence                  a majority would              a majority does
//! unattached, ──────────────▶ prospective ──────────────────▶ candidate ────────────────▶ leader
//!  follower   ◀──────────────     ▲                               │                          │ no majority fetches
//!     ▲          refused          └────────── refused, after a pause                         ▼
//!     └──────────────────── a later epoch, or its leader, is heard of ◀──────────────── resigned
//! ```
//!
//! The log is an argument of every step, not a part of the voter, so that what replicates is the log of `crate::log` with
//! its epochs, and a model may bring its own.
//!
//! Invariants: one leader per epoch; what is below a high watermark is in the log of every later leader; a vote is
//! durable before it is answered, a record before its replica is counted. Checked by `tests`, with a seeded simulation,
//! and by a model of every order of events within a small scope.

pub(crate) mod control;
mod election;
mod likeness;
mod log;
mod replication;
mod state_file;
mod store;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use log::{LeaderChange, QuorumLog};
pub use state_file::StateFileError;
pub use store::MetadataStore;
pub use types::{
    Effect, Fetch, Fetched, Head, Now, Progress, QuorumState, Replica, Request, Response, Settings,
    SnapshotId, Vote, VoterError,
};

use crate::Tick;

/// How long an observer that fetches no more is remembered, as in Kafka.
const OBSERVER_SESSION: Duration = Duration::from_secs(300);
/// Voters that start stand for election one after the other, this part of the election time-out apart.
const START_PARTS: u32 = 20;
/// Observers that are remembered.
const OBSERVERS: usize = 1_000;

/// One voter.
#[derive(Debug, Clone)]
pub struct Voter {
    id: i32,
    voters: BTreeSet<i32>,
    settings: Settings,
    rng: fastrand::Rng,
    epoch: i32,
    leader: Option<i32>,
    voted: Option<i32>,
    /// What was last asked to be made durable.
    persisted: QuorumState,
    role: Role,
    high_watermark: i64,
    /// The log survives a loss of power up to here.
    durable_end: i64,
    /// How often the log was cut.
    cut: u64,
    /// It has started and heard of no living leader yet, nor been refused.
    starting: bool,
    /// Elections lost in a row.
    losses: u32,
    /// Requests to other voters, one to each at a time.
    outbound: BTreeMap<i32, Outbound>,
    next_number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Role {
    Unattached { deadline: Tick },
    Prospective { ballot: Ballot, deadline: Tick },
    Candidate { ballot: Ballot, deadline: Tick },
    Follower { deadline: Tick, fetched: bool, download: Option<Download> },
    Leader(Leader),
    Resigned { deadline: Tick, successors: Vec<i32>, told: BTreeSet<i32> },
}

/// The votes of one round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Ballot {
    granted: BTreeSet<i32>,
    refused: BTreeSet<i32>,
}

/// A snapshot on its way here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Download {
    id: SnapshotId,
    position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Leader {
    /// Offset of the record with which the leadership begins.
    epoch_start: i64,
    voters: BTreeMap<i32, Progress>,
    observers: BTreeMap<i32, Progress>,
    /// Voters that know of this leadership.
    told: BTreeSet<i32>,
    tell_again: Tick,
    /// Voters that have fetched since a majority last had.
    heard: BTreeSet<i32>,
    check: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outbound {
    InFlight(u64),
    Pause(Tick),
}

/// The quorum as its leader sees it, for DescribeQuorum (55).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The leader, who describes.
    pub leader: i32,
    /// Its epoch.
    pub epoch: i32,
    /// Records below it are committed, -1 while that is unknown.
    pub high_watermark: i64,
    /// Every voter, by id.
    pub voters: Vec<(i32, Progress)>,
    /// Every observer that has been heard of lately, by id.
    pub observers: Vec<(i32, Progress)>,
}

impl Voter {
    /// A voter on what an earlier process of it has left: its state (`None` at the very first start) and its log, all of
    /// which is durable. Call [`Self::on_deadline`] next, and whenever [`Self::deadline`] has come.
    ///
    /// If it knows of no leader, or the one it knows of does not answer as such, it stands for election soon, not only after
    /// the time-outs: whoever hears from a leader refuses the pre-vote. The first voter does so at once, the others a little
    /// later, so that they do not split the votes.
    pub fn new<L: QuorumLog>(
        now: Now,
        id: i32,
        voters: BTreeSet<i32>,
        settings: Settings,
        stored: Option<QuorumState>,
        log: &L,
        rng: fastrand::Rng,
    ) -> Self {
        let mut state = stored.unwrap_or_default();
        if log.last_epoch() > state.epoch {
            state = QuorumState { epoch: log.last_epoch(), leader: None, voted: None };
        }
        let mut voter = Self {
            id,
            voters,
            settings,
            rng,
            epoch: state.epoch,
            leader: state.leader,
            voted: state.voted,
            persisted: stored.unwrap_or_default(),
            role: Role::Unattached { deadline: now.tick },
            high_watermark: log.snapshot().map_or(0, |snapshot| snapshot.end_offset),
            durable_end: log.end_offset(),
            cut: 0,
            starting: true,
            losses: 0,
            outbound: BTreeMap::new(),
            next_number: 0,
        };
        let alone = voter.voters.len() == 1;
        voter.role = match state.leader {
            _ if alone => Role::Unattached { deadline: now.tick },
            // What it led may have been lost with an answer on its way: it does not go on in that epoch.
            Some(leader) if leader == id => {
                voter.leader = None;
                voter.voted = None;
                voter.epoch = voter.epoch.saturating_add(1);
                Role::Unattached { deadline: now.tick }
            }
            Some(leader) if voter.voters.contains(&leader) => {
                let deadline = now.tick + voter.settings.fetch_timeout;
                Role::Follower { deadline, fetched: false, download: None }
            }
            _ => Role::Unattached { deadline: now.tick + voter.start_pause() },
        };
        voter
    }

    /// This voter.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// All voters.
    pub fn voters(&self) -> &BTreeSet<i32> {
        &self.voters
    }

    /// Latest epoch it has heard of.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Leader of that epoch, as far as it knows.
    pub fn leader(&self) -> Option<i32> {
        self.leader
    }

    /// Records below this offset are committed.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// How often its log was cut: an fsync that was begun before says nothing about what is written since.
    pub fn cuts(&self) -> u64 {
        self.cut
    }

    /// The epoch it leads, whether or not anything of it is committed yet.
    pub fn leading(&self) -> Option<i32> {
        matches!(self.role, Role::Leader(_)).then_some(self.epoch)
    }

    /// The epoch in which it leads and everything before is known to be committed: it may decide.
    pub fn active_epoch(&self) -> Option<i32> {
        match &self.role {
            Role::Leader(leader) if self.high_watermark > leader.epoch_start => Some(self.epoch),
            _ => None,
        }
    }

    /// The quorum, if this voter leads it.
    pub fn describe<L: QuorumLog>(&self, now: Now, log: &L) -> Option<Described> {
        let Role::Leader(leader) = &self.role else { return None };
        let own = Progress {
            end: log.end_offset(),
            fetched: Some(now),
            caught_up_ms: now.wall_ms,
            seen_end: Progress::UNKNOWN.seen_end,
        };
        let of = |id: &i32| if *id == self.id { own } else { leader.progress(*id) };
        Some(Described {
            leader: self.id,
            epoch: self.epoch,
            high_watermark: if self.active_epoch().is_some() { self.high_watermark } else { -1 },
            voters: self.voters.iter().map(|id| (*id, of(id))).collect(),
            observers: leader.observers.iter().map(|(id, progress)| (*id, *progress)).collect(),
        })
    }

    /// When [`Self::on_deadline`] wants to run.
    pub fn deadline(&self) -> Option<Tick> {
        let pauses = self.outbound.values().filter_map(|outbound| match outbound {
            Outbound::Pause(until) => Some(*until),
            Outbound::InFlight(_) => None,
        });
        let own = match &self.role {
            Role::Unattached { deadline }
            | Role::Prospective { deadline, .. }
            | Role::Candidate { deadline, .. }
            | Role::Follower { deadline, .. }
            | Role::Resigned { deadline, .. } => Some(*deadline),
            Role::Leader(_) if self.voters.len() == 1 => None,
            Role::Leader(leader) => Some(leader.check.min(leader.tell_again)),
        };
        pauses.chain(own).min()
    }

    /// The process did nothing for this long: what others did meanwhile waits unread, so their silence proves nothing.
    /// For all that the voter measures, the time has not passed.
    pub fn deaf(&mut self, time: Duration) {
        for outbound in self.outbound.values_mut() {
            if let Outbound::Pause(until) = outbound {
                *until += time;
            }
        }
        match &mut self.role {
            Role::Unattached { deadline }
            | Role::Prospective { deadline, .. }
            | Role::Candidate { deadline, .. }
            | Role::Follower { deadline, .. }
            | Role::Resigned { deadline, .. } => *deadline += time,
            Role::Leader(leader) => {
                leader.check += time;
                leader.tell_again += time;
                for progress in leader.voters.values_mut().chain(leader.observers.values_mut()) {
                    if let Some(fetched) = &mut progress.fetched {
                        fetched.tick += time;
                    }
                }
            }
        }
    }

    /// The request of which it waits for the outcome from that voter: any other outcome leaves it as it is.
    pub fn waits_for(&self, from: i32) -> Option<u64> {
        match self.outbound.get(&from) {
            Some(Outbound::InFlight(number)) => Some(*number),
            _ => None,
        }
    }

    fn others(&self) -> Vec<i32> {
        self.voters.iter().copied().filter(|id| *id != self.id).collect()
    }

    fn is_majority(&self, count: usize) -> bool {
        count > self.voters.len() / 2
    }

    fn election_timeout(&mut self) -> Duration {
        let base = self.settings.election_timeout;
        base + self.up_to(base)
    }

    /// How long a voter that starts leaves it to those before it to stand for election.
    fn start_pause(&mut self) -> Duration {
        let rank = self.voters.iter().filter(|other| **other < self.id).count();
        let step = self.settings.election_timeout / START_PARTS;
        let jitter = if rank == 0 { Duration::ZERO } else { self.up_to(step / 2) };
        step.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX)) + jitter
    }

    /// A time drawn evenly from zero to `most`.
    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 { Duration::ZERO } else { Duration::from_micros(self.rng.u64(0..=micros)) }
    }

    fn head(&self, error: klamm_wire::ErrorCode) -> Head {
        Head { error, leader: self.leader, epoch: self.epoch }
    }

    fn persist(&mut self, fx: &mut Vec<Effect>) {
        let state = QuorumState { epoch: self.epoch, leader: self.leader, voted: self.voted };
        if state != self.persisted {
            self.persisted = state;
            fx.push(Effect::Persist(state));
        }
    }

    /// Leaves the role there was; whatever was asked in it is of no interest any more.
    fn become_role(&mut self, role: Role, fx: &mut Vec<Effect>) {
        if let Role::Leader(_) = self.role
            && let Some(epoch) = self.leading()
        {
            fx.push(Effect::Deposed { epoch });
        }
        self.outbound.clear();
        self.role = role;
    }

    fn send(&mut self, to: i32, request: Request, fx: &mut Vec<Effect>) {
        let number = self.next_number;
        self.next_number += 1;
        self.outbound.insert(to, Outbound::InFlight(number));
        fx.push(Effect::Send { to, number, request });
    }

    fn is_free(&self, now: Tick, to: i32) -> bool {
        match self.outbound.get(&to) {
            None => true,
            Some(Outbound::InFlight(_)) => false,
            Some(Outbound::Pause(until)) => *until <= now,
        }
    }

    fn pause(&mut self, now: Tick, to: i32, time: Duration) {
        self.outbound.insert(to, Outbound::Pause(now + time));
    }

    /// Sends what the role wants sent to whoever is free.
    fn drive<L: QuorumLog>(&mut self, now: Tick, log: &L, fx: &mut Vec<Effect>) {
        for to in self.others() {
            if self.is_free(now, to)
                && let Some(request) = self.wanted(to, log)
            {
                self.send(to, request, fx);
            }
        }
        // A pause that is over and led to nothing would be a deadline for ever.
        self.outbound.retain(|_, outbound| !matches!(outbound, Outbound::Pause(until) if *until <= now));
    }

    fn wanted<L: QuorumLog>(&self, to: i32, log: &L) -> Option<Request> {
        match &self.role {
            Role::Unattached { .. } => None,
            Role::Prospective { ballot, .. } => {
                (!ballot.granted.contains(&to)).then(|| self.ask_vote(true, log))
            }
            Role::Candidate { ballot, .. } => {
                let open = !ballot.granted.contains(&to) && !ballot.refused.contains(&to);
                (open && !self.is_majority(ballot.refused.len())).then(|| self.ask_vote(false, log))
            }
            Role::Follower { download, .. } => {
                let ready = self.leader == Some(to) && self.durable_end == log.end_offset();
                ready.then(|| match download {
                    Some(Download { id, position }) => {
                        Request::FetchSnapshot { epoch: self.epoch, id: *id, position: *position }
                    }
                    None => Request::Fetch(Fetch {
                        epoch: self.epoch,
                        offset: log.end_offset(),
                        last_epoch: log.last_epoch(),
                        high_watermark: self.high_watermark,
                    }),
                })
            }
            Role::Leader(leader) => (!leader.told.contains(&to))
                .then_some(Request::BeginEpoch { leader: self.id, epoch: self.epoch }),
            Role::Resigned { successors, told, .. } => {
                let successors = successors.clone();
                (!told.contains(&to)).then_some(Request::EndEpoch {
                    leader: self.id,
                    epoch: self.epoch,
                    successors,
                })
            }
        }
    }

    fn ask_vote<L: QuorumLog>(&self, pre_vote: bool, log: &L) -> Request {
        let (last_epoch, last_offset) = (log.last_epoch(), log.end_offset());
        Request::Vote(Vote { epoch: self.epoch, candidate: self.id, last_epoch, last_offset, pre_vote })
    }
}

#[cfg(test)]
mod tests;
