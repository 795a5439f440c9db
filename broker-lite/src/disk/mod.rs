//! A broker's disk: what it holds while no process has it, how long an fsync takes, and what goes wrong with it.
//!
//! ```text
//! replica ──append──▶ Stored ──(full?)──▶ file            written: survives a kill
//!    └─────Effect::Sync──▶ Disk::sync, after its latency   synced: survives a loss of power
//! ```
//!
//! Invariant: only what was written when an fsync began is durable by its success, and after a failed one nothing that
//! was not durable before is there any more.

mod faults;
mod stored;

pub use faults::{DiskFault, DiskFaults};
pub(crate) use stored::Stored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::storage::{Directory, StorageError};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::rt::Rt;
use faults::Medium;

/// What a loss of power leaves of the bytes that were written, but not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PowerLoss {
    /// Nothing.
    #[default]
    Unsynced,
    /// Of each replica a prefix of them, drawn from the cluster's seed, which may end within a batch. Finds bugs in the
    /// recovery of a log: a torn batch must go, and what is whole before it must stay.
    Torn,
}

/// How a process leaves its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It was killed: the operating system has what was written.
    Killed,
    /// The power is gone.
    PowerOff(PowerLoss),
    /// It has closed its logs, and was registered with this epoch.
    Clean { epoch: i64 },
}

/// What a broker keeps when its process dies.
#[derive(Debug)]
pub(crate) struct Disk {
    medium: Arc<Medium>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The directory of each replica by topic id and partition, while no process has it.
    held: BTreeMap<(Uuid, i32), Stored>,
    /// Epoch of the broker that has closed its logs and stopped, as Kafka's `.kafka_cleanshutdown` file.
    closed_by: Option<i64>,
    chance: fastrand::Rng,
}

impl Disk {
    /// An empty disk without faults.
    pub(crate) fn new(rt: &Rt, broker: i32) -> Arc<Self> {
        let chance = rt.rng(&format!("power of broker {broker}"));
        let state = State { held: BTreeMap::new(), closed_by: None, chance };
        Arc::new(Self { medium: Medium::new(rt, broker), state: Mutex::new(state) })
    }

    /// Directory of a replica, empty if it is new.
    pub(crate) fn take(&self, key: (Uuid, i32)) -> Stored {
        let held = self.state.lock().held.remove(&key);
        held.unwrap_or_else(|| Stored::new(self.medium.clone()))
    }

    /// Gives up the directories of partitions that are no more.
    pub(crate) fn keep_only(&self, partitions: &BTreeSet<(Uuid, i32)>) {
        self.state.lock().held.retain(|key, _| partitions.contains(key));
    }

    /// Takes the directories back from a process that is over.
    pub(crate) fn put_back(&self, directories: impl Iterator<Item = ((Uuid, i32), Stored)>, leave: Leave) {
        let lost = self.medium.take_lost();
        let mut state = self.state.lock();
        let State { held, closed_by, chance } = &mut *state;
        let mut all_durable = true;
        for (key, mut stored) in directories {
            match leave {
                _ if lost => stored.lose_power(PowerLoss::Unsynced, chance),
                Leave::Killed => {}
                Leave::PowerOff(loss) => stored.lose_power(loss, chance),
                Leave::Clean { .. } => all_durable &= stored.sync_now().is_ok(),
            }
            held.insert(key, stored);
        }
        if let (Leave::Clean { epoch }, false, true) = (leave, lost, all_durable) {
            *closed_by = Some(epoch);
        }
    }

    /// A loss of power while no process runs.
    pub(crate) fn lose_power(&self, loss: PowerLoss) {
        let mut state = self.state.lock();
        let State { held, chance, .. } = &mut *state;
        held.values_mut().for_each(|stored| stored.lose_power(loss, chance));
    }

    /// Begins the next process on this disk. Returns the epoch of the one before if that has closed its logs in order.
    pub(crate) fn open(&self) -> Option<i64> {
        self.medium.take_lost();
        self.state.lock().closed_by.take()
    }

    /// Looks at the directory of a replica while no process has it.
    pub(crate) fn look<R>(
        &self,
        topic: Uuid,
        partition: i32,
        look: impl FnOnce(&mut Stored) -> R,
    ) -> Option<R> {
        self.state.lock().held.get_mut(&(topic, partition)).map(look)
    }

    /// How long the fsync takes that begins now.
    pub(crate) fn sync_latency(&self) -> Duration {
        self.medium.sync_latency()
    }

    /// The end of an fsync.
    ///
    /// # Errors
    ///
    /// If it has failed. What was not synced before is lost, and the process must end: to try again would succeed and
    /// prove nothing.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.medium.sync()
    }

    /// What can be done to this disk.
    pub(crate) fn faults(self: &Arc<Self>) -> DiskFaults {
        DiskFaults(self.medium.clone())
    }
}
