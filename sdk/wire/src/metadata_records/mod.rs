//! Records of the metadata log, in Kafka's own encoding.
//!
//! In: a [`MetadataRecord`], or the value of a record of `__cluster_metadata`. Out: the other one.
//!
//! ```text
//! frame version 1 | record type | version | fields | tagged fields      (the first three: unsigned varints)
//! ```
//!
//! Invariant: reading takes any bytes and reserves no more memory than they justify.

mod generated;
mod value;

use bytes::{Bytes, BytesMut};

pub use generated::{
    BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, ConfigRecord, FeatureLevelRecord,
    MetadataRecord, NoOpRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord,
    RegisterBrokerRecord, RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord,
};

use crate::codec::put_uvarint;
use crate::schema::{Cursor, Malformed};

/// Version of the frame around every record.
const FRAME_VERSION: u32 = 1;

/// Why bytes are not a record that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Another frame version than 1.
    #[error("metadata record in frame version {0}")]
    Frame(u32),
    /// A record type that is not used here.
    #[error("metadata record of type {0} is not supported")]
    UnknownType(u32),
    /// A version later than Kafka 4.3's.
    #[error("metadata record of type {kind} in version {version} is not supported")]
    UnknownVersion {
        /// Record type.
        kind: u32,
        /// Its version.
        version: u32,
    },
    /// The bytes contradict the schema.
    #[error("metadata record: {0}")]
    Malformed(#[from] Malformed),
}

impl MetadataRecord {
    /// Encodes the record in the latest version, as the value of a record in the metadata log.
    pub fn encode(&self) -> Bytes {
        let (_, version) = self.stamp();
        self.encode_as(version)
    }

    fn encode_as(&self, version: i16) -> Bytes {
        let mut out = BytesMut::new();
        let (kind, _) = self.stamp();
        put_uvarint(&mut out, FRAME_VERSION);
        put_uvarint(&mut out, kind);
        put_uvarint(&mut out, u32::from(version.unsigned_abs()));
        self.write(version, &mut out);
        out.freeze()
    }

    /// Decodes the value of a record in the metadata log; unknown tagged fields are dropped.
    ///
    /// # Errors
    ///
    /// Returns [`RecordError`] if the type or version is unknown, or the bytes contradict the schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut bytes = Cursor::new(bytes);
        let frame = bytes.uvarint()?;
        if frame != FRAME_VERSION {
            return Err(RecordError::Frame(frame));
        }
        let kind = bytes.uvarint()?;
        let version = bytes.uvarint()?;
        let last = Self::last_version(kind).ok_or(RecordError::UnknownType(kind))?;
        let known = i16::try_from(version).ok().filter(|known| *known <= last);
        let version = known.ok_or(RecordError::UnknownVersion { kind, version })?;
        let record = Self::read(kind, version, &mut bytes)?.ok_or(RecordError::UnknownType(kind))?;
        bytes.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
