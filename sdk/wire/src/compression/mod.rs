//! The codecs of record batches.
//!
//! In: the records section of a batch. Out: the same, compressed or plain.
//! The work is done by `flate2`, `snap`, `lz4_flex`, `ruzstd` and, behind the feature `zstd`, `zstd`;
//! here are the framings that Java expects around them, the levels, and the bounds.
//!
//! Invariant: decompression never allocates more than its limit plus one block, nor much more than
//! the compressed bytes could expand to, whatever sizes the bytes claim.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::fmt;
use std::io::Read;
use std::str::FromStr;

/// Codec of a record batch (attributes, bits 0 to 2; `compression.type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy in the Xerial framing that Java reads.
    Snappy,
    /// LZ4 frames with independent blocks.
    Lz4,
    /// Zstandard; encoding needs the feature `zstd`.
    Zstd,
}

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// The codec encodes only with a cargo feature that is off in this build.
    #[error("{codec} encoding needs the cargo feature `{feature}` of klamm-wire")]
    FeatureMissing {
        /// Codec asked for.
        codec: Compression,
        /// Feature to turn on.
        feature: &'static str,
    },
    /// The codec has no such level.
    #[error("{codec} has no level {level}: {allowed}")]
    Level {
        /// Codec asked for.
        codec: Compression,
        /// Level asked for.
        level: i32,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// The plain bytes exceed the limit given by the caller.
    #[error("{codec} data expands beyond the limit of {limit_bytes} B")]
    Limit {
        /// Codec of the data.
        codec: Compression,
        /// Limit in force.
        limit_bytes: usize,
    },
    /// The bytes are not of this codec's format.
    #[error("malformed {codec} data: {reason}")]
    Malformed {
        /// Codec of the data.
        codec: Compression,
        /// What was wrong.
        reason: String,
    },
    /// The records are longer than a batch's 32-bit length can tell.
    #[error("records of {size_bytes} B do not fit into one batch")]
    TooLarge {
        /// Length of the records section.
        size_bytes: usize,
    },
}

/// A name that is no codec's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(pub String);

impl Compression {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Number of the codec in a batch's attributes.
    pub const fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Codec in bits 0 to 2 of a batch's attributes; `None` for 5 to 7.
    pub const fn from_attributes(attributes: i16) -> Option<Self> {
        match attributes & 0x07 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Name as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Checks whether this build can encode with this codec at `level`, so that a producer can
    /// refuse the setting before the first record. `None` is the codec's own default.
    ///
    /// # Errors
    ///
    /// [`CompressionError::Level`] or [`CompressionError::FeatureMissing`].
    pub fn check_level(self, level: Option<i32>) -> Result<(), CompressionError> {
        if self == Self::Zstd && !cfg!(feature = "zstd") {
            return Err(CompressionError::FeatureMissing { codec: self, feature: "zstd" });
        }
        let Some(level) = level else { return Ok(()) };
        let (possible, allowed) = match self {
            Self::Gzip => (level == -1 || (1..=9).contains(&level), "1 to 9, or -1 for the default"),
            Self::Zstd => ((-131_072..=22).contains(&level), "-131072 to 22"),
            Self::Lz4 => (
                level == 9,
                "9, which is Kafka's default and its fast encoder; the one here is as fast and no other",
            ),
            Self::None | Self::Snappy => (false, "this codec has no levels, leave it unset"),
        };
        if possible { Ok(()) } else { Err(CompressionError::Level { codec: self, level, allowed }) }
    }

    /// Compresses `plain` at `level`, or at the codec's default.
    ///
    /// # Errors
    ///
    /// As [`Self::check_level`].
    pub fn compress(self, level: Option<i32>, plain: &[u8]) -> Result<Vec<u8>, CompressionError> {
        self.check_level(level)?;
        match self {
            Self::None => Ok(plain.to_vec()),
            Self::Gzip => gzip::compress(level, plain),
            Self::Snappy => snappy::compress(plain),
            Self::Lz4 => lz4::compress(plain),
            Self::Zstd => zstd::compress(level, plain),
        }
    }

    /// Decompresses `packed` into at most `limit_bytes`.
    ///
    /// # Errors
    ///
    /// [`CompressionError::Limit`] if there is more, [`CompressionError::Malformed`] if it is something else.
    pub fn decompress(self, packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
        match self {
            Self::None if packed.len() > limit_bytes => Err(self.over(limit_bytes)),
            Self::None => Ok(packed.to_vec()),
            Self::Gzip => gzip::decompress(packed, limit_bytes),
            Self::Snappy => snappy::decompress(packed, limit_bytes),
            Self::Lz4 => lz4::decompress(packed, limit_bytes),
            Self::Zstd => zstd::decompress(packed, limit_bytes),
        }
    }

    fn malformed(self, reason: impl fmt::Display) -> CompressionError {
        CompressionError::Malformed { codec: self, reason: reason.to_string() }
    }

    fn over(self, limit_bytes: usize) -> CompressionError {
        CompressionError::Limit { codec: self, limit_bytes }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|c| c.name() == name).ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Reads `source` to its end behind what `out` holds, growing `out` with what came and never beyond the limit.
fn read_bounded(
    codec: Compression,
    mut source: impl Read,
    out: &mut Vec<u8>,
    limit_bytes: usize,
) -> Result<(), CompressionError> {
    const FIRST: usize = 4096;
    loop {
        let held = out.len();
        let step = held.clamp(FIRST, 1 << 20).min(limit_bytes - held.min(limit_bytes));
        if step == 0 {
            let more = source.read(&mut [0]).map_err(|e| codec.malformed(e))?;
            return if more == 0 { Ok(()) } else { Err(codec.over(limit_bytes)) };
        }
        out.reserve_exact(step);
        let came = (&mut source).take(step as u64).read_to_end(out).map_err(|e| codec.malformed(e))?;
        if came < step {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
