//! Decisions of broker-lite as pure state machines.

pub mod metadata;

/// Time since the runtime's origin; every machine gets it as an argument.
pub type Tick = std::time::Duration;
