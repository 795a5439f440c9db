//! What consumers cost that have nothing to do: members whose coordinator refuses, is silent or is gone, readers of a damaged
//! batch and of a deleted topic, and 10,000 assigned partitions; and how soon the first record is there after `subscribe`.
//!
//! `broker-lite up` is a process of its own. CPU is what the operating system accounts to this process, user and system,
//! while a state lasts; the load of the machine is printed with it. Status 1 where a state is above its bound.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use klamm::fault::{Fault, FaultHandle, FaultLayer, Layer};
use klamm::{
    ApiKey, Client, Connector, Consumer, ConsumerError, ErrorCode, Frame, Link, NewTopic, OffsetReset,
    Producer, Record, StartOffset, TcpConnector, TopicPartition,
};
use klamm_tests::measure::Times;
use klamm_tests::process::BrokerLite;
use klamm_tests::usage::{ThreadTimes, load_average};
use tower::ServiceExt;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const TOPIC: &str = "idle";
/// Promised of every state, in hundredths of a core.
const BOUND: f64 = 2.0;
/// Promised of the first record.
const FIRST: Duration = Duration::from_millis(100);
/// Partitions that one request creates.
const AT_ONCE: i32 = 2_000;
/// Partitions of a topic, each with so many records that somebody who reads has something to commit.
const PARTITIONS: i32 = 6;
const RECORDS: usize = 20;
const VALUE_BYTES: usize = 1_000;

/// Measures idle consumers and the first record.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds that each state is measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Assigned partitions
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
    /// Subscriptions until the first record
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Status 0 whatever is measured: for a try in a build that is not optimised
    #[arg(long)]
    lenient: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let kept = runtime.block_on(measure(&options))?;
    println!("load average {}", load_average());
    Ok(if kept || options.lenient { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(options: &Options) -> Result<bool> {
    let cluster = BrokerLite::up(&["--config", "group.initial.rebalance.delay.ms=0"])?;
    let mut kept = first_records(&cluster, options.rounds).await?;
    for (name, api, fault) in states() {
        kept &= refused(&cluster, name, api, fault, options).await?;
    }
    kept &= damaged(&cluster, options).await?;
    kept &= deleted(&cluster, options).await?;
    kept &= assigned(&cluster, options).await?;
    Ok(kept)
}

fn states() -> Vec<(&'static str, ApiKey, Fault)> {
    use ApiKey::{FindCoordinator, Heartbeat, JoinGroup, OffsetCommit, OffsetFetch, SyncGroup};
    let refuse = Fault::Refuse;
    vec![
        ("nothing is wrong", ApiKey::LeaveGroup, Fault::DropAnswer),
        ("coordinator unavailable", FindCoordinator, refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE)),
        ("coordinator silent", JoinGroup, Fault::DropRequest),
        ("coordinator unreachable", JoinGroup, Fault::CutBefore),
        ("illegal generation", SyncGroup, refuse(ErrorCode::ILLEGAL_GENERATION)),
        ("unknown member", JoinGroup, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("unknown member at the heartbeat", Heartbeat, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("fenced instance id", JoinGroup, refuse(ErrorCode::FENCED_INSTANCE_ID)),
        ("inconsistent protocol", JoinGroup, refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)),
        ("invalid group id", JoinGroup, refuse(ErrorCode::INVALID_GROUP_ID)),
        ("offsets are loading", OffsetFetch, refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)),
        ("metadata too large", OffsetCommit, refuse(ErrorCode::OFFSET_METADATA_TOO_LARGE)),
    ]
}

async fn create(client: &Client, topic: &str, partitions: i32) -> Result<()> {
    client.admin().create_topics([NewTopic::new(topic).partitions(partitions).replicas(1)]).await?.all()?;
    Ok(())
}

/// A topic with records.
async fn fill(cluster: &BrokerLite, topic: &str) -> Result<()> {
    let client = Client::builder().bootstrap_servers(cluster.bootstrap()).build()?;
    create(&client, topic, PARTITIONS).await?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for partition in 0..PARTITIONS {
        for _ in 0..RECORDS {
            let record = Record::new(topic).partition(partition).value(vec![b'v'; VALUE_BYTES]);
            drop(producer.send(record).await?);
        }
    }
    Ok(producer.flush().await?)
}

fn client(cluster: &BrokerLite) -> Result<(Client, FaultHandle)> {
    let layer = FaultLayer::new(1);
    let faults = layer.handle();
    let connector = layer.layer(TcpConnector::new());
    Ok((Client::builder().bootstrap_servers(cluster.bootstrap()).connector(connector).build()?, faults))
}

/// Reads until the consumer is closed, as an application would; errors are counted.
async fn read(consumer: &Consumer) -> usize {
    let mut told = 0;
    loop {
        match consumer.recv().await {
            Err(ConsumerError::Closed) => return told,
            Err(_) => told += 1,
            Ok(_) => {}
        }
    }
}

/// Hundredths of a core that this process takes while the consumer is read from.
async fn row(name: &str, consumer: &Consumer, options: &Options) -> Result<bool> {
    let me = [std::process::id()];
    let mut told = 0;
    let measured = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = ThreadTimes::of_all(&me)?;
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        let cpu = ThreadTimes::of_all(&me)?.seconds_since(&before);
        Ok::<_, Error>(100.0 * cpu / begun.elapsed().as_secs_f64())
    };
    let percent = tokio::select! {
        biased;
        percent = measured => percent?,
        count = read(consumer) => { told += count; return Err(format!("{name}: closed after {told} errors").into()) }
    };
    let kept = percent <= BOUND;
    println!("idle, {name:<34} {percent:6.2} % of a core{}", if kept { "" } else { "  ABOVE THE BOUND" });
    Ok(kept)
}

