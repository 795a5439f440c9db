//! The listener of our controllers answers as that of Apache Kafka's does: what voters, brokers and `--bootstrap-controller`
//! ask there. As `fidelity`, with a pair of clusters of one node each, so that who leads the quorum is the same on both sides.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests report by panicking")]

mod allowed;
mod brokers;
mod changes;
mod quorum;

use std::process::ExitCode;

use klamm_tests::fidelity::{self, Arguments, Case, Side, Suite, case};
use klamm_tests::nodes::{Nodes, Plan};
use klamm_tests::process::ApacheKafka;
use klamm_tests::skipped;
use serde_json::json;

/// The id that `kafka-cluster` gives to its clusters.
const CLUSTER_ID: &str = "a2xhbW1UZXN0Q2x1c3Rlcg";
const SETTINGS: &[&str] = &["broker.heartbeat.interval.ms=500", "broker.session.timeout.ms=600000"];

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
    let cases = [quorum::cases(), brokers::cases(), changes::cases()].concat();
    let mut cases: Vec<_> = cases.into_iter().map(Case::at_controller).collect();
    cases.push(who_it_is());
    Suite {
        setup: case(18, "set-up").topic("solo", &[&[1]]),
        cases,
        allowed: allowed::allowed(),
        open: allowed::open(),
        not_advertised: allowed::NOT_ADVERTISED.to_vec(),
        other_features: allowed::OTHER_FEATURES.to_vec(),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let suite = suite();
    if arguments.list {
        fidelity::list(&suite, &arguments);
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = ApacheKafka::missing() {
        skipped("Apache Kafka", &reason);
        return ExitCode::SUCCESS;
    }
    let kafka = std::thread::spawn(|| ApacheKafka::start_with(1, SETTINGS));
    let plan = Plan { cluster_id: Some(CLUSTER_ID.to_owned()), ..Plan::voters(1, SETTINGS) };
    let ours = Nodes::start(plan).expect("a node starts");
    let kafka = kafka.join().expect("a thread that waits").expect("Apache Kafka starts");
    let port = kafka.bootstrap().rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    // Where `kafka-cluster` puts it.
    let controller = port.expect("a port") + 1;
    let mut theirs = Side::meet_controller(kafka.bootstrap(), controller).expect("Apache Kafka answers");
    let mut mine =
        Side::meet_controller(&ours.bootstrap(), ours.ports(1).controller).expect("the node answers");
    match fidelity::run(suite, &arguments, &mut theirs, &mut mine) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(101),
        Err(error) => {
            eprintln!("controller fidelity: {error}");
            ExitCode::from(101)
        }
    }
}
