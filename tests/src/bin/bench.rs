//! The benchmark program: what starting costs, and what a record costs in the client and in the broker.
//!
//! Broker and client are processes of their own; CPU is what the operating system accounted to each (user and
//! system, resolution 10 ms). Absolute times on shared machines lie: the load is printed with every run.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use broker_lite::Cluster;
use clap::{Parser, Subcommand};
use klamm_tests::measure::client::{self, ClientRun, Load, Verb, child};
use klamm_tests::process::{ApacheKafka, BrokerLite};
use klamm_tests::usage::{Cpu, load_average, resident_bytes};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

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
        /// What to do
        #[arg(long)]
        verb: Verb,
        #[command(flatten)]
        load: Load,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Started {
    ms: f64,
    rss_bytes: u64,
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
        What::Client { bootstrap, verb, load } => client::run(bootstrap, verb, load),
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
    for verb in [Verb::Produce, Verb::Fetch] {
        let before = Cpu::of_all(&pids)?;
        let run = child::<ClientRun>(&load.arguments(&bootstrap, verb))?;
        let broker = Cpu::of_all(&pids)? - before;
        let per = |seconds: f64| seconds * 1e6 / run.records as f64;
        if json {
            println!(
                "{}",
                serde_json::json!({"row": verb.name(), "broker": if kafka {"kafka"} else {"broker-lite"}, "records": run.records, "size": load.size,
                "batch_size": load.batch_size, "compression": load.compression, "replicas": load.replicas, "seconds": run.seconds,
                "cpu_user_s": run.cpu_user_s, "cpu_sys_s": run.cpu_sys_s, "rss_peak_bytes": run.rss_peak_bytes,
                "broker_cpu_s": broker.user_s + broker.sys_s})
            );
            continue;
        }
        println!(
            "{:<8}{} x {} B, batch.size {}, {}, {} replicas: {:.0} records/s; CPU a record: client {:.3} us (user {:.3}, system {:.3}), brokers {:.3} us; client's peak RSS {:.1} MB; load {}",
            verb.name(),
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

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
