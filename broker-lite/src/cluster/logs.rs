//! Reading the logs of single replicas, for whoever checks a cluster from outside.

use broker_lite_core::log::content;
use broker_lite_core::storage::Directory;
use bytes::Bytes;
use klamm_wire::RawBatch;

use super::Cluster;
use crate::broker::TopicRef;

/// Most bytes of one batch once decompressed.
pub(super) const DECOMPRESSION_LIMIT_BYTES: usize = 1 << 30;

/// One record in the log of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedRecord {
    /// Offset.
    pub offset: i64,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Id of the idempotent producer that wrote it, or -1.
    pub producer_id: i64,
    /// Epoch of that producer, or -1.
    pub producer_epoch: i16,
    /// Its number among the producer's records for this partition, or -1.
    pub sequence: i32,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Whether it lies below the high watermark of this replica, which may lag behind that of the leader.
    pub committed: bool,
}

impl Cluster {
    /// The records in the log of one replica, in the order of offsets, whether the broker runs or is down; `None` if there
    /// is no such replica. Ends before the first batch that cannot be read: see [`Self::check`].
    pub fn log(&self, broker: i32, topic: &str, partition: i32) -> Option<Vec<LoggedRecord>> {
        let id = self.started.journal.image(|image| image.topic(topic).map(|topic| topic.id))?;
        let (running, disk) = self.process_and_disk(broker)?;
        let live = running.and_then(|running| {
            let replica = running.partition(TopicRef::Id(id), partition).ok()?;
            replica.look(|replica| {
                let (start, high_watermark) = (replica.log_start_offset(), replica.high_watermark());
                (start, high_watermark, content(replica.directory_mut()))
            })
        });
        let (start, high_watermark, bytes) = live.or_else(|| {
            disk.look(id, partition, |directory| {
                let checkpoint = directory.checkpoint();
                (checkpoint.log_start_offset, checkpoint.high_watermark, content(directory))
            })
        })?;
        Some(records(bytes.unwrap_or_default(), start, high_watermark))
    }

    /// The highest high watermark that any replica of a partition ever had: every record before it was committed, and must
    /// never be lost. `None` if there is no such topic.
    pub fn committed_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let id = self.started.journal.image(|image| image.topic(topic).map(|topic| topic.id))?;
        Some(self.committed.offset(id, partition))
    }
}

fn records(mut bytes: Bytes, start: i64, high_watermark: i64) -> Vec<LoggedRecord> {
    let mut found = Vec::new();
    while let Some(Ok(batch)) = RawBatch::split(&mut bytes) {
        let header = *batch.header();
        let Ok(records) = batch.verify_crc().and_then(|()| batch.records(DECOMPRESSION_LIMIT_BYTES)) else {
            break;
        };
        for (number, record) in (0i32..).zip(&records) {
            let Ok(record) = record else { return found };
            if record.offset < start {
                continue;
            }
            let sequence = if header.has_producer() { header.base_sequence.wrapping_add(number) } else { -1 };
            found.push(LoggedRecord {
                offset: record.offset,
                leader_epoch: header.partition_leader_epoch,
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                sequence,
                key: record.key.map(Bytes::copy_from_slice),
                value: record.value.map(Bytes::copy_from_slice),
                committed: record.offset < high_watermark,
            });
        }
    }
    found
}
