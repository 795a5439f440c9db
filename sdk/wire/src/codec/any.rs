//! Every api by its key: for fuzzing and property tests.

use bytes::Bytes;

use super::CodecError;

/// Walks and decodes a request body of any api.
///
/// # Errors
///
/// Returns [`CodecError`] if the api or version is unknown, or the bytes contradict the schema.
pub fn decode_any_request(api_key: i16, version: i16, body: Bytes) -> Result<(), CodecError> {
    let _ = (api_key, version, body);
    unimplemented!()
}

/// Walks and decodes a response body of any api.
///
/// # Errors
///
/// Returns [`CodecError`] if the api or version is unknown, or the bytes contradict the schema.
pub fn decode_any_response(api_key: i16, version: i16, body: Bytes) -> Result<(), CodecError> {
    let _ = (api_key, version, body);
    unimplemented!()
}
