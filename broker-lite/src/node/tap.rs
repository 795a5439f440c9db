//! Who listens in on every message, for a simulation that compares histories.

use std::fmt;

use klamm_wire::seam::Frame;

use super::Party;
use crate::rt::Tick;

/// What was carried.
#[allow(dead_code, reason = "read by whoever listens in")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Carried<'a> {
    /// A conversation was opened.
    Dial,
    /// A request arrived at its node.
    Request(&'a Frame),
    /// An answer arrived at whoever asked; over a socket, it was given to the operating system.
    Answer(&'a Frame),
    /// A conversation ended; the sender is the end that noticed first.
    Closed,
}

/// Sees every message in the moment it is delivered.
///
/// It is called on the nodes' own tasks and under their locks: it must take note, and do nothing else.
pub(crate) trait Tap: Send + Sync + fmt::Debug {
    /// Takes note of one message.
    fn carried(&self, at: Tick, from: &Party, to: &Party, what: Carried<'_>);
}
