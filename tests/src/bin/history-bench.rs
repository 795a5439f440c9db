//! How fast a history is judged: makes up a correct one and prints events, seconds and events per second.
#![allow(clippy::print_stdout, reason = "a tool prints")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use klamm_tests::history::model::{Size, correct};
use klamm_tests::history::{Promises, check};

/// Times the history checker.
#[derive(Debug, Parser)]
struct Options {
    /// Things that happen in the history; three of four are an event
    #[arg(long, default_value_t = 8_000_000)]
    steps: usize,
    /// Seed of the history
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Times that it is judged
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> ExitCode {
    let Options { steps, seed, rounds } = Options::parse();
    let size = Size { steps, partitions: 16, producers: 20, consumers: 8, members: 4 };
    let history = correct(seed, size);
    for _ in 0..rounds {
        let start = Instant::now();
        let report = check(&history, &Promises::default());
        let seconds = start.elapsed().as_secs_f64();
        println!("{report}");
        println!(
            "{} events in {seconds:.3} s: {:.1} million events/s",
            report.events,
            report.events as f64 / seconds / 1e6
        );
        if !report.is_ok() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
