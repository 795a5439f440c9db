//! Snappy in the framing of the Xerial library: an eight-byte magic, two versions, then blocks,
//! each with its compressed length in front. Bare snappy, as some clients send it, is read too.

use super::{Compression, CompressionError};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const HEADER: usize = MAGIC.len() + VERSIONS.len();
/// Plain bytes in a block, as Java's writer cuts them.
const BLOCK: usize = 32 * 1024;

pub(super) fn compress(plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = Vec::with_capacity(HEADER + plain.len() / 2 + 64);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSIONS);
    for block in plain.chunks(BLOCK) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let (_, room) = out.split_at_mut(start + 4);
        let used = encoder.compress(block, room).map_err(|e| Compression::Snappy.malformed(e))?;
        out.truncate(start + 4 + used);
        if let Some(length) = out.get_mut(start..start + 4) {
            length.copy_from_slice(&(used as u32).to_be_bytes());
        }
    }
    Ok(out)
}

pub(super) fn decompress(packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    if !packed.starts_with(&MAGIC) {
        decompress_block(packed, &mut out, limit_bytes)?;
        return Ok(out);
    }
    let mut rest = packed;
    while !rest.is_empty() {
        // streams may follow one another, each with a header of its own
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER..).ok_or_else(|| Compression::Snappy.malformed("truncated header"))?;
            continue;
        }
        let (length, tail) =
            rest.split_first_chunk().ok_or_else(|| Compression::Snappy.malformed("truncated length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, tail) = tail
            .split_at_checked(length)
            .ok_or_else(|| Compression::Snappy.malformed("block longer than the data"))?;
        decompress_block(block, &mut out, limit_bytes)?;
        rest = tail;
    }
    Ok(out)
}

fn decompress_block(block: &[u8], out: &mut Vec<u8>, limit_bytes: usize) -> Result<(), CompressionError> {
    let malformed = |e: snap::Error| Compression::Snappy.malformed(e);
    let claimed = snap::raw::decompress_len(block).map_err(malformed)?;
    // the densest element copies 64 bytes and takes 3
    if claimed > block.len().saturating_mul(22) {
        return Err(Compression::Snappy.malformed("claims more than its bytes can hold"));
    }
    let held = out.len();
    if claimed > limit_bytes.saturating_sub(held) {
        return Err(Compression::Snappy.over(limit_bytes));
    }
    out.resize(held + claimed, 0);
    let (_, room) = out.split_at_mut(held);
    snap::raw::Decoder::new().decompress(block, room).map_err(malformed)?;
    Ok(())
}
