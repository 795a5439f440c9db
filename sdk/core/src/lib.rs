//! Decisions of the klamm client as pure state machines.
