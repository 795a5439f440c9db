//! DescribeConfigs: of topics and brokers.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

#[allow(clippy::needless_pass_by_value, reason = "as json! takes it")]
fn of(kind: i8, name: &str, keys: Value) -> Value {
    json!({ "Resources": [{ "ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys }] })
}

fn describe(about: &str) -> Case {
    case(32, about).unordered("Results.Configs", "Name")
}

pub(crate) fn cases() -> Vec<Case> {
    let with = |mut value: Value, field: &str| {
        value[field] = json!(true);
        value
    };
    let all = Value::Null;
    vec![
        describe("every setting of a topic").ask(of(TOPIC, "orders", all.clone())),
        describe("with synonyms").ask(with(of(TOPIC, "orders", all.clone()), "IncludeSynonyms")),
        describe("with documentation")
            .ask(with(of(TOPIC, "orders", all.clone()), "IncludeDocumentation"))
            .versions(3..=4),
        describe("some settings of a topic").ask(of(
            TOPIC,
            "orders",
            json!(["retention.ms", "cleanup.policy"]),
        )),
        describe("settings that nobody knows").ask(of(
            TOPIC,
            "orders",
            json!(["no.such.setting", "retention.ms"]),
        )),
        describe("no settings").ask(of(TOPIC, "orders", json!([]))),
        describe("a setting twice").ask(of(TOPIC, "orders", json!(["retention.ms", "retention.ms"]))),
        describe("settings of its own")
            .topic_with("own-{v}", &[&[1]], &[("retention.ms", "1000"), ("max.message.bytes", "2000")])
            .ask(with(of(TOPIC, "own-{v}", all.clone()), "IncludeSynonyms")),
        describe("an unknown topic").ask(of(TOPIC, "unheard-of", all.clone())),
        describe("a topic without a name").ask(of(TOPIC, "", all.clone())),
        describe("a topic's name that cannot be").ask(of(TOPIC, "a b", all.clone())),
        describe("every setting of a broker").ask(of(BROKER, "1", all.clone())),
        describe("some settings of a broker").ask(of(
            BROKER,
            "1",
            json!(["num.partitions", "broker.rack", "log.retention.hours", "auto.create.topics.enable"]),
        )),
        describe("settings of a broker with synonyms").ask(with(
            of(BROKER, "1", json!(["num.partitions", "log.retention.ms", "message.max.bytes"])),
            "IncludeSynonyms",
        )),
        describe("another broker").ask(of(BROKER, "2", json!(["num.partitions"]))),
        describe("a broker that is not there").ask(of(BROKER, "9", json!(["num.partitions"]))),
        describe("a broker that is no number").ask(of(BROKER, "one", json!(["num.partitions"]))),
        describe("the brokers' defaults").ask(of(BROKER, "", all.clone())),
        describe("kinds of things that have no settings")
            .ask(of(0, "x", all.clone()))
            .ask(of(1, "x", all.clone()))
            .ask(of(3, "x", all.clone()))
            .ask(of(99, "x", all.clone()))
            .ask(of(-1, "x", all.clone())),
        describe("loggers of a broker").ask(of(8, "9", all.clone())).ask(of(8, "one", all)),
        describe("nothing").ask(json!({ "Resources": [] })),
        describe("one thing twice").ask(json!({ "Resources": [
            { "ResourceType": TOPIC, "ResourceName": "orders", "ConfigurationKeys": ["retention.ms"] },
            { "ResourceType": TOPIC, "ResourceName": "orders", "ConfigurationKeys": ["segment.bytes"] }] })),
        damaged(32, of(TOPIC, "orders", json!(["retention.ms"]))).unordered("Results.Configs", "Name"),
    ]
}
