//! A broker's disk: what it holds while no process has it, how long an fsync takes, and what goes wrong with it.
//!
//! ```text
//! replica ──append──▶ Stored ──(full?)──▶ file            written: survives a kill
//!    └─────Effect::Sync──▶ Disk::sync, after its latency   synced: survives a loss of power
//! ```
//!
//! Invariant: only what was written when an fsync began is durable by its success, and after a failed one nothing that
//! was not durable before is there any more.
//!
//! Fsyncs of records are the disk's own thread's; what may take long is another's: opening and deleting logs, in order,
//! and compaction, piece by piece. The few other fsyncs block the thread that asks, as nothing may go on before them: a
//! snapshot, a log that begins anew, a recovery point that is lowered, the end of a process in order.

mod checkpoints;
mod descriptors;
mod directory;
mod faults;
mod fs;
mod log_dir;
mod read_buffers;
mod stored;

pub(crate) use directory::Job;
pub use faults::{DiskFault, DiskFaults};
pub(crate) use stored::Stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::storage::{MemoryDirectory, StorageError};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::rt::{Rt, Worker, give_way};
use directory::DiskDirectory;
use faults::Medium;
#[cfg(feature = "sim")]
use fs::SimulatedFs;
use fs::{Fs, RealFs};
use log_dir::LogDir;
use stored::Files;

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
    /// Where its files are, unless in memory without a file system.
    mount: Option<Mount>,
    /// Does on a real disk what may take long: one thing after the other.
    chores: Option<Worker>,
    state: Mutex<State>,
}

/// A log directory in a file system.
#[derive(Debug)]
struct Mount {
    path: PathBuf,
    /// What is known of it. On a simulated disk only as long as the process lives.
    log_dir: Mutex<Arc<LogDir>>,
    #[cfg(feature = "sim")]
    simulated: Option<Arc<SimulatedFs>>,
}

#[derive(Debug)]
struct State {
    /// The directory of each replica by topic id and partition, while no process has it; on a real disk only those that
    /// were used since it was opened.
    held: BTreeMap<(Uuid, i32), Stored>,
    /// Epoch of the broker that has closed its logs and stopped, as Kafka's `.kafka_cleanshutdown` file.
    closed_by: Option<i64>,
    /// Whether that was the last process.
    was_closed: bool,
    chance: fastrand::Rng,
}

impl Disk {
    /// An empty disk in memory, without faults.
    pub(crate) fn new(rt: &Rt, broker: i32) -> Arc<Self> {
        Self::of(rt, broker, None, None)
    }

    /// A directory on a real disk, which exists and is held by this process.
    ///
    /// # Errors
    ///
    /// One sentence that names the cause.
    pub(crate) fn on(rt: &Rt, broker: i32, path: &Path) -> Result<Arc<Self>, String> {
        Self::open_at(rt, broker, path, false)
    }

    /// As [`Self::on`], for the log of a voter, which may share the directory with a broker's.
    ///
    /// # Errors
    ///
    /// One sentence that names the cause.
    pub(crate) fn of_voter(rt: &Rt, voter: i32, path: &Path) -> Result<Arc<Self>, String> {
        Self::open_at(rt, voter, path, true)
    }

    fn open_at(rt: &Rt, broker: i32, path: &Path, metadata_only: bool) -> Result<Arc<Self>, String> {
        let worker = Worker::start(&format!("disk-{broker}"));
        let worker = worker.map_err(|error| format!("cannot start a thread for the disk: {error}"))?;
        let log_dir =
            opened(Arc::new(RealFs), path, metadata_only, worker).map_err(|error| error.to_string())?;
        let chores = match metadata_only {
            true => None,
            false => {
                let chores = Worker::start(&format!("logs-{broker}"));
                Some(chores.map_err(|error| format!("cannot start a thread for the logs: {error}"))?)
            }
        };
        let mount = Mount {
            path: path.to_owned(),
            log_dir: Mutex::new(log_dir.clone()),
            #[cfg(feature = "sim")]
            simulated: None,
        };
        let disk = Self::of(rt, broker, Some(mount), chores);
        let closed_by = log_dir.take_clean_shutdown().map_err(|error| error.to_string())?;
        disk.state.lock().closed_by = closed_by;
        Ok(disk)
    }

