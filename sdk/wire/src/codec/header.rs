//! Request and response headers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::CodecError;
use crate::schema::{self, Kind};

/// Api key of ApiVersions, whose response header never has tagged fields, so that any client can read it.
const API_VERSIONS: i16 = 18;

/// What a request says about itself before its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Api key; may be one that nobody knows.
    pub api_key: i16,
    /// Version of the body.
    pub api_version: i16,
    /// Number that the response must carry.
    pub correlation_id: i32,
    /// `client.id`, if sent and readable.
    pub client_id: Option<StrBytes>,
}

/// Encodes a request header in the version that the body's version asks for.
pub fn encode_request_header(
    api_key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Bytes {
    let _ = (api_key, version, correlation_id, client_id);
    unimplemented!()
}

/// Takes the request header off the front of a frame; what is left is the body.
///
/// An api key or version that Kafka 4.3 does not have still yields the head, so that a broker can answer or close.
///
/// # Errors
///
/// Returns [`CodecError::Header`] if the bytes end early or the client id is not a string.
pub fn decode_request_header(frame: &mut Bytes) -> Result<RequestHead, CodecError> {
    let _ = frame;
    unimplemented!()
}

/// Encodes a response header in the version that the body's version asks for.
pub fn encode_response_header(api_key: i16, version: i16, correlation_id: i32) -> Bytes {
    let mut out = BytesMut::with_capacity(5);
    out.put_i32(correlation_id);
    if flexible_response_header(api_key, version) {
        out.put_u8(0);
    }
    out.freeze()
}

/// Takes the response header off the front of a frame and returns the correlation id; what is left is the body.
///
/// # Errors
///
/// Returns [`CodecError::Header`] if the bytes end early.
pub fn decode_response_header(api_key: i16, version: i16, frame: &mut Bytes) -> Result<i32, CodecError> {
    let id = frame.try_get_i32().map_err(|_| CodecError::Header)?;
    if flexible_response_header(api_key, version) {
        unimplemented!()
    }
    Ok(id)
}

/// The correlation id a response starts with, before its api key and version are known.
pub fn peek_correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk().map(|id| i32::from_be_bytes(*id))
}

fn flexible_response_header(api_key: i16, version: i16) -> bool {
    api_key != API_VERSIONS && schema::is_flexible(Kind::Response, api_key, version).unwrap_or(false)
}
