//! Records as the consumer hands them out.

use std::sync::Arc;

use bytes::Bytes;
use klamm_core::TopicPartition;

/// Who set the timestamp of a record (`message.timestamp.type` of the topic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestampType {
    /// The producer.
    Create,
    /// The broker, when it appended the batch.
    Append,
}

impl From<klamm_wire::batch::TimestampType> for TimestampType {
    fn from(kind: klamm_wire::batch::TimestampType) -> Self {
        match kind {
            klamm_wire::batch::TimestampType::CreateTime => Self::Create,
            klamm_wire::batch::TimestampType::LogAppendTime => Self::Append,
        }
    }
}

/// Name and value of one header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Name; UTF-8 unless a foreign producer wrote something else.
    pub name: Bytes,
    /// Value; `None` is null, an empty value is `Some` of nothing.
    pub value: Option<Bytes>,
}

impl RecordHeader {
    /// The name as text, if it is UTF-8.
    pub fn name_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }
}

/// One record.
///
/// With the default types, key, value and headers are slices of the fetched buffer: nothing was copied, and the
/// buffer lives, and counts in the consumer's prefetch budget, until the last of its records is dropped. A record
/// that is kept for long should be [detached](Self::detach).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerRecord<K = Bytes, V = Bytes> {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch; -1 if the producer gave none.
    pub timestamp_ms: i64,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// Epoch of the leader that appended the record; -1 if unknown.
    pub leader_epoch: i32,
    /// Headers in the producer's order.
    pub headers: Vec<RecordHeader>,
    /// Key; `None` is null, an empty key is `Some` of nothing.
    pub key: Option<K>,
    /// Value; `None` is null (a tombstone on a compacted topic), an empty value is `Some` of nothing.
    pub value: Option<V>,
}

impl<K, V> ConsumerRecord<K, V> {
    /// Topic and partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

impl ConsumerRecord<Bytes, Bytes> {
    /// Copies key, value and headers out of the fetched buffer, so that the record no longer holds on to it.
    #[must_use]
    pub fn detach(self) -> Self {
        let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
        Self {
            key: self.key.map(copy),
            value: self.value.map(copy),
            headers: self
                .headers
                .into_iter()
                .map(|h| RecordHeader { name: copy(h.name), value: h.value.map(copy) })
                .collect(),
            ..self
        }
    }
}
