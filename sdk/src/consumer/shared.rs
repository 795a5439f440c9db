//! What the application's calls and the fetch task share.
//!
//! Short locks, taken in the order of their [`Rank`]s: that of the common [`Lane`] (decoding), that of a partition that has a lane of
//! its own, `own` (which have), and `machine` (deciding). The fetch task takes one of a lane only when a log was cut: decompression
//! does not delay fetching.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use klamm_core::Tick;
use klamm_core::TopicPartition;
use klamm_core::consumer::{
    ChunkError, ChunkReader, Effect, Event, Fetcher, Handout, Isolation, PartitionFailure, StartIn,
    StartOffset, Watermarks,
};
use klamm_core::group::{CommittedOffset, Offsets};
use klamm_wire::planted::{Bug, planted};
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::budget::Budget;
use super::error::ConsumerError;
use super::group::{Asking, Caller, Place, Turns};
use super::intercept::Teller;
use super::labels::{Labels, TopicOf};
use super::lock::{Guard, Ordered, Rank};
use super::record::ConsumerRecord;
use super::view::BatchView;
use crate::client::Client;

#[cfg(test)]
mod tests;

/// The fetcher and the effects that the fetch task has not carried out yet.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) fetcher: Fetcher,
    pub(super) effects: Vec<Effect>,
}

/// Where records come from: all partitions in turn, or one that is read for itself.
#[derive(Debug)]
pub(super) struct Lane {
    partition: Option<TopicPartition>,
    reader: Ordered<Reader>,
    /// Wakes whoever waits for records; at the common lane also for positions and partitions.
    pub(super) arrived: Arc<Notify>,
    /// The partition was taken away, or is read together with the others again.
    ended: AtomicBool,
    /// Calls that wait.
    pub(super) waiting: AtomicUsize,
    /// Calls for more so far. Counted by whoever has the lock of `reader`, so that it costs next to nothing for each record.
    calls: AtomicU64,
}

impl Lane {
    fn new(partition: Option<TopicPartition>) -> Self {
        let rank = if partition.is_some() { Rank::Lane } else { Rank::Common };
        Self {
            partition,
            reader: Ordered::new(rank, Reader::default()),
            arrived: Arc::default(),
            ended: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.arrived.notify_waiters();
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// For whoever has the lock of `reader`.
    #[inline]
    fn called(&self, times: u64) {
        self.calls.store(self.calls() + times, Ordering::Relaxed);
    }
}

/// What is being read.
#[derive(Debug, Default)]
struct Reader {
    open: Option<ChunkReader>,
    /// An error that came up behind records which were returned without it.
    stashed: Option<ConsumerError>,
    turns: Turns,
    /// Of the common one: partitions are, or were, read for themselves.
    beside: bool,
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
    /// Who hears of commits.
    pub(super) commits: Teller,
    machine: Ordered<Machine>,
    pub(super) common: Arc<Lane>,
    own: Ordered<BTreeMap<TopicPartition, Arc<Lane>>>,
    /// Topics come from what there is, so that asking for one that is gone must not create it again.
    never_creates: AtomicBool,
    /// Of which topics records are that were handed out.
    labels: Mutex<Labels>,
    closed: AtomicBool,
    /// Partitions whose topics were created again since somebody looked: what was committed of them counts no more.
    pub(super) recreated: Mutex<BTreeSet<TopicPartition>>,
    /// Partitions whose log was cut, or is another one, since reading began: what was read before may be read again.
    pub(super) went_back: Mutex<BTreeSet<TopicPartition>>,
    /// Streams so far.
    streams: AtomicU64,
    /// Bits of the tasks that may have records of the common lane ([`Caller::bit`]), once partitions are read for themselves: whoever
    /// asks there looks here first, and takes the common lane's lock only where it has something to be done with. Changed under
    /// that lock.
    tasks: AtomicU64,
}

/// Somebody who has records and is not done with them, or does not come for those that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder<C = Option<Caller>> {
    /// Of which lane; `None` for the common one.
    pub(super) lane: Option<TopicPartition>,
    /// `None` for a call that waits, or seems to.
    pub(super) caller: C,
    /// Changes whenever it comes back.
    pub(super) asked: u64,
}

/// A stream as one who asks for records. What it had when it is dropped, the task has that drops it.
#[derive(Debug)]
pub(super) struct StreamCaller {
    shared: Arc<Shared>,
    caller: Caller,
}

impl StreamCaller {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let caller = Caller::Stream(shared.streams.fetch_add(1, Ordering::Relaxed));
        Self { shared, caller }
    }

