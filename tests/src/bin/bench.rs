//! The benchmark program: what starting costs, and what a record costs in the client and in the broker.
//!
//! Broker and client are processes of their own; CPU is what the operating system accounted to each (user and
//! system, resolution 10 ms). Absolute times on shared machines lie: the load is printed with every run.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::collections::VecDeque;
use std::io::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_lite::Cluster;
use clap::{Parser, Subcommand};
use klamm::{Client, Compression, Consumer, NewTopic, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::process::{ApacheKafka, BrokerLite};
use klamm_tests::usage::{Cpu, load_average, resident_bytes};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PARTITIONS: i32 = 6;
const WINDOW: usize = 10_000;

/// Benchmarks of klamm and broker-lite.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// One JSON object a row instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everything below
    All,
    /// Three embedded brokers: milliseconds to complete metadata, and resident memory then
    Start {
        /// Fresh processes measured
        #[arg(long, default_value_t = 11)]
        rounds: usize,
    },
    /// CPU per record in the client and in the broker, on produce and on fetch
    Records {
        #[command(flatten)]
        load: Load,
        /// Use Apache Kafka (three nodes, from its jars) instead of broker-lite
        #[arg(long)]
        kafka: bool,
    },
    /// Internal: starts a cluster and prints one JSON line
    #[command(hide = true)]
    StartOnce,
    /// Internal: the client's process
    #[command(hide = true)]
    Client {
        /// Brokers
        #[arg(long)]
        bootstrap: String,
        /// Produce or fetch
        #[arg(long)]
        verb: String,
        #[command(flatten)]
        load: Load,
    },
}

#[derive(Debug, Clone, Parser)]
struct Load {
    /// Records
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// batch.size in bytes
    #[arg(long, default_value_t = 16_384)]
    batch_size: usize,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: String,
    /// Replicas of the topic
    #[arg(long, default_value_t = 3)]
    replicas: i16,
}

#[derive(Debug, Serialize, Deserialize)]
struct Started {
    ms: f64,
    rss_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClientRun {
    records: u64,
    seconds: f64,
    cpu_user_s: f64,
    cpu_sys_s: f64,
    rss_peak_bytes: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match options.what {
        What::All => {
            println!("load average {}", load_average());
            starts(11, options.json)?;
            let load = Load::parse_from(["load"]);
            records(&load, false, options.json)?;
            records(&Load { batch_size: 1 << 20, ..load }, false, options.json)
        }
        What::Start { rounds } => starts(rounds, options.json),
        What::Records { load, kafka } => records(&load, kafka, options.json),
        What::StartOnce => {
            let runtime = tokio::runtime::Runtime::new()?;
            println!("{}", serde_json::to_string(&runtime.block_on(start_once())?)?);
            Ok(())
        }
        What::Client { bootstrap, verb, load } => {
            let runtime = tokio::runtime::Runtime::new()?;
            // A task like any application's: the main thread would have to be woken by the operating system.
            let run = runtime.block_on(runtime.spawn(client(bootstrap, verb, load)))??;
            println!("{}", serde_json::to_string(&run)?);
            Ok(())
        }
    }
}

async fn start_once() -> Result<Started> {
    let started = Instant::now();
    let cluster = Cluster::builder().brokers(3).start().await?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let rss_bytes = resident_bytes("self")?.now;
    cluster.shutdown().await;
    Ok(Started { ms, rss_bytes })
}

fn starts(rounds: usize, json: bool) -> Result<()> {
    let mut runs = Vec::new();
    for _ in 0..rounds.max(1) {
        runs.push(child::<Started>(&["start-once".to_owned()])?);
    }
    runs.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    let (first, middle, last) = (&runs[0], &runs[runs.len() / 2], &runs[runs.len() - 1]);
    let mut binary = Vec::new();
    for _ in 0..rounds.max(1) {
        let started = Instant::now();
        let process = BrokerLite::up(&[])?;
        binary.push((started.elapsed().as_secs_f64() * 1e3, resident_bytes(&process.pid().to_string())?.now));
    }
    binary.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (up_ms, up_rss) = binary[binary.len() / 2];
    if json {
        println!(
            "{}",
            serde_json::json!({"row": "start", "rounds": rounds, "embedded_ms_min": first.ms, "embedded_ms_median": middle.ms,
            "embedded_ms_max": last.ms, "embedded_rss_bytes": middle.rss_bytes, "up_ms_median": up_ms, "up_rss_bytes": up_rss})
        );
        return Ok(());
    }
    println!("start of three brokers to complete metadata, {rounds} processes:");
    println!(
        "  embedded       {:.1} ms (min {:.1}, max {:.1}), RSS {:.1} MB",
        middle.ms,
        first.ms,
        last.ms,
        mb(middle.rss_bytes)
    );
    println!("  broker-lite up {up_ms:.1} ms from fork to its line, RSS {:.1} MB", mb(up_rss));
    Ok(())
}

fn records(load: &Load, kafka: bool, json: bool) -> Result<()> {
    let (bootstrap, pids, _guard): (String, Vec<u32>, Box<dyn std::any::Any>) = if kafka {
        let kafka = ApacheKafka::start(3)?;
        (kafka.bootstrap().to_owned(), kafka.pids()?, Box::new(kafka))
    } else {
        let cluster = BrokerLite::up(&[])?;
        (cluster.bootstrap().to_owned(), vec![cluster.pid()], Box::new(cluster))
    };
    for verb in ["produce", "fetch"] {
        let before = Cpu::of_all(&pids)?;
        let run = child::<ClientRun>(&[
            "client".to_owned(),
            format!("--bootstrap={bootstrap}"),
            format!("--verb={verb}"),
            format!("--records={}", load.records),
            format!("--size={}", load.size),
            format!("--batch-size={}", load.batch_size),
            format!("--compression={}", load.compression),
            format!("--replicas={}", load.replicas),
        ])?;
        let broker = Cpu::of_all(&pids)? - before;
        let per = |seconds: f64| seconds * 1e6 / run.records as f64;
        if json {
            println!(
                "{}",
                serde_json::json!({"row": verb, "broker": if kafka {"kafka"} else {"broker-lite"}, "records": run.records, "size": load.size,
                "batch_size": load.batch_size, "compression": load.compression, "replicas": load.replicas, "seconds": run.seconds,
                "cpu_user_s": run.cpu_user_s, "cpu_sys_s": run.cpu_sys_s, "rss_peak_bytes": run.rss_peak_bytes,
                "broker_cpu_s": broker.user_s + broker.sys_s})
            );
            continue;
        }
        println!(
            "{verb:<8}{} x {} B, batch.size {}, {}, {} replicas: {:.0} records/s; CPU a record: client {:.3} us (user {:.3}, system {:.3}), brokers {:.3} us; client's peak RSS {:.1} MB; load {}",
            run.records,
            load.size,
            load.batch_size,
            load.compression,
            load.replicas,
            run.records as f64 / run.seconds,
            per(run.cpu_user_s + run.cpu_sys_s),
            per(run.cpu_user_s),
            per(run.cpu_sys_s),
            per(broker.user_s + broker.sys_s),
            mb(run.rss_peak_bytes),
            load_average(),
        );
    }
    Ok(())
}

async fn client(bootstrap: String, verb: String, load: Load) -> Result<ClientRun> {
    let client = Client::builder().bootstrap_servers(&bootstrap).client_id("bench").build()?;
    client.ready(Duration::from_secs(30)).await?;
    if verb == "produce" {
        let topic = NewTopic::new("bench").partitions(PARTITIONS).replicas(load.replicas);
        client.admin().create_topics([topic]).await?.all()?;
    }
    let before = Cpu::of("self")?;
    let started = Instant::now();
    if verb == "produce" {
        produce(&client, &load).await?;
    } else {
        fetch(&client, &load).await?;
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), Cpu::of("self")? - before);
    if verb == "produce" {
        let written = end_of(&client).await?;
        if written != load.records {
            return Err(format!("{} records sent, the end offsets grew by {written}", load.records).into());
        }
    }
    let rss_peak_bytes = resident_bytes("self")?.peak;
    Ok(ClientRun {
        records: load.records,
        seconds,
        cpu_user_s: cpu.user_s,
        cpu_sys_s: cpu.sys_s,
        rss_peak_bytes,
    })
}

