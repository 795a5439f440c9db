//! A schedule carried out on a cluster.
//!
//! In: faults as data. Out: what the cluster's public faults do, each in its moment, and undone again.
//!
//! Invariant: when [`Schedule::play`] returns, every node runs, every guard is dropped.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use klamm_wire::messages::ApiKey;

use super::schedule::{Fault, Isolation, Moment, Schedule, Way, What, Who};
use crate::broker::CONTROLLER_ID;
use crate::cluster::{Cluster, ClusterError, Cut};
use crate::disk::{DiskFault, DiskFaults, PowerLoss};
use crate::node::Side;
use crate::rules::{Gate, Stage};

/// Longest wait for a moment that a request brings.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between attempts to bring a node back.
const AGAIN: Duration = Duration::from_millis(100);
/// Attempts before it is given up; each may wait for half a minute itself.
const MOST_ATTEMPTS: u32 = 600;

/// What came of a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Played {
    /// Faults that happened.
    pub happened: usize,
    /// Faults that did not, because their moment never came or the node was down already.
    pub missed: usize,
}

impl Schedule {
    /// Carries out every fault in its moment and undoes it again; returns when all are over and every node runs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future heals the network and the disks; nodes stay as they are.
    pub async fn play(&self, cluster: &Cluster) -> Played {
        let mut running: FuturesUnordered<_> = self.faults.iter().map(|fault| fault.play(cluster)).collect();
        let mut played = Played::default();
        while let Some(happened) = running.next().await {
            played.happened += usize::from(happened);
            played.missed += usize::from(!happened);
        }
        drop(running);
        for node in nodes(cluster) {
            bring_back(cluster, node).await;
        }
        played
    }
}

impl Fault {
    /// `false` if it did not happen.
    async fn play(&self, cluster: &Cluster) -> bool {
        let Some(Came { here, held }) = self.when.come(cluster).await else { return false };
        let lasts = Duration::from_millis(self.lasts_ms);
        match &self.what {
            What::Kill(who) => {
                let downed = who.nodes(cluster, here).into_iter().filter(|id| cluster.kill(*id).is_ok());
                let downed = downed.collect();
                drop(held);
                restart_later(cluster, downed, lasts).await
            }
            What::Pause(who) => {
                let paused: Vec<_> =
                    who.nodes(cluster, here).into_iter().filter(|id| cluster.pause(*id).is_ok()).collect();
                drop(held);
                cluster.rt().sleep(lasts).await;
                // One that was killed meanwhile is another fault's to bring back.
                paused.iter().for_each(|id| drop(cluster.resume(*id)));
                !paused.is_empty()
            }
            What::Cut { who, from, way } => {
                let victims = who.nodes(cluster, here);
                let happened = victims.iter().any(|node| is_up(cluster, *node));
                let cuts: Vec<_> = victims
                    .into_iter()
                    .flat_map(|node| from.sides().iter().map(move |side| (node, side.clone())))
                    .map(|(node, side)| cut(cluster, node, side, *way))
                    .collect();
                drop(held);
                cluster.rt().sleep(lasts).await;
                drop(cuts);
                happened
            }
            What::SlowNetwork { up_to_ms } => {
                let range = Duration::ZERO..=Duration::from_millis(*up_to_ms);
                let slow = cluster.latency(Side::Anyone, Side::Anyone, range);
                cluster.rt().sleep(lasts).await;
                drop(slow);
                true
            }
            What::Loss { probability } => {
                let loss = cluster.loss(Side::Anyone, Side::Anyone, *probability);
                cluster.rt().sleep(lasts).await;
                drop(loss);
                true
            }
            What::PowerOff { who, torn } => {
                let loss = if *torn { PowerLoss::Torn } else { PowerLoss::Unsynced };
                let downed = match who {
                    Who::AllBrokers => cluster.power_off_all_with(loss),
                    who => {
                        let victims = who.nodes(cluster, here).into_iter();
                        victims.filter(|id| cluster.power_off_with(*id, loss).is_ok()).collect()
                    }
                };
                drop(held);
                restart_later(cluster, downed, lasts).await
            }
            What::SlowDisk { who, ms } => {
                let slow = Duration::from_millis(*ms);
                disk_fault(cluster, &who.nodes(cluster, here), lasts, |disk| disk.slow(slow)).await
            }
            What::FailingDisk(who) => {
                disk_fault(cluster, &who.nodes(cluster, here), lasts, DiskFaults::fail_sync).await
            }
            What::FullDisk(who) => {
                disk_fault(cluster, &who.nodes(cluster, here), lasts, DiskFaults::full).await
            }
            What::LateProposal => {
                let proposals = cluster.on(ApiKey::AlterPartition).broker(CONTROLLER_ID).times(1);
                let gate = proposals.at(Stage::BeforeApply).hold();
                let came = tokio::select! {
                    biased;
                    () = gate.hit() => true,
                    () = cluster.rt().sleep(PATIENCE) => false,
                };
                if came {
                    cluster.rt().sleep(lasts).await;
                }
                came
            }
            What::ClockJump { who, ms } => {
                let jumped = who.nodes(cluster, here);
                let set = |ms| jumped.iter().filter(|id| cluster.set_clock_off(**id, ms).is_ok()).count();
                let happened = set(*ms) > 0;
                cluster.rt().sleep(lasts).await;
                set(0);
                happened
            }
        }
    }
}

