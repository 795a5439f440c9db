//! How long nobody can work after a leader or the controller is gone, by a client's clock.
//!
//! In: how often each fault is done. Out: one row a fault: median, p99 and worst time from the fault until work is
//! accepted again, beside the longest stall of the machine's scheduler in the same rows.
//!
//! ```text
//! fault ──────────────────────────────────────────▶ record acknowledged (acks=all), or topic created
//!   the others notice, elect, tell each other; the client notices, asks again, sends
//! ```
//!
//! Three brokers in memory with the test profile, a partition with three replicas. The fault is over, and every
//! replica in sync again, before the next one.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use broker_lite::{Cluster, Side};
use clap::Parser;
use klamm::{Admin, Client, ErrorCode, NewTopic, Producer, Record};
use klamm_tests::measure::{Stalls, Times, Watchdog};
use klamm_tests::usage::load_average;

type Error = Box<dyn std::error::Error + Send + Sync>;

const TOPIC: &str = "work";
/// Work that is not accepted after this time never will be.
const GIVEN_UP: Duration = Duration::from_secs(20);
/// The promise, of the medians of the rows that are kills.
const AIM: Duration = Duration::from_millis(300);

/// Kills, stops and cuts off leaders and controllers, and measures until a client can work again.
#[derive(Debug, Parser)]
struct Options {
    /// Kills of each kind; stops and cuts are a quarter of them
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Only the rows whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Which moments chance gives
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Broker setting other than the test profile's, KEY=VALUE; may be given several times
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = setting)]
    configs: Vec<(String, String)>,
    /// Status 1 where the median of a kill is above 300 ms
    #[arg(long)]
    strict: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The leader of the partition that is written to.
    Leader,
    /// The active controller.
    Controller,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The process dies, and its connections with it.
    Kill,
    /// The process stands still; connections stay open.
    Stop,
    /// Its messages, and those to it, do not arrive; connections stay open.
    Cut,
}

struct Row {
    name: &'static str,
    who: Who,
    how: How,
    /// A client with Kafka's defaults, not one for short outages.
    patient: bool,
}

const ROWS: &[Row] = &[
    Row { name: "leader killed", who: Who::Leader, how: How::Kill, patient: false },
    Row { name: "leader killed, default client", who: Who::Leader, how: How::Kill, patient: true },
    Row { name: "leader stopped", who: Who::Leader, how: How::Stop, patient: false },
    Row { name: "leader cut off", who: Who::Leader, how: How::Cut, patient: false },
    Row { name: "controller killed", who: Who::Controller, how: How::Kill, patient: false },
    Row { name: "controller killed, default client", who: Who::Controller, how: How::Kill, patient: true },
    Row { name: "controller stopped", who: Who::Controller, how: How::Stop, patient: false },
    Row { name: "controller cut off", who: Who::Controller, how: How::Cut, patient: false },
];

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // A task like any application's: the main thread would have to be woken by the operating system.
    match tokio::spawn(run(options)).await.map_err(Error::from).flatten() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("failover: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every fault was survived, and, if asked for, soon enough.
async fn run(options: Options) -> Result<bool, Error> {
    println!("failover by a client's clock, in memory, test profile, {} kills a row", options.kills);
    println!(
        "quick client: request.timeout.ms=100, retry.backoff.ms=10 to 50, reconnect.backoff.ms=10 to 50"
    );
    println!("load {}", load_average());
    println!(
        "{:<34}{:>6}{:>9}{:>9}{:>9}   longest stall (in the worst sample)",
        "ms", "times", "median", "p99", "worst"
    );
    let mut chance = fastrand::Rng::with_seed(options.seed);
    let (mut survived, mut soon) = (true, true);
    for row in ROWS.iter().filter(|row| row.name.contains(&options.only)) {
        let times = if row.how == How::Kill { options.kills } else { options.kills.div_ceil(4) };
        let measured = measure(row, times, &options.configs, &mut chance).await?;
        let Measured { times, stalls, worst_stalls, given_up } = &measured;
        println!("{:<34}{:>6}{times}   {stalls} ({worst_stalls})", row.name, times.len());
        if let Some(cause) = given_up {
            println!("    not accepted within {GIVEN_UP:?} once: {cause}");
            survived = false;
        }
        soon &= row.how != How::Kill || row.patient || times.median() <= AIM;
    }
    println!("load {}", load_average());
    println!("medians of kills within {AIM:?}: {}", if soon && survived { "yes" } else { "NO" });
    Ok(survived && (soon || !options.strict))
}

#[derive(Default)]
struct Measured {
    times: Times,
    /// In the whole row.
    stalls: Stalls,
    /// While the worst sample was taken.
    worst_stalls: Stalls,
    /// Why the row ended early.
    given_up: Option<String>,
}

async fn measure(
    row: &Row,
    times: u32,
    configs: &[(String, String)],
    chance: &mut fastrand::Rng,
) -> Result<Measured, Error> {
    let builder = Cluster::builder().brokers(3).topic(TOPIC, Some(1), Some(3));
    let builder = configs.iter().fold(builder, |builder, (key, value)| builder.config(key, value));
    let cluster = builder.start().await?;
    let work = Work::new(&cluster, row)?;
    let watchdog = Watchdog::start();
    let mut measured = Measured::default();
    work.until_accepted(0).await?;
    for number in 1..=times {
        // Anywhere between two heartbeats.
        tokio::time::sleep(Duration::from_millis(100) + Duration::from_micros(chance.u64(0..100_000))).await;
        let victim = match row.who {
            Who::Leader => cluster.leader_of(TOPIC, 0).ok_or("no leader")?,
            Who::Controller => cluster.controller().ok_or("no controller")?,
        };
        measured.stalls = measured.stalls.max(watchdog.take());
        let began = Instant::now();
        let fault = Outage::begin(&cluster, victim, row.how)?;
        let accepted = work.until_accepted(number).await;
        let took = began.elapsed();
        let stalls = watchdog.take();
        fault.end().await?;
        if let Err(error) = accepted {
            measured.given_up = Some(error.to_string());
            break;
        }
        if took > measured.times.worst() {
            measured.worst_stalls = stalls;
        }
        measured.times.push(took);
        measured.stalls = measured.stalls.max(stalls);
        cluster.until_controller().await;
        cluster.until_isr(TOPIC, 0, |isr| isr.len() == 3).await;
    }
    let report = cluster.check();
    if !report.is_ok() {
        return Err(format!("{}: {report}", row.name).into());
    }
    work.close().await;
    cluster.shutdown().await;
    Ok(measured)
}

/// A fault that is to be undone.
struct Outage<'a> {
    cluster: &'a Cluster,
    node: i32,
    how: How,
    cut: Option<broker_lite::Cut>,
}

