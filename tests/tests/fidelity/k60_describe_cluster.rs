//! DescribeCluster.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let cluster =
        |about: &str| case(60, about).unordered("Brokers", "BrokerId").vague("ControllerId", "some broker");
    vec![
        cluster("the brokers").ask(json!({})).ask_of(3, json!({})),
        cluster("what may be done").ask(json!({ "IncludeClusterAuthorizedOperations": true })),
        cluster("fenced ones, too").ask(json!({ "IncludeFencedBrokers": true })),
        cluster("endpoints of brokers").ask(json!({ "EndpointType": 1 })),
        cluster("endpoints of controllers from a broker").ask(json!({ "EndpointType": 2 })),
        cluster("endpoints of neither")
            .ask(json!({ "EndpointType": 0 }))
            .ask(json!({ "EndpointType": 3 }))
            .ask(json!({ "EndpointType": -1 })),
        damaged(60, json!({})).unordered("Brokers", "BrokerId").vague("ControllerId", "some broker"),
    ]
}
