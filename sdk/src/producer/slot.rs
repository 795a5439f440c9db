//! The open batch of each partition, and the topics that hold them.
//!
//! A record is encoded straight into the open batch in the caller's own task, under the lock of its partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use klamm_core::metadata::TopicMetadata;
use klamm_core::partitioner::Sticky;
use klamm_core::producer::{BatchId, PartitionId};
use klamm_wire::{BatchBuilder, Compression};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::client::Client;

use super::attached::{Attachment, Attachments, Audience, Turn};
use super::clock::CoarseClock;
use super::delivery::{Delivery, Fate};
use super::inbox::{Inbox, Note};
use super::memory::{Memory, Room};
use super::spread::{Spread, Spreader};

/// Bytes of a batch before its records.
pub(super) const HEADER_BYTES: usize = klamm_wire::batch::HEADER_BYTES;

/// One partition.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: PartitionId,
    pub(super) topic: Arc<str>,
    pub(super) index: i32,
    pub(super) packing: Packing,
    /// Batches that were opened and not sent yet.
    waiting: AtomicU32,
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    open: Option<Open>,
    sticky: Sticky,
    clock: CoarseClock,
    /// Of the last batch of which something is to be told.
    turn: Option<Arc<Turn>>,
    /// What a batch may hold, if the broker took none of `batch.size`.
    limit: Option<usize>,
}

/// A batch that takes records.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) batch: BatchId,
    builder: BatchBuilder,
    packing: Packing,
    fate: Arc<Fate>,
    /// What is to be told of its records, if anything.
    attached: Option<Box<Attachments>>,
}

impl Open {
    pub(super) fn records(&self) -> u32 {
        self.builder.count()
    }

    pub(super) fn into_attached(self) -> Option<Box<Attachments>> {
        self.attached
    }

    /// Whether closing it takes time.
    pub(super) fn is_to_be_compressed(&self) -> bool {
        self.packing.compression != Compression::None
    }

    /// Closes the batch, compressing it, and tells the sender about it in a note.
    pub(super) fn seal(self) -> Note {
        let sealed = self.builder.seal(self.packing.compression, self.packing.level);
        let sealed = sealed.inspect_err(|error| tracing::warn!(%error, "cannot close a batch")).ok();
        Note::Sealed { batch: self.batch, sealed, attached: self.attached }
    }
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    pub(super) compression: Compression,
    pub(super) level: Option<i32>,
}

/// How the batches of each topic are compressed.
#[derive(Debug, Clone)]
pub(super) struct Packings {
    pub(super) default: Packing,
    pub(super) by_topic: BTreeMap<String, Packing>,
}

impl Packings {
    fn of(&self, topic: &str) -> Packing {
        self.by_topic.get(topic).copied().unwrap_or(self.default)
    }
}

impl Slot {
    fn new(id: PartitionId, topic: Arc<str>, index: i32, packing: Packing) -> Self {
        Self { id, topic, index, packing, waiting: AtomicU32::new(0), state: Mutex::default() }
    }

    /// Batches that were opened and not sent yet.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A batch waits no longer: it is sent for the first time, or given up.
    pub(super) fn waits_no_longer(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// From now on batches hold at most so many bytes before they are compressed, or again `batch.size`.
    pub(super) fn limit_batches(&self, bytes: Option<usize>) {
        let mut state = self.state.lock();
        state.limit = bytes.map(|bytes| state.limit.map_or(bytes, |limit| limit.min(bytes)));
    }

    /// Takes the open batch, if it is this one.
    pub(super) fn take(&self, batch: BatchId) -> Option<Open> {
        let mut state = self.state.lock();
        state.open.take_if(|open| open.batch == batch)
    }
}

/// One topic as callers see it. Replaced when the topic gets more partitions, or is created again.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    id: Uuid,
    /// Partitions there are.
    pub(super) count: usize,
    /// Every partition there ever was: sequences go on where a topic of the same name left off.
    pub(super) slots: Vec<Arc<Slot>>,
    /// Where records without a key go now.
    sticky: AtomicU32,
    pub(super) spread: Spread,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    /// Those that the metadata do not know any more: nothing is appended to them unless they are known again.
    gone: BTreeMap<Arc<str>, Arc<Topic>>,
    next_slot: u32,
}

