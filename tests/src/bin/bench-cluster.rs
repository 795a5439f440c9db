//! What a cluster costs: to come up with many partitions, to idle, to start on a disk; and a record, beside Apache Kafka
//! with the same client in the same run.
//!
//! Brokers and client are processes of their own; CPU is what the operating system accounted to each. The load is
//! printed with every table: absolute times on shared machines lie, and even CPU time grows under load.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use broker_lite::Cluster;
use clap::{Parser, Subcommand};
use klamm::{Admin, Client, NewTopic};
use klamm_tests::measure::Times;
use klamm_tests::measure::client::{self, ClientRun, Load, Verb, child};
use klamm_tests::process::{ApacheKafka, BrokerLite, broker_lite_binary, find_program, signal};
use klamm_tests::usage::{Cpu, ThreadTimes, load_average, resident_bytes};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Benchmarks of broker-lite as a cluster.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everything below
    All,
    /// Everything below, so small that only its working is shown; without Apache Kafka
    Smoke,
    /// Many topics: seconds until all their replicas are in sync; then CPU and memory at rest
    Scale(Scale),
    /// Start: milliseconds in memory and on a disk, the fsyncs on its way, memory of idle brokers
    Start {
        /// Processes of each kind
        #[arg(long, default_value_t = 11)]
        rounds: usize,
    },
    /// CPU of brokers per record, produced and fetched, beside Apache Kafka's
    Records(Records),
    /// Internal: an embedded cluster with many topics
    #[command(hide = true)]
    ScaleOnce(Scale),
    /// Internal: the client's process
    #[command(hide = true)]
    Client {
        /// Brokers
        #[arg(long)]
        bootstrap: String,
        /// What to do
        #[arg(long)]
        verb: Verb,
        #[command(flatten)]
        load: Load,
    },
}

#[derive(Debug, Clone, Parser)]
struct Scale {
    /// Topics
    #[arg(long, default_value_t = 1_000)]
    topics: usize,
    /// Partitions of each
    #[arg(long, default_value_t = 10)]
    partitions: i32,
    /// Seconds of rest that are measured
    #[arg(long, default_value_t = 20)]
    rest: u64,
}

#[derive(Debug, Clone, Parser)]
struct Records {
    /// Records of one sample
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Samples of each row, of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Rounds before those, so that a JVM has compiled what it will
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
    /// Without Apache Kafka
    #[arg(long)]
    alone: bool,
    /// Only these replicas
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    replicas: Vec<i16>,
    /// Only these batch sizes
    #[arg(long, value_delimiter = ',', default_value = "16384,1000000")]
    batch_sizes: Vec<usize>,
}

