//! What the coordinator reads of the consumer protocol: the topics that a member subscribes to.

use std::collections::BTreeSet;

use super::coding::Reader;

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// The topics in a subscription, `None` if it is not one. What later versions add stands behind them.
pub(super) fn topics(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = reader.i32().ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..u32::try_from(count).ok()? {
        topics.insert(reader.string().ok()?);
    }
    reader.nullable_bytes().ok()?;
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_what_is_cut_off_is_none() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        bytes.extend_from_slice(b"\0\x01a\0\x02bc");
        bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        // of version 1: owned partitions
        bytes.extend_from_slice(&[0, 0, 0, 0]);
        assert_eq!(topics(&bytes), Some(BTreeSet::from(["a".to_owned(), "bc".to_owned()])));
        for length in 0..bytes.len() - 4 {
            assert_eq!(topics(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(topics(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None, "a null list");
    }
}
