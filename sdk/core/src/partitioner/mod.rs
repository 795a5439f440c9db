//! Which partition a record goes to.
//!
//! With a key: a hash of it, by default Kafka's murmur2, so that Java and this client agree. Without: one partition
//! until it has had `batch.size` bytes, then another (KIP-480, KIP-794), so that batches fill up and bytes spread
//! evenly, or by how fast brokers take them ([`Odds`]).

mod hash;
mod sticky;

pub use hash::{crc32, fnv1a, for_key, murmur2};
pub use sticky::{Candidate, Odds, Sticky};
