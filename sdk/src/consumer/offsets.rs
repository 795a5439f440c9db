//! Offsets for the application: beginning, end, by timestamp.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use klamm_core::TopicPartition;
use klamm_core::consumer::{
    Leader, ListedOffset, Location, Lookup, OffsetLookup, list_offsets_request, listed_offsets,
};
use klamm_wire::messages::ListOffsetsRequest;

use super::drive::locate;
use super::error::ConsumerError;
use super::shared::Shared;
use crate::client::{Lane, Target};
use crate::error::MetadataError;

/// Asks the leaders until every offset is there, at most `default.api.timeout.ms`.
pub(super) async fn look_up(
    shared: &Shared,
    wanted: Vec<(TopicPartition, i64)>,
) -> Result<BTreeMap<TopicPartition, ListedOffset>, ConsumerError> {
    let client = &shared.client;
    let deadline = shared.now().saturating_add(client.settings().api_timeout());
    know_topics(shared, wanted.iter().map(|(name, _)| name), deadline).await?;
    let mut lookup = OffsetLookup::new(wanted);
    loop {
        let changed = client.changed();
        let cluster = client.metadata();
        let leader = |partition: &TopicPartition| match locate(&cluster, partition) {
            Location::At(leader) => Some::<Leader>(leader),
            Location::Unknown(_) | Location::Refused(_) => None,
        };
        let requests = lookup.requests(leader);
        let asked = requests.into_iter().map(|(broker, partitions)| ask(shared, broker, partitions));
        match client.rt().before(deadline, join_all(asked)).await {
            Some(answers) => answers.into_iter().for_each(|answer| lookup.answered(answer)),
            None => return Err(timed_out(shared, &lookup)),
        }
        if let Some((partition, code)) = lookup.refused() {
            return Err(ConsumerError::Refused { partition: partition.clone(), code: *code });
        }
        if lookup.missing().is_none() {
            return Ok(lookup.into_found());
        }
        client.request_refresh("offsets could not be listed");
        let pause = shared.now().saturating_add(client.settings().retry_backoff).min(deadline);
        client.rt().before(pause, changed).await;
        if shared.now() >= deadline {
            return Err(timed_out(shared, &lookup));
        }
    }
}

fn timed_out(shared: &Shared, lookup: &OffsetLookup) -> ConsumerError {
    let waited = shared.client.settings().api_timeout();
    match lookup.missing() {
        Some((partition, last)) => ConsumerError::TimedOut { partition: partition.clone(), waited, last },
        None => ConsumerError::Closed,
    }
}

/// Waits until the topics of these are known.
pub(super) async fn know_topics<'a>(
    shared: &Shared,
    wanted: impl IntoIterator<Item = &'a TopicPartition>,
    deadline: klamm_core::Tick,
) -> Result<(), ConsumerError> {
    let topics: BTreeMap<_, _> = wanted.into_iter().map(|name| (name.topic.clone(), name)).collect();
    let distinct: BTreeSet<_> = topics.keys().cloned().collect();
    for topic in distinct {
        let known = shared.client.topic(&topic, shared.may_create(), deadline).await;
        let Err(error) = known else { continue };
        let partition = topics[&topic].clone();
        return Err(match error {
            MetadataError::Topic { code, .. } => ConsumerError::Refused { partition, code },
            MetadataError::UnknownTopic { waited, code, .. } => {
                ConsumerError::NoLeader { partition, waited, code, causes: Vec::new() }
            }
            MetadataError::TimedOut { waited, causes, .. } => {
                let code = klamm_wire::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                ConsumerError::NoLeader { partition, waited, code, causes }
            }
            MetadataError::Closed => ConsumerError::Closed,
        });
    }
    Ok(())
}

/// A broker that cannot be asked answers nothing: its partitions stay wanted.
async fn ask(shared: &Shared, broker: i32, partitions: Vec<Lookup>) -> Vec<ListedOffset> {
    let client = &shared.client;
    let timeout_ms = i32::try_from(client.settings().request_timeout.as_millis()).unwrap_or(i32::MAX);
    let request = list_offsets_request(&partitions, shared.settings.isolation, timeout_ms);
    match client.call::<ListOffsetsRequest>(Target::Broker(broker), Lane::Main, &request).await {
        Ok(response) => listed_offsets(response),
        Err(error) => {
            tracing::debug!(broker.id = broker, %error, "offsets not listed");
            Vec::new()
        }
    }
}
