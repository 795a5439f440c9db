//! Processes: brokers and the controller (see `quorum`) end, stop, and start again.
//!
//! ```text
//!           kill ── written bytes stay ──┐
//! running ──power_off ── unsynced go ────┼──▶ down ──restart──▶ running, a new incarnation
//!    │      shutdown_broker ── in order ─┘
//!    └──pause──▶ paused ──resume──▶ running, with its connections
//! ```
//!
//! Invariant: what a process left on its disk is taken over by the next one only when no task of the old one is left.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::Image;
use broker_lite_core::storage::StorageError;
use klamm_wire::seam::Endpoint;

use super::builder::random_uuid;
use super::{Cluster, ClusterError, Started, TOPIC_LIMIT};
use crate::broker::{Broker, BrokerIdentity, CONTROLLER_ID, LISTENER, Surroundings, log_dir};
use crate::cluster_id::ClusterId;
use crate::disk::{Disk, DiskFaults, Leave, PowerLoss};
use crate::journal::NodeEvent;
use crate::node::{Life, Listening, Node, Role, serve};

/// Longest wait of a broker that shuts down for the controller to move its leaderships away.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

impl Cluster {
    /// Process death of a broker, or of the controller ([`Self::CONTROLLER`]): tasks and connections are gone at once,
    /// written bytes stay, synced or not. Nobody is told; other nodes notice by silence.
    ///
    /// Without a controller brokers serve on as they are, but no leader is elected, no ISR changes and no topic is
    /// created. Its log is always durable: it forgets nothing.
    ///
    /// # Errors
    ///
    /// If there is no such node, or it is down already.
    pub fn kill(&self, node: i32) -> Result<(), ClusterError> {
        let node = self.resolved(node)?;
        self.end(node, Leave::Killed)?;
        tracing::info!(node, "killed");
        self.node_event(node, NodeEvent::Killed);
        Ok(())
    }

