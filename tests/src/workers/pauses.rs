//! What groups were done with, and how long they stood still.
//!
//! A member that falls silent holds its group up until its session is over, and so does each end of a coordinator, whose
//! successor gives all sessions anew: what disturbs a group explains that it stands still for a while, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Client, Event, Group, History, Partition};

/// A time in which a group was done with nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pause {
    /// When it began.
    pub from: Duration,
    /// How long it was.
    pub length: Duration,
    /// How often something disturbed the group meanwhile.
    pub disturbed: usize,
    /// Generations in which members heard of an assignment.
    pub generations: usize,
    /// How long nobody had a partition.
    pub unowned: Duration,
}

/// What a group did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records that it was done with.
    pub done: BTreeSet<(Partition, i64)>,
    /// How often it was done with one again.
    pub again: u64,
    /// When it stood still for longest.
    pub longest: Pause,
    /// How long it stood still, at most, while nothing disturbed it.
    pub undisturbed: Duration,
    pause: Open,
}

/// The pause that may be the next one.
#[derive(Debug, Default)]
struct Open {
    /// When it was last done with something.
    since: Option<Duration>,
    generations: BTreeSet<i32>,
    owned: BTreeSet<(Client, Partition)>,
    unowned: Duration,
    /// Since when nobody has had anything.
    nothing_since: Duration,
}

impl Open {
    fn own(&mut self, at: Duration, me: Client, partition: Partition, owns: bool) {
        let before = self.owned.is_empty();
        match owns {
            true => self.owned.insert((me, partition)),
            false => self.owned.remove(&(me, partition)),
        };
        match (before, self.owned.is_empty()) {
            (true, false) => self.unowned += at.saturating_sub(self.nothing_since),
            (false, true) => self.nothing_since = at,
            _ => {}
        }
    }
}

impl Progress {
    fn work(&mut self, at: Duration, partition: Partition, offset: i64, disturbances: &[Duration]) {
        self.again += u64::from(!self.done.insert((partition, offset)));
        let open = &mut self.pause;
        if open.owned.is_empty() {
            open.unowned += at.saturating_sub(open.nothing_since);
        }
        if let Some(from) = open.since.replace(at).filter(|from| *from < at) {
            let first = disturbances.partition_point(|time| *time < from);
            let last = disturbances.partition_point(|time| *time < at);
            let meanwhile = disturbances.get(first..last).unwrap_or_default();
            let mut quiet_since = from;
            for time in meanwhile.iter().chain([&at]) {
                self.undisturbed = self.undisturbed.max(time.saturating_sub(quiet_since));
                quiet_since = *time;
            }
            let length = at.saturating_sub(from);
            if length > self.longest.length {
                let (disturbed, generations) = (meanwhile.len(), open.generations.len());
                self.longest = Pause { from, length, disturbed, generations, unowned: open.unowned };
            }
        }
        open.generations.clear();
        (open.unowned, open.nothing_since) = (Duration::ZERO, at);
    }
}

/// Follows each group through a history that is in order of time. `disturbances` gives, in order, when a group was disturbed.
pub fn progress(
    history: &History,
    disturbances: impl Fn(Group) -> Vec<Duration>,
) -> BTreeMap<Group, Progress> {
    let (mut all, mut known) = (BTreeMap::<_, Progress>::new(), BTreeMap::new());
    for entry in history.entries() {
        let Some(group) = history.group_of(entry.client) else { continue };
        let (at, me) = (Duration::from_nanos(entry.at_ns), entry.client);
        let progress = all.entry(group).or_default();
        match entry.event {
            Event::Done { partition, offset } => {
                let disturbances = known.entry(group).or_insert_with(|| disturbances(group));
                progress.work(at, partition, offset, disturbances);
            }
            Event::Synced { generation } => {
                progress.pause.generations.insert(generation);
            }
            Event::Assigned { partition, .. } => progress.pause.own(at, me, partition, true),
            Event::Revoked { partition } | Event::Lost { partition } => {
                progress.pause.own(at, me, partition, false);
            }
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_with_what_disturbed_the_group_and_how_long_nobody_had_a_partition() {
        let s = Duration::from_secs;
        let mut history = History::new();
        let (place, me, other) =
            (history.partition("t", 0), history.consumer("a", Some("g")), history.consumer("b", Some("g")));
        history.assigned(s(1), me, place, None, Some(1));
        history.done(s(2), me, place, 0);
        history.done(s(5), me, place, 1);
        history.lost(s(6), me, place);
        history.synced(s(7), other, 2);
        history.synced(s(7), me, 2);
        history.synced(s(9), other, 3);
        history.assigned(s(10), other, place, None, Some(3));
        history.done(s(15), other, place, 1);
        history.done(s(20), other, place, 2);
        let all = progress(&history, |_| vec![s(4), s(7), s(19)]);
        let (group, told) = all.first_key_value().expect("one group");
        assert_eq!(Some(*group), history.group_of(me));
        let longest = Pause { from: s(5), length: s(10), disturbed: 1, generations: 2, unowned: s(4) };
        assert_eq!(told.longest, longest);
        assert_eq!((told.done.len(), told.again, told.undisturbed), (3, 1, s(8)));
    }
}
