//! One partition as the controller has registered it.
//!
//! Invariant: `isr` and `elr` are disjoint subsets of `replicas`, and `leader` is a member of `isr`.

/// Whether the leader was elected from the in-sync replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaderRecoveryState {
    /// The leader holds every committed record.
    #[default]
    Recovered,
    /// An unclean election chose the leader, which has not finished recovering yet.
    Recovering,
}

impl LeaderRecoveryState {
    /// The value in requests and metadata records.
    pub fn code(self) -> i8 {
        match self {
            Self::Recovered => 0,
            Self::Recovering => 1,
        }
    }

    /// Reads the value of requests and metadata records; `None` if it has no meaning.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Recovered),
            1 => Some(Self::Recovering),
            _ => None,
        }
    }
}

/// State of one partition: who holds it, who is in sync, who leads.
///
/// `leader_epoch` rises with every change of leader, `partition_epoch` with every change of anything here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// Brokers that hold a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Replicas known to hold every committed record.
    pub isr: Vec<i32>,
    /// Replicas that left the ISR while it was too small for a commit (KIP-966): they still hold every
    /// committed record and may lead without loss.
    pub elr: Vec<i32>,
    /// Last leader of a partition that has lost its whole ISR and ELR (KIP-966).
    pub last_known_elr: Vec<i32>,
    /// Replicas a reassignment is about to take away.
    pub removing_replicas: Vec<i32>,
    /// Replicas a reassignment is adding.
    pub adding_replicas: Vec<i32>,
    /// Leader, or `None` while the partition is offline.
    pub leader: Option<i32>,
    /// Epoch of the leadership.
    pub leader_epoch: i32,
    /// Version of this registration: the compare-and-set token of AlterPartition (KIP-497).
    pub partition_epoch: i32,
    /// Whether the leader was elected cleanly.
    pub leader_recovery_state: LeaderRecoveryState,
}
