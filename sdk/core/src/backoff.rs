//! How long to wait before the next attempt: exponential, with jitter, up to a limit.

use std::time::Duration;

/// Every attempt waits twice as long as the one before, give or take 20 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// Longest wait, jitter included.
    pub max: Duration,
}

impl Backoff {
    /// A backoff from `first` up to `max`; a `max` below `first` counts as `first`, as in Kafka.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max: max.max(first) }
    }

    /// The wait after `failures` failures in a row (1 is the first); zero without a failure.
    pub fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        let jitter = 0.8 + 0.4 * rng.f64();
        doubled.min(self.max).mul_f64(jitter).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_vary_by_a_fifth() {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(backoff.delay(0, &mut rng), Duration::ZERO);
        for (failures, plain_ms) in [(1u32, 50.0), (2, 100.0), (3, 200.0), (5, 800.0)] {
            for _ in 0..200 {
                let ms = backoff.delay(failures, &mut rng).as_secs_f64() * 1000.0;
                assert!((plain_ms * 0.8..=plain_ms * 1.2).contains(&ms), "{failures}: {ms}");
            }
        }
        for failures in [6, 31, 32, 33, u32::MAX] {
            let delay = backoff.delay(failures, &mut rng);
            assert!((Duration::from_millis(800)..=Duration::from_secs(1)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let run = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            (1..9).map(|failures| backoff.delay(failures, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_limit_below_the_first_wait_counts_as_the_first_wait() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(10));
        assert_eq!(backoff.max, Duration::from_millis(100));
    }
}
