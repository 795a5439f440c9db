//! The settings of a topic that its logs go by.

use super::TopicConfig;
use crate::Tick;
use crate::log::LogSettings;

impl TopicConfig<'_> {
    /// What the log of each replica of the topic goes by.
    pub fn log_settings(&self) -> LogSettings {
        let default = LogSettings::default();
        let int = |name: &str, default: i64| self.int(name).unwrap_or(default);
        let bytes =
            |name: &str, default: u64| self.int(name).and_then(|v| u64::try_from(v).ok()).unwrap_or(default);
        let limit = |name: &str| self.int(name).filter(|value| *value >= 0);
        let policy = self.get("cleanup.policy").unwrap_or_default();
        let has = |wanted: &str| policy.split(',').any(|policy| policy.trim() == wanted);
        let ratio: f64 =
            self.get("min.cleanable.dirty.ratio").and_then(|ratio| ratio.parse().ok()).unwrap_or(0.5);
        // Kafka's own default is "never", as a number.
        let flush_ms = self.int("flush.ms").filter(|ms| *ms < i64::MAX).and_then(|ms| u64::try_from(ms).ok());
        LogSettings {
            segment_bytes: bytes("segment.bytes", default.segment_bytes),
            segment_ms: int("segment.ms", default.segment_ms),
            segment_jitter_ms: int("segment.jitter.ms", default.segment_jitter_ms),
            index_interval_bytes: bytes("index.interval.bytes", default.index_interval_bytes),
            file_delete_delay: Tick::from_millis(bytes("file.delete.delay.ms", 60_000)),
            delete: has("delete"),
            retention_ms: limit("retention.ms"),
            retention_bytes: limit("retention.bytes").and_then(|bytes| u64::try_from(bytes).ok()),
            compact: has("compact"),
            min_cleanable_dirty_millionths: (ratio.clamp(0.0, 1.0) * 1e6) as u64,
            min_compaction_lag_ms: int("min.compaction.lag.ms", default.min_compaction_lag_ms),
            max_compaction_lag_ms: int("max.compaction.lag.ms", default.max_compaction_lag_ms),
            delete_retention_ms: int("delete.retention.ms", default.delete_retention_ms),
            flush_messages: int("flush.messages", default.flush_messages),
            flush_interval: flush_ms.map(Tick::from_millis),
            keeps_epochs: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;

    #[test]
    fn the_defaults_are_kafkas() {
        let (own, broker) = (std::collections::BTreeMap::new(), BrokerConfig::new());
        assert_eq!(TopicConfig::new(&own, &broker).log_settings(), LogSettings::default());
    }

    #[test]
    fn what_a_topic_sets_for_itself_comes_before_what_its_broker_says() {
        let mut broker = BrokerConfig::new();
        broker.set("log.retention.hours", "1").unwrap();
        broker.set("log.cleanup.policy", "compact").unwrap();
        broker.set("log.segment.bytes", "2097152").unwrap();
        let own = [
            ("retention.ms", "-1"),
            ("cleanup.policy", "compact, delete"),
            ("min.cleanable.dirty.ratio", "0.25"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let settings = TopicConfig::new(&own, &broker).log_settings();
        assert_eq!((settings.retention_ms, settings.delete, settings.compact), (None, true, true));
        assert_eq!((settings.segment_bytes, settings.min_cleanable_dirty_millionths), (2_097_152, 250_000));
        let own = std::collections::BTreeMap::new();
        let settings = TopicConfig::new(&own, &broker).log_settings();
        assert_eq!(
            (settings.retention_ms, settings.delete, settings.compact),
            (Some(3_600_000), false, true)
        );
    }
}
