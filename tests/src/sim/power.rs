//! Rounds of lost power on one growing log: what was acknowledged is there afterwards, once and in order.
//!
//! In: how many rounds. Out: what happened in them, or the first round after which a promise was broken.
//!
//! ```text
//! round: producers send ── at a moment drawn: power goes ── nodes start again, now and then into the next loss ──┐
//!   ▲                                                                                                            │
//!   └── judged: history, logs of all replicas, one leader an epoch ◀── everything acknowledged, all in sync ◀────┘
//! ```
//!
//! Every topic syncs before it acknowledges (`flush.messages=1`) and wants two replicas in sync; so nothing may be lost,
//! whoever loses power. The producers live as long as the log.

use std::sync::Arc;
use std::time::Duration;

use broker_lite::sim::{Schedule, Sim};
use broker_lite::{ApiKey, Cluster, ClusterError, DiskFault, PowerLoss, Side, Stage};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use super::clients::{Shared, TOPIC, Writer, consume};
use super::run::{BROKERS, REST_LIMIT, all, come_to_rest, judge, start_on, stuck, until_led};
use super::scenario::{Scenario, Workload};
use super::{Broken, Stats};
use crate::history::History;

const PRODUCERS: u32 = 2;
const PARTITIONS: i32 = 3;
/// Records of one producer in one round.
const RECORDS: u32 = 40;
/// Longest pause of a producer between two of them.
const PAUSE_MS: u64 = 40;
/// A moment that has not come by then does not come in this round: the power goes without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Attempts to start a node again; each may wait for half a minute itself.
const MOST_ATTEMPTS: u32 = 100;

/// What happened in all rounds.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Outages {
    /// Rounds that were survived.
    pub rounds: u64,
    /// Losses of power of all brokers and controllers in one instant.
    pub whole: u64,
    /// Losses of power of all brokers, the controllers going on.
    pub brokers: u64,
    /// Losses of power of one broker.
    pub single: u64,
    /// Losses of power of one controller.
    pub controller: u64,
    /// Deaths of all brokers with unsynced records, followed by a loss of power.
    pub killed: u64,
    /// How many losses left torn tails.
    pub torn: u64,
    /// How many hit nodes that had not all come back from the one before.
    pub again: u64,
    /// Losses of power of one node at a change to its files, whatever it was in the midst of.
    pub midst: u64,
    /// What was counted otherwise.
    pub stats: Stats,
}

/// Whose power goes.
#[derive(Debug, Clone, Copy)]
enum Whose {
    /// Brokers and controllers.
    Everybodys,
    Brokers,
    Leaders,
    Followers,
    Controllers,
}

/// Carries out so many rounds, and judges after each.
///
/// # Errors
///
/// The first broken promise with its round, or what a round hangs at.
pub async fn power_off(sim: Sim, rounds: u32) -> Result<Outages, Broken> {
    let scenario = Scenario {
        workload: Workload::Idempotent,
        producers: PRODUCERS,
        consumers: 1,
        partitions: PARTITIONS,
        records: RECORDS,
        pause_ms: PAUSE_MS,
        linger_ms: 2,
        sync: true,
        producing: None,
        grouping: None,
        schedule: Schedule::default(),
    };
    let cluster = start_on(sim.cluster().with_files(), &scenario).await?;
    let mut history = History::new();
    let partitions: Vec<_> = (0..PARTITIONS).map(|index| history.partition(TOPIC, index)).collect();
    let shared = Shared {
        sim: sim.clone(),
        scenario: Arc::new(scenario),
        history: Arc::new(Mutex::new(history)),
        partitions: partitions.into(),
        topic: TOPIC.into(),
    };
    let mut writers = Vec::new();
    for number in 0..PRODUCERS {
        let name = format!("producer-{number}");
        writers.push(Writer::start(shared.clone(), shared.client(&cluster, &name)?, name)?);
    }
    let (ends, _) = broadcast::channel(1);
    let mut consumers = tokio::task::JoinSet::new();
    let reader = shared.client(&cluster, "consumer")?;
    consumers.spawn(consume(shared.clone(), reader, "consumer".to_owned(), ends.subscribe()));

    let mut chance = fastrand::Rng::with_seed(sim.seed_for("power"));
    let mut outages = Outages::default();
    let mut reached = Vec::new();
    for round in 1..=rounds {
        let in_round = |broken: Broken| match broken {
            Broken::Promise { fell, told } => {
                Broken::Promise { fell, told: format!("after round {round}: {told}") }
            }
            Broken::Unjudged(cause) => Broken::Unjudged(format!("round {round}: {cause}")),
        };
        let one = timeout(REST_LIMIT, one_round(&cluster, &shared, &mut writers, &mut chance, &mut outages));
        let ended = one.await.map_err(|_| Broken::Unjudged(stuck(&cluster, &shared)));
        reached = ended.map_err(in_round)?.map_err(|cause| in_round(cause.into()))?;
        judge(&cluster, &shared).map_err(in_round)?;
        outages.rounds += 1;
    }
    for writer in writers {
        let sent = writer.finish().await?;
        outages.stats.operations += sent.operations;
        outages.stats.retries += sent.retries;
        outages.stats.failed += sent.failed;
    }
    let _ = ends.send(reached.into()); // it has ended if it failed
    let read: u64 = all(&mut consumers).await?.into_iter().sum();
    judge(&cluster, &shared)?;
    outages.stats.operations += read;
    outages.stats.faults =
        outages.whole + outages.brokers + outages.single + outages.controller + outages.midst;
    outages.stats.elections = cluster.elections() as u64;
    outages.stats.truncations = cluster.truncations() as u64;
    outages.stats.time = sim.now();
    Ok(outages)
}

