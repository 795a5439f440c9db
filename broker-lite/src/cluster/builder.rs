//! From settings to a running cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use broker_lite_core::config::{BrokerConfig, ConfigError, is_without_effect};
use klamm_wire::seam::Endpoint;
use parking_lot::Mutex;
use uuid::{Builder as UuidBuilder, Uuid};

use super::homes::Homes;
use super::quorum::{Quorum, voter_ids};
use super::{Cluster, ClusterError, Slot, Started};
use crate::broker::Committed;
use crate::disk::Disk;
use crate::journal::Journal;
#[cfg(feature = "sim")]
use crate::node::{Between, Side, Trouble};
use crate::node::{Limits, Listening, Network};
use crate::rt::Rt;

/// Port told to clients where nothing listens on sockets.
const IN_PROCESS_PORT: u16 = 9092;
/// Longest start before it is called a failure.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Share of `queued.max.requests` that one connection may use.
const REQUESTS_IN_PROGRESS: usize = 64;

/// What a message takes in a simulated network.
#[cfg(feature = "sim")]
const SIMULATED_LATENCY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(10);

/// What an fsync takes there.
#[cfg(feature = "sim")]
pub(super) const SIMULATED_SYNC: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(5);

/// Settings of both profiles that differ from Kafka's defaults and depend on the number of brokers.
const REPLICATION: &[&str] = &[
    "default.replication.factor",
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
];

/// Settings of both profiles that differ from Kafka's defaults.
const BOTH: &[(&str, &str)] = &[("num.partitions", "4"), ("group.initial.rebalance.delay.ms", "0")];

/// Settings of the test profile.
const TEST: &[(&str, &str)] = &[
    ("broker.session.timeout.ms", "200"),
    ("broker.heartbeat.interval.ms", "50"),
    ("controller.quorum.election.timeout.ms", "50"),
    ("controller.quorum.election.backoff.max.ms", "50"),
    ("controller.quorum.fetch.timeout.ms", "100"),
    ("controller.quorum.request.timeout.ms", "200"),
    ("controller.quorum.retry.backoff.ms", "10"),
    ("metadata.max.idle.interval.ms", "0"),
    ("replica.lag.time.max.ms", "1500"),
    ("replica.fetch.wait.max.ms", "300"),
    ("replica.fetch.backoff.ms", "50"),
];

/// Which defaults the settings start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Profile {
    /// Time-outs short enough for tests: a dead broker or controller is noticed within 200 ms.
    #[default]
    Test,
    /// Apache Kafka's own time-outs, as `broker-lite up` uses them.
    Kafka,
}

/// Builds a [`Cluster`].
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    brokers: u32,
    controllers: Option<u32>,
    given: Vec<(String, String)>,
    profile: Profile,
    listen: Option<Listen>,
    advertise: Option<String>,
    topics: Vec<(String, Option<i32>, Option<i16>)>,
    seed: Option<u64>,
    data_dir: Option<PathBuf>,
    #[cfg(feature = "sim")]
    recorder: Option<Arc<crate::sim::Recorder>>,
    #[cfg(feature = "sim")]
    with_files: bool,
}

#[derive(Debug, Clone)]
struct Listen {
    host: String,
    port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 0 }
    }
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            brokers: 3,
            controllers: None,
            given: Vec::new(),
            profile: Profile::Test,
            listen: None,
            advertise: None,
            topics: Vec::new(),
            seed: None,
            data_dir: None,
            #[cfg(feature = "sim")]
            recorder: None,
            #[cfg(feature = "sim")]
            with_files: false,
        }
    }
}

impl ClusterBuilder {
    /// Number of brokers, with ids 1..=N and racks RACK1..=N. Default: 3.
    #[must_use]
    pub fn brokers(mut self, brokers: u32) -> Self {
        self.brokers = brokers;
        self
    }

    /// Number of controllers, that is voters of the metadata quorum, with ids from 3001: 1, 3 or 5. Default: 3, or 1 where
    /// there are fewer than 3 brokers.
    #[must_use]
    pub fn controllers(mut self, controllers: u32) -> Self {
        self.controllers = Some(controllers);
        self
    }

    fn voter_count(&self) -> u32 {
        self.controllers.unwrap_or(if self.brokers < 3 { 1 } else { 3 })
    }

