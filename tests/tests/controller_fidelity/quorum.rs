//! The quorum's own requests. Node 1 is the only voter and leads; nothing here may depose it.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

use super::CLUSTER_ID;

const LOG: &str = "__cluster_metadata";
/// Kafka's id of it.
const LOG_ID: &str = "00000000000000000000000000000001";

/// A request about a partition, for a cluster.
#[allow(clippy::needless_pass_by_value, reason = "as json! takes it")]
fn of(cluster: Value, topic: &str, partition: Value) -> Value {
    json!({ "ClusterId": cluster, "Topics": [{ "TopicName": topic, "Partitions": [partition] }] })
}

fn here(partition: Value) -> Value {
    of(json!(CLUSTER_ID), LOG, partition)
}

fn with(mut value: Value, field: &str, wanted: impl Into<Value>) -> Value {
    value[field] = wanted.into();
    value
}

/// Requests that are addressed wrongly, each harmless.
fn misaddressed(cases: &mut Vec<Case>, api: i16, partition: &Value) {
    let about = |about: &str| quorum(case(api, about));
    cases.extend([
        about("another cluster's id").ask(of(json!("another"), LOG, partition.clone())).ask(of(
            json!(""),
            LOG,
            partition.clone(),
        )),
        about("no cluster's id").ask(of(Value::Null, LOG, partition.clone())),
        about("another topic").ask(of(json!(CLUSTER_ID), "solo", partition.clone())),
        about("another partition").ask(here(with(partition.clone(), "PartitionIndex", 1))),
        about("no topics").ask(json!({ "ClusterId": CLUSTER_ID, "Topics": [] })),
        about("no partitions")
            .ask(json!({ "ClusterId": CLUSTER_ID, "Topics": [{ "TopicName": LOG, "Partitions": [] }] })),
        about("two partitions").ask(json!({ "ClusterId": CLUSTER_ID, "Topics": [{ "TopicName": LOG,
            "Partitions": [partition, with(partition.clone(), "PartitionIndex", 1)] }] })),
        about("two topics").ask(json!({ "ClusterId": CLUSTER_ID, "Topics": [
            { "TopicName": LOG, "Partitions": [partition] },
            { "TopicName": "solo", "Partitions": [partition] }] })),
        quorum(damaged(api, here(partition.clone()))),
    ]);
}

/// The epoch of the only voter is its number of starts, and of elections of its own.
fn quorum(case: Case) -> Case {
    ["Topics.Partitions.LeaderEpoch", "Responses.Partitions.CurrentLeader.LeaderEpoch"]
        .iter()
        .fold(case, |case, field| case.vague(field, "some epoch"))
        .vague("Topics.Partitions.CurrentLeader.LeaderEpoch", "some epoch")
        .vague("NodeEndpoints.Port", "some port")
}

/// Learns the epoch of the leader.
fn knowing(about: Case) -> Case {
    about
        .first_at_controller(
            55,
            1,
            json!({ "Topics": [{ "TopicName": LOG, "Partitions": [{ "PartitionIndex": 0 }] }] }),
        )
        .keep("epoch", "Topics[0].Partitions[0].LeaderEpoch")
}

fn votes(cases: &mut Vec<Case>) {
    let vote = |epoch: Value, candidate: i32| json!({ "PartitionIndex": 0, "ReplicaEpoch": epoch, "ReplicaId": candidate, "LastOffsetEpoch": 0, "LastOffset": 0 });
    let about = |about: &str| quorum(case(52, about));
    cases.extend([
        about("an epoch that is over").ask(here(vote(json!(0), 2))),
        knowing(about("this epoch, from another")).ask(here(vote(json!("$epoch"), 2))),
        knowing(about("this epoch, from itself")).ask(here(vote(json!("$epoch"), 1))),
        knowing(about("a pre-vote in this epoch"))
            .ask(here(with(vote(json!("$epoch"), 2), "PreVote", true)))
            .versions(2..=2),
        about("a pre-vote in an epoch that is over")
            .ask(here(with(vote(json!(0), 2), "PreVote", true)))
            .versions(2..=2),
        about("epochs that cannot be").ask(here(vote(json!(-1), 2))).ask(here(vote(json!(i32::MIN), 2))),
        about("a candidate that cannot be").ask(here(vote(json!(0), -1))),
        about("ends that cannot be")
            .ask(here(with(vote(json!(0), 2), "LastOffset", -1)))
            .ask(here(with(vote(json!(0), 2), "LastOffsetEpoch", -1)))
            .ask(here(with(vote(json!(0), 2), "LastOffsetEpoch", 5))),
        knowing(about("meant for another voter"))
            .ask(with(here(vote(json!("$epoch"), 2)), "VoterId", 2))
            .versions(1..=2),
        about("meant for this voter")
            .ask(with(here(vote(json!(0), 2)), "VoterId", 1))
            .ask(with(here(vote(json!(0), 2)), "VoterId", -2))
            .versions(1..=2),
    ]);
    misaddressed(cases, 52, &vote(json!(0), 2));
}

