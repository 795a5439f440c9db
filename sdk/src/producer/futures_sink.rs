//! A producer as a [`futures::Sink`], for code that pours a stream into it.
//!
//! ```text
//! start_send ─▶ one record on its way into the buffer ─▶ those not acknowledged yet ─▶ gone, or the first failure
//!                  poll_ready waits for this               poll_flush waits for these
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Sink;
use pin_project::pin_project;

use super::delivery::Delivery;
use super::error::SendError;

/// Deliveries that are kept before those that have resolved are looked for.
const LOOK_AT: usize = 1024;

/// Puts records into a producer: `send` starts to, `hurry` ends their lingering.
#[pin_project]
pub(super) struct FuturesSink<S, F, H> {
    send: S,
    hurry: H,
    /// The record that was taken last, until it is accepted.
    #[pin]
    accepting: Option<F>,
    unacknowledged: VecDeque<Delivery>,
    /// Length of `unacknowledged` at which the next look at all of it pays.
    look_at: usize,
    /// The first failure that was not reported yet.
    failure: Option<SendError>,
    hurried: bool,
    closed: bool,
}

impl<S, F, H> FuturesSink<S, F, H> {
    pub(super) fn new(send: S, hurry: H) -> Self {
        Self {
            send,
            hurry,
            accepting: None,
            unacknowledged: VecDeque::new(),
            look_at: LOOK_AT,
            failure: None,
            hurried: false,
            closed: false,
        }
    }
}

impl<S, F: Future<Output = Result<Delivery, SendError>>, H: Fn()> FuturesSink<S, F, H> {
    /// Waits until the last record is accepted.
    fn poll_accepted(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut this = self.project();
        if let Some(accepting) = this.accepting.as_mut().as_pin_mut() {
            let accepted = ready!(accepting.poll(cx));
            this.accepting.set(None);
            this.unacknowledged.push_back(accepted?);
            *this.hurried = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets go of everything that is acknowledged, wherever it stands; one partition that is stuck keeps only its own.
    fn look(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        let this = self.project();
        let failure = this.failure;
        this.unacknowledged.retain_mut(|delivery| match Pin::new(delivery).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                keep_first(failure, outcome.err());
                false
            }
        });
        *this.look_at = LOOK_AT.max(2 * this.unacknowledged.len());
    }
}

fn keep_first(failure: &mut Option<SendError>, error: Option<SendError>) {
    if failure.is_none() {
        *failure = error;
    }
}

