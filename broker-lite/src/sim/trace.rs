//! What happened in a run, message by message, so that two runs can be compared.
//!
//! In: every message in the moment it arrives, and notes. Out: a hash over all of it, and the first place
//! where two runs differ.
//!
//! Invariant: the hash covers every byte of every message; an entry keeps a digest of them, not the bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ambient::mix;
use klamm_wire::crc::crc32c;
use klamm_wire::messages::ApiKey;
use klamm_wire::seam::Frame;
use parking_lot::Mutex;

use crate::node::{Carried, Party, Tap};
use crate::rt::Tick;
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
    what: What,
    digest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Dial(Party, Party),
    Request(Party, Party, i16, i16),
    Answer(Party, Party, i16, i16),
    Closed(Party, Party),
    Note(Arc<str>),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let api = |key: &i16| match ApiKey::try_from(*key) {
            Ok(api) => format!("{api:?}"),
            Err(()) => format!("api {key}"),
        };
        match self {
            Self::Dial(from, to) => write!(f, "{from} dialled {to}"),
            Self::Request(from, to, key, version) => {
                write!(f, "{} {version} of {from} arrived at {to}", api(key))
            }
            Self::Answer(from, to, key, version) => {
                write!(f, "answer of {from} to {} {version} arrived at {to}", api(key))
            }
            Self::Closed(from, to) => write!(f, "the conversation of {from} and {to} ended"),
            Self::Note(line) => write!(f, "{line:?}"),
        }
    }
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

    /// Takes down something that happened, with a digest of it.
    fn record(&self, digest: u64, what: impl FnOnce() -> What) {
        let mut state = self.state.lock();
        let at = state.clock.as_ref().map(Clock::elapsed).unwrap_or_default();
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        state.hash = mix(mix(state.hash, nanos), digest);
        state.events += 1;
        if state.entries.len() < MOST_ENTRIES {
            state.entries.push(Entry { at, what: what(), digest });
        }
    }

    pub(crate) fn note(&self, line: &str) {
        self.record(digest_bytes(line.as_bytes()), || What::Note(line.into()));
    }

    pub(crate) fn trace(&self) -> Trace {
        let state = self.state.lock();
        Trace { entries: Arc::new(state.entries.clone()), hash: state.hash, events: state.events }
    }
}

impl Tap for Recorder {
    fn carried(&self, _: Tick, from: &Party, to: &Party, what: Carried<'_>) {
        let ends = mix(digest_party(from), digest_party(to));
        let (digest, what) = match what {
            Carried::Dial => (mix(ends, 1), What::Dial(from.clone(), to.clone())),
            Carried::Closed => (mix(ends, 2), What::Closed(from.clone(), to.clone())),
            Carried::Request(frame) => {
                let what = What::Request(from.clone(), to.clone(), frame.api_key, frame.api_version);
                (mix(mix(ends, 3), digest_frame(frame)), what)
            }
            Carried::Answer(frame) => {
                let what = What::Answer(from.clone(), to.clone(), frame.api_key, frame.api_version);
                (mix(mix(ends, 4), digest_frame(frame)), what)
            }
        };
        self.record(digest, || what);
    }
}

/// A number that depends on every byte.
fn digest_bytes(bytes: &[u8]) -> u64 {
    mix(u64::from(crc32c(bytes)), bytes.len() as u64)
}

fn digest_party(party: &Party) -> u64 {
    match party {
        Party::Node(id) => mix(1, u64::from(id.unsigned_abs())),
        Party::Controller(id) => mix(4, u64::from(id.unsigned_abs())),
        Party::Client(None) => 2,
        Party::Client(Some(id)) => mix(3, digest_bytes(id.as_bytes())),
    }
}

/// The same for a message.
fn digest_frame(frame: &Frame) -> u64 {
    let head = mix(frame.api_key.unsigned_abs().into(), frame.api_version.unsigned_abs().into());
    frame.body.iter().fold(head, |hash, chunk| mix(hash, digest_bytes(chunk)))
}
