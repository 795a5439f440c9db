//! Decisions of the klamm client as pure state machines.
//!
//! In: events and the time as an argument. Out: effects for a driver. Nothing here reads a clock, sleeps,
//! spawns, locks or opens a socket. Not an API boundary for users: `klamm` re-exports what they need.

mod topic_partition;

pub use topic_partition::TopicPartition;

/// A moment: time since the origin of the runtime that drives the machines. It never decreases.
pub type Tick = std::time::Duration;
