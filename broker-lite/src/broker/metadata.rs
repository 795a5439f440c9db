//! Following the metadata log: Fetch from the controller, apply to the image, tell the replicas.
//!
//! Invariant: replicas see registrations in the order of the log, and none from before this broker's own registration. What
//! takes long (opening logs, above all) is done without the image's lock: heartbeats and clients do not wait for it. Until
//! it is done, the controller is told of an earlier offset, so that a broker leads nothing that it has not opened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker_lite_core::config::TopicConfig;
use broker_lite_core::metadata::{Checkpoint, ConfigResource, Delta, Image, RemovedTopic, Topic};
use broker_lite_core::quorum::{Fetch, Fetched, Response, SnapshotId};
use broker_lite_core::replica::{Replica, ReplicaIdentity, ReplicaSettings, TimestampType};
use broker_lite_core::storage::StorageError;
use broker_lite_core::throttle::ThrottledReplicas;
use bytes::Bytes;
use klamm_wire::seam::{Endpoint, Link, LinkError};
use klamm_wire::{ErrorCode, RawBatch};
use tower_service::Service;
use uuid::Uuid;

use super::{Broker, CopySide, LISTENER, Partition};
use crate::api::k59_fetch_snapshot::Asker;
use crate::api::{k01_fetch, k59_fetch_snapshot};
use crate::cluster_id::ClusterId;
use crate::disk::Stored;
use crate::node::{Listener, Party};

/// Longest wait of one metadata Fetch, as in Kafka.
const WAIT: Duration = Duration::from_millis(500);
/// Pause after a controller could not be reached, or had no leader to name.
const PAUSE: Duration = Duration::from_millis(10);

/// Follows the log for as long as the broker lives: from the leader of the quorum, or, while nobody knows it, asking the
/// voters in turn.
pub(crate) async fn follow(broker: Arc<Broker>) {
    let me = Party::Node(broker.id());
    let limit = broker.config.millis("controller.quorum.fetch.timeout.ms").unwrap_or(Duration::from_secs(2));
    let mut last = None;
    loop {
        let Some(voter) = broker.controllers.leader().or_else(|| broker.controllers.after(last)) else {
            return;
        };
        last = Some(voter);
        let to = Party::Controller(voter);
        let dialled = broker.network.dial(&me, &to, "metadata");
        let ended = match broker.network.within(limit, dialled).await {
            Ok(link) => follow_over(&broker, link, voter).await,
            Err(error) => Err(error),
        };
        match ended {
            Err(error) => {
                tracing::debug!(broker = broker.id(), voter, %error, "cannot follow the metadata log");
            }
            // Somebody else leads, and is asked at once.
            Ok(()) if broker.controllers.leader().is_some_and(|leader| leader != voter) => continue,
            Ok(()) => {}
        }
        broker.controllers.suspect(voter);
        broker.rt.sleep(PAUSE).await;
    }
}

