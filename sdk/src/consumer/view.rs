//! Batches as they were written, their records decoded where they lie.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_core::TopicPartition;
use klamm_core::consumer::{ChunkBatch, ChunkBatchIter};
use klamm_wire::RecordRef;

use super::error::ConsumerError;
use super::record::{ConsumerRecord, RecordHeader, TimestampType};

/// One batch as its producer wrote it, checked and decompressed, its records not decoded yet.
///
/// Looking at its records costs neither an allocation nor a reference count for each: keys and values are borrowed from the
/// batch. What shall outlive it is [kept](RecordView::keep), which shares the batch's memory, or
/// [detached](RecordView::detach) from it, which copies.
///
/// The batch's memory (and that of the whole answer it came in) counts in
/// [`prefetch_max_bytes`](super::ConsumerBuilder::prefetch_max_bytes) until the batch and all kept records are dropped.
///
/// ```no_run
/// # async fn run(consumer: klamm::Consumer) -> Result<(), klamm::ConsumerError> {
/// let mut bytes = 0;
/// loop {
///     let batch = consumer.recv_batch().await?;
///     for record in &batch {
///         bytes += record?.value().map_or(0, <[u8]>::len);
///     }
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct BatchView {
    partition: TopicPartition,
    batch: ChunkBatch,
}

impl fmt::Debug for BatchView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets = self.first_offset()..self.next_offset();
        write!(f, "BatchView({} at {offsets:?})", self.partition)
    }
}

impl BatchView {
    pub(super) fn new((partition, batch): (TopicPartition, ChunkBatch)) -> Self {
        Self { partition, batch }
    }

    /// Topic.
    pub fn topic(&self) -> &str {
        &self.partition.topic
    }

    /// Partition of the topic.
    pub fn partition(&self) -> i32 {
        self.partition.partition
    }

    /// Topic and partition.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Offset of the first record that is handed out, or of a later one if the first was compacted away.
    pub fn first_offset(&self) -> i64 {
        self.batch.from()
    }

    /// Offset behind the batch: where reading goes on.
    pub fn next_offset(&self) -> i64 {
        self.batch.header().next_offset()
    }

    /// Epoch of the leader that appended it; -1 if unknown.
    pub fn leader_epoch(&self) -> i32 {
        self.batch.header().partition_leader_epoch
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        self.batch.header().timestamp_type().into()
    }

    /// Bytes of the batch as it was fetched, with its header: of the compressed records if they are.
    pub fn size_bytes(&self) -> usize {
        self.batch.header().size_bytes()
    }

    /// The records in order, each decoded when it is asked for. It can be called again.
    ///
    /// An item is [`ConsumerError::Corrupt`] if a record is malformed in a batch whose checksum is right, which a broker does
    /// not accept; it is the last one then. The consumer's position lies behind the batch already.
    #[inline]
    pub fn iter(&self) -> RecordViews<'_> {
        RecordViews { batch: self, records: self.batch.iter() }
    }

    /// The rest of the batch as records that share its memory.
    ///
    /// # Errors
    ///
    /// As [`Self::iter`].
    pub fn keep(&self) -> Result<Vec<ConsumerRecord>, ConsumerError> {
        self.iter().map(|record| record.map(|record| record.keep())).collect()
    }
}

impl<'a> IntoIterator for &'a BatchView {
    type Item = Result<RecordView<'a>, ConsumerError>;
    type IntoIter = RecordViews<'a>;

    #[inline]
    fn into_iter(self) -> RecordViews<'a> {
        self.iter()
    }
}

/// Iterator over the records of a [`BatchView`].
#[derive(Debug, Clone)]
pub struct RecordViews<'a> {
    batch: &'a BatchView,
    records: ChunkBatchIter<'a>,
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = Result<RecordView<'a>, ConsumerError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.records.next()? {
            Ok(record) => Ok(RecordView { batch: self.batch, record }),
            Err(cause) => Err(ConsumerError::Corrupt {
                partition: self.batch.partition.clone(),
                offset: self.batch.first_offset(),
                next: Some(self.batch.next_offset()),
                cause: Some(cause),
            }),
        })
    }
}

/// One record, borrowed from its [`BatchView`].
#[derive(Debug, Clone)]
pub struct RecordView<'a> {
    batch: &'a BatchView,
    record: RecordRef<'a>,
}

impl<'a> RecordView<'a> {
    /// Offset in the partition.
    pub fn offset(&self) -> i64 {
        self.record.offset
    }

    /// Milliseconds since the Unix epoch; -1 if the producer gave none.
    pub fn timestamp_ms(&self) -> i64 {
        self.record.timestamp
    }

    /// Key; `None` is null, an empty key is `Some` of nothing.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    /// Value; `None` is null (a tombstone on a compacted topic), an empty value is `Some` of nothing.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.record.value
    }

    /// Names and values of the headers, in the producer's order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        self.record.headers().map(|header| (header.name, header.value))
    }

    /// The record as one of its own, whose key, value and headers share the batch's memory and keep it alive.
    pub fn keep(&self) -> ConsumerRecord {
        let BatchView { partition, batch } = self.batch;
        ConsumerRecord::shared(partition, batch, &self.record)
    }

    /// The record as one of its own, copied into memory of its own: a small record then keeps no megabytes alive.
    pub fn detach(&self) -> ConsumerRecord {
        let copy = Bytes::copy_from_slice;
        let BatchView { partition, batch } = self.batch;
        ConsumerRecord {
            topic: Arc::clone(&partition.topic),
            partition: partition.partition,
            offset: self.record.offset,
            timestamp_ms: self.record.timestamp,
            timestamp_type: batch.header().timestamp_type().into(),
            leader_epoch: batch.header().partition_leader_epoch,
            headers: self
                .headers()
                .map(|(name, value)| RecordHeader { name: copy(name), value: value.map(copy) })
                .collect(),
            key: self.record.key.map(copy),
            value: self.record.value.map(copy),
        }
    }
}

impl ConsumerRecord {
    /// A record of a batch, whose key, value and headers share its memory.
    #[inline]
    pub(super) fn shared(partition: &TopicPartition, batch: &ChunkBatch, record: &RecordRef<'_>) -> Self {
        let share = |bytes| batch.share(bytes);
        let headers = record.headers();
        let headers = match headers.len() {
            0 => Vec::new(),
            _ => headers
                .map(|header| RecordHeader { name: share(header.name), value: header.value.map(share) })
                .collect(),
        };
        Self {
            topic: Arc::clone(&partition.topic),
            partition: partition.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp,
            timestamp_type: batch.header().timestamp_type().into(),
            leader_epoch: batch.header().partition_leader_epoch,
            headers,
            key: record.key.map(share),
            value: record.value.map(share),
        }
    }
}
