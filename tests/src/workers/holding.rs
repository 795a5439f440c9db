//! Who has which partition of a group, and how far it got with it. What somebody was done with who lost the partition, nobody
//! commits: others work on it again, and only they say when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// What of `read` was of turns that are over: automatic commits are of that.
    over: i64,
    /// The same before the last of them ended, and when that was.
    before: i64,
    ended: Duration,
}

/// What a member has asked to be committed.
#[derive(Debug, Clone, Copy)]
struct Asked {
    offset: i64,
    at: Duration,
    acknowledged: bool,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Place, Held>,
    /// Where the group had committed when a member asked last.
    began: BTreeMap<(Client, Partition), i64>,
    /// The last commit of a member since then.
    asked: BTreeMap<(Client, Partition), Asked>,
    /// Up to where somebody had read what was lost late.
    lost_late: BTreeMap<Place, i64>,
}

impl State {
    fn lost_late(&mut self, group: usize, place: Partition, read: i64) {
        let lost = self.lost_late.entry((group, place)).or_default();
        *lost = read.max(*lost);
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Holding(Mutex<State>);

impl Holding {
    pub(super) fn began(&self, me: Client, place: Partition, offset: i64) {
        let state = &mut *self.0.lock();
        state.began.insert((me, place), offset);
        state.asked.remove(&(me, place));
    }

    pub(super) fn asked(&self, at: Duration, me: Client, place: Partition, offset: i64) {
        self.0.lock().asked.insert((me, place), Asked { offset, at, acknowledged: false });
    }

    pub(super) fn acknowledged(&self, me: Client, place: Partition, offset: i64) {
        if let Some(asked) = self.0.lock().asked.get_mut(&(me, place)) {
            asked.acknowledged |= asked.offset <= offset;
        }
    }

    pub(super) fn assigned(&self, group: usize, me: Client, place: Partition) {
        let held = Held { by: me, read: 0, done: 0, over: 0, before: 0, ended: Duration::ZERO };
        self.0.lock().held.insert((group, place), held);
    }

    /// The member asks for more: what it has read is done.
    pub(super) fn turn_ends(&self, now: Duration, group: usize, me: Client) {
        let state = &mut *self.0.lock();
        let mine = state.held.iter_mut().filter(|((of, _), held)| *of == group && held.by == me);
        for (_, held) in mine.filter(|(_, held)| held.over < held.read) {
            (held.before, held.over, held.ended) = (held.over, held.read, now);
        }
    }

    /// Whether some of what the member has read is not committed, for a reason: its last commit was of all turns that were over
    /// when it was sent, and there was another one, or it was not acknowledged. One that is `closing` has ended its turns before; else the
    /// last one may have ended between the commit and this.
    pub(super) fn has_committed_what_is_over(
        &self,
        group: usize,
        me: Client,
        place: Partition,
        closing: bool,
    ) -> bool {
        let state = self.0.lock();
        let Some(held) = state.held.get(&(group, place)).filter(|held| held.by == me) else {
            return false;
        };
        let asked = state.asked.get(&(me, place)).copied();
        let none = || Asked { offset: 0, at: Duration::ZERO, acknowledged: true };
        let Asked { offset, at, acknowledged } = asked.unwrap_or_else(none);
        let due = if at < held.ended && !closing { held.before } else { held.over };
        let in_part = offset < held.read || !acknowledged;
        in_part && offset >= due
    }

    /// The member has it no more. What is lost `late`, when members are to close already and it has not heard of that, nobody
    /// promises to commit, unless somebody has it after that who gets as far.
    /// Returns the offset behind what it has read since it had it.
    pub(super) fn gone(&self, group: usize, me: Client, place: Partition, late: bool) -> i64 {
        let state = &mut *self.0.lock();
        let held = state.held.get(&(group, place)).filter(|held| held.by == me);
        let read = held.map_or(0, |held| held.read);
        if held.is_some() {
            state.held.remove(&(group, place));
        }
        match late {
            true => state.lost_late(group, place, read),
            false => {
                let regained = |lost: &mut i64| 0 < read && *lost <= read;
                if state.lost_late.get_mut(&(group, place)).is_some_and(regained) {
                    state.lost_late.remove(&(group, place));
                }
            }
        }
        read
    }

    /// As [`Self::gone`] with `late`, of a partition that is gone already.
    pub(super) fn lost_late(&self, group: usize, place: Partition, read: i64) {
        self.0.lock().lost_late(group, place, read);
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
        self.0.lock().lost_late.contains_key(&(group, place))
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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_automatic_commit_may_leave_out_the_turn_that_was_not_over_and_nothing_before() {
        let mut history = History::new();
        let (place, me) = (history.partition("t", 0), history.consumer("a", Some("g")));
        let holding = Holding::default();
        let excused = || holding.has_committed_what_is_over(0, me, place, false);
        holding.began(me, place, 0);
        holding.assigned(0, me, place);
        assert!(!excused(), "it has read nothing");
        holding.read(0, me, place, 4);
        assert!(excused(), "its first turn is open");
        holding.turn_ends(MS, 0, me);
        assert!(excused(), "a commit may have been sent just before");
        assert!(!holding.has_committed_what_is_over(0, me, place, true));
        holding.asked(2 * MS, me, place, 4);
        assert!(!excused(), "4 was over when that was sent");
        holding.asked(3 * MS, me, place, 5);
        assert!(excused(), "it is not acknowledged");
        holding.acknowledged(me, place, 5);
        assert!(!excused(), "all of it is committed");
        holding.read(0, me, place, 6);
        assert!(excused(), "5 and 6 are not over");
        holding.turn_ends(3 * MS, 0, me);
        assert!(!excused(), "they were");
    }

    #[test]
    fn what_was_lost_late_is_promised_again_by_whoever_gets_as_far() {
        let mut history = History::new();
        let (place, me, other) =
            (history.partition("t", 0), history.consumer("a", Some("g")), history.consumer("b", Some("g")));
        let holding = Holding::default();
        let have = |who, offset| {
            holding.assigned(0, who, place);
            holding.read(0, who, place, offset);
        };
        have(me, 4);
        holding.gone(0, me, place, true);
        holding.assigned(0, other, place);
        holding.gone(0, other, place, false);
        assert!(holding.is_excused(0, place), "it had no time");
        have(other, 4);
        holding.gone(0, other, place, false);
        assert!(!holding.is_excused(0, place));
    }
}
