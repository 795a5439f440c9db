//! One process of a cluster: a broker, and a voter if it is one of them.
//!
//! ```text
//!  clients, brokers ──▶ listener ─────────────▶ Broker ──┐ metadata, heartbeats, Fetch:
//!                                                        ├──▶ other processes, over TCP
//!  brokers, voters ───▶ controller listener ──▶ Voter ───┘ votes, Fetch
//! ```
//!
//! In: [`NodeOptions`]. Out: a node that goes on until it is shut down, or ends of its own with the reason.
//!
//! Invariant: nothing is shared with another process but what goes over sockets.

pub(crate) mod directory;
mod options;
mod voter;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::config::{BrokerConfig, is_without_effect};
use klamm_wire::seam::Endpoint;
use parking_lot::Mutex;

pub use options::{Address, NodeOptions, Voter, Voters};

use crate::broker::{Broker, BrokerIdentity, CONTROLLER_LISTENER, Committed, LISTENER, Surroundings};
use crate::cluster::{limits, random_uuid};
use crate::cluster_id::ClusterId;
use crate::disk::{Disk, Leave};
use crate::identity::{NodeIdentity, addresses};
use crate::journal::Journal;
use crate::node::{Life, Limits, Listening, Network, Node, Patience, Remotes, Role, serve};
use crate::rt::Rt;
use directory::Directory;

/// Longest wait of a broker that shuts down for the controller to move its leaderships away.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// How often a node that waits for the others says so.
const REMINDER: Duration = Duration::from_secs(10);
/// Longest pause between two attempts to reach a node: Kafka's `reconnect.backoff.max.ms`.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What an answer may hold beside records.
const ANSWER_FRAME: usize = 16 << 20;

/// Why a node does not start, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Called outside a tokio runtime.
    #[error("a node needs a tokio runtime: call this inside one")]
    NoRuntime,
    /// Options or settings that cannot be.
    #[error("{0}")]
    Options(String),
    /// The data directory cannot be used, is held, or belongs to another node or cluster.
    #[error("{0}")]
    Directory(String),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Address asked for.
        address: String,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The metadata log cannot be used.
    #[error("the metadata log cannot be used: {0}")]
    Metadata(String),
    /// The node belongs to another cluster than those it talks to.
    #[error("{0}")]
    OtherCluster(String),
    /// The node has stopped by itself, because of its disk.
    #[error("node {0} has stopped: its log directory is offline, and the log says why")]
    Stopped(i32),
}

/// One node in a process of its own.
#[derive(Debug)]
pub struct NodeProcess {
    rt: Rt,
    address: Address,
    broker: Arc<Broker>,
    voter: Option<voter::Running>,
    network: Arc<Network>,
    directory: Mutex<Directory>,
}

