//! Batches for tests.

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::NO_HEADERS;
use klamm_wire::{BatchBuilder, BatchHeader, Compression, ProducerStamp, RawBatch};

/// A producer's batch with these values, timestamps from `timestamp` on, as it comes in a Produce request.
pub(crate) fn produced(stamp: ProducerStamp, timestamp: i64, values: &[&[u8]], codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for (i, value) in (0i64..).zip(values) {
        builder.append(timestamp + i, None, Some(value), NO_HEADERS);
    }
    let sealed = builder.seal(codec, None).unwrap();
    let mut bytes = BytesMut::from(&sealed.header(stamp)[..]);
    bytes.extend_from_slice(sealed.records());
    bytes.freeze()
}

/// A batch of `count` records of 10 B without producer.
pub(crate) fn plain(count: usize) -> Bytes {
    produced(ProducerStamp::default(), 1_000, &vec![&b"0123456789"[..]; count], Compression::None)
}

/// A batch of an idempotent producer.
pub(crate) fn idempotent(producer_id: i64, epoch: i16, base_sequence: i32, values: &[&[u8]]) -> Bytes {
    let stamp = ProducerStamp { producer_id, producer_epoch: epoch, base_sequence };
    produced(stamp, 1_000, values, Compression::None)
}

/// The batch at its place in a log.
pub(crate) fn placed(batch: &Bytes, base_offset: i64, epoch: i32) -> (BatchHeader, [Bytes; 2]) {
    let chunks = RawBatch::parse(batch.clone()).unwrap().assigned(base_offset, epoch);
    (BatchHeader::parse(&chunks[0]).unwrap(), chunks)
}

/// The same batch with its header changed by `change`, and a CRC that fits.
pub(crate) fn forged(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    header.crc = klamm_wire::crc::crc32c_of_two(&header.encode()[21..], &batch[61..]);
    [&header.encode()[..], &batch[61..]].concat().into()
}
