//! The broker, a process of its own, and an independent eye on its topics (librdkafka).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataTopic;
use tokio::signal::unix::{SignalKind, signal};

use crate::Error;

/// Members of a group get their partitions at once: how long the first one waits for others is not measured.
const NO_DELAY: &str = "group.initial.rebalance.delay.ms=0";

const LIMIT: Duration = Duration::from_secs(30);

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Apache Kafka 4.3.0, one node.
    Kafka,
    /// broker-lite, one node.
    Lite,
}

impl Kind {
    /// What the rows say.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka-4.3.0",
            Self::Lite => "broker-lite",
        }
    }
}

/// A running broker; stopped when dropped.
pub(crate) struct Broker {
    pub(crate) bootstrap: String,
    process: Process,
    admin: AdminClient<DefaultClientContext>,
    eye: BaseConsumer,
    runtime: tokio::runtime::Runtime,
}

enum Process {
    Kafka(tempfile::TempDir),
    Lite(Child),
}

impl Broker {
    /// Starts it and waits until it answers.
    pub(crate) fn start(kind: Kind) -> Result<Self, Error> {
        let (bootstrap, process) = match kind {
            Kind::Kafka => start_kafka()?,
            Kind::Lite => start_lite()?,
        };
        let config = |extra: &[(&str, &str)]| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &bootstrap);
            config.extend(extra.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
            config
        };
        let admin = config(&[]).create()?;
        let eye = config(&[("group.id", "bench"), ("topic.metadata.propagation.max.ms", "0")]).create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Self { bootstrap, process, admin, eye, runtime })
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        for outcome in self.runtime.block_on(self.admin.create_topics([&new], &options))? {
            outcome.map_err(|(name, code)| format!("topic {name}: {code}"))?;
        }
        self.await_leaders(topic, partitions)
    }

    /// A created topic has leaders only a moment later, and they know it another moment later. Until the first nothing
    /// else is to ask for it: librdkafka would remember for half a minute that there is no such topic.
    fn await_leaders(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let since = Instant::now();
        while since.elapsed() < LIMIT {
            let metadata = self.eye.fetch_metadata(Some(topic), LIMIT)?;
            let led = |topic: &MetadataTopic| topic.partitions().iter().filter(|p| p.leader() >= 0).count();
            let all_led = metadata.topics().iter().map(led).sum::<usize>() == partitions as usize;
            if all_led && self.end_offsets(topic, partitions).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{topic} has no leaders").into())
    }

    /// Space on the disk is given back a second later.
    pub(crate) fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let options = AdminOptions::new().request_timeout(Some(LIMIT));
        self.runtime.block_on(self.admin.delete_topics(&[topic], &options))?;
        Ok(())
    }

    /// The sum of the partitions' end offsets.
    pub(crate) fn end_offsets(&self, topic: &str, partitions: i32) -> Result<i64, Error> {
        (0..partitions).map(|p| Ok(self.eye.fetch_watermarks(topic, p, LIMIT)?.1)).sum()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        match &mut self.process {
            Process::Kafka(dir) => {
                let _ = cluster().args(["stop", "--dir"]).arg(dir.path()).status();
            }
            Process::Lite(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The root of klamm's own workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The script that has Kafka's jars.
pub(crate) fn cluster() -> Command {
    Command::new(root().join("tests/kafka/kafka-cluster"))
}

fn start_kafka() -> Result<(String, Process), Error> {
    let dir = tempfile::tempdir()?;
    let output = cluster()
        .args(["start", "--nodes", "1", "--config", "log.segment.delete.delay.ms=1000"])
        .args(["--config", NO_DELAY, "--dir"])
        .arg(dir.path())
        .stderr(Stdio::inherit())
        .output()?;
    stop_when_told(dir.path().to_owned())?;
    let process = Process::Kafka(dir);
    let text = String::from_utf8(output.stdout)?;
    let bootstrap =
        text.lines().find_map(|line| line.strip_prefix("bootstrap=")).ok_or("Apache Kafka did not start")?;
    Ok((bootstrap.to_owned(), process))
}

/// Kafka runs in a session of its own and would outlive a Ctrl-C.
fn stop_when_told(dir: PathBuf) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return std::future::pending().await;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = cluster().args(["stop", "--dir"]).arg(&dir).status();
        let _ = std::fs::remove_dir_all(&dir);
        std::process::exit(130);
    });
    Ok(())
}

fn start_lite() -> Result<(String, Process), Error> {
    if let Some(program) = std::env::var_os("BROKER_LITE") {
        return run_lite(Path::new(&program));
    }
    let build =
        ["build", "-q", "--release", "-p", "broker-lite", "--features", "cli", "--bin", "broker-lite"];
    let status = Command::new("cargo").args(build).current_dir(root()).status()?;
    if !status.success() {
        return Err("broker-lite was not built".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    run_lite(&target.join("release/broker-lite"))
}

fn run_lite(program: &Path) -> Result<(String, Process), Error> {
    let mut child = Command::new(program)
        .args(["up", "--brokers", "1", "--port", "0", "--config", NO_DELAY])
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    match line.trim().strip_prefix("bootstrap=") {
        Some(bootstrap) => Ok((bootstrap.to_owned(), Process::Lite(child))),
        None => {
            let _ = child.kill();
            child.wait()?;
            Err("broker-lite did not start".into())
        }
    }
}
