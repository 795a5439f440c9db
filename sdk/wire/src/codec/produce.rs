//! Produce requests whose record batches are never copied.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::CodecError;
use crate::seam::Frame;

/// What stands in front of the topics of a Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceHead {
    /// 0, 1, or -1 for all in-sync replicas.
    pub acks: i16,
    /// How long the broker may wait for replicas.
    pub timeout_ms: i32,
    /// Set for a transactional producer.
    pub transactional_id: Option<StrBytes>,
}

/// Batches for the partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    /// Name, sent up to version 12.
    pub name: StrBytes,
    /// Id, sent from version 13.
    pub id: Uuid,
    /// Partitions in the order they are sent.
    pub partitions: Vec<ProducePartition>,
}

/// The batch for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    /// Partition index.
    pub index: i32,
    /// The batch in pieces, usually its header and its records; they become chunks of the frame.
    pub records: Vec<Bytes>,
}

/// Encodes a Produce request (versions 3 to 13) without copying records.
///
/// With `acks` 0 the frame expects no reply.
///
/// # Errors
///
/// Returns [`CodecError::UnsupportedVersion`] for any other version.
pub fn encode_produce(
    version: i16,
    head: &ProduceHead,
    topics: &[ProduceTopic],
) -> Result<Frame, CodecError> {
    let _ = (version, head, topics);
    unimplemented!()
}
