//! Groups of consumers for minutes while their members join, leave, vanish, are killed and stall, and brokers, the groups'
//! coordinators first, are killed, stopped, cut off and started again under four idempotent producers.
//!
//! In: a kind of cluster and a time. Out: what happened, what the history checker says of it, and a status: 0 only if every
//! acknowledged record was worked on by every group, again only what was not committed yet, no partition had two owners in
//! one generation, no position or commit went back or ahead, everything is committed in the end, and enough happened.
//!
//! ```text
//! producers ──▶ topic ──▶ groups of members, some of them processes ──▶ history ──▶ verdict
//!                │                │ what they say to coordinators ────────▲
//!                └◀── faults ────▶└ join, leave, vanish, kill -9, stall
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use klamm::ClientBuilder;
use klamm_tests::backend::{Backend, Can, Kind};
use klamm_tests::chaos::{
    AT_ONCE, Error, Faults, Role, Run, Style, break_things, breakable, foreign_reader, produce, read_logs,
};
use klamm_tests::history::{Promises, Report, Rule, check};
use klamm_tests::usage::load_average;
use klamm_tests::workers::{
    Act, Ear, GroupPlan, Habits, MEMBER, Overheard, Progress, World, live_in_this_process, occupy,
    occupy_by_processes, progress,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const PARTITIONS: i32 = 6;
/// The run counts only if at least so much happened.
const REBALANCES: u64 = 50;
const MOVES: u64 = 5;
/// Members of a group in this process, and in processes of their own.
const MEMBERS: u32 = 2;
const PROCESSES: u32 = 1;
/// Longest time that a group may stand still with nothing disturbing it meanwhile: a broker may take half a minute until it
/// serves again, a member that stalls is found out after `max.poll.interval.ms`, one that is silent after its session; then the
/// others have to hear of it and to change over, twice if they do so cooperatively.
const STANDS_STILL: Duration = Duration::from_secs(60);
/// Groups that are not done, and make no progress for so long after the last fault, hang.
const REST: Duration = Duration::from_secs(120);

/// Breaks a cluster and the groups on it, and judges what members saw.
#[derive(Debug, Parser)]
struct Options {
    /// Kind of cluster: processes, kafka, tcp or memory
    #[arg(long, default_value = "processes", value_parser = breakable)]
    backend: &'static Kind,
    /// Minutes of faults
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Records that all producers together write in a second
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Seconds of rest before two in three faults, about; the others come at once. Ten are longer than a member that is dead holds
    /// its group up, so that groups come to rest, too; with none, hardly any group gets to a next generation
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
    /// Which faults, keys and lives chance gives
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Status 0 though too little happened for the run to count: for a try
    #[arg(long)]
    lenient: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(MEMBER) {
        return member(&arguments.next().unwrap_or_default());
    }
    let options = Options::parse();
    let judged = tokio::runtime::Runtime::new().map_err(Error::from);
    match judged.and_then(|runtime| runtime.block_on(judge(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the run cannot be judged: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A member in a process of its own.
fn member(orders: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let lived = runtime.map_err(|error| error.to_string());
    match lived.and_then(|runtime| runtime.block_on(live_in_this_process(orders))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Commits by themselves and by hand, eagerly and cooperatively, with and without a fixed place.
fn groups() -> Vec<GroupPlan> {
    let plan = |strategy: &str, auto_commit, fixed| GroupPlan {
        strategy: strategy.to_owned(),
        members: MEMBERS + PROCESSES,
        fixed,
        auto_commit,
        pipelined: false,
        commit_ms: 500,
        session_ms: 8_000,
        max_poll_ms: 8_000,
    };
    vec![
        plan("range", true, false),
        plan("cooperative-sticky", false, false),
        plan("cooperative-sticky", true, true),
    ]
}

fn habits(options: &Options) -> Habits {
    let life_ms = (options.minutes * 20_000.0).clamp(2_000.0, 30_000.0) as u64;
    let acts = vec![Act::Leave, Act::Crash, Act::Stall, Act::Unsubscribe];
    Habits { acts, life_ms, most: 300, work_ms: 1, request_ms: 3_000, api_ms: 60_000 }
}

fn rests(options: &Options) -> Range<Duration> {
    let rest = Duration::from_secs_f64(options.rest);
    rest.mul_f64(0.6)..rest.mul_f64(1.4).max(AT_ONCE)
}

/// Returns whether all went well and the run counts.
async fn judge(options: &Options) -> Result<bool, Error> {
    foreign_reader()?;
    let system = (options.backend.start)().await.map_err(|error| error.to_string())?;
    let backend = Arc::new(Backend::new(options.backend, system));
    let topic = backend.topic("chaos", PARTITIONS).await?;
    let run = Arc::new(Run::new(&topic, PARTITIONS, options.seed, options.rate));
    let topics = vec![(run.topic.clone(), run.partitions.clone().into())];
    let workers =
        Arc::new(World::new(run.clock.clone(), run.history.clone(), topics, groups(), habits(options)));
    println!(
        "{}, seed {}, {} minutes, rests of {} s",
        options.backend.title, options.seed, options.minutes, options.rest
    );

    let mut producers = JoinSet::new();
    for (number, style) in Style::ALL.into_iter().enumerate() {
        producers.spawn(produce(run.clone(), backend.clone(), number as u64, style));
    }
    let failures = Arc::new(Mutex::new(Vec::new()));
    let mut members = start_members(&run, &workers, &backend, &failures).await?;
    let moves = Arc::new(AtomicU64::new(0));
    let watching = tokio::spawn(count_moves(run.clone(), workers.clone(), backend.clone(), moves.clone()));
    let ids = (0..workers.groups.len()).map(World::group_id).collect::<Vec<_>>();
    // Between two coordinators somebody else, so that the logs are led by others, too.
    let roles = ids.into_iter().flat_map(|id| [Role::Coordinator(id), Role::Busiest, Role::Controller]);
    let until = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    let faults = break_things(&run, &backend, &roles.collect::<Vec<_>>(), rests(options), until).await;
    // Whatever it came to: producers must end before anybody looks.
    let healed = backend.heal().await;
    run.mark("no more faults");
    run.over.store(true, Ordering::SeqCst);
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    workers.calm.store(true, Ordering::SeqCst);
    watching.await?;
    let faults = faults?;
    healed?;
    let others = read_logs(&run, &backend).await?;
    let ends = {
        let history = run.history.lock();
        run.partitions.iter().map(|place| history.end_of(*place).unwrap_or_default()).collect::<Vec<_>>()
    };
    let rested = rest(&workers, &mut members, &[ends], &backend).await?;
    failures.lock().extend(rested);
    workers.must_read_all();
    run.history.lock().sort_by_time();
    let autopsy = backend.autopsy(&run.topic, PARTITIONS).await;
    let verdict = check(&run.history.lock(), &Promises::default());
    let happened = Happened { faults, moves: moves.load(Ordering::SeqCst), others };
    let (still, too_still) = stand_stills(&run, &workers);
    failures.lock().extend(too_still);
    let counts = report(&run, &workers, &verdict, &still, &happened);
    match &autopsy {
        Ok(Some(told)) => println!("disks              {told}"),
        Ok(None) => {}
        Err(error) => println!("disks              DIFFER: {error}"),
    }
    let failures = failures.lock();
    failures.iter().for_each(|failure| println!("FAILURE            {failure}"));
    let kept = verdict.is_ok() && failures.is_empty() && autopsy.is_ok();
    println!("verdict            {}", if kept { "all promises kept" } else { "FAILED" });
    Ok(kept && (counts || options.lenient))
}

/// Everything that is said to coordinators, by anybody of this process, is overheard.
fn overheard(backend: &Backend, ear: Arc<Ear>) -> ClientBuilder {
    backend.client_builder().connector(Overheard::new(backend.connector(), ear))
}

async fn start_members(
    run: &Arc<Run>,
    workers: &Arc<World>,
    backend: &Arc<Backend>,
    failures: &Arc<Mutex<Vec<String>>>,
) -> Result<JoinSet<()>, Error> {
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let bootstrap: Vec<_> = brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
    let (mut members, mut seed) = (JoinSet::new(), run.seed << 16);
    for group in 0..workers.groups.len() {
        for slot in 0..MEMBERS + PROCESSES {
            seed += 1;
            let chance = fastrand::Rng::with_seed(seed);
            let (world, backend, run) = (workers.clone(), backend.clone(), run.clone());
            let (failures, bootstrap) = (failures.clone(), bootstrap.join(","));
            members.spawn(async move {
                let lived = if slot >= MEMBERS && backend.can(Can::RealSockets) {
                    occupy_by_processes(world, group, slot, chance, bootstrap, run.began).await
                } else {
                    occupy(world, group, slot, chance, |ear| overheard(&backend, ear)).await
                };
                if let Err(error) = lived {
                    run.mark(&format!("A MEMBER FAILED: {error}"));
                    failures.lock().push(error);
                }
            });
        }
    }
    Ok(members)
}

/// Counts how often a group was seen to have another coordinator.
async fn count_moves(run: Arc<Run>, workers: Arc<World>, backend: Arc<Backend>, moves: Arc<AtomicU64>) {
    let mut known = vec![None; workers.groups.len()];
    while !run.over.load(Ordering::SeqCst) {
        for (group, known) in known.iter_mut().enumerate() {
            if let Some(now) = backend.coordinator_of(&World::group_id(group)).await {
                let before = known.replace(now);
                moves.fetch_add(u64::from(before.is_some_and(|before| before != now)), Ordering::SeqCst);
            }
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Waits until every group is done with everything and its members are closed; gives what is missing then.
async fn rest(
    workers: &Arc<World>,
    members: &mut JoinSet<()>,
    ends: &[Vec<i64>],
    backend: &Backend,
) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    let (mut progress, mut since) = (0, Instant::now());
    let all = workers.groups.iter().map(|group| group.members as usize).sum::<usize>();
    while !workers.is_done(ends) || workers.resting() < all {
        if workers.progress() != std::mem::replace(&mut progress, workers.progress()) {
            since = Instant::now();
        }
        if since.elapsed() > REST {
            let (rest, done) = (workers.resting(), workers.counts());
            missing.push(format!(
                "no progress for {REST:?}: {rest} of {all} members rest, ends {ends:?}, done {done}"
            ));
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    workers.close_at_rest();
    let closed = async { while members.join_next().await.is_some() {} };
    if timeout(REST, closed).await.is_err() {
        missing.push(format!("{} members are not closed after {REST:?}", members.len()));
    }
    let uncommitted = workers.uncommitted(ends, |ear| overheard(backend, ear)).await?;
    missing.extend(
        uncommitted.into_iter().map(|told| format!("all are closed, and not all is committed: {told}")),
    );
    Ok(missing)
}

// ---- the verdict

/// What was done, and what others say of the outcome.
struct Happened {
    faults: Faults,
    moves: u64,
    others: String,
}

/// What each group did, and when it stood still, in words; and whether one did for long though nothing disturbed it.
fn stand_stills(run: &Run, workers: &World) -> (Vec<String>, Vec<String>) {
    let history = run.history.lock();
    let of = |index: usize| history.group_named(&World::group_id(index));
    let disturbances = |group| {
        let index = (0..workers.groups.len()).find(|index| of(*index) == Some(group));
        let mut times = index.map_or_else(Vec::new, |index| workers.silences(index));
        times.extend(run.faults());
        times.sort_unstable();
        times
    };
    let all = progress(&history, disturbances);
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    for (index, plan) in workers.groups.iter().enumerate() {
        let (id, nothing) = (World::group_id(index), Progress::default());
        let GroupPlan { strategy, auto_commit, fixed, .. } = plan;
        let Progress { done, again, longest, undisturbed, .. } =
            of(index).and_then(|group| all.get(&group)).unwrap_or(&nothing);
        let commit = if *auto_commit { "auto" } else { "manual" };
        let fixed = if *fixed { ", static" } else { "" };
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        lines.push(format!(
            "{id:<18} {strategy}, {commit} commit{fixed}: {} records done, {again} of them again",
            done.len()
        ));
        lines.push(format!(
            "{:<18} stood still for {} from {}: disturbed {} times, {} generations, {} without an owner; undisturbed for {} at most",
            "",
            seconds(longest.length),
            seconds(longest.from),
            longest.disturbed,
            longest.generations,
            seconds(longest.unowned),
            seconds(*undisturbed),
        ));
        if *undisturbed > STANDS_STILL {
            failures
                .push(format!("{id} stood still for {} though nothing disturbed it", seconds(*undisturbed)));
        }
    }
    (lines, failures)
}

/// Prints what happened; returns whether the run counts.
fn report(run: &Run, workers: &World, verdict: &Report, still: &[String], happened: &Happened) -> bool {
    let Happened { faults, moves, others } = happened;
    let count = |of: &AtomicU64| of.load(Ordering::SeqCst);
    let kills: u64 =
        faults.iter().filter(|(fault, _)| fault.starts_with("kill")).map(|(_, count)| count).sum();
    let faults: Vec<_> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    let (tally, rebalances) = (&workers.tally, workers.rebalances());
    println!("\n{verdict}");
    println!("rebalances         {rebalances}");
    println!("coordinator moves  {moves}");
    println!("broker kills       {kills} among {}", faults.join(", "));
    println!("joins              {}", count(&tally.joins));
    println!("leaves             {}", count(&tally.leaves));
    println!("kills              {} vanished, {} by SIGKILL", count(&tally.crashes), count(&tally.kills));
    println!("stalls             {}", count(&tally.stalls));
    println!("records            {}, {} acknowledged", verdict.sent, verdict.acked);
    println!("read               {}, {} commits", verdict.reads, verdict.commits);
    println!("retried batches    {}", count(&run.retries));
    still.iter().for_each(|told| println!("{told}"));
    let sum = |rules: &[Rule]| rules.iter().map(|rule| verdict.count(*rule)).sum::<u64>();
    println!("lost               {}", sum(&[Rule::Lost, Rule::WrongOffset, Rule::Undelivered]));
    println!("again though committed {}", sum(&[Rule::Redelivered, Rule::CommitMovedBack]));
    println!("two owners         {}", sum(&[Rule::TwoOwners]));
    println!("positions off      {}", sum(&[Rule::Skipped, Rule::MovedBack, Rule::NotOwned]));
    println!(
        "commits off        {}",
        sum(&[Rule::CommittedAhead, Rule::CommittedAfterLoss, Rule::CommittedLate])
    );
    println!(
        "excused            {} partitions lost before their members heard that all is over",
        workers.excused()
    );
    println!("second reader      {others}");
    println!("load average       {}", load_average());
    let counts = rebalances >= REBALANCES && *moves >= MOVES && verdict.acked > 0 && verdict.unknown == 0;
    if !counts {
        println!(
            "this run does not count: it takes {REBALANCES} rebalances and {MOVES} moves of coordinators"
        );
    }
    counts
}
