//! gzip, by `flate2`.

use std::io::Write;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Compression, CompressionError, read_bounded};

pub(super) fn compress(level: Option<i32>, plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let level = match level.and_then(|level| u32::try_from(level).ok()) {
        Some(level) => flate2::Compression::new(level),
        None => flate2::Compression::default(),
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 2 + 64), level);
    encoder.write_all(plain).and_then(|()| encoder.finish()).map_err(|e| Compression::Gzip.malformed(e))
}

pub(super) fn decompress(packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    read_bounded(Compression::Gzip, MultiGzDecoder::new(packed), &mut out, limit_bytes)?;
    Ok(out)
}
