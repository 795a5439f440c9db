//! Records without a key: when to leave a partition, and for which one.

use fastrand::Rng;

/// Bytes that records without a key have brought to the current partition of a topic.
///
/// The partition is left only when it needs a new batch, so that no batch is cut short by moving on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sticky {
    produced: usize,
}

impl Sticky {
    /// Counts a record that was appended.
    pub fn appended(&mut self, bytes: usize) {
        self.produced += bytes;
    }

    /// Whether to move on, asked when a record of `bytes` needs a new batch; a yes starts the count again.
    pub fn leaves(&mut self, bytes: usize, batch_size: usize) -> bool {
        let leaves = self.produced > 0 && self.produced + bytes > batch_size;
        if leaves {
            self.produced = 0;
        }
        leaves
    }
}

/// What is known of one partition that could be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Index of the partition.
    pub partition: u32,
    /// Batches that wait to be sent to it.
    pub waiting: u32,
}

/// The chances of partitions to be next (KIP-794): the more batches wait for one, the smaller. If as many wait for
/// each, another one than the current is next, each with the same chance.
///
/// Partitions are looked at again after every sixteenth of their number of draws, so that a draw costs the same
/// however many there are.
#[derive(Debug, Clone, Default)]
pub struct Odds {
    /// Partitions with the sum of the weights up to and including each.
    steps: Vec<(u32, u64)>,
    even: bool,
    draws_left: usize,
}

/// Draws that one look at so many partitions serves.
const PARTITIONS_PER_DRAW: usize = 16;

impl Odds {
    /// Draws the next partition; `look` lists those that could be, in ascending order. `None` if there are none.
    pub fn draw(
        &mut self,
        current: Option<u32>,
        rng: &mut Rng,
        look: impl FnOnce() -> Vec<Candidate>,
    ) -> Option<u32> {
        match self.draws_left.checked_sub(1) {
            Some(left) => self.draws_left = left,
            None => self.weigh(&look()),
        }
        if self.even {
            return self.another(current, rng);
        }
        let (_, total) = self.steps.last()?;
        let at = rng.u64(..*total);
        let step = self.steps.partition_point(|(_, sum)| *sum <= at);
        self.steps.get(step).map(|(partition, _)| *partition)
    }

    fn weigh(&mut self, candidates: &[Candidate]) {
        let most = candidates.iter().map(|c| c.waiting).max().unwrap_or(0);
        let mut sum = 0;
        self.even = candidates.iter().all(|c| c.waiting == most);
        self.steps.clear();
        self.steps.extend(candidates.iter().map(|c| {
            sum += u64::from(most - c.waiting) + 1;
            (c.partition, sum)
        }));
        self.draws_left = candidates.len() / PARTITIONS_PER_DRAW;
    }

    fn another(&self, current: Option<u32>, rng: &mut Rng) -> Option<u32> {
        let find = |current| self.steps.binary_search_by_key(&current, |(partition, _)| *partition).ok();
        let at = match (self.steps.len(), current.and_then(find)) {
            (0, _) => return None,
            (1, _) => 0,
            (count, None) => rng.usize(..count),
            (count, Some(here)) => {
                let other = rng.usize(..count - 1);
                other + usize::from(other >= here)
            }
        };
        Some(self.steps[at].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    fn candidates(waiting: &[(u32, u32)]) -> Vec<Candidate> {
        waiting.iter().map(|&(partition, waiting)| Candidate { partition, waiting }).collect()
    }

    /// How often each of `count` partitions was drawn in `draws` draws.
    fn drawn(waiting: &[(u32, u32)], current: Option<u32>, draws: usize, count: usize) -> Vec<u32> {
        let (mut odds, mut rng, mut seen) = (Odds::default(), Rng::with_seed(1), vec![0; count]);
        for _ in 0..draws {
            seen[odds.draw(current, &mut rng, || candidates(waiting)).unwrap() as usize] += 1;
        }
        seen
    }

    #[test]
    fn a_partition_is_left_after_batch_size_bytes_and_not_before() {
        let mut sticky = Sticky::default();
        assert!(!sticky.leaves(2000, 1000), "a first record that is too large for a batch stays");
        sticky.appended(600);
        assert!(!sticky.leaves(400, 1000));
        assert!(sticky.leaves(401, 1000));
        assert!(!sticky.leaves(401, 1000), "the count starts again");
    }

    #[test]
    fn where_as_much_waits_for_each_the_next_is_another_one_with_even_chances() {
        for waiting in [0, 7] {
            let seen = drawn(&[(1, waiting), (2, waiting), (5, waiting)], Some(2), 600, 6);
            assert_eq!((seen[0], seen[2], seen[3], seen[4]), (0, 0, 0, 0));
            assert!(seen[1] > 250 && seen[5] > 250, "{seen:?}");
        }
        assert_eq!(drawn(&[(2, 0)], Some(2), 10, 3), [0, 0, 10], "the only one there is");
        assert_eq!(Odds::default().draw(None, &mut Rng::with_seed(1), Vec::new), None);
        let first = drawn(&[(0, 0), (1, 0), (2, 0)], None, 3_000, 3);
        assert!(first.iter().all(|count| (900..1_100).contains(count)), "{first:?}");
    }

    /// Goal: KIP-794's weights, `most waiting + 1 - waiting`.
    #[test]
    fn the_more_batches_wait_the_smaller_the_chance() {
        let seen = drawn(&[(0, 0), (1, 9), (2, 4), (3, 0)], Some(0), 27_000, 4);
        for (partition, share) in [(0, 10), (1, 1), (2, 6), (3, 10)] {
            let expected = 1_000 * share;
            let off = seen[partition].abs_diff(expected);
            assert!(off < 5 * expected.isqrt(), "{partition}: {} of {expected} expected", seen[partition]);
        }
    }

    #[test]
    fn partitions_are_looked_at_once_for_every_sixteenth_of_their_number() {
        for (count, looks) in [(3, 1_000), (15, 1_000), (32, 334), (1_000, 16)] {
            let waiting: Vec<_> = (0..count).map(|partition| (partition, partition % 7)).collect();
            let (mut odds, mut rng, mut looked) = (Odds::default(), Rng::with_seed(1), 0);
            for _ in 0..1_000 {
                odds.draw(None, &mut rng, || {
                    looked += 1;
                    candidates(&waiting)
                });
            }
            assert_eq!(looked, looks, "{count} partitions");
        }
    }

    proptest! {
        /// Whatever waits where: only candidates are drawn, and each of them can be, but the current when all are even.
        #[test]
        fn every_candidate_and_nothing_else_is_drawn(
            waiting in prop::collection::btree_map(0_u32..40, 0_u32..4, 1..12),
            current in prop::option::of(0_u32..40),
        ) {
            let waiting: Vec<_> = waiting.into_iter().collect();
            let seen = drawn(&waiting, current, 4_000, 40);
            let even = waiting.iter().all(|(_, count)| *count == waiting[0].1);
            for (partition, count) in (0_u32..).zip(seen) {
                let listed = waiting.iter().any(|(candidate, _)| *candidate == partition);
                let stays = even && waiting.len() > 1 && current == Some(partition);
                prop_assert_eq!(count > 0, listed && !stays, "{} of {:?}", partition, waiting);
            }
        }
    }
}
