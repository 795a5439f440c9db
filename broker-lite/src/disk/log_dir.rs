//! A log directory on a real disk, as Kafka lays it out: a directory per partition, and files about all of them.
//!
//! ```text
//! DIR/orders-0/                           see `broker_lite_core::log`
//!     replication-offset-checkpoint       high watermarks      ┐
//!     recovery-point-offset-checkpoint    what is durable      ├ written from time to time
//!     log-start-offset-checkpoint         first offsets        ┘
//!     cleaner-offset-checkpoint           how far compaction has come
//!     .kafka_cleanshutdown                after a shutdown in order only: the broker's epoch
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use broker_lite_core::log::PARTITION_METADATA;
use broker_lite_core::storage::{Checkpoint, StorageError};
use klamm_wire::planted::{Bug, planted};
use parking_lot::Mutex;
use uuid::Uuid;

use super::checkpoints::{self, Key, Offsets};
use super::descriptors::Descriptors;
use super::directory::{SEGMENT, failed, sync_directory};
use super::fs::{Fs, read_text};
use super::read_buffers::ReadBuffers;
use crate::cluster::{base64, from_base64};
use crate::rt::Worker;

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Suffix of a partition's directory that is about to be removed.
const DELETE: &str = "-delete";
/// Suffix of a partition's directory that nobody knows the topic of, as Kafka's.
const STRAY: &str = "-stray";

/// The topic's name and partition, and its id if that is known.
pub(super) type Held = (Arc<str>, i32, Option<Uuid>);

/// A log directory.
#[derive(Debug)]
pub(crate) struct LogDir {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    descriptors: Arc<Descriptors>,
    read_buffers: Arc<ReadBuffers>,
    table: Mutex<Table>,
    /// One writer of checkpoint files at a time.
    writing: Mutex<()>,
    changed: AtomicBool,
    /// How far logs are compacted, and whether the file says something else.
    cleaned: Mutex<(BTreeMap<Key, i64>, bool)>,
    /// An fsync has failed. The operating system says so only once, so that the next one proves nothing.
    failed: AtomicBool,
    /// Counts changes of names; those up to `names_synced` are durable.
    names_version: AtomicU64,
    names_synced: AtomicU64,
    /// Of a voter: nothing but its log, which Kafka always looks through from its beginning.
    metadata_only: bool,
    worker: Worker,
}

#[derive(Debug)]
struct Table {
    offsets: Offsets,
    /// As they stand in the files; while those are written, the larger ones of before and after.
    stored: Offsets,
    /// For partitions without a line.
    unknown: Checkpoint,
}

impl Table {
    /// What is to be written. Until that is done the files may hold these offsets or those of before.
    fn begin_to_store(&mut self) -> Offsets {
        for (key, next) in &self.offsets {
            let stored = self.stored.entry(key.clone()).or_default();
            stored.recovery_point = stored.recovery_point.max(next.recovery_point);
            stored.log_start_offset = stored.log_start_offset.max(next.log_start_offset);
        }
        self.offsets.clone()
    }
}

impl LogDir {
    /// Opens a directory that exists and that this process holds.
    ///
    /// # Errors
    ///
    /// If a checkpoint cannot be read.
    pub(super) fn open(
        fs: Arc<dyn Fs>,
        path: PathBuf,
        metadata_only: bool,
        worker: Worker,
    ) -> Result<Arc<Self>, StorageError> {
        let (offsets, has_recovery_points) = match metadata_only {
            true => (Offsets::new(), true),
            false => checkpoints::load(&*fs, &path)?,
        };
        // Segments of somebody who has left no checkpoint may have gaps anywhere.
        let foreign = !has_recovery_points && !partitions(&*fs, &path)?.is_empty();
        let unknown = Checkpoint { recovery_point: if foreign { -1 } else { 0 }, ..Checkpoint::default() };
        let cleaned = if metadata_only { BTreeMap::new() } else { checkpoints::load_cleaned(&*fs, &path) };
        Ok(Arc::new(Self {
            path,
            descriptors: Descriptors::new(fs.clone()),
            fs,
            cleaned: Mutex::new((cleaned, false)),
            read_buffers: Arc::default(),
            table: Mutex::new(Table { stored: offsets.clone(), offsets, unknown }),
            writing: Mutex::new(()),
            changed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            // That of the directory's own mark, and whatever a process that was killed has left.
            names_version: AtomicU64::new(1),
            names_synced: AtomicU64::new(0),
            metadata_only,
            worker,
        }))
    }

