//! AlterPartitionReassignments, and with it ListPartitionReassignments.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn alter(topic: &str, partitions: &[(i32, Value)]) -> Value {
    let partitions: Vec<_> = partitions
        .iter()
        .map(|(index, replicas)| json!({ "PartitionIndex": index, "Replicas": replicas }))
        .collect();
    json!({ "TimeoutMs": 10_000, "Topics": [{ "Name": topic, "Partitions": partitions }] })
}

pub(crate) fn cases() -> Vec<Case> {
    let moved = |about: &str| {
        case(45, about)
            .unordered("Responses", "Name")
            .unordered("Brokers", "NodeId")
            .vague("ControllerId", "some broker")
    };
    let one = |about: &str, partition: i32, replicas: Value| {
        moved(about).ask(alter("solo", &[(partition, replicas)]))
    };
    vec![
        moved("the same replicas").ask(alter("orders", &[(0, json!([1, 2, 3]))])),
        moved("another order of replicas")
            .topic("turned-{v}", &[&[1, 2]])
            .ask(alter("turned-{v}", &[(0, json!([2, 1]))])),
        moved("a cancellation of nothing").ask(alter("orders", &[(0, Value::Null)])),
        moved("an unknown topic").ask(alter("unheard-of", &[(0, json!([1]))])),
        one("an unknown partition", 7, json!([1])),
        one("a negative partition", -1, json!([1])),
        one("a stranger", 0, json!([9])),
        one("nobody", 0, json!([])),
        one("one broker twice", 0, json!([1, 1])),
        one("a negative broker", 0, json!([-1])),
        moved("another number of replicas where it must not change")
            .ask({
                let mut body = alter("solo", &[(0, json!([1, 2]))]);
                body["AllowReplicationFactorChange"] = json!(false);
                body
            })
            .versions(1..=1),
        moved("a partition twice").ask(alter("orders", &[(0, json!([1, 2, 3])), (0, json!([1, 2, 3]))])),
        moved("no topics").ask(json!({ "TimeoutMs": 1000, "Topics": [] })),
        moved("no partitions").ask(alter("orders", &[])),
        damaged(45, alter("orders", &[(0, json!([1, 2, 3]))])),
    ]
}
