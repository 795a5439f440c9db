//! DescribeTopicPartitions: by page.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

#[allow(clippy::needless_pass_by_value, reason = "cases read better without ampersands")]
fn of(topics: &[&str], limit: i32, cursor: Value) -> Value {
    let topics: Vec<_> = topics.iter().map(|name| json!({ "Name": name })).collect();
    json!({ "Topics": topics, "ResponsePartitionLimit": limit, "Cursor": cursor })
}

pub(crate) fn cases() -> Vec<Case> {
    let cursor = |topic: &str, partition: i32| json!({ "TopicName": topic, "PartitionIndex": partition });
    vec![
        case(75, "topics by name").ask(of(&["orders", "solo"], 100, Value::Null)),
        case(75, "an unknown topic").ask(of(&["unheard-of", "orders"], 100, Value::Null)),
        case(75, "names that cannot be").ask(of(&["a b", ""], 100, Value::Null)).unordered("Topics", "Name"),
        case(75, "a topic twice").ask(of(&["orders", "orders"], 100, Value::Null)),
        case(75, "page by page")
            .ask(of(&["orders", "solo"], 2, Value::Null))
            .ask(of(&["orders", "solo"], 2, cursor("orders", 2)))
            .ask(of(&["orders", "solo"], 2, cursor("solo", 0))),
        case(75, "cursors that point nowhere")
            .ask(of(&["orders", "solo"], 2, cursor("orders", 9)))
            .ask(of(&["orders", "solo"], 2, cursor("p", 0)))
            .ask(of(&["orders", "solo"], 2, cursor("zzz", 0)))
            .ask(of(&["orders"], 2, cursor("orders", -1))),
        case(75, "limits that are none").ask(of(&["orders"], 0, Value::Null)).ask(of(
            &["orders"],
            -1,
            Value::Null,
        )),
        damaged(75, of(&["orders"], 100, Value::Null)),
    ]
}
