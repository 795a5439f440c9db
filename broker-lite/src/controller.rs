//! The controller's node: the machine, its log, and the answers that wait for a commit.
//!
//! In: requests and the clock. Out: committed records, in the order the machine returned them.
//! The log outlives the process: the next one begins with the image that the log adds up to.
//!
//! Invariant: the machine and its log change under one lock, so that the log never runs behind
//! what the machine believes; and a record is durable before it counts, so that no loss of power takes it back.

use std::sync::Arc;

use broker_lite_core::config::BrokerConfig;
use broker_lite_core::controller::{Controller, Outcome};
use broker_lite_core::log::{Log, LogSettings};
use broker_lite_core::metadata::{Delta, Image, METADATA_TOPIC, METADATA_TOPIC_ID, MetadataLog, SingleVoter};
use broker_lite_core::storage::Directory;
use klamm_wire::RawBatch;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{CONTROLLER_ID, Signal};
use crate::disk::{Disk, Stored};
use crate::journal::Journal;
use crate::rt::{Rt, Tick};

/// The controller's disk: a metadata log whose every append is durable at once.
#[derive(Debug, Clone)]
pub(crate) struct MetadataDisk(Arc<Mutex<SingleVoter>>, Option<Arc<Mutex<Log<Stored>>>>);

impl MetadataDisk {
    /// An empty log.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(SingleVoter::new(CONTROLLER_ID))), None)
    }

    /// The log on a real disk.
    ///
    /// # Errors
    ///
    /// One sentence that names the cause.
    pub(crate) fn on(disk: &Disk) -> Result<Self, String> {
        let stored = disk.take((METADATA_TOPIC_ID, 0), &Arc::from(METADATA_TOPIC));
        let opened = stored.and_then(|stored| Log::open(stored, LogSettings::default()));
        let (log, damage) = opened.map_err(|error| error.to_string())?;
        if let Some(damage) = damage {
            tracing::warn!(%damage, "the end of the metadata log was cut off: it was never acknowledged");
        }
        let mut voter = SingleVoter::new(CONTROLLER_ID);
        for batch in log.batches() {
            let (_, batch) = batch.map_err(|damage| damage.to_string())?;
            voter.restore(batch.header(), batch.bytes().clone());
        }
        Ok(Self(Arc::new(Mutex::new(voter)), Some(Arc::new(Mutex::new(log)))))
    }

    /// Makes what was appended from an offset on durable.
    fn keep(&self, log: &SingleVoter, from: i64) -> Result<(), String> {
        let Some(kept) = &self.1 else { return Ok(()) };
        let mut kept = kept.lock();
        for bytes in log.read(from, usize::MAX).map_err(|error| error.to_string())? {
            let batch = RawBatch::parse(bytes).map_err(|error| error.to_string())?;
            let appended = kept.append(batch.header(), std::slice::from_ref(batch.bytes()));
            appended.map_err(|error| error.to_string())?;
        }
        kept.directory_mut().sync_now().map_err(|error| error.to_string())
    }

    /// What the log adds up to.
    pub(crate) fn replay(&self) -> Result<Image, String> {
        let (log, mut image) = (self.0.lock(), Image::default());
        let batches = log.read(log.start_offset(), usize::MAX).map_err(|error| error.to_string())?;
        for batch in batches {
            let batch = RawBatch::parse(batch).map_err(|error| error.to_string())?;
            image.apply_batch(&batch, &mut Delta::default()).map_err(|error| error.to_string())?;
        }
        Ok(image)
    }
}

/// One incarnation of the controller of one cluster.
#[derive(Debug)]
pub(crate) struct ControllerNode {
    pub(crate) rt: Rt,
    state: Mutex<State>,
    log: MetadataDisk,
    deadline_changed: Notify,
    decided: Notify,
    journal: Arc<Journal>,
}

#[derive(Debug)]
struct State {
    machine: Controller,
    waiting: Vec<(i64, Signal)>,
    armed: Option<Tick>,
}

impl ControllerNode {
    /// A controller that goes on where its log ends; `start` tells it from those before it.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub(crate) fn new(
        rt: Rt,
        cluster_id: &str,
        config: &BrokerConfig,
        journal: Arc<Journal>,
        log: MetadataDisk,
        start: u32,
    ) -> Result<Arc<Self>, String> {
        // Chance of its own, or the second process would give out the ids of the first.
        let rng = rt.rng(&if start == 0 { "controller".to_owned() } else { format!("controller {start}") });
        let machine = Controller::new(rt.now(), cluster_id, config.clone(), log.replay()?, rng);
        let state = Mutex::new(State { machine, waiting: Vec::new(), armed: None });
        let (deadline_changed, decided) = (Notify::new(), Notify::new());
        let node = Arc::new(Self { rt, state, log, deadline_changed, decided, journal });
        node.decide(|machine, _| machine.bootstrap());
        Ok(node)
    }

    /// Waits until each of the brokers, which may become others, has registered or sent a heartbeat since this process
    /// began.
    pub(crate) async fn until_heard_from(&self, brokers: impl Fn() -> Vec<i32>) {
        loop {
            let decided = self.decided.notified();
            tokio::pin!(decided);
            decided.as_mut().enable();
            let brokers = brokers();
            let all = {
                let state = self.state.lock();
                brokers.iter().all(|id| state.machine.has_heard_from(*id))
            };
            if all {
                return;
            }
            decided.await;
        }
    }

    /// Lets the machine decide, and appends what it decided; the answer counts from `commit_at` on.
    pub(crate) fn decide<R>(
        &self,
        decision: impl FnOnce(&mut Controller, Tick) -> Outcome<R>,
    ) -> (R, Option<(i64, Signal)>) {
        let mut state = self.state.lock();
        let mut log = self.log.0.lock();
        let Outcome { records, commit_at, response } = decision(&mut state.machine, self.rt.now());
        if !records.is_empty() {
            let ((_, epoch), from) = (log.leader(), log.end_offset());
            let appended = log.append(epoch, self.rt.wall_ms(), &records).map_err(|error| error.to_string());
            if let Err(error) = appended.and_then(|_| self.log.keep(&log, from)) {
                // The machine is ahead of the log now: nothing it says may be believed any more.
                tracing::error!(%error, "the metadata log refused records");
            }
            self.journal.note(self.rt.now(), &records);
        }
        let committed = log.high_watermark();
        drop(log);
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
        drop(state);
        self.decided.notify_waiters();
        (response, wait)
    }

    /// Waits until the log is committed up to an offset.
    pub(crate) async fn committed(&self, at: i64, signal: &Signal) {
        while self.log.0.lock().high_watermark() < at {
            signal.notified().await;
        }
    }

    /// Looks at the log. If nothing is committed from `from` on, `signal` is woken when something is.
    pub(crate) fn log<R>(&self, from: i64, signal: &Signal, look: impl FnOnce(&SingleVoter) -> R) -> R {
        let mut state = self.state.lock();
        let log = self.log.0.lock();
        if log.high_watermark() <= from {
            state.waiting.retain(|(_, waiting)| !Arc::ptr_eq(waiting, signal));
            state.waiting.push((from + 1, signal.clone()));
        }
        look(&log)
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
