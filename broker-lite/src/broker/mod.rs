//! One incarnation of one broker: its view of the metadata, its replicas, its errands.
//!
//! ```text
//! controller ──metadata Fetch──▶ image ──delta──▶ replicas ──effects──▶ fetchers, ISR proposals, wake-ups
//!      ▲────── registration, heartbeats, AlterPartition ─────────────────────────┘
//! ```
//!
//! Lock order: changing before image before directory before one partition; no lock across an await.

mod controllers;
mod fetcher;
mod housekeeping;
mod isr;
mod lifecycle;
mod metadata;
mod partition;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use broker_lite_core::config::BrokerConfig;
use broker_lite_core::metadata::{ConfigResource, Image};
use broker_lite_core::throttle::Throttle;
use klamm_wire::ErrorCode;
use klamm_wire::messages::TopicName;
use klamm_wire::seam::Endpoint;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

pub(crate) use lifecycle::{FEATURES, log_dir};
pub(crate) use partition::{CopySide, Partition, Signal, Until, to_keep};
pub(crate) use sessions::Bell;

use crate::cluster_id::ClusterId;
use crate::disk::{Disk, Leave, PowerLoss};
use crate::group::Groups;
use crate::identity::{NodeIdentity, addresses};
use crate::journal::{Journal, NodeEvent};
use crate::node::{Life, Network};
use crate::rt::{Rt, Tick};
use controllers::Controllers;
pub(crate) use controllers::GivenUp;
use fetcher::Fetchers;
use isr::IsrKeeper;
use lifecycle::Leaving;
use sessions::FetchSessions;

/// Name of the one listener.
pub(crate) const LISTENER: &str = "PLAINTEXT";

/// Name of the listener of controllers.
pub(crate) const CONTROLLER_LISTENER: &str = "CONTROLLER";

/// Stands for whichever controller is active; brokers count from 1, controllers from 3001.
pub(crate) const CONTROLLER_ID: i32 = 0;

/// The one `replica.selector.class` there is besides null, without its package.
const RACK_AWARE: &str = "RackAwareReplicaSelector";

/// How often silent producers are looked for, as Kafka does.
const EXPIRATION_CHECK: Duration = Duration::from_secs(600);

/// How far each partition was ever committed, for [`Cluster::check`](crate::Cluster::check) only.
#[derive(Debug, Default)]
pub(crate) struct Committed(Mutex<BTreeMap<(Uuid, i32), Arc<AtomicI64>>>);

impl Committed {
    fn of(&self, key: (Uuid, i32)) -> Arc<AtomicI64> {
        self.0.lock().entry(key).or_default().clone()
    }

    /// Highest high watermark that any replica ever had.
    pub(crate) fn offset(&self, topic: Uuid, partition: i32) -> i64 {
        self.of((topic, partition)).load(Ordering::Relaxed)
    }
}

/// What never changes while a broker runs.
#[derive(Debug, Clone)]
pub(crate) struct BrokerIdentity {
    pub(crate) id: i32,
    pub(crate) cluster_id: ClusterId,
    pub(crate) rack: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where it listens, by listener, and its voter, if this process has one.
    pub(crate) listeners: Vec<(&'static str, Endpoint)>,
    /// Id of the one log directory; survives restarts, as the storage does.
    pub(crate) log_dir: Uuid,
    pub(crate) incarnation: Uuid,
    /// Epoch of the registration before this one if that broker has closed its logs in order, else -1.
    pub(crate) previous_epoch: i64,
}

impl BrokerIdentity {
    fn node(&self, disk: &Disk, voters: String) -> NodeIdentity<'_> {
        NodeIdentity {
            id: self.id,
            listeners: &self.listeners,
            advertised: Some(Endpoint::new(self.host.clone(), self.port)),
            log_dir: log_dir_name(self.id, disk),
            voters,
            rack: self.rack.as_deref(),
        }
    }
}

#[cfg(unix)]
fn volume(path: &Path) -> Option<(i64, i64)> {
    let told = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(told.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(told.f_blocks), bytes(told.f_bavail)))
}

