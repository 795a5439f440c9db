//! What was handed out, and what of it is done: a record's turn is over when whoever got it asks for more.
//!
//! Invariant: nothing is done that somebody has and has not asked for more since, nor what lies behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use klamm_core::TopicPartition;
use uuid::Uuid;

/// An offset, and the leader epoch of the record before it; -1 if unknown.
pub(in crate::consumer) type Place = (i64, i32);

/// Who asks for records. Each ends turns of its own only.
///
/// A task that does not come back ends none: that is no sign that it is done. Its records are held until the application commits
/// them itself, or the partition is given up: also because of it, after `max.poll.interval.ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::consumer) enum Caller {
    /// A stream.
    Stream(u64),
    /// A task that calls the consumer; `None` outside of tasks.
    Task(Option<tokio::task::Id>),
    /// More readers than are told apart: only a commit of the application ends their turns.
    Others,
}

/// Who asks, and the task in which that happens: what a task has is done when a stream asks in it, too. That is what it got by
/// itself, and what streams had that were dropped in it.
pub(in crate::consumer) type Asking = [Caller; 2];

impl Caller {
    /// The task that runs.
    #[inline]
    pub(in crate::consumer) fn task() -> Self {
        Self::Task(crate::rt::current_task())
    }

    /// One of 64 bits for a task, which it shares with some others; none for whoever is no task.
    pub(in crate::consumer) fn bit(self) -> u64 {
        match self {
            Self::Task(Some(id)) => 1 << (mixed(&id) >> 58),
            Self::Task(None) => 1,
            Self::Stream(_) | Self::Others => 0,
        }
    }
}

fn mixed(of: &impl Hash) -> u64 {
    let mut mixed = Mixed(0);
    of.hash(&mut mixed);
    mixed.finish()
}

/// Spreads small numbers over 64 bits, in a few instructions.
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Callers that are told apart at the same time; what one has more costs a look at each of them with every record.
const CALLERS: usize = 10_000;

/// A partition of which records were handed out.
#[derive(Debug, Clone, Copy)]
struct Handed {
    /// Stands for the partition in [`Open`].
    id: u64,
    /// Place behind what was handed out.
    to: Place,
    /// Id of the topic that it is a place of; nil if unknown.
    topic: Uuid,
}

/// Records that a reader has, and is not done with.
#[derive(Debug, Clone, Copy)]
struct Open {
    caller: Caller,
    partition: u64,
    /// Place behind what was handed out before them.
    from: Place,
    /// Offset behind the last of them.
    to: i64,
    /// The reader's last call, counted.
    asked: u64,
}

/// See the [module](self). Costs a few comparisons per record while records come from one partition.
#[derive(Debug, Default)]
pub(in crate::consumer) struct Turns {
    pub(in crate::consumer) counts: bool,
    current: Option<(TopicPartition, Handed)>,
    others: BTreeMap<TopicPartition, Handed>,
    /// In the order in which they were opened; at most one of each reader in each partition.
    open: Vec<Open>,
    ids: u64,
    /// Topic of what is handed out at the moment.
    topic: Uuid,
    /// Calls for more.
    asked: u64,
    /// Of `open`, before callers are counted.
    limit: usize,
    /// There were more callers than are told apart.
    crowded: bool,
}

impl Turns {
    /// None handed out yet; counting as before.
    pub(in crate::consumer) fn anew(before: &Self) -> Self {
        Self { counts: before.counts, asked: before.asked, ..Self::default() }
    }

    /// What is handed out from now on is of this topic.
    pub(in crate::consumer) fn reads(&mut self, partition: &TopicPartition, topic: Uuid) {
        self.topic = topic;
        if let Some(handed) = self.find(partition) {
            handed.topic = topic;
        }
    }

    /// Records from the offset to before the place were handed out.
    #[inline]
    pub(in crate::consumer) fn handed(
        &mut self,
        caller: Caller,
        partition: &TopicPartition,
        first: i64,
        next: Place,
    ) {
        if !self.counts {
            return;
        }
        let handed = match &mut self.current {
            Some((current, handed)) if current == partition => handed,
            _ => {
                self.put_away();
                self.ids += 1;
                let known = self.others.remove(partition);
                let new = Handed { id: self.ids, to: (first, -1), topic: self.topic };
                let handed = known.unwrap_or(new);
                &mut self.current.insert((partition.clone(), handed)).1
            }
        };
        let (partition, back) = (handed.id, first < handed.to.0);
        let from = if back { (first, -1) } else { handed.to };
        handed.to = next;
        if back {
            // The position was moved back: what is done is so only up to there.
            self.open.iter_mut().filter(|open| open.partition == partition).for_each(|open| {
                open.from = open.from.min(from);
            });
        }
        let mut known = self.open.iter_mut().rev();
        match known.find(|open| open.caller == caller && open.partition == partition) {
            Some(open) => open.to = open.to.max(next.0),
            None => {
                self.make_room();
                self.open.push(Open { caller, partition, from, to: next.0, asked: self.asked });
            }
        }
    }

