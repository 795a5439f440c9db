//! `broker-lite node`, three times: each broker and voter a process of its own, on a directory of its own, with a network
//! between them that can be cut.

use std::collections::BTreeMap;
use std::io::Error;
use std::sync::Arc;

use futures::future::BoxFuture;
use klamm::{Client, ClientBuilder};

use super::system::Done;
use super::{BROKERS, System, Unavailable};
use crate::autopsy::{self, Extent};
use crate::nodes::{Detours, Nodes, Plan};
use crate::proxy::{Cuts, stand_before};
use crate::raw;

/// A dead or silent node is noticed in a second or two instead of Kafka's nine and thirty.
const SETTINGS: &[&str] = &[
    "auto.create.topics.enable=false",
    "broker.heartbeat.interval.ms=200",
    "broker.session.timeout.ms=1500",
    "replica.lag.time.max.ms=3000",
];

/// Three processes.
pub struct Processes {
    nodes: Arc<Nodes>,
    cuts: Arc<Cuts>,
}

pub(super) async fn start() -> Result<Arc<dyn System>, Unavailable> {
    let started = Processes::start(SETTINGS).await.map_err(Unavailable::broken)?;
    Ok(Arc::new(started))
}

impl Processes {
    /// Three nodes that are ready, with settings, each `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// One did not start.
    pub async fn start(settings: &[&str]) -> Result<Self, Error> {
        let mut nodes = Nodes::new(Plan::voters(BROKERS, settings))?;
        let cuts = Arc::new(Cuts::default());
        let mut detours = Detours::default();
        for id in nodes.ids() {
            let ports = nodes.ports(id);
            detours.broker.insert(id, stand_before(id, ports.broker, cuts.clone()).await?);
            detours.controller.insert(id, stand_before(id, ports.controller, cuts.clone()).await?);
        }
        nodes.set_detours(detours);
        let nodes = Arc::new(nodes);
        let started = Self { nodes, cuts };
        started.run(Nodes::start_all).await?;
        Ok(started)
    }

    /// The nodes.
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// What waits for a process: not on a thread of the runtime.
    fn run(&self, work: impl FnOnce(&Nodes) -> Result<(), Error> + Send + 'static) -> Done<'_> {
        let nodes = self.nodes.clone();
        Box::pin(
            async move { tokio::task::spawn_blocking(move || work(&nodes)).await.map_err(Error::other)? },
        )
    }
}

impl System for Processes {
    fn client_builder(&self) -> ClientBuilder {
        Client::builder().bootstrap_servers(self.nodes.bootstrap())
    }

    fn controller(&self) -> BoxFuture<'_, Result<Option<(i32, i32)>, Error>> {
        let nodes = self.nodes.clone();
        let ask = move || {
            let running = nodes.ids().filter(|id| nodes.is_running(*id));
            let addresses = running.map(|id| format!("127.0.0.1:{}", nodes.ports(id).broker));
            let mut told = addresses.map(|address| raw::quorum_leader(&address));
            told.find(Result::is_ok)
                .unwrap_or_else(|| Err(Error::other("no node knows the active controller")))
                .map(Some)
        };
        Box::pin(async { tokio::task::spawn_blocking(ask).await.map_err(Error::other)? })
    }

    fn kill(&self, broker: i32) -> Done<'_> {
        self.run(move |nodes| nodes.kill(broker))
    }

    fn restart(&self, broker: i32) -> Done<'_> {
        self.run(move |nodes| nodes.start_node(broker))
    }

    fn stop(&self, broker: i32) -> Done<'_> {
        self.run(move |nodes| match nodes.terminate(broker)? {
            (status, _) if status.success() => Ok(()),
            (status, _) => Err(Error::other(format!("node {broker} ended with {status}"))),
        })
    }

    fn pause(&self, broker: i32) -> Done<'_> {
        self.run(move |nodes| nodes.signal(broker, "STOP"))
    }

    fn resume(&self, broker: i32) -> Done<'_> {
        self.run(move |nodes| nodes.signal(broker, "CONT"))
    }

    fn cut_off(&self, broker: i32) -> Done<'_> {
        for other in self.nodes.ids().filter(|other| *other != broker) {
            self.cuts.cut(broker, other);
            self.cuts.cut(other, broker);
        }
        Box::pin(async { Ok(()) })
    }

    fn revive(&self) -> Done<'_> {
        self.cuts.mend();
        self.run(|nodes| {
            for node in nodes.ids().filter(|node| nodes.is_running(*node)) {
                nodes.signal(node, "CONT")?;
            }
            nodes.start_all()
        })
    }

    fn autopsy(&self, topic: String, partitions: i32) -> BoxFuture<'_, Result<Option<String>, Error>> {
        let nodes = self.nodes.clone();
        let look = move || {
            nodes.ids().try_for_each(|id| nodes.terminate(id).map(drop))?;
            let dirs: BTreeMap<_, _> = nodes.ids().map(|id| (id, nodes.data_dir(id))).collect();
            let records = autopsy::compare_topic(&dirs, &topic, partitions)?;
            let metadata = dirs.iter().map(|(id, dir)| (*id, dir.join("__cluster_metadata-0"))).collect();
            let metadata = autopsy::compare(&metadata, Extent::Common)?;
            Ok(Some(format!(
                "{BROKERS} replicas of {} batches ({} MB) and of {} batches of metadata are equal",
                records.batches,
                records.bytes >> 20,
                metadata.batches
            )))
        };
        Box::pin(async { tokio::task::spawn_blocking(look).await.map_err(Error::other)? })
    }

    fn abandon(&self) {
        for node in self.nodes.ids() {
            let _ = self.nodes.kill(node);
        }
    }
}
