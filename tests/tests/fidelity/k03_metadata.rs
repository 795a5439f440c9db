//! Metadata: by name, by id, all, none, and topics that come into being by being asked for.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const NOBODYS: &str = "00112233445566778899aabbccddeeff";

fn of(names: &[&str]) -> Value {
    let topics: Vec<_> = names.iter().map(|name| json!({ "Name": name })).collect();
    json!({ "Topics": topics, "AllowAutoTopicCreation": false })
}

fn metadata(about: &str) -> Case {
    case(3, about)
        .unordered("Brokers", "NodeId")
        .unordered("Topics", "Name")
        .vague("ControllerId", "some broker")
}

pub(crate) fn cases() -> Vec<Case> {
    let id = |id: &str| json!({ "TopicId": id, "Name": null });
    let ids = |ids: &[&str]| {
        let topics: Vec<_> = ids.iter().map(|wanted| id(wanted)).collect();
        json!({ "Topics": topics, "AllowAutoTopicCreation": false })
    };
    let with = |mut body: Value, field: &str| {
        body[field] = json!(true);
        body
    };
    // Before version 4 whoever asks for a topic wants it created.
    vec![
        metadata("topics by name").ask(of(&["orders", "solo", "empty"])).ask_of(3, of(&["orders"])),
        metadata("topics by name, in another order").ask(of(&["solo", "orders"])),
        metadata("an unknown topic").ask(of(&["unheard-of"])).versions(4..=13),
        metadata("unknown topics among known ones")
            .ask(of(&["unheard-of", "orders", "nothing", "solo"]))
            .versions(4..=13),
        metadata("a topic asked for twice").ask(of(&["orders", "orders"])),
        metadata("an unknown topic asked for twice").ask(of(&["unheard-of", "unheard-of"])).versions(4..=13),
        metadata("no topics").ask(of(&[])).versions(1..=13),
        metadata("names that cannot be")
            .ask(of(&["", ".", "..", "a b", "ä", "a/b", &"n".repeat(249), &"n".repeat(250)]))
            .versions(4..=13),
        metadata("names that cannot be, to be created").ask(json!({
            "Topics": [{ "Name": "" }, { "Name": "." }, { "Name": "a b" }, { "Name": "n".repeat(250) }],
            "AllowAutoTopicCreation": true,
        })),
        metadata("internal topics")
            .ask(of(&["__cluster_metadata", "__transaction_state_", "__share_group_state"]))
            .versions(4..=13),
        metadata("what may be done with the cluster")
            .ask(with(of(&["orders"]), "IncludeClusterAuthorizedOperations"))
            .versions(8..=13),
        metadata("what may be done with topics")
            .ask(with(of(&["orders", "unheard-of"]), "IncludeTopicAuthorizedOperations"))
            .versions(8..=13),
        metadata("topics by id").ask(ids(&["$id:orders", "$id:solo"])).versions(10..=13),
        metadata("ids that nobody has").ask(ids(&[NOBODYS, "$id:orders"])).versions(10..=13),
        metadata("the id of zeros").ask(ids(&["00000000000000000000000000000000"])).versions(10..=13),
        metadata("an id asked for twice").ask(ids(&["$id:orders", "$id:orders"])).versions(10..=13),
        metadata("ids and names mixed")
            .ask(json!({ "Topics": [id("$id:orders"), { "Name": "solo" }], "AllowAutoTopicCreation": false }))
            .versions(10..=13),
        metadata("an id together with a name")
            .ask(json!({ "Topics": [{ "TopicId": "$id:orders", "Name": "orders" }] }))
            .ask(json!({ "Topics": [{ "TopicId": "$id:orders", "Name": "solo" }] }))
            .versions(10..=13),
        metadata("a topic created by asking for it")
            .ask(json!({ "Topics": [{ "Name": "asked-for-{v}" }], "AllowAutoTopicCreation": true }))
            .settled("asked-for-{v}")
            .ask(of(&["asked-for-{v}"]))
            .vague("Topics.Partitions.LeaderId", "some broker")
            .vague("Topics.Partitions.ReplicaNodes", "some broker")
            .vague("Topics.Partitions.IsrNodes", "some broker"),
        damaged(3, of(&["orders"])).unordered("Brokers", "NodeId").vague("ControllerId", "some broker"),
    ]
}
