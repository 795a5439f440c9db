//! One connection to one peer: dialled when needed, dialled again after it broke.
//!
//! In: frames. Out: answers. When to dial is decided by [`Reconnect`], never here.
//!
//! ```text
//!   no link ── frame, or somebody waits ──▶ dialling ──▶ asking for versions ──▶ link
//!      ▲                                       │                 │                 │
//!      └───────── frames and waiters fail ◀────┴─────────────────┘                 │
//!      └──────────────────────────── broke, late answer, idle ◀────────────────────┘
//! ```
//!
//! Invariant: frames reach the peer in the order of [`Connection::send`]. A frame that was handed to a link is
//! never handed to another one.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use klamm_core::Tick;
use klamm_core::reconnect::{Peer, Reconnect};
use klamm_wire::messages::{ApiKey, ApiVersionsRequest};
use klamm_wire::negotiation::{API_VERSIONS_FIRST, ApiVersionsAnswer, VersionTable, read_api_versions};
use klamm_wire::seam::BoxFuture;
use klamm_wire::{BoxConnector, Endpoint, Frame, Link, LinkError, StrBytes, codec};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tower::Service;

use crate::error::RequestError;
use crate::rt::{Rt, Task};

/// What all connections of a client share.
pub(crate) struct Dialling {
    pub(crate) rt: Rt,
    pub(crate) connector: BoxConnector,
    pub(crate) reconnect: Mutex<Reconnect>,
    /// For all addresses of a name together.
    pub(crate) setup_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_queued: usize,
}

type Answer = BoxFuture<Result<Frame, LinkError>>;
type Waiter = oneshot::Sender<Result<Arc<VersionTable>, RequestError>>;

/// A connection that may or may not be open.
pub(crate) struct Connection {
    dialling: Arc<Dialling>,
    peer: Peer,
    endpoint: Endpoint,
    state: Mutex<State>,
    /// Requests given to a link that somebody still waits for; only grows under the lock of `state`.
    in_flight: Arc<AtomicUsize>,
    /// The peer has asked for silence until then.
    muted: Mutex<Tick>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// Counts links, so that a late failure of an old one does not close the present one.
    generation: u64,
    versions: Option<Arc<VersionTable>>,
    queue: VecDeque<Queued>,
    waiters: Vec<Waiter>,
    /// Dials and empties the queue; present as long as either has to be done.
    worker: Option<Task>,
    /// Wakes the worker when the link it waits for is gone.
    worker_waker: Option<Waker>,
    used_at: Tick,
    /// Set when the connection was ended for good: what everybody is told.
    closed: Option<RequestError>,
}

struct Queued {
    frame: Frame,
    accepted: oneshot::Sender<Result<Sent, RequestError>>,
}

/// A frame that a link has taken.
struct Sent {
    answer: Answer,
    /// Of the link.
    generation: u64,
    _counted: InFlight,
}

impl State {
    /// Hands a frame to the link if it can take one now.
    fn try_call(&mut self, frame: Frame, in_flight: &Arc<AtomicUsize>) -> Result<Sent, Frame> {
        if !self.queue.is_empty() || !self.is_open() {
            return Err(frame);
        }
        let Some(link) = &mut self.link else { return Err(frame) };
        match link.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {
                let (answer, generation) = (link.call(frame), self.generation);
                Ok(Sent { answer, generation, _counted: InFlight::count(in_flight) })
            }
            _ => Err(frame),
        }
    }

    fn tell_waiters(&mut self) {
        let Some(versions) = &self.versions else { return };
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(Ok(versions.clone()));
        }
    }

    /// Looks whether the link has broken in the meantime.
    fn is_open(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        // A link keeps one waker only: the worker's must not be lost by looking.
        let waker = self.worker_waker.as_ref().unwrap_or(Waker::noop());
        !matches!(link.poll_ready(&mut Context::from_waker(waker)), Poll::Ready(Err(_)))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} at {})", self.peer, self.endpoint)
    }
}

