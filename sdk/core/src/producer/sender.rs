//! The sender: which batches go where, when, and again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use klamm_wire::planted::{Bug, planted};
use klamm_wire::{ErrorCode, ProducerStamp};

use super::events::{
    Acks, Answer, BatchId, Cause, Drained, Effect, Event, Failure, Outcome, Part, PartitionId, Produce,
    RequestId, Settings,
};
use super::partition::{Batch, Identity, Next, Partition, State};
use crate::Tick;

/// Bytes of a request that are neither record batches nor counted exactly.
const REQUEST_OVERHEAD: usize = 128;
/// Bytes around one batch: topic id, partition index, lengths.
const BATCH_OVERHEAD: usize = 32;

const ANONYMOUS: ProducerStamp = ProducerStamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 };

/// The one sender of a producer. Feed it a run of [`Event`]s with [`Self::step`], then call [`Self::advance`].
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    rng: fastrand::Rng,
    partitions: Vec<Partition>,
    places: Vec<Place>,
    brokers: BTreeMap<i32, Broker>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    retries: u64,
    identity: ProducerId,
    /// Batches whose fate the application does not know yet.
    unresolved: BTreeMap<BatchId, PartitionId>,
    /// Each with the number of the last batch that it waits for.
    flushes: VecDeque<(u64, u64)>,
    /// Every delay is the same for all batches, so these are in order of time.
    lingering: Timers,
    expiring: Timers,
    /// Partitions to look at again at a moment.
    timers: BTreeSet<(Tick, PartitionId)>,
    leaderless: BTreeSet<PartitionId>,
    nameless: BTreeSet<PartitionId>,
    refresh_at: Tick,
}

type Timers = VecDeque<(Tick, PartitionId, BatchId)>;

/// Which index of the sender names a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Ready(i32),
    Leaderless,
    Nameless,
}

#[derive(Debug)]
struct Request {
    broker: i32,
    batches: Vec<(PartitionId, BatchId)>,
}

#[derive(Debug, Default)]
struct Broker {
    link: Conversation,
    failures: u32,
    in_flight: usize,
    /// It is not sent to before, as it asked for.
    muted: Option<Tick>,
    /// Partitions led by it of which a batch could go.
    ready: BTreeSet<PartitionId>,
    /// Where the last request had no more room.
    cursor: Option<PartitionId>,
    /// Since when it takes nothing (KIP-794): it is silent with all requests that it may have, or out of reach.
    stalled: Option<Tick>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Conversation {
    #[default]
    Closed,
    Dialling,
    Up,
    Backoff(Tick),
}

#[derive(Debug, PartialEq, Eq)]
enum ProducerId {
    Unasked,
    Asked { failures: u32 },
    Backoff { until: Tick, failures: u32 },
    Known(Identity),
    Refused(ErrorCode),
}

impl Sender {
    /// A sender without partitions. The random numbers only spread retries in time.
    pub fn new(settings: Settings, rng: fastrand::Rng) -> Self {
        Self {
            settings,
            rng,
            partitions: Vec::new(),
            places: Vec::new(),
            brokers: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            retries: 0,
            identity: ProducerId::Unasked,
            unresolved: BTreeMap::new(),
            flushes: VecDeque::new(),
            lingering: VecDeque::new(),
            expiring: VecDeque::new(),
            timers: BTreeSet::new(),
            leaderless: BTreeSet::new(),
            nameless: BTreeSet::new(),
            refresh_at: Tick::ZERO,
        }
    }

    /// Batches that are not resolved yet.
    pub fn unresolved(&self) -> usize {
        self.unresolved.len()
    }

    /// Requests that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// How often a batch was sent again.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// Moments that are waited for, one for each batch and reason.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.lingering.len() + self.expiring.len()
    }

    /// Requests that wait for an answer of one broker.
    pub fn in_flight_at(&self, broker: i32) -> usize {
        self.brokers.get(&broker).map_or(0, |broker| broker.in_flight)
    }