    /// As [`Self::kill`], and what the broker had written but not synced is gone: everything since it was started on an
    /// empty disk or was last shut down in order, except where `flush.messages` (of a topic) or
    /// `log.flush.interval.messages` (of the cluster) is 1.
    ///
    /// Finds records that were acknowledged before they were safe.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn power_off(&self, node: i32) -> Result<(), ClusterError> {
        self.power_off_with(node, PowerLoss::Unsynced)
    }

    /// As [`Self::power_off`], with a choice of what is left of the unsynced bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn power_off_with(&self, node: i32, loss: PowerLoss) -> Result<(), ClusterError> {
        let node = self.resolved(node)?;
        self.end(node, Leave::PowerOff(loss))?;
        tracing::info!(node, ?loss, "lost power");
        self.node_event(node, NodeEvent::PoweredOff);
        Ok(())
    }

    /// All brokers lose power in one instant; the controller does not. Also brokers that are down lose what they had left
    /// unsynced. Returns those that ran.
    ///
    /// Finds acknowledgements that rely on somebody else still having the records.
    pub fn power_off_all(&self) -> Vec<i32> {
        self.power_off_all_with(PowerLoss::Unsynced)
    }

    /// As [`Self::power_off_all`], with a choice of what is left of the unsynced bytes.
    pub fn power_off_all_with(&self, loss: PowerLoss) -> Vec<i32> {
        let ids = self.broker_ids();
        let running: Vec<_> = ids.iter().filter_map(|id| self.running(*id).ok()).collect();
        running.iter().for_each(|broker| broker.leave_as(Leave::PowerOff(loss)));
        let mut victims = Vec::new();
        for broker in &running {
            if broker.life.kill().is_some() {
                victims.push(broker.id());
            }
        }
        tracing::info!(?victims, ?loss, "all lost power");
        for id in ids {
            match self.process_and_disk(id) {
                Some((None, disk)) if !victims.contains(&id) => disk.lose_power(loss),
                _ => {}
            }
        }
        victims.iter().for_each(|id| self.node_event(*id, NodeEvent::PoweredOff));
        victims
    }

    /// Waits until a Produce request is unanswered at this broker, kills the broker before it
    /// can answer, and returns how many were unanswered (at least 1).
    ///
    /// Waits for ever at a broker that leads no partition anybody writes to.
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down.
    pub async fn kill_when_produce_in_flight(&self, broker: i32) -> Result<usize, ClusterError> {
        let victim = self.running(broker)?;
        let unanswered = victim.life.kill_when_produce_in_flight().await;
        let unanswered = unanswered.ok_or(ClusterError::Broker { broker, state: "down" })?;
        victim.release_storage();
        tracing::info!(broker, unanswered, "killed with Produce requests unanswered");
        self.node_event(broker, NodeEvent::Killed);
        Ok(unanswered)
    }

    /// Stops a broker in order, as SIGTERM does with Kafka's: the controller moves its leaderships to other replicas, and
    /// when they know, the broker closes its logs (which makes them durable) and stops. A partition of which it has the
    /// only replica in sync goes without a leader until it is back.
    ///
    /// If that takes more than 10 s (there is no controller, or the broker is paused), the broker stops all the same.
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it is down, or dies of something else meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the broker goes on leaving: it leads nothing any more, and does not stop before this is called
    /// again, or [`Self::kill`].
    pub async fn shutdown_broker(&self, broker: i32) -> Result<(), ClusterError> {
        let leaving = self.running(broker)?;
        let down = || ClusterError::Broker { broker, state: "down" };
        let done = async {
            tokio::select! {
                biased;
                () = leaving.until_may_stop() => {}
                () = self.started.rt.sleep(SHUTDOWN_LIMIT) => {
                    tracing::warn!(broker, "stops although the controller has not moved its leaderships away");
                }
            }
            leaving.flush().await
        };
        let flushed = tokio::select! {
            biased;
            () = leaving.life.until_quiet() => return Err(down()),
            flushed = done => flushed,
        };
        let epoch = leaving.registration().epoch;
        leaving.leave_as(if flushed.is_ok() { Leave::Clean { epoch } } else { Leave::Killed });
        leaving.life.kill().ok_or_else(down)?;
        leaving.release_storage();
        match flushed {
            Ok(()) => {
                tracing::info!(broker, "shut down");
                self.node_event(broker, NodeEvent::ShutDown);
            }
            Err(cause) => {
                tracing::error!(broker, cause, "stopped, but its logs could not be made durable");
                self.node_event(broker, NodeEvent::DiskFailed { cause });
            }
        }
        Ok(())
    }

    /// Stops a broker, or the controller, from doing anything; its connections stay open (as SIGSTOP would).
    ///
    /// # Errors
    ///
    /// If there is no such node, or it is down or paused already.
    pub fn pause(&self, node: i32) -> Result<(), ClusterError> {
        let node = self.resolved(node)?;
        if !self.running_life(node)?.pause() {
            return Err(ClusterError::Broker { broker: node, state: "paused" });
        }
        self.node_event(node, NodeEvent::Paused);
        Ok(())
    }

    /// Ends [`Self::pause`].
    ///
    /// # Errors
    ///
    /// If there is no such node, it is down, or not paused.
    pub fn resume(&self, node: i32) -> Result<(), ClusterError> {
        let paused = if node == CONTROLLER_ID { self.absent_voters(true) } else { vec![node] };
        if paused.is_empty() {
            return Err(ClusterError::Broker { broker: node, state: "running" });
        }
        for node in paused {
            if !self.running_life(node)?.resume() {
                return Err(ClusterError::Broker { broker: node, state: "running" });
            }
            self.node_event(node, NodeEvent::Resumed);
        }
        self.controller.changed();
        Ok(())
    }

    /// Starts a node that is down again: a new incarnation on the bytes the old one left.
    ///
    /// A broker listens, is registered, unfenced and has caught up with the metadata when this returns; so it waits for
    /// a controller, and for the session of the old incarnation to end. The controller has read its log; brokers have
    /// the whole of `broker.session.timeout.ms` from then on to report, see [`Self::until_controller`].
    ///
    /// # Errors
    ///
    /// If there is no such node, it is running, its port was taken meanwhile, or it goes down again at once (because its
    /// disk still fails, say).
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the node may be running or not; call it again.
    pub async fn restart(&self, node: i32) -> Result<(), ClusterError> {
        if node != CONTROLLER_ID {
            return if self.is_voter(node) {
                self.restart_voter(node).await
            } else {
                self.restart_broker(node).await
            };
        }
        let down = self.absent_voters(false);
        if down.is_empty() {
            return Err(ClusterError::Broker { broker: CONTROLLER_ID, state: "running" });
        }
        for id in down {
            self.restart_voter(id).await?;
        }
        Ok(())
    }

    async fn restart_broker(&self, broker: i32) -> Result<(), ClusterError> {
        let old = {
            let slots = self.slots.lock();
            let slot = slots.get(&broker).ok_or(ClusterError::NoSuchBroker(broker))?;
            if slot.life().is_some() {
                return Err(ClusterError::Broker { broker, state: "running" });
            }
            slot.broker.clone()
        };
        if let Some(old) = old {
            old.life.until_quiet().await;
            old.release_storage();
        }
        let new = self.boot(broker).await?;
        tracing::info!(broker, "restarted");
        let seen = |image: &Image| {
            let registered = image.broker(broker).filter(|found| !found.fenced);
            registered.is_some_and(|found| found.incarnation_id == new.identity.incarnation).then_some(())
        };
        let unfenced = self.within(TOPIC_LIMIT, "the broker to register again", new.until_image(seen));
        tokio::select! {
            biased;
            unfenced = unfenced => unfenced,
            () = new.life.until_quiet() => Err(ClusterError::Broker { broker, state: "down" }),
        }
    }

    /// Brokers that run and are not paused.
    pub(super) fn unpaused(&self) -> Vec<i32> {
        let slots = self.slots.lock();
        let runs = |life: &&Arc<Life>| !life.is_paused();
        slots.iter().filter(|(_, slot)| slot.life().filter(runs).is_some()).map(|(id, _)| *id).collect()
    }

    /// The disk of a broker, to make it slow, full or failing; the broker may be down.
    ///
    /// # Errors
    ///
    /// If there is no such broker.
    pub fn disk(&self, broker: i32) -> Result<DiskFaults, ClusterError> {
        if let Some(disk) = self.resolve(broker).and_then(|id| self.controller.disk(id)) {
            return Ok(disk.faults());
        }
        let slots = self.slots.lock();
        slots.get(&broker).map(|slot| slot.disk.faults()).ok_or(ClusterError::NoSuchBroker(broker))
    }

    /// Sets the wall clock of a broker off by so many ms, forward or backward, until it is set again; 0 sets it right.
    /// Its restart does not. Time-outs do not move: like Kafka they go by a clock that only runs.
    ///
    /// Finds order and expiry that rely on timestamps: `message.timestamp.type=LogAppendTime`, time-outs told as dates.
    ///
    /// # Errors
    ///
    /// If there is no such broker.
    pub fn set_clock_off(&self, broker: i32, ms: i64) -> Result<(), ClusterError> {
        let slots = self.slots.lock();
        let slot = slots.get(&broker).ok_or(ClusterError::NoSuchBroker(broker))?;
        slot.rt.set_wall_off(ms);
        Ok(())
    }

    /// Stops everything. On a [`data_dir`](super::ClusterBuilder::data_dir) all logs are closed in order, so that the next
    /// start need not look them through.
    pub async fn shutdown(self) {
        let brokers: Vec<_> = self.slots.lock().values().filter_map(|slot| slot.broker.clone()).collect();
        for broker in brokers.iter().filter(|broker| !broker.life.is_dead()) {
            let epoch = broker.registration().epoch;
            broker.leave_as(Leave::Clean { epoch });
        }
        self.stop();
        for broker in brokers {
            broker.life.until_quiet().await;
            broker.release_storage();
        }
        for life in self.controller.lives() {
            life.until_quiet().await;
        }
    }

    pub(super) fn stop(&self) {
        for slot in self.slots.lock().values() {
            slot.life().map(|life| life.kill());
        }
        for life in self.controller.lives() {
            life.kill();
        }
        self.started.network.detach_all();
    }

    pub(super) fn node_event(&self, node: i32, event: NodeEvent) {
        self.started.journal.node_event(self.started.rt.now(), node, event);
    }

    fn end(&self, node: i32, leave: Leave) -> Result<(), ClusterError> {
        let down = ClusterError::Broker { broker: node, state: "down" };
        if self.is_voter(node) {
            return self.end_voter(node, leave);
        }
        let victim = self.running(node)?;
        victim.leave_as(leave);
        victim.life.kill().ok_or(down)?;
        victim.release_storage();
        Ok(())
    }

    pub(crate) fn running(&self, broker: i32) -> Result<Arc<Broker>, ClusterError> {
        let slots = self.slots.lock();
        let slot = slots.get(&broker).ok_or(ClusterError::NoSuchBroker(broker))?;
        let running = slot.broker.clone().filter(|broker| !broker.life.is_dead());
        running.ok_or(ClusterError::Broker { broker, state: "down" })
    }

    /// The node that a number means in a call that takes a node down.
    fn resolved(&self, node: i32) -> Result<i32, ClusterError> {
        self.resolve(node).ok_or(ClusterError::Broker { broker: node, state: "down" })
    }

    fn running_life(&self, node: i32) -> Result<Arc<Life>, ClusterError> {
        if self.is_voter(node) {
            return self.voter_life(node).ok_or(ClusterError::Broker { broker: node, state: "down" });
        }
        self.running(node).map(|broker| broker.life.clone())
    }

    /// The process of a broker if it runs, and its disk, which holds everything otherwise.
    pub(super) fn process_and_disk(&self, broker: i32) -> Option<(Option<Arc<Broker>>, Arc<Disk>)> {
        let (process, disk) = {
            let slots = self.slots.lock();
            let slot = slots.get(&broker)?;
            (slot.broker.clone(), slot.disk.clone())
        };
        let running = process.filter(|process| {
            let dead = process.life.is_dead();
            if dead {
                // It may have died of its disk a moment ago.
                process.release_storage();
            }
            !dead
        });
        Some((running, disk))
    }

    pub(super) async fn boot_all(&self) -> Result<(), ClusterError> {
        for broker in self.broker_ids() {
            self.boot(broker).await?;
        }
        Ok(())
    }

    /// Starts a new incarnation in a broker's slot.
    pub(super) async fn boot(&self, id: i32) -> Result<Arc<Broker>, ClusterError> {
        let (bound, listening) = {
            let mut slots = self.slots.lock();
            let slot = slots.get_mut(&id).ok_or(ClusterError::NoSuchBroker(id))?;
            (slot.bound, slot.listening.take())
        };
        let listening = match (listening, bound) {
            (None, Some(bound)) => {
                let again = Listening::bind(&bound.ip().to_string(), bound.port()).await;
                Some(again.map_err(|cause| ClusterError::Listen { address: bound.to_string(), cause })?)
            }
            (listening, _) => listening,
        };
        let incarnation = random_uuid(&mut self.rng.lock());
        let listens = listening.as_ref().map(|listening| listening.address);
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&id).ok_or(ClusterError::NoSuchBroker(id))?;
        if slot.life().is_some() {
            return Err(ClusterError::Broker { broker: id, state: "running" });
        }
        let Started { cluster_id, network, journal, config, limits, .. } = &self.started;
        let unreadable = |error: StorageError| ClusterError::Directory(error.to_string());
        let rt = slot.rt.clone();
        let identity = BrokerIdentity {
            id,
            cluster_id: ClusterId::new(Some(cluster_id)),
            rack: Some(format!("RACK{id}")),
            host: slot.host.clone(),
            port: slot.port,
            listeners: vec![(
                LISTENER,
                match listens {
                    Some(address) => Endpoint::new(address.ip().to_string(), address.port()),
                    None => Endpoint::new(slot.host.clone(), slot.port),
                },
            )],
            log_dir: slot.directory.unwrap_or_else(|| log_dir(id)),
            incarnation,
            previous_epoch: slot.disk.open().map_err(unreadable)?.unwrap_or(-1),
        };
        let life = Life::new(rt.clone());
        let surroundings = Surroundings {
            network: network.clone(),
            config: config.clone(),
            disk: slot.disk.clone(),
            committed: self.committed.clone(),
            journal: journal.clone(),
            voters: self.voters(),
        };
        let broker = Broker::new(identity, rt.clone(), life.clone(), surroundings);
        let role = Role::Broker(broker.clone());
        let network = network.clone();
        let node = Arc::new(Node { id, rt, life: life.clone(), network, limits: *limits, role });
        self.started.network.attach(node.clone());
        if let Some(listening) = listening {
            life.spawn(serve(node, listening));
        }
        broker.run();
        slot.broker = Some(broker.clone());
        drop(slots);
        self.node_event(id, NodeEvent::Started);
        Ok(broker)
    }
}

