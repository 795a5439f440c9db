//! A cluster in this process, and what may be done to it.

mod builder;
mod check;
mod events;
mod groups;
mod growth;
mod homes;
mod logs;
mod network;
mod processes;
mod quorum;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use broker_lite_core::config::BrokerConfig;
use broker_lite_core::metadata::Image;
use broker_lite_core::replica::Replica;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_wire::messages::{CreateTopicsRequest, TopicName};
use klamm_wire::seam::{Endpoint, Frame, LinkError};
use klamm_wire::{ErrorCode, StrBytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

pub use builder::{ClusterBuilder, Profile};
pub(crate) use builder::{base64, from_base64, limits, random_uuid};
pub use check::{CheckReport, Violation};
pub use logs::LoggedRecord;
pub use network::{Cut, Latency, Loss};
pub use rules::RuleBuilder;

use crate::broker::{Broker, CONTROLLER_ID, Committed, TopicRef};
use crate::disk::{Disk, Stored};
use crate::handle::Handle;
use crate::journal::Journal;
use crate::node::{Life, Limits, Listening, Network, Party, converse};
use crate::rt::Rt;
use crate::rules::errors_in;
use quorum::Quorum;

/// Longest wait for a new topic to have leaders at every broker.
const TOPIC_LIMIT: Duration = Duration::from_secs(30);
const CREATE_TOPICS_VERSION: i16 = 7;

/// Why a cluster could not be started, or refused an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Called outside a tokio runtime.
    #[error("a cluster needs a tokio runtime: call this inside one")]
    NoRuntime,
    /// A setting is unknown, or its value is not allowed.
    #[error("{0}")]
    Config(String),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Address asked for.
        address: String,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The cluster has no broker with this id.
    #[error("there is no broker {0} in this cluster")]
    NoSuchBroker(i32),
    /// Partitions are assigned to the broker, which therefore cannot leave.
    #[error("broker {broker} still has {replicas} replicas: reassign them to other brokers first")]
    NotDrained {
        /// Broker named in the call.
        broker: i32,
        /// How many partitions have a replica there.
        replicas: usize,
    },
    /// The broker, or the controller (0), is not in a state that allows the operation.
    #[error("broker {broker} is {state}")]
    Broker {
        /// Broker named in the call.
        broker: i32,
        /// What it is instead: `running`, `down`, `paused`.
        state: &'static str,
    },
    /// The broker is down, or does not hold that record.
    #[error("broker {broker} holds no record {offset} of {topic}-{partition}")]
    NoSuchRecord {
        /// Broker named in the call.
        broker: i32,
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset asked for.
        offset: i64,
    },
    /// The data directory cannot be used, is held by another process, or holds something else.
    #[error("{0}")]
    Directory(String),
    /// The metadata log cannot be read any more, so that no controller can start on it.
    #[error("the metadata log cannot be read: {0}")]
    Metadata(String),
    /// A topic could not be created.
    #[error("cannot create topic {topic}: {cause}")]
    Topic {
        /// Name asked for.
        topic: String,
        /// What the controller said.
        cause: String,
    },
    /// The cluster did not come up in time.
    #[error("the cluster did not come up within {limit:?}: {missing}")]
    NotReady {
        /// Time waited.
        limit: Duration,
        /// What was still missing.
        missing: String,
    },
}

/// What all nodes of a cluster share.
#[derive(Debug)]
struct Started {
    rt: Rt,
    cluster_id: Arc<str>,
    network: Arc<Network>,
    journal: Arc<Journal>,
    config: Arc<BrokerConfig>,
    limits: Limits,
    /// Ids of the voters of the metadata quorum.
    voters: BTreeSet<i32>,
    /// The brokers that the metadata log knows are those of an earlier start.
    all_former: Arc<AtomicBool>,
}

/// One broker's place in the cluster, whether it runs or not.
#[derive(Debug)]
struct Slot {
    host: String,
    port: u16,
    bound: Option<SocketAddr>,
    /// Bound before the first start, so that ports are known.
    listening: Option<Listening>,
    disk: Arc<Disk>,
    /// Id of the directory on a real disk.
    directory: Option<uuid::Uuid>,
    /// With the broker's own wall clock.
    rt: Rt,
    /// What an fsync takes in a simulation.
    #[cfg(feature = "sim")]
    simulated_disk: Option<crate::disk::DiskFault>,
    /// The current incarnation, or the last one.
    broker: Option<Arc<Broker>>,
}

