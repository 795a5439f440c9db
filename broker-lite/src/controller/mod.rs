//! A controller's node: a voter of the metadata quorum, and, while it leads, the machine that decides.
//!
//! In: requests and the clock. Out: requests to the other voters, committed records, answers.
//!
//! ```text
//! peers, brokers ─▶ Voter ──effects──▶ log, disk, peers
//!                     │ leads, and knows what is committed
//!                     ▼
//! brokers, clients ─▶ Controller ──records──▶ log ──committed──▶ image, journal, answers
//! ```
//!
//! Invariants: voter, machine and log change under one lock, so that the log never runs behind what the machine believes;
//! no answer leaves before what it says is committed, or before the vote it tells of is durable; the machine ends with
//! its leadership, and whoever waited for it is told so.

mod disk;
mod flush;
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_lite_core::config::BrokerConfig;
use broker_lite_core::controller::{Controller, Outcome};
use broker_lite_core::metadata::{Checkpoint, ConfigResource, Delta, Image};
use broker_lite_core::quorum::{
    Described, Effect, Fetch, Head, MetadataStore, Now, QuorumLog, Replica, Request, Response, Settings,
    SnapshotId, Voter, VoterError,
};
use bytes::Bytes;
use klamm_wire::metadata_records::MetadataRecord;
use klamm_wire::planted::{Bug, planted};
use klamm_wire::{ErrorCode, RawBatch};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::Signal;
use crate::cluster::{base64, random_uuid};
use crate::cluster_id::ClusterId;
use crate::disk::{Leave, PowerLoss, Stored};
use crate::journal::{Journal, NodeEvent};
use crate::node::{Life, Network, Party};
use crate::rt::{Rt, Tick};
pub(crate) use disk::VoterDisk;
use flush::Flushes;
use peers::Links;

type Store = MetadataStore<Stored>;
/// An answer of the quorum.
pub(crate) type Answered = Response<Vec<Bytes>>;

/// What a voter's process is given.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: i32,
    pub(crate) voters: BTreeSet<i32>,
    pub(crate) rt: Rt,
    pub(crate) life: Arc<Life>,
    pub(crate) network: Arc<Network>,
    pub(crate) cluster_id: ClusterId,
    /// With what follows from who this node is.
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) disk: Arc<VoterDisk>,
    /// Tells this process from those before it.
    pub(crate) start: u32,
    /// Whether the brokers that the log knows are all over, as where a whole cluster starts anew: until a controller of this
    /// start has said so.
    pub(crate) all_former: Arc<AtomicBool>,
}

