//! What the application's calls and the fetch task share.
//!
//! Two short locks, taken in this order: `reader` (decoding) and `machine` (deciding). Neither is held while
//! waiting or while code of the application runs, and the fetch task never takes the first: decompression does
//! not delay fetching.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use klamm_core::Tick;
use klamm_core::TopicPartition;
use klamm_core::consumer::{
    ChunkReader, ChunkRecord, Effect, Event, Fetcher, Handout, Isolation, PartitionFailure, StartOffset,
};
use klamm_core::group::{CommittedOffset, Offsets};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::budget::Budget;
use super::error::ConsumerError;
use super::group::{Place, Turns};
use crate::client::Client;

/// The fetcher and the effects that the fetch task has not carried out yet.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) fetcher: Fetcher,
    pub(super) effects: Vec<Effect>,
}

/// What is being read.
#[derive(Debug, Default)]
struct Reader {
    open: Option<ChunkReader>,
    /// An error that came up behind records which were returned without it.
    stashed: Option<ConsumerError>,
    turns: Turns,
}

/// Settings of decoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadSettings {
    pub(super) check_crcs: bool,
    pub(super) decompressed_batch_max_bytes: usize,
    pub(super) allow_auto_create: bool,
    pub(super) isolation: Isolation,
    pub(super) max_poll_records: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) settings: ReadSettings,
    pub(super) budget: Arc<Budget>,
    machine: Mutex<Machine>,
    reader: Mutex<Reader>,
    /// Wakes whoever waits for records or positions.
    pub(super) arrived: Notify,
    closed: AtomicBool,
}

/// Where those of the partitions stand that have a position, with the leader epoch of the record before.
fn positions<'a>(
    reader: &Reader,
    machine: &Machine,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> impl Iterator<Item = (&'a TopicPartition, Place)> {
    partitions.into_iter().filter_map(|name| {
        let open = reader.open.as_ref().filter(|open| open.partition() == name);
        let place = open.map(|open| (open.position(), open.epoch()));
        Some((name, place.or_else(|| machine.fetcher.place(name))?))
    })
}

