//! One replica on this broker, its lock, and who waits for it.
//!
//! In: closures that run on the replica machine. Out: the machine's effects, carried out here.
//!
//! Invariant: the lock is never held across an await, and nobody who waits under it misses a change.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use broker_lite_core::replica::{Effect, Replica, ReplicaIdentity, Role};
use broker_lite_core::session::SessionPartition;
use broker_lite_core::storage::StorageError;
use bytes::Bytes;
use klamm_wire::planted::{Bug, planted};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Bell, Broker};
use crate::disk::{Job, Stored};
use crate::journal::NodeEvent;

/// Smaller ones are copied into the log anyway.
const MAYBE_KEPT_BYTES: usize = 64 << 10;

/// Wakes one request that waits for one or several partitions.
pub(crate) type Signal = Arc<Notify>;

/// A replica behind its lock.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) identity: ReplicaIdentity,
    /// Highest high watermark that any replica of this partition ever had.
    committed: Arc<AtomicI64>,
    /// Whether followers fetch from this replica, and this one from its leader, within the throttle.
    throttled: [AtomicBool; 2],
    state: Mutex<State>,
}

/// Which side of replication a throttle slows down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopySide {
    Leader = 0,
    Follower = 1,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    /// `None` once the incarnation is over or the partition has gone elsewhere.
    replica: Option<Replica<Stored>>,
    appends: Vec<Waiter>,
    commits: Vec<Waiter>,
    syncs: Vec<Waiter>,
    deletions: Vec<Waiter>,
    listeners: Vec<Listener>,
}

/// A fetch session that has looked at this partition.
#[derive(Debug)]
struct Listener {
    bell: Weak<Bell>,
    name: SessionPartition,
}

/// What a session waits for, or tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vitals {
    end: i64,
    high_watermark: i64,
    start: i64,
}

impl Vitals {
    fn of(replica: &Replica<Stored>) -> Self {
        Self {
            end: replica.log_end_offset(),
            high_watermark: replica.high_watermark(),
            start: replica.log_start_offset(),
        }
    }
}

#[derive(Debug)]
struct Waiter {
    /// Offset that the log end, the high watermark, or what is durable must reach.
    at: i64,
    signal: Signal,
}

/// An fsync that is carried out.
#[derive(Debug)]
struct Syncing {
    generation: u64,
    upto: i64,
    latency: Duration,
    /// What a real disk has to do.
    job: Option<Job>,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The log ends at or behind this offset.
    Appended(i64),
    /// The high watermark is at or behind this offset.
    Committed(i64),
    /// No living replica holds anything before this offset, as the leader knows.
    Deleted(i64),
    /// What counts here is at or behind this offset: with `flush.messages` = 1, what is durable.
    Synced(i64),
}

/// Records that a log in memory may keep: those that make up much of the frame they came in, which is kept with them.
/// Others are copied out, or a small batch could hold a request of 100 MB.
pub(crate) fn to_keep(records: Bytes, frame_bytes: usize) -> Bytes {
    /// The frame may be so many times as large.
    const TIMES: usize = 4;
    match records.len() {
        len if len < MAYBE_KEPT_BYTES || len.saturating_mul(TIMES) >= frame_bytes => records,
        _ => Bytes::copy_from_slice(&records),
    }
}

impl Partition {
    pub(crate) fn new(
        identity: ReplicaIdentity,
        replica: Replica<Stored>,
        committed: Arc<AtomicI64>,
    ) -> Arc<Self> {
        let replica = Some(replica);
        let state = State {
            replica,
            appends: Vec::new(),
            commits: Vec::new(),
            syncs: Vec::new(),
            deletions: Vec::new(),
            listeners: Vec::new(),
        };
        let throttled = [AtomicBool::new(false), AtomicBool::new(false)];
        Arc::new(Self { identity, committed, throttled, state: Mutex::new(state) })
    }