    pub(super) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    pub(super) fn read_buffers(&self) -> &Arc<ReadBuffers> {
        &self.read_buffers
    }

    pub(super) fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// Whether nothing but a voter's log is kept here.
    pub(super) fn is_metadata_only(&self) -> bool {
        self.metadata_only
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn path_of(&self, topic: &str, partition: i32) -> PathBuf {
        self.path.join(format!("{topic}-{partition}"))
    }

    /// Makes sure that there is a directory for this partition of this topic, and not that of an earlier topic of the same
    /// name, which one without a topic id may be.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn prepare(&self, id: Uuid, topic: &str, partition: i32) -> Result<(), StorageError> {
        let path = self.path_of(topic, partition);
        if self.fs.exists(&path) {
            match topic_id(&*self.fs, &path)? {
                Some(found) if found != id => self.delete(&path)?,
                Some(_) => return Ok(()),
                // Its place says whose log it is.
                None if self.metadata_only => return write_topic_id(&*self.fs, &path, id),
                None => self.set_aside(topic, partition)?,
            }
        }
        self.forget_for_good(topic, partition)?;
        self.fs.create_dir(&path).map_err(|error| failed("create", &path, &error))?;
        self.names_version.fetch_add(1, Ordering::SeqCst);
        write_topic_id(&*self.fs, &path, id)
    }

