//! Conversations with nodes of other processes, over TCP.
//!
//! In: where voters and brokers are, and dials. Out: links that keep the same promises as those within a process.
//!
//! ```text
//! dial ─▶ back-off ─▶ connect, each address of the name ─▶ ApiVersions: is it the node meant? ─▶ Link
//! call ─▶ the one lasting link of this purpose ─▶ answer within its limit, or the link is given up
//! ```
//!
//! Invariant: a peer that is silent, slow or not Kafka costs a bounded time and a bounded memory.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_wire::seam::{Endpoint, Frame, Link, LinkError};
use klamm_wire::{ErrorCode, StrBytes};
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};
use tower_service::Service;

use super::Party;
use super::socket;
use crate::rt::{Rt, Tick};

/// First pause after a node could not be reached; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Version of ApiVersions that every broker-lite and every Kafka of today answers.
const API_VERSIONS: i16 = 3;
/// What only a listener of that kind offers.
const PRODUCE: i16 = 0;
const BROKER_REGISTRATION: i16 = 62;

/// Which of a node's listeners is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Broker,
    Controller,
}

impl Listener {
    fn telling_api(self) -> i16 {
        match self {
            Self::Broker => PRODUCE,
            Self::Controller => BROKER_REGISTRATION,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Broker => "a broker's listener",
            Self::Controller => "a controller's listener",
        }
    }
}

/// Bounds of conversations with other processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one address to accept (`socket.connection.setup.timeout.ms`), and for the first answer.
    pub(crate) connect: Duration,
    /// Longest pause between two attempts.
    pub(crate) pause: Duration,
    /// Largest answer.
    pub(crate) answer_bytes: usize,
    /// Requests of one conversation that may be unanswered.
    pub(crate) in_flight: usize,
}

/// Whom requests go to, and what for.
type Purpose = (Party, Arc<str>);

/// The nodes of other processes.
#[derive(Debug)]
pub(crate) struct Remotes {
    rt: Rt,
    /// The node that dials.
    me: i32,
    patience: Patience,
    peers: Mutex<BTreeMap<Party, Peer>>,
    lasting: Mutex<BTreeMap<Purpose, Arc<Lasting>>>,
}

#[derive(Debug)]
struct Peer {
    endpoint: Endpoint,
    listener: Listener,
    not_before: Tick,
    pause: Duration,
    /// Why it could not be reached when that was last tried.
    trouble: Option<String>,
}

/// The link that requests of one purpose share.
#[derive(Debug, Default)]
struct Lasting {
    /// Held while dialling, so that requests of one purpose share the attempt, and stay in order.
    link: tokio::sync::Mutex<Option<(u64, Link)>>,
}

impl Remotes {
    /// Nobody yet.
    pub(crate) fn new(rt: Rt, me: i32, patience: Patience) -> Self {
        Self { rt, me, patience, peers: Mutex::default(), lasting: Mutex::default() }
    }

    /// Says where a node listens, from now on.
    pub(crate) fn set(&self, party: &Party, listener: Listener, endpoint: Endpoint) {
        let mut peers = self.peers.lock();
        if peers.get(party).is_some_and(|known| known.endpoint == endpoint && known.listener == listener) {
            return;
        }
        let peer = Peer { endpoint, listener, not_before: Tick::ZERO, pause: FIRST_PAUSE, trouble: None };
        peers.insert(party.clone(), peer);
        drop(peers);
        // What is open leads to the place where it was.
        self.lasting.lock().retain(|(of, _), _| of != party);
    }

    /// Whether it is known where the node listens.
    pub(crate) fn knows(&self, party: &Party) -> bool {
        self.peers.lock().contains_key(party)
    }

    /// Where a node listens, if that is known.
    pub(crate) fn endpoint(&self, party: &Party) -> Option<Endpoint> {
        self.peers.lock().get(party).map(|peer| peer.endpoint.clone())
    }

    /// Opens a conversation for this purpose; the peer is told it in the client id, `node ID: PURPOSE`. Waits out the pause
    /// after a failure.
    pub(crate) async fn dial(&self, party: &Party, purpose: &str) -> Result<Link, LinkError> {
        let (endpoint, listener, not_before) = {
            let peers = self.peers.lock();
            let peer = peers.get(party).ok_or_else(|| unknown(party))?;
            (
                Endpoint {
                    client_id: Some(format!("node {}: {purpose}", self.me).into()),
                    ..peer.endpoint.clone()
                },
                peer.listener,
                peer.not_before,
            )
        };
        if not_before > self.rt.now() {
            self.rt.sleep_until(not_before).await;
        }
        let opened = self.open(&endpoint, listener).await;
        self.note(party, &endpoint, opened.as_ref().err());
        opened
    }

    /// Remembers how an attempt ended, and says so where that is news.
    fn note(&self, party: &Party, endpoint: &Endpoint, failure: Option<&LinkError>) {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.get_mut(party) else { return };
        match failure {
            None => {
                (peer.not_before, peer.pause) = (Tick::ZERO, FIRST_PAUSE);
                if peer.trouble.take().is_some() {
                    tracing::info!(%party, %endpoint, "reached again");
                }
            }
            Some(error) => {
                peer.not_before = self.rt.now() + peer.pause;
                peer.pause = (peer.pause * 2).min(self.patience.pause);
                if peer.trouble.replace(error.to_string()).is_none() {
                    tracing::warn!(%party, %endpoint, %error, "cannot be reached; tries on");
                }
            }
        }
    }

