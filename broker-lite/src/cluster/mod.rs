//! A cluster in this process, and what may be done to it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::handle::Handle;

/// Which defaults the settings start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Profile {
    /// Time-outs short enough for tests: a dead broker is noticed within half a second.
    #[default]
    Test,
    /// Apache Kafka's own time-outs, as `broker-lite up` uses them.
    Kafka,
}

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
    /// The broker is not in a state that allows the operation.
    #[error("broker {broker} is {state}")]
    Broker {
        /// Broker named in the call.
        broker: i32,
        /// What it is instead: `running`, `down`, `paused`.
        state: &'static str,
    },
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

/// Builds a [`Cluster`].
#[derive(Debug, Clone, Default)]
pub struct ClusterBuilder {}

impl ClusterBuilder {
    /// Number of brokers, with ids 1..=N and racks RACK1..=N. Default: 3.
    #[must_use]
    pub fn brokers(self, _brokers: u32) -> Self {
        unimplemented!()
    }

    /// Sets one broker setting by its Kafka name, for every broker and the controller.
    #[must_use]
    pub fn config(self, _name: impl Into<String>, _value: impl Into<String>) -> Self {
        unimplemented!()
    }

    /// Which defaults the settings start from. Default: [`Profile::Test`].
    #[must_use]
    pub fn profile(self, _profile: Profile) -> Self {
        unimplemented!()
    }

    /// Whether brokers listen on sockets, at 127.0.0.1 and ports chosen by the system. Default: no.
    #[must_use]
    pub fn tcp(self, _tcp: bool) -> Self {
        unimplemented!()
    }

    /// Address to listen on; implies [`Self::tcp`].
    #[must_use]
    pub fn host(self, _host: impl Into<String>) -> Self {
        unimplemented!()
    }

    /// Host name told to clients instead of the one listened on; implies [`Self::tcp`].
    #[must_use]
    pub fn advertise(self, _host: impl Into<String>) -> Self {
        unimplemented!()
    }

    /// First of consecutive ports, or 0 for any free ones; implies [`Self::tcp`].
    #[must_use]
    pub fn port(self, _port: u16) -> Self {
        unimplemented!()
    }

    /// Creates a topic before [`Self::start`] returns. `None` means the cluster's default.
    #[must_use]
    pub fn topic(self, _name: impl Into<String>, _partitions: Option<i32>, _replicas: Option<i16>) -> Self {
        unimplemented!()
    }

    /// Makes chance repeatable: ids, placement and back-off are drawn from this seed.
    #[must_use]
    pub fn seed(self, _seed: u64) -> Self {
        unimplemented!()
    }

    /// Starts the cluster; returns once every broker serves complete metadata and every topic
    /// asked for has leaders.
    ///
    /// # Errors
    ///
    /// Any [`ClusterError`]: unknown settings, ports in use, topics refused.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        unimplemented!()
    }
}

/// A controller and N brokers. Dropping it stops all of them.
#[derive(Debug)]
pub struct Cluster {}

impl Cluster {
    /// Starts from the defaults: three brokers, in process, [`Profile::Test`].
    pub fn builder() -> ClusterBuilder {
        unimplemented!()
    }

    /// Connector for clients in this process.
    pub fn handle(&self) -> Handle {
        unimplemented!()
    }

    /// `host:port,...` of all brokers, as a client's `bootstrap.servers` wants it.
    pub fn bootstrap(&self) -> String {
        unimplemented!()
    }

    /// Ids of all brokers, alive or not.
    pub fn broker_ids(&self) -> Vec<i32> {
        unimplemented!()
    }

    /// Creates a topic and waits until every running broker knows it and its leaders lead.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Topic`] with the controller's reason.
    pub async fn create_topic(
        &self,
        _name: &str,
        _partitions: i32,
        _replicas: i16,
        _configs: &[(&str, &str)],
    ) -> Result<(), ClusterError> {
        unimplemented!()
    }

