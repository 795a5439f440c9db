//! What all clones of a client, and its refresh task, hold together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use klamm_core::Tick;
use klamm_core::metadata::{ClusterMetadata, Effect, Event, Refresh, TopicMetadata};
use klamm_core::reconnect::{Candidate, Choice, Peer};
use klamm_wire::negotiation::VersionTable;
use klamm_wire::{Endpoint, Request, codec};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::Instrument;

use super::{Encode, Lane, Target, throttle};
use crate::config::ClientSettings;
use crate::connection::{Connection, Dialling};
use crate::error::RequestError;
use crate::rt::Rt;

pub(super) struct Shared {
    pub(super) settings: ClientSettings,
    bootstrap: Vec<Endpoint>,
    dialling: Arc<Dialling>,
    connections: Mutex<BTreeMap<(Peer, Lane), Arc<Connection>>>,
    refresh: Mutex<Refresh>,
    published: RwLock<Arc<Published>>,
    /// Last failure at each address since the last answer with metadata.
    causes: Mutex<BTreeMap<String, RequestError>>,
    changed: Notify,
    /// Wakes the refresh task.
    pub(super) doubted: Notify,
    closed: AtomicBool,
}

/// A snapshot with a mark for each topic that was used since the snapshot was made.
struct Published {
    cluster: Arc<ClusterMetadata>,
    used: BTreeMap<Arc<str>, AtomicBool>,
}

