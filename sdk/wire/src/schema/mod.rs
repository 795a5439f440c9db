//! Length walk over the bytes of a peer, driven by Kafka's own schemas.
//!
//! In: api key, version, bytes. Out: whether every length, count, marker and tag in them is true.
//! kafka-protocol reserves memory by claimed counts; it sees only bytes that passed here.
//!
//! Invariant: a walk never allocates, its depth is that of the schema, and it takes time in
//! proportion to the bytes. What it lets pass holds every element that it claims to hold, and is not mostly elements
//! that hold nothing: those take many times their bytes in memory.

mod cursor;
#[cfg(test)]
pub(crate) mod generate;
mod table;
mod tables;
mod walk;

pub(crate) use cursor::Cursor;
pub use cursor::{Fault, Malformed};

use table::{Api, Message};
use tables::APIS;
use walk::{Elements, Walk};

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

/// Checks that `body` is exactly one well-formed response, or begins with a well-formed request.
///
/// What passes, `kafka-protocol` decodes without an error, if it knows the version.
///
/// # Errors
///
/// Returns [`WalkError`] for the first place where the bytes contradict the schema.
pub fn walk(kind: Kind, api_key: i16, version: i16, body: &[u8]) -> Result<(), WalkError> {
    let message = message(kind, api_key).ok_or(WalkError::UnknownApi { api_key })?;
    if !message.has(version) {
        return Err(WalkError::UnknownVersion { api_key, version });
    }
    let mut bytes = Cursor::new(body);
    let (flexible, elements) = (message.flexible(version), Elements::of(body.len()));
    Walk { version, flexible, elements: &elements }.structure(message.3, &mut bytes)?;
    match kind {
        // Kafka's brokers do not look at what lies behind a request's end, and take the request.
        Kind::Request => Ok(()),
        Kind::Response => Ok(bytes.finish()?),
    }
}

/// The versions of a message in Kafka 4.3's schema (lowest, highest), or `None` for an unknown api key.
pub fn versions(kind: Kind, api_key: i16) -> Option<(i16, i16)> {
    message(kind, api_key).map(|message| (message.0.into(), message.1.into()))
}

/// Returns `true` if this version of the message has tagged fields, or `None` for an unknown api key.
///
/// Versions that Kafka 4.3 does not have yet are answered like its latest.
pub fn is_flexible(kind: Kind, api_key: i16, version: i16) -> Option<bool> {
    message(kind, api_key).map(|message| message.flexible(version))
}

/// Every api key in Kafka 4.3's schemas, ascending.
pub fn api_keys() -> impl Iterator<Item = i16> {
    APIS.iter().map(|Api(key, ..)| *key)
}

fn message(kind: Kind, api_key: i16) -> Option<&'static Message> {
    let index = APIS.binary_search_by_key(&api_key, |Api(key, ..)| *key).ok()?;
    let Api(_, request, response) = APIS.get(index)?;
    Some(match kind {
        Kind::Request => request,
        Kind::Response => response,
    })
}

#[cfg(test)]
mod tests;
