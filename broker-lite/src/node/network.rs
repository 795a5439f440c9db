//! Who can be reached in this process, by id and by advertised address, and what is wrong on the way.
//!
//! In: dials, and the conditions that somebody sets. Out: conversations, and the fate of every message.
//!
//! Invariant: while nothing is set, a message costs one look at [`Network::watched`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use klamm_wire::seam::{Endpoint, Frame, Link, LinkError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower_service::Service;

use super::conditions::{Between, Conditions, Fate, Trouble};
use super::remote::Remotes;
use super::tap::{Carried, Tap};
use super::{Node, Party, conversation};
use crate::journal::{Journal, Noted, Recording};
use crate::rt::Rt;
use crate::rules::{Chosen, RuleState, Rules, named};

/// The nodes that run at the moment, and the network between them and their clients.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) rt: Rt,
    state: Mutex<State>,
    /// Nodes of other processes, where there are any.
    remotes: Option<Remotes>,
    /// What [`Watched`] holds.
    watched: AtomicU8,
    conditions: Mutex<Conditions>,
    /// Told after a condition was taken away.
    healed: Notify,
    tap: Mutex<Option<Arc<dyn Tap>>>,
    rules: Rules,
    recordings: Mutex<Vec<Arc<Recording>>>,
    /// Knows topics by their ids.
    journal: Arc<Journal>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<Party, Arc<Node>>,
    addresses: BTreeMap<(String, u16), i32>,
}

/// What a message has to be looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched(u8);

impl Watched {
    const CONDITIONS: u8 = 1;
    const TAP: u8 = 2;
    const RULES: u8 = 4;
    const RECORDINGS: u8 = 8;

    /// Nothing: it takes the short way.
    pub(crate) fn nothing(self) -> bool {
        self.0 == 0
    }

    fn conditions(self) -> bool {
        self.0 & Self::CONDITIONS != 0
    }

    fn tap(self) -> bool {
        self.0 & Self::TAP != 0
    }
}

impl Network {
    /// A network without nodes, in which nothing is wrong.
    pub(crate) fn new(rt: Rt, journal: Arc<Journal>) -> Arc<Self> {
        Self::among(rt, journal, None)
    }

    /// The part of a network that is in this process.
    pub(crate) fn among(rt: Rt, journal: Arc<Journal>, remotes: Option<Remotes>) -> Arc<Self> {
        Arc::new(Self {
            rt,
            state: Mutex::default(),
            remotes,
            watched: AtomicU8::new(0),
            conditions: Mutex::default(),
            healed: Notify::new(),
            tap: Mutex::default(),
            rules: Rules::default(),
            recordings: Mutex::default(),
            journal,
        })
    }

    /// Makes a node reachable under its id.
    pub(crate) fn attach(&self, node: Arc<Node>) {
        self.state.lock().nodes.insert(node.party(), node);
    }

    /// Makes a node reachable under an address; it stays known while the node is down.
    pub(crate) fn name(&self, host: &str, port: u16, id: i32) {
        self.state.lock().addresses.insert((host.to_owned(), port), id);
    }

    /// A node that runs.
    pub(crate) fn node(&self, name: &Party) -> Option<Arc<Node>> {
        self.state.lock().nodes.get(name).filter(|node| !node.life.is_dead()).cloned()
    }

    /// Nodes of other processes, where there are any.
    pub(crate) fn remotes(&self) -> Option<&Remotes> {
        self.remotes.as_ref()
    }

    /// The nodes of other processes, if this is one of them and it is known where it runs.
    fn elsewhere(&self, party: &Party) -> Option<&Remotes> {
        let remotes = self.remotes.as_ref().filter(|remotes| remotes.knows(party))?;
        self.node(party).is_none().then_some(remotes)
    }

    /// Lets go of every node: each holds the network, too, and they would keep each other for ever.
    pub(crate) fn detach_all(&self) {
        let nodes = std::mem::take(&mut self.state.lock().nodes);
        drop(nodes);
    }

    /// Opens a conversation with a node. While the way there or back is cut, this waits.
    pub(crate) async fn dial(&self, from: &Party, to: &Party, name: &str) -> Result<Link, LinkError> {
        if let Some(remotes) = self.elsewhere(to) {
            return remotes.dial(to, name).await;
        }
        let watched = self.watched();
        if watched.conditions() {
            self.handshake(from, to).await?;
        }
        let node = self.node(to).ok_or_else(|| no_broker(Endpoint::new(to.to_string(), 0)))?;
        self.tell(watched, from, to, Carried::Dial);
        Ok(conversation::open(&node, name, from.clone()))
    }

    /// One message there and one back.
    async fn handshake(&self, from: &Party, to: &Party) -> Result<(), LinkError> {
        for (from, to) in [(from, to), (to, from)] {
            let Fate { under_way, lost } = self.fate(from, to);
            if !under_way.is_zero() {
                self.rt.sleep(under_way).await;
            }
            self.until_passable(from, to).await;
            if lost {
                return Err(LinkError::closed());
            }
        }
        Ok(())
    }

    /// Opens a conversation with the node that has this address.
    pub(crate) async fn dial_endpoint(&self, endpoint: &Endpoint) -> Result<Link, LinkError> {
        let id = self.state.lock().addresses.get(&(endpoint.host.clone(), endpoint.port)).copied();
        let id = id.ok_or_else(|| no_broker(endpoint.clone()))?;
        let name = endpoint.client_id.as_deref().unwrap_or("in-process");
        let dialled = self.dial(&Party::Client(endpoint.client_id.clone()), &Party::Node(id), name).await;
        dialled.map_err(|error| match error {
            LinkError::NoBroker { .. } => no_broker(endpoint.clone()),
            other => other,
        })
    }

