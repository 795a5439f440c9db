//! What goes into a [`Replica`](super::Replica) and what comes out of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::batch::TimestampType;
use klamm_wire::{Compression, ErrorCode};
use uuid::Uuid;

use crate::Tick;
use crate::log::LogSettings;
use crate::metadata::LeaderRecoveryState;

/// Which replica this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaIdentity {
    /// Topic id.
    pub topic_id: Uuid,
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Broker that holds this replica.
    pub broker_id: i32,
}

impl fmt::Display for ReplicaIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} on broker {}", self.topic, self.partition, self.broker_id)
    }
}

/// Settings of one partition; Kafka's property names in parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// A follower that has not caught up for so long leaves the ISR (`replica.lag.time.max.ms`).
    pub replica_lag_time_max: Tick,
    /// Fewest in-sync replicas for acks=all and for the high watermark to move (`min.insync.replicas`).
    pub min_insync_replicas: usize,
    /// Largest batch (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// Whose timestamps are kept (`message.timestamp.type`).
    pub message_timestamp_type: TimestampType,
    /// How old a record's timestamp may be, in ms (`message.timestamp.before.max.ms`).
    pub message_timestamp_before_max_ms: i64,
    /// How far in the future a record's timestamp may be, in ms (`message.timestamp.after.max.ms`).
    pub message_timestamp_after_max_ms: i64,
    /// Records without key are refused (`cleanup.policy` contains `compact`).
    pub require_key: bool,
    /// Records count only once they are durable (`flush.messages` = 1).
    pub sync_before_ack: bool,
    /// Largest size of the records of one batch once decompressed.
    pub decompression_limit_bytes: usize,
    /// Codec of every batch (`compression.type`); `None` keeps the producer's.
    pub compression: Option<Compression>,
    /// Its level, or the codec's default (`compression.gzip.level` and others).
    pub compression_level: Option<i32>,
    /// How often a moved high watermark is remembered (`replica.high.watermark.checkpoint.interval.ms`).
    pub high_watermark_checkpoint_interval: Tick,
    /// Pause before AlterPartition is asked again after a refusal.
    pub alter_partition_backoff: Tick,
    /// Settings of the log.
    pub log: LogSettings,
}

impl Default for ReplicaSettings {
    /// Kafka's defaults; 64 MiB for what Kafka does not bound.
    fn default() -> Self {
        Self {
            replica_lag_time_max: Tick::from_secs(30),
            min_insync_replicas: 1,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            require_key: false,
            sync_before_ack: false,
            decompression_limit_bytes: 64 << 20,
            compression: None,
            compression_level: None,
            high_watermark_checkpoint_interval: Tick::from_secs(5),
            alter_partition_backoff: Tick::from_millis(50),
            log: LogSettings::default(),
        }
    }
}

/// What this replica does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No leader is known, or the partition is not held here: serves nobody.
    Offline,
    /// Takes appends and serves fetches.
    Leader {
        /// Epoch of the leadership.
        leader_epoch: i32,
    },
    /// Fetches from the leader.
    Follower {
        /// Broker to fetch from.
        leader: i32,
        /// Epoch of its leadership; goes into every Fetch as current leader epoch.
        leader_epoch: i32,
    },
}

/// What the driver has to do or may want to know, in the order emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the controller for this ISR; report to [`Replica::alter_partition_answered`](super::Replica::alter_partition_answered).
    AlterPartition(AlterPartition),
    /// The high watermark is here now: waiting acks=all produces and fetches may be complete.
    HighWatermark(i64),
    /// The log ends here now: waiting fetches of followers may be complete.
    Appended(i64),
    /// The role, its epoch or the leader is new. A follower (re)starts fetching at
    /// [`Replica::fetch_position`](super::Replica::fetch_position); whoever is not leader any more fails its waiting produces.
    RoleChanged(Role),
    /// A suffix of the log is gone: it ends here now.
    Truncated(i64),
    /// Make durable what is written now; report to [`Replica::synced`](super::Replica::synced) or
    /// [`Replica::sync_failed`](super::Replica::sync_failed). The next one comes when this one has been reported, or
    /// when the log was cut, with another generation.
    Sync {
        /// Goes back with the report, so that a late one is known as such.
        generation: u64,
        /// End of the log now; goes back too.
        upto: i64,
    },
    /// Everything before this offset counts now: waiting acks=1 produces may be complete, and a follower fetches again
    /// if it has a [`Replica::fetch_position`](super::Replica::fetch_position).
    Synced(i64),
    /// No living replica holds anything before this offset any more: waiting DeleteRecords may be complete.
    LowWatermark(i64),
    /// The storage failed: the replica is offline until it is made anew.
    StorageFailed(String),
}

