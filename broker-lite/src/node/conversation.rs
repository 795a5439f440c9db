//! One client's conversation with one node, whatever carries it.
//!
//! In: requests in order of arrival. Out: answers in the same order; a request that has to wait
//! (long poll, `acks=all`) holds back the answers behind it, not the processing.
//!
//! ```text
//! requests ──▶ Node::take_in (synchronous, in order) ──▶ queue of answers ──▶ write
//! ```
//!
//! Invariant: at most `limit` requests are taken in and unanswered.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc as pipe;
use klamm_wire::seam::{BoxFuture, Frame, Link, LinkError};
use tokio::sync::{Notify, mpsc, oneshot};
use tower_service::Service;

use super::{Node, Owed};

/// What becomes of a request.
pub(crate) enum Reply {
    /// Sent back.
    Frame(Frame),
    /// Nothing is sent: Produce with `acks=0`.
    Nothing,
    /// The conversation ends here, as Kafka ends it.
    Close,
}

/// When.
pub(crate) enum Answer {
    /// At once.
    Now(Reply),
    /// When this is done.
    Later(BoxFuture<Reply>),
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Address or name for the log.
    pub(crate) name: Arc<str>,
}

/// One request taken in.
pub(crate) struct Pending<T> {
    pub(crate) answer: Answer,
    pub(crate) owed: Option<Owed>,
    /// Nobody misses the answer once the client is gone.
    pub(crate) abandonable: bool,
    pub(crate) to: T,
}

/// Where answers go.
pub(crate) trait Outlet {
    /// What tells an answer where to go.
    type To;
    /// Passes one answer on; `false` ends the conversation.
    fn deliver(
        &mut self,
        frame: Frame,
        owed: Option<Owed>,
        to: Self::To,
    ) -> impl Future<Output = bool> + Send;
}

/// Writes answers in order until the queue ends, the client is gone, or an answer says so.
pub(crate) async fn write_answers<O: Outlet>(
    mut queue: mpsc::Receiver<Pending<O::To>>,
    gone: &Notify,
    outlet: &mut O,
) {
    while let Some(Pending { answer, owed, abandonable, to }) = queue.recv().await {
        let reply = match answer {
            Answer::Now(reply) => reply,
            Answer::Later(reply) if abandonable => tokio::select! {
                biased;
                reply = reply => reply,
                () = gone.notified() => return,
            },
            Answer::Later(reply) => reply.await,
        };
        match reply {
            Reply::Frame(frame) => {
                if !outlet.deliver(frame, owed, to).await {
                    return;
                }
            }
            Reply::Nothing => {}
            Reply::Close => return,
        }
    }
}

/// A request on its way from a [`Link`] in this process.
struct Exchange {
    frame: Frame,
    reply: oneshot::Sender<Frame>,
}

/// Opens a conversation with a node of this process.
pub(crate) fn open(node: &Arc<Node>, name: &str) -> Link {
    let limit = node.limits.requests_in_progress;
    let (requests, taken) = pipe::channel(limit);
    let peer = Peer { name: Arc::from(name) };
    node.life.spawn(converse(node.clone(), peer, taken, limit));
    Link::new(InProcess { requests })
}

async fn converse(node: Arc<Node>, peer: Peer, mut requests: pipe::Receiver<Exchange>, limit: usize) {
    let (queue, pending) = mpsc::channel(limit);
    let gone = Notify::new();
    let read = async {
        while let Some(Exchange { frame, reply }) = requests.next().await {
            let pending = node.take_in(frame, &peer, reply);
            if queue.send(pending).await.is_err() {
                return;
            }
        }
        drop(queue);
        gone.notify_one();
        std::future::pending::<()>().await;
    };
    let mut outlet = Replies(node.clone());
    tokio::select! {
        biased;
        () = write_answers(pending, &gone, &mut outlet) => {}
        () = read => {}
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

/// Client side of [`converse`].
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
