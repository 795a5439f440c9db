//! The append-only record of a run.
//!
//! In: one call per thing that happened, in the order in which it happened. Out: rows that the checker walks.
//!
//! Invariant: names are kept once, events hold numbers; nothing recorded is ever changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Client, CommitSent, Entry, Event, Group, Op, Partition};

/// What a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Acks {
    /// Nothing: acknowledged once written to a socket.
    None,
    /// The leader.
    Leader,
    /// All in-sync replicas.
    All,
}

/// How a producer is set up, as far as it decides what may be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerSettings {
    /// `acks`.
    pub acks: Acks,
    /// `enable.idempotence`: each record at most once, in order.
    pub idempotent: bool,
    /// Without idempotence: one request in flight, so that what is acknowledged is in order.
    pub ordered: bool,
    /// Whether it sends anything again by itself. One that does not writes each record at most once.
    pub retries: bool,
}

impl Default for ProducerSettings {
    /// Kafka's defaults: idempotent, `acks=all`.
    fn default() -> Self {
        Self { acks: Acks::All, idempotent: true, ordered: true, retries: true }
    }
}

/// Who a [`Client`] is.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) name: Arc<str>,
    pub(super) producer: Option<ProducerSettings>,
    pub(super) group: Option<Group>,
}

/// One record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogRecord {
    /// Its offset.
    pub offset: i64,
    /// Which record: [`Op::of_value`] of its value.
    pub op: Op,
    /// Leader epoch of its batch, or -1 if unknown.
    pub leader_epoch: i32,
}

/// What a log holds at the end of a run, between two offsets.
///
/// Offsets between them that no record has (control records, compaction) are no violation by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// First offset that is still kept; nothing is said about what was below.
    pub start: i64,
    /// First offset that is not committed (for a replica: to which it is to be compared).
    pub end: i64,
    /// Its records by ascending offset.
    pub records: Vec<LogRecord>,
}

/// Everything that is known of one run.
///
/// Calls are taken in the order in which they come; times may be equal, and those of different clients may go back a
/// little, as they do where threads share a recorder behind a lock. What is recorded *before* something is sent and
/// what is recorded *after* it was heard decides what the checker may conclude: see each method.
#[derive(Debug, Default)]
pub struct History {
    pub(super) entries: Vec<Entry>,
    pub(super) clients: Vec<Registered>,
    pub(super) partitions: Vec<(Arc<str>, i32)>,
    pub(super) groups: Vec<Arc<str>>,
    pub(super) marks: Vec<Arc<str>>,
    pub(super) ops: u32,
    /// The committed log of each partition, by its number.
    pub(super) logs: BTreeMap<Partition, Log>,
    /// Logs of single replicas, by partition and broker.
    pub(super) replicas: BTreeMap<(Partition, i32), Log>,
    /// What groups must have read by the end.
    pub(super) must_read: BTreeSet<(Group, Partition)>,
    by_place: BTreeMap<(Arc<str>, i32), Partition>,
    by_group: BTreeMap<Arc<str>, Group>,
    listener: Listener,
}

/// Who hears of everything that is recorded.
#[derive(Default)]
struct Listener(Option<Box<dyn FnMut(Entry) + Send>>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "nobody" })
    }
}

impl History {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of a partition in this history.
    pub fn partition(&mut self, topic: &str, partition: i32) -> Partition {
        let place = (Arc::from(topic), partition);
        *self.by_place.entry(place).or_insert_with_key(|place| {
            self.partitions.push(place.clone());
            Partition(number(self.partitions.len() - 1))
        })
    }

    /// A new producer. One that is closed and opened again under the same name is a new one.
    pub fn producer(&mut self, name: &str, settings: ProducerSettings) -> Client {
        self.register(name, Some(settings), None)
    }

    /// A new consumer, with the group it is a member of.
    pub fn consumer(&mut self, name: &str, group: Option<&str>) -> Client {
        let group = group.map(|group| self.group(group));
        self.register(name, None, group)
    }

    fn group(&mut self, name: &str) -> Group {
        *self.by_group.entry(Arc::from(name)).or_insert_with_key(|name| {
            self.groups.push(name.clone());
            Group(number(self.groups.len() - 1))
        })
    }

    /// The group of this name, if it has, or had, members.
    pub fn group_named(&self, name: &str) -> Option<Group> {
        self.by_group.get(name).copied()
    }

    /// The group that a client is a member of.
    pub fn group_of(&self, client: Client) -> Option<Group> {
        self.clients.get(client.0 as usize)?.group
    }

    fn register(&mut self, name: &str, producer: Option<ProducerSettings>, group: Option<Group>) -> Client {
        self.clients.push(Registered { name: Arc::from(name), producer, group });
        Client(number(self.clients.len() - 1))
    }