    /// The partitions that are here.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn partitions(&self) -> Result<Vec<Held>, StorageError> {
        let mut found = Vec::new();
        for (topic, partition) in partitions(&*self.fs, &self.path)? {
            let id = topic_id(&*self.fs, &self.path_of(&topic, partition))?;
            found.push((topic, partition, id));
        }
        Ok(found)
    }

    /// Takes a directory that does not say which topic it belongs to out of the way. Records that it may hold are kept, but
    /// are not mixed up with those of whichever topic has that name now.
    pub(super) fn set_aside(&self, topic: &str, partition: i32) -> Result<(), StorageError> {
        let path = self.path_of(topic, partition);
        if !holds_records(&*self.fs, &path)? {
            return self.delete(&path);
        }
        let named = |number: u64| {
            let mut stray = path.as_os_str().to_owned();
            stray.push(format!(".{number:032x}{STRAY}"));
            PathBuf::from(stray)
        };
        let Some(stray) = (0..).map(named).find(|stray| !self.fs.exists(stray)) else { return Ok(()) };
        tracing::error!(
            replica = %path.display(), set_aside_as = %stray.display(),
            "{PARTITION_METADATA} does not tell the topic's id, as after a loss of power: the replica begins anew"
        );
        self.fs.rename(&path, &stray).map_err(|error| failed("rename", &path, &error))?;
        self.names_version.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Removes the directory of a partition that is no more, and what is left over of such.
    pub(super) fn delete(&self, path: &Path) -> Result<(), StorageError> {
        let mut doomed = path.as_os_str().to_owned();
        doomed.push(format!(".{:016x}{DELETE}", self.names_version.fetch_add(1, Ordering::Relaxed)));
        let doomed = PathBuf::from(doomed);
        match self.fs.rename(path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("rename", path, &error)),
        }
        self.fs.remove_dir_all(&doomed).map_err(|error| failed("remove", &doomed, &error))
    }

    /// Removes what a process had no time to.
    pub(super) fn tidy(&self) -> Result<(), StorageError> {
        let list = self.fs.list(&self.path).map_err(|error| failed("list", &self.path, &error))?;
        for entry in list.iter().filter(|entry| entry.is_dir && entry.name.ends_with(DELETE)) {
            let path = self.path.join(&entry.name);
            match self.fs.remove_dir_all(&path) {
                // The thread of an earlier cluster in this process may be at it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Remembers that an fsync has failed.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Whether there are names that are not durable.
    pub(super) fn has_new_names(&self) -> bool {
        self.names_synced.load(Ordering::SeqCst) < self.names_version.load(Ordering::SeqCst)
    }

    /// Makes names durable: those of new partitions, and that a marker is gone.
    pub(super) fn sync_names(&self) -> Result<(), StorageError> {
        let version = self.names_version.load(Ordering::SeqCst);
        if self.names_synced.load(Ordering::SeqCst) < version {
            sync_directory(&*self.fs, &self.path, self.fs.now())?;
            self.names_synced.fetch_max(version, Ordering::SeqCst);
        }
        Ok(())
    }

    pub(super) fn checkpoint(&self, topic: &Arc<str>, partition: i32) -> Checkpoint {
        let table = self.table.lock();
        table.offsets.get(&(topic.clone(), partition)).copied().unwrap_or(table.unknown)
    }

    pub(super) fn cleaned_until(&self, topic: &Arc<str>, partition: i32) -> i64 {
        self.cleaned.lock().0.get(&(topic.clone(), partition)).copied().unwrap_or(0)
    }

    /// Remembers how far a log is compacted; 0 to forget it. It goes along with the other checkpoints.
    pub(super) fn set_cleaned_until(&self, topic: &Arc<str>, partition: i32, offset: i64) {
        let (key, mut cleaned) = ((topic.clone(), partition), self.cleaned.lock());
        let before = match offset {
            0 => cleaned.0.remove(&key),
            _ => cleaned.0.insert(key, offset),
        };
        cleaned.1 |= before.unwrap_or(0) != offset;
    }

    fn write_cleaned(&self) -> Result<(), StorageError> {
        let changed = {
            let mut cleaned = self.cleaned.lock();
            std::mem::take(&mut cleaned.1).then(|| cleaned.0.clone())
        };
        changed.map_or(Ok(()), |cleaned| checkpoints::store_cleaned(&*self.fs, &self.path, &cleaned))
    }

    /// Remembers offsets; a recovery point or a log start below that in the file is in the file when this returns.
    pub(super) fn set_checkpoint(
        &self,
        topic: &Arc<str>,
        partition: i32,
        checkpoint: Checkpoint,
    ) -> Result<(), StorageError> {
        let key = (topic.clone(), partition);
        let lowered = {
            let mut table = self.table.lock();
            let stored = table.stored.get(&key).copied().unwrap_or_default();
            if table.offsets.insert(key, checkpoint) != Some(checkpoint) {
                self.changed.store(true, Ordering::SeqCst);
            }
            checkpoint.recovery_point < stored.recovery_point
                || checkpoint.log_start_offset < stored.log_start_offset
        };
        if lowered && !planted(Bug::LoweredRecoveryPointLate) { self.write_checkpoints() } else { Ok(()) }
    }

    /// Forgets the offsets of a partition that is no more.
    pub(super) fn forget(&self, topic: &str, partition: i32) {
        self.set_cleaned_until(&Arc::from(topic), partition, 0);
        if self.table.lock().offsets.remove(&(Arc::from(topic), partition)).is_some() {
            self.changed.store(true, Ordering::SeqCst);
        }
    }

    /// As [`Self::forget`], in the files, too: what gets this name next has nothing in common with what had it before.
    fn forget_for_good(&self, topic: &str, partition: i32) -> Result<(), StorageError> {
        self.forget(topic, partition);
        if self.table.lock().stored.contains_key(&(Arc::from(topic), partition)) {
            self.changed.store(true, Ordering::SeqCst);
            self.write_checkpoints()?;
        }
        Ok(())
    }

    /// Writes the checkpoint files if anything has changed, and waits until they are durable.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn write_checkpoints(&self) -> Result<(), StorageError> {
        let _one = self.writing.lock();
        self.write_cleaned()?;
        if self.metadata_only || !self.changed.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let offsets = self.table.lock().begin_to_store();
        if let Err(error) = checkpoints::store(&*self.fs, &self.path, &offsets) {
            self.changed.store(true, Ordering::SeqCst);
            return Err(error);
        }
        self.table.lock().stored = offsets;
        Ok(())
    }

    /// The epoch of the broker that has closed this directory in order, if the last one did. It counts once, but a loss of
    /// power brings it back until [`Self::sync_names`]: nothing may be written before that.
    ///
    /// # Errors
    ///
    /// If the marker cannot be removed: the next process would take this one's death for a shutdown.
    pub(super) fn take_clean_shutdown(&self) -> Result<Option<i64>, StorageError> {
        if self.metadata_only {
            return Ok(None);
        }
        let path = self.path.join(CLEAN_SHUTDOWN);
        let text = match read_text(&*self.fs, &path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        self.fs.remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
        self.names_version.fetch_add(1, Ordering::SeqCst);
        Ok(Some(broker_epoch(&text).unwrap_or(-1)))
    }

    /// Says that everything is closed and durable.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn set_clean_shutdown(&self, epoch: i64) -> Result<(), StorageError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(StorageError::Failed(format!(
                "an fsync in {} has failed before",
                self.path.display()
            )));
        }
        self.sync_names()?;
        if self.metadata_only {
            return Ok(());
        }
        let text = format!("{{\"version\":0,\"brokerEpoch\":{epoch}}}");
        checkpoints::replace(&*self.fs, &self.path.join(CLEAN_SHUTDOWN), &text)?;
        sync_directory(&*self.fs, &self.path, self.fs.now())
    }
}

