//! Consumer groups: who is in them, what they have committed, how far behind they are.
//!
//! In: groups by their ids. Out: one result per group. Whom to ask is decided in `coordinators`.
//!
//! ```text
//! listing: every broker      description  deletion  offsets  members: coordinators of the groups
//!                                  └────────┬──────────┘
//!                                          lag: with the leaders of the partitions
//! ```

mod coordinators;
mod deletion;
mod description;
mod lag;
mod listing;
mod members;
mod offsets;
#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

pub use description::{GroupDescription, GroupMember};
pub use lag::{GroupLag, PartitionLag};
pub use listing::{GroupListing, GroupListings, ListGroups};
pub use members::MembersToRemove;
pub use offsets::{GroupOffset, GroupOffsets, OffsetsOfGroup};

use klamm_wire::messages::GroupId;

use super::call::text;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// One that this client does not know, as the broker calls it.
            Other(String),
        }

        impl $name {
            /// Kafka's name for it.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl From<&str> for $name {
            /// By Kafka's name, in whatever case.
            fn from(name: &str) -> Self {
                $(if name.eq_ignore_ascii_case($text) {
                    return Self::$variant;
                })*
                Self::Other(name.to_owned())
            }
        }

        impl FromStr for $name {
            type Err = Infallible;

            fn from_str(name: &str) -> Result<Self, Infallible> {
                Ok(Self::from(name))
            }
        }
    };
}

named! {
    /// What a group is doing.
    GroupState {
        /// It has no members; it may have committed offsets.
        Empty = "Empty",
        /// Members are joining (classic protocol).
        PreparingRebalance = "PreparingRebalance",
        /// Members wait for their assignment (classic protocol).
        CompletingRebalance = "CompletingRebalance",
        /// Every member has its assignment.
        Stable = "Stable",
        /// It is being deleted.
        Dead = "Dead",
        /// The coordinator is computing an assignment (KIP-848).
        Assigning = "Assigning",
        /// Members are on their way to their assignment (KIP-848).
        Reconciling = "Reconciling",
        /// It lacks something to begin with (streams).
        NotReady = "NotReady",
    }
}

named! {
    /// By which protocol the members of a group agree.
    GroupType {
        /// JoinGroup and SyncGroup, or no members at all: offsets of somebody who does without.
        Classic = "classic",
        /// ConsumerGroupHeartbeat (KIP-848).
        Consumer = "consumer",
        /// Share groups (KIP-932).
        Share = "share",
        /// Kafka Streams (KIP-1071).
        Streams = "streams",
    }
}

fn group_id(id: &str) -> GroupId {
    GroupId(text(id))
}
