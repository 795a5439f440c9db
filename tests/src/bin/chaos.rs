//! Idempotent producers write for minutes while nodes are killed, stopped, restarted, cut off and relieved of their
//! leaderships, the active controller as often as the busiest leader; then the whole log is read and judged, and where
//! there are disks, what each replica has left there.
//!
//! In: a kind of cluster and a time. Out: what happened, what the history checker says of it, and a status: 0 only if
//! nothing was lost, duplicated or out of order, and enough happened for the run to count.
//!
//! ```text
//! four producers ──▶ cluster ◀── one fault after the other, each waited out
//!       │ sent, acknowledged, failed       │ the log of each partition, read by klamm and by kcat
//!       └────────────▶ history ◀───────────┘
//! ```
//!
//! A record takes some 250 bytes of memory until the verdict: 300 MB for 10 minutes at the default rate.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use klamm::{
    Compression, Consumer, Delivery, Producer, Record, RecordMetadata, SendError, StartOffset,
    TopicDescription, TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend, Can, KINDS, Kind};
use klamm_tests::history::{History, Log, LogRecord, Op, Partition, ProducerSettings, Promises, Rule, check};
use klamm_tests::process::{find_program, kafka_tool};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

type Error = Box<dyn std::error::Error + Send + Sync>;

const PARTITIONS: i32 = 6;
/// The run counts only if at least so much happened.
const ELECTIONS: u64 = 20;
const RETRIES: u64 = 100;
/// Where the controllers are among the victims.
const CONTROLLER_CHANGES: u64 = 3;
/// Records of one producer that may wait for their acknowledgement.
const WINDOW: usize = 100_000;
/// Time between two bursts of a producer.
const BURST: Duration = Duration::from_millis(10);
/// How long one broker stays dead or silent: longer than the cluster takes to notice, and than a request may take.
const OUTAGE: Duration = Duration::from_secs(5);
/// What cannot be delivered in this time fails; longer than any outage.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);
/// Failed records whose reasons are printed; all are counted.
const FAILURES_TOLD: u64 = 20;
/// A reader that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(60);

