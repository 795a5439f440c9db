//! Which partition of `__consumer_offsets` a group belongs to.

/// The partition of a group among `partitions`, as every client and tool of Kafka expects it: Java's hash of the id, which
/// counts UTF-16 units.
pub fn partition_of(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit as i16) & 0xffff));
    // the one number without an absolute value counts as 0
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers that `"...".hashCode()` gives in Java.
    #[test]
    fn a_group_is_placed_by_javas_hash_of_its_utf_16_units() {
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("a", 50), 97 % 50);
        assert_eq!(partition_of("hello", i32::MAX), 99_162_322);
        // its hash is i32::MIN
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        // two surrogates, 0xd83d and 0xde00, make 0xd83d * 31 + 0xde00
        assert_eq!(partition_of("\u{1f600}", i32::MAX), 0xd83d * 31 + 0xde00);
        // "console-consumer" overflows into the negative numbers on the way
        assert!((0..50).contains(&partition_of("console-consumer-12345", 50)));
    }
}
