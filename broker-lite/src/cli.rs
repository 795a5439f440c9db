//! The command line: a contract that scripts rely on.
//!
//! Out: exactly one line on standard output once the cluster is complete; everything else on
//! standard error.

mod node;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use broker_lite::{Cluster, ClusterError, NodeError, Profile};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A small, truly replicated Kafka-compatible cluster.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster in this process, on consecutive ports, until it is stopped.
    Up(Up),
    /// Runs one node of a cluster in this process: a broker, and a voter of the quorum if it is listed as one.
    Node(node::Node),
}

#[derive(Debug, Args)]
struct Up {
    /// Number of brokers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    brokers: u32,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Host name told to clients, if it is another one.
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// First port; 0 takes any free ones.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// Keeps everything below this directory, and goes on with what is there.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// Creates a topic, if it is not there yet; may be given several times.
    #[arg(long = "topic", value_name = "NAME[:PARTITIONS[:REPLICAS]]", value_parser = parse_topic)]
    topics: Vec<Topic>,
    /// Sets a broker setting by its Kafka name; may be given several times.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_config)]
    configs: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Topic {
    name: String,
    partitions: Option<i32>,
    replicas: Option<i16>,
}

/// Parses the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let Cli { command } = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS))
        .enable_io()
        .enable_time()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let ended = match command {
        Command::Up(up) => runtime.block_on(up.serve()).map_err(|error| error.to_string()),
        Command::Node(node) => runtime.block_on(node.serve()).map_err(|error| error.to_string()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Most worker threads: one process with a few brokers gains nothing from more.
const WORKERS: usize = 4;

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    // Nothing is left to do if standard error is closed, too.
    let _ = writeln!(io::stderr(), "broker-lite: {error}");
    ExitCode::FAILURE
}

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl Up {
    async fn serve(self) -> Result<(), CommandError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Signals)?;
        let cluster = tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            cluster = self.start() => cluster?,
        };
        tell_bootstrap(&cluster.bootstrap())?;
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cluster.shutdown().await;
        Ok(())
    }

    async fn start(self) -> Result<Cluster, ClusterError> {
        let mut builder =
            Cluster::builder().profile(Profile::Kafka).brokers(self.brokers).host(self.host).port(self.port);
        if let Some(host) = self.advertise {
            builder = builder.advertise(host);
        }
        if let Some(path) = self.data_dir {
            builder = builder.data_dir(path);
        }
        for (name, value) in self.configs {
            builder = builder.config(name, value);
        }
        for Topic { name, partitions, replicas } in self.topics {
            builder = builder.topic(name, partitions, replicas);
        }
        builder.start().await
    }
}

/// The one line on standard output.
fn tell_bootstrap(bootstrap: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "bootstrap={bootstrap}").and_then(|()| out.flush()).map_err(CommandError::Output)
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    let mut parts = text.split(':');
    let name = parts.next().filter(|name| !name.is_empty()).ok_or("a topic needs a name")?;
    let partitions = parts.next().map(|part| positive(part, "partitions")).transpose()?;
    let replicas = parts.next().map(|part| positive(part, "replicas")).transpose()?;
    match parts.next() {
        Some(rest) => Err(format!("{rest:?} is too much: NAME[:PARTITIONS[:REPLICAS]]")),
        None => Ok(Topic { name: name.to_owned(), partitions, replicas }),
    }
}

fn positive<N: std::str::FromStr + PartialOrd + From<u8>>(text: &str, what: &str) -> Result<N, String> {
    let number = text.parse::<N>().ok().filter(|number| *number > N::from(0));
    number.ok_or_else(|| format!("{what}: {text:?} is not a positive number"))
}

fn parse_config(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_a_name_with_optional_counts() {
        let topic = |name: &str, partitions, replicas| Topic { name: name.into(), partitions, replicas };
        assert_eq!(parse_topic("a"), Ok(topic("a", None, None)));
        assert_eq!(parse_topic("a:6"), Ok(topic("a", Some(6), None)));
        assert_eq!(parse_topic("a:6:3"), Ok(topic("a", Some(6), Some(3))));
        for bad in ["", ":1", "a:0", "a:-1", "a:x", "a:1:0", "a:1:1:1"] {
            assert!(parse_topic(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_value_of_a_setting_may_contain_an_equals_sign() {
        assert_eq!(parse_config("a.b = c=d"), Ok(("a.b".into(), "c=d".into())));
        assert!(parse_config("a.b").is_err());
    }
}
