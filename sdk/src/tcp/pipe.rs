//! What one TCP conversation has in its hands: requests to be written and answers awaited.
//!
//! Invariant: answers are awaited in the order in which requests are written. Once `failure` is set nothing is
//! queued any more and every request got a copy of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use klamm_wire::codec::{decode_response_header, encode_request_header, peek_correlation_id};
use klamm_wire::framing::length_prefix;
use klamm_wire::{Frame, LinkError};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

type Reply = oneshot::Sender<Result<Frame, LinkError>>;

/// Shared by the link, its writer and its reader.
#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    /// Tells the writer that there is something to write.
    pub(super) work: Notify,
    max_in_flight: usize,
    client_id: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct State {
    outgoing: VecDeque<Outgoing>,
    awaited: VecDeque<Awaited>,
    /// Requests taken by the writer that expect no answer and are not written yet.
    being_written: usize,
    next_correlation_id: i32,
    failure: Option<LinkError>,
    ready: Option<Waker>,
}

/// A request on its way to the socket.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Prefix and header, then the body.
    pub(super) chunks: Vec<Bytes>,
    /// Set if the broker will not answer: told when it is written.
    unanswered: Option<(Frame, Reply)>,
}

#[derive(Debug)]
struct Awaited {
    correlation_id: i32,
    api_key: i16,
    api_version: i16,
    reply: Reply,
}

impl State {
    fn in_flight(&self) -> usize {
        let unanswered = self.outgoing.iter().filter(|outgoing| outgoing.unanswered.is_some()).count();
        self.awaited.len() + self.being_written + unanswered
    }

    fn wake(&mut self) {
        if let Some(waker) = self.ready.take() {
            waker.wake();
        }
    }
}

impl Pipe {
    pub(super) fn new(max_in_flight: usize, client_id: Option<Arc<str>>) -> Self {
        Self { state: Mutex::default(), work: Notify::new(), max_in_flight, client_id }
    }

    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if state.in_flight() < self.max_in_flight {
            return Poll::Ready(Ok(()));
        }
        state.ready = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Queues a request; it is written in the order of these calls.
    pub(super) fn send(&self, frame: &Frame) -> oneshot::Receiver<Result<Frame, LinkError>> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            let _ = reply.send(Err(failure.clone().before_sending()));
            return answer;
        }
        let correlation_id = state.next_correlation_id;
        let Ok(chunks) = chunks(frame, correlation_id, self.client_id.as_deref()) else {
            let reason = format!("request of {} B does not fit a frame", frame.len_bytes());
            let _ = reply.send(Err(LinkError::Malformed { reason }.before_sending()));
            return answer;
        };
        // Whoever calls under a span that asks for it is told.
        tracing::Span::current().record("kafka.correlation_id", correlation_id);
        state.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let (api_key, api_version) = (frame.api_key, frame.api_version);
        let unanswered = if frame.expects_reply {
            state.awaited.push_back(Awaited { correlation_id, api_key, api_version, reply });
            None
        } else {
            Some((Frame { body: Vec::new(), ..*frame }, reply))
        };
        state.outgoing.push_back(Outgoing { chunks, unanswered });
        drop(state);
        self.work.notify_one();
        answer
    }

    /// Everything that waits to be written.
    pub(super) fn take_outgoing(&self) -> VecDeque<Outgoing> {
        let mut state = self.state.lock();
        let taken = std::mem::take(&mut state.outgoing);
        state.being_written += taken.iter().filter(|outgoing| outgoing.unanswered.is_some()).count();
        taken
    }

    /// The socket has taken these requests.
    pub(super) fn written(&self, written: VecDeque<Outgoing>) {
        let mut told = false;
        for (frame, reply) in written.into_iter().filter_map(|outgoing| outgoing.unanswered) {
            let _ = reply.send(Ok(frame));
            self.state.lock().being_written -= 1;
            told = true;
        }
        if told {
            self.state.lock().wake();
        }
    }

    /// Gives an answer to the request that waits longest; it must be the answer to that one.
    pub(super) fn received(&self, mut bytes: Bytes) -> Result<(), LinkError> {
        let malformed = |reason: String| LinkError::Malformed { reason };
        let told = peek_correlation_id(&bytes)
            .ok_or_else(|| malformed(format!("an answer of {} B has no correlation id", bytes.len())))?;
        let mut state = self.state.lock();
        let expected = state.awaited.front().map(|awaited| awaited.correlation_id);
        if expected != Some(told) {
            let expected = expected.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(malformed(format!("answer with correlation id {told}, expected {expected}")));
        }
        let Some(awaited) = state.awaited.pop_front() else { return Ok(()) };
        state.wake();
        drop(state);
        let (api_key, api_version) = (awaited.api_key, awaited.api_version);
        match decode_response_header(api_key, api_version, &mut bytes) {
            Ok(_) => {
                let _ = awaited.reply.send(Ok(Frame::new(api_key, api_version, bytes)));
                Ok(())
            }
            Err(error) => {
                let failure = malformed(error.to_string());
                let _ = awaited.reply.send(Err(failure.clone()));
                Err(failure)
            }
        }
    }

    /// Ends the conversation; the first failure counts, and every request in flight gets it.
    pub(super) fn fail(&self, failure: &LinkError) {
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return;
        }
        state.failure = Some(failure.clone());
        state.wake();
        let awaited = std::mem::take(&mut state.awaited);
        let outgoing = std::mem::take(&mut state.outgoing);
        drop(state);
        let unanswered = outgoing.into_iter().filter_map(|outgoing| Some(outgoing.unanswered?.1));
        for reply in awaited.into_iter().map(|awaited| awaited.reply).chain(unanswered) {
            let _ = reply.send(Err(failure.clone()));
        }
    }

    /// Why the conversation ended.
    pub(super) fn failure(&self) -> LinkError {
        self.state.lock().failure.clone().unwrap_or_else(LinkError::closed)
    }
}

fn chunks(
    frame: &Frame,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Vec<Bytes>, klamm_wire::framing::FramingError> {
    let header = encode_request_header(frame.api_key, frame.api_version, correlation_id, client_id);
    let mut head = BytesMut::with_capacity(4 + header.len());
    head.extend_from_slice(&length_prefix(header.len() + frame.len_bytes())?);
    head.extend_from_slice(&header);
    let mut chunks = Vec::with_capacity(1 + frame.body.len());
    chunks.push(head.freeze());
    chunks.extend(frame.body.iter().filter(|chunk| !chunk.is_empty()).cloned());
    Ok(chunks)
}
