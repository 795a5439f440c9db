//! Cluster metadata: the log of records that the controller writes, and the image they add up to.

mod partition;

pub use partition::{LeaderRecoveryState, PartitionRegistration};
