//! Compares producers and consumers of several Kafka clients: CPU, throughput, memory, latency.
//!
//! ```text
//! this program ──starts──▶ broker (a process)
//!      │  for each round, workload and client: a fresh topic
//!      └──starts──▶ client (a process) ──"ready"──▶ end offsets ──"go"──▶ ... ──report──▶ end offsets, judged
//! ```
//!
//! It builds the clients itself. A row counts only if every delivery was acknowledged and the end offsets, read by
//! another client, grew by exactly the number of records.

mod broker;
mod client;
mod consume;
mod growth;
mod run;
mod table;
mod workload;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Any error of this program.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Compares producers of several Kafka clients.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every client over every workload, medians of the rounds
    Peers(Peers),
    /// Every client reads what was written before, in a group of its own
    Consume(Peers),
    /// What klamm costs at 6 and at 1,000 partitions, and idle
    Growth(growth::Growth),
    /// Names of clients and workloads
    List,
}

/// What to compare, and how often.
#[derive(Debug, Args)]
struct Peers {
    /// kafka (Apache Kafka from its jars, one node) or lite (broker-lite)
    #[arg(long, default_value = "kafka")]
    broker: broker::Kind,
    /// Rounds; the clients take turns within each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these clients, by commas
    #[arg(long, value_delimiter = ',')]
    clients: Vec<String>,
    /// Only these workloads, by commas
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Use the clients' programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// A tenth of the records
    #[arg(long)]
    short: bool,
    /// Worker threads of the clients' async runtimes
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// One JSON object a row, with medians, instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let outcome = match Options::parse().what {
        What::Peers(peers) => run::peers(&peers),
        What::Consume(peers) => consume::peers(&peers),
        What::Growth(growth) => growth.run(),
        What::List => {
            println!("clients: {}", client::ALL.map(|client| client.name).join(", "));
            println!("workloads: {}", workload::ALL.map(|workload| workload.name).join(", "));
            println!("clients that consume: {}", client::READERS.map(|client| client.name).join(", "));
            println!("workloads of consume: {}", consume::ALL.map(|workload| workload.name).join(", "));
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("klamm-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
