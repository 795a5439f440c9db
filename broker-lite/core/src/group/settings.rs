//! The settings that a group coordinator acts on.

use std::time::Duration;

use crate::config::BrokerConfig;

/// Settings of a group coordinator; by default Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms` to `group.max.session.timeout.ms`.
    pub session_timeout_ms: std::ops::RangeInclusive<i32>,
    /// `group.initial.rebalance.delay.ms`: how long the first members of an empty group wait for others.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`, in members.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`, which Kafka counts in UTF-16 units.
    pub offset_metadata_max: usize,
    /// `offsets.commit.timeout.ms`: longest wait for a record to be replicated.
    pub commit_timeout: Duration,
    /// `offsets.retention.minutes`, in ms.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
}

/// Longest time that a new member is waited for while its group rebalances, whatever its session time-out is: clients of
/// old versions would join again and again otherwise.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            session_timeout_ms: 6_000..=1_800_000,
            initial_rebalance_delay: Duration::from_secs(3),
            max_size: i32::MAX as usize,
            offset_metadata_max: 4096,
            commit_timeout: Duration::from_secs(5),
            offsets_retention_ms: 10_080 * 60_000,
            retention_check_interval: Duration::from_secs(600),
        }
    }
}

impl GroupSettings {
    /// What a broker's settings say.
    pub fn of(config: &BrokerConfig) -> Self {
        let default = Self::default();
        let int = |name: &str, default: i32| {
            config.int(name).and_then(|value| i32::try_from(value).ok()).unwrap_or(default)
        };
        let size = |name: &str, default: usize| {
            config.int(name).and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
        };
        let millis = |name: &str, default: Duration| config.millis(name).unwrap_or(default);
        let min = int("group.min.session.timeout.ms", *default.session_timeout_ms.start());
        let max = int("group.max.session.timeout.ms", *default.session_timeout_ms.end());
        Self {
            session_timeout_ms: min..=max,
            initial_rebalance_delay: millis(
                "group.initial.rebalance.delay.ms",
                default.initial_rebalance_delay,
            ),
            max_size: size("group.max.size", default.max_size),
            offset_metadata_max: size("offset.metadata.max.bytes", default.offset_metadata_max),
            commit_timeout: millis("offsets.commit.timeout.ms", default.commit_timeout),
            offsets_retention_ms: config
                .int("offsets.retention.minutes")
                .map_or(default.offsets_retention_ms, |minutes| minutes.saturating_mul(60_000)),
            retention_check_interval: millis(
                "offsets.retention.check.interval.ms",
                default.retention_check_interval,
            ),
        }
    }
}
