//! Produce requests whose record batches are never copied.

use bytes::{BufMut, Bytes};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::CodecError;
use super::chunks::Chunks;
use crate::seam::Frame;

/// Api key of Produce.
const PRODUCE: i16 = 0;

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
    if !(3..=13).contains(&version) {
        return Err(CodecError::UnsupportedVersion { api_key: PRODUCE, version });
    }
    let mut out = Chunks::new(PRODUCE, version, version >= 9, room(head, topics));
    out.text(head.transactional_id.as_deref())?;
    out.raw().put_i16(head.acks);
    out.raw().put_i32(head.timeout_ms);
    out.count(topics.len())?;
    for topic in topics {
        if version >= 13 {
            out.raw().put_slice(topic.id.as_bytes());
        } else {
            out.text(Some(&topic.name))?;
        }
        out.count(topic.partitions.len())?;
        for partition in &topic.partitions {
            out.raw().put_i32(partition.index);
            out.records(&partition.records)?;
            out.no_tags();
        }
        out.no_tags();
    }
    out.no_tags();
    let mut frame = out.finish();
    frame.expects_reply = head.acks != 0;
    Ok(frame)
}

/// Enough for everything but the records, so that the memory is reserved once.
fn room(head: &ProduceHead, topics: &[ProduceTopic]) -> usize {
    let id = head.transactional_id.as_ref().map_or(0, |id| id.len());
    let topics: usize = topics.iter().map(|t| 24 + t.name.len() + 10 * t.partitions.len()).sum();
    32 + id + topics
}