#[cfg(not(unix))]
fn volume(_: &Path) -> Option<(i64, i64)> {
    None
}

/// What DescribeLogDirs and `log.dirs` call the one log directory.
pub(crate) fn log_dir_name(id: i32, disk: &Disk) -> String {
    disk.path().map_or_else(|| format!("/memory/broker-{id}"), |path| path.display().to_string())
}

/// What outlives a broker's process.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) network: Arc<Network>,
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) committed: Arc<Committed>,
    pub(crate) journal: Arc<Journal>,
    /// Ids of the voters of the metadata quorum.
    pub(crate) voters: Vec<i32>,
}

/// One incarnation of one broker.
#[derive(Debug)]
pub(crate) struct Broker {
    me: Weak<Self>,
    pub(crate) identity: BrokerIdentity,
    pub(crate) rt: Rt,
    pub(crate) life: Arc<Life>,
    pub(crate) network: Arc<Network>,
    pub(crate) config: Arc<BrokerConfig>,
    disk: Arc<Disk>,
    committed: Arc<Committed>,
    journal: Arc<Journal>,
    pub(crate) controllers: Controllers,
    image: Mutex<Image>,
    image_changed: Notify,
    metadata_epoch: AtomicI32,
    /// Up to where in the metadata the replicas here were told.
    told: AtomicI64,
    /// Replicas are put into the directory under it, and taken from it for good when the process is over.
    changing: Mutex<()>,
    /// Everything was opened that the last process has left, and whether something is being opened now.
    has_opened: AtomicBool,
    opening: AtomicBool,
    registration: Mutex<Registration>,
    directory: Mutex<Directory>,
    fetchers: Fetchers,
    /// By [`CopySide`].
    throttles: [Mutex<Throttle>; 2],
    pub(crate) sessions: FetchSessions,
    isr: IsrKeeper,
    leaving: Leaving,
    leave: Mutex<Leave>,
    pub(crate) groups: Groups,
    /// The disk has failed.
    offline: AtomicBool,
    /// Producer ids of this broker's block that are still free.
    pub(crate) producer_ids: Mutex<Range<i64>>,
    /// Topics that are being created because clients have asked for them.
    pub(crate) creating: Mutex<BTreeSet<TopicName>>,
}

/// How the broker stands with the controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registration {
    /// Epoch of the registration, -1 before.
    pub(crate) epoch: i64,
    /// Whether the last heartbeat said so.
    pub(crate) unfenced: bool,
}

/// Replicas held here.
#[derive(Debug, Default)]
struct Directory {
    ids: BTreeMap<Arc<str>, Uuid>,
    partitions: BTreeMap<(Uuid, i32), Arc<Partition>>,
}

/// How a request names a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TopicRef<'a> {
    /// By name, in older versions.
    Name(&'a str),
    /// By id.
    Id(Uuid),
}