impl<'a> Outage<'a> {
    fn begin(cluster: &'a Cluster, node: i32, how: How) -> Result<Self, Error> {
        let mut cut = None;
        match how {
            How::Kill => cluster.kill(node)?,
            How::Stop => cluster.pause(node)?,
            How::Cut => cut = Some(cluster.cut(node, Side::Anyone)),
        }
        Ok(Self { cluster, node, how, cut })
    }

    async fn end(self) -> Result<(), Error> {
        match self.how {
            How::Kill => self.cluster.restart(self.node).await?,
            How::Stop => self.cluster.resume(self.node)?,
            How::Cut => drop(self.cut),
        }
        Ok(())
    }
}

/// What a client wants to get done.
enum Work {
    /// A record.
    Records(Producer),
    /// A topic.
    Topics(Admin),
}

impl Work {
    fn new(cluster: &Cluster, row: &Row) -> Result<Self, Error> {
        let client = client(cluster, row.patient)?;
        Ok(match row.who {
            Who::Leader => {
                Self::Records(Producer::builder().client(&client).linger_ms(Duration::ZERO).build()?)
            }
            Who::Controller => Self::Topics(client.admin()),
        })
    }

    /// Returns when one more record is acknowledged, or one more topic is created.
    async fn until_accepted(&self, number: u32) -> Result<(), Error> {
        let done = async {
            match self {
                Self::Records(producer) => {
                    let record = Record::new(TOPIC).partition(0).value(number.to_string());
                    producer.send_and_wait(record).await?;
                    Ok::<_, Error>(())
                }
                Self::Topics(admin) => until_created(admin, &format!("topic-{number}")).await,
            }
        };
        tokio::time::timeout(GIVEN_UP, done).await.map_err(|_| "nobody else took over")?
    }

    async fn close(self) {
        if let Self::Records(producer) = self {
            // All is acknowledged; the cluster goes away next.
            let _ = producer.close(GIVEN_UP).await;
        }
    }
}

/// Asks again until the topic is there: that the controller is away is a passing state.
async fn until_created(admin: &Admin, name: &str) -> Result<(), Error> {
    loop {
        let asked = admin.create_topics([NewTopic::new(name).partitions(1).replicas(3)]).await;
        let passing = match asked.map(|results| results.all()) {
            Ok(Ok(_)) => return Ok(()),
            // An earlier request got through, and its answer did not.
            Ok(Err(refused)) if refused.code == ErrorCode::TOPIC_ALREADY_EXISTS => return Ok(()),
            Ok(Err(refused)) => refused.recovery() == klamm::Recovery::Retry,
            Err(error) => error.recovery() == klamm::Recovery::Retry,
        };
        if !passing {
            return Err(format!("{name} cannot be created").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn client(cluster: &Cluster, patient: bool) -> Result<Client, Error> {
    let builder = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
    if patient {
        return Ok(builder.build()?);
    }
    let ms = Duration::from_millis;
    let builder = builder.request_timeout_ms(ms(100)).retry_backoff_ms(ms(10)).retry_backoff_max_ms(ms(50));
    Ok(builder.reconnect_backoff_ms(ms(10)).reconnect_backoff_max_ms(ms(50)).build()?)
}