    /// Forgets who has the oldest records, if there are too many callers: tasks that took a record and ended.
    fn make_room(&mut self) {
        if self.open.len() < self.limit.max(CALLERS) {
            return;
        }
        let callers: BTreeSet<u64> = self.open.iter().map(|open| mixed(&open.caller)).collect();
        if callers.len() < CALLERS {
            // Few callers with many partitions.
            self.limit = 2 * self.open.len();
            return;
        }
        if !std::mem::replace(&mut self.crowded, true) {
            tracing::warn!(
                "{CALLERS} readers have records and have not asked for more: what the first of them have counts as done only once \
                 it is committed by hand (`commit_record`); read by fewer tasks, and hand records on"
            );
        }
        let (old, new) = self.open.split_at(self.open.len() / 2);
        let mut kept: Vec<Open> = Vec::with_capacity(CALLERS);
        let mut places = BTreeMap::new();
        for open in old {
            match places.get(&open.partition).and_then(|at: &usize| kept.get_mut(*at)) {
                Some(known) => {
                    known.from = known.from.min(open.from);
                    known.to = known.to.max(open.to);
                }
                None => {
                    places.insert(open.partition, kept.len());
                    kept.push(Open { caller: Caller::Others, ..*open });
                }
            }
        }
        kept.extend_from_slice(new);
        // With many partitions little may have been gained: not again before as much has come.
        self.limit = kept.len() + CALLERS / 2;
        self.open = kept;
    }

    /// There is nothing more for the application before this place: markers, or what was compacted away.
    pub(in crate::consumer) fn passed(&mut self, partition: &TopicPartition, place: Place) {
        if let Some(handed) = self.find(partition) {
            handed.to = handed.to.max(place);
        }
    }

    /// The record at `offset` was not handed out after all, and nothing behind it.
    pub(in crate::consumer) fn retract(&mut self, partition: &TopicPartition, offset: i64) {
        self.cut(partition, offset);
    }

    /// What lies at the offset and behind it is not in the log any more; before 0: nothing is.
    pub(in crate::consumer) fn cut(&mut self, partition: &TopicPartition, from: i64) {
        if from < 0 {
            return self.forget(partition);
        }
        if let Some(handed) = self.find(partition).filter(|handed| handed.to.0 > from) {
            handed.to = (from, -1);
            let id = handed.id;
            self.open.retain_mut(|open| {
                if open.partition == id {
                    open.to = open.to.min(from);
                }
                open.partition != id || open.from.0 < from
            });
        }
    }

    /// Goes on counting a partition that others have records of, which stay theirs.
    pub(in crate::consumer) fn go_on(&mut self, partition: &TopicPartition, before: &mut Self) {
        self.counts = before.counts;
        if let Some(handed) = before.find(partition) {
            self.ids += 1;
            self.others.insert(partition.clone(), Handed { id: self.ids, ..*handed });
        }
    }

    /// Ends what [`Self::go_on`] began.
    pub(in crate::consumer) fn take_back(&mut self, partition: &TopicPartition, elsewhere: &mut Self) {
        elsewhere.put_away();
        let Some(there) = elsewhere.others.remove(partition) else { return };
        let asked = self.asked;
        self.ids += 1;
        let new = self.ids;
        let id = match self.find(partition) {
            Some(here) => {
                *here = Handed { id: here.id, ..there };
                here.id
            }
            None => {
                self.others.insert(partition.clone(), Handed { id: new, ..there });
                new
            }
        };
        let moved = elsewhere.open.extract_if(.., |open| open.partition == there.id);
        self.open.extend(moved.map(|open| Open { partition: id, asked, ..open }));
    }

    /// A stream is gone: what it had, the task has that dropped it.
    pub(in crate::consumer) fn leave(&mut self, stream: Caller, task: Caller) {
        self.open.iter_mut().filter(|open| open.caller == stream).for_each(|open| open.caller = task);
    }

