//! Holding the replicas of a cluster against each other.
//!
//! In: the bytes of every replica, running or not, and the journal of leaders. Out: a report.
//!
//! Invariant checked: below the high watermark all logs are equal, byte by byte; every batch has the
//! CRC it claims and continues the one before; no leader epoch has two leaders; what was committed
//! once is still there.

use std::collections::BTreeMap;
use std::fmt;

use broker_lite_core::config::TopicConfig;
use broker_lite_core::log::{Cause, Damage, content};
use broker_lite_core::metadata::{ConfigResource, Image, METADATA_TOPIC, PartitionRegistration};
use broker_lite_core::storage::{Directory, StorageError};
use bytes::Bytes;
use klamm_wire::RawBatch;
use uuid::Uuid;

use super::logs::DECOMPRESSION_LIMIT_BYTES;
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
    /// Log start offset.
    start: i64,
    end: i64,
    high_watermark: i64,
    /// Each with the offset it must have by its place in the row.
    batches: Vec<(i64, RawBatch)>,
    /// Something is wrong with it by itself.
    damaged: bool,
}

/// What a replica says of its own log.
struct Claim {
    start: i64,
    end: Option<i64>,
    high_watermark: i64,
    bytes: Result<Bytes, StorageError>,
    /// Where the log contradicts what its broker knows of it.
    damages: Vec<Damage>,
    /// Compaction may have left out offsets.
    has_gaps: bool,
}

