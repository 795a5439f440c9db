//! Durations that were measured, and what is said of them.

use std::fmt;
use std::time::Duration;

/// Samples of one thing.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Takes one more.
    pub fn push(&mut self, time: Duration) {
        let at = self.0.partition_point(|known| *known <= time);
        self.0.insert(at, time);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The least sample that so large a share (0 to 1) of all does not exceed; zero without samples.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The largest one.
    pub fn worst(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// Median, p99 and worst in ms, in columns of nine.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (median, p99, worst) = (ms(self.median()), ms(self.quantile(0.99)), ms(self.worst()));
        write!(f, "{median:>9.1}{p99:>9.1}{worst:>9.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_least_sample_that_enough_others_do_not_exceed() {
        let mut times = Times::default();
        assert_eq!(times.median(), Duration::ZERO);
        for ms in (1..=100).rev() {
            times.push(Duration::from_millis(ms));
        }
        let ms = |share| times.quantile(share).as_millis();
        assert_eq!([ms(0.0), ms(0.5), ms(0.99), ms(0.991), ms(1.0)], [1, 50, 99, 100, 100]);
    }
}
