//! IncrementalAlterConfigs: set, delete, append, subtract.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn alter(kind: i8, name: &str, configs: &[(&str, i8, Value)]) -> Value {
    let configs: Vec<_> = configs
        .iter()
        .map(|(name, operation, value)| json!({ "Name": name, "ConfigOperation": operation, "Value": value }))
        .collect();
    json!({ "Resources": [{ "ResourceType": kind, "ResourceName": name, "Configs": configs }] })
}

fn tried(mut body: Value) -> Value {
    body["ValidateOnly"] = json!(true);
    body
}

pub(crate) fn cases() -> Vec<Case> {
    let altered = |about: &str| case(44, about);
    let tried_one =
        |name: &str, operation: i8, value: Value| tried(alter(TOPIC, "orders", &[(name, operation, value)]));
    let shown = json!({ "Resources": [{ "ResourceType": TOPIC, "ResourceName": "altered-{v}",
        "ConfigurationKeys": ["cleanup.policy", "retention.ms"] }] });
    let mut values = altered("values that cannot be");
    for (name, value) in [
        ("retention.ms", json!("soon")),
        ("retention.ms", json!("-2")),
        ("retention.ms", json!(null)),
        ("cleanup.policy", json!("keep")),
        ("min.insync.replicas", json!("0")),
        ("compression.type", json!("brotli")),
        ("no.such.setting", json!("1")),
        ("", json!("1")),
    ] {
        values = values.ask(tried_one(name, SET, value));
    }
    vec![
        altered("set, append, subtract, delete")
            .topic("altered-{v}", &[&[1]])
            .ask(alter(
                TOPIC,
                "altered-{v}",
                &[("cleanup.policy", SET, json!("compact")), ("retention.ms", SET, json!("5"))],
            ))
            .ask(alter(TOPIC, "altered-{v}", &[("cleanup.policy", APPEND, json!("delete"))]))
            .ask(alter(TOPIC, "altered-{v}", &[("cleanup.policy", SUBTRACT, json!("compact"))]))
            .ask(alter(TOPIC, "altered-{v}", &[("retention.ms", DELETE, Value::Null)])),
        altered("a setting that is not set is deleted")
            .topic("unset-{v}", &[&[1]])
            .ask(alter(TOPIC, "unset-{v}", &[("retention.ms", DELETE, Value::Null)]))
            .ask(alter(TOPIC, "unset-{v}", &[("no.such.setting", DELETE, Value::Null)])),
        altered("what is shown afterwards")
            .topic("altered-{v}-b", &[&[1]])
            .ask(alter(TOPIC, "altered-{v}-b", &[("retention.ms", SET, json!("5"))]))
            .then(1, 32, 4, shown)
            .unordered("Results.Configs", "Name"),
        values,
        altered("a list is needed").ask(tried_one("retention.ms", APPEND, json!("5"))).ask(tried_one(
            "retention.ms",
            SUBTRACT,
            json!("5"),
        )),
        altered("an operation that is none").ask(tried_one("retention.ms", 4, json!("5"))).ask(tried_one(
            "retention.ms",
            -1,
            json!("5"),
        )),
        altered("a setting twice").ask(tried(alter(
            TOPIC,
            "orders",
            &[("retention.ms", SET, json!("5")), ("retention.ms", SET, json!("6"))],
        ))),
        altered("an unknown topic").ask(alter(TOPIC, "unheard-of", &[("retention.ms", SET, json!("5"))])),
        altered("a topic without a name").ask(alter(TOPIC, "", &[("retention.ms", SET, json!("5"))])),
        altered("no settings").ask(alter(TOPIC, "orders", &[])),
        altered("nothing").ask(json!({ "Resources": [] })),
        altered("one thing twice").ask(tried(json!({ "Resources": [
            { "ResourceType": TOPIC, "ResourceName": "orders", "Configs": [] },
            { "ResourceType": TOPIC, "ResourceName": "orders", "Configs": [] }] }))),
        altered("kinds of things that have no settings")
            .ask(alter(0, "x", &[("a", SET, json!("1"))]))
            .ask(alter(99, "x", &[("a", SET, json!("1"))])),
        altered("a broker that is not there").ask(tried(alter(
            BROKER,
            "9",
            &[("log.retention.ms", SET, json!("5"))],
        ))),
        altered("a broker that is no number").ask(tried(alter(
            BROKER,
            "one",
            &[("log.retention.ms", SET, json!("5"))],
        ))),
        altered("a broker's setting that cannot change").ask(tried(alter(
            BROKER,
            "1",
            &[("num.partitions", SET, json!("5"))],
        ))),
        altered("all brokers, tried only").ask(tried(alter(
            BROKER,
            "",
            &[("log.retention.ms", SET, json!("5"))],
        ))),
        damaged(44, tried_one("retention.ms", SET, json!("5"))),
    ]
}