    fn put_away(&mut self) {
        if let Some((name, handed)) = self.current.take() {
            self.others.insert(name, handed);
        }
    }

    fn look(&self, partition: &TopicPartition) -> Option<&Handed> {
        match &self.current {
            Some((current, handed)) if current == partition => Some(handed),
            _ => self.others.get(partition),
        }
    }

    fn find(&mut self, partition: &TopicPartition) -> Option<&mut Handed> {
        match &mut self.current {
            Some((current, handed)) if current == partition => Some(handed),
            _ => self.others.get_mut(partition),
        }
    }

    /// These ask for more: what they have is done.
    #[inline]
    pub(in crate::consumer) fn over(&mut self, callers: Asking) {
        self.asked += 1;
        match &self.open[..] {
            [] => {}
            // One reader of one partition at a time, as it mostly is.
            [one] if callers.contains(&one.caller) => self.open.clear(),
            _ => self.open.retain(|open| !callers.contains(&open.caller)),
        }
    }

    /// As [`Self::over`], for one partition.
    pub(in crate::consumer) fn over_in(&mut self, partition: &TopicPartition, callers: Asking) {
        if let Some(&mut Handed { id, .. }) = self.find(partition) {
            self.open.retain(|open| open.partition != id || !callers.contains(&open.caller));
        }
    }

    /// It asks for more elsewhere: what it has is done. No call in this place.
    pub(in crate::consumer) fn over_elsewhere(&mut self, caller: Caller) {
        self.open.retain(|open| open.caller != caller);
    }

    /// The bits of all tasks that have records.
    pub(in crate::consumer) fn tasks(&self) -> u64 {
        self.open.iter().fold(0, |bits, open| bits | open.caller.bit())
    }

    /// Calls for more so far.
    pub(in crate::consumer) fn asked(&self) -> u64 {
        self.asked
    }

    /// The application itself says how far it is done.
    pub(in crate::consumer) fn done_up_to(&mut self, partition: &TopicPartition, place: Place) {
        let Some(&mut Handed { id, to, .. }) = self.find(partition) else { return };
        let place = place.min(to);
        self.open.retain_mut(|open| {
            if open.partition == id {
                open.from = open.from.max(place);
            }
            open.partition != id || open.from.0 < open.to
        });
    }

    /// Nothing more is handed out of the partition, which stands here; counts if nothing was handed out before.
    pub(in crate::consumer) fn stopped(&mut self, partition: &TopicPartition, place: Place, topic: Uuid) {
        if self.counts && self.find(partition).is_none() {
            self.ids += 1;
            self.others.insert(partition.clone(), Handed { id: self.ids, to: place, topic });
        }
    }

    /// The partition begins anew.
    pub(in crate::consumer) fn forget(&mut self, partition: &TopicPartition) {
        let current = self.current.take_if(|(current, _)| current == partition).map(|(_, handed)| handed);
        if let Some(handed) = current.or_else(|| self.others.remove(partition)) {
            self.open.retain(|open| open.partition != handed.id);
        }
    }