    /// Whether this replica is copied within the throttle of that side.
    pub(crate) fn is_throttled(&self, side: CopySide) -> bool {
        self.throttled[side as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn set_throttled(&self, side: CopySide, throttled: bool) {
        self.throttled[side as usize].store(throttled, Ordering::Relaxed);
    }

    /// Runs `work` on the replica and carries out its effects; `None` if the replica is gone.
    pub(crate) fn with<R>(
        self: &Arc<Self>,
        broker: &Broker,
        work: impl FnOnce(&mut Replica<Stored>, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        self.with_waiting(broker, |replica, fx| (work(replica, fx), None))
    }

    /// As [`Self::with`]; if `work` also returns something to wait for, `signal` is woken by it.
    pub(crate) fn with_waiting<R>(
        self: &Arc<Self>,
        broker: &Broker,
        work: impl FnOnce(&mut Replica<Stored>, &mut Vec<Effect>) -> (R, Option<(Until, Signal)>),
    ) -> Option<R> {
        let mut fx = Vec::new();
        let mut wake = Vec::new();
        let (result, deadline, later) = {
            let mut state = self.state.lock();
            let replica = state.replica.as_mut()?;
            let before = Vitals::of(replica);
            let (result, wait) = work(replica, &mut fx);
            let later = broker.begin_syncs(replica, &mut fx);
            let deadline = replica.deadline();
            let after = Vitals::of(replica);
            state.collect(&fx, &mut wake);
            state.ring(before, after, &fx);
            if let Some((until, signal)) = wait {
                state.wait(until, &signal);
            }
            (result, deadline, later)
        };
        wake.iter().for_each(|signal| signal.notify_one());
        later.into_iter().for_each(|sync| broker.sync_later(self, sync));
        broker.apply(self, fx);
        broker.isr.deadline(deadline);
        Some(result)
    }

    /// Looks at the replica without changing it.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Replica<Stored>) -> R) -> Option<R> {
        self.state.lock().replica.as_mut().map(look)
    }

    /// Wakes `signal` as soon as `until` holds; at once if it holds already or nothing is left to wait for.
    pub(crate) fn wait(&self, until: Until, signal: &Signal) {
        self.state.lock().wait(until, signal);
    }

    /// Forgets a signal that nobody waits for any more.
    pub(crate) fn forget(&self, signal: &Signal) {
        let mut state = self.state.lock();
        let State { appends, commits, syncs, deletions, .. } = &mut *state;
        for list in [appends, commits, syncs, deletions] {
            list.retain(|waiter| !Arc::ptr_eq(&waiter.signal, signal));
        }
    }

    /// Wakes everybody, after a change that waiting requests have to look at.
    pub(crate) fn wake_all(&self) {
        let mut wake = Vec::new();
        self.state.lock().take_all(&mut wake);
        wake.iter().for_each(|signal| signal.notify_one());
    }

    /// Lets a fetch session hear of every change from now on, as long as it lives.
    pub(crate) fn listen(&self, bell: &Arc<Bell>, name: &SessionPartition) {
        let mut state = self.state.lock();
        let known = |listener: &Listener| std::ptr::eq(listener.bell.as_ptr(), Arc::as_ptr(bell));
        if state.listeners.iter().any(known) {
            return;
        }
        state.listeners.retain(|listener| listener.bell.strong_count() > 0);
        state.listeners.push(Listener { bell: Arc::downgrade(bell), name: name.clone() });
    }

    /// Takes the replica away for good.
    pub(crate) fn retire(&self) -> Option<Replica<Stored>> {
        let replica = {
            let mut state = self.state.lock();
            state.ring_all();
            state.replica.take()
        };
        self.wake_all();
        replica
    }
}

impl State {
    fn wait(&mut self, until: Until, signal: &Signal) {
        let holds = self.replica.as_ref().is_none_or(|replica| match until {
            Until::Appended(at) => replica.log_end_offset() >= at,
            Until::Committed(at) => replica.high_watermark() >= at,
            Until::Synced(at) => replica.durable_end() >= at,
            Until::Deleted(at) => replica.low_watermark().map_or(true, |low| low >= at),
        });
        if holds {
            signal.notify_one();
            return;
        }
        let (list, at) = match until {
            Until::Appended(at) => (&mut self.appends, at),
            Until::Committed(at) => (&mut self.commits, at),
            Until::Synced(at) => (&mut self.syncs, at),
            Until::Deleted(at) => (&mut self.deletions, at),
        };
        match list.iter_mut().find(|waiter| Arc::ptr_eq(&waiter.signal, signal)) {
            Some(waiter) => waiter.at = waiter.at.min(at),
            None => list.push(Waiter { at, signal: signal.clone() }),
        }
    }

    fn collect(&mut self, fx: &[Effect], wake: &mut Vec<Signal>) {
        for effect in fx {
            match effect {
                Effect::Appended(end) => take_reached(&mut self.appends, *end, wake),
                Effect::HighWatermark(mark) => take_reached(&mut self.commits, *mark, wake),
                Effect::Synced(end) => take_reached(&mut self.syncs, *end, wake),
                Effect::LowWatermark(low) => take_reached(&mut self.deletions, *low, wake),
                Effect::RoleChanged(_) | Effect::Truncated(_) | Effect::StorageFailed(_) => {
                    self.take_all(wake);
                }
                Effect::AlterPartition(_) | Effect::Sync { .. } => {}
            }
        }
    }

    /// Tells fetch sessions: a follower goes on when the log grows, a consumer when the high watermark rises, all when the
    /// role is another or the log begins or ends elsewhere than they think.
    fn ring(&self, before: Vitals, after: Vitals, fx: &[Effect]) {
        if self.listeners.is_empty() {
            return;
        }
        if fx.iter().any(|effect| matches!(effect, Effect::RoleChanged(_) | Effect::Truncated(_))) {
            self.ring_all();
        } else if before != after {
            for listener in &self.listeners {
                let Some(bell) = listener.bell.upgrade() else { continue };
                let wake = match bell.follower || planted(Bug::ReadUncommitted) {
                    true => after.end > before.end,
                    false => after.high_watermark > before.high_watermark,
                };
                let concerned =
                    wake || after.high_watermark != before.high_watermark || after.start != before.start;
                if concerned {
                    bell.ring(&listener.name, wake);
                }
            }
        }
    }

    fn ring_all(&self) {
        for listener in &self.listeners {
            if let Some(bell) = listener.bell.upgrade() {
                bell.ring(&listener.name, true);
            }
        }
    }

    fn take_all(&mut self, wake: &mut Vec<Signal>) {
        let Self { appends, commits, syncs, deletions, .. } = self;
        let all =
            appends.drain(..).chain(commits.drain(..)).chain(syncs.drain(..)).chain(deletions.drain(..));
        wake.extend(all.map(|waiter| waiter.signal));
    }
}

fn take_reached(list: &mut Vec<Waiter>, reached: i64, wake: &mut Vec<Signal>) {
    wake.extend(list.extract_if(.., |waiter| waiter.at <= reached).map(|waiter| waiter.signal));
}

impl Broker {
    /// Carries out the syncs asked for: at once on a disk that takes no time, under the lock that the append is under.
    /// Returns those that take time.
    fn begin_syncs(&self, replica: &mut Replica<Stored>, fx: &mut Vec<Effect>) -> Vec<Syncing> {
        let mut later = Vec::new();
        while let Some(at) = fx.iter().position(|effect| matches!(effect, Effect::Sync { .. })) {
            if let Effect::Sync { generation, upto } = fx.remove(at) {
                let job = replica.under_way().and_then(|unsynced| replica.log().directory().job(unsynced));
                let sync = Syncing { generation, upto, latency: self.disk.sync_latency(), job };
                if sync.latency.is_zero() && sync.job.is_none() {
                    self.end_sync(&sync, Ok(()), replica, fx);
                } else {
                    later.push(sync);
                }
            }
        }
        later
    }

    fn end_sync(
        &self,
        sync: &Syncing,
        done: Result<(), StorageError>,
        replica: &mut Replica<Stored>,
        fx: &mut Vec<Effect>,
    ) {
        match done.and_then(|()| self.disk.sync()) {
            Ok(()) => replica.synced(self.rt.now(), sync.generation, sync.upto, fx),
            Err(error) => replica.sync_failed(&error, fx),
        }
    }

    fn sync_later(&self, partition: &Arc<Partition>, mut sync: Syncing) {
        let (Some(broker), partition) = (self.me.upgrade(), partition.clone()) else { return };
        self.life.spawn(async move {
            let done = match sync.job.take() {
                Some(job) => broker.disk.carry_out(&broker.rt, job, sync.latency).await,
                None => {
                    broker.rt.sleep(sync.latency).await;
                    Ok(())
                }
            };
            partition.with(&broker, |replica, fx| broker.end_sync(&sync, done, replica, fx));
        });
    }

    /// Carries out what a replica asks for.
    fn apply(&self, partition: &Arc<Partition>, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::AlterPartition(proposal) => self.isr.propose(partition.clone(), proposal),
                Effect::RoleChanged(role) => {
                    self.groups.role_changed(self, partition, role);
                    let leader = match role {
                        Role::Follower { leader, .. } => Some(leader),
                        Role::Leader { .. } | Role::Offline => None,
                    };
                    self.fetchers.follow(self, partition, leader);
                }
                Effect::StorageFailed(cause) => {
                    tracing::debug!(replica = %partition.identity, cause, "replica is offline");
                    self.go_offline(&cause);
                }
                Effect::Truncated(to) => {
                    let identity = &partition.identity;
                    tracing::info!(replica = %identity, end = to, "truncated");
                    let (topic, partition) = (identity.topic.to_string(), identity.partition);
                    let event = NodeEvent::Truncated { topic, partition, to };
                    self.journal.node_event(self.rt.now(), self.id(), event);
                }
                Effect::Synced(_) => self.fetchers.synced(partition),
                Effect::HighWatermark(mark) => {
                    partition.committed.fetch_max(mark, Ordering::Relaxed);
                }
                // What was synced at once, or takes time, was taken out before.
                Effect::Appended(_) | Effect::LowWatermark(_) | Effect::Sync { .. } => {}
            }
        }
    }
}
