//! One conversation with one broker of a mock.
//!
//! ```text
//! call ──▶ queue ──▶ decided, in order of calls ──▶ late ones are waited for ──▶ answered, in order of calls
//! ```
//!
//! Invariant: a request is decided about exactly once, whether or not somebody waits for its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesOrdered, StreamExt};
use klamm_wire::{Frame, Link, LinkError};
use tower::Service;

use super::responder::{Action, Head, api};
use crate::conversation::{EndsWithTask, Pipe, Queued, Reply, Response, ended};
use crate::rt::Rt;

/// What decides about the requests of one conversation.
pub(super) type Decide = Box<dyn FnMut(Head, Frame) -> Action + Send>;
/// The mock's clock.
pub(super) type Now = Box<dyn Fn() -> Duration + Send>;

/// How a request ended.
type End = (Result<Frame, LinkError>, Option<Reply>);

struct MockLink {
    pipe: Arc<Pipe>,
    rt: Rt,
}

/// Opens a conversation; `head` is that of its requests but for time, api and version.
pub(super) fn open(rt: &Rt, head: Head, limit: usize, now: Now, decide: Decide) -> Link {
    let pipe = Arc::new(Pipe::new(limit));
    rt.spawn(converse(rt.clone(), pipe.clone(), head, now, decide)).detach();
    Link::new(MockLink { pipe, rt: rt.clone() })
}

impl Service<Frame> for MockLink {
    type Response = Frame;
    type Error = LinkError;
    type Future = Response;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.pipe.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        self.pipe.call(self.rt.now(), frame)
    }
}

impl Drop for MockLink {
    fn drop(&mut self) {
        self.pipe.leave();
    }
}

/// Decides about requests in the order of their calls, also about those that nobody waits for any more, and answers
/// them in that order.
async fn converse(rt: Rt, pipe: Arc<Pipe>, head: Head, now: Now, mut decide: Decide) {
    let _end = EndsWithTask(pipe.clone());
    let mut waiting = FuturesOrdered::new();
    loop {
        while let Some(Queued { at, frame, reply }) = pipe.take() {
            let (api_key, api_version) = (frame.api_key, frame.api_version);
            let head = Head { at: now(), api_key, api_version, ..head.clone() };
            let reply = if frame.expects_reply {
                Some(reply)
            } else {
                let _ = reply.send(Ok(Frame { body: Vec::new(), ..frame }));
                None
            };
            // A closure of the test's may panic; that must not leave its client waiting.
            let decided = catch_unwind(AssertUnwindSafe(|| decide(head.clone(), frame)));
            let action = decided.unwrap_or_else(|_| Action::DropConnection {
                reason: format!("a script or responder panicked at {head}"),
            });
            let outcome = carry_out(rt.clone(), at, head, action);
            waiting.push_back(async move { (outcome.await, reply) });
        }
        if pipe.was_left() {
            return;
        }
        tokio::select! {
            biased;
            Some((outcome, reply)) = waiting.next(), if !waiting.is_empty() => {
                let outcome: End = (outcome, reply);
                if !settle(&pipe, outcome) {
                    return;
                }
            }
            () = pipe.arrived() => {}
        }
    }
}

/// Waits as long as the action says.
async fn carry_out(rt: Rt, arrived: Duration, head: Head, mut action: Action) -> Result<Frame, LinkError> {
    let mut wait = Duration::ZERO;
    let outcome = loop {
        action = match action {
            Action::Delayed(by, inner) => {
                wait = wait.saturating_add(by);
                *inner
            }
            Action::Later(later) => later.await,
            Action::Silence => std::future::pending().await,
            Action::Answer(frame)
                if (frame.api_key, frame.api_version) == (head.api_key, head.api_version) =>
            {
                break Ok(frame);
            }
            Action::Answer(other) => {
                let other = api(other.api_key, other.api_version);
                break Err(ended(format!("{head} was answered with {other}")));
            }
            Action::DropConnection { reason } => break Err(ended(reason)),
            Action::Default | Action::LoseAnswer => {
                break Err(ended(format!("{head}: what was to be seen later must be an answer, or none")));
            }
        };
    };
    // Timers tick in milliseconds: what is not late must not wait for the next tick.
    if !wait.is_zero() {
        rt.sleep_until(arrived.saturating_add(wait)).await;
    }
    outcome
}

/// Tells how a request ended; `false` if that is the end of the conversation.
fn settle(pipe: &Pipe, (outcome, reply): End) -> bool {
    let goes_on = outcome.is_ok();
    if let Err(failure) = &outcome {
        pipe.fail(failure.clone());
    }
    if let Some(reply) = reply {
        let _ = reply.send(outcome);
    }
    pipe.release();
    goes_on
}
