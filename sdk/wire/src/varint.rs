//! Variable-length integers: seven bits a byte, lowest first; the top bit says that more follow.
//!
//! Record batches use the zigzag form for signed numbers, flexible messages the unsigned form.
//! Readers take a cursor into a slice and answer `None` on truncation or overflow; a number padded
//! with needless bytes is accepted, as Java accepts it, as long as it stays within the longest form.

/// Longest form of a 32-bit number.
pub const MAX_LEN_32: usize = 5;
/// Longest form of a 64-bit number.
pub const MAX_LEN_64: usize = 10;

/// Maps signed numbers to unsigned ones so that small magnitudes stay short.
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes that [`put_unsigned`] writes for `value`.
#[inline]
pub const fn len_unsigned(value: u64) -> usize {
    // bits / 7 rounded up, and one byte for zero
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Bytes that [`put_signed`] writes for `value`.
#[inline]
pub const fn len_signed(value: i64) -> usize {
    len_unsigned(zigzag(value))
}

/// Writes `value` to the front of `out` and returns the bytes used; `None` if `out` is too short.
#[inline]
pub fn put_unsigned(out: &mut [u8], mut value: u64) -> Option<usize> {
    let mut used = 0;
    while value >= 0x80 {
        *out.get_mut(used)? = value as u8 | 0x80;
        value >>= 7;
        used += 1;
    }
    *out.get_mut(used)? = value as u8;
    Some(used + 1)
}

/// Writes the zigzag form of `value` to the front of `out`; see [`put_unsigned`].
#[inline]
pub fn put_signed(out: &mut [u8], value: i64) -> Option<usize> {
    put_unsigned(out, zigzag(value))
}

/// Reads an unsigned 32-bit number at `*at` and moves `*at` behind it.
#[inline]
pub fn read_u32(bytes: &[u8], at: &mut usize) -> Option<u32> {
    u32::try_from(read_bits(bytes, at, MAX_LEN_32)?).ok()
}

/// Reads an unsigned 64-bit number at `*at` and moves `*at` behind it.
#[inline]
pub fn read_u64(bytes: &[u8], at: &mut usize) -> Option<u64> {
    read_bits(bytes, at, MAX_LEN_64)
}

/// Reads a zigzag 32-bit number at `*at` and moves `*at` behind it.
#[inline]
pub fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    read_u32(bytes, at).map(|raw| unzigzag(u64::from(raw)) as i32)
}

/// Reads a zigzag 64-bit number at `*at` and moves `*at` behind it.
#[inline]
pub fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    read_u64(bytes, at).map(unzigzag)
}

#[inline]
fn read_bits(bytes: &[u8], at: &mut usize, max_len: usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(u64::from(first));
    }
    // Lengths of up to 8 KiB: most records have two of them.
    if let Some(&second) = bytes.get(*at + 1)
        && second < 0x80
    {
        *at += 2;
        return Some(u64::from(first & 0x7f) | u64::from(second) << 7);
    }
    read_long_form(bytes, at, max_len)
}

fn read_long_form(bytes: &[u8], at: &mut usize, max_len: usize) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.get(*at..)?.iter().take(max_len).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << (7 * index);
        if shifted >> (7 * index) != bits {
            return None;
        }
        value |= shifted;
        if byte < 0x80 {
            *at += index + 1;
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EDGES: [i64; 11] =
        [0, 1, -1, 63, 64, -64, -65, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN];

    #[test]
    fn edges_take_the_length_that_was_promised() {
        for value in EDGES {
            let mut out = [0; MAX_LEN_64];
            let used = put_signed(&mut out, value).unwrap();
            assert_eq!(used, len_signed(value), "{value}");
            let mut at = 0;
            assert_eq!(read_i64(&out, &mut at), Some(value));
            assert_eq!(at, used);
        }
        assert_eq!(len_signed(0), 1);
        assert_eq!(len_signed(i64::MIN), 10);
        assert_eq!(len_unsigned(u64::from(u32::MAX)), 5);
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        let five = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(read_u32(&five, &mut 0), Some(u32::MAX));
        assert_eq!(read_u32(&[0xff, 0xff, 0xff, 0xff, 0x1f], &mut 0), None, "bit 32");
        assert_eq!(read_u32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &mut 0), None, "six bytes");
        let mut ten = [0xff; 10];
        ten[9] = 0x01;
        assert_eq!(read_u64(&ten, &mut 0), Some(u64::MAX));
        ten[9] = 0x02;
        assert_eq!(read_u64(&ten, &mut 0), None, "bit 64");
        assert_eq!(read_u64(&[0x80; 11], &mut 0), None, "eleven bytes");
    }

    #[test]
    fn truncation_is_refused_and_padding_is_not() {
        assert_eq!(read_u32(&[], &mut 0), None);
        assert_eq!(read_u32(&[0x80], &mut 0), None);
        assert_eq!(read_u32(&[0x01], &mut 7), None, "cursor behind the end");
        assert_eq!(read_u32(&[0x81, 0x00], &mut 0), Some(1));
    }

    proptest! {
        #[test]
        fn every_number_survives(value: i64, small: i32, unsigned: u32) {
            let mut out = [0; MAX_LEN_64];
            put_signed(&mut out, value).unwrap();
            prop_assert_eq!(read_i64(&out, &mut 0), Some(value));
            put_signed(&mut out, i64::from(small)).unwrap();
            prop_assert_eq!(read_i32(&out, &mut 0), Some(small));
            put_unsigned(&mut out, u64::from(unsigned)).unwrap();
            prop_assert_eq!(read_u32(&out, &mut 0), Some(unsigned));
        }

        #[test]
        fn any_bytes_move_the_cursor_within_the_slice_or_not_at_all(
            bytes in prop::collection::vec(any::<u8>(), 0..12), start in 0usize..14,
        ) {
            let mut at = start;
            match read_i64(&bytes, &mut at) {
                Some(_) => prop_assert!(at > start && at <= bytes.len()),
                None => prop_assert_eq!(at, start),
            }
        }
    }
}