impl Slot {
    fn new(host: String, port: u16, listening: Option<Listening>, disk: Arc<Disk>, rt: Rt) -> Self {
        let bound = listening.as_ref().map(|listening| listening.address);
        Self {
            host,
            port,
            bound,
            listening,
            disk,
            directory: None,
            rt,
            #[cfg(feature = "sim")]
            simulated_disk: None,
            broker: None,
        }
    }

    fn life(&self) -> Option<&Arc<Life>> {
        self.broker.as_ref().map(|broker| &broker.life).filter(|life| !life.is_dead())
    }
}

/// N brokers, and the controllers that decide for them. Dropping it stops all of them.
#[derive(Debug)]
pub struct Cluster {
    started: Started,
    controller: Quorum,
    committed: Arc<Committed>,
    slots: Mutex<BTreeMap<i32, Slot>>,
    /// Held as long as the cluster is there.
    _homes: Option<homes::Homes>,
    rng: Mutex<fastrand::Rng>,
}

impl Cluster {
    /// Stands for the controller that is active at the time of the call, in [`Self::kill`] and the like. Brokers count from
    /// 1, controllers have ids of their own, too: see [`Self::voters`].
    pub const CONTROLLER: i32 = CONTROLLER_ID;

    /// Starts from the defaults: three brokers, in process, [`Profile::Test`].
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Connector for clients in this process. Works beside sockets, too.
    pub fn handle(&self) -> Handle {
        Handle(self.started.network.clone())
    }

    /// Has a broker, or a controller, serve a client over any byte stream, as if it had come in through a socket: for fuzzing the front
    /// door and for simulated sockets. `name` is what the log calls the client.
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down.
    #[doc(hidden)]
    pub fn serve_stream(
        &self,
        node: i32,
        name: &str,
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), ClusterError> {
        let party = if self.is_voter(node) {
            Party::Controller(node)
        } else {
            self.running(node)?;
            Party::Node(node)
        };
        let down = ClusterError::Broker { broker: node, state: "down" };
        let node = self.started.network.node(&party).ok_or(down)?;
        let served = converse(node.clone(), Box::new(read), Box::new(write), name.to_owned());
        node.life.spawn(served);
        Ok(())
    }

    /// `host:port,...` of all brokers, as a client's `bootstrap.servers` wants it.
    pub fn bootstrap(&self) -> String {
        let slots = self.slots.lock();
        let address = |slot: &Slot| Endpoint::new(slot.host.clone(), slot.port).to_string();
        slots.values().map(address).collect::<Vec<_>>().join(",")
    }

    /// Ids of all brokers, alive or not.
    pub fn broker_ids(&self) -> Vec<i32> {
        self.slots.lock().keys().copied().collect()
    }

