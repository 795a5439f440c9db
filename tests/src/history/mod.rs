//! What clients saw and what the logs hold, judged in the manner of Jepsen.
//!
//! In: a [`History`], which a run fills while it goes: who sent and read what and when, which faults came, and at the
//! end what every log holds. Out: a [`Report`] of everything that contradicts what the run [`Promises`].
//!
//! ```text
//! producers ──invoke, accepted, acked, failed──┐
//! consumers ──assigned, read, revoked ─────────┼──▶ History ──check──▶ Report
//! members   ──joined, done, committed ─────────┤
//! faults    ──mark─────────────────────────────┤
//! the end   ──final_log, replica_log───────────┘
//! ```
//!
//! It knows nothing of how the run was made: a simulation, broker-lite and Apache Kafka are judged by the same rules.
//!
//! Invariant: a record is known by its [`Op`] everywhere: it is what the record carries as its value.

mod check;
mod clock;
mod event;
pub mod model;
mod recorder;
mod report;
#[cfg(test)]
mod tests;
mod violation;

pub use check::check;
pub use clock::{Clock, unix_now};
pub use event::{Client, CommitSent, Entry, Event, Group, Op, Partition, VALUE_BYTES};
pub use recorder::{Acks, History, Log, LogRecord, ProducerSettings};
pub use report::{FINDINGS_PER_RULE, Finding, Promises, Report};
pub use violation::{Holds, LogOf, NotFrom, Rule, Seen, Sent, Spot, Violation, Where};
