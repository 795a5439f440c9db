//! The order in which Java iterates over its hash maps and sets.
//!
//! It is a function of the keys and of the order of insertion: buckets by the spread hash code, within a bucket as
//! inserted, since growing keeps the order. (A bucket of eight and more becomes a tree; with at most three entries for
//! four buckets that does not happen to member ids.)

use crate::TopicPartition;

/// `String.hashCode`.
pub(super) fn hash_code(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// `TopicPartition.hashCode`.
pub(super) fn partition_hash_code(partition: &TopicPartition) -> i32 {
    let number = 31i32.wrapping_add(partition.partition);
    number.wrapping_mul(31).wrapping_add(hash_code(&partition.topic))
}

/// Buckets of a map that has grown to `len` entries one by one.
fn buckets(len: usize) -> usize {
    let mut buckets = 16;
    while len > buckets / 4 * 3 {
        buckets *= 2;
    }
    buckets
}

fn bucket(hash: i32, buckets: usize) -> usize {
    let hash = hash as u32;
    (hash ^ (hash >> 16)) as usize & (buckets - 1)
}

/// Sorts keys, which come in the order of insertion, as a `HashMap` iterates over them.
pub(super) fn sort_as_hash_map<T>(keys: &mut [T], text: impl Fn(&T) -> &str) {
    let buckets = buckets(keys.len());
    keys.sort_by_key(|key| bucket(hash_code(text(key)), buckets));
}

/// A `HashSet` as far as its first element is concerned: it never shrinks.
pub(super) struct HashSetOrder<T> {
    inserted: Vec<(i32, T)>,
    most: usize,
}

impl<T> Default for HashSetOrder<T> {
    fn default() -> Self {
        Self { inserted: Vec::new(), most: 0 }
    }
}

impl<T: PartialEq> HashSetOrder<T> {
    pub(super) fn insert(&mut self, hash: i32, element: T) {
        if !self.inserted.iter().any(|(_, known)| *known == element) {
            self.inserted.push((hash, element));
            self.most = self.most.max(self.inserted.len());
        }
    }

    pub(super) fn remove(&mut self, element: &T) {
        self.inserted.retain(|(_, known)| known != element);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inserted.is_empty()
    }

    pub(super) fn first(&self) -> Option<&T> {
        let buckets = buckets(self.most);
        let first = self.inserted.iter().min_by_key(|(hash, _)| bucket(*hash, buckets));
        first.map(|(_, element)| element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_codes_are_javas() {
        assert_eq!(hash_code(""), 0);
        assert_eq!(hash_code("orders"), -1_008_770_331);
        assert_eq!(hash_code("\u{1f600}"), 1_772_899);
        assert_eq!(partition_hash_code(&TopicPartition::new("a", 0)), 31 * 31 + 97);
    }

    #[test]
    fn a_set_never_shrinks_and_its_first_element_is_the_one_in_the_lowest_bucket() {
        let mut set = HashSetOrder::default();
        set.insert(33, "x");
        set.insert(16, "y");
        assert_eq!(set.first(), Some(&"y"), "33 and 16 are in buckets 1 and 0 of 16");
        for filler in 0..12 {
            set.insert(32 + 40 * filler, if filler % 2 == 0 { "p" } else { "q" });
        }
        assert_eq!(set.first(), Some(&"y"), "elements count once");
        set.remove(&"y");
        assert_eq!(set.first(), Some(&"p"));
    }
}
