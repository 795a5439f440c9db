//! The binary `klamm`: Kafka from a shell. A contract that scripts rely on.
//!
//! Data on standard input and output, everything else on standard error. Status 0: all done; 1: something was not;
//! 2: wrong usage, found before anything was
//! sent. Whoever no longer reads standard output ends a command quietly.

mod consume;
mod format;
mod groups;
mod interrupt;
mod lines;
mod output;
mod produce;
mod properties;
mod tally;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A Kafka client.
///
/// RUST_LOG=debug tells on standard error what the client does.
#[derive(Debug, Parser)]
#[command(name = "klamm", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Produce),
    Consume(consume::Consume),
    /// Looks at consumer groups and sets what they have committed.
    #[command(subcommand)]
    Groups(groups::Groups),
}

/// How a command ended, unless all was done.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// Something was not done; it is told already.
    Told,
    /// Whoever read standard output has gone.
    NobodyReads,
    /// Something was not done.
    Failed(String),
    /// The command line asks for something impossible.
    Usage(String),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match run(cli.command) {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Failed(reason)) => {
            say(reason);
            ExitCode::FAILURE
        }
        Err(Failure::Usage(reason)) => {
            say(reason);
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS))
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Produce(produce) => produce.run().await,
            Command::Consume(consume) => consume.run().await,
            Command::Groups(groups) => groups.run().await,
        }
    });
    // A thread may still wait for standard input, which nobody will write to any more.
    runtime.shutdown_background();
    outcome
}

/// Most worker threads: one client gains nothing from more.
const WORKERS: usize = 4;

/// Writes a line to standard error.
fn say(what: impl fmt::Display) {
    // Nothing is left to do if standard error is closed.
    let _ = writeln!(io::stderr(), "klamm: {what}");
}
