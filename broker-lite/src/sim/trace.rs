//! What happened in a run, message by message, so that two runs can be compared.
//!
//! In: every message in the moment it arrives, every fsync, notes. Out: a hash over all of it, and the first place
//! where two runs differ.
//!
//! Invariant: the hash covers every byte of every message; an entry keeps a digest of them, not the bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ambient::mix;
use klamm_wire::crc::crc32c;
use klamm_wire::seam::Frame;
use parking_lot::Mutex;

use crate::rt::simulated::Clock;

/// Entries kept for the comparison; what comes later counts in the hash only.
const MOST_ENTRIES: usize = 1 << 20;

/// Everything that happened in one run, in order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    entries: Arc<Vec<Entry>>,
    hash: u64,
    events: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    at: Duration,
    what: Arc<str>,
    digest: u64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?} ({:016x})", self.what, self.at, self.digest)
    }
}

impl Trace {
    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A hash over all of them, with every byte that was carried.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The first place where the other run went another way; `None` if both are the same to the last byte.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        if self.hash == other.hash && self.events == other.events {
            return None;
        }
        let longest = self.entries.len().max(other.entries.len());
        let differs = |at: &usize| self.entries.get(*at) != other.entries.get(*at);
        let at = (0..longest).find(differs).unwrap_or(longest);
        let text = |trace: &Self| trace.entries.get(at).map(ToString::to_string);
        Some(Difference { event: at as u64, of: self.events, here: text(self), there: text(other) })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, hash {:016x}", self.events, self.hash)
    }
}

/// Where two runs of one seed part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Number of the first event that differs, from 0.
    pub event: u64,
    /// Events in the first run.
    pub of: u64,
    /// What it was in the first run; `None` if that had ended, or if the event was not kept.
    pub here: Option<String>,
    /// What it was in the other run.
    pub there: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing = || "nothing".to_owned();
        let (here, there) =
            (self.here.clone().unwrap_or_else(nothing), self.there.clone().unwrap_or_else(nothing));
        write!(f, "first difference at event {} of {}: {here}, then {there}", self.event, self.of)
    }
}

/// Writes the trace of a run.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clock: Option<Clock>,
    entries: Vec<Entry>,
    /// Texts of entries, of which there are few.
    texts: std::collections::BTreeSet<Arc<str>>,
    hash: u64,
    events: u64,
}

impl Recorder {
    pub(crate) fn begin(&self, clock: Clock) {
        self.state.lock().clock = Some(clock);
    }

    pub(crate) fn now(&self) -> Duration {
        self.state.lock().clock.as_ref().map(Clock::elapsed).unwrap_or_default()
    }

    /// Takes down something that happened, with a digest of its bytes.
    pub(crate) fn record(&self, what: &str, digest: u64) {
        let mut state = self.state.lock();
        let at = state.clock.as_ref().map(Clock::elapsed).unwrap_or_default();
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let text = u64::from(crc32c(what.as_bytes()));
        state.hash = mix(mix(mix(state.hash, nanos), text), digest);
        state.events += 1;
        if state.entries.len() < MOST_ENTRIES {
            let what = match state.texts.get(what) {
                Some(known) => known.clone(),
                None => {
                    let what: Arc<str> = Arc::from(what);
                    state.texts.insert(what.clone());
                    what
                }
            };
            state.entries.push(Entry { at, what, digest });
        }
    }

    pub(crate) fn note(&self, line: &str) {
        self.record("note", digest(line.as_bytes()));
    }

    pub(crate) fn trace(&self) -> Trace {
        let state = self.state.lock();
        Trace { entries: Arc::new(state.entries.clone()), hash: state.hash, events: state.events }
    }
}

/// A number that depends on every byte.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    mix(u64::from(crc32c(bytes)), bytes.len() as u64)
}

/// The same for a message.
pub(crate) fn digest_frame(frame: &Frame) -> u64 {
    let head = mix(frame.api_key.unsigned_abs().into(), frame.api_version.unsigned_abs().into());
    frame.body.iter().fold(head, |hash, chunk| mix(hash, digest(chunk)))
}