impl<R, S, F, H> Sink<R> for FuturesSink<S, F, H>
where
    S: Fn(R) -> F,
    F: Future<Output = Result<Delivery, SendError>>,
    H: Fn(),
{
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.closed {
            return Poll::Ready(Err(SendError::Closed { maybe_written: false }));
        }
        ready!(self.as_mut().poll_accepted(cx))?;
        if self.unacknowledged.len() >= self.look_at {
            self.as_mut().look(cx);
        }
        Poll::Ready(self.project().failure.take().map_or(Ok(()), Err))
    }

    fn start_send(self: Pin<&mut Self>, record: R) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed { maybe_written: false });
        }
        let mut this = self.project();
        debug_assert!(this.accepting.is_none(), "start_send without poll_ready");
        let accepting = (this.send)(record);
        this.accepting.set(Some(accepting));
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let accepted = ready!(self.as_mut().poll_accepted(cx));
        let this = self.project();
        keep_first(this.failure, accepted.err());
        if !*this.hurried && !this.unacknowledged.is_empty() {
            (this.hurry)();
            *this.hurried = true;
        }
        while let Some(oldest) = this.unacknowledged.front_mut() {
            let outcome = ready!(Pin::new(oldest).poll(cx));
            keep_first(this.failure, outcome.err());
            this.unacknowledged.pop_front();
        }
        *this.look_at = LOOK_AT;
        Poll::Ready(this.failure.take().map_or(Ok(()), Err))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let flushed = ready!(self.as_mut().poll_flush(cx));
        *self.project().closed = true;
        Poll::Ready(flushed)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::{FutureExt, SinkExt};

    use super::*;
    use crate::producer::PendingDelivery;

    type Accepted = RefCell<Vec<PendingDelivery>>;

    /// A sink of numbers; what is accepted waits in the list for its outcome. 0 is not accepted.
    fn sink<'a>(
        accepted: &'a Accepted,
        hurries: &'a Cell<u32>,
    ) -> Pin<Box<impl Sink<u32, Error = SendError> + use<'a>>> {
        let send = move |number| async move {
            if number == 0 {
                return Err(SendError::Compression { maybe_written: false });
            }
            let (delivery, pending) = Delivery::pending("t", 0);
            accepted.borrow_mut().push(pending);
            Ok(delivery)
        };
        Box::pin(FuturesSink::new(send, || hurries.set(hurries.get() + 1)))
    }

    fn now<T>(future: impl Future<Output = T> + Unpin) -> Option<T> {
        future.now_or_never()
    }

    #[test]
    fn flush_waits_for_every_acknowledgement_and_hurries_once() {
        let (accepted, hurries) = (Accepted::default(), Cell::new(0));
        let mut sink = sink(&accepted, &hurries);
        assert!(matches!(now(sink.flush()), Some(Ok(()))));
        for number in 1..=3 {
            now(sink.feed(number)).unwrap().unwrap();
        }
        for left in [3, 2, 1] {
            assert!(now(sink.flush()).is_none(), "{left}");
            accepted.borrow_mut().remove(0).acknowledge(left);
        }
        assert!(matches!(now(sink.flush()), Some(Ok(()))));
        assert_eq!(hurries.get(), 1);
    }

    #[test]
    fn the_first_failure_is_reported_once_when_all_else_is_known() {
        let (accepted, hurries) = (Accepted::default(), Cell::new(0));
        let mut sink = sink(&accepted, &hurries);
        for number in 1..=3 {
            now(sink.feed(number)).unwrap().unwrap();
        }
        assert!(now(sink.flush()).is_none());
        let mut pending = std::mem::take(&mut *accepted.borrow_mut()).into_iter();
        pending.next().unwrap().fail(SendError::Compression { maybe_written: false });
        pending.next().unwrap().fail(SendError::Cancelled);
        assert!(now(sink.flush()).is_none(), "one is still under way");
        pending.next().unwrap().acknowledge(1);
        assert!(matches!(now(sink.flush()), Some(Err(SendError::Compression { .. }))));
        assert!(matches!(now(sink.flush()), Some(Ok(()))), "reported once");
    }

    #[test]
    fn a_record_that_is_not_accepted_is_an_error_and_the_sink_goes_on() {
        let (accepted, hurries) = (Accepted::default(), Cell::new(0));
        let mut sink = sink(&accepted, &hurries);
        now(sink.feed(0)).unwrap().unwrap();
        assert!(matches!(now(sink.feed(1)), Some(Err(SendError::Compression { .. }))));
        now(sink.feed(2)).unwrap().unwrap();
        assert!(now(sink.flush()).is_none());
        accepted.borrow_mut().remove(0).acknowledge(0);
        assert!(matches!(now(sink.close()), Some(Ok(()))));
        assert!(matches!(now(sink.feed(3)), Some(Err(SendError::Closed { maybe_written: false }))));
    }

    /// Goal: who flushes or closes knows afterwards what became of everything, whatever failed on the way.
    #[test]
    fn flush_and_close_wait_for_acknowledgements_also_if_the_last_record_is_not_accepted() {
        for close in [false, true] {
            let (accepted, hurries) = (Accepted::default(), Cell::new(0));
            let mut sink = sink(&accepted, &hurries);
            now(sink.feed(1)).unwrap().unwrap();
            now(sink.feed(0)).unwrap().unwrap();
            let mut end = || if close { now(sink.close()) } else { now(sink.flush()) };
            assert!(end().is_none(), "one is not acknowledged");
            assert_eq!(hurries.get(), 1);
            accepted.borrow_mut().remove(0).acknowledge(0);
            assert!(matches!(end(), Some(Err(SendError::Compression { .. }))));
            assert!(matches!(end(), Some(Ok(()))), "reported once");
        }
    }

    /// Goal: what is kept is bounded by what is not acknowledged, also behind one that is stuck.
    #[test]
    fn what_is_acknowledged_is_let_go_behind_one_that_is_stuck() {
        let accepted = Accepted::default();
        let send = |_: u32| {
            let (delivery, pending) = Delivery::pending("t", 0);
            accepted.borrow_mut().push(pending);
            std::future::ready(Ok(delivery))
        };
        let mut sink = Box::pin(FuturesSink::new(send, || ()));
        for number in 0..20_000 {
            now(sink.feed(number)).unwrap().unwrap();
            if accepted.borrow().len() > 10 {
                accepted.borrow_mut().remove(1).acknowledge(0);
            }
        }
        let kept = sink.unacknowledged.len();
        assert!((10..=LOOK_AT).contains(&kept), "{kept}");
    }
}
