//! broker-lite in this process: reached through its handle, over sockets, or in virtual time.

use std::io::Error;
use std::sync::Arc;

use broker_lite::{Cluster, ClusterBuilder, Cut, Side};
use klamm::{BoxConnector, Client, ClientBuilder, Connector, TcpConnector};
use parking_lot::Mutex;

use super::system::Done;
use super::{BROKERS, System, Unavailable};

struct Lite {
    cluster: Cluster,
    tcp: bool,
    cuts: Mutex<Vec<Cut>>,
}

fn builder() -> ClusterBuilder {
    Cluster::builder().brokers(BROKERS as u32).config("auto.create.topics.enable", "false")
}

async fn start(builder: ClusterBuilder, tcp: bool) -> Result<Arc<dyn System>, Unavailable> {
    let cluster = builder.tcp(tcp).start().await.map_err(Unavailable::broken)?;
    Ok(Arc::new(Lite { cluster, tcp, cuts: Mutex::default() }))
}

pub(super) async fn in_process() -> Result<Arc<dyn System>, Unavailable> {
    start(builder(), false).await
}

pub(super) async fn over_tcp() -> Result<Arc<dyn System>, Unavailable> {
    start(builder(), true).await
}

pub(super) async fn in_virtual_time() -> Result<Arc<dyn System>, Unavailable> {
    // Chance comes from the simulation that it is started in. All brokers may lose power here, so that every topic has to be
    // synced before it is acknowledged.
    start(builder().config("log.flush.interval.messages", "1"), false).await
}

fn done<T>(result: Result<T, broker_lite::ClusterError>) -> Result<(), Error> {
    result.map(drop).map_err(Error::other)
}

impl System for Lite {
    fn client_builder(&self) -> ClientBuilder {
        let builder = Client::builder().bootstrap_servers(self.cluster.bootstrap());
        if self.tcp { builder } else { builder.connector(self.cluster.handle()) }
    }

    fn connector(&self) -> BoxConnector {
        if self.tcp { TcpConnector::new().erase() } else { self.cluster.handle().erase() }
    }

    fn kill(&self, broker: i32) -> Done<'_> {
        Box::pin(async move { done(self.cluster.kill(broker)) })
    }

    fn kill_amid_writes(&self, broker: i32) -> Done<'_> {
        Box::pin(async move { done(self.cluster.kill_when_produce_in_flight(broker).await) })
    }

    fn restart(&self, broker: i32) -> Done<'_> {
        Box::pin(async move { done(self.cluster.restart(broker).await) })
    }

    fn pause(&self, broker: i32) -> Done<'_> {
        Box::pin(async move { done(self.cluster.pause(broker)) })
    }

    fn resume(&self, broker: i32) -> Done<'_> {
        Box::pin(async move { done(self.cluster.resume(broker)) })
    }

    fn cut_off(&self, broker: i32) -> Done<'_> {
        let cuts = [Side::Brokers, Side::Controller].map(|side| self.cluster.cut(broker, side));
        self.cuts.lock().extend(cuts);
        Box::pin(async { Ok(()) })
    }

    fn power_off_all(&self) -> Done<'_> {
        self.cluster.power_off_all();
        Box::pin(async { Ok(()) })
    }

    fn revive(&self) -> Done<'_> {
        Box::pin(async move {
            self.cuts.lock().clear();
            // All at once: a paused one may be who the others wait for.
            for broker in self.cluster.broker_ids() {
                let _ = self.cluster.resume(broker); // refused by those that run
            }
            for broker in self.cluster.broker_ids() {
                let _ = self.cluster.restart(broker).await; // refused by those that run
            }
            Ok(())
        })
    }

    fn check(&self) -> Result<(), String> {
        let report = self.cluster.check();
        if report.is_ok() { Ok(()) } else { Err(report.to_string()) }
    }
}
