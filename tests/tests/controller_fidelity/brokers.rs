//! What brokers ask of the controller: brokers 7 to 9, which exist as registrations only.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

use super::CLUSTER_ID;

const INCARNATION: &str = "00112233445566778899aabbccddeeff";
const OTHER: &str = "ffeeddccbbaa99887766554433221100";
/// No two brokers have the same.
fn directory(broker: i32) -> String {
    format!("0123456789abcdef{:016x}", broker.unsigned_abs())
}

fn registration(broker: i32) -> Value {
    let listener = json!({ "Name": "PLAINTEXT", "Host": "localhost", "Port": 9, "SecurityProtocol": 0 });
    let features = [
        "metadata.version",
        "kraft.version",
        "transaction.version",
        "group.version",
        "eligible.leader.replicas.version",
        "share.version",
        "streams.version",
    ];
    let features: Vec<_> = features
        .iter()
        .map(|name| json!({ "Name": name, "MinSupportedVersion": i16::from(*name == "metadata.version") * 7, "MaxSupportedVersion": 30 }))
        .collect();
    json!({ "BrokerId": broker, "ClusterId": CLUSTER_ID, "IncarnationId": INCARNATION, "Listeners": [listener],
        "Features": features, "Rack": null, "LogDirs": [directory(broker)], "PreviousBrokerEpoch": -1 })
}

fn with(mut value: Value, field: &str, wanted: impl Into<Value>) -> Value {
    value[field] = wanted.into();
    value
}

/// Broker 7 is registered, and its epoch kept.
fn registered(about: Case) -> Case {
    about.first_at_controller(62, 4, registration(7)).keep("epoch", "BrokerEpoch")
}

fn registrations(cases: &mut Vec<Case>) {
    let about = |about: &str| case(62, about);
    cases.extend([
        about("a broker").ask(registration(8)).versions(2..=4),
        about("a broker without directories").ask(registration(8)).versions(0..=1),
        about("the same incarnation again").ask(registration(8)).ask(registration(8)).versions(2..=4),
        about("another incarnation of one that lives")
            .ask(with(registration(1), "IncarnationId", OTHER))
            .versions(2..=4),
        about("another cluster's id").ask(with(registration(8), "ClusterId", "another")),
        about("no listeners").ask(with(registration(8), "Listeners", json!([]))),
        about("a listener twice").ask(with(
            registration(8),
            "Listeners",
            json!([
            { "Name": "PLAINTEXT", "Host": "a", "Port": 1, "SecurityProtocol": 0 },
            { "Name": "PLAINTEXT", "Host": "b", "Port": 2, "SecurityProtocol": 0 }]),
        )),
        // A protocol that is none, as a number, makes Apache Kafka's controller resign.
        about("no features").ask(with(registration(8), "Features", json!([]))),
        about("a feature that is too low").ask(with(
            registration(8),
            "Features",
            json!([
            { "Name": "metadata.version", "MinSupportedVersion": 7, "MaxSupportedVersion": 8 }]),
        )),
        about("a number that cannot be").ask(with(registration(8), "BrokerId", -1)),
        about("a broker that migrates from ZooKeeper")
            .ask(with(registration(8), "IsMigratingZkBroker", true))
            .versions(1..=4),
        about("directories that cannot be")
            .ask(with(registration(8), "LogDirs", json!([directory(8), directory(8)])))
            .ask(with(registration(8), "LogDirs", json!(["00000000000000000000000000000000"])))
            .versions(2..=4),
        damaged(62, with(registration(8), "ClusterId", "another")),
    ]);
}

