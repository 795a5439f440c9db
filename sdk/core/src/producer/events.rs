//! What goes into the sender and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use klamm_wire::{ErrorCode, ProducerStamp};

use crate::Tick;
use crate::backoff::Backoff;

/// One partition of one topic, numbered by the driver from 0 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

/// One batch. Ids grow in the order of records, also when a batch is split into smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Grows in the order in which batches are opened; the parts of a batch keep it.
    pub number: u64,
    /// Index of its first record in the batch that was opened; not 0 only for later parts of a batch that was split.
    pub first: u32,
}

impl BatchId {
    /// A batch that is opened.
    pub const fn new(number: u64) -> Self {
        Self { number, first: 0 }
    }

    /// The part of this batch that begins so many records later; at 0, the id lives on.
    #[must_use]
    pub const fn part(self, records: u32) -> Self {
        Self { first: self.first + records, ..self }
    }
}

/// One Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How many replicas must hold a record before the broker answers (`acks`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acks {
    /// Do not wait; the offset of the record stays unknown.
    None,
    /// The leader only.
    Leader,
    /// Every in-sync replica. Required for idempotence.
    #[default]
    All,
}

/// What the sender must know of the producer's settings; they fit each other.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `acks`
    pub acks: Acks,
    /// `enable.idempotence`; then `acks` is all and `max_in_flight` at most 5.
    pub idempotent: bool,
    /// `linger.ms`
    pub linger: Duration,
    /// `delivery.timeout.ms`
    pub delivery_timeout: Duration,
    /// `retries`
    pub retries: u32,
    /// `retry.backoff.ms`, `retry.backoff.max.ms`
    pub backoff: Backoff,
    /// `max.in.flight.requests.per.connection`, at least 1
    pub max_in_flight: usize,
    /// `max.request.size`
    pub max_request_bytes: usize,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The metadata name this leader for the partition; a partition is introduced by its first one.
    Leader {
        /// The partition.
        partition: PartitionId,
        /// Broker id, if there is a leader.
        leader: Option<i32>,
    },
    /// The metadata know the partition no more, for this reason, until the next [`Event::Leader`]: the topic was
    /// deleted, or whoever was asked has not heard of it yet. What was accepted is tried on.
    Unknown {
        /// The partition.
        partition: PartitionId,
        /// What the metadata say instead of a leader.
        code: ErrorCode,
    },
    /// The topic was deleted and created again: its brokers know nothing of this producer.
    Recreated {
        /// The partition.
        partition: PartitionId,
    },
    /// A batch was opened behind all others of its partition.
    Opened {
        /// Its partition.
        partition: PartitionId,
        /// The batch.
        batch: BatchId,
    },
    /// A batch is final, because it was full or because of [`Effect::Seal`].
    Sealed {
        /// The batch.
        batch: BatchId,
        /// Its size on the wire.
        bytes: usize,
        /// Records in it.
        records: u32,
    },
    /// A batch was split because of [`Effect::Split`]: from now on its parts stand in its place. The first part has
    /// the batch's id, the others have those of [`BatchId::part`].
    Split {
        /// The batch.
        batch: BatchId,
        /// All of its records, in order, in at least two parts.
        parts: Vec<Part>,
    },
    /// The records of a batch could not be compressed.
    Unsealable {
        /// The batch.
        batch: BatchId,
    },
    /// Someone waits for `buffer.memory`: what is open is not to linger.
    NoRoom,
    /// What is open is not to linger; [`Effect::Flushed`] tells when all of it is resolved.
    Flush {
        /// Comes back with the effect.
        ticket: u64,
    },
    /// A frame for this broker would be on its way at once.
    Connected {
        /// Broker id.
        broker: i32,
    },
    /// A connection asked for by [`Effect::Connect`] did not come about.
    Unreachable {
        /// Broker id.
        broker: i32,
    },
    /// The broker asks for silence: nothing more is sent to it until then (`throttle_time_ms`, KIP-219).
    Throttled {
        /// Broker id.
        broker: i32,
        /// When it may be sent to again.
        until: Tick,
    },
    /// A request was answered, or written if `acks` is [`Acks::None`].
    Answered {
        /// The request.
        request: RequestId,
        /// One answer for each partition.
        answers: Vec<(PartitionId, Answer)>,
    },
    /// A request will not be answered.
    Lost {
        /// The request.
        request: RequestId,
        /// The broker may have carried it out.
        maybe_written: bool,
        /// Sending it again may help.
        retriable: bool,
    },
    /// The broker gave a producer id.
    ProducerId {
        /// The id.
        id: i64,
        /// Its epoch.
        epoch: i16,
    },
    /// The broker gave none; without a code it could not be asked.
    NoProducerId {
        /// What the broker said.
        code: Option<ErrorCode>,
    },
    /// Give up everything.
    Abort,
}

