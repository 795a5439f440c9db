//! Membership in a consumer group, as a pure state machine (the classic protocol: JoinGroup, SyncGroup, Heartbeat).
//!
//! In: what the application wants, what the coordinator answers, when listeners are done, the clock. Out: [`Effect`]s.
//!
//! ```text
//! Idle ─subscribe─▶ Preparing ─▶ Joining ─▶ Leading ─▶ Syncing ─▶ Adopting ─▶ Stable
//!                     ▲  give up what     (leader only)             revoke, then     │
//!                     │  must be given up                           assign           │
//!                     └── rebalance, other topics, lost, coordinator moved ◀─────────┘
//! Stalled: not polled in time, left; begins again with the next poll. Failed: cannot go on; begins again with the next subscribe.
//! ```
//!
//! A request that waits for the coordinator is told by a ticket; the answer to any other is ignored.
//!
//! Invariants: nobody joins before the listener has heard of what was revoked or lost, or its time is over; listener calls
//! follow one another; a partition is committed only while it is owned, so never after it was lost.

mod answer;
mod event;
mod member;
mod moves;
mod order;
#[cfg(test)]
mod tests;

pub use event::{
    Call, Chosen, CommitRefusal, CommittedOffset, Effect, Event, Fatal, GroupSettings, JoinAnswer, Joined,
    JoinedMember, Offsets, Reason, Refusal, Shapes, TopicShape,
};
pub use member::Membership;
pub use order::{Attempt, CommitOrder};
