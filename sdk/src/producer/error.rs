//! Why a record was not sent or not acknowledged.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_core::TopicPartition;
use klamm_core::producer::{Cause, Failure};
use klamm_wire::ErrorCode;

use crate::error::{MetadataError, Recovery};
use crate::partitioner::PartitionerError;
use crate::record::Record;

/// Why a record was not accepted, or not acknowledged. Cheap to clone: all records of a batch share it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
// A tag as wide as the fields: with a narrow one, results of `send` are copied from odd addresses, which the CPU
// cannot do before the fields have reached its cache.
#[repr(u64)]
pub enum SendError {
    /// `delivery.timeout.ms` passed before a broker acknowledged the record.
    #[error("record{} not acknowledged within {waited:?}{}", Of(.at), Last(*.last))]
    TimedOut {
        /// Where the record was to go; not known of what is left when a producer is closed.
        at: Option<TopicPartition>,
        /// Time since the batch was opened.
        waited: Duration,
        /// `true` once the batch has touched a socket: the record may be in the log.
        maybe_written: bool,
        /// What a broker said to the last attempt, if one answered, or about the topic since then.
        last: Option<ErrorCode>,
    },
    /// All `retries` failed.
    #[error("record{} not acknowledged in any of the attempts allowed{}", Of(.at), Last(*.last))]
    RetriesExhausted {
        /// Where the record was to go.
        at: Option<TopicPartition>,
        /// The record may be in the log.
        maybe_written: bool,
        /// What a broker said to the last attempt, if one answered.
        last: Option<ErrorCode>,
    },
    /// The broker refuses the record and would again; or, with OUT_OF_ORDER_SEQUENCE_NUMBER, a record before it is
    /// missing in the log, so that nobody can tell whether this one, which had no answer, still gets there.
    #[error("record{} refused by the broker: {code}{}", Of(.at), Why(.message.as_deref()))]
    Rejected {
        /// Where the record was to go.
        at: Option<TopicPartition>,
        /// The broker's error code.
        code: ErrorCode,
        /// The broker's explanation, or what helps.
        message: Option<Arc<str>>,
        /// An earlier attempt may have been written all the same.
        maybe_written: bool,
    },
    /// The broker refuses to let this producer be idempotent; no later record can be sent.
    #[error("no producer id: {code}")]
    NoProducerId {
        /// The broker's error code.
        code: ErrorCode,
    },
    /// Broker and client have no version of Produce in common.
    #[error("the broker does not speak any version of Produce that is known here")]
    Unsupported {
        /// The record may be in the log.
        maybe_written: bool,
    },
    /// The record exceeds `max.request.size` or `buffer.memory`, both in bytes.
    #[error("record of {size_bytes} B exceeds the limit of {limit_bytes} B")]
    TooLarge {
        /// Most bytes the record can need in a batch.
        size_bytes: usize,
        /// Limit in force when the record was rejected.
        limit_bytes: usize,
    },
    /// `buffer.memory` is used up: after `max.block.ms`, or at once for `try_send`.
    #[error("no room in the buffer within {waited:?}")]
    BufferFull {
        /// Time waited.
        waited: Duration,
    },
    /// The topic's metadata are not known: after `max.block.ms`.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The topic's metadata are not known yet; `try_send` has asked for them.
    #[error("topic {topic:?} is not known yet")]
    NotReady {
        /// Name of the topic.
        topic: Arc<str>,
    },
    /// The record names a partition that the topic did not get within `max.block.ms`.
    #[error("topic {topic:?} has no partition {partition}, only {count}")]
    NoSuchPartition {
        /// Name of the topic.
        topic: Arc<str>,
        /// Partition the record names.
        partition: i32,
        /// Partitions there are.
        count: usize,
    },
    /// The partitioner failed; this record only.
    #[error("partitioner for topic {topic:?}: {source}")]
    Partitioner {
        /// Name of the topic.
        topic: Arc<str>,
        /// What it did wrong.
        source: PartitionerError,
    },
    /// A serializer failed.
    #[error("cannot serialize the {part} ({type_name}) for topic {topic:?}: {source}")]
    Serialize {
        /// Name of the topic.
        topic: Arc<str>,
        /// `"key"` or `"value"`.
        part: &'static str,
        /// The Rust type that was to be serialized.
        type_name: &'static str,
        /// What the serializer said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// An interceptor refused the record.
    #[error("refused by interceptor {interceptor}: {source}")]
    Refused {
        /// Its [name](crate::Interceptor::name).
        interceptor: Arc<str>,
        /// What the interceptor said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The future of `send` was dropped before the record was accepted. Only interceptors hear of it.
    #[error("nobody waits for the record to be accepted any more")]
    Cancelled,
    /// The batch could not be compressed, or not be split into smaller ones.
    #[error("the batch cannot be compressed")]
    Compression {
        /// An earlier attempt, with a larger batch, may have been written all the same.
        maybe_written: bool,
    },
    /// A callback or interceptor waits for its own producer, which waits for it; of `flush` and `close` only.
    #[error("a callback cannot wait for its own producer, which waits for the callback")]
    InCallback,
    /// The producer was closed or dropped.
    #[error("the producer is closed")]
    Closed {
        /// The record may be in the log.
        maybe_written: bool,
    },
}

impl SendError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::TimedOut { .. }
            | Self::RetriesExhausted { .. }
            | Self::BufferFull { .. }
            | Self::NotReady { .. }
            | Self::Cancelled => Recovery::Retry,
            Self::Metadata(error) => error.recovery(),
            // Nothing is wrong with the record: one before it is missing.
            Self::Rejected { code: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, .. } => Recovery::Retry,
            Self::Closed { .. } | Self::NoProducerId { .. } => Recovery::Rebuild,
            Self::Rejected { .. }
            | Self::Unsupported { .. }
            | Self::TooLarge { .. }
            | Self::NoSuchPartition { .. }
            | Self::Partitioner { .. }
            | Self::Serialize { .. }
            | Self::Refused { .. }
            | Self::InCallback
            | Self::Compression { .. } => Recovery::Fix,
        }
    }

    /// Returns `true` if the broker may hold the record despite this error.
    ///
    /// Sending such a record again can leave a duplicate, also with idempotence: the second record is a new one.
    pub fn maybe_written(&self) -> bool {
        match self {
            Self::TimedOut { maybe_written, .. }
            | Self::RetriesExhausted { maybe_written, .. }
            | Self::Rejected { maybe_written, .. }
            | Self::Unsupported { maybe_written }
            | Self::Compression { maybe_written }
            | Self::Closed { maybe_written } => *maybe_written,
            _ => false,
        }
    }
}