/// One change of the ISR that the leader proposes (KIP-497, KIP-903).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartition {
    /// Goes back with the answer, so that a late one is known as such.
    pub proposal: u64,
    /// Topic id.
    pub topic_id: Uuid,
    /// Partition.
    pub partition: i32,
    /// Epoch of the proposing leader.
    pub leader_epoch: i32,
    /// State the proposal is based on.
    pub partition_epoch: i32,
    /// Members with the broker epoch the leader knows them by; -1 if unknown.
    pub isr: Vec<IsrMember>,
    /// State of the recovery after an unclean election.
    pub leader_recovery_state: LeaderRecoveryState,
}

/// A member of a proposed ISR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IsrMember {
    /// Broker id.
    pub broker_id: i32,
    /// Its epoch: a broker that restarted meanwhile has another one (KIP-903).
    pub broker_epoch: i64,
}

/// The controller's answer to [`AlterPartition`], for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlteredPartition {
    /// Leader, or `None`.
    pub leader: Option<i32>,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Committed ISR.
    pub isr: Vec<i32>,
    /// State of the recovery.
    pub leader_recovery_state: LeaderRecoveryState,
    /// Version of this state.
    pub partition_epoch: i32,
}

/// One partition of a Produce request.
#[derive(Debug, Clone)]
pub struct Produce {
    /// The batch as it came.
    pub records: Bytes,
    /// `acks`: -1, 0 or 1.
    pub acks: i16,
    /// Version of the request: zstd is allowed from 7 on.
    pub api_version: i16,
}

/// What became of a [`Produce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record; [`Replica::acked`](super::Replica::acked) takes it plus one.
    pub last_offset: i64,
    /// Timestamp the leader gave the records, or -1 if they kept their own.
    pub log_append_time: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Epoch of the leadership the answer belongs to; goes into [`Replica::acked`](super::Replica::acked).
    pub leader_epoch: i32,
    /// The batch was in the log already: nothing was appended.
    pub duplicate: bool,
}

/// A refusal with Kafka's code, and in words for the response's error message and the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code:?})")]
pub struct AppendError {
    /// Kafka's error code.
    pub code: ErrorCode,
    /// What was wrong.
    pub message: String,
    /// Records to blame, by index, where single records are wrong (Produce ≥ 8).
    pub record_errors: Vec<(i32, String)>,
    /// First offset of the log, or -1: Kafka tells it with some codes and not with others.
    pub log_start_offset: i64,
}

impl AppendError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), record_errors: Vec::new(), log_start_offset: -1 }
    }

    /// With the first offset of the log, if Kafka tells it with this code.
    pub(crate) fn starting_at(mut self, log_start_offset: i64) -> Self {
        let silent =
            [ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::CORRUPT_MESSAGE, ErrorCode::KAFKA_STORAGE_ERROR];
        if !silent.contains(&self.code) {
            self.log_start_offset = log_start_offset;
        }
        self
    }
}

/// Who fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetcher {
    /// A follower: reads to the end of the log, and its offset tells how far it has come.
    Replica {
        /// Broker id.
        id: i32,
        /// Broker epoch (Fetch ≥ 15), else -1.
        epoch: i64,
        /// First offset of the follower's log.
        log_start_offset: i64,
    },
    /// A consumer: reads to the high watermark.
    Consumer {
        /// Whether a follower may serve it (KIP-392: Fetch ≥ 11).
        follower_ok: bool,
    },
}