/// Breaks a cluster under four idempotent producers, and judges what its log holds in the end.
#[derive(Debug, Parser)]
struct Options {
    /// Kind of cluster: kafka, tcp or memory
    #[arg(long, default_value = "tcp", value_parser = kind)]
    backend: &'static Kind,
    /// Minutes of faults
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Records that all producers together write in a second
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Which faults, keys and sizes chance gives
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn kind(id: &str) -> Result<&'static Kind, String> {
    let able =
        |kind: &&Kind| !kind.is_virtual() && kind.lacks(&[Can::Kill, Can::Pause, Can::Replicate]).is_none();
    let mut fit = KINDS.iter().filter(able);
    let known: Vec<_> = fit.clone().map(|kind| kind.id).collect();
    fit.find(|kind| kind.id == id).ok_or_else(|| format!("there are: {}", known.join(", ")))
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the run cannot be judged: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all went well and the run counts.
async fn run(options: &Options) -> Result<bool, Error> {
    let system = (options.backend.start)().await.map_err(|error| error.to_string())?;
    let backend = Arc::new(Backend::new(options.backend, system));
    let topic = backend.topic("chaos", PARTITIONS).await?;
    let world = Arc::new(World::new(&topic, options));
    println!("{}, seed {}, {} minutes", options.backend.title, options.seed, options.minutes);

    let mut producers = JoinSet::new();
    for (number, style) in Style::ALL.into_iter().enumerate() {
        producers.spawn(produce(world.clone(), backend.clone(), number as u64, style));
    }
    let watch = tokio::spawn(count_elections(world.clone(), backend.clone()));
    let until = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    let faults = break_things(&world, &backend, until).await;
    // Whatever it came to: producers must end before anybody looks.
    let healed = backend.heal().await;
    world.over.store(true, Ordering::SeqCst);
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    watch.await??;
    let faults = faults?;
    healed?;
    let others = read_logs(&world, &backend).await?;
    let autopsy = backend.autopsy(&world.topic, PARTITIONS).await;
    Ok(report(&world, &faults, &others, &autopsy))
}

/// What everybody shares.
struct World {
    topic: Arc<str>,
    seed: u64,
    /// Records in one burst of one producer.
    burst: u32,
    began: Instant,
    history: Mutex<History>,
    partitions: Vec<Partition>,
    over: AtomicBool,
    retries: AtomicU64,
    elections: AtomicU64,
    /// Epochs of the metadata quorum that had an active controller; `None` where it is none of the nodes.
    controllers: Mutex<Option<BTreeMap<i32, i32>>>,
    /// Who was seen to lead a partition in an epoch; and contradictions.
    leaders: Mutex<BTreeMap<(i32, i32), i32>>,
    two_leaders: AtomicU64,
    failures: AtomicU64,
}

impl World {
    fn new(topic: &str, options: &Options) -> Self {
        let mut history = History::new();
        let partitions = (0..PARTITIONS).map(|index| history.partition(topic, index)).collect();
        let bursts = Style::ALL.len() as u128 * (1000 / BURST.as_millis());
        Self {
            topic: topic.into(),
            seed: options.seed,
            burst: (options.rate / bursts as u32).max(1),
            began: Instant::now(),
            history: Mutex::new(history),
            partitions,
            over: AtomicBool::new(false),
            retries: AtomicU64::new(0),
            elections: AtomicU64::new(0),
            controllers: Mutex::default(),
            leaders: Mutex::default(),
            two_leaders: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Takes that somebody says of a node that it leads in this epoch.
    fn leads(&self, partition: i32, epoch: i32, leader: i32) {
        let first = *self.leaders.lock().entry((partition, epoch)).or_insert(leader);
        if first != leader {
            self.two_leaders.fetch_add(1, Ordering::SeqCst);
            self.mark(&format!(
                "TWO LEADERS of partition {partition} in epoch {epoch}: {first} and {leader}"
            ));
        }
    }

    fn controls(&self, epoch: i32, leader: i32) {
        let mut known = self.controllers.lock();
        let first = *known.get_or_insert_default().entry(epoch).or_insert(leader);
        drop(known);
        if first != leader {
            self.two_leaders.fetch_add(1, Ordering::SeqCst);
            self.mark(&format!("TWO CONTROLLERS in epoch {epoch}: {first} and {leader}"));
        }
    }

    /// How often the active controller changed.
    fn controller_changes(&self) -> Option<u64> {
        let known = self.controllers.lock();
        let leaders: Vec<_> = known.as_ref()?.values().collect();
        Some(leaders.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn place(&self, partition: i32) -> Partition {
        self.partitions[partition as usize]
    }

    fn mark(&self, text: &str) {
        let at = self.now();
        println!("{:7.1} s  {text}", at.as_secs_f64());
        self.history.lock().mark(at, text);
    }
}

// ---- producers

/// How a producer chooses partitions, and how it packs.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// Partitions in turn.
    Explicit,
    /// By key, in small batches without linger: many requests, several in flight.
    KeyedSmall,
    /// By key, compressed.
    KeyedLz4,
    /// Neither partition nor key, compressed.
    UnkeyedZstd,
}

impl Style {
    const ALL: [Self; 4] = [Self::Explicit, Self::KeyedSmall, Self::KeyedLz4, Self::UnkeyedZstd];

    fn producer(self, backend: &Backend) -> Result<Producer, Error> {
        let client = backend.impatient_client()?;
        let builder = Producer::builder().client(&client).delivery_timeout_ms(DELIVERY_LIMIT);
        Ok(match self {
            Self::Explicit => builder,
            Self::KeyedSmall => builder.batch_size(1000).linger_ms(Duration::ZERO),
            Self::KeyedLz4 => builder.compression_type(Compression::Lz4),
            Self::UnkeyedZstd => {
                builder.compression_type(Compression::Zstd).linger_ms(Duration::from_millis(20))
            }
        }
        .build()?)
    }

    /// Partition and key of the next record.
    fn target(self, number: u32, chance: &mut fastrand::Rng) -> (Option<i32>, Option<String>) {
        match self {
            Self::Explicit => (Some((number % PARTITIONS as u32) as i32), None),
            Self::KeyedSmall | Self::KeyedLz4 => (None, Some(format!("key {}", chance.u32(0..1000)))),
            Self::UnkeyedZstd => (None, None),
        }
    }
}

/// Writes until the run is over, and tells the history of every record.
async fn produce(world: Arc<World>, backend: Arc<Backend>, number: u64, style: Style) -> Result<(), Error> {
    let producer = style.producer(&backend)?;
    let me = world.history.lock().producer(&format!("{style:?}"), ProducerSettings::default());
    let (open, settling) = mpsc::channel(WINDOW);
    let settling = tokio::spawn(settle(world.clone(), me, settling));
    let mut chance = fastrand::Rng::with_seed(world.seed ^ (number << 32));
    let mut tick = interval(BURST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0;
    while !world.over.load(Ordering::SeqCst) {
        tick.tick().await;
        for _ in 0..world.burst {
            let (partition, key) = style.target(sent, &mut chance);
            sent += 1;
            let place = partition.map(|partition| world.place(partition));
            let op = world.history.lock().invoke(world.now(), me, place);
            let mut value = op.value().to_vec();
            value.resize(value.len() + chance.usize(20..200), b'a' + (sent % 26) as u8);
            let mut record = Record::new(world.topic.clone()).value(value);
            record = partition.into_iter().fold(record, Record::partition);
            record = key.into_iter().fold(record, Record::key);
            match producer.send(record).await {
                Ok(delivery) => {
                    let place = world.place(delivery.partition());
                    world.history.lock().accepted(world.now(), me, op, place);
                    open.send((op, delivery)).await?;
                }
                Err(error) => world.history.lock().failed(world.now(), me, op, error.maybe_written()),
            }
        }
    }
    drop(open);
    producer.flush().await?;
    settling.await?;
    world.retries.fetch_add(producer.retries(), Ordering::SeqCst);
    producer.close(SILENCE).await?;
    Ok(())
}

/// Waits for one delivery after the other.
async fn settle(
    world: Arc<World>,
    me: klamm_tests::history::Client,
    mut open: mpsc::Receiver<(Op, Delivery)>,
) {
    while let Some((op, delivery)) = open.recv().await {
        let outcome: Result<RecordMetadata, SendError> = delivery.await;
        let mut history = world.history.lock();
        match outcome {
            Ok(written) => history.acked(world.now(), me, op, world.place(written.partition), written.offset),
            Err(error) => {
                history.failed(world.now(), me, op, error.maybe_written());
                drop(history);
                if world.failures.fetch_add(1, Ordering::SeqCst) < FAILURES_TOLD {
                    println!("{:7.1} s  {op} failed: {error}", world.now().as_secs_f64());
                }
            }
        }
    }
}

// ---- faults

/// Counts how often the leader epoch of a partition was seen to grow.
async fn count_elections(world: Arc<World>, backend: Arc<Backend>) -> Result<(), Error> {
    let mut epochs = [None; PARTITIONS as usize];
    let mut last = false;
    while !last {
        // Once more after the end: the last election counts, too.
        last = world.over.load(Ordering::SeqCst);
        let admin = backend.impatient_client()?.admin();
        if let Ok(Ok(mut told)) = admin.describe_topics([&*world.topic]).await.map(|results| results.all()) {
            for (known, partition) in epochs.iter_mut().zip(told.remove(0).partitions) {
                if let Some(leader) = partition.leader {
                    world.leads(partition.partition, partition.leader_epoch, leader);
                }
                let grown = known.is_some_and(|known| partition.leader_epoch > known);
                world.elections.fetch_add(u64::from(grown), Ordering::SeqCst);
                *known = (*known).max(Some(partition.leader_epoch));
            }
        }
        if let Ok(Some((leader, epoch))) = backend.controller().await {
            world.controls(epoch, leader);
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// How often each fault was done.
type Faults = BTreeMap<&'static str, u64>;

/// What is done to a node.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    KillAmidWrites,
    KillAll,
    Pause,
    Cut,
    Restart,
    MoveLeaders,
}

impl Fault {
    /// Those that a kind of cluster has.
    fn of(kind: &Kind) -> Vec<Self> {
        let kafka = kind.id == "kafka";
        let all = [
            (Self::Kill, true),
            (Self::KillAmidWrites, !kafka && !kind.can.contains(&Can::StopInOrder)),
            (Self::KillAll, kind.can.contains(&Can::StopInOrder)),
            (Self::Pause, true),
            (Self::Cut, kind.can.contains(&Can::Cut)),
            (Self::Restart, kind.can.contains(&Can::StopInOrder)),
            (Self::MoveLeaders, kafka),
        ];
        all.into_iter().filter(|(_, has)| *has).map(|(fault, _)| fault).collect()
    }
}

/// A kill of another node while the first fault lasts, or the cluster is recovering from it.
#[derive(Debug, Clone, Copy)]
struct Second {
    node: i32,
    after: Duration,
}

impl Second {
    async fn strike(self, world: &World, backend: &Backend) -> Result<(), Error> {
        let Self { node, after } = self;
        sleep(after).await;
        world.mark(&format!("kill -9 of broker {node} meanwhile"));
        backend.kill(node).await?;
        sleep(OUTAGE / 2).await;
        world.mark(&format!("broker {node} starts again"));
        backend.restart(node).await?;
        Ok(())
    }
}

/// One fault after the other until the time is up. Each is over, and all replicas in sync, before the next one; but one
/// time in three another node is killed meanwhile.
async fn break_things(world: &World, backend: &Backend, until: Instant) -> Result<Faults, Error> {
    let mut faults = Faults::new();
    let mut chance = fastrand::Rng::with_seed(world.seed);
    let kinds = Fault::of(backend.kind());
    let mut coming = Vec::new();
    let mut round = 0;
    while Instant::now() < until {
        let description = until_whole(world, backend).await?;
        if coming.is_empty() {
            coming.clone_from(&kinds);
            chance.shuffle(&mut coming);
        }
        let Some(fault) = coming.pop() else { break };
        // In turn the active controller, where it is one of the nodes, and who leads most partitions.
        let controller = backend.controller().await.ok().flatten().map(|(node, _)| node);
        let victim = controller.filter(|_| round % 2 == 1).unwrap_or(busiest(&description));
        let role = if controller == Some(victim) { ", the active controller" } else { "" };
        let second = chance.u8(0..3) == 0 && !matches!(fault, Fault::KillAll | Fault::MoveLeaders);
        let second = second.then(|| Second {
            node: (victim + chance.i32(0..BROKERS as i32 - 1)) % BROKERS as i32 + 1,
            after: Duration::from_millis(chance.u64(0..3000)),
        });
        let name = match second {
            // What heals a cut starts the nodes, too.
            Some(second) if !matches!(fault, Fault::Cut) => {
                let first = strike(world, backend, fault, victim, role, &description, None);
                tokio::try_join!(first, second.strike(world, backend))?.0
            }
            second => strike(world, backend, fault, victim, role, &description, second).await?,
        };
        *faults.entry(name).or_default() += 1;
        if second.is_some() {
            *faults.entry("kills of another meanwhile").or_default() += 1;
        }
        round += 1;
        sleep(Duration::from_millis(chance.u64(0..2000))).await;
    }
    Ok(faults)
}

/// One fault, from its beginning to its end; gives its name.
async fn strike(
    world: &World,
    backend: &Backend,
    fault: Fault,
    victim: i32,
    role: &str,
    description: &TopicDescription,
    second: Option<Second>,
) -> Result<&'static str, Error> {
    let victim_is = format!("broker {victim}{role}");
    match fault {
        Fault::Kill => {
            world.mark(&format!("kill -9 of {victim_is}"));
            backend.kill(victim).await?;
            sleep(OUTAGE).await;
            world.mark(&format!("broker {victim} starts again"));
            backend.restart(victim).await?;
            Ok("kills")
        }
        Fault::KillAmidWrites => {
            world.mark(&format!("kill -9 of {victim_is} in the moment when it owes an answer"));
            backend.kill_amid_writes(victim).await?;
            sleep(OUTAGE / 4).await;
            world.mark(&format!("broker {victim} starts again"));
            backend.restart(victim).await?;
            Ok("kills amid writes")
        }
        Fault::KillAll => {
            world.mark("kill -9 of all nodes");
            for node in 1..=BROKERS as i32 {
                backend.kill(node).await?;
            }
            world.mark("all nodes start again");
            backend.mend().await?;
            Ok("kills of all")
        }
        Fault::Pause => {
            world.mark(&format!("{victim_is} stops"));
            backend.pause(victim).await?;
            sleep(OUTAGE).await;
            world.mark(&format!("broker {victim} goes on"));
            backend.resume(victim).await?;
            Ok("pauses")
        }
        Fault::Cut => {
            world.mark(&format!("{victim_is} is cut off from the others"));
            backend.cut_off(victim).await?;
            match second {
                Some(second) => second.strike(world, backend).await?,
                None => sleep(OUTAGE).await,
            }
            world.mark("the network is whole again");
            backend.mend().await?;
            Ok("cuts")
        }
        Fault::Restart => {
            world.mark(&format!("{victim_is} is restarted in order"));
            backend.stop(victim).await?;
            backend.restart(victim).await?;
            Ok("restarts")
        }
        Fault::MoveLeaders => {
            move_leaders(world, backend, description).await?;
            Ok("leaders moved by Java's tools")
        }
    }
}

/// Waits until every partition has a leader and all its replicas in sync.
async fn until_whole(world: &World, backend: &Backend) -> Result<TopicDescription, Error> {
    let whole = |told: Result<&TopicDescription, _>| {
        let topic = told.ok()?;
        let whole = topic.partitions.iter().all(|p| p.leader.is_some() && p.isr.len() == BROKERS);
        whole.then(|| topic.clone())
    };
    Ok(backend.until_described(&world.topic, whole).await?)
}

/// The broker that leads most partitions: its end makes most elections.
fn busiest(topic: &TopicDescription) -> i32 {
    let leads = |broker: &i32| topic.partitions.iter().filter(|p| p.leader == Some(*broker)).count();
    (1..=BROKERS as i32).max_by_key(leads).unwrap_or(1)
}

/// Gives every partition another preferred leader, and lets Kafka elect the preferred ones.
async fn move_leaders(world: &World, backend: &Backend, topic: &TopicDescription) -> Result<(), Error> {
    world.mark("Java's tools give every partition another preferred leader and have it elected");
    let partitions = topic.partitions.iter().map(|found| {
        let mut replicas = found.replicas.clone();
        // So that the one behind the present leader comes first.
        let at = replicas.iter().position(|replica| Some(*replica) == found.leader).unwrap_or_default();
        replicas.rotate_left((at + 1) % found.replicas.len());
        serde_json::json!({"topic": &*world.topic, "partition": found.partition, "replicas": replicas})
    });
    let plan = serde_json::json!({"version": 1, "partitions": partitions.collect::<Vec<_>>()});
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let bootstrap: Vec<_> = brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
    let moved = tokio::task::spawn_blocking(move || java_moves(&bootstrap.join(","), &plan.to_string()));
    moved.await?
}

fn java_moves(bootstrap: &str, plan: &str) -> Result<(), Error> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), plan)?;
    let path = file.path().to_string_lossy();
    let reassign = ["--bootstrap-server", bootstrap, "--reassignment-json-file", &path, "--execute"];
    let elect = ["--bootstrap-server", bootstrap, "--election-type", "PREFERRED", "--all-topic-partitions"];
    for (class, arguments) in [
        ("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", &reassign),
        ("org.apache.kafka.tools.LeaderElectionCommand", &elect),
    ] {
        let output = kafka_tool(class, arguments)?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(format!("{class}: {}", String::from_utf8_lossy(&said)).into());
        }
    }
    Ok(())
}

// ---- the log and the verdict

/// Reads every partition to its end by klamm, and by kcat where there are sockets and kcat; tells what kcat saw otherwise.
async fn read_logs(world: &Arc<World>, backend: &Backend) -> Result<String, Error> {
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let bootstrap = brokers.first().map(|broker| format!("{}:{}", broker.host, broker.port));
    let mut compared = 0;
    for partition in 0..PARTITIONS {
        let log = read_by_klamm(world, backend, partition).await?;
        if let Some(bootstrap) = bootstrap.clone().filter(|_| backend.can(Can::RealSockets)) {
            let topic = world.topic.clone();
            let other = tokio::task::spawn_blocking(move || read_by_kcat(&bootstrap, &topic, partition));
            let other = other.await??;
            if !log.records.iter().map(|record| (record.offset, record.op)).eq(other.iter().copied()) {
                let differ =
                    log.records.iter().zip(&other).find(|(one, other)| (one.offset, one.op) != **other);
                let (one, other) = (log.records.len(), other.len());
                return Err(format!(
                    "partition {partition}: klamm read {one} records, kcat {other}; {differ:?}"
                )
                .into());
            }
            compared += log.records.len();
        }
        world.history.lock().final_log(world.place(partition), log);
    }
    Ok(match compared {
        0 => "kcat cannot read this kind of cluster".to_owned(),
        records => format!("kcat read the same {records} records"),
    })
}

async fn read_by_klamm(world: &World, backend: &Backend, partition: i32) -> Result<Log, Error> {
    let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    let place = TopicPartition::new(&*world.topic, partition);
    let end =
        consumer.end_offsets(std::slice::from_ref(&place)).await?.get(&place).copied().ok_or("no end")?;
    consumer.assign([(place, StartOffset::Beginning)]);
    let mut records = Vec::new();
    while records.last().map_or(0, |record: &LogRecord| record.offset + 1) < end {
        let read = timeout(SILENCE, consumer.recv()).await;
        let read = read.map_err(|_| format!("partition {partition} falls silent before offset {end}"))??;
        let op = read.value.as_deref().map_or(Op::ALIEN, Op::of_value);
        records.push(LogRecord { offset: read.offset, op, leader_epoch: read.leader_epoch });
    }
    consumer.close().await?;
    Ok(Log { start: 0, end, records })
}

fn read_by_kcat(bootstrap: &str, topic: &str, partition: i32) -> Result<Vec<(i64, Op)>, Error> {
    find_program("kcat").ok_or("kcat is not installed (Debian: apt-get install kcat)")?;
    let partition = partition.to_string();
    let output = Command::new("kcat")
        .args(["-C", "-b", bootstrap, "-t", topic, "-p", &partition, "-o", "beginning", "-e", "-q"])
        .args(["-X", "check.crcs=true", "-f", "%o %S %s"])
        .output()?;
    if !output.status.success() {
        return Err(format!("kcat: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let (mut records, mut rest) = (Vec::new(), &*output.stdout);
    while !rest.is_empty() {
        let offset = number_before_space(&mut rest)?;
        let length = usize::try_from(number_before_space(&mut rest)?)?;
        let value = rest.split_off(..length).ok_or("kcat's output ends in the middle of a record")?;
        records.push((offset, Op::of_value(value)));
    }
    Ok(records)
}

fn number_before_space(rest: &mut &[u8]) -> Result<i64, Error> {
    let space =
        rest.iter().position(|byte| *byte == b' ').ok_or("kcat's output has no number where one is due")?;
    let digits = rest.split_off(..space).unwrap_or_default();
    *rest = &rest[1..];
    Ok(std::str::from_utf8(digits)?.parse()?)
}

/// Prints what happened; returns whether nothing is wrong and the run counts.
fn report(
    world: &World,
    faults: &Faults,
    others: &str,
    autopsy: &Result<Option<String>, std::io::Error>,
) -> bool {
    let verdict = check(&world.history.lock(), &Promises::default());
    let [elections, retries] = [&world.elections, &world.retries].map(|count| count.load(Ordering::SeqCst));
    let faults: Vec<_> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    println!("\n{verdict}");
    println!("faults             {}", faults.join(", "));
    println!("records            {}", verdict.sent);
    println!("acknowledged       {}", verdict.acked);
    println!("failed             {} not written, {} maybe", verdict.failed, verdict.maybe_written);
    println!("elections          {elections}");
    println!("retried batches    {retries}");
    println!("lost               {}", verdict.count(Rule::Lost) + verdict.count(Rule::WrongOffset));
    println!("duplicated         {}", verdict.count(Rule::Duplicated));
    println!("reordered          {}", verdict.count(Rule::Reordered));
    println!("written though failed {}", verdict.count(Rule::Ghost));
    println!("second reader      {others}");
    let changes = world.controller_changes();
    if let Some(changes) = changes {
        println!("controller changes {changes}");
    }
    let (two_leaders, seen) = (world.two_leaders.load(Ordering::SeqCst), world.leaders.lock().len());
    println!("leaders            of {seen} epochs seen, {two_leaders} times two in one");
    match autopsy {
        Ok(Some(told)) => println!("disks              {told}"),
        Ok(None) => {}
        Err(error) => println!("disks              DIFFER: {error}"),
    }
    let settled = verdict.unknown == 0 && verdict.acked > 0;
    let changed = changes.is_none_or(|changes| changes >= CONTROLLER_CHANGES);
    let counts = elections >= ELECTIONS && retries >= RETRIES && changed && settled;
    if !counts {
        println!(
            "this run does not count: at least {ELECTIONS} elections, {RETRIES} retried batches and, where controllers \
             are among the nodes, {CONTROLLER_CHANGES} changes of the controller are needed"
        );
    }
    let ok = verdict.is_ok() && counts && two_leaders == 0 && autopsy.is_ok();
    println!("verdict            {}", if ok { "all promises kept" } else { "FAILED" });
    ok
}
