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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use broker_lite::Cluster;
use broker_lite::sim::Sim;
use futures::FutureExt;
use futures::future::BoxFuture;
use klamm::{
    Client, CommitError, Consumer, ConsumerError, ConsumerRecord, ErrorCode, GroupError, NewPartitions,
    OffsetReset, RebalanceContext, RebalanceListener, RebalanceReason, TopicPartition,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::clients::{Sent, Shared, TOPIC, produce};
use super::overheard::{Ear, Overheard};
use super::run::{BROKERS, REST_LIMIT, all, come_to_rest, count, hand_in, stuck, until_led, verdict};
use super::scenario::{Act, GroupPlan, Grouping, Scenario};
use super::{Broken, Stats};
use crate::history::{self, History, Partition};

/// The second topic.
const OTHER: &str = "u";
/// `default.api.timeout.ms`, and how long a close or an unsubscribe may take: that, and what a task needs.
const API_LIMIT: Duration = Duration::from_secs(20);
const HANG: Duration = Duration::from_secs(25);
/// Longest work on one record.
const WORK_MS: u64 = 8;

/// What all members of a run share.
struct World {
    sim: Sim,
    grouping: Grouping,
    history: Arc<Mutex<History>>,
    topics: Vec<(Arc<str>, Arc<[Partition]>)>,
    /// Nobody does anything but read.
    calm: AtomicBool,
    /// Members shall close.
    over: AtomicBool,
    /// What each group is done with, by group and partition.
    done: Mutex<BTreeMap<(usize, Partition), BTreeSet<i64>>>,
    /// Who has each partition of a group.
    held: Mutex<BTreeMap<(usize, Partition), Held>>,
    /// What was lost when members were to close already: nobody promises that it is committed.
    lost_late: Mutex<BTreeSet<(usize, Partition)>>,
    generations: Mutex<BTreeSet<(usize, i32)>>,
    reads: AtomicU64,
}

/// A partition in the hands of a member.
struct Held {
    ear: Arc<Ear>,
    /// Tells this time of having it from the member's others.
    since: u64,
    /// Offset behind what it has read and is done with since.
    done: i64,
}

/// Runs a scenario with groups and judges it.
pub(super) async fn run(sim: Sim, scenario: Scenario) -> Result<Stats, Broken> {
    let Some(grouping) = scenario.grouping.clone() else { return Err("no groups".to_owned().into()) };
    let cluster = start(&sim, &scenario, &grouping).await?;
    let topics = topics(&sim, scenario, &grouping);
    let world = Arc::new(World {
        sim: sim.clone(),
        history: topics[0].history.clone(),
        topics: topics.iter().map(|shared| (shared.topic.clone(), shared.partitions.clone())).collect(),
        calm: AtomicBool::new(false),
        over: AtomicBool::new(false),
        done: Mutex::default(),
        held: Mutex::default(),
        lost_late: Mutex::default(),
        generations: Mutex::default(),
        reads: AtomicU64::new(0),
        grouping,
    });
    let (mut producers, mut members) = (JoinSet::new(), JoinSet::new());
    for number in 0..topics[0].scenario.producers {
        let name = format!("producer-{number}");
        let shared = topics[number as usize % topics.len()].clone();
        let client = shared.client(&cluster, &name)?;
        producers.spawn(produce(shared, client, name));
    }
    for (group, plan) in world.grouping.groups.iter().enumerate() {
        for slot in 0..plan.members {
            members.spawn(live(world.clone(), cluster.handle(), cluster.bootstrap(), group, slot));
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
    let read = world.reads.load(Ordering::Relaxed);
    let mut stats = count(&cluster, &sim, played, &sent, read);
    stats.rebalances = world.generations.lock().len() as u64;
    stats.coordinator_moves = moves.load(Ordering::Relaxed);
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
        let _ = cluster.move_coordinator(&group_id(turn % world.grouping.groups.len())).await;
    }
}

/// Counts how often a group was seen to have another coordinator.
async fn watch_coordinators(world: &World, cluster: &Cluster, moves: &AtomicU64) {
    let mut known = vec![None; world.grouping.groups.len()];
    loop {
        for (group, known) in known.iter_mut().enumerate() {
            if let Some(now) = cluster.coordinator_of(&group_id(group)) {
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

/// Waits until everything is sent, worked on and committed, and every member is closed.
async fn settle(
    world: &World,
    cluster: &Cluster,
    topics: &[Shared],
    producers: &mut JoinSet<Result<Sent, String>>,
    members: &mut JoinSet<Result<(), String>>,
) -> Result<(Vec<Sent>, Vec<Vec<i64>>), String> {
    let sent = all(producers).await?;
    world.calm.store(true, Ordering::SeqCst);
    let mut ends = Vec::new();
    for shared in topics {
        ends.push(come_to_rest(cluster, shared).await);
    }
    while !world.is_done(topics, &ends) {
        // Members end only when they fail.
        if let Some(ended) = members.try_join_next() {
            ended.map_err(|error| error.to_string())??;
        }
        sleep(Duration::from_millis(50)).await;
    }
    world.over.store(true, Ordering::SeqCst);
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
        .map(|group| format!("{} at {:?}", group_id(group), cluster.coordinator_of(&group_id(group))))
        .collect();
    let done: Vec<_> =
        world.done.lock().iter().map(|(place, done)| format!("{place:?}: {}", done.len())).collect();
    let told = format!("{}; {}; done {}", logs.join("; "), coordinators.join(", "), done.join(", "));
    failed.map_or(told.clone(), |failed| format!("{failed}; {told}"))
}

/// Asks each group what it has committed, and judges everything.
async fn judge(
    world: &Arc<World>,
    cluster: &Cluster,
    topics: &[Shared],
    ends: &[Vec<i64>],
) -> Result<(), Broken> {
    let mut behind = Vec::new();
    for group in 0..world.grouping.groups.len() {
        let (me, handle) = (world.register(group, "judge"), cluster.handle());
        let ear = world.ear(me);
        let client = client(Overheard { handle, ear }, cluster.bootstrap(), "judge")?;
        let builder = Consumer::builder().client(&client).group_id(group_id(group));
        let consumer: Consumer = builder.build().map_err(|error| error.to_string())?;
        for (shared, ends) in topics.iter().zip(ends) {
            let places: Vec<_> =
                (0..).zip(ends).map(|(index, _)| TopicPartition::new(&*shared.topic, index)).collect();
            let committed = consumer.committed(&places).await.map_err(|error| error.to_string())?;
            for (place, end) in places.iter().zip(ends) {
                let offset = committed.get(place).and_then(Option::as_ref).map_or(0, |at| at.offset);
                let excused =
                    shared.partitions.iter().zip(&places).any(|(known, name)| {
                        name == place && world.lost_late.lock().contains(&(group, *known))
                    });
                if offset != *end && !excused {
                    behind.push(format!("{}: {place} at {offset} of {end}", group_id(group)));
                }
            }
            let mut history = shared.history.lock();
            shared.partitions.iter().for_each(|place| history.reads_all(&group_id(group), *place));
        }
    }
    for shared in topics {
        hand_in(cluster, shared)?;
    }
    verdict(cluster, &world.history.lock())?;
    if behind.is_empty() {
        return Ok(());
    }
    let told = format!("all members are closed, and not everything is committed: {}", behind.join(", "));
    Err(Broken::Promise { fell: vec!["Uncommitted".to_owned()], told })
}

fn group_id(group: usize) -> String {
    format!("group-{group}")
}

fn client(connector: Overheard, bootstrap: String, name: &str) -> Result<Client, String> {
    let builder = Client::builder().bootstrap_servers(bootstrap).connector(connector).client_id(name);
    builder
        .request_timeout_ms(Duration::from_secs(2))
        .default_api_timeout_ms(API_LIMIT)
        .metadata_max_age_ms(Duration::from_secs(2))
        .build()
        .map_err(|error| error.to_string())
}

impl World {
    fn register(&self, group: usize, name: &str) -> history::Client {
        self.history.lock().consumer(&format!("{}.{name}", group_id(group)), Some(&group_id(group)))
    }

    fn ear(&self, me: history::Client) -> Arc<Ear> {
        Arc::new(Ear {
            sim: self.sim.clone(),
            history: self.history.clone(),
            me,
            topics: self.topics.clone(),
            generation: AtomicI32::new(-1),
            began: Mutex::default(),
        })
    }

    /// Whether everything was worked on, and whoever has a partition is done with all that was not committed before: what
    /// somebody was done with who lost it, nobody commits.
    fn is_done(&self, topics: &[Shared], ends: &[Vec<i64>]) -> bool {
        let (done, held) = (self.done.lock(), self.held.lock());
        (0..self.grouping.groups.len()).all(|group| {
            topics.iter().zip(ends).flat_map(|(shared, ends)| shared.partitions.iter().zip(ends)).all(
                |(place, end)| {
                    let count = done.get(&(group, *place)).map_or(0, BTreeSet::len);
                    let reached = held.get(&(group, *place)).map_or(-1, |held| {
                        held.ear.began.lock().get(place).copied().unwrap_or(0).max(held.done)
                    });
                    i64::try_from(count).unwrap_or_default() >= *end && reached >= *end
                },
            )
        })
    }

    /// The member has these no more; what is lost late is not promised to be committed.
    fn let_go(&self, mine: &Mine, places: &[Partition], lost: bool) {
        let mut held = self.held.lock();
        for place in places {
            let key = (mine.group, *place);
            if held.get(&key).is_some_and(|held| Arc::ptr_eq(&held.ear, &mine.ear)) {
                held.remove(&key);
            }
            if lost && self.over.load(Ordering::SeqCst) {
                self.lost_late.lock().insert(key);
            }
        }
    }
}

/// One place in a group: a member, and whoever comes after it.
async fn live(
    world: Arc<World>,
    handle: broker_lite::Handle,
    bootstrap: String,
    group: usize,
    slot: u32,
) -> Result<(), String> {
    let plan = world.grouping.groups[group].clone();
    let name = format!("member-{slot}");
    let mut chance = fastrand::Rng::with_seed(world.sim.seed_for(&format!("{} {name}", group_id(group))));
    // Whoever comes back under the same name is the same member.
    let fixed = plan.fixed.then(|| world.register(group, &name));
    for life in 0.. {
        // All of them at once, or one after the other.
        sleep(Duration::from_millis(chance.u64(0..1_000))).await;
        let me = fixed.unwrap_or_else(|| world.register(group, &format!("{name}.{life}")));
        let connector = Overheard { handle: handle.clone(), ear: world.ear(me) };
        let member = Member::start(&world, connector, &bootstrap, group, &name, chance.fork())?;
        if member.live().await.map_err(|error| format!("{} {name}: {error}", group_id(group)))? {
            return Ok(());
        }
    }
    Ok(())
}

/// What a member and its listener share.
struct Mine {
    world: Arc<World>,
    ear: Arc<Ear>,
    group: usize,
    auto_commit: bool,
    /// What it owns, and the offset behind what it is done with.
    owned: Mutex<BTreeMap<TopicPartition, Option<i64>>>,
    assignments: AtomicU64,
    chance: Mutex<fastrand::Rng>,
}

impl Mine {
    fn place(&self, name: &TopicPartition) -> Result<Partition, String> {
        let place = self.ear.place(&name.topic, name.partition);
        place.ok_or_else(|| format!("there is no {name}"))
    }

    fn places(&self, partitions: &[TopicPartition]) -> Vec<Partition> {
        partitions.iter().filter_map(|name| self.place(name).ok()).collect()
    }

    fn draw_ms(&self, most: u64) -> Duration {
        Duration::from_millis(self.chance.lock().u64(0..=most))
    }

    /// Since when the member has the partition; `None` if it has not.
    fn held_since(&self, place: Partition) -> Option<u64> {
        let held = self.world.held.lock();
        held.get(&(self.group, place)).filter(|held| Arc::ptr_eq(&held.ear, &self.ear)).map(|held| held.since)
    }

    /// Tells the history of partitions; unknown ones are the assignor's inventions.
    fn tell(&self, partitions: &[TopicPartition], told: impl Fn(&mut History, Partition)) {
        let mut history = self.world.history.lock();
        for name in partitions {
            match self.place(name) {
                Ok(place) => told(&mut history, place),
                Err(error) => std::panic::resume_unwind(Box::new(error)),
            }
        }
    }
}

/// Tells the history what comes and goes; without automatic commits it commits what is done before that goes.
struct Listener(Arc<Mine>);

impl RebalanceListener for Listener {
    fn assigned<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, ()> {
        let mine = &self.0;
        async move {
            let (now, me) = (mine.world.sim.now(), mine.ear.me);
            let generation = mine.ear.generation.load(Ordering::Relaxed);
            mine.tell(partitions, |history, place| history.assigned(now, me, place, None, Some(generation)));
            mine.world.generations.lock().insert((mine.group, generation));
            mine.owned.lock().extend(partitions.iter().map(|name| (name.clone(), None)));
            for place in mine.places(partitions) {
                let since = mine.assignments.fetch_add(1, Ordering::Relaxed);
                let held = Held { ear: mine.ear.clone(), since, done: 0 };
                mine.world.held.lock().insert((mine.group, place), held);
            }
            if mine.chance.lock().u8(0..4) == 0 {
                sleep(mine.draw_ms(300)).await;
            }
        }
        .boxed()
    }

    fn revoked<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        _: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        let mine = &self.0;
        async move {
            let (now, me) = (mine.world.sim.now(), mine.ear.me);
            mine.tell(partitions, |history, place| history.revoked(now, me, place));
            mine.world.let_go(mine, &mine.places(partitions), false);
            let done = {
                let mut owned = mine.owned.lock();
                let given = partitions.iter().map(|name| (name.clone(), owned.remove(name).flatten()));
                given.filter_map(|(name, done)| Some((name, done?))).collect::<BTreeMap<_, _>>()
            };
            if !mine.auto_commit && !done.is_empty() {
                // If it fails, others work on it again.
                let _ = context.commit_offsets(done).await;
            }
            if mine.chance.lock().u8(0..4) == 0 {
                sleep(mine.draw_ms(500)).await;
            }
        }
        .boxed()
    }

    fn lost<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        _: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        let mine = &self.0;
        async move {
            let (now, me) = (mine.world.sim.now(), mine.ear.me);
            mine.tell(partitions, |history, place| history.lost(now, me, place));
            mine.world.let_go(mine, &mine.places(partitions), true);
            let mut owned = mine.owned.lock();
            owned.retain(|name, _| !partitions.contains(name));
        }
        .boxed()
    }
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    /// Another member has its `group.instance.id`.
    Fenced,
}

/// One consumer from its start to its end.
struct Member {
    consumer: Consumer,
    mine: Arc<Mine>,
    plan: GroupPlan,
}

impl Member {
    fn start(
        world: &Arc<World>,
        connector: Overheard,
        bootstrap: &str,
        group: usize,
        name: &str,
        chance: fastrand::Rng,
    ) -> Result<Self, String> {
        let plan = world.grouping.groups[group].clone();
        let ear = connector.ear.clone();
        let client = client(connector, bootstrap.to_owned(), name)?;
        let properties = [
            ("partition.assignment.strategy", plan.strategy.clone()),
            ("group.id", group_id(group)),
            ("session.timeout.ms", plan.session_ms.to_string()),
            ("heartbeat.interval.ms", (plan.session_ms / 4).to_string()),
            ("max.poll.interval.ms", plan.max_poll_ms.to_string()),
            ("enable.auto.commit", plan.auto_commit.to_string()),
            ("auto.commit.interval.ms", plan.commit_ms.to_string()),
        ];
        let mut builder = Consumer::from_properties(properties).map_err(|error| error.to_string())?;
        if plan.fixed {
            builder = builder.group_instance_id(name);
        }
        let consumer = builder
            .client(&client)
            .auto_offset_reset(OffsetReset::Earliest)
            .fetch_max_wait_ms(Duration::from_millis(200))
            .build()
            .map_err(|error| error.to_string())?;
        let mine = Arc::new(Mine {
            world: world.clone(),
            ear,
            group,
            auto_commit: plan.auto_commit,
            owned: Mutex::default(),
            assignments: AtomicU64::new(0),
            chance: Mutex::new(chance),
        });
        Ok(Self { consumer, mine, plan })
    }

    fn subscribe(&self, all: bool) {
        let topics = self.mine.world.topics.iter().map(|(topic, _)| topic.clone());
        let mut topics: Vec<Arc<str>> = topics.collect();
        if !all {
            let chosen = self.mine.chance.lock().usize(..topics.len());
            topics = vec![topics.swap_remove(chosen)];
        }
        self.consumer.subscribe_with(topics, Listener(self.mine.clone()));
    }

    /// `true` if it lived to the end of the run.
    async fn live(self) -> Result<bool, String> {
        let world = self.mine.world.clone();
        self.subscribe(true);
        while !world.calm.load(Ordering::SeqCst) {
            let life = self.mine.draw_ms(world.grouping.life_ms);
            if self.read(Instant::now() + life).await? == Reading::Fenced {
                self.crash();
                return Ok(false);
            }
            if world.calm.load(Ordering::SeqCst) {
                break;
            }
            let Some(act) = self.mine.chance.lock().choice(world.grouping.acts.iter().copied()) else {
                continue;
            };
            match act {
                Act::Leave => {
                    self.close().await?;
                    return Ok(false);
                }
                Act::Crash => {
                    self.crash();
                    return Ok(false);
                }
                Act::Stall => {
                    let longer = Duration::from_millis(self.plan.max_poll_ms) + self.mine.draw_ms(2_000);
                    sleep(longer).await;
                }
                Act::Change => {
                    let all = self.mine.chance.lock().bool();
                    self.subscribe(all);
                }
                Act::Unsubscribe => {
                    let left = timeout(HANG, self.consumer.unsubscribe()).await;
                    left.map_err(|_| format!("unsubscribe takes longer than {HANG:?}"))?;
                    sleep(self.mine.draw_ms(1_000)).await;
                    self.subscribe(true);
                }
            }
        }
        self.subscribe(true);
        while !world.over.load(Ordering::SeqCst) {
            if self.read(Instant::now() + Duration::from_millis(200)).await? == Reading::Fenced {
                self.crash();
                return Ok(false);
            }
        }
        // What was read last is done, and committed by the close, once somebody asks for more.
        if self.poll(1, Duration::ZERO).await? == Reading::Fenced {
            self.crash();
            return Ok(false);
        }
        self.close().await?;
        Ok(true)
    }

    async fn close(&self) -> Result<(), String> {
        match timeout(HANG, self.consumer.close()).await {
            Ok(closed) => closed.map_err(|error| error.to_string()),
            Err(_) => Err(format!("close takes longer than {HANG:?}")),
        }
    }

    fn crash(self) {
        let owned: Vec<_> = self.mine.owned.lock().keys().cloned().collect();
        let (now, me) = (self.mine.world.sim.now(), self.mine.ear.me);
        self.mine.tell(&owned, |history, place| history.revoked(now, me, place));
        self.mine.world.let_go(&self.mine, &self.mine.places(&owned), true);
        // Dropped alone it would leave its group.
        self.consumer.vanish();
    }

    /// Reads and works until then.
    async fn read(&self, until: Instant) -> Result<Reading, String> {
        loop {
            let most = self.mine.chance.lock().usize(1..=20);
            let polled = tokio::select! {
                biased;
                () = sleep_until(until) => return Ok(Reading::On),
                polled = self.consumer.poll(most, Duration::from_secs(1)) => polled,
            };
            if self.take(polled).await? == Reading::Fenced {
                return Ok(Reading::Fenced);
            }
        }
    }

    async fn poll(&self, most: usize, wait: Duration) -> Result<Reading, String> {
        let polled = self.consumer.poll(most, wait).await;
        self.take(polled).await
    }

    /// Works on what was read.
    async fn take(&self, polled: Result<Vec<ConsumerRecord>, ConsumerError>) -> Result<Reading, String> {
        match polled {
            Ok(records) => self.work(records).await.map(|()| Reading::On),
            // Nobody led it for long, or there is a leader that does not know yet.
            Err(ConsumerError::NoLeader { .. }) => Ok(Reading::On),
            // Its JoinGroup was answered by one coordinator after another, each with an id, and the first id is the one
            // that was replicated. Who starts it again gets the place.
            Err(ConsumerError::Group { why: GroupError::Refused(ErrorCode::FENCED_INSTANCE_ID), .. })
                if self.plan.fixed =>
            {
                Ok(Reading::Fenced)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn work(&self, records: Vec<ConsumerRecord>) -> Result<(), String> {
        let (world, me) = (&self.mine.world, self.mine.ear.me);
        let mut todo = Vec::new();
        for record in &records {
            let name = TopicPartition::new(record.topic.clone(), record.partition);
            let place = self.mine.place(&name)?;
            let op = record.value.as_deref().map_or(history::Op::ALIEN, history::Op::of_value);
            let (offset, epoch) = (record.offset, record.leader_epoch);
            world.history.lock().read(world.sim.now(), me, place, offset, op, epoch);
            let since = self.mine.held_since(place);
            todo.push((name, place, offset, since));
        }
        world.reads.fetch_add(todo.len() as u64, Ordering::Relaxed);
        for (name, place, offset, since) in todo {
            if self.mine.chance.lock().u8(0..3) == 0 {
                sleep(self.mine.draw_ms(WORK_MS)).await;
            }
            world.history.lock().done(world.sim.now(), me, place, offset);
            world.done.lock().entry((self.mine.group, place)).or_default().insert(offset);
            if let Some(done) = self.mine.owned.lock().get_mut(&name) {
                *done = Some(offset + 1);
            }
            if since.is_some() && self.mine.held_since(place) == since {
                let mut held = world.held.lock();
                held.entry((self.mine.group, place)).and_modify(|held| held.done = offset + 1);
            }
        }
        if self.plan.auto_commit || records.is_empty() {
            return Ok(());
        }
        if self.plan.pipelined {
            // It goes on; the ear hears what becomes of it.
            drop(self.consumer.commit_async());
            return Ok(());
        }
        match timeout(HANG, self.consumer.commit()).await {
            Ok(Ok(())) => Ok(()),
            // Others work on it again.
            Ok(Err(
                CommitError::NotOwned { .. } | CommitError::Expelled { .. } | CommitError::TimedOut { .. },
            )) => Ok(()),
            Ok(Err(error)) => Err(format!("commit: {error}")),
            Err(_) => Err(format!("a commit takes longer than {HANG:?}")),
        }
    }
}
