//! Following a leader: append what it has, truncate where it says the logs part.
//!
//! Invariant: a follower never truncates by its high watermark, which may lag behind what is committed (KIP-101).

use klamm_wire::planted::{Bug, planted};
use klamm_wire::{BatchError, ErrorCode, RawBatch};

use super::{Effect, EpochEnd, FetchPosition, FetchedFromLeader, Replica, Role};
use crate::Tick;
use crate::log::LogError;
use crate::storage::Directory;

impl<D: Directory> Replica<D> {
    /// Where a follower asks next; `None` for any other role, and while [`Self::is_sync_due`]: the leader takes the
    /// offset as what is safe here.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        if self.is_sync_due() {
            return None;
        }
        let Role::Follower { leader, leader_epoch } = self.role else { return None };
        Some(FetchPosition {
            leader,
            current_leader_epoch: leader_epoch,
            offset: self.log.end_offset(),
            last_fetched_epoch: self.log.epochs().latest().unwrap_or(-1),
            log_start_offset: self.log.start_offset(),
        })
    }

    /// Appends what a follower has fetched, all or nothing of each batch, and follows the leader's high watermark and log start.
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH` for an answer of an earlier leadership, `CORRUPT_MESSAGE`, `OFFSET_OUT_OF_RANGE` for
    /// batches that do not continue this log; ask again from [`Self::fetch_position`].
    pub fn append_fetched(
        &mut self,
        now: Tick,
        fetched: &FetchedFromLeader,
        fx: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        self.check_following(fetched.leader_epoch)?;
        let before = self.log.end_offset();
        let outcome = self.append_batches(fetched, fx);
        if self.log.end_offset() > before {
            fx.push(Effect::Appended(self.log.end_offset()));
            self.flush_later(now);
            self.sync_if_due(fx);
        }
        outcome?;
        self.raise_high_watermark(now, fetched.high_watermark, fx);
        let start = fetched.log_start_offset.min(self.log.end_offset());
        self.log.advance_start(start).map_err(|error| self.write_failed(error, fx))?;
        self.raise_high_watermark(now, start, fx);
        Ok(())
    }

    fn append_batches(&mut self, fetched: &FetchedFromLeader, fx: &mut Vec<Effect>) -> Result<(), ErrorCode> {
        let mut rest = fetched.records.clone();
        while let Some(batch) = RawBatch::split(&mut rest) {
            let batch = batch.and_then(verified).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
            let header = batch.header();
            if header.partition_leader_epoch > self.leader_epoch {
                return Err(ErrorCode::UNKNOWN_LEADER_EPOCH);
            }
            let chunks = std::slice::from_ref(batch.bytes());
            self.log.append(header, chunks).map_err(|error| self.write_failed(error, fx))?;
        }
        Ok(())
    }

    /// Truncates a follower whose leader answered with a diverging epoch; ask again from [`Self::fetch_position`].
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH` for an answer of an earlier leadership, `KAFKA_STORAGE_ERROR`.
    pub fn truncate(
        &mut self,
        _now: Tick,
        leader_epoch: i32,
        diverging: EpochEnd,
        fx: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        self.check_following(leader_epoch)?;
        if self.log.epochs().latest() == Some(leader_epoch) {
            // What this leader wrote in its epoch is here, so the log is a prefix of the leader's by now: the answer was
            // overtaken.
            return Ok(());
        }
        // The leader has nothing of a later epoch before `end_offset`. If that epoch is unknown here, this log parts
        // from the leader's no later than where the next smaller epoch ends; another round may be needed (KIP-279).
        let here = self.log.end_of_epoch(diverging.epoch);
        let to = if here.end_offset < 0 {
            diverging.end_offset
        } else if here.epoch == diverging.epoch {
            here.end_offset.min(diverging.end_offset)
        } else {
            here.end_offset
        };
        self.truncate_to(to, fx)
    }

    /// Moves a follower into the leader's range after `OFFSET_OUT_OF_RANGE`. The leader's range comes from ListOffsets
    /// (earliest and latest, asked as a replica).
    ///
    /// # Errors
    ///
    /// As [`Self::truncate`].
    pub fn out_of_range(
        &mut self,
        now: Tick,
        leader_epoch: i32,
        leader_start: i64,
        leader_end: i64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        self.check_following(leader_epoch)?;
        if leader_end < self.log.end_offset() {
            return self.truncate_to(leader_end, fx);
        }
        if leader_start > self.log.end_offset() {
            self.log.restart_at(leader_start).map_err(|error| self.write_failed(error.into(), fx))?;
            fx.push(Effect::Truncated(leader_start));
            self.cut(fx);
            self.raise_high_watermark(now, leader_start, fx);
        }
        Ok(())
    }

    fn truncate_to(&mut self, offset: i64, fx: &mut Vec<Effect>) -> Result<(), ErrorCode> {
        let cut = self.log.truncate_to(offset).map_err(|error| self.write_failed(error, fx))?;
        if cut {
            fx.push(Effect::Truncated(self.log.end_offset()));
            self.cut(fx);
        }
        if self.high_watermark > self.log.end_offset() {
            // only after an unclean election: committed records are lost
            self.high_watermark = self.log.end_offset();
            self.checkpoint().map_err(|error| self.write_failed(LogError::Storage(error), fx))?;
        }
        Ok(())
    }

    fn check_following(&self, leader_epoch: i32) -> Result<(), ErrorCode> {
        match self.role {
            _ if self.failed => Err(ErrorCode::KAFKA_STORAGE_ERROR),
            Role::Follower { .. } if planted(Bug::NoEpochCheck) => Ok(()),
            Role::Follower { leader_epoch: current, .. } if current == leader_epoch => Ok(()),
            _ => Err(ErrorCode::FENCED_LEADER_EPOCH),
        }
    }
}

fn verified(batch: RawBatch) -> Result<RawBatch, BatchError> {
    batch.verify_crc().map(|()| batch)
}
