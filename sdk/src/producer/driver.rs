//! The sender task: feeds the core's [`Sender`] and carries out its effects.
//!
//! Decides nothing. The only task that sends; no code of the application runs on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use klamm_core::Tick;
use klamm_core::metadata::BrokerMetadata;
use klamm_core::producer::{
    Acks, Answer, BatchId, Effect, Event, Failure, Outcome, Part, PartitionId, Produce, RequestId, Sender,
    Settings,
};
use klamm_wire::codec::{self, ProduceHead, ProducePartition, ProduceTopic};
use klamm_wire::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId};
use klamm_wire::planted::{Bug, planted};
use klamm_wire::{ErrorCode, Frame, SealedBatch, StrBytes};
use tokio::sync::{mpsc, oneshot};
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::client::{Client, Lane, Target};
use crate::error::RequestError;
use crate::metrics::{BufferMeter, Meter};

use super::attached::{Attachments, Turn};
use super::delivery::Fate;
use super::inbox::Note;
use super::intercept::Told;
use super::slot::{Accumulator, Slot};
use super::split::Split;

const PRODUCE: i16 = 0;
/// From here on Produce names topics by id.
const PRODUCE_WITH_IDS: i16 = 13;

/// What [`Driver`] needs beside the accumulator.
pub(super) struct Setup {
    pub(super) settings: Settings,
    pub(super) request_timeout: Duration,
    pub(super) told: mpsc::UnboundedSender<Told>,
    pub(super) counts: Arc<Counts>,
    pub(super) meter: Meter,
    pub(super) buffer: BufferMeter,
}

/// What applications may ask about the sender at any time.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) in_flight: AtomicUsize,
    pub(super) retries: AtomicU64,
}

/// A batch that somebody still needs.
struct Held {
    slot: Arc<Slot>,
    fate: Arc<Fate>,
    bytes: usize,
    sealed: Option<SealedBatch>,
    /// Once it is closed.
    records: u32,
    /// What is to be told of its records, until it is resolved.
    attached: Option<Box<Attachments>>,
    /// Of what was told, from then on.
    turn: Option<Arc<Turn>>,
    /// Counts among those that wait for its partition: it has not been sent yet.
    waiting: bool,
    /// When it was opened, as long as it was in no request; only if somebody measures it.
    queued_since: Option<Tick>,
}

impl Held {
    fn waits_no_longer(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.slot.waits_no_longer();
        }
    }
}

/// Which partitions a request names: topic, its id, partition index.
type Named = Vec<(Arc<str>, Uuid, i32, PartitionId)>;

/// Something the sender asked for that has come about.
enum Done {
    Event(Event),
    Split { batch: BatchId, split: Option<Split> },
    Produced { request: Sent, answer: Result<Frame, RequestError> },
    Nothing,
}

/// A Produce request that is under way.
struct Sent {
    id: RequestId,
    broker: i32,
    named: Named,
    /// Only if somebody measures it.
    at: Option<Tick>,
    span: Span,
}

pub(super) struct Driver {
    accumulator: Arc<Accumulator>,
    /// When it was woken last: what it does then happens at this moment.
    now: Tick,
    sender: Sender,
    acks: Acks,
    request_timeout: Duration,
    told: mpsc::UnboundedSender<Told>,
    /// Something was told: whoever flushes waits for the teller, too.
    tells: bool,
    counts: Arc<Counts>,
    meter: Meter,
    buffer: BufferMeter,
    slots: Vec<Arc<Slot>>,
    batches: BTreeMap<BatchId, Held>,
    flushes: BTreeMap<u64, oneshot::Sender<()>>,
    next_flush: u64,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    effects: Vec<Effect>,
    end: Option<End>,
}

/// Why the sender task goes on.
enum Woken {
    Done(Done),
    Metadata,
    /// There are notes, or it is time.
    Otherwise,
}

struct End {
    dropped: bool,
}

impl Driver {
    pub(super) fn new(accumulator: Arc<Accumulator>, setup: Setup) -> Self {
        let rng = accumulator.client.rt().rng("producer.sender");
        Self {
            now: Tick::ZERO,
            accumulator,
            acks: setup.settings.acks,
            sender: Sender::new(setup.settings, rng),
            request_timeout: setup.request_timeout,
            told: setup.told,
            tells: false,
            counts: setup.counts,
            meter: setup.meter,
            buffer: setup.buffer,
            slots: Vec::new(),
            batches: BTreeMap::new(),
            flushes: BTreeMap::new(),
            next_flush: 0,
            running: FuturesUnordered::new(),
            effects: Vec::new(),
            end: None,
        }
    }

