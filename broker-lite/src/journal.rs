//! What happened in a cluster, kept for whoever embeds it.
//!
//! In: every committed batch, in order, from whichever controller learns of the commit first. Out: the journal of events, and waits on it and on the state.
//!
//! Invariant: an event is in the journal before anybody can see the state that it led to.

mod event;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_lite_core::metadata::{Delta, Image, METADATA_TOPIC, METADATA_TOPIC_ID, MetadataRecord};
use klamm_wire::RawBatch;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::cluster::LeaderChange;
use crate::rt::Tick;

pub use event::{Event, NodeEvent};
pub use requests::{Ending, RequestEntry, RequestJournal};
pub(crate) use requests::{Noted, Recording};

/// Events kept; older ones are given up.
const EVENTS_KEPT: usize = 100_000;
/// Epochs of the metadata quorum of which it is known who was elected.
const EPOCHS_KEPT: usize = 10_000;

/// Most bytes a batch of the log may have when decompressed.
const BATCH_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// An observer of the metadata log.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    seen: Seen,
    events: VecDeque<Event>,
    /// Number of the first event that is kept.
    first: u64,
    elections: usize,
    truncations: usize,
    /// Who was elected to lead the metadata quorum in which epoch: voters, and which of their processes.
    elected: BTreeMap<i32, BTreeSet<(i32, u32)>>,
}

/// What the journal has told of, to tell of changes only.
#[derive(Debug, Default)]
struct Seen {
    partitions: BTreeMap<(Uuid, i32), Partition>,
    /// Epoch of the registration, and whether the broker is fenced.
    brokers: BTreeMap<i32, (i64, bool)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Partition {
    leader: Option<i32>,
    leader_epoch: i32,
    isr: Vec<i32>,
}

impl Journal {
    /// Takes a batch that is committed; what is known of it already is skipped.
    pub(crate) fn note(&self, at: Tick, batch: &RawBatch) {
        {
            let mut state = self.state.lock();
            let known = state.image.next_offset();
            if batch.header().next_offset() <= known {
                return;
            }
            if let Err(error) = state.note(at, batch) {
                tracing::error!(error, "journal cannot follow the metadata");
            }
        }
        self.changed.notify_waiters();
    }

    /// Begins with what a metadata log on disk adds up to, of which nothing is told.
    pub(crate) fn restore(&self, image: Image) {
        let mut state = self.state.lock();
        let mut delta = Delta::default();
        for topic in image.topics() {
            delta.partitions.extend(topic.partitions.keys().map(|number| (topic.id, *number)));
        }
        delta.brokers.extend(image.brokers().keys());
        state.image = image;
        state.compare(Tick::ZERO, &delta);
        state.events.clear();
        (state.first, state.elections) = (0, 0);
    }

    /// Takes that somebody has become the active controller.
    pub(crate) fn controller(&self, at: Tick, controller: i32, epoch: i32) {
        self.state.lock().push(Event::ControllerElected { at, controller, epoch });
        self.changed.notify_waiters();
    }

    /// Takes that a voter's process, committed or not, leads from now on.
    pub(crate) fn elected(&self, epoch: i32, process: (i32, u32)) {
        let elected = &mut self.state.lock().elected;
        elected.entry(epoch).or_default().insert(process);
        if elected.len() > EPOCHS_KEPT {
            elected.pop_first();
        }
    }

    /// The latest epoch in which somebody was elected, and those in which several processes were, with the voters.
    pub(crate) fn disputed(&self) -> (Option<i32>, Vec<(i32, Vec<i32>)>) {
        let elected = &self.state.lock().elected;
        let several = elected.iter().filter(|(_, processes)| processes.len() > 1);
        let voters = |processes: &BTreeSet<(i32, u32)>| processes.iter().map(|(id, _)| *id).collect();
        let several = several.map(|(epoch, processes)| (*epoch, voters(processes)));
        (elected.keys().next_back().copied(), several.collect())
    }

    /// How often a log was truncated.
    pub(crate) fn truncations(&self) -> usize {
        self.state.lock().truncations
    }

    /// The name of a topic, by its id.
    pub(crate) fn topic_name(&self, id: Uuid) -> Option<String> {
        match id {
            METADATA_TOPIC_ID => Some(METADATA_TOPIC.to_owned()),
            id => self.image(|image| image.topic_by_id(id).map(|topic| topic.name.to_string())),
        }
    }

    /// Looks at the metadata.
    pub(crate) fn image<R>(&self, look: impl FnOnce(&Image) -> R) -> R {
        look(&self.state.lock().image)
    }

    /// The events that are kept.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state.lock().events.iter().cloned().collect()
    }

    /// Takes what happened to a node.
    pub(crate) fn node_event(&self, at: Tick, node: i32, what: NodeEvent) {
        self.state.lock().push(Event::Node { at, node, what });
        self.changed.notify_waiters();
    }

    /// What happened to nodes so far.
    #[cfg(test)]
    pub(crate) fn node_events(&self) -> Vec<(Tick, i32, NodeEvent)> {
        let of_node = |event| match event {
            Event::Node { at, node, what } => Some((at, node, what)),
            _ => None,
        };
        self.events().into_iter().filter_map(of_node).collect()
    }

