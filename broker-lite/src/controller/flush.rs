//! What a voter makes durable: its vote and its log, together.
//!
//! ```text
//! Persist ──▶ wanted ┐
//! Sync    ──▶ wanted ┴▶ one flush at a time ──▶ requests and answers that had to wait leave; the voter hears how far its
//!                       what comes meanwhile     log is durable
//!                       goes along with the next
//! ```
//!
//! What is decided while no flush is under way waits a little for company, where flushes take so long that this pays: each
//! would take as long for one record as for many. Until then it is shown to nobody.
//!
//! Invariant: a flush covers everything that was written when it began, so a vote is never durable without the log that it
//! was given or asked for with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::log::Syncing;
use broker_lite_core::quorum::{Effect, QuorumState, Request, VoterError};
use broker_lite_core::storage::{Directory, StorageError};
use klamm_wire::planted::{Bug, planted};

use super::{ControllerNode, State, now};
use crate::rt::Tick;

/// Part of a flush's time that is waited for company, and the shortest wait that is worth it.
const PART: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(1);

/// What is to become durable, and what waits for that.
#[derive(Debug)]
pub(super) struct Flushes {
    under_way: bool,
    /// What was decided last waits for company.
    gathering: bool,
    /// How long the last one took.
    took: Duration,
    /// There is something for the next one.
    wanted: bool,
    /// The state that goes along with the next one.
    state: Option<QuorumState>,
    /// What was last asked to be made durable.
    asked: Option<QuorumState>,
    /// Who leads, where that is all that is new: it goes along with a flush some time later.
    noted: Option<(QuorumState, Tick)>,
    /// How many states, or the like, were asked for, and how many of them are durable.
    counts: (u64, u64),
    /// What this process has found need not be durable, and no flush that is asked for covers it yet.
    inherited: bool,
    /// Requests, and the count each of them waits for.
    held: VecDeque<(u64, Held)>,
}

type Held = (i32, u64, Request);

/// A flush that has begun.
#[derive(Debug)]
struct Flush {
    begun: Syncing,
    cut: u64,
    count: u64,
}

impl Flushes {
    /// For a process that has found this state on its disk.
    pub(super) fn new(found: Option<QuorumState>) -> Self {
        Self {
            under_way: false,
            gathering: false,
            took: Duration::ZERO,
            wanted: false,
            state: None,
            asked: found,
            noted: None,
            counts: (0, 0),
            inherited: !planted(Bug::TrustUnsyncedVoter),
            held: VecDeque::new(),
        }
    }

    /// What an answer of now has to wait for; see [`ControllerNode::durable`].
    pub(super) fn asked(&self) -> u64 {
        self.counts.0
    }

    /// How far that has come.
    pub(super) fn done(&self) -> u64 {
        self.counts.1
    }

    /// The state that is not written down yet, if it is only that somebody leads.
    pub(super) fn take_noted(&mut self) -> Option<QuorumState> {
        self.noted.take().map(|(state, _)| state)
    }

    fn persist(&mut self, state: QuorumState, now: Tick) {
        // Epoch and vote bind the voter; who leads it would hear again.
        if self.asked.is_some_and(|asked| (asked.epoch, asked.voted) == (state.epoch, state.voted)) {
            match &mut self.state {
                Some(next) => *next = state,
                None => self.noted = Some((state, now)),
            }
            return;
        }
        self.counts.0 += 1;
        self.asked = Some(state);
        self.state = Some(state);
        self.noted = None;
        self.inherited = false;
        self.wanted = true;
    }

    /// Before this voter says what it has found, that has to be durable: the process before may have been killed.
    pub(super) fn claim(&mut self) {
        if std::mem::take(&mut self.inherited) {
            self.counts.0 += 1;
            self.wanted = true;
        }
    }
}

