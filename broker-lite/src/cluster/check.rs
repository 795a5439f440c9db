//! Holding the replicas of a cluster against each other.
//!
//! In: the bytes of every replica, running or not, and the journal of leaders. Out: a report.
//!
//! Invariant checked: below the high watermark all logs are equal, byte by byte; every batch has the
//! CRC it claims and continues the one before; no leader epoch has two leaders; what was committed
//! once is still there.

use std::collections::BTreeMap;
use std::fmt;

use broker_lite_core::metadata::PartitionRegistration;
use broker_lite_core::storage::{MemoryStorage, Storage, StorageError};
use bytes::{Bytes, BytesMut};
use klamm_wire::RawBatch;
use uuid::Uuid;

use super::{Cluster, ClusterError};
use crate::broker::TopicRef;

/// What [`Cluster::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Partitions looked at.
    pub partitions: usize,
    /// Replicas looked at.
    pub replicas: usize,
    /// Record batches whose CRC was verified.
    pub batches: usize,
    /// What is wrong; empty if all is well.
    pub violations: Vec<Violation>,
}

/// One thing that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Broker whose log is wrong, if it is one broker's.
    pub broker: Option<i32>,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset concerned.
    pub offset: i64,
    /// What is wrong.
    pub cause: String,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, replicas, batches, violations } = self;
        write!(f, "{partitions} partitions, {replicas} replicas, {batches} batches: ")?;
        if violations.is_empty() {
            return f.write_str("no violation");
        }
        write!(f, "{} violations", violations.len())?;
        violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} offset {}", self.topic, self.partition, self.offset)?;
        if let Some(broker) = self.broker {
            write!(f, " on broker {broker}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

/// One replica's log, taken at one moment.
struct Copy {
    broker: i32,
    end: i64,
    high_watermark: i64,
    batches: Vec<RawBatch>,
}

/// One partition under examination.
struct Examined<'a> {
    report: &'a mut CheckReport,
    topic: &'a str,
    partition: i32,
}

impl Cluster {
    /// Compares every replica of every partition, of dead brokers too; see [`CheckReport`].
    ///
    /// Meaningful at any time, sharpest when nothing is being written.
    pub fn check(&self) -> CheckReport {
        let mut report = CheckReport::default();
        let partitions: Vec<_> = self.started.journal.image(|image| {
            let topics = image.topics();
            let all = topics.flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|(number, state)| (topic.name.clone(), topic.id, *number, state.clone()))
            });
            all.collect()
        });
        for (topic, id, number, registration) in partitions {
            report.partitions += 1;
            let mut examined = Examined { report: &mut report, topic: &topic, partition: number };
            self.check_partition(id, &registration, &mut examined);
        }
        self.check_leaders(&mut report);
        report
    }

    /// Flips the bits of one byte in the batch that holds `offset`, in one replica only, as a failing
    /// disk would.
    ///
    /// # Errors
    ///
    /// If the broker is down or does not hold that record.
    pub fn corrupt(&self, broker: i32, topic: &str, partition: i32, offset: i64) -> Result<(), ClusterError> {
        let missing = || ClusterError::NoSuchRecord { broker, topic: topic.to_owned(), partition, offset };
        let done = self.replica(broker, topic, partition, |replica| {
            let storage = replica.storage_mut();
            let mut position = storage.start();
            let mut bytes = read_all(storage).ok()?;
            while let Some(Ok(batch)) = RawBatch::split(&mut bytes) {
                let size = batch.header().size_bytes() as u64;
                position += size;
                if batch.header().last_offset() >= offset {
                    return storage.corrupt_byte(position - 1).ok();
                }
            }
            None
        });
        done.flatten().ok_or_else(missing)
    }

    fn check_partition(&self, id: Uuid, registration: &PartitionRegistration, examined: &mut Examined<'_>) {
        let number = examined.partition;
        // The leader first: what it calls committed then must be in the followers read afterwards.
        let mut order = registration.replicas.clone();
        order.sort_by_key(|broker| Some(*broker) != registration.leader);
        let committed = self.committed.offset(id, number);
        let copies: Vec<_> =
            order.iter().filter_map(|broker| self.copy(*broker, id, number, examined)).collect();
        let Some(reference) = reference(&copies, registration.leader) else { return };
        if registration.leader == Some(reference.broker) && reference.end < committed {
            let cause = format!("committed up to {committed}, but the leader's log ends here");
            examined.violation(Some(reference.broker), reference.end, cause);
        }
        let known = reference.high_watermark;
        for copy in copies.iter().filter(|copy| copy.broker != reference.broker) {
            let in_sync = registration.isr.contains(&copy.broker) && self.running(copy.broker).is_ok();
            if in_sync && copy.end < known {
                let cause = format!("in sync, but ends before the high watermark {known}");
                examined.violation(Some(copy.broker), copy.end, cause);
            }
            let limit = if in_sync { known } else { known.min(copy.high_watermark) };
            examined.compare(reference, copy, limit);
        }
    }

    fn copy(&self, broker: i32, id: Uuid, number: i32, examined: &mut Examined<'_>) -> Option<Copy> {
        let live = self.running(broker).ok().and_then(|running| {
            running.partition(TopicRef::Id(id), number).ok()?.look(|replica| {
                let (end, mark) = (replica.log_end_offset(), replica.high_watermark());
                (Some(end), mark, read_all(replica.storage_mut()))
            })
        });
        let disk = self.slots.lock().get(&broker).map(|slot| slot.disk.clone())?;
        let found = live.or_else(|| {
            disk.look(id, number, |storage| (None, storage.checkpoint().high_watermark, read_all(storage)))
        });
        let (end, high_watermark, bytes) = found?;
        examined.report.replicas += 1;
        let batches = match bytes {
            Ok(bytes) => examined.split(broker, bytes),
            Err(error) => {
                examined.violation(Some(broker), 0, error.to_string());
                Vec::new()
            }
        };
        let last = batches.last().map_or(0, |batch| batch.header().last_offset() + 1);
        let end = end.unwrap_or(last);
        if !batches.is_empty() && last != end {
            let cause = format!("the log is said to end at {end}, its batches end here");
            examined.violation(Some(broker), last, cause);
        }
        Some(Copy { broker, end, high_watermark, batches })
    }

    fn check_leaders(&self, report: &mut CheckReport) {
        let mut leaders: BTreeMap<(Uuid, i32, i32), i32> = BTreeMap::new();
        for event in self.events() {
            let Some(leader) = event.leader else { continue };
            let first =
                *leaders.entry((event.topic_id, event.partition, event.leader_epoch)).or_insert(leader);
            if first != leader {
                let epoch = event.leader_epoch;
                let cause = format!("epoch {epoch} was led by broker {first} and by broker {leader}");
                let (topic, partition) = (event.topic, event.partition);
                report.violations.push(Violation { broker: None, topic, partition, offset: -1, cause });
            }
        }
    }
}

