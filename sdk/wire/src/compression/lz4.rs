//! LZ4 frames: encoded by `lz4_flex`, decoded block by block with its block decoder.
//!
//! The frame layer is read here, because `lz4_flex`'s own reader sizes and clears its buffers by the
//! block size that a frame claims (4 MB), which a batch of a few bytes does not justify.
//!
//! ```text
//! magic 4 │ flags 1 │ block size 1 │ content size 0/8 │ dictionary id 0/4 │ header check 1
//! { length 4 (top bit: stored) │ block │ checksum 0/4 }… │ end mark 4 │ checksum 0/4
//! ```

use std::io::Write;

use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{Compression, CompressionError};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const STORED: u32 = 1 << 31;
/// How far a linked block may reach back.
const WINDOW: usize = 64 * 1024;

pub(super) fn compress(plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(plain.len() / 2 + 64));
    encoder.write_all(plain).map_err(|e| Compression::Lz4.malformed(e))?;
    encoder.finish().map_err(|e| Compression::Lz4.malformed(e))
}

pub(super) fn decompress(packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    let mut rest = packed;
    loop {
        decompress_frame(&mut rest, &mut out, limit_bytes)?;
        if rest.is_empty() {
            return Ok(out);
        }
    }
}

struct FrameHead {
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_max: usize,
}

fn decompress_frame(rest: &mut &[u8], out: &mut Vec<u8>, limit_bytes: usize) -> Result<(), CompressionError> {
    let head = parse_head(rest)?;
    let start = out.len();
    loop {
        let word = take_u32(rest)?;
        if word == 0 {
            break;
        }
        let block = take(rest, (word & !STORED) as usize)?;
        if block.len() > head.block_max {
            return Err(Compression::Lz4.malformed("block longer than the frame allows"));
        }
        if head.block_checksums && take_u32(rest)? != XxHash32::oneshot(0, block) {
            return Err(Compression::Lz4.malformed("block checksum does not match"));
        }
        if word & STORED != 0 {
            if block.len() > limit_bytes.saturating_sub(out.len()) {
                return Err(Compression::Lz4.over(limit_bytes));
            }
            out.extend_from_slice(block);
        } else {
            decompress_block(&head, block, start, out, limit_bytes)?;
        }
    }
    let content = out.get(start..).unwrap_or_default();
    if head.content_size.is_some_and(|size| size != content.len() as u64) {
        return Err(Compression::Lz4.malformed("content size differs from what the frame claims"));
    }
    if head.content_checksum && take_u32(rest)? != XxHash32::oneshot(0, content) {
        return Err(Compression::Lz4.malformed("content checksum does not match"));
    }
    Ok(())
}

fn decompress_block(
    head: &FrameHead,
    block: &[u8],
    frame_start: usize,
    out: &mut Vec<u8>,
    limit_bytes: usize,
) -> Result<(), CompressionError> {
    let held = out.len();
    let allowed = limit_bytes.saturating_sub(held);
    // no byte of LZ4 stands for more than 255
    let room = head.block_max.min(block.len().saturating_mul(255)).min(allowed);
    out.resize(held + room, 0);
    let (before, target) = out.split_at_mut(held);
    let result = if head.linked {
        let dictionary = before.get(frame_start.max(held.saturating_sub(WINDOW))..).unwrap_or_default();
        decompress_into_with_dict(block, target, dictionary)
    } else {
        decompress_into(block, target)
    };
    match result {
        Ok(written) => {
            out.truncate(held + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room == allowed => {
            Err(Compression::Lz4.over(limit_bytes))
        }
        Err(error) => Err(Compression::Lz4.malformed(error)),
    }
}

fn parse_head(rest: &mut &[u8]) -> Result<FrameHead, CompressionError> {
    if take(rest, MAGIC.len())? != MAGIC {
        return Err(Compression::Lz4.malformed("not an LZ4 frame"));
    }
    let descriptor = *rest;
    let flags = take_u8(rest)?;
    let block_size = take_u8(rest)?;
    if flags & 0xc2 != 0x40 || block_size & 0x8f != 0 {
        return Err(Compression::Lz4.malformed("unknown version or reserved bits"));
    }
    let block_max = match block_size >> 4 {
        exponent @ 4..=7 => 1 << (8 + 2 * exponent),
        _ => return Err(Compression::Lz4.malformed("unknown block size")),
    };
    let mut content_size = None;
    if flags & 0x08 != 0 {
        let low = take_u32(rest)?;
        let high = take_u32(rest)?;
        content_size = Some(u64::from(high) << 32 | u64::from(low));
    }
    if flags & 0x01 != 0 {
        return Err(Compression::Lz4.malformed("needs a dictionary"));
    }
    let described = descriptor.get(..descriptor.len() - rest.len()).unwrap_or_default();
    if take_u8(rest)? != (XxHash32::oneshot(0, described) >> 8) as u8 {
        return Err(Compression::Lz4.malformed("header checksum does not match"));
    }
    Ok(FrameHead {
        linked: flags & 0x20 == 0,
        block_checksums: flags & 0x10 != 0,
        content_checksum: flags & 0x04 != 0,
        content_size,
        block_max,
    })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], CompressionError> {
    let (taken, tail) = rest.split_at_checked(len).ok_or_else(|| Compression::Lz4.malformed("truncated"))?;
    *rest = tail;
    Ok(taken)
}

fn take_u8(rest: &mut &[u8]) -> Result<u8, CompressionError> {
    Ok(take(rest, 1)?.first().copied().unwrap_or_default())
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, CompressionError> {
    let bytes = take(rest, 4)?.first_chunk().copied().unwrap_or_default();
    Ok(u32::from_le_bytes(bytes))
}
