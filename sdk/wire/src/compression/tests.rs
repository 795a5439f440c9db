use std::io::Read;

use flate2::bufread::GzDecoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

/// Codecs that this build encodes; zstd too, by the encoder that comes with the decoder.
fn pack(codec: Compression, plain: &[u8]) -> Vec<u8> {
    if codec == Compression::Zstd && !cfg!(feature = "zstd") {
        return ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest);
    }
    codec.compress(None, plain).unwrap()
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..max),
        // long runs, so that back references occur
        (prop::collection::vec(any::<u8>(), 1..40), 0..max / 8).prop_map(|(unit, times)| unit
            .iter()
            .copied()
            .cycle()
            .take(times * 8)
            .collect()),
    ]
}

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

#[test]
fn every_codec_keeps_empty_small_and_large_input() {
    let large: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).take(500_000).collect();
    for codec in Compression::ALL {
        for plain in [&[][..], b"x", &large] {
            let packed = pack(codec, plain);
            assert_eq!(codec.decompress(&packed, LIMIT).unwrap(), plain, "{codec}, {} B", plain.len());
        }
    }
}

#[test]
fn others_read_what_we_write() {
    let plain: Vec<u8> = (0..200_000u32).map(|n| (n / 100) as u8).collect();
    let mut out = Vec::new();
    let gzip = Compression::Gzip.compress(Some(9), &plain).unwrap();
    GzDecoder::new(&gzip[..]).read_to_end(&mut out).unwrap();
    assert!(out == plain, "gzip");

    out.clear();
    let lz4 = Compression::Lz4.compress(None, &plain).unwrap();
    FrameDecoder::new(&lz4[..]).read_to_end(&mut out).unwrap();
    assert!(out == plain, "lz4");
    assert_eq!(lz4[4] & 0x20, 0x20, "Java reads independent blocks only");

    out.clear();
    let snappy = Compression::Snappy.compress(None, &plain).unwrap();
    assert_eq!(snappy[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut rest = &snappy[16..];
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (block, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        out.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
        rest = tail;
    }
    assert!(out == plain, "snappy");
}

#[test]
fn lz4_frames_of_every_make_are_read() {
    let plain: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(n) / 5000) as u8).collect();
    for mode in [BlockMode::Independent, BlockMode::Linked] {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            for checksums in [false, true] {
                let mut info = FrameInfo::new().block_mode(mode).block_size(size);
                info = info.block_checksums(checksums).content_checksum(checksums);
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                std::io::Write::write_all(&mut encoder, &plain).unwrap();
                let mut frame = encoder.finish().unwrap();
                assert!(Compression::Lz4.decompress(&frame, LIMIT).unwrap() == plain, "{mode:?} {size:?}");

                let last = frame.len() - 1;
                frame[last] ^= 1;
                assert!(Compression::Lz4.decompress(&frame, LIMIT).is_err(), "end mark or checksum");
            }
        }
    }
}

#[test]
fn frames_that_follow_one_another_are_read_as_one() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let two = [pack(codec, b"first "), pack(codec, b"second")].concat();
        assert_eq!(codec.decompress(&two, LIMIT).unwrap(), b"first second", "{codec}");
        assert!(codec.decompress(&two, 11).is_err(), "{codec}: the limit holds for both together");
    }
}

#[test]
fn bare_snappy_is_read() {
    let bare = snap::raw::Encoder::new().compress_vec(b"no framing at all").unwrap();
    assert_eq!(Compression::Snappy.decompress(&bare, LIMIT).unwrap(), b"no framing at all");
}

/// Goal: the error comes before the memory does.
#[test]
fn a_bomb_is_refused_at_the_limit() {
    let plain = vec![0; 64 << 20];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let bomb = pack(codec, &plain);
        let error = codec.decompress(&bomb, 100_000).unwrap_err();
        assert_eq!(error, CompressionError::Limit { codec, limit_bytes: 100_000 });
        assert!(error.to_string().contains("100000 B"), "{error}");
    }
}

#[test]
fn output_of_just_the_limit_is_no_error() {
    let plain = vec![7; 100_000];
    for codec in Compression::ALL {
        let packed = pack(codec, &plain);
        assert!(codec.decompress(&packed, 100_000).unwrap() == plain, "{codec}");
        assert!(matches!(codec.decompress(&packed, 99_999), Err(CompressionError::Limit { .. })), "{codec}");
    }
}

