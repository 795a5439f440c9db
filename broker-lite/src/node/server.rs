//! The TCP front door of one node.
//!
//! In: bytes from anyone. Out: the same dispatch as in process, or a closed connection and one
//! log line. Memory follows the bytes that came, never the length claimed.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use klamm_wire::codec::{decode_request_header, encode_response_header};
use klamm_wire::framing::{FrameSplitter, length_prefix};
use klamm_wire::seam::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::conversation::{Conversation, Dues, Inlet, Outlet, Peer};
use super::tap::Carried;
use super::{Node, Owed};

/// Pause after `accept` failed, mostly because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Chunks handed to one vectored write.
const SLICES: usize = 64;

/// What comes from a client, whatever carries it.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// What goes to a client.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A bound port that nobody serves yet.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listening {
    /// Binds a port; 0 means any free one.
    pub(crate) async fn bind(host: &str, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((host, port)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// Accepts connections for as long as the node lives.
pub(crate) async fn serve(node: Arc<Node>, listening: Listening) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listening.listener.accept().await {
            Ok((stream, address)) => admit(&node, &open, stream, address),
            Err(error) => {
                tracing::warn!(node = node.id, %error, "cannot accept a connection");
                node.rt.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(node: &Arc<Node>, open: &Arc<AtomicUsize>, stream: TcpStream, address: SocketAddr) {
    let slot = Slot(open.clone());
    if open.fetch_add(1, Ordering::Relaxed) >= node.limits.connections {
        tracing::info!(node = node.id, peer = %address, limit = node.limits.connections, "too many connections");
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(node = node.id, peer = %address, %error, "cannot set TCP_NODELAY");
    }
    let held = node.clone();
    node.life.spawn(async move {
        let (read, write) = stream.into_split();
        converse(held, Box::new(read), Box::new(write), address.to_string()).await;
        drop(slot);
    });
}

/// One of the connections that may be open.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one client until it or the node is gone.
pub(crate) async fn converse(node: Arc<Node>, read: ReadHalf, write: WriteHalf, name: String) {
    let splitter = FrameSplitter::new(node.limits.request_bytes);
    let inlet = SocketIn { node: node.clone(), read, splitter };
    let outlet = SocketOut { node: node.clone(), write };
    let peer = Peer::stranger(name);
    node.network.tell(node.network.watched(), peer.party(), &node.party(), Carried::Dial);
    Conversation::new(node, peer).hold(inlet, outlet).await;
}

/// Why a connection is closed from this side.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Framing(#[from] klamm_wire::framing::FramingError),
    #[error("{0}")]
    Header(#[from] klamm_wire::codec::CodecError),
    #[error("stream ends within a frame, after {0} B of it")]
    Truncated(usize),
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("idle for {0:?}")]
    Idle(Duration),
}

struct SocketIn {
    node: Arc<Node>,
    read: ReadHalf,
    splitter: FrameSplitter,
}

impl Inlet for SocketIn {
    type To = i32;
    type End = End;

    async fn next(&mut self, peer: &Peer, dues: Dues<'_, i32>) -> Result<Option<(Frame, i32)>, End> {
        let Self { node, read, splitter } = self;
        loop {
            if let Some(mut body) = splitter.next_frame()? {
                let head = decode_request_header(&mut body)?;
                peer.introduce(head.client_id.as_deref());
                let frame = Frame::new(head.api_key, head.api_version, body);
                return Ok(Some((frame, head.correlation_id)));
            }
            let came = tokio::select! {
                biased;
                came = read.read_buf(splitter.read_buffer()) => came?,
                () = idle(node, &dues) => return Err(End::Idle(node.limits.idle)),
            };
            if came == 0 {
                return match splitter.pending_bytes() {
                    0 => Ok(None),
                    cut => Err(End::Truncated(cut)),
                };
            }
        }
    }
}

/// Ends once nothing was asked for the time allowed and nothing is due.
async fn idle(node: &Node, dues: &Dues<'_, i32>) {
    loop {
        node.rt.sleep(node.limits.idle).await;
        if dues.are_none() {
            return;
        }
    }
}

struct SocketOut {
    node: Arc<Node>,
    write: WriteHalf,
}

impl Outlet for SocketOut {
    type To = i32;

    async fn deliver(&mut self, frame: Frame, owed: Option<Owed>, correlation_id: i32) -> bool {
        let header = encode_response_header(frame.api_key, frame.api_version, correlation_id);
        let Ok(prefix) = length_prefix(header.len() + frame.len_bytes()) else {
            tracing::warn!(node = self.node.id, api_key = frame.api_key, "answer too large to be sent");
            return false;
        };
        if self.node.life.answer(owed, || ()).is_none() {
            return false;
        }
        let mut chunks = Vec::with_capacity(2 + frame.body.len());
        chunks.push(Bytes::from([&prefix[..], &header].concat()));
        chunks.extend(frame.body.into_iter().filter(|chunk| !chunk.is_empty()));
        match write_all_vectored(&self.node, &mut self.write, &mut chunks).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(node = self.node.id, %error, "client does not take its answer");
                false
            }
        }
    }
}

/// Writes everything; gives up on a client that takes nothing for as long as it may be idle.
async fn write_all_vectored(node: &Node, write: &mut WriteHalf, chunks: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while first < chunks.len() {
        let mut written = {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = chunks[first..].len().min(SLICES);
            for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
                *slice = IoSlice::new(chunk);
            }
            tokio::select! {
                biased;
                written = write.write_vectored(&slices[..used]) => written?,
                () = node.rt.sleep(node.limits.idle) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < chunks.len() && written >= chunks[first].len() {
            written -= chunks[first].len();
            first += 1;
        }
        if let Some(chunk) = chunks.get_mut(first) {
            chunk.advance(written);
        }
    }
    Ok(())
}
