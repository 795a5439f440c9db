//! Ships files line by line through a replicated cluster while a leader dies, and proves that nothing was lost.
//!
//! `cargo run --release --example quickstart` starts three brokers in this process, creates topic `files`
//! (6 partitions, 3 replicas, min.insync.replicas=2), produces every line of every text file below `--input`
//! with acks=all and the file's path as key, kills the broker that leads most partitions half-way, goes on,
//! reads everything back and compares each file's SHA-256 with the original.
//!
//! Order and exactly one copy are the work of producer and cluster: the reader below neither sorts nor
//! removes duplicates, it only feeds each key's hash.

#![allow(clippy::print_stderr, reason = "progress and errors go to standard error")]

mod files;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_lite::{Cluster, ClusterError};
use bytes::Bytes;
use clap::Parser;
use files::{SourceFile, Survey};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use klamm::{Acks, Client, Consumer, NewTopic, Producer, Record, StartOffset, TopicPartition};
use report::Report;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Error = Box<dyn std::error::Error + Send + Sync>;

const PARTITIONS: i32 = 6;
/// Deliveries that may wait for their acknowledgement.
const WINDOW: usize = 10_000;

/// A reader that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(30);

/// Everything is acknowledged, so a kill that waits for one more request waits in vain.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Ships files through a Kafka cluster line by line and verifies them by SHA-256.
#[derive(Debug, Parser)]
struct Options {
    /// Directory whose text files are shipped [default: this workspace's own sources]
    #[arg(long)]
    input: Option<PathBuf>,
    /// Ship everything this many times over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Let the embedded brokers speak over TCP instead of in process
    #[arg(long, conflicts_with = "bootstrap")]
    tcp: bool,
    /// Use a running Kafka instead of embedded brokers; no broker is killed
    #[arg(long, value_name = "HOST:PORT[,...]")]
    bootstrap: Option<String>,
    /// Larger files are skipped (bytes)
    #[arg(long, default_value_t = 16 << 20)]
    max_file_bytes: u64,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match run(Options::parse()).await {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Returns whether every file came back identical.
async fn run(options: Options) -> Result<bool, Error> {
    let input = options.input.clone().unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| ".".into(), PathBuf::from)
    });
    let survey = files::survey(&input, options.max_file_bytes)?;
    eprintln!("{}", survey.summary(&input));
    if survey.files.is_empty() {
        return Err(format!("no text files below {}", input.display()).into());
    }

    match &options.bootstrap {
        Some(servers) => {
            let client = Client::builder().bootstrap_servers(servers).client_id("quickstart").build()?;
            let topic = format!("files-{}", random_suffix());
            let outcome = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
                outcome = ship_and_verify(&client, None, &topic, &survey, options.passes) => outcome,
            };
            let deleted = client.admin().delete_topics([topic.as_str()]).await;
            let identical = outcome?;
            deleted?.all()?;
            Ok(identical)
        }
        None => {
            let cluster = Arc::new(Cluster::builder().brokers(3).tcp(options.tcp).start().await?);
            let builder = Client::builder().bootstrap_servers(cluster.bootstrap()).client_id("quickstart");
            let client =
                if options.tcp { builder.build()? } else { builder.connector(cluster.handle()).build()? };
            let identical =
                ship_and_verify(&client, Some(&cluster), "files", &survey, options.passes).await?;
            let health = cluster.check();
            if !health.is_ok() {
                return Err(format!("the cluster's logs disagree:\n{health}").into());
            }
            Ok(identical)
        }
    }
}

async fn ship_and_verify(
    client: &Client,
    cluster: Option<&Arc<Cluster>>,
    topic: &str,
    survey: &Survey,
    passes: u32,
) -> Result<bool, Error> {
    client.ready(Duration::from_secs(30)).await?;
    let brokers = client.admin().describe_cluster().await?.brokers.len();
    let replicas = brokers.min(3) as i16;
    let created = NewTopic::new(topic)
        .partitions(PARTITIONS)
        .replicas(replicas)
        .config("min.insync.replicas", if replicas > 1 { "2" } else { "1" });
    client.admin().create_topics([created]).await?.all()?;

    let total = survey.records() * u64::from(passes);
    let bar = progress(total * 2);
    let epochs_before = leader_epochs(client, topic).await?;
    let started = Instant::now();
    let shipped = ship(client, cluster, topic, survey, passes, &bar).await?;
    let elections = leader_epochs(client, topic).await? - epochs_before;
    let rebuilt = rebuild(client, topic, &bar).await?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let report = Report {
        files: survey.files.len() as u64 * u64::from(passes),
        records: total,
        bytes: survey.bytes() * u64::from(passes),
        seconds,
        elections,
        in_flight_at_kill: shipped.in_flight_at_kill,
        longest_pause: shipped.longest_pause,
    };
    Ok(report.print(&differing(survey, passes, &rebuilt)))
}