#[cfg(test)]
mod tests {
    use broker_lite_core::replica::Produce;
    use broker_lite_core::storage::StorageError;
    use bytes::BytesMut;
    use klamm_wire::batch::NO_PRODUCER;
    use klamm_wire::{BatchBuilder, Compression};

    use super::*;
    use crate::broker::TopicRef;

    /// Goal: whatever is done to a node is told once, with its time.
    #[tokio::test(start_paused = true)]
    async fn what_happens_to_nodes_is_written_down() {
        let cluster = Cluster::builder().seed(7).start().await.unwrap();
        cluster.create_topic("t", 1, 3, &[("flush.messages", "1")]).await.unwrap();
        let rt = cluster.started.rt.clone();
        let before = cluster.started.journal.node_events().len();
        assert_eq!(before, 3, "three brokers were started");
        let origin = rt.now();
        cluster.pause(1).unwrap();
        rt.sleep(Duration::from_millis(20)).await;
        cluster.resume(1).unwrap();
        let controller = cluster.controller().unwrap();
        cluster.kill(Cluster::CONTROLLER).unwrap();
        cluster.restart(Cluster::CONTROLLER).await.unwrap();
        cluster.shutdown_broker(2).await.unwrap();
        cluster.power_off(3).unwrap();
        cluster.kill(1).unwrap();
        let events = cluster.started.journal.node_events().split_off(before);
        assert_eq!(events[1].0 - origin, Duration::from_millis(20));
        let told: Vec<_> = events.into_iter().map(|(_, node, event)| (node, event)).collect();
        let expected = [
            (1, NodeEvent::Paused),
            (1, NodeEvent::Resumed),
            (controller, NodeEvent::Killed),
            (controller, NodeEvent::Started),
            (2, NodeEvent::ShutDown),
            (3, NodeEvent::PoweredOff),
            (1, NodeEvent::Killed),
        ];
        assert_eq!(told, expected);
    }

