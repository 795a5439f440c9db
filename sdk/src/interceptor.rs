//! Code of yours that sees every record on its way out, and what became of it.

use std::error::Error;

use bytes::Bytes;

use crate::producer::{RecordMetadata, SendError};
use crate::record::Record;

/// Why an [`Interceptor`] refuses a record.
pub type Refusal = Box<dyn Error + Send + Sync>;

/// Sees every record before serializers and partitioner, and every acknowledgement (`interceptor.classes`).
///
/// Interceptors run in the order they were added. One that panics is reported through `tracing` and skipped
/// for that record; the others still run.
pub trait Interceptor<K = Bytes, V = Bytes>: Send + Sync + 'static {
    /// Runs in the task that calls `send`; may change the record.
    ///
    /// # Errors
    ///
    /// An error refuses the record: `send` fails with [`SendError::Refused`] and no later interceptor sees it.
    fn on_send(&self, record: &mut Record<K, V>) -> Result<(), Refusal> {
        let _ = record;
        Ok(())
    }

    /// Runs once for every record that was accepted, on a task of its own: a slow one delays neither sender nor
    /// deliveries, but holds the batch's share of `buffer.memory` until it returns.
    fn on_acknowledgement(&self, topic: &str, partition: i32, outcome: Result<&RecordMetadata, &SendError>) {
        let _ = (topic, partition, outcome);
    }
}
