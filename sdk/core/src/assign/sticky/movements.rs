//! Which partitions moved from whom to whom while balancing.
//!
//! If a partition of a topic is to move from A to B after one moved from B to A, that one goes back instead.

use std::collections::BTreeMap;

use super::Slot;
use crate::assign::java::HashSetOrder;

/// From whom, to whom.
type Pair = (usize, usize);

#[derive(Default)]
pub(super) struct Movements {
    pairs: BTreeMap<Slot, Pair>,
    /// By topic and pair.
    moved: BTreeMap<(usize, Pair), HashSetOrder<Slot>>,
}

impl Movements {
    pub(super) fn record(&mut self, slot: Slot, hash: i32, from: usize, to: usize) {
        let origin = match self.pairs.remove(&slot) {
            Some(pair) => {
                if let Some(set) = self.moved.get_mut(&(slot.0, pair)) {
                    set.remove(&slot);
                    if set.is_empty() {
                        self.moved.remove(&(slot.0, pair));
                    }
                }
                pair.0
            }
            None => from,
        };
        if origin != to {
            self.pairs.insert(slot, (origin, to));
            self.moved.entry((slot.0, (origin, to))).or_default().insert(hash, slot);
        }
    }

    /// The partition that moves in place of `slot`.
    pub(super) fn instead_of(&self, slot: Slot, from: usize, to: usize) -> Slot {
        let origin = self.pairs.get(&slot).map_or(from, |pair| pair.0);
        let back = self.moved.get(&(slot.0, (to, origin)));
        back.and_then(HashSetOrder::first).copied().unwrap_or(slot)
    }
}
