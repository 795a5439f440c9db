//! Looking up offsets for the application, independent of what is assigned.
//!
//! In: what is wanted, the metadata's leaders, answers. Out: whom to ask for what, until everything is found or
//! refused. The driver owns the time limit.

use std::collections::BTreeMap;

use klamm_wire::ErrorCode;

use super::event::{Leader, ListedOffset, Lookup};
use crate::TopicPartition;

/// Offsets wanted, and those found.
#[derive(Debug)]
pub struct OffsetLookup {
    missing: BTreeMap<TopicPartition, i64>,
    found: BTreeMap<TopicPartition, ListedOffset>,
    refused: Option<(TopicPartition, ErrorCode)>,
    last: Option<ErrorCode>,
}

impl OffsetLookup {
    /// Wants an offset for each timestamp (or one of Kafka's negative codes).
    pub fn new(wanted: impl IntoIterator<Item = (TopicPartition, i64)>) -> Self {
        Self { missing: wanted.into_iter().collect(), found: BTreeMap::new(), refused: None, last: None }
    }

    /// Whom to ask now. Partitions without leader wait for the next round.
    pub fn requests(&self, leader: impl Fn(&TopicPartition) -> Option<Leader>) -> BTreeMap<i32, Vec<Lookup>> {
        let mut requests: BTreeMap<i32, Vec<Lookup>> = BTreeMap::new();
        for (partition, timestamp) in &self.missing {
            if let Some(Leader { broker, epoch, .. }) = leader(partition) {
                requests.entry(broker).or_default().push(Lookup {
                    partition: partition.clone(),
                    leader_epoch: epoch,
                    timestamp: *timestamp,
                });
            }
        }
        requests
    }

    /// Takes an answer; what failed for now stays wanted.
    pub fn answered(&mut self, offsets: Vec<ListedOffset>) {
        for listed in offsets {
            if listed.error.is_ok() {
                if self.missing.remove(&listed.partition).is_some() {
                    self.found.insert(listed.partition.clone(), listed);
                }
            } else if listed.error.is_retriable() {
                self.last = Some(listed.error);
            } else {
                self.refused = Some((listed.partition, listed.error));
            }
        }
    }

    /// First partition still without offset, and the last error a broker gave.
    pub fn missing(&self) -> Option<(&TopicPartition, Option<ErrorCode>)> {
        self.missing.keys().next().map(|partition| (partition, self.last))
    }

    /// A partition that asking again would not help.
    pub fn refused(&self) -> Option<&(TopicPartition, ErrorCode)> {
        self.refused.as_ref()
    }

    /// What was found.
    pub fn into_found(self) -> BTreeMap<TopicPartition, ListedOffset> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn listed(partition: i32, error: ErrorCode, offset: i64) -> ListedOffset {
        ListedOffset { partition: tp(partition), error, offset, timestamp_ms: -1, leader_epoch: -1 }
    }

    fn leader(partition: &TopicPartition) -> Option<Leader> {
        let broker = partition.partition % 2;
        (partition.partition != 9).then_some(Leader { broker, epoch: 4, topic_id: uuid::Uuid::nil() })
    }

    #[test]
    fn every_leader_is_asked_once_and_again_only_for_what_failed() {
        let mut lookup = OffsetLookup::new((0..3).map(|p| (tp(p), -1)));
        let requests = lookup.requests(leader);
        assert_eq!(requests.iter().map(|(id, all)| (*id, all.len())).collect::<Vec<_>>(), [(0, 2), (1, 1)]);
        lookup
            .answered(vec![listed(0, ErrorCode::NONE, 5), listed(2, ErrorCode::NOT_LEADER_OR_FOLLOWER, -1)]);
        lookup.answered(vec![listed(1, ErrorCode::NONE, 6)]);
        assert_eq!(lookup.missing(), Some((&tp(2), Some(ErrorCode::NOT_LEADER_OR_FOLLOWER))));
        assert_eq!(lookup.requests(leader).len(), 1);
        lookup.answered(vec![listed(2, ErrorCode::NONE, 7)]);
        assert_eq!(lookup.missing(), None);
        let offsets: Vec<_> = lookup.into_found().into_values().map(|found| found.offset).collect();
        assert_eq!(offsets, [5, 6, 7]);
    }

    #[test]
    fn a_partition_without_leader_waits_and_a_refused_one_ends_it() {
        let mut lookup = OffsetLookup::new([(tp(9), -2), (tp(0), -2)]);
        assert_eq!(lookup.requests(leader).len(), 1);
        assert_eq!(lookup.refused(), None);
        lookup.answered(vec![listed(0, ErrorCode::TOPIC_AUTHORIZATION_FAILED, -1)]);
        assert_eq!(lookup.refused(), Some(&(tp(0), ErrorCode::TOPIC_AUTHORIZATION_FAILED)));
    }
}
