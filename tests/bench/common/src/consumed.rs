//! Clients that read: the clock runs from the call that subscribes until the last record was handed out.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Error, Job, Stopwatch, Tally};

/// What was read so far.
#[derive(Debug)]
pub struct Reading {
    watch: Stopwatch,
    records: usize,
    size: usize,
    stamped: bool,
    began: Instant,
    first: Option<Duration>,
    seen: usize,
    /// So that the values are looked at.
    sum: u64,
    tally: Tally,
}

impl Reading {
    /// Tells that the client is ready, waits for the word, and starts the clock: subscribe then.
    ///
    /// # Errors
    ///
    /// The program that started this client is gone.
    pub fn start(job: &Job, version: impl Into<String>) -> Result<Self, Error> {
        Ok(Self {
            watch: Stopwatch::start(version)?,
            records: job.records,
            size: job.size,
            stamped: job.rate.is_some(),
            began: Instant::now(),
            first: None,
            seen: 0,
            sum: 0,
            tally: Tally::default(),
        })
    }

    /// Takes a value that was handed out; `false` once it was the last one.
    #[inline]
    pub fn see(&mut self, value: &[u8]) -> bool {
        if self.seen == 0 {
            self.first = Some(self.began.elapsed());
        }
        self.seen += 1;
        self.sum += u64::from(value[0]) + u64::from(value[value.len() - 1]);
        if value.len() != self.size {
            self.tally.count::<(), _>(Err(format!("a value of {} bytes", value.len())));
        }
        if self.stamped {
            self.tally.latencies.push(since(value));
        }
        self.seen < self.records
    }

    /// Counts a failure.
    pub fn failed(&mut self, error: impl std::fmt::Display) {
        self.tally.count::<(), _>(Err(error));
    }

    /// Stops the clock, prints the report, and waits until the connections were looked at.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn finish(self) -> Result<(), Error> {
        let extra =
            serde_json::json!({ "first_s": self.first.unwrap_or_default().as_secs_f64(), "sum": self.sum });
        self.watch.finish_with(self.seen, self.tally, extra)?;
        io::stdout().flush()?;
        io::stdin().lock().read_line(&mut String::new())?;
        Ok(())
    }
}

/// Writes the time into the first bytes of a value.
pub fn stamp(value: &mut [u8]) {
    value[..8].copy_from_slice(&nanos().to_be_bytes());
}

fn since(value: &[u8]) -> Duration {
    let sent = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Duration::from_nanos(nanos().saturating_sub(sent))
}

fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
