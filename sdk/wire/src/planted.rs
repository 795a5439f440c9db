//! Bugs that can be planted on purpose, to test what is meant to find bugs.
//!
//! Without the feature `planted`, which only the workspace's tests turn on, [`planted`] is `false` for the
//! compiler too. With it, at most one bug is planted at a time, on one thread, by `plant`.

/// One mistake that can be made on purpose. What each does stands where it is asked for.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Bug {
    /// A leader counts what it has not synced; so do its followers.
    SkipFsync,
    /// What a process left unsynced counts as durable after its restart.
    TrustUnsyncedTail,
    /// What a voter's process left unsynced counts as durable after its restart.
    TrustUnsyncedVoter,
    /// A voter answers that it gives its vote before that is durable.
    VoteWithoutFsync,
    /// A candidate counts its vote for itself before that is durable.
    OwnVoteWithoutFsync,
    /// A voter's fsync begins before the vote is written that it is to make durable.
    VoteAfterItsFsync,
    /// A voter counts what it has appended to its log before that is durable.
    MetadataLogWithoutFsync,
    /// No directory is ever synced: files that were created, renamed or removed need not stay so.
    NoDirectoryFsync,
    /// Names that change while an fsync is under way count as durable by its end.
    NamesAfterTheirFsync,
    /// A recovery point that is lowered is in its file some time after what lies behind it was overwritten.
    LoweredRecoveryPointLate,
    /// The high watermark is one more than what all in-sync replicas have.
    HighWatermarkOffByOne,
    /// The high watermark follows the fastest follower.
    FastestFollowerDecides,
    /// Nobody looks at leader epochs: answers and requests of an earlier leadership count.
    NoEpochCheck,
    /// A leader counts only those whom it has proposed as in sync, before the controller has agreed.
    StaleIsr,
    /// The controller takes changes of the ISR that are based on an old state.
    NoCompareAndSet,
    /// A controller that has refused a change of the ISR carries out an earlier request for the same change later.
    RefusedProposalStands,
    /// A new leader does not remember producers, so that a retry after a failover is appended again.
    ForgetProducers,
    /// `acks=all` is answered as soon as the leader has the records.
    AnswerBeforeCommit,
    /// A leader does not tell a follower that their logs part, so that it does not truncate.
    NoTruncation,
    /// A new follower truncates to its high watermark, as before KIP-101.
    TruncateToHighWatermark,
    /// Any live replica is elected, in sync or not.
    UncleanElection,
    /// Consumers read up to the end of the leader's log.
    ReadUncommitted,
    /// A voter of the metadata quorum votes for a second candidate in an epoch.
    VoteTwice,
    /// A voter does not compare the candidate's log with its own.
    VoteForShorterLog,
    /// A leader of the metadata quorum does not tell a voter that their logs part, so that it does not truncate.
    VoterKeepsTail,
    /// A leader of the metadata quorum commits records of earlier epochs by counting replicas alone.
    CommitEarlierEpoch,
    /// A replica that is opened keeps the torn batch at the end of its log.
    KeepTornBatch,
    /// The client gives a batch that it sends again a new sequence.
    NewSequenceOnRetry,
    /// The client has more requests in flight than it was told.
    IgnoreInFlightLimit,
    /// The client takes an error for success when a leader has changed.
    ErrorTakenForSuccess,
    /// The client loses the record at each seam of a batch that it splits.
    SplitLosesRecord,
    /// The client sends the parts of a batch that it splits in the wrong order.
    SplitSwapsParts,
    /// A consumer whose connection broke goes on one record too far.
    SkipAfterReconnect,
    /// A consumer whose leader changed goes on one record too early.
    RereadAfterLeaderChange,
    /// Automatic commits count what was handed out last for done.
    CommitWhatIsNotDone,
    /// What was lost can be committed, in the generation in which it was owned.
    CommitAfterLoss,
    /// A commit that is tried again does not look whether a later one was acknowledged.
    CommitOvertakes,
    /// A member joins while what it gives up is still being committed.
    JoinBeforeRevoked,
    /// A member goes on reading what the assignment takes away from it, and tells nobody but the group.
    KeepRevoked,
    /// A member goes on one record behind what its group has committed.
    SkipAtTakeover,
    /// A coordinator acknowledges a commit before it is replicated.
    CommitAnsweredEarly,
    /// A coordinator hands out an assignment before it is replicated.
    AssignedEarly,
    /// A new coordinator knows the offsets of groups, and neither members nor generation.
    ForgetGeneration,
    /// A coordinator takes commits of any generation.
    TakeOldGeneration,
}

