//! Conversations over TCP.
//!
//! In: an [`Endpoint`]. Out: a [`Link`]. The name is looked up at every dial, and its addresses are tried in
//! turn until one accepts.

mod link;
mod pipe;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use klamm_wire::seam::BoxFuture;
use klamm_wire::{Endpoint, Link, LinkError};
use tokio::net::{TcpSocket, TcpStream};
use tower::Service;

use crate::config::ClientSettings;
use crate::rt::Rt;

const SIMULATED: &str =
    "sockets do not work in virtual time; give the client the cluster's handle as its connector";
const NO_IO: &str = "the tokio runtime has no I/O: build it with `enable_io` or `enable_all`";

/// Opens conversations over TCP. Cheap to clone.
///
/// In a simulation, and in a runtime without I/O, dialling fails with [`LinkError::Unusable`], which says so.
#[derive(Debug, Clone)]
pub struct TcpConnector {
    options: Arc<Options>,
}

#[derive(Debug, Clone)]
struct Options {
    connect_timeout: Duration,
    send_buffer_bytes: Option<u32>,
    receive_buffer_bytes: Option<u32>,
    nodelay: bool,
    max_in_flight: usize,
    max_response_bytes: usize,
}

impl Default for TcpConnector {
    fn default() -> Self {
        let options = Options {
            connect_timeout: Duration::from_secs(10),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            nodelay: true,
            max_in_flight: 128,
            max_response_bytes: crate::config::DEFAULT_RESPONSE_LIMIT_BYTES,
        };
        Self { options: Arc::new(options) }
    }
}

impl TcpConnector {
    /// A connector with the defaults named at each method.
    pub fn new() -> Self {
        Self::default()
    }

    /// One as the settings of a client ask for.
    pub(crate) fn for_client(settings: &ClientSettings) -> Self {
        Self::new()
            .connect_timeout(settings.connection_setup_timeout)
            .send_buffer_bytes(settings.send_buffer_bytes)
            .receive_buffer_bytes(settings.receive_buffer_bytes)
            .max_response_bytes(settings.max_response_bytes)
    }

    /// Waits at most this long for one address to accept, then tries the next one
    /// (`socket.connection.setup.timeout.ms`). Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        Arc::make_mut(&mut self.options).connect_timeout = limit;
        self
    }

    /// Size of the socket's send buffer (`send.buffer.bytes`); `None`, the default, leaves it to the operating
    /// system, which adapts it to the connection.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: Option<usize>) -> Self {
        Arc::make_mut(&mut self.options).send_buffer_bytes = bytes.map(clamp);
        self
    }

    /// Size of the socket's receive buffer (`receive.buffer.bytes`); `None`, the default, leaves it to the
    /// operating system, which adapts it to the connection.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: Option<usize>) -> Self {
        Arc::make_mut(&mut self.options).receive_buffer_bytes = bytes.map(clamp);
        self
    }

    /// Sends small requests at once instead of waiting for more (`TCP_NODELAY`). Default: on.
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        Arc::make_mut(&mut self.options).nodelay = on;
        self
    }

    /// Requests in flight on one connection before a link says that it is not ready. Default: 128, at least 1.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        Arc::make_mut(&mut self.options).max_in_flight = requests.max(1);
        self
    }

    /// Closes a connection whose peer announces an answer larger than this. Default: 128 MiB, which holds the
    /// largest Fetch answer by default and still tells a peer that speaks HTTP or TLS from a broker.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.options).max_response_bytes = bytes;
        self
    }
}

fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Service<Endpoint> for TcpConnector {
    type Response = Link;
    type Error = LinkError;
    type Future = BoxFuture<Result<Link, LinkError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let options = self.options.clone();
        Box::pin(async move {
            let rt = Rt::current().map_err(|error| LinkError::Closed {
                cause: Some(Arc::new(io::Error::other(error.to_string()))),
            })?;
            let stream = dial(&rt, &options, &endpoint).await?;
            tracing::debug!(peer = %endpoint, "connected");
            Ok(Link::new(link::open(&rt, stream, &options, endpoint.client_id)))
        })
    }
}

async fn dial(rt: &Rt, options: &Options, endpoint: &Endpoint) -> Result<TcpStream, LinkError> {
    if rt.is_simulated() {
        return Err(LinkError::Unusable { reason: SIMULATED });
    }
    let unresolved =
        |cause: io::Error| LinkError::Resolve { host: endpoint.host.clone(), cause: Arc::new(cause) };
    let mut causes = Vec::new();
    for address in tokio::net::lookup_host((&*endpoint.host, endpoint.port)).await.map_err(unresolved)? {
        // tokio tells by a panic only that a runtime has no I/O.
        match AssertUnwindSafe(dial_one(rt, options, address)).catch_unwind().await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(cause)) => causes.push((address, cause)),
            Err(panic) if is_about_io(&*panic) => return Err(LinkError::Unusable { reason: NO_IO }),
            Err(panic) => resume_unwind(panic),
        }
    }
    match causes.len() {
        0 => Err(unresolved(io::Error::other("the name has no address"))),
        1 => Err(causes.into_iter().map(one_cause).next().unwrap_or_else(LinkError::closed)),
        _ => Err(LinkError::ConnectAny { causes: causes.into() }),
    }
}

fn is_about_io(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.is_some_and(|text| text.contains("IO is disabled"))
}

fn one_cause((address, cause): (SocketAddr, io::Error)) -> LinkError {
    LinkError::Connect { address, cause: Arc::new(cause) }
}

async fn dial_one(rt: &Rt, options: &Options, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_keepalive(true)?;
    let limit = options.connect_timeout;
    let stream = rt.before(rt.now() + limit, socket.connect(address)).await.ok_or_else(|| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"))
    })??;
    stream.set_nodelay(options.nodelay)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