/// A smaller batch that was made of a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its size on the wire.
    pub bytes: usize,
    /// Records in it.
    pub records: u32,
}

/// What a broker says about the batch of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `NONE` if the batch is written.
    pub code: ErrorCode,
    /// Offset of the first record, or -1.
    pub base_offset: i64,
    /// Timestamp of all records if the topic is set so, or -1.
    pub log_append_time: i64,
    /// The broker's explanation of an error.
    pub message: Option<Arc<str>>,
}

/// What the driver has to do, in the order emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Close this batch, unless an append just did, and report [`Event::Sealed`] in either case.
    Seal(BatchId),
    /// Make smaller batches of this one, which has more than one record, and report [`Event::Split`] or
    /// [`Event::Unsealable`].
    Split(BatchId),
    /// Connect to this broker and report [`Event::Connected`] or [`Event::Unreachable`].
    Connect(i32),
    /// Send these batches in one request.
    Produce(Produce),
    /// Ask any broker for a producer id.
    InitProducerId,
    /// Ask for new metadata.
    Refresh(&'static str),
    /// Tell the application what became of a batch. Exactly once for every batch.
    Resolve(BatchId, Outcome),
    /// Nobody needs the batch any more. Exactly once for every batch, not before it is resolved.
    Free(BatchId),
    /// Everything that was open or under way at [`Event::Flush`] is resolved.
    Flushed(u64),
}

/// One Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produce {
    /// Comes back with the answer.
    pub request: RequestId,
    /// Broker id of the leader.
    pub broker: i32,
    /// At most one batch for each partition.
    pub batches: Vec<Drained>,
}

/// One batch of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Its partition.
    pub partition: PartitionId,
    /// The batch.
    pub batch: BatchId,
    /// What goes into its header.
    pub stamp: ProducerStamp,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log.
    Written {
        /// Offset of the first record; unknown with `acks=0` and when a retry found the batch already written.
        base_offset: Option<i64>,
        /// Timestamp of all records, if the broker set it.
        log_append_time: Option<i64>,
    },
    /// It was given up.
    Failed(Failure),
}

/// Why a batch was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// `delivery.timeout.ms` is over.
    TimedOut {
        /// Time since the batch was opened.
        waited: Duration,
        /// The records may be in the log.
        maybe_written: bool,
        /// What went wrong last.
        last: Option<Cause>,
    },
    /// `retries` are used up.
    Exhausted {
        /// The records may be in the log.
        maybe_written: bool,
        /// What went wrong last.
        last: Cause,
    },
    /// The broker refuses the batch and would again.
    Rejected {
        /// The broker's error code.
        code: ErrorCode,
        /// The broker's explanation.
        message: Option<Arc<str>>,
        /// An earlier attempt may have been written all the same.
        maybe_written: bool,
    },
    /// A single record is larger than the broker allows.
    TooLarge {
        /// The broker's error code.
        code: ErrorCode,
        /// Size of its batch on the wire.
        bytes: usize,
        /// An earlier attempt may have been written all the same.
        maybe_written: bool,
    },
    /// The broker cannot be spoken to.
    Unsupported {
        /// The records may be in the log.
        maybe_written: bool,
    },
    /// The broker refuses to give a producer id.
    NoProducerId {
        /// The broker's error code.
        code: ErrorCode,
    },
    /// The records could not be compressed.
    Unsealable {
        /// An attempt with the whole of which they are a part may have been written all the same.
        maybe_written: bool,
    },
    /// The producer was closed first.
    Aborted {
        /// The records may be in the log.
        maybe_written: bool,
    },
}

impl Failure {
    /// The records may be in the log all the same.
    pub fn maybe_written(&self) -> bool {
        match self {
            Self::TimedOut { maybe_written, .. }
            | Self::Exhausted { maybe_written, .. }
            | Self::Rejected { maybe_written, .. }
            | Self::TooLarge { maybe_written, .. }
            | Self::Unsupported { maybe_written }
            | Self::Unsealable { maybe_written }
            | Self::Aborted { maybe_written } => *maybe_written,
            Self::NoProducerId { .. } => false,
        }
    }
}

/// What went wrong with one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The broker said so.
    Code(ErrorCode),
    /// There was no answer.
    NoAnswer,
}
