//! The asking end of one conversation over a socket.
//!
//! In: requests. Out: their answers, in order and by correlation id; or one failure, for all that are under way.
//!
//! Invariant: an answer goes to the request that has waited longest, or the conversation is over. Dropping the link
//! closes the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::channel::mpsc as pipe;
use klamm_wire::codec::{decode_response_header, encode_request_header, peek_correlation_id};
use klamm_wire::framing::{FrameSplitter, FramingError, length_prefix};
use klamm_wire::seam::{BoxFuture, Frame, Link, LinkError};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tower_service::Service;

use crate::rt::Rt;

/// Chunks handed to one vectored write.
const SLICES: usize = 64;
/// Silence after which the operating system asks whether the other machine is still there, and how often it asks.
const PROBE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Lets the operating system notice that the other machine is gone, or was restarted, while nothing is sent.
pub(super) fn keep_alive<S: std::os::fd::AsFd>(socket: &S) -> io::Result<()> {
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE.0).with_interval(PROBE.1))
}

type Answer = Result<Frame, LinkError>;

struct Exchange {
    frame: Frame,
    reply: oneshot::Sender<Answer>,
}

struct Awaited {
    correlation_id: i32,
    api_key: i16,
    api_version: i16,
    reply: oneshot::Sender<Answer>,
}

/// What both directions know.
#[derive(Default)]
struct Shared {
    awaited: Mutex<VecDeque<Awaited>>,
    /// There is room in `awaited`.
    answered: Notify,
    failure: OnceLock<LinkError>,
}

impl Shared {
    fn failure(&self) -> LinkError {
        self.failure.get().cloned().unwrap_or_else(LinkError::closed)
    }
}

struct Socket {
    requests: pipe::Sender<Exchange>,
    shared: Arc<Shared>,
}

/// Opens a conversation over a connection: answers of at most `answer_bytes`, and at most `in_flight` requests that are
/// not answered, and as many that are not sent.
pub(super) fn open(
    rt: &Rt,
    stream: TcpStream,
    client_id: Option<Arc<str>>,
    answer_bytes: usize,
    in_flight: usize,
) -> Link {
    let (requests, taken) = pipe::channel(in_flight);
    let shared = Arc::new(Shared::default());
    let (read, write) = stream.into_split();
    let held = shared.clone();
    rt.spawn(async move {
        let splitter = FrameSplitter::new(answer_bytes);
        let failure = tokio::select! {
            biased;
            failure = write_requests(&held, taken, write, client_id.as_deref(), in_flight) => failure,
            failure = read_answers(&held, read, splitter) => failure,
        };
        // Before anybody is told: who waits looks for it.
        let _ = held.failure.set(failure);
        held.awaited.lock().clear();
    });
    Link::new(Socket { requests, shared })
}

impl Service<Frame> for Socket {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.requests.poll_ready(cx).map_err(|_| self.shared.failure())
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        let (reply, answered) = oneshot::channel();
        let sent = self.requests.start_send(Exchange { frame, reply });
        let shared = self.shared.clone();
        Box::pin(async move {
            sent.map_err(|_| shared.failure().before_sending())?;
            answered.await.unwrap_or_else(|_| Err(shared.failure()))
        })
    }
}

/// Sends requests until the link is dropped or the connection breaks.
async fn write_requests(
    shared: &Shared,
    mut requests: pipe::Receiver<Exchange>,
    mut write: OwnedWriteHalf,
    client_id: Option<&str>,
    in_flight: usize,
) -> LinkError {
    let mut correlation_id = 0_i32;
    loop {
        while shared.awaited.lock().len() >= in_flight {
            shared.answered.notified().await;
        }
        let Some(Exchange { frame, reply }) = requests.next().await else { return LinkError::closed() };
        let Frame { api_key, api_version, expects_reply, .. } = frame;
        let mut chunks = match chunks(frame, correlation_id, client_id) {
            Ok(chunks) => chunks,
            Err(error) => {
                let reason = format!("request cannot be sent: {error}");
                let _ = reply.send(Err(LinkError::Malformed { reason }.before_sending()));
                continue;
            }
        };
        let mut written = None;
        if expects_reply {
            shared.awaited.lock().push_back(Awaited { correlation_id, api_key, api_version, reply });
        } else {
            written = Some(reply);
        }
        correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        if let Err(cause) = write_chunks(&mut write, &mut chunks).await {
            return LinkError::Closed { cause: Some(Arc::new(cause)) };
        }
        if let Some(reply) = written {
            let _ = reply.send(Ok(Frame { api_key, api_version, body: Vec::new(), expects_reply }));
        }
    }
}

fn chunks(
    frame: Frame,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<VecDeque<Bytes>, FramingError> {
    let header = encode_request_header(frame.api_key, frame.api_version, correlation_id, client_id);
    let mut head = BytesMut::with_capacity(4 + header.len());
    head.extend_from_slice(&length_prefix(header.len() + frame.len_bytes())?);
    head.extend_from_slice(&header);
    let body = frame.body.into_iter().filter(|chunk| !chunk.is_empty());
    Ok(std::iter::once(head.freeze()).chain(body).collect())
}

async fn write_chunks(write: &mut OwnedWriteHalf, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !chunks.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let used = chunks.len().min(SLICES);
        for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
            *slice = IoSlice::new(chunk);
        }
        let mut written = write.write_vectored(&slices[..used]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = chunks.front_mut().filter(|_| written > 0) {
            let part = written.min(first.len());
            first.advance(part);
            written -= part;
            if first.is_empty() {
                chunks.pop_front();
            }
        }
    }
    Ok(())
}

/// Hands out answers until the connection breaks or one of them cannot be.
async fn read_answers(shared: &Shared, mut read: OwnedReadHalf, mut splitter: FrameSplitter) -> LinkError {
    loop {
        match read.read_buf(splitter.read_buffer()).await {
            Ok(0) if splitter.pending_bytes() > 0 => {
                let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "in the middle of an answer");
                return LinkError::Closed { cause: Some(Arc::new(cause)) };
            }
            Ok(0) => return LinkError::closed(),
            Ok(_) => {}
            Err(cause) => return LinkError::Closed { cause: Some(Arc::new(cause)) },
        }
        loop {
            match splitter.next_frame() {
                Ok(Some(answer)) => {
                    if let Err(reason) = hand_out(shared, answer) {
                        return LinkError::Malformed { reason };
                    }
                }
                Ok(None) => break,
                Err(error) => return LinkError::Malformed { reason: error.to_string() },
            }
        }
    }
}

fn hand_out(shared: &Shared, mut answer: Bytes) -> Result<(), String> {
    let told = peek_correlation_id(&answer)
        .ok_or_else(|| format!("an answer of {} B has no correlation id", answer.len()))?;
    let awaited = {
        let mut awaited = shared.awaited.lock();
        match awaited.front().map(|first| first.correlation_id) {
            Some(expected) if expected == told => awaited.pop_front(),
            Some(expected) => return Err(format!("answer with correlation id {told}, expected {expected}")),
            None => None,
        }
    };
    let Some(Awaited { api_key, api_version, reply, .. }) = awaited else {
        return Err(format!("an answer, with correlation id {told}, to nothing that was asked"));
    };
    shared.answered.notify_one();
    decode_response_header(api_key, api_version, &mut answer).map_err(|error| error.to_string())?;
    // A dropped receiver only means that this one answer is not wanted.
    let _ = reply.send(Ok(Frame::new(api_key, api_version, answer)));
    Ok(())
}