/// One partition under examination.
struct Examined<'a> {
    report: &'a mut CheckReport,
    topic: &'a str,
    partition: i32,
    compacted: bool,
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
            let compacted = self.is_compacted(&topic);
            let mut examined = Examined { report: &mut report, topic: &topic, partition: number, compacted };
            self.check_partition(id, &registration, &mut examined);
        }
        self.check_leaders(&mut report);
        self.check_controllers(&mut report);
        report
    }

    fn is_compacted(&self, topic: &str) -> bool {
        self.started.journal.image(|image| {
            let own = image.configs(&ConfigResource::Topic(topic.to_owned()));
            let policy = TopicConfig::new(own, &self.started.config).get("cleanup.policy");
            policy.is_some_and(|policy| policy.contains("compact"))
        })
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
            let place = replica.log().batches().flatten().find_map(|(position, batch)| {
                let header = batch.header();
                let last = position + header.size_bytes() as u64 - 1;
                (header.last_offset() >= offset).then_some((header.base_offset, last))
            });
            let (base, last) = place?;
            let segment = replica.log().segment_name(base)?;
            replica.directory_mut().corrupt_byte(&segment, last).ok()
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
        let leader = copies.iter().find(|copy| Some(copy.broker) == registration.leader);
        if let Some(leader) = leader.filter(|leader| leader.end < committed) {
            let cause = format!("committed up to {committed}, but the leader's log ends here");
            examined.violation(Some(leader.broker), leader.end, cause);
        }
        let Some(reference) = reference(&copies, registration.leader) else { return };
        let known = leader.map_or(reference.high_watermark, |leader| leader.high_watermark);
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
        let (running, disk) = self.process_and_disk(broker)?;
        let live = running.and_then(|running| {
            running.partition(TopicRef::Id(id), number).ok()?.look(|replica| Claim {
                start: replica.log_start_offset(),
                end: Some(replica.log_end_offset()),
                high_watermark: replica.high_watermark(),
                damages: replica.log().verify(),
                has_gaps: replica.log().has_gaps(),
                bytes: content(replica.directory_mut()),
            })
        });
        let claim = live.or_else(|| {
            disk.look(id, number, |directory| Claim {
                start: directory.checkpoint().log_start_offset,
                end: None,
                high_watermark: directory.checkpoint().high_watermark,
                damages: Vec::new(),
                // It is not opened, and only that would tell.
                has_gaps: examined.compacted,
                bytes: content(directory),
            })
        })?;
        examined.report.replicas += 1;
        let before = examined.report.violations.len();
        let (batches, last) = match claim.bytes {
            Ok(bytes) => examined.split(broker, claim.start, claim.has_gaps, bytes),
            Err(error) => {
                examined.violation(Some(broker), claim.start, error.to_string());
                (Vec::new(), claim.start)
            }
        };
        for Damage { offset, cause, .. } in claim.damages {
            // Everything else was found above, with the offset that is right.
            if let Cause::Epoch { .. } = cause {
                examined.violation(Some(broker), offset, cause.to_string());
            }
        }
        let end = claim.end.unwrap_or(last);
        let damaged = examined.report.violations.len() > before;
        if last != end && !damaged {
            let cause = format!("the log is said to end at {end}, its batches end here");
            examined.violation(Some(broker), last, cause);
        }
        let damaged = damaged || last != end;
        // A checkpoint outlives the records it tells of when the power goes away.
        let high_watermark = claim.high_watermark.min(end);
        Some(Copy { broker, start: claim.start, end, high_watermark, batches, damaged })
    }

    fn check_controllers(&self, report: &mut CheckReport) {
        let mut violation = |offset: i64, cause: String| {
            let topic = METADATA_TOPIC.to_owned();
            report.violations.push(Violation { broker: None, topic, partition: 0, offset, cause });
        };
        let topics = |image: &Image| (image.next_offset(), image.topics().cloned().collect::<Vec<_>>());
        // First, as a cluster that runs goes on committing: what it knows later is no less.
        let (committed, all) = self.started.journal.image(topics);
        let (latest, disputed) = self.started.journal.disputed();
        for (epoch, voters) in disputed {
            violation(-1, format!("epoch {epoch} was led more than once, by controllers {voters:?}"));
        }
        // What was committed once is known to whoever leads, or will lead, in a later epoch.
        let Some(active) = latest.and_then(|latest| self.controller.active_in(latest)) else { return };
        let (known, its) = active.image(topics);
        if known < committed {
            violation(
                known,
                format!("controller {} has lost what was committed, up to {committed}", active.id()),
            );
        } else if known == committed && its != all {
            violation(known, format!("controller {} knows other topics than were committed", active.id()));
        }
    }

    fn check_leaders(&self, report: &mut CheckReport) {
        let mut leaders: BTreeMap<(Uuid, i32, i32), i32> = BTreeMap::new();
        for event in self.leader_changes() {
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

/// The log the others are held against: the leader's, or else the one that knows most to be committed; one that is
/// damaged only if there is no other.
fn reference(copies: &[Copy], leader: Option<i32>) -> Option<&Copy> {
    let rank = |copy: &&Copy| (!copy.damaged, Some(copy.broker) == leader, copy.high_watermark);
    copies.iter().max_by_key(rank)
}

/// Timestamp, key and value of a record.
type Keyed = (i64, Option<Bytes>, Option<Bytes>);
type Held = BTreeMap<i64, Keyed>;

/// The records of a log before `limit`, by offset.
fn records(copy: &Copy, limit: i64) -> Held {
    let mut held = Held::new();
    for (_, batch) in &copy.batches {
        let Ok(records) = batch.records(DECOMPRESSION_LIMIT_BYTES) else { continue };
        for record in records.iter().flatten().filter(|record| record.offset < limit) {
            let own = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
            held.insert(record.offset, (record.timestamp, own(record.key), own(record.value)));
        }
    }
    held
}

impl Examined<'_> {
    fn violation(&mut self, broker: Option<i32>, offset: i64, cause: String) {
        let (topic, partition) = (self.topic.to_owned(), self.partition);
        self.report.violations.push(Violation { broker, topic, partition, offset, cause });
    }

    /// Splits a log into batches, each checked on its own and against the one before. Returns where they end, too.
    fn split(
        &mut self,
        broker: i32,
        start: i64,
        has_gaps: bool,
        mut bytes: Bytes,
    ) -> (Vec<(i64, RawBatch)>, i64) {
        let mut batches: Vec<(i64, RawBatch)> = Vec::new();
        let mut next = start;
        // What follows a batch whose header cannot be trusted says itself where it is.
        let mut trusted = true;
        while !bytes.is_empty() {
            let batch = match RawBatch::split(&mut bytes) {
                Some(Ok(batch)) => batch,
                // Told already: the length of the batch before was wrong, and this is somewhere in its midst.
                Some(Err(_)) | None if !trusted => break,
                Some(Err(error)) => {
                    self.violation(Some(broker), next, error.to_string());
                    break;
                }
                None => {
                    let cause = format!("{} B behind the last whole batch", bytes.len());
                    self.violation(Some(broker), next, cause);
                    break;
                }
            };
            self.report.batches += 1;
            let header = *batch.header();
            let base = header.base_offset;
            // A log may begin within its first batch, or behind it, until that is deleted with its segment.
            let first = batches.is_empty() && (0..=start).contains(&base);
            let gap = has_gaps && base > next;
            let place = if first || gap || !trusted { base } else { next };
            if place != base {
                self.violation(Some(broker), place, format!("the batch here claims offset {base}"));
            }
            let sound = batch.verify_crc();
            trusted = sound.is_ok();
            if let Err(error) = sound {
                self.violation(Some(broker), place, error.to_string());
            }
            next = place.saturating_add(i64::from(header.last_offset_delta)).saturating_add(1);
            batches.push((place, batch));
        }
        (batches, next)
    }

    /// Compares two logs of a compacted topic below `limit`, each of which is cleaned when it suits its broker: what both
    /// hold is equal, and what only one holds is overtaken by a later record of its key, or a tombstone.
    fn compare_compacted(&mut self, reference: &Copy, copy: &Copy, limit: i64) {
        let (theirs, ours) = (records(reference, limit), records(copy, limit));
        let overtaken = |offset: i64, key: &Option<Bytes>| {
            let later = |held: &Held| held.range(offset + 1..).any(|(_, record)| record.1 == *key);
            later(&theirs) || later(&ours)
        };
        let differs = |(offset, record): (&i64, &Keyed), other: &Held| match other.get(offset) {
            Some(held) => held != record,
            None => record.2.is_some() && !overtaken(*offset, &record.1),
        };
        let first = theirs.iter().find(|found| differs(*found, &ours));
        let first = first.or_else(|| ours.iter().find(|found| differs(*found, &theirs)));
        if let Some((offset, _)) = first {
            let cause = format!("differs from the log of broker {}", reference.broker);
            self.violation(Some(copy.broker), *offset, cause);
        }
    }

    /// Compares two logs below `limit`, batch by batch.
    fn compare(&mut self, reference: &Copy, copy: &Copy, limit: i64) {
        if self.compacted {
            return self.compare_compacted(reference, copy, limit);
        }
        let mut theirs = reference.batches.iter().peekable();
        // What the other log has dropped at its front, or all of it, cannot be compared.
        let start = theirs.peek().map_or(reference.start, |(place, _)| *place);
        for (place, ours) in copy.batches.iter().take_while(|(place, _)| *place < limit) {
            if *place < start {
                continue;
            }
            while theirs.next_if(|(other, _)| other < place).is_some() {}
            match theirs.peek() {
                Some((_, batch)) if batch.bytes() == ours.bytes() => {}
                _ => {
                    let cause = format!("differs from the log of broker {}", reference.broker);
                    self.violation(Some(copy.broker), *place, cause);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rt::Tick;
    use bytes::BytesMut;
    use klamm_wire::codec::{self, ProduceHead, ProducePartition, ProduceTopic};
    use klamm_wire::messages::ProduceRequest;
    use klamm_wire::{BatchBuilder, Compression, ProducerStamp};
    use tower_service::Service;

    use super::*;

    const TOPIC: &str = "t";
    const SEGMENT: &str = "00000000000000000000.log";

    async fn produce(cluster: &Cluster, leader: i32, compression: Compression) {
        let mut builder = BatchBuilder::new(BytesMut::new());
        for _ in 0..4 {
            builder.append::<&[u8], &[u8]>(1_767_225_600_000, None, Some(b"a value, a value, a value"), &[]);
        }
        let sealed = builder.seal(compression, None).unwrap();
        let header = sealed.header(ProducerStamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 });
        let records = vec![Bytes::copy_from_slice(&header[..]), sealed.records().clone()];
        let topic = ProduceTopic {
            name: klamm_wire::StrBytes::from_static_str(TOPIC),
            id: Uuid::nil(),
            partitions: vec![ProducePartition { index: 0, records }],
        };
        let head = ProduceHead { acks: -1, timeout_ms: 10_000, transactional_id: None };
        let frame = codec::encode_produce(9, &head, &[topic]).unwrap();
        let mut link = cluster
            .started
            .network
            .dial(&crate::node::Party::Client(None), &crate::node::Party::Node(leader), "test")
            .await
            .unwrap();
        std::future::poll_fn(|cx| link.poll_ready(cx)).await.unwrap();
        let answer = link.call(frame).await.unwrap();
        let answer = codec::decode_response::<ProduceRequest>(answer).unwrap();
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }

    /// Goal: whichever byte of whichever replica rots, header or records, compressed or not: that broker and that
    /// batch are named, and no other.
    #[tokio::test(start_paused = true)]
    async fn every_byte_of_every_replica_counts() {
        let cluster = Cluster::builder().seed(7).topic(TOPIC, Some(1), Some(3)).start().await.unwrap();
        let leader = cluster.leader_of(TOPIC, 0).unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::None] {
            produce(&cluster, leader, compression).await;
        }
        // Followers learn of the last high watermark by their next fetch.
        cluster.started.rt.sleep(std::time::Duration::from_secs(1)).await;
        assert!(cluster.check().is_ok(), "{}", cluster.check());
        let flip = |broker, position| {
            cluster.replica(broker, TOPIC, 0, |replica| {
                replica.directory_mut().corrupt_byte(SEGMENT, position).unwrap();
            })
        };
        let sizes = cluster.replica(leader, TOPIC, 0, |replica| {
            let batches = replica.log().batches();
            batches.map(|batch| batch.unwrap().1.header().size_bytes() as u64).collect::<Vec<_>>()
        });
        let sizes = sizes.unwrap();
        for broker in cluster.broker_ids() {
            let mut from = 0;
            for (offset, size) in [0, 4, 8].into_iter().zip(&sizes) {
                for position in from..from + size {
                    flip(broker, position).unwrap();
                    let report = cluster.check();
                    assert!(!report.is_ok(), "byte {} of the batch at {offset}", position - from);
                    for found in &report.violations {
                        let place = (found.broker, found.offset);
                        assert_eq!(place, (Some(broker), offset), "byte {}: {report}", position - from);
                    }
                    flip(broker, position).unwrap();
                }
                from += size;
            }
        }
        assert!(cluster.check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_was_emptied_behind_its_brokers_back_is_told() {
        let cluster = Cluster::builder().seed(7).topic(TOPIC, Some(1), Some(3)).start().await.unwrap();
        let leader = cluster.leader_of(TOPIC, 0).unwrap();
        produce(&cluster, leader, Compression::None).await;
        let victim = cluster.broker_ids().into_iter().find(|id| *id != leader).unwrap();
        cluster
            .replica(victim, TOPIC, 0, |replica| {
                let file = replica.directory_mut().open(SEGMENT).unwrap();
                replica.directory_mut().set_len(file, 0).unwrap();
            })
            .unwrap();
        let report = cluster.check();
        assert_eq!(report.violations.len(), 1, "{report}");
        assert_eq!((report.violations[0].broker, report.violations[0].offset), (Some(victim), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_retention_has_deleted_at_the_leader_first_is_no_difference() {
        let cluster = Cluster::builder().seed(7).topic(TOPIC, Some(1), Some(3)).start().await.unwrap();
        let leader = cluster.leader_of(TOPIC, 0).unwrap();
        produce(&cluster, leader, Compression::None).await;
        let gone = cluster.replica(leader, TOPIC, 0, |replica| {
            let in_a_century = 1_767_225_600_000 + 100 * 365 * 86_400_000;
            replica.retain(Tick::ZERO, in_a_century, &mut Vec::new())
        });
        assert!(gone.unwrap().unwrap(), "the log of the leader is empty now");
        let report = cluster.check();
        assert!(report.is_ok(), "{report}");
    }
}