#[test]
fn memory_grows_with_what_came_and_not_with_the_claim() {
    let mut out = Vec::new();
    read_bounded(Compression::Gzip, &[1; 5000][..], &mut out, usize::MAX).unwrap();
    assert!(out.len() == 5000 && out.capacity() <= 3 * 4096, "{}", out.capacity());

    // a snappy block that claims 4 GB, an LZ4 block that claims 2 GB, a zstd frame that claims 2^60 B
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let error = Compression::Snappy.decompress(&snappy, usize::MAX).unwrap_err().to_string();
    assert!(error.contains("claims more than its bytes can hold"), "{error}");
    let mut lz4 = Compression::Lz4.compress(None, b"").unwrap();
    lz4.truncate(7);
    lz4.extend([0xff, 0xff, 0xff, 0x7f, 0]);
    let error = Compression::Lz4.decompress(&lz4, usize::MAX).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1u64 << 60).to_le_bytes(), &[1, 0, 0]].concat();
    assert!(matches!(Compression::Zstd.decompress(&zstd, LIMIT), Err(CompressionError::Limit { .. })));
}

/// Goal: an honest peer may use a large window for a small batch; no memory is set aside for it.
#[test]
fn zstd_with_a_window_above_the_limit_is_read() {
    let plain = vec![5; 3000];
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3]; // window 2^27, no content size
    frame.extend([(1 | 1 << 1 | (3000 << 3)) as u8, (3000 >> 5) as u8, (3000 >> 13) as u8, 5]); // one RLE block
    assert!(Compression::Zstd.decompress(&frame, 3000).unwrap() == plain);
    assert!(Compression::Zstd.decompress(&frame, 2999).is_err());
}

#[test]
fn levels_are_checked_by_codec() {
    use Compression::{Gzip, Lz4, None as Plain, Snappy, Zstd};
    for (codec, level) in [(Gzip, -1), (Gzip, 1), (Gzip, 9), (Lz4, 9)] {
        assert_eq!(codec.check_level(Some(level)), Ok(()));
        assert_eq!(codec.decompress(&codec.compress(Some(level), b"abc").unwrap(), 9).unwrap(), b"abc");
    }
    for (codec, level) in [(Gzip, -2), (Gzip, 0), (Gzip, 10), (Lz4, 1), (Lz4, 17), (Snappy, 1), (Plain, 0)] {
        let error = codec.check_level(Some(level)).unwrap_err().to_string();
        assert!(error.contains(codec.name()) && error.contains(&level.to_string()), "{error}");
    }
    if cfg!(feature = "zstd") {
        assert_eq!(Zstd.check_level(Some(22)), Ok(()));
        assert_eq!(Zstd.check_level(Some(-131_072)), Ok(()));
        assert!(Zstd.check_level(Some(23)).is_err());
        assert_eq!(Zstd.decompress(&Zstd.compress(Some(19), b"abc").unwrap(), 9).unwrap(), b"abc");
    } else {
        let error = Zstd.check_level(None).unwrap_err().to_string();
        assert_eq!(error, "zstd encoding needs the cargo feature `zstd` of klamm-wire");
        assert!(Zstd.compress(None, b"abc").is_err());
    }
}

#[test]
fn names_and_numbers_are_kafkas() {
    for (id, codec) in (0i16..).zip(Compression::ALL) {
        assert_eq!(codec.id(), id);
        assert_eq!(Compression::from_attributes(id | !7), Some(codec), "only three bits count");
        assert_eq!(codec.name().parse(), Ok(codec));
    }
    assert_eq!(Compression::from_attributes(5), None);
    assert!("brotli".parse::<Compression>().unwrap_err().to_string().contains("brotli"));
}

proptest! {
    #[test]
    fn every_codec_keeps_any_input(codec in codec(), plain in bytes(20_000)) {
        let packed = pack(codec, &plain);
        prop_assert_eq!(codec.decompress(&packed, plain.len()).unwrap(), plain);
    }

    #[test]
    fn random_bytes_never_panic(codec in codec(), packed in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(plain) = codec.decompress(&packed, 1000) {
            prop_assert!(plain.len() <= 1000);
        }
    }

    /// Mutations of valid data get past the magic numbers that random bytes never hit.
    #[test]
    fn mutated_data_never_panics_and_keeps_the_limit(
        codec in codec(), plain in bytes(3000), cut in 0usize..4000,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut packed = pack(codec, &plain);
        for (at, value) in flips {
            if !packed.is_empty() {
                let at = at.index(packed.len());
                packed[at] = value;
            }
        }
        packed.truncate(cut.max(packed.len() / 2));
        if let Ok(plain) = codec.decompress(&packed, 5000) {
            prop_assert!(plain.len() <= 5000);
        }
    }
}