impl Broker {
    pub(crate) fn new(
        identity: BrokerIdentity,
        rt: Rt,
        life: Arc<Life>,
        surroundings: Surroundings,
    ) -> Arc<Self> {
        let Surroundings { network, config, disk, committed, journal, voters } = surroundings;
        let sessions = FetchSessions::new(&config, rt.rng("fetch sessions"));
        let config = identity.node(&disk, addresses(&network, voters.iter().copied())).running(&config);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            identity,
            rt,
            life,
            network,
            config,
            disk,
            committed,
            journal,
            controllers: Controllers::new(voters),
            image: Mutex::new(Image::default()),
            image_changed: Notify::new(),
            metadata_epoch: AtomicI32::new(-1),
            told: AtomicI64::new(0),
            changing: Mutex::default(),
            has_opened: AtomicBool::new(false),
            opening: AtomicBool::new(false),
            registration: Mutex::new(Registration { epoch: -1, unfenced: false }),
            directory: Mutex::default(),
            fetchers: Fetchers::default(),
            throttles: Default::default(),
            sessions,
            isr: IsrKeeper::default(),
            leaving: Leaving::default(),
            leave: Mutex::new(Leave::Killed),
            groups: Groups::default(),
            offline: AtomicBool::new(false),
            producer_ids: Mutex::new(0..0),
            creating: Mutex::default(),
        })
    }

    /// Starts everything that runs by itself.
    pub(crate) fn run(self: &Arc<Self>) {
        let life = &self.life;
        life.spawn(metadata::follow(self.clone()));
        life.spawn(lifecycle::live(self.clone()));
        life.spawn(isr::send_proposals(self.clone()));
        life.spawn(isr::watch_deadlines(self.clone()));
        life.spawn(expire_producers(self.clone()));
        life.spawn(housekeeping::retain(self.clone()));
        life.spawn(housekeeping::compact(self.clone()));
        if self.disk.has_checkpoints() {
            life.spawn(housekeeping::write_checkpoints(self.clone()));
        }
    }

    pub(crate) fn id(&self) -> i32 {
        self.identity.id
    }

    /// Itself, for tasks; `None` once it is being dropped.
    pub(crate) fn me(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// Looks at the metadata as this broker knows it.
    pub(crate) fn image<R>(&self, look: impl FnOnce(&Image) -> R) -> R {
        look(&self.image.lock())
    }

    /// The settings in force under this metadata.
    pub(crate) fn settings(&self, image: &Image) -> BrokerConfig {
        let own = image.configs(&ConfigResource::Broker(Some(self.id())));
        self.config.under(own, image.configs(&ConfigResource::Broker(None)))
    }

    /// Until when nothing more may be copied for the throttled replicas of that side; `None` for at once.
    pub(crate) fn throttled_until(&self, side: CopySide) -> Option<Tick> {
        self.throttles[side as usize].lock().blocked_until(self.rt.now())
    }

    /// Takes note of what was copied for a throttled replica.
    pub(crate) fn copied(&self, side: CopySide, bytes: usize) {
        self.throttles[side as usize].lock().record(self.rt.now(), bytes);
    }

    /// What DescribeLogDirs calls the one log directory.
    pub(crate) fn log_dir(&self) -> String {
        log_dir_name(self.id(), &self.disk)
    }

    /// Size of the volume on which the logs are, and how much of it is left to the broker, in bytes; `None` in memory.
    pub(crate) fn volume(&self) -> Option<(i64, i64)> {
        volume(self.disk.path()?)
    }

    /// How the broker stands with the controller.
    pub(crate) fn registration(&self) -> Registration {
        *self.registration.lock()
    }

    /// Waits until `found` finds something in the metadata; ends with the broker's life.
    pub(crate) async fn until_image<R>(&self, mut found: impl FnMut(&Image) -> Option<R>) -> R {
        loop {
            let changed = self.image_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(result) = self.image(&mut found) {
                return result;
            }
            changed.await;
        }
    }

    /// Up to where in the metadata the replicas here were told.
    pub(crate) fn told(&self) -> i64 {
        self.told.load(Ordering::SeqCst)
    }

    /// As [`Self::until_image`], and the replicas here are told of it.
    pub(crate) async fn until_told<R>(&self, mut found: impl FnMut(&Image) -> Option<R>) -> R {
        self.until_image(|image| found(image).filter(|_| self.told() >= image.next_offset())).await
    }

    /// Finds a replica held here.
    ///
    /// # Errors
    ///
    /// Kafka's code for a topic or partition that is unknown, or held elsewhere.
    pub(crate) fn partition(&self, topic: TopicRef<'_>, partition: i32) -> Result<Arc<Partition>, ErrorCode> {
        {
            let directory = self.directory.lock();
            let id = match topic {
                TopicRef::Name(name) => directory.ids.get(name).copied(),
                TopicRef::Id(id) => Some(id),
            };
            if let Some(found) = id.and_then(|id| directory.partitions.get(&(id, partition))) {
                return Ok(found.clone());
            }
        }
        self.image(|image| {
            let (topic, unknown) = match topic {
                TopicRef::Name(name) => (image.topic(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                TopicRef::Id(id) => (image.topic_by_id(id), ErrorCode::UNKNOWN_TOPIC_ID),
            };
            let topic = topic.ok_or(unknown)?;
            let known = topic.partitions.contains_key(&partition);
            Err(if known { ErrorCode::NOT_LEADER_OR_FOLLOWER } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION })
        })
    }

    /// Every replica held here.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.directory.lock().partitions.values().cloned().collect()
    }

    /// Says how this process will have left its disk. Call it before the broker's life is ended.
    pub(crate) fn leave_as(&self, leave: Leave) {
        *self.leave.lock() = leave;
    }

    /// Ends this process, or its power, from inside.
    pub(crate) fn die(&self, power_off: bool) {
        let (leave, event) = match power_off {
            true => (Leave::PowerOff(PowerLoss::Unsynced), NodeEvent::PoweredOff),
            false => (Leave::Killed, NodeEvent::Killed),
        };
        self.leave_as(leave);
        if self.life.kill().is_some() {
            self.release_storage();
            self.journal.node_event(self.rt.now(), self.id(), event);
        }
    }

    /// Ends this incarnation's hold on its replicas and leaves their bytes on the disk. A second call changes nothing.
    ///
    /// Call it after the broker's life has ended: metadata that was being applied is finished first.
    pub(crate) fn release_storage(&self) {
        drop((self.changing.lock(), self.image.lock()));
        let mut leave = *self.leave.lock();
        if !self.has_opened.load(Ordering::SeqCst) || self.opening.load(Ordering::SeqCst) {
            // What was not looked through must be, by whoever comes next.
            leave = if let Leave::Clean { .. } = leave { Leave::Killed } else { leave };
        }
        let partitions = std::mem::take(&mut *self.directory.lock()).partitions;
        let mut storages = Vec::with_capacity(partitions.len());
        for (key, partition) in partitions {
            let Some(mut replica) = partition.retire() else { continue };
            if let Leave::Clean { .. } = leave
                && let Err(error) = replica.close()
            {
                tracing::error!(replica = %partition.identity, %error, "the logs count as not closed in order");
                leave = Leave::Killed;
            }
            storages.push((key, replica.into_directory()));
        }
        self.disk.put_back(storages.into_iter(), leave);
    }

    /// Ends the process because its disk has failed, as Kafka does with its only log directory.
    ///
    /// The storage is released a moment later: who calls this may hold what that needs.
    fn go_offline(&self, cause: &str) {
        if self.offline.swap(true, Ordering::SeqCst) || self.life.is_dead() {
            return;
        }
        let broker = self.id();
        // First, as a process of its own ends with its node.
        tracing::error!(
            broker,
            cause,
            "the log directory is offline and the broker stops; end the fault of its disk, then restart it"
        );
        if self.life.kill().is_none() {
            return;
        }
        self.journal.node_event(self.rt.now(), broker, NodeEvent::DiskFailed { cause: cause.to_owned() });
        if let Some(me) = self.me.upgrade() {
            self.rt.spawn(async move { me.release_storage() });
        }
    }

    /// Asks the controller to move the leaderships away; returns when it has, and this broker may stop.
    pub(crate) async fn until_may_stop(&self) {
        self.leaving.until_allowed().await;
    }

    /// Makes everything written durable, for a shutdown in order.
    ///
    /// # Errors
    ///
    /// What the disk says; what was not durable before is then lost.
    pub(crate) async fn flush(&self) -> Result<(), String> {
        let latency = self.disk.sync_latency();
        if !latency.is_zero() {
            self.rt.sleep(latency).await;
        }
        self.disk.sync().map_err(|error| error.to_string())
    }
}

