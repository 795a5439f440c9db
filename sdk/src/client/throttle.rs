//! What answers say about pacing (KIP-124, KIP-219).

use std::time::Duration;

use klamm_wire::Frame;
use klamm_wire::messages::ApiKey;

/// The pause that an answer asks for; zero if it asks for none, or if it is none of these apis.
///
/// In all of them but OffsetDelete `throttle_time_ms` comes first. Produce has it elsewhere, and its sender reads it; ApiVersions is
/// asked once a connection; DescribeQuorum has none.
pub(crate) fn pause(answer: &Frame) -> Duration {
    if first_version(answer.api_key).is_none_or(|first| answer.api_version < first) {
        return Duration::ZERO;
    }
    // OffsetDelete begins with an error code.
    let before = if answer.api_key == ApiKey::OffsetDelete as i16 { 2 } else { 0 };
    let mut bytes = answer.body.iter().flat_map(|chunk| chunk.iter().copied()).skip(before);
    let mut next = || bytes.next().unwrap_or_default();
    let ms = i32::from_be_bytes([next(), next(), next(), next()]);
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// From which version on an api's answers begin with `throttle_time_ms`.
fn first_version(api_key: i16) -> Option<i16> {
    const FIRST: &[(ApiKey, i16)] = &[
        (ApiKey::Fetch, 1),
        (ApiKey::ListOffsets, 2),
        (ApiKey::Metadata, 3),
        (ApiKey::CreateTopics, 2),
        (ApiKey::DeleteTopics, 1),
        (ApiKey::InitProducerId, 0),
        (ApiKey::OffsetForLeaderEpoch, 2),
        (ApiKey::DescribeConfigs, 0),
        (ApiKey::DescribeCluster, 0),
        (ApiKey::DeleteRecords, 0),
        (ApiKey::DescribeLogDirs, 0),
        (ApiKey::CreatePartitions, 0),
        (ApiKey::ElectLeaders, 0),
        (ApiKey::IncrementalAlterConfigs, 0),
        (ApiKey::AlterPartitionReassignments, 0),
        (ApiKey::ListPartitionReassignments, 0),
        (ApiKey::UpdateFeatures, 0),
        (ApiKey::DescribeProducers, 0),
        (ApiKey::UnregisterBroker, 0),
        (ApiKey::DescribeTopicPartitions, 0),
        (ApiKey::OffsetCommit, 3),
        (ApiKey::OffsetFetch, 3),
        (ApiKey::FindCoordinator, 1),
        (ApiKey::JoinGroup, 2),
        (ApiKey::Heartbeat, 1),
        (ApiKey::LeaveGroup, 1),
        (ApiKey::SyncGroup, 1),
        (ApiKey::DescribeGroups, 1),
        (ApiKey::ListGroups, 1),
        (ApiKey::DeleteGroups, 0),
        (ApiKey::OffsetDelete, 0),
        (ApiKey::ConsumerGroupDescribe, 0),
    ];
    FIRST.iter().find(|(key, _)| *key as i16 == api_key).map(|(_, first)| *first)
}
