//! Idempotent producers write for minutes while nodes are killed, stopped, restarted, cut off and relieved of their
//! leaderships, the active controller as often as the busiest leader; then the whole log is read and judged, and where
//! there are disks, what each replica has left there.
//!
//! In: a kind of cluster and a time. Out: what happened, what the history checker says of it, and a status: 0 only if
//! nothing was lost, duplicated or out of order, and enough happened for the run to count.
//!
//! ```text
//! four producers ──▶ cluster ◀── one fault after the other, each waited out
//!       │ sent, acknowledged, failed       │ the log of each partition, read by klamm and by kcat
//!       └────────────▶ history ◀───────────┘
//! ```
//!
//! A record takes some 250 bytes of memory until the verdict: 300 MB for 10 minutes at the default rate.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use klamm_tests::backend::{Backend, Kind};
use klamm_tests::chaos::{
    AT_ONCE, Error, Faults, Role, Run, Style, break_things, breakable, foreign_reader, produce, read_logs,
};
use klamm_tests::history::{Promises, Rule, check};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const PARTITIONS: i32 = 6;
/// The run counts only if at least so much happened.
const ELECTIONS: u64 = 20;
const RETRIES: u64 = 100;
/// Where the controllers are among the victims.
const CONTROLLER_CHANGES: u64 = 3;

