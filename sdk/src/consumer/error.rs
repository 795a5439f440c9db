//! Why the consumer could not go on.

use std::sync::Arc;
use std::time::Duration;

use klamm_core::TopicPartition;
use klamm_core::consumer::ChunkError;
use klamm_core::group::Fatal;
use klamm_wire::ErrorCode;

use crate::error::{Recovery, RequestError};

/// Which part of a record an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPart {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl std::fmt::Display for RecordPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

/// Why the consumer could not go on. It can be asked again after every one of these but [`Self::Closed`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// A record's key or value is not what its deserializer expects. The position lies behind the record;
    /// [`seek`](crate::Consumer::seek) to `offset` reads it again.
    #[error("{part} ({type_name}) of {topic}-{partition} at offset {offset}: {cause}")]
    Deserialize {
        /// Topic of the record.
        topic: Arc<str>,
        /// Partition of the record.
        partition: i32,
        /// Offset of the record.
        offset: i64,
        /// Key or value.
        part: RecordPart,
        /// The Rust type that was expected.
        type_name: &'static str,
        /// What the deserializer said.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The position does not exist in the log, and `auto.offset.reset` is `none`. Told again until the
    /// application seeks.
    #[error("offset {offset} of {partition} is out of range and auto.offset.reset is none")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
    },
    /// The log was truncated below the position, after an unclean election for example, and `auto.offset.reset` is `none`
    /// (KIP-320). What was read from `at` on is not in the log any more. Told again until the application seeks.
    #[error(
        "the log of {partition} was truncated to {at}, and it was read up to {offset}: seek, or set auto.offset.reset to \
         go on at {at} by itself"
    )]
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
        /// First offset where the log is not what was read.
        at: i64,
    },
    /// The consumer is in a group that gives it partitions: what was to be assigned by hand was not.
    #[error("the consumer has subscribed, and its group assigns: unsubscribe before assigning by hand")]
    Subscribed,
    /// A partition is to begin where its group committed, and no `group.id` is set.
    #[error("{partition} is to begin where its group committed, and no group.id is set")]
    NoGroup {
        /// The first such partition.
        partition: TopicPartition,
    },
    /// The group has not committed an offset for the partition, and `auto.offset.reset` is `none`. Seek to begin.
    #[error("no offset of {partition} is committed and auto.offset.reset is none")]
    NoOffset {
        /// The partition.
        partition: TopicPartition,
    },
    /// The consumer cannot be a member of its group. It owns nothing any more; subscribing again is a new attempt.
    #[error("group {group}: {why}")]
    Group {
        /// `group.id`.
        group: Arc<str>,
        /// What is wrong.
        why: Fatal,
    },
    /// A batch is damaged, or expands beyond `decompressed_batch_max_bytes`. It is fetched again, and told
    /// again while it stays damaged; seek behind it to give it up.
    #[error("batch of {partition} at offset {offset}: {}", .cause.as_ref().map_or_else(|| "not a record batch".to_owned(), ToString::to_string))]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// First offset that cannot be read.
        offset: i64,
        /// What is wrong with it, if it is a batch at all.
        cause: Option<ChunkError>,
    },
    /// The broker refuses the partition; it is asked again, more and more slowly.
    #[error("{partition}: {code}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// What the broker said.
        code: ErrorCode,
    },
    /// There has been no leader for `default.api.timeout.ms`: no broker answers, the topic does not exist, or
    /// its replicas are down. The consumer goes on looking.
    #[error("no leader of {partition} within {waited:?}: {code}{}", unreachable(.causes))]
    NoLeader {
        /// The partition.
        partition: TopicPartition,
        /// Time waited.
        waited: Duration,
        /// What the brokers said last; `UNKNOWN_TOPIC_OR_PARTITION` also if none answered.
        code: ErrorCode,
        /// Brokers that could not be reached, by address.
        causes: Vec<(String, RequestError)>,
    },
    /// The partition is not assigned to this consumer.
    #[error("{partition} is not assigned")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// A position or offset could not be found out within `default.api.timeout.ms`.
    #[error("offset of {partition} not known within {waited:?}{}", .last.map(|code| format!(": {code}")).unwrap_or_default())]
    TimedOut {
        /// The partition.
        partition: TopicPartition,
        /// Time waited.
        waited: Duration,
        /// What a broker said last, if any did.
        last: Option<ErrorCode>,
    },
    /// The consumer was closed.
    #[error("the consumer is closed")]
    Closed,
}

fn unreachable(causes: &[(String, RequestError)]) -> String {
    causes.iter().map(|(address, cause)| format!("; {address}: {cause}")).collect()
}

impl ConsumerError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Deserialize { .. }
            | Self::OutOfRange { .. }
            | Self::Truncated { .. }
            | Self::Subscribed
            | Self::NoGroup { .. }
            | Self::NoOffset { .. }
            | Self::Group { .. }
            | Self::NotAssigned { .. } => Recovery::Fix,
            Self::Refused { code, .. } if !code.is_retriable() => Recovery::Fix,
            Self::Refused { .. } | Self::Corrupt { .. } | Self::NoLeader { .. } | Self::TimedOut { .. } => {
                Recovery::Retry
            }
            Self::Closed => Recovery::Rebuild,
        }
    }
}
