//! What a producer does next with its batches.
//!
//! ```text
//! append ─opened─▶ Open ─linger, flush, no room─▶ Sealing ─sealed─▶ Ready ─drained─▶ InFlight ─answered─▶ gone
//!                   └───────── full ─────────────────────────────────▲ ◀── to be sent again ──┤
//!                                                                      └── parts ── Splitting ◀─┘ too large
//! ```
//!
//! In: [`Event`]s about batches, answers, brokers and leaders, and the time. Out: [`Effect`]s. The records
//! themselves, their memory and the waiting stay with the driver.

mod events;
mod partition;
mod sender;
#[cfg(test)]
mod tests;

pub use events::{
    Acks, Answer, BatchId, Cause, Drained, Effect, Event, Failure, Outcome, Part, PartitionId, Produce,
    RequestId, Settings,
};
pub use sender::Sender;
