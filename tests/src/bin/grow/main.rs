//! A cluster grows and moves under load: more partitions, more replicas, partitions moved, a broker drained and removed,
//! another one added and filled; then the whole log is read and judged.
//!
//! In: a kind of cluster and a time. Out: what was moved, what the history checker says, and a status: 0 only if nothing
//! was lost, duplicated or out of order, and everything was moved that should be.
//!
//! ```text
//! producers ──▶ cluster ◀── steps: grow, move, drain, remove, add, fill; then moves by chance until the time is up
//!      │           └──▶ consumers that follow the growth
//!      └──────────▶ history ◀──┘
//! ```

#![allow(clippy::print_stdout, reason = "a program that reports")]

mod load;
mod steps;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker_lite::Cluster;
use clap::{Parser, ValueEnum};
use klamm::{Admin, Client, ClientBuilder};
use klamm_tests::history::{Promises, Rule, check};
use klamm_tests::process::ApacheKafka;
use klamm_tests::usage::load_average;
use tokio::task::JoinSet;
use tokio::time::Instant;

use load::World;
use steps::{Moved, Steps};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Grows and moves a topic under load, and judges what its log holds in the end.
#[derive(Debug, Parser)]
struct Options {
    /// Kind of cluster
    #[arg(long, default_value = "lite")]
    backend: Kind,
    /// Minutes of load; the steps take as long as they take
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Records that all producers together write in a second
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Which partitions go where, keys and sizes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// broker-lite in this process, in memory
    Lite,
    /// Apache Kafka, four nodes; no broker is removed or added
    Kafka,
}

/// Who is asked for all this.
enum System {
    Lite(Box<Cluster>),
    Kafka(ApacheKafka),
}

impl System {
    async fn start(kind: Kind) -> Result<Self, Error> {
        Ok(match kind {
            Kind::Lite => {
                Self::Lite(Box::new(Cluster::builder().brokers(steps::BROKERS as u32).start().await?))
            }
            Kind::Kafka => {
                if let Some(missing) = ApacheKafka::missing() {
                    return Err(missing.into());
                }
                let settings = ["auto.create.topics.enable=false", "auto.leader.rebalance.enable=false"];
                let start = move || ApacheKafka::start_with(steps::BROKERS, &settings);
                Self::Kafka(tokio::task::spawn_blocking(start).await??)
            }
        })
    }

    /// A client that hears of new partitions within a second.
    fn client(&self) -> ClientBuilder {
        let builder = match self {
            Self::Lite(cluster) => {
                Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle())
            }
            Self::Kafka(kafka) => Client::builder().bootstrap_servers(kafka.bootstrap()),
        };
        builder.metadata_max_age_ms(Duration::from_secs(1))
    }

    fn admin(&self) -> Result<Admin, Error> {
        Ok(self.client().build()?.admin())
    }

    fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Lite(cluster) => Some(cluster),
            Self::Kafka(_) => None,
        }
    }
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

/// Returns whether all went well.
async fn run(options: &Options) -> Result<bool, Error> {
    println!(
        "{:?}, seed {}, {} minutes, load {}",
        options.backend,
        options.seed,
        options.minutes,
        load_average()
    );
    let system = Arc::new(System::start(options.backend).await?);
    let world = Arc::new(World::new(options.seed, options.rate));
    let admin = system.admin()?;
    let mut steps = Steps::new(world.clone(), admin, options.seed);
    steps.create_topic().await?;

    let (mut producers, mut consumers) = (JoinSet::new(), JoinSet::new());
    for (number, style) in load::Style::ALL.into_iter().enumerate() {
        producers.spawn(load::produce(world.clone(), system.client(), number as u64, style));
    }
    for number in 0..2 {
        consumers.spawn(load::consume(world.clone(), system.client(), number));
    }
    let until = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    let grown = steps.all(&system, until).await;
    // Whatever it came to: producers must end before anybody looks.
    world.over.store(true, Ordering::SeqCst);
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    let moved = grown?;
    let ends = load::read_logs(&world, &system).await?;
    world.tell_ends(ends);
    while let Some(ended) = consumers.join_next().await {
        ended??;
    }
    let logs = match system.cluster().map(Cluster::check) {
        None => Ok("cannot be held against each other here"),
        Some(held) if held.is_ok() => Ok("equal below the high watermark, one leader an epoch"),
        Some(held) => Err(held.to_string()),
    };
    Ok(report(&world, &moved, &logs))
}

/// Prints what happened; returns whether nothing is wrong.
fn report(world: &World, moved: &Moved, logs: &Result<&str, String>) -> bool {
    let verdict = check(&world.history.lock(), &Promises::default());
    println!("\n{verdict}");
    println!("partitions         {} to {}", steps::PARTITIONS.0, steps::PARTITIONS.1);
    println!("replicas made      {}", moved.made);
    println!("replicas given up  {}", moved.given_up);
    println!("reassignments      {} in {} requests", moved.reassignments, moved.requests);
    println!("leaders moved      {}", moved.leaders);
    println!("broker removed     {}", moved.removed.map_or("none".into(), |id| id.to_string()));
    println!(
        "broker added       {}",
        moved.added.map_or("none".into(), |(id, led)| format!("{id}, leads {led} partitions"))
    );
    println!("records            {}", verdict.sent);
    println!("acknowledged       {}", verdict.acked);
    println!("read by consumers  {}", world.read.load(Ordering::SeqCst));
    println!("failed             {} not written, {} maybe", verdict.failed, verdict.maybe_written);
    println!("retried batches    {}", world.retries.load(Ordering::SeqCst));
    println!("lost               {}", verdict.count(Rule::Lost) + verdict.count(Rule::WrongOffset));
    println!("duplicated         {}", verdict.count(Rule::Duplicated));
    println!("reordered          {}", verdict.count(Rule::Reordered));
    println!(
        "replicas' logs     {}",
        match logs {
            Ok(told) => told,
            Err(told) => told.as_str(),
        }
    );
    println!("load               {}", load_average());
    // Growth is no excuse for a record that is not delivered.
    let failed = verdict.failed + verdict.maybe_written > 0;
    let ok = verdict.is_ok() && verdict.unknown == 0 && verdict.acked > 0 && !failed && logs.is_ok();
    println!("verdict            {}", if ok { "all promises kept" } else { "FAILED" });
    ok
}
