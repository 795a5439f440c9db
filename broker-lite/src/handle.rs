//! The in-process connector: same encoding, same dispatch, same order as over TCP.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use klamm_wire::seam::{BoxFuture, Endpoint, Link, LinkError};
use tower_service::Service;

use crate::node::Network;

/// Opens conversations with the brokers of one [`Cluster`](crate::Cluster) inside this process.
///
/// Give it to a client as its connector. Addresses are those of
/// [`Cluster::bootstrap`](crate::Cluster::bootstrap). A broker that is down refuses; conversations
/// with a broker that is killed end with an error. Towards faults and rules a client is known by
/// [`Endpoint::client_id`].
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Network>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Service<Endpoint> for Handle {
    type Response = Link;
    type Error = LinkError;
    type Future = BoxFuture<Result<Link, LinkError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let network = self.0.clone();
        Box::pin(async move { network.dial_endpoint(&endpoint).await })
    }
}
