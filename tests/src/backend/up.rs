//! `broker-lite up`: what people run from a shell, in a process of its own and with Kafka's time-outs.

use std::io::Error;
use std::sync::Arc;

use klamm::{Client, ClientBuilder};

use super::system::Done;
use super::{System, Unavailable};
use crate::process::{BrokerLite, signal};

struct Up(BrokerLite);

pub(super) async fn start() -> Result<Arc<dyn System>, Unavailable> {
    // Builds the binary where it is not built: not on a thread of the runtime.
    let arguments = ["--config", "auto.create.topics.enable=false"];
    let started = tokio::task::spawn_blocking(move || BrokerLite::up(&arguments)).await;
    let up = started.map_err(Error::other).and_then(|up| up).map_err(Unavailable::broken)?;
    Ok(Arc::new(Up(up)))
}

impl System for Up {
    fn client_builder(&self) -> ClientBuilder {
        Client::builder().bootstrap_servers(self.0.bootstrap())
    }

    fn freeze(&self) -> Done<'_> {
        Box::pin(async { signal(self.0.pid(), "STOP") })
    }

    fn thaw(&self) -> Done<'_> {
        Box::pin(async { signal(self.0.pid(), "CONT") })
    }

    fn revive(&self) -> Done<'_> {
        self.thaw()
    }

    fn abandon(&self) {
        let _ = signal(self.0.pid(), "KILL");
    }
}
