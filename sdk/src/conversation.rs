//! What a [`Link`](klamm_wire::Link) and the task behind it share.
//!
//! In: requests in the order of their calls. Out: answers, each to its own request, however the task orders them.
//!
//! Invariant: at most `limit` requests are taken and not [released](Pipe::release). Once there is a failure nothing is
//! queued any more, and every request that waits gets a copy of it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use klamm_core::Tick;
use klamm_wire::{Frame, LinkError};
use parking_lot::Mutex;
use pin_project::pin_project;
use tokio::sync::{Notify, oneshot};

/// Where the answer to one request goes.
pub(crate) type Reply = oneshot::Sender<Result<Frame, LinkError>>;

/// One request.
pub(crate) struct Queued {
    /// When it was called.
    pub(crate) at: Tick,
    pub(crate) frame: Frame,
    pub(crate) reply: Reply,
}

/// See the [module](self).
pub(crate) struct Pipe {
    state: Mutex<State>,
    arrived: Notify,
    limit: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    taken: usize,
    ready: Option<Waker>,
    failure: Option<LinkError>,
    left: bool,
}

impl Pipe {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), limit: limit.max(1) }
    }

    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if state.taken < self.limit {
            return Poll::Ready(Ok(()));
        }
        state.ready = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Queues a request.
    pub(crate) fn call(self: &Arc<Self>, at: Tick, frame: Frame) -> Response {
        let (reply, answer) = oneshot::channel();
        let mut state = self.state.lock();
        match state.failure.clone() {
            Some(failure) => drop(reply.send(Err(failure.before_sending()))),
            None => {
                state.taken += 1;
                state.queue.push_back(Queued { at, frame, reply });
                self.arrived.notify_one();
            }
        }
        drop(state);
        Response { answer, pipe: self.clone() }
    }

    /// The next request, in the order of the calls.
    pub(crate) fn take(&self) -> Option<Queued> {
        self.state.lock().queue.pop_front()
    }

    /// Waits until there may be something new: a request, or the end.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Makes room for another request.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        state.taken = state.taken.saturating_sub(1);
        let ready = state.ready.take();
        drop(state);
        ready.into_iter().for_each(Waker::wake);
    }

    /// The link was dropped.
    pub(crate) fn leave(&self) {
        self.state.lock().left = true;
        self.arrived.notify_one();
    }

    /// `true` once the link was dropped.
    pub(crate) fn was_left(&self) -> bool {
        self.state.lock().left
    }

    /// Ends the conversation; the first failure counts.
    pub(crate) fn fail(&self, failure: LinkError) {
        let mut state = self.state.lock();
        let failure = state.failure.get_or_insert(failure).clone();
        let (ready, queue) = (state.ready.take(), std::mem::take(&mut state.queue));
        drop(state);
        for queued in queue {
            let _ = queued.reply.send(Err(failure.clone()));
        }
        ready.into_iter().for_each(Waker::wake);
        self.arrived.notify_one();
    }

    /// Why the conversation ended, if it has.
    pub(crate) fn failure(&self) -> Option<LinkError> {
        self.state.lock().failure.clone()
    }
}

/// However the task of a conversation ends, nobody waits for ever.
pub(crate) struct EndsWithTask(pub(crate) Arc<Pipe>);

impl Drop for EndsWithTask {
    fn drop(&mut self) {
        self.0.fail(LinkError::closed());
    }
}

/// The answer to one request. Dropping it cancels nothing.
#[pin_project]
pub(crate) struct Response {
    #[pin]
    answer: oneshot::Receiver<Result<Frame, LinkError>>,
    pipe: Arc<Pipe>,
}

impl Future for Response {
    type Output = Result<Frame, LinkError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.answer.poll(cx).map(|answer| {
            answer.unwrap_or_else(|_| Err(this.pipe.failure().unwrap_or_else(LinkError::closed)))
        })
    }
}

/// A failure that is told as the end of the connection, with a reason.
pub(crate) fn ended(reason: impl Into<String>) -> LinkError {
    LinkError::Closed { cause: Some(Arc::new(std::io::Error::other(reason.into()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_request_behind_the_failure_is_certainly_not_sent() {
        let pipe = Arc::new(Pipe::new(5));
        let before = pipe.call(Tick::ZERO, Frame::new(0, 0, bytes::Bytes::new()));
        pipe.fail(LinkError::closed());
        let behind = pipe.call(Tick::ZERO, Frame::new(0, 0, bytes::Bytes::new()));
        assert!(matches!(before.await, Err(LinkError::Closed { .. })));
        assert!(matches!(behind.await, Err(LinkError::NotSent { .. })));
    }
}