    /// Process death: tasks and connections are gone at once, written bytes stay. The controller
    /// is not told.
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down already.
    pub fn kill(&self, _broker: i32) -> Result<(), ClusterError> {
        unimplemented!()
    }

    /// Stops the broker from doing anything, its connections stay open (as SIGSTOP would).
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down.
    pub fn pause(&self, _broker: i32) -> Result<(), ClusterError> {
        unimplemented!()
    }

    /// Ends [`Self::pause`].
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down.
    pub fn resume(&self, _broker: i32) -> Result<(), ClusterError> {
        unimplemented!()
    }

    /// Starts a killed broker again: a new incarnation on the bytes the old one wrote.
    /// Returns once it listens and is registered and unfenced.
    ///
    /// # Errors
    ///
    /// If there is no such broker, it is running, or its port was taken meanwhile.
    pub async fn restart(&self, _broker: i32) -> Result<(), ClusterError> {
        unimplemented!()
    }

    /// Stops everything.
    pub async fn shutdown(self) {
        unimplemented!()
    }

    /// Compares every replica of every partition; see [`CheckReport`].
    pub fn check(&self) -> CheckReport {
        unimplemented!()
    }

    /// Leader of a partition, as the controller's metadata has it.
    pub fn leader_of(&self, _topic: &str, _partition: i32) -> Option<i32> {
        unimplemented!()
    }

    /// In-sync replicas of a partition, as the controller's metadata has them.
    pub fn isr_of(&self, _topic: &str, _partition: i32) -> Vec<i32> {
        unimplemented!()
    }

    /// High watermark of a partition at its leader.
    pub fn high_watermark(&self, _topic: &str, _partition: i32) -> Option<i64> {
        unimplemented!()
    }

    /// How many partitions each broker leads.
    pub fn leader_counts(&self) -> BTreeMap<i32, usize> {
        unimplemented!()
    }

    /// Produce requests this broker has taken in and not answered yet.
    pub fn in_flight_produce(&self, _broker: i32) -> usize {
        unimplemented!()
    }

    /// Waits until a Produce request is unanswered at this broker.
    pub async fn until_produce_in_flight(&self, _broker: i32) {
        unimplemented!()
    }

    /// Waits until a Produce request is unanswered at this broker, kills the broker before it
    /// can answer, and returns how many were unanswered (at least 1).
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down.
    pub async fn kill_when_produce_in_flight(&self, _broker: i32) -> Result<usize, ClusterError> {
        unimplemented!()
    }

    /// How often a partition that had a leader got another one.
    pub fn elections(&self) -> usize {
        unimplemented!()
    }

    /// Every change of a leader or leader epoch, in the order of the metadata log.
    pub fn events(&self) -> Vec<LeaderChange> {
        unimplemented!()
    }

    /// Waits until the metadata names a leader (or none) that satisfies `wanted`.
    pub async fn until_leader(&self, _topic: &str, _partition: i32, _wanted: impl Fn(Option<i32>) -> bool) {
        unimplemented!()
    }

    /// Waits until the metadata names an ISR that satisfies `wanted`.
    pub async fn until_isr(&self, _topic: &str, _partition: i32, _wanted: impl Fn(&[i32]) -> bool) {
        unimplemented!()
    }
}

/// One entry of the journal of leaders.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaderChange {
    /// Topic.
    pub topic: String,
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

/// What [`Cluster::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Partitions looked at.
    pub partitions: usize,
    /// Replicas looked at.
    pub replicas: usize,
    /// Record batches whose CRC was verified.
    pub batches: usize,
    /// What is wrong; empty if all is well.
    pub violations: Vec<Violation>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

/// One thing that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Broker whose log is wrong, if it is one broker's.
    pub broker: Option<i32>,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset concerned.
    pub offset: i64,
    /// What is wrong.
    pub cause: String,
}
