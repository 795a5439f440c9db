//! Three voters and a network, in every order.
//!
//! All time limits are zero, so that whatever waits for a time may act at any moment, and chance decides nothing. A
//! process that is down is one that nobody delivers to, hence a crash is at once followed by the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use broker_lite_core::quorum::{
    Effect, Now, QuorumState, Replica, Request, Response, Settings, Voter, VoterError,
};
use stateright::{Model, Property};

use super::log::{Entry, SmallLog, Stretch};

/// How far the model goes. What lies beyond is not looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) voters: i32,
    /// Latest epoch.
    pub(crate) epochs: i32,
    /// Records of clients, besides the one with which each leadership begins.
    pub(crate) entries: u8,
    /// Messages in flight; one more is lost.
    pub(crate) messages: usize,
    /// Messages that arrive and are still there.
    pub(crate) duplicates: u8,
    pub(crate) crashes: u8,
    /// Steps from a new quorum, and from one with two candidates in epoch 1.
    pub(crate) steps: usize,
}

/// A mistake made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A crash loses the vote, although it was to be durable.
    VoteNotKept,
    #[cfg(feature = "planted")]
    VoteTwice,
}

#[derive(Debug)]
pub(crate) struct Quorum {
    pub(crate) bounds: Bounds,
    pub(crate) mistake: Option<Mistake>,
}

/// The promises, as the name of what fell.
pub(crate) const PROMISES: [&str; 5] = [
    "an epoch has one leader",
    "what is committed stays, and is the same for everybody",
    "a leader has everything that is committed",
    "a voter votes once in an epoch",
    "no voter contradicts the others",
];

#[derive(Debug, Clone)]
struct Node {
    voter: Voter,
    log: SmallLog,
    kept: Option<QuorumState>,
    /// Fsyncs under way: up to where, and how often the log had been cut.
    syncs: BTreeSet<(i64, u64)>,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.voter, &self.log, self.kept, &self.syncs).hash(state);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Body {
    Request(Request),
    Response(Response<Stretch>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    from: i32,
    to: i32,
    /// Of the request, as long as the outcome is waited for.
    number: Option<u64>,
    body: Body,
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // At most one outcome is waited for between two voters, so its number says nothing more.
        (self.from, self.to, self.number.is_some(), &self.body).hash(state);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    nodes: Vec<Node>,
    network: Vec<Message>,
    leaders: BTreeMap<i32, i32>,
    committed: Vec<Entry>,
    appended: u8,
    crashes: u8,
    duplicates: u8,
    fell: Option<&'static str>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut network: Vec<u64> = self.network.iter().map(stateright_hash).collect();
        network.sort_unstable();
        (&self.nodes, network, &self.leaders, &self.committed).hash(state);
        (self.appended, self.crashes, self.duplicates, self.fell).hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        stateright_hash(self) == stateright_hash(other)
    }
}

fn stateright_hash(of: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A message arrives, and maybe once more later.
    Deliver {
        index: usize,
        again: bool,
    },
    Lose {
        index: usize,
    },
    /// Somebody waits for an outcome no longer.
    GiveUp {
        from: i32,
        to: i32,
    },
    /// A time limit passes.
    Deadline {
        at: i32,
    },
    Synced {
        at: i32,
        end: i64,
        cut: u64,
    },
    /// A client's record reaches the leader.
    Append {
        at: i32,
    },
    Crash {
        at: i32,
        power_off: bool,
    },
}

const NOW: Now = Now { tick: Duration::ZERO, wall_ms: 0 };
const TIMELESS: Settings = Settings {
    election_timeout: Duration::ZERO,
    election_backoff_max: Duration::ZERO,
    fetch_timeout: Duration::ZERO,
    request_timeout: Duration::ZERO,
    retry_backoff: Duration::ZERO,
};

type Step<'a> = &'a mut dyn FnMut(&mut Voter, &mut SmallLog, &mut Vec<Effect>) -> Result<(), VoterError>;

impl Quorum {
    fn voters(&self) -> BTreeSet<i32> {
        (0..self.bounds.voters).collect()
    }

    fn start(&self, id: i32, log: SmallLog, kept: Option<QuorumState>) -> Node {
        let rng = fastrand::Rng::with_seed(0);
        let voter = Voter::new(NOW, id, self.voters(), TIMELESS, kept, &log, rng);
        Node { voter, log, kept, syncs: BTreeSet::new() }
    }

