//! What is sent: sizes, settings, and the bytes themselves.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Error;

/// One row of settings, the same for every client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) records: usize,
    /// Bytes of each value.
    pub(crate) size: usize,
    /// `batch.size`.
    pub(crate) batch: usize,
    /// `linger.ms`.
    pub(crate) linger: u64,
    pub(crate) compression: &'static str,
    /// Records per second; 0: as fast as the window allows.
    pub(crate) rate: usize,
}

const SMALL: usize = 16_384;
/// 1 MB in the sense of 10^6, which leaves room for a request's own bytes below every client's and broker's limit.
const LARGE: usize = 1_000_000;

pub(crate) const ALL: [Workload; 9] = [
    fast("100B-16K", 100, SMALL, "none"),
    fast("100B-16K-lz4", 100, SMALL, "lz4"),
    fast("100B-1M", 100, LARGE, "none"),
    fast("100B-1M-lz4", 100, LARGE, "lz4"),
    fast("1K-16K", 1024, SMALL, "none"),
    fast("1K-16K-lz4", 1024, SMALL, "lz4"),
    fast("1K-1M", 1024, LARGE, "none"),
    fast("1K-1M-lz4", 1024, LARGE, "lz4"),
    Workload { linger: 0, rate: 2000, records: 20_000, ..fast("latency", 100, SMALL, "none") },
];

const fn fast(name: &'static str, size: usize, batch: usize, compression: &'static str) -> Workload {
    let records = if size == 100 { 2_000_000 } else { 500_000 };
    Workload { name, records, size, batch, linger: 5, compression, rate: 0 }
}

impl Workload {
    /// A tenth of the records.
    pub(crate) fn short(self) -> Self {
        Self { records: self.records / 10, ..self }
    }
}

/// Distinct values in a file; more than a codec's window sees at once, so that repetition is within a value or
/// between the fields of neighbours, as in real logs.
const POOL: usize = 4096;

/// Writes the pool of values of one size: lines of JSON as services log them, cut to the size. The same for ever.
pub(crate) fn write_values(file: &Path, size: usize) -> Result<(), Error> {
    let mut random = Random(0x6b6c_616d_6d00_0001);
    let mut bytes = Vec::with_capacity(POOL * size);
    for i in 0..POOL {
        let mut line = String::new();
        while line.len() < size {
            log_line(&mut line, i as u64, &mut random)?;
        }
        bytes.extend_from_slice(&line.as_bytes()[..size]);
    }
    Ok(fs::write(file, bytes)?)
}

fn log_line(line: &mut String, i: u64, random: &mut Random) -> Result<(), Error> {
    const LEVELS: [&str; 4] = ["INFO", "INFO", "WARN", "DEBUG"];
    const PATHS: [&str; 8] =
        ["/cart", "/orders", "/orders/history", "/login", "/search", "/items", "/items/reviews", "/health"];
    const AGENTS: [&str; 4] = ["android/14", "ios/17.2", "firefox/128", "chrome/126"];
    let level = LEVELS[random.below(4) as usize];
    let (path, agent) = (PATHS[random.below(8) as usize], AGENTS[random.below(4) as usize]);
    let time = 1_700_000_000_000 + i * 37 + random.below(37);
    let (user, id, ms) = (random.below(1_000_000), random.next(), random.below(900));
    write!(line, r#"{{"ts":{time},"level":"{level}","user":{user},"path":"{path}","id":"{id:016x}","#)?;
    writeln!(line, r#""ms":{ms},"agent":"{agent}"}}"#)?;
    Ok(())
}

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