/// Breaks a cluster under four idempotent producers, and judges what its log holds in the end.
#[derive(Debug, Parser)]
struct Options {
    /// Kind of cluster: kafka, tcp or memory
    #[arg(long, default_value = "tcp", value_parser = breakable)]
    backend: &'static Kind,
    /// Minutes of faults
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Records that all producers together write in a second
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Which faults, keys and sizes chance gives
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match judge(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the run cannot be judged: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all went well and the run counts.
async fn judge(options: &Options) -> Result<bool, Error> {
    foreign_reader()?;
    let system = (options.backend.start)().await.map_err(|error| error.to_string())?;
    let backend = Arc::new(Backend::new(options.backend, system));
    let topic = backend.topic("chaos", PARTITIONS).await?;
    let run = Arc::new(Run::new(&topic, PARTITIONS, options.seed, options.rate));
    let watch = Arc::new(Watch::default());
    println!("{}, seed {}, {} minutes", options.backend.title, options.seed, options.minutes);

    let mut producers = JoinSet::new();
    for (number, style) in Style::ALL.into_iter().enumerate() {
        producers.spawn(produce(run.clone(), backend.clone(), number as u64, style));
    }
    let watching = tokio::spawn(count_elections(run.clone(), watch.clone(), backend.clone()));
    let until = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    let faults =
        break_things(&run, &backend, &[Role::Busiest, Role::Controller], Duration::ZERO..AT_ONCE, until)
            .await;
    // Whatever it came to: producers must end before anybody looks.
    let healed = backend.heal().await;
    run.over.store(true, Ordering::SeqCst);
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    watching.await??;
    let faults = faults?;
    healed?;
    let others = read_logs(&run, &backend).await?;
    let autopsy = backend.autopsy(&run.topic, PARTITIONS).await;
    Ok(report(&run, &watch, &faults, &others, &autopsy))
}

/// What is watched while things break.
#[derive(Default)]
struct Watch {
    elections: AtomicU64,
    /// Epochs of the metadata quorum that had an active controller; `None` where it is none of the nodes.
    controllers: Mutex<Option<BTreeMap<i32, i32>>>,
    /// Who was seen to lead a partition in an epoch; and contradictions.
    leaders: Mutex<BTreeMap<(i32, i32), i32>>,
    two_leaders: AtomicU64,
}

impl Watch {
    /// Takes that somebody says of a node that it leads in this epoch.
    fn leads(&self, run: &Run, partition: i32, epoch: i32, leader: i32) {
        let first = *self.leaders.lock().entry((partition, epoch)).or_insert(leader);
        if first != leader {
            self.two_leaders.fetch_add(1, Ordering::SeqCst);
            run.mark(&format!("TWO LEADERS of partition {partition} in epoch {epoch}: {first} and {leader}"));
        }
    }

    fn controls(&self, run: &Run, epoch: i32, leader: i32) {
        let mut known = self.controllers.lock();
        let first = *known.get_or_insert_default().entry(epoch).or_insert(leader);
        drop(known);
        if first != leader {
            self.two_leaders.fetch_add(1, Ordering::SeqCst);
            run.mark(&format!("TWO CONTROLLERS in epoch {epoch}: {first} and {leader}"));
        }
    }

    /// How often the active controller changed.
    fn controller_changes(&self) -> Option<u64> {
        let known = self.controllers.lock();
        let leaders: Vec<_> = known.as_ref()?.values().collect();
        Some(leaders.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64)
    }
}

/// Counts how often the leader epoch of a partition was seen to grow.
async fn count_elections(run: Arc<Run>, watch: Arc<Watch>, backend: Arc<Backend>) -> Result<(), Error> {
    let mut epochs = [None; PARTITIONS as usize];
    let mut last = false;
    while !last {
        // Once more after the end: the last election counts, too.
        last = run.over.load(Ordering::SeqCst);
        let admin = backend.impatient_client()?.admin();
        if let Ok(Ok(mut told)) = admin.describe_topics([&*run.topic]).await.map(|results| results.all()) {
            for (known, partition) in epochs.iter_mut().zip(told.remove(0).partitions) {
                if let Some(leader) = partition.leader {
                    watch.leads(&run, partition.partition, partition.leader_epoch, leader);
                }
                let grown = known.is_some_and(|known| partition.leader_epoch > known);
                watch.elections.fetch_add(u64::from(grown), Ordering::SeqCst);
                *known = (*known).max(Some(partition.leader_epoch));
            }
        }
        if let Ok(Some((leader, epoch))) = backend.controller().await {
            watch.controls(&run, epoch, leader);
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Prints what happened; returns whether nothing is wrong and the run counts.
fn report(
    run: &Run,
    watch: &Watch,
    faults: &Faults,
    others: &str,
    autopsy: &Result<Option<String>, std::io::Error>,
) -> bool {
    let verdict = check(&run.history.lock(), &Promises::default());
    let [elections, retries] = [&watch.elections, &run.retries].map(|count| count.load(Ordering::SeqCst));
    let faults: Vec<_> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    println!("\n{verdict}");
    println!("faults             {}", faults.join(", "));
    println!("records            {}", verdict.sent);
    println!("acknowledged       {}", verdict.acked);
    println!("failed             {} not written, {} maybe", verdict.failed, verdict.maybe_written);
    println!("elections          {elections}");
    println!("retried batches    {retries}");
    println!("lost               {}", verdict.count(Rule::Lost) + verdict.count(Rule::WrongOffset));
    println!("duplicated         {}", verdict.count(Rule::Duplicated));
    println!("reordered          {}", verdict.count(Rule::Reordered));
    println!("written though failed {}", verdict.count(Rule::Ghost));
    println!("second reader      {others}");
    let changes = watch.controller_changes();
    if let Some(changes) = changes {
        println!("controller changes {changes}");
    }
    let (two_leaders, seen) = (watch.two_leaders.load(Ordering::SeqCst), watch.leaders.lock().len());
    println!("leaders            of {seen} epochs seen, {two_leaders} times two in one");
    match autopsy {
        Ok(Some(told)) => println!("disks              {told}"),
        Ok(None) => {}
        Err(error) => println!("disks              DIFFER: {error}"),
    }
    let settled = verdict.unknown == 0 && verdict.acked > 0;
    let changed = changes.is_none_or(|changes| changes >= CONTROLLER_CHANGES);
    let counts = elections >= ELECTIONS && retries >= RETRIES && changed && settled;
    if !counts {
        println!(
            "this run does not count: at least {ELECTIONS} elections, {RETRIES} retried batches and, where controllers \
             are among the nodes, {CONTROLLER_CHANGES} changes of the controller are needed"
        );
    }
    let ok = verdict.is_ok() && counts && two_leaders == 0 && autopsy.is_ok();
    println!("verdict            {}", if ok { "all promises kept" } else { "FAILED" });
    ok
}
