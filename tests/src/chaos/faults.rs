//! What is done to nodes, one thing after the other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use klamm::TopicDescription;
use tokio::time::{Instant, sleep};

use super::{Error, Run};
use crate::backend::{BROKERS, Backend, Can, Kind};
use crate::process::kafka_tool;

/// How long one broker stays dead or silent: longer than the cluster takes to notice, and than a request may take.
const OUTAGE: Duration = Duration::from_secs(5);

/// How soon the next fault comes where it comes at once.
pub const AT_ONCE: Duration = Duration::from_secs(2);

/// How often each fault was done.
pub type Faults = BTreeMap<&'static str, u64>;

/// What is done to a node.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    KillAmidWrites,
    KillAll,
    Pause,
    Cut,
    Restart,
    MoveLeaders,
}

impl Fault {
    /// Those that a kind of cluster has.
    fn of(kind: &Kind) -> Vec<Self> {
        let kafka = kind.id == "kafka";
        let all = [
            (Self::Kill, true),
            (Self::KillAmidWrites, !kafka && !kind.can.contains(&Can::StopInOrder)),
            (Self::KillAll, kind.can.contains(&Can::StopInOrder)),
            (Self::Pause, true),
            (Self::Cut, kind.can.contains(&Can::Cut)),
            (Self::Restart, kind.can.contains(&Can::StopInOrder)),
            (Self::MoveLeaders, kafka),
        ];
        all.into_iter().filter(|(_, has)| *has).map(|(fault, _)| fault).collect()
    }
}

/// A kill of another node while the first fault lasts, or the cluster is recovering from it.
#[derive(Debug, Clone, Copy)]
struct Second {
    node: i32,
    after: Duration,
}

impl Second {
    async fn strike(self, run: &Run, backend: &Backend) -> Result<(), Error> {
        let Self { node, after } = self;
        sleep(after).await;
        run.mark(&format!("kill -9 of broker {node} meanwhile"));
        backend.kill(node).await?;
        sleep(OUTAGE / 2).await;
        run.mark(&format!("broker {node} starts again"));
        backend.restart(node).await?;
        Ok(())
    }
}

/// What a node is to the cluster that is chosen as a victim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It leads most partitions: its end makes most elections.
    Busiest,
    /// It is the active controller, where that is one of the brokers.
    Controller,
    /// It coordinates this group.
    Coordinator(String),
}

impl Role {
    /// Who it is now, and what is said of it; the busiest where nobody has the role.
    async fn holder(&self, backend: &Backend, topic: &TopicDescription) -> (i32, String) {
        let (holder, role) = match self {
            Self::Busiest => (None, String::new()),
            Self::Controller => {
                let controller = backend.controller().await.ok().flatten();
                (controller.map(|(node, _)| node), ", the active controller".to_owned())
            }
            Self::Coordinator(group) => {
                (backend.coordinator_of(group).await, format!(", the coordinator of {group}"))
            }
        };
        holder.map_or_else(|| (busiest(topic), String::new()), |node| (node, role))
    }
}

/// One fault after the other until the time is up, to the nodes that have these roles in turn. Each is over, and all
/// replicas in sync, before the next one, which comes at once one time in three, else after a rest; but one time in three
/// another node is killed meanwhile.
///
/// # Errors
///
/// A fault cannot be done, or the cluster does not recover from it.
pub async fn break_things(
    run: &Run,
    backend: &Backend,
    roles: &[Role],
    rest: Range<Duration>,
    until: Instant,
) -> Result<Faults, Error> {
    let mut faults = Faults::new();
    let mut chance = fastrand::Rng::with_seed(run.seed);
    let kinds = Fault::of(backend.kind());
    let mut coming = Vec::new();
    for role in roles.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        let description = until_whole(run, backend).await?;
        if coming.is_empty() {
            coming.clone_from(&kinds);
            chance.shuffle(&mut coming);
        }
        let Some(fault) = coming.pop() else { break };
        let (victim, role) = role.holder(backend, &description).await;
        let second = chance.u8(0..3) == 0 && !matches!(fault, Fault::KillAll | Fault::MoveLeaders);
        let second = second.then(|| Second {
            node: (victim + chance.i32(0..BROKERS as i32 - 1)) % BROKERS as i32 + 1,
            after: Duration::from_millis(chance.u64(0..3000)),
        });
        let name = match second {
            // What heals a cut starts the nodes, too.
            Some(second) if !matches!(fault, Fault::Cut) => {
                let first = strike(run, backend, fault, victim, &role, &description, None);
                tokio::try_join!(first, second.strike(run, backend))?.0
            }
            second => strike(run, backend, fault, victim, &role, &description, second).await?,
        };
        *faults.entry(name).or_default() += 1;
        if second.is_some() {
            *faults.entry("kills of another meanwhile").or_default() += 1;
        }
        let pause = match chance.u8(0..3) {
            0 => Duration::ZERO..AT_ONCE,
            _ => rest.clone(),
        };
        let pause = chance.u64(pause.start.as_millis() as u64..pause.end.as_millis() as u64);
        sleep(Duration::from_millis(pause).min(until.saturating_duration_since(Instant::now()))).await;
    }
    Ok(faults)
}

