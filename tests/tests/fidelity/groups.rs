//! What the cases of groups ask. Every group is coordinated by broker 1: its topic has one partition.

use serde_json::{Value, json};

pub(crate) const NOBODYS: &str = "00112233445566778899aabbccddeeff";

/// JoinGroup.
pub(crate) fn join(group: &str, member: &str, instance: Option<&str>) -> Value {
    json!({
        "GroupId": group, "SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000, "MemberId": member,
        "GroupInstanceId": instance, "ProtocolType": "consumer",
        "Protocols": [{ "Name": "range", "Metadata": "abc" }], "Reason": null,
    })
}

/// SyncGroup.
pub(crate) fn sync(group: &str, member: &str, generation: i32) -> Value {
    json!({
        "GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": null,
        "ProtocolType": "consumer", "ProtocolName": "range",
        "Assignments": [{ "MemberId": member, "Assignment": "de" }],
    })
}

/// Heartbeat.
pub(crate) fn heartbeat(group: &str, member: &str, generation: i32) -> Value {
    json!({ "GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": null })
}

/// LeaveGroup, in every version's own way.
pub(crate) fn leave(group: &str, member: &str) -> Value {
    let member = json!({ "MemberId": member, "GroupInstanceId": null, "Reason": null });
    json!({ "GroupId": group, "MemberId": member["MemberId"], "Members": [member] })
}

/// OffsetCommit of partition 0 of a topic, in every version's own way.
pub(crate) fn commit(group: &str, member: &str, generation: i32, topic: &str, offset: i64) -> Value {
    commit_of(group, member, generation, &[(topic, 0, offset, Some("note"))])
}

pub(crate) fn commit_of(
    group: &str,
    member: &str,
    generation: i32,
    parts: &[(&str, i32, i64, Option<&str>)],
) -> Value {
    let topic = |(topic, partition, offset, metadata): &(&str, i32, i64, Option<&str>)| {
        json!({
            "Name": topic, "TopicId": id_of(topic),
            "Partitions": [{ "PartitionIndex": partition, "CommittedOffset": offset,
                "CommittedLeaderEpoch": 0, "CommittedMetadata": metadata }],
        })
    };
    json!({
        "GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member,
        "GroupInstanceId": null, "RetentionTimeMs": -1,
        "Topics": parts.iter().map(topic).collect::<Vec<_>>(),
    })
}

/// A topic's id where it is known, else nobody's.
fn id_of(topic: &str) -> String {
    if topic == "unheard-of" { NOBODYS.to_owned() } else { format!("$id:{topic}") }
}

/// OffsetFetch, in every version's own way; no topics ask for all.
pub(crate) fn fetch(group: &str, topics: Option<&[&str]>) -> Value {
    let by_name = |topic: &&str| json!({ "Name": topic, "PartitionIndexes": [0, 7] });
    let by_either =
        |topic: &&str| json!({ "Name": topic, "TopicId": id_of(topic), "PartitionIndexes": [0, 7] });
    let alone = topics.map(|topics| topics.iter().map(by_name).collect::<Vec<_>>());
    let of_group = topics.map(|topics| topics.iter().map(by_either).collect::<Vec<_>>());
    json!({
        "GroupId": group, "Topics": alone, "RequireStable": false,
        "Groups": [{ "GroupId": group, "MemberId": null, "MemberEpoch": -1, "Topics": of_group }],
    })
}
