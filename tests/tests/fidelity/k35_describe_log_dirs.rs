//! DescribeLogDirs: where logs lie differs by nature, what lies there does not.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let dirs = |about: &str| {
        case(35, about)
            .unordered("Results.Topics", "Name")
            .unordered("Results.Topics.Partitions", "PartitionIndex")
            .vague("Results.LogDir", "some directory")
            .vague("Results.TotalBytes", "some size")
            .vague("Results.UsableBytes", "some size")
    };
    let of = |topics: &[(&str, &[i32])]| {
        let topics: Vec<_> = topics
            .iter()
            .map(|(topic, partitions)| json!({ "Topic": topic, "Partitions": partitions }))
            .collect();
        json!({ "Topics": topics })
    };
    vec![
        dirs("some partitions").ask(of(&[("filled", &[0]), ("empty", &[0])])),
        dirs("partitions of other brokers").ask(of(&[("solo", &[0])])).ask_of(2, of(&[("solo", &[0])])),
        dirs("unknown partitions").ask(of(&[("filled", &[5, -1])])).ask(of(&[("unheard-of", &[0])])),
        dirs("no topics").ask(of(&[])),
        dirs("no partitions").ask(of(&[("filled", &[])])),
        damaged(35, of(&[("unheard-of", &[0])]))
            .vague("Results.LogDir", "some directory")
            .vague("Results.TotalBytes", "some size")
            .vague("Results.UsableBytes", "some size"),
    ]
}