    /// A record is about to be sent; it must carry [`Op::value`]. Without any further word of it, it may or may not be
    /// in the log.
    pub fn invoke(&mut self, at: Duration, producer: Client, partition: Option<Partition>) -> Op {
        let op = Op(self.ops);
        self.ops += 1;
        self.push(at, producer, Event::Invoked { op, partition });
        op
    }

    /// The producer has taken the record, for this partition. The order of these calls is the order in which a
    /// producer's records must stand in the log, so one task must send and record.
    pub fn accepted(&mut self, at: Duration, producer: Client, op: Op, partition: Partition) {
        self.push(at, producer, Event::Accepted { op, partition });
    }

    /// The record is acknowledged, at this offset if the broker said one.
    pub fn acked(
        &mut self,
        at: Duration,
        producer: Client,
        op: Op,
        partition: Partition,
        offset: Option<i64>,
    ) {
        self.push(at, producer, Event::Acked { op, partition, offset });
    }

    /// The record is not acknowledged; `maybe_written` as the error says it.
    pub fn failed(&mut self, at: Duration, producer: Client, op: Op, maybe_written: bool) {
        self.push(at, producer, Event::Failed { op, maybe_written });
    }

    /// The consumer has got this partition and goes on from `start`, if it knows. With `generation`, the group's.
    pub fn assigned(
        &mut self,
        at: Duration,
        consumer: Client,
        partition: Partition,
        start: Option<i64>,
        generation: Option<i32>,
    ) {
        self.push(at, consumer, Event::Assigned { partition, start, generation });
    }

    /// The consumer goes on elsewhere; `None` if the broker decides where (beginning, end, by time).
    pub fn seek(&mut self, at: Duration, consumer: Client, partition: Partition, to: Option<i64>) {
        self.push(at, consumer, Event::Seek { partition, to });
    }

    /// The consumer has handed out a record. `leader_epoch` is -1 if unknown.
    pub fn read(
        &mut self,
        at: Duration,
        consumer: Client,
        partition: Partition,
        offset: i64,
        op: Op,
        leader_epoch: i32,
    ) {
        self.push(at, consumer, Event::Read { partition, offset, op, leader_epoch });
    }

    /// The consumer gives the partition back; recorded when it will read no more of it, before it says so.
    pub fn revoked(&mut self, at: Duration, consumer: Client, partition: Partition) {
        self.push(at, consumer, Event::Revoked { partition });
    }

    /// The consumer has learnt that the partition is no longer its own.
    pub fn lost(&mut self, at: Duration, consumer: Client, partition: Partition) {
        self.push(at, consumer, Event::Lost { partition });
    }

    /// A commit by a member of a group has succeeded.
    pub fn committed(&mut self, at: Duration, consumer: Client, partition: Partition, offset: i64) {
        self.push(at, consumer, Event::Committed { partition, offset, sent: None });
    }

    /// A member of a group, which heard at this moment what is committed, reads from here on unless it has begun.
    pub fn began(&mut self, at: Duration, consumer: Client, partition: Partition, offset: i64) {
        self.push(at, consumer, Event::Began { partition, offset });
    }

    /// The application is done with a record, and may let it be committed from now on.
    pub fn done(&mut self, at: Duration, consumer: Client, partition: Partition, offset: i64) {
        self.push(at, consumer, Event::Done { partition, offset });
    }

    /// A JoinGroup that was sent at `asked` has put the member into a generation.
    pub fn joined(&mut self, at: Duration, consumer: Client, generation: i32, asked: Duration) {
        self.push(at, consumer, Event::Joined { generation, asked_ns: nanoseconds(asked) });
    }

    /// The member has heard its assignment in a generation, which the coordinator must remember from here on.
    pub fn synced(&mut self, at: Duration, consumer: Client, generation: i32) {
        self.push(at, consumer, Event::Synced { generation });
    }

    /// The assignment that the member has heard in a generation names a partition.
    pub fn given(&mut self, at: Duration, consumer: Client, partition: Partition, generation: i32) {
        self.push(at, consumer, Event::Given { partition, generation });
    }

    /// A commit is about to be sent, in a generation.
    pub fn commit_sent(
        &mut self,
        at: Duration,
        consumer: Client,
        partition: Partition,
        offset: i64,
        generation: i32,
    ) -> CommitSent {
        self.push(at, consumer, Event::CommitSent { partition, offset, generation });
        CommitSent(number(self.entries.len() - 1))
    }

    /// A commit whose sending was recorded has succeeded.
    pub fn commit_acked(&mut self, at: Duration, consumer: Client, sent: CommitSent) {
        let sent_entry = self.entries.get(sent.0 as usize).map(|entry| entry.event);
        if let Some(Event::CommitSent { partition, offset, .. }) = sent_entry {
            self.push(at, consumer, Event::Committed { partition, offset, sent: Some(sent) });
        }
    }

