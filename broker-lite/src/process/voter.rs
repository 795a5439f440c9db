//! The voter of a process.

use std::sync::Arc;

use super::directory::Directory;
use super::options::NodeOptions;
use super::{Ground, NodeError};
use crate::broker::CONTROLLER_ID;
use crate::cluster::{base64, random_uuid};
use crate::controller::{ControllerNode, MetadataDisk, watch_deadlines};
use crate::disk::Disk;
use crate::journal::Journal;
use crate::node::{Life, Listener, Listening, Node, Party, Remotes, Role, serve};

/// Tells the network where the voters are.
pub(super) fn introduce(options: &NodeOptions, remotes: &Remotes) {
    for voter in options.voters.iter().take(1).filter(|voter| voter.id != options.id) {
        remotes.set(&Party::Node(CONTROLLER_ID), Listener::Controller, voter.address.endpoint());
    }
}

/// A voter that runs.
#[derive(Debug)]
pub(super) struct Running {
    life: Arc<Life>,
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
        if options.voters.iter().next().is_some_and(|first| first.id == options.id) {
            let cluster_id = directory.meta.cluster.clone().unwrap_or_default();
            let journal = Arc::new(Journal::default());
            let disk = Disk::of_voter(rt, options.id, directory.path()).map_err(NodeError::Directory)?;
            let log = MetadataDisk::on(&disk).map_err(NodeError::Metadata)?;
            let node = ControllerNode::new(rt.clone(), &cluster_id, config, journal, log, 0)
                .map_err(NodeError::Metadata)?;
            life.spawn(watch_deadlines(node.clone()));
            let (rt, network, limits, role) = (rt.clone(), network.clone(), *limits, Role::Controller(node));
            let node = Arc::new(Node { id: CONTROLLER_ID, rt, life: life.clone(), network, limits, role });
            ground.network.attach(node.clone());
            life.spawn(serve(node, listening));
        }
        Ok(Self { life })
    }

    pub(super) async fn shutdown(&self) {
        self.life.kill();
        self.life.until_quiet().await;
    }
}
