//! Whether a topic that a broker denies is gone, or the broker has only not heard of it yet.
//!
//! A broker's metadata never go back: who has told of a topic and then denies it has seen it deleted. Who has never told of it may be
//! late, however often it is asked, and so may several that are asked at the same time. So the former is asked, and if it cannot be, what is
//! denied for long is gone, whoever denies it.
//!
//! Invariant: no broker that lags behind makes a topic seem gone while one that has told of it can be asked; else not before `PROPAGATION`,
//! or `SEVERAL` for more than one. None makes one of the last `REMEMBERED` topics of a name
//! seem to be back while anybody tells of the present one.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use crate::Tick;

/// How long a broker may take to hear of a topic (librdkafka: `topic.metadata.propagation.max.ms`).
const PROPAGATION: Tick = Duration::from_secs(30);

/// How long several may.
const SEVERAL: Tick = Duration::from_secs(10);

/// Denials by one that knew better. A broker that has just started may answer before it has read all that it knew.
const TWICE: u32 = 2;

/// Former topics of one name that are remembered.
const REMEMBERED: usize = 16;

/// Ids of the topics that had a name before, the last of them.
#[derive(Debug, Default)]
struct FormerTopics(VecDeque<Uuid>);

impl FormerTopics {
    /// The one with this id is no more.
    fn add(&mut self, id: Uuid) {
        if !self.contains(id) {
            self.0.push_back(id);
            self.0.drain(..self.0.len().saturating_sub(REMEMBERED));
        }
    }

    /// It is the present one.
    fn remove(&mut self, id: Uuid) {
        self.0.retain(|known| *known != id);
    }

    /// Whether whoever tells of it lags behind.
    fn contains(&self, id: Uuid) -> bool {
        self.0.contains(&id)
    }
}

/// What is known of one topic, by which brokers.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    told: BTreeSet<i32>,
    denied: Option<Denied>,
    former: FormerTopics,
    /// A former id that is told of, and nobody tells of the present one, and since when.
    insists: Option<(Uuid, Tick)>,
}

/// Denials since somebody has last told of it.
#[derive(Debug)]
struct Denied {
    since: Tick,
    by: BTreeSet<i32>,
    by_who_knew: u32,
}

impl Witnesses {
    /// A broker, if it is known which, tells of the topic.
    pub(super) fn tells(&mut self, by: Option<i32>) {
        // Created again, maybe, and they have not heard of that.
        if let Some(denied) = self.denied.take() {
            self.told.retain(|broker| !denied.by.contains(broker));
        }
        self.told.extend(by);
    }

    /// Brokers that must know whether it is gone, while others deny it.
    pub(super) fn to_ask(&self) -> impl Iterator<Item = i32> {
        self.told.iter().copied().filter(|_| self.denied.is_some())
    }

    /// A broker denies the topic; `brokers` are all there are. Returns whether it is gone.
    pub(super) fn denies(
        &mut self,
        now: Tick,
        by: Option<i32>,
        mut brokers: impl Iterator<Item = i32>,
    ) -> bool {
        let new = || Denied { since: now, by: BTreeSet::new(), by_who_knew: 0 };
        let denied = self.denied.get_or_insert_with(new);
        if let Some(broker) = by {
            denied.by.insert(broker);
            denied.by_who_knew += u32::from(self.told.contains(&broker));
        }
        let for_long = now.saturating_sub(denied.since);
        let several = denied.by.len() > 1 || brokers.all(|broker| denied.by.contains(&broker));
        denied.by_who_knew >= TWICE || for_long >= PROPAGATION || several && for_long >= SEVERAL
    }

