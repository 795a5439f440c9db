//! Members of groups: who come and go, crash, stall and change their minds, over a cluster that does so, too.
//!
//! In: a scenario with a [`Grouping`]. Out: what happened, or which promise was broken.
//!
//! ```text
//! producers ──▶ topics ──▶ members: read ─▶ work ─▶ done ─▶ commit ──▶ history
//!                             └─▶ what they say to coordinators ───────▶ history
//! ```
//!
//! When faults are over and everything is sent, members only read. Then every group has to come to rest, with everything
//! worked on and, once its members are closed, committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_lite::Cluster;
use broker_lite::sim::Sim;
use klamm::{BoxConnector, Client, ClientBuilder, Connector, NewPartitions};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::clients::{Sent, Shared, TOPIC, produce};
use super::run::{BROKERS, REST_LIMIT, all, come_to_rest, count, hand_in, stuck, until_led, verdict};
use super::scenario::{Grouping, Scenario};
use super::{Broken, Stats};
use crate::history::{Clock, History, Partition};
use crate::workers::{Act, Ear, Habits, Overheard, World as Workers, occupy};

/// The second topic.
const OTHER: &str = "u";

/// What all members of a run share, and what is done to them.
struct World {
    sim: Sim,
    grouping: Grouping,
    workers: Arc<Workers>,
}

fn habits(grouping: &Grouping) -> Habits {
    // With one topic there is nothing else to subscribe to.
    let other = |act: &Act| *act != Act::Change || grouping.topics > 1;
    let acts = grouping.acts.iter().copied().filter(other).collect();
    Habits { acts, life_ms: grouping.life_ms, most: 20, work_ms: 8, request_ms: 2_000, api_ms: 20_000 }
}

/// Runs a scenario with groups and judges it.
pub(super) async fn run(sim: Sim, scenario: Scenario) -> Result<Stats, Broken> {
    let Some(grouping) = scenario.grouping.clone() else { return Err("no groups".to_owned().into()) };
    let cluster = start(&sim, &scenario, &grouping).await?;
    let topics = topics(&sim, scenario, &grouping);
    let now = sim.clone();
    let workers = Arc::new(Workers::new(
        Clock::new(move || now.now()),
        topics[0].history.clone(),
        topics.iter().map(|shared| (shared.topic.clone(), shared.partitions.clone())).collect(),
        grouping.groups.clone(),
        habits(&grouping),
    ));
    let world = World { sim: sim.clone(), grouping, workers };
    let (mut producers, mut members) = (JoinSet::new(), JoinSet::new());
    for number in 0..topics[0].scenario.producers {
        let name = format!("producer-{number}");
        let shared = topics[number as usize % topics.len()].clone();
        let client = shared.client(&cluster, &name)?;
        producers.spawn(produce(shared, client, name));
    }
    for (group, plan) in world.grouping.groups.iter().enumerate() {
        for slot in 0..plan.members {
            let (id, workers) = (Workers::group_id(group), world.workers.clone());
            let chance = fastrand::Rng::with_seed(sim.seed_for(&format!("{id} member-{slot}")));
            let (handle, bootstrap) = (cluster.handle(), cluster.bootstrap());
            let connect = move |ear| overheard(&bootstrap, handle.clone().erase(), ear);
            members.spawn(occupy(workers, group, slot, chance, connect));
        }
    }
    let moves = AtomicU64::new(0);
    let whole = async {
        let (played, (), grown) = futures::join!(
            topics[0].scenario.schedule.play(&cluster),
            move_coordinators(&world, &cluster),
            grow(&world, &cluster, &topics[0], &mut producers),
        );
        grown?;
        let rest = settle(&world, &cluster, &topics, &mut producers, &mut members);
        let rested = timeout(REST_LIMIT, rest).await;
        Ok::<_, Broken>((played, rested.map_err(|_| hanging(&world, &cluster, &topics, &mut members))??))
    };
    let (played, (sent, ends)) = tokio::select! {
        biased;
        whole = whole => whole?,
        () = watch_coordinators(&world, &cluster, &moves) => return Err("nobody watches".to_owned().into()),
    };
    judge(&world, &cluster, &topics, &ends).await?;
    let read = world.workers.tally.reads.load(Ordering::Relaxed);
    let mut stats = count(&cluster, &sim, played, &sent, read);
    stats.rebalances = world.workers.rebalances();
    stats.coordinator_moves = moves.load(Ordering::Relaxed);
    stats.uncommitted = world.workers.tally.uncommitted.load(Ordering::Relaxed);
    Ok(stats)
}