fn heartbeats(cases: &mut Vec<Case>) {
    let beat = |broker: i32, epoch: Value| json!({ "BrokerId": broker, "BrokerEpoch": epoch, "CurrentMetadataOffset": 0, "WantFence": true, "WantShutDown": false });
    let about = |about: &str| case(63, about);
    cases.extend([
        registered(about("a broker that stays fenced")).ask(beat(7, json!("$epoch"))),
        registered(about("a broker that shuts down")).ask(with(
            beat(7, json!("$epoch")),
            "WantShutDown",
            true,
        )),
        registered(about("a broker that is behind")).ask(with(beat(7, json!("$epoch")), "WantFence", false)),
        registered(about("an epoch that is not the broker's"))
            .ask(beat(7, json!(0)))
            .ask(beat(7, json!(-1)))
            .ask(beat(7, json!(i64::MAX))),
        about("a broker that nobody knows").ask(beat(99, json!(1))).ask(beat(-1, json!(1))),
        damaged(63, beat(99, json!(1))),
    ]);
}

fn producer_ids(cases: &mut Vec<Case>) {
    let ids = |broker: i32, epoch: Value| json!({ "BrokerId": broker, "BrokerEpoch": epoch });
    let about = |about: &str| case(67, about).vague("ProducerIdStart", "some id");
    cases.extend([
        registered(about("a block")).ask(ids(7, json!("$epoch"))),
        registered(about("an epoch that is not the broker's")).ask(ids(7, json!(0))).ask(ids(7, json!(-1))),
        about("a broker that nobody knows").ask(ids(99, json!(1))).ask(ids(-1, json!(1))),
        damaged(67, ids(99, json!(1))),
    ]);
}

fn isr(cases: &mut Vec<Case>) {
    let alter = |broker: i32, epoch: Value, topic: &str, partition: Value| {
        json!({ "BrokerId": broker, "BrokerEpoch": epoch,
            "Topics": [{ "TopicId": topic, "Partitions": [partition] }] })
    };
    let partition = |index: i32, leader_epoch: i32, partition_epoch: i32, isr: &[i32]| {
        let with_epochs: Vec<_> = isr.iter().map(|id| json!({ "BrokerId": id, "BrokerEpoch": -1 })).collect();
        json!({ "PartitionIndex": index, "LeaderEpoch": leader_epoch, "NewIsr": isr,
            "NewIsrWithEpochs": with_epochs, "LeaderRecoveryState": 0, "PartitionEpoch": partition_epoch })
    };
    let about = |about: &str| case(56, about);
    let seven = |topic: &str, partition: Value| alter(7, json!("$epoch"), topic, partition);
    cases.extend([
        registered(about("from another than the leader")).ask(seven("$id:solo", partition(0, 0, 0, &[1]))),
        registered(about("an unknown partition")).ask(seven("$id:solo", partition(7, 0, 0, &[1]))),
        registered(about("an unknown topic")).ask(seven(OTHER, partition(0, 0, 0, &[1]))),
        registered(about("epochs to come"))
            .ask(seven("$id:solo", partition(0, 9, 0, &[1])))
            .ask(seven("$id:solo", partition(0, 0, 9, &[1]))),
        registered(about("epochs that are over"))
            .ask(seven("$id:solo", partition(0, -1, 0, &[1])))
            .ask(seven("$id:solo", partition(0, 0, -1, &[1]))),
        registered(about("an empty ISR")).ask(seven("$id:solo", partition(0, 0, 0, &[]))),
        registered(about("no topics")).ask(json!({ "BrokerId": 7, "BrokerEpoch": "$epoch", "Topics": [] })),
        registered(about("an epoch that is not the broker's")).ask(alter(
            7,
            json!(0),
            "$id:solo",
            partition(0, 0, 0, &[1]),
        )),
        about("a broker that nobody knows").ask(alter(99, json!(1), "$id:solo", partition(0, 0, 0, &[1]))),
        damaged(56, alter(99, json!(1), OTHER, partition(0, 0, 0, &[1]))),
    ]);
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    registrations(&mut cases);
    heartbeats(&mut cases);
    producer_ids(&mut cases);
    isr(&mut cases);
    cases.extend([
        registered(case(64, "a broker that is registered")).ask(json!({ "BrokerId": 7 })),
        case(64, "a broker that is not there").ask(json!({ "BrokerId": 99 })).ask(json!({ "BrokerId": -1 })),
        damaged(64, json!({ "BrokerId": 99 })),
    ]);
    cases
}
