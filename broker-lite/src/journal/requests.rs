//! A journal of requests: which came to which node, and what became of them.
//!
//! In: requests as they arrive, and their ends. Out: entries, the newest ones up to a bound.
//!
//! Invariant: each entry ends once, at the latest when its connection does.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::ApiKey;
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, Request};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::node::{Network, Party};
use crate::rt::{Rt, Tick};
use crate::rules::{Named, errors_in};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Nothing yet.
    Pending,
    /// An answer has reached whoever asked (over a socket: was given to the operating system).
    #[non_exhaustive]
    Answered {
        /// Time from the arrival of the request to that of the answer.
        after: Duration,
        /// Every error code in the answer, each once.
        errors: Vec<ErrorCode>,
    },
    /// It was carried out and wants no answer (`acks=0`).
    Unanswered,
    /// A rule has broken its connection, or killed its node.
    BrokenByRule,
    /// Its connection was closed, or its node died, before an answer arrived.
    Closed,
}

/// One request that arrived at a node.
#[derive(Clone)]
#[non_exhaustive]
pub struct RequestEntry {
    /// Time since the cluster started.
    pub at: Duration,
    /// Node it came to; 0 is the controller.
    pub broker: i32,
    /// Who sent it.
    pub from: Party,
    /// Api key.
    pub api_key: i16,
    /// Version of the request.
    pub api_version: i16,
    /// Bytes of the body.
    pub size_bytes: usize,
    /// Topics it names, with the partition where the API is about partitions. Empty if it asks for all.
    pub topics: Vec<(String, Option<i32>)>,
    /// What became of it.
    pub ending: Ending,
    frame: Frame,
}

impl fmt::Debug for RequestEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestEntry")
            .field("at", &self.at)
            .field("broker", &self.broker)
            .field("from", &self.from)
            .field("api_key", &self.api_key)
            .field("api_version", &self.api_version)
            .field("size_bytes", &self.size_bytes)
            .field("topics", &self.topics)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

impl RequestEntry {
    /// The API, if it is one that Kafka has.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::try_from(self.api_key).ok()
    }

    /// The client's id, if a client has sent it and said who it is.
    pub fn client_id(&self) -> Option<&str> {
        match &self.from {
            Party::Client(id) => id.as_deref(),
            Party::Node(_) | Party::Controller(_) => None,
        }
    }

    /// The request itself; `None` if it is of another API, or cannot be read.
    pub fn request<R: Request>(&self) -> Option<R> {
        decode_request::<R>(self.frame.clone()).ok()
    }

    /// The request as it came.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// What a journal's guard and the requests on their way share.
#[derive(Debug)]
pub(crate) struct Recording {
    capacity: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<RequestEntry>,
    /// Number of the first entry that is kept; earlier ones are gone.
    first: u64,
    dropped: u64,
}

impl Recording {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, state: Mutex::default(), changed: Notify::new() })
    }

    fn push(&self, entry: RequestEntry) -> u64 {
        let number = {
            let mut state = self.state.lock();
            state.entries.push_back(entry);
            let number = state.first + state.entries.len() as u64 - 1;
            while state.entries.len() > self.capacity {
                state.entries.pop_front();
                state.first += 1;
                state.dropped += 1;
            }
            number
        };
        self.changed.notify_waiters();
        number
    }

    fn end(&self, number: u64, ending: impl FnOnce(&RequestEntry) -> Ending) {
        {
            let mut state = self.state.lock();
            let place = number.checked_sub(state.first).and_then(|place| usize::try_from(place).ok());
            let Some(entry) = place.and_then(|place| state.entries.get_mut(place)) else { return };
            entry.ending = ending(entry);
        }
        self.changed.notify_waiters();
    }
}

/// A request that stands in journals, until it has ended.
#[derive(Debug)]
pub(crate) struct Noted {
    rt: Rt,
    places: Vec<(Arc<Recording>, u64)>,
}

impl Noted {
    /// Enters a request into every journal there is.
    pub(crate) fn new(
        rt: &Rt,
        recordings: &[Arc<Recording>],
        node: i32,
        from: &Party,
        frame: &Frame,
        named: &[Named],
    ) -> Self {
        let topics = named.iter().filter_map(|named| match named {
            Named::Topic(topic, partition) => Some((topic.clone(), *partition)),
            Named::All => None,
        });
        let entry = RequestEntry {
            at: rt.now(),
            broker: node,
            from: from.clone(),
            api_key: frame.api_key,
            api_version: frame.api_version,
            size_bytes: frame.len_bytes(),
            topics: topics.collect(),
            ending: Ending::Pending,
            frame: frame.clone(),
        };
        let places = recordings.iter().map(|recording| (recording.clone(), recording.push(entry.clone())));
        Self { places: places.collect(), rt: rt.clone() }
    }

    pub(crate) fn answered(self, answer: &Frame) {
        let (now, errors): (Tick, _) = (self.rt.now(), errors_in(answer));
        self.end(|entry| Ending::Answered { after: now.saturating_sub(entry.at), errors: errors.clone() });
    }

    pub(crate) fn unanswered(noted: Option<Self>) {
        if let Some(noted) = noted {
            noted.end(|_| Ending::Unanswered);
        }
    }

    pub(crate) fn broken_by_rule(noted: Option<Self>) {
        if let Some(noted) = noted {
            noted.end(|_| Ending::BrokenByRule);
        }
    }

    fn end(mut self, ending: impl Fn(&RequestEntry) -> Ending) {
        for (recording, number) in std::mem::take(&mut self.places) {
            recording.end(number, &ending);
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        for (recording, number) in std::mem::take(&mut self.places) {
            recording.end(number, |_| Ending::Closed);
        }
    }
}

/// A journal of requests; dropped, it ends. See [`Cluster::record_requests`](crate::Cluster::record_requests).
#[must_use = "nothing is recorded once this is dropped"]
pub struct RequestJournal {
    network: Arc<Network>,
    recording: Arc<Recording>,
}

impl fmt::Debug for RequestJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestJournal").field("capacity", &self.recording.capacity).finish_non_exhaustive()
    }
}

impl RequestJournal {
    pub(crate) fn new(network: Arc<Network>, capacity: usize) -> Self {
        let recording = Recording::new(capacity);
        network.add_recording(recording.clone());
        Self { network, recording }
    }

    /// What was recorded, in order of arrival.
    pub fn entries(&self) -> Vec<RequestEntry> {
        self.recording.state.lock().entries.iter().cloned().collect()
    }

    /// What was recorded of one API, in order of arrival.
    pub fn of(&self, api: ApiKey) -> Vec<RequestEntry> {
        let state = self.recording.state.lock();
        state.entries.iter().filter(|entry| entry.api_key == api as i16).cloned().collect()
    }

    /// How many entries were given up because there was no room.
    pub fn dropped(&self) -> u64 {
        self.recording.state.lock().dropped
    }

    /// Forgets what was recorded so far.
    pub fn clear(&self) {
        let mut state = self.recording.state.lock();
        state.first += state.entries.len() as u64;
        state.entries.clear();
    }

    /// Waits until the entries satisfy `wanted`, which is asked at once and after every change. It must not use this
    /// journal itself.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until(&self, mut wanted: impl FnMut(&[RequestEntry]) -> bool) {
        loop {
            let changed = self.recording.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if wanted(self.recording.state.lock().entries.make_contiguous()) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for RequestJournal {
    fn drop(&mut self) {
        self.network.remove_recording(&self.recording);
    }
}
