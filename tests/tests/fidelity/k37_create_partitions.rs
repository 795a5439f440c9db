//! CreatePartitions.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

#[allow(clippy::needless_pass_by_value, reason = "cases read better without ampersands")]
fn grow(topic: &str, count: i32, assignments: Value) -> Value {
    json!({ "Topics": [{ "Name": topic, "Count": count, "Assignments": assignments }], "TimeoutMs": 10_000 })
}

pub(crate) fn cases() -> Vec<Case> {
    let assigned =
        |brokers: &[&[i32]]| -> Value { brokers.iter().map(|ids| json!({ "BrokerIds": ids })).collect() };
    let grown = |about: &str| case(37, about).unordered("Results", "Name");
    let tried = |mut body: Value| {
        body["ValidateOnly"] = json!(true);
        body
    };
    let metadata = json!({ "Topics": [{ "Name": "grown-{v}" }], "AllowAutoTopicCreation": false });
    vec![
        grown("by number and by assignment")
            .topic("grown-{v}", &[&[1]])
            .ask(grow("grown-{v}", 3, assigned(&[&[2], &[3]])))
            .grown_to("grown-{v}", 3)
            .then(1, 3, 12, metadata)
            .ask(grow("grown-{v}", 5, Value::Null))
            .unordered("Brokers", "NodeId")
            .vague("ControllerId", "some broker"),
        grown("tried only").ask(tried(grow("orders", 6, Value::Null))).ask(tried(grow("orders", 2, Value::Null))),
        grown("as many as there are").ask(grow("orders", 3, Value::Null)),
        grown("fewer than there are").ask(grow("orders", 2, Value::Null)),
        grown("none, and fewer than none").ask(grow("orders", 0, Value::Null)).ask(grow("orders", -1, Value::Null)),
        // More than can be is not tried: Apache Kafka's controller goes down over two billion partitions.
        grown("an unknown topic").ask(grow("unheard-of", 2, Value::Null)),
        grown("a name that cannot be").ask(grow("a b", 2, Value::Null)).ask(grow("", 2, Value::Null)),
        grown("too few assignments").ask(tried(grow("orders", 5, assigned(&[&[1, 2, 3]])))),
        grown("too many assignments").ask(tried(grow("orders", 4, assigned(&[&[1, 2, 3], &[1, 2, 3]])))),
        grown("an assignment to a stranger").ask(tried(grow("orders", 4, assigned(&[&[1, 2, 9]])))),
        grown("an assignment to one broker twice").ask(tried(grow("orders", 4, assigned(&[&[1, 1, 2]])))),
        grown("an assignment with another number of replicas").ask(tried(grow("orders", 4, assigned(&[&[1]])))),
        grown("an assignment to nobody").ask(tried(grow("orders", 4, assigned(&[&[]])))),
        grown("no assignments").ask(tried(grow("orders", 4, json!([])))),
        grown("a topic twice").ask(json!({ "ValidateOnly": true, "TimeoutMs": 1000, "Topics": [
            { "Name": "orders", "Count": 4, "Assignments": null }, { "Name": "orders", "Count": 5, "Assignments": null },
            { "Name": "solo", "Count": 2, "Assignments": null }] })),
        grown("no topics").ask(json!({ "Topics": [], "TimeoutMs": 1000 })),
        // Refused either way: Kafka reads some of the damage as a wish that is meant.
        damaged(37, tried(grow("orders", 3, assigned(&[&[1, 2, 3]])))),
    ]
}
