//! The Fetch request of one round.

use std::collections::{BTreeMap, BTreeSet};

use broker_lite_core::replica::FetchPosition;
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use klamm_wire::messages::{BrokerId, FetchRequest};

use super::Key;
use super::conversation::Conversation;
use super::following::Round;

impl Conversation<'_> {
    pub(super) fn request(&self, round: &Round) -> FetchRequest {
        let broker = self.broker;
        let setting = |name: &str, default: i64| {
            i32::try_from(broker.config.int(name).unwrap_or(default)).unwrap_or(i32::MAX)
        };
        let until_retry = round.next_retry.map(|at| at.saturating_sub(broker.rt.now()).as_millis().max(1));
        let longest = i64::from(setting("replica.fetch.wait.max.ms", 500));
        let wait = match until_retry.and_then(|ms| i64::try_from(ms).ok()) {
            // it only opens a session, in which to wait
            _ if self.session.id == 0 && !self.session.declined => 0,
            Some(ms) => longest.min(ms),
            None => longest,
        };
        let replica = ReplicaState::default()
            .with_replica_id(BrokerId(broker.id()))
            .with_replica_epoch(broker.registration().epoch);
        FetchRequest::default()
            .with_replica_state(replica)
            .with_max_wait_ms(i32::try_from(wait).unwrap_or(i32::MAX))
            .with_min_bytes(setting("replica.fetch.min.bytes", 1))
            .with_max_bytes(setting("replica.fetch.response.max.bytes", 10_485_760))
            .with_session_id(self.session.id)
            .with_session_epoch(self.session.epoch)
            .with_topics(topics(&round.named, setting("replica.fetch.max.bytes", 1_048_576)))
            .with_forgotten_topics_data(forgotten(&round.forgotten))
    }
}

fn topics(named: &BTreeMap<Key, FetchPosition>, partition_max_bytes: i32) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic, partition), position) in named {
        let wanted = FetchPartition::default()
            .with_partition(*partition)
            .with_current_leader_epoch(position.current_leader_epoch)
            .with_fetch_offset(position.offset)
            .with_last_fetched_epoch(position.last_fetched_epoch)
            .with_log_start_offset(position.log_start_offset)
            .with_partition_max_bytes(partition_max_bytes);
        match topics.last_mut().filter(|last| last.topic_id == *topic) {
            Some(last) => last.partitions.push(wanted),
            None => topics.push(FetchTopic::default().with_topic_id(*topic).with_partitions(vec![wanted])),
        }
    }
    topics
}

fn forgotten(keys: &BTreeSet<Key>) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for (topic, partition) in keys {
        match topics.last_mut().filter(|last| last.topic_id == *topic) {
            Some(last) => last.partitions.push(*partition),
            None => {
                topics
                    .push(ForgottenTopic::default().with_topic_id(*topic).with_partitions(vec![*partition]));
            }
        }
    }
    topics
}
