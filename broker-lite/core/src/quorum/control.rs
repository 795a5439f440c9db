//! Batches of the metadata log: records of the controller, and the control records of the quorum.
//!
//! Control records have a key (version, type) and a value, as Kafka writes them: LeaderChange 2, SnapshotHeader 3,
//! SnapshotFooter 4.

use bytes::{BufMut, Bytes, BytesMut};
use klamm_wire::batch::{NO_HEADERS, NO_PRODUCER};
use klamm_wire::crc::crc32c;
use klamm_wire::{BatchBuilder, BatchHeader, Compression};

use super::LeaderChange;

/// Bit of a batch's attributes that says its records are control records.
const CONTROL: i16 = 1 << 5;
/// The CRC covers a batch from here on.
const SUMMED_FROM: usize = 21;

/// Type of the control record with which a leadership begins.
pub(crate) const LEADER_CHANGE: i16 = 2;
/// Type of the first record of a snapshot.
pub(crate) const SNAPSHOT_HEADER: i16 = 3;
/// Type of the last record of a snapshot.
pub(crate) const SNAPSHOT_FOOTER: i16 = 4;

/// Where a batch stands in its log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: i64,
    pub(crate) epoch: i32,
    pub(crate) wall_ms: i64,
}

/// A batch of values without keys; `None` beyond 2 GiB.
pub(crate) fn batch(place: Place, values: impl Iterator<Item = Bytes>) -> Option<(BatchHeader, Bytes)> {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for value in values {
        builder.append(place.wall_ms, None, Some(&value), NO_HEADERS);
    }
    seal(place, builder, 0)
}

/// A batch of one control record.
pub(crate) fn control(place: Place, kind: i16, value: &[u8]) -> Option<(BatchHeader, Bytes)> {
    let mut key = BytesMut::with_capacity(4);
    key.put_i16(0);
    key.put_i16(kind);
    let mut builder = BatchBuilder::new(BytesMut::new());
    builder.append(place.wall_ms, Some(&key), Some(value), NO_HEADERS);
    seal(place, builder, CONTROL)
}

fn seal(place: Place, builder: BatchBuilder, attributes: i16) -> Option<(BatchHeader, Bytes)> {
    let sealed = builder.seal(Compression::None, None).ok()?;
    let mut header = BatchHeader::parse(&sealed.header(NO_PRODUCER)).ok()?;
    header.base_offset = place.offset;
    header.partition_leader_epoch = place.epoch;
    header.attributes |= attributes;
    let mut bytes = BytesMut::with_capacity(sealed.len_bytes());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(sealed.records());
    if attributes != 0 {
        header.crc = crc32c(bytes.get(SUMMED_FROM..)?);
        bytes.get_mut(..klamm_wire::batch::HEADER_BYTES)?.copy_from_slice(&header.encode());
    }
    Some((header, bytes.freeze()))
}

/// LeaderChangeMessage, version 0: the one without directory ids.
pub(crate) fn leader_change(change: &LeaderChange) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(0);
    value.put_i32(change.leader);
    for voters in [&change.voters, &change.granting] {
        put_unsigned(&mut value, voters.len() as u32 + 1);
        for voter in voters {
            value.put_i32(*voter);
            value.put_u8(0);
        }
    }
    value.put_u8(0);
    value.freeze()
}

fn put_unsigned(to: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

/// SnapshotHeaderRecord, version 0.
pub(crate) fn snapshot_header(last_timestamp_ms: i64) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(0);
    value.put_i64(last_timestamp_ms);
    value.put_u8(0);
    value.freeze()
}

/// SnapshotFooterRecord, version 0.
pub(crate) fn snapshot_footer() -> Bytes {
    Bytes::from_static(&[0, 0, 0])
}
