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
/// that is kept for long should be [detached](Self::detach); one of other types, its [headers](Self::detach_headers).
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
    /// A record with null key and null value, no headers and timestamp -1, for whoever stands in for a consumer in
    /// a test.
    ///
    /// ```
    /// use klamm::ConsumerRecord;
    /// let record: ConsumerRecord = ConsumerRecord::new("orders", 0, 42).key("customer-7").value("3 apples");
    /// assert_eq!(record.key.as_deref(), Some(&b"customer-7"[..]));
    /// ```
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            timestamp_ms: -1,
            timestamp_type: TimestampType::Create,
            leader_epoch: -1,
            headers: Vec::new(),
            key: None,
            value: None,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<K>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<V>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(mut self, ms: i64) -> Self {
        self.timestamp_ms = ms;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Bytes>, value: impl Into<Option<Bytes>>) -> Self {
        self.headers.push(RecordHeader { name: name.into(), value: value.into() });
        self
    }

    /// Topic and partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

impl ConsumerRecord<Bytes, Bytes> {
    /// Copies key, value and headers out of the fetched buffer, so that the record no longer holds on to it.
    #[must_use]
    pub fn detach(self) -> Self {
        let (key, value) = (self.key.as_ref().map(copied), self.value.as_ref().map(copied));
        Self { key, value, ..self }.detach_headers()
    }
}

impl<K, V> ConsumerRecord<K, V> {
    /// Copies the headers out of the fetched buffer: a record whose key and value were deserialized holds on to it by nothing else.
    #[must_use]
    pub fn detach_headers(mut self) -> Self {
        for header in &mut self.headers {
            header.name = copied(&header.name);
            header.value = header.value.as_ref().map(copied);
        }
        self
    }
}

fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
