//! The partitioners of other clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use klamm_core::partitioner::{crc32, fnv1a, murmur2};
use parking_lot::RwLock;

use super::{Partitioner, Placement, Unplaced};

/// Each record to the next partition that has a leader, whatever its key (Java's `RoundRobinPartitioner`).
///
/// Spreads records one by one, so that batches fill slowly. The default fills one batch after the other and is as
/// even in the long run; it needs no key, or `partitioner.ignore.keys`.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turns: RwLock<BTreeMap<Box<str>, Arc<AtomicU32>>>,
}

impl RoundRobin {
    /// One that begins each topic at its first partition.
    pub fn new() -> Self {
        Self::default()
    }

    fn turn(&self, topic: &str) -> u32 {
        if let Some(turn) = self.turns.read().get(topic) {
            return turn.fetch_add(1, Ordering::Relaxed);
        }
        self.turns.write().entry(topic.into()).or_default().fetch_add(1, Ordering::Relaxed)
    }
}

impl Partitioner for RoundRobin {
    fn partition(&self, record: &Unplaced<'_>) -> Placement {
        let (turn, available) = (self.turn(record.topic()) as usize, record.available());
        match available.len() {
            0 => Placement::Partition((turn % record.partitions().max(1) as usize) as i32),
            count => Placement::Partition(available[turn % count]),
        }
    }
}

/// The partitioners that librdkafka has built in, and with it the clients made from it for C++, Python, Go, .NET and
/// Rust (`partitioner`). Keys land where librdkafka puts them.
///
/// Those ending in `Random` put records without a key on the [sticky](Placement::Sticky) partition, as librdkafka
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Librdkafka {
    /// `random`: any partition that has a leader, whatever the key, for each record anew.
    Random,
    /// `consistent`: CRC-32 of the key; no key is the empty key.
    Consistent,
    /// `consistent_random`: CRC-32 of the key; records whose key is missing or empty are sticky. librdkafka's default.
    ConsistentRandom,
    /// `murmur2`: as Java places keys; no key is the empty key.
    Murmur2,
    /// `murmur2_random`: as Java, also for records without a key.
    Murmur2Random,
    /// `fnv1a`: 32 bits of FNV-1a of the key; no key is the empty key.
    Fnv1a,
    /// `fnv1a_random`: 32 bits of FNV-1a of the key; records without one are sticky. Places keys as Sarama does.
    Fnv1aRandom,
}

impl Librdkafka {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Random,
        Self::Consistent,
        Self::ConsistentRandom,
        Self::Murmur2,
        Self::Murmur2Random,
        Self::Fnv1a,
        Self::Fnv1aRandom,
    ];

    /// librdkafka's name of it, as in its property `partitioner`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Consistent => "consistent",
            Self::ConsistentRandom => "consistent_random",
            Self::Murmur2 => "murmur2",
            Self::Murmur2Random => "murmur2_random",
            Self::Fnv1a => "fnv1a",
            Self::Fnv1aRandom => "fnv1a_random",
        }
    }

    fn hash(self, key: &[u8]) -> u32 {
        match self {
            Self::Random => 0,
            Self::Consistent | Self::ConsistentRandom => crc32(key),
            Self::Murmur2 | Self::Murmur2Random => murmur2(key) & 0x7fff_ffff,
            Self::Fnv1a | Self::Fnv1aRandom => fnv1a(key),
        }
    }
}

impl Partitioner for Librdkafka {
    fn partition(&self, record: &Unplaced<'_>) -> Placement {
        let key = match (self, record.key()) {
            (Self::Random, _) => return Placement::Random,
            (Self::ConsistentRandom, None | Some([])) | (Self::Murmur2Random | Self::Fnv1aRandom, None) => {
                return Placement::Sticky;
            }
            (_, key) => key.unwrap_or_default(),
        };
        Placement::Partition((self.hash(key) % record.partitions().max(1).cast_unsigned()).cast_signed())
    }
}
