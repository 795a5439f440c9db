//! One run from start to verdict.

use std::sync::Arc;
use std::time::Duration;

use broker_lite::sim::{Played, Sim};
use broker_lite::{Cluster, ClusterBuilder};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::{JoinError, JoinSet};

use super::clients::{Sent, Shared, TOPIC, consume, produce};
use super::scenario::Scenario;
use crate::history::{History, Log, LogRecord, Op, Promises, check};

pub(super) const BROKERS: i32 = 3;

/// Virtual time in which everything must come to rest after the last fault is over.
pub(super) const REST_LIMIT: Duration = Duration::from_secs(300);

/// What a run that held its promises has counted.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Records sent and read by clients.
    pub operations: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Elections, the first one of each partition not counted.
    pub elections: u64,
    /// Batches that a producer sent again.
    pub retries: u64,
    /// Records that were not acknowledged.
    pub failed: u64,
    /// Logs that were cut back to their leader's.
    pub truncations: u64,
    /// Generations of groups in which a member was told its assignment.
    pub rebalances: u64,
    /// Changes of a group's coordinator.
    pub coordinator_moves: u64,
    /// Partitions that a group has not committed to the end, for a reason.
    pub uncommitted: u64,
    /// Virtual time.
    pub time: Duration,
}

impl Stats {
    /// Whether enough happened for the run to count: at least 500 operations and 3 faults.
    pub fn counts(&self) -> bool {
        self.operations >= 500 && self.faults >= 3
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A promise: which rules of the history fell, whether [`Cluster::check`] found something, and all of it in words.
    Promise {
        /// By name.
        fell: Vec<String>,
        /// The evidence.
        told: String,
    },
    /// The run did not come to an end that could be judged.
    Unjudged(String),
}

impl From<String> for Broken {
    fn from(cause: String) -> Self {
        Self::Unjudged(cause)
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Promise { fell, told } => write!(f, "{}: {told}", fell.join(", ")),
            Self::Unjudged(cause) => f.write_str(cause),
        }
    }
}

/// Runs a scenario and judges it.
///
/// # Errors
///
/// Every violation of what the workload promises, or what the run hangs at.
pub async fn run(sim: Sim, scenario: Scenario) -> Result<Stats, Broken> {
    if scenario.grouping.is_some() {
        return super::groups::run(sim, scenario).await;
    }
    let cluster = start(&sim, &scenario).await?;
    let mut history = History::new();
    let partitions: Vec<_> = (0..scenario.partitions).map(|index| history.partition(TOPIC, index)).collect();
    let shared = Shared {
        sim: sim.clone(),
        scenario: Arc::new(scenario),
        history: Arc::new(Mutex::new(history)),
        partitions: partitions.into(),
        topic: TOPIC.into(),
    };
    let (ends, _) = broadcast::channel(1);
    let (mut producers, mut consumers) = (JoinSet::new(), JoinSet::new());
    for number in 0..shared.scenario.producers {
        let name = format!("producer-{number}");
        let client = shared.throttled_client(&cluster, &name)?;
        producers.spawn(produce(shared.clone(), client, name));
    }
    for number in 0..shared.scenario.consumers {
        let name = format!("consumer-{number}");
        let client = shared.client(&cluster, &name)?;
        consumers.spawn(consume(shared.clone(), client, name, ends.subscribe()));
    }
    let played = shared.scenario.schedule.play(&cluster).await;
    let rest = async {
        let sent = all(&mut producers).await?;
        let reached = come_to_rest(&cluster, &shared).await;
        // Without consumers nobody listens.
        let _ = ends.send(reached.into());
        let read: Vec<u64> = all(&mut consumers).await?;
        until_led(&cluster, &shared).await;
        Ok::<_, String>((sent, read.into_iter().sum::<u64>()))
    };
    let rested = tokio::time::timeout(REST_LIMIT, rest).await;
    let (sent, read) = rested.map_err(|_| stuck(&cluster, &shared))??;
    judge(&cluster, &shared)?;
    Ok(count(&cluster, &sim, played, &sent, read))
}

pub(super) async fn start(sim: &Sim, scenario: &Scenario) -> Result<Cluster, String> {
    start_on(sim.cluster(), scenario).await
}

pub(super) async fn start_on(cluster: ClusterBuilder, scenario: &Scenario) -> Result<Cluster, String> {
    let cluster = cluster.brokers(BROKERS as u32).start().await.map_err(|error| error.to_string())?;
    let mut configs = vec![("min.insync.replicas", "2")];
    if scenario.sync {
        configs.push(("flush.messages", "1"));
    }
    let limit = scenario.producing.as_ref().map(|producing| producing.limit_bytes.to_string());
    if let Some(limit) = &limit {
        configs.push(("max.message.bytes", limit));
    }
    let created = cluster.create_topic(TOPIC, scenario.partitions, 3, &configs).await;
    created.map_err(|error| error.to_string())?;
    Ok(cluster)
}

