//! What a stretch of the metadata log has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::ConfigResource;

/// A topic that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedTopic {
    /// Name it had.
    pub name: Arc<str>,
    /// Its id.
    pub id: Uuid,
    /// Partitions it had.
    pub partitions: Vec<i32>,
}

/// What changed, so that a broker looks again at nothing else.
///
/// Collect one over every batch of a fetch, then act on it with the image as it is after the last.
/// A partition of a removed topic is never in `partitions`; a topic that came and went is in `removed_topics`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Partitions that were created or changed.
    pub partitions: BTreeSet<(Uuid, i32)>,
    /// Topics that were removed.
    pub removed_topics: Vec<RemovedTopic>,
    /// Brokers that registered, left, or changed: fenced, unfenced, new epoch.
    pub brokers: BTreeSet<i32>,
    /// Resources whose settings changed.
    pub configs: BTreeSet<ConfigResource>,
}

impl Delta {
    /// Whether nothing changed that a broker acts on.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    pub(super) fn remove_topic(&mut self, removed: RemovedTopic) {
        self.partitions.retain(|(id, _)| *id != removed.id);
        self.configs.remove(&ConfigResource::Topic(removed.name.to_string()));
        self.removed_topics.push(removed);
    }
}
