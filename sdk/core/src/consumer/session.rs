//! Incremental fetch sessions (KIP-227), one per broker.
//!
//! In: the partitions wanted, and how the last request ended. Out: what has to be said in the next request.
//!
//! Invariant: while the epoch is not 0, `known` is exactly what the broker holds for this session.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_wire::ErrorCode;
use uuid::Uuid;

use super::event::{FetchTarget, Wanted, Watermarks};
use crate::TopicPartition;

/// What a session adds to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    pub(crate) send: Vec<FetchTarget>,
    pub(crate) forget: Vec<(TopicPartition, Uuid)>,
}

/// The session with one broker.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// 0 without a session.
    id: i32,
    /// 0 asks for a new session, which also ends the one named by `id`.
    epoch: i32,
    known: Wanted,
    /// Names of the topics in `known`: from Fetch v13 on, answers carry only ids.
    topics: BTreeMap<Uuid, Arc<str>>,
    /// What was told of those in `known`: it is told again only when it changes, also to whoever wants them anew.
    watermarks: BTreeMap<TopicPartition, Watermarks>,
    /// Where the next full request begins, so that a broker that always stops at its byte limit serves everyone.
    turn: usize,
}

impl Session {
    /// The next request: everything, or the difference to the request before.
    pub(crate) fn next(&mut self, wanted: Wanted) -> Delta {
        let (send, forget) =
            if self.epoch == 0 { (self.full(&wanted), Vec::new()) } else { self.diff(&wanted) };
        self.topics = wanted
            .values()
            .filter(|t| !t.topic_id.is_nil())
            .map(|t| (t.topic_id, t.partition.topic.clone()))
            .collect();
        let before = std::mem::replace(&mut self.known, wanted);
        let same = |name: &TopicPartition| Some(before.get(name)?.topic_id == self.known.get(name)?.topic_id);
        self.watermarks.retain(|name, _| same(name) == Some(true));
        Delta { id: self.id, epoch: self.epoch, send, forget }
    }

    fn full(&mut self, wanted: &Wanted) -> Vec<FetchTarget> {
        let mut all: Vec<_> = wanted.values().cloned().collect();
        if !all.is_empty() {
            self.turn = (self.turn + 1) % all.len();
            all.rotate_left(self.turn);
        }
        all
    }

    fn diff(&self, wanted: &Wanted) -> (Vec<FetchTarget>, Vec<(TopicPartition, Uuid)>) {
        let send = wanted.values().filter(|t| self.known.get(&t.partition) != Some(t)).cloned().collect();
        let forget = self
            .known
            .values()
            .filter(|old| wanted.get(&old.partition).is_none_or(|new| new.topic_id != old.topic_id))
            .map(|old| (old.partition.clone(), old.topic_id))
            .collect();
        (send, forget)
    }

    /// The broker answered without an error for the whole request.
    pub(crate) fn answered(&mut self, id: i32) {
        match (self.epoch, id) {
            (_, 0) => (self.id, self.epoch) = (0, 0), // no room for sessions there, or it closed this one
            (0, _) => (self.id, self.epoch) = (id, 1),
            (i32::MAX, _) => self.epoch = 1,
            (_, _) => self.epoch += 1,
        }
    }

    /// The broker refused the whole request. Returns `true` if the session was the reason.
    pub(crate) fn refused(&mut self, error: ErrorCode) -> bool {
        self.epoch = 0;
        match error {
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND => {
                self.id = 0;
                true
            }
            ErrorCode::INVALID_FETCH_SESSION_EPOCH
            | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
            | ErrorCode::INCONSISTENT_TOPIC_ID => true,
            _ => false,
        }
    }

    /// Nobody knows whether the broker saw the request.
    pub(crate) fn broken(&mut self) {
        self.epoch = 0;
    }

    /// The broker told how far a log reaches.
    pub(crate) fn told(&mut self, partition: &TopicPartition, watermarks: Watermarks) {
        self.watermarks.insert(partition.clone(), watermarks);
    }

    /// How far a log reaches, as the broker told last.
    pub(crate) fn watermarks(&self, partition: &TopicPartition) -> Option<Watermarks> {
        self.watermarks.get(partition).copied()
    }