fn partitions() -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|index| TopicPartition::new("bench", index)).collect()
}

async fn end_of(client: &Client) -> Result<u64> {
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    let ends = consumer.end_offsets(&partitions()).await?;
    Ok(ends.values().sum::<i64>().unsigned_abs())
}

async fn produce(client: &Client, load: &Load) -> Result<()> {
    let compression = match load.compression.as_str() {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => return Err(format!("no codec {other}").into()),
    };
    let producer: Producer = Producer::builder()
        .client(client)
        .compression_type(compression)
        .batch_size(load.batch_size)
        .build()?;
    // Half noise, half repetition, so that a codec has something to do and something to gain.
    let value: bytes::Bytes = (0..load.size)
        .map(|at| if at % 2 == 0 { b'k' } else { (at * 131 % 251) as u8 })
        .collect::<Vec<_>>()
        .into();
    let topic: Arc<str> = "bench".into();
    let mut window = VecDeque::with_capacity(WINDOW);
    for _ in 0..load.records {
        if window.len() == WINDOW
            && let Some(oldest) = window.pop_front()
        {
            let oldest: klamm::Delivery = oldest;
            oldest.await?;
        }
        window.push_back(
            producer
                .send(Record::new(topic.clone()).value(value.clone()))
                .await
                .map_err(|e| e.to_string())?,
        );
    }
    for delivery in window {
        delivery.await?;
    }
    producer.close(Duration::from_secs(30)).await?;
    Ok(())
}

async fn fetch(client: &Client, load: &Load) -> Result<()> {
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    consumer.assign(partitions().into_iter().map(|partition| (partition, StartOffset::Beginning)));
    let (mut seen, mut bytes) = (0, 0);
    while seen < load.records {
        let records = consumer.poll(5_000, Duration::from_secs(30)).await?;
        if records.is_empty() {
            return Err(format!("{seen} of {} records came back", load.records).into());
        }
        for record in records {
            seen += 1;
            bytes += record.value.as_ref().map_or(0, bytes::Bytes::len);
        }
    }
    consumer.close().await?;
    if bytes != load.size * load.records as usize {
        return Err(format!("{bytes} bytes came back").into());
    }
    Ok(())
}

/// Runs this program again and reads the JSON that its child prints.
fn child<T: for<'a> Deserialize<'a>>(arguments: &[String]) -> Result<T> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Error::other(format!("{arguments:?} ended with {}", output.status)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
