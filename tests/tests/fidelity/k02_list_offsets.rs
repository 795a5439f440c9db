//! ListOffsets: by time and by name, of known and unknown partitions.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn at(partition: i32, timestamp: i64) -> Value {
    json!({ "PartitionIndex": partition, "Timestamp": timestamp })
}

fn of(topic: &str, partitions: &[Value]) -> Value {
    json!({ "ReplicaId": -1, "TimeoutMs": 1000, "Topics": [{ "Name": topic, "Partitions": partitions }] })
}

fn with(mut value: Value, field: &str, wanted: impl Into<Value>) -> Value {
    value[field] = wanted.into();
    value
}

fn offsets(about: &str) -> Case {
    case(2, about).unordered("Topics.Partitions", "PartitionIndex")
}

pub(crate) fn cases() -> Vec<Case> {
    let filled = |timestamp: i64| of("filled", &[at(0, timestamp)]);
    let epoch = |epoch: i32| of("filled", &[with(at(0, -1), "CurrentLeaderEpoch", epoch)]);
    vec![
        offsets("the ends").ask(filled(-1)).ask(filled(-2)),
        offsets("the largest timestamp").ask(filled(-3)).versions(7..=11),
        offsets("the largest timestamp before its version").ask(filled(-3)).versions(1..=6),
        offsets("the earliest local offset").ask(filled(-4)).versions(8..=11),
        offsets("the latest tiered offset").ask(filled(-5)).versions(9..=11),
        offsets("the earliest pending upload").ask(filled(-6)).versions(11..=11),
        offsets("names of offsets before their versions").ask(filled(-4)).ask(filled(-5)).ask(filled(-6)).versions(1..=7),
        offsets("names that mean nothing").ask(filled(-7)).ask(filled(-100)).ask(filled(i64::MIN)),
        offsets("by time")
            .ask(filled(0))
            .ask(filled(1_600_000_000_001))
            .ask(filled(1_600_000_000_003))
            .ask(filled(1_600_000_005_001))
            .ask(filled(1_600_000_015_000))
            .ask(filled(1_600_000_020_000))
            .ask(filled(1_600_000_020_001))
            .ask(filled(i64::MAX)),
        offsets("an empty partition")
            .ask(of("empty", &[at(0, -1)]))
            .ask(of("empty", &[at(0, -2)]))
            .ask(of("empty", &[at(0, 0)])),
        offsets("the largest timestamp of nothing").ask(of("empty", &[at(0, -3)])).versions(7..=11),
        offsets("partitions of other leaders").ask(of("orders", &[at(1, -1), at(2, -2)])),
        offsets("unknown partitions").ask(of("filled", &[at(1, -1), at(-1, -1), at(0, -1)])),
        offsets("an unknown topic").ask(of("unheard-of", &[at(0, -1)])),
        offsets("names that cannot be").ask(of("", &[at(0, -1)])).ask(of("a b", &[at(0, -1)])),
        offsets("no topics").ask(json!({ "ReplicaId": -1, "Topics": [] })),
        offsets("no partitions").ask(of("filled", &[])),
        offsets("a partition twice").ask(of("filled", &[at(0, -1), at(0, -2)])),
        offsets("a topic twice").ask(json!({ "ReplicaId": -1, "Topics": [
            { "Name": "filled", "Partitions": [at(0, -1)] }, { "Name": "filled", "Partitions": [at(0, -2)] }] })),
        offsets("leader epochs").ask(epoch(0)).ask(epoch(5)).ask(epoch(-2)).versions(4..=11),
        offsets("leader epochs at another leader")
            .ask(of("orders", &[with(at(1, -1), "CurrentLeaderEpoch", 0)]))
            .ask(of("orders", &[with(at(1, -1), "CurrentLeaderEpoch", 4)]))
            .versions(4..=11),
        offsets("isolation levels")
            .ask(with(filled(-1), "IsolationLevel", 1))
            .ask(with(filled(-1), "IsolationLevel", 2))
            .versions(2..=11),
        offsets("as a replica, as a debugger, as nobody")
            .ask(with(filled(-1), "ReplicaId", 2))
            .ask(with(filled(-1), "ReplicaId", -2))
            .ask(with(filled(-1), "ReplicaId", 9))
            .ask_of(2, with(filled(-1), "ReplicaId", -2)),
        damaged(2, filled(-1)),
    ]
}