/// Forgets producers that have been silent for `producer.id.expiration.ms`, or every id ever used would stay.
async fn expire_producers(broker: Arc<Broker>) {
    let expiration = broker.config.int("producer.id.expiration.ms").unwrap_or(i64::MAX);
    loop {
        broker.rt.sleep(EXPIRATION_CHECK).await;
        let before_ms = broker.rt.wall_ms().saturating_sub(expiration);
        for partition in broker.partitions() {
            partition.look(|replica| replica.expire_producers(before_ms));
        }
    }
}

/// Who leads a partition (KIP-951).
#[derive(Debug, Clone)]
pub(crate) struct LeaderHint {
    /// -1 if nobody does.
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// Where it is, if it is alive.
    pub(crate) endpoint: Option<LeaderEndpoint>,
}

/// Where a leader is.
#[derive(Debug, Clone)]
pub(crate) struct LeaderEndpoint {
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

impl Broker {
    /// The leader of a partition as far as this broker knows.
    pub(crate) fn leader_hint(&self, topic: TopicRef<'_>, partition: i32) -> Option<LeaderHint> {
        self.image(|image| {
            let topic = match topic {
                TopicRef::Name(name) => image.topic(name),
                TopicRef::Id(id) => image.topic_by_id(id),
            }?;
            let registration = topic.partitions.get(&partition)?;
            let id = registration.leader.unwrap_or(-1);
            let endpoint = image.broker(id).filter(|broker| !broker.fenced).and_then(|broker| {
                let listener = broker.listener(LISTENER)?;
                Some(LeaderEndpoint {
                    host: listener.host.clone(),
                    port: i32::from(listener.port),
                    rack: broker.rack.clone(),
                })
            });
            Some(LeaderHint { id, epoch: registration.leader_epoch, endpoint })
        })
    }