impl Published {
    fn new(cluster: Arc<ClusterMetadata>) -> Arc<Self> {
        let used = cluster.topics.keys().map(|name| (name.clone(), AtomicBool::new(false))).collect();
        Arc::new(Self { cluster, used })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("bootstrap", &self.settings.bootstrap_servers).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        settings: ClientSettings,
        bootstrap: Vec<Endpoint>,
        dialling: Dialling,
        refresh: Refresh,
    ) -> Self {
        Self {
            settings,
            bootstrap,
            dialling: Arc::new(dialling),
            connections: Mutex::default(),
            published: RwLock::new(Published::new(refresh.snapshot().clone())),
            refresh: Mutex::new(refresh),
            causes: Mutex::default(),
            changed: Notify::new(),
            doubted: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn rt(&self) -> &Rt {
        &self.dialling.rt
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.take_connections().iter().for_each(|connection| connection.close(&RequestError::Closed));
        self.changed.notify_waiters();
    }

    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn snapshot(&self) -> Arc<ClusterMetadata> {
        self.published.read().cluster.clone()
    }

    pub(super) fn cached_topic(&self, name: &str) -> Option<Arc<TopicMetadata>> {
        let published = self.published.read();
        let topic = published.cluster.topics.get(name)?;
        if !topic.error.is_ok() || topic.partitions.is_empty() {
            return None;
        }
        // Read first: a mark that is set already shall not move its cache line around.
        if let Some(used) = published.used.get(name).filter(|used| !used.load(Ordering::Relaxed)) {
            used.store(true, Ordering::Relaxed);
        }
        Some(topic.clone())
    }

    /// Address and last failure of every peer that was tried since the last answer.
    pub(super) fn causes(&self) -> Vec<(String, RequestError)> {
        self.causes.lock().iter().map(|(address, cause)| (address.clone(), cause.clone())).collect()
    }

    pub(super) fn forget_causes(&self) {
        self.causes.lock().clear();
    }

    /// Applies an event and publishes; whatever else there is to do is left to the refresh task.
    pub(super) fn step(&self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut refresh = self.refresh.lock();
        refresh.step(self.rt().now(), event, &mut effects);
        self.publish(&mut effects);
        drop(refresh);
        self.doubted.notify_one();
        effects
    }

    /// Lets time pass; returns what the refresh task has to do, and when to come again.
    pub(super) fn on_deadline(&self) -> (Vec<Effect>, Option<Tick>) {
        let mut effects = Vec::new();
        let now = self.rt().now();
        let published = self.published.read().clone();
        let used = published.used.iter().filter(|(_, used)| used.swap(false, Ordering::Relaxed));
        let mut refresh = self.refresh.lock();
        for (name, _) in used {
            refresh.step(now, Event::Used(name), &mut effects);
        }
        refresh.on_deadline(now, &mut effects);
        self.publish(&mut effects);
        (effects, refresh.deadline())
    }

    /// Carries out `Publish`; runs under the machine's lock, so that snapshots appear in order.
    fn publish(&self, effects: &mut Vec<Effect>) {
        effects.retain(|effect| match effect {
            Effect::Publish(cluster) => {
                *self.published.write() = Published::new(cluster.clone());
                self.changed.notify_waiters();
                false
            }
            _ => true,
        });
    }

    /// The connection to a broker; made, but not dialled, if there is none.
    pub(super) fn connection(&self, broker: i32, lane: Lane) -> Result<Arc<Connection>, RequestError> {
        self.peer(Peer::Broker(broker), lane)
    }

    /// What a broker spoke on either connection when it was last connected.
    pub(super) fn versions(&self, broker: i32) -> Option<Arc<VersionTable>> {
        let connections = self.connections.lock();
        let on = |lane| connections.get(&(Peer::Broker(broker), lane))?.versions();
        on(Lane::Main).or_else(|| on(Lane::Fetch))
    }

    /// The connection to a broker, if it was ever asked for.
    pub(super) fn known(&self, broker: i32, lane: Lane) -> Option<Arc<Connection>> {
        self.connections.lock().get(&(Peer::Broker(broker), lane)).cloned()
    }

    fn peer(&self, peer: Peer, lane: Lane) -> Result<Arc<Connection>, RequestError> {
        let endpoint = self.endpoint(peer);
        let mut connections = self.connections.lock();
        if self.is_closed() {
            return Err(RequestError::Closed);
        }
        if let Some(connection) = connections.get(&(peer, lane)) {
            // A broker that moved is dialled at its new address.
            if endpoint.as_ref().is_none_or(|endpoint| endpoint == connection.endpoint()) {
                return Ok(connection.clone());
            }
        }
        let Some(endpoint) = endpoint else {
            let id = if let Peer::Broker(id) = peer { id } else { -1 };
            drop(connections);
            self.step(Event::Doubted);
            return Err(RequestError::UnknownBroker { id });
        };
        let connection = Connection::new(self.dialling.clone(), peer, endpoint);
        let old = connections.insert((peer, lane), connection.clone());
        drop(connections);
        if let Some(old) = old {
            old.discard();
        }
        Ok(connection)
    }

    fn endpoint(&self, peer: Peer) -> Option<Endpoint> {
        let client_id = self.settings.client_id.clone();
        match peer {
            Peer::Bootstrap(place) => self.bootstrap.get(place).cloned().map(|e| Endpoint { client_id, ..e }),
            Peer::Broker(id) => {
                let cluster = self.snapshot();
                let broker = cluster.brokers.get(&id)?;
                Some(Endpoint { host: broker.host.clone(), port: broker.port, client_id })
            }
        }
    }

    /// Known brokers, or the bootstrap list before there are any, but for those in `slow`.
    fn candidates(&self, lane: Lane, slow: &BTreeSet<Peer>) -> Vec<Candidate> {
        let cluster = self.snapshot();
        let peers: Vec<Peer> = match cluster.brokers.is_empty() {
            true => (0..self.bootstrap.len()).map(Peer::Bootstrap).collect(),
            false => cluster.brokers.keys().copied().map(Peer::Broker).collect(),
        };
        let connections = self.connections.lock();
        let in_flight = |peer| connections.get(&(peer, lane)).and_then(|c| c.in_flight());
        let muted = |peer: &Peer| connections.get(&(*peer, lane)).is_some_and(|c| c.muted_until().is_some());
        let mut fit: Vec<Peer> = peers.into_iter().filter(|peer| !slow.contains(peer)).collect();
        // One that has asked for a pause is asked only if all have.
        if !fit.iter().all(muted) {
            fit.retain(|peer| !muted(peer));
        }
        fit.into_iter().map(|peer| Candidate { peer, in_flight: in_flight(peer) }).collect()
    }

    /// Connects to a peer and keeps the cause if that fails.
    pub(super) async fn connect(
        &self,
        peer: Peer,
        lane: Lane,
        deadline: Tick,
    ) -> Result<Connected, RequestError> {
        let connection = self.peer(peer, lane)?;
        match connection.connected(deadline).await {
            Ok(versions) => Ok(Connected { connection, versions }),
            Err(error) => {
                self.keep_cause(&connection, error.clone());
                Err(error)
            }
        }
    }

    pub(super) fn keep_cause(&self, connection: &Connection, error: RequestError) {
        self.causes.lock().insert(connection.endpoint().to_string(), error);
    }

    /// Connects to any broker, trying one after the other until `deadline`.
    ///
    /// A peer that takes its time is left dialling while the next one is tried. With `give_up`, this ends as
    /// soon as every known broker has failed.
    pub(super) async fn connect_any(
        &self,
        lane: Lane,
        deadline: Tick,
        give_up: bool,
    ) -> Result<Connected, RequestError> {
        let rt = self.rt();
        let started = rt.now();
        let patience = self.settings.connection_setup_timeout / 10;
        let mut slow = BTreeSet::new();
        loop {
            let changed = self.changed();
            let candidates = self.candidates(lane, &slow);
            let choice = self.dialling.reconnect.lock().choose(rt.now(), &candidates);
            let nobody = match choice {
                Choice::Peer(peer) => {
                    let until = deadline.min(rt.now().saturating_add(patience));
                    match self.connect(peer, lane, until).await {
                        Err(RequestError::Closed) => return Err(RequestError::Closed),
                        Err(RequestError::TimedOut { .. }) => drop(slow.insert(peer)),
                        Err(_) => {}
                        connected => return connected,
                    }
                    false
                }
                _ if !slow.is_empty() => {
                    slow.clear();
                    false
                }
                Choice::AllFailed { until } => {
                    let known = !self.snapshot().brokers.is_empty();
                    if known {
                        self.step(Event::Doubted);
                    }
                    if !(known && give_up) {
                        rt.before(until.min(deadline), changed).await;
                    }
                    known && give_up
                }
                Choice::Nobody => true,
            };
            if nobody || rt.now() >= deadline {
                let limit = rt.now().saturating_sub(started);
                return Err(RequestError::NoBroker { limit, causes: self.causes() });
            }
        }
    }

    /// Sends one request and decodes its answer.
    pub(super) async fn call<R: Request>(
        &self,
        to: Target,
        lane: Lane,
        encode: &Encode<'_>,
        deadline: Tick,
    ) -> Result<R::Response, RequestError> {
        let controller = || self.snapshot().controller.filter(|id| self.snapshot().brokers.contains_key(id));
        let broker = match to {
            Target::Broker(id) => Some(id),
            Target::Any => None,
            Target::Controller => controller(),
        };
        let connected = match broker {
            Some(id) => self.connect(Peer::Broker(id), lane, deadline).await?,
            None => self.connect_any(lane, deadline, false).await?,
        };
        let answer = connected.call::<R>(encode, deadline).await;
        if let Err(error) = &answer {
            self.keep_cause(&connected.connection, error.clone());
        }
        answer
    }

    fn take_connections(&self) -> Vec<Arc<Connection>> {
        std::mem::take(&mut *self.connections.lock()).into_values().collect()
    }

    /// Carries out `Rebootstrap`.
    pub(super) fn rebootstrap(&self) {
        tracing::info!(bootstrap = ?self.settings.bootstrap_servers, "starting again from the bootstrap list");
        self.take_connections().iter().for_each(|connection| connection.discard());
        self.dialling.reconnect.lock().forget();
    }

    /// Closes connections that were not used since `before`, and those to the bootstrap list once brokers are
    /// known.
    pub(super) fn sweep(&self, before: Option<Tick>) {
        let (cluster, now) = (self.snapshot(), self.rt().now());
        let known = !cluster.brokers.is_empty();
        self.connections.lock().retain(|(peer, _), connection| {
            let (spare, gone) = match peer {
                Peer::Bootstrap(_) => (known, true),
                Peer::Broker(id) => (false, !cluster.brokers.contains_key(id)),
            };
            let before = if spare { Some(now) } else { before };
            let closed = before.is_some_and(|before| connection.close_if_idle(before));
            // What a broker speaks stays known: the next request is encoded at once and only waits for the dialling.
            !(closed && gone)
        });
    }
}

/// An open connection and what is spoken on it.
pub(super) struct Connected {
    pub(super) connection: Arc<Connection>,
    versions: Arc<VersionTable>,
}

impl Connected {
    /// Sends one request, after the pause that the peer has asked for, and decodes its answer.
    pub(super) async fn call<R: Request>(
        &self,
        encode: &Encode<'_>,
        deadline: Tick,
    ) -> Result<R::Response, RequestError> {
        self.connection.unmuted(deadline).await?;
        let version = self.versions.pick(R::KEY)?;
        let frame = encode(version)?;
        let span = tracing::debug_span!(
            "kafka.request",
            peer = %self.connection.endpoint(),
            api.key = R::KEY,
            api.version = version
        );
        let answer = self.connection.send(frame, deadline).instrument(span).await?;
        self.connection.mute(throttle::pause(&answer));
        Ok(codec::decode_response::<R>(answer)?)
    }
}