/// Something that no earlier run has used as a topic's name.
fn random_suffix() -> String {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{:x}{:x}", since_epoch.as_micros(), std::process::id())
}

/// What the producing half saw.
struct Shipped {
    in_flight_at_kill: Option<usize>,
    longest_pause: Duration,
}

/// Produces every line of every pass; kills the busiest leader half-way if the cluster is ours.
async fn ship(
    client: &Client,
    cluster: Option<&Arc<Cluster>>,
    topic: &str,
    survey: &Survey,
    passes: u32,
    bar: &ProgressBar,
) -> Result<Shipped, Error> {
    let producer: Producer = Producer::builder().client(client).acks(Acks::All).build()?;
    let (deliveries, pauses) = watch_acknowledgements(bar.clone());
    let half = survey.records() * u64::from(passes) / 2;
    let mut sent = 0;
    let mut kill = None;
    for pass in 0..passes {
        for file in &survey.files {
            let key = key_of(pass, passes, file);
            for line in file.lines() {
                if sent == half
                    && let Some(cluster) = cluster
                {
                    kill = Some(kill_busiest_leader(cluster.clone(), topic.to_owned()));
                }
                let record = Record::new(topic).key(key.clone()).value(line);
                let delivery = producer.send(record).await.map_err(|refused| refused.to_string())?;
                if deliveries.send(delivery).await.is_err() {
                    // The watcher has ended, so a delivery failed, and it knows why.
                    pauses.await??;
                    return Err("a record was not acknowledged".into());
                }
                sent += 1;
            }
        }
    }
    drop(deliveries);
    producer.flush().await?;
    let longest_pause = pauses.await??;
    let in_flight_at_kill = match kill {
        Some(mut kill) => match tokio::time::timeout(KILL_GRACE, &mut kill).await {
            Ok(killed) => Some(killed??),
            Err(_) => {
                kill.abort();
                return Err("after half-way nothing was sent to the broker that was to be killed: ship more, for example by --passes 10".into());
            }
        },
        None => None,
    };
    producer.close(Duration::from_secs(30)).await?;
    Ok(Shipped { in_flight_at_kill, longest_pause })
}

/// Awaits every delivery in order; gives the longest time between two acknowledgements.
fn watch_acknowledgements(
    bar: ProgressBar,
) -> (mpsc::Sender<klamm::Delivery>, JoinHandle<Result<Duration, Error>>) {
    let (sender, mut receiver) = mpsc::channel::<klamm::Delivery>(WINDOW);
    let task = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, None::<Instant>);
        while let Some(delivery) = receiver.recv().await {
            delivery.await?;
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                longest = longest.max(now - last);
            }
            bar.inc(1);
        }
        Ok(longest)
    });
    (sender, task)
}

/// Waits until the broker that leads most partitions has a Produce it has not answered, and kills it there.
/// Gives the number of such requests.
fn kill_busiest_leader(cluster: Arc<Cluster>, topic: String) -> JoinHandle<Result<usize, ClusterError>> {
    tokio::spawn(async move {
        let mut leads = BTreeMap::<i32, usize>::new();
        for partition in 0..PARTITIONS {
            if let Some(leader) = cluster.leader_of(&topic, partition) {
                *leads.entry(leader).or_default() += 1;
            }
        }
        let victim = leads.iter().max_by_key(|(_, led)| **led).map_or(1, |(broker, _)| *broker);
        cluster.kill_when_produce_in_flight(victim).await
    })
}

