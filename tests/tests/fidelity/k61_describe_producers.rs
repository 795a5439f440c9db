//! DescribeProducers.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let of = |topic: &str, partitions: &[i32]| json!({ "Topics": [{ "Name": topic, "PartitionIndexes": partitions }] });
    let batch = json!({ "records": ["a"], "producer_id": "$pid", "producer_epoch": 0, "sequence": 0 });
    let write = json!({ "Acks": -1, "TimeoutMs": 10_000, "TopicData": [
        { "Name": "written-{v}", "PartitionData": [{ "Index": 0, "Records": [batch] }] }] });
    vec![
        case(61, "a producer")
            .topic("written-{v}", &[&[1]])
            .first(1, 22, 4, json!({ "TransactionalId": null, "TransactionTimeoutMs": 60_000 }))
            .keep("pid", "ProducerId")
            .first(1, 0, 9, write)
            .ask(of("written-{v}", &[0])),
        case(61, "none").ask(of("empty", &[0])),
        case(61, "partitions of other leaders").ask(of("orders", &[1, 2])),
        case(61, "unknown partitions").ask(of("orders", &[7, -1])),
        case(61, "an unknown topic").ask(of("unheard-of", &[0])),
        case(61, "a name that cannot be").ask(of("a b", &[0])),
        case(61, "no topics").ask(json!({ "Topics": [] })),
        case(61, "no partitions").ask(of("orders", &[])),
        damaged(61, of("empty", &[0])),
    ]
}
