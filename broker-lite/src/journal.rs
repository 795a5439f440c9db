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

    /// Looks at the metadata.
    pub(crate) fn image<R>(&self, look: impl FnOnce(&Image) -> R) -> R {
        look(&self.state.lock().image)
    }

    /// Every change of a leader so far.
    pub(crate) fn events(&self) -> Vec<LeaderChange> {
        self.state.lock().events.clone()
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