impl Shared {
    pub(super) fn new(client: Client, settings: ReadSettings, fetcher: Fetcher) -> Self {
        Self {
            client,
            settings,
            budget: Arc::default(),
            machine: Mutex::new(Machine { fetcher, effects: Vec::new() }),
            reader: Mutex::default(),
            arrived: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn now(&self) -> Tick {
        self.client.rt().now()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.assign(Vec::new());
        self.arrived.notify_waiters();
    }

    /// What is assigned at this moment.
    pub(super) fn assigned(&self) -> BTreeSet<TopicPartition> {
        self.machine().fetcher.assignment().cloned().collect()
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    /// Applies an event; its effects are carried out by the fetch task.
    pub(super) fn step(&self, event: Event) {
        let now = self.now();
        let Machine { fetcher, effects } = &mut *self.machine();
        fetcher.step(now, event, effects);
        self.budget.work.notify_one();
    }

    pub(super) fn assign(&self, partitions: Vec<(TopicPartition, StartOffset)>) {
        let mut reader = self.reader.lock();
        let turns = Turns::anew(&reader.turns);
        *reader = Reader { turns, ..Reader::default() };
        self.step(Event::Assign(partitions));
    }

    /// From now on what was handed out is told from what is done, for commits.
    pub(super) fn count_turns(&self) {
        self.reader.lock().turns.counts = true;
    }

    /// Assigns these, too; they are read once it is known from where.
    pub(super) fn add(&self, partitions: Vec<TopicPartition>) {
        let mut reader = self.reader.lock();
        partitions.iter().for_each(|name| reader.turns.forget(name));
        self.step(Event::Add(partitions));
    }

    /// Hands out nothing more of these. What was handed out of them stays known until they are added again.
    pub(super) fn stop(&self, partitions: &[TopicPartition]) {
        let reader = &mut *self.reader.lock();
        let stood: Vec<_> = positions(reader, &self.machine(), partitions).collect();
        for (name, place) in stood {
            reader.turns.stopped(name, place);
        }
        reader.open.take_if(|open| partitions.contains(open.partition()));
        self.step(Event::Remove(partitions.to_vec()));
    }

    /// Reads these from their committed offsets, or as `auto.offset.reset` says.
    pub(super) fn begin(&self, found: BTreeMap<TopicPartition, Option<CommittedOffset>>) {
        let place = |at: CommittedOffset| (at.offset, at.leader_epoch.unwrap_or(-1));
        self.step(Event::Begin(found.into_iter().map(|(name, at)| (name, at.map(place))).collect()));
    }

    /// Offsets to commit: behind what was handed out, or with `done` behind what is done; where nothing was handed out yet,
    /// where reading begins, so that others begin there, too.
    pub(super) fn committable(&self, partitions: &BTreeSet<TopicPartition>, done: bool) -> Offsets {
        let reader = self.reader.lock();
        let begun: BTreeMap<_, _> = positions(&reader, &self.machine(), partitions).collect();
        let place =
            |name: &TopicPartition| reader.turns.place(name, done).or_else(|| begun.get(name).copied());
        let committed = |name: &TopicPartition| {
            let (offset, epoch) = place(name)?;
            Some((name.clone(), CommittedOffset::new(offset).leader_epoch(epoch)))
        };
        partitions.iter().filter_map(committed).collect()
    }

    pub(super) fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
        let mut reader = self.reader.lock();
        if !self.machine().fetcher.is_assigned(partition) {
            return Err(ConsumerError::NotAssigned { partition: partition.clone() });
        }
        reader.open.take_if(|open| open.partition() == partition);
        reader.turns.forget(partition);
        self.step(Event::Seek(partition.clone(), to));
        Ok(())
    }

    pub(super) fn pause(&self, partitions: Vec<TopicPartition>) {
        let mut reader = self.reader.lock();
        let open = reader.open.take_if(|open| partitions.contains(open.partition()));
        self.step(Event::Pause(partitions));
        if let Some(open) = open {
            self.machine().fetcher.give_back(open.into_rest());
        }
    }

    /// Offset to be handed out next; the outer `None` if the partition is not assigned.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Option<i64>> {
        let reader = self.reader.lock();
        let machine = self.machine();
        if !machine.fetcher.is_assigned(partition) {
            return None;
        }
        let open = reader.open.as_ref().filter(|open| open.partition() == partition);
        Some(open.map(ChunkReader::position).or_else(|| machine.fetcher.position(partition)))
    }

    /// Keeps an error for the next call.
    pub(super) fn stash(&self, error: ConsumerError) {
        self.reader.lock().stashed = Some(error);
    }

    /// The next record, or `None` if there is nothing to hand out now. With `anew` the application is done with what it got
    /// before.
    pub(super) fn next(&self, anew: bool) -> Result<Option<(TopicPartition, ChunkRecord)>, ConsumerError> {
        let reader = &mut *self.reader.lock();
        if anew {
            reader.turns.over();
        }
        if self.is_closed() {
            return Err(ConsumerError::Closed);
        }
        if let Some(error) = reader.stashed.take() {
            return Err(error);
        }
        let keep = |bytes: Bytes| self.budget.charge(bytes.len()).attach(bytes);
        loop {
            if let Some(open) = &mut reader.open {
                match open.next(&keep) {
                    Ok(Some(record)) => {
                        reader.turns.handed(open.partition(), record.offset, record.leader_epoch);
                        return Ok(Some((open.partition().clone(), record)));
                    }
                    Ok(None) => reader.open = None,
                    Err(cause) => {
                        let (partition, offset) = (open.partition().clone(), open.position());
                        let generation = open.generation();
                        reader.open = None;
                        self.step(Event::Refetch { partition: partition.clone(), generation, from: offset });
                        return Err(ConsumerError::Corrupt { partition, offset, cause: Some(cause) });
                    }
                }
            }
            match self.take() {
                None => return Ok(None),
                Some(Handout::Failed { partition, failure }) => return Err(self.failed(partition, failure)),
                Some(Handout::Chunk(chunk)) => {
                    let ReadSettings { check_crcs, decompressed_batch_max_bytes, .. } = self.settings;
                    reader.open = Some(ChunkReader::new(chunk, check_crcs, decompressed_batch_max_bytes));
                }
            }
        }
    }

    fn take(&self) -> Option<Handout> {
        let now = self.now();
        let Machine { fetcher, effects } = &mut *self.machine();
        let item = fetcher.take(now, effects);
        if !effects.is_empty() {
            self.budget.work.notify_one();
        }
        item
    }

    fn failed(&self, partition: TopicPartition, failure: PartitionFailure) -> ConsumerError {
        match failure {
            PartitionFailure::OutOfRange { offset } => ConsumerError::OutOfRange { partition, offset },
            PartitionFailure::Corrupt { offset } => ConsumerError::Corrupt { partition, offset, cause: None },
            PartitionFailure::Truncated { offset, at } => ConsumerError::Truncated { partition, offset, at },
            PartitionFailure::NoOffset => ConsumerError::NoOffset { partition },
            PartitionFailure::Refused(code) => ConsumerError::Refused { partition, code },
            PartitionFailure::NoLeader(code) => ConsumerError::NoLeader {
                partition,
                waited: self.client.settings().api_timeout(),
                code,
                causes: self.client.causes(),
            },
        }
    }
}
