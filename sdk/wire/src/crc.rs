//! CRC-32C (Castagnoli), the checksum of record batches; and zlib's CRC-32, by which librdkafka places keys.

use crc_fast::CrcAlgorithm::{Crc32Iscsi, Crc32IsoHdlc};

/// Checksum of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, bytes) as u32
}

/// Checksum of `first` followed by `rest`.
#[inline]
pub fn crc32c_of_two(first: &[u8], rest: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(Crc32Iscsi);
    digest.update(first);
    digest.update(rest);
    digest.finalize() as u32
}

/// zlib's checksum of `bytes` (ISO-HDLC), not that of record batches.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32IsoHdlc, bytes) as u32
}

/// A checksum in the making, small enough to be kept with every open batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc32c(u64);

impl Default for Crc32c {
    fn default() -> Self {
        Self(crc_fast::Digest::new(Crc32Iscsi).get_state())
    }
}

impl Crc32c {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let mut digest = crc_fast::Digest::new_with_init_state(Crc32Iscsi, self.0);
        digest.update(bytes);
        self.0 = digest.get_state();
    }

    pub(crate) fn value(self) -> u32 {
        crc_fast::Digest::new_with_init_state(Crc32Iscsi, self.0).finalize() as u32
    }
}

/// Checksum of two pieces by their checksums and the length of the second one.
///
/// Zero bytes after a piece multiply its checksum by a power of x, so a third of a microsecond is enough for any
/// length; crc-fast's own way takes fifty.
pub(crate) fn crc32c_of_both(first: u32, rest: u32, rest_bytes: usize) -> u32 {
    let mut shifted = first;
    let mut bits = rest_bytes;
    for power in &POWERS[3..] {
        if bits == 0 {
            break;
        }
        if bits & 1 == 1 {
            shifted = times(*power, shifted);
        }
        bits >>= 1;
    }
    shifted ^ rest
}

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x to the power of 1, 2, 4, 8, …: enough for the bits of any slice.
const POWERS: [u32; 64] = {
    let mut powers = [1 << 30; 64];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = times(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

/// The product of two polynomials over GF(2), modulo [`POLYNOMIAL`].
const fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1_u32 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_answers_hold() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43, "RFC 3720, B.4");
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32/ISO-HDLC");
    }

    proptest! {
        #[test]
        fn two_pieces_give_the_checksum_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..3000), cut in 0usize..3000,
        ) {
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            let mut sum = Crc32c::default();
            sum.update(first);
            prop_assert_eq!(sum.value(), crc32c(first));
            sum.update(rest);
            prop_assert_eq!(sum.value(), crc32c(&bytes));
            prop_assert_eq!(crc32c_of_two(first, rest), crc32c(&bytes));
            prop_assert_eq!(crc32c_of_both(crc32c(first), crc32c(rest), rest.len()), crc32c(&bytes));
        }
    }

    #[test]
    fn long_pieces_are_joined_as_well() {
        for length in [1 << 16, (1 << 20) + 1, 20_000_003] {
            let whole: Vec<u8> = (0..length).map(|at: u32| ((at * 31) >> 3) as u8).collect();
            let (first, rest) = whole.split_at(40);
            assert_eq!(crc32c_of_both(crc32c(first), crc32c(rest), rest.len()), crc32c(&whole));
        }
    }
}
