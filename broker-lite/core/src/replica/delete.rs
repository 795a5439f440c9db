//! Records that go: DeleteRecords, retention and compaction.
//!
//! ```text
//! DeleteRecords ──▶ leader's log start ──Fetch answer──▶ followers' log start ──Fetch──▶ low watermark
//! ```

use klamm_wire::ErrorCode;

use super::{Effect, Replica};
use crate::Tick;
use crate::log::{Cleaning, CleaningLimits, LogError, NextInCleaning};
use crate::storage::{Directory, Unsynced};

impl<D: Directory> Replica<D> {
    /// Gives up the records before `offset` (-1: all that are committed) as leader; returns where the log begins then. The
    /// followers have done so when [`Self::low_watermark`] is there.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE` beyond the high watermark, `POLICY_VIOLATION` if the topic's records are not to be deleted,
    /// `NOT_LEADER_OR_FOLLOWER`, `KAFKA_STORAGE_ERROR`.
    pub fn delete_records(&mut self, offset: i64, fx: &mut Vec<Effect>) -> Result<i64, ErrorCode> {
        self.check_leader_epoch(None)?;
        self.check_leader()?;
        if !self.settings.log.delete {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        let offset = if offset == -1 { self.high_watermark } else { offset };
        if offset < 0 || offset > self.high_watermark {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        self.log.advance_start(offset).map_err(|error| self.write_failed(error, fx))?;
        fx.push(Effect::LowWatermark(self.low_watermark()?));
        Ok(self.log.start_offset())
    }

    /// The first offset that any living replica still holds, as the leader knows.
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER`.
    pub fn low_watermark(&self) -> Result<i64, ErrorCode> {
        let leading = self.check_leader()?;
        let living = leading.followers.iter().filter(|(id, _)| self.alive.contains_key(id));
        let starts = living.map(|(_, follower)| follower.start_offset);
        Ok(starts.fold(self.log.start_offset(), i64::min))
    }

    /// Deletes what retention does not keep, and files whose time is over; returns whether records went.
    ///
    /// # Errors
    ///
    /// `CORRUPT_MESSAGE`, `KAFKA_STORAGE_ERROR`; the latter takes the replica offline.
    pub fn retain(&mut self, now: Tick, wall_ms: i64, fx: &mut Vec<Effect>) -> Result<bool, ErrorCode> {
        if self.failed {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let removed = self.log.remove_doomed(now).map_err(LogError::Storage);
        let retained = removed.and_then(|()| self.log.retain(wall_ms, self.high_watermark));
        retained.map_err(|error| self.write_failed(error, fx))
    }

    /// Begins to compact the log if that is its policy and worth it: see [`Log::begin_cleaning`](crate::log::Log::begin_cleaning).
    ///
    /// # Errors
    ///
    /// As [`Self::retain`].
    pub fn begin_cleaning(
        &mut self,
        wall_ms: i64,
        key_memory_bytes: usize,
        fx: &mut Vec<Effect>,
    ) -> Result<Option<Cleaning<D::Aside>>, ErrorCode> {
        if self.failed {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let limits = CleaningLimits {
            wall_ms,
            high_watermark: self.high_watermark,
            key_memory_bytes,
            decompression_limit_bytes: self.settings.decompression_limit_bytes,
        };
        self.log.begin_cleaning(limits).map_err(|error| self.write_failed(error, fx))
    }

    /// Goes on with a compaction: see [`Log::go_on_cleaning`](crate::log::Log::go_on_cleaning).
    ///
    /// # Errors
    ///
    /// `KAFKA_STORAGE_ERROR`, which takes the replica offline.
    pub fn go_on_cleaning(
        &mut self,
        cleaning: &mut Cleaning<D::Aside>,
        fx: &mut Vec<Effect>,
    ) -> Result<NextInCleaning, ErrorCode> {
        let next = if self.failed {
            self.log.give_up_cleaning(cleaning).map(|_| NextInCleaning::GivenUp)
        } else {
            self.log.go_on_cleaning(cleaning)
        };
        next.map_err(|error| self.write_failed(error.into(), fx))
    }

    /// Gives a compaction up; returns whether the log is still the one that it began with.
    ///
    /// # Errors
    ///
    /// As [`Self::go_on_cleaning`].
    pub fn give_up_cleaning(
        &mut self,
        cleaning: &mut Cleaning<D::Aside>,
        fx: &mut Vec<Effect>,
    ) -> Result<bool, ErrorCode> {
        self.log.give_up_cleaning(cleaning).map_err(|error| self.write_failed(error.into(), fx))
    }

    /// The names that a compaction has changed, for whoever owns the disk.
    pub fn begin_cleaned_sync(&mut self) -> Unsynced {
        self.log.begin_cleaned_sync()
    }

    /// Notes that these names are durable, and remembers how far the log is compacted.
    ///
    /// # Errors
    ///
    /// As [`Self::go_on_cleaning`].
    pub fn end_cleaning(&mut self, done: &Unsynced, fx: &mut Vec<Effect>) -> Result<(), ErrorCode> {
        self.log.end_cleaning(done).map_err(|error| self.write_failed(error.into(), fx))
    }
}
