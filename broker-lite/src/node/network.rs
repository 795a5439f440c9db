//! Who can be reached in this process, by id and by advertised address.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::seam::{Endpoint, Frame, Link, LinkError};
use parking_lot::Mutex;
use tower_service::Service;

use super::{Node, conversation};

/// The nodes that run at the moment.
#[derive(Debug, Default)]
pub(crate) struct Network {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<i32, Arc<Node>>,
    addresses: BTreeMap<(String, u16), i32>,
}

impl Network {
    /// Makes a node reachable under its id.
    pub(crate) fn attach(&self, node: Arc<Node>) {
        self.state.lock().nodes.insert(node.id, node);
    }

    /// Makes a node reachable under an address; it stays known while the node is down.
    pub(crate) fn name(&self, host: &str, port: u16, id: i32) {
        self.state.lock().addresses.insert((host.to_owned(), port), id);
    }

    /// Opens a conversation with a node by id.
    pub(crate) fn dial(&self, id: i32, name: &str) -> Result<Link, LinkError> {
        let node = self.node(id).ok_or_else(|| no_broker(Endpoint::new(format!("node-{id}"), 0)))?;
        Ok(conversation::open(&node, name))
    }

    /// A node that runs.
    pub(crate) fn node(&self, id: i32) -> Option<Arc<Node>> {
        self.state.lock().nodes.get(&id).filter(|node| !node.life.is_dead()).cloned()
    }

    /// Opens a conversation with the node that has this address.
    pub(crate) fn dial_endpoint(&self, endpoint: &Endpoint) -> Result<Link, LinkError> {
        let id = self.state.lock().addresses.get(&(endpoint.host.clone(), endpoint.port)).copied();
        let name = endpoint.client_id.as_deref().unwrap_or("in-process");
        id.and_then(|id| self.dial(id, name).ok()).ok_or_else(|| no_broker(endpoint.clone()))
    }

    /// One request over a conversation of its own.
    pub(crate) async fn call(&self, id: i32, name: &str, frame: Frame) -> Result<Frame, LinkError> {
        let mut link = self.dial(id, name)?;
        std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
        link.call(frame).await
    }
}

fn no_broker(endpoint: Endpoint) -> LinkError {
    LinkError::NoBroker { endpoint: Box::new(endpoint) }
}
