//! Reading a partition of `__consumer_offsets` into a new coordinator.

use std::sync::Arc;

use broker_lite_core::group::{GroupCoordinator, GroupRecord};
use bytes::{Bytes, BytesMut};
use klamm_wire::RawBatch;

use super::shard::Shard;
use crate::broker::{Broker, Until};
use crate::rt::Tick;

/// Most bytes that are read at a time, but for a single batch that is larger.
const READ_BYTES: usize = 1 << 20;
/// What one batch may grow to when it is decompressed.
const DECOMPRESSION_LIMIT_BYTES: usize = 64 << 20;

impl Shard {
    /// Tells the coordinator everything that is in the log, once all of that is replicated; `None` if the leadership ends
    /// before.
    pub(super) async fn load(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        mut machine: GroupCoordinator,
    ) -> Result<Option<GroupCoordinator>, String> {
        let bounds = self.partition.look(|replica| (replica.log_start_offset(), replica.log_end_offset()));
        let Some((mut at, end)) = bounds else { return Ok(None) };
        while at < end {
            if self.is_over() {
                return Ok(None);
            }
            let read = self.partition.look(|replica| replica.log().read(at, end, READ_BYTES, true));
            let Some(read) = read else { return Ok(None) };
            let next = replay(&mut machine, joined(read.map_err(|error| error.to_string())?), at)?;
            if next <= at {
                // a log whose end was compacted away
                break;
            }
            at = next;
            // others want to run, and the lock was held for long
            broker.rt.sleep(Tick::ZERO).await;
        }
        loop {
            if self.is_over() {
                return Ok(None);
            }
            match self.replicated_to() {
                None => return Ok(None),
                Some(mark) if mark >= end => return Ok(Some(machine)),
                Some(_) => {}
            }
            self.partition.wait(Until::Committed(end), &self.signal);
            self.signal.notified().await;
        }
    }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

/// Returns the offset behind what was read.
fn replay(machine: &mut GroupCoordinator, mut bytes: Bytes, from: i64) -> Result<i64, String> {
    let mut next = from;
    while let Some(batch) = RawBatch::split(&mut bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        batch.verify_crc().map_err(|error| error.to_string())?;
        next = batch.header().next_offset();
        if batch.header().is_control() {
            continue;
        }
        let records = batch.records(DECOMPRESSION_LIMIT_BYTES).map_err(|error| error.to_string())?;
        for record in &records {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key.filter(|_| record.offset >= from) else { continue };
            match GroupRecord::decode(key, record.value) {
                Ok(Some(known)) => machine.replay(known),
                Ok(None) => {}
                // Kafka, too, passes over what it cannot read
                Err(error) => tracing::warn!(offset = record.offset, %error, "a record of a group"),
            }
        }
    }
    Ok(next)
}