    /// The topic has this id now. Returns `false` if that is a former one, told by a broker that lags behind; unless nobody has told
    /// of the present one for `PROPAGATION`: then that was the former one.
    pub(super) fn renames(&mut self, now: Tick, from: Uuid, to: Uuid) -> bool {
        if from == to {
            self.insists = None;
        }
        if from.is_nil() || to.is_nil() || from == to {
            return true;
        }
        if self.former.contains(to) {
            let since = self.insists.filter(|(id, _)| *id == to).map_or(now, |(_, since)| since);
            self.insists = Some((to, since));
            if now.saturating_sub(since) < PROPAGATION {
                return false;
            }
            self.former.remove(to);
        }
        self.insists = None;
        self.former.add(from);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Tick = Duration::from_secs(1);

    fn denies(witnesses: &mut Witnesses, now: Tick, by: i32) -> bool {
        witnesses.denies(now, Some(by), [1, 2, 3].into_iter())
    }

    #[test]
    fn who_knew_a_topic_and_denies_it_twice_has_seen_it_deleted() {
        let mut topic = Witnesses::default();
        topic.tells(Some(1));
        assert!(!denies(&mut topic, S, 1));
        assert!(denies(&mut topic, S, 1));
        assert!(denies(&mut topic, 2 * S, 3), "it stays so");
    }

    #[test]
    fn who_never_told_of_a_topic_may_be_late_however_often_it_denies_it() {
        let mut topic = Witnesses::default();
        topic.tells(Some(1));
        for second in 1..31 {
            assert!(!denies(&mut topic, S * second, 2), "after {second} s");
        }
        assert!(denies(&mut topic, 31 * S, 2), "nobody has told of it for so long");
    }

    #[test]
    fn several_that_never_told_of_a_topic_may_be_late_but_not_as_long() {
        let mut topic = Witnesses::default();
        topic.tells(Some(1));
        assert!(!denies(&mut topic, S, 2) && !denies(&mut topic, 10 * S, 3));
        assert_eq!(topic.to_ask().collect::<Vec<_>>(), [1]);
        topic.tells(Some(1));
        assert_eq!(topic.to_ask().count(), 0);
        assert!(!denies(&mut topic, 11 * S, 2), "somebody has told of it");
        assert!(!denies(&mut topic, 20 * S, 3));
        assert!(denies(&mut topic, 21 * S, 3), "two of them, for ten seconds");
    }

    #[test]
    fn a_broker_that_is_the_only_one_left_is_believed_after_a_while() {
        let mut topic = Witnesses::default();
        topic.tells(Some(1));
        let mut alone = |now| topic.denies(now, Some(2), [2].into_iter());
        assert!(!alone(S) && !alone(10 * S) && alone(11 * S));
        let mut unnamed = Witnesses::default();
        assert!(!unnamed.denies(S, None, [2].into_iter()));
        assert!(!unnamed.denies(30 * S, None, [2].into_iter()), "nobody knows who that was");
        assert!(unnamed.denies(31 * S, None, [2].into_iter()));
    }

    #[test]
    fn who_knew_the_former_topic_of_a_name_need_not_have_heard_of_the_next() {
        let mut topic = Witnesses::default();
        topic.tells(Some(1));
        denies(&mut topic, S, 1);
        topic.tells(Some(2));
        assert!(!denies(&mut topic, S, 1) && !denies(&mut topic, S, 1));
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        assert!(topic.renames(S, one, two));
        assert!(!topic.renames(S, two, one), "that one is gone");
        let same = [(two, two), (two, Uuid::nil()), (two, three)];
        assert!(same.into_iter().all(|(from, to)| topic.renames(S, from, to)));
        assert!(!topic.renames(S, three, two) && !topic.renames(S, three, one), "who lags may do so by two");
    }

    /// Goal: whoever meets the present topic first, and then a broker that lags behind, is not held by the former one for ever.
    #[test]
    fn a_topic_that_all_tell_of_for_long_is_the_present_one_although_it_was_taken_for_a_former_one() {
        let mut topic = Witnesses::default();
        let [old, new] = [1, 2].map(Uuid::from_u128);
        assert!(topic.renames(S, new, old), "told by one that lags behind");
        assert!(!topic.renames(2 * S, old, new) && !topic.renames(31 * S, old, new));
        assert!(topic.renames(31 * S, old, old), "somebody still tells of it");
        assert!(!topic.renames(32 * S, old, new) && !topic.renames(61 * S, old, new));
        assert!(topic.renames(62 * S, old, new));
        assert!(!topic.renames(63 * S, new, old), "now that one is a former one");
    }

    #[test]
    fn not_more_than_some_former_topics_are_remembered() {
        let mut former = FormerTopics::default();
        let ids = || (1..=40).map(Uuid::from_u128);
        ids().for_each(|id| former.add(id));
        assert_eq!(ids().filter(|id| former.contains(*id)).count(), REMEMBERED);
        assert!(former.contains(Uuid::from_u128(40)) && !former.contains(Uuid::from_u128(1)));
    }
}
