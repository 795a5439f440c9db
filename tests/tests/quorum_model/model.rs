//! Three voters and a network, in every order.
//!
//! A step of a voter depends on the voter and on what it is told, so each is taken once, by the real machine, and
//! remembered. States that differ in the names of voters alone are one state; clocks and numbers are no part of it. Where
//! one of several orders is enough, or more is allowed than can happen, there is less to look at:
//!
//! - Between two voters each asks the other one thing at a time, as the machine does, and gets one answer to what it asked,
//!   as TCP does. A message may wait for ever, which is how it is lost. A request that is waited for no longer may still
//!   arrive, until there is a next one. A lost answer is a request that is sent again.
//! - Only a vote is on its way for any time. What else answers says arrives when it is said, or never: a follower's log
//!   changes by such an answer alone, and what a leader writes in its epoch is a prefix of what it will have written.
//! - A pre-vote may be granted at any time, whatever is asked of whom: it guards nobody's log. Refusals are the machine's.
//! - Where votes become durable late, a candidate's request is on its way before, and its outcome waits; whoever gives a vote
//!   answers later. What follows from a refusal, or from whom else one has heard, is not held back: that is more than happens.
//! - A leader tells of its leadership again and again.
//! - A process that is down is one that nobody delivers to, hence a crash is at once followed by the next start.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_lite_core::quorum::{Request, Response};
use klamm_wire::ErrorCode;
use stateright::{Model, Property};

use super::kept::{Keep, NAMES, Ref, address, mix};
use super::log::{Entry, SmallLog};
use super::node::{Body, Driver, Early, Event, Input, Node, Outcome};

/// How far the model goes; within that, it goes everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Latest epoch. In it no time limit passes, for what comes of that is an epoch more.
    pub(crate) epochs: i32,
    /// Records of clients, besides the one with which each leadership begins.
    pub(crate) entries: u8,
    pub(crate) crashes: u8,
    pub(crate) driver: Driver,
}

/// The most epochs, and the longest log: the records of clients and the beginnings of leaderships.
const EPOCHS: usize = 4;
const LOG: usize = 8;

/// The promises, as the name of what fell.
pub(crate) const PROMISES: [&str; 7] = [
    "an epoch has one leader",
    "what is committed stays, and is the same for everybody",
    "a leader has everything that is committed",
    "a voter votes once in an epoch, whatever it forgets",
    "no voter contradicts the others",
    "logs that agree on an epoch at an offset are equal up to there",
    "what is committed is durable on a majority",
];

/// What must be met with, or the scope is too small to say anything.
pub(crate) const SIGHTS: [&str; 6] = [
    "a client's record is committed",
    "a follower truncates what its leader does not have",
    "two voters lead, in different epochs",
    "a leader has committed what it has of an earlier one",
    "a pre-vote is refused",
    "a vote is refused",
];

#[derive(Debug)]
pub(crate) struct Quorum {
    pub(crate) bounds: Bounds,
    #[cfg(feature = "planted")]
    bug: Option<klamm_wire::planted::Bug>,
    /// What has happened before it begins.
    past: Vec<Action>,
    nodes: Keep<Node>,
    bodies: Keep<Body>,
    steps: RwLock<HashMap<(usize, Input), &'static Outcome>>,
    seen: [AtomicUsize; SIGHTS.len()],
}

