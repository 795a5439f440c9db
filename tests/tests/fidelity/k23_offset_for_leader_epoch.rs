//! OffsetForLeaderEpoch.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn of(topic: &str, partitions: &[(i32, i32, i32)]) -> Value {
    let partitions: Vec<_> = partitions
        .iter()
        .map(|(partition, current, epoch)| {
            json!({ "Partition": partition, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch })
        })
        .collect();
    json!({ "ReplicaId": -1, "Topics": [{ "Topic": topic, "Partitions": partitions }] })
}

pub(crate) fn cases() -> Vec<Case> {
    let as_replica = |id: i32| {
        let mut body = of("filled", &[(0, 0, 0)]);
        body["ReplicaId"] = json!(id);
        body
    };
    vec![
        case(23, "the end of an epoch")
            .ask(of("filled", &[(0, -1, 0)]))
            .ask(of("filled", &[(0, 0, 0)]))
            .ask(of("empty", &[(0, 0, 0)])),
        case(23, "epochs that never were")
            .ask(of("filled", &[(0, -1, 5)]))
            .ask(of("filled", &[(0, -1, -1)]))
            .ask(of("filled", &[(0, -1, -2)])),
        case(23, "current epochs").ask(of("filled", &[(0, 3, 0)])).ask(of("filled", &[(0, -2, 0)])),
        case(23, "partitions of other leaders").ask(of("orders", &[(1, -1, 0), (2, 0, 0), (0, 0, 0)])),
        case(23, "unknown partitions").ask(of("filled", &[(1, -1, 0), (-1, -1, 0)])),
        case(23, "an unknown topic").ask(of("unheard-of", &[(0, -1, 0)])),
        case(23, "no topics").ask(json!({ "ReplicaId": -1, "Topics": [] })),
        case(23, "a partition twice").ask(of("filled", &[(0, -1, 0), (0, -1, 5)])),
        case(23, "as replicas").ask(as_replica(2)).ask(as_replica(9)).ask(as_replica(-2)),
        damaged(23, of("filled", &[(0, -1, 0)])),
    ]
}
