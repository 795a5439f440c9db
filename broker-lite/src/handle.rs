//! The in-process connector: same encoding, same dispatch, same order as over TCP.

use std::task::{Context, Poll};

use klamm_wire::seam::{BoxFuture, Endpoint, Link, LinkError};
use tower_service::Service;

/// Opens conversations with the brokers of one [`Cluster`](crate::Cluster) inside this process.
///
/// Give it to a client as its connector. Addresses are those of
/// [`Cluster::bootstrap`](crate::Cluster::bootstrap).
#[derive(Debug, Clone)]
pub struct Handle {}

impl Service<Endpoint> for Handle {
    type Response = Link;
    type Error = LinkError;
    type Future = BoxFuture<Result<Link, LinkError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _endpoint: Endpoint) -> Self::Future {
        unimplemented!()
    }
}
