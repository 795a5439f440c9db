//! klamm's scripted mock: no cluster, but it takes what producers send and serves it to consumers.

use std::sync::Arc;

use klamm::mock::MockConnector;
use klamm::{BoxConnector, Connector};
use klamm::{Client, ClientBuilder};

use super::{System, Unavailable};

struct Mock(MockConnector);

impl System for Mock {
    fn client_builder(&self) -> ClientBuilder {
        Client::builder().bootstrap_servers(self.0.bootstrap()).connector(self.0.clone())
    }

    fn connector(&self) -> BoxConnector {
        self.0.clone().erase()
    }

    fn invent_topic(&self, name: &str, partitions: i32) {
        self.0.topic(name, partitions);
    }
}

pub(super) async fn start() -> Result<Arc<dyn System>, Unavailable> {
    let mock = MockConnector::builder().brokers(3).build();
    mock.accept_produce();
    Ok(Arc::new(Mock(mock)))
}
