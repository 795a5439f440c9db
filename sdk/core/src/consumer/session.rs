//! Incremental fetch sessions (KIP-227), one per broker.
//!
//! In: the partitions wanted, what of them may be news, and how the last request ended. Out: what has to be said in the next
//! request; it costs what changed, unless everything has to be said.
//!
//! Invariant: while the epoch is not 0, `known` is exactly what the broker holds for this session.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::sync::Arc;

use klamm_wire::ErrorCode;
use uuid::Uuid;

use super::demand::{Want, Wanted};
use super::event::{FetchTarget, Watermarks};
use crate::TopicPartition;

/// What a session adds to a request.
#[derive(Debug, Default, PartialEq, Eq)]
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
    /// Names of the topics in `known`, and how often they are there: from Fetch v13 on, answers carry only ids.
    topics: BTreeMap<Uuid, (Arc<str>, usize)>,
    /// What was told of those in `known`: it is told again only when it changes, also to whoever wants them anew.
    watermarks: BTreeMap<TopicPartition, Watermarks>,
    /// Where the next full request begins, so that a broker that always stops at its byte limit serves everyone.
    turn: usize,
}

impl Session {
    /// The next request: everything that is wanted and not left out, or the difference to the request before. `news` names
    /// at least what has changed since.
    pub(crate) fn next(
        &mut self,
        wanted: &Wanted,
        left_out: &BTreeSet<TopicPartition>,
        mut news: BTreeSet<TopicPartition>,
    ) -> Delta {
        let full = self.epoch == 0;
        if full {
            news = self.known.keys().chain(wanted.keys()).cloned().collect();
        }
        let mut delta = Delta { id: self.id, epoch: self.epoch, ..Delta::default() };
        for name in &news {
            let want = wanted.get(name).filter(|_| !left_out.contains(name));
            let (target, before) = (want.map(|want| &want.target), self.put(name, want));
            if target != before.as_ref() {
                delta.send.extend(target.cloned());
            }
            if let Some(before) = before
                && target.is_none_or(|target| target.topic_id != before.topic_id)
            {
                self.watermarks.remove(name);
                delta.forget.push((before.partition, before.topic_id));
            }
        }
        if full {
            (delta.send, delta.forget) = (self.all_in_turn(), Vec::new());
        }
        delta
    }

    /// Puts a partition in the place of what was known of it, which is returned.
    fn put(&mut self, name: &TopicPartition, want: Option<&Want>) -> Option<FetchTarget> {
        let id = |target: &FetchTarget| Some(target.topic_id).filter(|id| !id.is_nil());
        if let Some(id) = want.and_then(|want| id(&want.target)) {
            let topic = || (name.topic.clone(), 0);
            self.topics.entry(id).or_insert_with(topic).1.add_assign(1);
        }
        let before = match want {
            Some(want) => self.known.insert(name.clone(), want.clone()),
            None => self.known.remove(name),
        };
        let before = before.map(|before| before.target);
        if let Some(id) = before.as_ref().and_then(id)
            && let Some((_, count)) = self.topics.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                self.topics.remove(&id);
            }
        }
        before
    }

    fn all_in_turn(&mut self) -> Vec<FetchTarget> {
        let mut all: Vec<_> = self.known.values().map(|want| want.target.clone()).collect();
        if !all.is_empty() {
            self.turn = (self.turn + 1) % all.len();
            all.rotate_left(self.turn);
        }
        all
    }

    /// What the broker was told to hold.
    #[cfg(test)]
    pub(crate) fn known(&self) -> &Wanted {
        &self.known
    }

    /// Generation and offset that a partition was asked for with.
    pub(crate) fn asked(&self, partition: &TopicPartition) -> Option<(u64, i64)> {
        self.known.get(partition).map(|want| (want.generation, want.target.offset))
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
        let topic = if topic_id.is_nil() { Arc::from(topic) } else { self.topics.get(&topic_id)?.0.clone() };
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
        targets.into_iter().map(|t| (t.partition.clone(), Want { target: t, generation: 1 })).collect()
    }

    impl Session {
        fn next_of<const N: usize>(&mut self, targets: [FetchTarget; N]) -> Delta {
            let wanted = wanted(targets);
            let news = self.known.keys().chain(wanted.keys()).cloned().collect();
            self.next(&wanted, &BTreeSet::new(), news)
        }
    }

    fn open(id: i32) -> Session {
        let mut session = Session::default();
        session.next_of([target(0, 5), target(1, 6)]);
        session.answered(id);
        session
    }

    #[test]
    fn the_first_request_names_everything_and_asks_for_a_session() {
        let mut session = Session::default();
        let delta = session.next_of([target(0, 5)]);
        assert_eq!(delta, Delta { id: 0, epoch: 0, send: vec![target(0, 5)], forget: vec![] });
    }

    #[test]
    fn later_requests_name_only_what_changed_and_what_left() {
        let mut session = open(9);
        let delta = session.next_of([target(1, 8), target(2, 0)]);
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
        let delta = session.next_of([target(1, 8), target(2, 0)]);
        assert_eq!(delta, Delta { id: 9, epoch: 2, send: vec![], forget: vec![] });
    }

    #[test]
    fn what_is_left_out_leaves_until_it_is_not_and_what_is_no_news_is_not_looked_at() {
        let mut session = open(9);
        let both = wanted([target(0, 5), target(1, 6)]);
        let first = BTreeSet::from([TopicPartition::new("t", 0)]);
        let delta = session.next(&both, &first, first.clone());
        assert_eq!(delta.forget, [(TopicPartition::new("t", 0), Uuid::from_u128(7))]);
        session.answered(9);
        let delta = session.next(&both, &BTreeSet::new(), first);
        assert_eq!((delta.send, delta.forget), (vec![target(0, 5)], vec![]));
        session.answered(9);
        let delta = session.next(&wanted([target(0, 9), target(1, 6)]), &BTreeSet::new(), BTreeSet::new());
        assert_eq!((delta.send, delta.forget), (vec![], vec![]));
        assert_eq!(session.asked(&TopicPartition::new("t", 0)), Some((1, 5)), "as it was sent");
    }

    #[test]
    fn a_topic_made_anew_leaves_under_its_old_id_and_enters_under_the_new_one() {
        let mut session = open(9);
        let anew = FetchTarget { topic_id: Uuid::from_u128(8), ..target(0, 5) };
        let delta = session.next_of([anew.clone(), target(1, 6)]);
        assert_eq!(delta.send, [anew]);
        assert_eq!(delta.forget, [(TopicPartition::new("t", 0), Uuid::from_u128(7))]);
    }

    #[test]
    fn a_broker_without_room_for_sessions_gets_full_requests_in_turn() {
        let mut session = Session::default();
        let all = || [target(0, 0), target(1, 0), target(2, 0)];
        let mut firsts = vec![];
        for _ in 0..3 {
            let delta = session.next_of(all());
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
        let delta = session.next_of([target(0, 5)]);
        assert_eq!((delta.id, delta.epoch, delta.send.len()), (0, 0, 1));

        let mut session = open(9);
        assert!(session.refused(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        let delta = session.next_of([target(0, 5)]);
        assert_eq!((delta.id, delta.epoch, delta.send.len()), (9, 0, 1));
    }

    #[test]
    fn after_a_broken_connection_the_next_request_is_full_and_replaces_the_session() {
        let mut session = open(9);
        session.next_of([target(0, 7), target(1, 6)]);
        session.broken();
        let delta = session.next_of([target(0, 7), target(1, 6)]);
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
