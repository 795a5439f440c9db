//! The coordinator of one partition: its machine, who waits for answers, and the task that wakes it.
//!
//! Lock order: a shard before its partition. Whoever holds the metadata or a partition only marks a shard as over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker_lite_core::group::{GroupCoordinator, GroupSettings, Response, Turn};
use klamm_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Asked;
use super::log::PartitionLog;
use crate::broker::{Broker, Partition, Signal, Until};
use crate::rt::Tick;

/// The coordinator of one partition. See the module.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) partition: Arc<Partition>,
    /// Leader epoch in which it began.
    pub(super) leader_epoch: i32,
    over: AtomicBool,
    /// Wakes the task.
    pub(super) signal: Signal,
    loaded: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    waiting: BTreeMap<u64, oneshot::Sender<Response>>,
    next_token: u64,
    /// What the task waits for.
    armed: Wanted,
}

#[derive(Debug)]
enum Stage {
    Loading,
    Active(Box<GroupCoordinator>),
    Over,
}

/// When the machine wants to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    deadline: Option<Tick>,
    /// End of the first write that is not replicated yet.
    write: Option<i64>,
}

impl Shard {
    pub(super) fn new(partition: Arc<Partition>, leader_epoch: i32) -> Arc<Self> {
        let state = State {
            stage: Stage::Loading,
            waiting: BTreeMap::new(),
            next_token: 0,
            armed: Wanted::default(),
        };
        Arc::new(Self {
            partition,
            leader_epoch,
            over: AtomicBool::new(false),
            signal: Signal::default(),
            loaded: Notify::new(),
            state: Mutex::new(state),
        })
    }

    pub(super) fn is_of(&self, partition: &Arc<Partition>) -> bool {
        Arc::ptr_eq(&self.partition, partition)
    }

    /// Whether it may stay in the new leader epoch of a replica: only if nobody else has led in between.
    pub(super) fn goes_on(&self, partition: &Arc<Partition>) -> bool {
        self.is_of(partition) && !self.over.load(Ordering::SeqCst) && self.replicated_to().is_some()
    }

