//! Open files of a log directory: few of them, however many there are.
//!
//! Invariant: a file that is being used stays open until its last user is done.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fs::{Fs, OpenFile};

/// Most files that stay open in one log directory; with three brokers in a process it fits the usual limit of 1024.
const MOST_OPEN: usize = 256;

/// One file, open or not.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    file: Mutex<Option<Arc<dyn OpenFile>>>,
    used: AtomicU64,
    fs: Arc<dyn Fs>,
    all: Weak<Descriptors>,
}

impl Slot {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, opened if it is not.
    pub(super) fn open(self: &Arc<Self>) -> io::Result<Arc<dyn OpenFile>> {
        let all = self.all.upgrade();
        let now = all.as_ref().map_or(0, |all| all.clock.fetch_add(1, Ordering::Relaxed));
        self.used.store(now, Ordering::Relaxed);
        if let Some(open) = &*self.file.lock() {
            return Ok(open.clone());
        }
        let opened = self.fs.open(&self.path)?;
        *self.file.lock() = Some(opened.clone());
        if let Some(all) = all {
            all.opened(self);
        }
        Ok(opened)
    }
}

/// The files of a log directory that are open.
#[derive(Debug)]
pub(super) struct Descriptors {
    fs: Arc<dyn Fs>,
    open: Mutex<Vec<Weak<Slot>>>,
    clock: AtomicU64,
}

impl Descriptors {
    /// None yet.
    pub(super) fn new(fs: Arc<dyn Fs>) -> Arc<Self> {
        Arc::new(Self { fs, open: Mutex::default(), clock: AtomicU64::new(0) })
    }

    /// A place for a file, which may be open already.
    pub(super) fn slot(self: &Arc<Self>, path: PathBuf, file: Option<Arc<dyn OpenFile>>) -> Arc<Slot> {
        let is_open = file.is_some();
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        let (file, fs) = (Mutex::new(file), self.fs.clone());
        let slot = Arc::new(Slot { path, file, used, fs, all: Arc::downgrade(self) });
        if is_open {
            self.opened(&slot);
        }
        slot
    }

    fn opened(&self, slot: &Arc<Slot>) {
        let mut open = self.open.lock();
        open.push(Arc::downgrade(slot));
        if open.len() <= MOST_OPEN {
            return;
        }
        // a quarter at once, so that this is not done for every file
        open.retain(|slot| slot.upgrade().is_some_and(|slot| slot.file.lock().is_some()));
        open.sort_by_cached_key(|slot| slot.upgrade().map(|slot| slot.used.load(Ordering::Relaxed)));
        let surplus = open.len().saturating_sub(MOST_OPEN * 3 / 4);
        for slot in open.drain(..surplus).filter_map(|slot| slot.upgrade()) {
            *slot.file.lock() = None;
        }
    }
}
