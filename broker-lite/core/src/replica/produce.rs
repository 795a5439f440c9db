//! Appending as leader, and telling when an append is committed.

use klamm_wire::batch::TimestampType;
use klamm_wire::planted::{Bug, planted};
use klamm_wire::{BatchHeader, ErrorCode};

use super::check::{check, one_batch};
use super::{AppendError, Appended, Effect, Produce, Replica};
use crate::Tick;
use crate::producer_state::Sequence;
use crate::storage::Directory;

const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;
const ACKS_LEADER: i16 = 1;

impl<D: Directory> Replica<D> {
    /// Appends one batch as leader.
    ///
    /// The answer waits until [`Self::acked`] says so for `last_offset + 1` with acks=-1, and until [`Self::is_durable`]
    /// does with acks=1.
    ///
    /// # Errors
    ///
    /// Kafka's code; nothing was appended.
    pub fn append(
        &mut self,
        now: Tick,
        wall_ms: i64,
        produce: &Produce,
        fx: &mut Vec<Effect>,
    ) -> Result<Appended, AppendError> {
        let batch = one_batch(produce)?;
        self.may_append(produce.acks)?;
        let start = self.log.start_offset();
        let checked = check(batch, wall_ms, &self.settings).map_err(|error| error.starting_at(start))?;
        let header = checked.header();
        if header.has_producer() {
            match self.log.producers().check(header) {
                Sequence::Next => {}
                Sequence::Duplicate(batch) => {
                    let (base, last) = (batch.base_offset, batch.last_offset);
                    return Ok(self.appended(base, last, batch.timestamp, true));
                }
                refused => return Err(out_of_sequence(header, refused).starting_at(start)),
            }
        }
        let append_time =
            (self.settings.message_timestamp_type == TimestampType::LogAppendTime).then_some(wall_ms);
        self.leave_behind(now);
        let (header, chunks) = checked.place(self.log.end_offset(), self.leader_epoch, append_time);
        if let Err(error) = self.log.append(&header, &chunks) {
            let message = error.to_string();
            return Err(AppendError::new(self.write_failed(error, fx), message));
        }
        fx.push(Effect::Appended(self.log.end_offset()));
        self.flush_later(now);
        self.sync_if_due(fx);
        self.advance_high_watermark(now, fx);
        Ok(self.appended(header.base_offset, header.last_offset(), append_time.unwrap_or(-1), false))
    }

    fn leave_behind(&mut self, now: Tick) {
        let (end, lag_max) = (self.log.end_offset(), self.settings.replica_lag_time_max);
        let followers = self.leading.iter_mut().flat_map(|leading| leading.followers.values_mut());
        followers.for_each(|follower| follower.left_behind(now, end, lag_max));
    }

    fn may_append(&self, acks: i16) -> Result<(), AppendError> {
        if !(ACKS_ALL..=ACKS_LEADER).contains(&acks) {
            let message = format!("acks must be {ACKS_ALL}, {ACKS_NONE} or {ACKS_LEADER}, not {acks}");
            return Err(AppendError::new(ErrorCode::INVALID_REQUIRED_ACKS, message));
        }
        let refuse = |code: ErrorCode| AppendError::new(code, format!("{} does not lead", self.identity));
        self.check_leader_epoch(None).map_err(refuse)?;
        self.check_leader().map_err(refuse)?;
        let (isr, needed) = (self.isr.len(), self.min_isr());
        if acks == ACKS_ALL && isr < needed {
            let message = format!("{isr} in-sync replicas, min.insync.replicas is {needed}");
            let refused = AppendError::new(ErrorCode::NOT_ENOUGH_REPLICAS, message);
            return Err(refused.starting_at(self.log.start_offset()));
        }
        Ok(())
    }

    fn appended(
        &self,
        base_offset: i64,
        last_offset: i64,
        log_append_time: i64,
        duplicate: bool,
    ) -> Appended {
        Appended {
            base_offset,
            last_offset,
            log_append_time,
            log_start_offset: self.log.start_offset(),
            leader_epoch: self.leader_epoch,
            duplicate,
        }
    }

    /// Tells whether everything before `offset` is committed: `Ok(false)` means wait.
    ///
    /// `leader_epoch` is the one in [`Appended`].
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER` if another leader may have come in between, `NOT_ENOUGH_REPLICAS_AFTER_APPEND` if the
    /// ISR has shrunk below `min.insync.replicas`, `KAFKA_STORAGE_ERROR`.
    pub fn acked(&self, leader_epoch: i32, offset: i64) -> Result<bool, ErrorCode> {
        let leading = self.check_still_leading(leader_epoch)?;
        if self.high_watermark < offset && !planted(Bug::AnswerBeforeCommit) {
            return Ok(false);
        }
        if leading.maximal_isr_len(&self.isr) < self.min_isr() {
            return Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
        }
        Ok(true)
    }

    /// `min.insync.replicas`, or all replicas if there are fewer.
    pub(super) fn min_isr(&self) -> usize {
        self.settings.min_insync_replicas.min(self.replicas.len())
    }
}

fn out_of_sequence(header: &BatchHeader, verdict: Sequence) -> AppendError {
    let who = format!("producer {} epoch {}", header.producer_id, header.producer_epoch);
    match verdict {
        Sequence::Fenced { epoch } => {
            AppendError::new(ErrorCode::INVALID_PRODUCER_EPOCH, format!("{who} is fenced by epoch {epoch}"))
        }
        Sequence::OutOfOrder { last } => {
            let message = format!("{who}: sequence {} cannot follow {last}", header.base_sequence);
            AppendError::new(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, message)
        }
        Sequence::Next | Sequence::Duplicate(_) => AppendError::new(ErrorCode::UNKNOWN_SERVER_ERROR, who),
    }
}
