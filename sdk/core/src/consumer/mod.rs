//! Reading assigned partitions, as a pure state machine.
//!
//! In: what the application wants ([`Event::Assign`], [`Event::Seek`], …), leaders out of the metadata, answers of
//! brokers, the number of fetched bytes still alive, and the clock. Out: [`Effect`]s for the driver, and
//! [`Handout`]s for the reader.
//!
//! ```text
//! assign, seek ──▶ Locate ──ListOffsets──▶ Fetch ──answer──▶ queue ──take──▶ ChunkReader ──▶ records
//!                    ▲                       │ ▲               (bytes untouched)  (CRC, decompression,
//!                    └── offset out of range ┤ └── retry                          aborted transactions)
//!                        or log cut ──▶ Validate ◀── leader moved (KIP-320)
//! ```
//!
//! The machine knows nothing of groups: a group member assigns and revokes by the same events as an application
//! that assigns by hand.
//!
//! Invariant: an answer counts only if its partition still has the generation and the fetch offset that were
//! sent. So every record is handed out once and in order, whatever arrives twice, late or from a former leader.

mod chunk;
mod demand;
mod event;
mod fetcher;
mod lookup;
mod partition;
mod plan;
mod scan;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub use chunk::{ChunkBatch, ChunkBatchIter, ChunkError, ChunkReader, ChunkRecord};
pub use event::{
    Aborted, BY_DURATION, Chunk, Effect, EndOfEpoch, EpochLookup, Event, FetchAnswer, FetchPlan,
    FetchSettings, FetchTarget, FetchedPartition, Handout, Isolation, Leader, ListedOffset, Location, Lookup,
    OffsetReset, PartitionFailure, StartIn, StartOffset, Watermarks,
};
pub use fetcher::Fetcher;
pub use lookup::OffsetLookup;
pub use scan::{Scan, scan};
pub use wire::{ends_of_epochs, ends_of_epochs_request, list_offsets_request, listed_offsets};
