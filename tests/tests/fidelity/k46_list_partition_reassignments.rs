//! ListPartitionReassignments while nothing moves.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let of = |topic: &str, partitions: &[i32]| json!({ "TimeoutMs": 1000, "Topics": [{ "Name": topic, "PartitionIndexes": partitions }] });
    vec![
        case(46, "all").ask(json!({ "TimeoutMs": 1000, "Topics": null })),
        case(46, "partitions at rest").ask(of("orders", &[0, 1])),
        case(46, "unknown ones").ask(of("orders", &[7, -1])).ask(of("unheard-of", &[0])),
        case(46, "no topics").ask(json!({ "TimeoutMs": 1000, "Topics": [] })),
        case(46, "no partitions").ask(of("orders", &[])),
        damaged(46, of("orders", &[0])),
    ]
}
