//! Who speaks: the two ends of every conversation, and sets of them for faults and rules to name.

use std::fmt;
use std::sync::Arc;

use crate::broker::CONTROLLER_ID;

/// One end of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A node of the cluster: a broker, or the controller, which is node 0.
    Node(i32),
    /// Somebody outside, by `client.id` if it has one. Over a socket it is what the first request of the conversation
    /// says, and nobody knows before.
    Client(Option<Arc<str>>),
}

/// A client that has not said who it is.
pub(super) static STRANGER: Party = Party::Client(None);

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(CONTROLLER_ID) => f.write_str("controller"),
            Self::Node(id) => write!(f, "broker {id}"),
            Self::Client(Some(id)) => write!(f, "client {id}"),
            Self::Client(None) => f.write_str("client without id"),
        }
    }
}

/// Some of those who speak. A number is a node's id: brokers count from 1, the controller is 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Side {
    /// One node.
    Node(i32),
    /// Every broker.
    Brokers,
    /// The controller.
    Controller,
    /// Every client.
    Clients,
    /// The clients with this `client.id`.
    Client(Arc<str>),
    /// Everybody.
    Anyone,
}

impl Side {
    /// The clients with this `client.id`.
    pub fn client(id: impl Into<Arc<str>>) -> Self {
        Self::Client(id.into())
    }

    /// Whether `party` is one of them.
    pub fn includes(&self, party: &Party) -> bool {
        match (self, party) {
            (Self::Anyone, _) | (Self::Clients, Party::Client(_)) => true,
            (Self::Node(wanted), Party::Node(id)) => wanted == id,
            (Self::Brokers, Party::Node(id)) => *id != CONTROLLER_ID,
            (Self::Controller, Party::Node(id)) => *id == CONTROLLER_ID,
            (Self::Client(wanted), Party::Client(Some(id))) => wanted == id,
            _ => false,
        }
    }
}

impl From<i32> for Side {
    fn from(id: i32) -> Self {
        Self::Node(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_includes_whom_it_names_and_nobody_else() {
        let client = |id: &str| Party::Client(Some(id.into()));
        let parties =
            [Party::Node(0), Party::Node(1), Party::Node(2), client("a"), client("b"), STRANGER.clone()];
        let included = |side: Side| parties.each_ref().map(|party| side.includes(party));
        assert_eq!(included(1.into()), [false, true, false, false, false, false]);
        assert_eq!(included(Side::Brokers), [false, true, true, false, false, false]);
        assert_eq!(included(Side::Controller), [true, false, false, false, false, false]);
        assert_eq!(included(Side::Clients), [false, false, false, true, true, true]);
        assert_eq!(included(Side::client("a")), [false, false, false, true, false, false]);
        assert_eq!(included(Side::Anyone), [true; 6]);
    }
}
