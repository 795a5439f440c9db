//! What controller and brokers have in common: a life, conversations, and a name in the network.

mod conditions;
mod conversation;
mod lane;
mod life;
mod network;
mod party;
mod remote;
mod server;
mod socket;
mod tap;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use klamm_wire::seam::Frame;

pub(crate) use conditions::{Between, Trouble};
pub(crate) use conversation::{Answer, Peer, Pending, Reply};
pub(crate) use life::{Life, Owed};
pub(crate) use network::Network;
pub use party::{Party, Side};
pub(crate) use remote::{Listener, Patience, Remotes};
pub(crate) use server::{Listening, converse, serve};
#[cfg(any(test, feature = "sim"))]
pub(crate) use tap::{Carried, Tap};

use crate::broker::Broker;
use crate::controller::ControllerNode;
use crate::rt::Rt;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const JOIN_GROUP: i16 = 11;
const SYNC_GROUP: i16 = 14;

/// Bounds of a node towards its clients, with Kafka's setting in parentheses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest request (`socket.request.max.bytes`).
    pub(crate) request_bytes: usize,
    /// Requests of one connection that may be unanswered; Kafka has a bound for all together
    /// (`queued.max.requests`), of which this is one connection's share.
    pub(crate) requests_in_progress: usize,
    /// Connections open at a time (`max.connections`).
    pub(crate) connections: usize,
    /// Silence after which a connection is closed (`connections.max.idle.ms`).
    pub(crate) idle: Duration,
}

/// What a node is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// Holds partitions.
    Broker(Arc<Broker>),
    /// Holds the metadata.
    Controller(Arc<ControllerNode>),
}

/// One incarnation of one node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) rt: Rt,
    pub(crate) life: Arc<Life>,
    pub(crate) network: Arc<Network>,
    pub(crate) limits: Limits,
    pub(crate) role: Role,
}

impl Node {
    /// Its name in the network.
    pub(crate) fn party(&self) -> Party {
        match &self.role {
            Role::Broker(_) => Party::Node(self.id),
            Role::Controller(_) => Party::Controller(self.id),
        }
    }

    /// Takes in one request; everything that must happen in order of arrival happens here.
    pub(crate) fn take_in<T>(&self, frame: Frame, peer: &Peer, to: T) -> Pending<T> {
        let (api_key, api_version) = (frame.api_key, frame.api_version);
        let answer = match &self.role {
            Role::Broker(broker) => crate::api::broker(broker, frame, peer),
            Role::Controller(controller) => crate::api::controller(controller, frame),
        };
        let answer = answer.unwrap_or_else(|refusal| {
            tracing::info!(node = self.id, peer = %peer.name, api_key, api_version, %refusal, "closing connection");
            Answer::Now(Reply::Close)
        });
        let owes = api_key == PRODUCE && !matches!(answer, Answer::Now(Reply::Nothing | Reply::Close));
        let owed = owes.then(|| self.life.produce_arrived());
        Pending {
            answer,
            owed,
            abandonable: matches!(api_key, FETCH | JOIN_GROUP | SYNC_GROUP),
            noted: None,
            to,
        }
    }
}