impl Bug {
    /// Those of which only a loss of power at a bad moment tells; not in [`Self::ALL`].
    pub const OF_POWER: &[Self] = &[
        Self::TrustUnsyncedVoter,
        Self::VoteWithoutFsync,
        Self::OwnVoteWithoutFsync,
        Self::VoteAfterItsFsync,
        Self::MetadataLogWithoutFsync,
        Self::NoDirectoryFsync,
        Self::NamesAfterTheirFsync,
        Self::LoweredRecoveryPointLate,
    ];

    /// Those that one seed in thousands shows; schedules written by hand do. Not in [`Self::ALL`].
    pub const RARE: &[Self] = &[Self::RefusedProposalStands];

    /// Those of groups, which seeds of the workload `groups` find; not in [`Self::ALL`].
    pub const OF_GROUPS: &[Self] = &[
        Self::CommitWhatIsNotDone,
        Self::CommitAfterLoss,
        Self::CommitOvertakes,
        Self::JoinBeforeRevoked,
        Self::KeepRevoked,
        Self::SkipAtTakeover,
        Self::CommitAnsweredEarly,
        Self::AssignedEarly,
        Self::ForgetGeneration,
    ];

    /// Those of coordinators that no member of ours gives occasion to, as it commits in its own generation or not at all. The
    /// property test of broker-lite-core's groups finds them; not in [`Self::ALL`].
    pub const OF_COORDINATORS: &[Self] = &[Self::TakeOldGeneration];

    /// Every bug that a few seeds of the simulation find.
    pub const ALL: &[Self] = &[
        Self::SkipFsync,
        Self::TrustUnsyncedTail,
        Self::HighWatermarkOffByOne,
        Self::FastestFollowerDecides,
        Self::NoEpochCheck,
        Self::StaleIsr,
        Self::NoCompareAndSet,
        Self::ForgetProducers,
        Self::AnswerBeforeCommit,
        Self::NoTruncation,
        Self::TruncateToHighWatermark,
        Self::UncleanElection,
        Self::ReadUncommitted,
        Self::KeepTornBatch,
        Self::NewSequenceOnRetry,
        Self::IgnoreInFlightLimit,
        Self::ErrorTakenForSuccess,
        Self::SplitLosesRecord,
        Self::SplitSwapsParts,
        Self::SkipAfterReconnect,
        Self::RereadAfterLeaderChange,
    ];
}

#[cfg(feature = "planted")]
#[allow(clippy::disallowed_macros, reason = "one run per thread, and one bug per run")]
mod slot {
    std::thread_local! {
        pub(super) static PLANTED: std::cell::Cell<Option<super::Bug>> = const { std::cell::Cell::new(None) };
    }
}

/// Whether this bug is planted on this thread.
#[doc(hidden)]
#[inline(always)]
pub fn planted(bug: Bug) -> bool {
    #[cfg(feature = "planted")]
    return slot::PLANTED.with(std::cell::Cell::get) == Some(bug);
    #[cfg(not(feature = "planted"))]
    {
        let _ = bug;
        false
    }
}

/// Plants a bug on this thread, or pulls it out.
#[doc(hidden)]
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    slot::PLANTED.with(|planted| planted.set(bug));
}