    /// Whether consumers are sent to replicas in their own rack.
    pub(crate) fn reads_nearby(&self) -> bool {
        self.config.get("replica.selector.class").is_some_and(|class| class.ends_with(RACK_AWARE))
    }

    /// The live brokers in a rack; `None` if the rack is not said.
    pub(crate) fn in_rack(&self, rack: &str) -> Option<BTreeSet<i32>> {
        let here = |image: &Image| {
            let live = image.live_brokers().filter(|broker| broker.rack.as_deref() == Some(rack));
            live.map(|broker| broker.id).collect()
        };
        (!rack.is_empty()).then(|| self.image(here))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::Cluster;

    /// Goal: what a broker missed while it was down does not stay on its disk for ever.
    #[tokio::test(start_paused = true)]
    async fn a_topic_deleted_while_a_broker_was_down_leaves_its_disk() {
        use klamm_wire::codec::{decode_response, encode_request};
        use klamm_wire::messages::delete_topics_request::DeleteTopicState;
        use klamm_wire::messages::{DeleteTopicsRequest, TopicName};

        let cluster = Cluster::builder().seed(7).topic("t", Some(1), Some(3)).start().await.unwrap();
        let (broker, id) = cluster.broker_and_topic_id(1, "t");
        cluster.kill(1).unwrap();
        let held = |disk: &super::Disk| disk.look(id, 0, |_| ()).is_some();
        assert!(held(&broker.disk));
        let topic = DeleteTopicState::default().with_name(Some(TopicName("t".into())));
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
        let frame = encode_request(6, &request).unwrap();
        let answer = broker
            .network
            .call(
                &crate::node::Party::Client(None),
                &crate::node::Party::Node(2),
                "test",
                Duration::from_secs(60),
                frame,
            )
            .await
            .unwrap();
        let answer = decode_response::<DeleteTopicsRequest>(answer).unwrap();
        assert_eq!(answer.responses[0].error_code, 0);
        cluster.restart(1).await.unwrap();
        broker.rt.sleep(Duration::from_millis(50)).await;
        assert!(!held(&broker.disk));
    }

    /// Goal: logs that nobody has looked through since a kill do not count as closed.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_stops_before_it_has_opened_its_logs_has_not_closed_them() {
        let cluster = Cluster::builder().seed(7).topic("t", Some(60), Some(3)).start().await.unwrap();
        let (broker, _) = cluster.broker_and_topic_id(1, "t");
        cluster.kill(1).unwrap();
        let (other, _) = cluster.broker_and_topic_id(2, "t");
        let _slow = cluster.disk(1).unwrap().slow(Duration::from_secs(1));
        tokio::select! {
            biased;
            restarted = cluster.restart(1) => panic!("{restarted:?}"),
            () = broker.rt.sleep(Duration::from_secs(2)) => {}
        }
        cluster.shutdown().await;
        assert_eq!((broker.disk.open(), other.disk.open().unwrap().is_some()), (Ok(None), true));
    }
}