/// One round; returns where each log ends when everything is at rest again.
async fn one_round(
    cluster: &Cluster,
    shared: &Shared,
    writers: &mut [Writer],
    chance: &mut fastrand::Rng,
    outages: &mut Outages,
) -> Result<Vec<i64>, String> {
    let bursts: FuturesUnordered<_> =
        writers.iter_mut().map(|writer| writer.burst(RECORDS, PAUSE_MS)).collect();
    let writing = bursts.for_each(|()| std::future::ready(()));
    let breaking = lose_power(cluster, shared, chance, outages);
    let ((), broken) = futures::join!(writing, breaking);
    broken?;
    until_led(cluster, shared).await;
    Ok(come_to_rest(cluster, shared).await)
}

/// Takes the power away at a moment of chance's own, and starts everything again.
async fn lose_power(
    cluster: &Cluster,
    shared: &Shared,
    chance: &mut fastrand::Rng,
    outages: &mut Outages,
) -> Result<(), String> {
    sleep(Duration::from_millis(chance.u64(0..=u64::from(RECORDS) * PAUSE_MS / 2))).await;
    let slow = match chance.u8(0..4) {
        0 => die_unsynced(cluster, shared, chance, outages).await?,
        _ => Vec::new(),
    };
    let held = moment(cluster, chance).await;
    match chance.u8(0..4) {
        0 => amid_changes(cluster, shared, chance, outages).await?,
        _ => dark(cluster, shared, chance, outages),
    }
    drop((held, slow));
    // A third of the losses is followed by another one while nodes still start.
    let again = (chance.u8(0..3) == 0).then(|| Duration::from_millis(chance.u64(0..=1_500)));
    let (mut first, mut second) = (chance.fork(), chance.fork());
    if let Some(after) = again {
        tokio::select! {
            biased;
            done = bring_back(cluster, 1_000, &mut first) => done?,
            () = sleep(after) => outages.again += 1,
        }
        dark(cluster, shared, chance, outages);
    }
    bring_back(cluster, 1_000, &mut second).await
}

/// One node's power goes amid the changes to its files: in the midst of a sync, say, or of the files of a start.
async fn amid_changes(
    cluster: &Cluster,
    shared: &Shared,
    chance: &mut fastrand::Rng,
    outages: &mut Outages,
) -> Result<(), String> {
    let nodes: Vec<i32> = cluster.broker_ids().into_iter().chain(cluster.voters()).collect();
    let Some(node) = chance.choice(&nodes).copied() else { return Ok(()) };
    let (starting, changes) = (chance.bool(), chance.u64(0..12));
    shared.history.lock().mark(shared.sim.now(), &format!("power off: {node} after {changes} changes"));
    if starting {
        drop(cluster.kill(node));
    }
    let disk = cluster.disk(node).map_err(|error| error.to_string())?;
    let before = disk.power_failures();
    disk.fail_power_after(Some(changes));
    if starting {
        // Whether it comes as far as that or not.
        let _ = timeout(PATIENCE, cluster.restart(node)).await;
    }
    let limit = shared.sim.now() + PATIENCE;
    while disk.power_failures() == before && shared.sim.now() < limit {
        sleep(Duration::from_millis(5)).await;
    }
    outages.midst += disk.power_failures() - before;
    disk.fail_power_after(None);
    Ok(())
}

