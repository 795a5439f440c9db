//! Settings of one log; Kafka's property names of a topic in parentheses.

use crate::Tick;

/// Settings of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Size at which a segment is closed (`segment.bytes`).
    pub segment_bytes: u64,
    /// Age at which a segment is closed, by its records' timestamps (`segment.ms`).
    pub segment_ms: i64,
    /// Up to how much earlier, different for each segment (`segment.jitter.ms`).
    pub segment_jitter_ms: i64,
    /// Bytes between two entries of an index (`index.interval.bytes`).
    pub index_interval_bytes: u64,
    /// How long files that are not needed any more stay (`file.delete.delay.ms`).
    pub file_delete_delay: Tick,
    /// Old segments are deleted (`cleanup.policy` contains `delete`).
    pub delete: bool,
    /// Age at which records may go, or `None` (`retention.ms`).
    pub retention_ms: Option<i64>,
    /// Size beyond which the oldest segments go, or `None` (`retention.bytes`).
    pub retention_bytes: Option<u64>,
    /// Only the last record of each key is kept (`cleanup.policy` contains `compact`).
    pub compact: bool,
    /// Share of the log, in millionths, that has not been compacted before it is worth it (`min.cleanable.dirty.ratio`).
    pub min_cleanable_dirty_millionths: u64,
    /// Records younger than this are not compacted (`min.compaction.lag.ms`).
    pub min_compaction_lag_ms: i64,
    /// Records older than this are compacted in any case (`max.compaction.lag.ms`).
    pub max_compaction_lag_ms: i64,
    /// How long a tombstone is kept after it was compacted (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// Records after which the log is made durable (`flush.messages`).
    pub flush_messages: i64,
    /// Time after which it is (`flush.ms`), or `None`.
    pub flush_interval: Option<Tick>,
    /// The leader epochs are written down with every sync. A log that is looked through from its beginning whenever it is
    /// opened can do without.
    pub keeps_epochs: bool,
}

impl Default for LogSettings {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            file_delete_delay: Tick::from_secs(60),
            delete: true,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            compact: false,
            min_cleanable_dirty_millionths: 500_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
            flush_messages: i64::MAX,
            flush_interval: None,
            keeps_epochs: true,
        }
    }
}
