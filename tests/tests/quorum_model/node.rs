//! One voter, the real one, in the process and on the disk that a driver gives it; and what it is told, step by step.
//!
//! All time limits are zero, so that whatever waits for a time may act at any moment, and chance decides nothing.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use broker_lite_core::quorum::{
    Effect, Head, Now, QuorumState, Replica, Request, Response, Settings, Vote, Voter, VoterError,
};

use klamm_wire::ErrorCode;

use super::kept::{Named, Ref};
use super::log::{Entry, SmallLog, Stretch};

const NOW: Now = Now { tick: Duration::ZERO, wall_ms: 0 };
/// Records in an answer: a leader may stop after each of them.
const ONE: usize = 1;
const TIMELESS: Settings = Settings {
    election_timeout: Duration::ZERO,
    election_backoff_max: Duration::ZERO,
    fetch_timeout: Duration::ZERO,
    request_timeout: Duration::ZERO,
    retry_backoff: Duration::ZERO,
};

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) voter: Voter,
    pub(crate) log: SmallLog,
    /// The vote and all else that a loss of power leaves.
    pub(crate) kept: Option<QuorumState>,
    /// What was written since: another leader of the same epoch, which nothing waits for.
    pub(crate) noted: Option<QuorumState>,
    /// An fsync is under way, up to here.
    pub(crate) syncing: Option<i64>,
    /// A vote, an epoch, or what the process before has left is not durable, so that it says nothing that rests on it. Only
    /// with [`Driver::late_votes`].
    pub(crate) unflushed: bool,
    /// To whom it last gave its vote, however much it forgets.
    pub(crate) gave: Option<(i32, i32)>,
    /// No crash is to come, so what one would lose is of no interest.
    pub(crate) survives: bool,
}

/// What one voter sends another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Request(Request),
    Response(Response<Stretch>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// A request or an answer, named by its address.
    Message {
        from: i32,
        body: usize,
    },
    /// No answer comes.
    Silence {
        from: i32,
    },
    /// A pre-vote is granted, that is, was when it was asked for.
    Permit {
        from: i32,
    },
    /// A time limit passes.
    Deadline,
    Synced,
    /// A client's record reaches the leader.
    Append {
        content: u8,
    },
    Crash {
        power_off: bool,
    },
    /// There is no crash to come.
    Survive,
}

/// What came of a step.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) node: Ref<Node>,
    /// Whose answer is not waited for any more.
    pub(crate) given_up: [bool; 3],
    pub(crate) asks: [Option<Ref<Body>>; 3],
    pub(crate) answer: Option<Ref<Body>>,
    pub(crate) events: Vec<Event>,
}

/// What the promises are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Elected { epoch: i32 },
    Committed { offset: i64 },
    Truncated,
    VotedTwice,
    Broken,
}

/// What drives the voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Driver {
    /// Vote first, persist later: a crash in between loses the vote.
    pub(crate) forgets_votes: bool,
    /// Fsyncs end at once, or whenever it may be.
    pub(crate) syncs_at_once: bool,
    /// So do those of votes and epochs: until then a candidate's request is on its way, but neither does its outcome count nor
    /// is a vote answered. Without it they are durable in the step that gives them.
    pub(crate) late_votes: bool,
    pub(crate) early: Option<Early>,
}

/// What a driver may do before it is durable, by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    /// Answer a vote.
    Answer,
    /// Count a candidate's vote for itself.
    OwnVote,
    /// Count what is appended to the log.
    Log,
    /// Begin the fsync before the vote is written that it is for.
    Fsync,
}

impl Node {
    pub(crate) fn start(id: i32, log: SmallLog, kept: Option<QuorumState>, gave: Option<(i32, i32)>) -> Self {
        let rng = fastrand::Rng::with_seed(0);
        let voter = Voter::new(NOW, id, (0..3).collect(), TIMELESS, kept, &log, rng);
        Self { voter, log, kept, noted: kept, syncing: None, unflushed: false, gave, survives: false }
    }