    /// Sets one broker setting by its Kafka name, for every broker and the controller.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.given.push((name.into(), value.into()));
        self
    }

    /// Which defaults the settings start from. Default: [`Profile::Test`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Whether brokers listen on sockets, at 127.0.0.1 and ports chosen by the system. Default: no.
    #[must_use]
    pub fn tcp(mut self, tcp: bool) -> Self {
        self.listen = tcp.then(|| self.listen.unwrap_or_default());
        self
    }

    /// Address to listen on; implies [`Self::tcp`]. An IPv6 address may stand in brackets.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        let host = host.into();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        self.listen.get_or_insert_default().host = bare.map_or(host.clone(), str::to_owned);
        self
    }

    /// Host name told to clients instead of the one listened on; implies [`Self::tcp`].
    ///
    /// Without it, a cluster that listens on all addresses tells clients of the same machine `127.0.0.1` or `::1`.
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.listen.get_or_insert_default();
        self.advertise = Some(host.into());
        self
    }

    /// First of consecutive ports, or 0 for any free ones; implies [`Self::tcp`].
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.listen.get_or_insert_default().port = port;
        self
    }

    /// Creates a topic before [`Self::start`] returns. `None` means the cluster's default.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>, partitions: Option<i32>, replicas: Option<i16>) -> Self {
        self.topics.push((name.into(), partitions, replicas));
        self
    }

    /// Keeps everything below this directory, in Kafka's file formats; a cluster that is started there again goes on with it.
    /// Default: in memory.
    ///
    /// All brokers share a machine, so records are fsynced before they are acknowledged: `log.flush.interval.messages` is
    /// 1, unless it is given otherwise. Call [`Cluster::shutdown`] to close the logs in order; if the cluster is dropped,
    /// or the process killed, the next start looks them through.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Makes chance repeatable: ids, placement and back-off are drawn from this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// With the network and the disks of a simulated run, whose recorder hears of every message.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(mut self, recorder: Arc<crate::sim::Recorder>) -> Self {
        self.recorder = Some(recorder);
        // With Kafka's 30 s a request that is late would outlast most runs.
        self.config("controller.socket.timeout.ms", "1000")
    }

    /// Each node has a disk with all the files of a real one, in memory, written and read by the same code, and as forgetful:
    /// a process knows what its files say, nothing else, and a loss of power takes whatever was not synced of files and of
    /// names. See also [`DiskFaults::fail_power_after`](crate::DiskFaults::fail_power_after).
    ///
    /// It cannot be combined with [`Self::data_dir`], which [`Self::start`] then refuses.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn with_files(mut self) -> Self {
        self.with_files = true;
        self
    }

    fn empty_disk(&self, rt: &Rt, node: i32, _of_voter: bool) -> Result<Arc<Disk>, ClusterError> {
        #[cfg(feature = "sim")]
        if self.with_files {
            return Disk::simulated(rt, node, _of_voter).map_err(ClusterError::Directory);
        }
        Ok(Disk::new(rt, node))
    }

    /// Starts the cluster; returns once every broker serves complete metadata and every topic
    /// asked for has leaders.
    ///
    /// # Errors
    ///
    /// Any [`ClusterError`]: unknown settings, ports in use, topics refused.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        let rt = Rt::current(self.seed).ok_or(ClusterError::NoRuntime)?;
        let config = Arc::new(self.settings().map_err(|error| ClusterError::Config(error.to_string()))?);
        self.check_replication(&config)?;
        self.check_disks()?;
        if !matches!(self.voter_count(), 1 | 3 | 5) {
            let count = self.voter_count();
            let cause = format!("{count} controllers: a quorum of this cluster has 1, 3 or 5 voters");
            return Err(ClusterError::Config(cause));
        }
        for (name, value) in self.given.iter().filter(|(name, value)| is_without_effect(name, value)) {
            tracing::warn!(name, value, "setting is accepted, but broker-lite does not act on it yet");
        }
        let listening = self.listen_all().await?;
        let mut rng = rt.rng("cluster");
        let homes = self
            .data_dir
            .as_deref()
            .map(|path| Homes::open(path, self.brokers, &voter_ids(self.voter_count()), &mut rng))
            .transpose()?;
        let cluster_id: Arc<str> = match &homes {
            Some(homes) => homes.cluster_id.clone(),
            None => Arc::from(base64(random_uuid(&mut rng))),
        };
        let on_disk = |opened: Result<Arc<Disk>, String>| opened.map_err(ClusterError::Directory);
        let journal = Arc::new(Journal::default());
        let network = Network::new(rt.clone(), journal.clone());
        #[cfg(feature = "sim")]
        if let Some(recorder) = &self.recorder {
            network.set_tap(Some(recorder.clone()));
            let (from, to) = (Side::Anyone, Side::Anyone);
            network.trouble(Between { from, to, both_ways: true }, Trouble::Latency(SIMULATED_LATENCY));
        }
        let limits = limits(&config);
        let mut slots = BTreeMap::new();
        for (id, listening) in (1..).zip(listening) {
            let (host, port) = self.advertised(id, listening.as_ref());
            network.name(&host, port, id);
            let home = homes.as_ref().and_then(|homes| homes.brokers.get(&id));
            let disk = match home {
                Some(home) => on_disk(Disk::on(&rt, id, home.path()))?,
                None => self.empty_disk(&rt, id, false)?,
            };
            #[allow(unused_mut, reason = "only a simulation changes it")]
            let mut slot = Slot::new(host, port, listening, disk, rt.of_node());
            slot.directory = home.map(|home| home.meta.directory);
            #[cfg(feature = "sim")]
            if self.recorder.is_some() {
                slot.simulated_disk = Some(slot.disk.faults().sync_latency(SIMULATED_SYNC));
            }
            slots.insert(id, slot);
        }
        let voters = voter_ids(self.voter_count());
        let all_former = Arc::new(AtomicBool::new(homes.is_some()));
        let started = Started { rt, cluster_id, network, journal, config, limits, voters, all_former };
        #[cfg(feature = "sim")]
        let simulated = self.recorder.is_some();
        let slow = |_disk: &Arc<Disk>| {
            #[cfg(feature = "sim")]
            return simulated.then(|| _disk.faults().sync_latency(SIMULATED_SYNC));
            #[cfg(not(feature = "sim"))]
            None
        };
        let disk_of = |id: i32| match homes.as_ref().and_then(|homes| homes.controllers.get(&id)) {
            Some(home) => on_disk(Disk::of_voter(&started.rt, id, home.path())),
            None => self.empty_disk(&started.rt, id, true),
        };
        let controller = Quorum::start(&started, disk_of, slow)?;
        let cluster = Cluster {
            controller,
            _homes: homes,
            started,
            committed: Arc::new(Committed::default()),
            slots: Mutex::new(slots),
            rng: Mutex::new(rng),
        };
        cluster.boot_all().await?;
        cluster.within(START_LIMIT, "brokers to register", cluster.until_complete()).await?;
        let missing = |(name, ..): &&(String, Option<i32>, Option<i16>)| {
            cluster.started.journal.image(|image| image.topic(name).is_none())
        };
        let missing: Vec<_> = self.topics.iter().filter(missing).cloned().collect();
        cluster.create_topics(&missing).await?;
        Ok(cluster)
    }

    fn settings(&self) -> Result<BrokerConfig, ConfigError> {
        let mut config = BrokerConfig::new();
        let replicas = self.brokers.clamp(1, 3).to_string();
        let mut defaults = BOTH.to_vec();
        defaults.extend(REPLICATION.iter().map(|name| (*name, &*replicas)));
        if self.profile == Profile::Test {
            defaults.extend(TEST);
        }
        if self.data_dir.is_some() {
            defaults.push(("log.flush.interval.messages", "1"));
        }
        let min_isr = self.brokers.clamp(1, 2).to_string();
        defaults.push(("transaction.state.log.min.isr", &min_isr));
        for (name, value) in defaults {
            config.set(name, value)?;
        }
        for (name, value) in &self.given {
            config.set(name, value)?;
        }
        config.check()?;
        Ok(config)
    }

    /// Brokers can be added later, but a cluster that refuses every topic until then is a mistake.
    fn check_replication(&self, config: &BrokerConfig) -> Result<(), ClusterError> {
        let (name, brokers) = ("default.replication.factor", self.brokers);
        match config.int(name).filter(|factor| *factor > i64::from(brokers)) {
            Some(factor) => Err(ClusterError::Config(format!(
                "{name} is {factor}, but there are only {brokers} brokers: no topic could be created by it"
            ))),
            None => Ok(()),
        }
    }

    /// A disk is a real one or one in memory.
    fn check_disks(&self) -> Result<(), ClusterError> {
        #[cfg(feature = "sim")]
        if let Some(path) = self.data_dir.as_ref().filter(|_| self.with_files) {
            return Err(ClusterError::Config(format!(
                "with_files keeps files in memory, data_dir in {}: ask for one of them",
                path.display()
            )));
        }
        Ok(())
    }

    async fn listen_all(&self) -> Result<Vec<Option<Listening>>, ClusterError> {
        let mut bound = Vec::new();
        for index in 0..self.brokers {
            let Some(listen) = &self.listen else {
                bound.push(None);
                continue;
            };
            let port = match listen.port {
                0 => Some(0),
                first => u16::try_from(index).ok().and_then(|index| first.checked_add(index)),
            };
            let port = port.ok_or_else(|| ClusterError::Config("ports end at 65535".into()))?;
            let address = Endpoint::new(listen.host.clone(), port).to_string();
            let listening = Listening::bind(&listen.host, port).await;
            bound.push(Some(listening.map_err(|cause| ClusterError::Listen { address, cause })?));
        }
        Ok(bound)
    }

    /// Host and port told to clients.
    fn advertised(&self, id: i32, listening: Option<&Listening>) -> (String, u16) {
        let Some(Listening { address, .. }) = listening else {
            return (format!("broker-{id}.lite"), IN_PROCESS_PORT);
        };
        let asked = self.listen.as_ref().map_or("127.0.0.1", |listen| &listen.host);
        let host = match &self.advertise {
            Some(host) => host.clone(),
            None if address.ip().is_unspecified() && address.is_ipv6() => "::1".into(),
            None if address.ip().is_unspecified() => "127.0.0.1".into(),
            None => asked.to_owned(),
        };
        (host, address.port())
    }
}

