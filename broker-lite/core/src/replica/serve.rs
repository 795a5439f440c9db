//! Serving fetches and offset queries.

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::{
    Effect, EpochEnd, FetchFrom, Fetched, Fetcher, FoundOffset, ListedBy, OffsetAt, Replica, Role,
    read_failed,
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
        if let Fetcher::Replica { id, epoch, log_start_offset } = from.fetcher {
            self.follower_fetched(now, id, epoch, (log_start_offset, from.offset), fx);
        }
        let ask_again = matches!(from.fetcher, Fetcher::Replica { id, .. } if !self.isr.contains(&id));
        Ok(Fetched { records, limit, ask_again, ..self.fetched() })
    }

    fn may_read(&self, from: &FetchFrom) -> Result<(), ErrorCode> {
        self.check_leader_epoch(from.current_leader_epoch)?;
        match (from.fetcher, &self.leading) {
            (Fetcher::Replica { id, epoch, .. }, Some(leading)) => {
                if !leading.followers.contains_key(&id) {
                    // One that knows the epoch may know of the reassignment that makes it a replica before this
                    // leader does: it is to ask again.
                    let knows = from.current_leader_epoch.is_some();
                    let code = if knows {
                        ErrorCode::UNKNOWN_LEADER_EPOCH
                    } else {
                        ErrorCode::NOT_LEADER_OR_FOLLOWER
                    };
                    return Err(code);
                }
                // a fetch from before the broker's restart (KIP-903)
                let stale = epoch >= 0 && self.alive.get(&id).is_some_and(|registered| epoch < *registered);
                if stale { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) } else { Ok(()) }
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
            preferred_read_replica: None,
            ask_again: false,
        }
    }

    /// As [`Self::read`] for a consumer in a rack, where consumers are to read from replicas nearby (KIP-392,
    /// `replica.selector.class`): an in-sync follower in its rack that holds the offset is named instead of reading, unless
    /// this leader is in that rack itself.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_nearby(
        &mut self,
        now: Tick,
        from: &FetchFrom,
        in_rack: &dyn Fn(i32) -> bool,
        fx: &mut Vec<Effect>,
    ) -> Result<Fetched, ErrorCode> {
        match self.preferred_read_replica(from.offset, in_rack) {
            None => self.read(now, from, fx),
            Some(preferred) => {
                self.check_leader_epoch(from.current_leader_epoch)?;
                Ok(Fetched { preferred_read_replica: Some(preferred), ..self.fetched() })
            }
        }
    }

    /// The most caught up one of those in the rack.
    fn preferred_read_replica(&self, offset: i64, in_rack: &dyn Fn(i32) -> bool) -> Option<i32> {
        let leading = self.leading.as_ref()?;
        if in_rack(self.identity.broker_id) {
            return None;
        }
        let holds = |follower: &super::leader::Follower| {
            follower.end_offset.filter(|end| *end >= offset && follower.start_offset <= offset)
        };
        let members = leading.followers.iter().filter(|(id, _)| self.isr.contains(id) && in_rack(**id));
        let able = members.filter_map(|(id, follower)| Some((holds(follower)?, follower.caught_up(), *id)));
        able.max().map(|(_, _, id)| id)
    }

    fn follower_fetched(
        &mut self,
        now: Tick,
        id: i32,
        epoch: i64,
        (start, offset): (i64, i64),
        fx: &mut Vec<Effect>,
    ) {
        let end = self.log.end_offset();
        let follower = self.leading.as_mut().and_then(|leading| leading.followers.get_mut(&id));
        if let Some(follower) = follower {
            follower.fetched(now, offset, end, epoch);
            let moved = std::mem::replace(&mut follower.start_offset, start) != start;
            self.maybe_expand_isr(now, id, fx);
            self.advance_high_watermark(now, fx);
            if let Some(low) = self.low_watermark().ok().filter(|_| moved) {
                fx.push(Effect::LowWatermark(low));
            }
        }
    }

    /// Answers ListOffsets. A client reads to the high watermark, everybody else to the end of the log; only a tool that
    /// looks into replicas ([`ListedBy::Debugger`]) is answered by followers, too.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and `OFFSET_NOT_AVAILABLE` while a new leader does not know its high watermark.
    pub fn list_offset(
        &self,
        at: OffsetAt,
        current_leader_epoch: Option<i32>,
        by: ListedBy,
    ) -> Result<FoundOffset, ErrorCode> {
        self.check_leader_epoch(current_leader_epoch)?;
        let epoch_start = match (by, self.check_leader()) {
            (_, Ok(leading)) => Some(leading.epoch_start),
            (ListedBy::Debugger, Err(_)) if self.role != Role::Offline => None,
            (_, Err(code)) => return Err(code),
        };
        let client = by == ListedBy::Client;
        let limit = if client { self.high_watermark } else { self.log.end_offset() };
        let not_yet = client && epoch_start.is_some_and(|start| start > self.high_watermark);
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
            // the latest record of all, and only if it may be read
            OffsetAt::MaxTimestamp => {
                let found = self.log.at_max_timestamp(self.log.end_offset(), decompression_limit);
                found.map(|found| found.filter(|found| found.offset < limit))
            }
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