async fn start(sim: &Sim, scenario: &Scenario, grouping: &Grouping) -> Result<Cluster, String> {
    let mut builder = sim
        .cluster()
        .brokers(BROKERS as u32)
        .config("min.insync.replicas", "2")
        .config("group.min.session.timeout.ms", "1000")
        .config("group.initial.rebalance.delay.ms", grouping.delay_ms.to_string())
        .config("offsets.topic.num.partitions", grouping.coordinators.to_string())
        .config("offsets.topic.replication.factor", "3");
    if scenario.sync {
        builder = builder.config("log.flush.interval.messages", "1");
    }
    let cluster = builder.start().await.map_err(|error| error.to_string())?;
    for (topic, partitions) in [(TOPIC, scenario.partitions), (OTHER, 1)].into_iter().take(grouping.topics) {
        let created = cluster.create_topic(topic, partitions, 3, &[]).await;
        created.map_err(|error| error.to_string())?;
    }
    Ok(cluster)
}

/// What clients of each topic share; the first one's partitions are those that it has in the end.
fn topics(sim: &Sim, scenario: Scenario, grouping: &Grouping) -> Vec<Shared> {
    let mut history = History::new();
    let partitions = [(TOPIC, scenario.partitions + grouping.growth), (OTHER, 1)];
    let partitions: Vec<(&str, Vec<Partition>)> = partitions
        .into_iter()
        .take(grouping.topics)
        .map(|(topic, count)| (topic, (0..count).map(|index| history.partition(topic, index)).collect()))
        .collect();
    let (history, scenario) = (Arc::new(Mutex::new(history)), Arc::new(scenario));
    let one = Arc::new(Scenario { partitions: 1, ..(*scenario).clone() });
    let shared = |(topic, partitions): (&str, Vec<Partition>)| Shared {
        sim: sim.clone(),
        scenario: if topic == TOPIC { scenario.clone() } else { one.clone() },
        history: history.clone(),
        partitions: partitions.into(),
        topic: topic.into(),
    };
    partitions.into_iter().map(shared).collect()
}

/// Moves coordinators on purpose, group after group.
async fn move_coordinators(world: &World, cluster: &Cluster) {
    let mut chance = fastrand::Rng::with_seed(world.sim.seed_for("coordinators"));
    for turn in 0..world.grouping.moves as usize {
        sleep(Duration::from_millis(chance.u64(300..3_000))).await;
        // It fails while too few brokers are there.
        let _ = cluster.move_coordinator(&Workers::group_id(turn % world.grouping.groups.len())).await;
    }
}

