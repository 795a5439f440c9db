//! Records of groups into their partition, as a Produce with acks=all appends.

use std::sync::Arc;

use broker_lite_core::group::{GroupLog, GroupRecord};
use broker_lite_core::replica::Produce;
use bytes::{BufMut, BytesMut};
use klamm_wire::Compression;
use klamm_wire::ErrorCode;
use klamm_wire::batch::{BatchBuilder, ProducerStamp};

use crate::broker::{Broker, Partition};
use crate::rt::Tick;

const ACKS_ALL: i16 = -1;
/// The version of Produce whose rules hold: none are looser.
const PRODUCE_VERSION: i16 = 13;

/// A partition to append to.
pub(super) struct PartitionLog<'a> {
    pub(super) broker: &'a Broker,
    pub(super) partition: &'a Arc<Partition>,
    pub(super) now: Tick,
    pub(super) wall_ms: i64,
}

impl GroupLog for PartitionLog<'_> {
    fn append(&mut self, records: &[GroupRecord]) -> Result<i64, ErrorCode> {
        let mut builder = BatchBuilder::new(BytesMut::new());
        for record in records {
            let (key, value) = record.encode();
            builder.append::<&[u8], &[u8]>(self.wall_ms, Some(&key), value.as_deref(), &[]);
        }
        let sealed = builder.seal(compression(self.broker), None).map_err(|error| {
            tracing::warn!(%error, "cannot write groups");
            ErrorCode::UNKNOWN_SERVER_ERROR
        })?;
        let mut batch = BytesMut::with_capacity(sealed.len_bytes());
        batch.put_slice(&sealed.header(ProducerStamp::default()));
        batch.put_slice(sealed.records());
        let produce = Produce { records: batch.freeze(), acks: ACKS_ALL, api_version: PRODUCE_VERSION };
        let (now, wall_ms) = (self.now, self.wall_ms);
        let appended = self
            .partition
            .with(self.broker, |replica, fx| replica.append(now, wall_ms, &produce, fx))
            .ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        match appended {
            Ok(appended) => Ok(appended.last_offset + 1),
            Err(error) => {
                tracing::debug!(partition = %self.partition.identity, %error, "groups are not written");
                Err(error.code)
            }
        }
    }
}

/// `offsets.topic.compression.codec`, by its number.
fn compression(broker: &Broker) -> Compression {
    let wanted = match broker.config.int("offsets.topic.compression.codec") {
        Some(1) => Compression::Gzip,
        Some(2) => Compression::Snappy,
        Some(3) => Compression::Lz4,
        Some(4) => Compression::Zstd,
        _ => Compression::None,
    };
    // a build without zstd writes plain records instead of none
    if wanted.check_level(None).is_ok() { wanted } else { Compression::None }
}