    /// Those that could not be reached when that was last tried, and why.
    pub(crate) fn unreachable(&self) -> Vec<String> {
        let peers = self.peers.lock();
        let told = |(party, peer): (&Party, &Peer)| {
            peer.trouble.as_ref().map(|trouble| format!("{party} at {}: {trouble}", peer.endpoint))
        };
        peers.iter().filter_map(told).collect()
    }

    async fn open(&self, endpoint: &Endpoint, listener: Listener) -> Result<Link, LinkError> {
        let stream = connect(&self.rt, endpoint, self.patience.connect).await?;
        let Patience { answer_bytes, in_flight, connect: limit, .. } = self.patience;
        let mut link = socket::open(&self.rt, stream, endpoint.client_id.clone(), answer_bytes, in_flight);
        let asked = ask(&mut link);
        let answer = tokio::select! {
            biased;
            answer = asked => answer?,
            () = self.rt.sleep(limit) => return Err(LinkError::TimedOut { what: "response", limit }),
        };
        check(endpoint, listener, &answer)?;
        tracing::debug!(peer = %endpoint, purpose = endpoint.client_id.as_deref(), "connected");
        Ok(link)
    }

    /// One request over the lasting conversation of this purpose, answered within `limit`. After an error, a time-out among
    /// them, the conversation is over, also for what else is under way on it.
    pub(crate) async fn call(
        &self,
        party: &Party,
        purpose: &str,
        limit: Duration,
        frame: Frame,
    ) -> Result<Frame, LinkError> {
        let lasting = {
            let mut lasting = self.lasting.lock();
            lasting.entry((party.clone(), Arc::from(purpose))).or_default().clone()
        };
        let mut used = None;
        let answer = async {
            let answer = {
                let mut held = lasting.link.lock().await;
                let fresh = match &mut *held {
                    // One that broke while nobody asked says so now, before anything is lost on it.
                    Some((_, link)) => std::future::poll_fn(|cx| link.poll_ready(cx)).await.is_err(),
                    None => true,
                };
                if fresh {
                    let number = held.take().map_or(0, |(number, _)| number + 1);
                    let mut link = self.dial(party, purpose).await?;
                    std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
                    *held = Some((number, link));
                }
                let Some((number, link)) = &mut *held else { return Err(LinkError::closed()) };
                used = Some(*number);
                link.call(frame)
            };
            answer.await
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = self.rt.sleep(limit) => Err(LinkError::TimedOut { what: "response", limit }),
        };
        if answer.is_err() && used.is_some() {
            let mut held = lasting.link.lock().await;
            if held.as_ref().map(|(number, _)| *number) == used {
                *held = None;
            }
        }
        answer
    }
}

fn unknown(party: &Party) -> LinkError {
    LinkError::NoBroker { endpoint: Box::new(Endpoint::new(party.to_string(), 0)) }
}

async fn ask(link: &mut Link) -> Result<ApiVersionsResponse, LinkError> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("broker-lite"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    let malformed = |reason: String| LinkError::Malformed { reason };
    let frame = encode_request(API_VERSIONS, &request).map_err(|error| malformed(error.to_string()))?;
    std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
    let answer = link.call(frame).await?;
    decode_response::<ApiVersionsRequest>(answer).map_err(|error| malformed(error.to_string()))
}

/// Whether the listener is one of those meant.
fn check(endpoint: &Endpoint, listener: Listener, answer: &ApiVersionsResponse) -> Result<(), LinkError> {
    let refused = ErrorCode(answer.error_code);
    if !refused.is_ok() {
        return Err(LinkError::Malformed {
            reason: format!("{endpoint} refuses ApiVersions with {refused}"),
        });
    }
    if answer.api_keys.iter().any(|offered| offered.api_key == listener.telling_api()) {
        return Ok(());
    }
    Err(LinkError::Malformed { reason: format!("what listens at {endpoint} is not {}", listener.name()) })
}

/// Connects to the first address of the name that accepts.
async fn connect(rt: &Rt, endpoint: &Endpoint, limit: Duration) -> Result<TcpStream, LinkError> {
    let unresolved =
        |cause: io::Error| LinkError::Resolve { host: endpoint.host.clone(), cause: Arc::new(cause) };
    let found = tokio::select! {
        biased;
        found = tokio::net::lookup_host((&*endpoint.host, endpoint.port)) => found.map_err(unresolved)?,
        () = rt.sleep(limit) => return Err(LinkError::TimedOut { what: "connection", limit }),
    };
    let mut causes = Vec::new();
    for address in found {
        let connected = tokio::select! {
            biased;
            connected = connect_to(address) => connected,
            () = rt.sleep(limit) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
            }
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(cause) => causes.push((address, cause)),
        }
    }
    if causes.len() > 1 {
        return Err(LinkError::ConnectAny { causes: causes.into() });
    }
    let one = causes.pop().map(|(address, cause)| LinkError::Connect { address, cause: Arc::new(cause) });
    Err(one.unwrap_or_else(|| unresolved(io::Error::other("the name has no address"))))
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket::keep_alive(&socket)?;
    let stream = socket.connect(address).await?;
    // Where nobody listens at a port of this machine, the system may have chosen that port for this end, too: the
    // connection would lead to itself, and keep the node from listening there again.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
