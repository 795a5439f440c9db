//! ElectLeaders.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn elect(kind: i8, topic: &str, partitions: &[i32]) -> Value {
    json!({ "ElectionType": kind, "TimeoutMs": 10_000,
        "TopicPartitions": [{ "Topic": topic, "Partitions": partitions }] })
}

pub(crate) fn cases() -> Vec<Case> {
    let election = |about: &str| {
        case(43, about)
            .unordered("ReplicaElectionResults", "Topic")
            .unordered("ReplicaElectionResults.PartitionResult", "PartitionId")
    };
    vec![
        election("leaders that are the preferred ones").ask(elect(0, "orders", &[0, 1])),
        election("leaders that are there, uncleanly").ask(elect(1, "orders", &[0, 1])).versions(1..=2),
        election("unknown partitions").ask(elect(0, "orders", &[7, -1])),
        election("an unknown topic").ask(elect(0, "unheard-of", &[0])),
        election("a kind of election that is none")
            .ask(elect(2, "orders", &[0]))
            .ask(elect(-1, "orders", &[0]))
            .versions(1..=2),
        election("every partition").ask(json!({ "TopicPartitions": null, "TimeoutMs": 10_000 })),
        election("no partitions").ask(elect(0, "orders", &[])),
        election("no topics").ask(json!({ "TopicPartitions": [], "TimeoutMs": 10_000 })),
        damaged(43, elect(0, "orders", &[0])),
    ]
}
