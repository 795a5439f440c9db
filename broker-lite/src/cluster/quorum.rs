//! The controllers' place in the cluster: the voters of the metadata quorum, each of which may end and start again.
//!
//! Invariant: a new process of a controller begins with what the old one has made durable, and with chance of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Cluster, ClusterError, Started};
use crate::broker::CONTROLLER_ID;
use crate::broker::log_dir_name;
use crate::cluster_id::ClusterId;
use crate::controller::{ControllerNode, Seat, VoterDisk};
use crate::disk::{Disk, Leave};
use crate::identity::NodeIdentity;
use crate::journal::NodeEvent;
use crate::node::{Life, Node, Role};

/// Id of the first controller.
const FIRST_ID: i32 = 3001;

/// The voters.
#[derive(Debug)]
pub(super) struct Quorum {
    voters: BTreeMap<i32, Voter>,
    /// A controller was started, or goes on.
    started: Notify,
}

/// One voter's place, whether it runs or not.
#[derive(Debug)]
struct Voter {
    disk: Arc<VoterDisk>,
    current: Mutex<Current>,
    /// What an fsync takes in a simulation.
    #[cfg(feature = "sim")]
    _simulated_disk: Option<crate::disk::DiskFault>,
}

/// The current process of a voter, or the last one.
#[derive(Debug, Clone)]
struct Current {
    node: Arc<ControllerNode>,
    starts: u32,
}

impl Current {
    fn life(&self) -> &Arc<Life> {
        &self.node.seat.life
    }
}

/// Ids of the voters of a cluster.
pub(super) fn voter_ids(count: u32) -> BTreeSet<i32> {
    (FIRST_ID..).take(count as usize).collect()
}

impl Quorum {
    /// Starts all voters, each on its disk.
    pub(super) fn start(
        started: &Started,
        disk_of: impl Fn(i32) -> Result<Arc<Disk>, ClusterError>,
        slow: impl Fn(&Arc<Disk>) -> Option<crate::disk::DiskFault>,
    ) -> Result<Self, ClusterError> {
        let mut voters = BTreeMap::new();
        for id in &started.voters {
            let medium = disk_of(*id)?;
            let _slow = slow(&medium);
            let disk = VoterDisk::new(medium);
            let current = Mutex::new(boot(started, &disk, *id, 0)?);
            let voter = Voter {
                disk,
                current,
                #[cfg(feature = "sim")]
                _simulated_disk: _slow,
            };
            voters.insert(*id, voter);
        }
        // All of them can be reached before the first one stands for election.
        voters.values().for_each(|voter| voter.current.lock().node.run());
        Ok(Self { voters, started: Notify::new() })
    }

    fn current(&self, id: i32) -> Option<Current> {
        self.voters.get(&id).map(|voter| voter.current.lock().clone())
    }

    fn all(&self) -> Vec<Current> {
        self.voters.values().map(|voter| voter.current.lock().clone()).collect()
    }

    pub(super) fn lives(&self) -> Vec<Arc<Life>> {
        self.all().iter().map(|current| current.life().clone()).collect()
    }

    pub(super) fn disk(&self, id: i32) -> Option<Arc<Disk>> {
        self.voters.get(&id).map(|voter| voter.disk.disk.clone())
    }

    /// The controller that leads in an epoch, confirmed.
    pub(super) fn active_in(&self, epoch: i32) -> Option<Arc<ControllerNode>> {
        let mut all = self.all().into_iter().filter(|current| !current.life().is_dead());
        all.find(|current| current.node.active_epoch() == Some(epoch)).map(|current| current.node)
    }

    /// Wakes whoever waits for a controller to run.
    pub(super) fn changed(&self) {
        self.started.notify_waiters();
    }

    /// The active controller: the one of the highest epoch, as an older one may not know yet that it is none any more.
    fn active(&self) -> Option<Current> {
        let all = self.all().into_iter().filter(|current| !current.life().is_dead());
        let active = all.filter_map(|current| Some((current.node.active_epoch()?, current)));
        active.max_by_key(|(epoch, _)| *epoch).map(|(_, current)| current)
    }
}

