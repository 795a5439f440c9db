//! What to send next.
//!
//! A leader is asked when nothing is in flight to it, none of its partitions has enough queued already (its share of the budget,
//! or more than one answer: one is read while the next one comes), and the budget has room. Its Fetch then names every partition it leads, so that one with nothing new never
//! holds up one that has: a long poll over the rest would.
//!
//! Where partitions have readers of their own, one that has enough queued holds nobody up: it is left out, and the broker
//! asked not to wait long, so that it is soon back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::demand::{Limits, View};
use super::event::{Effect, EpochLookup, FetchPlan, Lookup, PartitionFailure};
use super::fetcher::{Fetcher, InFlight};
use super::partition::Stage;
use crate::{Tick, TopicPartition};

/// How long a broker may wait when a partition is left out that will want more soon.
const HELD_BACK_WAIT: Duration = Duration::from_millis(50);

impl Fetcher {
    /// When [`Self::on_deadline`] wants to run.
    pub fn deadline(&self) -> Option<Tick> {
        let brokers = self.brokers.values().filter_map(|broker| broker.retry.at);
        brokers.chain(self.views.due()).min()
    }

    pub(crate) fn plan(&mut self, now: Tick, out: &mut Vec<Effect>) {
        for broker in self.brokers.values_mut() {
            broker.retry.due(now);
        }
        self.views.mark(&mut self.partitions, now);
        let mut changed = self.partitions.take_changed();
        self.plan_locations(now, &changed);
        changed.extend(self.partitions.take_changed());
        self.look_at(now, &changed);
        self.plan_lookups(out);
        self.plan_validations(out);
        self.plan_fetches(out);
        self.brokers.retain(|_, broker| {
            broker.in_flight.is_some() || broker.retry.at.is_some() || !broker.demand.is_nobody()
        });
    }

    /// Asks for metadata of partitions without leader, and reports those that have had none for too long.
    fn plan_locations(&mut self, now: Tick, changed: &BTreeSet<TopicPartition>) {
        let mut reported = Vec::new();
        for name in changed {
            let Some(partition) = self.partitions.get_mut(name) else { continue };
            partition.replica.take_if(|(_, until)| *until <= now);
            let due = partition.retry.due(now);
            if partition.leader.is_some() {
                continue;
            }
            if due {
                self.refresh.insert(name.topic.clone());
                partition.retry.failures = partition.retry.failures.saturating_add(1);
                let delay = self.settings.backoff.delay(partition.retry.failures, &mut self.rng);
                partition.retry.at = Some(now + delay);
            }
            if let Some((since, code)) = partition.lost
                && !partition.has_failed()
                && now.saturating_sub(since) >= self.settings.locate_limit
            {
                partition.lost = Some((now, code));
                reported.push((name.clone(), code));
            }
        }
        for (name, code) in reported {
            self.fail(&name, PartitionFailure::NoLeader(code));
        }
    }

    /// Tells the brokers' demands what has changed.
    fn look_at(&mut self, now: Tick, changed: &BTreeSet<TopicPartition>) {
        let limits = Limits::new(&self.settings, self.partitions.len());
        for name in changed {
            let view = self.partitions.get(name).map(|partition| View::of(name, partition, limits, now));
            self.views.replace(name, view, &mut self.brokers);
        }
    }

    /// Asks leaders where to begin.
    fn plan_lookups(&mut self, out: &mut Vec<Effect>) {
        for (id, broker) in &self.brokers {
            if broker.demand.offsets().is_empty() || broker.retry.at.is_some() {
                continue;
            }
            self.lookups += 1;
            let lookup = self.lookups;
            let mut partitions = Vec::new();
            for name in broker.demand.offsets() {
                if let Some(partition) = self.partitions.get_mut(name)
                    && let (Some(leader), Stage::Locate { timestamp, asked }) =
                        (partition.leader, &mut partition.stage)
                {
                    *asked = Some(lookup);
                    partitions.push(Lookup {
                        partition: name.clone(),
                        leader_epoch: leader.epoch,
                        timestamp: *timestamp,
                    });
                }
            }
            out.push(Effect::ListOffsets { broker: *id, lookup, partitions });
        }
    }