fn epochs(cases: &mut Vec<Case>) {
    let led =
        |epoch: Value, leader: i32| json!({ "PartitionIndex": 0, "LeaderId": leader, "LeaderEpoch": epoch });
    for api in [53, 54] {
        let about = |about: &str| quorum(case(api, about));
        cases.extend([
            about("an epoch that is over").ask(here(led(json!(0), 2))).ask(here(led(json!(0), 1))),
            about("epochs that cannot be").ask(here(led(json!(-1), 2))).ask(here(led(json!(i32::MIN), 1))),
            about("a leader that cannot be").ask(here(led(json!(0), -1))),
        ]);
        misaddressed(cases, api, &led(json!(0), 2));
    }
    cases.push(
        quorum(case(53, "meant for another voter"))
            .ask(with(here(led(json!(0), 2)), "VoterId", 2))
            .ask(with(here(led(json!(0), 2)), "VoterId", 1))
            .versions(1..=1),
    );
    // The right epoch with another leader is not sent here: it ends Apache Kafka's process. Ours: `broker-lite/tests/quorum.rs`.
}

fn fetches(cases: &mut Vec<Case>) {
    let fetch = |offset: i64, epoch: Value, last_epoch: i32| {
        json!({ "ClusterId": CLUSTER_ID, "ReplicaId": 9, "ReplicaState": { "ReplicaId": 9, "ReplicaEpoch": -1 },
            "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1, "SessionEpoch": -1,
            "Topics": [{ "Topic": LOG, "TopicId": LOG_ID, "Partitions": [{ "Partition": 0, "FetchOffset": offset,
                "CurrentLeaderEpoch": epoch, "LastFetchedEpoch": last_epoch, "LogStartOffset": -1,
                "PartitionMaxBytes": 1 }] }] })
    };
    let about = |about: &str| {
        quorum(case(1, about))
            .vague("Responses.Partitions.HighWatermark", "some offset")
            .vague("Responses.Partitions.LastStableOffset", "some offset")
            .vague("Responses.Partitions.LogStartOffset", "some offset")
            .vague("Responses.Partitions.DivergingEpoch.EndOffset", "some offset")
            .vague("Responses.Partitions.DivergingEpoch.Epoch", "some epoch")
    };
    let topic = |name: &str, id: &str, partition: i32| {
        let mut body = fetch(0, json!(-1), -1);
        body["Topics"][0]["Topic"] = json!(name);
        body["Topics"][0]["TopicId"] = json!(id);
        body["Topics"][0]["Partitions"][0]["Partition"] = json!(partition);
        body
    };
    cases.extend([
        about("an epoch that is over").ask(fetch(0, json!(0), 0)),
        about("an epoch to come").ask(fetch(0, json!(9999), 0)),
        about("an epoch that is not known").ask(fetch(0, json!(-1), 0)),
        knowing(about("a log that diverges")).ask(fetch(1_000_000, json!("$epoch"), 0)),
        knowing(about("an epoch of the last record that is to come")).ask(fetch(0, json!("$epoch"), 9999)),
        knowing(about("the log from its start"))
            .ask(fetch(0, json!("$epoch"), 0))
            .vague("Responses.Partitions.Records.BaseTimestamp", "some time")
            .vague("Responses.Partitions.Records.MaxTimestamp", "some time"),
        about("an offset that cannot be").ask(fetch(-1, json!(-1), -1)).ask(fetch(i64::MIN, json!(-1), -1)),
        knowing(about("an epoch of the last record that cannot be"))
            .ask(fetch(5, json!("$epoch"), -1))
            .ask(fetch(5, json!("$epoch"), i32::MIN)),
        about("another cluster's id")
            .ask(with(fetch(0, json!(-1), -1), "ClusterId", "another"))
            .versions(12..=18),
        about("another topic").ask(topic("solo", "$id:solo", 0)),
        about("an unknown topic").ask(topic("unheard-of", "00112233445566778899aabbccddeeff", 0)),
        about("another partition").ask(topic(LOG, LOG_ID, 1)),
        about("no topics").ask(with(fetch(0, json!(-1), -1), "Topics", json!([]))),
        about("limits that cannot be").ask(with(fetch(0, json!(0), -1), "MaxWaitMs", -1)),
        about("damage done").ask(fetch(0, json!(0), -1)),
        quorum(damaged(1, fetch(0, json!(0), -1))),
    ]);
}

