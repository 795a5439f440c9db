//! The voter of a process.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::config::BrokerConfig;

use super::directory::Directory;
use super::options::NodeOptions;
use super::{Ground, NodeError};
use crate::cluster_id::ClusterId;
use crate::controller::{ControllerNode, Seat, VoterDisk};
use crate::disk::{Disk, Leave};
use crate::journal::Journal;
use crate::node::{Life, Listener, Listening, Node, Party, Remotes, Role, serve};

/// Longest wait of a voter that leaves for another one to lead.
const HANDOVER: Duration = Duration::from_secs(2);
/// No broker's epoch: a voter leaves no mark of a clean shutdown.
const NO_EPOCH: i64 = -1;

/// Tells the network where the voters are.
pub(super) fn introduce(options: &NodeOptions, remotes: &Remotes) {
    for voter in options.voters.iter() {
        remotes.set(&Party::Controller(voter.id), Listener::Controller, voter.address.endpoint());
    }
}

/// A voter that runs.
#[derive(Debug)]
pub(super) struct Running {
    node: Arc<ControllerNode>,
}

impl Running {
    /// Starts the voter on what it has left in the node's directory.
    pub(super) fn start(
        ground: &Ground,
        options: &NodeOptions,
        directory: &Directory,
        cluster_id: &ClusterId,
        listening: Listening,
        config: Arc<BrokerConfig>,
    ) -> Result<Self, NodeError> {
        let Ground { rt, limits, network, .. } = ground;
        let life = Life::new(rt.clone());
        let disk = Disk::of_voter(rt, options.id, directory.path()).map_err(NodeError::Directory)?;
        let seat = Seat {
            id: options.id,
            voters: options.voters.iter().map(|voter| voter.id).collect(),
            rt: rt.clone(),
            life: life.clone(),
            network: network.clone(),
            cluster_id: cluster_id.clone(),
            config,
            journal: Arc::new(Journal::default()),
            disk: VoterDisk::new(disk),
            start: 0,
            all_former: Arc::default(),
        };
        let node = ControllerNode::new(seat).map_err(NodeError::Metadata)?;
        let (rt, network, limits) = (rt.clone(), network.clone(), *limits);
        let role = Role::Controller(node.clone());
        let served = Arc::new(Node { id: options.id, rt, life: life.clone(), network, limits, role });
        ground.network.attach(served.clone());
        life.spawn(serve(served, listening));
        node.run();
        Ok(Self { node })
    }

    /// Waits until the voter has ended, because its log cannot be written.
    pub(super) async fn until_over(&self) {
        self.node.seat.life.until_dead().await;
    }

    /// Lets another voter lead, where this one does, and leaves the log durable.
    pub(super) async fn shutdown(&self) {
        let life = &self.node.seat.life;
        tokio::select! {
            biased;
            () = self.node.resign() => {}
            () = self.node.rt().sleep(HANDOVER) => {}
        }
        self.node.leave_as(Leave::Clean { epoch: NO_EPOCH });
        life.kill();
        self.node.release_storage();
        life.until_quiet().await;
    }
}