impl NodeProcess {
    /// Takes hold of the data directory, listens, and starts broker and voter. Does not wait for other nodes.
    ///
    /// # Errors
    ///
    /// Any [`NodeError`], each one sentence that names the cause.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let rt = Rt::current(None).ok_or(NodeError::NoRuntime)?;
        let controller_listen = options.voter().map_err(NodeError::Options)?.cloned();
        let config = Arc::new(settings(&options)?);
        let mut rng = rt.rng("process");
        let cluster_id = options.cluster_id.as_deref();
        let directory = Directory::open(&options.data_dir, options.id, cluster_id, random_uuid(&mut rng))
            .map_err(NodeError::Directory)?;
        let listening = bind(&options.listen).await?;
        let address = options.advertised(listening.address.port()).map_err(NodeError::Options)?;
        let limits = limits(&config);
        let remotes = Remotes::new(rt.clone(), options.id, patience(&config, limits));
        voter::introduce(&options, &remotes);
        let network = Network::among(rt.clone(), Arc::new(Journal::default()), Some(remotes));
        let ground = Ground { rt: rt.clone(), config, limits, network: network.clone() };
        let cluster_id = ClusterId::new(directory.meta.cluster.as_deref());
        let mut listeners =
            vec![(LISTENER, Endpoint::new(options.listen.host.clone(), listening.address.port()))];
        listeners.extend(controller_listen.as_ref().map(|address| (CONTROLLER_LISTENER, address.endpoint())));
        let mut voters: Vec<i32> = options.voters.iter().map(|voter| voter.id).collect();
        voters.sort_unstable();
        let voter = match &controller_listen {
            Some(at) => {
                let listening = bind(at).await?;
                let who = NodeIdentity {
                    id: options.id,
                    listeners: &listeners,
                    advertised: Some(address.endpoint()),
                    log_dir: directory.path().display().to_string(),
                    voters: addresses(&network, voters.iter().copied()),
                    rack: ground.config.get("broker.rack"),
                };
                let config = who.running(&ground.config);
                Some(voter::Running::start(&ground, &options, &directory, &cluster_id, listening, config)?)
            }
            None => None,
        };
        let disk = Disk::on(&rt, options.id, directory.path()).map_err(NodeError::Directory)?;
        let identity = BrokerIdentity {
            id: options.id,
            cluster_id,
            rack: ground.config.get("broker.rack").map(str::to_owned),
            host: address.host.clone(),
            port: address.port,
            listeners,
            log_dir: directory.meta.directory,
            incarnation: random_uuid(&mut rng),
            previous_epoch: disk
                .open()
                .map_err(|error| NodeError::Directory(error.to_string()))?
                .unwrap_or(-1),
        };
        let broker = ground.boot_broker(identity, disk, listening, voters);
        Ok(Self { rt, address, broker, voter, network, directory: Mutex::new(directory) })
    }

    /// `host:port` of the broker, as a client's `bootstrap.servers` wants it.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Waits until the broker is registered and unfenced, and serves; says from time to time what it waits for.
    ///
    /// Before it registers, the broker reads the id of the cluster in the metadata log, and writes it down in the directory.
    ///
    /// # Errors
    ///
    /// [`NodeError::OtherCluster`], or the node ends.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn until_ready(&self) -> Result<(), NodeError> {
        let me = &self.broker;
        let ready = async {
            let told = me.until_image(|image| image.cluster_id().map(str::to_owned)).await;
            if let Some(own) = me.identity.cluster_id.get().filter(|own| **own != *told) {
                let (node, directory) = (me.id(), self.directory.lock().path().display().to_string());
                return Err(NodeError::OtherCluster(format!(
                    "node {node} belongs to cluster {own}, as {directory} or --cluster-id says, but the voters to {told}"
                )));
            }
            self.directory.lock().join(&told).map_err(NodeError::Directory)?;
            me.identity.cluster_id.learn(&told);
            self.until_unfenced().await;
            Ok(())
        };
        tokio::pin!(ready);
        loop {
            tokio::select! {
                biased;
                error = self.until_over() => return Err(error),
                ready = &mut ready => return ready,
                () = self.rt.sleep(REMINDER) => {
                    let unreachable = self.network.remotes().map(Remotes::unreachable).unwrap_or_default();
                    tracing::warn!(node = me.id(), ?unreachable, "not ready yet: waits for a controller, and tries on");
                }
            }
        }
    }

    async fn until_unfenced(&self) {
        let me = &self.broker;
        let unfenced = me.until_image(|image| {
            let found = image.broker(me.id()).filter(|found| !found.fenced);
            found.is_some_and(|found| found.incarnation_id == me.identity.incarnation).then_some(())
        });
        unfenced.await;
    }

    /// Waits until the node ends by itself, and says why.
    pub async fn until_over(&self) -> NodeError {
        let voter = async {
            match &self.voter {
                Some(voter) => voter.until_over().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.broker.life.until_dead() => {}
            () = voter => {}
        }
        NodeError::Stopped(self.broker.id())
    }

    /// Stops in order, as SIGTERM does with Kafka: the controller moves the leaderships away, the logs are made durable and
    /// marked as closed; then the voter leaves. After 10 s without a controller the broker stops all the same.
    pub async fn shutdown(self) {
        let Self { rt, broker, voter, network, .. } = &self;
        let done = async {
            tokio::select! {
                biased;
                () = broker.until_may_stop() => {}
                () = rt.sleep(SHUTDOWN_LIMIT) => {
                    tracing::warn!(broker = broker.id(), "stops although no controller has moved its leaderships away");
                }
            }
            broker.flush().await
        };
        let flushed = tokio::select! {
            biased;
            () = broker.life.until_dead() => Err("the broker has ended before".to_owned()),
            flushed = done => flushed,
        };
        let epoch = broker.registration().epoch;
        match &flushed {
            Ok(()) => broker.leave_as(Leave::Clean { epoch }),
            Err(cause) => {
                tracing::error!(broker = broker.id(), cause, "the logs could not be closed in order");
            }
        }
        broker.life.kill();
        broker.release_storage();
        if let Some(voter) = voter {
            voter.shutdown().await;
        }
        network.detach_all();
        tracing::info!(node = broker.id(), "shut down");
    }
}

/// What broker and voter stand on.
#[derive(Debug)]
struct Ground {
    rt: Rt,
    config: Arc<BrokerConfig>,
    limits: Limits,
    network: Arc<Network>,
}

impl Ground {
    fn boot_broker(
        &self,
        identity: BrokerIdentity,
        disk: Arc<Disk>,
        listening: Listening,
        voters: Vec<i32>,
    ) -> Arc<Broker> {
        let Self { rt, config, limits, network } = self;
        let (id, life) = (identity.id, Life::new(rt.clone()));
        let surroundings = Surroundings {
            network: network.clone(),
            config: config.clone(),
            disk,
            committed: Arc::new(Committed::default()),
            journal: Arc::new(Journal::default()),
            voters,
        };
        let broker = Broker::new(identity, rt.clone(), life.clone(), surroundings);
        let role = Role::Broker(broker.clone());
        let (rt, network, limits) = (rt.clone(), network.clone(), *limits);
        let node = Arc::new(Node { id, rt, life: life.clone(), network, limits, role });
        self.network.attach(node.clone());
        life.spawn(serve(node, listening));
        broker.run();
        broker
    }
}

/// Kafka's defaults, and what was given.
fn settings(options: &NodeOptions) -> Result<BrokerConfig, NodeError> {
    let mut config = BrokerConfig::new();
    let refused = |error: broker_lite_core::config::ConfigError| NodeError::Options(error.to_string());
    for (name, value) in &options.configs {
        config.set(name, value).map_err(refused)?;
        if is_without_effect(name, value) {
            tracing::warn!(name, value, "setting is accepted, but broker-lite does not act on it yet");
        }
    }
    config.check().map_err(refused)?;
    Ok(config)
}

fn patience(config: &BrokerConfig, limits: Limits) -> Patience {
    let fetched =
        config.int("replica.fetch.response.max.bytes").and_then(|bytes| usize::try_from(bytes).ok());
    Patience {
        connect: config.millis("socket.connection.setup.timeout.ms").unwrap_or(Duration::from_secs(10)),
        pause: LONGEST_PAUSE,
        // One batch is answered whole, however large, and none is larger than the request it came in.
        answer_bytes: limits.request_bytes.max(fetched.unwrap_or_default()).saturating_add(ANSWER_FRAME),
        in_flight: limits.requests_in_progress,
    }
}

async fn bind(address: &Address) -> Result<Listening, NodeError> {
    let listening = Listening::bind(&address.host, address.port).await;
    listening.map_err(|cause| NodeError::Listen { address: address.to_string(), cause })
}
