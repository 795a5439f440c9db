//! Members that are processes of their own, so that they can be killed as an operating system kills: between any two
//! instructions, and without a word.
//!
//! ```text
//! parent ──Orders (an argument)──▶ child ──Told, a line each, before it goes on──▶ the parent's history
//!        ──calm, over (stdin)────▶   └──▶ cluster
//! ```

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm::{Client, ClientBuilder, Connector, TcpConnector};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep};

use super::member::Member;
use super::{Act, Ear, GroupPlan, Habits, Overheard, Step, World};
use crate::history::{self, Clock, Entry, Event, History, Partition};

/// Between two looks at a child.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The first argument of a child; the second is its orders.
pub const MEMBER: &str = "member";

/// What a child is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Orders {
    bootstrap: String,
    /// Topics and how many partitions they have.
    topics: Vec<(String, usize)>,
    groups: Vec<GroupPlan>,
    habits: Habits,
    group: usize,
    name: String,
    seed: u64,
    /// When the run began, since 1970.
    began_ns: u64,
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// Something for the history.
    Event(Entry),
    /// It does something that the history does not know.
    Step(Step),
}

/// Fills a place in a group as [`super::occupy`] does, each member a process by this program's `member ORDERS`; what is
/// [`Act::Crash`] there is SIGKILL here, at any moment.
///
/// # Errors
///
/// As there; or a child ends by itself, and says why on standard error.
pub async fn occupy_by_processes(
    world: Arc<World>,
    group: usize,
    slot: u32,
    mut chance: fastrand::Rng,
    bootstrap: String,
    began: Duration,
) -> Result<(), String> {
    let name = format!("process-{slot}");
    let fixed = world.groups[group].fixed.then(|| world.register(group, &name));
    let mut habits = world.habits.clone();
    habits.acts.retain(|act| *act != Act::Crash);
    let topics = world.topics.iter().map(|(topic, places)| (topic.to_string(), places.len())).collect();
    let mut orders = Orders {
        bootstrap,
        topics,
        groups: world.groups.clone(),
        habits,
        group,
        name: name.clone(),
        seed: 0,
        began_ns: began.as_nanos() as u64,
    };
    for life in 0.. {
        sleep(Duration::from_millis(chance.u64(0..1_000))).await;
        let me = fixed.unwrap_or_else(|| world.register(group, &format!("{name}.{life}")));
        orders.seed = chance.u64(..);
        let killed_after = Duration::from_millis(chance.u64(0..3 * world.habits.life_ms.max(1)));
        let whole = one_life(&world, &orders, me, killed_after).await;
        if whole.map_err(|error| format!("{} {name}: {error}", World::group_id(group)))? {
            return Ok(());
        }
    }
    Ok(())
}

/// One child from its start to its end; `true` if it lived to the end of the run.
async fn one_life(
    world: &Arc<World>,
    orders: &Orders,
    me: history::Client,
    killed_after: Duration,
) -> Result<bool, String> {
    let mut child = start(orders).map_err(|error| format!("no process: {error}"))?;
    world.tally.joins.fetch_add(1, Ordering::Relaxed);
    let (Some(out), Some(mut err), Some(mut stdin)) =
        (child.stdout.take(), child.stderr.take(), child.stdin.take())
    else {
        return Err("it has no pipes".to_owned());
    };
    let listening = tokio::spawn(listen(world.clone(), orders.group, me, out));
    let complaining = tokio::spawn(async move {
        let mut said = String::new();
        let _ = err.read_to_string(&mut said).await;
        said
    });
    let begun = Instant::now();
    let (mut calm, mut over, mut killed) = (false, false, false);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        for (now, told, word) in [(&world.calm, &mut calm, "calm\n"), (&world.over, &mut over, "over\n")] {
            if now.load(Ordering::SeqCst) && !*told {
                *told = true;
                // One that ends at this moment does not hear it.
                let _ = stdin.write_all(word.as_bytes()).await;
            }
        }
        if begun.elapsed() > killed_after && !calm && !killed {
            killed = true;
            let at = world.clock.now();
            world.history.lock().mark(at, &format!("kill -9 of {} {}", orders.name, orders.group));
            child.start_kill().map_err(|error| error.to_string())?;
            world.tally.kills.fetch_add(1, Ordering::Relaxed);
            world.silent(orders.group);
        }
        sleep(LOOK_AGAIN).await;
    };
    let (owned, whole) = listening.await.map_err(|error| error.to_string())??;
    let said = complaining.await.map_err(|error| error.to_string())?;
    match (status.success(), killed) {
        (true, _) if owned.is_empty() => {
            if !whole {
                world.over_for(me);
            }
            Ok(whole)
        }
        (true, _) => Err(format!("it has ended, and was not told that it gave up {owned:?}")),
        (false, true) => {
            // What it had it has no more.
            let ended = world.clock.now();
            for place in owned {
                world.history.lock().revoked(ended, me, place);
                world.lost(orders.group, me, place);
            }
            world.over_for(me);
            Ok(false)
        }
        (false, false) => Err(format!("{status}: {said}")),
    }
}

