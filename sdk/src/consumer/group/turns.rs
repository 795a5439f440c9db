//! What was handed out, and what of it is done: a record's turn is over when the application asks for more.

use std::collections::BTreeMap;

use klamm_core::TopicPartition;

/// An offset, and the leader epoch of the record before it; -1 if unknown.
pub(in crate::consumer) type Place = (i64, i32);

/// Places in one partition behind what is done, and behind what was handed out.
#[derive(Debug, Clone, Copy)]
struct Turn {
    over: Place,
    handed: Place,
}

/// See the [module](self). Costs a comparison per record while records come from one partition.
#[derive(Debug, Default)]
pub(in crate::consumer) struct Turns {
    pub(in crate::consumer) counts: bool,
    current: Option<(TopicPartition, Turn)>,
    others: BTreeMap<TopicPartition, Turn>,
    /// Others whose last records are not done.
    open: Vec<TopicPartition>,
}

impl Turns {
    /// None handed out yet; counting as before.
    pub(in crate::consumer) fn anew(before: &Self) -> Self {
        Self { counts: before.counts, ..Self::default() }
    }

    /// Records from the offset to before the place were handed out.
    pub(in crate::consumer) fn handed(&mut self, partition: &TopicPartition, first: i64, next: Place) {
        if !self.counts {
            return;
        }
        match &mut self.current {
            Some((current, turn)) if current == partition => turn.handed = next,
            _ => {
                self.put_away();
                let known = self.others.remove(partition);
                let turn = known.unwrap_or(Turn { over: (first, -1), handed: (first, -1) });
                self.current = Some((partition.clone(), Turn { handed: next, ..turn }));
            }
        }
    }

    /// The record at `offset` was not handed out after all, and nothing behind it.
    pub(in crate::consumer) fn retract(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some((_, turn)) = self.current.as_mut().filter(|(current, _)| current == partition) {
            turn.handed = turn.handed.min((offset, -1));
            turn.over = turn.over.min((offset, -1));
        }
    }

    /// What lies at the offset and behind it is not in the log any more.
    pub(in crate::consumer) fn cut(&mut self, partition: &TopicPartition, from: i64) {
        let current = self.current.as_mut().filter(|(current, _)| current == partition).map(|(_, turn)| turn);
        match current.or_else(|| self.others.get_mut(partition)) {
            Some(turn) if turn.handed.0 > from && from >= 0 => {
                turn.handed = (from, -1);
                turn.over = turn.over.min(turn.handed);
            }
            Some(_) if from < 0 => self.forget(partition),
            _ => {}
        }
    }

    /// What is known of a partition that was counted elsewhere.
    pub(in crate::consumer) fn take_over(&mut self, partition: &TopicPartition, elsewhere: &mut Self) {
        elsewhere.put_away();
        if let Some(turn) = elsewhere.others.remove(partition) {
            elsewhere.open.retain(|name| name != partition);
            self.forget(partition);
            if turn.over != turn.handed {
                self.open.push(partition.clone());
            }
            self.others.insert(partition.clone(), turn);
        }
    }

    fn put_away(&mut self) {
        if let Some((name, turn)) = self.current.take() {
            if turn.over != turn.handed {
                self.open.push(name.clone());
            }
            self.others.insert(name, turn);
        }
    }

    /// The application asks for more: what it has is done.
    pub(in crate::consumer) fn over(&mut self) {
        if let Some((_, turn)) = &mut self.current {
            turn.over = turn.handed;
        }
        for name in self.open.drain(..) {
            if let Some(turn) = self.others.get_mut(&name) {
                turn.over = turn.handed;
            }
        }
    }

    /// The application itself says how far it is done.
    pub(in crate::consumer) fn done_up_to(&mut self, partition: &TopicPartition, place: Place) {
        let current = self.current.as_mut().filter(|(current, _)| current == partition).map(|(_, turn)| turn);
        if let Some(turn) = current.or_else(|| self.others.get_mut(partition)) {
            turn.over = turn.over.max(place.min(turn.handed));
        }
    }

