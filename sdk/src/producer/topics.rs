//! The topics that a producer sends to, found for every record without taking a lock or counting an owner.
//!
//! Invariant: what is in a [`Shelf`] stays where it is as long as the shelf lives, so it is lent out and never owned.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockWriteGuard};
use uuid::Uuid;

use super::slot::Slot;
use super::spread::Spread;

/// One topic as callers see it. Superseded by another version when the topic gets more partitions, or is created again.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// The name as the first record gave it, which the next ones are likely to share.
    pub(super) asked: Arc<str>,
    pub(super) id: Uuid,
    /// Partitions there are.
    pub(super) count: usize,
    /// Every partition there ever was: sequences go on where a topic of the same name left off.
    pub(super) slots: Vec<Arc<Slot>>,
    /// Where records without a key go now.
    pub(super) sticky: AtomicU32,
    pub(super) spread: Spread,
    /// Superseded, or not known to the metadata any more.
    pub(super) stale: AtomicBool,
}

impl Topic {
    #[inline]
    fn is(&self, name: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.asked, name) || *self.name == **name
    }
}

/// All topics. A version of one that is superseded is kept: there are few, and somebody may be looking at it.
#[derive(Debug, Default)]
pub(super) struct Topics {
    versions: Shelf<Topic>,
    index: RwLock<Index>,
    /// Versions found lately, plus one, by the address of the name that was asked for. Only a guess.
    recent: [AtomicU32; RECENT],
}

#[derive(Debug, Default)]
struct Index {
    by_name: BTreeMap<Arc<str>, u32>,
    /// Those that the metadata do not know any more: nothing is appended to them unless they are known again.
    gone: BTreeMap<Arc<str>, u32>,
    versions: u32,
    next_slot: u32,
}

const RECENT: usize = 16;

impl Topics {
    /// A topic that is known. Records that share one `Arc` of the name are the fastest.
    #[inline]
    pub(super) fn get(&self, name: &Arc<str>) -> Option<&Topic> {
        let guess = &self.recent[guess_of(name)];
        let at = guess.load(Ordering::Relaxed);
        match self.versions.get(at.wrapping_sub(1) as usize) {
            Some(topic) if topic.is(name) && !topic.stale.load(Ordering::Relaxed) => Some(topic),
            _ => self.look_up(name, guess),
        }
    }

    #[cold]
    fn look_up(&self, name: &str, guess: &AtomicU32) -> Option<&Topic> {
        let at = *self.index.read().by_name.get(name)?;
        guess.store(at.wrapping_add(1), Ordering::Relaxed);
        self.versions.get(at as usize)
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let index = self.index.read();
        index.by_name.keys().chain(index.gone.keys()).cloned().collect()
    }

    /// For whoever changes topics; others do not, meanwhile.
    pub(super) fn change(&self) -> Change<'_> {
        Change { topics: self, index: self.index.write() }
    }
}

/// The right to change topics.
pub(super) struct Change<'a> {
    topics: &'a Topics,
    index: RwLockWriteGuard<'a, Index>,
}

impl<'a> Change<'a> {
    /// A topic that the metadata know; whatever is known of it from before.
    pub(super) fn known(&mut self, name: &str) -> Option<&'a Topic> {
        if let Some((name, at)) = self.index.gone.remove_entry(name) {
            self.index.by_name.insert(name, at);
        }
        let topic = self.topics.versions.get(*self.index.by_name.get(name)? as usize)?;
        topic.stale.store(false, Ordering::Relaxed);
        Some(topic)
    }

    /// A topic that the metadata do not know any more. Returns what was known of it.
    pub(super) fn forget(&mut self, name: &str) -> Option<&'a Topic> {
        if let Some((name, at)) = self.index.by_name.remove_entry(name) {
            self.index.gone.insert(name, at);
        }
        let topic = self.topics.versions.get(*self.index.gone.get(name)? as usize)?;
        topic.stale.store(true, Ordering::Relaxed);
        Some(topic)
    }

    /// Numbers of partitions that there were not before, in order.
    pub(super) fn next_slot(&mut self) -> u32 {
        self.index.next_slot += 1;
        self.index.next_slot - 1
    }

    /// Takes in a topic, in place of the version known before.
    pub(super) fn put(&mut self, topic: Topic) -> &'a Topic {
        let known = self.known(&topic.name);
        let at = self.index.versions;
        self.index.versions += 1;
        self.index.by_name.insert(topic.name.clone(), at);
        let topic = self.topics.versions.put(at as usize, topic);
        if let Some(known) = known {
            known.stale.store(true, Ordering::Relaxed);
        }
        topic
    }
}