fn boot(started: &Started, disk: &Arc<VoterDisk>, id: i32, starts: u32) -> Result<Current, ClusterError> {
    let Started { rt, cluster_id, network, journal, config, limits, voters, all_former } = started;
    let (rt, life) = (rt.clone(), Life::new(rt.clone()));
    let who = NodeIdentity {
        id,
        listeners: &[],
        advertised: None,
        log_dir: log_dir_name(id, &disk.disk),
        voters: String::new(),
        rack: None,
    };
    let config = who.running(config);
    let seat = Seat {
        id,
        voters: voters.clone(),
        rt: rt.clone(),
        life: life.clone(),
        network: network.clone(),
        cluster_id: ClusterId::new(Some(cluster_id)),
        config,
        journal: journal.clone(),
        disk: disk.clone(),
        start: starts,
        all_former: all_former.clone(),
    };
    let node = ControllerNode::new(seat).map_err(ClusterError::Metadata)?;
    let role = Role::Controller(node.clone());
    network.attach(Arc::new(Node { id, rt, life, network: network.clone(), limits: *limits, role }));
    Ok(Current { node, starts })
}

/// Controllers.
impl Cluster {
    /// Ids of all controllers, alive or not.
    pub fn voters(&self) -> Vec<i32> {
        self.controller.voters.keys().copied().collect()
    }

    /// The active controller, if there is one: the leader of the metadata quorum, as it sees itself.
    pub fn controller(&self) -> Option<i32> {
        self.controller.active().map(|current| current.node.id())
    }

    /// The node that a number means: [`Self::CONTROLLER`] is the active controller.
    pub(super) fn resolve(&self, node: i32) -> Option<i32> {
        if node == CONTROLLER_ID { self.controller() } else { Some(node) }
    }

    pub(super) fn is_voter(&self, node: i32) -> bool {
        self.controller.voters.contains_key(&node)
    }

    pub(crate) fn voter_life(&self, id: i32) -> Option<Arc<Life>> {
        self.controller.current(id).map(|current| current.life().clone()).filter(|life| !life.is_dead())
    }

    /// Controllers that are down, or, with `paused`, paused.
    pub(super) fn absent_voters(&self, paused: bool) -> Vec<i32> {
        let all = self.controller.all().into_iter();
        let absent = all.filter(|current| match paused {
            true => current.life().is_paused() && !current.life().is_dead(),
            false => current.life().is_dead(),
        });
        absent.map(|current| current.node.id()).collect()
    }

    pub(super) fn end_voter(&self, id: i32, leave: Leave) -> Result<(), ClusterError> {
        let down = ClusterError::Broker { broker: id, state: "down" };
        let Some(Current { node, .. }) = self.controller.current(id) else { return Err(down) };
        node.leave_as(leave);
        node.seat.life.kill().ok_or(down)?;
        node.release_storage();
        Ok(())
    }

    pub(super) async fn restart_voter(&self, id: i32) -> Result<(), ClusterError> {
        let running = ClusterError::Broker { broker: id, state: "running" };
        let voter = self.controller.voters.get(&id).ok_or(ClusterError::NoSuchBroker(id))?;
        let old = voter.current.lock().clone();
        if !old.life().is_dead() {
            return Err(running);
        }
        old.life().until_quiet().await;
        old.node.release_storage();
        {
            let mut current = voter.current.lock();
            if !current.life().is_dead() {
                return Err(running);
            }
            *current = boot(&self.started, &voter.disk, id, current.starts + 1)?;
            current.node.run();
        }
        tracing::info!(node = id, "controller restarted");
        self.node_event(id, NodeEvent::Started);
        self.controller.changed();
        Ok(())
    }

    /// Waits until a controller is active, and has heard from every running broker since it became that.
    pub async fn until_controller(&self) {
        loop {
            let started = self.controller.started.notified();
            tokio::pin!(started);
            started.as_mut().enable();
            let all = self.controller.all().into_iter();
            let run = all.filter(|current| !current.life().is_dead() && !current.life().is_paused());
            let mut heard: FuturesUnordered<_> = run
                .map(|current| async move {
                    let life = current.life().clone();
                    tokio::select! {
                        biased;
                        () = current.node.until_heard_from(|| self.unpaused()) => true,
                        () = life.until_quiet() => false,
                    }
                })
                .collect();
            let found = async {
                while let Some(found) = heard.next().await {
                    if found {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = found => return,
                () = started => {}
            }
        }
    }

    /// Waits for a controller that can be asked.
    pub(super) async fn active_controller(&self) -> i32 {
        loop {
            let active = self.controller.active().filter(|current| !current.life().is_paused());
            if let Some(current) = active {
                return current.node.id();
            }
            let changed: FuturesUnordered<_> = self
                .controller
                .all()
                .into_iter()
                .map(|current| async move { current.node.changed().await })
                .collect();
            let mut changed = changed;
            tokio::select! {
                biased;
                _ = changed.next() => {}
                () = self.controller.started.notified() => {}
                () = self.started.rt.sleep(std::time::Duration::from_millis(5)) => {}
            }
        }
    }
}