    /// Runs until a note tells it to end.
    pub(super) async fn run(mut self) {
        let accumulator = self.accumulator.clone();
        let client = accumulator.client.clone();
        let mut changed = pin!(client.changed());
        let mut notes = Vec::new();
        self.now = client.rt().now();
        loop {
            accumulator.inbox.take(&mut notes);
            for note in notes.drain(..) {
                self.on_note(note);
            }
            if self.end.is_some() {
                return; // and `drop` gives up what is left
            }
            self.advance();
            let woken = tokio::select! {
                biased;
                () = accumulator.inbox.arrived() => Woken::Otherwise,
                Some(done) = self.running.next() => Woken::Done(done),
                () = &mut changed => Woken::Metadata,
                () = client.rt().sleep_until_some(self.sender.deadline()) => Woken::Otherwise,
            };
            self.now = client.rt().now();
            match woken {
                Woken::Done(done) => {
                    self.on_done(done);
                    while let Some(Some(done)) = futures::FutureExt::now_or_never(self.running.next()) {
                        self.on_done(done);
                    }
                }
                Woken::Metadata => {
                    changed.set(client.changed());
                    self.on_metadata();
                }
                Woken::Otherwise => {}
            }
        }
    }

    fn step(&mut self, event: Event) {
        self.sender.step(self.now, event, &mut self.effects);
    }

    fn advance(&mut self) {
        loop {
            self.sender.advance(self.now, &mut self.effects);
            if self.effects.is_empty() {
                break;
            }
            for effect in std::mem::take(&mut self.effects) {
                self.apply(effect);
            }
        }
        if self.accumulator.spreader.minds_stalls() {
            self.accumulator.spreader.stalled(self.sender.stalled());
        }
        self.counts.in_flight.store(self.sender.in_flight(), Ordering::Relaxed);
        self.counts.retries.store(self.sender.retries(), Ordering::Relaxed);
        self.measure();
    }

    fn measure(&mut self) {
        self.meter.see(self.sender.in_flight(), self.sender.retries());
        let memory = &self.accumulator.memory;
        self.buffer.see(memory.available(), memory.waiters());
    }

