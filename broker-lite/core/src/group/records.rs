//! Records of `__consumer_offsets` in Kafka's own formats.
//!
//! ```text
//! key:   type (2 bytes: 0 and 1 an offset, 2 a group) | fields
//! value: version (2 bytes) | fields, or null: a tombstone
//! ```
//!
//! Written are the versions that Kafka 4.3 writes: offsets in 4 (1 if the client has said when they expire), groups in 3.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::coding::{Malformed, Reader, put_bytes, put_compact_string, put_string, put_uvarint};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VERSION: i16 = 4;
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_VERSION: i16 = 3;
const LATEST: i16 = 4;

/// One record of `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRecord {
    /// An offset that a group has committed, or that it is forgotten.
    Offset {
        /// The group's id.
        group: Arc<str>,
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// `None` is a tombstone.
        value: Option<CommittedOffset>,
    },
    /// A group with its members, or that it is no more.
    Group {
        /// The group's id.
        group: Arc<str>,
        /// `None` is a tombstone.
        value: Option<GroupMetadata>,
    },
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to be read.
    pub offset: i64,
    /// Leader epoch of the last record that was read, -1 if the client did not tell.
    pub leader_epoch: i32,
    /// What the client wants to be kept along.
    pub metadata: Arc<str>,
    /// When it was committed, ms since 1970.
    pub commit_timestamp_ms: i64,
    /// When it expires, if the client has said so (before OffsetCommit 5).
    pub expire_timestamp_ms: Option<i64>,
    /// Id of the topic, zero if the client has named it.
    pub topic_id: Uuid,
}

/// A generation of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `consumer`, or whatever its members are; empty for none.
    pub protocol_type: String,
    /// Its number.
    pub generation: i32,
    /// The protocol chosen.
    pub protocol: Option<String>,
    /// Who made the assignment.
    pub leader: Option<String>,
    /// When the group came into its state, ms since 1970; -1 if unknown.
    pub state_since_ms: i64,
    /// Who belongs to it.
    pub members: Vec<MemberMetadata>,
}

/// One member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Id of this life.
    pub id: String,
    /// Id over its lives, of a static member.
    pub instance_id: Option<String>,
    /// As the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// How long it may take to join again, ms.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, ms.
    pub session_timeout_ms: i32,
    /// What it offered for the protocol chosen.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

impl GroupRecord {
    /// Key and value as they stand in the log.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = BytesMut::new();
        match self {
            Self::Offset { group, topic, partition, value } => {
                key.put_i16(OFFSET_KEY);
                put_string(&mut key, Some(group));
                put_string(&mut key, Some(topic));
                key.put_i32(*partition);
                (key.freeze(), value.as_ref().map(encode_offset))
            }
            Self::Group { group, value } => {
                key.put_i16(GROUP_KEY);
                put_string(&mut key, Some(group));
                (key.freeze(), value.as_ref().map(encode_group))
            }
        }
    }

    /// Reads a record; `None` if it is of a type that is not used here, such as those of KIP-848.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are not what they claim to be, or of a version that Kafka 4.3 does not have.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new(key);
        match reader.i16()? {
            0 | OFFSET_KEY => {
                let (group, topic) = (reader.string()?.into(), reader.string()?.into());
                let partition = reader.i32()?;
                let value = value.map(decode_offset).transpose()?;
                Ok(Some(Self::Offset { group, topic, partition, value }))
            }
            GROUP_KEY => {
                let group = reader.string()?.into();
                Ok(Some(Self::Group { group, value: value.map(decode_group).transpose()? }))
            }
            _ => Ok(None),
        }
    }
}

fn encode_offset(value: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::new();
    if let Some(expires) = value.expire_timestamp_ms {
        out.put_i16(OFFSET_VERSION_WITH_EXPIRY);
        out.put_i64(value.offset);
        put_string(&mut out, Some(&value.metadata));
        out.put_i64(value.commit_timestamp_ms);
        out.put_i64(expires);
        return out.freeze();
    }
    out.put_i16(OFFSET_VERSION);
    out.put_i64(value.offset);
    out.put_i32(value.leader_epoch);
    put_compact_string(&mut out, &value.metadata);
    out.put_i64(value.commit_timestamp_ms);
    if value.topic_id.is_nil() {
        put_uvarint(&mut out, 0);
    } else {
        // one tagged field: 0, of 16 bytes
        out.put_slice(&[1, 0, 16]);
        out.put_slice(value.topic_id.as_bytes());
    }
    out.freeze()
}

fn version(reader: &mut Reader<'_>) -> Result<i16, Malformed> {
    let version = reader.i16()?;
    if !(0..=LATEST).contains(&version) {
        return Err(Malformed);
    }
    reader.flexible(version >= 4);
    Ok(version)
}

fn decode_offset(bytes: &[u8]) -> Result<CommittedOffset, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = version(&mut reader)?;
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.string()?.into();
    let commit_timestamp_ms = reader.i64()?;
    let expires = if version == 1 { reader.i64()? } else { -1 };
    let mut topic_id = Uuid::nil();
    reader.tags(|tag, content| {
        if tag == 0 {
            topic_id = content.uuid()?;
        }
        Ok(())
    })?;
    Ok(CommittedOffset {
        offset,
        leader_epoch,
        metadata,
        commit_timestamp_ms,
        expire_timestamp_ms: (expires != -1).then_some(expires),
        topic_id,
    })
}

fn encode_group(value: &GroupMetadata) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_VERSION);
    put_string(&mut out, Some(&value.protocol_type));
    out.put_i32(value.generation);
    put_string(&mut out, value.protocol.as_deref());
    put_string(&mut out, value.leader.as_deref());
    out.put_i64(value.state_since_ms);
    out.put_i32(i32::try_from(value.members.len()).unwrap_or(i32::MAX));
    for member in &value.members {
        put_string(&mut out, Some(&member.id));
        put_string(&mut out, member.instance_id.as_deref());
        put_string(&mut out, Some(&member.client_id));
        put_string(&mut out, Some(&member.client_host));
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out.freeze()
}

fn decode_group(bytes: &[u8]) -> Result<GroupMetadata, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = version(&mut reader)?;
    let protocol_type = reader.string()?;
    let generation = reader.i32()?;
    let protocol = reader.nullable_string()?;
    let leader = reader.nullable_string()?;
    let state_since_ms = if version >= 2 { reader.i64()? } else { -1 };
    let mut members = Vec::new();
    for _ in 0..reader.count()? {
        let id = reader.string()?;
        let instance_id = if version >= 3 { reader.nullable_string()? } else { None };
        let client_id = reader.string()?;
        let client_host = reader.string()?;
        let rebalance_timeout = if version >= 1 { reader.i32()? } else { -1 };
        let session_timeout_ms = reader.i32()?;
        let subscription = reader.nullable_bytes()?.ok_or(Malformed)?;
        let assignment = reader.nullable_bytes()?.ok_or(Malformed)?;
        reader.tags(|_, _| Ok(()))?;
        // before there was one, the session time-out served as such
        let rebalance_timeout_ms =
            if rebalance_timeout == -1 { session_timeout_ms } else { rebalance_timeout };
        members.push(MemberMetadata {
            id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        });
    }
    reader.tags(|_, _| Ok(()))?;
    Ok(GroupMetadata { protocol_type, generation, protocol, leader, state_since_ms, members })
}
