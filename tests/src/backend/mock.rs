//! klamm's scripted mock: no cluster, only answers.

use std::sync::Arc;

use super::{System, Unavailable};

/// The place for `klamm::MockConnector`: a [`System`] whose clients are built with it and whose `invent_topic` adds the
/// topic to it. What it can do stands in [`super::KINDS`].
pub(super) async fn start() -> Result<Arc<dyn System>, Unavailable> {
    Err(Unavailable::Missing("klamm has no mock in this build".to_owned()))
}
