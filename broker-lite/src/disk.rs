//! A broker's disk: what it holds while no process has it, how long an fsync takes, and what goes wrong with it.
//!
//! ```text
//! replica ──append──▶ Stored ──(full?)──▶ bytes           written: survives a kill
//!    └─────Effect::Sync──▶ Disk::sync, after its latency   synced: survives a loss of power
//! ```
//!
//! Invariant: only what was written when an fsync began is durable by its success, and after a failed one nothing that
//! was not durable before is there any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker_lite_core::storage::{Checkpoint, MemoryStorage, Storage, StorageError};
use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::rt::Rt;

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
    /// The storage of each replica by topic id and partition, while no process has it.
    held: BTreeMap<(Uuid, i32), Stored>,
    /// Epoch of the broker that has closed its logs and stopped, as Kafka's `.kafka_cleanshutdown` file.
    closed_by: Option<i64>,
    chance: fastrand::Rng,
}

impl Disk {
    /// An empty disk without faults.
    pub(crate) fn new(rt: &Rt, broker: i32) -> Arc<Self> {
        let faults = Faults {
            next: 0,
            slow: BTreeMap::new(),
            failing: BTreeSet::new(),
            lost_unsynced: false,
            chance: rt.rng(&format!("disk of broker {broker}")),
        };
        let medium = Medium { faults: Mutex::new(faults), full: AtomicUsize::new(0) };
        let chance = rt.rng(&format!("power of broker {broker}"));
        let state = State { held: BTreeMap::new(), closed_by: None, chance };
        Arc::new(Self { medium: Arc::new(medium), state: Mutex::new(state) })
    }

    /// Storage of a replica, empty if it is new.
    pub(crate) fn take(&self, key: (Uuid, i32)) -> Stored {
        let held = self.state.lock().held.remove(&key);
        held.unwrap_or_else(|| Stored { bytes: MemoryStorage::new(), medium: self.medium.clone() })
    }

    /// Gives up the storage of partitions that are no more.
    pub(crate) fn keep_only(&self, partitions: &BTreeSet<(Uuid, i32)>) {
        self.state.lock().held.retain(|key, _| partitions.contains(key));
    }

    /// Takes the storages back from a process that is over.
    pub(crate) fn put_back(&self, storages: impl Iterator<Item = ((Uuid, i32), Stored)>, leave: Leave) {
        let lost = std::mem::take(&mut self.medium.faults.lock().lost_unsynced);
        let mut state = self.state.lock();
        let State { held, closed_by, chance } = &mut *state;
        for (key, mut stored) in storages {
            match leave {
                _ if lost => stored.bytes.power_off(),
                Leave::Killed => {}
                Leave::PowerOff(loss) => stored.lose_power(loss, chance),
                Leave::Clean { .. } => stored.bytes.mark_synced(stored.bytes.end()),
            }
            held.insert(key, stored);
        }
        if let (Leave::Clean { epoch }, false) = (leave, lost) {
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
        self.medium.faults.lock().lost_unsynced = false;
        self.state.lock().closed_by.take()
    }

    /// Looks at the storage of a replica while no process has it.
    pub(crate) fn look<R>(
        &self,
        topic: Uuid,
        partition: i32,
        look: impl FnOnce(&mut MemoryStorage) -> R,
    ) -> Option<R> {
        self.state.lock().held.get_mut(&(topic, partition)).map(|stored| look(&mut stored.bytes))
    }

    /// How long the fsync takes that begins now.
    pub(crate) fn sync_latency(&self) -> Duration {
        self.medium.faults.lock().latency()
    }

    /// The end of an fsync.
    ///
    /// # Errors
    ///
    /// If it has failed. What was not synced before is lost, and the process must end: to try again would succeed and
    /// prove nothing.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let mut faults = self.medium.faults.lock();
        if faults.failing.is_empty() {
            return Ok(());
        }
        faults.lost_unsynced = true;
        Err(StorageError::Failed("fsync: input/output error".into()))
    }

    /// What can be done to this disk.
    pub(crate) fn faults(self: &Arc<Self>) -> DiskFaults {
        DiskFaults(self.medium.clone())
    }
}

/// What is common to all files of a disk.
#[derive(Debug)]
struct Medium {
    faults: Mutex<Faults>,
    /// How many faults say that there is no space left.
    full: AtomicUsize,
}

#[derive(Debug)]
struct Faults {
    next: u64,
    slow: BTreeMap<u64, RangeInclusive<Duration>>,
    failing: BTreeSet<u64>,
    /// An fsync has failed, and the process that it was told has not ended yet.
    lost_unsynced: bool,
    chance: fastrand::Rng,
}