    // ---- in

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Slots(slots) => {
                let metadata = self.accumulator.client.metadata();
                for slot in slots {
                    let leader = metadata.leader(&slot.topic, slot.index).map(|(leader, _)| leader);
                    let partition = slot.id;
                    self.slots.push(slot);
                    self.step(Event::Leader { partition, leader });
                }
            }
            Note::Recreated(slots) => {
                for slot in slots {
                    slot.limit_batches(None);
                    self.step(Event::Recreated { partition: slot.id });
                }
            }
            Note::Opened { batch, slot, fate, held } => {
                let partition = slot.id;
                self.keep_topic(&slot.topic);
                let queued_since = Meter::ON.then_some(self.now);
                let held = Held {
                    slot,
                    fate,
                    bytes: held,
                    sealed: None,
                    records: 0,
                    attached: None,
                    turn: None,
                    waiting: true,
                    queued_since,
                };
                self.batches.insert(batch, held);
                self.step(Event::Opened { partition, batch });
            }
            Note::Sealed { batch, sealed, attached } => {
                let event = match &sealed {
                    Some(sealed) => {
                        Event::Sealed { batch, bytes: sealed.len_bytes(), records: sealed.count() }
                    }
                    None => Event::Unsealable { batch },
                };
                if let Some(held) = self.batches.get_mut(&batch) {
                    held.records = sealed.as_ref().map_or(0, SealedBatch::count);
                    held.sealed = sealed;
                    held.attached = attached;
                }
                self.step(event);
            }
            Note::NoRoom => self.step(Event::NoRoom),
            Note::Flush(done) => {
                self.next_flush += 1;
                self.flushes.insert(self.next_flush, done);
                self.step(Event::Flush { ticket: self.next_flush });
            }
            Note::End { dropped } => self.end = Some(End { dropped }),
        }
    }

    /// Keeps a topic in the metadata while batches are opened for it.
    fn keep_topic(&mut self, topic: &Arc<str>) {
        let client = &self.accumulator.client;
        if client.cached_topic(topic).is_none() {
            let (client, topic) = (client.clone(), topic.clone());
            let until = client.rt().now().saturating_add(self.request_timeout);
            self.running.push(Box::pin(async move {
                if let Err(error) = client.topic(&topic, true, until).await {
                    tracing::debug!(%topic, %error, "metadata of a topic in use are gone");
                }
                Done::Nothing
            }));
        }
    }

    fn on_metadata(&mut self) {
        let metadata = self.accumulator.client.metadata();
        for name in self.accumulator.topics.names() {
            match metadata.topics.get(&name) {
                Some(topic) if topic.error.is_ok() => drop(self.accumulator.adopt(topic, None)),
                Some(topic) if topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                    for slot in self.accumulator.forget(&name).to_vec() {
                        self.step(Event::Unknown { partition: slot.id, code: topic.error });
                    }
                }
                _ => {}
            }
        }
        let leaders: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| metadata.topics.get(&slot.topic).is_some_and(|topic| topic.error.is_ok()))
            .map(|slot| (slot.id, metadata.leader(&slot.topic, slot.index).map(|(leader, _)| leader)))
            .collect();
        for (partition, leader) in leaders {
            self.step(Event::Leader { partition, leader });
        }
        for broker in metadata.brokers.keys() {
            self.obey_throttle(*broker);
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Event(event) => self.step(event),
            Done::Produced { request, answer } => self.on_produced(&request, answer),
            Done::Split { batch, split } => self.on_split(batch, split),
            Done::Nothing => {}
        }
    }

    /// Puts the parts of a batch in its place.
    fn on_split(&mut self, batch: BatchId, split: Option<Split>) {
        // Given up in the meantime, there is nothing to replace.
        let Some(mut held) = self.batches.remove(&batch) else { return };
        let fates = split.as_ref().map_or_else(Vec::new, |split| held.fate.split(&split.firsts()));
        let Some(split) = split.filter(|_| !fates.is_empty()) else {
            self.batches.insert(batch, held);
            return self.step(Event::Unsealable { batch });
        };
        for slot in self.slots.iter().filter(|slot| slot.topic == held.slot.topic) {
            slot.limit_batches(Some(split.limit_bytes));
        }
        let mut pairs: Vec<_> = fates.into_iter().zip(split.parts).collect();
        if planted(Bug::SplitSwapsParts) {
            pairs.reverse();
        }
        let (mut parts, mut before) = (Vec::with_capacity(pairs.len()), 0);
        for (left, (fate, sealed)) in (1..=pairs.len()).rev().zip(pairs) {
            let records = sealed.count();
            parts.push(Part { bytes: sealed.len_bytes(), records });
            // Each takes its share of the memory along, so that all of it is free in the end.
            let bytes = held.bytes / left;
            held.bytes -= bytes;
            let later = match &mut held.attached {
                Some(attached) if left > 1 => Some(attached.split_at(records)),
                _ => None,
            };
            let attached = std::mem::replace(&mut held.attached, later);
            let slot = held.slot.clone();
            let part = Held {
                slot,
                fate,
                bytes,
                sealed: Some(sealed),
                records,
                attached,
                turn: None,
                waiting: false,
                queued_since: None,
            };
            self.batches.insert(batch.part(before), part);
            before += records;
        }
        self.step(Event::Split { batch, parts });
    }

    fn on_produced(&mut self, request: &Sent, answer: Result<Frame, RequestError>) {
        let Sent { id: request, broker, named, at, span } = request;
        let (request, broker) = (*request, *broker);
        let answer = answer.and_then(|frame| match self.acks {
            Acks::None => Ok(ProduceResponse::default()),
            _ => codec::decode_response::<ProduceRequest>(frame).map_err(RequestError::from),
        });
        if let Some(at) = at.filter(|_| answer.is_ok()) {
            self.meter.answered(broker, self.now.saturating_sub(at));
        }
        match answer {
            Ok(response) => {
                let pause = u64::try_from(response.throttle_time_ms).unwrap_or_default();
                let pause = Duration::from_millis(pause);
                self.accumulator.client.mute(broker, Lane::Main, pause);
                self.meter.throttled(broker, pause);
                self.obey_throttle(broker);
                let answers = self.answers(named, &response);
                let refused = answers.iter().filter(|(_, answer)| !answer.code.is_ok());
                span.record("refused", refused.clone().count());
                span.record("outcome", "answered");
                refused.for_each(|(_, answer)| self.meter.failed(answer.code.name().unwrap_or("UNKNOWN"), 1));
                self.step(Event::Answered { request, answers });
            }
            Err(error) => {
                tracing::debug!(parent: span, %error, "produce request failed");
                span.record("outcome", "no answer");
                self.meter.failed("NO_ANSWER", named.len());
                let retriable = !matches!(error, RequestError::Version(_));
                self.step(Event::Lost { request, maybe_written: error.maybe_written(), retriable });
            }
        }
    }

    /// Tells the sender if a broker has asked for a pause, in an answer to whichever request.
    fn obey_throttle(&mut self, broker: i32) {
        if let Some(until) = self.accumulator.client.muted_until(broker, Lane::Main) {
            self.step(Event::Throttled { broker, until });
        }
    }

    fn answers(&self, named: &Named, response: &ProduceResponse) -> Vec<(PartitionId, Answer)> {
        let mut answers = Vec::with_capacity(named.len());
        let mut expected = 0;
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                let found = find_from(named, expected, |(name, id, index, _)| {
                    *index == partition.index
                        && (**name == *topic.name.as_str() || (!id.is_nil() && *id == topic.topic_id))
                });
                let Some(at) = found else { continue };
                expected = at + 1;
                let (name, _, index, id) = &named[at];
                let hint = &partition.current_leader;
                if *hint.leader_id >= 0 {
                    let leader = (*hint.leader_id, hint.leader_epoch);
                    let at = endpoint(response, leader.0);
                    self.accumulator.client.apply_leader_hint(name, *index, leader, at);
                }
                let code = ErrorCode(partition.error_code);
                if !code.is_ok() {
                    tracing::debug!(topic = %name, partition = index, %code, "batch refused");
                }
                let answer = Answer {
                    code,
                    base_offset: partition.base_offset,
                    log_append_time: partition.log_append_time_ms,
                    message: partition.error_message.as_ref().map(|message| Arc::from(message.as_str())),
                };
                answers.push((*id, answer));
            }
        }
        answers
    }

    // ---- out

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Seal(batch) => self.seal(batch),
            Effect::Split(batch) => self.split(batch),
            Effect::Connect(broker) => self.connect(broker),
            Effect::Produce(produce) => self.produce(&produce),
            Effect::InitProducerId => {
                let client = self.accumulator.client.clone();
                self.running.push(Box::pin(async move { Done::Event(init_producer_id(&client).await) }));
            }
            Effect::Refresh(why) => self.accumulator.client.request_refresh(why),
            Effect::Resolve(batch, outcome) => self.resolve(batch, outcome),
            Effect::Free(batch) => self.free(batch),
            Effect::Flushed(ticket) => {
                if let Some(done) = self.flushes.remove(&ticket) {
                    match self.tells {
                        true => drop(self.told.send(Told::Flushed(done))),
                        false => drop(done.send(())),
                    }
                }
            }
        }
    }

    /// Carries out some of the effects, and drops the others.
    fn apply_some(&mut self, which: impl FnMut(&Effect) -> bool) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.retain(which);
        effects.into_iter().for_each(|effect| self.apply(effect));
    }

    fn seal(&mut self, batch: BatchId) {
        let Some(open) = self.batches.get(&batch).and_then(|held| held.slot.take(batch)) else { return };
        if !open.is_to_be_compressed() {
            self.on_note(open.seal());
            return;
        }
        let accumulator = self.accumulator.clone();
        self.running.push(Box::pin(async move {
            let rt = accumulator.client.rt();
            match rt.offload(move || open.seal()).await {
                Some(note) => drop(accumulator.inbox.leave(note)),
                None => return Done::Event(Event::Unsealable { batch }),
            }
            Done::Nothing
        }));
    }

    fn split(&mut self, batch: BatchId) {
        let Some(held) = self.batches.get(&batch) else { return };
        let (Some(sealed), level) = (held.sealed.clone(), held.slot.packing.level) else { return };
        let accumulator = self.accumulator.clone();
        self.running.push(Box::pin(async move {
            let batch_size = accumulator.batch_size;
            let split = accumulator.client.rt().offload(move || Split::of(&sealed, batch_size, level)).await;
            Done::Split { batch, split: split.flatten() }
        }));
    }

    fn connect(&mut self, broker: i32) {
        let client = self.accumulator.client.clone();
        if client.is_connected(broker, Lane::Main) {
            return self.step(Event::Connected { broker });
        }
        self.running.push(Box::pin(async move {
            match client.connected(broker, Lane::Main).await {
                Ok(_) => Done::Event(Event::Connected { broker }),
                Err(error) => {
                    tracing::debug!(broker.id = broker, %error, "no connection to a leader");
                    Done::Event(Event::Unreachable { broker })
                }
            }
        }));
    }

    fn produce(&mut self, produce: &Produce) {
        let client = self.accumulator.client.clone();
        let (request, broker) = (produce.request, produce.broker);
        let (topics, named) = self.topics(produce);
        let Some(version) = client.version(broker, PRODUCE) else {
            let maybe_written = false;
            let retriable = !client.is_connected(broker, Lane::Main);
            return self.step(Event::Lost { request, maybe_written, retriable });
        };
        let all_have_ids = named.iter().all(|(_, id, ..)| !id.is_nil());
        let version = if all_have_ids { version } else { version.min(PRODUCE_WITH_IDS - 1) };
        let head = ProduceHead {
            acks: match self.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: i32::try_from(self.request_timeout.as_millis()).unwrap_or(i32::MAX),
            transactional_id: None,
        };
        match codec::encode_produce(version, &head, &topics) {
            Ok(frame) => {
                let span = tracing::debug_span!(
                    "kafka.request",
                    broker.id = broker,
                    api.key = PRODUCE,
                    api.version = version,
                    kafka.correlation_id = Empty, // known to the connection, if there is one
                    partitions = named.len(),
                    bytes = frame.len_bytes(),
                    refused = Empty,
                    outcome = Empty,
                );
                self.meter.request_sent(broker, frame.len_bytes());
                let at = Meter::ON.then_some(self.now);
                let answer = span.in_scope(|| client.send_frame(broker, Lane::Main, frame));
                let answer = answer.instrument(span.clone());
                let request = Sent { id: request, broker, named, at, span };
                self.running.push(Box::pin(async move { Done::Produced { request, answer: answer.await } }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot encode a produce request");
                self.step(Event::Lost { request, maybe_written: false, retriable: false });
            }
        }
    }

    /// The batches of a request by topic, each as a header of its own and the records as they are.
    fn topics(&mut self, produce: &Produce) -> (Vec<ProduceTopic>, Named) {
        let metadata = self.accumulator.client.metadata();
        let mut topics: Vec<ProduceTopic> = Vec::new();
        let mut places: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut named = Named::with_capacity(produce.batches.len());
        for drained in &produce.batches {
            let Some(held) = self.batches.get_mut(&drained.batch) else { continue };
            held.waits_no_longer();
            let (name, index) = (&held.slot.topic, held.slot.index);
            let Some(sealed) = &held.sealed else { continue };
            if let Some(since) = held.queued_since.take() {
                let queued = self.now.saturating_sub(since);
                self.meter.batch_sent(name, queued, sealed);
            }
            let header = Bytes::copy_from_slice(&sealed.header(drained.stamp));
            let partition = ProducePartition { index, records: vec![header, sealed.records().clone()] };
            let place = *places.entry(name.clone()).or_insert_with(|| {
                let id = metadata.topics.get(name).map_or(Uuid::nil(), |topic| topic.id);
                let name = StrBytes::from_string(name.to_string());
                topics.push(ProduceTopic { name, id, partitions: Vec::new() });
                topics.len() - 1
            });
            let topic = &mut topics[place];
            named.push((name.clone(), topic.id, index, drained.partition));
            topic.partitions.push(partition);
        }
        (topics, named)
    }

    fn resolve(&mut self, batch: BatchId, outcome: Outcome) {
        let Some(held) = self.batches.get_mut(&batch) else { return };
        let acknowledged = matches!(outcome, Outcome::Written { .. });
        self.meter.resolved(&held.slot.topic, held.records, acknowledged);
        held.fate.resolve(outcome);
        if let Some(attached) = held.attached.take() {
            held.turn = Some(attached.turn().clone());
            self.tells = true;
            let _ = self.told.send(Told::Resolved(held.fate.clone(), attached));
        }
    }

    fn free(&mut self, batch: BatchId) {
        let Some(mut held) = self.batches.remove(&batch) else { return };
        held.waits_no_longer();
        let memory = &self.accumulator.memory;
        if let Some(buffer) = held.sealed.and_then(SealedBatch::reclaim) {
            memory.recycle(buffer);
        }
        match held.turn {
            // Not before its records have been told.
            Some(turn) => {
                if self.told.send(Told::Freed(turn, held.bytes)).is_err() {
                    memory.give_back(held.bytes); // nobody is there to tell them
                }
            }
            None => memory.give_back(held.bytes),
        }
    }

    /// Records that nobody knows the fate of.
    fn give_up(&mut self) -> u64 {
        let mut records = 0;
        for note in self.accumulator.inbox.end() {
            if matches!(note, Note::Slots(_) | Note::Opened { .. } | Note::Sealed { .. }) {
                self.on_note(note);
            }
        }
        for (batch, held) in &mut self.batches {
            if let Some(open) = held.slot.take(*batch) {
                records += u64::from(open.records());
                held.records = open.records();
                held.attached = open.into_attached();
            } else if let Some(sealed) = held.sealed.as_ref().filter(|_| !held.fate.is_resolved()) {
                records += u64::from(sealed.count());
            }
        }
        let of_batches = |effect: &Effect| matches!(effect, Effect::Resolve(..) | Effect::Free(_));
        // What was flushed before is not cut short.
        self.apply_some(|effect| of_batches(effect) || matches!(effect, Effect::Flushed(_)));
        self.step(Event::Abort);
        self.apply_some(of_batches);
        // Batches the sender had not heard of.
        for batch in self.batches.keys().copied().collect::<Vec<_>>() {
            self.resolve(batch, Outcome::Failed(Failure::Aborted { maybe_written: false }));
            self.free(batch);
        }
        self.accumulator.memory.close();
        self.counts.in_flight.store(0, Ordering::Relaxed);
        self.measure();
        records
    }
}

impl Drop for Driver {
    /// However the task ends, nobody waits for ever.
    fn drop(&mut self) {
        let records = self.give_up();
        if records > 0 {
            match self.end {
                Some(End { dropped: true }) => {
                    tracing::warn!(records, "producer dropped without close: records were not acknowledged");
                }
                Some(End { dropped: false }) => {
                    tracing::warn!(records, "producer closed in haste: records were not acknowledged");
                }
                None => tracing::warn!(records, "sender task ended: records were not acknowledged"),
            }
        }
    }
}

/// Where a broker is, if the answer tells (KIP-951).
fn endpoint(response: &ProduceResponse, id: i32) -> Option<BrokerMetadata> {
    let told = response.node_endpoints.iter().find(|told| *told.node_id == id)?;
    let port = u16::try_from(told.port).ok()?;
    let rack = told.rack.as_ref().map(|rack| rack.as_str().to_owned());
    Some(BrokerMetadata { id, host: told.host.as_str().to_owned(), port, rack })
}

/// The index of what is wanted, looked for from `expected` to the end, then from the start: at once wherever answers
/// come in the order of the questions.
fn find_from<T>(items: &[T], expected: usize, wanted: impl Fn(&T) -> bool) -> Option<usize> {
    (expected..items.len()).chain(0..expected.min(items.len())).find(|at| wanted(&items[*at]))
}

async fn init_producer_id(client: &Client) -> Event {
    // Without a transaction there is nothing to time out; Kafka's own client says so with the largest value.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    match client.call(Target::Any, Lane::Main, &request).await {
        Ok(answer) if answer.error_code == 0 => {
            tracing::debug!(
                producer.id = *answer.producer_id,
                producer.epoch = answer.producer_epoch,
                "idempotent"
            );
            Event::ProducerId { id: *answer.producer_id, epoch: answer.producer_epoch }
        }
        Ok(answer) => Event::NoProducerId { code: Some(ErrorCode(answer.error_code)) },
        Err(RequestError::Version(error)) => {
            tracing::warn!(%error, "the broker knows no idempotent producers");
            Event::NoProducerId { code: Some(ErrorCode::UNSUPPORTED_VERSION) }
        }
        Err(error) => {
            tracing::debug!(%error, "no producer id yet");
            Event::NoProducerId { code: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn answers_are_found_in_one_look_each_if_they_come_in_order_and_in_any_order_all_the_same() {
        let asked: Vec<u32> = (0..1000).collect();
        let looks = Cell::new(0);
        let find = |expected, wanted| {
            find_from(&asked, expected, |item| {
                looks.set(looks.get() + 1);
                *item == wanted
            })
        };
        let mut expected = 0;
        for &wanted in &asked {
            let at = find(expected, wanted).unwrap();
            assert_eq!(asked[at], wanted);
            expected = at + 1;
        }
        assert_eq!(looks.take(), asked.len());
        for &wanted in asked.iter().rev() {
            let at = find(expected, wanted).unwrap();
            assert_eq!(asked[at], wanted);
            expected = at + 1;
        }
        assert_eq!(find(expected, 1000), None);
    }
}
