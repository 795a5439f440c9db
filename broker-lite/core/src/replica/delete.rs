//! Records that go: DeleteRecords, retention and compaction.
//!
//! ```text
//! DeleteRecords ──▶ leader's log start ──Fetch answer──▶ followers' log start ──Fetch──▶ low watermark
//! ```

use klamm_wire::ErrorCode;

use super::{Effect, Replica, read_failed};
use crate::Tick;
use crate::log::{Compacted, LogError};
use crate::storage::Directory;

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

    /// Compacts the log if that is its policy and worth it.
    ///
    /// # Errors
    ///
    /// As [`Self::retain`].
    pub fn compact(&mut self, wall_ms: i64, fx: &mut Vec<Effect>) -> Result<Option<Compacted>, ErrorCode> {
        if self.failed {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let limit = self.settings.decompression_limit_bytes;
        let compacted = self.log.compact(wall_ms, self.high_watermark, limit);
        compacted.map_err(|error| match error {
            LogError::Storage(error) => self.write_failed(LogError::Storage(error), fx),
            error => read_failed(&error),
        })
    }
}
