//! The two tasks of one TCP conversation: a writer that sends several requests at once, and a reader.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use klamm_wire::framing::{FrameSplitter, FramingError};
use klamm_wire::seam::BoxFuture;
use klamm_wire::{Frame, LinkError};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tower::Service;

use super::Options;
use super::pipe::Pipe;
use crate::rt::{Rt, Task};

/// Chunks handed to the socket at once.
const SLICES: usize = 64;

/// One TCP conversation; dropping it closes the connection.
pub(super) struct TcpLink {
    pipe: Arc<Pipe>,
    _tasks: [Task; 2],
}

pub(super) fn open(rt: &Rt, stream: TcpStream, options: &Options, client_id: Option<Arc<str>>) -> TcpLink {
    let pipe = Arc::new(Pipe::new(options.max_in_flight, client_id));
    let (reader, writer) = stream.into_split();
    let splitter = FrameSplitter::new(options.max_response_bytes).recycling();
    let tasks = [
        rt.spawn(run(pipe.clone(), write(pipe.clone(), writer))),
        rt.spawn(run(pipe.clone(), read(pipe.clone(), reader, splitter))),
    ];
    TcpLink { pipe, _tasks: tasks }
}

impl Service<Frame> for TcpLink {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<Result<Frame, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.pipe.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        let answer = self.pipe.send(&frame);
        let pipe = self.pipe.clone();
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(pipe.failure())) })
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.pipe.fail(&LinkError::closed());
    }
}

/// Runs one direction; its end is the end of the conversation.
async fn run(pipe: Arc<Pipe>, direction: impl Future<Output = LinkError>) {
    let failure = direction.await;
    tracing::debug!(cause = %failure, "conversation ended");
    pipe.fail(&failure);
}

async fn write(pipe: Arc<Pipe>, mut writer: OwnedWriteHalf) -> LinkError {
    loop {
        pipe.work.notified().await;
        let mut outgoing = pipe.take_outgoing();
        // Moved, and let go of as soon as they are written: whoever sent them wants their memory back.
        let chunks = outgoing.iter_mut().flat_map(|outgoing| std::mem::take(&mut outgoing.chunks)).collect();
        if let Err(cause) = write_chunks(&mut writer, chunks).await {
            return LinkError::Closed { cause: Some(Arc::new(cause)) };
        }
        pipe.written(outgoing);
    }
}

/// Writes all chunks, as many as possible by one call of the operating system.
async fn write_chunks(writer: &mut (impl AsyncWrite + Unpin), mut chunks: VecDeque<Bytes>) -> io::Result<()> {
    while !chunks.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = chunks.iter().zip(&mut slices).map(|(chunk, slice)| *slice = IoSlice::new(chunk));
        let filled = filled.count();
        let mut written = writer.write_vectored(&slices[..filled]).await?;
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

async fn read(pipe: Arc<Pipe>, mut reader: OwnedReadHalf, mut splitter: FrameSplitter) -> LinkError {
    loop {
        match reader.read_buf(splitter.read_buffer()).await {
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
                Ok(Some(frame)) => {
                    if let Err(failure) = pipe.received(frame) {
                        return failure;
                    }
                }
                Ok(None) => break,
                // What HTTP and TLS say first reads as a huge length.
                Err(error @ FramingError::TooLarge { .. }) => {
                    let reason = format!("{error}; is this a Kafka listener without TLS?");
                    return LinkError::Malformed { reason };
                }
                Err(error) => return LinkError::Malformed { reason: error.to_string() },
            }
        }
    }
}
