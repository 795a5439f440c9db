//! Why the consumer could not go on.

use std::sync::Arc;
use std::time::Duration;

use klamm_core::TopicPartition;
use klamm_core::consumer::ChunkError;
use klamm_core::group::Fatal;
use klamm_wire::ErrorCode;

use super::record::ConsumerRecord;
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
    /// A record's key or value is not what its deserializer expects. What comes next is the matter of the
    /// [`PoisonPolicy`](crate::PoisonPolicy).
    #[error("{part} ({type_name}) of {topic}-{partition} at offset {offset}: {cause}{}", way_out(*.held, *.offset))]
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
        /// The record as bytes. It shares the fetched buffer.
        raw: Arc<ConsumerRecord>,
        /// The partition does not go on before the application [seeks](crate::Consumer::seek) to `offset + 1`, or elsewhere.
        held: bool,
    },
    /// The partition has a [`PartitionStream`](crate::PartitionStream) already.
    #[error("{partition} is read by a stream of its own already; drop that one first")]
    ReadApart {
        /// The partition.
        partition: TopicPartition,
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
    /// The log was cut before the position, because a leader was elected that did not have all of it (KIP-320), or because the
    /// topic was deleted and created again (then `diverges` is 0), and `auto.offset.reset` is `none`. With another policy reading goes on at `diverges`, with a warning in the log. Told again until
    /// the application seeks.
    #[error("the log of {partition} was cut before offset {offset}, and auto.offset.reset is none{}", .diverges.map(|at| format!("; it differs from offset {at} on: seek there")).unwrap_or_default())]
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
        /// First offset at which the log differs from what was read, if the leader knows.
        diverges: Option<i64>,
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
    /// The application's own [`OffsetStore`](crate::OffsetStore) cannot tell where to begin.
    #[error("offsets cannot be loaded: {cause}")]
    OffsetStore {
        /// What it said.
        cause: Arc<dyn std::error::Error + Send + Sync>,
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
    /// again, more and more slowly, while it stays damaged; seek to `next` to give it up. Other partitions go on.
    #[error("batch of {partition} at offset {offset}: {}{}", .cause.as_ref().map_or_else(|| "not a record batch".to_owned(), ToString::to_string), .next.map(|next| format!("; seek to {next} to give it up")).unwrap_or_default())]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// First offset that cannot be read.
        offset: i64,
        /// Offset behind the batch, if its header tells.
        next: Option<i64>,
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
    /// There has been no leader for `default.api.timeout.ms`, or `request.timeout.ms` if that is longer: no broker answers, the
    /// topic does not exist, or its replicas are down. The consumer goes on looking.
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

fn way_out(held: bool, offset: i64) -> String {
    match held {
        true => format!("; seek to {} to leave it out", offset.saturating_add(1)),
        false => String::new(),
    }
}

impl ConsumerError {
    /// The record that could not be deserialized, as bytes.
    pub fn poison(&self) -> Option<&ConsumerRecord> {
        match self {
            Self::Deserialize { raw, .. } => Some(raw),
            _ => None,
        }
    }

    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Deserialize { .. }
            | Self::OutOfRange { .. }
            | Self::Subscribed
            | Self::NoGroup { .. }
            | Self::NoOffset { .. }
            | Self::Truncated { .. }
            | Self::Group { .. }
            | Self::ReadApart { .. }
            | Self::NotAssigned { .. } => Recovery::Fix,
            Self::Refused { code, .. } if !code.is_retriable() => Recovery::Fix,
            Self::Refused { .. }
            | Self::Corrupt { .. }
            | Self::NoLeader { .. }
            | Self::TimedOut { .. }
            | Self::OffsetStore { .. } => Recovery::Retry,
            Self::Closed => Recovery::Rebuild,
        }
    }
}