/// Every broker's process, and now and then a controller's or all of them, dies with records that its slow disk has not got yet,
/// and starts again: what it had in the memory of its machine must not count as durable afterwards. The disks stay slow until the guards
/// are dropped.
async fn die_unsynced(
    cluster: &Cluster,
    shared: &Shared,
    chance: &mut fastrand::Rng,
    outages: &mut Outages,
) -> Result<Vec<DiskFault>, String> {
    let ms = Duration::from_millis(chance.u64(200..=800));
    let mut nodes = cluster.broker_ids();
    let voters = cluster.voters();
    // Where most of them go on, nobody votes, and nothing but what a voter found makes it wait for its disk.
    let dying: Vec<i32> = match chance.u8(0..3) {
        0 => Vec::new(),
        1 => chance.choice(&voters).copied().into_iter().collect(),
        _ => voters.clone(),
    };
    let disks = nodes.iter().chain(&voters).map(|node| cluster.disk(*node));
    let slow: Result<Vec<_>, _> = disks.map(|disk| disk.map(|disk| disk.slow(ms))).collect();
    let slow = slow.map_err(|error| error.to_string())?;
    let of_clients = cluster.on(ApiKey::Produce).from(Side::Clients);
    let gate = of_clients.skip(chance.usize(0..4)).times(1).at(Stage::AfterAppend).hold();
    let came = timeout(PATIENCE, gate.hit()).await.is_ok();
    sleep(Duration::from_millis(chance.u64(0..=50))).await;
    nodes.extend(dying);
    shared.history.lock().mark(shared.sim.now(), &format!("kill -9 of {nodes:?} with unsynced records"));
    nodes.iter().for_each(|node| drop(cluster.kill(*node)));
    drop(gate);
    outages.killed += u64::from(came);
    bring_back(cluster, 100, chance).await?;
    // With luck the leader's part of it has been acknowledged meanwhile.
    sleep(Duration::from_millis(chance.u64(0..=500))).await;
    Ok(slow)
}

/// Waits for one of the moments between two steps of a client's Produce request, or for none in particular; holds that
/// request until dropped.
async fn moment(cluster: &Cluster, chance: &mut fastrand::Rng) -> Option<broker_lite::Gate> {
    let stage = match chance.u8(0..6) {
        0 => Stage::BeforeApply,
        1 | 2 => Stage::AfterAppend,
        3 => Stage::AfterCommit,
        _ => return None,
    };
    let skip = chance.usize(0..10);
    let gate = cluster.on(ApiKey::Produce).from(Side::Clients).skip(skip).times(1).at(stage).hold();
    timeout(PATIENCE, gate.hit()).await.ok()?;
    Some(gate)
}

/// The power goes, in one instant.
fn dark(cluster: &Cluster, shared: &Shared, chance: &mut fastrand::Rng, outages: &mut Outages) {
    let torn = chance.bool();
    let loss = if torn { PowerLoss::Torn } else { PowerLoss::Unsynced };
    let (whose, count) = match chance.u8(0..10) {
        0..=4 => (Whose::Everybodys, &mut outages.whole),
        5 => (Whose::Brokers, &mut outages.brokers),
        6 | 7 => (Whose::Leaders, &mut outages.single),
        8 => (Whose::Followers, &mut outages.single),
        _ => (Whose::Controllers, &mut outages.controller),
    };
    *count += 1;
    outages.torn += u64::from(torn);
    shared.history.lock().mark(shared.sim.now(), &format!("power off: {whose:?}, {loss:?}"));
    let leader = cluster.leader_of(TOPIC, chance.i32(0..PARTITIONS)).unwrap_or(1);
    let follower = leader % BROKERS + 1;
    // Refused by those that are down: their power is gone already.
    match whose {
        Whose::Everybodys => {
            cluster.power_off_all_with(loss);
            cluster.voters().into_iter().for_each(|voter| drop(cluster.power_off_with(voter, loss)));
        }
        Whose::Brokers => drop(cluster.power_off_all_with(loss)),
        Whose::Leaders => drop(cluster.power_off_with(leader, loss)),
        Whose::Followers => drop(cluster.power_off_with(follower, loss)),
        Whose::Controllers => {
            let all = cluster.voters();
            // The active one, or any of them.
            let one = cluster.controller().filter(|_| chance.bool()).or_else(|| chance.choice(&all).copied());
            drop(one.map(|voter| cluster.power_off_with(voter, loss)));
        }
    }
}

/// Starts every node that is down, each after a while of its own; returns when all run.
async fn bring_back(cluster: &Cluster, longest_ms: u64, chance: &mut fastrand::Rng) -> Result<(), String> {
    let nodes = cluster.voters().into_iter().chain(cluster.broker_ids());
    let starting: FuturesUnordered<_> = nodes
        .map(|node| {
            let after = Duration::from_millis(chance.u64(0..=longest_ms));
            async move {
                sleep(after).await;
                let mut last = String::new();
                for _ in 0..MOST_ATTEMPTS {
                    match cluster.restart(node).await {
                        Ok(()) | Err(ClusterError::Broker { state: "running", .. }) => return Ok(()),
                        Err(error) => last = error.to_string(),
                    }
                    sleep(Duration::from_millis(100)).await;
                }
                Err(format!("node {node} does not come back: {last}"))
            }
        })
        .collect();
    starting.collect::<Vec<_>>().await.into_iter().collect()
}