/// A fault of disks; brokers that ended by it are started again when it is over.
async fn disk_fault(
    cluster: &Cluster,
    nodes: &[i32],
    lasts: Duration,
    fault: impl Fn(&DiskFaults) -> DiskFault,
) -> bool {
    let happened = nodes.iter().any(|node| is_up(cluster, *node));
    let faults: Vec<_> = nodes.iter().filter_map(|id| Some(fault(&cluster.disk(*id).ok()?))).collect();
    cluster.rt().sleep(lasts).await;
    drop(faults);
    for node in nodes {
        bring_back(cluster, *node).await;
    }
    happened
}

/// Restarts what a fault has taken down; `false` if that was nothing.
async fn restart_later(cluster: &Cluster, downed: Vec<i32>, lasts: Duration) -> bool {
    cluster.rt().sleep(lasts).await;
    for node in &downed {
        bring_back(cluster, *node).await;
    }
    !downed.is_empty()
}

/// Lets a node run, whatever it takes; gives up, with a word, where it takes too long.
async fn bring_back(cluster: &Cluster, node: i32) {
    for _ in 0..MOST_ATTEMPTS {
        drop(cluster.resume(node));
        match cluster.restart(node).await {
            Ok(()) | Err(ClusterError::Broker { state: "running", .. } | ClusterError::NoSuchBroker(_)) => {
                return;
            }
            // Whom it needs is down or cut off; somebody brings that back, too.
            Err(error) => tracing::debug!(node, %error, "not back yet"),
        }
        cluster.rt().sleep(AGAIN).await;
    }
    tracing::error!(node, attempts = MOST_ATTEMPTS, "a node that a fault took down does not come back");
}

fn is_up(cluster: &Cluster, node: i32) -> bool {
    cluster.running(node).is_ok() || cluster.voter_life(node).is_some()
}

fn nodes(cluster: &Cluster) -> Vec<i32> {
    // Brokers wait for a controller when they start.
    cluster.voters().into_iter().chain(cluster.broker_ids()).collect()
}

fn cut(cluster: &Cluster, node: i32, side: Side, way: Way) -> Cut {
    match way {
        Way::Both => cluster.cut(node, side),
        Way::Out => cluster.cut_one_way(node, side),
        Way::In => cluster.cut_one_way(side, node),
    }
}

impl Isolation {
    fn sides(self) -> &'static [Side] {
        match self {
            Self::Brokers => &[Side::Brokers],
            Self::Controller => &[Side::Controller],
            Self::Clients => &[Side::Clients],
            Self::Cluster => &[Side::Brokers, Side::Controller],
            Self::Everybody => &[Side::Anyone],
        }
    }
}

impl Who {
    /// Whom it means, `here` being where the moment came.
    fn nodes(self, cluster: &Cluster, here: Option<i32>) -> Vec<i32> {
        match self {
            Self::Broker(id) => vec![id],
            Self::Controller => cluster.controller().into_iter().collect(),
            Self::Voter(id) => vec![id],
            Self::Voters => cluster.voters(),
            Self::AllBrokers => cluster.broker_ids(),
            Self::Others(id) => cluster.broker_ids().into_iter().filter(|other| *other != id).collect(),
            Self::Leader => here.or_else(|| busiest(cluster)).into_iter().collect(),
        }
    }
}

/// The broker that leads most partitions.
fn busiest(cluster: &Cluster) -> Option<i32> {
    let counts = cluster.leader_counts().into_iter();
    counts.max_by_key(|(id, count)| (*count, std::cmp::Reverse(*id))).map(|(id, _)| id)
}

/// A moment that came.
struct Came {
    /// Where, if it was the moment of a broker.
    here: Option<i32>,
    /// Holds the request whose moment it was until the fault has happened.
    held: Option<Gate>,
}

impl Moment {
    /// Waits for it; `None` if it does not come within [`PATIENCE`].
    async fn come(self, cluster: &Cluster) -> Option<Came> {
        let (after_ms, skip, stage) = match self {
            Self::At { ms } => {
                cluster.rt().sleep(Duration::from_millis(ms)).await;
                return Some(Came { here: None, held: None });
            }
            Self::Arrived { after_ms, skip } => (after_ms, skip, Stage::BeforeApply),
            Self::Appended { after_ms, skip } => (after_ms, skip, Stage::AfterAppend),
            Self::Committed { after_ms, skip } => (after_ms, skip, Stage::AfterCommit),
        };
        cluster.rt().sleep(Duration::from_millis(after_ms)).await;
        let gate = |broker| {
            let of_clients = cluster.on(ApiKey::Produce).from(Side::Clients).broker(broker);
            (broker, of_clients.skip(skip as usize).times(1).at(stage).hold())
        };
        // One for each broker, so that it is known where the moment came.
        let gates: Vec<_> = cluster.broker_ids().into_iter().map(gate).collect();
        let first = {
            let mut hits: FuturesUnordered<_> = gates
                .iter()
                .map(|(broker, gate)| async move {
                    gate.hit().await;
                    *broker
                })
                .collect();
            tokio::select! {
                biased;
                first = hits.next() => first,
                () = cluster.rt().sleep(PATIENCE) => None,
            }
        };
        let (here, held) = gates.into_iter().find(|(broker, _)| Some(*broker) == first)?;
        Some(Came { here: Some(here), held: Some(held) })
    }
}