    /// The partition that an answer speaks of.
    pub(crate) fn find(&self, topic: &str, topic_id: Uuid, partition: i32) -> Option<TopicPartition> {
        let topic = if topic_id.is_nil() { Arc::from(topic) } else { self.topics.get(&topic_id)?.clone() };
        let found = TopicPartition { topic, partition };
        self.known.contains_key(&found).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(partition: i32, offset: i64) -> FetchTarget {
        FetchTarget {
            partition: TopicPartition::new("t", partition),
            topic_id: Uuid::from_u128(7),
            leader_epoch: 1,
            offset,
        }
    }

    fn wanted<const N: usize>(targets: [FetchTarget; N]) -> Wanted {
        targets.into_iter().map(|t| (t.partition.clone(), t)).collect()
    }

    fn open(id: i32) -> Session {
        let mut session = Session::default();
        session.next(wanted([target(0, 5), target(1, 6)]));
        session.answered(id);
        session
    }

    #[test]
    fn the_first_request_names_everything_and_asks_for_a_session() {
        let mut session = Session::default();
        let delta = session.next(wanted([target(0, 5)]));
        assert_eq!(delta, Delta { id: 0, epoch: 0, send: vec![target(0, 5)], forget: vec![] });
    }

    #[test]
    fn later_requests_name_only_what_changed_and_what_left() {
        let mut session = open(9);
        let delta = session.next(wanted([target(1, 8), target(2, 0)]));
        assert_eq!(
            delta,
            Delta {
                id: 9,
                epoch: 1,
                send: vec![target(1, 8), target(2, 0)],
                forget: vec![(TopicPartition::new("t", 0), Uuid::from_u128(7))],
            }
        );
        session.answered(9);
        let delta = session.next(wanted([target(1, 8), target(2, 0)]));
        assert_eq!(delta, Delta { id: 9, epoch: 2, send: vec![], forget: vec![] });
    }

    #[test]
    fn a_topic_made_anew_leaves_under_its_old_id_and_enters_under_the_new_one() {
        let mut session = open(9);
        let anew = FetchTarget { topic_id: Uuid::from_u128(8), ..target(0, 5) };
        let delta = session.next(wanted([anew.clone(), target(1, 6)]));
        assert_eq!(delta.send, [anew]);
        assert_eq!(delta.forget, [(TopicPartition::new("t", 0), Uuid::from_u128(7))]);
    }

    #[test]
    fn a_broker_without_room_for_sessions_gets_full_requests_in_turn() {
        let mut session = Session::default();
        let all = || wanted([target(0, 0), target(1, 0), target(2, 0)]);
        let mut firsts = vec![];
        for _ in 0..3 {
            let delta = session.next(all());
            assert_eq!((delta.id, delta.epoch, delta.send.len()), (0, 0, 3));
            firsts.push(delta.send[0].partition.partition);
            session.answered(0);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2], "each one is first once");
    }

    #[test]
    fn an_unknown_session_starts_over_and_a_wrong_epoch_replaces_the_session() {
        let mut session = open(9);
        assert!(session.refused(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        let delta = session.next(wanted([target(0, 5)]));
        assert_eq!((delta.id, delta.epoch, delta.send.len()), (0, 0, 1));

        let mut session = open(9);
        assert!(session.refused(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        let delta = session.next(wanted([target(0, 5)]));
        assert_eq!((delta.id, delta.epoch, delta.send.len()), (9, 0, 1));
    }

    #[test]
    fn after_a_broken_connection_the_next_request_is_full_and_replaces_the_session() {
        let mut session = open(9);
        session.next(wanted([target(0, 7), target(1, 6)]));
        session.broken();
        let delta = session.next(wanted([target(0, 7), target(1, 6)]));
        assert_eq!((delta.id, delta.epoch, delta.send.len()), (9, 0, 2));
    }

    #[test]
    fn epochs_wrap_to_one_because_zero_would_ask_for_a_new_session() {
        let mut session = open(9);
        session.epoch = i32::MAX;
        session.answered(9);
        assert_eq!(session.epoch, 1);
    }

    #[test]
    fn partitions_of_an_answer_are_found_by_id_or_by_name() {
        let session = open(9);
        let first = TopicPartition::new("t", 0);
        assert_eq!(session.find("", Uuid::from_u128(7), 0), Some(first.clone()));
        assert_eq!(session.find("t", Uuid::nil(), 0), Some(first));
        assert_eq!(session.find("t", Uuid::from_u128(8), 0), None);
        assert_eq!(session.find("t", Uuid::nil(), 3), None);
    }
}
