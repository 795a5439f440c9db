//! What a stretch of the metadata log has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::{ConfigResource, Image};

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
    /// What a broker has to look at again when `after` takes the place of `before`, as a snapshot does.
    pub fn between(before: &Image, after: &Image) -> Self {
        let mut delta = Self::default();
        for topic in after.topics() {
            let old = before.topic_by_id(topic.id);
            let changed = topic.partitions.iter().filter(|(number, partition)| {
                old.and_then(|old| old.partitions.get(number)) != Some(partition)
            });
            delta.partitions.extend(changed.map(|(number, _)| (topic.id, *number)));
        }
        for gone in before.topics().filter(|topic| after.topic_by_id(topic.id).is_none()) {
            let (name, partitions) = (Arc::clone(&gone.name), gone.partitions.keys().copied().collect());
            delta.removed_topics.push(RemovedTopic { name, id: gone.id, partitions });
        }
        let brokers = before.brokers().keys().chain(after.brokers().keys());
        delta.brokers.extend(brokers.filter(|id| before.broker(**id) != after.broker(**id)));
        let resources = before.configs.keys().chain(after.configs.keys());
        let changed = resources.filter(|resource| before.configs(resource) != after.configs(resource));
        delta.configs.extend(changed.cloned());
        delta
    }

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