/// What is between who asks and who is asked.
#[derive(Debug, Clone, Copy)]
enum Channel {
    Nothing,
    Request {
        body: Ref<Body>,
        waited_for: bool,
    },
    Answer {
        body: Ref<Body>,
        /// It waits until what it says is durable.
        held: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    nodes: [Ref<Node>; 3],
    /// By who asks, then by who is asked.
    channels: [[Channel; 3]; 3],
    /// Who has led an epoch in which somebody still is.
    leaders: [Option<i8>; EPOCHS + 1],
    /// With the epoch in which each was committed.
    committed: [Option<(Entry, i32)>; LOG],
    appended: u8,
    crashes: u8,
    fell: Option<&'static str>,
}

impl State {
    /// Its hash if voters are called by the names of this number.
    fn hash_named(&self, number: usize) -> u64 {
        let names = NAMES[number];
        let mut by_name = [0; 3];
        for (old, new) in names.iter().enumerate() {
            by_name[*new as usize] = old;
        }
        let mut hash = 1;
        for asks in by_name {
            hash = mix(hash, self.nodes[asks].hashes[number]);
            for asked in by_name.into_iter().filter(|asked| *asked != asks) {
                hash = mix(
                    hash,
                    match self.channels[asks][asked] {
                        Channel::Nothing => 1,
                        Channel::Request { body, waited_for } => {
                            mix(2 + u64::from(waited_for), body.hashes[number])
                        }
                        Channel::Answer { body, held } => mix(4 + u64::from(held), body.hashes[number]),
                    },
                );
            }
        }
        for leader in self.leaders {
            hash = mix(hash, leader.map_or(9, |leader| u64::from(names[leader as usize])));
        }
        hash
    }

    /// What was committed before an epoch.
    fn committed(&self, before: i32) -> Vec<Entry> {
        let committed = self.committed.iter().flatten().take_while(|(_, epoch)| *epoch < before);
        committed.map(|(entry, _)| *entry).collect()
    }

    fn fall(&mut self, promise: usize) {
        self.fell.get_or_insert(PROMISES[promise]);
    }

    /// Whether what is between these two may go on: nothing that rests on a vote does before that is durable.
    fn may_go(&self, driver: Driver, asks: usize, asked: usize) -> bool {
        let waits = self.nodes[asks].value.unflushed;
        match self.channels[asks][asked] {
            Channel::Nothing => false,
            Channel::Request { body, waited_for } => !(waits && waited_for) || body.value.asks_vote(),
            Channel::Answer { held, .. } => !held && (!waits || driver.early == Some(Early::OwnVote)),
        }
    }

    fn log(&self, at: usize) -> &'static SmallLog {
        &self.nodes[at].value.log
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let least = (0..NAMES.len()).map(|number| self.hash_named(number)).min();
        (least, self.committed, self.appended, self.crashes, self.fell.is_some()).hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let hash = |of: &Self| {
            let mut hasher = std::hash::DefaultHasher::new();
            of.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// What is on its way between these two arrives; if it is a request, so does its answer at once, unless that is a vote.
    /// Or else the answer is lost.
    Deliver { asks: usize, asked: usize, lost: bool },
    /// The answer to a pre-vote arrives, given whenever it may have been.
    Permit { asks: usize, asked: usize },
    /// Something happens at one voter.
    At { at: usize, input: Input },
}

impl Quorum {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            #[cfg(feature = "planted")]
            bug: None,
            past: Vec::new(),
            nodes: Keep::default(),
            bodies: Keep::default(),
            steps: RwLock::default(),
            seen: Default::default(),
        }
    }

    #[cfg(feature = "planted")]
    pub(crate) fn with_bug(self, bug: klamm_wire::planted::Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    /// Begins where 0 leads epoch 1 and 1 leads epoch 2, both by the vote of 2, and what each has written nobody else has.
    #[cfg(feature = "planted")]
    pub(crate) fn after_two_leaders(self) -> Self {
        let ask = |asks, asked| Action::Deliver { asks, asked, lost: false };
        let stand = |at| [Action::At { at, input: Input::Deadline }, Action::Permit { asks: at, asked: 2 }];
        let mut past = stand(0).to_vec();
        past.extend([ask(0, 2), ask(0, 2), ask(0, 1)]);
        past.extend(stand(1));
        past.extend([ask(1, 2), ask(1, 2)]);
        Self { past, ..self }
    }

    /// What there is of voters, of messages, and of steps that one of them takes.
    pub(crate) fn parts(&self) -> [usize; 3] {
        [self.nodes.len(), self.bodies.len(), self.steps.read().unwrap().len()]
    }

    /// How many steps met with each of [`SIGHTS`].
    pub(crate) fn seen(&self, sight: usize) -> usize {
        self.seen[sight].load(Ordering::Relaxed)
    }

    fn see(&self, sight: usize) {
        self.seen[sight].fetch_add(1, Ordering::Relaxed);
    }

    fn outcome(&self, node: Ref<Node>, input: Input, body: Option<Ref<Body>>) -> &'static Outcome {
        let key = (address(node), input);
        if let Some(outcome) = self.steps.read().unwrap().get(&key) {
            return outcome;
        }
        #[cfg(feature = "planted")]
        klamm_wire::planted::plant(self.bug);
        let done = node.value.clone().step(self.bounds.driver, input, body.map(|body| &body.value));
        let outcome = Outcome {
            node: self.nodes.keep(done.node),
            given_up: done.given_up,
            asks: done.asks.map(|body| body.map(|body| self.bodies.keep(body))),
            answer: done.answer.map(|answer| self.bodies.keep(answer)),
            events: done.events,
        };
        self.steps.write().unwrap().entry(key).or_insert_with(|| Box::leak(Box::new(outcome)))
    }

