//! Every request that reached the mock, typed on demand.
//!
//! Invariant: entries stand in the order in which the mock saw the requests; of each connection, that is the order of
//! its calls.

use std::collections::VecDeque;

use klamm_wire::{Frame, Request, codec};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::responder::Head;

/// One request that reached the mock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// When, where, by whom and of which api.
    pub head: Head,
    /// The body, as it was sent.
    pub frame: Frame,
}

impl Entry {
    /// The request, if it is of this type.
    pub fn request<R: Request>(&self) -> Option<R> {
        match self.head.is::<R>() {
            true => codec::decode_request::<R>(self.frame.clone()).ok(),
            false => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Journal {
    entries: Mutex<VecDeque<Entry>>,
    limit: usize,
    written: Notify,
}

impl Journal {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: Mutex::default(), limit: limit.max(1), written: Notify::new() }
    }

    pub(super) fn write(&self, entry: Entry) {
        let mut entries = self.entries.lock();
        if entries.len() == self.limit {
            entries.pop_front();
        }
        entries.push_back(entry);
        drop(entries);
        self.written.notify_waiters();
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().iter().cloned().collect()
    }

    pub(super) fn requests<R: Request>(&self) -> Vec<R> {
        self.entries.lock().iter().filter_map(Entry::request::<R>).collect()
    }

    fn count(&self, api_key: i16) -> usize {
        self.entries.lock().iter().filter(|entry| entry.head.api_key == api_key).count()
    }

    pub(super) async fn until(&self, api_key: i16, count: usize) {
        loop {
            let written = self.written.notified();
            if self.count(api_key) >= count {
                return;
            }
            written.await;
        }
    }
}
