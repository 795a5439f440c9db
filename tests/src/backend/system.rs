//! What the kinds of clusters do each in its own way.

use std::fmt;
use std::io::Error;

use futures::future::BoxFuture;
use klamm::{BoxConnector, ClientBuilder, Connector, TcpConnector};

use super::BROKERS;

/// What is done to a cluster, carried out.
pub type Done<'a> = BoxFuture<'a, Result<(), Error>>;

/// Why there is no cluster of a kind.
#[derive(Debug)]
pub enum Unavailable {
    /// Something it needs is not here: reported as SKIPPED, a failure under `REQUIRE=all`.
    Missing(String),
    /// It is here and does not start: a failure.
    Broken(String),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(reason) | Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl Unavailable {
    /// What is here but does not start.
    pub fn broken(error: impl fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A cluster and the faults it has. What is not provided is refused.
pub trait System: Send + Sync {
    /// A client's builder that leads to it.
    fn client_builder(&self) -> ClientBuilder;

    /// What such a client opens its connections by.
    fn connector(&self) -> BoxConnector {
        TcpConnector::new().erase()
    }

    /// Makes up a topic where none can be created.
    fn invent_topic(&self, _name: &str, _partitions: i32) {}

    /// The node that is the active controller now, and its epoch, where it is one of the brokers.
    fn controller(&self) -> BoxFuture<'_, Result<Option<(i32, i32)>, Error>> {
        Box::pin(async { Ok(None) })
    }

    /// See [`super::Backend::kill`].
    fn kill(&self, _broker: i32) -> Done<'_> {
        cannot("kill a broker")
    }

    /// See [`super::Backend::kill_amid_writes`].
    fn kill_amid_writes(&self, broker: i32) -> Done<'_> {
        self.kill(broker)
    }

    /// See [`super::Backend::restart`].
    fn restart(&self, _broker: i32) -> Done<'_> {
        cannot("restart a broker")
    }

    /// See [`super::Backend::stop`].
    fn stop(&self, _broker: i32) -> Done<'_> {
        cannot("stop a broker in order")
    }

    /// See [`super::Backend::pause`].
    fn pause(&self, _broker: i32) -> Done<'_> {
        cannot("pause a broker")
    }

    /// See [`super::Backend::resume`].
    fn resume(&self, _broker: i32) -> Done<'_> {
        cannot("resume a broker")
    }

    /// See [`super::Backend::freeze`].
    fn freeze(&self) -> Done<'_> {
        Box::pin(async {
            for broker in 1..=BROKERS as i32 {
                self.pause(broker).await?;
            }
            Ok(())
        })
    }

    /// See [`super::Backend::thaw`].
    fn thaw(&self) -> Done<'_> {
        Box::pin(async {
            for broker in 1..=BROKERS as i32 {
                self.resume(broker).await?;
            }
            Ok(())
        })
    }

    /// See [`super::Backend::cut_off`].
    fn cut_off(&self, _broker: i32) -> Done<'_> {
        cannot("cut the network")
    }

    /// See [`super::Backend::power_off_all`].
    fn power_off_all(&self) -> Done<'_> {
        cannot("take the power away")
    }

    /// Undoes every fault: whatever is paused goes on, whatever is dead is started again.
    fn revive(&self) -> Done<'_> {
        Box::pin(async { Ok(()) })
    }

    /// See [`super::Backend::check`].
    ///
    /// # Errors
    ///
    /// Where the logs disagree.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// See [`super::Backend::autopsy`].
    fn autopsy(&self, _topic: String, _partitions: i32) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Box::pin(async { Ok(None) })
    }

    /// Ends processes of the cluster, because nobody will drop it in order.
    fn abandon(&self) {}
}

fn cannot<'a>(what: &'static str) -> Done<'a> {
    Box::pin(async move { Err(Error::other(format!("this cluster cannot {what}"))) })
}