/// One incarnation of one voter.
#[derive(Debug)]
pub(crate) struct ControllerNode {
    pub(crate) seat: Seat,
    limits: Limits,
    state: Mutex<State>,
    links: Links,
    /// There is something to be done earlier than was thought.
    rearm: Notify,
    /// Something was decided, or who decides has changed.
    changed: Notify,
    leave: Mutex<Leave>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    quorum: Settings,
    /// `metadata.max.idle.interval.ms`, or none.
    idle: Option<Duration>,
    /// `metadata.log.max.record.bytes.between.snapshots`
    snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`, or none.
    snapshot_interval: Option<Duration>,
    /// `metadata.log.segment.bytes`, but no more than lies between two snapshots: what they stand for is to go.
    segment_bytes: u64,
    /// `metadata.log.segment.ms`
    segment_ms: i64,
    /// `controller.quorum.append.linger.ms`: longest wait of what was decided for company.
    linger: Duration,
    /// How often a process looks whether it was held up.
    pulse: Duration,
}

impl Limits {
    fn new(config: &BrokerConfig) -> Self {
        let quorum = Settings::new(config);
        let session = config.millis("broker.session.timeout.ms").unwrap_or(Duration::from_secs(9));
        let some = |name: &str| config.millis(name).filter(|time| !time.is_zero());
        let bytes = |name: &str| config.int(name).and_then(|bytes| u64::try_from(bytes).ok());
        let snapshot_bytes = bytes("metadata.log.max.record.bytes.between.snapshots").unwrap_or(20 << 20);
        Self {
            quorum,
            idle: some("metadata.max.idle.interval.ms"),
            snapshot_bytes,
            segment_bytes: bytes("metadata.log.segment.bytes").unwrap_or(1 << 30).min(snapshot_bytes),
            segment_ms: config.int("metadata.log.segment.ms").unwrap_or(i64::MAX),
            snapshot_interval: some("metadata.log.max.snapshot.interval.ms"),
            linger: config.millis("controller.quorum.append.linger.ms").unwrap_or(Duration::from_millis(25)),
            pulse: (session / 4).min(quorum.fetch_timeout / 2).max(Duration::from_millis(5)),
        }
    }
}

#[derive(Debug)]
struct State {
    voter: Voter,
    /// `None` when the process is over.
    store: Option<Store>,
    /// What is committed adds up to this.
    image: Image,
    active: Option<Active>,
    waiting: Vec<Waiting>,
    flushes: Flushes,
    snapshot: LastSnapshot,
    armed: Option<Tick>,
}

impl State {
    /// The machine, if it is the active controller's.
    fn confirmed(&self) -> Option<&Active> {
        self.active.as_ref().filter(|active| active.confirmed)
    }
}

/// What has happened since the last snapshot.
#[derive(Debug)]
struct LastSnapshot {
    /// Bytes that were committed.
    grown: u64,
    at: Tick,
}

/// The machine that decides in an epoch. It goes by all there is in the leader's log, committed or not: nothing it answers
/// leaves before that is committed, and the record with which the leadership begins.
#[derive(Debug)]
struct Active {
    epoch: i32,
    machine: Controller,
    /// Since when.
    began: Tick,
    /// That record is committed, so it is the active controller.
    confirmed: bool,
    /// What was decided and waits for company, each to be a batch.
    pending: Vec<Vec<MetadataRecord>>,
    /// When something was last written.
    written: Tick,
}

/// What was decided, and what its answer has to wait for.
#[derive(Debug)]
pub(crate) struct Decided<R> {
    pub(crate) response: R,
    pub(crate) wait: Option<Wait>,
}

/// Somebody to be woken when the log has come so far.
#[derive(Debug)]
struct Waiting {
    until: Until,
    signal: Signal,
}

/// How far the log has to come.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// The end, committed or not: what a voter fetches makes it so.
    Appended(i64),
    Committed(i64),
}

/// A wait for a commit.
#[derive(Debug)]
pub(crate) struct Wait {
    at: i64,
    epoch: i32,
    signal: Signal,
}

impl ControllerNode {
    /// A voter that goes on with what its disk holds.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub(crate) fn new(seat: Seat) -> Result<Arc<Self>, String> {
        let (mut store, stored) = seat.disk.open().map_err(|error| error.to_string())?;
        let limits = Limits::new(&seat.config);
        store.set_segments(limits.segment_bytes, limits.segment_ms);
        let image = match store.latest_snapshot() {
            Some((id, bytes)) => Checkpoint::read(id, bytes)?,
            None => Image::default(),
        };
        if image.next_offset() > seat.journal.image(Image::next_offset) {
            seat.journal.restore(image.clone());
        }
        // Chance of its own, or the second process would give out the ids of the first.
        let rng = seat.rt.rng(&format!("voter {} {}", seat.id, seat.start));
        let now = now(&seat.rt);
        let voter = Voter::new(now, seat.id, seat.voters.clone(), limits.quorum, stored, &store, rng);
        let snapshot = LastSnapshot { grown: 0, at: now.tick };
        let state = State {
            voter,
            store: Some(store),
            image,
            active: None,
            waiting: Vec::new(),
            flushes: Flushes::new(stored),
            snapshot,
            armed: None,
        };
        Ok(Arc::new(Self {
            seat,
            limits,
            state: Mutex::new(state),
            links: Links::default(),
            rearm: Notify::new(),
            changed: Notify::new(),
            leave: Mutex::new(Leave::Killed),
        }))
    }

    /// Starts everything that runs by itself.
    pub(crate) fn run(self: &Arc<Self>) {
        self.seat.life.spawn(watch_deadlines(self.clone()));
    }

    pub(crate) fn id(&self) -> i32 {
        self.seat.id
    }

    pub(crate) fn rt(&self) -> &Rt {
        &self.seat.rt
    }

    fn party(&self) -> Party {
        Party::Controller(self.seat.id)
    }

    /// Says how this process will have left its disk. Call it before its life is ended.
    pub(crate) fn leave_as(&self, leave: Leave) {
        *self.leave.lock() = leave;
    }

    /// Ends this process, or its power, from inside.
    pub(crate) fn die(&self, power_off: bool) {
        let (leave, event) = match power_off {
            true => (Leave::PowerOff(PowerLoss::Unsynced), NodeEvent::PoweredOff),
            false => (Leave::Killed, NodeEvent::Killed),
        };
        self.leave_as(leave);
        if self.seat.life.kill().is_some() {
            self.release_storage();
            self.seat.journal.node_event(self.rt().now(), self.id(), event);
        }
    }

    /// Leaves the log on the disk. Call it after the process's life has ended; a second call changes nothing.
    pub(crate) fn release_storage(&self) {
        let mut state = self.state.lock();
        let (store, noted) = (state.store.take(), state.flushes.take_noted());
        drop(state);
        if let Some(mut store) = store {
            let leave = *self.leave.lock();
            if let (Leave::Clean { .. }, Some(noted)) = (leave, noted)
                && let Err(error) = store.note(&noted, &self.seat.voters)
            {
                tracing::warn!(node = self.id(), %error, "cannot write down who leads");
            }
            self.seat.disk.put_back(store, leave);
        }
    }

    /// Gives a leadership up before the process is stopped in order, and waits a moment for the others to hear of it.
    pub(crate) async fn resign(self: &Arc<Self>) {
        self.step(|voter, store, now, fx| {
            voter.resign(now, store, fx);
            Ok(())
        });
        let until = self.rt().now() + self.limits.quorum.request_timeout.min(Duration::from_secs(1));
        while self.state.lock().voter.is_leaving() && self.rt().now() < until {
            self.rt().sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the process because its log cannot be written, or contradicts the quorum.
    fn fail(self: &Arc<Self>, cause: &str) {
        if self.seat.life.is_dead() {
            return;
        }
        // First, as a process of its own ends with its node.
        tracing::error!(node = self.id(), cause, "the metadata log is offline and the controller stops");
        if self.seat.life.kill().is_none() {
            return;
        }
        let what = NodeEvent::DiskFailed { cause: cause.to_owned() };
        self.seat.journal.node_event(self.rt().now(), self.id(), what);
        let me = self.clone();
        self.rt().spawn(async move { me.release_storage() });
    }
}

/// Steps.
impl ControllerNode {
    /// Lets the voter act, and does what it wants done. `None` when the process is over.
    fn step<R>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Voter, &mut Store, Now, &mut Vec<Effect>) -> Result<R, VoterError>,
    ) -> Option<R> {
        let mut state = self.state.lock();
        let done = self.step_locked(&mut state, act);
        drop(state);
        match done? {
            Ok(result) => Some(result),
            Err(error) => {
                self.fail(&error.to_string());
                None
            }
        }
    }

    fn step_locked<R>(
        self: &Arc<Self>,
        state: &mut State,
        act: impl FnOnce(&mut Voter, &mut Store, Now, &mut Vec<Effect>) -> Result<R, VoterError>,
    ) -> Option<Result<R, VoterError>> {
        if self.seat.life.is_dead() {
            return None;
        }
        let now = now(&self.seat.rt);
        let mut fx = Vec::new();
        let result = act(&mut state.voter, state.store.as_mut()?, now, &mut fx);
        let result = result.and_then(|result| {
            self.apply(state, fx)?;
            self.settle(state, now)?;
            self.flush(state)?;
            Ok(result)
        });
        let deadline = self.deadline(state);
        if deadline < state.armed || state.armed.is_none() {
            self.rearm.notify_one();
        }
        Some(result)
    }

    /// As [`Self::step`], for what the voter itself has no part in.
    fn step_then(self: &Arc<Self>, act: impl FnOnce(&Arc<Self>, &mut State) -> Result<(), VoterError>) {
        let mut state = self.state.lock();
        if self.seat.life.is_dead() || state.store.is_none() {
            return;
        }
        let done = act(self, &mut state);
        drop(state);
        if let Err(error) = done {
            self.fail(&error.to_string());
        }
    }

    fn take_snapshot(&self, state: &mut State, id: SnapshotId) -> Result<(), VoterError> {
        let broken = |cause| VoterError::Broken { id: self.id(), cause };
        let Some(store) = &state.store else { return Ok(()) };
        let Some(bytes) = store.snapshot_bytes(id) else { return Ok(()) };
        state.image = Checkpoint::read(id, bytes).map_err(broken)?;
        state.snapshot = LastSnapshot { grown: 0, at: self.rt().now() };
        tracing::info!(node = self.id(), end_offset = id.end_offset, "took over a snapshot of the metadata");
        Ok(())
    }

    /// Draws the consequences of who leads and how far the log is committed.
    fn settle(self: &Arc<Self>, state: &mut State, now: Now) -> Result<(), VoterError> {
        self.follow_commits(state, now.tick)?;
        let epoch = state.voter.leading();
        if state.active.as_ref().map(|active| active.epoch) != epoch {
            state.active = None;
            if let Some(epoch) = epoch {
                self.activate(state, now, epoch)?;
            }
            self.changed.notify_waiters();
            // Those who wait for a commit ask whether it still can come.
            state.waiting.drain(..).for_each(|waiting| waiting.signal.notify_one());
        }
        self.confirm(state, now.tick);
        let committed = state.voter.high_watermark();
        let end = state.store.as_ref().map_or(committed, Store::end_offset);
        let has_come = |waiting: &mut Waiting| match waiting.until {
            Until::Appended(at) => at <= end,
            Until::Committed(at) => at <= committed,
        };
        for waiting in state.waiting.extract_if(.., has_come) {
            waiting.signal.notify_one();
        }
        self.snapshot_if_due(state, now)
    }

    fn follow_commits(&self, state: &mut State, now: Tick) -> Result<(), VoterError> {
        let committed = state.voter.high_watermark();
        let State { store: Some(store), image, snapshot, .. } = state else { return Ok(()) };
        self.replay(store, image, committed, |batch| {
            self.seat.journal.note(now, batch);
            snapshot.grown += batch.header().size_bytes() as u64;
        })
    }

    /// Brings an image up to an offset of the log.
    fn replay(
        &self,
        store: &Store,
        image: &mut Image,
        upto: i64,
        mut each: impl FnMut(&RawBatch),
    ) -> Result<(), VoterError> {
        let broken = |cause: String| VoterError::Broken { id: self.id(), cause };
        while image.next_offset() < upto {
            let from = image.next_offset();
            let batches = store.read(from, upto, 1 << 20)?;
            let mut bytes = match &batches[..] {
                [one] => one.clone(),
                many => many.concat().into(),
            };
            while let Some(batch) = RawBatch::split(&mut bytes) {
                let batch = batch.map_err(|error| broken(error.to_string()))?;
                let applied = image.apply_batch(&batch, &mut Delta::default());
                applied.map_err(|error| broken(error.to_string()))?;
                each(&batch);
            }
            if image.next_offset() == from {
                return Err(broken(format!("nothing can be read at offset {from}, which is in the log")));
            }
        }
        Ok(())
    }

    /// Makes the machine of an epoch that this voter leads from now on. What it decides goes along with the record with which
    /// the leadership begins.
    fn activate(self: &Arc<Self>, state: &mut State, now: Now, epoch: i32) -> Result<(), VoterError> {
        let Seat { rt, cluster_id, config, id, start, .. } = &self.seat;
        let Some(store) = &state.store else { return Ok(()) };
        let mut image = state.image.clone();
        self.replay(store, &mut image, store.end_offset(), |_| {})?;
        let mut rng = rt.rng(&format!("controller {id} {start} {epoch}"));
        // The first one writes it down; where nobody was told an id, it chooses one.
        let cluster_id = image.cluster_id().or(cluster_id.get()).map(str::to_owned);
        let cluster_id = cluster_id.unwrap_or_else(|| base64(random_uuid(&mut rng)));
        let machine = Controller::new(now.tick, &cluster_id, (**config).clone(), image, rng);
        state.active = Some(Active {
            epoch,
            machine,
            began: now.tick,
            confirmed: false,
            pending: Vec::new(),
            written: now.tick,
        });
        self.decide_locked(state, |machine, _| machine.bootstrap());
        if self.seat.all_former.load(Ordering::SeqCst) {
            self.decide_locked(state, |machine, _| machine.end_sessions());
        }
        self.append_pending(state)
    }

    /// Notes that its leadership is committed.
    fn confirm(&self, state: &mut State, now: Tick) {
        let epoch = state.voter.active_epoch();
        let Some(active) = state.active.as_mut().filter(|active| !active.confirmed) else { return };
        if epoch == Some(active.epoch) {
            active.confirmed = true;
            self.seat.all_former.store(false, Ordering::SeqCst);
            // Until now no answer could leave, so nobody could be heard from twice.
            active.machine.deaf(now.saturating_sub(active.began));
            tracing::info!(node = self.id(), epoch, "is the active controller");
            self.seat.journal.controller(now, self.id(), active.epoch);
            self.changed.notify_waiters();
        }
    }

    fn deadline(&self, state: &State) -> Option<Tick> {
        let active = state.confirmed();
        let machine = active.and_then(|active| active.machine.deadline());
        let idle = active.and_then(|active| Some(active.written + self.limits.idle?));
        [state.voter.deadline(), machine, idle].into_iter().flatten().min()
    }
}

/// Decisions.
impl ControllerNode {
    /// Lets the machine decide, and appends what it decided. `None` if another voter is the controller, or nobody.
    pub(crate) fn decide<R>(
        self: &Arc<Self>,
        decision: impl FnOnce(&mut Controller, Tick) -> Outcome<R>,
    ) -> Option<Decided<R>> {
        let mut state = self.state.lock();
        if self.seat.life.is_dead() {
            return None;
        }
        let decided = self.decide_and_flush(&mut state, decision);
        let armed = state.armed;
        let earlier = armed.is_none() || self.deadline(&state) < armed;
        drop(state);
        if earlier {
            self.rearm.notify_one();
        }
        self.changed.notify_waiters();
        match decided {
            Ok(decided) => decided,
            Err(error) => {
                self.fail(&error.to_string());
                None
            }
        }
    }

    fn decide_and_flush<R>(
        self: &Arc<Self>,
        state: &mut State,
        decision: impl FnOnce(&mut Controller, Tick) -> Outcome<R>,
    ) -> Result<Option<Decided<R>>, VoterError> {
        let Some((epoch, at, response)) = self.decide_locked(state, decision) else { return Ok(None) };
        self.gather(state)?;
        let wait = (state.voter.high_watermark() < at).then(|| {
            let signal = Signal::default();
            state.waiting.push(Waiting { until: Until::Committed(at), signal: signal.clone() });
            Wait { at, epoch, signal }
        });
        Ok(Some(Decided { response, wait }))
    }

    /// Lets the machine decide, and keeps that to be appended. Returns the epoch, what has to be committed before the answer
    /// leaves, and the answer.
    fn decide_locked<R>(
        self: &Arc<Self>,
        state: &mut State,
        decision: impl FnOnce(&mut Controller, Tick) -> Outcome<R>,
    ) -> Option<(i32, i64, R)> {
        let now = self.rt().now();
        let active = state.active.as_mut()?;
        let epoch = active.epoch;
        let Outcome { records, commit_at, response } = decision(&mut active.machine, now);
        if !records.is_empty() {
            active.written = now;
            active.pending.push(records);
        }
        Some((epoch, commit_at, response))
    }

    /// Appends what was decided.
    fn append_pending(self: &Arc<Self>, state: &mut State) -> Result<(), VoterError> {
        let (Some(active), Some(store)) = (&mut state.active, &mut state.store) else { return Ok(()) };
        for records in std::mem::take(&mut active.pending) {
            store.append_records(active.epoch, self.rt().wall_ms(), &records)?;
        }
        let mut fx = Vec::new();
        state.voter.appended(store, &mut fx);
        self.apply(state, fx)
    }

    /// Waits until what was decided is committed; `false` if this controller is none any more, and cannot tell.
    pub(crate) async fn committed(&self, wait: &Wait) -> bool {
        loop {
            {
                let mut state = self.state.lock();
                if state.active.as_ref().map(|active| active.epoch) != Some(wait.epoch) {
                    return false;
                }
                if state.voter.high_watermark() >= wait.at {
                    return true;
                }
                if !state.waiting.iter().any(|waiting| Arc::ptr_eq(&waiting.signal, &wait.signal)) {
                    let signal = wait.signal.clone();
                    state.waiting.push(Waiting { until: Until::Committed(wait.at), signal });
                }
            }
            wait.signal.notified().await;
        }
    }

    /// Forgets a signal that nobody waits for any more.
    pub(crate) fn forget(&self, signal: &Signal) {
        self.state.lock().waiting.retain(|waiting| !Arc::ptr_eq(&waiting.signal, signal));
    }

    /// The epoch in which it is the active controller.
    pub(crate) fn active_epoch(&self) -> Option<i32> {
        self.state.lock().confirmed().map(|active| active.epoch)
    }

    /// Waits until it is the active controller and each of the brokers, which may become others, has registered or sent a
    /// heartbeat since it became that.
    pub(crate) async fn until_heard_from(&self, brokers: impl Fn() -> Vec<i32>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let brokers = brokers();
            let all = {
                let state = self.state.lock();
                let active = state.confirmed();
                active.is_some_and(|active| brokers.iter().all(|id| active.machine.has_heard_from(*id)))
            };
            if all {
                return;
            }
            changed.await;
        }
    }

    /// Waits until something about it may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The quorum's own requests.
impl ControllerNode {
    /// Takes a request about leadership. The answer may leave when [`Self::durable`] says so. `None` when the process is
    /// over.
    pub(crate) fn answer(self: &Arc<Self>, request: &Request) -> Option<(Answered, u64)> {
        let mut state = self.state.lock();
        if matches!(request, Request::Vote(vote) if !vote.pre_vote) {
            state.flushes.claim();
        }
        let done = self
            .step_locked(&mut state, |voter, store, now, fx| Ok(voter.on_request(now, request, store, fx)));
        let asked = if planted(Bug::VoteWithoutFsync) { 0 } else { state.flushes.asked() };
        drop(state);
        match done? {
            Ok(answer) => Some((answer, asked)),
            Err(error) => {
                self.fail(&error.to_string());
                None
            }
        }
    }

    /// Waits until everything is durable that was asked to be before a step.
    pub(crate) async fn durable(&self, asked: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state.lock().flushes.done() >= asked {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn is_durable(&self, asked: u64) -> bool {
        self.state.lock().flushes.done() >= asked
    }

    /// Answers a Fetch of the log. If there is nothing new, `signal` is woken when there is.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        replica: Replica,
        fetch: &Fetch,
        max_bytes: usize,
        signal: &Signal,
    ) -> Option<(bool, Answered, i64)> {
        let mut state = self.state.lock();
        let done = self.step_locked(&mut state, |voter, store, now, fx| {
            voter.fetch(now, replica, fetch, max_bytes, store, fx)
        });
        let answer = match done? {
            Ok(answer) => answer,
            Err(error) => {
                drop(state);
                self.fail(&error.to_string());
                return None;
            }
        };
        let news = Voter::is_news::<Store>(fetch, &answer);
        if !news {
            state.waiting.retain(|waiting| !Arc::ptr_eq(&waiting.signal, signal));
            let committed = state.voter.high_watermark();
            let wake: &[Until] = match replica {
                Replica::Voter(_) => &[Until::Appended(fetch.offset + 1), Until::Committed(committed + 1)],
                Replica::Observer(_) => &[Until::Committed(fetch.offset + 1)],
            };
            state.waiting.extend(wake.iter().map(|until| Waiting { until: *until, signal: signal.clone() }));
        }
        let start = state.store.as_ref().map_or(0, Store::start_offset);
        Some((news, answer, start))
    }

    /// A part of a snapshot, with its size.
    pub(crate) fn snapshot_part(
        self: &Arc<Self>,
        replica: Replica,
        epoch: i32,
        id: SnapshotId,
        position: u64,
        max_bytes: usize,
    ) -> Result<(u64, Bytes, Head), Head> {
        let mut state = self.state.lock();
        state.voter.check_leads(epoch)?;
        let head = |error| Head { error, leader: state.voter.leader(), epoch: state.voter.epoch() };
        let missing = head(ErrorCode::SNAPSHOT_NOT_FOUND);
        let (outside, found) = (head(ErrorCode::POSITION_OUT_OF_RANGE), head(ErrorCode::NONE));
        let whole =
            state.store.as_ref().and_then(|store| store.snapshot_bytes(id).cloned()).ok_or(missing)?;
        let begin = usize::try_from(position).ok().filter(|begin| *begin < whole.len()).ok_or(outside)?;
        let part = whole.slice(begin..whole.len().min(begin.saturating_add(max_bytes.max(1))));
        state.voter.note_snapshot_fetch(now(&self.seat.rt), replica);
        Ok((whole.len() as u64, part, found))
    }

    /// Looks at what this voter knows to be committed.
    pub(crate) fn image<R>(&self, look: impl FnOnce(&Image) -> R) -> R {
        look(&self.state.lock().image)
    }

    /// Levels of the features as this voter knows them committed, and the offset up to which it does.
    pub(crate) fn finalized(&self) -> (BTreeMap<String, i16>, i64) {
        let state = self.state.lock();
        (state.image.features().clone(), state.image.next_offset() - 1)
    }

    /// Looks at what this voter knows committed, with the settings that are in force here by that.
    pub(crate) fn settings<T>(&self, look: impl FnOnce(&Image, &BrokerConfig) -> T) -> T {
        let state = self.state.lock();
        let own = state.image.configs(&ConfigResource::Broker(Some(self.seat.id)));
        let all = state.image.configs(&ConfigResource::Broker(None));
        look(&state.image, &self.seat.config.under(own, all))
    }

    /// The quorum as this voter sees it, if it leads; or else who does, as far as it knows.
    pub(crate) fn describe(&self) -> Result<Described, Head> {
        let state = self.state.lock();
        let described =
            state.store.as_ref().and_then(|store| state.voter.describe(now(&self.seat.rt), store));
        described.ok_or(Head {
            error: ErrorCode::NOT_LEADER_OR_FOLLOWER,
            leader: state.voter.leader(),
            epoch: state.voter.epoch(),
        })
    }

    fn snapshot_if_due(&self, state: &mut State, now: Now) -> Result<(), VoterError> {
        let Some(store) = &mut state.store else { return Ok(()) };
        let grown = state.snapshot.grown;
        let old = self.limits.snapshot_interval.is_some_and(|most| now.tick >= state.snapshot.at + most);
        if grown == 0 || (grown < self.limits.snapshot_bytes && !old) {
            return Ok(());
        }
        let end_offset = state.image.next_offset();
        let id = SnapshotId { end_offset, epoch: store.epoch_before(end_offset) };
        state.snapshot = LastSnapshot { grown: 0, at: now.tick };
        if let Some(bytes) = Checkpoint::write(id, &state.image, now.wall_ms) {
            tracing::info!(
                node = self.seat.id,
                end_offset,
                size = bytes.len(),
                "wrote a snapshot of the metadata"
            );
            store.keep_snapshot(id, bytes)?;
        }
        Ok(())
    }
}

fn now(rt: &Rt) -> Now {
    Now { tick: rt.now(), wall_ms: rt.wall_ms() }
}

/// Runs what is due, and notices when this process was held up: then others may have spoken unheard, and get that time
/// back.
async fn watch_deadlines(node: Arc<ControllerNode>) {
    let rt = node.seat.rt.clone();
    let mut pulse = rt.now();
    loop {
        let next = {
            let mut state = node.state.lock();
            state.armed = node.deadline(&state);
            state.armed
        };
        let due = pulse + node.limits.pulse;
        let wake = next.map_or(due, |next| next.min(due));
        tokio::select! {
            biased;
            () = node.rearm.notified() => {}
            () = rt.sleep_until(wake) => {}
        }
        let now = rt.now();
        let late = now.saturating_sub(due);
        if late > node.limits.pulse / 2 {
            node.deaf(late);
        }
        pulse = now;
        node.run_due(now);
    }
}

impl ControllerNode {
    fn deaf(self: &Arc<Self>, time: Duration) {
        tracing::debug!(node = self.id(), ?time, "was held up");
        let mut state = self.state.lock();
        state.voter.deaf(time);
        if let Some(active) = &mut state.active {
            active.machine.deaf(time);
        }
    }

    fn run_due(self: &Arc<Self>, now: Tick) {
        let (voter, machine, idle) = {
            let state = self.state.lock();
            let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
            let active = state.confirmed();
            let idle = active.and_then(|active| Some(active.written + self.limits.idle?));
            let machine = active.and_then(|active| active.machine.deadline());
            (due(state.voter.deadline()), due(machine), due(idle))
        };
        if voter {
            self.step(|voter, store, now, fx| voter.on_deadline(now, store, fx));
        }
        if machine {
            self.decide(|machine, now| machine.on_deadline(now));
        }
        if idle {
            self.decide(|machine, _| machine.no_op());
        }
    }
}
