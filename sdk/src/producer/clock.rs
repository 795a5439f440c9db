//! Record timestamps without asking the clock for every record.

/// Most records that share one reading of the clock.
const LONGEST_STRIDE: u32 = 64;

/// Reads the wall clock as often as the rate of records asks for: for every record while they come slower than
/// one a millisecond, for every 64th when they come in thousands.
#[derive(Debug, Default)]
pub(super) struct CoarseClock {
    ms: i64,
    stride: u32,
    left: u32,
}

impl CoarseClock {
    /// The time for the next record, in milliseconds; `read` asks the real clock.
    pub(super) fn next(&mut self, read: impl FnOnce() -> i64) -> i64 {
        if self.left == 0 {
            let ms = read();
            self.stride =
                if ms == self.ms { (self.stride * 2).clamp(1, LONGEST_STRIDE) } else { self.stride / 2 };
            self.left = self.stride;
            self.ms = ms;
        } else {
            self.left -= 1;
        }
        self.ms
    }

    /// The next record reads the clock: time may have passed since the last one.
    pub(super) fn doubt(&mut self) {
        self.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_records_read_the_clock_each_and_fast_ones_seldom() {
        let mut clock = CoarseClock::default();
        for ms in 1..100 {
            assert_eq!(clock.next(|| ms), ms);
        }
        let mut reads = 0;
        for _ in 0..10_000 {
            clock.next(|| {
                reads += 1;
                100
            });
        }
        assert!(reads < 200, "{reads}");
        clock.doubt();
        assert_eq!(clock.next(|| 500), 500);
    }
}
