//! Length walk over the bytes of a peer, driven by Kafka's own schemas.
//!
//! In: api key, version, bytes. Out: whether every length, count, marker and tag in them is true.
//! kafka-protocol reserves memory by claimed counts; it sees only bytes that passed here.
//!
//! Invariant: a walk never allocates, and takes time in proportion to the bytes.

mod cursor;

pub(crate) use cursor::Cursor;
pub use cursor::{Fault, Malformed};

/// Which half of a conversation a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From client to broker.
    Request,
    /// From broker to client.
    Response,
}

/// Why bytes are not a message of the version they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// No schema for this api key.
    #[error("unknown api key {api_key}")]
    UnknownApi {
        /// The key.
        api_key: i16,
    },
    /// Kafka 4.3 has the api, but not in this version.
    #[error("api key {api_key} has no version {version}")]
    UnknownVersion {
        /// The key.
        api_key: i16,
        /// The version.
        version: i16,
    },
    /// The bytes contradict the schema.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Checks that `body` is exactly one well-formed message.
///
/// # Errors
///
/// Returns [`WalkError`] for the first place where the bytes contradict the schema.
pub fn walk(kind: Kind, api_key: i16, version: i16, body: &[u8]) -> Result<(), WalkError> {
    let _ = (kind, api_key, version, body);
    unimplemented!()
}

/// The versions of a message in Kafka 4.3's schema (min, max), or `None` for an unknown api key.
pub fn versions(kind: Kind, api_key: i16) -> Option<(i16, i16)> {
    let _ = (kind, api_key);
    unimplemented!()
}

/// Returns `true` if this version of the message has tagged fields, or `None` for an unknown api key.
pub fn is_flexible(kind: Kind, api_key: i16, version: i16) -> Option<bool> {
    let _ = (kind, api_key, version);
    unimplemented!()
}