    /// Creates a topic and waits until every running broker knows it and its leaders.
    ///
    /// -1 partitions or replicas mean the cluster's default. The request is the client `cluster`'s, towards faults and
    /// rules.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Topic`] with the controller's reason.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Result<(), ClusterError> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let configs = configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.collect());
        self.create(vec![topic], false).await
    }

    /// Those that are there already are left as they are: a request whose answer is lost with its controller is sent again.
    async fn create_topics(&self, topics: &[(String, Option<i32>, Option<i16>)]) -> Result<(), ClusterError> {
        if topics.is_empty() {
            return Ok(());
        }
        let topic = |(name, partitions, replicas): &(String, Option<i32>, Option<i16>)| {
            CreatableTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.clone())))
                .with_num_partitions(partitions.unwrap_or(-1))
                .with_replication_factor(replicas.unwrap_or(-1))
        };
        self.create(topics.iter().map(topic).collect(), true).await
    }

    async fn create(&self, topics: Vec<CreatableTopic>, may_exist: bool) -> Result<(), ClusterError> {
        let names: Vec<_> = topics.iter().map(|topic| topic.name.to_string()).collect();
        let refused = |cause: String| ClusterError::Topic { topic: names.join(", "), cause };
        let limit = i32::try_from(TOPIC_LIMIT.as_millis()).unwrap_or(i32::MAX);
        let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(limit);
        let frame = encode_request(CREATE_TOPICS_VERSION, &request).map_err(|e| refused(e.to_string()))?;
        let me = Party::Client(Some(Arc::from("cluster")));
        let answer = self.started.network.within(2 * TOPIC_LIMIT, self.ask_controller(&me, frame)).await;
        let answer = answer.map_err(|error| refused(error.to_string()))?;
        let response =
            decode_response::<CreateTopicsRequest>(answer).map_err(|error| refused(error.to_string()))?;
        let fine = |code| code == ErrorCode::NONE || (may_exist && code == ErrorCode::TOPIC_ALREADY_EXISTS);
        if let Some(topic) = response.topics.iter().find(|topic| !fine(ErrorCode(topic.error_code))) {
            let message = topic.error_message.as_ref().map(|message| format!(": {}", &**message));
            let cause = format!("{}{}", ErrorCode(topic.error_code), message.unwrap_or_default());
            return Err(ClusterError::Topic { topic: topic.name.to_string(), cause });
        }
        let led = |image: &Image| {
            let mut topics = names.iter().map(|name| image.topic(name));
            let led = topics.all(|topic| {
                topic.is_some_and(|topic| topic.partitions.values().all(|found| found.leader.is_some()))
            });
            led.then_some(())
        };
        self.within(TOPIC_LIMIT, "leaders of new topics", self.until_running_brokers_see(led)).await
    }

    /// One request to the active controller, whichever that is by the time.
    async fn ask_controller(&self, me: &Party, frame: Frame) -> Result<Frame, LinkError> {
        let network = &self.started.network;
        loop {
            let controller = Party::Controller(self.active_controller().await);
            match network.call(me, &controller, "cluster", TOPIC_LIMIT, frame.clone()).await {
                Ok(answer) if errors_in(&answer).contains(&ErrorCode::NOT_CONTROLLER) => {}
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(%controller, %error, "the controller is asked again"),
            }
            self.started.rt.sleep(Duration::from_millis(5)).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn broker_and_topic_id(&self, broker: i32, topic: &str) -> (Arc<Broker>, uuid::Uuid) {
        let id = self.started.journal.image(|image| image.topic(topic).map(|topic| topic.id));
        (self.running(broker).unwrap(), id.unwrap())
    }

    /// Leader of a partition, as the controller's metadata has it.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Option<i32> {
        self.started.journal.image(|image| leader(image, topic, partition))
    }

    /// In-sync replicas of a partition, as the controller's metadata has them.
    pub fn isr_of(&self, topic: &str, partition: i32) -> Vec<i32> {
        self.started.journal.image(|image| isr(image, topic, partition))
    }

    /// High watermark of a partition at its leader, if that runs.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Option<i64> {
        let leader = self.leader_of(topic, partition)?;
        self.replica(leader, topic, partition, |replica| replica.high_watermark())
    }

    /// End of the log of one replica, if its broker runs.
    pub fn log_end_offset(&self, broker: i32, topic: &str, partition: i32) -> Option<i64> {
        self.replica(broker, topic, partition, |replica| replica.log_end_offset())
    }

    fn replica<R>(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
        look: impl FnOnce(&mut Replica<Stored>) -> R,
    ) -> Option<R> {
        let broker = self.running(broker).ok()?;
        broker.partition(TopicRef::Name(topic), partition).ok()?.look(look)
    }

    /// How many partitions each broker leads, as the controller's metadata has it.
    pub fn leader_counts(&self) -> BTreeMap<i32, usize> {
        let mut counts: BTreeMap<i32, usize> = self.broker_ids().into_iter().map(|id| (id, 0)).collect();
        self.started.journal.image(|image| {
            for partition in image.topics().flat_map(|topic| topic.partitions.values()) {
                if let Some(count) = partition.leader.and_then(|leader| counts.get_mut(&leader)) {
                    *count += 1;
                }
            }
        });
        counts
    }

    /// Produce requests this broker has taken in and not answered yet; 0 if it is down.
    pub fn in_flight_produce(&self, broker: i32) -> usize {
        self.running(broker).map_or(0, |broker| broker.life.produce_in_flight())
    }

    /// Waits until a Produce request is unanswered at this broker, or the broker is down.
    pub async fn until_produce_in_flight(&self, broker: i32) {
        if let Ok(broker) = self.running(broker) {
            broker.life.until_produce_in_flight().await;
        }
    }

    /// How many elections there were, the first one of each partition not counted.
    pub fn elections(&self) -> usize {
        self.started.journal.elections()
    }

    /// How often a replica gave up the end of its log, because a later leader never had it.
    pub fn truncations(&self) -> usize {
        self.started.journal.truncations()
    }

    /// Waits until the metadata names a leader (or none) that satisfies `wanted`.
    pub async fn until_leader(&self, topic: &str, partition: i32, wanted: impl Fn(Option<i32>) -> bool) {
        let found = |image: &Image| wanted(leader(image, topic, partition)).then_some(());
        self.started.journal.until(found).await;
    }

    /// Waits until the metadata names an ISR that satisfies `wanted`.
    pub async fn until_isr(&self, topic: &str, partition: i32, wanted: impl Fn(&[i32]) -> bool) {
        let found = |image: &Image| wanted(&isr(image, topic, partition)).then_some(());
        self.started.journal.until(found).await;
    }

    /// Waits until every running broker's metadata satisfies `found`.
    async fn until_running_brokers_see(&self, found: impl Fn(&Image) -> Option<()>) {
        let running: Vec<_> = self.slots.lock().values().filter_map(|slot| slot.broker.clone()).collect();
        for broker in running.iter().filter(|broker| !broker.life.is_dead() && !broker.life.is_paused()) {
            tokio::select! {
                biased;
                () = broker.until_told(&found) => {}
                // It has died meanwhile, and nobody asks it any more.
                () = broker.life.until_quiet() => {}
            }
        }
    }

    /// Waits until every broker shows clients every broker that runs, registered and unfenced as the process that it is now: a
    /// metadata log on a disk still holds the registrations of those before.
    async fn until_complete(&self) {
        let current: Vec<_> = self.slots.lock().values().filter_map(|slot| slot.broker.clone()).collect();
        let is_live = |image: &Image, broker: &Broker| {
            let live = image.broker(broker.id()).filter(|found| !found.fenced);
            live.is_some_and(|found| found.incarnation_id == broker.identity.incarnation)
        };
        let complete = |image: &Image| {
            let settled = |broker: &Arc<Broker>| broker.life.is_dead() || is_live(image, broker);
            current.iter().all(settled).then_some(())
        };
        self.until_running_brokers_see(complete).await;
    }

    async fn within(
        &self,
        limit: Duration,
        missing: &str,
        done: impl Future<Output = ()>,
    ) -> Result<(), ClusterError> {
        tokio::select! {
            biased;
            () = done => Ok(()),
            () = self.started.rt.sleep(limit) => {
                Err(ClusterError::NotReady { limit, missing: missing.to_owned() })
            }
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn rt(&self) -> &Rt {
        &self.started.rt
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn leader(image: &Image, topic: &str, partition: i32) -> Option<i32> {
    image.topic(topic)?.partitions.get(&partition)?.leader
}

fn isr(image: &Image, topic: &str, partition: i32) -> Vec<i32> {
    let partition = image.topic(topic).and_then(|topic| topic.partitions.get(&partition));
    partition.map_or_else(Vec::new, |partition| partition.isr.clone())
}

/// One entry of the journal of leaders.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaderChange {
    /// Topic.
    pub topic: String,
    /// Id of the topic.
    pub topic_id: uuid::Uuid,
    /// Partition.
    pub partition: i32,
    /// Leader from now on, `None` while there is none.
    pub leader: Option<i32>,
    /// Leader before, `None` if there was none.
    pub previous: Option<i32>,
    /// Leader epoch from now on.
    pub leader_epoch: i32,
    /// Time since the cluster started.
    pub at: Duration,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests report by panicking")]
    use super::*;

    /// Goal: the controller may be gone with the answer, and what a start asks for is then asked for again.
    #[tokio::test(start_paused = true)]
    async fn a_start_takes_a_topic_that_is_there_for_its_own() {
        let cluster = Cluster::builder().topic("t", Some(1), Some(3)).start().await.unwrap();
        cluster.create_topics(&[("t".to_owned(), Some(1), Some(3))]).await.unwrap();
        assert!(
            cluster.create_topic("t", 1, 3, &[]).await.is_err(),
            "who asks for one topic hears that it exists"
        );
    }
}
