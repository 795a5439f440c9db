//! Settings that follow from who a node is; DescribeConfigs shows them as given at the start.

use std::sync::Arc;

use broker_lite_core::config::BrokerConfig;
use klamm_wire::seam::Endpoint;

use crate::broker::{CONTROLLER_LISTENER, LISTENER};
use crate::node::{Network, Party};

/// Who a node is: a broker, a voter, or both, as its listeners tell.
#[derive(Debug)]
pub(crate) struct NodeIdentity<'a> {
    pub(crate) id: i32,
    /// Where it listens, by listener.
    pub(crate) listeners: &'a [(&'static str, Endpoint)],
    /// What clients are told, if it is a broker.
    pub(crate) advertised: Option<Endpoint>,
    pub(crate) log_dir: String,
    /// As [`addresses`] makes it.
    pub(crate) voters: String,
    pub(crate) rack: Option<&'a str>,
}

impl NodeIdentity<'_> {
    /// The settings of this node, with what it was given.
    pub(crate) fn running(&self, config: &BrokerConfig) -> Arc<BrokerConfig> {
        Arc::new(config.clone().running_with(self.settings()))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let id = self.id.to_string();
        let listens = |wanted| self.listeners.iter().any(|(name, _)| *name == wanted);
        let roles = match (self.advertised.is_some(), listens(CONTROLLER_LISTENER)) {
            (true, true) => "broker,controller",
            (true, false) => "broker",
            (false, _) => "controller",
        };
        let listeners: Vec<_> = self.listeners.iter().map(|(name, at)| format!("{name}://{at}")).collect();
        let mut settings = vec![
            ("broker.id", id.clone()),
            ("node.id", id),
            ("log.dirs", self.log_dir.clone()),
            ("process.roles", roles.to_owned()),
            ("controller.listener.names", CONTROLLER_LISTENER.to_owned()),
            (
                "listener.security.protocol.map",
                format!("{CONTROLLER_LISTENER}:PLAINTEXT,{LISTENER}:PLAINTEXT"),
            ),
        ];
        let listeners = Some(listeners.join(",")).filter(|listeners| !listeners.is_empty());
        settings.extend(listeners.map(|listeners| ("listeners", listeners)));
        let advertised = self.advertised.as_ref();
        settings.extend(advertised.map(|at| ("advertised.listeners", format!("{LISTENER}://{at}"))));
        let voters = Some(&self.voters).filter(|voters| !voters.is_empty());
        settings.extend(voters.map(|voters| ("controller.quorum.voters", voters.clone())));
        settings.extend(self.rack.map(|rack| ("broker.rack", rack.to_owned())));
        settings
    }
}

/// `ID@HOST:PORT` of each voter; empty where they are reached without ports.
pub(crate) fn addresses(network: &Network, voters: impl IntoIterator<Item = i32>) -> String {
    let endpoint = |voter: i32| network.remotes()?.endpoint(&Party::Controller(voter));
    let address = |voter: i32| Some(format!("{voter}@{}", endpoint(voter)?));
    voters.into_iter().filter_map(address).collect::<Vec<_>>().join(",")
}