    fn step(&self, state: &mut State, at: usize, input: Input, body: Option<Ref<Body>>) -> Option<Ref<Body>> {
        let outcome = self.outcome(state.nodes[at], input, body);
        let waited = state.nodes[at].value.unflushed;
        state.nodes[at] = outcome.node;
        for to in (0..3).filter(|to| *to != at) {
            let channel = &mut state.channels[at][to];
            if outcome.given_up[to] {
                *channel = match *channel {
                    // It has never left.
                    Channel::Request { body, waited_for: true } if waited && !body.value.asks_vote() => {
                        Channel::Nothing
                    }
                    Channel::Request { body, .. } => Channel::Request { body, waited_for: false },
                    // An answer that nobody waits for changes nothing.
                    _ => Channel::Nothing,
                };
            }
            if let Some(body) = outcome.asks[to] {
                *channel = Channel::Request { body, waited_for: true };
            }
        }
        for event in &outcome.events {
            self.note(state, at, *event);
        }
        if !outcome.node.value.unflushed {
            for channels in &mut state.channels {
                if let Channel::Answer { held, .. } = &mut channels[at] {
                    *held = false;
                }
            }
        }
        outcome.answer
    }

    fn note(&self, state: &mut State, at: usize, event: Event) {
        match event {
            Event::Elected { epoch } => {
                if *state.leaders[epoch as usize].get_or_insert(at as i8) != at as i8 {
                    state.fall(0);
                }
                if !state.log(at).entries.starts_with(&state.committed(epoch)) {
                    state.fall(2);
                }
            }
            Event::Committed { offset } => {
                let (known, now) = (state.committed(i32::MAX), state.log(at).up_to(offset));
                let common = known.len().min(now.len());
                if known[..common] != now[..common] || now.len() < offset as usize {
                    state.fall(1);
                    return;
                }
                let epoch = state.nodes[at].value.voter.epoch();
                for (known, now) in state.committed.iter_mut().zip(now) {
                    known.get_or_insert((*now, epoch));
                }
                let lacks = |node: &Ref<Node>| {
                    node.value.voter.leading().is_some_and(|leading| leading > epoch)
                        && !node.value.log.entries.starts_with(now)
                };
                if state.nodes.iter().any(lacks) {
                    state.fall(2);
                }
            }
            Event::Truncated => self.see(1),
            Event::VotedTwice => state.fall(3),
            Event::Broken => state.fall(4),
        }
    }

