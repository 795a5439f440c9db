//! Fetch sessions of this broker, and the bells by which partitions tell them of changes.
//!
//! In: fetch requests, and changes of partitions that a session has looked at. Out: what the machine decides.
//!
//! Invariant: a partition that a session has looked at rings its bell for every later change, so that the session need
//! not look again before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_lite_core::config::BrokerConfig;
use broker_lite_core::session::{
    Due, Found, Opened, SessionLimits, SessionPartition, SessionRequest, Sessions,
};
use klamm_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::rt::Tick;

/// Of the time after which a silent follower leaves the ISR: how often each of its partitions is looked at.
const LOOKS_PER_LAG: u32 = 4;

/// What wakes the request of one session.
#[derive(Debug)]
pub(crate) struct Bell {
    /// A follower waits for the end of the log, a consumer for the high watermark.
    pub(crate) follower: bool,
    touched: Mutex<BTreeSet<SessionPartition>>,
    signal: Notify,
}

impl Bell {
    fn new(follower: bool) -> Arc<Self> {
        Arc::new(Self { follower, touched: Mutex::default(), signal: Notify::new() })
    }

    /// A partition has changed; `wake` if that is worth ending a wait.
    pub(crate) fn ring(&self, partition: &SessionPartition, wake: bool) {
        {
            let mut touched = self.touched.lock();
            if !touched.contains(partition) {
                touched.insert(partition.clone());
            }
        }
        if wake {
            self.signal.notify_one();
        }
    }

    /// Waits for the next ring that wakes.
    pub(crate) fn rung(&self) -> Notified<'_> {
        self.signal.notified()
    }
}

/// The sessions behind their lock.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    machine: Mutex<Sessions>,
    bells: Mutex<BTreeMap<i32, Arc<Bell>>>,
    chance: Mutex<fastrand::Rng>,
}

impl FetchSessions {
    pub(crate) fn new(config: &BrokerConfig, chance: fastrand::Rng) -> Self {
        let default = SessionLimits::default();
        let slots = config.int("max.incremental.fetch.session.cache.slots");
        let lag = config.millis("replica.lag.time.max.ms");
        let limits = SessionLimits {
            slots: slots.and_then(|slots| usize::try_from(slots).ok()).unwrap_or(default.slots),
            look_at_all_every: lag.map_or(default.look_at_all_every, |lag| lag / LOOKS_PER_LAG),
            ..default
        };
        Self {
            machine: Mutex::new(Sessions::new(limits)),
            bells: Mutex::default(),
            chance: Mutex::new(chance),
        }
    }

    /// Takes a request; a session that goes on has its bell. A request of it that waits still ends now, without an answer
    /// that counts.
    pub(crate) fn open(&self, now: Tick, request: &SessionRequest) -> (Opened, Option<Arc<Bell>>) {
        let mut ended = Vec::new();
        let opened = self.machine.lock().open(now, request, &mut ended);
        self.end(&ended);
        let bell = match opened {
            Opened::Incremental { id, .. } => self.bells.lock().get(&id).cloned(),
            _ => None,
        };
        if let Some(bell) = &bell {
            bell.signal.notify_waiters();
        }
        (opened, bell)
    }

    /// Opens a session with the answer to a whole request: its id, or 0.
    pub(crate) fn create(
        &self,
        now: Tick,
        request: &SessionRequest,
        told: &[(SessionPartition, Found)],
    ) -> i32 {
        let mut ended = Vec::new();
        let id = {
            let mut chance = self.chance.lock();
            self.machine.lock().create(now, request, told, &mut || chance.i32(..), &mut ended)
        };
        self.end(&ended);
        if id != 0 {
            self.bells.lock().insert(id, Bell::new(request.follower));
        }
        id
    }

    fn end(&self, ended: &[i32]) {
        let mut bells = self.bells.lock();
        for bell in ended.iter().filter_map(|id| bells.remove(id)) {
            bell.signal.notify_waiters();
        }
    }

    /// Partitions to look at now.
    pub(crate) fn due(&self, id: i32, bell: &Bell) -> Vec<Due> {
        let touched = std::mem::take(&mut *bell.touched.lock());
        let mut machine = self.machine.lock();
        machine.touch(id, &touched);
        machine.due(id)
    }

    /// As [`Sessions::is_current`].
    pub(crate) fn is_current(&self, id: i32, epoch: i32) -> bool {
        self.machine.lock().is_current(id, epoch)
    }

    /// As [`Sessions::partitions`].
    pub(crate) fn partitions(&self, id: i32) -> usize {
        self.machine.lock().partitions(id).unwrap_or(0)
    }

    /// As [`Sessions::settle`].
    pub(crate) fn settle(&self, id: i32, looked: &[(SessionPartition, Found)]) {
        self.machine.lock().settle(id, looked);
    }

    /// As [`Sessions::tell`].
    pub(crate) fn tell(
        &self,
        id: i32,
        epoch: i32,
        looked: &[(SessionPartition, Found)],
    ) -> Result<Vec<bool>, ErrorCode> {
        self.machine.lock().tell(id, epoch, looked)
    }
}
