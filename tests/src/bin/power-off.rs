//! Rounds of lost power in virtual time, on one growing log: see `klamm_tests::sim::power_off`.
//!
//! In: rounds and a seed. Out: what happened, and status 0 only if every promise was kept in every round; with bugs
//! planted, status 0 only if each broke one.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;
use std::time::Instant;

use broker_lite::sim::traced;
use clap::Parser;
use klamm_tests::sim::{Broken, Outages, power_off};

/// Takes power from the whole cluster and from single nodes, again and again, under idempotent producers.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds on one log; each takes power away at least once
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Which moments, victims and tails chance gives
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plant these bugs, one after the other, by name with commas between: each must break a promise. Those that chance
    /// seldom meets with (votes out of order, a recovery point that is lowered late), or under which nodes do not come to
    /// rest (KeepTornBatch), have directed schedules in tests/tests/planted
    #[cfg(feature = "planted")]
    #[arg(long)]
    planted: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    #[cfg(feature = "planted")]
    if let Some(names) = &options.planted {
        return planted(&options, names);
    }
    println!("power off, seed {}, {} rounds in virtual time", options.seed, options.rounds);
    let began = Instant::now();
    match run(&options) {
        Ok(Outages {
            rounds, whole, brokers, single, controller, midst, torn, again, killed, stats, ..
        }) => {
            println!("rounds survived    {rounds}");
            println!(
                "losses of power    {} ({whole} of everything, {brokers} of all brokers, {single} of one, {controller} of \
                 one controller, {midst} of a node amid changes to its files; {torn} with torn tails, {again} while nodes still started, \
                 {killed} after all brokers had died with unsynced records)",
                stats.faults
            );
            println!("operations         {}", stats.operations);
            println!("not acknowledged   {}", stats.failed);
            println!("elections          {}", stats.elections);
            println!("retried batches    {}", stats.retries);
            println!("truncations        {}", stats.truncations);
            println!(
                "virtual time       {:.0} s in {:.1} s",
                stats.time.as_secs_f64(),
                began.elapsed().as_secs_f64()
            );
            println!("verdict            all promises kept");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}");
            println!("verdict            FAILED; again: --seed {} --rounds {}", options.seed, options.rounds);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Outages, Broken> {
    let (outcome, _) = traced(options.seed, |sim| power_off(sim, options.rounds));
    outcome.map_err(Broken::Unjudged)?
}

/// Only a broken promise counts: a run that hangs or panics says nothing of what the checker sees.
#[cfg(feature = "planted")]
fn planted(options: &Options, names: &str) -> ExitCode {
    use klamm_wire::planted::{Bug, plant};
    let mut failed = false;
    for name in names.split(',') {
        let all = || Bug::ALL.iter().chain(Bug::OF_POWER);
        let Some(bug) = all().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name)) else {
            println!("no bug is called {name:?}");
            return ExitCode::FAILURE;
        };
        let began = Instant::now();
        plant(Some(*bug));
        let outcome = run(options);
        plant(None);
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Err(Broken::Promise { fell, told }) => {
                println!(
                    "{bug:?}: caught in {seconds:.1} s: {} fell, {}",
                    fell.join(", "),
                    first_line(&told)
                );
            }
            Err(Broken::Unjudged(cause)) => {
                println!("{bug:?}: NOT JUDGED: {cause}");
                failed = true;
            }
            Ok(outages) => {
                println!("{bug:?}: NOT CAUGHT in {} rounds, {seconds:.1} s", outages.rounds);
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(feature = "planted")]
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
