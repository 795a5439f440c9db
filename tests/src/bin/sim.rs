//! Runs many seeds of a workload in virtual time, judges every history, and says what it saw.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_lite::sim::{Explored, explore, seeds};
use clap::Parser;
use klamm_tests::sim::{Broken, Scenario, Stats, Workload, run};

#[derive(Debug, Parser)]
struct Options {
    /// Histories to count for each workload: of at least 500 operations and 3 faults
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
    /// Plant bugs, by name with commas between, or `all`: each must be found
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
    use klamm_tests::sim::{Broken, Scenario, Workload, run};
    use klamm_wire::planted::{Bug, plant};

    use super::Options;

    /// Finds every bug named within the seeds allowed; workloads take turns.
    pub(super) fn find(options: &Options, name: &str) -> ExitCode {
        let named = |bug: &Bug| name.split(',').any(|name| format!("{bug:?}").eq_ignore_ascii_case(name));
        let wanted = |bug: &&Bug| name == "all" && !Bug::RARE.contains(bug) || named(bug);
        let known = || Bug::ALL.iter().chain(Bug::OF_GROUPS).chain(Bug::RARE);
        let bugs: Vec<_> = known().filter(wanted).copied().collect();
        if bugs.is_empty() {
            let all: Vec<_> = known().map(|bug| format!("{bug:?}")).collect();
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
        let found = Mutex::new(None::<(u64, Vec<String>)>);
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
                        // Only a broken promise counts: a run that hangs or panics says nothing about the checker.
                        let workload = workload(options, seed, bug);
                        if let Err(Broken::Promise { fell, .. }) = judge(workload, seed, Some(bug))
                            && let Ok(mut found) = found.lock()
                            && found.as_ref().is_none_or(|(least, _)| seed < *least)
                        {
                            *found = Some((seed, fell));
                        }
                    }
                });
            }
        });
        let found = found.into_inner().ok().flatten();
        let Some((seed, fell)) = found else {
            println!("{bug:?}: NOT CAUGHT in {} seeds, {:.0?}", options.seeds, began.elapsed());
            return false;
        };
        let workload = workload(options, seed, bug);
        let without = judge(workload, seed, None);
        let how = format!("--planted {bug:?} --workload {workload} --first {seed} --seeds 1");
        println!("{bug:?}: {} fell, {:.0?}; {how}", fell.join(", "), began.elapsed());
        if let Err(failure) = without {
            println!("    but the same seed fails without it: {failure}");
            return false;
        }
        true
    }

    /// One seed with a bug planted, or none.
    fn judge(workload: Workload, seed: u64, bug: Option<Bug>) -> Result<(), Broken> {
        plant(bug);
        let (outcome, _) = traced(seed, |sim| run(sim, Scenario::draw(workload, seed)));
        plant(None);
        outcome.map_err(Broken::Unjudged)?.map(drop)
    }

    /// Those in which a bug of logs, producers or readers can show.
    const HUNTED: [Workload; 4] =
        [Workload::Idempotent, Workload::Plain, Workload::Consume, Workload::Produce];

    /// Workloads take turns; a bug of groups shows in one of them.
    fn workload(options: &Options, seed: u64, bug: Bug) -> Workload {
        if let Some(workload) = options.workload {
            return workload;
        }
        let turn = usize::try_from(seed).unwrap_or_default() % HUNTED.len();
        if Bug::OF_GROUPS.contains(&bug) { Workload::Groups } else { HUNTED[turn] }
    }
}

/// What all runs of a workload have counted.
#[derive(Debug, Default)]
struct Totals {
    operations: u64,
    /// Histories that count.
    full: u64,
    faults: u64,
    elections: u64,
    retries: u64,
    failed: u64,
    truncations: u64,
    rebalances: u64,
    coordinator_moves: u64,
    uncommitted: u64,
    time: Duration,
}

impl Totals {
    fn add(&mut self, stats: &Stats) {
        self.operations += stats.operations;
        self.full += u64::from(stats.counts());
        self.faults += stats.faults;
        self.elections += stats.elections;
        self.retries += stats.retries;
        self.failed += stats.failed;
        self.truncations += stats.truncations;
        self.rebalances += stats.rebalances;
        self.coordinator_moves += stats.coordinator_moves;
        self.uncommitted += stats.uncommitted;
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
    let all = Mutex::new(Vec::<Explored<Scenario>>::new());
    // As many as it takes, within reason; or the one that `KLAMM_SIM_SEED` names.
    let candidates = seeds(options.first..options.first + 2 * options.seeds);
    let (next, counted) = (AtomicUsize::new(0), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                let untried = std::iter::from_fn(|| {
                    let enough = counted.load(Ordering::Relaxed) >= options.seeds;
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    candidates.get(at).copied().filter(|_| !enough)
                });
                let explored = explore(
                    untried,
                    |seed| Scenario::draw(workload, seed),
                    |sim, scenario| {
                        let (totals, counted) = (&totals, &counted);
                        async move {
                            let stats = run(sim, scenario).await?;
                            counted.fetch_add(u64::from(stats.counts()), Ordering::Relaxed);
                            if let Ok(mut totals) = totals.lock() {
                                totals.add(&stats);
                            }
                            Ok::<_, Broken>(())
                        }
                    },
                );
                if let Ok(mut all) = all.lock() {
                    all.push(explored);
                }
            });
        }
    });
    let wanted = if candidates.len() > 1 { options.seeds } else { 0 };
    report(
        workload,
        wanted,
        began.elapsed(),
        &all.into_inner().unwrap_or_default(),
        &totals.into_inner().unwrap_or_default(),
    )
}

fn report(
    workload: Workload,
    wanted: u64,
    took: Duration,
    all: &[Explored<Scenario>],
    totals: &Totals,
) -> bool {
    let sum = |of: fn(&Explored<Scenario>) -> u64| all.iter().map(of).sum::<u64>();
    let (runs, events) = (sum(|e| e.runs), sum(|e| e.events));
    let histories: BTreeSet<u64> = all.iter().flat_map(|explored| &explored.histories).copied().collect();
    let distinct = histories.len() as u64;
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
        "    {} of at least 500 operations and 3 faults; per history: {:.0} operations, {:.2} \
         faults, {:.2} elections, {:.2} batches retried, {:.2} records failed, {:.3} truncations",
        totals.full,
        each(totals.operations),
        each(totals.faults),
        each(totals.elections),
        each(totals.retries),
        each(totals.failed),
        each(totals.truncations)
    );
    if workload == Workload::Groups {
        println!(
            "    and {:.2} rebalances, {:.2} moves of a coordinator; in all {} partitions not committed to the end, for a reason",
            each(totals.rebalances),
            each(totals.coordinator_moves),
            totals.uncommitted
        );
    }
    // A run in which nothing went wrong proves nothing.
    let busy = [totals.elections, totals.retries, totals.truncations].iter().all(|count| count * 100 >= runs);
    let enough = wanted == 0 || busy && totals.full >= wanted && distinct == runs;
    if !enough {
        println!("    too little happened, or the same again: this run does not count");
    }
    let ok = failures.is_empty() && enough;
    println!(
        "{} passed, {} failed",
        runs - failures.len() as u64,
        failures.len() as u64 + u64::from(!ok && failures.is_empty())
    );
    ok
}
