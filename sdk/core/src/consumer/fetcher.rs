//! The state machine: every input, and what it changes. What to send next is decided in `plan`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};
use uuid::Uuid;

use super::demand::{Demand, Partitions, Views};
use super::event::{
    Chunk, Effect, EndOfEpoch, Event, FetchAnswer, FetchSettings, FetchedPartition, Handout, ListedOffset,
    Location, OffsetReset, PartitionFailure, StartIn, StartOffset, Watermarks,
};
use super::partition::{EARLIEST, Partition, Retry, Stage};
use super::scan::scan;
use super::session::Session;
use crate::{Tick, TopicPartition};

/// What was asked for in a Fetch that is in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Bytes of the budget set aside for the answer.
    pub(crate) reserved: usize,
}

/// One broker that leads assigned partitions, or did.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) session: Session,
    pub(crate) demand: Demand,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) retry: Retry,
}

/// Reads assigned partitions. See the [module](super).
#[derive(Debug)]
pub struct Fetcher {
    pub(crate) settings: FetchSettings,
    pub(crate) rng: fastrand::Rng,
    pub(crate) partitions: Partitions,
    pub(crate) views: Views,
    pub(crate) brokers: BTreeMap<i32, Broker>,
    /// Partitions with something to take, in the order they got it; each at most once.
    pub(crate) ready: VecDeque<TopicPartition>,
    /// Bytes of answers that are alive.
    pub(crate) held: usize,
    /// The reader found nothing to take and waits.
    pub(crate) starving: bool,
    /// Broker that sent last: the next one is first to get room.
    pub(crate) last_sender: i32,
    /// Topics whose metadata is to be asked for at the end of this step.
    pub(crate) refresh: BTreeSet<Arc<str>>,
    pub(crate) lookups: u64,
    generations: u64,
    wake: bool,
    /// Partitions with readers of their own that got something to take.
    woken: BTreeSet<TopicPartition>,
    /// Somebody has to wait for memory that chunks keep which wait long.
    pub(crate) unpin: bool,
}

/// How long a leader is not believed in that is older than what was read, while the metadata name no other: as long as a broker may
/// take to hear of changes.
const OLDER_LEADER: Tick = Tick::from_secs(30);
/// Refusals of an offset that are doubted.
const DOUBTS: u32 = 5;

impl Fetcher {
    /// A fetcher without any partition. `rng` spreads retries.
    pub fn new(settings: FetchSettings, rng: fastrand::Rng) -> Self {
        Self {
            settings,
            rng,
            partitions: Partitions::default(),
            views: Views::default(),
            brokers: BTreeMap::new(),
            ready: VecDeque::new(),
            held: 0,
            starving: false,
            last_sender: i32::MIN,
            refresh: BTreeSet::new(),
            lookups: 0,
            generations: 0,
            wake: false,
            woken: BTreeSet::new(),
            unpin: false,
        }
    }