    /// One request, answered within `limit`: over a conversation of its own, or, to another process, over one that lasts.
    pub(crate) async fn call(
        &self,
        from: &Party,
        to: &Party,
        name: &str,
        limit: Duration,
        frame: Frame,
    ) -> Result<Frame, LinkError> {
        if let Some(remotes) = self.elsewhere(to) {
            return remotes.call(to, name, limit, frame).await;
        }
        let answer = async {
            let mut link = self.dial(from, to, name).await?;
            std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
            link.call(frame).await
        };
        self.within(limit, answer).await
    }

    /// What comes of `work`, unless nothing comes of it within `limit`.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.rt.sleep(limit) => Err(LinkError::TimedOut { what: "response", limit }),
        }
    }
}

/// Faults.
impl Network {
    /// What messages have to be looked at for.
    #[inline]
    pub(crate) fn watched(&self) -> Watched {
        Watched(self.watched.load(Ordering::Relaxed))
    }

    fn watch(&self, what: u8, on: bool) {
        if on {
            self.watched.fetch_or(what, Ordering::SeqCst);
        } else {
            self.watched.fetch_and(!what, Ordering::SeqCst);
        }
    }

    /// From now on, until [`Self::heal`].
    pub(crate) fn trouble(&self, between: Between, trouble: Trouble) -> u64 {
        let mut conditions = self.conditions.lock();
        let id = conditions.add(between, trouble, |stream| self.rt.rng(stream));
        self.watch(Watched::CONDITIONS, true);
        id
    }

    /// Takes a condition away, and lets pass what it held.
    pub(crate) fn heal(&self, id: u64) {
        {
            let mut conditions = self.conditions.lock();
            conditions.remove(id);
            self.watch(Watched::CONDITIONS, !conditions.is_empty());
        }
        self.healed.notify_waiters();
    }

    /// What becomes of a message that is sent now.
    pub(crate) fn fate(&self, from: &Party, to: &Party) -> Fate {
        if self.watched().conditions() { self.conditions.lock().fate(from, to) } else { Fate::default() }
    }

    /// Waits while nothing passes in this direction.
    pub(crate) async fn until_passable(&self, from: &Party, to: &Party) {
        loop {
            if !self.watched().conditions() {
                return;
            }
            let healed = self.healed.notified();
            tokio::pin!(healed);
            healed.as_mut().enable();
            if !self.conditions.lock().is_cut(from, to) {
                return;
            }
            healed.await;
        }
    }

    /// Lets somebody listen in from now on, or nobody.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn set_tap(&self, tap: Option<Arc<dyn Tap>>) {
        let mut current = self.tap.lock();
        self.watch(Watched::TAP, tap.is_some());
        *current = tap;
    }

    /// Puts a rule in force, behind those that are.
    pub(crate) fn add_rule(&self, rule: Arc<RuleState>) {
        self.rules.change(|rules| rules.push(rule), |any| self.watch(Watched::RULES, any));
    }

    /// Takes a rule away.
    pub(crate) fn remove_rule(&self, rule: &Arc<RuleState>) {
        let remove = |rules: &mut Vec<Arc<RuleState>>| rules.retain(|other| !Arc::ptr_eq(other, rule));
        self.rules.change(remove, |any| self.watch(Watched::RULES, any));
    }

    /// Records requests from now on.
    pub(crate) fn add_recording(&self, recording: Arc<Recording>) {
        let mut recordings = self.recordings.lock();
        recordings.push(recording);
        self.watch(Watched::RECORDINGS, true);
    }

    /// Records them no more.
    pub(crate) fn remove_recording(&self, recording: &Arc<Recording>) {
        let mut recordings = self.recordings.lock();
        recordings.retain(|other| !Arc::ptr_eq(other, recording));
        self.watch(Watched::RECORDINGS, !recordings.is_empty());
    }

    /// Enters a request into the journals, if there are any.
    pub(super) fn note(&self, watched: Watched, node: i32, from: &Party, request: &Frame) -> Option<Noted> {
        if watched.0 & Watched::RECORDINGS == 0 {
            return None;
        }
        let recordings = self.recordings.lock().clone();
        let named = named(request, &|id| self.journal.topic_name(id));
        Some(Noted::new(&self.rt, &recordings, node, from, request, &named))
    }

    /// The rule that acts on a request, if there is one.
    pub(super) fn choose_rule(
        &self,
        watched: Watched,
        node: &Party,
        from: &Party,
        request: &Frame,
    ) -> Option<Chosen> {
        if watched.0 & Watched::RULES == 0 {
            return None;
        }
        self.rules.choose(node, from, request, |id| self.journal.topic_name(id))
    }

    /// Tells whoever listens in.
    pub(crate) fn tell(&self, watched: Watched, from: &Party, to: &Party, what: Carried<'_>) {
        if watched.tap() {
            let tap = self.tap.lock().clone();
            if let Some(tap) = tap {
                tap.carried(self.rt.now(), from, to, what);
            }
        }
    }
}

fn no_broker(endpoint: Endpoint) -> LinkError {
    LinkError::NoBroker { endpoint: Box::new(endpoint) }
}
