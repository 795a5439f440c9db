//! Who has had records for how long without coming back.

use std::collections::BTreeMap;

use klamm_core::{Tick, TopicPartition};

use super::Caller;
use crate::consumer::shared::Holder;

/// Those who had records and were not done with them when last looked at, and since when they have been seen so.
///
/// By lane and by the count of the call before they got them, which few share: callers themselves have no order.
#[derive(Debug)]
pub(super) struct Holders<C = Option<Caller>> {
    seen: BTreeMap<Call, Vec<(C, Tick)>>,
}

/// A lane, `None` for the common one, and the count of a call there.
type Call = (Option<TopicPartition>, u64);

impl<C> Default for Holders<C> {
    fn default() -> Self {
        Self { seen: BTreeMap::new() }
    }
}

impl<C: PartialEq> Holders<C> {
    /// These have records now.
    pub(super) fn look(&mut self, now: Tick, found: impl IntoIterator<Item = Holder<C>>) {
        let before = std::mem::take(&mut self.seen);
        for Holder { lane, caller, asked } in found {
            let call: Call = (lane, asked);
            let known = before.get(&call).and_then(|seen| seen.iter().find(|(known, _)| *known == caller));
            let since = known.map_or(now, |(_, since)| *since);
            self.seen.entry(call).or_default().push((caller, since));
        }
    }

    /// Since when the one has been seen that has had records longest.
    pub(super) fn oldest(&self) -> Option<Tick> {
        self.seen.values().flatten().map(|(_, since)| *since).min()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug, Clone)]
    struct Counted(u64);

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.with(|compared| compared.set(compared.get() + 1));
            self.0 == other.0
        }
    }

    fn holder(lane: Option<i32>, caller: u64, asked: u64) -> Holder<Counted> {
        let lane = lane.map(|partition| TopicPartition::new("t", partition));
        Holder { lane, caller: Counted(caller), asked }
    }

    #[test]
    fn whoever_comes_back_or_reads_elsewhere_is_seen_anew_and_the_others_since_they_were_seen_first() {
        let mut holders = Holders::default();
        assert_eq!(holders.oldest(), None);
        holders.look(S, [holder(None, 1, 7), holder(None, 2, 7)]);
        holders.look(2 * S, [holder(None, 1, 7), holder(None, 2, 9), holder(Some(0), 1, 7)]);
        assert_eq!(holders.oldest(), Some(S));
        holders.look(3 * S, [holder(None, 2, 9), holder(Some(0), 1, 7), holder(None, 3, 9)]);
        assert_eq!(holders.oldest(), Some(2 * S), "the first one has come back");
        holders.look(4 * S, [holder(None, 3, 9)]);
        assert_eq!(holders.oldest(), Some(3 * S));
        holders.look(5 * S, []);
        assert_eq!(holders.oldest(), None);
    }

    /// Goal: thousands of readers cost their number, not its square, on the task that sends heartbeats.
    #[test]
    fn each_holder_is_compared_with_few_others() {
        let mut holders = Holders::default();
        let all: Vec<_> = (0..2_000).map(|caller| holder(Some(caller as i32 % 50), caller, caller)).collect();
        for now in 1..4 {
            holders.look(now * S, all.clone());
        }
        assert_eq!(holders.oldest(), Some(S));
        let compared = COMPARED.with(Cell::get);
        assert!(compared <= 4 * all.len(), "{compared} comparisons");
    }
}