/// One fault, from its beginning to its end; gives its name.
async fn strike(
    run: &Run,
    backend: &Backend,
    fault: Fault,
    victim: i32,
    role: &str,
    description: &TopicDescription,
    second: Option<Second>,
) -> Result<&'static str, Error> {
    let victim_is = format!("broker {victim}{role}");
    match fault {
        Fault::Kill => {
            run.mark(&format!("kill -9 of {victim_is}"));
            backend.kill(victim).await?;
            sleep(OUTAGE).await;
            run.mark(&format!("broker {victim} starts again"));
            backend.restart(victim).await?;
            Ok("kills")
        }
        Fault::KillAmidWrites => {
            run.mark(&format!("kill -9 of {victim_is} in the moment when it owes an answer"));
            backend.kill_amid_writes(victim).await?;
            sleep(OUTAGE / 4).await;
            run.mark(&format!("broker {victim} starts again"));
            backend.restart(victim).await?;
            Ok("kills amid writes")
        }
        Fault::KillAll => {
            run.mark("kill -9 of all nodes");
            for node in 1..=BROKERS as i32 {
                backend.kill(node).await?;
            }
            run.mark("all nodes start again");
            backend.mend().await?;
            Ok("kills of all")
        }
        Fault::Pause => {
            run.mark(&format!("{victim_is} stops"));
            backend.pause(victim).await?;
            sleep(OUTAGE).await;
            run.mark(&format!("broker {victim} goes on"));
            backend.resume(victim).await?;
            Ok("pauses")
        }
        Fault::Cut => {
            run.mark(&format!("{victim_is} is cut off from the others"));
            backend.cut_off(victim).await?;
            match second {
                Some(second) => second.strike(run, backend).await?,
                None => sleep(OUTAGE).await,
            }
            run.mark("the network is whole again");
            backend.mend().await?;
            Ok("cuts")
        }
        Fault::Restart => {
            run.mark(&format!("{victim_is} is restarted in order"));
            backend.stop(victim).await?;
            backend.restart(victim).await?;
            Ok("restarts")
        }
        Fault::MoveLeaders => {
            move_leaders(run, backend, description).await?;
            Ok("leaders moved by Java's tools")
        }
    }
}

/// Waits until every partition has a leader and all its replicas in sync.
async fn until_whole(run: &Run, backend: &Backend) -> Result<TopicDescription, Error> {
    let whole = |told: Result<&TopicDescription, _>| {
        let topic = told.ok()?;
        let whole = topic.partitions.iter().all(|p| p.leader.is_some() && p.isr.len() == BROKERS);
        whole.then(|| topic.clone())
    };
    Ok(backend.until_described(&run.topic, whole).await?)
}

fn busiest(topic: &TopicDescription) -> i32 {
    let leads = |broker: &i32| topic.partitions.iter().filter(|p| p.leader == Some(*broker)).count();
    (1..=BROKERS as i32).max_by_key(leads).unwrap_or(1)
}

/// Gives every partition another preferred leader, and lets Kafka elect the preferred ones.
async fn move_leaders(run: &Run, backend: &Backend, topic: &TopicDescription) -> Result<(), Error> {
    run.mark("Java's tools give every partition another preferred leader and have it elected");
    let partitions = topic.partitions.iter().map(|found| {
        let mut replicas = found.replicas.clone();
        // So that the one behind the present leader comes first.
        let at = replicas.iter().position(|replica| Some(*replica) == found.leader).unwrap_or_default();
        replicas.rotate_left((at + 1) % found.replicas.len());
        serde_json::json!({"topic": &*run.topic, "partition": found.partition, "replicas": replicas})
    });
    let plan = serde_json::json!({"version": 1, "partitions": partitions.collect::<Vec<_>>()});
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let bootstrap: Vec<_> = brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
    let moved = tokio::task::spawn_blocking(move || java_moves(&bootstrap.join(","), &plan.to_string()));
    moved.await?
}

fn java_moves(bootstrap: &str, plan: &str) -> Result<(), Error> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), plan)?;
    let path = file.path().to_string_lossy();
    let reassign = ["--bootstrap-server", bootstrap, "--reassignment-json-file", &path, "--execute"];
    let elect = ["--bootstrap-server", bootstrap, "--election-type", "PREFERRED", "--all-topic-partitions"];
    for (class, arguments) in [
        ("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", &reassign),
        ("org.apache.kafka.tools.LeaderElectionCommand", &elect),
    ] {
        let output = kafka_tool(class, arguments)?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(format!("{class}: {}", String::from_utf8_lossy(&said)).into());
        }
    }
    Ok(())
}