    /// Brokers that take no batches, and since when (KIP-794): all requests that they may have are in flight, or they
    /// cannot be reached. Whatever it takes or answers, a partition to lead, and the end of a batch that waited in vain give a
    /// broker another chance.
    pub fn stalled(&self) -> impl Iterator<Item = (i32, Tick)> {
        self.brokers.iter().filter_map(|(id, broker)| Some((*id, broker.stalled?)))
    }

    /// Applies one event. Effects are appended to `out`; `now` never decreases.
    pub fn step(&mut self, now: Tick, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Leader { partition, leader } => self.on_leader(now, partition, leader),
            Event::Unknown { partition, code } => {
                if let Some(known) = self.partitions.get_mut(partition.0 as usize) {
                    known.unknown = Some(code);
                }
            }
            Event::Recreated { partition } => {
                if let Some(known) = self.partitions.get_mut(partition.0 as usize) {
                    known.doubt();
                    self.look(partition, now);
                }
            }
            Event::Opened { partition, batch } => self.on_opened(now, partition, batch),
            Event::Sealed { batch, bytes, records } => self.on_sealed(now, batch, bytes, records, out),
            Event::Split { batch, parts } => self.on_split(now, batch, &parts, out),
            Event::Unsealable { batch } => {
                if let Some(&p) = self.unresolved.get(&batch) {
                    let maybe_written = self.maybe_written(p, batch);
                    self.give_up(p, batch, Failure::Unsealable { maybe_written }, out);
                    self.look(p, now);
                }
            }
            Event::NoRoom => self.hurry(now),
            Event::Flush { ticket } => self.on_flush(now, ticket, out),
            Event::Connected { broker } => {
                let broker = self.brokers.entry(broker).or_default();
                broker.link = Conversation::Up;
                broker.failures = 0;
            }
            Event::Unreachable { broker } => self.on_unreachable(now, broker, out),
            Event::Throttled { broker, until } => {
                let broker = self.brokers.entry(broker).or_default();
                broker.muted = broker.muted.max(Some(until));
            }
            Event::Answered { request, answers } => self.on_answered(now, request, answers, out),
            Event::Lost { request, maybe_written, retriable } => {
                self.on_lost(now, request, maybe_written, retriable, out);
            }
            Event::ProducerId { id, epoch } => {
                self.identity = ProducerId::Known(Identity { id, epoch });
                self.look_at_nameless(now);
            }
            Event::NoProducerId { code } => self.on_no_producer_id(now, code),
            Event::Abort => self.abort(out),
        }
    }

    /// Fires whatever is due at `now` and sends whatever can be sent. Call it after every run of events and
    /// when [`Self::deadline`] is reached.
    pub fn advance(&mut self, now: Tick, out: &mut Vec<Effect>) {
        while let Some((_, p, id)) = pop_due(&mut self.lingering, now) {
            if let Some(batch) = self.partitions[p.0 as usize].batch_mut(id) {
                batch.due = true;
                self.look(p, now);
            }
        }
        while let Some((_, p, id)) = pop_due(&mut self.expiring, now) {
            for part in self.partitions[p.0 as usize].parts_of(id.number) {
                self.expire(now, p, part, out);
            }
            self.look(p, now);
        }
        while let Some(&(at, p)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, p));
            self.look(p, now);
        }
        self.ask_for_producer_id(now, out);
        self.refuse_nameless(now, out);
        self.drain(now, out);
        if !self.leaderless.is_empty() && self.refresh_at <= now {
            self.refresh_at = now + self.settings.backoff.first;
            out.push(Effect::Refresh("a partition to produce to has no leader"));
        }
        self.forget_sealed();
    }

    /// When [`Self::advance`] wants to run without an event; `None` if only an event can change anything.
    pub fn deadline(&self) -> Option<Tick> {
        let waited_for = self.brokers.values().filter(|broker| !broker.ready.is_empty());
        let brokers = waited_for.filter_map(|broker| match broker.link {
            Conversation::Backoff(until) => broker.muted.max(Some(until)),
            _ => broker.muted,
        });
        let identity = match self.identity {
            ProducerId::Backoff { until, .. } if !self.unresolved.is_empty() => Some(until),
            _ => None,
        };
        let refresh = (!self.leaderless.is_empty()).then_some(self.refresh_at);
        let queues = [self.lingering.front(), self.expiring.front()];
        let queues = queues.into_iter().flatten().map(|(at, ..)| *at);
        let timer = self.timers.first().map(|(at, _)| *at);
        brokers.chain(queues).chain(identity).chain(refresh).chain(timer).min()
    }

    // ---- batches

    fn on_leader(&mut self, now: Tick, p: PartitionId, leader: Option<i32>) {
        let index = p.0 as usize;
        if index >= self.partitions.len() {
            self.partitions.resize_with(index + 1, Partition::default);
            self.places.resize(index + 1, Place::Nowhere);
        }
        let partition = &mut self.partitions[index];
        partition.unknown = None;
        if partition.leader != leader {
            partition.leader = leader;
            // A new leader is worth a try at once (KIP-951).
            for batch in &mut partition.queue {
                batch.not_before = Tick::ZERO;
            }
            self.not_stalled(leader);
            self.look(p, now);
        }
    }

    fn on_opened(&mut self, now: Tick, p: PartitionId, id: BatchId) {
        let Some(partition) = self.partitions.get_mut(p.0 as usize) else { return };
        let due = self.settings.linger.is_zero();
        partition.open(id, now, due);
        self.unresolved.insert(id, p);
        if !due {
            self.lingering.push_back((now + self.settings.linger, p, id));
        }
        self.expiring.push_back((now + self.settings.delivery_timeout, p, id));
        self.forget_resolved();
        self.look(p, now);
    }

    fn on_sealed(&mut self, now: Tick, id: BatchId, bytes: usize, records: u32, out: &mut Vec<Effect>) {
        let Some(&p) = self.unresolved.get(&id) else { return };
        let Some(batch) = self.partitions[p.0 as usize].batch_mut(id) else { return };
        batch.state = State::Ready;
        batch.bytes = bytes;
        batch.records = records;
        if now >= batch.opened + self.settings.delivery_timeout {
            self.expire(now, p, id, out);
        }
        self.look(p, now);
    }

    fn on_split(&mut self, now: Tick, id: BatchId, parts: &[Part], out: &mut Vec<Effect>) {
        let Some(&p) = self.unresolved.get(&id) else { return };
        if !self.partitions[p.0 as usize].split(id, parts) {
            return;
        }
        // All of them before any is given up: a flush ends with the last.
        let mut before = 0;
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            ids.push(id.part(before));
            before += part.records;
        }
        self.unresolved.extend(ids.iter().map(|id| (*id, p)));
        let partition = &self.partitions[p.0 as usize];
        let opened = partition.find(id).map(|at| partition.queue[at].opened);
        if opened.is_some_and(|opened| now >= opened + self.settings.delivery_timeout) {
            ids.into_iter().for_each(|id| self.expire(now, p, id, out));
        }
        self.look(p, now);
    }

    /// Nothing that is open now lingers any longer.
    fn hurry(&mut self, now: Tick) {
        while let Some((_, p, id)) = self.lingering.pop_front() {
            if let Some(batch) = self.partitions[p.0 as usize].batch_mut(id) {
                batch.due = true;
                self.look(p, now);
            }
        }
    }

    /// No wake-up for the linger of a batch that is sealed already.
    fn forget_sealed(&mut self) {
        while let Some(&(_, p, id)) = self.lingering.front() {
            let partition = &self.partitions[p.0 as usize];
            if partition.find(id).is_some_and(|at| partition.queue[at].state == State::Open) {
                break;
            }
            self.lingering.pop_front();
        }
    }

    /// Keeps the queues of timers as short as what they are for, whoever stands in front of them: one batch that
    /// cannot be sent must not hold the timers of all that come and go behind it. In the mean, a few steps per batch.
    fn forget_resolved(&mut self) {
        let unresolved = &self.unresolved;
        for timers in [&mut self.lingering, &mut self.expiring] {
            if timers.len() > 2 * unresolved.len() + 64 {
                timers.retain(|(.., id)| {
                    let mut parts = unresolved.range(id..&BatchId::new(id.number + 1));
                    parts.next().is_some()
                });
            }
        }
    }

    fn on_flush(&mut self, now: Tick, ticket: u64, out: &mut Vec<Effect>) {
        self.hurry(now);
        match self.unresolved.last_key_value() {
            Some((last, _)) => self.flushes.push_back((ticket, last.number)),
            None => out.push(Effect::Flushed(ticket)),
        }
    }

    fn expire(&mut self, now: Tick, p: PartitionId, id: BatchId, out: &mut Vec<Effect>) {
        let partition = &mut self.partitions[p.0 as usize];
        let unknown = partition.unknown.map(Cause::Code);
        let Some(batch) = partition.batch_mut(id) else { return };
        let in_flight = batch.in_flight();
        let failure = Failure::TimedOut {
            waited: now.saturating_sub(batch.opened),
            maybe_written: batch.maybe_written || in_flight,
            last: unknown.or(batch.last),
        };
        match batch.state {
            // Nobody else closes it as long as its leader cannot be reached.
            State::Open => {
                batch.state = State::Sealing;
                out.push(Effect::Seal(id));
            }
            // It is looked at again when it is sealed or split, which is soon.
            State::Sealing | State::Splitting => {}
            State::Ready => {
                // What comes next finds out anew whether its leader takes anything.
                self.not_stalled(self.partitions[p.0 as usize].leader);
                self.give_up(p, id, failure, out);
            }
            State::InFlight { .. } => {
                batch.given_up = true;
                self.resolve(id, Outcome::Failed(failure), out);
            }
        }
    }

    /// Gives a broker another chance to show whether it takes anything.
    fn not_stalled(&mut self, broker: Option<i32>) {
        if let Some(broker) = broker.and_then(|id| self.brokers.get_mut(&id)) {
            broker.stalled = None;
        }
    }

    /// Takes a batch out of its queue that is not known to be in the log.
    fn give_up(&mut self, p: PartitionId, id: BatchId, failure: Failure, out: &mut Vec<Effect>) {
        if let Some(batch) = self.remove(p, id) {
            self.partitions[p.0 as usize].lose(&batch);
            self.finish(&batch, Outcome::Failed(failure), out);
        }
        self.settle(p, out);
    }

    fn remove(&mut self, p: PartitionId, id: BatchId) -> Option<Batch> {
        let partition = &mut self.partitions[p.0 as usize];
        let at = partition.find(id)?;
        partition.queue.remove(at)
    }

    fn finish(&mut self, batch: &Batch, outcome: Outcome, out: &mut Vec<Effect>) {
        if !batch.given_up {
            self.resolve(batch.id, outcome, out);
        }
        out.push(Effect::Free(batch.id));
    }

    fn resolve(&mut self, id: BatchId, outcome: Outcome, out: &mut Vec<Effect>) {
        self.unresolved.remove(&id);
        out.push(Effect::Resolve(id, outcome));
        let oldest = self.unresolved.first_key_value().map(|(id, _)| id.number);
        while let Some(&(ticket, last)) = self.flushes.front()
            && oldest.is_none_or(|oldest| oldest > last)
        {
            self.flushes.pop_front();
            out.push(Effect::Flushed(ticket));
        }
        for timers in [&mut self.lingering, &mut self.expiring] {
            while timers.front().is_some_and(|(.., id)| oldest.is_none_or(|oldest| id.number < oldest)) {
                timers.pop_front();
            }
        }
    }

    fn settle(&mut self, p: PartitionId, out: &mut Vec<Effect>) {
        while let Some(batch) = self.partitions[p.0 as usize].take_unrepeatable() {
            let failure = Failure::Rejected {
                code: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
                message: Some("a record before it is missing in the log, and this one may be in it".into()),
                maybe_written: true,
            };
            self.finish(&batch, Outcome::Failed(failure), out);
        }
        if let Some(used_up) = self.partitions[p.0 as usize].settle()
            && matches!(self.identity, ProducerId::Known(known) if known.id == used_up.id)
        {
            self.identity = ProducerId::Unasked;
        }
    }

    fn abort(&mut self, out: &mut Vec<Effect>) {
        self.requests.clear();
        self.lingering.clear();
        self.expiring.clear();
        self.timers.clear();
        for broker in self.brokers.values_mut() {
            broker.in_flight = 0;
            broker.ready.clear();
        }
        for index in 0..self.partitions.len() {
            for batch in std::mem::take(&mut self.partitions[index].queue) {
                let maybe_written = batch.maybe_written || batch.in_flight();
                self.finish(&batch, Outcome::Failed(Failure::Aborted { maybe_written }), out);
            }
            self.places[index] = Place::Nowhere;
        }
        self.leaderless.clear();
        self.nameless.clear();
    }

    // ---- indices

    /// Puts a partition where the next pass looks for it.
    fn look(&mut self, p: PartitionId, now: Tick) {
        let partition = &self.partitions[p.0 as usize];
        let place = match partition.next(now, &self.settings, self.identity.known()) {
            Next::Nothing => Place::Nowhere,
            Next::Wait(until) => {
                self.timers.insert((until, p));
                Place::Nowhere
            }
            Next::Send(_) | Next::Seal(_) => partition.leader.map_or(Place::Leaderless, Place::Ready),
            Next::NoLeader => Place::Leaderless,
            Next::NoIdentity => Place::Nameless,
        };
        let before = std::mem::replace(&mut self.places[p.0 as usize], place);
        if before == place {
            return;
        }
        match before {
            Place::Nowhere => {}
            Place::Ready(broker) => {
                if let Some(broker) = self.brokers.get_mut(&broker) {
                    broker.ready.remove(&p);
                }
            }
            Place::Leaderless => {
                self.leaderless.remove(&p);
            }
            Place::Nameless => {
                self.nameless.remove(&p);
            }
        }
        match place {
            Place::Nowhere => {}
            Place::Ready(broker) => {
                self.brokers.entry(broker).or_default().ready.insert(p);
            }
            Place::Leaderless => {
                self.leaderless.insert(p);
            }
            Place::Nameless => {
                self.nameless.insert(p);
            }
        }
    }

    fn look_at_nameless(&mut self, now: Tick) {
        let nameless: Vec<_> = self.nameless.iter().copied().collect();
        for p in nameless {
            self.look(p, now);
        }
    }

    // ---- sending

    fn drain(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let ids: Vec<i32> =
            self.brokers.iter().filter(|(_, broker)| !broker.ready.is_empty()).map(|(id, _)| *id).collect();
        for id in ids {
            if self.muted(id, now) || !self.connected(id, now, out) {
                continue;
            }
            while self.in_flight_at(id) < self.settings.max_in_flight || planted(Bug::IgnoreInFlightLimit) {
                let batches = self.collect(id, now, out);
                if batches.is_empty() {
                    break;
                }
                let request = RequestId(self.next_request);
                out.push(Effect::Produce(Produce { request, broker: id, batches }));
                self.next_request += 1;
                if let Some(broker) = self.brokers.get_mut(&id) {
                    broker.in_flight += 1;
                    broker.stalled = None;
                }
            }
        }
        let most = self.settings.max_in_flight;
        for broker in self.brokers.values_mut() {
            if broker.in_flight >= most || !broker.ready.is_empty() {
                broker.stalled.get_or_insert(now);
            }
        }
    }

    fn muted(&mut self, id: i32, now: Tick) -> bool {
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        broker.muted = broker.muted.filter(|until| *until > now);
        broker.muted.is_some()
    }

    fn connected(&mut self, id: i32, now: Tick, out: &mut Vec<Effect>) -> bool {
        let broker = self.brokers.entry(id).or_default();
        match broker.link {
            Conversation::Up => return true,
            Conversation::Backoff(until) if until > now => {}
            Conversation::Dialling => {}
            Conversation::Closed | Conversation::Backoff(_) => {
                broker.link = Conversation::Dialling;
                out.push(Effect::Connect(id));
            }
        }
        false
    }

    /// Takes the next batch of each ready partition for one request, as long as there is room in it.
    fn collect(&mut self, id: i32, now: Tick, out: &mut Vec<Effect>) -> Vec<Drained> {
        let Some(broker) = self.brokers.get_mut(&id) else { return Vec::new() };
        let start = broker.cursor.take().unwrap_or(PartitionId(0));
        let ready: Vec<_> = broker.ready.range(start..).chain(broker.ready.range(..start)).copied().collect();
        let request = RequestId(self.next_request);
        let (mut bytes, mut batches, mut taken) = (REQUEST_OVERHEAD, Vec::new(), Vec::new());
        for p in ready {
            let partition = &mut self.partitions[p.0 as usize];
            match partition.next(now, &self.settings, self.identity.known()) {
                Next::Send(at) => {
                    let size = partition.queue[at].bytes + BATCH_OVERHEAD;
                    if bytes + size > self.settings.max_request_bytes && !batches.is_empty() {
                        if let Some(broker) = self.brokers.get_mut(&id) {
                            broker.cursor = Some(p);
                        }
                        break;
                    }
                    bytes += size;
                    let stamp = match self.settings.idempotent {
                        true => match partition.stamp(at, self.identity.known()) {
                            Some((Identity { id, epoch }, sequence)) => ProducerStamp {
                                producer_id: id,
                                producer_epoch: epoch,
                                base_sequence: sequence,
                            },
                            None => continue,
                        },
                        false => ANONYMOUS,
                    };
                    let batch = &mut partition.queue[at];
                    batch.state = State::InFlight { request, broker: id };
                    self.retries += u64::from(std::mem::replace(&mut batch.sent, true));
                    taken.push((p, batch.id));
                    batches.push(Drained { partition: p, batch: batch.id, stamp });
                }
                Next::Seal(at) => {
                    let batch = &mut partition.queue[at];
                    batch.state = State::Sealing;
                    out.push(Effect::Seal(batch.id));
                }
                _ => {}
            }
            self.look(p, now);
        }
        if !taken.is_empty() {
            self.requests.insert(request, Request { broker: id, batches: taken });
        }
        batches
    }

    // ---- answers

    fn end_request(&mut self, request: RequestId) -> Option<Request> {
        let request = self.requests.remove(&request)?;
        if let Some(broker) = self.brokers.get_mut(&request.broker) {
            broker.in_flight = broker.in_flight.saturating_sub(1);
        }
        Some(request)
    }

    fn on_answered(
        &mut self,
        now: Tick,
        request: RequestId,
        answers: Vec<(PartitionId, Answer)>,
        out: &mut Vec<Effect>,
    ) {
        let Some(request) = self.end_request(request) else { return };
        self.not_stalled(Some(request.broker));
        let mut answers: BTreeMap<PartitionId, Answer> = answers.into_iter().collect();
        for (p, id) in request.batches {
            match answers.remove(&p) {
                _ if self.settings.acks == Acks::None => self.written(p, id, -1, -1, out),
                Some(answer) => self.on_answer(now, p, id, answer, out),
                None => self.failed(now, p, id, Cause::NoAnswer, true, out),
            }
            self.settle(p, out);
            self.look(p, now);
        }
    }

    fn on_answer(&mut self, now: Tick, p: PartitionId, id: BatchId, answer: Answer, out: &mut Vec<Effect>) {
        let code = answer.code;
        match code {
            ErrorCode::NONE => self.written(p, id, answer.base_offset, answer.log_append_time, out),
            ErrorCode::NOT_LEADER_OR_FOLLOWER if planted(Bug::ErrorTakenForSuccess) => {
                self.written(p, id, -1, -1, out);
            }
            // Only an earlier attempt of the same batch can have that sequence.
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER => self.written(p, id, answer.base_offset, -1, out),
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
            | ErrorCode::UNKNOWN_PRODUCER_ID
            | ErrorCode::INVALID_PRODUCER_EPOCH
                if self.settings.idempotent =>
            {
                if self.partitions[p.0 as usize].distrust(id) {
                    self.failed(now, p, id, Cause::Code(code), false, out);
                } else {
                    self.requeue(p, id, out);
                }
            }
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
                self.too_large(p, id, code, out);
            }
            code if code.is_retriable() => {
                if is_about_metadata(code) {
                    out.push(Effect::Refresh("a broker is not the leader it was taken for"));
                }
                self.failed(now, p, id, Cause::Code(code), is_uncertain(code), out);
            }
            code => {
                let maybe_written = self.maybe_written(p, id) || is_uncertain(code);
                let message = answer.message;
                self.give_up(p, id, Failure::Rejected { code, message, maybe_written }, out);
            }
        }
    }

    fn written(&mut self, p: PartitionId, id: BatchId, base: i64, append_time: i64, out: &mut Vec<Effect>) {
        let Some(batch) = self.remove(p, id) else { return };
        self.partitions[p.0 as usize].confirm(id);
        let base_offset = (base >= 0).then_some(base);
        let log_append_time = (append_time >= 0).then_some(append_time);
        self.finish(&batch, Outcome::Written { base_offset, log_append_time }, out);
    }

    /// The broker takes no batch of this size: in parts, it may.
    fn too_large(&mut self, p: PartitionId, id: BatchId, code: ErrorCode, out: &mut Vec<Effect>) {
        let Some(batch) = self.partitions[p.0 as usize].batch_mut(id) else { return };
        batch.last = Some(Cause::Code(code));
        let (bytes, maybe_written) = (batch.bytes, batch.maybe_written);
        if batch.given_up {
            self.drop_given_up(p, id, out);
        } else if batch.records > 1 {
            batch.state = State::Splitting;
            out.push(Effect::Split(id));
        } else {
            self.give_up(p, id, Failure::TooLarge { code, bytes, maybe_written }, out);
        }
    }

    fn maybe_written(&mut self, p: PartitionId, id: BatchId) -> bool {
        self.partitions[p.0 as usize].batch_mut(id).is_some_and(|batch| batch.maybe_written)
    }

    /// Back into line, through no fault of its own: one before it failed.
    fn requeue(&mut self, p: PartitionId, id: BatchId, out: &mut Vec<Effect>) {
        let Some(batch) = self.partitions[p.0 as usize].batch_mut(id) else { return };
        batch.state = State::Ready;
        if batch.given_up {
            self.drop_given_up(p, id, out);
        }
    }

    /// Back into line after one more failure, or the end of it.
    fn failed(
        &mut self,
        now: Tick,
        p: PartitionId,
        id: BatchId,
        cause: Cause,
        maybe_written: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(batch) = self.partitions[p.0 as usize].batch_mut(id) else { return };
        batch.state = State::Ready;
        batch.failures = batch.failures.saturating_add(1);
        batch.last = Some(cause);
        batch.maybe_written |= maybe_written;
        if batch.given_up {
            self.drop_given_up(p, id, out);
        } else if batch.failures > self.settings.retries {
            let failure = Failure::Exhausted { maybe_written: batch.maybe_written, last: cause };
            self.give_up(p, id, failure, out);
        } else {
            batch.not_before = now + self.settings.backoff.delay(batch.failures, &mut self.rng);
        }
    }

    fn drop_given_up(&mut self, p: PartitionId, id: BatchId, out: &mut Vec<Effect>) {
        if let Some(batch) = self.remove(p, id) {
            self.partitions[p.0 as usize].lose(&batch);
            out.push(Effect::Free(id));
        }
    }

    fn on_lost(
        &mut self,
        now: Tick,
        request: RequestId,
        maybe_written: bool,
        retriable: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(request) = self.end_request(request) else { return };
        if let Some(broker) = self.brokers.get_mut(&request.broker)
            && broker.link == Conversation::Up
        {
            broker.link = Conversation::Closed;
        }
        out.push(Effect::Refresh("a produce request got no answer"));
        for (p, id) in request.batches {
            if retriable {
                self.failed(now, p, id, Cause::NoAnswer, maybe_written, out);
            } else {
                let maybe_written = maybe_written || self.maybe_written(p, id);
                self.give_up(p, id, Failure::Unsupported { maybe_written }, out);
            }
            self.settle(p, out);
            self.look(p, now);
        }
    }

    fn on_unreachable(&mut self, now: Tick, id: i32, out: &mut Vec<Effect>) {
        let broker = self.brokers.entry(id).or_default();
        broker.failures = broker.failures.saturating_add(1);
        let delay = self.settings.backoff.delay(broker.failures, &mut self.rng);
        broker.link = Conversation::Backoff(now + delay);
        out.push(Effect::Refresh("a leader cannot be reached"));
    }

    // ---- producer id

    fn ask_for_producer_id(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let failures = match self.identity {
            ProducerId::Unasked => 0,
            ProducerId::Backoff { until, failures } if until <= now => failures,
            _ => return,
        };
        // Asked while the first batch lingers, not only when it is ready.
        if self.settings.idempotent && !self.unresolved.is_empty() {
            self.identity = ProducerId::Asked { failures };
            out.push(Effect::InitProducerId);
        }
    }

    fn on_no_producer_id(&mut self, now: Tick, code: Option<ErrorCode>) {
        let ProducerId::Asked { failures } = self.identity else { return };
        self.identity = match code {
            Some(code) if !code.is_retriable() => ProducerId::Refused(code),
            _ => {
                let failures = failures.saturating_add(1);
                let until = now + self.settings.backoff.delay(failures, &mut self.rng);
                ProducerId::Backoff { until, failures }
            }
        };
    }

    /// Without hope of a producer id, what waits for one fails.
    fn refuse_nameless(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let ProducerId::Refused(code) = self.identity else { return };
        let nameless: Vec<_> = self.nameless.iter().copied().collect();
        for p in nameless {
            while let Some(batch) = self.partitions[p.0 as usize].queue.iter_mut().find(|b| !b.in_flight()) {
                match batch.state {
                    State::Ready => {
                        let id = batch.id;
                        self.give_up(p, id, Failure::NoProducerId { code }, out);
                    }
                    State::Open if batch.due => {
                        batch.state = State::Sealing;
                        out.push(Effect::Seal(batch.id));
                    }
                    _ => break,
                }
            }
            self.look(p, now);
        }
    }
}

impl ProducerId {
    fn known(&self) -> Option<Identity> {
        match self {
            Self::Known(identity) => Some(*identity),
            _ => None,
        }
    }
}

fn pop_due(queue: &mut Timers, now: Tick) -> Option<(Tick, PartitionId, BatchId)> {
    queue.front().is_some_and(|(at, ..)| *at <= now).then(|| queue.pop_front()).flatten()
}

/// Codes that a broker may give after it has appended the batch.
fn is_uncertain(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::NETWORK_EXCEPTION
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::UNKNOWN_SERVER_ERROR
    )
}

/// Codes that say: your metadata are old.
fn is_about_metadata(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::REPLICA_NOT_AVAILABLE
            | ErrorCode::NETWORK_EXCEPTION
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::LISTENER_NOT_FOUND
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INCONSISTENT_TOPIC_ID
    )
}
