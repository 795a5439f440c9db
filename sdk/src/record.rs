//! A record on its way to a topic.

use std::sync::Arc;

use bytes::Bytes;

/// One record to send. Null and empty keys and values are different things: [`Record::new`] starts with both null.
///
/// ```
/// use klamm::{Bytes, Record};
/// let record: Record = Record::new("files").key("src/lib.rs").value("//! Docs\n").header("lang", "rust");
/// assert_eq!(record.value_ref(), Some(&Bytes::from("//! Docs\n")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a record does nothing until it is sent"]
pub struct Record<K = Bytes, V = Bytes> {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<K>,
    pub(crate) value: Option<V>,
    pub(crate) headers: Headers,
    pub(crate) timestamp: Option<i64>,
}

/// Names and values of a record's headers, in order; a value may be null.
pub type Headers = Vec<(String, Option<Bytes>)>;

impl<K, V> Record<K, V> {
    /// A record for `topic` with null key and null value (a tombstone on a compacted topic).
    ///
    /// Give a cloned `Arc<str>` to send many records to one topic without allocating its name for each.
    pub fn new(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// Sets the key; records with equal keys land in the same partition.
    pub fn key(self, key: impl Into<K>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Sets the value.
    pub fn value(self, value: impl Into<V>) -> Self {
        Self { value: Some(value.into()), ..self }
    }

    /// Chooses the partition instead of the partitioner.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the create time in milliseconds since the Unix epoch. Default: the time of sending.
    pub fn timestamp(mut self, ms: i64) -> Self {
        self.timestamp = Some(ms);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header with a null value.
    pub fn null_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// The topic, to change.
    pub fn topic_mut(&mut self) -> &mut Arc<str> {
        &mut self.topic
    }

    /// The partition chosen instead of the partitioner, if any, to read and change.
    pub fn partition_mut(&mut self) -> &mut Option<i32> {
        &mut self.partition
    }

    /// The key, to change; `None` is null.
    pub fn key_mut(&mut self) -> &mut Option<K> {
        &mut self.key
    }

    /// The value, to change; `None` is null.
    pub fn value_mut(&mut self) -> &mut Option<V> {
        &mut self.value
    }

    /// The create time in milliseconds since the Unix epoch, if it was set, to read and change.
    pub fn timestamp_mut(&mut self) -> &mut Option<i64> {
        &mut self.timestamp
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The key, or `None` if it is null.
    pub fn key_ref(&self) -> Option<&K> {
        self.key.as_ref()
    }

    /// The value, or `None` if it is null.
    pub fn value_ref(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// The headers, to read.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }
}
