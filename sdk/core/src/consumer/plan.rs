//! What to send next.
//!
//! A leader is asked when nothing is in flight to it, none of its partitions has enough queued already, and
//! the budget has room. Its Fetch then names every partition it leads, so that one with nothing new never
//! holds up one that has: a long poll over the rest would.
//!
//! Where partitions have readers of their own, one that has enough queued holds nobody up: it is left out, and the broker
//! asked not to wait long, so that it is soon back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Effect, EpochLookup, FetchPlan, FetchTarget, Lookup, PartitionFailure, Wanted};
use super::fetcher::{Fetcher, InFlight};
use super::partition::{Partition, Stage};
use crate::{Tick, TopicPartition};

/// What one leader could be asked for.
#[derive(Default)]
struct Candidate {
    wanted: Wanted,
    /// A partition has enough queued: wait until the reader has taken some of it.
    full: bool,
    /// A partition with enough queued is left out.
    held_back: bool,
    /// A partition's own reader waits for it.
    starving: bool,
    /// A partition's follower has just refused: its leader is to send records itself.
    refused: bool,
}

/// How long a broker may wait when a partition is left out that will want more soon.
const HELD_BACK_WAIT: Duration = Duration::from_millis(50);

impl Fetcher {
    /// When [`Self::on_deadline`] wants to run.
    pub fn deadline(&self) -> Option<Tick> {
        let brokers = self.brokers.values().filter_map(|broker| broker.retry.at);
        let retries = self.partitions.values().filter_map(|p| p.retry.at);
        let lost = self.partitions.values().filter_map(|p| self.lost_at(p));
        brokers.chain(retries).chain(lost).min()
    }

    /// When a partition without leader is reported.
    fn lost_at(&self, partition: &Partition) -> Option<Tick> {
        let (since, _) = partition.lost.filter(|_| !partition.has_failed())?;
        since.checked_add(self.settings.locate_limit)
    }

    pub(crate) fn plan(&mut self, now: Tick, out: &mut Vec<Effect>) {
        for broker in self.brokers.values_mut() {
            broker.retry.due(now);
        }
        self.plan_locations(now);
        self.plan_lookups(out);
        self.plan_validations(out);
        self.plan_fetches(now, out);
        let partitions = &self.partitions;
        self.brokers.retain(|id, broker| {
            broker.in_flight.is_some()
                || broker.retry.at.is_some()
                || partitions
                    .values()
                    .any(|p| p.source() == Some(*id) || p.leader.is_some_and(|leader| leader.broker == *id))
        });
    }

