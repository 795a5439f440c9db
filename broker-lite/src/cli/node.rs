//! `broker-lite node`: one process of a cluster.

use std::path::PathBuf;

use broker_lite::{Address, NodeOptions, NodeProcess, Voters};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, parse_config, tell_bootstrap};

#[derive(Debug, Args)]
pub(super) struct Node {
    /// Id of this node, unlike any other's.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    id: i32,
    /// Where the broker listens; port 0 takes any free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Address,
    /// Where clients and other brokers reach the broker, if it is another address.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<Address>,
    /// Where the voter listens; needed if this node is one.
    #[arg(long, value_name = "HOST:PORT")]
    controller_listen: Option<Address>,
    /// 1, 3 or 5 voters, and where their controllers listen; the same for every node. A node that is not listed is a
    /// broker only.
    #[arg(long, value_name = "ID@HOST:PORT,...")]
    voters: Voters,
    /// Directory of this node alone; made if there is none.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Id of the cluster. Without it the first controller chooses one, and the others learn it.
    #[arg(long, value_name = "ID", value_parser = parse_cluster_id)]
    cluster_id: Option<String>,
    /// Sets a broker setting by its Kafka name; may be given several times.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_config)]
    configs: Vec<(String, String)>,
}

impl Node {
    /// Runs until SIGTERM or SIGINT, which end the node in order; a second one ends it at once.
    pub(super) async fn serve(self) -> Result<(), CommandError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Signals)?;
        let mut stop = async || {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let process = tokio::select! {
            biased;
            () = stop() => return Ok(()),
            process = NodeProcess::start(self.options()) => process?,
        };
        let ended = tokio::select! {
            biased;
            () = stop() => None,
            ended = serve_until_over(&process) => Some(ended),
        };
        if let Some(ended) = ended {
            return ended;
        }
        tokio::select! {
            biased;
            () = process.shutdown() => {}
            () = stop() => {}
        }
        Ok(())
    }

    fn options(self) -> NodeOptions {
        let mut options = NodeOptions::new(self.id, self.listen, self.voters, self.data_dir);
        options.advertise = self.advertise;
        options.controller_listen = self.controller_listen;
        options.cluster_id = self.cluster_id;
        options.configs = self.configs;
        options
    }
}

async fn serve_until_over(process: &NodeProcess) -> Result<(), CommandError> {
    process.until_ready().await?;
    tell_bootstrap(&process.bootstrap())?;
    Err(process.until_over().await.into())
}

/// Kafka takes any text; what could not be written to a line of `meta.properties` cannot be one.
fn parse_cluster_id(text: &str) -> Result<String, String> {
    let fits =
        (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not 1 to 128 letters, digits and signs"))
    }
}
