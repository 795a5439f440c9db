//! Decisions of broker-lite as pure state machines.

pub mod config;
pub mod controller;
pub mod epoch;
pub mod group;
pub mod log;
pub mod metadata;
pub mod placement;
pub mod producer_state;
pub mod quorum;
pub mod replica;
pub mod session;
pub mod storage;
pub mod throttle;

/// Time since the runtime's origin; every machine gets it as an argument.
pub type Tick = std::time::Duration;
