//! Why offsets were not committed, or not found out.

use std::time::Duration;

use klamm_core::TopicPartition;
use klamm_wire::ErrorCode;

use crate::error::Recovery;

/// Why offsets were not committed, or committed ones not found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The consumer has no group: it has not subscribed, and no `group.id` is set.
    #[error("the consumer has no group: set group.id, or subscribe")]
    NoGroup,
    /// The partition is not this member's (any more), or this consumer has unsubscribed: whoever has it reads it from the last
    /// commit on. Drop what was not committed; do not try again.
    #[error("{partition} belongs to another member now: what was not committed is read again there")]
    NotOwned {
        /// The first such partition.
        partition: TopicPartition,
    },
    /// The group went on without this member, for example because it was silent for too long. It joins again by itself, unless
    /// another one has its `group.instance.id` (`FENCED_INSTANCE_ID`); the offsets are not committed and must not be tried again.
    #[error("the group went on without this member ({code}): what was not committed is read again by others")]
    Expelled {
        /// What the coordinator said.
        code: ErrorCode,
    },
    /// The group has members, and only they may commit for it: this consumer chose its partitions by hand.
    #[error(
        "the group has members, and this consumer is none ({code}): assign by hand under a group.id of its own, or subscribe"
    )]
    HasMembers {
        /// What the coordinator said.
        code: ErrorCode,
    },
    /// The coordinator refuses, and will do so again.
    #[error("the group coordinator refuses: {code}{}", cure(*.code))]
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

/// What helps against a refusal.
fn cure(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::OFFSET_METADATA_TOO_LARGE => {
            " (shorten the metadata, or raise offset.metadata.max.bytes of the brokers)"
        }
        ErrorCode::GROUP_AUTHORIZATION_FAILED => " (the client needs READ on the group)",
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => " (the client needs READ on the topic)",
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => " (was the topic deleted?)",
        ErrorCode::INVALID_GROUP_ID => " (group.id is not allowed by the broker)",
        ErrorCode::GROUP_ID_NOT_FOUND => " (the group was deleted)",
        _ => "",
    }
}

impl CommitError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::TimedOut { .. } => Recovery::Retry,
            // Another member has its instance id: this one does not join again.
            Self::Expelled { code: ErrorCode::FENCED_INSTANCE_ID } => Recovery::Fix,
            Self::NotOwned { .. } | Self::Expelled { .. } => Recovery::GoOn,
            Self::NoGroup | Self::HasMembers { .. } | Self::Refused { .. } => Recovery::Fix,
            Self::Closed => Recovery::Rebuild,
        }
    }
}