impl Connection {
    pub(crate) fn new(dialling: Arc<Dialling>, peer: Peer, endpoint: Endpoint) -> Arc<Self> {
        let state = State { used_at: dialling.rt.now(), ..State::default() };
        let state = Mutex::new(state);
        Arc::new(Self { dialling, peer, endpoint, state, in_flight: Arc::default(), muted: Mutex::default() })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Id of the broker, if it is known.
    pub(crate) fn broker(&self) -> Option<i32> {
        match self.peer {
            Peer::Bootstrap(_) => None,
            Peer::Broker(id) => Some(id),
        }
    }

    /// Address, with the broker id if it is known: for errors.
    pub(crate) fn label(&self) -> String {
        match self.peer {
            Peer::Bootstrap(_) => self.endpoint.to_string(),
            Peer::Broker(id) => format!("{} (broker {id})", self.endpoint),
        }
    }

    /// Requests in flight, or `None` without an open link.
    pub(crate) fn in_flight(&self) -> Option<usize> {
        let mut state = self.state.lock();
        state.is_open().then(|| self.in_flight.load(Ordering::Relaxed))
    }

    /// What the peer spoke when it was last connected.
    pub(crate) fn versions(&self) -> Option<Arc<VersionTable>> {
        self.state.lock().versions.clone()
    }

    /// The peer asks for a pause (`throttle_time_ms`, KIP-219).
    pub(crate) fn mute(&self, pause: Duration) {
        if !pause.is_zero() {
            let until = self.dialling.rt.now().saturating_add(pause);
            let mut muted = self.muted.lock();
            *muted = until.max(*muted);
        }
    }

    /// Until when the peer has asked for silence, if that is not over. [`Self::send`] does not mind.
    pub(crate) fn muted_until(&self) -> Option<Tick> {
        let until = *self.muted.lock();
        (until > Tick::ZERO && until > self.dialling.rt.now()).then_some(until)
    }

    /// Waits for the end of the pause, at most until `deadline`.
    pub(crate) async fn unmuted(&self, deadline: Tick) -> Result<(), RequestError> {
        while let Some(until) = self.muted_until() {
            let rt = &self.dialling.rt;
            let started = rt.now();
            if until > deadline {
                rt.sleep_until(deadline).await;
                let limit = deadline.saturating_sub(started);
                return Err(RequestError::TimedOut { broker: self.label(), limit, sent: false });
            }
            rt.sleep_until(until).await;
        }
        Ok(())
    }

    /// Waits for an open link, dialling if need be.
    pub(crate) async fn connected(
        self: &Arc<Self>,
        deadline: Tick,
    ) -> Result<Arc<VersionTable>, RequestError> {
        let waiting = {
            let mut state = self.state.lock();
            if let Some(error) = &state.closed {
                return Err(error.clone());
            }
            match &state.versions {
                Some(versions) if state.link.is_some() => {
                    let versions = versions.clone();
                    if state.is_open() {
                        return Ok(versions);
                    }
                }
                _ => {}
            }
            let (tell, waiting) = oneshot::channel();
            state.waiters.push(tell);
            self.start_worker(&mut state);
            waiting
        };
        let started = self.dialling.rt.now();
        match self.dialling.rt.before(deadline, waiting).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(RequestError::Closed),
            None => {
                let limit = deadline.saturating_sub(started);
                Err(RequestError::TimedOut { broker: self.label(), limit, sent: false })
            }
        }
    }