/// Reads the topic from its beginning to its end; gives each key's hash over its records, in the order they came.
async fn rebuild(
    client: &Client,
    topic: &str,
    bar: &ProgressBar,
) -> Result<BTreeMap<Bytes, [u8; 32]>, Error> {
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    let partitions: Vec<_> = (0..PARTITIONS).map(|index| TopicPartition::new(topic, index)).collect();
    let ends = consumer.end_offsets(&partitions).await?;
    consumer.assign(partitions.iter().map(|partition| (partition.clone(), StartOffset::Beginning)));
    let mut left: i64 = ends.values().sum();
    bar.set_length(bar.position() + left.unsigned_abs());
    let mut hashes = BTreeMap::<Bytes, Sha256>::new();
    while left > 0 {
        let records = consumer.poll(5_000, SILENCE).await?;
        if records.is_empty() {
            return Err(
                format!("{left} records before the end offsets did not come within {SILENCE:?}").into()
            );
        }
        for record in records {
            let key = record.key.clone().ok_or("a record without a key")?;
            let value = record.value.as_ref().ok_or("a record without a value")?;
            match hashes.get_mut(&key) {
                Some(hash) => hash.update(value),
                None => {
                    let mut hash = Sha256::new();
                    hash.update(value);
                    hashes.insert(Bytes::copy_from_slice(&key), hash);
                }
            }
            left -= 1;
            bar.inc(1);
        }
    }
    consumer.close().await?;
    Ok(hashes.into_iter().map(|(key, hash)| (key, hash.finalize().into())).collect())
}

/// Names of the files that did not come back as they were.
fn differing(survey: &Survey, passes: u32, rebuilt: &BTreeMap<Bytes, [u8; 32]>) -> Vec<String> {
    let mut names = Vec::new();
    for pass in 0..passes {
        for file in &survey.files {
            let key = key_of(pass, passes, file);
            if rebuilt.get(&key) != Some(&file.sha256) {
                names.push(String::from_utf8_lossy(&key).into_owned());
            }
        }
    }
    names
}

/// The record key of a file: its path; with several passes each has a prefix of its own.
fn key_of(pass: u32, passes: u32, file: &SourceFile) -> Bytes {
    if passes == 1 {
        Bytes::from(file.name.clone())
    } else {
        Bytes::from(format!("{:05}/{}", pass + 1, file.name))
    }
}

/// Sum of the leader epochs of all partitions: every election adds one.
///
/// A broker may hear of a new topic later than the controller that created it, so this waits until the one that
/// answers knows a leader of every partition.
async fn leader_epochs(client: &Client, topic: &str) -> Result<i64, Error> {
    let begun = Instant::now();
    loop {
        let described = client.admin().describe_topics([topic]).await?.all();
        if let Ok([topic]) = described.as_deref()
            && topic.partitions.len() == PARTITIONS as usize
            && topic.partitions.iter().all(|partition| partition.leader.is_some())
        {
            return Ok(topic.partitions.iter().map(|partition| i64::from(partition.leader_epoch)).sum());
        }
        if begun.elapsed() > SILENCE {
            return Err(match described {
                Ok(_) => format!("topic {topic} has a partition without leader").into(),
                Err(error) => error.into(),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = "{elapsed:>4} [{wide_bar}] {pos}/{len} records ({per_sec})";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey_of(names: &[&str]) -> Survey {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        files::survey(dir.path(), 100).unwrap()
    }

    fn digest(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn a_file_that_is_missing_or_changed_in_any_pass_is_named() {
        let survey = survey_of(&["a", "b"]);
        let hashes = |pairs: &[(&'static str, &str)]| {
            pairs
                .iter()
                .map(|(key, text)| (Bytes::from_static(key.as_bytes()), digest(text.as_bytes())))
                .collect()
        };
        assert_eq!(differing(&survey, 1, &hashes(&[("a", "a"), ("b", "b")])), Vec::<String>::new());
        assert_eq!(differing(&survey, 1, &hashes(&[("a", "a"), ("b", "bb")])), ["b"], "a line twice");
        let second_lost = hashes(&[("00001/a", "a"), ("00001/b", "b"), ("00002/a", "a")]);
        assert_eq!(differing(&survey, 2, &second_lost), ["00002/b"]);
    }
}
