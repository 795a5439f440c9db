//! Why a record was not sent or not acknowledged.

use std::time::Duration;

use crate::record::Record;

/// Why a record was not accepted, or not acknowledged. Cheap to clone: all records of a batch share it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// `delivery.timeout.ms` passed before a broker acknowledged the record.
    #[error("record not acknowledged within {waited:?}")]
    TimedOut {
        /// Time from `send` to this error.
        waited: Duration,
        /// `true` once the batch has touched a socket: the record may be in the log.
        maybe_written: bool,
    },
    /// The record exceeds `max.request.size` or `buffer.memory`, both in bytes.
    #[error("record of {size_bytes} B exceeds the limit of {limit_bytes} B")]
    TooLarge {
        /// Encoded size of the record.
        size_bytes: usize,
        /// Limit in force when the record was rejected.
        limit_bytes: usize,
    },
}

/// A record that [`try_send`](crate::Producer::try_send) could not accept, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct TrySendError<K = bytes::Bytes, V = bytes::Bytes> {
    /// The record, as the interceptors left it.
    pub record: Box<Record<K, V>>,
    /// Why it was not accepted.
    #[source]
    pub reason: SendError,
}