    /// Tells of partitions the place behind what was handed out, or with `done` behind what is done, and the topic that it is a place
    /// of; nothing if nothing was handed out.
    pub(in crate::consumer) fn standing(
        &self,
        done: bool,
    ) -> impl Fn(&TopicPartition) -> Option<(Place, Uuid)> + '_ {
        let mut firsts: BTreeMap<u64, Place> = BTreeMap::new();
        for open in self.open.iter().filter(|_| done) {
            let first = firsts.entry(open.partition).or_insert(open.from);
            *first = open.from.min(*first);
        }
        move |partition| {
            let handed = self.look(partition)?;
            Some((firsts.get(&handed.id).copied().unwrap_or(handed.to), handed.topic))
        }
    }

    fn place(&self, partition: &TopicPartition, done: bool) -> Option<Place> {
        self.standing(done)(partition).map(|(place, _)| place)
    }

    /// Place behind what is done, if somebody has records that are not.
    pub(in crate::consumer) fn held_at(&self, partition: &TopicPartition) -> Option<Place> {
        let done = self.place(partition, true)?;
        self.place(partition, false).filter(|handed| *handed != done).and(Some(done))
    }

    /// Who has records of these partitions and is not done with them, and the count of the last call before they got them.
    pub(in crate::consumer) fn holders(
        &self,
        is_assigned: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(Caller, u64)> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let current = self.current.iter().map(|(name, handed)| (name, handed));
        let known = current.chain(&self.others).filter(|(name, _)| is_assigned(name));
        let known: BTreeSet<_> = known.map(|(_, handed)| handed.id).collect();
        let open = self.open.iter().filter(|open| known.contains(&open.partition));
        open.map(|open| (open.caller, open.asked)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Asking = [Caller::Stream(1), Caller::Task(None)];
    const TWO: Asking = [Caller::Stream(2), Caller::Task(None)];
    const TASK: Asking = [Caller::Task(None); 2];

    fn counting() -> Turns {
        Turns { counts: true, ..Turns::default() }
    }

    fn partitions() -> [TopicPartition; 2] {
        [0, 1].map(|partition| TopicPartition::new("t", partition))
    }

    fn seen(turns: &Turns, of: &TopicPartition) -> (Option<Place>, Option<Place>) {
        (turns.place(of, true), turns.place(of, false))
    }

    #[test]
    fn a_records_turn_is_over_when_the_next_is_asked_for() {
        let [a, b] = partitions();
        let mut turns = counting();
        assert_eq!(seen(&turns, &a), (None, None));
        turns.handed(ONE[0], &a, 7, (8, 4));
        assert_eq!(seen(&turns, &a), (Some((7, -1)), Some((8, 4))), "it was handed out and is not done");
        turns.over(ONE);
        turns.handed(ONE[0], &a, 9, (10, 4));
        turns.handed(ONE[0], &b, 3, (4, 4));
        turns.handed(ONE[0], &a, 10, (11, 4));
        assert_eq!(
            (seen(&turns, &a), seen(&turns, &b)),
            ((Some((8, 4)), Some((11, 4))), (Some((3, -1)), Some((4, 4))))
        );
        turns.over(ONE);
        assert_eq!(
            (seen(&turns, &a), seen(&turns, &b)),
            ((Some((11, 4)), Some((11, 4))), (Some((4, 4)), Some((4, 4))))
        );
        turns.stopped(&a, (99, 4), Uuid::nil());
        assert_eq!(seen(&turns, &a), (Some((11, 4)), Some((11, 4))), "what was handed out counts");
        turns.forget(&a);
        assert_eq!(seen(&turns, &a), (None, None));
        turns.stopped(&a, (5, 2), Uuid::nil());
        assert_eq!(seen(&turns, &a), (Some((5, 2)), Some((5, 2))), "others begin where this one began");
    }

    #[test]
    fn each_caller_ends_its_own_turns_and_a_dropped_stream_leaves_them_to_its_task() {
        let [a, _] = partitions();
        let mut turns = counting();
        turns.handed(ONE[0], &a, 0, (1, 4));
        turns.handed(TWO[0], &a, 1, (2, 4));
        turns.over(TWO);
        turns.handed(TWO[0], &a, 2, (3, 4));
        assert_eq!(seen(&turns, &a), (Some((0, -1)), Some((3, 4))), "the first one is at work still");
        turns.over(ONE);
        assert_eq!(turns.place(&a, true), Some((2, 4)), "the second one is at work on what it got last");
        turns.leave(TWO[0], Caller::Task(None));
        assert_eq!(turns.place(&a, true), Some((2, 4)));
        turns.over(TASK);
        assert_eq!(turns.place(&a, true), Some((3, 4)));
    }

    #[test]
    fn what_the_application_commits_is_done_as_far_as_it_was_handed_out() {
        let [a, b] = partitions();
        let mut turns = counting();
        turns.handed(ONE[0], &a, 7, (10, 4));
        turns.handed(ONE[0], &b, 0, (1, 4));
        turns.done_up_to(&a, (9, 4));
        assert_eq!((turns.place(&a, true), turns.place(&a, false)), (Some((9, 4)), Some((10, 4))));
        turns.done_up_to(&a, (8, 4));
        assert_eq!(turns.place(&a, true), Some((9, 4)), "not back");
        turns.done_up_to(&b, (5, 4));
        assert_eq!(turns.place(&b, true), Some((1, 4)), "not ahead");
        assert_eq!(turns.holders(|_| true), [(ONE[0], 0)], "of what is left");
        assert_eq!(turns.holders(|name| *name == b), []);
    }

    #[test]
    fn whoever_says_what_it_is_done_with_holds_nothing_while_others_have_what_lies_behind() {
        let [a, _] = partitions();
        let mut turns = counting();
        turns.handed(ONE[0], &a, 0, (1, 4));
        turns.handed(ONE[0], &a, 1, (2, 4));
        turns.handed(TWO[0], &a, 2, (3, 4));
        turns.done_up_to(&a, (1, 4));
        assert_eq!(turns.holders(|_| true), [(ONE[0], 0), (TWO[0], 0)], "one has the second one still");
        turns.done_up_to(&a, (2, 4));
        assert_eq!(turns.holders(|_| true), [(TWO[0], 0)]);
        assert_eq!(turns.place(&a, true), Some((2, 4)));
        // Nothing lies behind it but markers.
        turns.passed(&a, (5, 4));
        turns.done_up_to(&a, (3, 4));
        assert_eq!((turns.place(&a, true), turns.holders(|_| true)), (Some((5, 4)), vec![]));
        turns.handed(ONE[0], &a, 5, (9, 4));
        turns.cut(&a, 7);
        turns.done_up_to(&a, (7, 5));
        assert_eq!((turns.place(&a, true), turns.holders(|_| true)), (Some((7, -1)), vec![]));
    }

    #[test]
    fn what_one_reader_counted_another_goes_on_with() {
        let [a, b] = partitions();
        let (mut all, mut own) = (counting(), Turns::default());
        all.handed(TASK[0], &a, 3, (4, 4));
        all.handed(TASK[0], &b, 7, (8, 4));
        own.go_on(&a, &mut all);
        own.handed(ONE[0], &a, 4, (6, 4));
        own.over(ONE);
        assert_eq!(
            (own.place(&a, true), all.held_at(&a)),
            (Some((6, 4)), Some((3, -1))),
            "each has its own turns"
        );
        all.over(TASK);
        assert_eq!((all.held_at(&a), all.place(&b, true)), (None, Some((8, 4))));
        own.handed(ONE[0], &a, 6, (9, 4));
        own.retract(&a, 8);
        all.take_back(&a, &mut own);
        assert_eq!((all.place(&a, true), all.place(&a, false)), (Some((6, 4)), Some((8, -1))));
        all.over(ONE);
        assert_eq!(all.place(&a, true), Some((8, -1)));
    }

    #[test]
    fn what_is_gone_or_was_gone_back_behind_is_not_done_and_what_is_passed_by_is() {
        let [a, _] = partitions();
        let mut turns = counting();
        turns.handed(ONE[0], &a, 0, (5, 4));
        turns.over(ONE);
        turns.passed(&a, (7, 4));
        assert_eq!(seen(&turns, &a), (Some((7, 4)), Some((7, 4))));
        turns.handed(ONE[0], &a, 7, (10, 4));
        turns.passed(&a, (12, 4));
        assert_eq!(seen(&turns, &a), (Some((7, 4)), Some((12, 4))));
        turns.cut(&a, 6);
        assert_eq!(seen(&turns, &a), (Some((6, -1)), Some((6, -1))));
        turns.handed(ONE[0], &a, 6, (8, 5));
        turns.over(ONE);
        turns.handed(TWO[0], &a, 2, (3, 5));
        assert_eq!(seen(&turns, &a), (Some((2, -1)), Some((3, 5))));
        turns.cut(&a, i64::MIN);
        assert_eq!(seen(&turns, &a), (None, None));
    }

    #[test]
    fn callers_that_never_come_back_take_no_memory_without_end_and_hold_what_they_have() {
        let [a, _] = partitions();
        let mut turns = counting();
        for offset in 0..CALLERS as i64 + 4_000 {
            turns.handed(Caller::Stream(offset as u64), &a, offset, (offset + 1, 4));
        }
        assert!(turns.open.len() <= CALLERS, "{}", turns.open.len());
        assert_eq!(turns.place(&a, true), Some((0, -1)));
        turns.over([Caller::Stream(0); 2]);
        assert_eq!(turns.place(&a, true), Some((0, -1)), "nobody knows any more who that was");
        turns.over([Caller::Stream(CALLERS as u64); 2]);
        let all = CALLERS as i64 + 4_000;
        turns.done_up_to(&a, (all - 1, 4));
        assert_eq!(turns.holders(|_| true), [(Caller::Stream(all as u64 - 1), 0)], "the others are done");
        turns.done_up_to(&a, (all, 4));
        assert_eq!((turns.place(&a, true), turns.open.len()), (Some((all, 4)), 0));
        // One caller with many partitions.
        for partition in 0..CALLERS as i32 + 10 {
            turns.handed(ONE[0], &TopicPartition::new("many", partition), 0, (1, 4));
        }
        turns.over(ONE);
        assert!(turns.open.is_empty());
    }
}
