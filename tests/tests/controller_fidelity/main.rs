//! The listener of our controllers answers as that of Apache Kafka's does: what voters, brokers and `--bootstrap-controller`
//! ask there. As `fidelity`, with a pair of clusters of one node each, so that who leads the quorum is the same on both sides.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests report by panicking")]

mod allowed;
mod brokers;
mod changes;
#[path = "../fidelity/k32_describe_configs.rs"]
mod k32_describe_configs;
mod quorum;

use std::io::Error;
use std::process::ExitCode;

use klamm_tests::fidelity::allowed::OTHER_FEATURES;
use klamm_tests::fidelity::{self, Case, Side, Suite, case};
use klamm_tests::nodes::{Nodes, Plan};
use serde_json::json;

/// The id that `kafka-cluster` gives to its clusters.
const CLUSTER_ID: &str = "a2xhbW1UZXN0Q2x1c3Rlcg";
const SETTINGS: &[&str] = &[
    "broker.heartbeat.interval.ms=500",
    "broker.session.timeout.ms=600000",
    // What `kafka-cluster` gives for one node, ours refuses: there are no share groups.
    "share.coordinator.state.topic.replication.factor=3",
    "share.coordinator.state.topic.min.isr=2",
];

/// What `kafka-cluster` gives to Kafka: a setting tells whether it was given.
const GIVEN_TO_KAFKA: &[&str] = &[
    "broker.rack=RACK1",
    "num.partitions=4",
    "offsets.topic.replication.factor=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "default.replication.factor=1",
    "group.initial.rebalance.delay.ms=0",
];

/// What a broker that is a controller, too, tells of itself by its own listener.
fn who_it_is() -> Case {
    let names = [
        "process.roles",
        "listeners",
        "advertised.listeners",
        "controller.quorum.voters",
        "controller.listener.names",
        "listener.security.protocol.map",
        "node.id",
    ];
    let resource = json!({ "ResourceType": 4, "ResourceName": "1", "ConfigurationKeys": names });
    case(18, "who the node is")
        .then(1, 32, 4, json!({ "Resources": [resource] }))
        .unordered("Results.Configs", "Name")
        .versions(0..=0)
}

fn suite() -> Suite {
    let cases = [quorum::cases(), brokers::cases(), changes::cases(), k32_describe_configs::cases()].concat();
    let mut cases: Vec<_> = cases.into_iter().map(Case::at_controller).collect();
    cases.push(who_it_is());
    Suite {
        setup: case(18, "set-up").topic("solo", &[&[1]]).topic("orders", &[&[1]]),
        cases,
        allowed: allowed::allowed(),
        not_advertised: allowed::NOT_ADVERTISED.to_vec(),
        other_features: OTHER_FEATURES.to_vec(),
    }
}

fn main() -> ExitCode {
    let ours = || {
        let settings = [SETTINGS, GIVEN_TO_KAFKA].concat();
        Nodes::start(Plan { cluster_id: Some(CLUSTER_ID.to_owned()), ..Plan::voters(1, &settings) })
    };
    fidelity::run_main(suite(), 1, SETTINGS, ours, |kafka, ours| {
        let port = kafka.bootstrap().rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        // Where `kafka-cluster` puts it.
        let controller = port.ok_or_else(|| Error::other("a bootstrap address without a port"))? + 1;
        let theirs = Side::meet_controller(kafka.bootstrap(), controller)?;
        let mine = Side::meet_controller(&ours.bootstrap(), ours.ports(1).controller)?;
        Ok((theirs, mine))
    })
}
