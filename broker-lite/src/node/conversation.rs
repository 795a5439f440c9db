//! One client's conversation with one node, whatever carries it.
//!
//! In: requests in order of arrival. Out: answers in the same order; a request that has to wait
//! (long poll, `acks=all`) holds back the answers behind it, not the processing.
//!
//! ```text
//! requests ─[lane]─▶ Node::take_in (synchronous, in order) ──▶ queue of answers ─[lane]─▶ write
//! ```
//!
//! The lanes are in use only while something is wrong with the network or somebody listens in.
//!
//! Invariant: at most `limit` requests are taken in and unanswered, and at most as many are under way in each
//! direction; and nothing more is taken in while answers of more than [`QUEUED_BYTES`] wait for a client that does not
//! read them.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc as pipe;
use klamm_wire::seam::{BoxFuture, Frame, Link, LinkError};
use tokio::sync::{Notify, mpsc, oneshot};
use tower_service::Service;

use super::lane::Lane;
use super::party::STRANGER;
use super::tap::Carried;
use super::watched::{Silenced, TakenIn};
use super::{Node, Owed, Party};
use crate::journal::Noted;

/// What becomes of a request.
pub(crate) enum Reply {
    /// Sent back.
    Frame(Frame),
    /// Nothing is sent: Produce with `acks=0`.
    Nothing,
    /// The conversation ends here, as Kafka ends it.
    Close,
    /// The connection is gone, with everything that is on its way on it.
    Break,
}

/// When.
pub(crate) enum Answer {
    /// At once.
    Now(Reply),
    /// When this is done.
    Later(BoxFuture<Reply>),
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Address or name for the log.
    pub(crate) name: Arc<str>,
    party: OnceLock<Party>,
}

impl Peer {
    /// Somebody who has not said yet who it is.
    pub(super) fn stranger(name: String) -> Self {
        Self { name: Arc::from(name), party: OnceLock::new() }
    }

    /// Takes what the first request says.
    pub(super) fn introduce(&self, client_id: Option<&str>) {
        self.party.get_or_init(|| Party::Client(client_id.map(Arc::from)));
    }

    /// What it calls itself, empty if it does not.
    pub(crate) fn client_id(&self) -> &str {
        match self.party() {
            Party::Client(Some(id)) => id,
            _ => "",
        }
    }

    /// Where it is, as Kafka writes addresses: a slash, and no port.
    pub(crate) fn host(&self) -> String {
        match self.name.parse::<SocketAddr>() {
            Ok(address) => format!("/{}", address.ip()),
            Err(_) => format!("/{}", self.name),
        }
    }

    pub(crate) fn party(&self) -> &Party {
        self.party.get().unwrap_or(&STRANGER)
    }
}

/// One request taken in.
pub(crate) struct Pending<T> {
    pub(crate) answer: Answer,
    pub(crate) owed: Option<Owed>,
    /// Nobody misses the answer once the client is gone.
    pub(crate) abandonable: bool,
    /// Stands in a journal.
    pub(crate) noted: Option<Noted>,
    pub(crate) to: T,
}

/// Answers that are ready and not taken by the writer, in bytes, beyond which a client has to read first. One answer may
/// be larger.
const QUEUED_BYTES: usize = 1 << 20;

/// Bytes of the answers that are ready and wait in the queue.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    taken: Notify,
}

impl Backlog {
    fn size_of(answer: &Answer) -> usize {
        match answer {
            Answer::Now(Reply::Frame(frame)) => frame.len_bytes(),
            _ => 0,
        }
    }

    fn add(&self, answer: &Answer) {
        self.bytes.fetch_add(Self::size_of(answer), Ordering::Relaxed);
    }

    fn take(&self, answer: &Answer) {
        self.bytes.fetch_sub(Self::size_of(answer), Ordering::Relaxed);
        self.taken.notify_one();
    }

