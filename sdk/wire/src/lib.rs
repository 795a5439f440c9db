//! Bytes of the Kafka protocol, and the seam between clients and brokers.
//!
//! In: bytes from a peer, or messages to send. Out: messages, record batches, frames.
//! Nothing here decides, waits or does I/O; every decoder takes any bytes and answers with an
//! error, never a panic, and never allocates more than the bytes justify.
//!
//! Not an API boundary for users: `klamm` and `broker-lite` re-export what they need to know.

pub mod ambient;
pub mod batch;
pub mod codec;
pub mod compression;
pub mod crc;
pub mod error_code;
pub mod framing;
#[cfg(test)]
mod golden;
pub mod metadata_records;
pub mod negotiation;
#[doc(hidden)]
pub mod planted;
pub mod schema;
pub mod seam;
pub mod varint;

pub use batch::{
    BatchBuilder, BatchError, BatchHeader, ProducerStamp, RawBatch, RecordRef, Records, SealedBatch,
};
pub use compression::{Compression, CompressionError};
pub use error_code::ErrorCode;
pub use seam::{BoxConnector, Connector, Endpoint, Frame, Link, LinkError};

/// The protocol messages, generated from Kafka's schemas by the `kafka-protocol` crate.
///
/// Bytes from a peer reach them only through [`codec`], which walks the lengths first.
pub use kafka_protocol::messages;
pub use kafka_protocol::protocol::{Request, StrBytes};
