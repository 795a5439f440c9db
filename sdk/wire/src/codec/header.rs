//! Request and response headers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::CodecError;
use crate::schema::{self, Cursor, Kind, Malformed};

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
///
/// A client id over 32767 bytes is cut: the header has no room for more.
pub fn encode_request_header(
    api_key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(11 + client_id.map_or(0, str::len));
    out.put_i16(api_key);
    out.put_i16(version);
    out.put_i32(correlation_id);
    match client_id.map(cut) {
        Some((length, text)) => {
            out.put_i16(length);
            out.put_slice(text.as_bytes());
        }
        None => out.put_i16(-1),
    }
    if flexible_request_header(api_key, version) {
        out.put_u8(0);
    }
    out.freeze()
}

/// Takes the request header off the front of a frame; what is left is the body.
///
/// An api key or version that Kafka 4.3 does not have still yields the head, so that a broker can
/// answer or close; nothing is promised then about where the body starts.
///
/// # Errors
///
/// Returns [`CodecError::Header`] if the bytes end early or the client id is not a string.
pub fn decode_request_header(frame: &mut Bytes) -> Result<RequestHead, CodecError> {
    let mut bytes = Cursor::new(frame);
    let api_key = i16::from_be_bytes(bytes.array().map_err(header)?);
    let api_version = i16::from_be_bytes(bytes.array().map_err(header)?);
    let correlation_id = i32::from_be_bytes(bytes.array().map_err(header)?);
    let mut head = RequestHead { api_key, api_version, correlation_id, client_id: None };
    match client_id(frame, &mut bytes) {
        Ok(id) => head.client_id = id,
        Err(_) if schema::versions(Kind::Request, api_key).is_none() => return Ok(head),
        Err(error) => return Err(error),
    }
    if flexible_request_header(api_key, api_version) {
        skip_tags(&mut bytes)?;
    }
    let consumed = frame.len() - bytes.left();
    frame.advance(consumed);
    Ok(head)
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
    let mut bytes = Cursor::new(frame);
    let id = i32::from_be_bytes(bytes.array().map_err(header)?);
    if flexible_response_header(api_key, version) {
        skip_tags(&mut bytes)?;
    }
    let consumed = frame.len() - bytes.left();
    frame.advance(consumed);
    Ok(id)
}

/// The correlation id a response starts with, before its api key and version are known.
pub fn peek_correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk().map(|id| i32::from_be_bytes(*id))
}

fn client_id(frame: &Bytes, bytes: &mut Cursor<'_>) -> Result<Option<StrBytes>, CodecError> {
    let Some(length) = bytes.length16().map_err(header)? else {
        return Ok(None);
    };
    let id = frame.slice_ref(bytes.claimed(length).map_err(header)?);
    // Kafka takes whatever is there for a name.
    let lossy = |_| StrBytes::from_string(String::from_utf8_lossy(&id).into_owned());
    Ok(Some(StrBytes::from_utf8(id.clone()).unwrap_or_else(lossy)))
}

fn skip_tags(bytes: &mut Cursor<'_>) -> Result<(), CodecError> {
    let mut tags = bytes.tags().map_err(header)?;
    while tags.next(bytes).map_err(header)?.is_some() {}
    Ok(())
}

fn header(_: Malformed) -> CodecError {
    CodecError::Header
}

/// As much of a string as 2 bytes of length allow.
fn cut(text: &str) -> (i16, &str) {
    let mut end = text.len().min(i16::MAX as usize);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    (i16::try_from(text.len()).unwrap_or_default(), text)
}

fn flexible_request_header(api_key: i16, version: i16) -> bool {
    schema::is_flexible(Kind::Request, api_key, version).unwrap_or(false)
}

fn flexible_response_header(api_key: i16, version: i16) -> bool {
    api_key != API_VERSIONS && schema::is_flexible(Kind::Response, api_key, version).unwrap_or(false)
}