    /// Waits until there is room. Cancel safe.
    async fn room(&self) {
        while self.bytes.load(Ordering::Relaxed) > QUEUED_BYTES {
            self.taken.notified().await;
        }
    }
}

/// Answers that are due, in order; `None` closes the conversation behind them.
type Queue<T> = mpsc::Sender<Option<Pending<T>>>;

/// What a conversation still owes.
pub(super) struct Dues<'a, T> {
    queue: &'a Queue<T>,
    under_way: bool,
}

impl<T> Dues<'_, T> {
    pub(super) fn are_none(&self) -> bool {
        !self.under_way && self.queue.capacity() == self.queue.max_capacity()
    }
}

/// Where requests come from.
pub(super) trait Inlet: Send {
    /// What tells an answer where to go.
    type To: Send;
    /// Why this side closes the conversation.
    type End: fmt::Display + Send;
    /// The next request, `None` once the client has left. Cancel safe.
    fn next(
        &mut self,
        peer: &Peer,
        dues: Dues<'_, Self::To>,
    ) -> impl Future<Output = Result<Option<(Frame, Self::To)>, Self::End>> + Send;
}

/// Where answers go.
pub(super) trait Outlet: Send {
    /// What tells an answer where to go.
    type To: Send;
    /// Passes one answer on; `false` ends the conversation.
    fn deliver(
        &mut self,
        frame: Frame,
        owed: Option<Owed>,
        to: Self::To,
    ) -> impl Future<Output = bool> + Send;
}

/// The two ends.
pub(super) struct Conversation {
    pub(super) node: Arc<Node>,
    pub(super) peer: Peer,
    here: Party,
    /// The client's end was the first to go.
    left: AtomicBool,
}

impl Conversation {
    pub(super) fn new(node: Arc<Node>, peer: Peer) -> Self {
        let here = node.party();
        Self { node, peer, here, left: AtomicBool::new(false) }
    }

    /// Carries on until one of the ends is gone, or the connection breaks.
    pub(super) async fn hold<I: Inlet>(self, mut inlet: I, mut outlet: impl Outlet<To = I::To>) {
        let (queue, pending) = mpsc::channel(self.node.limits.requests_in_progress);
        let gone = Notify::new();
        let backlog = Backlog::default();
        let read = async {
            match self.read_requests(&mut inlet, &queue, &backlog).await {
                Ok(()) => {}
                Err(Over::Broken) => return,
                Err(Over::End(end)) => {
                    tracing::info!(node = self.node.id, peer = %self.peer.name, %end, "closing connection");
                    // Behind the answers that are still due; a full queue means that nobody reads them.
                    let _ = queue.try_send(None);
                }
            }
            self.left.store(true, Ordering::Relaxed);
            drop(queue);
            gone.notify_one();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.write_answers(pending, &backlog, &gone, &mut outlet) => {}
            () = read => {}
        }
    }

