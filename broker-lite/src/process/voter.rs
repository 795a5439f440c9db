//! The voter of a process.

use std::sync::Arc;

use super::directory::Directory;
use super::options::NodeOptions;
use super::{Ground, NodeError};
use crate::cluster::{base64, random_uuid};
use crate::controller::{ControllerNode, Seat, VoterDisk};
use crate::disk::Disk;
use crate::journal::Journal;
use crate::node::{Life, Listener, Listening, Node, Party, Remotes, Role, serve};

/// Tells the network where the voters are.
pub(super) fn introduce(options: &NodeOptions, remotes: &Remotes) {
    for voter in options.voters.iter().filter(|voter| voter.id != options.id) {
        remotes.set(&Party::Controller(voter.id), Listener::Controller, voter.address.endpoint());
    }
}

/// A voter that runs.
#[derive(Debug)]
pub(super) struct Running {
    node: Arc<ControllerNode>,
}

impl Running {
    pub(super) fn start(
        ground: &Ground,
        options: &NodeOptions,
        directory: &mut Directory,
        listening: Listening,
        rng: &mut fastrand::Rng,
    ) -> Result<Self, NodeError> {
        if directory.meta.cluster.is_none() {
            directory.join(&base64(random_uuid(rng))).map_err(NodeError::Directory)?;
        }
        let Ground { rt, config, limits, network } = ground;
        let life = Life::new(rt.clone());
        let disk = Disk::of_voter(rt, options.id, directory.path()).map_err(NodeError::Directory)?;
        let seat = Seat {
            id: options.id,
            voters: options.voters.iter().map(|voter| voter.id).collect(),
            rt: rt.clone(),
            life: life.clone(),
            network: network.clone(),
            cluster_id: Arc::from(directory.meta.cluster.clone().unwrap_or_default()),
            config: config.clone(),
            journal: Arc::new(Journal::default()),
            disk: VoterDisk::new(disk),
            start: 0,
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

    pub(super) async fn shutdown(&self) {
        self.node.resign().await;
        let life = &self.node.seat.life;
        life.kill();
        life.until_quiet().await;
        self.node.release_storage();
    }
}
