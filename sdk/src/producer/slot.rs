//! The open batch of each partition.
//!
//! A record is encoded straight into the open batch in the caller's own task, under the lock of its partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use klamm_core::metadata::TopicMetadata;
use klamm_core::partitioner::Sticky;
use klamm_core::producer::{BatchId, PartitionId};
use klamm_wire::{BatchBuilder, Compression};
use parking_lot::{Mutex, MutexGuard};

use crate::client::Client;

use super::attached::{Attachment, Attachments, Audience, Turn};
use super::clock::CoarseClock;
use super::delivery::{Delivery, Fate};
use super::inbox::{Inbox, Note};
use super::memory::{Memory, Room};
use super::spread::{Spread, Spreader};
use super::topics::{Topic, Topics};

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
    pub(super) topics: Topics,
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
            topics: Topics::default(),
        }
    }

    /// The metadata do not know a topic any more. Returns all of its partitions.
    pub(super) fn forget(&self, name: &str) -> &[Arc<Slot>] {
        self.topics.change().forget(name).map_or(&[], |topic| &topic.slots)
    }

    /// Takes over what the metadata say of a topic: new topics, new partitions, a topic created again.
    ///
    /// `asked` is the name as a record gives it, if it is one that asks.
    pub(super) fn adopt(&self, metadata: &TopicMetadata, asked: Option<&Arc<str>>) -> &Topic {
        let mut topics = self.topics.change();
        let known = topics.known(&metadata.name);
        let told = metadata.partitions.len();
        let recreated =
            known.is_some_and(|known| known.id != metadata.id && !known.id.is_nil() && !metadata.id.is_nil());
        if let Some(known) = known.filter(|known| !recreated && known.count >= told) {
            return known;
        }
        let name = known.map_or_else(|| metadata.name.clone(), |topic| topic.name.clone());
        let packing = self.packings.of(&name);
        let mut added = Vec::new();
        for index in known.map_or(0, |topic| topic.slots.len())..told {
            let id = PartitionId(topics.next_slot());
            added.push(Arc::new(Slot::new(id, name.clone(), index as i32, packing)));
        }
        let before = known.map_or_else(Vec::new, |topic| topic.slots.clone());
        let slots: Vec<_> = before.iter().chain(&added).cloned().collect();
        let current = known.map(|topic| topic.sticky.load(Ordering::Relaxed));
        let sticky = current.filter(|current| (*current as usize) < told);
        let spread = Spread::default();
        let draw = || self.spreader.draw(&name, &spread, &slots[..told], None);
        let sticky = AtomicU32::new(sticky.unwrap_or_else(draw));
        if recreated {
            self.inbox.leave(Note::Recreated(before));
        }
        let asked = known.map(|topic| &topic.asked).or(asked).unwrap_or(&name).clone();
        let (id, stale) = (metadata.id, AtomicBool::new(false));
        let topic = topics.put(Topic { name, asked, id, count: told, slots, sticky, spread, stale });
        // Before others may change topics, so that the sender hears of the partitions in the order of their numbers.
        self.inbox.leave(Note::Slots(added));
        topic
    }

    /// Appends a record to the open batch of its partition, opening one if need be. Never waits.
    ///
    /// `attachment` is taken if the record is appended. `room` is what an earlier [`Appended::NoRoom`] asked for; what is
    /// not needed of it is given back.
    #[inline]
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
            if let Some(delivery) = self.append_to(pick, slot, &mut state, record, attachment) {
                return Appended::Done(delivery);
            }
            let sticky = (pick == Pick::Sticky).then_some(topic);
            if let Some(appended) = self.next_batch(sticky, slot, state, record, attachment, room) {
                return appended;
            }
        }
    }

    /// Appends to the open batch if there is one with room.
    #[inline]
    fn append_to(
        &self,
        pick: Pick,
        slot: &Slot,
        state: &mut SlotState,
        record: Encoded<'_>,
        attachment: &mut Option<Attachment>,
    ) -> Option<Delivery> {
        let open = state.open.as_mut()?;
        let before = open.builder.len_bytes();
        let limit = state.limit.unwrap_or(self.batch_size);
        if before + record.need > limit && !open.builder.is_empty() {
            return None;
        }
        let now = || self.client.rt().wall_ms();
        let timestamp = record.timestamp.unwrap_or_else(|| state.clock.next(now));
        let index = open.builder.append(timestamp, record.key, record.value, record.headers);
        if pick == Pick::Sticky {
            state.sticky.appended(open.builder.len_bytes() - before);
        }
        if attachment.is_some() {
            self.attach(slot, open, &mut state.turn, index, timestamp, attachment);
        }
        Some(Delivery::new(open.fate.clone(), index, timestamp))
    }

    #[cold]
    fn attach(
        &self,
        slot: &Slot,
        open: &mut Open,
        last: &mut Option<Arc<Turn>>,
        index: u32,
        timestamp: i64,
        attachment: &mut Option<Attachment>,
    ) {
        let Some(attachment) = attachment.take() else { return };
        let attached = open.attached.get_or_insert_with(|| {
            Attachments::new(slot.topic.clone(), slot.index, self.audience.clone(), last)
        });
        attached.push(index, timestamp, attachment);
    }

    /// Closes the open batch, which is full, and opens another one with the record in it; or, told by `None`, moves on to
    /// another partition of the topic, if the record may go to any.
    #[cold]
    fn next_batch(
        &self,
        sticky: Option<&Topic>,
        slot: &Arc<Slot>,
        mut state: MutexGuard<'_, SlotState>,
        record: Encoded<'_>,
        attachment: &mut Option<Attachment>,
        room: &mut Option<Room<'_>>,
    ) -> Option<Appended> {
        let full = state.open.take();
        let leaves = |state: &mut SlotState| state.sticky.leaves(record.need, self.batch_size);
        let appended = if let Some(topic) = sticky.filter(|_| leaves(&mut state)) {
            let slots = &topic.slots[..topic.count];
            let next = self.spreader.draw(&topic.name, &topic.spread, slots, Some(slot.index as u32));
            topic.sticky.store(next, Ordering::Relaxed);
            None
        } else {
            let pick = sticky.map_or(Pick::Index(slot.index as usize), |_| Pick::Sticky);
            Some(self.open(pick, &mut state, slot, record, attachment, room))
        };
        drop(state);
        self.seal(full);
        appended
    }

    fn open(
        &self,
        pick: Pick,
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
        self.append_to(pick, slot, state, record, attachment).map_or(Appended::Closed, Appended::Done)
    }

    /// Closes a batch that is full, in the task that filled it.
    fn seal(&self, full: Option<Open>) {
        if let Some(full) = full {
            self.inbox.leave(full.seal());
        }
    }
}
