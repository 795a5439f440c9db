//! What can go wrong with a broker's disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker_lite_core::storage::StorageError;
use parking_lot::Mutex;

#[cfg(feature = "sim")]
use super::fs::SimulatedFs;
use crate::rt::Rt;

/// What is common to all files of a disk.
#[derive(Debug)]
pub(super) struct Medium {
    faults: Mutex<Faults>,
    /// How many faults say that there is no space left.
    full: AtomicUsize,
    #[cfg(feature = "sim")]
    simulated: Option<Arc<SimulatedFs>>,
}

impl Medium {
    /// Without faults.
    pub(super) fn new(
        rt: &Rt,
        broker: i32,
        #[cfg(feature = "sim")] simulated: Option<Arc<SimulatedFs>>,
    ) -> Arc<Self> {
        let faults = Faults {
            next: 0,
            slow: BTreeMap::new(),
            failing: BTreeSet::new(),
            lost_unsynced: false,
            chance: rt.rng(&format!("disk of broker {broker}")),
        };
        Arc::new(Self {
            faults: Mutex::new(faults),
            full: AtomicUsize::new(0),
            #[cfg(feature = "sim")]
            simulated,
        })
    }

    /// How long the fsync takes that begins now.
    pub(super) fn sync_latency(&self) -> Duration {
        self.faults.lock().latency()
    }

    /// The end of an fsync.
    ///
    /// # Errors
    ///
    /// If it has failed; what was not synced before is lost.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let mut faults = self.faults.lock();
        if faults.failing.is_empty() {
            return Ok(());
        }
        faults.lost_unsynced = true;
        Err(StorageError::Failed("fsync: input/output error".into()))
    }

    /// Whether there is room for more bytes.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(super) fn room(&self) -> Result<(), StorageError> {
        match self.full.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(StorageError::Failed("no space left on device".into())),
        }
    }

    /// Whether an fsync has failed since this was asked last, or the power.
    pub(super) fn take_lost(&self) -> bool {
        #[cfg(feature = "sim")]
        if self.simulated.as_ref().is_some_and(|fs| fs.has_failed()) {
            return true;
        }
        std::mem::take(&mut self.faults.lock().lost_unsynced)
    }
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
pub struct DiskFaults(pub(super) Arc<Medium>);

impl fmt::Debug for DiskFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskFaults")
    }
}

impl DiskFaults {
    /// Every fsync takes so long, and so does opening a replica, new or not; of several such faults the longest counts.
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

    /// The power of this disk fails after so many more changes to its files or names, whatever they are in the midst of:
    /// from there on every change fails, so that the node stops, and what was not synced is gone. `None` calls it off, as
    /// any other loss of power does. Only a disk with files can do so, see
    /// [`with_files`](crate::ClusterBuilder::with_files); others ignore it.
    ///
    /// Finds steps that must be durable in an order, and are not.
    #[cfg(feature = "sim")]
    pub fn fail_power_after(&self, changes: Option<u64>) {
        if let Some(fs) = &self.0.simulated {
            fs.fail_after(changes);
        }
    }

    /// How often its power has failed by [`Self::fail_power_after`].
    #[cfg(feature = "sim")]
    pub fn power_failures(&self) -> u64 {
        self.0.simulated.as_ref().map_or(0, |fs| fs.failures())
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
