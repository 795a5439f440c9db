//! What the reader makes of a chunk.

use klamm_wire::batch::BatchHeader;

use super::*;

fn chunk(from: i64, next: i64, parts: &[Bytes]) -> Chunk {
    let records = Bytes::from(parts.concat());
    let (partition, topic_id, aborted) = (tp(0), ID, vec![]);
    Chunk { partition, topic_id, generation: 1, from, epoch: -1, next, aborted, records, shared: false }
}

fn offsets(chunk: Chunk) -> (Vec<i64>, i64) {
    let mut reader = ChunkReader::new(chunk, true, 1 << 20);
    let mut offsets = vec![];
    while let Some(record) = reader.next(&|bytes| bytes).unwrap() {
        assert_eq!(record.value.unwrap(), record.offset.to_string().as_bytes());
        assert_eq!((record.leader_epoch, record.timestamp_ms), (3, 1_000 + record.offset));
        offsets.push(record.offset);
        assert_eq!(reader.position(), record.offset + 1);
    }
    (offsets, reader.position())
}

/// Rewrites the header of a batch and sums it again.
fn altered(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    let mut bytes = [&header.encode()[..], &batch[61..]].concat();
    let stale = RawBatch::parse(Bytes::from(bytes.clone())).unwrap();
    if let Err(klamm_wire::BatchError::Crc { computed, .. }) = stale.verify_crc() {
        bytes[17..21].copy_from_slice(&computed.to_be_bytes());
    }
    Bytes::from(bytes)
}

const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

fn of_transaction(base: i64, count: i64, producer_id: i64) -> Bytes {
    altered(&batch(base, count), |header| {
        header.attributes |= TRANSACTIONAL;
        header.producer_id = producer_id;
    })
}

fn marker(offset: i64, producer_id: i64, commit: bool) -> Bytes {
    let mut builder = BatchBuilder::new(BytesMut::new());
    builder.append(0, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0; 6]), NO_HEADERS);
    let sealed = builder.seal(Compression::None, None).unwrap();
    let raw = Bytes::from([&sealed.header(NO_PRODUCER)[..], sealed.records()].concat());
    altered(&raw, |header| {
        header.base_offset = offset;
        header.attributes |= TRANSACTIONAL | CONTROL;
        header.producer_id = producer_id;
    })
}

#[test]
fn every_codec_gives_the_same_records() {
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4] {
        let all = chunk(0, 8, &[packed(0, 5, codec), packed(5, 3, codec)]);
        assert_eq!(offsets(all), ((0..8).collect(), 8), "{codec:?}");
    }
}

#[test]
fn records_before_the_position_in_a_compressed_batch_are_left_out() {
    let tail = chunk(3, 5, &[packed(0, 5, Compression::Gzip)]);
    assert_eq!(offsets(tail), (vec![3, 4], 5));
}

#[test]
fn a_compacted_end_of_a_batch_still_moves_the_position() {
    let compacted = altered(&batch(0, 2), |header| header.last_offset_delta = 6);
    assert_eq!(offsets(chunk(0, 7, &[compacted])), (vec![0, 1], 7));
}

#[test]
fn uncompressed_records_are_slices_of_the_chunk() {
    let chunk = chunk(0, 2, &[batch(0, 2)]);
    let memory = chunk.records.as_ptr_range();
    let mut reader = ChunkReader::new(chunk, true, 0);
    let kept = |_| panic!("nothing was decompressed");
    let record = reader.next(&kept).unwrap().unwrap();
    assert!(memory.contains(&record.value.unwrap().as_ptr()));
}

#[test]
fn decompressed_bytes_pass_through_the_accounting() {
    let seen = std::cell::Cell::new(0);
    let keep = |bytes: Bytes| {
        seen.set(bytes.len());
        bytes
    };
    let mut reader = ChunkReader::new(chunk(0, 2, &[packed(0, 2, Compression::Gzip)]), true, 1 << 20);
    reader.next(&keep).unwrap().unwrap();
    assert!(seen.get() > 0);
}

#[test]
fn a_flipped_byte_is_noticed_unless_checking_is_off() {
    let mut bytes = batch(0, 2).to_vec();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    let damaged = || chunk(0, 2, &[Bytes::from(bytes.clone())]);
    let mut reader = ChunkReader::new(damaged(), true, 0);
    assert!(matches!(reader.next(&|b| b), Err(ChunkError::Batch(klamm_wire::BatchError::Crc { .. }))));
    assert_eq!(reader.position(), 0);
    assert!(ChunkReader::new(damaged(), false, 0).next(&|b| b).unwrap().is_some());
}

#[test]
fn decompression_stops_at_the_limit() {
    let mut reader = ChunkReader::new(chunk(0, 50, &[packed(0, 50, Compression::Gzip)]), true, 100);
    let error = reader.next(&|b| b).unwrap_err();
    assert!(matches!(error, ChunkError::Batch(klamm_wire::BatchError::Compression(_))), "{error}");
}

#[test]
fn markers_are_never_handed_out_and_aborted_transactions_neither() {
    let parts = [
        of_transaction(0, 2, 77), // aborted
        of_transaction(2, 2, 78), // committed
        batch(4, 1),
        marker(5, 77, false),
        of_transaction(6, 2, 77), // the next one of the same producer, committed
        marker(8, 78, true),
        marker(9, 77, true),
    ];
    let all = chunk(0, 10, &parts);
    let seen = [0, 1, 2, 3, 4, 6, 7];
    assert_eq!(offsets(all.clone()).0, seen, "read_uncommitted: the broker sends no list");
    let aborted = vec![Aborted { producer_id: 77, first_offset: 0 }];
    assert_eq!(offsets(Chunk { aborted, ..all }), (vec![2, 3, 4, 6, 7], 10));
}

#[test]
fn an_offset_outside_of_its_batch_is_an_error() {
    let short = altered(&batch(0, 3), |header| header.last_offset_delta = 1);
    let mut reader = ChunkReader::new(chunk(0, 2, &[short]), true, 0);
    while reader.position() < 2 {
        if let Err(error) = reader.next(&|b| b) {
            assert!(matches!(error, ChunkError::Batch(_)), "{error}");
            return;
        }
    }
    assert_eq!(reader.next(&|b| b), Err(ChunkError::Offset { offset: 2 }));
}

#[test]
fn the_rest_of_a_chunk_goes_on_where_reading_stopped() {
    let mut reader = ChunkReader::new(chunk(0, 8, &[batch(0, 5), batch(5, 3)]), true, 0);
    for _ in 0..6 {
        reader.next(&|b| b).unwrap();
    }
    assert_eq!(offsets(reader.into_rest()), (vec![6, 7], 8));
}