    fn step(&self, state: &mut State, at: i32, act: Step<'_>) {
        let node = &mut state.nodes[at as usize];
        let mut fx = Vec::new();
        if act(&mut node.voter, &mut node.log, &mut fx).is_err() {
            state.fell.get_or_insert(PROMISES[4]);
        }
        for effect in fx {
            self.apply(state, at, effect);
        }
        tidy(state, at);
    }

    fn apply(&self, state: &mut State, at: i32, effect: Effect) {
        let node = &mut state.nodes[at as usize];
        match effect {
            Effect::Persist(new) => {
                let old = node.kept.unwrap_or_default();
                if new.epoch < old.epoch
                    || (new.epoch == old.epoch && old.voted.is_some() && old.voted != new.voted)
                {
                    state.fell.get_or_insert(PROMISES[3]);
                }
                node.kept = Some(new);
            }
            Effect::Send { to, number, request } => {
                // What was asked before is not waited for any more.
                tidy(state, at);
                post(state, self.bounds, at, to, Some(number), Body::Request(request));
            }
            Effect::Sync { end, cut } => {
                node.syncs.insert((end, cut));
            }
            Effect::Elected { epoch } => {
                let complete = node.log.entries.starts_with(&state.committed);
                if *state.leaders.entry(epoch).or_insert(at) != at {
                    state.fell.get_or_insert(PROMISES[0]);
                }
                if !complete {
                    state.fell.get_or_insert(PROMISES[2]);
                }
            }
            Effect::HighWatermark(offset) => {
                let (known, now) = (&state.committed, node.log.up_to(offset));
                let common = known.len().min(now.len());
                if known[..common] != now[..common] || now.len() < offset as usize {
                    state.fell.get_or_insert(PROMISES[1]);
                } else if now.len() > common {
                    state.committed = now.to_vec();
                }
            }
            _ => {}
        }
    }

    fn deliver(&self, state: &mut State, index: usize, again: bool) {
        let message = if again {
            state.duplicates += 1;
            state.network[index].clone()
        } else {
            state.network.remove(index)
        };
        let Message { from, to, number, body } = message;
        match body {
            Body::Request(request) => {
                let mut answer = None;
                self.step(state, to, &mut |voter, log, fx| {
                    answer = Some(match &request {
                        Request::Fetch(fetch) => voter.fetch(NOW, Replica::Voter(from), fetch, 0, log, fx)?,
                        request => voter.on_request(NOW, request, log, fx),
                    });
                    Ok(())
                });
                // An answer that nobody waits for changes nothing.
                if let Some(answer) = answer.filter(|_| number.is_some()) {
                    post(state, self.bounds, to, from, number, Body::Response(answer));
                }
            }
            Body::Response(response) => {
                let Some(number) = number else { return };
                self.step(state, to, &mut |voter, log, fx| {
                    voter.on_response(NOW, from, number, Some(&response), log, fx)
                });
            }
        }
    }
}

/// Puts a message on the network, unless that is full.
fn post(state: &mut State, bounds: Bounds, from: i32, to: i32, number: Option<u64>, body: Body) {
    let message = Message { from, to, number, body };
    if state.network.len() < bounds.messages && !state.network.contains(&message) {
        state.network.push(message);
    }
}

/// Forgets whose outcome is not waited for any more.
fn tidy(state: &mut State, at: i32) {
    let voter = &state.nodes[at as usize].voter;
    for message in &mut state.network {
        let asked = match message.body {
            Body::Request(_) => (message.from == at).then_some(message.to),
            Body::Response(_) => (message.to == at).then_some(message.from),
        };
        if let (Some(asked), Some(number)) = (asked, message.number)
            && voter.waits_for(asked) != Some(number)
        {
            message.number = None;
        }
    }
    let mut seen = Vec::new();
    state.network.retain(|message| {
        let answer_to_nobody = message.number.is_none() && matches!(message.body, Body::Response(_));
        let keep = !answer_to_nobody && !seen.contains(message);
        seen.push(message.clone());
        keep
    });
    let node = &mut state.nodes[at as usize];
    let cut = node.voter.cuts();
    node.syncs.retain(|(_, of)| *of == cut);
}

