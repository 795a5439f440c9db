//! Fetch: by name and id, sessions, limits, epochs.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const NOBODYS: &str = "00112233445566778899aabbccddeeff";

fn topic(name: &str, partitions: &[Value]) -> Value {
    let id = if name == "unheard-of" { NOBODYS.to_owned() } else { format!("$id:{name}") };
    json!({ "Topic": name, "TopicId": id, "Partitions": partitions })
}

fn at(partition: i32, offset: i64) -> Value {
    json!({ "Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20 })
}

fn with(mut value: Value, field: &str, wanted: impl Into<Value>) -> Value {
    value[field] = wanted.into();
    value
}

fn read(topics: &[Value]) -> Value {
    json!({ "ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 10 << 20, "Topics": topics })
}

fn one(name: &str, partition: Value) -> Value {
    read(&[topic(name, &[partition])])
}

fn fetch(about: &str) -> Case {
    case(1, about)
}

pub(crate) fn cases() -> Vec<Case> {
    let filled = |offset: i64| one("filled", at(0, offset));
    vec![
        fetch("from the start, the middle, a batch's middle and the end")
            .ask(filled(0))
            .ask(filled(3))
            .ask(filled(5))
            .ask(filled(7)),
        fetch("offsets out of range").ask(filled(8)).ask(filled(-1)).ask(filled(i64::MAX)),
        fetch("an empty partition").ask(one("empty", at(0, 0))),
        fetch("partitions of other leaders")
            .ask(read(&[topic("orders", &[at(1, 0), at(2, 0)])]))
            .ask(one("solo", at(0, 0))),
        fetch("unknown partitions").ask(read(&[topic("filled", &[at(3, 0), at(-1, 0), at(0, 6)])])),
        fetch("an unknown topic").ask(one("unheard-of", at(0, 0))),
        fetch("no topics").ask(read(&[])),
        fetch("no partitions").ask(read(&[topic("filled", &[])])),
        fetch("a partition twice").ask(read(&[topic("filled", &[at(0, 0), at(0, 6)])])),
        fetch("committed records only").ask(with(filled(0), "IsolationLevel", 1)),
        fetch("an isolation level of 2").ask(with(filled(0), "IsolationLevel", 2)),
        fetch("limits in bytes")
            .ask(with(filled(0), "MaxBytes", 1))
            .ask(with(filled(0), "MaxBytes", 150))
            .ask(with(filled(0), "MaxBytes", 0))
            .ask(with(filled(0), "MaxBytes", -1))
            .ask(one("filled", with(at(0, 0), "PartitionMaxBytes", 1)))
            .ask(one("filled", with(at(0, 0), "PartitionMaxBytes", 100)))
            .ask(one("filled", with(at(0, 0), "PartitionMaxBytes", 0)))
            .ask(one("filled", with(at(0, 0), "PartitionMaxBytes", -1))),
        fetch("what is waited for")
            .ask(with(with(filled(0), "MinBytes", 1 << 30), "MaxWaitMs", 20))
            .ask(with(with(filled(7), "MinBytes", 1), "MaxWaitMs", 20))
            .ask(with(with(filled(7), "MinBytes", 1), "MaxWaitMs", -1))
            .ask(with(filled(7), "MinBytes", -1)),
        fetch("a leader epoch that is right, older, newer")
            .ask(one("filled", with(at(0, 0), "CurrentLeaderEpoch", 0)))
            .ask(one("filled", with(at(0, 0), "CurrentLeaderEpoch", 7)))
            .ask(one("filled", with(at(0, 0), "CurrentLeaderEpoch", -2)))
            .ask(one("orders", with(at(1, 0), "CurrentLeaderEpoch", 7)))
            .versions(9..=18),
        fetch("the epoch of the last record fetched")
            .ask(one("filled", with(at(0, 7), "LastFetchedEpoch", 0)))
            .ask(one("filled", with(at(0, 7), "LastFetchedEpoch", 5)))
            .ask(one("filled", with(at(0, 9), "LastFetchedEpoch", 0)))
            .versions(12..=18),
        fetch("a rack").ask(with(filled(6), "RackId", "RACK2")).ask(with(filled(6), "RackId", "nowhere")),
        fetch("a session, forgotten partitions, its end")
            .ask(with(
                with(read(&[topic("filled", &[at(0, 6)]), topic("empty", &[at(0, 0)])]), "SessionId", 0),
                "SessionEpoch",
                0,
            ))
            .keep("session", "SessionId")
            .ask(with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 1))
            .ask(with(
                with(read(&[topic("filled", &[at(0, 3)])]), "SessionId", "$session"),
                "SessionEpoch",
                2,
            ))
            .ask(with(
                with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 3),
                "ForgottenTopicsData",
                json!([{ "Topic": "filled", "TopicId": "$id:filled", "Partitions": [0] }]),
            ))
            .ask(with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 3))
            .ask(with(
                with(read(&[topic("empty", &[at(0, 0)])]), "SessionId", "$session"),
                "SessionEpoch",
                -1,
            ))
            .ask(with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 4))
            .versions(7..=18),
        fetch("sessions that are not there")
            .ask(with(with(read(&[]), "SessionId", 12345), "SessionEpoch", 1))
            .ask(with(with(read(&[]), "SessionId", 0), "SessionEpoch", 1))
            .ask(with(with(read(&[topic("filled", &[at(0, 6)])]), "SessionId", 12345), "SessionEpoch", 0))
            .ask(with(with(read(&[topic("filled", &[at(0, 6)])]), "SessionId", 12345), "SessionEpoch", -1))
            .ask(with(with(filled(6), "SessionId", 0), "SessionEpoch", -2))
            .versions(7..=18),
        fetch("a session with partitions that are refused")
            .ask(with(
                with(
                    read(&[topic("filled", &[at(0, 99), at(5, 0)]), topic("unheard-of", &[at(0, 0)])]),
                    "SessionId",
                    0,
                ),
                "SessionEpoch",
                0,
            ))
            .keep("session", "SessionId")
            .ask(with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 1))
            .versions(7..=18),
        fetch("the order in a session")
            .ask(with(
                with(
                    read(&[
                        topic("filled", &[at(0, 0)]),
                        topic("solo", &[at(0, 0)]),
                        topic("unheard-of", &[at(0, 0)]),
                        topic("empty", &[at(7, 0), at(0, 0)]),
                    ]),
                    "SessionId",
                    0,
                ),
                "SessionEpoch",
                0,
            ))
            .keep("session", "SessionId")
            .ask(with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 1))
            .ask(with(
                with(
                    read(&[topic("orders", &[at(1, 0), at(0, 0)]), topic("filled", &[at(0, 3)])]),
                    "SessionId",
                    "$session",
                ),
                "SessionEpoch",
                2,
            ))
            .ask(with(with(read(&[]), "SessionId", "$session"), "SessionEpoch", 3))
            .versions(7..=18),
        fetch("a stranger as follower")
            .ask(with(filled(0), "ReplicaId", 9))
            .ask(with(filled(0), "ReplicaId", -2))
            .versions(4..=14),
        fetch("a stranger as follower with an epoch")
            .ask(with(filled(0), "ReplicaState", json!({ "ReplicaId": 9, "ReplicaEpoch": 1 })))
            .versions(15..=18),
        fetch("another cluster's id")
            .ask(with(filled(6), "ClusterId", "AAAAAAAAAAAAAAAAAAAAAA"))
            .versions(12..=18),
        fetch("the cluster's own log").ask(one("__cluster_metadata", at(0, 1 << 40))).versions(4..=12),
        damaged(1, filled(7)),
    ]
}