/// The log the others are held against: the leader's, or else the one that knows most to be committed.
fn reference(copies: &[Copy], leader: Option<i32>) -> Option<&Copy> {
    let led = copies.iter().find(|copy| Some(copy.broker) == leader);
    led.or_else(|| copies.iter().max_by_key(|copy| copy.high_watermark))
}

fn read_all(storage: &MemoryStorage) -> Result<Bytes, StorageError> {
    let len = usize::try_from(storage.end() - storage.start()).unwrap_or(usize::MAX);
    let mut chunks = Vec::new();
    storage.read(storage.start(), len, &mut chunks)?;
    let mut whole = BytesMut::with_capacity(len);
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    Ok(whole.freeze())
}

impl Examined<'_> {
    fn violation(&mut self, broker: Option<i32>, offset: i64, cause: String) {
        let (topic, partition) = (self.topic.to_owned(), self.partition);
        self.report.violations.push(Violation { broker, topic, partition, offset, cause });
    }

    /// Splits a log into batches, each checked on its own and against the one before.
    fn split(&mut self, broker: i32, mut bytes: Bytes) -> Vec<RawBatch> {
        let mut batches: Vec<RawBatch> = Vec::new();
        while !bytes.is_empty() {
            let next = batches.last().map(|batch| batch.header().last_offset() + 1);
            let batch = match RawBatch::split(&mut bytes) {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    self.violation(Some(broker), next.unwrap_or(0), error.to_string());
                    break;
                }
                None => {
                    let cause = format!("{} B behind the last whole batch", bytes.len());
                    self.violation(Some(broker), next.unwrap_or(0), cause);
                    break;
                }
            };
            self.report.batches += 1;
            let base = batch.header().base_offset;
            if let Err(error) = batch.verify_crc() {
                self.violation(Some(broker), base, error.to_string());
            }
            if let Some(next) = next.filter(|next| *next != base) {
                self.violation(Some(broker), base, format!("expected a batch at offset {next}"));
            }
            batches.push(batch);
        }
        batches
    }

    /// Compares two logs below `limit`, batch by batch.
    fn compare(&mut self, reference: &Copy, copy: &Copy, limit: i64) {
        let mut theirs = reference.batches.iter().peekable();
        // What the other log has dropped at its front cannot be compared.
        let start = theirs.peek().map_or(0, |batch| batch.header().base_offset);
        for ours in copy.batches.iter().take_while(|batch| batch.header().base_offset < limit) {
            let base = ours.header().base_offset;
            if base < start {
                continue;
            }
            while theirs.next_if(|batch| batch.header().last_offset() < base).is_some() {}
            match theirs.peek() {
                Some(batch) if batch.bytes() == ours.bytes() => {}
                _ => {
                    let cause = format!("differs from the log of broker {}", reference.broker);
                    self.violation(Some(copy.broker), base, cause);
                    return;
                }
            }
        }
    }
}