    /// Asks for metadata of partitions without leader, and reports those that have had none for too long.
    fn plan_locations(&mut self, now: Tick) {
        let mut reported = Vec::new();
        for (name, partition) in &mut self.partitions {
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

    fn plan_lookups(&mut self, out: &mut Vec<Effect>) {
        let mut by_leader: BTreeMap<i32, Vec<Lookup>> = BTreeMap::new();
        for (name, partition) in &self.partitions {
            let (Some(leader), Stage::Locate { timestamp, asked: None }) =
                (partition.leader, partition.stage)
            else {
                continue;
            };
            let waits = |id| self.brokers.get(&id).is_some_and(|broker| broker.retry.at.is_some());
            if partition.retry.at.is_none() && !partition.has_failed() && !waits(leader.broker) {
                by_leader.entry(leader.broker).or_default().push(Lookup {
                    partition: name.clone(),
                    leader_epoch: leader.epoch,
                    timestamp,
                });
            }
        }
        for (broker, partitions) in by_leader {
            self.lookups += 1;
            let lookup = self.lookups;
            for wanted in &partitions {
                if let Some(partition) = self.partitions.get_mut(&wanted.partition)
                    && let Stage::Locate { asked, .. } = &mut partition.stage
                {
                    *asked = Some(lookup);
                }
            }
            self.brokers.entry(broker).or_default();
            out.push(Effect::ListOffsets { broker, lookup, partitions });
        }
    }

    /// Asks new leaders whether their logs still have what was fetched from others.
    fn plan_validations(&mut self, out: &mut Vec<Effect>) {
        let mut by_leader: BTreeMap<i32, Vec<EpochLookup>> = BTreeMap::new();
        for (name, partition) in &self.partitions {
            let (Some(leader), Stage::Validate { asked: None, .. }) = (partition.leader, partition.stage)
            else {
                continue;
            };
            let waits = self.brokers.get(&leader.broker).is_some_and(|broker| broker.retry.at.is_some());
            if partition.retry.at.is_none() && !partition.has_failed() && !waits {
                by_leader.entry(leader.broker).or_default().push(EpochLookup {
                    partition: name.clone(),
                    leader_epoch: leader.epoch,
                    epoch: partition.epoch,
                });
            }
        }
        for (broker, partitions) in by_leader {
            self.lookups += 1;
            let lookup = self.lookups;
            for wanted in &partitions {
                if let Some(partition) = self.partitions.get_mut(&wanted.partition)
                    && let Stage::Validate { asked, .. } = &mut partition.stage
                {
                    *asked = Some(lookup);
                }
            }
            self.brokers.entry(broker).or_default();
            out.push(Effect::EndsOfEpochs { broker, lookup, partitions });
        }
    }

    fn plan_fetches(&mut self, now: Tick, out: &mut Vec<Effect>) {
        for partition in self.partitions.values_mut() {
            partition.replica.take_if(|(_, until)| *until <= now);
        }
        let candidates = self.candidates(now);
        let leaders = candidates.len().max(1);
        let share = (self.settings.prefetch_bytes / leaders).min(bytes(self.settings.max_bytes)).max(1);
        let starving = self.starving && self.ready.is_empty();
        // Whoever comes after the last sender gets room first.
        let (first, second): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|(id, _)| *id > self.last_sender);
        for (id, candidate) in first.into_iter().chain(second) {
            let broker = self.brokers.entry(id).or_default();
            if candidate.full
                || candidate.wanted.is_empty()
                || broker.in_flight.is_some()
                || broker.retry.at.is_some()
            {
                continue;
            }
            match self.grant(candidate.wanted.len(), share, starving || candidate.starving) {
                Some(reserved) => self.fetch(id, candidate, reserved, out),
                None => self.unpin |= self.pinned().is_some(),
            }
        }
    }

    /// Every leader of an assigned partition, with what it could be asked for now.
    fn candidates(&self, now: Tick) -> BTreeMap<i32, Candidate> {
        let enough = (self.settings.prefetch_bytes / self.partitions.len().max(1)).max(1);
        let apart = self.partitions.values().filter(|p| p.apart);
        let apart: BTreeSet<i32> = apart.filter_map(Partition::source).collect();
        let next = bytes(self.settings.max_partition_bytes);
        let mut candidates: BTreeMap<i32, Candidate> = BTreeMap::new();
        for (name, partition) in &self.partitions {
            let (Some(leader), Some(source), false) =
                (partition.leader, partition.source(), partition.paused)
            else {
                continue;
            };
            let candidate = candidates.entry(source).or_default();
            let Stage::Fetch { offset } = partition.stage else { continue };
            if partition.retry.at.is_some() || partition.has_failed() {
                continue;
            }
            let queued = partition.queued_bytes;
            if apart.contains(&source) && queued > 0 && queued.saturating_add(next) > enough {
                candidate.held_back = true;
                continue;
            }
            candidate.full |= queued >= enough;
            candidate.starving |= partition.starving && partition.queue.is_empty();
            candidate.refused |= partition.refused.at.is_some_and(|at| at > now);
            candidate.wanted.insert(
                name.clone(),
                FetchTarget {
                    partition: name.clone(),
                    topic_id: leader.topic_id,
                    leader_epoch: leader.epoch,
                    offset,
                },
            );
        }
        candidates
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

    fn fetch(&mut self, id: i32, candidate: Candidate, reserved: usize, out: &mut Vec<Effect>) {
        let Candidate { wanted, held_back, refused, .. } = candidate;
        let max_wait = self.settings.max_wait;
        let max_wait = if held_back { max_wait.min(HELD_BACK_WAIT) } else { max_wait };
        let generation = |name: &TopicPartition| self.partitions.get(name).map(|p| p.generation);
        let sent = wanted
            .values()
            .filter_map(|t| Some((t.partition.clone(), (generation(&t.partition)?, t.offset))))
            .collect();
        let broker = self.brokers.entry(id).or_default();
        let delta = broker.session.next(wanted);
        broker.in_flight = Some(InFlight { sent, reserved });
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