pub(crate) fn limits(config: &BrokerConfig) -> Limits {
    let count = |name: &str, default: usize| {
        config.int(name).and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
    };
    Limits {
        request_bytes: count("socket.request.max.bytes", 104_857_600),
        requests_in_progress: count("queued.max.requests", 500).clamp(1, REQUESTS_IN_PROGRESS),
        connections: count("max.connections", i32::MAX as usize),
        // A negative value switches the limit off in Kafka.
        idle: config.millis("connections.max.idle.ms").unwrap_or(Duration::from_secs(u32::MAX.into())),
    }
}

/// A version 4 UUID out of the cluster's own chance.
pub(crate) fn random_uuid(rng: &mut fastrand::Rng) -> Uuid {
    UuidBuilder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Kafka's way to write a UUID: 22 characters of URL-safe base64.
pub(crate) fn base64(id: Uuid) -> String {
    let bits = id.as_u128();
    let digit = |shift: u32| char::from(ALPHABET[(bits >> shift & 63) as usize]);
    let mut text: String = (0..21).map(|index| digit(122 - 6 * index)).collect();
    text.push(char::from(ALPHABET[((bits & 3) << 4) as usize]));
    text
}

/// The UUID that is written so, if it is one.
pub(crate) fn from_base64(text: &str) -> Option<Uuid> {
    let digit =
        |byte| ALPHABET.iter().position(|known| *known == byte).and_then(|at| u128::try_from(at).ok());
    let (last, first) = text.as_bytes().split_last().filter(|(_, first)| first.len() == 21)?;
    let bits = first.iter().try_fold(0_u128, |bits, byte| Some(bits << 6 | digit(*byte)?))?;
    Some(Uuid::from_u128(bits << 2 | digit(*last)? >> 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_written_as_kafka_writes_uuids() {
        // Kafka: Uuid.fromString("AAAAAAAAAAAAAAAAAAAAAQ") is 00000000-0000-0000-0000-000000000001.
        assert_eq!(base64(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(Uuid::from_u128(u128::MAX)), "_____________________w");
        for id in [1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677].map(Uuid::from_u128) {
            assert_eq!(from_base64(&base64(id)), Some(id));
        }
        for bad in ["", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAQA", "AAAAAAAAAAAAAAAAAAAA=="] {
            assert_eq!(from_base64(bad), None);
        }
    }

    #[tokio::test]
    async fn more_replicas_than_brokers_are_refused_by_name() {
        let builder = ClusterBuilder::default().config("default.replication.factor", "5");
        let error = builder.start().await.unwrap_err().to_string();
        assert!(
            error.starts_with("default.replication.factor is 5, but there are only 3 brokers"),
            "{error}"
        );
    }

    #[cfg(feature = "sim")]
    #[tokio::test]
    async fn a_directory_for_disks_in_memory_is_refused() {
        let builder = ClusterBuilder::default().with_files().data_dir("/nowhere");
        let error = builder.start().await.unwrap_err().to_string();
        assert_eq!(error, "with_files keeps files in memory, data_dir in /nowhere: ask for one of them");
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
        let error = ClusterBuilder::default().config("num.partition", "3").settings().unwrap_err();
        assert!(error.to_string().contains("num.partitions"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_dropped_leaves_nothing_behind() {
        let builder = ClusterBuilder::default().brokers(2).seed(1).topic("orders", Some(2), None);
        let cluster = builder.start().await.unwrap();
        let (network, rt) = (Arc::downgrade(&cluster.started.network), cluster.started.rt.clone());
        drop(cluster);
        for _ in 0..100 {
            rt.sleep(Duration::from_millis(10)).await; // virtual; tasks that are told to stop need a turn
        }
        assert_eq!(network.strong_count(), 0);
    }
}
