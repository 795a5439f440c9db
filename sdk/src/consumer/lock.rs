//! The consumer's locks, which are taken in one order only.
//!
//! Invariant: a thread that holds one takes no other of the same [`Rank`] or a lower one. Builds with debug assertions check it at every
//! lock, and so do all tests.

use std::fmt;
use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

use self::held::Held;

/// What a lock guards, in the order in which locks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The membership.
    Group,
    /// What is read of all partitions in turn.
    Common,
    /// What is read of one partition. One at a time.
    Lane,
    /// Which partitions have lanes.
    Lanes,
    /// What is fetched.
    Fetcher,
}

/// A short lock: nothing waits, and no code of the application runs, while it is held.
pub(super) struct Ordered<T> {
    rank: Rank,
    inner: Mutex<T>,
    #[cfg(test)]
    waiting: std::sync::atomic::AtomicUsize,
}

impl<T> fmt::Debug for Ordered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// As long as it lives, its thread holds the lock.
pub(super) struct Guard<'a, T> {
    inner: MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Ordered<T> {
    pub(super) fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: Mutex::new(value),
            #[cfg(test)]
            waiting: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        let held = Held::new(self.rank);
        #[cfg(test)]
        self.waiting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let inner = self.inner.lock();
        #[cfg(test)]
        self.waiting.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        Guard { inner, _held: held }
    }

    /// Threads that wait for it.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// A lock of this rank is held, or waited for.
    pub(super) struct Held(Rank);

    impl Held {
        pub(super) fn new(rank: Rank) -> Self {
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                debug_assert!(held.iter().all(|before| *before < rank), "{rank:?} is locked behind {held:?}");
                held.push(rank);
            });
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A thread that ends may have forgotten what it held.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                held.iter().rposition(|rank| *rank == self.0).map(|last| held.remove(last));
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod held {
    /// Nothing is checked.
    pub(super) struct Held;

    impl Held {
        #[inline]
        pub(super) fn new(_: super::Rank) -> Self {
            Self
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn locks_may_be_released_in_any_order_and_taken_again() {
        let [common, lane, fetcher] =
            [Rank::Common, Rank::Lane, Rank::Fetcher].map(|rank| Ordered::new(rank, ()));
        let (first, second) = (common.lock(), lane.lock());
        drop(first);
        drop(fetcher.lock());
        drop(second);
        drop(common.lock());
    }

    #[test]
    #[should_panic(expected = "Lane is locked behind [Lanes]")]
    fn whoever_takes_them_in_another_order_is_told_so() {
        let (lanes, lane) = (Ordered::new(Rank::Lanes, ()), Ordered::new(Rank::Lane, ()));
        let _lanes = lanes.lock();
        let _lane = lane.lock();
    }

    #[test]
    #[should_panic(expected = "Lane is locked behind [Common, Lane]")]
    fn nobody_takes_the_locks_of_two_partitions() {
        let [one, two] = [(), ()].map(|()| Ordered::new(Rank::Lane, ()));
        let common = Ordered::new(Rank::Common, ());
        let _both = (common.lock(), one.lock());
        let _too_many = two.lock();
    }
}
