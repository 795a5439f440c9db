//! Compressed bytes from a hostile peer: memory in proportion to the limit, and to the bytes that came.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::alloc::System;

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::{NO_HEADERS, NO_PRODUCER};
use klamm_wire::{BatchBuilder, Compression, CompressionError, RawBatch};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tables and buffers that a codec needs whatever the data; zstd's are the largest.
const TABLES: usize = 700_000;
const PACKED: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Decompresses and returns the bytes asked of the allocator on the way, those given back included.
fn unpack(codec: Compression, packed: &[u8], limit: usize) -> (Result<Vec<u8>, CompressionError>, usize) {
    let region = Region::new(MEMORY);
    let result = codec.decompress(packed, limit);
    (result, region.change().bytes_allocated)
}

fn pack(codec: Compression, plain: &[u8]) -> Vec<u8> {
    match codec {
        Compression::Zstd => compress_to_vec(plain, CompressionLevel::Fastest),
        codec => codec.compress(None, plain).unwrap(),
    }
}

/// One test, as the counter counts for all threads.
#[test]
fn memory_is_bounded_by_the_limit_and_by_the_bytes() {
    bombs_stop_at_the_limit();
    claims_are_not_believed();
    mutations_stay_in_proportion();
    a_batch_of_a_bomb_stops_at_the_limit();
}

fn bombs_stop_at_the_limit() {
    let plain = vec![0; 64 << 20];
    let mut bombs: Vec<_> = PACKED.iter().map(|codec| (*codec, pack(*codec, &plain))).collect();
    bombs.push((Compression::Zstd, zstd_of_runs()));
    for (codec, bomb) in bombs {
        let (result, used) = unpack(codec, &bomb, 1_000_000);
        assert!(matches!(result, Err(CompressionError::Limit { .. })), "{codec}: {result:?}");
        assert!(used < TABLES + 6_000_000, "{codec}: {used} B");
    }
}

/// 64 MB of zeroes in blocks of 128 KB, each a run of four bytes, in a window that would hold them all.
fn zstd_of_runs() -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3];
    for index in 0..512u32 {
        let header = u32::from(index == 511) | 1 << 1 | (128 * 1024) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

fn claims_are_not_believed() {
    let zstd_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x03, 0, 0];
    let zstd_content =
        [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1u64 << 40).to_le_bytes(), &[1, 0, 0]].concat();
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let mut lz4 = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73]; // blocks of 4 MB
    lz4.extend([3, 0, 0, 0, 0x10, b'x', 0, 0, 0, 0, 0]);
    let claims: [(Compression, &[u8]); 4] = [
        (Compression::Zstd, &zstd_window),
        (Compression::Zstd, &zstd_content),
        (Compression::Snappy, &snappy),
        (Compression::Lz4, &lz4),
    ];
    for (codec, packed) in claims {
        let (_, used) = unpack(codec, packed, 1 << 45);
        assert!(used < TABLES, "{codec}: {used} B for {} B", packed.len());
    }
}

fn mutations_stay_in_proportion() {
    let plain = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000),
        (any::<u8>(), 0usize..2000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let case = (prop::sample::select(PACKED.to_vec()), plain, flips);
    TestRunner::default()
        .run(&case, |(codec, plain, flips)| {
            let mut packed = pack(codec, &plain);
            for (at, value) in flips {
                let at = at.index(packed.len());
                packed[at] = value;
            }
            let (result, used) = unpack(codec, &packed, 100_000);
            prop_assert!(
                used < TABLES + 600_000,
                "{}: {} B for {} B, {:?}",
                codec,
                used,
                packed.len(),
                result
            );
            Ok(())
        })
        .unwrap();
}

fn a_batch_of_a_bomb_stops_at_the_limit() {
    let mut builder = BatchBuilder::new(BytesMut::new());
    builder.append(0, None, Some(&vec![0; 64 << 20]), NO_HEADERS);
    let sealed = builder.seal(Compression::Gzip, None).unwrap();
    let batch = RawBatch::parse(Bytes::from([&sealed.header(NO_PRODUCER)[..], sealed.records()].concat()));
    let batch = batch.unwrap();
    let region = Region::new(MEMORY);
    assert!(batch.validate_records(1_000_000).is_err());
    let used = region.change().bytes_allocated;
    assert!(used < TABLES + 6_000_000, "{used} B");
}