/// Follows one voter; returns when it does not lead.
async fn follow_over(broker: &Arc<Broker>, mut link: Link, voter: i32) -> Result<(), LinkError> {
    let malformed = |reason: String| LinkError::Malformed { reason };
    let limit = broker.config.millis("controller.quorum.fetch.timeout.ms").unwrap_or(Duration::from_secs(2));
    let (id, directory) = (broker.id(), broker.identity.log_dir);
    let mut download: Option<(SnapshotId, Vec<u8>)> = None;
    // Who leads is in the answer, and a broker that starts cannot register before it knows: the first one waits for no records.
    let mut wait = Duration::ZERO;
    loop {
        let epoch = broker.controllers.epoch();
        let from = broker.image(Image::next_offset);
        // Who is in the wrong cluster shall hear which one it is, and not only that it is the wrong one.
        let is_told = broker.image(|image| image.cluster_id().is_some());
        let cluster_id = if is_told { broker.identity.cluster_id.clone() } else { ClusterId::default() };
        let frame = match &download {
            Some((snapshot, part)) => {
                let asker = Asker::Broker(id, directory);
                k59_fetch_snapshot::request(&cluster_id, asker, epoch, *snapshot, part.len() as u64)
            }
            None => {
                // 0 where there is none yet: a negative one is refused.
                let (last_epoch, high_watermark) = (broker.last_metadata_epoch().max(0), i64::MAX);
                let fetch = Fetch { epoch, offset: from, last_epoch, high_watermark };
                k01_fetch::metadata::encode(&cluster_id, id, directory, &fetch, wait)
            }
        };
        let frame = frame.map_err(|error| malformed(error.to_string()))?;
        std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
        let answer = broker.network.within(limit, link.call(frame)).await?;
        let answer = match &download {
            Some(_) => k59_fetch_snapshot::response(answer),
            None => k01_fetch::metadata::response(answer),
        };
        let answer = answer.map_err(|error| malformed(error.to_string()))?;
        let head = *answer.head();
        broker.controllers.learn(head.leader, head.epoch);
        wait = WAIT.min(limit * 3 / 4);
        match head.error {
            ErrorCode::NONE => {}
            // Of another epoch than was thought, but the right one to ask.
            ErrorCode::FENCED_LEADER_EPOCH if head.leader == Some(voter) && head.epoch > epoch => continue,
            _ if head.epoch >= 0 => return Ok(()),
            error => return Err(malformed(format!("refused with {error}"))),
        }
        match answer {
            Response::Fetch { fetched: Fetched::Records(records), .. } => {
                for records in records.into_iter().filter(|records| !records.is_empty()) {
                    broker.apply_metadata(records).await.map_err(malformed)?;
                }
            }
            Response::Fetch { fetched: Fetched::Snapshot(snapshot), .. } => {
                download = Some((snapshot, Vec::new()));
            }
            Response::Snapshot { id, size, position, bytes, .. } => {
                let Some((_, mut part)) = download.take().filter(|(wanted, part)| {
                    *wanted == id && part.len() as u64 == position && !bytes.is_empty()
                }) else {
                    return Err(malformed("a part of another snapshot".into()));
                };
                part.extend_from_slice(&bytes);
                if (part.len() as u64) < size {
                    download = Some((id, part));
                } else {
                    let image = Checkpoint::read(id, &part.into()).map_err(malformed)?;
                    broker.load_metadata(image, id.epoch).await.map_err(malformed)?;
                }
            }
            // Only committed records come here, so they cannot diverge.
            other => {
                return Err(malformed(format!("the metadata of this broker is not the leader's: {other:?}")));
            }
        }
    }
}

fn all_partitions(image: &Image) -> BTreeSet<(Uuid, i32)> {
    let partitions =
        |topic: &Topic| topic.partitions.keys().map(|number| (topic.id, *number)).collect::<Vec<_>>();
    image.topics().flat_map(partitions).collect()
}

impl Broker {
    /// Applies committed metadata and tells every replica that it concerns.
    async fn apply_metadata(&self, mut records: Bytes) -> Result<(), String> {
        self.change_metadata(|image, delta| {
            let mut epoch = None;
            while let Some(batch) = RawBatch::split(&mut records) {
                let batch = batch.map_err(|e| e.to_string())?;
                image.apply_batch(&batch, delta).map_err(|e| e.to_string())?;
                epoch = Some(batch.header().partition_leader_epoch);
            }
            Ok(epoch)
        })
        .await
    }

    /// Puts a snapshot in place of the metadata known so far.
    async fn load_metadata(&self, loaded: Image, epoch: i32) -> Result<(), String> {
        tracing::info!(
            broker = self.id(),
            end_offset = loaded.next_offset(),
            "loads a snapshot of the metadata"
        );
        self.change_metadata(|image, delta| {
            *delta = Delta::between(image, &loaded);
            *image = loaded;
            Ok(Some(epoch))
        })
        .await
    }

