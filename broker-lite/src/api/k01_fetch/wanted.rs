//! What a Fetch request wants, as sessions keep it.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_lite_core::session::{SessionPartition, SessionRequest, Wanted};
use klamm_wire::StrBytes;
use klamm_wire::messages::FetchRequest;
use uuid::Uuid;

use super::{SESSIONS, TOPIC_IDS};
use crate::broker::Broker;

pub(super) fn session_request(
    broker: &Broker,
    version: i16,
    follower: bool,
    request: &FetchRequest,
) -> SessionRequest {
    let topic_ids = version >= TOPIC_IDS;
    let name = |topic_id: Uuid, topic: &StrBytes, partition: i32| SessionPartition {
        topic_id: if topic_ids { topic_id } else { Uuid::nil() },
        topic: if topic_ids { StrBytes::default() } else { topic.clone() },
        partition,
    };
    let mut wanted = Vec::with_capacity(request.topics.iter().map(|topic| topic.partitions.len()).sum());
    for topic in &request.topics {
        let known =
            topic_ids.then(|| broker.image(|image| Some(image.topic_by_id(topic.topic_id)?.name.clone())));
        let known = known.flatten();
        for asked in &topic.partitions {
            let what = Wanted {
                fetch_offset: asked.fetch_offset,
                current_leader_epoch: asked.current_leader_epoch,
                last_fetched_epoch: asked.last_fetched_epoch,
                log_start_offset: asked.log_start_offset,
                max_bytes: asked.partition_max_bytes,
            };
            wanted.push((name(topic.topic_id, &topic.topic.0, asked.partition), what, known.clone()));
        }
    }
    keep_last(&mut wanted);
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| name(topic.topic_id, &topic.topic.0, *partition))
    });
    let forgotten = forgotten.collect();
    let (id, epoch) = if version >= SESSIONS { (request.session_id, request.session_epoch) } else { (0, -1) };
    SessionRequest { id, epoch, follower, topic_ids, wanted, forgotten }
}

/// A partition that is named more than once is wanted as it was named last.
fn keep_last(wanted: &mut Vec<(SessionPartition, Wanted, Option<Arc<str>>)>) {
    let mut last: BTreeMap<SessionPartition, Wanted> = BTreeMap::new();
    let distinct = wanted.is_sorted_by(|(before, ..), (after, ..)| before < after);
    if distinct {
        return;
    }
    for (partition, what, _) in wanted.iter() {
        last.insert(partition.clone(), *what);
    }
    if last.len() < wanted.len() {
        wanted.retain_mut(|(partition, what, _)| match last.remove(partition) {
            Some(named_last) => {
                *what = named_last;
                true
            }
            None => false,
        });
    }
}