/// Counts how often a group was seen to have another coordinator.
async fn watch_coordinators(world: &World, cluster: &Cluster, moves: &AtomicU64) {
    let mut known = vec![None; world.grouping.groups.len()];
    loop {
        for (group, known) in known.iter_mut().enumerate() {
            if let Some(now) = cluster.coordinator_of(&Workers::group_id(group)) {
                let before = known.replace(now);
                moves.fetch_add(u64::from(before.is_some_and(|before| before != now)), Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Gives the first topic more partitions, and then a producer that writes to all of them.
async fn grow(
    world: &World,
    cluster: &Cluster,
    shared: &Shared,
    producers: &mut JoinSet<Result<Sent, String>>,
) -> Result<(), String> {
    if world.grouping.growth == 0 {
        return Ok(());
    }
    let mut chance = fastrand::Rng::with_seed(world.sim.seed_for("growth"));
    sleep(Duration::from_millis(chance.u64(500..6_000))).await;
    let partitions = shared.scenario.partitions + world.grouping.growth;
    let scenario = Arc::new(Scenario { partitions, records: 40, ..(*shared.scenario).clone() });
    let admin = shared.client(cluster, "admin")?.admin();
    loop {
        let wanted = [NewPartitions::new(TOPIC, partitions)];
        // One that was carried out and not answered is refused the next time.
        let asked = admin.create_partitions(wanted).await.map(|results| results.all());
        if matches!(asked, Ok(Ok(_))) || cluster.leader_of(TOPIC, partitions - 1).is_some() {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let (name, shared) = ("producer-late".to_owned(), Shared { scenario, ..shared.clone() });
    let client = shared.client(cluster, &name)?;
    producers.spawn(produce(shared, client, name));
    Ok(())
}

/// Waits until whoever has a partition is done with all of it.
async fn until_done(
    world: &World,
    ends: &[Vec<i64>],
    members: &mut JoinSet<Result<(), String>>,
) -> Result<(), String> {
    while !world.workers.is_done(ends) {
        // Members end only when they fail.
        if let Some(ended) = members.try_join_next() {
            ended.map_err(|error| error.to_string())??;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits until everything is sent, worked on and committed, and every member is closed.
async fn settle(
    world: &World,
    cluster: &Cluster,
    topics: &[Shared],
    producers: &mut JoinSet<Result<Sent, String>>,
    members: &mut JoinSet<Result<(), String>>,
) -> Result<(Vec<Sent>, Vec<Vec<i64>>), String> {
    let sent = all(producers).await?;
    world.workers.calm.store(true, Ordering::SeqCst);
    let mut ends = Vec::new();
    for shared in topics {
        ends.push(come_to_rest(cluster, shared).await);
    }
    until_done(world, &ends, members).await?;
    // Every other one closes when nothing disturbs anybody any more: then nothing is excused.
    if world.sim.seed_for("closing").is_multiple_of(2) {
        for partition in 0..world.grouping.coordinators {
            cluster
                .until_isr("__consumer_offsets", partition as i32, |isr| isr.len() == BROKERS as usize)
                .await;
        }
        let sessions = world.grouping.groups.iter().map(|plan| plan.session_ms.max(plan.max_poll_ms));
        sleep(2 * Duration::from_millis(sessions.max().unwrap_or_default())).await;
        until_done(world, &ends, members).await?;
        world.workers.close_at_rest();
    } else {
        world.workers.over.store(true, Ordering::SeqCst);
    }
    all(members).await?;
    for shared in topics {
        until_led(cluster, shared).await;
    }
    Ok((sent, ends))
}

fn hanging(
    world: &World,
    cluster: &Cluster,
    topics: &[Shared],
    members: &mut JoinSet<Result<(), String>>,
) -> String {
    let failed = std::iter::from_fn(|| members.try_join_next()).find_map(|ended| ended.ok()?.err());
    let logs: Vec<_> = topics.iter().map(|shared| stuck(cluster, shared)).collect();
    let coordinators: Vec<_> = (0..world.grouping.groups.len())
        .map(|group| {
            format!("{} at {:?}", Workers::group_id(group), cluster.coordinator_of(&Workers::group_id(group)))
        })
        .collect();
    let told = format!("{}; {}; done {}", logs.join("; "), coordinators.join(", "), world.workers.counts());
    failed.map_or(told.clone(), |failed| format!("{failed}; {told}"))
}

/// Asks each group what it has committed, and judges everything.
async fn judge(world: &World, cluster: &Cluster, topics: &[Shared], ends: &[Vec<i64>]) -> Result<(), Broken> {
    let workers = &world.workers;
    let (handle, bootstrap) = (cluster.handle(), cluster.bootstrap());
    let behind = workers.uncommitted(ends, |ear| overheard(&bootstrap, handle.clone().erase(), ear)).await?;
    workers.must_read_all();
    for shared in topics {
        hand_in(cluster, shared)?;
    }
    verdict(cluster, &workers.history.lock())?;
    if behind.is_empty() {
        return Ok(());
    }
    let told = format!("all members are closed, and not everything is committed: {}", behind.join(", "));
    Err(Broken::Promise { fell: vec!["Uncommitted".to_owned()], told })
}

/// A client's builder whose every word `ear` hears.
fn overheard(bootstrap: &str, connector: BoxConnector, ear: Arc<Ear>) -> ClientBuilder {
    Client::builder().bootstrap_servers(bootstrap).connector(Overheard::new(connector, ear))
}