impl Faults {
    fn latency(&mut self) -> Duration {
        let Self { slow, chance, .. } = self;
        let draw = |range: &RangeInclusive<Duration>| {
            let (from, to) = (millis(*range.start()), millis(*range.end()));
            if from < to { Duration::from_millis(chance.u64(from..=to)) } else { *range.start() }
        };
        slow.values().map(draw).max().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What can go wrong with one broker's disk; from [`Cluster::disk`](crate::Cluster::disk).
///
/// As in Kafka, where a broker with one log directory stops when that fails: a write or fsync that fails is never tried
/// again. The broker ends as if it was killed, an error says why, clients see `KAFKA_STORAGE_ERROR` or a closed
/// connection, and other replicas take over. To cure it, drop the fault and
/// [`restart`](crate::Cluster::restart) the broker.
///
/// Records are fsynced before they are acknowledged only where `flush.messages` (of a topic) or
/// `log.flush.interval.messages` (of the cluster) is 1; otherwise, as by Kafka's default, a broker fsyncs when it shuts
/// down in order, and slow or failing fsyncs change nothing before.
///
/// Each fault lasts until what the method returns is dropped, whether the broker runs, is down or is restarted.
#[derive(Clone)]
pub struct DiskFaults(Arc<Medium>);

impl fmt::Debug for DiskFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskFaults")
    }
}

impl DiskFaults {
    /// Every fsync takes so long; of several such faults the longest counts.
    ///
    /// Finds time-outs that are too short, and code that takes a slow answer for none.
    pub fn slow(&self, latency: Duration) -> DiskFault {
        self.sync_latency(latency..=latency)
    }

    /// Every fsync takes a time within `range`, whole milliseconds drawn from the cluster's seed.
    ///
    /// Finds what depends on the order in which replicas become durable.
    pub fn sync_latency(&self, range: RangeInclusive<Duration>) -> DiskFault {
        let mut faults = self.0.faults.lock();
        let number = faults.number();
        faults.slow.insert(number, range);
        self.fault(number, false)
    }

    /// There is no space left: the next append, as a leader or as a follower, is refused before anything is written, and
    /// the broker stops. Nothing that was written is lost.
    ///
    /// Finds producers that give up, or lose records, when a leader goes away.
    pub fn full(&self) -> DiskFault {
        let number = self.0.faults.lock().number();
        self.0.full.fetch_add(1, Ordering::SeqCst);
        self.fault(number, true)
    }

    /// The next fsync fails, and the broker stops. What was not synced before, in whichever partition, is gone: after a
    /// failed fsync an operating system may have dropped what it could not write.
    ///
    /// Finds acknowledgements that were given before their time.
    pub fn fail_sync(&self) -> DiskFault {
        let mut faults = self.0.faults.lock();
        let number = faults.number();
        faults.failing.insert(number);
        self.fault(number, false)
    }

    fn fault(&self, number: u64, full: bool) -> DiskFault {
        DiskFault { medium: self.0.clone(), number, full }
    }
}

/// A fault of a disk. It ends when this is dropped.
#[must_use = "the fault ends when this is dropped"]
pub struct DiskFault {
    medium: Arc<Medium>,
    number: u64,
    full: bool,
}

impl fmt::Debug for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskFault").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for DiskFault {
    fn drop(&mut self) {
        let mut faults = self.medium.faults.lock();
        faults.slow.remove(&self.number);
        faults.failing.remove(&self.number);
        if self.full {
            self.medium.full.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The bytes of one replica on a broker's disk.
#[derive(Debug)]
pub(crate) struct Stored {
    bytes: MemoryStorage,
    medium: Arc<Medium>,
}

impl Stored {
    fn lose_power(&mut self, loss: PowerLoss, chance: &mut fastrand::Rng) {
        match loss {
            PowerLoss::Unsynced => self.bytes.power_off(),
            PowerLoss::Torn => {
                let unsynced = self.bytes.end() - self.bytes.synced();
                self.bytes.power_off_torn(chance.u64(0..=unsynced));
            }
        }
    }

    /// See [`MemoryStorage::corrupt_byte`].
    pub(crate) fn corrupt_byte(&mut self, position: u64) -> Result<(), StorageError> {
        self.bytes.corrupt_byte(position)
    }
}

impl Storage for Stored {
    fn start(&self) -> u64 {
        self.bytes.start()
    }

    fn end(&self) -> u64 {
        self.bytes.end()
    }

    fn synced(&self) -> u64 {
        self.bytes.synced()
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<u64, StorageError> {
        if self.medium.full.load(Ordering::Relaxed) > 0 {
            return Err(StorageError::Failed("no space left on device".into()));
        }
        self.bytes.append(chunks)
    }

    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        self.bytes.read(position, len, out)
    }

    fn read_exact(&self, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.bytes.read_exact(position, buf)
    }

    fn truncate_to(&mut self, position: u64) -> Result<(), StorageError> {
        self.bytes.truncate_to(position)
    }

    fn truncate_prefix(&mut self, position: u64) -> Result<(), StorageError> {
        self.bytes.truncate_prefix(position)
    }

    fn mark_synced(&mut self, position: u64) {
        self.bytes.mark_synced(position);
    }

    fn checkpoint(&self) -> Checkpoint {
        self.bytes.checkpoint()
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.bytes.set_checkpoint(checkpoint)
    }
}
