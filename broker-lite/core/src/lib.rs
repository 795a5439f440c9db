//! Decisions of broker-lite as pure state machines.