    /// Applies one event. Effects are appended to `out`; `now` never decreases.
    pub fn step(&mut self, now: Tick, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Assign(partitions) => self.assign(now, partitions),
            Event::Add(partitions) => self.add(now, partitions),
            Event::Remove(partitions) => self.remove(&partitions),
            Event::Begin(starts) => self.begin(now, starts),
            Event::BeginIn(starts) => self.begin_in(now, starts),
            Event::Seek(partition, to) => self.seek(now, &partition, to),
            Event::Pause(partitions) => self.set_paused(&partitions, true),
            Event::Resume(partitions) => self.set_paused(&partitions, false),
            Event::SetApart(partition, apart) => self.set_apart(&partition, apart),
            Event::Located(locations) => self.located(now, locations, out),
            Event::Fetched { broker, answer } => self.fetched(now, broker, answer, out),
            Event::FetchFailed { broker } => self.fetch_failed(now, broker),
            Event::Listed { broker, lookup, offsets } => self.listed(now, broker, lookup, offsets),
            Event::Ended { broker, lookup, ends } => self.ended(now, broker, lookup, ends, out),
            Event::ListFailed { broker, lookup } => self.list_failed(now, broker, lookup),
            Event::Held(bytes) => self.held = bytes,
            Event::Refetch { partition, generation, from } => self.refetch(now, &partition, generation, from),
        }
        self.finish(now, out);
    }

    /// Fires whatever is due at `now`.
    pub fn on_deadline(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.finish(now, out);
    }

    /// Takes the next chunk or failure, partition by partition in turn. Without any, the reader counts as
    /// waiting until [`Effect::Wake`].
    pub fn take(&mut self, now: Tick, out: &mut Vec<Effect>) -> Option<Handout> {
        let item = self.take_ready();
        self.starving = item.is_none();
        self.finish(now, out);
        item
    }

    /// As [`Self::take`], for the reader that one partition has for itself; without anything to take it waits until
    /// [`Effect::WakeReader`].
    pub fn take_from(&mut self, now: Tick, name: &TopicPartition, out: &mut Vec<Effect>) -> Option<Handout> {
        let partition = self.partitions.get_mut(name).filter(|partition| partition.apart)?;
        let item = if partition.paused { None } else { partition.pop() };
        partition.starving = item.is_none() && !partition.paused;
        self.finish(now, out);
        item
    }

    /// A chunk that waits, because its partition is paused or its own reader is slow, in memory that it shares with others.
    pub fn pinned(&self) -> Option<&Chunk> {
        let waiting = self.views.pinned().iter().filter_map(|name| self.partitions.get(name));
        waiting.filter(|partition| partition.apart || partition.paused).find_map(Partition::pinned)
    }

    /// The chunk that [`Self::pinned`] gave, and has a copy of its `records` now.
    pub fn unpinned(&mut self, chunk: Chunk) {
        let queue = self.partitions.get_mut(&chunk.partition).map(|partition| &mut partition.queue);
        let same = |item: &&mut Handout| matches!(item, Handout::Chunk(old) if (old.generation, old.from) == (chunk.generation, chunk.from));
        if let Some(item) = queue.and_then(|queue| queue.iter_mut().find(same)) {
            *item = Handout::Chunk(chunk);
        }
    }

    /// Gives the unread rest of a chunk back, when its partition is paused. `at` is the first record not read.
    pub fn give_back(&mut self, chunk: Chunk) {
        let Some(partition) = self.partitions.get_mut(&chunk.partition) else { return };
        if partition.generation == chunk.generation {
            let name = chunk.partition.clone();
            partition.queued_bytes += chunk.records.len();
            partition.queue.push_front(Handout::Chunk(chunk));
            self.mark_ready(&name);
        }
    }

    /// Assigned partitions.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// Topics of the assigned partitions.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.partitions.topics()
    }

    /// Whether a partition is assigned.
    pub fn is_assigned(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    /// Whether there is something to take: from this partition, which has a reader of its own, or from all others.
    pub fn is_ready(&self, apart: Option<&TopicPartition>) -> bool {
        match apart {
            Some(name) => self.partitions.get(name).is_some_and(|p| !p.paused && !p.queue.is_empty()),
            None => !self.ready.is_empty(),
        }
    }

    /// Whether a partition is paused.
    pub fn is_paused(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|p| p.paused)
    }

    /// First offset that the reader has not taken; `None` while it is being looked up.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition)?.position()
    }

    /// As [`Self::position`], with the leader epoch of the record before; -1 if unknown.
    pub fn place(&self, partition: &TopicPartition) -> Option<(i64, i32)> {
        self.partitions.get(partition)?.place()
    }

    /// As [`Self::place`], with the id of the topic that it is a place of; nil if unknown.
    pub fn place_in_topic(&self, partition: &TopicPartition) -> Option<((i64, i32), Uuid)> {
        self.partitions.get(partition)?.place_in_topic()
    }

    /// Number of what is read now: chunks of another one are void. `None` if the partition is not assigned.
    pub fn generation(&self, partition: &TopicPartition) -> Option<u64> {
        self.partitions.get(partition).map(|partition| partition.generation)
    }

    /// How far the log of a partition reaches; `None` before the first answer.
    pub fn watermarks(&self, partition: &TopicPartition) -> Option<Watermarks> {
        let found = self.partitions.get(partition)?;
        let session = || self.brokers.get(&found.source()?)?.session.watermarks(partition);
        found.watermarks.or_else(session)
    }

    /// Settings in force.
    pub fn settings(&self) -> &FetchSettings {
        &self.settings
    }

    fn take_ready(&mut self) -> Option<Handout> {
        while let Some(name) = self.ready.pop_front() {
            let Some(partition) = self.partitions.get_mut(&name) else { continue };
            let item = partition.pop();
            if !partition.queue.is_empty() {
                self.ready.push_back(name);
            }
            if item.is_some() {
                return item;
            }
        }
        None
    }

    fn finish(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.plan(now, out);
        if !self.refresh.is_empty() {
            out.push(Effect::Refresh(std::mem::take(&mut self.refresh)));
        }
        if std::mem::take(&mut self.wake) {
            out.push(Effect::Wake);
        }
        out.extend(std::mem::take(&mut self.woken).into_iter().map(Effect::WakeReader));
        if std::mem::take(&mut self.unpin) {
            out.push(Effect::Unpin);
        }
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    fn assign(&mut self, now: Tick, wanted: Vec<(TopicPartition, StartOffset)>) {
        let mut old = self.partitions.take();
        self.ready.clear();
        for (name, start) in wanted {
            let generation = self.next_generation();
            let mut partition = Partition::new(now, generation, start);
            if let Some(old) = old.remove(&name) {
                partition.inherit(now, &old);
            }
            self.partitions.insert(name, partition);
        }
        self.wake = true;
    }

    fn add(&mut self, now: Tick, names: Vec<TopicPartition>) {
        for name in names {
            let generation = self.next_generation();
            let mut partition = Partition::new(now, generation, StartOffset::End);
            partition.stage = Stage::Wait;
            self.partitions.insert(name, partition);
        }
        self.wake = true;
    }

    fn remove(&mut self, names: &[TopicPartition]) {
        for name in names {
            self.partitions.remove(name);
        }
        self.ready.retain(|ready| self.partitions.contains_key(ready));
    }

    fn begin(&mut self, now: Tick, starts: Vec<(TopicPartition, Option<(i64, i32)>)>) {
        for (name, place) in starts {
            let Some(partition) = self.partitions.get_mut(&name).filter(|p| p.stage == Stage::Wait) else {
                continue;
            };
            match place {
                Some((offset, epoch)) => {
                    partition.epoch = epoch;
                    partition.stage = Stage::start(StartOffset::Checked { offset, leader_epoch: epoch });
                    partition.doubt_leader(now);
                }
                None => match Stage::reset(self.settings.reset) {
                    Some(stage) => partition.stage = stage,
                    None => self.fail(&name, PartitionFailure::NoOffset),
                },
            }
        }
        self.wake = true;
    }

    fn begin_in(&mut self, now: Tick, starts: Vec<StartIn>) {
        let begin = |StartIn { partition: name, topic_id, place }| {
            let same = self.partitions.get_mut(&name).is_some_and(|partition| partition.expect(topic_id));
            (name, place.filter(|_| same))
        };
        let starts = starts.into_iter().map(begin).collect();
        self.begin(now, starts);
    }

    fn seek(&mut self, now: Tick, name: &TopicPartition, to: StartOffset) {
        let generation = self.next_generation();
        if let Some(partition) = self.partitions.get_mut(name) {
            partition.restart(generation, to);
            partition.doubt_leader(now);
            self.ready.retain(|ready| ready != name);
            self.wake = true;
        }
    }

    fn set_paused(&mut self, names: &[TopicPartition], paused: bool) {
        for name in names {
            let Some(partition) = self.partitions.get_mut(name) else { continue };
            partition.paused = paused;
            if paused {
                self.ready.retain(|ready| ready != name);
            } else if !partition.queue.is_empty() {
                self.mark_ready(name);
            }
        }
    }

    fn set_apart(&mut self, name: &TopicPartition, apart: bool) {
        let Some(partition) = self.partitions.get_mut(name) else { return };
        partition.apart = apart;
        partition.starving = false;
        let waits = !partition.queue.is_empty();
        self.ready.retain(|ready| ready != name);
        if waits {
            self.mark_ready(name);
        }
    }

    fn mark_ready(&mut self, name: &TopicPartition) {
        let Some(partition) = self.partitions.get(name).filter(|partition| !partition.paused) else { return };
        if partition.apart {
            self.woken.insert(name.clone());
        } else if !self.ready.contains(name) {
            self.ready.push_back(name.clone());
            self.wake = true;
        }
    }

    pub(crate) fn fail(&mut self, name: &TopicPartition, failure: PartitionFailure) {
        if let Some(partition) = self.partitions.get_mut(name) {
            partition.fail(name, failure);
            self.mark_ready(name);
        }
    }

    fn located(&mut self, now: Tick, locations: Vec<(TopicPartition, Location)>, out: &mut Vec<Effect>) {
        for (name, location) in locations {
            if let Location::At(leader) = &location
                && self.partitions.get(&name).is_some_and(|partition| partition.is_recreated(leader))
            {
                self.begin_anew(&name, out);
            }
            let Some(partition) = self.partitions.get_mut(&name) else { continue };
            match location {
                Location::At(leader) => {
                    if planted(Bug::RereadAfterLeaderChange)
                        && partition.leader.is_some_and(|known| known.broker != leader.broker)
                        && let Stage::Fetch { offset } = &mut partition.stage
                    {
                        *offset = (*offset - 1).max(0);
                    }
                    partition.located(now, leader, OLDER_LEADER.min(self.settings.locate_limit / 2));
                    partition.lost.take_if(|_| partition.leader.is_some());
                }
                Location::Unknown(code) => {
                    partition.leader = None;
                    partition.lost = Some((partition.lost.map_or(now, |(since, _)| since), code));
                }
                Location::Refused(code) => {
                    partition.leader = None;
                    partition.lost = Some((now, code));
                    self.fail(&name, PartitionFailure::Refused(code));
                }
            }
        }
    }

    /// The topic was deleted, and its name given to a new one, which is younger than anything that was read: it is read from its
    /// beginning, also where new partitions are not (`auto.offset.reset=latest`).
    fn begin_anew(&mut self, name: &TopicPartition, out: &mut Vec<Effect>) {
        let generation = self.next_generation();
        let Some(partition) = self.partitions.get_mut(name) else { return };
        let position = partition.leave_topic(generation);
        self.ready.retain(|ready| ready != name);
        self.wake = true;
        out.push(Effect::Recreated { partition: name.clone(), offset: position });
        out.push(Effect::Void { partition: name.clone(), from: i64::MIN });
        match position {
            Some(offset) if self.settings.reset == OffsetReset::None => {
                self.fail(name, PartitionFailure::Truncated { offset, diverges: Some(0) });
            }
            Some(_) => partition.stage = Stage::locate(EARLIEST),
            None => {}
        }
    }

    fn fetched(&mut self, now: Tick, id: i32, answer: FetchAnswer, out: &mut Vec<Effect>) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        if broker.in_flight.take().is_none() {
            return;
        }
        if let Some(error) = answer.error {
            // A session that is gone is no failure of the broker, but must not turn into a busy loop either.
            if !broker.session.refused(error) || broker.retry.failures > 0 {
                self.broker_failed(now, id);
            } else {
                broker.retry.failures = 1;
            }
            return;
        }
        broker.session.answered(answer.session_id);
        broker.retry.clear();
        let shared = answer.partitions.iter().filter(|data| !data.records.is_empty()).count() > 1;
        let mut known = Vec::with_capacity(answer.partitions.len());
        for data in answer.partitions {
            if let Some(name) = broker.session.find(&data.topic, data.topic_id, data.partition) {
                if let Some(told) = data.watermarks {
                    broker.session.told(&name, told);
                }
                let asked = broker.session.asked(&name);
                known.push((name, asked, data));
            }
        }
        for (name, asked, data) in known {
            if let (Some(told), Some(partition)) = (data.watermarks, self.partitions.get_mut(&name)) {
                partition.watermarks = Some(told);
            }
            let current = self.partitions.get(&name).map(|p| (p.generation, p.stage));
            if let (Some((generation, offset)), Some((now_generation, Stage::Fetch { offset: now_offset }))) =
                (asked, current)
                && (generation, offset) == (now_generation, now_offset)
            {
                self.fetched_partition(now, &name, offset, data, shared, out);
            }
        }
    }

    fn fetched_partition(
        &mut self,
        now: Tick,
        name: &TopicPartition,
        offset: i64,
        data: FetchedPartition,
        shared: bool,
        out: &mut Vec<Effect>,
    ) {
        if let Some((leader, epoch)) = data.current_leader {
            out.push(Effect::LeaderHint { partition: name.clone(), leader, epoch });
        }
        if let Some(replica) = data.preferred_replica
            && let Some(partition) = self.partitions.get_mut(name)
            && partition.refused.due(now)
        {
            partition.replica = now.checked_add(self.settings.replica_limit).map(|until| (replica, until));
        }
        match data.error {
            None => self.fetched_records(now, name, offset, data, shared),
            Some(_) if self.leave_replica(now, name) => {} // only the leader's word counts
            Some(ErrorCode::OFFSET_OUT_OF_RANGE) => self.out_of_range(now, name, offset),
            Some(error) => self.partition_error(now, name, error),
        }
    }

    fn fetched_records(
        &mut self,
        now: Tick,
        name: &TopicPartition,
        offset: i64,
        data: FetchedPartition,
        shared: bool,
    ) {
        let scan = scan(&data.records, offset);
        if scan.next == offset && !scan.sound {
            self.fail(name, PartitionFailure::Corrupt { offset });
            self.partition_failed(now, name);
            return;
        }
        let Some(partition) = self.partitions.get_mut(name) else { return };
        partition.retry.clear();
        if scan.next > offset {
            if partition.replica.is_some() {
                partition.refused.clear();
            }
            partition.stage = Stage::Fetch { offset: scan.next };
            let epoch = std::mem::replace(&mut partition.epoch, scan.epoch);
            let (topic_id, labelled) = partition.topic(name);
            partition.push(Chunk {
                partition: labelled,
                topic_id,
                generation: partition.generation,
                from: offset,
                epoch,
                next: scan.next,
                aborted: data.aborted,
                records: data.records.slice(..scan.bytes),
                shared,
            });
            self.mark_ready(name);
        }
    }

    /// A leader that was deposed and has not heard of it does not have what its successor told: it is believed when it says so again
    /// and again, and the metadata name no other.
    fn out_of_range(&mut self, now: Tick, name: &TopicPartition, offset: i64) {
        if self.partitions.get(name).is_some_and(|partition| partition.retry.failures < DOUBTS) {
            self.refresh.insert(name.topic.clone());
            return self.partition_failed(now, name);
        }
        match Stage::reset(self.settings.reset) {
            Some(stage) => {
                let Some(partition) = self.partitions.get_mut(name) else { return };
                partition.stage = stage;
                // A log that refuses its own bounds is asked ever more slowly.
                match partition.retry.failures {
                    DOUBTS => partition.retry.failures += 1,
                    _ => self.partition_failed(now, name),
                }
            }
            None => {
                self.fail(name, PartitionFailure::OutOfRange { offset });
                self.partition_failed(now, name);
            }
        }
    }

    /// Goes back to the leader, which may name a follower again after a while; `false` if the partition was read there.
    fn leave_replica(&mut self, now: Tick, name: &TopicPartition) -> bool {
        let Some(partition) = self.partitions.get_mut(name) else { return false };
        let left = partition.replica.take().is_some();
        if left {
            let failures = partition.refused.failures.saturating_add(1);
            let delay = self.settings.backoff.delay(failures, &mut self.rng);
            partition.refused = Retry { failures, at: now.checked_add(delay) };
        }
        left
    }

    /// A broker refuses one partition: new leaders are looked for, the rest is told to the application.
    fn partition_error(&mut self, now: Tick, name: &TopicPartition, error: ErrorCode) {
        let transient = matches!(
            error,
            ErrorCode::UNKNOWN_SERVER_ERROR
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::INCONSISTENT_TOPIC_ID
                | ErrorCode::OFFSET_NOT_AVAILABLE
        );
        if transient || error.is_retriable() && error != ErrorCode::CORRUPT_MESSAGE {
            self.refresh.insert(name.topic.clone());
        } else {
            self.fail(name, PartitionFailure::Refused(error));
        }
        self.partition_failed(now, name);
    }

    fn partition_failed(&mut self, now: Tick, name: &TopicPartition) {
        if let Some(partition) = self.partitions.get_mut(name) {
            partition.retry.failures = partition.retry.failures.saturating_add(1);
            let delay = self.settings.backoff.delay(partition.retry.failures, &mut self.rng);
            partition.retry.at = Some(now + delay);
        }
    }

    fn broker_failed(&mut self, now: Tick, id: i32) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        broker.retry.failures = broker.retry.failures.saturating_add(1);
        broker.retry.at = Some(now + self.settings.backoff.delay(broker.retry.failures, &mut self.rng));
        let led = self.partitions.iter().filter(|(_, p)| p.leader.is_some_and(|leader| leader.broker == id));
        self.refresh.extend(led.map(|(name, _)| name.topic.clone()));
        for name in self.partitions.named(|p| p.replica.is_some_and(|(replica, _)| replica == id)) {
            self.leave_replica(now, &name);
        }
    }

    fn fetch_failed(&mut self, now: Tick, id: i32) {
        if let Some(broker) = self.brokers.get_mut(&id)
            && broker.in_flight.take().is_some()
        {
            broker.session.broken();
            if planted(Bug::SkipAfterReconnect) {
                self.skip_one(id);
            }
            self.broker_failed(now, id);
        }
    }

    /// What [`Bug::SkipAfterReconnect`] does.
    fn skip_one(&mut self, id: i32) {
        for name in self.partitions.named(|p| p.leader.is_some_and(|l| l.broker == id)) {
            if let Some(partition) = self.partitions.get_mut(&name)
                && let Stage::Fetch { offset } = &mut partition.stage
            {
                *offset += 1;
            }
        }
    }

    fn listed(&mut self, now: Tick, broker: i32, lookup: u64, offsets: Vec<ListedOffset>) {
        if let Some(broker) = self.brokers.get_mut(&broker) {
            broker.retry.clear();
        }
        for listed in offsets {
            let Some(partition) = self.partitions.get_mut(&listed.partition) else { continue };
            let Stage::Locate { timestamp, asked } = partition.stage else { continue };
            if asked != Some(lookup) {
                continue;
            }
            if listed.error.is_ok() {
                partition.stage = Stage::located(timestamp, listed.offset);
                if let Stage::Fetch { .. } = partition.stage {
                    // a position that is committed before anything was read can be compared, too
                    partition.epoch = listed.leader_epoch;
                }
                if listed.offset < 0 && timestamp < 0 {
                    // A log without beginning or end: nonsense, but no reason to ask at full speed.
                    self.partition_failed(now, &listed.partition);
                }
                self.wake = true;
            } else {
                partition.stage = Stage::Locate { timestamp, asked: None };
                self.partition_error(now, &listed.partition, listed.error);
            }
        }
        // Whatever the answer left out is asked for again.
        self.forget_lookup(now, lookup);
    }

    fn ended(
        &mut self,
        now: Tick,
        broker: i32,
        lookup: u64,
        ends: Option<Vec<EndOfEpoch>>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(broker) = self.brokers.get_mut(&broker) {
            broker.retry.clear();
        }
        let Some(ends) = ends else {
            // A broker from before KIP-320: there is nothing to find out.
            for name in self.partitions.named(|p| p.stage.asked() == Some(lookup)) {
                self.partitions.get_mut(&name).into_iter().for_each(Partition::validated);
            }
            return;
        };
        for EndOfEpoch { partition: name, error, epoch, end } in ends {
            let generation = self.next_generation();
            let Some(partition) = self.partitions.get_mut(&name) else { continue };
            let Stage::Validate { offset, asked } = partition.stage else { continue };
            if asked != Some(lookup) {
                continue;
            }
            if !error.is_ok() {
                partition.stage = Stage::Validate { offset, asked: None };
                self.partition_error(now, &name, error);
                continue;
            }
            let diverges = Some(end).filter(|_| epoch >= 0 && end >= 0);
            if diverges.is_some_and(|end| end >= offset) {
                partition.validated();
                continue;
            }
            self.ready.retain(|ready| *ready != name);
            let void = |from| Effect::Void { partition: name.clone(), from };
            let Some(stage) = Stage::reset(self.settings.reset) else {
                out.push(void(i64::MAX));
                // Whoever has seen nothing of what was cut off need not know.
                if let Some((offset, 0..)) = partition.go_back(generation)
                    && diverges.is_none_or(|diverges| diverges < offset)
                {
                    self.fail(&name, PartitionFailure::Truncated { offset, diverges });
                    self.partition_failed(now, &name);
                }
                continue;
            };
            out.push(Effect::WasCut { partition: name.clone(), offset, diverges });
            match diverges {
                Some(diverges) => {
                    partition.cut(generation, diverges);
                    out.push(void(diverges));
                }
                None => {
                    partition.cut(generation, offset);
                    partition.stage = stage;
                    out.push(void(i64::MIN));
                }
            }
        }
        self.wake = true;
        self.forget_lookup(now, lookup);
    }

    fn list_failed(&mut self, now: Tick, broker: i32, lookup: u64) {
        if self.forget_lookup(now, lookup) {
            self.broker_failed(now, broker);
        }
    }

    /// Returns `true` if somebody still waited for the lookup.
    fn forget_lookup(&mut self, now: Tick, lookup: u64) -> bool {
        let waiting = self.partitions.named(|p| p.stage.asked() == Some(lookup));
        for name in &waiting {
            if let Some(partition) = self.partitions.get_mut(name)
                && let Stage::Locate { asked, .. } | Stage::Validate { asked, .. } = &mut partition.stage
            {
                *asked = None;
            }
            self.partition_failed(now, name);
        }
        !waiting.is_empty()
    }

    fn refetch(&mut self, now: Tick, name: &TopicPartition, generation: u64, from: i64) {
        let next = self.next_generation();
        if let Some(partition) = self.partitions.get_mut(name)
            && partition.generation == generation
        {
            partition.restart(next, StartOffset::Offset(from));
            // Counted by itself: the Fetch in between succeeds.
            let before = partition.stuck.filter(|(at, _)| *at == from).map_or(0, |(_, times)| times);
            partition.stuck = Some((from, before.saturating_add(1)));
            partition.retry.failures = before;
            self.ready.retain(|ready| ready != name);
            self.partition_failed(now, name);
        }
    }
}
