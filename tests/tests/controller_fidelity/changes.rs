//! What tools ask by `--bootstrap-controller`, and what brokers pass on: here without a broker that looks first.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn topics(cases: &mut Vec<Case>) {
    let create = |name: &str, partitions: i32, replicas: i32| {
        json!({ "timeoutMs": 5000, "Topics": [{ "Name": name, "NumPartitions": partitions,
            "ReplicationFactor": replicas, "Assignments": [], "Configs": [] }] })
    };
    let delete = |name: &str| {
        json!({ "TimeoutMs": 5000, "TopicNames": [name],
        "Topics": [{ "Name": name, "TopicId": "00000000000000000000000000000000" }] })
    };
    let grow = |name: &str, count: i32| json!({ "TimeoutMs": 5000, "Topics": [{ "Name": name, "Count": count, "Assignments": null }] });
    cases.extend([
        case(19, "a topic").ask(create("made-{v}", 2, 1)).unordered("Topics.Configs", "Name"),
        case(19, "a topic that is there").ask(create("solo", 1, 1)),
        case(19, "names that cannot be").ask(create("", 1, 1)).ask(create("a b", 1, 1)),
        case(19, "too many replicas").ask(create("never", 1, 9)),
        case(19, "topics of the cluster's own").ask(create("__cluster_metadata", 1, 1)),
        damaged(19, create("solo", 1, 1)),
        case(20, "a topic").topic("gone-{v}", &[&[1]]).ask(delete("gone-{v}")),
        case(20, "an unknown topic").ask(delete("unheard-of")),
        damaged(20, delete("unheard-of")),
        case(37, "more partitions")
            .topic("more-{v}", &[&[1]])
            .ask(grow("more-{v}", 2))
            .ask(grow("more-{v}", 1)),
        case(37, "an unknown topic").ask(grow("unheard-of", 2)),
        damaged(37, grow("unheard-of", 2)),
    ]);
}

fn settings(cases: &mut Vec<Case>) {
    let alter = |kind: i8, name: &str, config: &str, value: Value| {
        json!({ "Resources": [{ "ResourceType": kind, "ResourceName": name,
            "Configs": [{ "Name": config, "ConfigOperation": 0, "Value": value }] }], "ValidateOnly": false })
    };
    for api in [33, 44] {
        let plain = |kind: i8, name: &str, config: &str, value: Value| {
            let mut body = alter(kind, name, config, value);
            if api == 33 {
                body["Resources"][0]["Configs"] =
                    json!([{ "Name": config, "Value": body["Resources"][0]["Configs"][0]["Value"] }]);
            }
            body
        };
        cases.extend([
            case(api, "a topic's").topic(&format!("set-{api}-{{v}}"), &[&[1]]).ask(plain(
                2,
                "set-{v}",
                "retention.ms",
                json!("1000"),
            )),
            case(api, "values that cannot be").ask(plain(2, "solo", "retention.ms", json!("x"))).ask(plain(
                2,
                "solo",
                "retention.ms",
                Value::Null,
            )),
            case(api, "an unknown topic").ask(plain(2, "unheard-of", "retention.ms", json!("1000"))),
            case(api, "a broker that is not there").ask(plain(4, "99", "log.retention.ms", json!("1000"))),
            damaged(api, plain(2, "unheard-of", "retention.ms", json!("1000"))),
        ]);
    }
}

fn leaders(cases: &mut Vec<Case>) {
    let elect = |kind: i8, topic: &str, partitions: &[i32]| json!({ "ElectionType": kind, "TopicPartitions": [{ "Topic": topic, "Partitions": partitions }], "TimeoutMs": 5000 });
    let reassign = |topic: &str, replicas: Value| json!({ "TimeoutMs": 5000, "Topics": [{ "Name": topic, "Partitions": [{ "PartitionIndex": 0, "Replicas": replicas }] }] });
    cases.extend([
        case(43, "who leads already").ask(elect(0, "solo", &[0])).ask(elect(1, "solo", &[0])),
        case(43, "unknown ones").ask(elect(0, "unheard-of", &[0])).ask(elect(0, "solo", &[9])),
        damaged(43, elect(0, "unheard-of", &[0])),
        case(45, "where it is").ask(reassign("solo", json!([1]))),
        case(45, "nothing to cancel").ask(reassign("solo", Value::Null)),
        case(45, "brokers that are not there").ask(reassign("solo", json!([99]))),
        case(45, "an unknown topic").ask(reassign("unheard-of", json!([1]))),
        damaged(45, reassign("unheard-of", json!([1]))),
        case(46, "all").ask(json!({ "TimeoutMs": 5000, "Topics": null })),
        case(46, "one")
            .ask(json!({ "TimeoutMs": 5000, "Topics": [{ "Name": "solo", "PartitionIndexes": [0, 5] }] })),
        damaged(46, json!({ "TimeoutMs": 5000, "Topics": [{ "Name": "solo", "PartitionIndexes": [0] }] })),
    ]);
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    topics(&mut cases);
    settings(&mut cases);
    leaders(&mut cases);
    let update = |feature: &str, level: i16| {
        json!({ "timeoutMs": 5000, "ValidateOnly": true,
            "FeatureUpdates": [{ "Feature": feature, "MaxVersionLevel": level, "UpgradeType": 1 }] })
    };
    cases.extend([
        case(57, "the level that it has").ask(update("metadata.version", 30)).versions(1..=2),
        case(57, "a level that is too high").ask(update("metadata.version", 99)).versions(1..=2),
        case(57, "a feature that nobody knows").ask(update("no.such.feature", 1)).versions(1..=2),
        damaged(57, update("no.such.feature", 1)),
        case(60, "the controllers").ask(json!({ "EndpointType": 2 })),
        case(60, "the brokers").ask(json!({ "EndpointType": 1 })),
        case(60, "endpoints of neither").ask(json!({ "EndpointType": 0 })).ask(json!({ "EndpointType": 9 })),
        case(60, "what may be done")
            .ask(json!({ "EndpointType": 2, "IncludeClusterAuthorizedOperations": true })),
        damaged(60, json!({ "EndpointType": 2 })),
        case(18, "what is advertised")
            .ask(json!({ "ClientSoftwareName": "a", "ClientSoftwareVersion": "1" })),
        case(18, "names that cannot be")
            .ask(json!({ "ClientSoftwareName": "a b", "ClientSoftwareVersion": "1" }))
            .ask(json!({ "ClientSoftwareName": "", "ClientSoftwareVersion": "" }))
            .versions(3..=4),
        damaged(18, json!({ "ClientSoftwareName": "a", "ClientSoftwareVersion": "1" })),
    ]);
    cases
}