    /// Takes one step, and everything that its driver does in the same breath.
    pub(crate) fn step(mut self, driver: Driver, input: Input, body: Option<&Body>) -> Stepped {
        let id = self.voter.id();
        let waited: [Option<u64>; 3] = std::array::from_fn(|to| self.voter.waits_for(to as i32));
        let mut done = Stepped {
            node: self.clone(),
            given_up: [false; 3],
            asks: [None, None, None],
            answer: None,
            events: Vec::new(),
        };
        if let Input::Crash { power_off } = input {
            let mut found = if power_off { self.kept } else { self.noted };
            if let Some(found) = found.as_mut().filter(|_| driver.forgets_votes) {
                found.voted = None;
            }
            let next = Self::start(id, self.log.after_crash(power_off), found, self.gave);
            done.given_up = waited.map(|waited| waited.is_some());
            done.node = match power_off {
                true => next,
                false if driver.late_votes => {
                    let log = SmallLog { disk: self.log.disk.clone(), ..next.log.clone() };
                    let unflushed = bound(self.kept) != bound(next.noted) || log.disk != log.entries;
                    Self { kept: self.kept, log, unflushed, ..next }
                }
                false => Self { kept: self.kept, ..next },
            };
            return done;
        }
        let mut fx = Vec::new();
        match self.act(driver, input, body, &mut fx) {
            Ok(answer) => done.answer = answer.map(|answer| plain(Body::Response(answer))),
            Err(_) => done.events.push(Event::Broken),
        }
        while !fx.is_empty() {
            for effect in std::mem::take(&mut fx) {
                let counted = match effect {
                    Effect::Sync { end, cut } if driver.early == Some(Early::Log) => Some((end, cut)),
                    _ => None,
                };
                self.apply(driver, effect, &mut done);
                if let Some((end, cut)) = counted {
                    self.voter.synced(NOW, end, cut, &self.log, &mut fx);
                }
            }
            if driver.syncs_at_once && self.syncing.is_some() {
                self.synced(driver, &mut fx);
            }
        }
        for (to, waited) in waited.into_iter().enumerate() {
            done.given_up[to] = waited.is_some() && self.voter.waits_for(to as i32) != waited;
            // What was asked and taken back within the step was never sent.
            if self.voter.waits_for(to as i32).is_none() {
                done.asks[to] = None;
            }
        }
        if self.gave.is_some_and(|(epoch, _)| self.kept.is_some_and(|kept| epoch < kept.epoch)) {
            // An epoch that goes back is a broken promise by itself.
            self.gave = None;
        }
        self.survives |= input == Input::Survive;
        if self.survives {
            self.kept = self.noted;
        }
        done.node = self;
        done
    }

    fn act(
        &mut self,
        driver: Driver,
        input: Input,
        body: Option<&Body>,
        fx: &mut Vec<Effect>,
    ) -> Result<Option<Response<Stretch>>, VoterError> {
        let Self { voter, log, .. } = self;
        match (input, body) {
            (Input::Message { from, .. }, Some(Body::Request(Request::Fetch(fetch)))) => {
                return voter.fetch(NOW, Replica::Voter(from), fetch, ONE, log, fx).map(Some);
            }
            (Input::Message { .. }, Some(Body::Request(request))) => {
                return Ok(Some(voter.on_request(NOW, request, log, fx)));
            }
            (Input::Message { from, .. }, Some(Body::Response(response))) => {
                if let Some(number) = voter.waits_for(from) {
                    voter.on_response(NOW, from, number, Some(response), log, fx)?;
                }
            }
            (Input::Silence { from }, _) => {
                if let Some(number) = voter.waits_for(from) {
                    voter.on_response(NOW, from, number, None, log, fx)?;
                }
            }
            (Input::Permit { from }, _) => {
                let head = Head { error: ErrorCode::NONE, leader: None, epoch: voter.epoch() };
                let granted = Response::Vote { head, granted: true };
                if let Some(number) = voter.waits_for(from) {
                    voter.on_response(NOW, from, number, Some(&granted), log, fx)?;
                }
            }
            (Input::Deadline, _) => voter.on_deadline(NOW, log, fx)?,
            (Input::Synced, _) => self.synced(driver, fx),
            (Input::Append { content }, _) => {
                if let Some(epoch) = voter.active_epoch() {
                    log.entries.push(Entry { epoch, content });
                    voter.appended(log, fx);
                }
            }
            (Input::Message { .. } | Input::Crash { .. } | Input::Survive, _) => {}
        }
        Ok(None)
    }

    fn synced(&mut self, driver: Driver, fx: &mut Vec<Effect>) {
        let begun = self.syncing.take();
        let vote = std::mem::take(&mut self.unflushed);
        // One flush for all that was written.
        let Some(end) = vote.then_some(self.log.entries.len() as i64).or(begun) else { return };
        self.log.synced(end);
        if !vote || driver.early != Some(Early::Fsync) {
            self.kept = self.noted;
        }
        self.voter.synced(NOW, end, self.voter.cuts(), &self.log, fx);
    }

