//! Merging an answer into what is known.
//!
//! Invariant: a partition never goes back to an older leader epoch of the same topic id.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::messages::MetadataResponse;
use klamm_wire::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

use super::{BrokerMetadata, ClusterMetadata, PartitionMetadata, TopicMetadata};

/// The brokers that an answer names; one with an impossible port is left out.
pub(super) fn brokers(response: &MetadataResponse) -> BTreeMap<i32, BrokerMetadata> {
    let broker = |broker: &klamm_wire::messages::metadata_response::MetadataResponseBroker| {
        let id = broker.node_id.0;
        let port = u16::try_from(broker.port).ok()?;
        let rack = broker.rack.as_ref().map(|rack| rack.as_str().to_owned());
        Some((id, BrokerMetadata { id, host: broker.host.as_str().to_owned(), port, rack }))
    };
    response.brokers.iter().filter_map(broker).collect()
}

/// Puts everything but the topics of an answer into a snapshot.
pub(super) fn cluster(into: &mut ClusterMetadata, response: &MetadataResponse) {
    into.brokers = brokers(response);
    into.cluster_id = response.cluster_id.as_ref().map(|id| id.as_str().to_owned());
    into.controller = Some(response.controller_id.0).filter(|id| *id >= 0);
}

/// What is known of a topic after an answer, which may say that it is `gone`.
pub(super) fn topic(
    name: &Arc<str>,
    old: Option<&Arc<TopicMetadata>>,
    new: &MetadataResponseTopic,
    gone: bool,
) -> TopicMetadata {
    let error = ErrorCode(new.error_code);
    if !error.is_ok() {
        // A broker that has not heard of the topic yet does not make what others told untrue.
        let known = old.map(|old| TopicMetadata { error, gone, ..TopicMetadata::clone(old) });
        return known.unwrap_or_else(|| TopicMetadata {
            name: name.clone(),
            id: new.topic_id,
            internal: new.is_internal,
            partitions: Vec::new(),
            error,
            gone,
        });
    }
    let mut partitions: BTreeMap<i32, PartitionMetadata> =
        new.partitions.iter().map(|new| (new.partition_index, partition(new))).collect();
    let same = old.filter(|old| old.id == new.topic_id || old.id.is_nil() || new.topic_id.is_nil());
    for known in same.iter().flat_map(|old| &old.partitions) {
        let Some(told) = partitions.get_mut(&known.partition) else {
            partitions.insert(known.partition, known.clone());
            continue;
        };
        if told.leader_epoch >= 0 && told.leader_epoch < known.leader_epoch {
            *told = known.clone();
        } else if told.leader_epoch < 0 && told.leader.is_none() {
            // Without a leader there may be no epoch in the answer. Forgotten, the next leader to be believed could be
            // one that was deposed without hearing of it.
            told.leader_epoch = known.leader_epoch;
        }
    }
    TopicMetadata {
        name: name.clone(),
        id: new.topic_id,
        internal: new.is_internal,
        partitions: partitions.into_values().collect(),
        error,
        gone: false,
    }
}

fn partition(new: &MetadataResponsePartition) -> PartitionMetadata {
    let ids = |ids: &[klamm_wire::messages::BrokerId]| ids.iter().map(|id| id.0).collect();
    PartitionMetadata {
        partition: new.partition_index,
        leader: Some(new.leader_id.0).filter(|id| *id >= 0),
        leader_epoch: new.leader_epoch,
        replicas: ids(&new.replica_nodes),
        isr: ids(&new.isr_nodes),
        offline: ids(&new.offline_replicas),
        error: ErrorCode(new.error_code),
    }
}

/// A snapshot in which a partition has this leader, with its epoch; `None` if that is no news, or if nobody knows where
/// the leader is.
pub(super) fn with_leader(
    cluster: &ClusterMetadata,
    topic: &str,
    partition: i32,
    (leader, leader_epoch): (i32, i32),
    endpoint: Option<BrokerMetadata>,
) -> Option<ClusterMetadata> {
    let (name, known) = cluster.topics.get_key_value(topic)?;
    let mut changed = TopicMetadata::clone(known);
    let place = changed.partitions.iter_mut().find(|known| known.partition == partition)?;
    let joined = endpoint.filter(|broker| broker.id == leader && !cluster.brokers.contains_key(&leader));
    if leader_epoch <= place.leader_epoch || joined.is_none() && !cluster.brokers.contains_key(&leader) {
        return None;
    }
    place.leader = Some(leader);
    place.leader_epoch = leader_epoch;
    place.error = ErrorCode::NONE;
    let mut cluster = cluster.clone();
    cluster.brokers.extend(joined.map(|broker| (leader, broker)));
    cluster.topics.insert(name.clone(), Arc::new(changed));
    Some(cluster)
}
