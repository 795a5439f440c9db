//! One conversation with one broker of a mock.
//!
//! ```text
//! call ──▶ queue ──▶ decided, in order of calls ──▶ late ones are waited for ──▶ answered, in order of calls
//! ```
//!
//! Invariant: at most `limit` requests are taken and not answered. Once `failure` is set every request in flight has
//! got a copy of it, and every later one does.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::stream::{FuturesOrdered, StreamExt};
use klamm_wire::seam::BoxFuture;
use klamm_wire::{Frame, Link, LinkError};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tower::Service;

use super::responder::{Action, Head};
use crate::rt::Rt;

/// What decides about the requests of one conversation.
pub(super) type Decide = Box<dyn FnMut(Head, Frame) -> Action + Send>;

type Reply = oneshot::Sender<Result<Frame, LinkError>>;

#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Frame, Option<Reply>)>,
    in_flight: usize,
    ready: Option<Waker>,
    failure: Option<LinkError>,
    /// The link was dropped.
    left: bool,
}

/// How a request ended.
enum End {
    Answered(Frame, Option<Reply>),
    Dropped(LinkError, Option<Reply>),
}

struct MockLink {
    pipe: Arc<Pipe>,
    limit: usize,
}

/// Opens a conversation; `head` is that of its requests but for time, api and version.
pub(super) fn open(rt: &Rt, head: Head, limit: usize, now: Now, decide: Decide) -> Link {
    let pipe = Arc::new(Pipe::default());
    rt.spawn(converse(rt.clone(), pipe.clone(), head, now, decide)).detach();
    Link::new(MockLink { pipe, limit })
}

/// The mock's clock.
pub(super) type Now = Box<dyn Fn() -> std::time::Duration + Send>;

impl Service<Frame> for MockLink {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<Result<Frame, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut state = self.pipe.state.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if state.in_flight < self.limit {
            return Poll::Ready(Ok(()));
        }
        state.ready = Some(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        let mut state = self.pipe.state.lock();
        if let Some(failure) = state.failure.clone() {
            return Box::pin(std::future::ready(Err(failure)));
        }
        state.in_flight += 1;
        if !frame.expects_reply {
            let written = Frame { body: Vec::new(), ..frame };
            state.queue.push_back((frame, None));
            self.pipe.arrived.notify_one();
            return Box::pin(std::future::ready(Ok(written)));
        }
        let (reply, answer) = oneshot::channel();
        state.queue.push_back((frame, Some(reply)));
        drop(state);
        self.pipe.arrived.notify_one();
        let pipe = self.pipe.clone();
        Box::pin(async move {
            let ended = || pipe.state.lock().failure.clone().unwrap_or_else(LinkError::closed);
            answer.await.unwrap_or_else(|_| Err(ended()))
        })
    }
}

impl Drop for MockLink {
    fn drop(&mut self) {
        self.pipe.state.lock().left = true;
        self.pipe.arrived.notify_one();
    }
}

/// Decides about requests in the order of their calls, also about those that nobody waits for any more, and answers
/// them in that order.
async fn converse(rt: Rt, pipe: Arc<Pipe>, head: Head, now: Now, mut decide: Decide) {
    let _ended = Ended(pipe.clone());
    let mut waiting = FuturesOrdered::new();
    loop {
        loop {
            let Some((frame, reply)) = pipe.state.lock().queue.pop_front() else { break };
            let (api_key, api_version) = (frame.api_key, frame.api_version);
            let head = Head { at: now(), api_key, api_version, ..head.clone() };
            // A closure of the test's may panic; that must not leave its client waiting.
            let decided = catch_unwind(AssertUnwindSafe(|| decide(head.clone(), frame)));
            let action = decided.unwrap_or_else(|_| Action::DropConnection {
                reason: format!("a script or responder panicked at {head}"),
            });
            waiting.push_back(carry_out(rt.clone(), head, action, reply));
        }
        if pipe.state.lock().left {
            return;
        }
        tokio::select! {
            biased;
            Some(end) = waiting.next(), if !waiting.is_empty() => {
                if !pipe.settle(end) {
                    return;
                }
            }
            () = pipe.arrived.notified() => {}
        }
    }
}

async fn carry_out(rt: Rt, head: Head, mut action: Action, reply: Option<Reply>) -> End {
    let arrived = rt.now();
    let mut wait = std::time::Duration::ZERO;
    loop {
        action = match action {
            Action::Delayed(by, inner) => {
                wait = wait.saturating_add(by);
                *inner
            }
            Action::Later(later) => later.await,
            Action::Silence => std::future::pending().await,
            Action::Answer(frame) => {
                rt.sleep_until(arrived.saturating_add(wait)).await;
                return match frame.api_key == head.api_key && frame.api_version == head.api_version {
                    true => End::Answered(frame, reply),
                    false => {
                        let other = crate::refusal::api(frame.api_key, frame.api_version);
                        End::Dropped(broken(format!("{head} was answered with {other}")), reply)
                    }
                };
            }
            Action::DropConnection { reason } => {
                rt.sleep_until(arrived.saturating_add(wait)).await;
                return End::Dropped(broken(reason), reply);
            }
            Action::Default | Action::LoseAnswer => {
                return End::Dropped(broken(format!("nothing decided about {head}")), reply);
            }
        };
    }
}

fn broken(reason: String) -> LinkError {
    LinkError::Closed { cause: Some(Arc::new(std::io::Error::other(reason))) }
}

impl Pipe {
    /// Tells how a request ended; `false` if that is the end of the conversation.
    fn settle(&self, end: End) -> bool {
        let (failure, reply, outcome) = match end {
            End::Answered(frame, reply) => (None, reply, Ok(frame)),
            End::Dropped(failure, reply) => (Some(failure.clone()), reply, Err(failure)),
        };
        let mut state = self.state.lock();
        let goes_on = failure.is_none();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.failure = failure;
        let ready = state.ready.take();
        drop(state);
        if let Some(reply) = reply {
            let _ = reply.send(outcome);
        }
        ready.into_iter().for_each(Waker::wake);
        goes_on
    }
}

/// However a conversation ends, nobody waits for ever.
struct Ended(Arc<Pipe>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.failure.get_or_insert_with(LinkError::closed);
        let (ready, queue) = (state.ready.take(), std::mem::take(&mut state.queue));
        drop(state);
        drop(queue);
        ready.into_iter().for_each(Waker::wake);
    }
}
