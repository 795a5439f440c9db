//! The controller's place in the cluster: one voter for now, which may end and start again.
//!
//! Invariant: a new controller begins with all that the old one has decided, and with chance of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Cluster, ClusterError, Started};
use crate::broker::CONTROLLER_ID;
use crate::controller::{ControllerNode, MetadataDisk, watch_deadlines};
use crate::disk::Disk;
use crate::journal::NodeEvent;
use crate::node::{Life, Node, Role};

/// The controller's place in the cluster. One voter for now.
#[derive(Debug)]
pub(super) struct Quorum {
    disk: MetadataDisk,
    voter: Mutex<Voter>,
    /// A controller was started, or goes on.
    started: Notify,
}

/// The current incarnation of the controller, or the last one.
#[derive(Debug, Clone)]
struct Voter {
    node: Arc<ControllerNode>,
    life: Arc<Life>,
    starts: u32,
}

impl Quorum {
    /// Starts a controller on what the disk holds, or on an empty log in memory.
    pub(super) fn start(started: &Started, disk: Option<&Disk>) -> Result<Self, ClusterError> {
        let disk = disk.map(MetadataDisk::on).transpose().map_err(ClusterError::Metadata)?;
        let disk = disk.unwrap_or_else(MetadataDisk::new);
        started.journal.restore(disk.replay().map_err(ClusterError::Metadata)?);
        let voter = Voter::boot(started, &disk, 0)?;
        Ok(Self { disk, voter: Mutex::new(voter), started: Notify::new() })
    }

    pub(super) fn life(&self) -> Arc<Life> {
        self.voter.lock().life.clone()
    }

    /// Wakes whoever waits for the controller to run.
    pub(super) fn changed(&self) {
        self.started.notify_waiters();
    }
}

impl Voter {
    fn boot(started: &Started, disk: &MetadataDisk, starts: u32) -> Result<Self, ClusterError> {
        let Started { rt, cluster_id, network, journal, config, limits } = started;
        let (journal, log) = (journal.clone(), disk.clone());
        let node = ControllerNode::new(rt.clone(), cluster_id, config, journal, log, starts)
            .map_err(ClusterError::Metadata)?;
        let life = Life::new(rt.clone());
        life.spawn(watch_deadlines(node.clone()));
        network.attach(Arc::new(Node {
            id: CONTROLLER_ID,
            rt: rt.clone(),
            life: life.clone(),
            network: network.clone(),
            limits: *limits,
            role: Role::Controller(node.clone()),
        }));
        Ok(Self { node, life, starts })
    }
}

impl Cluster {
    pub(super) async fn restart_controller(&self) -> Result<(), ClusterError> {
        let running = ClusterError::Broker { broker: CONTROLLER_ID, state: "running" };
        let old = self.controller.voter.lock().clone();
        if !old.life.is_dead() {
            return Err(running);
        }
        old.life.until_quiet().await;
        {
            let mut voter = self.controller.voter.lock();
            if !voter.life.is_dead() {
                return Err(running);
            }
            *voter = Voter::boot(&self.started, &self.controller.disk, voter.starts + 1)?;
        }
        tracing::info!("controller restarted");
        self.node_event(CONTROLLER_ID, NodeEvent::Started);
        self.controller.changed();
        Ok(())
    }

    /// Waits until the controller runs, and has heard from every running broker since it was started.
    pub async fn until_controller(&self) {
        loop {
            let started = self.controller.started.notified();
            tokio::pin!(started);
            started.as_mut().enable();
            let Voter { node, life, .. } = self.controller.voter.lock().clone();
            if life.is_dead() || life.is_paused() {
                started.await;
                continue;
            }
            tokio::select! {
                biased;
                () = node.until_heard_from(|| self.unpaused()) => return,
                () = life.until_quiet() => {}
                () = started => {}
            }
        }
    }
}