impl Model for Quorum {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fresh = State {
            nodes: self.voters().into_iter().map(|id| self.start(id, SmallLog::default(), None)).collect(),
            network: Vec::new(),
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            appended: 0,
            crashes: 0,
            duplicates: 0,
            fell: None,
        };
        let mut rivals = fresh.clone();
        // Each has asked voter 1 whether it would vote for it, before the other was a candidate.
        for candidate in [0, 2] {
            self.step(&mut rivals, candidate, &mut |voter, log, fx| voter.on_deadline(NOW, log, fx));
        }
        for candidate in [0, 2] {
            let between = |message: &Message| {
                (message.from, message.to) == (candidate, 1) || (message.from, message.to) == (1, candidate)
            };
            for _ in 0..2 {
                if let Some(index) = rivals.network.iter().position(between) {
                    self.deliver(&mut rivals, index, false);
                }
            }
        }
        vec![fresh, rivals]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fell.is_some() {
            return;
        }
        for index in 0..state.network.len() {
            actions.push(Action::Deliver { index, again: false });
            if state.duplicates < self.bounds.duplicates {
                actions.push(Action::Deliver { index, again: true });
            }
            actions.push(Action::Lose { index });
        }
        for (at, node) in (0..).zip(&state.nodes) {
            actions.push(Action::Deadline { at });
            for to in self.voters().into_iter().filter(|to| node.voter.waits_for(*to).is_some()) {
                actions.push(Action::GiveUp { from: at, to });
            }
            actions.extend(node.syncs.iter().map(|(end, cut)| Action::Synced { at, end: *end, cut: *cut }));
            if state.appended < self.bounds.entries && node.voter.active_epoch().is_some() {
                actions.push(Action::Append { at });
            }
            if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash { at, power_off: true });
                actions.push(Action::Crash { at, power_off: false });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        #[cfg(feature = "planted")]
        klamm_wire::planted::plant(
            (self.mistake == Some(Mistake::VoteTwice)).then_some(klamm_wire::planted::Bug::VoteTwice),
        );
        let mut next = last.clone();
        let state = &mut next;
        match action {
            Action::Deliver { index, again } => self.deliver(state, index, again),
            Action::Lose { index } => {
                state.network.remove(index);
            }
            Action::GiveUp { from, to } => {
                let number = state.nodes[from as usize].voter.waits_for(to)?;
                self.step(state, from, &mut |voter, log, fx| {
                    voter.on_response(NOW, to, number, None, log, fx)
                });
            }
            Action::Deadline { at } => {
                self.step(state, at, &mut |voter, log, fx| voter.on_deadline(NOW, log, fx));
            }
            Action::Synced { at, end, cut } => {
                let node = &mut state.nodes[at as usize];
                node.syncs.retain(|(other, _)| *other > end);
                node.log.synced(end);
                self.step(state, at, &mut |voter, log, fx| {
                    voter.synced(NOW, end, cut, log, fx);
                    Ok(())
                });
            }
            Action::Append { at } => {
                state.appended += 1;
                let content = state.appended;
                self.step(state, at, &mut |voter, log, fx| {
                    let Some(epoch) = voter.active_epoch() else { return Ok(()) };
                    log.entries.push(Entry { epoch, content });
                    voter.appended(log, fx);
                    Ok(())
                });
            }
            Action::Crash { at, power_off } => {
                state.crashes += 1;
                let node = &mut state.nodes[at as usize];
                let mut kept = node.kept;
                if self.mistake == Some(Mistake::VoteNotKept)
                    && let Some(kept) = &mut kept
                {
                    kept.voted = None;
                }
                *node = self.start(at, node.log.after_crash(power_off), kept);
                // Numbers begin again, but what an earlier process asked for is not waited for.
                tidy(state, at);
            }
        }
        // Seen is what was done, also where nothing came of it.
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.nodes.iter().all(|node| node.voter.epoch() <= self.bounds.epochs)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES[0], |_, state: &State| state.fell != Some(PROMISES[0])),
            Property::always(PROMISES[1], |_, state: &State| state.fell != Some(PROMISES[1])),
            Property::always(PROMISES[2], |_, state: &State| state.fell != Some(PROMISES[2])),
            Property::always(PROMISES[3], |_, state: &State| state.fell != Some(PROMISES[3])),
            Property::always(PROMISES[4], |_, state: &State| state.fell != Some(PROMISES[4])),
        ]
    }
}
