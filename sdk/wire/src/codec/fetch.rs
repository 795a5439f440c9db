//! Fetch responses whose records are never copied.

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;

use super::CodecError;
use crate::seam::Frame;

/// Record chunks of the partitions of one topic, in the order of the response's partitions.
pub type PartitionChunks = Vec<Vec<Bytes>>;

/// Encodes a Fetch response (versions 4 to 18), splicing records in as chunks of the frame.
///
/// `records[t][p]` are the chunks for `response.responses[t].partitions[p]`, whose own `records`
/// field is ignored. Missing entries are sent as empty records.
///
/// # Errors
///
/// Returns [`CodecError`] if the version is unknown or cannot carry one of the values set.
pub fn encode_fetch_response(
    version: i16,
    response: &FetchResponse,
    records: &[PartitionChunks],
) -> Result<Frame, CodecError> {
    let _ = (version, response, records);
    unimplemented!()
}
