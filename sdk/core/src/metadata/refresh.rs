//! When to ask for metadata, and for what.

use std::sync::Arc;
use std::time::Duration;

use super::ClusterMetadata;

/// Settings of [`Refresh`].
#[derive(Debug, Clone)]
pub struct RefreshSettings {
    /// Snapshots older than this are replaced (`metadata.max.age.ms`).
    pub max_age: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {}

/// What the driver has to do, in the order emitted.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A new snapshot.
    Publish(Arc<ClusterMetadata>),
}

/// A Metadata request to be sent to any broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Topics to ask for.
    pub topics: Vec<Arc<str>>,
    /// Whether the broker may create the ones that do not exist.
    pub allow_auto_create: bool,
}

/// Decides when to ask for metadata, and merges the answers.
#[derive(Debug)]
pub struct Refresh {}
