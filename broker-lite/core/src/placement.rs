//! Where the replicas of a new topic go.
//!
//! In: the brokers with their racks. Out: a list of replicas per partition, the preferred leader first.
//!
//! Brokers are put into one ring in which the racks alternate. Partition after partition starts one place
//! further, so leaders spread evenly; followers are taken from the ring behind the leader, skipping one
//! place more with every turn of the ring, so that a dead leader's partitions do not all fall to one broker.
//! A rack gets a second replica only when every rack has one; a fenced broker only when no other is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A broker that may get replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Broker id.
    pub id: i32,
    /// Its rack; brokers without one count as a rack of their own.
    pub rack: Option<&'a str>,
    /// Whether it is down at the moment, or about to be.
    pub fenced: bool,
}

/// Why replicas cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A broker holds at most one replica of a partition.
    #[error("replication factor {wanted} is larger than the number of registered brokers, {have}")]
    TooFewBrokers {
        /// Replicas asked for.
        wanted: usize,
        /// Brokers there are.
        have: usize,
    },
    /// Nobody could lead.
    #[error("all {have} registered brokers are fenced")]
    AllFenced {
        /// Brokers there are.
        have: usize,
    },
}

/// Places `partitions` times `replicas` replicas.
///
/// # Errors
///
/// [`PlacementError`] if there are fewer brokers than replicas, or no living one.
pub fn place(
    brokers: &[Candidate<'_>],
    partitions: usize,
    replicas: usize,
    rng: &mut fastrand::Rng,
) -> Result<Vec<Vec<i32>>, PlacementError> {
    let have = brokers.len();
    if replicas > have {
        return Err(PlacementError::TooFewBrokers { wanted: replicas, have });
    }
    let live = ring(brokers.iter().filter(|broker| !broker.fenced), rng);
    let fenced = ring(brokers.iter().filter(|broker| broker.fenced), rng);
    if live.is_empty() {
        return Err(PlacementError::AllFenced { have });
    }
    let (start, shift) = (rng.usize(..live.len()), rng.usize(..live.len()));
    let placed = (0..partitions).map(|partition| {
        let at = start + partition;
        let order = order(&live, at % live.len(), shift + at / live.len());
        pick(order.chain(fenced.iter().copied()), replicas)
    });
    Ok(placed.collect())
}

/// All brokers, racks alternating as long as they last, each rack from a random one of its brokers on.
fn ring<'a>(
    brokers: impl Iterator<Item = &'a Candidate<'a>>,
    rng: &mut fastrand::Rng,
) -> Vec<&'a Candidate<'a>> {
    let mut racks: BTreeMap<Option<&str>, VecDeque<&Candidate<'_>>> = BTreeMap::new();
    for broker in brokers {
        racks.entry(broker.rack).or_default().push_back(broker);
    }
    for rack in racks.values_mut() {
        rack.make_contiguous().sort_by_key(|broker| broker.id);
        rack.rotate_left(rng.usize(..rack.len().max(1)));
    }
    let mut ring = Vec::new();
    while racks.values().any(|rack| !rack.is_empty()) {
        ring.extend(racks.values_mut().filter_map(VecDeque::pop_front));
    }
    ring
}

/// The ring from a leader on, with the followers moved on by `shift`.
fn order<'a>(
    ring: &'a [&'a Candidate<'a>],
    leader: usize,
    shift: usize,
) -> impl Iterator<Item = &'a Candidate<'a>> {
    let (n, others) = (ring.len(), ring.len() - 1);
    let followers = (0..others).map(move |i| (leader + 1 + (shift + i) % others) % n);
    std::iter::once(leader).chain(followers).filter_map(|at| ring.get(at).copied())
}

/// The first `count` of `order` that share no rack; then, as far as needed, the others. The living come first.
fn pick<'a>(order: impl Iterator<Item = &'a Candidate<'a>>, count: usize) -> Vec<i32> {
    let (live, fenced): (Vec<_>, Vec<_>) = order.partition(|broker| !broker.fenced);
    let (mut picked, mut racks) = (Vec::with_capacity(count), BTreeSet::new());
    for group in [live, fenced] {
        for fresh_rack_only in [true, false] {
            for broker in &group {
                let fresh = !racks.contains(&broker.rack);
                if picked.len() < count && !picked.contains(&broker.id) && (fresh || !fresh_rack_only) {
                    racks.insert(broker.rack);
                    picked.push(broker.id);
                }
            }
        }
    }
    picked
}

#[cfg(test)]
mod tests;