    /// Marks it as over; its task tells everybody.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.signal.notify_one();
    }

    /// How far the log is replicated; `None` once the leadership was interrupted.
    pub(super) fn replicated_to(&self) -> Option<i64> {
        let look = self.partition.look(|replica| match replica.acked(self.leader_epoch, 0) {
            Ok(_) | Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND) => Some(replica.high_watermark()),
            Err(_) => None,
        });
        look.flatten()
    }

    /// Loads, and then wakes the machine whenever it wants to be, as long as the replica leads.
    pub(super) async fn run(self: Arc<Self>, broker: Arc<Broker>) {
        let (number, epoch) = (self.partition.identity.partition, self.leader_epoch);
        let stream = format!("groups {} {number} {epoch} {}", broker.id(), broker.identity.incarnation);
        let machine = GroupCoordinator::new(GroupSettings::of(&broker.config), broker.rt.rng(&stream));
        match self.load(&broker, machine).await {
            Ok(Some(machine)) => {
                tracing::debug!(broker = broker.id(), partition = number, epoch, "coordinates groups");
                self.activate(&broker, machine);
                self.attend(&broker).await;
            }
            Ok(None) => {}
            Err(cause) => {
                tracing::error!(broker = broker.id(), partition = number, cause, "cannot load groups");
            }
        }
        self.unload();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn activate(&self, broker: &Broker, machine: GroupCoordinator) {
        self.state.lock().stage = Stage::Active(Box::new(machine));
        // over again already, if not
        let _ = self.step(broker, |coordinator, turn| coordinator.loaded(turn));
        self.loaded.notify_waiters();
    }

    /// Waits until it is active, or over.
    pub(super) async fn until_loaded(&self) {
        loop {
            let loaded = self.loaded.notified();
            tokio::pin!(loaded);
            loaded.as_mut().enable();
            if self.is_over() || !matches!(self.state.lock().stage, Stage::Loading) {
                return;
            }
            loaded.await;
        }
    }

    async fn attend(&self, broker: &Arc<Broker>) {
        loop {
            let Ok(wanted) = self.step(broker, |_, _| ()).map(|()| self.state.lock().armed) else { return };
            if let Some(end) = wanted.write {
                self.partition.wait(Until::Committed(end), &self.signal);
            }
            tokio::select! {
                biased;
                () = self.signal.notified() => {}
                () = broker.rt.sleep_until_some(wanted.deadline) => {}
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn unload(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.partition.forget(&self.signal);
        let mut answers = Vec::new();
        let mut state = self.state.lock();
        if let Stage::Active(machine) = std::mem::replace(&mut state.stage, Stage::Over) {
            machine.unload(&mut answers);
        }
        for answer in answers {
            state.answer(answer.to, answer.response);
        }
        // whoever is left hears it from the closed channel
        state.waiting.clear();
        drop(state);
        self.loaded.notify_waiters();
    }

    /// Lets the machine do something, and whatever is due after that.
    pub(super) fn step<R>(
        &self,
        broker: &Broker,
        work: impl FnOnce(&mut GroupCoordinator, &mut Turn<'_>) -> R,
    ) -> Result<R, ErrorCode> {
        self.state.lock().step(self, broker, work)
    }

    pub(super) fn ask(
        &self,
        broker: &Broker,
        work: impl FnOnce(&mut GroupCoordinator, &mut Turn<'_>, u64),
    ) -> Asked {
        let (sender, mut answer) = oneshot::channel();
        let mut state = self.state.lock();
        let to = state.next_token;
        state.next_token += 1;
        state.waiting.insert(to, sender);
        if let Err(code) = state.step(self, broker, |coordinator, turn| work(coordinator, turn, to)) {
            state.waiting.remove(&to);
            return Asked::Now(Response::Failed(code));
        }
        match answer.try_recv() {
            Ok(response) => Asked::Now(response),
            Err(_) => Asked::Later(answer),
        }
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&GroupCoordinator) -> R) -> Result<R, ErrorCode> {
        let mut state = self.state.lock();
        if self.replicated_to().is_none() {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        state.machine(self).map(|machine| look(machine))
    }
}

impl State {
    fn machine(&mut self, shard: &Shard) -> Result<&mut GroupCoordinator, ErrorCode> {
        match &mut self.stage {
            _ if shard.is_over() => Err(ErrorCode::NOT_COORDINATOR),
            Stage::Over => Err(ErrorCode::NOT_COORDINATOR),
            Stage::Loading => Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Stage::Active(machine) => Ok(machine),
        }
    }

    fn step<R>(
        &mut self,
        shard: &Shard,
        broker: &Broker,
        work: impl FnOnce(&mut GroupCoordinator, &mut Turn<'_>) -> R,
    ) -> Result<R, ErrorCode> {
        let (now, wall_ms) = (broker.rt.now(), broker.rt.wall_ms());
        let machine = self.machine(shard)?;
        // also for what needs no record: the metadata may be behind what another broker has done already
        if shard.replicated_to().is_none() {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        let mut answers = Vec::new();
        let mut log = PartitionLog { broker, partition: &shard.partition, now, wall_ms };
        let mut turn = Turn { now, wall_ms, log: &mut log, answers: &mut answers };
        let result = work(machine, &mut turn);
        if machine.deadline().is_some_and(|at| at <= now) {
            machine.on_deadline(&mut turn);
        }
        if machine.first_write().is_some()
            && let Some(mark) = shard.replicated_to()
        {
            machine.replicated(&mut turn, mark);
        }
        let wanted = Wanted { deadline: machine.deadline(), write: machine.first_write() };
        if wanted != self.armed {
            self.armed = wanted;
            shard.signal.notify_one();
        }
        for answer in answers {
            self.answer(answer.to, answer.response);
        }
        Ok(result)
    }

    /// Whoever asked may be gone.
    fn answer(&mut self, to: u64, response: Response) {
        if let Some(sender) = self.waiting.remove(&to) {
            let _ = sender.send(response);
        }
    }
}
