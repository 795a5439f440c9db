//! What every Rust client of the benchmark does the same way: read the job, keep time, report.
//!
//! ```text
//! client: connect, send WARM_UP records, await them   ──"ready"──▶  program: read end offsets
//!         start clock and CPU, send everything         ◀──"go"────
//!         await everything, stop both                  ──{...}────▶  program: read end offsets, judge
//! ```

pub mod awaited;
pub mod consumed;

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use nix::sys::resource::{Usage, UsageWho, getrusage};

/// Any error of a client.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Records sent and awaited before the clock starts.
pub const WARM_UP: usize = 1000;

/// What a client is asked to do.
#[derive(Debug, Clone)]
pub struct Job {
    /// `HOST:PORT,...`
    pub bootstrap: String,
    /// A fresh topic.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: i32,
    /// Records to send after the warm-up.
    pub records: usize,
    /// Values, sent one after the other and from the beginning again.
    pub values: Arc<[Vec<u8>]>,
    /// Bytes of each value.
    pub size: usize,
    /// The group to read in.
    pub group: String,
    /// `batch.size` in bytes.
    pub batch_size: usize,
    /// `linger.ms`.
    pub linger: Duration,
    /// `compression.type`: none or lz4.
    pub compression: String,
    /// Records per second for the latency workload; otherwise as fast as the window allows.
    pub rate: Option<usize>,
    /// Most records sent and not awaited yet.
    pub window: usize,
    /// Which way of a client that has several.
    pub mode: String,
    /// Worker threads of an async runtime.
    pub workers: usize,
}

impl Job {
    /// Reads the arguments, `KEY=VALUE` each; a missing one has the value of the smallest workload.
    ///
    /// # Errors
    ///
    /// An argument that is unknown or no number, or an unreadable file of values.
    pub fn from_args() -> Result<Self, Error> {
        let mut job = Self {
            bootstrap: "localhost:9092".into(),
            topic: "bench".into(),
            partitions: 6,
            records: 2_000_000,
            values: Arc::new([]),
            size: 100,
            group: String::new(),
            batch_size: 16_384,
            linger: Duration::from_millis(5),
            compression: "none".into(),
            rate: None,
            window: 10_000,
            mode: String::new(),
            workers: 1,
        };
        let mut file = String::new();
        for argument in env::args().skip(1) {
            let (key, value) = argument.split_once('=').ok_or("arguments are KEY=VALUE")?;
            match key {
                "bootstrap" => job.bootstrap = value.into(),
                "topic" => job.topic = value.into(),
                "partitions" => job.partitions = value.parse()?,
                "records" => job.records = value.parse()?,
                "values" => file = value.into(),
                "size" => job.size = value.parse()?,
                "group" => job.group = value.into(),
                "batch" => job.batch_size = value.parse()?,
                "linger" => job.linger = Duration::from_millis(value.parse()?),
                "compression" => job.compression = value.into(),
                "rate" => job.rate = Some(value.parse()?).filter(|&rate| rate > 0),
                "window" => job.window = value.parse()?,
                "mode" => job.mode = value.into(),
                "workers" => job.workers = value.parse()?,
                _ => return Err(format!("unknown argument {argument}").into()),
            }
        }
        job.values = fs::read(file)?.chunks_exact(job.size).map(<[u8]>::to_vec).collect();
        Ok(job)
    }

    /// The value of record `i`.
    pub fn value(&self, i: usize) -> &[u8] {
        &self.values[i % self.values.len()]
    }
}

/// The clock and the CPU of the timed part.
#[derive(Debug)]
pub struct Stopwatch {
    version: String,
    began: Instant,
    usage: Usage,
}

impl Stopwatch {
    /// Tells that the warm-up is over, waits for the word, and starts.
    ///
    /// # Errors
    ///
    /// The program that started this client is gone.
    pub fn start(version: impl Into<String>) -> Result<Self, Error> {
        println!("ready");
        io::stdout().flush()?;
        if io::stdin().lock().read_line(&mut String::new())? == 0 {
            return Err("nobody said go".into());
        }
        Ok(Self { version: version.into(), usage: getrusage(UsageWho::RUSAGE_SELF)?, began: Instant::now() })
    }

    /// Stops and prints the report: `tally` of `records`.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn finish(self, records: usize, tally: Tally) -> Result<(), Error> {
        self.finish_with(records, tally, serde_json::json!({}))
    }

    /// As [`Self::finish`], with more to report.
    fn finish_with(self, records: usize, mut tally: Tally, extra: serde_json::Value) -> Result<(), Error> {
        let seconds = self.began.elapsed().as_secs_f64();
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let cpu = |end: nix::sys::time::TimeVal, start: nix::sys::time::TimeVal| {
            let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
            (micros(end) - micros(start)) / 1e6
        };
        tally.latencies.sort_unstable();
        let mut report = serde_json::json!({
            "version": self.version,
            "records": records,
            "failed": tally.failed,
            "failure": tally.failure,
            "seconds": seconds,
            "cpu_user_s": cpu(usage.user_time(), self.usage.user_time()),
            "cpu_sys_s": cpu(usage.system_time(), self.usage.system_time()),
            "rss_peak_bytes": peak_memory()?,
            "p50_us": tally.quantile(0.5),
            "p99_us": tally.quantile(0.99),
            "p999_us": tally.quantile(0.999),
        });
        if let (Some(report), serde_json::Value::Object(extra)) = (report.as_object_mut(), extra) {
            report.extend(extra);
        }
        println!("{report}");
        io::stdout().flush()?;
        Ok(())
    }
}

/// The largest resident memory of this program. Not `ru_maxrss`: on Linux that is never below what the process that
/// started this one held.
fn peak_memory() -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("/proc/self/status has no VmHWM")?;
    Ok(line.trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// What became of the records.
#[derive(Debug, Default)]
pub struct Tally {
    /// Records that were not acknowledged.
    pub failed: usize,
    /// Why the first of them was not.
    pub failure: Option<String>,
    /// From before the send to the awaited acknowledgement, one for each record of the latency workload.
    pub latencies: Vec<Duration>,
}

impl Tally {
    /// Counts one outcome.
    pub fn count<T, E: std::fmt::Display>(&mut self, outcome: Result<T, E>) {
        if let Err(error) = outcome {
            self.failed += 1;
            self.failure.get_or_insert_with(|| error.to_string());
        }
    }

    /// Counts one outcome and the time since `sent`.
    pub fn count_since<T, E: std::fmt::Display>(&mut self, sent: Instant, outcome: Result<T, E>) {
        self.latencies.push(sent.elapsed());
        self.count(outcome);
    }

    fn quantile(&self, q: f64) -> Option<f64> {
        let last = self.latencies.len().checked_sub(1)?;
        Some(self.latencies[(last as f64 * q).round() as usize].as_nanos() as f64 / 1e3)
    }
}

/// Lets records go at an even rate, by the system's clock: an async runtime's timers tick by the millisecond.
#[derive(Debug)]
pub struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// Starts now.
    pub fn new(rate: usize) -> Self {
        Self { next: Instant::now(), interval: Duration::from_secs(1) / rate as u32 }
    }

    /// Blocks this thread until the next record is due. Who is late is not waited for: what follows comes in time.
    pub fn wait(&mut self) {
        self.next += self.interval;
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
    }
}

/// The version of `package` in the text of a Cargo.lock.
pub fn locked_version(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let version = lock.lines().skip_while(|line| *line != name).nth(1);
    version.and_then(|line| line.split('"').nth(1)).unwrap_or("unknown").to_owned()
}