    async fn read_requests<I: Inlet>(
        &self,
        inlet: &mut I,
        queue: &Queue<I::To>,
        backlog: &Backlog,
    ) -> Result<(), Over<I::End>> {
        let Self { node, peer, here, .. } = self;
        let mut lane = Lane::new(node.network.clone());
        // Set once nothing more comes, while something is still under way.
        let mut end = None;
        loop {
            backlog.room().await;
            let pending = if lane.is_empty() {
                if let Some(end) = end {
                    return end;
                }
                let next = inlet.next(peer, Dues { queue, under_way: false }).await;
                let Some((frame, to)) = next.map_err(Over::End)? else { return Ok(()) };
                if !node.network.watched().nothing() {
                    lane.send(peer.party(), here, (frame, to));
                    continue;
                }
                node.take_in(frame, peer, to)
            } else {
                let room = lane.len() < node.limits.requests_in_progress;
                tokio::select! {
                    biased;
                    arrived = lane.arrival(peer.party(), here) => {
                        let Some((frame, to)) = arrived else { return Err(Over::Broken) };
                        match Box::pin(node.clone().take_in_watched(frame, peer, to)).await {
                            TakenIn::Pending(pending) => pending,
                            TakenIn::Broken => return Err(Over::Broken),
                            TakenIn::Deaf(silenced) => {
                                self.turn_deaf(silenced, inlet, queue).await;
                                return Ok(());
                            }
                        }
                    }
                    next = inlet.next(peer, Dues { queue, under_way: true }), if end.is_none() && room => {
                        match next {
                            Ok(Some(request)) => lane.send(peer.party(), here, request),
                            Ok(None) => end = Some(Ok(())),
                            Err(cause) => end = Some(Err(Over::End(cause))),
                        }
                        continue;
                    }
                }
            };
            backlog.add(&pending.answer);
            if queue.send(Some(pending)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Takes in nothing more, and waits until the client has left. What comes meanwhile is kept, so that nobody is told
    /// that it will not be answered.
    async fn turn_deaf<I: Inlet>(&self, _first: Silenced<I::To>, inlet: &mut I, queue: &Queue<I::To>) {
        let mut unheard = Vec::new();
        while let Ok(Some(request)) = inlet.next(&self.peer, Dues { queue, under_way: true }).await {
            unheard.push(request);
            if unheard.len() > self.node.limits.requests_in_progress {
                return std::future::pending().await;
            }
        }
    }

    /// Writes answers in order until the queue ends, the client is gone, or an answer says so.
    async fn write_answers<O: Outlet>(
        &self,
        mut queue: mpsc::Receiver<Option<Pending<O::To>>>,
        backlog: &Backlog,
        gone: &Notify,
        outlet: &mut O,
    ) {
        let node = &*self.node;
        let mut lane = Lane::new(node.network.clone());
        loop {
            let pending = if lane.is_empty() {
                queue.recv().await
            } else {
                let room = lane.len() < node.limits.requests_in_progress;
                tokio::select! {
                    biased;
                    arrived = lane.arrival(&self.here, self.peer.party()) => {
                        if !self.hand_over(arrived, outlet).await {
                            return;
                        }
                        continue;
                    }
                    pending = queue.recv(), if room => pending,
                }
            };
            let Some(pending) = pending else { break };
            let Some(Pending { answer, owed, abandonable, noted, to }) = pending else {
                lane.send(&self.here, self.peer.party(), Sent::End(None));
                break;
            };
            backlog.take(&answer);
            let reply = match answer {
                Answer::Now(reply) => reply,
                Answer::Later(mut reply) => loop {
                    tokio::select! {
                        biased;
                        arrived = lane.arrival(&self.here, self.peer.party()), if !lane.is_empty() => {
                            if !self.hand_over(arrived, outlet).await {
                                return;
                            }
                        }
                        reply = &mut reply => break reply,
                        () = gone.notified(), if abandonable => return self.run_out(lane, outlet).await,
                    }
                },
            };
            let sent = match reply {
                Reply::Frame(frame) => Sent::Answer { frame, owed, noted, to },
                Reply::Nothing => {
                    Noted::unanswered(noted);
                    continue;
                }
                Reply::Break => {
                    Noted::broken_by_rule(noted);
                    return;
                }
                Reply::Close => Sent::End(Some((noted, to))),
            };
            if !lane.is_empty() || !node.network.watched().nothing() {
                let last = matches!(sent, Sent::End(_));
                lane.send(&self.here, self.peer.party(), sent);
                if last {
                    break;
                }
                continue;
            }
            if !deliver(sent, outlet).await {
                return;
            }
        }
        self.run_out(lane, outlet).await;
    }

    /// Lets arrive what is under way.
    async fn run_out<O: Outlet>(&self, mut lane: Lane<Sent<O::To>>, outlet: &mut O) {
        while !lane.is_empty() {
            let arrived = lane.arrival(&self.here, self.peer.party()).await;
            if !self.hand_over(arrived, outlet).await {
                return;
            }
        }
    }

    /// Hands over what has arrived; `false` ends the conversation.
    async fn hand_over<O: Outlet>(&self, arrived: Option<Sent<O::To>>, outlet: &mut O) -> bool {
        let Some(sent) = arrived else { return false };
        let network = &self.node.network;
        if self.node.life.is_dead() {
            return false;
        }
        if let Sent::Answer { frame, .. } = &sent {
            network.tell(network.watched(), &self.here, self.peer.party(), Carried::Answer(frame));
        }
        deliver(sent, outlet).await
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let (here, there) = (&self.here, self.peer.party());
        let (from, to) = if *self.left.get_mut() { (there, here) } else { (here, there) };
        self.node.network.tell(self.node.network.watched(), from, to, Carried::Closed);
    }
}

/// Why no more requests are read.
enum Over<E> {
    /// The connection broke, and what was under way on it is lost.
    Broken,
    End(E),
}

/// What a node sends.
enum Sent<T> {
    Answer {
        frame: Frame,
        owed: Option<Owed>,
        noted: Option<Noted>,
        to: T,
    },
    /// Nothing more. Whoever waits for the answer that is not sent learns of it when this arrives.
    End(Option<(Option<Noted>, T)>),
}

/// Passes on what was sent; `false` ends the conversation.
async fn deliver<O: Outlet>(sent: Sent<O::To>, outlet: &mut O) -> bool {
    let Sent::Answer { frame, owed, noted, to } = sent else { return false };
    let Some(noted) = noted else { return outlet.deliver(frame, owed, to).await };
    let answer = frame.clone();
    let delivered = outlet.deliver(frame, owed, to).await;
    if delivered {
        noted.answered(&answer);
    }
    delivered
}

/// A request on its way from a [`Link`] in this process.
struct Exchange {
    frame: Frame,
    reply: oneshot::Sender<Frame>,
}

/// Opens a conversation with a node of this process.
pub(crate) fn open(node: &Arc<Node>, name: &str, from: Party) -> Link {
    let (requests, taken) = pipe::channel(node.limits.requests_in_progress);
    let peer = Peer { name: Arc::from(name), party: OnceLock::from(from) };
    let conversation = Conversation::new(node.clone(), peer);
    node.life.spawn(conversation.hold(Requests(taken), Replies(node.clone())));
    Link::new(InProcess { requests })
}

struct Requests(pipe::Receiver<Exchange>);

impl Inlet for Requests {
    type To = oneshot::Sender<Frame>;
    type End = std::convert::Infallible;

    async fn next(
        &mut self,
        _: &Peer,
        _: Dues<'_, Self::To>,
    ) -> Result<Option<(Frame, Self::To)>, Self::End> {
        Ok(self.0.next().await.map(|Exchange { frame, reply }| (frame, reply)))
    }
}

struct Replies(Arc<Node>);

impl Outlet for Replies {
    type To = oneshot::Sender<Frame>;

    async fn deliver(&mut self, frame: Frame, owed: Option<Owed>, to: Self::To) -> bool {
        // A dropped receiver only means that this one answer is not wanted.
        self.0.life.answer(owed, || to.send(frame)).is_some()
    }
}

/// Client side of a conversation in this process.
struct InProcess {
    requests: pipe::Sender<Exchange>,
}

impl Service<Frame> for InProcess {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<Result<Frame, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.requests.poll_ready(cx).map_err(|_| LinkError::closed())
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        let (reply, answered) = oneshot::channel();
        let (api_key, api_version, expects_reply) = (frame.api_key, frame.api_version, frame.expects_reply);
        let sent = self.requests.start_send(Exchange { frame, reply });
        Box::pin(async move {
            sent.map_err(|_| LinkError::closed())?;
            if expects_reply {
                return answered.await.map_err(|_| LinkError::closed());
            }
            Ok(Frame { api_key, api_version, body: Vec::<Bytes>::new(), expects_reply: false })
        })
    }
}