    /// Asks new leaders whether their logs still have what was fetched from others.
    fn plan_validations(&mut self, out: &mut Vec<Effect>) {
        for (id, broker) in &self.brokers {
            if broker.demand.epochs().is_empty() || broker.retry.at.is_some() {
                continue;
            }
            self.lookups += 1;
            let lookup = self.lookups;
            let mut partitions = Vec::new();
            for name in broker.demand.epochs() {
                if let Some(partition) = self.partitions.get_mut(name)
                    && let (Some(leader), Stage::Validate { asked, .. }) =
                        (partition.leader, &mut partition.stage)
                {
                    *asked = Some(lookup);
                    partitions.push(EpochLookup {
                        partition: name.clone(),
                        leader_epoch: leader.epoch,
                        epoch: partition.epoch,
                    });
                }
            }
            out.push(Effect::EndsOfEpochs { broker: *id, lookup, partitions });
        }
    }

    fn plan_fetches(&mut self, out: &mut Vec<Effect>) {
        let active = self.brokers.iter().filter(|(_, broker)| broker.demand.is_active());
        let active: Vec<i32> = active.map(|(id, _)| *id).collect();
        let share = self.settings.prefetch_bytes / active.len().max(1);
        let share = share.min(bytes(self.settings.max_bytes)).max(1);
        let starving = self.starving && self.ready.is_empty();
        // Whoever comes after the last sender gets room first.
        let (first, second): (Vec<_>, Vec<_>) = active.into_iter().partition(|id| *id > self.last_sender);
        for id in first.into_iter().chain(second) {
            let Some(broker) = self.brokers.get(&id) else { continue };
            let asked_for = broker.demand.asks_for();
            if asked_for == 0 || broker.in_flight.is_some() || broker.retry.at.is_some() {
                continue;
            }
            match self.grant(asked_for, share, starving || broker.demand.is_starving()) {
                Some(reserved) => self.fetch(id, reserved, out),
                None => self.unpin |= self.pinned().is_some(),
            }
        }
    }

    /// Bytes that a Fetch for so many partitions may ask for; `None` if it has to wait for room.
    ///
    /// What the application keeps for itself can use up the whole budget. Fetching then goes on only while a
    /// reader waits for records and has none, so that a program that collects records never stands still.
    fn grant(&self, partitions: usize, share: usize, starving: bool) -> Option<usize> {
        let partition_bytes = bytes(self.settings.max_partition_bytes).max(1);
        let full = share.min(partition_bytes.saturating_mul(partitions));
        let reserved: usize =
            self.brokers.values().filter_map(|b| b.in_flight.as_ref()).map(|f| f.reserved).sum();
        let used = self.held.saturating_add(reserved);
        let room = self.settings.prefetch_bytes.saturating_sub(used);
        match room {
            room if room >= full.min(partition_bytes) => Some(full.min(room)),
            _ => starving.then_some(full),
        }
    }

    fn fetch(&mut self, id: i32, reserved: usize, out: &mut Vec<Effect>) {
        let broker = self.brokers.entry(id).or_default();
        let refused = broker.demand.is_refused();
        let (wanted, left_out, news) = broker.demand.for_session();
        let max_wait = self.settings.max_wait;
        let max_wait = if left_out.is_empty() { max_wait } else { max_wait.min(HELD_BACK_WAIT) };
        let delta = broker.session.next(wanted, left_out, news);
        broker.in_flight = Some(InFlight { reserved });
        self.last_sender = id;
        out.push(Effect::Fetch {
            broker: id,
            plan: FetchPlan {
                session_id: delta.id,
                session_epoch: delta.epoch,
                max_bytes: i32::try_from(reserved).unwrap_or(i32::MAX),
                max_wait,
                near: !refused,
                partitions: delta.send,
                forgotten: delta.forget,
            },
        });
    }
}

fn bytes(limit: i32) -> usize {
    usize::try_from(limit).unwrap_or(0)
}