    async fn change_metadata(
        &self,
        change: impl FnOnce(&mut Image, &mut Delta) -> Result<Option<i32>, String>,
    ) -> Result<(), String> {
        let (delta, deleted, first, end) = {
            let mut image = self.image.lock();
            if self.life.is_dead() {
                return Err("this incarnation is over".into());
            }
            let caught_up = self.is_registered_in(&image);
            let mut delta = Delta::default();
            if let Some(epoch) = change(&mut image, &mut delta)? {
                self.metadata_epoch.store(epoch, Ordering::Relaxed);
            }
            self.note_addresses(&image, &delta);
            let registered = self.is_registered_in(&image);
            let first = registered && !caught_up;
            if first {
                delta.partitions = all_partitions(&image);
                self.set_throttles(&image);
            }
            let deleted = delta.removed_topics.iter().map(|topic| topic.name.clone()).collect();
            (registered.then_some(delta), deleted, first, image.next_offset())
        };
        self.image_changed.notify_waiters();
        if let Some(delta) = delta {
            if first {
                self.remove_what_is_gone(&delta.partitions).await;
            }
            self.remove_topics(&delta.removed_topics);
            self.change_settings(&delta);
            self.change_partitions(&delta).await;
            self.has_opened.store(true, Ordering::SeqCst);
        }
        self.told.store(end, Ordering::SeqCst);
        self.image_changed.notify_waiters();
        self.groups.topics_deleted(self, deleted);
        Ok(())
    }

    /// Topics may have been deleted, and replicas moved elsewhere, while this broker was down.
    async fn remove_what_is_gone(&self, all: &BTreeSet<(Uuid, i32)>) {
        let assigned = self.image(|image| {
            let assigned = |(topic, partition): &&(Uuid, i32)| {
                let partition = image.partition(*topic, *partition);
                partition.is_some_and(|partition| partition.replicas.contains(&self.id()))
            };
            all.iter().filter(assigned).copied().collect::<BTreeSet<_>>()
        });
        let disk = self.disk.clone();
        if let Some(Err(error)) = self.disk.chore(move || disk.keep_only(&assigned)).await {
            tracing::warn!(broker = self.id(), %error, "cannot remove what was deleted");
        }
    }

    /// Epoch of the last metadata record applied, -1 before the first.
    fn last_metadata_epoch(&self) -> i32 {
        self.metadata_epoch.load(Ordering::Relaxed)
    }

    /// Tells the network where brokers of other processes listen.
    fn note_addresses(&self, image: &Image, delta: &Delta) {
        let Some(remotes) = self.network.remotes() else { return };
        for broker in
            delta.brokers.iter().filter_map(|id| image.broker(*id)).filter(|found| found.id != self.id())
        {
            if let Some(listener) = broker.listener(LISTENER) {
                let endpoint = Endpoint::new(listener.host.clone(), listener.port);
                remotes.set(&Party::Node(broker.id), Listener::Broker, endpoint);
            }
        }
    }

    /// Whether the metadata has come to this incarnation's own registration. What lies before is history: by it a
    /// restarted broker would take up leaderships that it has lost since.
    fn is_registered_in(&self, image: &Image) -> bool {
        image.broker(self.id()).is_some_and(|found| found.incarnation_id == self.identity.incarnation)
    }

    fn remove_topics(&self, removed: &[RemovedTopic]) {
        for topic in removed {
            let gone = {
                let mut directory = self.directory.lock();
                if directory.ids.get(&topic.name) == Some(&topic.id) {
                    directory.ids.remove(&topic.name);
                }
                let remove = |partition: &i32| directory.partitions.remove(&(topic.id, *partition));
                topic.partitions.iter().filter_map(remove).collect::<Vec<_>>()
            };
            for partition in gone {
                self.retire(&partition);
            }
        }
    }

    fn retire(&self, partition: &Arc<Partition>) {
        self.fetchers.forget(self, partition);
        self.groups.gone(partition);
        if let Some(replica) = partition.retire() {
            self.disk.delete_later(replica.into_directory());
        }
    }