    /// How many events there were, and how many of them are not kept any more.
    pub(crate) fn event_counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.first + state.events.len() as u64, state.first)
    }

    /// Every change of a leader that is kept.
    pub(crate) fn leader_changes(&self) -> Vec<LeaderChange> {
        let state = self.state.lock();
        let changes = state.events.iter().filter_map(|event| match event {
            Event::LeaderChanged(change) => Some(change.clone()),
            _ => None,
        });
        changes.collect()
    }

    /// How many changes of a leader replaced one.
    pub(crate) fn elections(&self) -> usize {
        self.state.lock().elections
    }

    /// Waits for the first event from number `since` on that is `wanted`.
    pub(crate) async fn until_event(&self, since: u64, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut next = since;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                let skip = usize::try_from(next.saturating_sub(state.first)).unwrap_or(usize::MAX);
                if let Some(found) = state.events.iter().skip(skip).find(|event| wanted(event)) {
                    return found.clone();
                }
                next = next.max(state.first + state.events.len() as u64);
            }
            changed.await;
        }
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
    fn note(&mut self, at: Tick, batch: &RawBatch) -> Result<(), String> {
        if batch.header().is_control() {
            let applied = self.image.apply_batch(batch, &mut Delta::default());
            return applied.map_err(|error| error.to_string());
        }
        let records = batch.records(BATCH_LIMIT_BYTES).map_err(|error| error.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            if record.offset < self.image.next_offset() {
                continue;
            }
            let decoded = MetadataRecord::decode(record.value.unwrap_or_default());
            let decoded = decoded.map_err(|error| error.to_string())?;
            let mut delta = Delta::default();
            self.image.apply(&decoded, &mut delta).map_err(|error| error.to_string())?;
            if let MetadataRecord::Topic(topic) = decoded {
                let (topic, topic_id) = (topic.name, topic.topic_id);
                self.push(Event::TopicCreated { at, topic, topic_id });
            }
            self.compare(at, &delta);
        }
        Ok(())
    }

    fn push(&mut self, event: Event) {
        if let Event::LeaderChanged(change) = &event
            && change.leader.is_some()
            && change.leader_epoch > 0
        {
            self.elections += 1;
        }
        if let Event::Node { what: NodeEvent::Truncated { .. }, .. } = &event {
            self.truncations += 1;
        }
        self.events.push_back(event);
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
            self.first += 1;
        }
    }

    fn compare(&mut self, at: Tick, delta: &Delta) {
        for broker in &delta.brokers {
            self.compare_broker(at, *broker);
        }
        for removed in &delta.removed_topics {
            self.seen.partitions.retain(|(id, _), _| *id != removed.id);
            self.push(Event::TopicDeleted { at, topic: removed.name.to_string(), topic_id: removed.id });
        }
        for key in &delta.partitions {
            self.compare_partition(at, *key);
        }
    }

    fn compare_broker(&mut self, at: Tick, broker: i32) {
        let Some(now) = self.image.broker(broker).map(|found| (found.epoch, found.fenced)) else {
            self.seen.brokers.remove(&broker);
            return;
        };
        let before = self.seen.brokers.insert(broker, now);
        let (epoch, fenced) = now;
        if before.is_none_or(|(before, _)| before != epoch) {
            self.push(Event::BrokerRegistered { at, broker, epoch });
        }
        let was_fenced = before.is_none_or(|(_, fenced)| fenced);
        match (was_fenced, fenced) {
            (false, true) => self.push(Event::Fenced { at, broker }),
            (true, false) => self.push(Event::Unfenced { at, broker }),
            _ => {}
        }
    }

    fn compare_partition(&mut self, at: Tick, key: (Uuid, i32)) {
        let (Some(topic), Some(now)) = (self.image.topic_by_id(key.0), self.image.partition(key.0, key.1))
        else {
            return;
        };
        let topic = topic.name.to_string();
        let now = Partition { leader: now.leader, leader_epoch: now.leader_epoch, isr: now.isr.clone() };
        let (leader, leader_epoch, isr) = (now.leader, now.leader_epoch, now.isr.clone());
        let before = self.seen.partitions.insert(key, now);
        let led = before.as_ref().map(|before| (before.leader, before.leader_epoch));
        if led != Some((leader, leader_epoch)) {
            self.push(Event::LeaderChanged(LeaderChange {
                topic: topic.clone(),
                topic_id: key.0,
                partition: key.1,
                leader,
                previous: led.and_then(|(leader, _)| leader),
                leader_epoch,
                at,
            }));
        }
        let previous = before.map_or_else(Vec::new, |before| before.isr);
        if previous != isr {
            let (topic_id, partition) = key;
            self.push(Event::IsrChanged { at, topic, topic_id, partition, isr, previous });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_kept_and_the_others_counted() {
        let journal = Journal::default();
        for broker in 0..EVENTS_KEPT as i32 + 5 {
            journal.state.lock().push(Event::Fenced { at: Tick::ZERO, broker });
        }
        assert_eq!(journal.event_counts(), (EVENTS_KEPT as u64 + 5, 5));
        let events = journal.events();
        assert_eq!(events.len(), EVENTS_KEPT);
        assert_eq!(events[0], Event::Fenced { at: Tick::ZERO, broker: 5 });
    }
}
