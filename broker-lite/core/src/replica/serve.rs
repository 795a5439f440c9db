//! Serving fetches and offset queries.

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::{
    Effect, EpochEnd, FetchFrom, Fetched, Fetcher, FoundOffset, OffsetAt, Replica, Role, read_failed,
};
use crate::Tick;
use crate::storage::Directory;

impl<D: Directory> Replica<D> {
    /// Serves a fetch. That of a follower also tells how far the follower is, which may move the high watermark and
    /// the ISR.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE`, `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH`, `NOT_LEADER_OR_FOLLOWER`,
    /// `CORRUPT_MESSAGE`, `KAFKA_STORAGE_ERROR`.
    pub fn read(&mut self, now: Tick, from: &FetchFrom, fx: &mut Vec<Effect>) -> Result<Fetched, ErrorCode> {
        self.may_read(from)?;
        if let Some(diverging) = self.divergence(from)? {
            return Ok(Fetched { diverging: Some(diverging), ..self.fetched() });
        }
        let limit = match from.fetcher {
            Fetcher::Replica { .. } => self.log.end_offset(),
            Fetcher::Consumer { .. } if planted(Bug::ReadUncommitted) => self.log.end_offset(),
            Fetcher::Consumer { .. } => self.high_watermark,
        };
        let records = self
            .log
            .read(from.offset, limit, from.max_bytes, from.min_one)
            .map_err(|error| read_failed(&error))?;
        if let Fetcher::Replica { id, epoch, .. } = from.fetcher {
            self.follower_fetched(now, id, epoch, from.offset, fx);
        }
        Ok(Fetched { records, limit, ..self.fetched() })
    }

    fn may_read(&self, from: &FetchFrom) -> Result<(), ErrorCode> {
        self.check_leader_epoch(from.current_leader_epoch)?;
        match (from.fetcher, &self.leading) {
            (Fetcher::Replica { id, epoch, .. }, Some(leading)) => {
                let known = leading.followers.contains_key(&id);
                // a fetch from before the broker's restart (KIP-903)
                let stale = epoch >= 0 && self.alive.get(&id).is_some_and(|registered| epoch < *registered);
                if known && !stale { Ok(()) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
            }
            (Fetcher::Consumer { .. }, Some(_)) => Ok(()),
            (Fetcher::Consumer { follower_ok: true }, None) if self.role != Role::Offline => Ok(()),
            _ => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        }
    }

    /// Where the fetcher's log parts from this one, if it does (KIP-595).
    fn divergence(&self, from: &FetchFrom) -> Result<Option<EpochEnd>, ErrorCode> {
        let Some(epoch) = from.last_fetched_epoch.filter(|epoch| *epoch >= 0) else { return Ok(None) };
        if planted(Bug::NoTruncation) {
            return Ok(None);
        }
        let end = self.log.end_of_epoch(epoch);
        if end.epoch < 0 || end.end_offset < 0 || from.offset < self.log.start_offset() {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        Ok((end.epoch < epoch || end.end_offset < from.offset).then_some(end))
    }

    fn fetched(&self) -> Fetched {
        Fetched {
            records: Vec::new(),
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            log_start_offset: self.log.start_offset(),
            limit: self.high_watermark,
            diverging: None,
        }
    }

    fn follower_fetched(&mut self, now: Tick, id: i32, epoch: i64, offset: i64, fx: &mut Vec<Effect>) {
        let end = self.log.end_offset();
        let follower = self.leading.as_mut().and_then(|leading| leading.followers.get_mut(&id));
        if let Some(follower) = follower {
            follower.fetched(now, offset, end, epoch);
            self.maybe_expand_isr(now, id, fx);
            self.advance_high_watermark(now, fx);
        }
    }

    /// Answers ListOffsets. `as_replica` reads to the end of the log, everybody else to the high watermark.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and `OFFSET_NOT_AVAILABLE` while a new leader does not know its high watermark.
    pub fn list_offset(
        &self,
        at: OffsetAt,
        current_leader_epoch: Option<i32>,
        as_replica: bool,
    ) -> Result<FoundOffset, ErrorCode> {
        self.check_leader_epoch(current_leader_epoch)?;
        let epoch_start = self.check_leader()?.epoch_start;
        let limit = if as_replica { self.log.end_offset() } else { self.high_watermark };
        let not_yet = !as_replica && epoch_start > self.high_watermark;
        let decompression_limit = self.settings.decompression_limit_bytes;
        let found = match at {
            OffsetAt::Earliest => {
                let offset = self.log.start_offset();
                let leader_epoch = self.log.epochs().epoch_at(offset).unwrap_or(-1);
                return Ok(FoundOffset { offset, timestamp: -1, leader_epoch });
            }
            OffsetAt::Latest if not_yet => return Err(ErrorCode::OFFSET_NOT_AVAILABLE),
            OffsetAt::Latest => {
                return Ok(FoundOffset { offset: limit, timestamp: -1, leader_epoch: self.leader_epoch });
            }
            OffsetAt::Tiered => return Ok(FoundOffset::NONE),
            OffsetAt::MaxTimestamp => self.log.at_max_timestamp(limit, decompression_limit),
            OffsetAt::Timestamp(time) => self.log.at_timestamp(time, limit, decompression_limit),
        };
        match found.map_err(|error| read_failed(&error))? {
            Some(found) => Ok(found),
            None if not_yet => Err(ErrorCode::OFFSET_NOT_AVAILABLE),
            None => Ok(FoundOffset::NONE),
        }
    }

    /// Answers OffsetForLeaderEpoch.
    ///
    /// # Errors
    ///
    /// `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH`, `NOT_LEADER_OR_FOLLOWER`.
    pub fn offset_for_leader_epoch(
        &self,
        current_leader_epoch: Option<i32>,
        epoch: i32,
    ) -> Result<EpochEnd, ErrorCode> {
        self.check_leader_epoch(current_leader_epoch)?;
        self.check_leader()?;
        Ok(self.log.end_of_epoch(epoch))
    }
}
