//! Records count only once they are durable (`flush.messages` = 1), by group commit.
//!
//! ```text
//! appended ──▶ Effect::Sync ──▶ the driver's disk ──▶ synced ──▶ high watermark, acks=1, next fetch
//!     └─ while one is under way: goes along with the next one
//! ```
//!
//! At other values of `flush.messages`, by `flush.ms`, and when a segment is full, a sync is asked for that nobody waits
//! for: it moves the recovery point.
//!
//! Invariant: while this is on, nothing at or behind [`Replica::durable_end`] is acknowledged, counted for the high
//! watermark, or named by a fetch as held.

use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::{Effect, Replica, ReplicaSettings};
use crate::Tick;
use crate::log::Syncing;
use crate::storage::{Directory, StorageError, Unsynced};

/// How far the log is durable, and what is being done about the rest.
#[derive(Debug, Clone)]
pub(super) struct Durability {
    /// Everything before this offset survives a loss of power.
    end: i64,
    /// Counts what was cut off: a sync from before a cut vouches for nothing.
    generation: u64,
    /// The one sync that is being carried out.
    under_way: Option<Syncing>,
    /// When `flush.ms` is over, and whether it is.
    flush_at: Option<Tick>,
    flush: bool,
}

impl Durability {
    pub(super) fn new(end: i64) -> Self {
        Self { end, generation: 0, under_way: None, flush_at: None, flush: false }
    }
}

impl<D: Directory> Replica<D> {
    /// Where what counts ends: what is durable, or the log if `flush.messages` does not ask for that.
    pub fn durable_end(&self) -> i64 {
        let waits = self.settings.sync_before_ack && !planted(Bug::SkipFsync);
        if waits { self.durability.end } else { self.log.end_offset() }
    }

    /// Whether records wait to become durable. A follower does not fetch meanwhile, as its fetch would tell that it
    /// holds them.
    pub fn is_sync_due(&self) -> bool {
        self.durable_end() < self.log.end_offset()
    }

    /// Tells whether everything before `offset` may be acknowledged to acks=1: `Ok(false)` means wait.
    ///
    /// `leader_epoch` is the one in [`Appended`](super::Appended).
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER` if another leader may have come in between, `KAFKA_STORAGE_ERROR`.
    pub fn is_durable(&self, leader_epoch: i32, offset: i64) -> Result<bool, ErrorCode> {
        self.check_still_leading(leader_epoch)?;
        Ok(self.durable_end() >= offset)
    }

    /// Replaces the settings, after a change of the topic's configuration.
    pub fn set_settings(
        &mut self,
        now: Tick,
        settings: impl Into<Arc<ReplicaSettings>>,
        fx: &mut Vec<Effect>,
    ) {
        let settings = settings.into();
        let before = self.durable_end();
        self.log.set_settings(settings.log.clone());
        self.settings = settings;
        if self.failed {
            return;
        }
        if self.durable_end() > before {
            fx.push(Effect::Synced(self.durable_end()));
        }
        self.sync_if_due(fx);
        self.advance_high_watermark(now, fx);
    }

    /// Takes the end of the sync that [`Effect::Sync`] asked for: everything before `upto` is durable.
    pub fn synced(&mut self, now: Tick, generation: u64, upto: i64, fx: &mut Vec<Effect>) {
        let this_one = |sync: &Syncing| generation == self.durability.generation && sync.upto == upto;
        let Some(done) = self.durability.under_way.take_if(|sync| this_one(sync)) else { return };
        if let Err(error) = self.log.end_sync(&done) {
            return self.fail(&error, fx);
        }
        self.durability.end = self.durability.end.max(done.upto);
        fx.push(Effect::Synced(done.upto));
        self.advance_high_watermark(now, fx);
        self.sync_if_due(fx);
    }

    /// Takes the failure of a sync, of whichever generation: what has not become durable is gone from memory too, so
    /// that another try would succeed and prove nothing.
    pub fn sync_failed(&mut self, error: &StorageError, fx: &mut Vec<Effect>) {
        if !self.failed {
            self.fail(error, fx);
        }
    }

    /// Whether nobody waits for it, but a sync is due by `flush.messages`, by `flush.ms`, or because a segment is full.
    fn is_flush_due(&self) -> bool {
        let unsynced = self.log.end_offset() - self.log.recovery_point();
        unsynced > 0
            && (self.durability.flush
                || unsynced >= self.settings.log.flush_messages
                || self.log.has_rolled())
    }

    /// When what is not durable becomes so by `flush.ms`.
    pub(super) fn flush_deadline(&self) -> Option<Tick> {
        self.durability.flush_at
    }

    /// Begins to flush if that is due by time.
    pub(super) fn flush_on_deadline(&mut self, now: Tick, fx: &mut Vec<Effect>) {
        if self.durability.flush_at.is_some_and(|at| at <= now) {
            self.durability.flush_at = None;
            self.durability.flush = true;
            self.sync_if_due(fx);
        }
    }

    /// Counts the time for `flush.ms` from the first record on that is not durable.
    pub(super) fn flush_later(&mut self, now: Tick) {
        if let Some(interval) = self.settings.log.flush_interval.filter(|_| !self.settings.sync_before_ack) {
            self.durability.flush_at.get_or_insert(now.saturating_add(interval));
        }
    }

    /// Asks for a sync if records wait for one, or it is time, and none is under way.
    pub(super) fn sync_if_due(&mut self, fx: &mut Vec<Effect>) {
        let due = match self.settings.sync_before_ack {
            true => self.is_sync_due(),
            false => self.is_flush_due(),
        };
        if self.failed || !due || self.durability.under_way.is_some() {
            return;
        }
        self.durability.flush = false;
        let sync = match self.log.begin_sync() {
            Ok(sync) => sync,
            Err(error) => return self.fail(&error, fx),
        };
        let (generation, upto) = (self.durability.generation, sync.upto);
        self.durability.under_way = Some(sync);
        fx.push(Effect::Sync { generation, upto });
    }

    /// Call it when the log was cut, or emptied.
    pub(super) fn cut(&mut self, fx: &mut Vec<Effect>) {
        let end = self.log.end_offset();
        let durable = self.log.synced_offset().unwrap_or(self.durability.end);
        self.durability.end = self.durability.end.max(durable).min(end);
        self.durability.generation += 1;
        self.durability.under_way = None;
        self.sync_if_due(fx);
    }

    /// What the sync under way makes durable, for whoever owns the disk.
    pub fn under_way(&self) -> Option<&Unsynced> {
        self.durability.under_way.as_ref().map(|sync| &sync.unsynced)
    }

    pub(super) fn stop_syncing(&mut self) {
        self.durability.under_way = None;
        self.durability.flush_at = None;
    }
}
