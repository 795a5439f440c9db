//! A running cluster grows and shrinks: brokers are added, and leave for good.
//!
//! ```text
//! add_broker ──▶ empty, unfenced ──reassignments──▶ filled … drained ──remove_broker──▶ unregistered, gone
//! ```
//!
//! Which partitions move is for whoever calls this: AlterPartitionReassignments, as with Apache Kafka.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::Image;
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::{BrokerId, UnregisterBrokerRequest};
use klamm_wire::seam::Endpoint;

use super::{Cluster, ClusterError, Slot};
use crate::disk::Disk;
use crate::node::{Listening, Party};

/// Longest start of one broker, and longest wait for the controller to let one go.
const LIMIT: Duration = Duration::from_secs(30);
/// Port told to clients where nothing listens on sockets.
const IN_PROCESS_PORT: u16 = 9092;

impl Cluster {
    /// Adds a broker with the next free id, an empty disk and the rack `RACKid`, and returns its id once every running
    /// broker shows it to clients. If the others listen on sockets, it listens at the same address, on a port chosen by
    /// the system. It holds nothing until partitions are created on it or reassigned to it.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Directory`] if the cluster is on disk, [`ClusterError::Listen`] if it cannot listen, [`ClusterError::NotReady`] if it is not shown within 30 s, because
    /// there is no controller for example: it goes on trying then.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the broker may be part of the cluster already; see [`Self::broker_ids`].
    pub async fn add_broker(&self) -> Result<i32, ClusterError> {
        let sample = {
            let slots = self.slots.lock();
            if slots.values().any(|slot| slot.directory.is_some()) {
                let reason = "a cluster on disk cannot be given another broker while it runs; \
                              start it with more brokers, or each node as a process of its own";
                return Err(ClusterError::Directory(reason.to_owned()));
            }
            slots.values().find_map(|slot| Some((slot.host.clone(), slot.bound?)))
        };
        let listening = match &sample {
            None => None,
            Some((_, bound)) => {
                let address = Endpoint::new(bound.ip().to_string(), 0).to_string();
                let listening = Listening::bind(&bound.ip().to_string(), 0).await;
                Some(listening.map_err(|cause| ClusterError::Listen { address, cause })?)
            }
        };
        let id = {
            let mut slots = self.slots.lock();
            let id = slots.keys().last().map_or(1, |last| last + 1);
            let (host, port) = match (&sample, &listening) {
                (Some((host, _)), Some(listening)) => (host.clone(), listening.address.port()),
                _ => (format!("broker-{id}.lite"), IN_PROCESS_PORT),
            };
            self.started.network.name(&host, port, id);
            let rt = &self.started.rt;
            #[allow(unused_mut, reason = "only a simulation changes it")]
            let mut disk = Disk::new(rt, id);
            #[cfg(feature = "sim")]
            if slots.values().any(|other| other.disk.is_simulated()) {
                disk = Disk::simulated(rt, id, false).map_err(ClusterError::Directory)?;
            }
            #[allow(unused_mut, reason = "only a simulation changes it")]
            let mut slot = Slot::new(host, port, listening, disk, rt.of_node());
            #[cfg(feature = "sim")]
            if slots.values().any(|other| other.simulated_disk.is_some()) {
                slot.simulated_disk = Some(slot.disk.faults().sync_latency(super::builder::SIMULATED_SYNC));
            }
            slots.insert(id, slot);
            id
        };
        self.boot(id).await?;
        let live = |image: &Image| image.broker(id).filter(|broker| !broker.fenced).map(|_| ());
        self.within(LIMIT, "the new broker to register", self.until_running_brokers_see(live)).await?;
        tracing::info!(broker = id, "added");
        Ok(id)
    }

    /// Takes a broker away for good: stops it in order if it runs, unregisters it, and forgets its disk. Drain it first,
    /// by reassigning its replicas.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotDrained`] if partitions are assigned to it, and nothing is done then;
    /// [`ClusterError::NoSuchBroker`]; [`ClusterError::NotReady`] if no other broker runs, or the controller does not
    /// unregister it.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the broker may be stopped, or unregistered, and still be one of [`Self::broker_ids`]: call this again.
    pub async fn remove_broker(&self, broker: i32) -> Result<(), ClusterError> {
        if !self.broker_ids().contains(&broker) {
            return Err(ClusterError::NoSuchBroker(broker));
        }
        let replicas = self.started.journal.image(|image| {
            let partitions = image.topics().flat_map(|topic| topic.partitions.values());
            partitions.filter(|partition| partition.replicas.contains(&broker)).count()
        });
        if replicas > 0 {
            return Err(ClusterError::NotDrained { broker, replicas });
        }
        if self.running(broker).is_ok() {
            self.shutdown_broker(broker).await?;
        }
        let registered = |image: &Image| image.broker(broker).is_some();
        if self.started.journal.image(registered) {
            self.unregister(broker).await?;
        }
        let gone = |image: &Image| image.broker(broker).is_none().then_some(());
        self.within(LIMIT, "the broker to be unregistered", self.until_running_brokers_see(gone)).await?;
        self.slots.lock().remove(&broker);
        tracing::info!(broker, "removed");
        Ok(())
    }

    async fn unregister(&self, broker: i32) -> Result<(), ClusterError> {
        let failed = |missing: String| ClusterError::NotReady { limit: LIMIT, missing };
        let others = self.broker_ids().into_iter().filter(|id| *id != broker);
        let other = others.into_iter().find(|id| self.running(*id).is_ok());
        let other = other.ok_or_else(|| failed("another broker that runs".to_owned()))?;
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker));
        let frame = encode_request(0, &request).map_err(|error| failed(error.to_string()))?;
        let me = Party::Client(Some(Arc::from("cluster")));
        let answer = self.started.network.call(&me, &Party::Node(other), "cluster", LIMIT, frame).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let answer = decode_response::<UnregisterBrokerRequest>(answer);
        let code = ErrorCode(answer.map_err(|error| failed(error.to_string()))?.error_code);
        match code {
            ErrorCode::NONE | ErrorCode::BROKER_ID_NOT_REGISTERED => Ok(()),
            code => Err(failed(format!("the controller to unregister it: {code}"))),
        }
    }
}