/// The number in `{"version":0,"brokerEpoch":5}`.
fn broker_epoch(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once("\"brokerEpoch\"")?;
    let digits = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Directories that are named `TOPIC-PARTITION`.
fn partitions(fs: &dyn Fs, path: &Path) -> Result<BTreeSet<(Arc<str>, i32)>, StorageError> {
    let mut found = BTreeSet::new();
    for entry in fs.list(path).map_err(|error| failed("list", path, &error))? {
        if let Some((topic, partition)) = entry.name.rsplit_once('-')
            && let Ok(partition) = partition.parse()
            && !topic.is_empty()
            && entry.is_dir
        {
            found.insert((Arc::from(topic), partition));
        }
    }
    Ok(found)
}

/// The topic that a partition's directory belongs to, if it says so.
fn topic_id(fs: &dyn Fs, path: &Path) -> Result<Option<Uuid>, StorageError> {
    let path = path.join(PARTITION_METADATA);
    match read_text(fs, &path) {
        Ok(text) => Ok(text.lines().find_map(|line| from_base64(line.strip_prefix("topic_id:")?.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path, &error)),
    }
}

/// Whether there is anything in a segment.
fn holds_records(fs: &dyn Fs, path: &Path) -> Result<bool, StorageError> {
    let list = fs.list(path).map_err(|error| failed("list", path, &error))?;
    let mut segments = list.iter().filter(|entry| entry.name.ends_with(SEGMENT));
    Ok(segments.any(|entry| fs.len(&path.join(&entry.name)).is_ok_and(|len| len > 0)))
}

/// Durable before the first segment is made, and so is the name of its directory.
fn write_topic_id(fs: &dyn Fs, path: &Path, id: Uuid) -> Result<(), StorageError> {
    let path = path.join(PARTITION_METADATA);
    let text = format!("version: 0\ntopic_id: {}", base64(id));
    let written = fs.create(&path).and_then(|file| file.write_all_at(text.as_bytes(), 0));
    written.map_err(|error| failed("write", &path, &error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::fs::RealFs;

    fn opened(path: &Path) -> Arc<LogDir> {
        LogDir::open(Arc::new(RealFs), path.to_owned(), false, Worker::start("test").unwrap()).unwrap()
    }

    fn at(log_start_offset: i64, recovery_point: i64) -> Checkpoint {
        Checkpoint { high_watermark: recovery_point, log_start_offset, recovery_point }
    }

    /// Goal: no crash takes what is overwritten now for durable. The writer had taken the old offsets, but not written them.
    #[test]
    fn a_recovery_point_that_is_lowered_while_files_are_written_is_in_them_at_once() {
        for lower in [at(20, 50), at(10, 100)] {
            let temp = tempfile::tempdir().unwrap();
            let (log_dir, t) = (opened(temp.path()), Arc::from("t"));
            log_dir.set_checkpoint(&t, 0, at(20, 100)).unwrap();
            log_dir.table.lock().begin_to_store();
            log_dir.changed.store(false, Ordering::SeqCst);
            log_dir.set_checkpoint(&t, 0, lower).unwrap();
            assert_eq!(opened(temp.path()).checkpoint(&t, 0), lower);
        }
    }

    /// Goal: the offsets of a topic that is no more are not those of the next one of its name, whenever the process is killed.
    #[test]
    fn a_new_partition_has_no_offsets_of_one_that_had_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let t = Arc::from("t");
        for gone in ["deleted", "deleted while the broker was down"] {
            let log_dir = opened(temp.path());
            log_dir.prepare(Uuid::from_u128(1), "t", 0).unwrap();
            log_dir.set_checkpoint(&t, 0, at(500, 1_000)).unwrap();
            log_dir.write_checkpoints().unwrap();
            let log_dir = if gone == "deleted" { log_dir } else { opened(temp.path()) };
            if gone == "deleted" {
                log_dir.delete(&log_dir.path_of("t", 0)).unwrap();
                log_dir.forget("t", 0);
            }
            log_dir.prepare(Uuid::from_u128(2), "t", 0).unwrap();
            assert_eq!(opened(temp.path()).checkpoint(&t, 0), Checkpoint::default(), "{gone}");
            log_dir.delete(&log_dir.path_of("t", 0)).unwrap();
        }
    }

    #[test]
    fn a_directory_without_a_topic_id_is_nobodys_and_its_records_are_set_aside() {
        let temp = tempfile::tempdir().unwrap();
        let log_dir = opened(temp.path());
        let (path, first, second) = (log_dir.path_of("t", 0), Uuid::from_u128(1), Uuid::from_u128(2));
        for round in 0..2 {
            log_dir.prepare(first, "t", 0).unwrap();
            fs::write(path.join("00000000000000000000.log"), format!("records {round}")).unwrap();
            fs::write(path.join(PARTITION_METADATA), "").unwrap();
            log_dir.prepare(second, "t", 0).unwrap();
            assert_eq!(topic_id(&RealFs, &path).unwrap(), Some(second));
            assert!(!holds_records(&RealFs, &path).unwrap());
            let stray = temp.path().join(format!("t-0.{round:032x}-stray/00000000000000000000.log"));
            assert_eq!(fs::read_to_string(stray).unwrap(), format!("records {round}"));
            log_dir.delete(&path).unwrap();
        }
        assert_eq!(log_dir.partitions().unwrap(), [], "a stray one is none");
        fs::create_dir(&path).unwrap();
        log_dir.prepare(first, "t", 0).unwrap();
        assert_eq!(topic_id(&RealFs, &path).unwrap(), Some(first));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3, "what holds nothing is not kept");
    }

    #[test]
    fn the_marker_of_a_clean_shutdown_is_kafkas() {
        assert_eq!(broker_epoch(r#"{"version":0,"brokerEpoch":42}"#), Some(42));
        assert_eq!(broker_epoch(r#"{ "brokerEpoch" : -1, "version" : 0 }"#), Some(-1));
        assert_eq!(broker_epoch("0"), None);
    }
}
