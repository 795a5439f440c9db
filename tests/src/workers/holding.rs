//! Who has which partition of a group, and how far it got with it. What somebody was done with who lost the partition, nobody
//! commits: others work on it again, and only they say when it is over.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::history::{Client, Partition};

/// A partition of a group.
type Place = (usize, Partition);

#[derive(Debug)]
struct Held {
    by: Client,
    /// Offset behind what it has read since it has the partition: work on what it read before does not count.
    read: i64,
    /// Offset behind what it is done with of that.
    done: i64,
    /// Offset of the first record of the last turn that has some.
    turn: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Place, Held>,
    /// Where the group had committed when a member asked last.
    began: BTreeMap<(Client, Partition), i64>,
    /// That, or what the member has asked to be committed since.
    asked: BTreeMap<(Client, Partition), i64>,
    lost_late: BTreeSet<Place>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Holding(Mutex<State>);

impl Holding {
    pub(super) fn began(&self, me: Client, place: Partition, offset: i64) {
        let state = &mut *self.0.lock();
        state.began.insert((me, place), offset);
        state.asked.insert((me, place), offset);
    }

    pub(super) fn asked(&self, me: Client, place: Partition, offset: i64) {
        self.0.lock().asked.insert((me, place), offset);
    }

    pub(super) fn assigned(&self, group: usize, me: Client, place: Partition) {
        self.0.lock().held.insert((group, place), Held { by: me, read: 0, done: 0, turn: None });
    }

    /// Among the records that a member was given at a time this is the partition's first.
    pub(super) fn turn(&self, group: usize, me: Client, place: Partition, offset: i64) {
        if let Some(held) = self.0.lock().held.get_mut(&(group, place)).filter(|held| held.by == me) {
            held.turn = Some(offset);
        }
    }

    /// Whether the member has asked to commit everything that it was given before the last turn: whether that was possible is
    /// for the coordinator to say.
    pub(super) fn has_committed_but_for_a_turn(&self, group: usize, me: Client, place: Partition) -> bool {
        let state = self.0.lock();
        let turn = state.held.get(&(group, place)).filter(|held| held.by == me).and_then(|held| held.turn);
        turn.is_some_and(|first| state.asked.get(&(me, place)).is_some_and(|offset| *offset >= first))
    }

    /// The member has it no more. What is lost `late`, when members are to close already and it has not heard of that, nobody
    /// promises to commit.
    pub(super) fn gone(&self, group: usize, me: Client, place: Partition, late: bool) {
        let state = &mut *self.0.lock();
        if state.held.get(&(group, place)).is_some_and(|held| held.by == me) {
            state.held.remove(&(group, place));
        }
        if late {
            state.lost_late.insert((group, place));
        }
    }

    pub(super) fn read(&self, group: usize, me: Client, place: Partition, offset: i64) {
        if let Some(held) = self.0.lock().held.get_mut(&(group, place)).filter(|held| held.by == me) {
            held.read = offset + 1;
        }
    }

    pub(super) fn done(&self, group: usize, me: Client, place: Partition, offset: i64) {
        if let Some(held) = self.0.lock().held.get_mut(&(group, place))
            && held.by == me
            && offset < held.read
        {
            held.done = held.done.max(offset + 1);
        }
    }

    /// Whether whoever has it is done with everything before `end`.
    pub(super) fn reached(&self, group: usize, place: Partition, end: i64) -> bool {
        let state = self.0.lock();
        state.held.get(&(group, place)).is_some_and(|held| {
            let began = state.began.get(&(held.by, place)).copied().unwrap_or(0);
            began.max(held.done) >= end
        })
    }

    /// How many that are.
    pub(super) fn excused(&self) -> usize {
        self.0.lock().lost_late.len()
    }

    /// Whether nobody promises that all of it is committed.
    pub(super) fn is_excused(&self, group: usize, place: Partition) -> bool {
        self.0.lock().lost_late.contains(&(group, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;

    #[test]
    fn only_what_was_read_since_it_was_assigned_brings_whoever_has_it_forward() {
        let mut history = History::new();
        let (place, me, other) =
            (history.partition("t", 0), history.consumer("a", Some("g")), history.consumer("b", Some("g")));
        let holding = Holding::default();
        holding.assigned(0, me, place);
        holding.read(0, me, place, 4);
        holding.gone(0, me, place, false);
        holding.assigned(0, me, place);
        holding.done(0, me, place, 4);
        assert!(!holding.reached(0, place, 5), "it read that before");
        holding.read(0, me, place, 4);
        holding.done(0, other, place, 4);
        assert!(!holding.reached(0, place, 5), "somebody else's work");
        holding.done(0, me, place, 4);
        assert!(holding.reached(0, place, 5));
        holding.gone(0, me, place, true);
        assert!(!holding.reached(0, place, 0), "nobody has it");
        holding.began(other, place, 7);
        holding.assigned(0, other, place);
        assert!(holding.reached(0, place, 7), "others have committed that");
        assert!(holding.is_excused(0, place) && !holding.is_excused(1, place));
    }

    #[test]
    fn an_automatic_commit_may_leave_out_the_last_turn_and_nothing_before() {
        let mut history = History::new();
        let (place, me) = (history.partition("t", 0), history.consumer("a", Some("g")));
        let holding = Holding::default();
        holding.began(me, place, 3);
        holding.assigned(0, me, place);
        assert!(!holding.has_committed_but_for_a_turn(0, me, place), "nothing was handed out");
        holding.turn(0, me, place, 3);
        assert!(holding.has_committed_but_for_a_turn(0, me, place));
        holding.turn(0, me, place, 7);
        assert!(!holding.has_committed_but_for_a_turn(0, me, place), "3 to 6 were never committed");
        holding.asked(me, place, 6);
        assert!(!holding.has_committed_but_for_a_turn(0, me, place), "6 was not");
        holding.asked(me, place, 7);
        assert!(holding.has_committed_but_for_a_turn(0, me, place));
    }
}