impl SendError {
    /// Why a batch was given up that was to go to `at`.
    pub(super) fn of(failure: Failure, at: TopicPartition) -> Self {
        let at = Some(at);
        let code = |cause| match cause {
            Cause::Code(code) => Some(code),
            Cause::NoAnswer => None,
        };
        match failure {
            Failure::TimedOut { waited, maybe_written, last } => {
                Self::TimedOut { at, waited, maybe_written, last: last.and_then(code) }
            }
            Failure::Exhausted { maybe_written, last } => {
                Self::RetriesExhausted { at, maybe_written, last: code(last) }
            }
            Failure::Rejected { code, message, maybe_written } => {
                Self::Rejected { at, code, message, maybe_written }
            }
            Failure::TooLarge { code, bytes, maybe_written } => {
                let message = Some(too_large(code, bytes).into());
                Self::Rejected { at, code, message, maybe_written }
            }
            Failure::Unsupported { maybe_written } => Self::Unsupported { maybe_written },
            Failure::NoProducerId { code } => Self::NoProducerId { code },
            Failure::Unsealable { maybe_written } => Self::Compression { maybe_written },
            Failure::Aborted { maybe_written } => Self::Closed { maybe_written },
        }
    }
}

/// What a single record that is too large needs.
fn too_large(code: ErrorCode, bytes: usize) -> String {
    let limit = match code {
        ErrorCode::RECORD_LIST_TOO_LARGE => "segment.bytes",
        _ => "max.message.bytes",
    };
    format!(
        "alone it takes {bytes} B: raise {limit} of the topic, or send smaller records or better compressed ones"
    )
}

/// A record that [`try_send`](crate::Producer::try_send) could not accept, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct TrySendError<K = Bytes, V = Bytes> {
    /// The record, as the interceptors left it.
    pub record: Box<Record<K, V>>,
    /// Why it was not accepted.
    #[source]
    pub reason: SendError,
}

/// Prints ` of TOPIC-PARTITION`.
struct Of<'a>(&'a Option<TopicPartition>);

impl std::fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |at| write!(f, " of {at}"))
    }
}

/// Prints `: REASON`.
struct Why<'a>(Option<&'a str>);

impl std::fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// Prints `; last answer: CODE`.
struct Last(Option<ErrorCode>);

impl std::fmt::Display for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |code| write!(f, "; last answer: {code}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(failure: Failure) -> SendError {
        SendError::of(failure, TopicPartition::new("t", 0))
    }

    #[test]
    fn only_what_is_wrong_with_a_record_is_to_be_fixed() {
        for (code, expected) in [
            (ErrorCode::INVALID_RECORD, Recovery::Fix),
            (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, Recovery::Retry),
        ] {
            let error = of(Failure::Rejected { code, message: None, maybe_written: true });
            assert_eq!((error.recovery(), error.maybe_written()), (expected, true), "{error}");
        }
    }

    #[test]
    fn a_batch_that_cannot_be_split_says_whether_it_may_be_written() {
        for maybe_written in [false, true] {
            let error = of(Failure::Unsealable { maybe_written });
            assert_eq!((error.maybe_written(), error.recovery()), (maybe_written, Recovery::Fix));
        }
    }
}
