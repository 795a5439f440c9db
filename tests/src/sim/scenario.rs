//! A run as data: who sends what, what is promised, and what goes wrong.

use broker_lite::sim::{Chaos, Schedule, Shrink};
use serde::{Deserialize, Serialize};

/// What clients do in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Idempotent producers with five requests in flight: nothing lost, nothing twice, nothing out of order.
    Idempotent,
    /// Producers without idempotence, one request in flight: nothing lost, nothing out of order, but maybe twice.
    Plain,
    /// Consumers that come and go, seek and pause beside an idempotent producer: no gap, no repetition, nothing
    /// that is not committed.
    Consume,
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idempotent => "idempotent",
            Self::Plain => "plain",
            Self::Consume => "consume",
        })
    }
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Idempotent, Self::Plain, Self::Consume];
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What clients do.
    pub workload: Workload,
    /// Producers.
    pub producers: u32,
    /// Consumers that read everything.
    pub consumers: u32,
    /// Partitions of the one topic.
    pub partitions: i32,
    /// Records that each producer sends.
    pub records: u32,
    /// Longest pause between two records of a producer, in ms.
    pub pause_ms: u64,
    /// `linger.ms`
    pub linger_ms: u64,
    /// Brokers sync before they acknowledge (`flush.messages=1`).
    pub sync: bool,
    /// What goes wrong.
    pub schedule: Schedule,
}

impl Scenario {
    /// Draws a scenario. Equal seeds give equal scenarios.
    pub fn draw(workload: Workload, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7363_656e_6172_696f);
        // Without an fsync a loss of power loses what was acknowledged, in Kafka too.
        let sync = rng.u8(0..3) > 0;
        let mut chaos = if sync { Chaos::default().with_power_loss() } else { Chaos::default() };
        // Where nothing is synced, a disk cannot be late.
        chaos.disks = sync;
        chaos.length_ms = 8_000;
        chaos.longest_ms = 3_000;
        // Some do not come about, as their victim is down already; three must.
        chaos.faults = (5, 9);
        Self {
            workload,
            producers: 2,
            consumers: 2,
            partitions: rng.i32(1..=3),
            records: 150,
            pause_ms: rng.u64(20..=100),
            linger_ms: rng.u64(0..=10),
            sync,
            schedule: chaos.draw(seed),
        }
    }
}

impl Shrink for Scenario {
    fn smaller(&self) -> Vec<Self> {
        let mut smaller: Vec<_> =
            self.schedule.smaller().into_iter().map(|schedule| Self { schedule, ..self.clone() }).collect();
        if self.producers > 1 {
            smaller.push(Self { producers: 1, ..self.clone() });
        }
        if self.consumers > 0 {
            smaller.push(Self { consumers: self.consumers - 1, ..self.clone() });
        }
        if self.partitions > 1 {
            smaller.push(Self { partitions: 1, ..self.clone() });
        }
        if self.records > 10 {
            smaller.push(Self { records: self.records / 2, ..self.clone() });
        }
        smaller
    }
}