fn main() -> ExitCode {
    let done = match Options::parse().what {
        What::All => all(),
        What::Smoke => smoke(),
        What::Scale(scale) => show_scale(&scale),
        What::Start { rounds } => starts(rounds),
        What::Records(wanted) => records(&wanted),
        What::ScaleOnce(scale) => scale_once(&scale),
        What::Client { bootstrap, verb, load } => client::run(bootstrap, verb, load),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Result<()> {
    starts(11)?;
    show_scale(&Scale::parse_from(["scale"]))?;
    records(&Records::parse_from(["records"]))
}

fn smoke() -> Result<()> {
    starts(1)?;
    show_scale(&Scale { topics: 10, partitions: 3, rest: 1 })?;
    records(&Records::parse_from(["records", "--records=20000", "--rounds=1", "--warm-up=0", "--alone"]))
}

// ---- many partitions

#[derive(Debug, Serialize, Deserialize)]
struct Scaled {
    up_s: f64,
    idle_cores: f64,
    rss_bytes: u64,
}

fn show_scale(scale: &Scale) -> Result<()> {
    let Scale { topics, partitions, rest } = scale;
    println!("\n{topics} topics x {partitions} partitions x 3 replicas in memory; load {}", load_average());
    println!("{:<32}{:>14}{:>14}{:>10}", "", "in sync, s", "idle CPU, %", "RSS, MB");
    let embedded: Scaled = child(&[
        "scale-once".to_owned(),
        format!("--topics={topics}"),
        format!("--partitions={partitions}"),
        format!("--rest={rest}"),
    ])?;
    let row = |name: &str, found: &Scaled| {
        let Scaled { up_s, idle_cores, rss_bytes } = found;
        println!("{name:<32}{up_s:>14.2}{:>14.2}{:>10.1}", idle_cores * 100.0, mb(*rss_bytes));
    };
    row("embedded, test profile", &embedded);
    let up = BrokerLite::up(&["--config", "auto.create.topics.enable=false"])?;
    let bootstrap = up.bootstrap().to_owned();
    let up_s = tokio::runtime::Runtime::new()?.block_on(async {
        let client = Client::builder().bootstrap_servers(&bootstrap).build()?;
        until_scaled(&client, scale).await
    })?;
    let pid = up.pid().to_string();
    let idle_cores = idle(&pid, *rest)?;
    row(
        "broker-lite up, Kafka's timings",
        &Scaled { up_s, idle_cores, rss_bytes: resident_bytes(&pid)?.now },
    );
    println!("load {}", load_average());
    Ok(())
}

fn scale_once(scale: &Scale) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let scaled = runtime.block_on(async {
        let cluster = Cluster::builder().brokers(3).start().await?;
        let client =
            Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
        let up_s = until_scaled(&client, scale).await?;
        drop(client);
        let rest = scale.rest;
        let idle_cores = tokio::task::spawn_blocking(move || idle("self", rest)).await??;
        let rss_bytes = resident_bytes("self")?.now;
        let report = cluster.check();
        cluster.shutdown().await;
        if report.is_ok() {
            Ok(Scaled { up_s, idle_cores, rss_bytes })
        } else {
            Err(report.to_string().into())
        }
    });
    let scaled = scaled.map_err(|error: Box<dyn std::error::Error + Send + Sync>| error)?;
    println!("{}", serde_json::to_string(&scaled)?);
    Ok(())
}

/// Creates all topics, and waits until every replica of every partition is in sync. Returns how long that took, in s.
async fn until_scaled(client: &Client, scale: &Scale) -> Result<f64> {
    /// Topics of one request.
    const TOGETHER: usize = 50;
    client.ready(Duration::from_secs(30)).await?;
    let admin = client.admin();
    let began = Instant::now();
    let names: Vec<_> = (0..scale.topics).map(|number| format!("scale-{number}")).collect();
    for together in names.chunks(TOGETHER) {
        let topics = together.iter().map(|name| NewTopic::new(name).partitions(scale.partitions).replicas(3));
        admin.create_topics(topics).await?.all()?;
    }
    for together in names.chunks(TOGETHER) {
        while !all_in_sync(&admin, together).await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

async fn all_in_sync(admin: &Admin, names: &[String]) -> Result<bool> {
    let told = admin.describe_topics(names.iter().cloned()).await?;
    // One that is not known yet is not in sync either.
    Ok(told.iter().all(|(_, topic)| {
        let partitions = topic.as_ref().map(|topic| &*topic.partitions).unwrap_or_default();
        !partitions.is_empty() && partitions.iter().all(|p| p.leader.is_some() && p.isr.len() == 3)
    }))
}

/// Cores that a process uses while nobody asks it for anything.
fn idle(pid: &str, seconds: u64) -> Result<f64> {
    // What is left to do is not rest.
    std::thread::sleep(Duration::from_secs(seconds.min(3)));
    let (before, began) = (Cpu::of(pid)?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let used = Cpu::of(pid)? - before;
    Ok((used.user_s + used.sys_s) / began.elapsed().as_secs_f64())
}

// ---- start

fn starts(rounds: usize) -> Result<()> {
    broker_lite_binary()?; // built before anything is timed
    println!("\nstart of three brokers, {rounds} processes of each kind; load {}", load_average());
    println!(
        "{:<20}{:>9}{:>9}{:>9}{:>14}{:>14}",
        "ms", "median", "p99", "worst", "RSS idle, MB", "idle CPU, %"
    );
    start_row("in memory", rounds, |_| Ok(vec![]))?;
    if !can_keep()? {
        println!("{:<20}this broker-lite knows no --data-dir", "on disk");
        return Ok(());
    }
    let empty = |dir: &Path| Ok(vec![format!("--data-dir={}", dir.join("data").display())]);
    start_row("on disk, empty", rounds, empty)?;
    let used = |dir: &Path| {
        let data = empty(dir)?;
        let arguments: Vec<_> = data.iter().map(|argument| &**argument).collect();
        BrokerLite::up(&arguments)?.terminate()?;
        Ok(data)
    };
    start_row("on disk, again", rounds, used)?;
    let dir = tempfile::tempdir()?;
    let own = fsync_times(dir.path())?;
    println!("fdatasync of 4 KiB on this disk: {own} (median, p99, worst of {}; ms)", own.len());
    serial_syncs(dir.path())
}

fn start_row(name: &str, rounds: usize, arguments: impl Fn(&Path) -> Result<Vec<String>>) -> Result<()> {
    let (mut times, mut rss, mut cores) = (Times::default(), 0, 0.0);
    for round in 0..rounds.max(1) {
        let dir = tempfile::tempdir()?;
        let arguments = arguments(dir.path())?;
        let arguments: Vec<_> = arguments.iter().map(|argument| &**argument).collect();
        let began = Instant::now();
        let up = BrokerLite::up(&arguments)?;
        times.push(began.elapsed());
        if round + 1 == rounds.max(1) {
            let pid = up.pid().to_string();
            cores = idle(&pid, 5.min(2 * rounds as u64))?;
            rss = resident_bytes(&pid)?.now;
        }
    }
    println!("{name:<20}{times}{:>14.1}{:>14.2}", mb(rss), cores * 100.0);
    Ok(())
}

/// Whether the binary keeps its data on a disk.
fn can_keep() -> Result<bool> {
    let help = Command::new(broker_lite_binary()?).args(["up", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains("--data-dir"))
}

fn fsync_times(dir: &Path) -> Result<Times> {
    let mut file = fs::File::create(dir.join("probe"))?;
    let mut times = Times::default();
    for _ in 0..50 {
        file.write_all(&[7; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Prints how many fsyncs a start takes, and how many of them one after the other, on an empty directory and on one of before.
fn serial_syncs(dir: &Path) -> Result<()> {
    if find_program("strace").is_none() {
        println!("fsyncs of a start: strace is not installed");
        return Ok(());
    }
    for what in ["an empty disk", "a used disk"] {
        let (all, serial) = traced_start(dir)?;
        println!(
            "fsyncs of a start on {what}: {all}, at most {serial} one after the other (aim 6), each slowed to 50 ms"
        );
    }
    Ok(())
}

/// Starts brokers on a disk so slow that whatever waits for an fsync is told from what only comes later.
fn traced_start(dir: &Path) -> Result<(usize, usize)> {
    let (trace, data) = (dir.join("trace"), dir.join("traced"));
    let mut strace = Command::new("strace");
    strace.args(["-I2", "-f", "-ttt", "-T", "-e", "trace=fsync,fdatasync,sync_file_range,sync,syncfs"]);
    strace.args(["-e", "inject=fsync,fdatasync:delay_enter=50000", "-o"]);
    strace.arg(&trace).arg(broker_lite_binary()?);
    let data = format!("--data-dir={}", data.display());
    let up = BrokerLite::start_as(strace, &[&data])?;
    let told = fs::read_to_string(&trace)?;
    // Its child, which would outlive it; strace ends with it.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", up.pid()))?;
    let traced = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
    signal(traced.ok_or("strace has no child")?, "TERM")?;
    up.terminate()?;
    let spans = spans(&told);
    Ok((spans.len(), disjoint(spans)))
}

/// Beginning and end of each call in strace's output, also of those that it tells in two lines.
fn spans(told: &str) -> Vec<(f64, f64)> {
    let mut open = std::collections::BTreeMap::new();
    let mut spans = Vec::new();
    for line in told.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(Ok(at))) = (words.next(), words.next().map(str::parse::<f64>)) else {
            continue;
        };
        if line.contains("<unfinished ...>") {
            open.insert(thread, at);
        } else if line.contains(" resumed>") {
            spans.extend(open.remove(thread).map(|begun| (begun, at)));
        } else if let Some(took) = line.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>')) {
            spans.extend(took.parse::<f64>().map(|took| (at, at + took)));
        }
    }
    spans
}

/// The most spans of which none overlaps another: those could have waited for each other, no others can.
fn disjoint(mut spans: Vec<(f64, f64)>) -> usize {
    spans.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut count, mut free) = (0, f64::NEG_INFINITY);
    for (begun, ended) in spans {
        if begun >= free {
            (count, free) = (count + 1, ended);
        }
    }
    count
}

// ---- records

/// One of the brokers that are compared.
struct Peer {
    name: &'static str,
    bootstrap: String,
    pids: Vec<u32>,
    _guard: Box<dyn std::any::Any>,
}

impl Peer {
    fn lite(name: &'static str, arguments: &[&str], guard: impl std::any::Any) -> Result<Self> {
        let up = BrokerLite::up(arguments)?;
        let (bootstrap, pids) = (up.bootstrap().to_owned(), vec![up.pid()]);
        Ok(Self { name, bootstrap, pids, _guard: Box::new((up, guard)) })
    }

    fn kafka() -> Result<Self> {
        let kafka = ApacheKafka::start(3)?;
        let (bootstrap, pids) = (kafka.bootstrap().to_owned(), kafka.pids()?);
        Ok(Self { name: "Apache Kafka 4.3.0", bootstrap, pids, _guard: Box::new(kafka) })
    }

    /// Runs a client's process; returns what it came to, and CPU seconds of the brokers meanwhile.
    fn run(&self, load: &Load, verb: Verb) -> Result<(ClientRun, f64)> {
        let before = ThreadTimes::of_all(&self.pids)?;
        let run = child(&load.arguments(&self.bootstrap, verb))?;
        Ok((run, ThreadTimes::of_all(&self.pids)?.seconds_since(&before)))
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    replicas: i16,
    batch_size: usize,
    /// 0 for produced, 1 for fetched
    verb: usize,
    peer: usize,
}

/// Kafka's default, under which `broker-lite, disk` is asked for no more than Kafka is.
const KAFKAS_FLUSH: &str = "log.flush.interval.messages=9223372036854775807";

/// Per record: µs of the brokers' CPU, µs of the client's; and records per second.
type Sample = (f64, f64, f64);

fn records(wanted: &Records) -> Result<()> {
    let mut peers = Vec::new();
    if !wanted.alone {
        peers.push(Peer::kafka()?);
    }
    peers.push(Peer::lite("broker-lite, memory", &[], ())?);
    if can_keep()? {
        // Kafka fsyncs nothing of its own accord before it acknowledges; `up` does unless told otherwise.
        let kept =
            [("broker-lite, disk", vec!["--config", KAFKAS_FLUSH]), ("broker-lite, fsync first", vec![])];
        for (name, mut arguments) in kept {
            let dir = tempfile::tempdir()?;
            let data = format!("--data-dir={}", dir.path().join("data").display());
            arguments.push(&data);
            peers.push(Peer::lite(name, &arguments, dir)?);
        }
    }
    println!(
        "\n{} records of 100 B a sample, 6 partitions, acks=all, idempotent, fetched from the start",
        wanted.records
    );
    println!("three brokers, median of {} rounds; load {}", wanted.rounds, load_average());
    let mut samples: std::collections::BTreeMap<Row, Vec<Sample>> = std::collections::BTreeMap::new();
    for round in 0..wanted.warm_up + wanted.rounds {
        for replicas in &wanted.replicas {
            for batch_size in &wanted.batch_sizes {
                for (number, peer) in peers.iter().enumerate() {
                    let taken = sample(wanted, peer, *replicas, *batch_size, round)?;
                    for (verb, sample) in taken.into_iter().enumerate() {
                        let row = Row { replicas: *replicas, batch_size: *batch_size, verb, peer: number };
                        samples.entry(row).or_default().extend((round >= wanted.warm_up).then_some(sample));
                    }
                }
            }
        }
        println!("  round {} of {}: load {}", round + 1, wanted.warm_up + wanted.rounds, load_average());
    }
    table(&peers, &samples);
    for peer in &peers {
        let rss: u64 = peer
            .pids
            .iter()
            .filter_map(|pid| resident_bytes(&pid.to_string()).ok())
            .map(|rss| rss.peak)
            .sum();
        println!("{:<24} peak RSS {:.0} MB", peer.name, mb(rss));
    }
    println!("load {}", load_average());
    Ok(())
}

fn sample(
    wanted: &Records,
    peer: &Peer,
    replicas: i16,
    batch_size: usize,
    round: usize,
) -> Result<[Sample; 2]> {
    let load = Load {
        records: wanted.records,
        size: 100,
        batch_size,
        compression: "none".to_owned(),
        replicas,
        // Some batches of either size.
        window: if batch_size > 100_000 { 100_000 } else { 10_000 },
        topic: format!("bench-{replicas}-{batch_size}-{round}"),
    };
    let per_record = |(run, brokers_s): (ClientRun, f64)| {
        let (records, client_s) = (run.records as f64, run.cpu_user_s + run.cpu_sys_s);
        (brokers_s * 1e6 / records, client_s * 1e6 / records, records / run.seconds)
    };
    let taken = [peer.run(&load, Verb::Produce)?, peer.run(&load, Verb::Fetch)?].map(per_record);
    peer.run(&load, Verb::Delete)?;
    Ok(taken)
}

fn table(peers: &[Peer], samples: &std::collections::BTreeMap<Row, Vec<Sample>>) {
    println!(
        "{:<9}{:>8}{:>10}  {:<24}{:>12}{:>12}{:>13}{:>8}",
        "", "replicas", "batch", "", "broker µs", "client µs", "records/s", "ratio"
    );
    let middle = |samples: &[Sample], of: fn(&Sample) -> f64| {
        let mut sorted: Vec<_> = samples.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    for (row, taken) in samples {
        let Row { replicas, batch_size, verb, peer } = *row;
        let (broker, client, speed) =
            (middle(taken, |s| s.0), middle(taken, |s| s.1), middle(taken, |s| s.2));
        // Records per CPU second of the brokers, against those of the first peer. Nothing that was counted has no ratio.
        let theirs = samples.get(&Row { peer: 0, ..*row }).map_or(0.0, |taken| middle(taken, |s| s.0));
        let ratio =
            if broker > 0.0 && theirs > 0.0 { format!("{:.2}x", theirs / broker) } else { "-".into() };
        let verb = ["produced", "fetched"][verb];
        println!(
            "{verb:<9}{replicas:>8}{batch_size:>10}  {:<24}{broker:>12.4}{client:>12.3}{speed:>13.0}{ratio:>8}",
            peers[peer].name
        );
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_overlap_are_not_one_after_the_other() {
        let told = "7 10.000 fsync(5) = 0 <0.010>\n8 10.005 fdatasync(6 <unfinished ...>\n7 10.011 fsync(5) = 0 <0.001>\n\
                    8 10.020 <... fdatasync resumed>) = 0 <0.015>\n9 10.030 +++ exited with 0 +++\n";
        let spans = spans(told);
        assert_eq!(spans.len(), 3);
        assert_eq!(disjoint(spans), 2);
    }
}
