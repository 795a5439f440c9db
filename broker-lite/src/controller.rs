//! The controller's node: the machine, its log, and the answers that wait for a commit.
//!
//! In: requests and the clock. Out: committed records, in the order the machine returned them.
//!
//! Invariant: the machine and its log change under one lock, so that the log never runs behind
//! what the machine believes.

use std::sync::Arc;

use broker_lite_core::config::BrokerConfig;
use broker_lite_core::controller::{Controller, Outcome};
use broker_lite_core::metadata::{Image, MetadataLog, SingleVoter};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{CONTROLLER_ID, Signal};
use crate::journal::Journal;
use crate::rt::{Rt, Tick};

/// The controller of one cluster.
#[derive(Debug)]
pub(crate) struct ControllerNode {
    pub(crate) rt: Rt,
    state: Mutex<State>,
    deadline_changed: Notify,
    journal: Arc<Journal>,
}

#[derive(Debug)]
struct State {
    machine: Controller,
    log: SingleVoter,
    waiting: Vec<(i64, Signal)>,
    armed: Option<Tick>,
}

impl ControllerNode {
    /// A controller with an empty log.
    pub(crate) fn new(rt: Rt, cluster_id: &str, config: &BrokerConfig, journal: Arc<Journal>) -> Arc<Self> {
        let rng = rt.rng("controller");
        let machine = Controller::new(rt.now(), cluster_id, config.clone(), Image::default(), rng);
        let log = SingleVoter::new(CONTROLLER_ID);
        let state = State { machine, log, waiting: Vec::new(), armed: None };
        let node = Arc::new(Self { rt, state: Mutex::new(state), deadline_changed: Notify::new(), journal });
        node.decide(|machine, _| machine.bootstrap());
        node
    }

    /// Lets the machine decide, and appends what it decided; the answer counts from `commit_at` on.
    pub(crate) fn decide<R>(
        &self,
        decision: impl FnOnce(&mut Controller, Tick) -> Outcome<R>,
    ) -> (R, Option<(i64, Signal)>) {
        let mut state = self.state.lock();
        let Outcome { records, commit_at, response } = decision(&mut state.machine, self.rt.now());
        if !records.is_empty() {
            let (_, epoch) = state.log.leader();
            if let Err(error) = state.log.append(epoch, self.rt.wall_ms(), &records) {
                // The machine is ahead of the log now: nothing it says may be believed any more.
                tracing::error!(%error, "the metadata log refused records");
            }
            self.journal.note(self.rt.now(), &records);
        }
        let committed = state.log.high_watermark();
        for (_, signal) in state.waiting.extract_if(.., |(at, _)| *at <= committed) {
            signal.notify_one();
        }
        if state.machine.deadline() < state.armed || state.armed.is_none() {
            self.deadline_changed.notify_one();
        }
        let wait = (committed < commit_at).then(|| {
            let signal = Signal::default();
            state.waiting.push((commit_at, signal.clone()));
            (commit_at, signal)
        });
        (response, wait)
    }

    /// Waits until the log is committed up to an offset.
    pub(crate) async fn committed(&self, at: i64, signal: &Signal) {
        while self.state.lock().log.high_watermark() < at {
            signal.notified().await;
        }
    }

    /// Looks at the log. If nothing is committed from `from` on, `signal` is woken when something is.
    pub(crate) fn log<R>(&self, from: i64, signal: &Signal, look: impl FnOnce(&SingleVoter) -> R) -> R {
        let mut state = self.state.lock();
        if state.log.high_watermark() <= from {
            state.waiting.retain(|(_, waiting)| !Arc::ptr_eq(waiting, signal));
            state.waiting.push((from + 1, signal.clone()));
        }
        look(&state.log)
    }

    /// Forgets a signal that nobody waits for any more.
    pub(crate) fn forget(&self, signal: &Signal) {
        self.state.lock().waiting.retain(|(_, waiting)| !Arc::ptr_eq(waiting, signal));
    }
}

/// Runs the machine's deadlines.
pub(crate) async fn watch_deadlines(controller: Arc<ControllerNode>) {
    loop {
        let next = {
            let mut state = controller.state.lock();
            state.armed = state.machine.deadline();
            state.armed
        };
        tokio::select! {
            biased;
            () = controller.deadline_changed.notified() => continue,
            () = controller.rt.sleep_until_some(next) => {}
        }
        controller.decide(|machine, now| machine.on_deadline(now));
    }
}
