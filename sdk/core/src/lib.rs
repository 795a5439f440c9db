//! Decisions of the klamm client as pure state machines.
//!
//! In: events, the time as a [`Tick`], answers of brokers, seeded random numbers.
//! Out: effects for a driver. Nothing here reads a clock, waits, locks, spawns or does I/O, so the same
//! inputs always give the same outputs.
//!
//! Not an API boundary for users: `klamm` re-exports what they need to know.

pub mod assign;
pub mod backoff;
pub mod consumer;
pub mod group;
pub mod metadata;
pub mod partitioner;
pub mod placement;
pub mod producer;
pub mod reconnect;
mod topic_partition;

pub use topic_partition::TopicPartition;

/// A moment: time since the origin of the runtime that drives the machines. It never decreases.
pub type Tick = std::time::Duration;
