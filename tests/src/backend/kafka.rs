//! Apache Kafka from its jars: three nodes, each broker and controller.

use std::io::Error;
use std::sync::Arc;

use futures::future::BoxFuture;
use klamm::{Client, ClientBuilder};

use super::system::Done;
use super::{BROKERS, System, Unavailable};
use crate::process::{ApacheKafka, signal};
use crate::raw;

/// A dead or silent node is noticed in seconds instead of Kafka's nine and thirty.
const SETTINGS: &[&str] = &[
    "auto.create.topics.enable=false",
    "broker.heartbeat.interval.ms=500",
    "broker.session.timeout.ms=3000",
    "replica.lag.time.max.ms=5000",
];

struct Kafka(Arc<ApacheKafka>);

pub(super) async fn start() -> Result<Arc<dyn System>, Unavailable> {
    if let Some(reason) = ApacheKafka::missing() {
        return Err(Unavailable::Missing(reason));
    }
    let started = tokio::task::spawn_blocking(|| ApacheKafka::start_with(BROKERS, SETTINGS)).await;
    let kafka = started.map_err(Error::other).and_then(|kafka| kafka).map_err(Unavailable::broken)?;
    Ok(Arc::new(Kafka(Arc::new(kafka))))
}

impl Kafka {
    /// Runs a script that waits for a process: not on a thread of the runtime.
    fn run(&self, work: impl FnOnce(&ApacheKafka) -> Result<(), Error> + Send + 'static) -> Done<'_> {
        let kafka = self.0.clone();
        Box::pin(
            async move { tokio::task::spawn_blocking(move || work(&kafka)).await.map_err(Error::other)? },
        )
    }
}

impl System for Kafka {
    fn client_builder(&self) -> ClientBuilder {
        Client::builder().bootstrap_servers(self.0.bootstrap())
    }

    fn controller(&self) -> BoxFuture<'_, Result<Option<(i32, i32)>, Error>> {
        let bootstrap = self.0.bootstrap().to_owned();
        let ask = move || raw::quorum_leader(&bootstrap).map(Some);
        Box::pin(async { tokio::task::spawn_blocking(ask).await.map_err(Error::other)? })
    }

    fn kill(&self, broker: i32) -> Done<'_> {
        self.run(move |kafka| kafka.kill(broker as usize))
    }

    fn restart(&self, broker: i32) -> Done<'_> {
        self.run(move |kafka| kafka.revive(broker as usize))
    }

    fn pause(&self, broker: i32) -> Done<'_> {
        self.run(move |kafka| signal(kafka.pid(broker as usize)?, "STOP"))
    }

    fn resume(&self, broker: i32) -> Done<'_> {
        self.run(move |kafka| signal(kafka.pid(broker as usize)?, "CONT"))
    }

    fn revive(&self) -> Done<'_> {
        self.run(|kafka| {
            let dead: Vec<usize> = (1..=BROKERS).filter(|node| kafka.pid(*node).is_err()).collect();
            for node in (1..=BROKERS).filter(|node| !dead.contains(node)) {
                signal(kafka.pid(node)?, "CONT")?;
            }
            dead.into_iter().try_for_each(|node| kafka.revive(node))
        })
    }

    fn abandon(&self) {
        for node in 1..=BROKERS {
            if let Ok(pid) = self.0.pid(node) {
                let _ = signal(pid, "KILL");
            }
        }
    }
}