    /// Goal: a deposed leader gives up what only it had, and that can be seen.
    #[tokio::test(start_paused = true)]
    async fn a_truncation_is_written_down_with_its_place() {
        let cluster = Cluster::builder().seed(7).start().await.unwrap();
        cluster.create_topic("t", 1, 3, &[]).await.unwrap();
        let leader = cluster.leader_of("t", 0).unwrap();
        let others: Vec<_> = cluster.broker_ids().into_iter().filter(|id| *id != leader).collect();
        others.iter().for_each(|other| cluster.pause(*other).unwrap());
        let mut batch = BatchBuilder::new(BytesMut::new());
        batch.append::<&[u8], &[u8]>(1_767_225_600_000, None, Some(b"a"), &[]);
        let sealed = batch.seal(Compression::None, None).unwrap();
        let records = [&sealed.header(NO_PRODUCER)[..], sealed.records()].concat().into();
        let (broker, id) = cluster.broker_and_topic_id(leader, "t");
        let partition = broker.partition(TopicRef::Id(id), 0).unwrap();
        let produce = Produce { records, acks: 1, api_version: 9 };
        let (now, wall_ms) = (broker.rt.now(), broker.rt.wall_ms());
        partition.with(&broker, |replica, fx| replica.append(now, wall_ms, &produce, fx)).unwrap().unwrap();
        cluster.kill(leader).unwrap();
        others.iter().for_each(|other| cluster.resume(*other).unwrap());
        cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
        cluster.restart(leader).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        let truncated = NodeEvent::Truncated { topic: "t".into(), partition: 0, to: 0 };
        let events = cluster.started.journal.node_events();
        let found: Vec<_> = events.iter().filter(|(_, _, event)| *event == truncated).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, leader);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_fails_under_several_partitions_is_told_once_with_its_cause() {
        let cluster = Cluster::builder().seed(7).start().await.unwrap();
        cluster.create_topic("t", 8, 3, &[]).await.unwrap();
        let before = cluster.started.journal.node_events().len();
        let broker = cluster.running(2).unwrap();
        let error = StorageError::Failed("fsync: input/output error".into());
        for partition in broker.partitions() {
            partition.with(&broker, |replica, fx| replica.sync_failed(&error, fx)).unwrap();
        }
        let events = cluster.started.journal.node_events().split_off(before);
        let cause = error.to_string();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].1, &events[0].2), (2, &NodeEvent::DiskFailed { cause }));
    }
}