    fn change_settings(&self, delta: &Delta) {
        if delta.configs.is_empty() {
            return;
        }
        let image = &*self.image.lock();
        let own = |resource: &ConfigResource| match resource {
            ConfigResource::Broker(id) => id.is_none_or(|id| id == self.id()),
            _ => false,
        };
        let every_topic = delta.configs.iter().any(own);
        if every_topic {
            self.set_throttles(image);
        }
        let mut settings: BTreeMap<Uuid, Arc<ReplicaSettings>> = BTreeMap::new();
        for partition in self.partitions() {
            let Some(topic) = image.topic_by_id(partition.identity.topic_id) else { continue };
            let changed = || delta.configs.contains(&ConfigResource::Topic(topic.name.to_string()));
            if every_topic || changed() {
                let settings = settings
                    .entry(topic.id)
                    .or_insert_with(|| self.replica_settings(image, &topic.name).into());
                let now = self.rt.now();
                partition.with(self, |replica, fx| replica.set_settings(now, settings.clone(), fx));
                self.throttle(image, &partition);
            }
        }
    }

    fn set_throttles(&self, image: &Image) {
        let settings = self.settings(image);
        let rates = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
        for (throttle, name) in self.throttles.iter().zip(rates) {
            let rate = settings.int(name).and_then(|rate| u64::try_from(rate).ok());
            throttle.lock().set_rate(self.rt.now(), rate);
        }
    }

    /// Tells a replica whether it is among those that are throttled.
    fn throttle(&self, image: &Image, partition: &Partition) {
        let own = image.configs(&ConfigResource::Topic(partition.identity.topic.to_string()));
        for (side, name) in [
            (CopySide::Leader, "leader.replication.throttled.replicas"),
            (CopySide::Follower, "follower.replication.throttled.replicas"),
        ] {
            let named = own.get(name).map(|named| ThrottledReplicas::parse(named)).unwrap_or_default();
            partition.set_throttled(side, named.contains(partition.identity.partition, self.id()));
        }
    }

    /// Runs through the partitions that changed, and those that a change of a broker concerns.
    async fn change_partitions(&self, delta: &Delta) {
        // Partitions of one topic follow each other, and a topic may have thousands.
        let mut settings = None;
        for key in &delta.partitions {
            if let Err(cause) = self.change_partition(*key, &mut settings).await {
                return self.go_offline(&cause);
            }
        }
        if delta.brokers.is_empty() {
            return;
        }
        for held in self.partitions() {
            let key = (held.identity.topic_id, held.identity.partition);
            let concerned = self.image(|image| {
                image.partition(key.0, key.1).is_some_and(|registration| {
                    registration.replicas.iter().any(|replica| delta.brokers.contains(replica))
                })
            });
            if concerned && !delta.partitions.contains(&key) {
                self.tell(&held);
            }
        }
    }