async fn refused(
    cluster: &BrokerLite,
    name: &'static str,
    api: ApiKey,
    fault: Fault,
    options: &Options,
) -> Result<bool> {
    let (client, faults) = client(cluster)?;
    let topic = format!("{TOPIC}-{}", name.replace(' ', "-"));
    fill(cluster, &topic).await?;
    let rule = faults.on(api).then(fault);
    let builder = Consumer::builder().client(&client).group_id(&topic);
    let builder = builder.auto_offset_reset(OffsetReset::Earliest);
    let consumer: Consumer = builder.auto_commit_interval_ms(Duration::from_millis(100)).build()?;
    consumer.subscribe([topic.as_str()]);
    let kept = row(name, &consumer, options).await?;
    drop(rule);
    // A conversation that fell silent stays so; how long close waits for it is not what is measured here.
    let _ = tokio::time::timeout(Duration::from_secs(1), consumer.close()).await;
    Ok(kept)
}

/// Every batch arrives with a byte that is another one.
async fn damaged(cluster: &BrokerLite, options: &Options) -> Result<bool> {
    fill(cluster, "damaged").await?;
    let connector = TcpConnector::new().map_response(|link: Link| Link::new(link.map_response(damage)));
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(connector.erase()).build()?;
    let builder = Consumer::builder().client(&client).group_id("damaged");
    let consumer: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build()?;
    consumer.subscribe(["damaged"]);
    // One batch of each answer is damaged, the other partitions go on.
    let mut read = 0;
    while !matches!(consumer.recv().await, Err(ConsumerError::Corrupt { .. })) {
        read += 1;
        if read > RECORDS * PARTITIONS as usize {
            return Err("a damaged batch was read".into());
        }
    }
    let kept = row("damaged batches", &consumer, options).await?;
    consumer.close().await?;
    Ok(kept)
}

/// In the middle of a record's value, if it has records.
fn damage(answer: Frame) -> Frame {
    let (key, version, length) = (answer.api_key, answer.api_version, answer.len_bytes());
    if key != ApiKey::Fetch as i16 || length < VALUE_BYTES {
        return answer;
    }
    let mut bytes = answer.into_contiguous().to_vec();
    bytes[length / 2] ^= 1;
    Frame::new(key, version, bytes.into())
}

async fn deleted(cluster: &BrokerLite, options: &Options) -> Result<bool> {
    let (client, _) = client(cluster)?;
    create(&client, "deleted", 6).await?;
    let builder = Consumer::builder().client(&client).group_id("deleted").allow_auto_create_topics(false);
    let consumer: Consumer = builder.build()?;
    consumer.subscribe(["deleted"]);
    while consumer.assignment().len() < 6 {
        let _ = consumer.poll(1, Duration::from_millis(20)).await;
    }
    client.admin().delete_topics(["deleted"]).await?.all()?;
    let kept = row("deleted topic", &consumer, options).await?;
    consumer.close().await?;
    Ok(kept)
}

async fn assigned(cluster: &BrokerLite, options: &Options) -> Result<bool> {
    let (client, _) = client(cluster)?;
    let mut partitions = Vec::new();
    let mut left = options.partitions;
    while left > 0 {
        let (name, count) = (format!("many-{left}"), left.min(AT_ONCE));
        create(&client, &name, count).await?;
        partitions
            .extend((0..count).map(|index| (TopicPartition::new(name.as_str(), index), StartOffset::End)));
        left -= count;
    }
    let consumer: Consumer = Consumer::builder().client(&client).build()?;
    let names: Vec<_> = partitions.iter().map(|(name, _)| name.clone()).collect();
    let begun = Instant::now();
    consumer.assign(partitions);
    for name in &names {
        consumer.position(name).await?;
    }
    println!("{} partitions have their positions after {:.1} s", names.len(), begun.elapsed().as_secs_f64());
    let kept = row(&format!("{} assigned partitions", names.len()), &consumer, options).await?;
    consumer.close().await?;
    Ok(kept)
}

/// From `subscribe` of a new consumer on a client that knows the cluster, in a new group, to the first record.
async fn first_records(cluster: &BrokerLite, rounds: usize) -> Result<bool> {
    let client = Client::builder().bootstrap_servers(cluster.bootstrap()).build()?;
    create(&client, "first", 3).await?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for partition in 0..3 {
        producer.send_and_wait(Record::new("first").partition(partition).value("v")).await?;
    }
    let mut times = Times::default();
    for round in 0..rounds.max(1) {
        let builder =
            Consumer::builder().bootstrap_servers(cluster.bootstrap()).group_id(format!("first-{round}"));
        let consumer: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build()?;
        let begun = Instant::now();
        consumer.subscribe(["first"]);
        consumer.recv().await?;
        let took = begun.elapsed();
        // The first one makes __consumer_offsets.
        match round {
            0 => println!("first record after subscribe: {took:?} where the cluster had no groups yet"),
            _ => times.push(took),
        }
        consumer.close().await?;
    }
    let kept = times.is_empty() || times.median() <= FIRST;
    let verdict = if kept { "" } else { "  ABOVE THE BOUND" };
    println!("first record after subscribe, ms: {:>9}{:>9}{:>9}", "median", "p99", "worst");
    println!("{:>33}{times}{verdict}", format!("{} rounds", times.len()));
    Ok(kept)
}
