//! A client in a process of its own, whose work and CPU are measured: the same for every broker.
//!
//! In: a [`Load`] and one of two verbs. Out: a [`ClientRun`] as a line of JSON, read by [`child`] in the process that
//! measures the brokers.

use std::collections::VecDeque;
use std::io::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use klamm::{
    Client, Compression, Consumer, Delivery, NewTopic, Producer, Record, StartOffset, TopicPartition,
};
use serde::{Deserialize, Serialize};

use crate::usage::{Cpu, resident_bytes};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PARTITIONS: i32 = 6;

/// What a client does.
#[derive(Debug, Clone, Parser)]
pub struct Load {
    /// Records
    #[arg(long, default_value_t = 2_000_000)]
    pub records: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// batch.size in bytes
    #[arg(long, default_value_t = 16_384)]
    pub batch_size: usize,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    pub compression: String,
    /// Replicas of the topic
    #[arg(long, default_value_t = 3)]
    pub replicas: i16,
    /// Records that may be unacknowledged
    #[arg(long, default_value_t = 10_000)]
    pub window: usize,
    /// Topic, which is created by `produce`
    #[arg(long, default_value = "bench")]
    pub topic: String,
}

/// What a client does it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Verb {
    /// Creates the topic and sends all records: idempotent, acks=all.
    Produce,
    /// Reads them from the beginning.
    Fetch,
    /// Deletes the topic.
    Delete,
}

impl Verb {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Fetch => "fetch",
            Self::Delete => "delete",
        }
    }
}

/// What it came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ClientRun {
    pub records: u64,
    pub seconds: f64,
    pub cpu_user_s: f64,
    pub cpu_sys_s: f64,
    pub rss_peak_bytes: u64,
}

impl Load {
    /// The command line of a client's process that does this.
    pub fn arguments(&self, bootstrap: &str, verb: Verb) -> Vec<String> {
        vec![
            "client".to_owned(),
            format!("--bootstrap={bootstrap}"),
            format!("--verb={}", verb.name()),
            format!("--records={}", self.records),
            format!("--size={}", self.size),
            format!("--batch-size={}", self.batch_size),
            format!("--compression={}", self.compression),
            format!("--replicas={}", self.replicas),
            format!("--window={}", self.window),
            format!("--topic={}", self.topic),
        ]
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        (0..PARTITIONS).map(|index| TopicPartition::new(&*self.topic, index)).collect()
    }
}

/// The client's process: does the work and prints what it came to.
///
/// # Errors
///
/// The brokers refuse something, or give back other records than they were given.
#[allow(clippy::print_stdout, reason = "its parent reads it")]
pub fn run(bootstrap: String, verb: Verb, load: Load) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    // A task like any application's: the main thread would have to be woken by the operating system.
    let run = runtime.block_on(runtime.spawn(client(bootstrap, verb, load)))??;
    println!("{}", serde_json::to_string(&run)?);
    Ok(())
}

/// Runs this program again and reads the JSON that its child prints.
///
/// # Errors
///
/// The child failed.
pub fn child<T: for<'a> Deserialize<'a>>(arguments: &[String]) -> Result<T> {
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

async fn client(bootstrap: String, verb: Verb, load: Load) -> Result<ClientRun> {
    let client = Client::builder().bootstrap_servers(&bootstrap).client_id("bench").build()?;
    client.ready(Duration::from_secs(30)).await?;
    if verb == Verb::Produce {
        let topic = NewTopic::new(&load.topic).partitions(PARTITIONS).replicas(load.replicas);
        client.admin().create_topics([topic]).await?.all()?;
    }
    let before = Cpu::of("self")?;
    let started = Instant::now();
    match verb {
        Verb::Produce => produce(&client, &load).await?,
        Verb::Fetch => fetch(&client, &load).await?,
        Verb::Delete => drop(client.admin().delete_topics([&*load.topic]).await?.all()?),
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), Cpu::of("self")? - before);
    if verb == Verb::Produce {
        let written = end_of(&client, &load).await?;
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

async fn end_of(client: &Client, load: &Load) -> Result<u64> {
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    let ends = consumer.end_offsets(&load.partitions()).await?;
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
    let value: Bytes = (0..load.size)
        .map(|at| if at % 2 == 0 { b'k' } else { (at * 131 % 251) as u8 })
        .collect::<Vec<_>>()
        .into();
    let topic: Arc<str> = load.topic.as_str().into();
    let mut window: VecDeque<Delivery> = VecDeque::with_capacity(load.window);
    for _ in 0..load.records {
        if window.len() == load.window
            && let Some(oldest) = window.pop_front()
        {
            oldest.await?;
        }
        let record = Record::new(topic.clone()).value(value.clone());
        window.push_back(producer.send(record).await.map_err(|e| e.to_string())?);
    }
    for delivery in window {
        delivery.await?;
    }
    producer.close(Duration::from_secs(30)).await?;
    Ok(())
}

async fn fetch(client: &Client, load: &Load) -> Result<()> {
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    consumer.assign(load.partitions().into_iter().map(|partition| (partition, StartOffset::Beginning)));
    let (mut seen, mut bytes) = (0, 0);
    while seen < load.records {
        let records = consumer.poll(5_000, Duration::from_secs(30)).await?;
        if records.is_empty() {
            return Err(format!("{seen} of {} records came back", load.records).into());
        }
        for record in records {
            seen += 1;
            bytes += record.value.as_ref().map_or(0, Bytes::len);
        }
    }
    consumer.close().await?;
    if bytes != load.size * load.records as usize {
        return Err(format!("{bytes} bytes came back").into());
    }
    Ok(())
}