fn start(orders: &Orders) -> Result<Child, std::io::Error> {
    Command::new(std::env::current_exe()?)
        .args([MEMBER, &serde_json::to_string(orders)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Writes down what a child says until it ends; gives what it owned then, and whether it lived to the end of the run. The line
/// that it was killed in does not count.
async fn listen(
    world: Arc<World>,
    group: usize,
    me: history::Client,
    out: ChildStdout,
) -> Result<(BTreeSet<Partition>, bool), String> {
    let (mut lines, mut numbers) = (BufReader::new(out).lines(), Vec::new());
    let (mut owned, mut whole, mut broken) = (BTreeSet::new(), false, None);
    while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
        if let Some(line) = broken {
            return Err(format!("it said {line:?}"));
        }
        match serde_json::from_str(&line) {
            Ok(Told::Event(entry)) => {
                match entry.event {
                    Event::Assigned { partition, .. } => {
                        owned.insert(partition);
                    }
                    Event::Revoked { partition } | Event::Lost { partition } => {
                        owned.remove(&partition);
                    }
                    _ => {}
                }
                world.take_over(group, me, entry, &mut numbers);
            }
            Ok(Told::Step(step)) => {
                whole |= step == Step::Whole;
                world.step(group, me, step);
            }
            Err(_) => broken = Some(line),
        }
    }
    Ok((owned, whole))
}

/// The child: one member from its start to its end.
///
/// # Errors
///
/// What no member may say, or what takes so long that it hangs.
pub async fn live_in_this_process(orders: &str) -> Result<(), String> {
    let orders: Orders = serde_json::from_str(orders).map_err(|error| error.to_string())?;
    let Orders { bootstrap, topics, groups, habits, group, name, seed, began_ns } = orders;
    let mut history = History::new();
    let topics = topics.into_iter().map(|(topic, count)| {
        let places = (0..count).map(|index| history.partition(&topic, index as i32)).collect();
        (topic.into(), places)
    });
    let topics = topics.collect();
    history.listen(|entry| say(&Told::Event(entry)));
    let clock = Clock::since(Duration::from_nanos(began_ns));
    let mut world = World::new(clock, Arc::new(Mutex::new(history)), topics, groups, habits);
    world.told = Some(|step| say(&Told::Step(step)));
    let world = Arc::new(world);
    obey(world.clone());
    let ear = world.ear(world.register(group, &name));
    let builder = overheard(&bootstrap, ear.clone());
    let member = Member::start(&world, builder, ear, group, &name, fastrand::Rng::with_seed(seed))?;
    member.live().await.map(drop)
}

fn overheard(bootstrap: &str, ear: Arc<Ear>) -> ClientBuilder {
    let connector = Overheard::new(TcpConnector::new().erase(), ear);
    Client::builder().bootstrap_servers(bootstrap).connector(connector)
}

/// One write for each line, so that whoever is killed has said the whole line or nothing.
fn say(told: &Told) {
    if let Ok(mut line) = serde_json::to_vec(told) {
        line.push(b'\n');
        // A parent that is gone wants nothing any more.
        let _ = std::io::stdout().lock().write_all(&line).and_then(|()| std::io::stdout().flush());
    }
}

/// Listens to the parent on a thread of its own, and ends with it.
fn obey(world: Arc<World>) {
    std::thread::spawn(move || {
        for word in std::io::stdin().lock().lines().map_while(Result::ok) {
            match word.as_str() {
                "calm" => world.calm.store(true, Ordering::SeqCst),
                "over" => world.over.store(true, Ordering::SeqCst),
                _ => {}
            }
        }
        std::process::exit(2);
    });
}