fn snapshots(cases: &mut Vec<Case>) {
    let fetch = |end: i64, epoch: i32, position: i64| {
        json!({ "ClusterId": CLUSTER_ID, "ReplicaId": 9, "MaxBytes": 100, "Topics": [{ "Name": LOG, "Partitions": [{
            "Partition": 0, "CurrentLeaderEpoch": "$epoch", "SnapshotId": { "EndOffset": end, "Epoch": epoch },
            "Position": position }] }] })
    };
    let about = |about: &str| knowing(quorum(case(59, about)));
    let named = |name: &str, partition: i32| {
        let mut body = fetch(0, 0, 0);
        body["Topics"][0]["Name"] = json!(name);
        body["Topics"][0]["Partitions"][0]["Partition"] = json!(partition);
        body
    };
    let of_epoch = |epoch: i32| {
        let mut body = fetch(0, 0, 0);
        body["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = json!(epoch);
        body
    };
    cases.extend([
        about("a snapshot that is not there").ask(fetch(123_456, 0, 0)).ask(fetch(-1, -1, 0)),
        about("positions that cannot be").ask(fetch(123_456, 0, -1)),
        about("another cluster's id").ask(with(fetch(0, 0, 0), "ClusterId", "another")),
        about("another topic").ask(named("solo", 0)),
        about("another partition").ask(named(LOG, 1)),
        // No topics at all end Apache Kafka's process.
        about("an epoch of the past").ask(of_epoch(0)),
        about("an epoch to come").ask(of_epoch(9999)),
        quorum(damaged(59, with(of_epoch(0), "ClusterId", "another"))),
    ]);
}

fn described(cases: &mut Vec<Case>) {
    let of = |topic: &str, partition: i32| json!({ "Topics": [{ "TopicName": topic, "Partitions": [{ "PartitionIndex": partition }] }] });
    let about = |about: &str| {
        let about = quorum(case(55, about)).vague("Topics.Partitions.HighWatermark", "some offset");
        let about = about.vague("Nodes.Listeners.Port", "some port");
        ["CurrentVoters", "Observers"].iter().fold(about, |about, list| {
            about
                .vague(&format!("Topics.Partitions.{list}.LogEndOffset"), "some offset")
                .vague(&format!("Topics.Partitions.{list}.LastFetchTimestamp"), "some time")
                .vague(&format!("Topics.Partitions.{list}.LastCaughtUpTimestamp"), "some time")
                .vague(&format!("Topics.Partitions.{list}.ReplicaDirectoryId"), "some directory")
        })
    };
    cases.extend([
        about("the quorum").ask(of(LOG, 0)),
        about("another topic").ask(of("solo", 0)),
        about("another partition").ask(of(LOG, 1)),
        about("no topics").ask(json!({ "Topics": [] })),
        quorum(damaged(55, of("solo", 0))),
    ]);
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Before somebody has fetched who is remembered as an observer.
    described(&mut cases);
    votes(&mut cases);
    epochs(&mut cases);
    fetches(&mut cases);
    snapshots(&mut cases);
    cases
}
