//! DescribeQuorum: who leads and how far each is differs by nature.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let of = |topic: &str, partitions: &[i32]| {
        let partitions: Vec<_> = partitions.iter().map(|index| json!({ "PartitionIndex": index })).collect();
        json!({ "Topics": [{ "TopicName": topic, "Partitions": partitions }] })
    };
    let quorum = |case: Case| {
        let mut case = case
            .vague("Topics.Partitions.LeaderId", "some voter")
            .vague("Topics.Partitions.LeaderEpoch", "some epoch")
            .vague("Topics.Partitions.HighWatermark", "some offset")
            .unordered("Topics.Partitions.CurrentVoters", "ReplicaId")
            .unordered("Topics.Partitions.Observers", "ReplicaId")
            .unordered("Nodes", "NodeId");
        for list in ["CurrentVoters", "Observers"] {
            case = case
                .vague(&format!("Topics.Partitions.{list}.LogEndOffset"), "some offset")
                .vague(&format!("Topics.Partitions.{list}.LastFetchTimestamp"), "some time")
                .vague(&format!("Topics.Partitions.{list}.LastCaughtUpTimestamp"), "some time")
                .vague(&format!("Topics.Partitions.{list}.ReplicaDirectoryId"), "some directory");
        }
        case.vague("Nodes.Listeners.Port", "some port")
    };
    vec![
        quorum(case(55, "the quorum").ask(of("__cluster_metadata", &[0]))),
        quorum(case(55, "another topic").ask(of("orders", &[0]))),
        quorum(case(55, "another partition").ask(of("__cluster_metadata", &[1]))),
        quorum(case(55, "two partitions").ask(of("__cluster_metadata", &[0, 1]))),
        quorum(case(55, "no partitions").ask(of("__cluster_metadata", &[]))),
        quorum(case(55, "no topics").ask(json!({ "Topics": [] }))),
        quorum(damaged(55, of("__cluster_metadata", &[0]))),
    ]
}