    fn apply(&mut self, driver: Driver, effect: Effect, done: &mut Stepped) {
        match effect {
            Effect::Persist(new) => {
                let (old, durable) = (self.noted.unwrap_or_default(), self.kept.unwrap_or_default());
                let gives = new.voted.map(|candidate| (new.epoch, candidate));
                let twice = gives.zip(self.gave).is_some_and(|(now, before)| {
                    now.0 < before.0 || (now.0 == before.0 && now.1 != before.1)
                });
                // One that is not durable has not been told to anybody: it may be forgotten.
                if (twice && !driver.late_votes) || new.epoch < old.epoch {
                    done.events.push(Event::VotedTwice);
                }
                self.gave = gives.or(self.gave);
                self.noted = Some(new);
                let binds = (durable.epoch, durable.voted) != (new.epoch, new.voted);
                if driver.late_votes {
                    self.unflushed |= binds;
                } else if self.kept.is_none() || binds {
                    self.kept = Some(new);
                }
            }
            Effect::Send { to, request, .. } => {
                done.asks[to as usize] = Some(plain(Body::Request(request)));
            }
            Effect::Sync { end, .. } => self.syncing = Some(end),
            Effect::Elected { epoch } => done.events.push(Event::Elected { epoch }),
            Effect::HighWatermark(offset) => done.events.push(Event::Committed { offset }),
            Effect::Truncated(_) => {
                self.syncing = None;
                done.events.push(Event::Truncated);
            }
            Effect::Deposed { .. } | Effect::SnapshotLoaded(_) => {}
        }
    }
}

/// As [`Outcome`], before its parts are kept.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) node: Node,
    pub(crate) given_up: [bool; 3],
    pub(crate) asks: [Option<Body>; 3],
    pub(crate) answer: Option<Body>,
    pub(crate) events: Vec<Event>,
}

/// What a voter is bound by.
fn bound(state: Option<QuorumState>) -> (i32, Option<i32>) {
    state.map_or((0, None), |state| (state.epoch, state.voted))
}

/// Without what decides nothing where there is no time: who waits how long, and what a long poll waits for.
fn plain(mut body: Body) -> Body {
    match &mut body {
        Body::Request(Request::EndEpoch { successors, .. }) => successors.clear(),
        Body::Request(Request::Fetch(fetch)) => fetch.high_watermark = 0,
        _ => {}
    }
    body
}

impl Named for Node {
    fn hash_as<H: Hasher>(&self, name: &dyn Fn(i32) -> i32, state: &mut H) {
        let of = |kept: Option<QuorumState>| {
            kept.map(|kept| (kept.epoch, kept.leader.map(name), kept.voted.map(name)))
        };
        self.voter.hash_as(name, state);
        (&self.log, of(self.kept), of(self.noted), self.syncing, self.unflushed, self.survives).hash(state);
        self.gave.map(|(epoch, candidate)| (epoch, name(candidate))).hash(state);
    }
}

impl Body {
    /// Whether it is one of those requests that may leave before what they rest on is durable.
    pub(crate) fn asks_vote(&self) -> bool {
        matches!(self, Self::Request(Request::Vote(_)))
    }

    pub(crate) fn is_ok(&self) -> bool {
        matches!(self, Self::Response(response) if response.head().error == ErrorCode::NONE)
    }
}

impl Named for Body {
    fn hash_as<H: Hasher>(&self, name: &dyn Fn(i32) -> i32, state: &mut H) {
        let head = |head: &Head| Head { leader: head.leader.map(name), ..*head };
        let body = match self {
            Self::Request(Request::Vote(vote)) => {
                Self::Request(Request::Vote(Vote { candidate: name(vote.candidate), ..*vote }))
            }
            Self::Request(Request::BeginEpoch { leader, epoch }) => {
                Self::Request(Request::BeginEpoch { leader: name(*leader), epoch: *epoch })
            }
            Self::Request(Request::EndEpoch { leader, epoch, .. }) => {
                Self::Request(Request::EndEpoch { leader: name(*leader), epoch: *epoch, successors: vec![] })
            }
            Self::Response(Response::Vote { head: of, granted }) => {
                Self::Response(Response::Vote { head: head(of), granted: *granted })
            }
            Self::Response(Response::Epoch(of)) => Self::Response(Response::Epoch(head(of))),
            Self::Response(Response::Fetch { head: of, high_watermark, fetched }) => {
                let (high_watermark, fetched) = (*high_watermark, fetched.clone());
                Self::Response(Response::Fetch { head: head(of), high_watermark, fetched })
            }
            other => other.clone(),
        };
        match &body {
            Self::Request(request) => (0, request).hash(state),
            Self::Response(response) => (1, response).hash(state),
        }
    }
}
