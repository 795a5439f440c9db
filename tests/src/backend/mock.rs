//! klamm's scripted mock: no cluster, only answers.

use std::sync::Arc;

use super::{System, Unavailable};

/// The place for `klamm::MockConnector`: return a [`System`] whose clients are built with it and that answers
/// ApiVersions, Metadata, DescribeCluster, InitProducerId and Produce for any topic of three partitions.
pub(super) async fn start() -> Result<Arc<dyn System>, Unavailable> {
    Err(Unavailable::Missing("klamm has no mock in this build".to_owned()))
}