    /// Asks now.
    pub(super) fn asking(&self) -> Asking {
        [self.caller, Caller::task()]
    }
}

impl Drop for StreamCaller {
    fn drop(&mut self) {
        let task = Caller::task();
        let reader = &mut *self.shared.common.reader.lock();
        reader.turns.leave(self.caller, task);
        self.shared.mark(task);
    }
}

impl Reader {
    /// Where the partition stands, if it has a position.
    fn place(&self, machine: &Machine, name: &TopicPartition) -> Option<Place> {
        self.place_in_topic(machine, name).map(|(place, _)| place)
    }

    /// As [`Self::place`], with the id of the topic that it is a place of; nil if unknown.
    fn place_in_topic(&self, machine: &Machine, name: &TopicPartition) -> Option<(Place, Uuid)> {
        let open = self.open.as_ref().filter(|open| open.partition() == name);
        open.map(|open| ((open.position(), open.epoch()), open.topic_id()))
            .or_else(|| machine.fetcher.place_in_topic(name))
    }
}

impl Shared {
    pub(super) fn new(client: Client, settings: ReadSettings, fetcher: Fetcher, commits: Teller) -> Self {
        Self {
            client,
            settings,
            budget: Arc::default(),
            commits,
            machine: Ordered::new(Rank::Fetcher, Machine { fetcher, effects: Vec::new() }),
            common: Arc::new(Lane::new(None)),
            own: Ordered::new(Rank::Lanes, BTreeMap::new()),
            never_creates: AtomicBool::new(false),
            labels: Mutex::default(),
            closed: AtomicBool::new(false),
            recreated: Mutex::default(),
            went_back: Mutex::default(),
            streams: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Tick {
        self.client.rt().now()
    }

    /// Whether asking for a topic may create it.
    pub(super) fn may_create(&self) -> bool {
        self.settings.allow_auto_create && !self.never_creates.load(Ordering::Relaxed)
    }

    pub(super) fn never_create(&self, never: bool) {
        self.never_creates.store(never, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Hands out nothing more; streams of single partitions, which may outlive the consumer, end. Positions stay known.
    pub(super) fn end_reading(&self) {
        self.closed.store(true, Ordering::Release);
        self.common.arrived.notify_waiters();
        self.own.lock().values().for_each(|lane| lane.arrived.notify_waiters());
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.assign(Vec::new());
        self.common.arrived.notify_waiters();
    }

    /// What is assigned at this moment.
    pub(super) fn assigned(&self) -> BTreeSet<TopicPartition> {
        self.machine().fetcher.assignment().cloned().collect()
    }

    pub(super) fn machine(&self) -> Guard<'_, Machine> {
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
        let mut reader = self.common.reader.lock();
        let turns = Turns::anew(&reader.turns);
        *reader = Reader { turns, ..Reader::default() };
        let lanes = std::mem::take(&mut *self.own.lock());
        for lane in lanes.into_values() {
            let _reading = lane.reader.lock();
            self.common.called(lane.calls());
            lane.end();
        }
        self.step(Event::Assign(partitions));
    }

    /// The topic of a record. One that was not handed out here counts as of the topic that has the name now.
    pub(super) fn topic_of<K, V>(&self, record: &ConsumerRecord<K, V>) -> TopicOf {
        let known = self.labels.lock().topic(&record.topic);
        known.unwrap_or_else(|| TopicOf {
            id: self.topic_now(&record.topic_partition()),
            generation: u64::MAX,
        })
    }

    /// Id of the topic that a partition is read from, or else of the one that the metadata tell of; nil if there is none.
    pub(super) fn topic_now(&self, partition: &TopicPartition) -> Uuid {
        let read = self.machine().fetcher.place_in_topic(partition).map(|(_, id)| id);
        let told = || self.client.metadata().topics.get(&partition.topic).map(|topic| topic.id);
        read.filter(|id| !id.is_nil()).or_else(told).unwrap_or_default()
    }

    /// From now on what was handed out is told from what is done, for commits.
    pub(super) fn count_turns(&self) {
        self.common.reader.lock().turns.counts = true;
    }

    /// The application itself says how far it is done.
    pub(super) fn done_up_to(&self, offsets: &Offsets) {
        let mut common = self.common.reader.lock();
        for (partition, at) in offsets {
            let place = (at.offset, at.leader_epoch.unwrap_or(-1));
            if let Some(lane) = self.lane(partition) {
                lane.reader.lock().turns.done_up_to(partition, place);
            }
            common.turns.done_up_to(partition, place);
        }
    }

    /// Assigns these, too; they are read once it is known from where.
    pub(super) fn add(&self, partitions: Vec<TopicPartition>) {
        let mut reader = self.common.reader.lock();
        partitions.iter().for_each(|name| reader.turns.forget(name));
        self.step(Event::Add(partitions));
    }

    /// Hands out nothing more of these. What was handed out of them stays known until they are added again.
    pub(super) fn stop(&self, partitions: &[TopicPartition]) {
        let reader = &mut *self.common.reader.lock();
        for name in partitions {
            if let Some(lane) = self.lane(name) {
                self.end_lane(reader, name, &lane);
            }
        }
        {
            let machine = self.machine();
            for name in partitions {
                if let Some((place, topic)) = reader.place_in_topic(&machine, name) {
                    reader.turns.stopped(name, place, topic);
                }
            }
        }
        reader.open.take_if(|open| partitions.contains(open.partition()));
        self.step(Event::Remove(partitions.to_vec()));
    }

    /// Reads a partition for itself from now on, which is to ask for more of it; the inner `None` if it is read so already, the outer one if it is not assigned.
    pub(super) fn set_apart(&self, partition: &TopicPartition) -> Option<Option<Arc<Lane>>> {
        let mut reader = self.common.reader.lock();
        if !self.machine().fetcher.is_assigned(partition) {
            return None;
        }
        if self.lane(partition).is_some() {
            return Some(None);
        }
        let lane = Arc::new(Lane::new(Some(partition.clone())));
        reader.turns.over_in(partition, [Caller::task(); 2]);
        reader.beside = true;
        self.tasks.store(reader.turns.tasks(), Ordering::Relaxed);
        {
            let own = &mut *lane.reader.lock();
            own.turns.go_on(partition, &mut reader.turns);
            own.open = reader.open.take_if(|open| open.partition() == partition);
            let open = own.open.iter();
            open.for_each(|open| own.turns.reads(partition, open.topic_id()));
        }
        self.own.lock().insert(partition.clone(), lane.clone());
        self.step(Event::SetApart(partition.clone(), true));
        Some(Some(lane))
    }

    /// A partition that was read for itself is read together with the others again; nothing of it is lost.
    ///
    /// The caller's [`StreamCaller`] has to be dropped afterwards.
    pub(super) fn rejoin(&self, lane: &Arc<Lane>) {
        let Some(partition) = &lane.partition else { return };
        let mut reader = self.common.reader.lock();
        let current = self.lane(partition).is_some_and(|current| Arc::ptr_eq(&current, lane));
        if current {
            self.end_lane(&mut reader, partition, lane);
            self.step(Event::SetApart(partition.clone(), false));
        }
        // Whoever makes a stream of each partition may take it again.
        self.common.arrived.notify_waiters();
    }

    /// Ends a lane: its unread rest goes back to the queue, and what it handed out is known to the common one.
    fn end_lane(&self, common: &mut Reader, name: &TopicPartition, lane: &Lane) {
        let own = &mut *lane.reader.lock();
        common.turns.take_back(name, &mut own.turns);
        if let Some(open) = own.open.take() {
            self.machine().fetcher.give_back(open.into_rest());
        }
        {
            let mut lanes = self.own.lock();
            lanes.remove(name);
            self.common.called(lane.calls());
        }
        lane.end();
    }

    /// Calls for records so far, from whichever lane.
    pub(super) fn calls(&self) -> u64 {
        let lanes = self.own.lock();
        self.common.calls() + lanes.values().map(|lane| lane.calls()).sum::<u64>()
    }

    /// The lane that a partition has for itself.
    fn lane(&self, partition: &TopicPartition) -> Option<Arc<Lane>> {
        self.own.lock().get(partition).cloned()
    }

    /// An assigned partition that has no lane of its own.
    pub(super) fn undivided(&self) -> Option<TopicPartition> {
        let assigned: Vec<_> = self.machine().fetcher.assignment().cloned().collect();
        let own = self.own.lock();
        assigned.into_iter().find(|name| !own.contains_key(name))
    }

    /// Wakes the reader that a partition has for itself.
    pub(super) fn wake(&self, partition: &TopicPartition) {
        if let Some(lane) = self.lane(partition) {
            lane.arrived.notify_waiters();
        }
    }

    /// Gives chunks that wait long memory of their own, so that the rest of their answers is free.
    pub(super) fn unpin(&self) {
        loop {
            // Copied without the lock.
            let Some(mut chunk) = self.machine().fetcher.pinned().cloned() else { return };
            let copy = Bytes::copy_from_slice(&chunk.records);
            chunk.records = self.keep(copy);
            chunk.shared = false;
            self.machine().fetcher.unpinned(chunk);
        }
    }

    /// Counts memory until its last slice is dropped.
    fn keep(&self, bytes: Bytes) -> Bytes {
        self.budget.charge(bytes.len()).attach(bytes)
    }

    /// Reads these from their committed offsets, or as `auto.offset.reset` says.
    pub(super) fn begin(&self, found: BTreeMap<TopicPartition, Option<CommittedOffset>>) {
        let skip = i64::from(planted(Bug::SkipAtTakeover));
        let place = |at: CommittedOffset| (at.offset + skip, at.leader_epoch.unwrap_or(-1));
        self.step(Event::Begin(found.into_iter().map(|(name, at)| (name, at.map(place))).collect()));
    }

    /// As [`Self::begin`], of partitions that are those of certain topics.
    pub(super) fn begin_in(&self, starts: Vec<StartIn>) {
        self.step(Event::BeginIn(starts));
    }

    /// Offsets to commit: behind what was handed out, or with `done` behind what is done; where nothing was handed out yet,
    /// where reading begins, so that others begin there, too.
    pub(super) fn committable(&self, partitions: &BTreeSet<TopicPartition>, done: bool) -> Offsets {
        let at = |(offset, epoch)| CommittedOffset::new(offset).leader_epoch(epoch);
        let places = self.places(partitions, done).into_iter();
        places.map(|(name, place, _)| (name, at(place))).collect()
    }

    /// As [`Self::committable`], with the ids of the topics that these are places of; nil where unknown.
    pub(super) fn places(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        done: bool,
    ) -> Vec<(TopicPartition, Place, Uuid)> {
        let done = done && !planted(Bug::CommitWhatIsNotDone);
        let common = self.common.reader.lock();
        let unread = |reader: &Reader, name: &TopicPartition| reader.place_in_topic(&self.machine(), name);
        let standing = common.turns.standing(done);
        let found = |name: &TopicPartition| {
            let (place, topic) = match self.lane(name) {
                Some(lane) => {
                    let held = common.turns.held_at(name).filter(|_| done);
                    let own = lane.reader.lock();
                    let (place, topic) = own.turns.standing(done)(name).or_else(|| unread(&own, name))?;
                    (held.map_or(place, |held| held.min(place)), topic)
                }
                None => standing(name).or_else(|| unread(&common, name))?,
            };
            Some((name.clone(), place, topic))
        };
        partitions.iter().filter_map(found).collect()
    }

    /// Does something with the reader of a partition.
    fn with_reader<T>(&self, partition: &TopicPartition, act: impl FnOnce(&mut Reader) -> T) -> T {
        self.with_readers(partition, |reader, _| act(reader))
    }

    /// As [`Self::with_reader`], with the turns of before the partition was read for itself.
    fn with_readers<T>(
        &self,
        partition: &TopicPartition,
        act: impl FnOnce(&mut Reader, Option<&mut Turns>) -> T,
    ) -> T {
        let mut common = self.common.reader.lock();
        match self.lane(partition) {
            Some(lane) => act(&mut lane.reader.lock(), Some(&mut common.turns)),
            None => act(&mut common, None),
        }
    }

    /// Who has records of assigned partitions and is not done with them: streams, with `tasks` also tasks. And lanes in which somebody
    /// waits, or seems to, and does not come for what is there.
    pub(super) fn holders(&self, tasks: bool) -> Vec<Holder> {
        let common = self.common.reader.lock();
        let own: Vec<_> = self.own.lock().values().cloned().collect();
        let mut holders = self.holders_in(&self.common, &common, tasks);
        for lane in own {
            holders.extend(self.holders_in(&lane, &lane.reader.lock(), tasks));
        }
        holders
    }

    fn holders_in(&self, lane: &Lane, reader: &Reader, tasks: bool) -> Vec<Holder> {
        let machine = self.machine();
        let holder = |caller, asked| Holder { lane: lane.partition.clone(), caller, asked };
        let held = reader.turns.holders(|name| machine.fetcher.is_assigned(name));
        let held = held.into_iter().filter(|(caller, _)| tasks || matches!(caller, Caller::Stream(_)));
        let mut holders: Vec<_> = held.map(|(caller, asked)| holder(Some(caller), asked)).collect();
        holders.dedup();
        let waits = lane.waiting.load(Ordering::Relaxed) > 0;
        if waits && (reader.open.is_some() || machine.fetcher.is_ready(lane.partition.as_ref())) {
            holders.push(holder(None, reader.turns.asked()));
        }
        holders
    }

    pub(super) fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
        self.with_readers(partition, |reader, before| {
            if !self.machine().fetcher.is_assigned(partition) {
                return Err(ConsumerError::NotAssigned { partition: partition.clone() });
            }
            reader.open.take_if(|open| open.partition() == partition);
            reader.turns.forget(partition);
            before.into_iter().for_each(|turns| turns.forget(partition));
            self.step(Event::Seek(partition.clone(), to));
            Ok(())
        })
    }

    /// What was fetched of a partition from the offset on is not in its log any more: nothing of it is handed out or committed.
    pub(super) fn void(&self, partition: &TopicPartition, from: i64) {
        self.went_back.lock().insert(partition.clone());
        self.with_readers(partition, |reader, before| {
            let generation = self.machine().fetcher.generation(partition);
            let stale = |open: &mut ChunkReader| {
                open.partition() == partition && Some(open.generation()) != generation
            };
            if let Some(open) = reader.open.take_if(stale)
                && open.position() < from
            {
                let to = StartOffset::Checked { offset: open.position(), leader_epoch: open.epoch() };
                self.step(Event::Seek(partition.clone(), to));
            }
            reader.turns.cut(partition, from);
            before.into_iter().for_each(|turns| turns.cut(partition, from));
        });
    }

    pub(super) fn pause(&self, partitions: Vec<TopicPartition>) {
        for partition in partitions {
            self.with_reader(&partition, |reader| {
                let open = reader.open.take_if(|open| *open.partition() == partition);
                self.step(Event::Pause(vec![partition.clone()]));
                if let Some(open) = open {
                    self.machine().fetcher.give_back(open.into_rest());
                }
            });
        }
    }

    /// Offset to be handed out next; the outer `None` if the partition is not assigned.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Option<i64>> {
        self.with_reader(partition, |reader| {
            let machine = self.machine();
            let offset = || reader.place(&machine, partition).map(|(offset, _)| offset);
            machine.fetcher.is_assigned(partition).then(offset)
        })
    }

    /// Offset to be handed out next, and how far the log reaches; the outer `None` if the partition is not assigned.
    pub(super) fn outlook(&self, partition: &TopicPartition) -> Option<(Option<i64>, Option<Watermarks>)> {
        self.with_reader(partition, |reader| {
            let machine = self.machine();
            let outlook = || {
                let offset = reader.place(&machine, partition).map(|(offset, _)| offset);
                (offset, machine.fetcher.watermarks(partition))
            };
            machine.fetcher.is_assigned(partition).then(outlook)
        })
    }

    /// Keeps an error for the next call.
    pub(super) fn stash(&self, error: ConsumerError) {
        self.common.reader.lock().stashed = Some(error);
    }

    /// Takes the error that was kept for the next call, if it is one of these.
    pub(super) fn unstash(&self, wanted: impl Fn(&ConsumerError) -> bool) -> Option<ConsumerError> {
        self.common.reader.lock().stashed.take_if(|error| wanted(error))
    }

    /// Whoever asks is done with what it got before, and gets nothing.
    pub(super) fn asks(&self, asking: Asking) {
        let reader = &mut *self.common.reader.lock();
        self.common.called(1);
        reader.turns.over(asking);
    }

    /// Puts the next record into `found`; `false` if there is nothing to hand out now. With `anew` whoever asks is done with what
    /// it got before.
    ///
    /// Into a place of the caller's, since a record is large, and this is done for each.
    #[inline]
    pub(super) fn next_record(
        &self,
        lane: &Lane,
        asking: Asking,
        anew: bool,
        found: &mut Option<ConsumerRecord>,
    ) -> Result<bool, ConsumerError> {
        let keep = |bytes: Bytes| self.keep(bytes);
        self.next(lane, asking, anew, |open| {
            open.next_as(&keep, |partition, batch, record| {
                *found = Some(ConsumerRecord::shared(partition, batch, record));
                record.offset
            })
        })
    }

    /// As [`Self::next_record`], for a whole batch or what is left of one.
    pub(super) fn next_batch(
        &self,
        lane: &Lane,
        asking: Asking,
        found: &mut Option<BatchView>,
    ) -> Result<bool, ConsumerError> {
        let keep = |bytes: Bytes| self.keep(bytes);
        self.next(lane, asking, true, |open| {
            let Some(batch) = open.next_batch(&keep)? else { return Ok(None) };
            let first = batch.from();
            *found = Some(BatchView::new((open.partition().clone(), batch)));
            Ok(Some(first))
        })
    }

    /// Has `decode` put what comes next somewhere, and say at which offset that begins.
    #[inline]
    fn next(
        &self,
        lane: &Lane,
        asking: Asking,
        anew: bool,
        mut decode: impl FnMut(&mut ChunkReader) -> Result<Option<i64>, ChunkError>,
    ) -> Result<bool, ConsumerError> {
        let [caller, task] = asking;
        if anew && lane.partition.is_some() {
            let tasks = self.tasks.load(Ordering::Relaxed);
            if tasks != 0 && tasks & task.bit() != 0 {
                self.asks_elsewhere(task);
            }
        }
        let reader = &mut *lane.reader.lock();
        if anew {
            lane.called(1);
            reader.turns.over(asking);
        }
        if self.is_closed() {
            return Err(ConsumerError::Closed);
        }
        if lane.ended.load(Ordering::Acquire)
            && let Some(partition) = lane.partition.clone()
        {
            return Err(ConsumerError::NotAssigned { partition });
        }
        if reader.stashed.is_some()
            && let Some(error) = reader.stashed.take()
        {
            return Err(error);
        }
        loop {
            if let Some(open) = &mut reader.open {
                match decode(open) {
                    Ok(Some(first)) => {
                        let next = (open.position(), open.epoch());
                        reader.turns.handed(caller, open.partition(), first, next);
                        if reader.beside {
                            self.mark(caller);
                        }
                        return Ok(true);
                    }
                    Ok(None) => {
                        reader.turns.passed(open.partition(), (open.position(), open.epoch()));
                        reader.open = None;
                    }
                    Err(cause) => {
                        let (partition, offset) = (open.partition().clone(), open.position());
                        let (generation, next) = (open.generation(), open.behind_failure());
                        reader.open = None;
                        self.step(Event::Refetch { partition: partition.clone(), generation, from: offset });
                        return Err(ConsumerError::Corrupt { partition, offset, next, cause: Some(cause) });
                    }
                }
            }
            match self.take(lane) {
                None => return Ok(false),
                Some(Handout::Failed { partition, failure }) => return Err(self.failed(partition, failure)),
                Some(Handout::Chunk(chunk)) => {
                    self.labels.lock().note(&chunk);
                    reader.turns.reads(&chunk.partition, chunk.topic_id);
                    let ReadSettings { check_crcs, decompressed_batch_max_bytes, .. } = self.settings;
                    reader.open = Some(ChunkReader::new(chunk, check_crcs, decompressed_batch_max_bytes));
                }
            }
        }
    }

    /// It may have records of the common lane, whose lock is held.
    fn mark(&self, caller: Caller) {
        let bit = caller.bit();
        if self.tasks.load(Ordering::Relaxed) & bit != bit {
            self.tasks.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// A task asks for more, though not of the common lane: what it has of that is done.
    pub(super) fn asks_elsewhere(&self, task: Caller) {
        let turns = &mut self.common.reader.lock().turns;
        turns.over_elsewhere(task);
        self.tasks.store(turns.tasks(), Ordering::Relaxed);
    }

    /// A record that was just handed out shall be handed out again, later; `false` if others have gone on behind it.
    pub(super) fn hold_at(&self, lane: &Lane, partition: &TopicPartition, offset: i64) -> bool {
        let reader = &mut *lane.reader.lock();
        let last = |open: &mut ChunkReader| open.partition() == partition && open.position() == offset + 1;
        let Some(open) = reader.open.take_if(last) else { return false };
        reader.turns.retract(partition, offset);
        let generation = open.generation();
        self.step(Event::Refetch { partition: partition.clone(), generation, from: offset });
        true
    }

    fn take(&self, lane: &Lane) -> Option<Handout> {
        let now = self.now();
        let Machine { fetcher, effects } = &mut *self.machine();
        let item = match &lane.partition {
            Some(partition) => fetcher.take_from(now, partition, effects),
            None => fetcher.take(now, effects),
        };
        if !effects.is_empty() {
            self.budget.work.notify_one();
        }
        item
    }

    fn failed(&self, partition: TopicPartition, failure: PartitionFailure) -> ConsumerError {
        match failure {
            PartitionFailure::OutOfRange { offset } => ConsumerError::OutOfRange { partition, offset },
            PartitionFailure::Truncated { offset, diverges } => {
                ConsumerError::Truncated { partition, offset, diverges }
            }
            PartitionFailure::Corrupt { offset } => {
                ConsumerError::Corrupt { partition, offset, next: None, cause: None }
            }
            PartitionFailure::NoOffset => ConsumerError::NoOffset { partition },
            PartitionFailure::Refused(code) => ConsumerError::Refused { partition, code },
            PartitionFailure::NoLeader(code) => ConsumerError::NoLeader {
                partition,
                waited: self.client.settings().patience(),
                code,
                causes: self.client.causes(),
            },
        }
    }
}
