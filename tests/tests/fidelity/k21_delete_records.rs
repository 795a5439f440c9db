//! DeleteRecords.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn of(topic: &str, partitions: &[(i32, i64)]) -> Value {
    let partitions: Vec<_> = partitions
        .iter()
        .map(|(index, offset)| json!({ "PartitionIndex": index, "Offset": offset }))
        .collect();
    json!({ "Topics": [{ "Name": topic, "Partitions": partitions }], "TimeoutMs": 10_000 })
}

/// A case with six records in the one partition of `TOPIC-{v}`.
fn filled(about: &str, topic: &str) -> Case {
    let topic = format!("{topic}-{{v}}");
    let batches = |records: &[&str]| {
        let partition = json!({ "Index": 0, "Records": [{ "records": records }] });
        json!({ "Acks": -1, "TimeoutMs": 10_000, "TopicData": [{ "Name": topic, "PartitionData": [partition] }] })
    };
    case(21, about).topic(&topic, &[&[1]]).first(1, 0, 9, batches(&["a", "b", "c"])).first(
        1,
        0,
        9,
        batches(&["d", "e", "f"]),
    )
}

pub(crate) fn cases() -> Vec<Case> {
    let ends = |topic: &str, timestamp: i64| {
        json!({ "ReplicaId": -1, "Topics": [
            { "Name": topic, "Partitions": [{ "PartitionIndex": 0, "Timestamp": timestamp }] }] })
    };
    let read = |topic: &str, offset: i64| {
        let partition = json!({ "Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20 });
        json!({ "ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1 << 20,
            "Topics": [{ "Topic": topic, "Partitions": [partition] }] })
    };
    vec![
        filled("records before an offset", "shorn")
            .ask(of("shorn-{v}", &[(0, 4)]))
            .then(1, 2, 5, ends("shorn-{v}", -2))
            .then(1, 2, 5, ends("shorn-{v}", -1))
            .then(1, 1, 11, read("shorn-{v}", 4))
            .then(1, 1, 11, read("shorn-{v}", 3))
            .ask(of("shorn-{v}", &[(0, 2)])),
        filled("all records", "bare").ask(of("bare-{v}", &[(0, -1)])).then(1, 2, 5, ends("bare-{v}", -2)),
        filled("offsets out of range", "ranged")
            .ask(of("ranged-{v}", &[(0, 7)]))
            .ask(of("ranged-{v}", &[(0, -2)])),
        case(21, "partitions of other leaders").ask(of("orders", &[(1, 0)])),
        case(21, "unknown partitions").ask(of("orders", &[(7, 0)])).ask(of("orders", &[(-1, 0)])),
        case(21, "an unknown topic").ask(of("unheard-of", &[(0, 0)])),
        case(21, "a compacted topic")
            .topic_with("kept-{v}", &[&[1]], &[("cleanup.policy", "compact")])
            .ask(of("kept-{v}", &[(0, 0)])),
        case(21, "no topics").ask(json!({ "Topics": [] })),
        case(21, "no partitions").ask(of("orders", &[])),
        damaged(21, of("unheard-of", &[(0, 0)])),
    ]
}
