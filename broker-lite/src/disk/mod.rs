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
mod log_dir;
mod read_buffers;
mod stored;

pub(crate) use directory::Job;
pub use faults::{DiskFault, DiskFaults};
pub(crate) use stored::Stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::storage::{MemoryDirectory, StorageError};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::rt::{Rt, Worker, give_way};
use directory::DiskDirectory;
use faults::Medium;
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
    /// The directory on a real disk; `None` in memory.
    log_dir: Option<Arc<LogDir>>,
    /// Does on a real disk what may take long: one thing after the other.
    chores: Option<Worker>,
    state: Mutex<State>,
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
            LogDir::open(path.to_owned(), metadata_only, worker).map_err(|error| error.to_string())?;
        if !metadata_only {
            log_dir.tidy().map_err(|error| error.to_string())?;
        }
        let chores = match metadata_only {
            true => None,
            false => {
                let chores = Worker::start(&format!("logs-{broker}"));
                Some(chores.map_err(|error| format!("cannot start a thread for the logs: {error}"))?)
            }
        };
        let disk = Self::of(rt, broker, Some(log_dir.clone()), chores);
        let closed_by = log_dir.take_clean_shutdown().map_err(|error| error.to_string())?;
        disk.state.lock().closed_by = closed_by;
        Ok(disk)
    }

    fn of(rt: &Rt, broker: i32, log_dir: Option<Arc<LogDir>>, chores: Option<Worker>) -> Arc<Self> {
        let chance = rt.rng(&format!("power of broker {broker}"));
        let state = State { held: BTreeMap::new(), closed_by: None, was_closed: false, chance };
        Arc::new(Self { medium: Medium::new(rt, broker), log_dir, chores, state: Mutex::new(state) })
    }

    /// Where it is, unless in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.log_dir.as_ref().map(|log_dir| log_dir.path())
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
        let files = match &self.log_dir {
            None => Files::Memory(MemoryDirectory::new()),
            Some(log_dir) => {
                log_dir.prepare(key.0, topic, key.1)?;
                Files::Disk(DiskDirectory::new(log_dir.clone(), topic.clone(), key.1, was_closed)?)
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
        let Some(log_dir) = &self.log_dir else { return Ok(()) };
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
        match (&self.log_dir, stored.on_disk()) {
            (Some(log_dir), Some(directory)) => {
                directory.forget();
                log_dir.delete(directory.path())
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::delete`], after what was asked of this disk before, and before what is asked later.
    pub(crate) fn delete_later(self: &Arc<Self>, stored: Stored) {
        let Some(chores) = &self.chores else { return };
        let disk = self.clone();
        chores.post(move || {
            if let Err(error) = disk.delete(stored) {
                tracing::warn!(%error, "cannot remove what was deleted");
            }
        });
    }

    /// Takes the directories back from a process that is over.
    pub(crate) fn put_back(&self, directories: impl Iterator<Item = ((Uuid, i32), Stored)>, leave: Leave) {
        let lost = self.medium.take_lost();
        let mut state = self.state.lock();
        let State { held, closed_by, chance, .. } = &mut *state;
        let mut durable = Ok(());
        for (key, mut stored) in directories {
            match leave {
                _ if lost => stored.lose_power(PowerLoss::Unsynced, chance),
                Leave::Killed => {}
                Leave::PowerOff(loss) => stored.lose_power(loss, chance),
                Leave::Clean { .. } => durable = durable.and_then(|()| stored.close()),
            }
            held.insert(key, stored);
        }
        if let (Leave::Clean { epoch }, false) = (leave, lost) {
            match durable.and_then(|()| self.set_clean_shutdown(epoch)) {
                Ok(()) => *closed_by = Some(epoch),
                Err(error) => tracing::error!(%error, "the logs could not be closed in order"),
            }
        }
    }

    fn set_clean_shutdown(&self, epoch: i64) -> Result<(), StorageError> {
        let Some(log_dir) = &self.log_dir else { return Ok(()) };
        log_dir.write_checkpoints()?;
        log_dir.set_clean_shutdown(epoch)
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
        let mut state = self.state.lock();
        let closed_by = state.closed_by.take();
        state.was_closed = closed_by.is_some();
        if let Some(log_dir) = &self.log_dir
            && let Err(error) = log_dir.take_clean_shutdown()
        {
            tracing::error!(%error, "the logs count as not closed in order");
            state.was_closed = false;
        }
        closed_by
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

    /// Has a real disk do its part of an fsync.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub(crate) async fn carry_out(&self, job: Job) -> Result<(), StorageError> {
        let gone = || StorageError::Failed("the thread of the disk is gone".into());
        let log_dir = self.log_dir.as_ref().ok_or_else(gone)?;
        log_dir.worker().run(|| job.run()).await.unwrap_or_else(|| Err(gone()))
    }

    /// Makes durable what the directory is called and marked with. Nothing may be written to a log before: a process that is
    /// over may have marked them as closed.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub(crate) async fn settle(&self) -> Result<(), StorageError> {
        let Some(log_dir) = self.log_dir.clone() else { return Ok(()) };
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
        self.log_dir.is_some()
    }

    /// Writes the checkpoint files.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub(crate) async fn write_checkpoints(&self) -> Result<(), StorageError> {
        let Some(log_dir) = self.log_dir.clone() else { return Ok(()) };
        let written =
            self.log_dir.as_ref().map(|found| found.worker().run(move || log_dir.write_checkpoints()));
        match written {
            Some(written) => written.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }

    /// What can be done to this disk.
    pub(crate) fn faults(self: &Arc<Self>) -> DiskFaults {
        DiskFaults(self.medium.clone())
    }
}