pub(super) async fn all<T: 'static>(tasks: &mut JoinSet<Result<T, String>>) -> Result<Vec<T>, String> {
    let mut done = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(|error: JoinError| error.to_string())??);
    }
    Ok(done)
}

/// Waits until every replica has everything, and returns where each log ends.
pub(super) async fn come_to_rest(cluster: &Cluster, shared: &Shared) -> Vec<i64> {
    let (mut ends, topic) = (Vec::new(), &*shared.topic);
    for (partition, _) in (0..).zip(shared.partitions.iter()) {
        cluster.until_isr(topic, partition, |isr| isr.len() == BROKERS as usize).await;
        loop {
            let leader = cluster.leader_of(topic, partition);
            let end = leader.and_then(|leader| cluster.log_end_offset(leader, topic, partition));
            if let Some(end) = end.filter(|end| cluster.high_watermark(topic, partition) == Some(*end)) {
                ends.push(end);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ends
}

/// Waits until every partition has a leader. A controller that was paused while all came to rest may fence everybody
/// afterwards, for a moment.
pub(super) async fn until_led(cluster: &Cluster, shared: &Shared) {
    let led = |(partition, _)| cluster.leader_of(&shared.topic, partition).is_some();
    while !(0..).zip(shared.partitions.iter()).all(led) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn stuck(cluster: &Cluster, shared: &Shared) -> String {
    let topic = &*shared.topic;
    let partition = |(partition, _)| {
        let leader = cluster.leader_of(topic, partition);
        let isr = cluster.isr_of(topic, partition);
        let end = leader.and_then(|leader| cluster.log_end_offset(leader, topic, partition));
        let mark = cluster.high_watermark(topic, partition);
        format!("{topic}-{partition}: leader {leader:?}, ISR {isr:?}, end {end:?}, high watermark {mark:?}")
    };
    let partitions: Vec<_> = (0..).zip(shared.partitions.iter()).map(partition).collect();
    format!("no rest within {REST_LIMIT:?} after the last fault; {}", partitions.join("; "))
}

/// Holds what clients saw against what the logs hold, and the logs against each other.
pub(super) fn judge(cluster: &Cluster, shared: &Shared) -> Result<(), Broken> {
    hand_in(cluster, shared)?;
    verdict(cluster, &shared.history.lock())
}

/// Puts what the logs of a topic hold into the history.
pub(super) fn hand_in(cluster: &Cluster, shared: &Shared) -> Result<(), String> {
    let (topic, mut history) = (&*shared.topic, shared.history.lock());
    for (index, place) in (0..).zip(shared.partitions.iter()) {
        let leader = cluster.leader_of(topic, index).ok_or_else(|| "no leader at the end".to_owned())?;
        for broker in 1..=BROKERS {
            let log = log(cluster, broker, topic, index)
                .ok_or_else(|| format!("broker {broker} holds no {topic}-{index}"))?;
            if broker == leader {
                history.final_log(*place, log.clone());
            }
            history.replica_log(*place, broker, log);
        }
    }
    Ok(())
}

pub(super) fn verdict(cluster: &Cluster, history: &History) -> Result<(), Broken> {
    let (seen, held) = (check(history, &Promises::default()), cluster.check());
    if seen.is_ok() && held.is_ok() {
        return Ok(());
    }
    // The names of what fell first: a planted bug is known by them.
    let mut fell: Vec<_> = seen.broken().iter().map(ToString::to_string).collect();
    let mut told = seen.to_string();
    if !held.is_ok() {
        fell.push("Cluster::check".to_owned());
        told = format!("{told}\n     {held}");
    }
    Err(Broken::Promise { fell, told })
}

fn log(cluster: &Cluster, broker: i32, topic: &str, partition: i32) -> Option<Log> {
    let records = cluster.log(broker, topic, partition)?;
    let records: Vec<_> = records
        .iter()
        .map(|record| LogRecord {
            offset: record.offset,
            op: record.value.as_deref().map_or(Op::ALIEN, Op::of_value),
            leader_epoch: record.leader_epoch,
        })
        .collect();
    let end = records.last().map_or(0, |record| record.offset + 1);
    Some(Log { start: 0, end, records })
}

pub(super) fn count(cluster: &Cluster, sim: &Sim, played: Played, sent: &[Sent], read: u64) -> Stats {
    Stats {
        operations: sent.iter().map(|sent| sent.operations).sum::<u64>() + read,
        faults: played.happened as u64,
        elections: cluster.elections() as u64,
        retries: sent.iter().map(|sent| sent.retries).sum(),
        failed: sent.iter().map(|sent| sent.failed).sum(),
        truncations: cluster.truncations() as u64,
        rebalances: 0,
        coordinator_moves: 0,
        uncommitted: 0,
        time: sim.now(),
    }
}
