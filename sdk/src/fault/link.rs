//! One conversation with faults in it.
//!
//! ```text
//! call ──▶ queue ──▶ wait (delay, bandwidth) ──▶ the link behind ──▶ wait ──▶ answer
//!                        └── refused, cut, dropped            └── cut, dropped, another code
//! ```
//!
//! Invariant: requests reach the link behind in the order of their calls, and answers leave in that order. Nothing is
//! answered behind a dropped answer, and nothing at all after a cut.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use klamm_core::Tick;
use klamm_wire::{ErrorCode, Frame, Link, LinkError, Request};
use parking_lot::Mutex;
use tower::Service;

use super::rule::{Fault, Line, Plan, Rules};
use crate::conversation::{EndsWithTask, Pipe, Queued, Reply, Response, ended};
use crate::refusal;
use crate::rt::{Rt, Task};

/// Requests that may wait in front of the link behind.
const MOST_WAITING: usize = 16;
/// Requests that are sent although nothing is answered any more.
const MOST_WITHHELD: usize = 128;

/// The link behind until the conversation ends, and who waits for it.
struct Behind {
    link: Option<Link>,
    waker: Option<Waker>,
}

impl Behind {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match &mut self.link {
            Some(link) => link.poll_ready(cx),
            None => Poll::Ready(Err(LinkError::closed())),
        }
    }
}

pub(super) struct FaultLink {
    pipe: Arc<Pipe>,
    behind: Arc<Mutex<Behind>>,
    rt: Rt,
    _task: Task,
}

pub(super) fn open(rt: &Rt, rules: Arc<Rules>, line: Line, link: Link) -> Link {
    let pipe = Arc::new(Pipe::new(MOST_WAITING));
    let behind = Arc::new(Mutex::new(Behind { link: Some(link), waker: None }));
    let talk = Talk {
        rt: rt.clone(),
        pipe: pipe.clone(),
        behind: behind.clone(),
        rules,
        line,
        number: 0,
        sending: None,
        sent_until: Tick::ZERO,
        received_until: Arc::default(),
        answers: FuturesOrdered::new(),
        unanswered: FuturesUnordered::new(),
        silent: false,
        withheld: Vec::new(),
    };
    let task = rt.spawn(talk.run());
    Link::new(FaultLink { pipe, behind, rt: rt.clone(), _task: task })
}

impl Service<Frame> for FaultLink {
    type Response = Frame;
    type Error = LinkError;
    type Future = Response;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut behind = self.behind.lock();
        // A link keeps one waker only: the task's must not be lost by looking whether it has broken.
        let waker = behind.waker.clone();
        let looking = waker.as_ref().unwrap_or(Waker::noop());
        let looked = behind.poll_ready(&mut Context::from_waker(looking));
        drop(behind);
        if let Poll::Ready(Err(failure)) = looked {
            self.pipe.fail(failure);
        }
        self.pipe.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        self.pipe.call(self.rt.now(), frame)
    }
}

impl Drop for FaultLink {
    fn drop(&mut self) {
        self.pipe.leave();
    }
}

/// The request that is sent next; none overtakes it.
struct Sending {
    due: Tick,
    plan: Plan,
    queued: Queued,
}

/// What came back for a request, or did not.
struct Came {
    outcome: Outcome,
    reply: Reply,
}

enum Outcome {
    Is(Result<Frame, LinkError>),
    Silence,
    Cut,
}

struct Talk {
    rt: Rt,
    pipe: Arc<Pipe>,
    behind: Arc<Mutex<Behind>>,
    rules: Arc<Rules>,
    line: Line,
    number: u64,
    sending: Option<Sending>,
    /// When everything so far has passed that is bound to a bandwidth.
    sent_until: Tick,
    /// The same for answers.
    received_until: Arc<Mutex<Tick>>,
    answers: FuturesOrdered<BoxFuture<'static, Came>>,
    /// Requests that expect no answer, and so wait for none.
    unanswered: FuturesUnordered<BoxFuture<'static, Came>>,
    silent: bool,
    withheld: Vec<Reply>,
}

impl Talk {
    async fn run(mut self) {
        let pipe = self.pipe.clone();
        let _end = EndsWithTask(pipe.clone());
        while !pipe.was_left() && pipe.failure().is_none() {
            if self.sending.is_none() && self.withheld.len() < MOST_WITHHELD {
                self.sending = pipe.take().map(|queued| self.plan(queued));
            }
            let due = self.sending.as_ref().map(|sending| sending.due);
            let (rt, behind) = (&self.rt, &self.behind);
            tokio::select! {
                biased;
                Some(came) = self.answers.next(), if !self.answers.is_empty() => self.came(came),
                Some(came) = self.unanswered.next(), if !self.unanswered.is_empty() => self.came(came),
                ready = may_send(rt, behind, due) => {
                    behind.lock().waker = None;
                    match (ready, self.sending.take()) {
                        (Ok(()), Some(sending)) => self.send(sending),
                        (Ok(()), None) => {}
                        (Err(failure), _) => pipe.fail(failure),
                    }
                }
                () = pipe.arrived() => {}
            }
        }
        // Before whoever has the link hears of it: that is how a peer sees a broken connection.
        let link = self.behind.lock().link.take();
        drop(link);
    }

