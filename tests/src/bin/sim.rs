//! Runs many seeds of a workload in virtual time, judges every history, and says what it saw.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker_lite::sim::{Explored, explore};
use clap::Parser;
use klamm_tests::sim::{Scenario, Stats, Workload, run};

#[derive(Debug, Parser)]
struct Options {
    /// Seeds to run for each workload
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// What clients do [default: all workloads]
    #[arg(long)]
    workload: Option<Workload>,
    /// Threads, each with runs of its own
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Plant a bug, by name, or `all`: each must be found
    #[cfg(feature = "planted")]
    #[arg(long)]
    planted: Option<String>,
}

/// Looks for bugs that are planted on purpose: the test of the checker, the schedules and the seeds.
#[cfg(feature = "planted")]
mod planted {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use broker_lite::sim::traced;
    use klamm_tests::sim::{Scenario, Workload, run};
    use klamm_wire::planted::{Bug, plant};

    use super::Options;

    /// Finds every bug named within the seeds allowed; workloads take turns.
    pub(super) fn find(options: &Options, name: &str) -> ExitCode {
        let wanted = |bug: &&Bug| name == "all" || format!("{bug:?}").eq_ignore_ascii_case(name);
        let bugs: Vec<_> = Bug::ALL.iter().filter(wanted).copied().collect();
        if bugs.is_empty() {
            let all: Vec<_> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
            println!("no bug is called {name:?}; there are: {}", all.join(", "));
            return ExitCode::FAILURE;
        }
        let caught = bugs.iter().filter(|bug| hunt(options, **bug)).count();
        println!("{caught} of {} planted bugs caught, each within {} seeds", bugs.len(), options.seeds);
        println!("{caught} passed, {} failed", bugs.len() - caught);
        if caught == bugs.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn hunt(options: &Options, bug: Bug) -> bool {
        let began = Instant::now();
        let next = AtomicU64::new(options.first);
        let found = Mutex::new(None::<(u64, String)>);
        let end = options.first + options.seeds;
        let least = || found.lock().ok().and_then(|found| found.as_ref().map(|(seed, _)| *seed));
        std::thread::scope(|scope| {
            for _ in 0..options.threads {
                scope.spawn(|| {
                    while let Some(seed) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end)
                    {
                        if least().is_some_and(|least| least < seed) {
                            return;
                        }
                        if let Err(failure) = judge(options, seed, Some(bug))
                            && let Ok(mut found) = found.lock()
                            && found.as_ref().is_none_or(|(least, _)| seed < *least)
                        {
                            *found = Some((seed, failure));
                        }
                    }
                });
            }
        });
        let found = found.into_inner().ok().flatten();
        let Some((seed, failure)) = found else {
            println!("{bug:?}: NOT CAUGHT in {} seeds, {:.0?}", options.seeds, began.elapsed());
            return false;
        };
        let without = judge(options, seed, None);
        let fell = failure.lines().next().unwrap_or_default();
        let fell: String = fell.chars().take(160).collect();
        println!("{bug:?}: seed {seed}, {:.0?}: {fell}", began.elapsed());
        if let Err(failure) = without {
            println!("    but the same seed fails without it: {failure}");
            return false;
        }
        true
    }

    /// One seed with a bug planted, or none.
    fn judge(options: &Options, seed: u64, bug: Option<Bug>) -> Result<(), String> {
        let turn = usize::try_from(seed % 3).unwrap_or_default();
        let workload = options.workload.unwrap_or(Workload::ALL[turn]);
        plant(bug);
        let (outcome, _) = traced(seed, |sim| run(sim, Scenario::draw(workload, seed)));
        plant(None);
        outcome.and_then(|outcome| outcome.map(drop))
    }
}

/// What makes a history count.
const FULL_OPERATIONS: u64 = 500;
const FULL_FAULTS: u64 = 3;

/// What all runs of a workload have counted.
#[derive(Debug, Default)]
struct Totals {
    operations: u64,
    /// Histories of less than 500 operations or 3 faults.
    slight: u64,
    faults: u64,
    elections: u64,
    retries: u64,
    truncations: u64,
    time: Duration,
}

impl Totals {
    fn add(&mut self, stats: &Stats) {
        self.operations += stats.operations;
        self.slight += u64::from(stats.operations < FULL_OPERATIONS || stats.faults < FULL_FAULTS);
        self.faults += stats.faults;
        self.elections += stats.elections;
        self.retries += stats.retries;
        self.truncations += stats.truncations;
        self.time += stats.time;
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    #[cfg(feature = "planted")]
    if let Some(name) = &options.planted {
        return planted::find(&options, name);
    }
    let mut failed = false;
    let workloads = options.workload.map_or_else(|| Workload::ALL.to_vec(), |one| vec![one]);
    for workload in workloads {
        failed |= !explored(&options, workload);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs all seeds of a workload; `false` if one failed or too little happened.
fn explored(options: &Options, workload: Workload) -> bool {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(options.first);
    let all = Mutex::new(Vec::<Explored<Scenario>>::new());
    let end = options.first + options.seeds;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                let seeds = std::iter::from_fn(|| {
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end)
                });
                let explored = explore(
                    seeds,
                    |seed| Scenario::draw(workload, seed),
                    |sim, scenario| {
                        let totals = &totals;
                        async move {
                            let stats = run(sim, scenario).await?;
                            if let Ok(mut totals) = totals.lock() {
                                totals.add(&stats);
                            }
                            Ok::<_, String>(())
                        }
                    },
                );
                if let Ok(mut all) = all.lock() {
                    all.push(explored);
                }
            });
        }
    });
    report(
        workload,
        began.elapsed(),
        &all.into_inner().unwrap_or_default(),
        &totals.into_inner().unwrap_or_default(),
    )
}

fn report(workload: Workload, took: Duration, all: &[Explored<Scenario>], totals: &Totals) -> bool {
    let sum = |of: fn(&Explored<Scenario>) -> u64| all.iter().map(of).sum::<u64>();
    let (runs, distinct, events) = (sum(|e| e.runs), sum(|e| e.distinct), sum(|e| e.events));
    let failures: Vec<_> = all.iter().flat_map(|explored| &explored.failures).collect();
    for failure in &failures {
        println!("{failure}");
    }
    let seconds = took.as_secs_f64().max(1e-9);
    let each = |count: u64| count as f64 / runs.max(1) as f64;
    println!(
        "{workload:?}: {runs} histories ({distinct} distinct), {} violations; {:.1} histories/s, {:.0} events/s, {:.0} virtual s/s",
        failures.len(),
        runs as f64 / seconds,
        events as f64 / seconds,
        totals.time.as_secs_f64() / seconds
    );
    println!(
        "    {} of at least {FULL_OPERATIONS} operations and {FULL_FAULTS} faults; per history: {:.0} operations, {:.2} \
         faults, {:.2} elections, {:.2} batches retried, {:.3} truncations",
        runs.saturating_sub(totals.slight),
        each(totals.operations),
        each(totals.faults),
        each(totals.elections),
        each(totals.retries),
        each(totals.truncations)
    );
    // A run in which nothing went wrong proves nothing.
    let busy = [totals.elections, totals.retries, totals.truncations].iter().all(|count| count * 100 >= runs);
    let full = totals.slight * 10 <= runs;
    if !busy || !full {
        println!("    too little happened: this run does not count");
    }
    let ok = failures.is_empty() && busy && full;
    println!(
        "{} passed, {} failed",
        runs - failures.len() as u64,
        failures.len() as u64 + u64::from(!ok && failures.is_empty())
    );
    ok
}
