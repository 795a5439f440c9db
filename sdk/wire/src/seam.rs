//! The seam: the one thing that is swapped between a mock, broker-lite and Apache Kafka.
//!
//! ```text
//! Connector = Service<Endpoint, Response = Link>   opens a conversation with one broker
//! Link      = Service<Frame, Response = Frame>     request body in, response body out
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tower_service::Service;

/// A boxed future, as links and connectors return it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// One request or response body, without length prefix, header and correlation id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Kafka api key, for example 1 for Fetch.
    pub api_key: i16,
    /// Version both sides have agreed on for `api_key`.
    pub api_version: i16,
    /// Encoded body in order; a record batch is a chunk of its own, never copied.
    pub body: Vec<Bytes>,
    /// `false` only for Produce with acks=0: the broker sends nothing back and the response
    /// future resolves with an empty frame once the request is written.
    pub expects_reply: bool,
}

impl Frame {
    /// A frame that is answered, with its body in one piece.
    pub fn new(api_key: i16, api_version: i16, body: Bytes) -> Self {
        Self { api_key, api_version, body: vec![body], expects_reply: true }
    }

    /// Length of the body in bytes.
    pub fn len_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The body in one piece; copies only if it has more than one chunk.
    pub fn into_contiguous(mut self) -> Bytes {
        if self.body.len() == 1 {
            return self.body.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.len_bytes());
        for chunk in &self.body {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }
}

/// Where a broker is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Host name or address, without brackets: `broker.example.org`, `127.0.0.1`, `::1`.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `client.id` sent in every request header of this conversation.
    pub client_id: Option<Arc<str>>,
}

impl Endpoint {
    /// An endpoint without client id.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, client_id: None }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a conversation could not be opened, or ended.
///
/// Cheap to clone: every request in flight on a broken link gets its own copy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The host name has no address.
    #[error("cannot resolve {host}: {cause}")]
    Resolve {
        /// Name that was looked up.
        host: String,
        /// What the resolver said.
        cause: Arc<io::Error>,
    },
    /// No connection to this address.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// Address that was dialled.
        address: SocketAddr,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// A name has several addresses, and no connection to any of them.
    #[error("{}", .causes.iter().map(|(address, cause)| format!("cannot connect to {address}: {cause}")).collect::<Vec<_>>().join(", "))]
    ConnectAny {
        /// Every address that was dialled, in order, and what the operating system said.
        causes: Arc<[(SocketAddr, io::Error)]>,
    },
    /// No in-process broker has this address, or it is down.
    #[error("no broker listens at {endpoint}")]
    NoBroker {
        /// Address that was dialled.
        endpoint: Box<Endpoint>,
    },
    /// Nothing came of it in time.
    #[error("no {what} within {limit:?}")]
    TimedOut {
        /// `"connection"` or `"response"`.
        what: &'static str,
        /// Time waited.
        limit: Duration,
    },
    /// The peer closed the conversation, or it was closed on this side.
    #[error("connection closed{}", .cause.as_ref().map(|c| format!(": {c}")).unwrap_or_default())]
    Closed {
        /// What the operating system said, if anything.
        cause: Option<Arc<io::Error>>,
    },
    /// The request was refused before anything of it was sent, because the conversation had ended by then.
    #[error("not sent: {cause}")]
    NotSent {
        /// Why the conversation had ended.
        cause: Box<LinkError>,
    },
    /// This connector cannot work where it was called; dialling again is no better.
    #[error("{reason}")]
    Unusable {
        /// What is missing, and what to do.
        reason: &'static str,
    },
    /// The peer does not speak the protocol.
    #[error("malformed bytes from the broker: {reason}")]
    Malformed {
        /// What was wrong.
        reason: String,
    },
}

impl LinkError {
    /// A closed conversation without further cause.
    pub fn closed() -> Self {
        Self::Closed { cause: None }
    }

    /// The answer to a request that comes after the end of the conversation, which had this cause.
    #[must_use]
    pub fn before_sending(self) -> Self {
        Self::NotSent { cause: Box::new(self) }
    }
}

/// A live conversation with one broker.
///
/// * `poll_ready` is the in-flight limit: `Pending` means the pipe is full.
/// * Frames reach the broker in the order `call` was invoked.
/// * An error from `poll_ready` or a response is final: drop the link, dial again.
/// * Dropping a response future does not cancel the request.
/// * A frame with `expects_reply == false` resolves, with an empty body, when it is written.
pub struct Link(Box<dyn Conversation>);

trait Conversation: Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;
    fn call(&mut self, frame: Frame) -> BoxFuture<Result<Frame, LinkError>>;
}

struct Talk<S>(S);

impl<S> Conversation for Talk<S>
where
    S: Service<Frame, Response = Frame, Error = LinkError> + Send + 'static,
    S::Future: Send + 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> BoxFuture<Result<Frame, LinkError>> {
        Box::pin(self.0.call(frame))
    }
}

impl Link {
    /// Wraps a service. It must keep the promises above; the contract test checks them.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Frame, Response = Frame, Error = LinkError> + Send + 'static,
        S::Future: Send + 'static,
    {
        Self(Box::new(Talk(service)))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Service<Frame> for Link {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<Result<Frame, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        self.0.call(frame)
    }
}

/// Opens links: the single seam between the client and the outside world.
///
/// Implemented by every cloneable `Service<Endpoint, Response = Link>`; it cannot be implemented by hand.
pub trait Connector: sealed::Sealed {
    /// Erases the type, so that public client types carry no generics.
    fn erase(self) -> BoxConnector;
}

mod sealed {
    pub trait Sealed {}
}

impl<S> sealed::Sealed for S
where
    S: Service<Endpoint, Response = Link, Error = LinkError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
}

impl<S> Connector for S
where
    S: Service<Endpoint, Response = Link, Error = LinkError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn erase(self) -> BoxConnector {
        BoxConnector(Box::new(Dial(self)))
    }
}

/// Any [`Connector`], type-erased.
pub struct BoxConnector(Box<dyn Dialler>);

trait Dialler: Send + Sync {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;
    fn call(&mut self, endpoint: Endpoint) -> BoxFuture<Result<Link, LinkError>>;
    fn clone_box(&self) -> Box<dyn Dialler>;
}

#[derive(Clone)]
struct Dial<S>(S);

impl<S> Dialler for Dial<S>
where
    S: Service<Endpoint, Response = Link, Error = LinkError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> BoxFuture<Result<Link, LinkError>> {
        Box::pin(self.0.call(endpoint))
    }

    fn clone_box(&self) -> Box<dyn Dialler> {
        Box::new(self.clone())
    }
}

impl Clone for BoxConnector {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl fmt::Debug for BoxConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxConnector")
    }
}

impl Service<Endpoint> for BoxConnector {
    type Response = Link;
    type Error = LinkError;
    type Future = BoxFuture<Result<Link, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        self.0.call(endpoint)
    }
}
