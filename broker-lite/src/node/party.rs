//! Who speaks: the two ends of every conversation, and sets of them for faults and rules to name.

use std::fmt;
use std::sync::Arc;

/// One end of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A broker, by id.
    Node(i32),
    /// A controller, that is a voter of the metadata quorum, by id.
    Controller(i32),
    /// Somebody outside, by `client.id` if it has one. Over a socket it is what the first request of the conversation
    /// says, and nobody knows before.
    Client(Option<Arc<str>>),
}

/// A client that has not said who it is.
pub(super) static STRANGER: Party = Party::Client(None);

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(id) => write!(f, "controller {id}"),
            Self::Node(id) => write!(f, "broker {id}"),
            Self::Client(Some(id)) => write!(f, "client {id}"),
            Self::Client(None) => f.write_str("client without id"),
        }
    }
}

/// Some of those who speak. A number is a node's id: brokers count from 1, controllers from 3001, and 0 is the controller
/// that is active when the fault is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Side {
    /// One node, broker or controller.
    Node(i32),
    /// Every broker.
    Brokers,
    /// Every controller, active or not.
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
            (Self::Node(wanted), Party::Node(id) | Party::Controller(id)) => wanted == id,
            (Self::Brokers, Party::Node(_)) | (Self::Controller, Party::Controller(_)) => true,
            (Self::Client(wanted), Party::Client(Some(id))) => wanted == id,
            _ => false,
        }
    }
}

impl Party {
    /// The number by which a node is known.
    pub(crate) fn id(&self) -> Option<i32> {
        match self {
            Self::Node(id) | Self::Controller(id) => Some(*id),
            Self::Client(_) => None,
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
        let parties = [
            Party::Controller(3001),
            Party::Node(1),
            Party::Node(2),
            client("a"),
            client("b"),
            STRANGER.clone(),
        ];
        let included = |side: Side| parties.each_ref().map(|party| side.includes(party));
        assert_eq!(included(1.into()), [false, true, false, false, false, false]);
        assert_eq!(included(Side::Brokers), [false, true, true, false, false, false]);
        assert_eq!(included(Side::Controller), [true, false, false, false, false, false]);
        assert_eq!(included(Side::Clients), [false, false, false, true, true, true]);
        assert_eq!(included(Side::client("a")), [false, false, false, true, false, false]);
        assert_eq!(included(Side::Anyone), [true; 6]);
    }
}
