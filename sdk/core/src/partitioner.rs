//! Which partition a record goes to.
//!
//! With a key: Kafka's murmur2, so that Java and this client agree. Without: one partition until it has had
//! `batch.size` bytes, then another (KIP-480, KIP-794), so that batches fill up and bytes spread evenly.

/// Kafka's hash of a serialized key.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Java's length is an i32 and wraps the same way.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a record with this serialized key; `partitions` must not be 0.
pub fn for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Bytes that records without a key have brought to the current partition of a topic.
///
/// The partition is left only when it needs a new batch, so that no batch is cut short by moving on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sticky {
    produced: usize,
}

impl Sticky {
    /// Counts a record that was appended.
    pub fn appended(&mut self, bytes: usize) {
        self.produced += bytes;
    }

    /// Whether to move on, asked when a record of `bytes` needs a new batch; a yes starts the count again.
    pub fn leaves(&mut self, bytes: usize, batch_size: usize) -> bool {
        let leaves = self.produced > 0 && self.produced + bytes > batch_size;
        if leaves {
            self.produced = 0;
        }
        leaves
    }
}

/// Draws the next partition for records without a key: one of those with a leader, or of all if none has one.
///
/// Never `current` again while there is another choice.
pub fn draw(current: Option<u32>, led: &[u32], partitions: u32, rng: &mut fastrand::Rng) -> u32 {
    let others = led.iter().filter(|p| Some(**p) != current).count();
    if others > 0 {
        let pick = rng.usize(..others);
        if let Some(p) = led.iter().filter(|p| Some(**p) != current).nth(pick) {
            return *p;
        }
    }
    match (led.first(), current) {
        (Some(only), _) => *only,
        (None, Some(current)) if partitions > 1 => {
            let other = rng.u32(..partitions - 1);
            other + u32::from(other >= current)
        }
        (None, _) => rng.u32(..partitions.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the same partition as Java's `Utils.murmur2` (values printed by Apache Kafka's own class).
    #[test]
    fn murmur2_equals_javas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        assert_eq!(for_key(b"foobar", 6), ((-790_332_482_i32 & 0x7fff_ffff) % 6) as u32);
    }

    #[test]
    fn a_partition_is_left_after_batch_size_bytes_and_not_before() {
        let mut sticky = Sticky::default();
        assert!(!sticky.leaves(2000, 1000), "a first record that is too large for a batch stays");
        sticky.appended(600);
        assert!(!sticky.leaves(400, 1000));
        assert!(sticky.leaves(401, 1000));
        assert!(!sticky.leaves(401, 1000), "the count starts again");
    }

    #[test]
    fn the_next_partition_is_another_one_with_a_leader() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut seen = [0; 6];
        for _ in 0..600 {
            seen[draw(Some(2), &[1, 2, 5], 6, &mut rng) as usize] += 1;
        }
        assert_eq!((seen[0], seen[2], seen[3], seen[4]), (0, 0, 0, 0));
        assert!(seen[1] > 200 && seen[5] > 200, "{seen:?}");
        assert_eq!(draw(Some(2), &[2], 6, &mut rng), 2, "the only one with a leader");
        for _ in 0..100 {
            let p = draw(Some(2), &[], 6, &mut rng);
            assert!(p < 6 && p != 2);
        }
        assert_eq!(draw(Some(0), &[], 1, &mut rng), 0);
    }
}
