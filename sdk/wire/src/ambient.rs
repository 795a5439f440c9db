//! What a simulation tells everything that is started on its thread: chance comes from one seed, and the wall
//! clock is the run's own.
//!
//! In: [`enter`], once, around a run. Out: [`current`], which the `rt` modules of the SDK and of the broker ask when a
//! client or a cluster is made. Neither crate knows the other, so what they share about a run lies here.
//!
//! Invariant: outside of a simulation [`current`] is `None`, and nothing depends on this module.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

/// The simulation that runs on this thread.
#[derive(Debug, Clone)]
pub struct Ambient(Rc<Inner>);

struct Inner {
    seed: u64,
    wall_ms: Box<dyn Fn() -> i64>,
    streams: Cell<u64>,
    panicked: RefCell<Option<String>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ambient").field("seed", &self.seed).finish_non_exhaustive()
    }
}

#[allow(clippy::disallowed_macros, reason = "one run per thread: this is where a run is known by its thread")]
mod slot {
    use super::{Ambient, RefCell};
    std::thread_local! {
        pub(super) static CURRENT: RefCell<Option<Ambient>> = const { RefCell::new(None) };
    }
}

impl Ambient {
    /// A seed of its own for whoever asks: the same ones in the same order for the same seed.
    pub fn next_seed(&self) -> u64 {
        let stream = self.0.streams.get() + 1;
        self.0.streams.set(stream);
        mix(self.0.seed, stream)
    }

    /// What the first task of the run that panicked has said: its runtime would keep that to itself.
    pub fn first_panic(&self) -> Option<String> {
        self.0.panicked.borrow().clone()
    }

    /// Milliseconds since the Unix epoch, as the run's clock has it.
    pub fn wall_ms(&self) -> i64 {
        (self.0.wall_ms)()
    }
}

/// The simulation on this thread, if there is one.
pub fn current() -> Option<Ambient> {
    slot::CURRENT.with(|current| current.borrow().clone())
}

/// Tells the simulation on this thread, if there is one, that a task has panicked.
pub fn panicked(panic: &(dyn Any + Send)) {
    if let Some(run) = current() {
        run.0.panicked.borrow_mut().get_or_insert_with(|| said(panic));
    }
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".into())
}

/// Makes a simulation known on this thread until the guard is dropped. `wall_ms` is its clock: milliseconds since the
/// Unix epoch.
#[must_use = "the simulation ends when this is dropped"]
pub fn enter(seed: u64, wall_ms: impl Fn() -> i64 + 'static) -> Entered {
    let ambient = Ambient(Rc::new(Inner {
        seed,
        wall_ms: Box::new(wall_ms),
        streams: Cell::new(0),
        panicked: RefCell::default(),
    }));
    let before = slot::CURRENT.with(|current| current.borrow_mut().replace(ambient));
    Entered { before, _here: PhantomData }
}

/// See [`enter`].
#[derive(Debug)]
pub struct Entered {
    before: Option<Ambient>,
    /// Bound to its thread.
    _here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        slot::CURRENT.with(|current| *current.borrow_mut() = self.before.take());
    }
}

/// A number that depends on every bit of both (splitmix64), so that neighbouring seeds have nothing in common.
pub fn mix(seed: u64, stream: u64) -> u64 {
    let mut z = seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_on_its_thread_until_it_ends() {
        assert!(current().is_none());
        let outer = enter(1, || 1_000);
        let first: Vec<_> = (0..3).map(|_| current().unwrap().next_seed()).collect();
        {
            let _inner = enter(2, || 2_000);
            assert_eq!(current().unwrap().wall_ms(), 2_000);
            #[allow(clippy::disallowed_methods, reason = "another thread is what is tested")]
            let elsewhere = std::thread::spawn(|| current().is_none());
            assert!(elsewhere.join().unwrap());
        }
        assert_eq!(current().unwrap().wall_ms(), 1_000);
        drop(outer);
        assert!(current().is_none());
        let _again = enter(1, || 1_000);
        let again: Vec<_> = (0..3).map(|_| current().unwrap().next_seed()).collect();
        assert_eq!(first, again);
    }
}