    /// By the end, the members of this group together must be done with everything the partition holds.
    pub fn reads_all(&mut self, group: &str, partition: Partition) {
        let group = self.group(group);
        self.must_read.insert((group, partition));
    }

    /// The group's committed offset is about to be set on purpose, maybe back. `client` is any of its members.
    pub fn commit_reset(&mut self, at: Duration, client: Client, partition: Partition) {
        self.push(at, client, Event::CommitReset { partition });
    }

    /// A member of a group, which asked at `asked`, has heard what is committed.
    pub fn commit_fetched(
        &mut self,
        at: Duration,
        consumer: Client,
        partition: Partition,
        offset: Option<i64>,
        asked: Duration,
    ) {
        self.push(at, consumer, Event::CommitFetched { partition, offset, asked_ns: nanoseconds(asked) });
    }

    /// Calls this with everything that is recorded from now on, before the recording call returns.
    pub fn listen(&mut self, listener: impl FnMut(Entry) + Send + 'static) {
        self.listener = Listener(Some(Box::new(listener)));
    }

    /// Takes over what one client recorded in another process, in the order in which it did, under this client's name.
    /// `numbers` is what is remembered from one call to the next. The other history must have been told the same partitions
    /// in the same order, and [`Self::sort_by_time`] is due in the end.
    pub fn take_over(&mut self, client: Client, entry: Entry, numbers: &mut Vec<u32>) {
        let Entry { at_ns, mut event, .. } = entry;
        if let Event::Committed { sent: Some(CommitSent(sent)), .. } = &mut event
            && let Some(here) = numbers.get(*sent as usize)
        {
            *sent = *here;
        }
        numbers.push(number(self.entries.len()));
        self.push(Duration::from_nanos(at_ns), client, event);
    }

    /// Puts events into the order in which they happened, by one clock. Without it they stand in that in which they were heard
    /// of, which is another one where they come from several processes.
    pub fn sort_by_time(&mut self) {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|place| self.entries[*place].at_ns);
        let mut places = vec![0; order.len()];
        for (now, before) in order.iter().enumerate() {
            places[*before] = number(now);
        }
        let moved = order.into_iter().map(|before| {
            let mut entry = self.entries[before];
            if let Event::Committed { sent: Some(CommitSent(sent)), .. } = &mut entry.event {
                *sent = places[*sent as usize];
            }
            entry
        });
        self.entries = moved.collect();
    }

    /// A fault, or its end: what a report shows next to a violation.
    pub fn mark(&mut self, at: Duration, text: &str) {
        let mark = number(self.marks.len());
        self.marks.push(Arc::from(text));
        self.push(at, Client(u32::MAX), Event::Mark { text: mark });
    }

    /// What the partition holds at the end: the committed log, as any reader must see it from now on.
    pub fn final_log(&mut self, partition: Partition, log: Log) {
        self.logs.insert(partition, log);
    }

    /// Where a partition's final log ends, if that was handed in.
    pub fn end_of(&self, partition: Partition) -> Option<i64> {
        self.logs.get(&partition).map(|log| log.end)
    }

    /// What one replica holds at the end, as far as it must equal the others: to its high watermark, or to its end if
    /// nothing is being written any more.
    pub fn replica_log(&mut self, partition: Partition, broker: i32, log: Log) {
        self.replicas.insert((partition, broker), log);
    }

    /// Everything recorded, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A number that two runs share if, but for chance, the same happened at the same times and the logs are equal.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.entries.hash(&mut hasher);
        self.partitions.hash(&mut hasher);
        self.marks.hash(&mut hasher);
        let logs = self.logs.iter().map(|(partition, log)| ((*partition, -1), log));
        for (place, log) in logs.chain(self.replicas.iter().map(|(place, log)| (*place, log))) {
            (place, log.start, log.end, &log.records).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Place of the first event in which two runs differ; where one merely ends, the place behind its last.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let equal =
            self.entries.iter().zip(&other.entries).take_while(|(ours, theirs)| ours == theirs).count();
        let longest = self.entries.len().max(other.entries.len());
        (equal < longest).then_some(equal)
    }

    /// One event in words: when, who, what.
    pub fn event(&self, place: usize) -> Option<String> {
        let Entry { at_ns, client, event } = self.entries.get(place)?;
        let name = self.clients.get(client.0 as usize).map_or("", |client| &client.name);
        let at = Duration::from_nanos(*at_ns).as_secs_f64();
        Some(match event {
            Event::Mark { text } => format!("{at:.6} s {}", self.marks.get(*text as usize)?),
            event => format!("{at:.6} s {name} {event:?}"),
        })
    }

    fn push(&mut self, at: Duration, client: Client, event: Event) {
        let entry = Entry { at_ns: nanoseconds(at), client, event };
        self.entries.push(entry);
        if let Some(listener) = &mut self.listener.0 {
            listener(entry);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Histories are of this machine's memory, so of fewer than 2^32 of anything.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
