//! Zstandard: decoded by `ruzstd`, encoded by the C library behind the feature `zstd`.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

use super::{Compression, CompressionError, read_bounded};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest block, hence the smallest window that a rewritten header may name.
const BLOCK: u64 = 128 * 1024;

#[cfg(feature = "zstd")]
pub(super) fn compress(level: Option<i32>, plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let level = level.unwrap_or(3);
    ::zstd::bulk::compress(plain, level).map_err(|e| Compression::Zstd.malformed(e))
}

#[cfg(not(feature = "zstd"))]
pub(super) fn compress(_: Option<i32>, _: &[u8]) -> Result<Vec<u8>, CompressionError> {
    Err(CompressionError::FeatureMissing { codec: Compression::Zstd, feature: "zstd" })
}

pub(super) fn decompress(packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    let mut rest = packed;
    loop {
        rest = decompress_frame(rest, &mut out, limit_bytes)?;
        if rest.is_empty() {
            return Ok(out);
        }
    }
}

/// Decodes the frame at the front of `packed` and returns what follows it.
fn decompress_frame<'a>(
    packed: &'a [u8],
    out: &mut Vec<u8>,
    limit_bytes: usize,
) -> Result<&'a [u8], CompressionError> {
    let frame = FrameHead::parse(packed)?;
    let held = out.len();
    if frame.content_size.is_some_and(|size| size > (limit_bytes - held.min(limit_bytes)) as u64) {
        return Err(Compression::Zstd.over(limit_bytes));
    }
    let mut rest = frame.blocks;
    // A decoder keeps a whole window before it hands out the first byte. As the output ends at the
    // limit, no match reaches farther back, and a window of that size reads the same frame.
    let head = frame.rewritten(limit_bytes as u64);
    let mut source = head.as_slice().chain(&mut rest);
    let mut decoder = StreamingDecoder::new_with_max_window_size(&mut source, u64::MAX)
        .map_err(|e| Compression::Zstd.malformed(e))?;
    read_bounded(Compression::Zstd, &mut decoder, out, limit_bytes)?;
    let frame_decoder = decoder.into_frame_decoder();
    if frame.content_size.is_some_and(|size| size != (out.len() - held) as u64) {
        return Err(Compression::Zstd.malformed("content size differs from what the frame claims"));
    }
    let stored = frame_decoder.get_checksum_from_data();
    if stored.is_some() && stored != frame_decoder.get_calculated_checksum() {
        return Err(Compression::Zstd.malformed("content checksum does not match"));
    }
    Ok(rest)
}

/// What stands before the blocks of a frame (RFC 8878, 3.1.1.1).
struct FrameHead<'a> {
    window: u64,
    content_size: Option<u64>,
    checksum: bool,
    blocks: &'a [u8],
}

impl<'a> FrameHead<'a> {
    fn parse(packed: &'a [u8]) -> Result<Self, CompressionError> {
        Self::parse_fields(packed).ok_or_else(|| Compression::Zstd.malformed("not a zstd frame"))
    }

    fn parse_fields(packed: &'a [u8]) -> Option<Self> {
        let rest = packed.strip_prefix(&MAGIC)?;
        let (&descriptor, mut rest) = rest.split_first()?;
        if descriptor & 0x08 != 0 {
            return None; // reserved
        }
        let single_segment = descriptor & 0x20 != 0;
        let mut window = None;
        if !single_segment {
            let (&byte, tail) = rest.split_first()?;
            let base = 1u64 << (10 + (byte >> 3));
            window = Some(base + base / 8 * u64::from(byte & 7));
            rest = tail;
        }
        let dictionary = take_le(&mut rest, [0, 1, 2, 4][usize::from(descriptor & 3)])?;
        if dictionary != 0 {
            return None; // Kafka knows no dictionaries
        }
        let size_len = match (descriptor >> 6, single_segment) {
            (0, false) => 0,
            (0, true) => 1,
            (1, _) => 2,
            (2, _) => 4,
            _ => 8,
        };
        let size = take_le(&mut rest, size_len)?;
        let content_size = match size_len {
            0 => None,
            2 => Some(size + 256),
            _ => Some(size),
        };
        let window = window.or(content_size)?;
        Some(Self { window, content_size, checksum: descriptor & 4 != 0, blocks: rest })
    }

    /// A header without claims: only a window, just large enough for `limit` bytes of output.
    fn rewritten(&self, limit: u64) -> [u8; 6] {
        let wanted = self.window.min(limit.max(BLOCK)).max(1024);
        // an exponent above 10 in five bits, rounded up to the next power of two
        let exponent = wanted.next_power_of_two().trailing_zeros().saturating_sub(10).min(31) as u8;
        let [a, b, c, d] = MAGIC;
        [a, b, c, d, if self.checksum { 4 } else { 0 }, exponent << 3]
    }
}

fn take_le(rest: &mut &[u8], len: usize) -> Option<u64> {
    let (field, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the decoder keeps a window, so the window it is told of bounds its memory.
    #[test]
    fn the_window_shown_to_the_decoder_is_bounded_by_the_limit() {
        for (descriptor, limit, exponent) in [
            (27 << 3, 1_000_000, 10),    // claims 2^37, gets 2^20
            (27 << 3, 10, 7),            // never less than a block
            (27 << 3 | 1, u64::MAX, 28), // the claim, rounded up
            (2 << 3, 1_000_000, 2),      // claims less: kept
        ] {
            let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x04, descriptor];
            let head = FrameHead::parse(&frame).unwrap().rewritten(limit);
            assert_eq!(head, [0x28, 0xb5, 0x2f, 0xfd, 0x04, exponent << 3]);
        }
    }
}
