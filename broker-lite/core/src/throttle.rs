//! Replication throttles: how many bytes a second may be copied for replicas that are named, so that a reassignment
//! leaves room for clients (`leader.replication.throttled.rate` and its kin).
//!
//! In: what was copied, and the clock. Out: whether more may be copied now, or else when.
//!
//! A bucket that fills at the rate and holds a second's worth. What is copied may overdraw it, since a batch cannot be
//! divided; nothing more is copied until that is made good.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Tick;

/// One direction of one broker's throttled replication.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    /// Bytes a second; `None` for no limit.
    rate: Option<u64>,
    /// Bytes that may be copied; negative if overdrawn.
    available: i64,
    at: Tick,
}

impl Throttle {
    /// Sets the rate in bytes a second, `None` for no limit.
    pub fn set_rate(&mut self, now: Tick, rate: Option<u64>) {
        if rate != self.rate {
            self.rate = rate;
            self.available = rate.map_or(0, whole);
            self.at = now;
        }
    }

    /// When more may be copied; `None` for at once.
    pub fn blocked_until(&mut self, now: Tick) -> Option<Tick> {
        let rate = self.rate?;
        self.fill(now, rate);
        if self.available > 0 {
            return None;
        }
        if rate == 0 {
            return Some(Tick::MAX);
        }
        let missing = 1 - i128::from(self.available);
        let nanos = (missing * 1_000_000_000).div_euclid(i128::from(rate)) + 1;
        Some(now.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
    }

    /// Takes note of bytes that were copied.
    pub fn record(&mut self, now: Tick, bytes: usize) {
        if let Some(rate) = self.rate {
            self.fill(now, rate);
            self.available = self.available.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    fn fill(&mut self, now: Tick, rate: u64) {
        let passed = now.saturating_sub(self.at).as_nanos();
        let earned = passed.saturating_mul(u128::from(rate)) / 1_000_000_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.available = self.available.saturating_add(earned).min(whole(rate));
            self.at = now;
        }
    }
}

fn whole(rate: u64) -> i64 {
    i64::try_from(rate).unwrap_or(i64::MAX)
}

/// Which replicas of a topic are throttled (`leader.replication.throttled.replicas`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ThrottledReplicas {
    /// Those named, by partition and broker.
    Some(BTreeSet<(i32, i32)>),
    /// `*`.
    All,
    /// None.
    #[default]
    None,
}

impl ThrottledReplicas {
    /// Reads the setting: `*`, or `PARTITION:BROKER` with commas between them. What cannot be read names nobody.
    pub fn parse(setting: &str) -> Self {
        match setting.trim() {
            "" => Self::None,
            "*" => Self::All,
            list => {
                let pair = |element: &str| {
                    let (partition, broker) = element.trim().split_once(':')?;
                    Some((partition.parse().ok()?, broker.parse().ok()?))
                };
                Self::Some(list.split(',').filter_map(pair).collect())
            }
        }
    }

    /// Whether the replica of `partition` on `broker` is throttled.
    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(named) => named.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Tick = Tick::from_secs(1);

    #[test]
    fn what_overdraws_the_rate_is_made_good_before_more_is_copied() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.blocked_until(S), None, "no limit");
        throttle.set_rate(S, Some(100));
        assert_eq!(throttle.blocked_until(S), None);
        throttle.record(S, 350);
        let free = throttle.blocked_until(S).unwrap();
        assert!((S + S * 250 / 100..S + S * 252 / 100).contains(&free), "{free:?}");
        assert!(throttle.blocked_until(free - Tick::from_millis(20)).is_some());
        assert_eq!(throttle.blocked_until(free), None);
        throttle.set_rate(free, None);
        throttle.record(free, 1 << 30);
        assert_eq!(throttle.blocked_until(free), None);
    }

    #[test]
    fn a_rate_of_nothing_blocks_for_good() {
        let mut throttle = Throttle::default();
        throttle.set_rate(S, Some(0));
        assert_eq!(throttle.blocked_until(100 * S), Some(Tick::MAX));
    }

    #[test]
    fn replicas_are_named_by_partition_and_broker() {
        let named = ThrottledReplicas::parse("0:1, 2:3,x");
        assert!(named.contains(0, 1) && named.contains(2, 3) && !named.contains(0, 3));
        assert!(ThrottledReplicas::parse("*").contains(7, 7));
        assert!(!ThrottledReplicas::parse("").contains(0, 0));
    }

    proptest! {
        /// Whoever copies only when it may copies no more than the rate, a second's worth and its last piece.
        #[test]
        fn nobody_copies_more_than_the_rate(rate in 1..10_000u64, pieces in prop::collection::vec((0..500u64, 1..2_000usize), 1..100)) {
            let mut throttle = Throttle::default();
            throttle.set_rate(Tick::ZERO, Some(rate));
            let (mut now, mut copied, mut last) = (Tick::ZERO, 0, 0);
            for (pause, bytes) in pieces {
                now += Tick::from_millis(pause);
                if throttle.blocked_until(now).is_none() {
                    throttle.record(now, bytes);
                    (copied, last) = (copied + bytes, bytes);
                }
            }
            let allowed = rate as f64 * (now.as_secs_f64() + 1.0) + last as f64;
            prop_assert!(copied as f64 <= allowed, "{copied} of {allowed}");
        }
    }
}
