//! Where the records of a topic go that have no partition of their own (KIP-480, KIP-794).
//!
//! In: how many batches wait for each partition, which brokers take none, the leaders. Out: the next partition.
//! Asked for once a batch, never for a record, but by partitioners that want to know what is available.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_core::Tick;
use klamm_core::metadata::{PartitionMetadata, TopicMetadata};
use klamm_core::partitioner::{Candidate, Odds};
use parking_lot::Mutex;

use crate::client::Client;

use super::slot::Slot;

/// How records without a key are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spreading {
    /// `partitioner.adaptive.partitioning.enable`
    pub(super) adaptive: bool,
    /// `partitioner.availability.timeout.ms`; 0 leaves no broker out.
    pub(super) availability_timeout: Duration,
}

/// Draws partitions for one producer.
#[derive(Debug)]
pub(super) struct Spreader {
    client: Client,
    spreading: Spreading,
    rng: Mutex<fastrand::Rng>,
    /// Since when brokers have taken nothing of what waits for them.
    stalled: Mutex<BTreeMap<i32, Tick>>,
}

/// What is remembered for one topic between two draws.
#[derive(Debug, Default)]
pub(super) struct Spread {
    odds: Mutex<Odds>,
    led: Mutex<Option<Led>>,
}

/// The partitions that have a leader, by these metadata.
#[derive(Debug)]
struct Led {
    by: Arc<TopicMetadata>,
    partitions: Arc<[i32]>,
}

impl Spreader {
    pub(super) fn new(client: Client, spreading: Spreading) -> Self {
        let rng = Mutex::new(client.rt().rng("producer.partitioner"));
        Self { client, spreading, rng, stalled: Mutex::default() }
    }

    /// Whether anybody wants to know which brokers are stalled.
    pub(super) fn minds_stalls(&self) -> bool {
        self.spreading.adaptive && !self.spreading.availability_timeout.is_zero()
    }

    /// Takes over which brokers have taken nothing of what waits for them, and since when.
    pub(super) fn stalled(&self, since: impl Iterator<Item = (i32, Tick)>) {
        let mut stalled = self.stalled.lock();
        stalled.clear();
        stalled.extend(since);
    }

    /// Draws where records without a key go next, or first if there is no `current`.
    pub(super) fn draw(
        &self,
        topic: &str,
        spread: &Spread,
        slots: &[Arc<Slot>],
        current: Option<u32>,
    ) -> u32 {
        let look = || self.candidates(topic, slots);
        spread.odds.lock().draw(current, &mut self.rng.lock(), look).unwrap_or(0)
    }

    /// Draws one of the partitions with a leader for one record.
    pub(super) fn random(&self, topic: &str, spread: &Spread, count: usize) -> i32 {
        let available = self.available(topic, spread, count);
        let mut rng = self.rng.lock();
        rng.choice(available.iter().copied()).unwrap_or_else(|| rng.i32(0..(count.max(1) as i32)))
    }

    /// The partitions that have a leader. Made anew only when the topic's metadata are new.
    pub(super) fn available(&self, topic: &str, spread: &Spread, count: usize) -> Arc<[i32]> {
        let metadata = self.client.metadata();
        let Some(known) = metadata.topics.get(topic) else { return Arc::default() };
        let mut kept = spread.led.lock();
        if let Some(led) = kept.as_ref().filter(|led| Arc::ptr_eq(&led.by, known)) {
            return led.partitions.clone();
        }
        let led = |(index, partition): (i32, &PartitionMetadata)| partition.leader.map(|_| index);
        let partitions: Arc<[i32]> = (0_i32..).zip(&known.partitions).take(count).filter_map(led).collect();
        *kept = Some(Led { by: known.clone(), partitions: partitions.clone() });
        partitions
    }

    /// Partitions whose leader takes batches; if there are none, those that have a leader; or else all.
    fn candidates(&self, topic: &str, slots: &[Arc<Slot>]) -> Vec<Candidate> {
        let metadata = self.client.metadata();
        let partitions = metadata.topics.get(topic).map_or(&[][..], |topic| &topic.partitions[..]);
        let leader = |index: usize| partitions.get(index).and_then(|partition| partition.leader);
        let those = |usable: &dyn Fn(usize) -> bool| -> Vec<Candidate> {
            let usable = slots.iter().enumerate().filter(|(index, _)| usable(*index));
            let waiting = |slot: &Slot| if self.spreading.adaptive { slot.waiting() } else { 0 };
            usable
                .map(|(index, slot)| Candidate { partition: index as u32, waiting: waiting(slot) })
                .collect()
        };
        let dead = self.dead();
        let mut found = those(&|index| leader(index).is_some_and(|leader| !dead.contains(&leader)));
        if found.is_empty() && !dead.is_empty() {
            found = those(&|index| leader(index).is_some());
        }
        if found.is_empty() { those(&|_| true) } else { found }
    }

    /// Brokers that have taken nothing for longer than the availability timeout.
    fn dead(&self) -> Vec<i32> {
        if !self.minds_stalls() {
            return Vec::new();
        }
        let now = self.client.rt().now();
        let limit = self.spreading.availability_timeout;
        let stalled = self.stalled.lock();
        stalled.iter().filter(|(_, since)| now.saturating_sub(**since) > limit).map(|(id, _)| *id).collect()
    }
}