/// Where to guess for a name: names of different topics are at different addresses.
#[inline]
fn guess_of(name: &Arc<str>) -> usize {
    let address = Arc::as_ptr(name).cast::<u8>().addr();
    ((address >> 4) ^ (address >> 10)) % RECENT
}

/// A list that only grows, read without a lock.
#[derive(Debug)]
struct Shelf<T> {
    /// Each twice as long as the one before.
    boards: [OnceLock<Box<[OnceLock<T>]>>; BOARDS],
}

const BOARDS: usize = 26;
const FIRST_BOARD: usize = 8;

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { boards: [const { OnceLock::new() }; BOARDS] }
    }
}

impl<T> Shelf<T> {
    #[inline]
    fn get(&self, index: usize) -> Option<&T> {
        let (board, place) = place_of(index);
        self.boards.get(board)?.get()?.get(place)?.get()
    }

    /// Puts `value` at an index where nothing is yet. One at a time, up from 0.
    fn put(&self, index: usize, value: T) -> &T {
        let (board, place) = place_of(index);
        let board = self.boards[board]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(FIRST_BOARD << board).collect());
        board[place].get_or_init(|| value)
    }
}

#[inline]
fn place_of(index: usize) -> (usize, usize) {
    let at = index.saturating_add(FIRST_BOARD);
    let board = (at.ilog2() - FIRST_BOARD.ilog2()) as usize;
    (board, at - (FIRST_BOARD << board))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_keeps_everything_in_its_place() {
        let shelf = Shelf::default();
        let kept: Vec<&usize> = (0..5000).map(|index| shelf.put(index, index * 3)).collect();
        for (index, value) in kept.iter().enumerate() {
            assert!(std::ptr::eq(*value, shelf.get(index).unwrap()), "{index}");
            assert_eq!(**value, index * 3);
        }
        assert_eq!([5000, 1 << 40, usize::MAX].map(|index| shelf.get(index)), [None; 3]);
    }

    fn topic(name: &str, count: usize) -> Topic {
        let (sticky, spread, stale) = (AtomicU32::new(0), Spread::default(), AtomicBool::new(false));
        let (name, asked, id, slots) = (name.into(), name.into(), Uuid::nil(), Vec::new());
        Topic { name, asked, id, count, slots, sticky, spread, stale }
    }

    /// Goal: a guess is only a guess, whichever names come by the same address.
    #[test]
    fn the_newest_version_of_the_topic_that_was_asked_for_is_found() {
        let topics = Topics::default();
        let names: Vec<Arc<str>> = (0..100).map(|n| format!("topic {n}").into()).collect();
        let count = |name: &Arc<str>| topics.get(name).map(|topic| (topic.name.clone(), topic.count));
        for (n, name) in names.iter().enumerate() {
            assert_eq!(count(name), None);
            topics.change().put(topic(name, n));
        }
        for _ in 0..3 {
            for (n, name) in names.iter().enumerate() {
                assert_eq!(count(name), Some((name.clone(), n)));
                assert_eq!(count(&Arc::from(&**name)), Some((name.clone(), n)), "another Arc");
            }
        }
        topics.change().put(topic(&names[7], 700));
        assert_eq!(count(&names[7]), Some((names[7].clone(), 700)));
        topics.change().forget(&names[7]);
        assert_eq!(count(&names[7]), None);
        assert_eq!(count(&Arc::from(&*names[7])), None);
        assert_eq!(topics.names().len(), 100, "it may come back");
        assert_eq!(topics.change().known(&names[7]).map(|topic| topic.count), Some(700));
        assert_eq!(count(&names[7]), Some((names[7].clone(), 700)));
    }
}