    async fn change_partition(
        &self,
        key: (Uuid, i32),
        settings: &mut Option<(Uuid, Arc<ReplicaSettings>)>,
    ) -> Result<(), String> {
        let found = self.image(|image| {
            let topic = image.topic_by_id(key.0)?;
            let registration = topic.partitions.get(&key.1)?;
            Some((topic.name.clone(), registration.replicas.contains(&self.id())))
        });
        let Some((topic, is_mine)) = found else { return Ok(()) };
        let held = self.directory.lock().partitions.get(&key).cloned();
        match held {
            Some(held) if is_mine => self.tell(&held),
            Some(held) => {
                self.directory.lock().partitions.remove(&key);
                self.retire(&held);
            }
            None if is_mine => {
                let known = settings.take().filter(|(of, _)| *of == key.0).map(|(_, known)| known);
                let known =
                    known.unwrap_or_else(|| self.image(|image| self.replica_settings(image, &topic)).into());
                let opened = self.open(key, &topic, known.clone()).await;
                *settings = Some((key.0, known));
                let opened =
                    opened.map_err(|cause| format!("cannot open replica {topic}-{}: {cause}", key.1))?;
                if let Some(opened) = opened {
                    self.tell(&opened);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Opens a replica, which looks through what a process that was killed has left; `None` if this process is over.
    async fn open(
        &self,
        key: (Uuid, i32),
        topic: &Arc<str>,
        settings: Arc<ReplicaSettings>,
    ) -> Result<Option<Arc<Partition>>, String> {
        let identity =
            ReplicaIdentity { topic_id: key.0, topic: topic.clone(), partition: key.1, broker_id: self.id() };
        // as long as an fsync, beside what a real disk takes
        let latency = self.disk.sync_latency();
        if !latency.is_zero() {
            self.rt.sleep(latency).await;
        }
        let (disk, of) = (self.disk.clone(), identity.clone());
        let open = move || {
            let directory = disk.take((of.topic_id, of.partition), &of.topic)?;
            Replica::new(of, directory, settings)
        };
        if !self.disk.has_chores() {
            let _alive = self.changing.lock();
            // What is taken from a disk in memory must be given back.
            return if self.life.is_dead() { Ok(None) } else { self.hold(identity, open()).map(Some) };
        }
        self.opening.store(true, Ordering::SeqCst);
        let opened = self.disk.chore(open).await;
        let _alive = self.changing.lock();
        let Some(opened) = opened.filter(|_| !self.life.is_dead()) else { return Ok(None) };
        self.opening.store(false, Ordering::SeqCst);
        self.hold(identity, opened).map(Some)
    }

    fn hold(
        &self,
        identity: ReplicaIdentity,
        opened: Result<Replica<Stored>, StorageError>,
    ) -> Result<Arc<Partition>, String> {
        let key = (identity.topic_id, identity.partition);
        let topic = identity.topic.clone();
        let replica = opened.map_err(|error| error.to_string())?;
        let partition = Partition::new(identity, replica, self.committed.of(key));
        self.image(|image| self.throttle(image, &partition));
        let mut directory = self.directory.lock();
        directory.ids.insert(topic, key.0);
        directory.partitions.insert(key, partition.clone());
        Ok(partition)
    }

    fn tell(&self, held: &Arc<Partition>) {
        let found = self.image(|image| {
            let registration = image.partition(held.identity.topic_id, held.identity.partition)?.clone();
            let active = |id: &i32| Some((*id, image.broker(*id).filter(|found| found.is_active())?.epoch));
            let alive: BTreeMap<i32, i64> = registration.replicas.iter().filter_map(active).collect();
            Some((registration, alive))
        });
        let Some((registration, alive)) = found else { return };
        let alive = |id: i32| alive.get(&id).copied();
        let now = self.rt.now();
        held.with(self, |replica, fx| replica.apply_metadata(now, &registration, &alive, fx));
        held.wake_all();
    }

    fn replica_settings(&self, image: &Image, topic: &str) -> ReplicaSettings {
        let own = image.configs(&ConfigResource::Topic(topic.to_owned()));
        let broker = self.settings(image);
        let of_topic = TopicConfig::new(own, &broker);
        let default = ReplicaSettings::default();
        let bytes =
            |value: Option<i64>, default| value.and_then(|v| usize::try_from(v).ok()).unwrap_or(default);
        let append_time = of_topic.get("message.timestamp.type").as_deref() == Some("LogAppendTime");
        let millis = |name: &str, default: i64| of_topic.int(name).unwrap_or(default);
        ReplicaSettings {
            replica_lag_time_max: self
                .config
                .millis("replica.lag.time.max.ms")
                .unwrap_or(default.replica_lag_time_max),
            min_insync_replicas: of_topic.min_insync_replicas(),
            max_message_bytes: bytes(of_topic.int("max.message.bytes"), default.max_message_bytes),
            message_timestamp_type: if append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            message_timestamp_before_max_ms: millis(
                "message.timestamp.before.max.ms",
                default.message_timestamp_before_max_ms,
            ),
            message_timestamp_after_max_ms: millis(
                "message.timestamp.after.max.ms",
                default.message_timestamp_after_max_ms,
            ),
            log: of_topic.log_settings(),
            compression: of_topic.compression().map(|(codec, _)| codec),
            compression_level: of_topic.compression().and_then(|(_, level)| level),
            sync_before_ack: of_topic.sync_before_ack(),
            require_key: of_topic.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            high_watermark_checkpoint_interval: self
                .config
                .millis("replica.high.watermark.checkpoint.interval.ms")
                .unwrap_or(default.high_watermark_checkpoint_interval),
            ..default
        }
    }
}