    /// Nothing more is handed out of the partition, which stands here; counts if nothing was handed out before.
    pub(in crate::consumer) fn stopped(&mut self, partition: &TopicPartition, place: Place) {
        if self.counts && self.place(partition, true).is_none() {
            self.others.insert(partition.clone(), Turn { over: place, handed: place });
        }
    }

    /// The partition begins anew.
    pub(in crate::consumer) fn forget(&mut self, partition: &TopicPartition) {
        self.current.take_if(|(current, _)| current == partition);
        self.others.remove(partition);
        self.open.retain(|name| name != partition);
    }

    /// Place behind what was handed out, or with `done` behind what is done; `None` if nothing was handed out.
    pub(in crate::consumer) fn place(&self, partition: &TopicPartition, done: bool) -> Option<Place> {
        let current = self.current.as_ref().filter(|(current, _)| current == partition).map(|(_, turn)| turn);
        let turn = current.or_else(|| self.others.get(partition))?;
        Some(if done { turn.over } else { turn.handed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_turn_is_over_when_the_next_is_asked_for() {
        let [a, b] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        let mut turns = Turns { counts: true, ..Turns::default() };
        let seen = |turns: &Turns, of: &TopicPartition| (turns.place(of, true), turns.place(of, false));
        assert_eq!(seen(&turns, &a), (None, None));
        turns.handed(&a, 7, (8, 4));
        assert_eq!(seen(&turns, &a), (Some((7, -1)), Some((8, 4))), "it was handed out and is not done");
        turns.over();
        turns.handed(&a, 9, (10, 4));
        turns.handed(&b, 3, (4, 4));
        turns.handed(&a, 10, (11, 4));
        assert_eq!(
            (seen(&turns, &a), seen(&turns, &b)),
            ((Some((8, 4)), Some((11, 4))), (Some((3, -1)), Some((4, 4))))
        );
        turns.over();
        assert_eq!(
            (seen(&turns, &a), seen(&turns, &b)),
            ((Some((11, 4)), Some((11, 4))), (Some((4, 4)), Some((4, 4))))
        );
        turns.stopped(&a, (99, 4));
        assert_eq!(seen(&turns, &a), (Some((11, 4)), Some((11, 4))), "what was handed out counts");
        turns.forget(&a);
        assert_eq!(seen(&turns, &a), (None, None));
        turns.stopped(&a, (5, 2));
        assert_eq!(seen(&turns, &a), (Some((5, 2)), Some((5, 2))), "others begin where this one began");
    }

    #[test]
    fn what_the_application_commits_is_done_as_far_as_it_was_handed_out() {
        let [a, b] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        let mut turns = Turns { counts: true, ..Turns::default() };
        turns.handed(&a, 7, (10, 4));
        turns.handed(&b, 0, (1, 4));
        turns.done_up_to(&a, (9, 4));
        assert_eq!((turns.place(&a, true), turns.place(&a, false)), (Some((9, 4)), Some((10, 4))));
        turns.done_up_to(&a, (8, 4));
        assert_eq!(turns.place(&a, true), Some((9, 4)), "not back");
        turns.done_up_to(&b, (5, 4));
        assert_eq!(turns.place(&b, true), Some((1, 4)), "not ahead");
    }

    #[test]
    fn what_one_reader_counted_another_goes_on_with() {
        let [a, b] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        let counting = || Turns { counts: true, ..Turns::default() };
        let (mut all, mut own) = (counting(), counting());
        all.handed(&a, 3, (4, 4));
        all.handed(&b, 7, (8, 4));
        own.take_over(&a, &mut all);
        assert_eq!(all.place(&a, false), None);
        all.over();
        assert_eq!(
            (own.place(&a, true), all.place(&b, true)),
            (Some((3, -1)), Some((8, 4))),
            "each has its own turns"
        );
        own.over();
        own.handed(&a, 4, (6, 4));
        own.retract(&a, 5);
        all.take_over(&a, &mut own);
        assert_eq!((all.place(&a, true), all.place(&a, false)), (Some((4, 4)), Some((5, -1))));
        all.over();
        assert_eq!(all.place(&a, true), Some((5, -1)));
    }
}