    fn deliver(&self, state: &mut State, asks: usize, asked: usize, lost: bool) {
        let (asker, answerer) = (asks as i32, asked as i32);
        match std::mem::replace(&mut state.channels[asks][asked], Channel::Nothing) {
            Channel::Nothing => {}
            Channel::Request { body, waited_for } => {
                let input = Input::Message { from: asker, body: address(body) };
                let Some(answer) = self.step(state, asked, input, Some(body)).filter(|_| waited_for) else {
                    return;
                };
                match vote_of(&body.value, &answer.value) {
                    Some((true, true)) => self.see(4),
                    Some((false, true)) => self.see(5),
                    _ => {}
                }
                if tells(&body.value) && answer.value.is_ok() {
                    // Who is told may forget, so the leader tells again and again; that is all there is to the answer.
                    state.channels[asks][asked] = Channel::Request { body, waited_for };
                } else if lost {
                    self.step(state, asks, Input::Silence { from: answerer }, None);
                } else if vote_of(&body.value, &answer.value) == Some((false, false)) {
                    let late = state.nodes[asked].value.unflushed;
                    let held = late && self.bounds.driver.early != Some(Early::Answer);
                    state.channels[asks][asked] = Channel::Answer { body: answer, held };
                } else {
                    let input = Input::Message { from: answerer, body: address(answer) };
                    self.step(state, asks, input, Some(answer));
                }
            }
            Channel::Answer { .. } if lost => {
                self.step(state, asks, Input::Silence { from: answerer }, None);
            }
            Channel::Answer { body, .. } => {
                let input = Input::Message { from: answerer, body: address(body) };
                self.step(state, asks, input, Some(body));
            }
        }
    }

    /// Answers that have not left go with their process.
    fn lose_answers(&self, state: &mut State, at: usize) {
        for asks in 0..3 {
            if let Channel::Answer { held: true, .. } = state.channels[asks][at] {
                state.channels[asks][at] = Channel::Nothing;
                self.step(state, asks, Input::Silence { from: at as i32 }, None);
            }
        }
    }

    /// Forgets what can decide nothing any more.
    fn tidy(&self, state: &mut State) {
        let epochs = state.nodes.map(|node| node.value.voter.epoch());
        for channels in &mut state.channels {
            for (channel, epoch) in channels.iter_mut().zip(epochs) {
                if let Channel::Request { body, waited_for: false } = *channel
                    && is_moot(&body.value, epoch)
                {
                    *channel = Channel::Nothing;
                }
            }
        }
        let least = epochs.into_iter().min().unwrap_or_default();
        for leader in &mut state.leaders[..least as usize] {
            *leader = None;
        }
    }
}

fn tells(request: &Body) -> bool {
    matches!(request, Body::Request(Request::BeginEpoch { .. } | Request::EndEpoch { .. }))
}

/// Of an answer to a Vote without an error: whether that was a pre-vote, and whether it is refused.
fn vote_of(request: &Body, answer: &Body) -> Option<(bool, bool)> {
    let Body::Request(Request::Vote(vote)) = request else { return None };
    let Body::Response(Response::Vote { head, granted }) = answer else { return None };
    (head.error == ErrorCode::NONE).then_some((vote.pre_vote, !granted))
}

/// Whether a request whose answer nobody waits for does nothing to a voter of this epoch, nor of a later one.
fn is_moot(body: &Body, epoch: i32) -> bool {
    match body {
        Body::Request(Request::Vote(vote)) => vote.epoch < epoch || (vote.pre_vote && vote.epoch == epoch),
        Body::Request(Request::BeginEpoch { epoch: of, .. } | Request::EndEpoch { epoch: of, .. }) => {
            *of < epoch
        }
        Body::Request(Request::Fetch(fetch)) => fetch.epoch < epoch,
        _ => false,
    }
}