/// Everything that appending needs.
pub(super) struct Accumulator {
    pub(super) client: Client,
    pub(super) inbox: Inbox,
    pub(super) memory: Memory,
    pub(super) batch_size: usize,
    packings: Packings,
    pub(super) spreader: Spreader,
    /// Hears of every record.
    audience: Option<Arc<dyn Audience>>,
    topics: RwLock<Topics>,
}

/// Which partition a record is to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    /// This one.
    Index(usize),
    /// Wherever records without a key go now.
    Sticky,
}

/// A record in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(String, Option<Bytes>)],
    pub(super) timestamp: Option<i64>,
    /// Most bytes it can need in a batch.
    pub(super) need: usize,
}

/// What became of an attempt to append.
pub(super) enum Appended {
    Done(Delivery),
    /// A new batch is needed, and this many bytes for it.
    NoRoom(usize),
    Closed,
}

impl Accumulator {
    pub(super) fn new(
        client: Client,
        memory: Memory,
        batch_size: usize,
        packings: Packings,
        spreader: Spreader,
        audience: Option<Arc<dyn Audience>>,
    ) -> Self {
        Self {
            client,
            inbox: Inbox::default(),
            memory,
            batch_size,
            packings,
            spreader,
            audience,
            topics: RwLock::default(),
        }
    }

    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().by_name.get(name).cloned()
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let topics = self.topics.read();
        topics.by_name.keys().chain(topics.gone.keys()).cloned().collect()
    }

    /// The metadata do not know a topic any more. Returns all of its partitions.
    pub(super) fn forget(&self, name: &str) -> Vec<Arc<Slot>> {
        let mut topics = self.topics.write();
        if let Some((name, topic)) = topics.by_name.remove_entry(name) {
            topics.gone.insert(name, topic);
        }
        topics.gone.get(name).map_or_else(Vec::new, |topic| topic.slots.clone())
    }

    /// Takes over what the metadata say of a topic: new topics, new partitions, a topic created again.
    pub(super) fn adopt(&self, metadata: &TopicMetadata) -> Arc<Topic> {
        let mut topics = self.topics.write();
        if let Some((name, topic)) = topics.gone.remove_entry(&metadata.name) {
            topics.by_name.insert(name, topic);
        }
        let known = topics.by_name.get(&metadata.name).cloned();
        let told = metadata.partitions.len();
        let recreated = known
            .as_ref()
            .is_some_and(|known| known.id != metadata.id && !known.id.is_nil() && !metadata.id.is_nil());
        if let Some(known) = known.as_ref().filter(|known| !recreated && known.count >= told) {
            return known.clone();
        }
        let name = known.as_ref().map_or_else(|| metadata.name.clone(), |topic| topic.name.clone());
        let packing = self.packings.of(&name);
        let mut added = Vec::new();
        for index in known.as_ref().map_or(0, |topic| topic.slots.len())..told {
            let id = PartitionId(topics.next_slot);
            topics.next_slot += 1;
            added.push(Arc::new(Slot::new(id, name.clone(), index as i32, packing)));
        }
        let mut slots = known.as_ref().map_or_else(Vec::new, |topic| topic.slots.clone());
        slots.extend(added.iter().cloned());
        let current = known.as_ref().map(|topic| topic.sticky.load(Ordering::Relaxed));
        let sticky = current.filter(|current| (*current as usize) < told);
        let spread = Spread::default();
        let draw = || self.spreader.draw(&name, &spread, &slots[..told], None);
        let sticky = AtomicU32::new(sticky.unwrap_or_else(draw));
        if recreated {
            self.inbox.leave(Note::Recreated(known.map_or_else(Vec::new, |topic| topic.slots.clone())));
        }
        let topic =
            Arc::new(Topic { name: name.clone(), id: metadata.id, count: told, slots, sticky, spread });
        topics.by_name.insert(name, topic.clone());
        // Under the lock, so that the sender hears of the partitions in the order of their numbers.
        self.inbox.leave(Note::Slots(added));
        topic
    }

    /// Appends a record to the open batch of its partition, opening one if need be. Never waits.
    ///
    /// `attachment` is taken if the record is appended. `room` is what an earlier [`Appended::NoRoom`] asked for; what is
    /// not needed of it is given back.
    pub(super) fn append(
        &self,
        topic: &Topic,
        pick: Pick,
        record: Encoded<'_>,
        attachment: &mut Option<Attachment>,
        room: &mut Option<Room<'_>>,
    ) -> Appended {
        loop {
            let index = match pick {
                Pick::Index(index) => index,
                Pick::Sticky => topic.sticky.load(Ordering::Relaxed) as usize,
            };
            let Some(slot) = topic.slots.get(index) else { return Appended::Closed };
            let mut state = slot.state.lock();
            if pick == Pick::Sticky && topic.sticky.load(Ordering::Relaxed) as usize != index {
                continue; // someone moved on while this waited for the lock
            }
            if let Some(delivery) = self.append_to(slot, &mut state, record, attachment) {
                return Appended::Done(delivery);
            }
            let full = state.open.take();
            if pick == Pick::Sticky && state.sticky.leaves(record.need, self.batch_size) {
                let slots = &topic.slots[..topic.count];
                let next = self.spreader.draw(&topic.name, &topic.spread, slots, Some(index as u32));
                topic.sticky.store(next, Ordering::Relaxed);
                drop(state);
                self.seal(full);
                continue;
            }
            let appended = self.open(&mut state, slot, record, attachment, room);
            drop(state);
            self.seal(full);
            return appended;
        }
    }

    /// Appends to the open batch if there is one with room.
    fn append_to(
        &self,
        slot: &Slot,
        state: &mut SlotState,
        record: Encoded<'_>,
        attachment: &mut Option<Attachment>,
    ) -> Option<Delivery> {
        let open = state.open.as_mut()?;
        let limit = state.limit.unwrap_or(self.batch_size);
        if !open.builder.is_empty() && open.builder.len_bytes() + record.need > limit {
            return None;
        }
        let now = || self.client.rt().wall_ms();
        let timestamp = record.timestamp.unwrap_or_else(|| state.clock.next(now));
        let before = open.builder.len_bytes();
        let index = open.builder.append(timestamp, record.key, record.value, record.headers);
        state.sticky.appended(open.builder.len_bytes() - before);
        if let Some(attachment) = attachment.take() {
            let attached = open.attached.get_or_insert_with(|| {
                Attachments::new(slot.topic.clone(), slot.index, self.audience.clone(), &mut state.turn)
            });
            attached.push(index, timestamp, attachment);
        }
        Some(Delivery::new(open.fate.clone(), index, timestamp))
    }

    fn open(
        &self,
        state: &mut SlotState,
        slot: &Arc<Slot>,
        record: Encoded<'_>,
        attachment: &mut Option<Attachment>,
        room: &mut Option<Room<'_>>,
    ) -> Appended {
        let price = self.memory.price(HEADER_BYTES + record.need);
        let paid = room.take().filter(|room| room.bytes() >= price).or_else(|| self.memory.try_take(price));
        let Some(paid) = paid else { return Appended::NoRoom(price) };
        let fate = Arc::new(Fate::new(slot.topic.clone(), slot.index));
        let held = paid.bytes();
        // Under the partition's lock, so that the sender hears of batches in the order of their records.
        let note = |batch| Note::Opened { batch, slot: slot.clone(), fate: fate.clone(), held };
        slot.waiting.fetch_add(1, Ordering::Relaxed); // before the sender can hear of it
        let Some(batch) = self.inbox.leave_numbered(note) else { return Appended::Closed };
        let builder = BatchBuilder::new(self.memory.buffer(paid.keep()));
        if self.memory.is_short() {
            self.inbox.leave(Note::NoRoom);
        }
        state.open = Some(Open { batch, builder, packing: slot.packing, fate, attached: None });
        state.clock.doubt();
        self.append_to(slot, state, record, attachment).map_or(Appended::Closed, Appended::Done)
    }

    /// Closes a batch that is full, in the task that filled it.
    fn seal(&self, full: Option<Open>) {
        if let Some(full) = full {
            self.inbox.leave(full.seal());
        }
    }
}