/// One partition of a Fetch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchFrom {
    /// Who asks.
    pub fetcher: Fetcher,
    /// First offset wanted.
    pub offset: i64,
    /// Epoch of the record before `offset`, to find out whether the logs have parted (Fetch ≥ 12).
    pub last_fetched_epoch: Option<i32>,
    /// Leader epoch the fetcher knows.
    pub current_leader_epoch: Option<i32>,
    /// Most bytes wanted.
    pub max_bytes: usize,
    /// Return the first batch even if it is larger than `max_bytes` (KIP-74).
    pub min_one: bool,
}

/// Epoch and offset of a log's end, as OffsetForLeaderEpoch and a diverging Fetch tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochEnd {
    /// Largest epoch of the log not above the one asked for; -1 if there is none.
    pub epoch: i32,
    /// Where it ends; -1 if unknown.
    pub end_offset: i64,
}

/// Answer to a [`FetchFrom`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches, beginning with the one that holds the offset asked for. Chunks need not be whole batches.
    pub records: Vec<Bytes>,
    /// High watermark.
    pub high_watermark: i64,
    /// End of the decided transactions; the high watermark as long as there are none.
    pub last_stable_offset: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Where what this fetcher may read ends at the moment: high watermark, or end of the log.
    pub limit: i64,
    /// The fetcher's log is not a prefix of this one: truncate to here, then ask again.
    pub diverging: Option<EpochEnd>,
    /// A replica that had better be asked instead; there are no records then (KIP-392).
    pub preferred_read_replica: Option<i32>,
    /// Whether it has to be heard again even if nothing changes: a follower that is not in the ISR joins by a fetch.
    pub ask_again: bool,
}

impl Fetched {
    /// Size of the records.
    pub fn len_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// Where a follower asks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// Broker to ask.
    pub leader: i32,
    /// Epoch of its leadership.
    pub current_leader_epoch: i32,
    /// End of this log.
    pub offset: i64,
    /// Epoch of the last record here; -1 if there is none.
    pub last_fetched_epoch: i32,
    /// First offset of this log.
    pub log_start_offset: i64,
}

/// One partition of a follower's Fetch answer.
#[derive(Debug, Clone)]
pub struct FetchedFromLeader {
    /// Epoch the Fetch was sent with: an answer from before the last change of leader is dropped.
    pub leader_epoch: i32,
    /// The leader's batches.
    pub records: Bytes,
    /// The leader's high watermark.
    pub high_watermark: i64,
    /// The leader's first offset.
    pub log_start_offset: i64,
}

/// An offset found by ListOffsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// Offset, or -1.
    pub offset: i64,
    /// Timestamp of the record found by time, or -1.
    pub timestamp: i64,
    /// Epoch of the record, or -1.
    pub leader_epoch: i32,
}

impl FoundOffset {
    /// No record is that young.
    pub const NONE: Self = Self { offset: -1, timestamp: -1, leader_epoch: -1 };
}

/// Who asks for offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedBy {
    /// A consumer: replica id -1.
    Client,
    /// A follower: its broker id.
    Replica,
    /// A tool that looks at one replica, whether it leads or not: replica id -2.
    Debugger,
}

impl ListedBy {
    /// Reads the replica id of ListOffsets.
    pub fn from_wire(replica_id: i32) -> Self {
        match replica_id {
            -1 => Self::Client,
            -2 => Self::Debugger,
            _ => Self::Replica,
        }
    }
}

/// Which offset ListOffsets asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetAt {
    /// `-2`: first offset of the log (`-4`, earliest local, is the same here).
    Earliest,
    /// `-1`: end of what the asker may read.
    Latest,
    /// `-3`: record with the largest timestamp.
    MaxTimestamp,
    /// First record at or after this time.
    Timestamp(i64),
    /// `-5`, `-6`: tiered storage, of which there is none.
    Tiered,
}

impl OffsetAt {
    /// Reads the timestamp field of ListOffsets; `None` if it has no meaning.
    pub fn from_wire(timestamp: i64) -> Option<Self> {
        match timestamp {
            -1 => Some(Self::Latest),
            -2 | -4 => Some(Self::Earliest),
            -3 => Some(Self::MaxTimestamp),
            -5 | -6 => Some(Self::Tiered),
            0.. => Some(Self::Timestamp(timestamp)),
            _ => None,
        }
    }
}