impl Model for Quorum {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let survives = self.bounds.crashes == 0;
        let fresh =
            |id| self.nodes.keep(Node { survives, ..Node::start(id, SmallLog::default(), None, None) });
        let first = State {
            nodes: [0, 1, 2].map(fresh),
            channels: [[Channel::Nothing; 3]; 3],
            leaders: [None; EPOCHS + 1],
            committed: [None; LOG],
            appended: 0,
            crashes: 0,
            fell: None,
        };
        let state = self.past.iter().try_fold(first, |state, action| self.next_state(&state, *action));
        state.into_iter().collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fell.is_some() {
            return;
        }
        for asks in 0..3 {
            for asked in 0..3 {
                if !state.may_go(self.bounds.driver, asks, asked) {
                    continue;
                }
                let (waited_for, pre_vote) = match state.channels[asks][asked] {
                    Channel::Nothing => continue,
                    Channel::Request { body, waited_for } => {
                        let pre_vote =
                            matches!(&body.value, Body::Request(Request::Vote(vote)) if vote.pre_vote);
                        (waited_for, waited_for && pre_vote)
                    }
                    Channel::Answer { .. } => (true, false),
                };
                actions.push(Action::Deliver { asks, asked, lost: false });
                if waited_for {
                    actions.push(Action::Deliver { asks, asked, lost: true });
                }
                if pre_vote {
                    actions.push(Action::Permit { asks, asked });
                }
            }
        }
        for (at, node) in state.nodes.iter().enumerate() {
            let mut may = |input| actions.push(Action::At { at, input });
            let node = &node.value;
            if node.voter.epoch() < self.bounds.epochs {
                may(Input::Deadline);
            }
            if node.syncing.is_some() || node.unflushed {
                may(Input::Synced);
            }
            if state.appended < self.bounds.entries && node.voter.active_epoch().is_some() {
                may(Input::Append { content: state.appended + 1 });
            }
            if state.crashes < self.bounds.crashes {
                may(Input::Crash { power_off: true });
                may(Input::Crash { power_off: false });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        let state = &mut next;
        match action {
            Action::Deliver { asks, asked, lost } => self.deliver(state, asks, asked, lost),
            Action::Permit { asks, asked } => {
                state.channels[asks][asked] = Channel::Nothing;
                self.step(state, asks, Input::Permit { from: asked as i32 }, None);
            }
            Action::At { at, input } => {
                match input {
                    Input::Append { .. } => state.appended += 1,
                    Input::Crash { .. } => state.crashes += 1,
                    _ => {}
                }
                if matches!(input, Input::Crash { .. }) {
                    self.lose_answers(state, at);
                }
                self.step(state, at, input, None);
                if matches!(input, Input::Crash { .. }) && state.crashes == self.bounds.crashes {
                    for at in 0..3 {
                        self.step(state, at, Input::Survive, None);
                    }
                }
            }
        }
        self.tidy(state);
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.nodes.iter().all(|node| node.value.voter.epoch() <= self.bounds.epochs)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES[0], |_, state: &State| state.fell != Some(PROMISES[0])),
            Property::always(PROMISES[1], |_, state: &State| state.fell != Some(PROMISES[1])),
            Property::always(PROMISES[2], |_, state: &State| state.fell != Some(PROMISES[2])),
            Property::always(PROMISES[3], |_, state: &State| state.fell != Some(PROMISES[3])),
            Property::always(PROMISES[4], |_, state: &State| state.fell != Some(PROMISES[4])),
            Property::always(PROMISES[5], |_, state: &State| {
                let pairs = [(0, 1), (0, 2), (1, 2)];
                pairs.into_iter().all(|(one, two)| state.log(one).matches(state.log(two)))
            }),
            Property::always(PROMISES[6], |_, state: &State| {
                let committed = state.committed(i32::MAX);
                (0..3).filter(|at| state.log(*at).disk.starts_with(&committed)).count() >= 2
            }),
            Property::sometimes(SIGHTS[0], |_, state: &State| {
                state.committed.iter().flatten().any(|(entry, _)| entry.content > 0)
            }),
            Property::sometimes(SIGHTS[1], |model: &Self, _| model.seen(1) > 0),
            Property::sometimes(SIGHTS[2], |_, state: &State| {
                state.nodes.iter().filter(|node| node.value.voter.leading().is_some()).count() >= 2
            }),
            Property::sometimes(SIGHTS[3], |_, state: &State| {
                state.nodes.iter().any(|node| {
                    let Some(epoch) = node.value.voter.active_epoch() else { return false };
                    let committed = node.value.log.up_to(node.value.voter.high_watermark());
                    committed.iter().any(|entry| entry.content > 0 && entry.epoch < epoch)
                })
            }),
            Property::sometimes(SIGHTS[4], |model: &Self, _| model.seen(4) > 0),
            Property::sometimes(SIGHTS[5], |model: &Self, _| model.seen(5) > 0),
        ]
    }
}
