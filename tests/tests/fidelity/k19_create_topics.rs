//! CreateTopics: what is created, what is refused and in which words.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

/// A topic by numbers.
fn counted(name: &str, partitions: i32, replicas: i16) -> Value {
    json!({ "Name": name, "NumPartitions": partitions, "ReplicationFactor": replicas })
}

/// A topic by assignment.
fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> Value {
    let assignments: Vec<_> = assignments
        .iter()
        .map(|(index, brokers)| json!({ "PartitionIndex": index, "BrokerIds": brokers }))
        .collect();
    json!({ "Name": name, "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": assignments })
}

fn configured(name: &str, configs: &[(&str, Value)]) -> Value {
    let mut topic = counted(name, 1, 1);
    topic["Configs"] = configs.iter().map(|(name, value)| json!({ "Name": name, "Value": value })).collect();
    topic
}

fn create(topics: &[Value]) -> Value {
    json!({ "Topics": topics, "timeoutMs": 10_000 })
}

fn creation(about: &str) -> Case {
    case(19, about).unordered("Topics", "Name").unordered("Topics.Configs", "Name")
}

pub(crate) fn cases() -> Vec<Case> {
    let tried = |mut body: Value| {
        body["validateOnly"] = json!(true);
        body
    };
    let refused = |about: &str, topic: Value| creation(about).ask(create(&[topic]));
    let setting = |name: &str, value: Value| configured(&format!("cfg-{name}-{{v}}"), &[(name, value)]);
    let mut settings = creation("settings that cannot be");
    for (name, value) in [
        ("retention.ms", json!("soon")),
        ("retention.ms", json!("-2")),
        ("retention.ms", json!("")),
        ("retention.ms", json!(null)),
        ("cleanup.policy", json!("keep")),
        ("cleanup.policy", json!("compact,delete")),
        ("cleanup.policy", json!("")),
        ("compression.type", json!("brotli")),
        ("min.insync.replicas", json!("0")),
        ("min.insync.replicas", json!("x")),
        ("max.message.bytes", json!("-1")),
        ("segment.bytes", json!("1")),
        ("segment.bytes", json!("99999999999")),
        ("unclean.leader.election.enable", json!("maybe")),
        ("message.timestamp.type", json!("Never")),
        ("min.cleanable.dirty.ratio", json!("2")),
        ("flush.messages", json!("0")),
        ("no.such.setting", json!("1")),
        ("message.format.version", json!("3.0")),
        ("leader.replication.throttled.replicas", json!("x")),
        ("leader.replication.throttled.replicas", json!("*")),
    ] {
        settings = settings.ask(tried(create(&[setting(name, value)])));
    }
    vec![
        creation("by numbers, by default, by assignment")
            .ask(create(&[counted("numbered-{v}", 2, 3)]))
            .ask(create(&[assigned("assigned-{v}", &[(0, &[1, 2]), (1, &[2, 3])])]))
            .settled("assigned-{v}")
            .then(
                1,
                3,
                12,
                json!({ "Topics": [{ "Name": "assigned-{v}" }], "AllowAutoTopicCreation": false }),
            )
            .unordered("Brokers", "NodeId")
            .vague("ControllerId", "some broker"),
        creation("by default").ask(create(&[counted("default-{v}", -1, -1)])).versions(4..=7),
        creation("by default before there was one")
            .ask(create(&[counted("early-{v}", -1, -1)]))
            .versions(2..=3),
        creation("tried only")
            .ask(tried(create(&[counted("tried-{v}", 2, 3)])))
            .ask(tried(create(&[counted("tried-{v}", 2, 3)])))
            .ask(tried(create(&[assigned("tried-{v}", &[(0, &[1, 2])])]))),
        creation("with settings").ask(create(&[configured(
            "set-{v}",
            &[("retention.ms", json!("1000")), ("cleanup.policy", json!("compact"))],
        )])),
        settings,
        refused(
            "a setting twice",
            configured("twice-set-{v}", &[("retention.ms", json!("1")), ("retention.ms", json!("2"))]),
        ),
        refused(
            "settings that cannot be together",
            configured(
                "local-{v}",
                &[("local.retention.ms", json!("2000")), ("retention.ms", json!("1000"))],
            ),
        ),
        creation("a topic that is there").ask(create(&[counted("orders", 1, 1)])),
        creation("a topic that is there, tried only").ask(tried(create(&[counted("orders", 1, 1)]))),
        creation("good ones and bad ones").ask(create(&[
            counted("mixed-a-{v}", 1, 1),
            counted("", 1, 1),
            counted("orders", 1, 1),
            counted("mixed-b-{v}", 0, 1),
        ])),
        creation("a topic twice").ask(create(&[
            counted("same-{v}", 1, 1),
            counted("same-{v}", 1, 1),
            counted("other-{v}", 1, 1),
        ])),
        creation("no topics").ask(create(&[])),
        refused("no name", counted("", 1, 1)),
        refused("names of dots", counted(".", 1, 1)),
        refused("a name of two dots", counted("..", 1, 1)),
        refused("a name with a space", counted("a b", 1, 1)),
        refused("a name that is not ASCII", counted("ä", 1, 1)),
        refused("a name that is too long", counted(&"n".repeat(250), 1, 1)),
        creation("names that collide").topic("collides.{v}", &[&[1]]).ask(create(&[counted(
            "collides_{v}",
            1,
            1,
        )])),
        creation("names of the cluster's own").ask(create(&[counted("__cluster_metadata", 1, 1)])),
        refused("no partitions", counted("none-{v}", 0, 1)),
        refused("fewer than no partitions", counted("fewer-{v}", -2, 1)),
        refused("no replicas", counted("bare-{v}", 1, 0)),
        refused("fewer than no replicas", counted("barer-{v}", 1, -2)),
        refused("more replicas than brokers", counted("many-{v}", 1, 4)),
        refused("more partitions than can be", counted("crowd-{v}", i32::MAX, 1)),
        refused("an assignment and numbers", {
            let mut topic = assigned("both-{v}", &[(0, &[1])]);
            topic["NumPartitions"] = json!(1);
            topic
        }),
        refused("an assignment and a number of replicas", {
            let mut topic = assigned("both-r-{v}", &[(0, &[1])]);
            topic["ReplicationFactor"] = json!(1);
            topic
        }),
        refused("an assignment to a stranger", assigned("stranger-{v}", &[(0, &[9])])),
        refused("an assignment to nobody", assigned("nobody-{v}", &[(0, &[])])),
        refused("an assignment to one broker twice", assigned("doubled-{v}", &[(0, &[1, 1])])),
        refused(
            "an assignment with different numbers of replicas",
            assigned("uneven-{v}", &[(0, &[1]), (1, &[1, 2])]),
        ),
        refused("an assignment with a gap", assigned("gap-{v}", &[(0, &[1]), (2, &[1])])),
        refused("an assignment that begins at 1", assigned("late-{v}", &[(1, &[1])])),
        refused("an assignment of a partition twice", assigned("again-{v}", &[(0, &[1]), (0, &[2])])),
        refused("an assignment of a negative partition", assigned("minus-{v}", &[(-1, &[1])])),
        creation("time limits").ask({
            let mut body = create(&[counted("timely-{v}", 1, 1)]);
            body["timeoutMs"] = json!(0);
            body
        }),
        damaged(19, tried(create(&[assigned("damaged", &[(0, &[1, 2])])]))),
    ]
}