    /// An empty disk in memory, with the files and the weaknesses of a real one; a voter's or a broker's.
    ///
    /// # Errors
    ///
    /// None.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(rt: &Rt, node: i32, metadata_only: bool) -> Result<Arc<Self>, String> {
        let fs = SimulatedFs::new();
        let path = PathBuf::from("/");
        let log_dir = opened(fs.clone(), &path, metadata_only, Worker::inline());
        let log_dir = Mutex::new(log_dir.map_err(|error| error.to_string())?);
        Ok(Self::of(rt, node, Some(Mount { path, log_dir, simulated: Some(fs) }), None))
    }

    fn of(rt: &Rt, broker: i32, mount: Option<Mount>, chores: Option<Worker>) -> Arc<Self> {
        let chance = rt.rng(&format!("power of broker {broker}"));
        let state = State { held: BTreeMap::new(), closed_by: None, was_closed: false, chance };
        let medium = Medium::new(
            rt,
            broker,
            #[cfg(feature = "sim")]
            mount.as_ref().and_then(|mount| mount.simulated.clone()),
        );
        Arc::new(Self { medium, mount, chores, state: Mutex::new(state) })
    }

    /// Whether it has the files and the weaknesses of a real one, in memory.
    #[cfg(feature = "sim")]
    pub(crate) fn is_simulated(&self) -> bool {
        self.mount.as_ref().is_some_and(|mount| mount.simulated.is_some())
    }

    fn log_dir(&self) -> Option<Arc<LogDir>> {
        self.mount.as_ref().map(|mount| mount.log_dir.lock().clone())
    }

    /// Where it is, unless in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.mount.as_ref().map(|mount| &*mount.path)
    }

    /// Directory of a replica, empty if it is new.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) fn take(&self, key: (Uuid, i32), topic: &Arc<str>) -> Result<Stored, StorageError> {
        let (held, was_closed) = {
            let mut state = self.state.lock();
            (state.held.remove(&key), state.was_closed)
        };
        if let Some(mut held) = held {
            if let Some(directory) = held.on_disk() {
                directory.reopen(was_closed);
            }
            return Ok(held);
        }
        let files = match self.log_dir() {
            None => Files::Memory(MemoryDirectory::new()),
            Some(log_dir) => {
                log_dir.prepare(key.0, topic, key.1)?;
                Files::Disk(DiskDirectory::new(log_dir, topic.clone(), key.1, was_closed)?)
            }
        };
        Ok(Stored::new(files, self.medium.clone()))
    }

    /// Gives up the directories of partitions that are no more.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) fn keep_only(&self, partitions: &BTreeSet<(Uuid, i32)>) -> Result<(), StorageError> {
        let mut gone = std::mem::take(&mut self.state.lock().held);
        let kept = gone.keys().filter(|key| partitions.contains(*key)).copied().collect::<Vec<_>>();
        let kept: Vec<_> = kept.iter().filter_map(|key| gone.remove_entry(key)).collect();
        self.state.lock().held.extend(kept);
        for (_, stored) in gone {
            self.delete(stored)?;
        }
        let Some(log_dir) = self.log_dir() else { return Ok(()) };
        // The metadata's own log is not in the metadata.
        for (topic, partition, id) in
            log_dir.partitions()?.into_iter().filter(|held| *held.0 != *METADATA_TOPIC)
        {
            match id {
                Some(id) if partitions.contains(&(id, partition)) => continue,
                Some(_) => log_dir.delete(&log_dir.path_of(&topic, partition))?,
                None => log_dir.set_aside(&topic, partition)?,
            }
            log_dir.forget(&topic, partition);
        }
        Ok(())
    }

    /// Removes the directory of a partition that is no more.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) fn delete(&self, mut stored: Stored) -> Result<(), StorageError> {
        match (self.log_dir(), stored.on_disk()) {
            (Some(log_dir), Some(directory)) => {
                directory.forget();
                log_dir.delete(directory.path())
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::delete`], after what was asked of this disk before, and before what is asked later.
    pub(crate) fn delete_later(self: &Arc<Self>, stored: Stored) {
        let disk = self.clone();
        let delete = move || {
            if let Err(error) = disk.delete(stored) {
                tracing::warn!(%error, "cannot remove what was deleted");
            }
        };
        match &self.chores {
            Some(chores) => chores.post(delete),
            None => delete(),
        }
    }

    /// Takes the directories back from a process that is over.
    pub(crate) fn put_back(&self, directories: impl Iterator<Item = ((Uuid, i32), Stored)>, leave: Leave) {
        let leave = if self.medium.take_lost() { Leave::PowerOff(PowerLoss::Unsynced) } else { leave };
        let mut state = self.state.lock();
        let State { held, closed_by, chance, .. } = &mut *state;
        let mut durable = Ok(());
        for (key, mut stored) in directories {
            match leave {
                Leave::Killed => {}
                Leave::PowerOff(loss) => stored.lose_power(loss, chance),
                Leave::Clean { .. } => durable = durable.and_then(|()| stored.close()),
            }
            held.insert(key, stored);
        }
        match leave {
            Leave::Killed => {}
            Leave::PowerOff(loss) => self.lose_files(loss, &mut state),
            Leave::Clean { epoch } => match durable.and_then(|()| self.set_clean_shutdown(epoch)) {
                Ok(()) => *closed_by = Some(epoch),
                Err(error) => tracing::error!(%error, "the logs could not be closed in order"),
            },
        }
    }

    fn set_clean_shutdown(&self, epoch: i64) -> Result<(), StorageError> {
        let Some(log_dir) = self.log_dir() else { return Ok(()) };
        log_dir.write_checkpoints()?;
        log_dir.set_clean_shutdown(epoch)
    }

    /// A loss of power while no process runs.
    pub(crate) fn lose_power(&self, loss: PowerLoss) {
        let mut state = self.state.lock();
        let State { held, chance, .. } = &mut *state;
        held.values_mut().for_each(|stored| stored.lose_power(loss, chance));
        self.lose_files(loss, &mut state);
    }

    /// What a simulated disk loses of its files. Nobody can take from a real one what the operating system has taken over.
    fn lose_files(&self, _loss: PowerLoss, _state: &mut State) {
        #[cfg(feature = "sim")]
        if let Some(mount) = &self.mount
            && let Some(fs) = &mount.simulated
        {
            let State { held, chance, .. } = _state;
            fs.lose_power(&mut |most| match _loss {
                PowerLoss::Unsynced => 0,
                PowerLoss::Torn => chance.u64(0..=most),
            });
            held.clear();
            if let Err(error) = mount.find_anew(&self.medium, held) {
                tracing::error!(%error, "cannot be read after the loss of power");
            }
        }
    }

    /// Begins the next process on this disk. Returns the epoch of the one before if that has closed its logs in order.
    ///
    /// # Errors
    ///
    /// If a simulated disk cannot be read any more.
    pub(crate) fn open(&self) -> Result<Option<i64>, StorageError> {
        let lost = self.medium.take_lost();
        let mut state = self.state.lock();
        if lost {
            // The last process did not get so far as to have anything to give back.
            self.lose_files(PowerLoss::Unsynced, &mut state);
        }
        #[allow(unused_mut, reason = "only a simulation changes it")]
        let mut closed_by = state.closed_by.take();
        #[cfg(feature = "sim")]
        if let Some(mount) = self.mount.as_ref().filter(|mount| mount.simulated.is_some()) {
            // It knows what the files say, nothing else.
            state.held.clear();
            mount.find_anew(&self.medium, &mut BTreeMap::new())?;
            closed_by = mount.log_dir.lock().take_clean_shutdown()?;
        }
        state.was_closed = closed_by.is_some();
        if let Some(log_dir) = self.log_dir()
            && let Err(error) = log_dir.take_clean_shutdown()
        {
            tracing::error!(%error, "the logs count as not closed in order");
            state.was_closed = false;
        }
        Ok(closed_by)
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

    /// How long the fsync takes that begins now, beside what a real disk takes.
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

    /// Has a disk with files do its part of an fsync, which takes `latency` more.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub(crate) async fn carry_out(&self, rt: &Rt, job: Job, latency: Duration) -> Result<(), StorageError> {
        let gone = || StorageError::Failed("the thread of the disk is gone".into());
        let log_dir = self.log_dir().ok_or_else(gone)?;
        if log_dir.fs().is_simulated() {
            // Nothing is durable before its time, or if it fails.
            if !latency.is_zero() {
                rt.sleep(latency).await;
            }
            self.medium.sync()?;
            return job.run();
        }
        let done = log_dir.worker().run(|| job.run()).await.unwrap_or_else(|| Err(gone()));
        if !latency.is_zero() {
            rt.sleep(latency).await;
        }
        done
    }

    /// Makes durable what the directory is called and marked with. Nothing may be written to a log before: a process that is
    /// over may have marked them as closed.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub(crate) async fn settle(&self) -> Result<(), StorageError> {
        let Some(log_dir) = self.log_dir() else { return Ok(()) };
        let gone = || StorageError::Failed("the thread of the disk is gone".into());
        let names = log_dir.clone();
        log_dir.worker().run(move || names.sync_names()).await.unwrap_or_else(|| Err(gone()))
    }

    /// Has a real disk's thread do what may take long, after what it was given before. In memory it is done at once, and
    /// others have their turn then. `None` if the thread is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the work is done all the same.
    pub(crate) async fn chore<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        match &self.chores {
            Some(worker) => worker.run(work).await,
            None => {
                let done = work();
                give_way().await;
                Some(done)
            }
        }
    }

    /// Whether there is a thread for what may take long.
    pub(crate) fn has_chores(&self) -> bool {
        self.chores.is_some()
    }

    /// Whether there are checkpoint files to be written from time to time.
    pub(crate) fn has_checkpoints(&self) -> bool {
        self.mount.is_some()
    }

    /// Writes the checkpoint files.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub(crate) async fn write_checkpoints(&self) -> Result<(), StorageError> {
        let Some(log_dir) = self.log_dir() else { return Ok(()) };
        let files = log_dir.clone();
        log_dir.worker().run(move || files.write_checkpoints()).await.unwrap_or(Ok(()))
    }

    /// What can be done to this disk.
    pub(crate) fn faults(self: &Arc<Self>) -> DiskFaults {
        DiskFaults(self.medium.clone())
    }
}

/// Opens a log directory, and removes what the last process had no time to.
fn opened(
    fs: Arc<dyn Fs>,
    path: &Path,
    metadata_only: bool,
    worker: Worker,
) -> Result<Arc<LogDir>, StorageError> {
    let log_dir = LogDir::open(fs, path.to_owned(), metadata_only, worker)?;
    if !metadata_only {
        log_dir.tidy()?;
    }
    Ok(log_dir)
}

#[cfg(feature = "sim")]
impl Mount {
    /// Forgets all that is known, looks at what the files say, and holds the partitions that are there.
    fn find_anew(
        &self,
        medium: &Arc<Medium>,
        held: &mut BTreeMap<(Uuid, i32), Stored>,
    ) -> Result<(), StorageError> {
        let Some(fs) = self.simulated.clone() else { return Ok(()) };
        let metadata_only = self.log_dir.lock().is_metadata_only();
        let found = opened(fs, &self.path, metadata_only, Worker::inline())?;
        for (topic, partition, id) in found.partitions()? {
            if let Some(id) = id {
                let directory = DiskDirectory::new(found.clone(), topic, partition, false)?;
                held.insert((id, partition), Stored::new(Files::Disk(directory), medium.clone()));
            }
        }
        *self.log_dir.lock() = found;
        Ok(())
    }
}
