//! When racks matter (KIP-881).

use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether partitions should be matched with members in the same rack: some rack has members and replicas, and not every
/// partition has a replica in every rack, or else any assignment would do.
pub(super) fn matter<'a>(
    members: &BTreeSet<&'a str>,
    partitions: impl Iterator<Item = &'a BTreeSet<Arc<str>>> + Clone,
) -> bool {
    let all: BTreeSet<&str> = partitions.clone().flatten().map(AsRef::as_ref).collect();
    !members.is_disjoint(&all) && partitions.into_iter().any(|racks| racks.len() != all.len())
}