    /// Sends a frame and waits for its answer until `deadline`.
    ///
    /// It has its place in the order of frames when this returns, not when the future is polled.
    pub(crate) fn send(
        self: &Arc<Self>,
        frame: Frame,
        deadline: Tick,
    ) -> impl Future<Output = Result<Frame, RequestError>> + Send + use<> {
        let started = self.dialling.rt.now();
        let accepted = self.accept(frame, started);
        let connection = self.clone();
        async move {
            let rt = &connection.dialling.rt;
            let limit = deadline.saturating_sub(started);
            let late = |sent| RequestError::TimedOut { broker: connection.label(), limit, sent };
            let Sent { answer, generation, _counted } = match accepted {
                Accepted::Sent(sent) => sent,
                Accepted::Queued(queued) => match rt.before(deadline, queued).await {
                    Some(Ok(accepted)) => accepted?,
                    Some(Err(_)) => return Err(RequestError::Closed),
                    None => return Err(late(false)),
                },
                Accepted::Refused(error) => return Err(error),
            };
            match rt.before(deadline, answer).await {
                Some(Ok(frame)) => Ok(frame),
                Some(Err(source)) => {
                    connection.broke(generation);
                    Err(RequestError::Lost { broker: connection.label(), source })
                }
                None => {
                    // Answers come in order, so everything behind this one is late too.
                    connection.broke(generation);
                    Err(late(true))
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, frame: Frame, now: Tick) -> Accepted {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Accepted::Refused(error.clone());
        }
        state.used_at = now;
        let frame = match state.try_call(frame, &self.in_flight) {
            Ok(sent) => return Accepted::Sent(sent),
            Err(frame) => frame,
        };
        if state.queue.len() >= self.dialling.max_queued {
            let limit = self.dialling.max_queued;
            return Accepted::Refused(RequestError::QueueFull { broker: self.label(), limit });
        }
        let (accepted, queued) = oneshot::channel();
        state.queue.push_back(Queued { frame, accepted });
        self.start_worker(&mut state);
        Accepted::Queued(queued)
    }

    /// Closes the link that failed, unless it has been replaced already.
    fn broke(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation != generation || state.link.is_none() {
            return;
        }
        let link = state.link.take();
        let waker = state.worker_waker.take();
        drop(state);
        self.dialling.reconnect.lock().lost(self.dialling.rt.now(), self.peer);
        drop(link);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Closes the link if nothing was sent since `before`; `true` if there is nothing left to close.
    pub(crate) fn close_if_idle(&self, before: Tick) -> bool {
        let mut state = self.state.lock();
        let idle = state.used_at < before
            && self.in_flight.load(Ordering::Relaxed) == 0
            && state.queue.is_empty()
            && state.waiters.is_empty()
            && state.worker.is_none();
        let link = if idle { state.link.take() } else { None };
        drop(state);
        drop(link);
        idle
    }

    /// Ends the connection for good: it was replaced by another one.
    pub(crate) fn discard(&self) {
        let source = LinkError::closed();
        self.close(&RequestError::Unreachable { broker: self.label(), source });
    }

    /// Ends the connection for good; everybody who waits is told `error`.
    pub(crate) fn close(&self, error: &RequestError) {
        let mut state = self.state.lock();
        state.closed = Some(error.clone());
        let ended = (state.link.take(), state.worker.take());
        let waiting = (std::mem::take(&mut state.queue), std::mem::take(&mut state.waiters));
        drop(state);
        drop(ended);
        self.refuse(waiting, error);
    }

    fn refuse(&self, (queue, waiters): (VecDeque<Queued>, Vec<Waiter>), error: &RequestError) {
        for queued in queue {
            let _ = queued.accepted.send(Err(error.clone()));
        }
        for waiter in waiters {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    fn start_worker(self: &Arc<Self>, state: &mut State) {
        if state.worker.is_none() {
            state.worker = Some(self.dialling.rt.spawn(self.clone().work()));
        }
    }

    /// Dials while there is no link, then empties the queue; ends when nothing is left to do.
    async fn work(self: Arc<Self>) {
        loop {
            if self.needs_dial() {
                match self.establish().await {
                    Ok((link, versions)) => self.established(link, versions),
                    Err(error) => {
                        tracing::debug!(peer = %self.label(), cause = %error, "no connection");
                        self.dialling.reconnect.lock().lost(self.dialling.rt.now(), self.peer);
                        let mut state = self.state.lock();
                        state.worker = None;
                        let waiting = (std::mem::take(&mut state.queue), std::mem::take(&mut state.waiters));
                        drop(state);
                        return self.refuse(waiting, &error);
                    }
                }
            }
            if std::future::poll_fn(|cx| self.poll_queue(cx)).await {
                return;
            }
        }
    }

    /// Clears a broken link away; `true` if there is none now.
    fn needs_dial(&self) -> bool {
        let mut state = self.state.lock();
        if state.is_open() {
            return false;
        }
        let broken = state.link.take();
        drop(state);
        if broken.is_some() {
            self.dialling.reconnect.lock().lost(self.dialling.rt.now(), self.peer);
        }
        true
    }

    fn established(&self, link: Link, versions: VersionTable) {
        self.dialling.reconnect.lock().established(self.peer);
        let mut state = self.state.lock();
        let old = state.link.replace(link);
        state.generation += 1;
        state.versions = Some(Arc::new(versions));
        state.used_at = self.dialling.rt.now();
        state.tell_waiters();
        drop(state);
        drop(old);
    }

    /// Hands queued frames to the link; `true` when the worker is done, `false` when it must dial again.
    fn poll_queue(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        loop {
            state.worker_waker = None;
            state.queue.retain(|queued| !queued.accepted.is_closed());
            let Some(link) = &mut state.link else {
                return if state.queue.is_empty() && state.waiters.is_empty() {
                    state.worker = None;
                    Poll::Ready(true)
                } else {
                    Poll::Ready(false)
                };
            };
            if state.queue.is_empty() {
                state.tell_waiters();
                state.worker = None;
                return Poll::Ready(true);
            }
            match link.poll_ready(cx) {
                Poll::Pending => {
                    state.worker_waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => {
                    let link = state.link.take();
                    drop(guard);
                    drop(link);
                    self.dialling.reconnect.lock().lost(self.dialling.rt.now(), self.peer);
                    return Poll::Ready(false);
                }
                Poll::Ready(Ok(())) => {}
            }
            let Some(queued) = state.queue.pop_front() else { return Poll::Ready(false) };
            let (answer, generation) = (link.call(queued.frame), state.generation);
            let sent = Sent { answer, generation, _counted: InFlight::count(&self.in_flight) };
            let _ = queued.accepted.send(Ok(sent));
        }
    }

    async fn establish(&self) -> Result<(Link, VersionTable), RequestError> {
        let rt = &self.dialling.rt;
        let not_before = self.dialling.reconnect.lock().not_before(self.peer);
        rt.sleep_until(not_before).await;
        let limit = self.dialling.setup_timeout;
        let unreachable = |source| RequestError::Unreachable { broker: self.label(), source };
        let mut connector = self.dialling.connector.clone();
        let dial = async {
            std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(self.endpoint.clone()).await
        };
        let mut link = rt
            .before(rt.now() + limit, dial)
            .await
            .unwrap_or(Err(LinkError::TimedOut { what: "connection", limit }))
            .map_err(unreachable)?;
        let versions = self.ask_versions(&mut link).await?;
        Ok((link, versions))
    }

    async fn ask_versions(&self, link: &mut Link) -> Result<VersionTable, RequestError> {
        let rt = &self.dialling.rt;
        let limit = self.dialling.request_timeout;
        let deadline = rt.now() + limit;
        let unreachable = |source| RequestError::Unreachable { broker: self.label(), source };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("klamm"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut version = API_VERSIONS_FIRST;
        // A broker may name another version once; one that goes on doing so is no Kafka broker.
        for _ in 0..2 {
            let frame = codec::encode_request(version, &request)?;
            let talk = async {
                std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
                link.call(frame).await
            };
            let answer = rt
                .before(deadline, talk)
                .await
                .unwrap_or(Err(LinkError::TimedOut { what: "response", limit }))
                .map_err(unreachable)?;
            match read_api_versions(answer)? {
                ApiVersionsAnswer::Table(table) => return Ok(table),
                ApiVersionsAnswer::AskAgain(other) => version = other,
            }
        }
        let reason = format!("no agreement on {:?}", ApiKey::ApiVersions);
        Err(unreachable(LinkError::Malformed { reason }))
    }
}

enum Accepted {
    Sent(Sent),
    Queued(oneshot::Receiver<Result<Sent, RequestError>>),
    Refused(RequestError),
}

/// Counts a request as in flight as long as somebody waits for its answer.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn count(requests: &Arc<AtomicUsize>) -> Self {
        requests.fetch_add(1, Ordering::Relaxed);
        Self(requests.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
