//! What the metadata log says about leaders, kept for whoever embeds the cluster.
//!
//! In: every committed record, in order. Out: the journal of leaders, and waits on the state.

use std::collections::BTreeMap;

use broker_lite_core::metadata::{Delta, Image, MetadataRecord};
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::cluster::LeaderChange;
use crate::rt::Tick;

/// An observer of the metadata log.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    leaders: BTreeMap<(Uuid, i32), (Option<i32>, i32)>,
    events: Vec<LeaderChange>,
    node_events: Vec<(Tick, i32, NodeEvent)>,
    truncations: usize,
}

/// Most node events kept.
const NODE_EVENTS: usize = 100_000;

/// Something that was done to a node, or that it has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeEvent {
    /// Its process was killed.
    Killed,
    /// It lost power.
    PoweredOff,
    /// It was shut down in order.
    ShutDown,
    /// It was stopped, with its connections open.
    Paused,
    /// It goes on.
    Resumed,
    /// A new process of it was started.
    Started,
    /// Its disk failed, and it has ended by that.
    DiskFailed {
        /// What the disk said.
        cause: String,
    },
    /// One of its replicas gave up the end of its log.
    Truncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset at which the log ends now.
        to: i64,
    },
}

impl Journal {
    /// Takes committed records.
    pub(crate) fn note(&self, at: Tick, records: &[MetadataRecord]) {
        {
            let mut state = self.state.lock();
            let mut delta = Delta::default();
            for record in records {
                if let Err(error) = state.image.apply(record, &mut delta) {
                    tracing::error!(%error, "journal cannot follow the metadata");
                }
            }
            state.compare(at, &delta);
        }
        self.changed.notify_waiters();
    }

    /// How often a log was truncated.
    pub(crate) fn truncations(&self) -> usize {
        self.state.lock().truncations
    }

    /// Looks at the metadata.
    pub(crate) fn image<R>(&self, look: impl FnOnce(&Image) -> R) -> R {
        look(&self.state.lock().image)
    }

    /// Every change of a leader so far.
    pub(crate) fn events(&self) -> Vec<LeaderChange> {
        self.state.lock().events.clone()
    }

    /// Takes what happened to a node; nothing more once there are very many.
    pub(crate) fn node_event(&self, at: Tick, node: i32, event: NodeEvent) {
        let mut state = self.state.lock();
        state.truncations += usize::from(matches!(event, NodeEvent::Truncated { .. }));
        if state.node_events.len() < NODE_EVENTS {
            state.node_events.push((at, node, event));
        }
    }

    /// What happened to nodes so far.
    #[cfg(test)]
    pub(crate) fn node_events(&self) -> Vec<(Tick, i32, NodeEvent)> {
        self.state.lock().node_events.clone()
    }

    /// How many of them replaced a leader.
    pub(crate) fn elections(&self) -> usize {
        let state = self.state.lock();
        state.events.iter().filter(|event| event.leader.is_some() && event.leader_epoch > 0).count()
    }

    /// Waits until `found` finds something in the metadata.
    pub(crate) async fn until<R>(&self, mut found: impl FnMut(&Image) -> Option<R>) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(result) = self.image(&mut found) {
                return result;
            }
            changed.await;
        }
    }
}

impl State {
    fn compare(&mut self, at: Tick, delta: &Delta) {
        for key in &delta.partitions {
            let (Some(topic), Some(now)) =
                (self.image.topic_by_id(key.0), self.image.partition(key.0, key.1))
            else {
                continue;
            };
            let current = (now.leader, now.leader_epoch);
            let before = self.leaders.insert(*key, current);
            if before == Some(current) {
                continue;
            }
            self.events.push(LeaderChange {
                topic: topic.name.to_string(),
                topic_id: key.0,
                partition: key.1,
                leader: now.leader,
                previous: before.and_then(|(leader, _)| leader),
                leader_epoch: now.leader_epoch,
                at,
            });
        }
    }
}
