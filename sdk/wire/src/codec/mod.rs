//! Messages to bytes and back.
//!
//! In: a message of `kafka-protocol`, or a frame from a peer. Out: a [`Frame`], or the message.
//!
//! Invariant: bytes from a peer pass the walk of [`schema`] before `kafka-protocol` sees them.

mod any;
mod chunks;
mod fetch;
mod header;
mod produce;
mod topic_ids;

use bytes::BytesMut;
use kafka_protocol::protocol::{Decodable, Encodable, Message, Request};

pub use any::{decode_any_request, decode_any_response};
pub(crate) use chunks::put_uvarint;
pub use fetch::{PartitionChunks, encode_fetch_response};
pub use header::{
    RequestHead, decode_request_header, decode_response_header, encode_request_header,
    encode_response_header, peek_correlation_id,
};
pub use produce::{ProduceHead, ProducePartition, ProduceTopic, encode_produce};
pub use topic_ids::{decode_offset_commit, decode_offset_fetch};

use crate::schema::{self, Kind, WalkError};
use crate::seam::Frame;

/// Why a message could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes contradict the schema of the version they claim to be.
    #[error("malformed message: {0}")]
    Malformed(#[from] WalkError),
    /// The frame carries another api than the one asked for.
    #[error("expected api key {expected}, found {found}")]
    WrongApi {
        /// Key of the message type.
        expected: i16,
        /// Key of the frame.
        found: i16,
    },
    /// This version is unknown here.
    #[error("api key {api_key} in version {version} is not supported")]
    UnsupportedVersion {
        /// The api.
        api_key: i16,
        /// The version.
        version: i16,
    },
    /// The version has no room for one of the values set. Not seen when decoding: the walk is stricter.
    #[error("api key {api_key} in version {version}: {reason}")]
    Invalid {
        /// The api.
        api_key: i16,
        /// The version.
        version: i16,
        /// What was wrong.
        reason: String,
    },
    /// A request header is cut off or its client id is not a string.
    #[error("malformed header")]
    Header,
}

/// Encodes a request body.
///
/// # Errors
///
/// Returns [`CodecError`] if the version is unknown or cannot carry one of the values set.
pub fn encode_request<R: Request>(version: i16, request: &R) -> Result<Frame, CodecError> {
    encode(R::KEY, version, request)
}

/// Decodes a request body; `Bytes` fields are slices of the frame.
///
/// # Errors
///
/// Returns [`CodecError`] if the frame is of another api or its bytes contradict the schema.
pub fn decode_request<R: Request>(frame: Frame) -> Result<R, CodecError> {
    decode(Kind::Request, R::KEY, frame)
}

/// Encodes a response body.
///
/// # Errors
///
/// Returns [`CodecError`] if the version is unknown or cannot carry one of the values set.
pub fn encode_response<R: Request>(version: i16, response: &R::Response) -> Result<Frame, CodecError> {
    encode(R::KEY, version, response)
}

/// Decodes a response body; `Bytes` fields are slices of the frame.
///
/// # Errors
///
/// Returns [`CodecError`] if the frame is of another api or its bytes contradict the schema.
pub fn decode_response<R: Request>(frame: Frame) -> Result<R::Response, CodecError> {
    decode(Kind::Response, R::KEY, frame)
}

fn encode<M: Message + Encodable>(api_key: i16, version: i16, message: &M) -> Result<Frame, CodecError> {
    let layout = layout_version::<M>(api_key, version)?;
    let invalid = |e: &dyn std::fmt::Display| CodecError::Invalid { api_key, version, reason: e.to_string() };
    let mut body = BytesMut::with_capacity(message.compute_size(layout).map_err(|e| invalid(&e))?);
    message.encode(&mut body, layout).map_err(|e| invalid(&e))?;
    Ok(Frame::new(api_key, version, body.freeze()))
}

fn decode<M: Message + Decodable>(kind: Kind, expected: i16, frame: Frame) -> Result<M, CodecError> {
    let (api_key, version) = (frame.api_key, frame.api_version);
    if api_key != expected {
        return Err(CodecError::WrongApi { expected, found: api_key });
    }
    let layout = layout_version::<M>(api_key, version)?;
    let mut body = frame.into_contiguous();
    schema::walk(kind, api_key, version, &body)?;
    M::decode(&mut body, layout).map_err(|e| CodecError::Invalid { api_key, version, reason: e.to_string() })
}

/// The version whose layout `kafka-protocol` shall use.
fn layout_version<M: Message>(api_key: i16, version: i16) -> Result<i16, CodecError> {
    let layout = match (api_key, version) {
        // ListOffsets 11 only gives the timestamp -6 a meaning (KIP-1023).
        (2, 11) => 10,
        // BrokerHeartbeat 2 only adds the tagged field 1, CordonedLogDirs, which passes as an unknown one.
        (63, 2) => 1,
        _ => version,
    };
    let known = M::VERSIONS;
    if layout < known.min || layout > known.max {
        return Err(CodecError::UnsupportedVersion { api_key, version });
    }
    Ok(layout)
}

#[cfg(test)]
mod tests;
