//! Names of the files in the directory of a partition, as Kafka gives them.

/// `leader-epoch-checkpoint`.
pub const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// `partition.metadata`.
pub const PARTITION_METADATA: &str = "partition.metadata";

pub(super) const LOG: &str = "log";
pub(super) const INDEX: &str = "index";
pub(super) const TIME_INDEX: &str = "timeindex";
pub(super) const SNAPSHOT: &str = "snapshot";
/// Files that a segment may have.
pub(super) const OF_SEGMENT: [&str; 4] = [LOG, INDEX, TIME_INDEX, "txnindex"];
/// What a segment's files are called until `file.delete.delay.ms` is over.
pub(super) const DELETED: &str = "deleted";
/// A segment that is being cleaned, and one that is about to take the place of those it came from.
pub(super) const CLEANED: &str = "cleaned";
pub(super) const SWAP: &str = "swap";

/// `00000000000000000042.log` for offset 42.
pub(super) fn of_offset(offset: i64, extension: &str) -> String {
    format!("{offset:020}.{extension}")
}

/// The offset in a name with this extension.
pub(super) fn offset_in(name: &str, extension: &str) -> Option<i64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// The offset in the name of a segment: the first one it may hold.
pub(super) fn segment_offset(name: &str) -> Option<i64> {
    offset_in(name, LOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_kafkas() {
        assert_eq!(of_offset(42, LOG), "00000000000000000042.log");
        assert_eq!(segment_offset("00000000000000000042.log"), Some(42));
        for other in
            ["42.log", "00000000000000000042.index", "0000000000000000004x.log", "+0000000000000000042.log"]
        {
            assert_eq!(segment_offset(other), None, "{other}");
        }
    }
}
