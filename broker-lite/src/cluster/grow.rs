//! Brokers that come and go for good.
//!
//! Invariant: the id of a broker that was removed is not given out again while another one has a higher one.

use super::{Cluster, ClusterError, IN_PROCESS_PORT, Slot};
use crate::disk::Disk;
use crate::node::Listening;

impl Cluster {
    /// Adds a broker on an empty disk and gives its id, the one above the highest. It is registered and takes its part when
    /// this returns; it holds nothing yet: new topics are placed there, others come by reassignment.
    ///
    /// Over TCP it listens at a port chosen by the system.
    ///
    /// ```
    /// # async fn example(cluster: &broker_lite::Cluster) -> Result<(), broker_lite::ClusterError> {
    /// let new = cluster.add_broker().await?;
    /// cluster.create_topic("orders", 6, 3, &[]).await?;
    /// assert!(cluster.broker_ids().contains(&new));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClusterError::Listen`]; [`ClusterError::NotReady`] if no controller registers it in time;
    /// [`ClusterError::Config`] for a cluster on a data directory, which is started with all its brokers.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the broker may be there or not: see [`Self::broker_ids`].
    pub async fn add_broker(&self) -> Result<i32, ClusterError> {
        if self._homes.is_some() {
            let why = "a cluster on a data directory cannot be given another broker while it runs";
            return Err(ClusterError::Config(why.to_owned()));
        }
        let like = {
            let slots = self.slots.lock();
            slots.values().find_map(|slot| Some((slot.host.clone(), slot.bound?)))
        };
        let listening = match &like {
            None => None,
            Some((_, bound)) => {
                let listening = Listening::bind(&bound.ip().to_string(), 0).await;
                let address = bound.ip().to_string();
                Some(listening.map_err(|cause| ClusterError::Listen { address, cause })?)
            }
        };
        let id = {
            let mut slots = self.slots.lock();
            let id = slots.keys().next_back().map_or(1, |last| last + 1);
            let (host, port) = match (like, &listening) {
                (Some((host, _)), Some(listening)) => (host, listening.address.port()),
                _ => (format!("broker-{id}.lite"), IN_PROCESS_PORT),
            };
            self.started.network.name(&host, port, id);
            let rt = &self.started.rt;
            slots.insert(id, Slot::new(host, port, listening, Disk::new(rt, id), rt.of_node()));
            id
        };
        self.restart(id).await?;
        tracing::info!(broker = id, "added");
        Ok(id)
    }

    /// Takes away the place of a broker that is down, with its disk: it cannot be started again. What the controller
    /// knows of it stays until it is told (`Admin::unregister_broker`).
    ///
    /// # Errors
    ///
    /// If there is no such broker, or it runs: [`Self::shutdown_broker`] first.
    pub fn remove_broker(&self, broker: i32) -> Result<(), ClusterError> {
        let mut slots = self.slots.lock();
        let slot = slots.get(&broker).ok_or(ClusterError::NoSuchBroker(broker))?;
        if slot.life().is_some() {
            return Err(ClusterError::Broker { broker, state: "running" });
        }
        slots.remove(&broker);
        drop(slots);
        tracing::info!(broker, "removed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn grows(cluster: Cluster) {
        let new = cluster.add_broker().await.unwrap();
        assert_eq!((new, cluster.broker_ids()), (4, vec![1, 2, 3, 4]));
        cluster.create_topic("t", 4, 4, &[]).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.contains(&new)).await;

        let refused = cluster.remove_broker(new).unwrap_err().to_string();
        assert_eq!(refused, "broker 4 is running");
        cluster.shutdown_broker(new).await.unwrap();
        cluster.remove_broker(new).unwrap();
        assert_eq!(cluster.broker_ids(), [1, 2, 3]);
        assert!(matches!(cluster.restart(new).await, Err(ClusterError::NoSuchBroker(4))));
        assert!(!cluster.bootstrap().contains("broker-4"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_is_added_and_removed() {
        grows(Cluster::builder().seed(7).start().await.unwrap()).await;
    }

    #[tokio::test]
    async fn a_broker_is_added_over_tcp_at_an_address_of_its_own() {
        let cluster = Cluster::builder().tcp(true).start().await.unwrap();
        let new = cluster.add_broker().await.unwrap();
        let bootstrap = cluster.bootstrap();
        let address = bootstrap.rsplit(',').next().unwrap();
        tokio::net::TcpStream::connect(address).await.unwrap();
        cluster.create_topic("t", 1, 4, &[]).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.contains(&new)).await;
    }
}
