//! The four codecs of record batches.

/// Codec of a record batch (attributes, bits 0 to 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy in the Xerial framing that Java reads.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard; encoding needs the feature `zstd`.
    Zstd,
}