impl ControllerNode {
    pub(super) fn apply(self: &Arc<Self>, state: &mut State, fx: Vec<Effect>) -> Result<(), VoterError> {
        let mut fx = VecDeque::from(fx);
        while let Some(effect) = fx.pop_front() {
            match effect {
                // The next one says all that this one does.
                Effect::Persist(_) if matches!(fx.front(), Some(Effect::Persist(_))) => {}
                Effect::Persist(wanted) => state.flushes.persist(wanted, self.rt().now()),
                Effect::Send { to, number, request } => self.hold(state, (to, number, request)),
                Effect::Sync { end, cut } => {
                    state.flushes.wanted = true;
                    if let Some(store) =
                        state.store.as_ref().filter(|_| planted(Bug::MetadataLogWithoutFsync))
                    {
                        let mut counted = Vec::new();
                        state.voter.synced(now(self.rt()), end, cut, store, &mut counted);
                        fx.extend(counted);
                    }
                }
                Effect::SnapshotLoaded(id) => self.take_snapshot(state, id)?,
                Effect::Truncated(to) => {
                    tracing::info!(node = self.id(), to, "cut its metadata log back");
                }
                Effect::Elected { epoch } => {
                    tracing::info!(node = self.id(), epoch, "leads the metadata quorum");
                    self.seat.journal.elected(epoch, (self.id(), self.seat.start));
                }
                Effect::Deposed { epoch } => tracing::info!(node = self.id(), epoch, "leads no more"),
                // What follows from these is seen in the voter's state.
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends a request when what it rests on is durable.
    fn hold(self: &Arc<Self>, state: &mut State, (to, number, request): Held) {
        let flushes = &mut state.flushes;
        match &request {
            Request::Vote(vote) if vote.pre_vote => {}
            // It may go; its outcome has to wait.
            Request::Vote(_) => {
                flushes.claim();
                let wait = if planted(Bug::OwnVoteWithoutFsync) { 0 } else { flushes.asked() };
                return self.send(to, number, request, wait);
            }
            _ => flushes.claim(),
        }
        flushes.held.push_back((flushes.counts.0, (to, number, request)));
        self.release(state);
    }

    /// Sends what has not to wait any more.
    fn release(self: &Arc<Self>, state: &mut State) {
        let flushes = &mut state.flushes;
        while flushes.held.front().is_some_and(|(count, _)| *count <= flushes.counts.1)
            && let Some((count, (to, number, request))) = flushes.held.pop_front()
        {
            self.send(to, number, request, count);
        }
    }

    /// Begins to make durable what is wanted, unless that is under way. Call it at the end of every step.
    pub(super) fn flush(self: &Arc<Self>, state: &mut State) -> Result<(), VoterError> {
        while state.flushes.wanted && !state.flushes.under_way {
            let Some(flush) = self.begin(state)? else { return Ok(()) };
            let job =
                state.store.as_ref().and_then(|store| store.log().directory().job(&flush.begun.unsynced));
            let latency = self.seat.disk.disk.sync_latency();
            if latency.is_zero() && job.is_none() {
                self.flushed(state, &flush)?;
                continue;
            }
            state.flushes.under_way = true;
            let began = self.rt().now();
            let me = self.clone();
            self.seat.life.spawn(async move {
                let done = match job {
                    Some(job) => me.seat.disk.disk.carry_out(me.rt(), job, latency).await,
                    None => {
                        me.rt().sleep(latency).await;
                        Ok(())
                    }
                };
                me.step_then(|me, state| {
                    state.flushes.under_way = false;
                    state.flushes.took = me.rt().now().saturating_sub(began);
                    done.map_err(|error| VoterError::Log(error.into()))?;
                    me.flushed(state, &flush)?;
                    me.flush(state)
                });
                me.rearm.notify_one();
            });
        }
        Ok(())
    }

    /// Appends what was decided, and begins to make it durable, at once or when others may have decided something, too.
    pub(super) fn gather(self: &Arc<Self>, state: &mut State) -> Result<(), VoterError> {
        let flushes = &mut state.flushes;
        let wait = (flushes.took / PART).min(self.limits.linger);
        if flushes.gathering {
            return Ok(());
        }
        if flushes.under_way || wait < SHORTEST {
            return self.append_and_flush(state);
        }
        flushes.gathering = true;
        let me = self.clone();
        self.seat.life.spawn(async move {
            me.seat.rt.sleep(wait).await;
            me.step_then(|me, state| {
                state.flushes.gathering = false;
                me.append_and_flush(state)
            });
            me.rearm.notify_one();
        });
        Ok(())
    }

    fn append_and_flush(self: &Arc<Self>, state: &mut State) -> Result<(), VoterError> {
        self.append_pending(state)?;
        self.settle(state, now(&self.seat.rt))?;
        self.flush(state)
    }

    fn begin(&self, state: &mut State) -> Result<Option<Flush>, VoterError> {
        let failed = |error: StorageError| VoterError::Log(error.into());
        let (Some(store), flushes) = (&mut state.store, &mut state.flushes) else { return Ok(None) };
        flushes.wanted = false;
        // Not while others wait for what comes of an election.
        let settled = self.rt().now().saturating_sub(self.limits.quorum.fetch_timeout);
        let noted = flushes.noted.take_if(|(_, at)| *at <= settled).map(|(noted, _)| noted);
        let mut begun = None;
        if planted(Bug::VoteAfterItsFsync) {
            begun = Some(store.log_mut().begin_sync().map_err(failed)?);
        }
        if let Some(write) = flushes.state.take().or(noted) {
            store.note(&write, &self.seat.voters).map_err(failed)?;
        }
        let begun = match begun {
            Some(begun) => begun,
            None => store.log_mut().begin_sync().map_err(failed)?,
        };
        Ok(Some(Flush { begun, cut: state.voter.cuts(), count: flushes.counts.0 }))
    }

    fn flushed(self: &Arc<Self>, state: &mut State, flush: &Flush) -> Result<(), VoterError> {
        let failed = |error: StorageError| VoterError::Log(error.into());
        self.seat.disk.disk.sync().map_err(failed)?;
        let Some(store) = &mut state.store else { return Ok(()) };
        let Flush { begun, cut, count } = flush;
        if state.voter.cuts() == *cut {
            store.log_mut().end_sync(begun).map_err(failed)?;
        } else {
            store.log_mut().directory_mut().mark_synced(&begun.unsynced).map_err(failed)?;
        }
        let mut fx = Vec::new();
        let now = now(&self.seat.rt);
        state.voter.synced(now, begun.upto, *cut, store, &mut fx);
        state.flushes.counts.1 = state.flushes.counts.1.max(*count);
        self.release(state);
        self.apply(state, fx)?;
        self.settle(state, now)?;
        self.changed.notify_waiters();
        Ok(())
    }
}
