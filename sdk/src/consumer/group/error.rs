//! Why offsets were not committed, or not found out.

use std::time::Duration;

use klamm_core::TopicPartition;
use klamm_wire::ErrorCode;

use crate::error::Recovery;

/// Why offsets were not committed, or committed ones not found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The consumer is not in a group: it has not subscribed.
    #[error("the consumer is in no group: subscribe first")]
    NoGroup,
    /// The partition is not this member's (any more): whoever has it reads it from the last commit on. Drop what was not
    /// committed; do not try again.
    #[error("{partition} belongs to another member now: what was not committed is read again there")]
    NotOwned {
        /// The first such partition.
        partition: TopicPartition,
    },
    /// The group went on without this member, for example because it was silent for too long. It joins again by itself; the
    /// offsets are not committed and must not be tried again.
    #[error("the group went on without this member ({code}): what was not committed is read again by others")]
    Expelled {
        /// What the coordinator said.
        code: ErrorCode,
    },
    /// The coordinator refuses, and will do so again.
    #[error("the group coordinator refuses: {code}")]
    Refused {
        /// What it said.
        code: ErrorCode,
    },
    /// No coordinator took it within `default.api.timeout.ms`. It may have been committed. Try again.
    #[error("not answered within {waited:?}{}", .last.map(|code| format!(": {code}")).unwrap_or_default())]
    TimedOut {
        /// Time waited.
        waited: Duration,
        /// What a coordinator said last, if any did.
        last: Option<ErrorCode>,
    },
    /// The consumer was closed.
    #[error("the consumer is closed")]
    Closed,
}

impl CommitError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::TimedOut { .. } => Recovery::Retry,
            Self::NoGroup | Self::NotOwned { .. } | Self::Expelled { .. } | Self::Refused { .. } => {
                Recovery::Fix
            }
            Self::Closed => Recovery::Rebuild,
        }
    }
}
