//! A run as data: who sends what, what is promised, and what goes wrong.

use broker_lite::sim::{Chaos, Schedule, Shrink};
use serde::{Deserialize, Serialize};

use crate::workers::{Act, GroupPlan};

/// What clients do in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Idempotent producers with five requests in flight: nothing lost, nothing twice, nothing out of order.
    Idempotent,
    /// Producers without idempotence, one request in flight: nothing lost, nothing out of order, but maybe twice.
    Plain,
    /// Idempotent producers that use everything they have: keys, no keys and explicit partitions, compression, batches that
    /// are too large for the topic, records that are, throttling brokers, short `delivery.timeout.ms`, flush and close in
    /// mid-stream. Whatever is not acknowledged has to be a failure that tells the truth.
    Produce,
    /// Consumers that come and go, seek and pause beside an idempotent producer: no gap, no repetition, nothing
    /// that is not committed.
    Consume,
    /// Members of groups that come and go, crash, stall, change their subscriptions, while coordinators move and topics
    /// grow: everything is worked on, again only what was not committed, by one member in a generation.
    Groups,
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idempotent => "idempotent",
            Self::Plain => "plain",
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Groups => "groups",
        })
    }
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Idempotent, Self::Plain, Self::Consume, Self::Produce, Self::Groups];
}

/// What is special about the producers of [`Workload::Produce`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Producing {
    /// `max.message.bytes` of the topic.
    pub limit_bytes: usize,
    /// `batch.size`
    pub batch_bytes: usize,
    /// Longest value; a few are larger than the topic takes.
    pub value_bytes: usize,
    /// Most records that are sent at once.
    pub burst: u32,
    /// `compression.type`
    pub compression: String,
    /// How long a broker asks for silence now and then, in ms; 0 for never.
    pub throttle_ms: u64,
    /// `delivery.timeout.ms`
    pub delivery_ms: u64,
    /// Records between a flush, or a close and a new producer; 0 for neither.
    pub restart_every: u32,
}

impl Producing {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let limit_bytes = rng.usize(200..=1_000);
        let codecs = ["none", "lz4", "gzip", "snappy"];
        Self {
            limit_bytes,
            batch_bytes: limit_bytes * rng.usize(1..=8),
            value_bytes: limit_bytes / rng.usize(2..=8),
            burst: rng.u32(1..=20),
            compression: rng.choice(codecs).unwrap_or("none").to_owned(),
            throttle_ms: if rng.bool() { rng.u64(50..=1_500) } else { 0 },
            delivery_ms: if rng.bool() { rng.u64(2_500..=6_000) } else { 120_000 },
            restart_every: if rng.bool() { rng.u32(20..=80) } else { 0 },
        }
    }
}

/// What is special about the consumers of [`Workload::Groups`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    /// Which read everything, each for itself.
    pub groups: Vec<GroupPlan>,
    /// What members do.
    pub acts: Vec<Act>,
    /// Longest time of a member between two acts, in ms.
    pub life_ms: u64,
    /// One or two topics; the first has the scenario's partitions, the second has one.
    pub topics: usize,
    /// Partitions that the first topic gets on the way.
    pub growth: i32,
    /// How often a coordinator is moved on purpose.
    pub moves: u32,
    /// `group.initial.rebalance.delay.ms`
    pub delay_ms: u64,
    /// `offsets.topic.num.partitions`
    pub coordinators: u32,
}

impl Grouping {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let strategies = ["range", "roundrobin", "sticky", "cooperative-sticky", "cooperative-sticky"];
        let mut group = || {
            let plan = GroupPlan {
                strategy: rng.choice(strategies).unwrap_or("range").to_owned(),
                members: rng.u32(2..=4),
                fixed: rng.u8(0..4) == 0,
                auto_commit: rng.bool(),
                pipelined: false,
                commit_ms: rng.u64(50..=1_000),
                session_ms: rng.u64(1_500..=6_000),
                max_poll_ms: rng.u64(1_500..=5_000),
            };
            // Nobody else needs the interval.
            GroupPlan { pipelined: !plan.auto_commit && plan.commit_ms % 2 == 1, ..plan }
        };
        let groups = [group(), group()];
        let count = rng.usize(1..=2);
        Self {
            groups: groups.into_iter().take(count).collect(),
            acts: Act::ALL.into_iter().filter(|_| rng.u8(0..4) > 0).collect(),
            life_ms: rng.u64(1_000..=6_000),
            topics: rng.usize(1..=2),
            growth: if rng.bool() { rng.i32(1..=3) } else { 0 },
            moves: rng.u32(0..=4),
            delay_ms: if rng.bool() { 0 } else { rng.u64(1..=1_000) },
            coordinators: rng.u32(1..=2),
        }
    }

    /// Plainer ones.
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        if self.groups.len() > 1 {
            let alone = |group: &GroupPlan| Self { groups: vec![group.clone()], ..self.clone() };
            smaller.extend(self.groups.iter().map(alone));
        }
        for index in 0..self.acts.len() {
            let mut acts = self.acts.clone();
            acts.remove(index);
            smaller.push(Self { acts, ..self.clone() });
        }
        for index in 0..self.groups.len() {
            let mut groups = self.groups.clone();
            if groups[index].members > 1 {
                groups[index].members -= 1;
                smaller.push(Self { groups, ..self.clone() });
            }
        }
        if self.growth > 0 {
            smaller.push(Self { growth: 0, ..self.clone() });
        }
        if self.moves > 0 {
            smaller.push(Self { moves: self.moves - 1, ..self.clone() });
        }
        if self.topics > 1 {
            smaller.push(Self { topics: 1, ..self.clone() });
        }
        smaller
    }
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
    /// Only with [`Workload::Produce`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producing: Option<Producing>,
    /// Only with [`Workload::Groups`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grouping: Option<Grouping>,
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
        let mut scenario = Self {
            workload,
            producers: 2,
            consumers: 2,
            partitions: rng.i32(1..=3),
            records: 150,
            pause_ms: rng.u64(20..=100),
            linger_ms: rng.u64(0..=10),
            sync,
            producing: None,
            grouping: None,
            schedule: chaos.draw(seed),
        };
        if workload == Workload::Produce {
            let producing = Producing::draw(&mut rng);
            // The same time for all records, whether they come in bursts or not.
            scenario.pause_ms = scenario.pause_ms * u64::from(1 + producing.burst) / 2;
            scenario.producing = Some(producing);
        }
        if workload == Workload::Groups {
            scenario.consumers = 0;
            scenario.grouping = Some(Grouping::draw(&mut rng));
        }
        scenario
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
        if let Some(producing) = &self.producing {
            let mut plainer = Vec::new();
            if producing.throttle_ms > 0 {
                plainer.push(Producing { throttle_ms: 0, ..producing.clone() });
            }
            if producing.restart_every > 0 {
                plainer.push(Producing { restart_every: 0, ..producing.clone() });
            }
            if producing.delivery_ms < 120_000 {
                plainer.push(Producing { delivery_ms: 120_000, ..producing.clone() });
            }
            if producing.compression != "none" {
                plainer.push(Producing { compression: "none".to_owned(), ..producing.clone() });
            }
            smaller.extend(plainer.into_iter().map(|plain| Self { producing: Some(plain), ..self.clone() }));
        }
        if let Some(grouping) = &self.grouping {
            let plainer = grouping.smaller().into_iter();
            smaller.extend(plainer.map(|plain| Self { grouping: Some(plain), ..self.clone() }));
        }
        if self.records > 10 {
            smaller.push(Self { records: self.records / 2, ..self.clone() });
        }
        smaller
    }
}
