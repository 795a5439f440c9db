//! The clusters that a behaviour runs on. A behaviour is written once, against [`Backend`].

use std::fmt;
use std::io::Error;
use std::sync::atomic::{AtomicU32, Ordering};

use broker_lite::Cluster;
use klamm::{Client, ClientBuilder};

use crate::process::ApacheKafka;

/// A running cluster of three brokers.
pub enum Backend {
    /// broker-lite in this process, reached through its handle.
    InProcess(Cluster),
    /// broker-lite in this process, reached over sockets.
    Tcp(Cluster),
    /// Apache Kafka from its jars.
    Kafka(ApacheKafka),
}

impl Backend {
    /// broker-lite, in process.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn in_process() -> Result<Self, Error> {
        Cluster::builder().brokers(3).start().await.map(Self::InProcess).map_err(Error::other)
    }

    /// broker-lite behind sockets.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn tcp() -> Result<Self, Error> {
        Cluster::builder().brokers(3).tcp(true).start().await.map(Self::Tcp).map_err(Error::other)
    }

    /// Apache Kafka with three nodes.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn kafka() -> Result<Self, Error> {
        ApacheKafka::start(3).map(Self::Kafka)
    }

    /// A client's builder that leads to this cluster.
    pub fn client_builder(&self) -> ClientBuilder {
        match self {
            Self::InProcess(cluster) => {
                Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle())
            }
            Self::Tcp(cluster) => Client::builder().bootstrap_servers(cluster.bootstrap()),
            Self::Kafka(kafka) => Client::builder().bootstrap_servers(kafka.bootstrap()),
        }
    }

    /// A client of this cluster.
    ///
    /// # Errors
    ///
    /// A setting is impossible.
    pub fn client(&self) -> Result<Client, Error> {
        self.client_builder().client_id("behaviour").build().map_err(Error::other)
    }

    /// A topic name that no other behaviour uses.
    pub fn fresh_topic(&self, stem: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess(_) => "broker-lite in process",
            Self::Tcp(_) => "broker-lite over TCP",
            Self::Kafka(_) => "Apache Kafka 4.3.0",
        })
    }
}