    fn plan(&mut self, queued: Queued) -> Sending {
        let plan = self.rules.plan(&self.line, self.number, queued.frame.api_key);
        self.number += 1;
        let mut due = queued.at.saturating_add(plan.delay_request);
        if let Some(rate) = plan.bandwidth {
            due = due.max(self.sent_until).saturating_add(passage(queued.frame.len_bytes(), rate));
            self.sent_until = due;
        }
        Sending { due, plan, queued }
    }

    fn send(&mut self, Sending { plan, queued: Queued { frame, reply, .. }, .. }: Sending) {
        match plan.verdict {
            Some(Fault::CutBefore) => {
                return self.pipe.fail(ended("cut by a fault before the request was sent"));
            }
            Some(Fault::DropRequest) => self.answers.push_back(came(Outcome::Silence, reply)),
            Some(Fault::Refuse(code)) if !is_metadata(&frame) => {
                let refused = refusal::refuse(frame, code, Some("refused by a fault"));
                self.answers.push_back(came(Outcome::Is(refused.ok_or_else(unreadable)), reply));
            }
            _ => self.pass_on(frame, plan, reply),
        }
        self.pipe.release();
    }

    fn pass_on(&mut self, frame: Frame, plan: Plan, reply: Reply) {
        let request = frame.clone();
        let answered = frame.expects_reply;
        let answer = match &mut self.behind.lock().link {
            Some(link) => link.call(frame),
            None => return self.pipe.fail(LinkError::closed()),
        };
        let (rt, until) = (self.rt.clone(), self.received_until.clone());
        let come: BoxFuture<'static, Came> = Box::pin(async move {
            let answer = answer.await;
            let mut due = rt.now().saturating_add(plan.delay_answer);
            if let (Some(rate), Ok(frame)) = (plan.bandwidth, &answer) {
                let mut until = until.lock();
                due = due.max(*until).saturating_add(passage(frame.len_bytes(), rate));
                *until = due;
            }
            if due > rt.now() {
                rt.sleep_until(due).await;
            }
            let outcome = match answer {
                Ok(answer) => spoilt(request, answer, &plan),
                Err(failure) => Outcome::Is(Err(failure)),
            };
            Came { outcome, reply }
        });
        match answered {
            true => self.answers.push_back(come),
            false => self.unanswered.push(come),
        }
    }

    fn came(&mut self, Came { outcome, reply }: Came) {
        match outcome {
            Outcome::Is(Err(failure)) => {
                self.pipe.fail(failure.clone());
                let _ = reply.send(Err(failure));
            }
            Outcome::Cut => {
                let failure = ended("cut by a fault after the request was carried out");
                self.pipe.fail(failure.clone());
                let _ = reply.send(Err(failure));
            }
            Outcome::Silence => {
                self.silent = true;
                self.withheld.push(reply);
            }
            Outcome::Is(Ok(_)) if self.silent => self.withheld.push(reply),
            Outcome::Is(Ok(frame)) => drop(reply.send(Ok(frame))),
        }
    }
}

/// Waits until the first request may go: for ever if there is none.
async fn may_send(rt: &Rt, behind: &Mutex<Behind>, due: Option<Tick>) -> Result<(), LinkError> {
    // Timers tick in milliseconds: what is due now must not wait for the next tick.
    if due.is_none_or(|due| due > rt.now()) {
        rt.sleep_until_some(due).await;
    }
    std::future::poll_fn(|cx| {
        let mut behind = behind.lock();
        let ready = behind.poll_ready(cx);
        behind.waker = ready.is_pending().then(|| cx.waker().clone());
        ready
    })
    .await
}

/// What is made of the answer to a request that was carried out.
fn spoilt(request: Frame, answer: Frame, plan: &Plan) -> Outcome {
    let answered = request.expects_reply;
    let refuse = |request, answer, code: ErrorCode| {
        let refused = match is_metadata(&request) {
            true => refusal::refuse_metadata(request, answer, code),
            false => refusal::refuse(request, code, Some("refused by a fault")),
        };
        Outcome::Is(refused.ok_or_else(unreadable))
    };
    match plan.verdict {
        Some(Fault::CutAfter) => Outcome::Cut,
        Some(Fault::DropAnswer) => Outcome::Silence,
        Some(Fault::Refuse(code) | Fault::FailAfter(code)) if answered => refuse(request, answer, code),
        _ => match plan.throttle {
            Some(pause) if answered => {
                let ms = i32::try_from(pause.as_millis()).unwrap_or(i32::MAX);
                Outcome::Is(Ok(refusal::throttle(answer, ms)))
            }
            _ => Outcome::Is(Ok(answer)),
        },
    }
}

fn came(outcome: Outcome, reply: Reply) -> BoxFuture<'static, Came> {
    Box::pin(std::future::ready(Came { outcome, reply }))
}

fn unreadable() -> LinkError {
    ended("a fault cannot refuse what it cannot read")
}

fn is_metadata(frame: &Frame) -> bool {
    frame.api_key == klamm_wire::messages::MetadataRequest::KEY
}

/// How long so many bytes take.
fn passage(bytes: usize, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate as f64)
}
