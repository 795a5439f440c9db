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
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use broker_lite_core::log::PARTITION_METADATA;
use broker_lite_core::storage::{Checkpoint, StorageError};
use parking_lot::Mutex;
use uuid::Uuid;

use super::checkpoints::{self, Key, Offsets};
use super::descriptors::Descriptors;
use super::directory::{failed, sync_directory};
use crate::cluster::{base64, from_base64};
use crate::rt::Worker;

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Suffix of a partition's directory that is about to be removed.
const DELETE: &str = "-delete";

/// Topic id and partition, and the topic's name.
pub(super) type Held = ((Uuid, i32), Arc<str>);

/// A log directory.
#[derive(Debug)]
pub(crate) struct LogDir {
    path: PathBuf,
    descriptors: Arc<Descriptors>,
    table: Mutex<Table>,
    /// One writer of checkpoint files at a time.
    writing: Mutex<()>,
    changed: AtomicBool,
    /// How far logs are compacted, and whether the file says something else.
    cleaned: Mutex<(BTreeMap<Key, i64>, bool)>,
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
    /// As they stand in the files.
    stored: Offsets,
    /// For partitions without a line.
    unknown: Checkpoint,
}

impl LogDir {
    /// Opens a directory that exists and that this process holds.
    ///
    /// # Errors
    ///
    /// If a checkpoint cannot be read.
    pub(super) fn open(
        path: PathBuf,
        metadata_only: bool,
        worker: Worker,
    ) -> Result<Arc<Self>, StorageError> {
        let (offsets, has_recovery_points) = match metadata_only {
            true => (Offsets::new(), true),
            false => checkpoints::load(&path)?,
        };
        // Segments of somebody who has left no checkpoint may have gaps anywhere.
        let foreign = !has_recovery_points && !partitions(&path)?.is_empty();
        let unknown = Checkpoint { recovery_point: if foreign { -1 } else { 0 }, ..Checkpoint::default() };
        let cleaned = if metadata_only { BTreeMap::new() } else { checkpoints::load_cleaned(&path) };
        Ok(Arc::new(Self {
            path,
            cleaned: Mutex::new((cleaned, false)),
            descriptors: Arc::default(),
            table: Mutex::new(Table { stored: offsets.clone(), offsets, unknown }),
            writing: Mutex::new(()),
            changed: AtomicBool::new(false),
            // That of the directory's own mark, and whatever a process that was killed has left.
            names_version: AtomicU64::new(1),
            names_synced: AtomicU64::new(0),
            metadata_only,
            worker,
        }))
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

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, topic: &str, partition: i32) -> PathBuf {
        self.path.join(format!("{topic}-{partition}"))
    }

    /// Makes sure that there is a directory for this partition of this topic, and not that of an earlier topic of the same
    /// name.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn prepare(&self, id: Uuid, topic: &str, partition: i32) -> Result<(), StorageError> {
        let path = self.path_of(topic, partition);
        if path.exists() {
            match topic_id(&path)? {
                Some(found) if found != id => self.delete(&path),
                Some(_) => return Ok(()),
                None => return write_topic_id(&path, id),
            }?;
            self.forget(topic, partition);
        }
        fs::create_dir(&path).map_err(|error| failed("create", &path, &error))?;
        self.names_version.fetch_add(1, Ordering::SeqCst);
        write_topic_id(&path, id)
    }

    /// The partitions that are here, by topic id and number.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn partitions(&self) -> Result<Vec<Held>, StorageError> {
        let mut found = Vec::new();
        for (topic, partition) in partitions(&self.path)? {
            if let Some(id) = topic_id(&self.path_of(&topic, partition))? {
                found.push(((id, partition), topic));
            }
        }
        Ok(found)
    }

    /// Removes the directory of a partition that is no more, and what is left over of such.
    pub(super) fn delete(&self, path: &Path) -> Result<(), StorageError> {
        let mut doomed = path.as_os_str().to_owned();
        doomed.push(format!(".{:016x}{DELETE}", self.names_version.fetch_add(1, Ordering::Relaxed)));
        let doomed = PathBuf::from(doomed);
        match fs::rename(path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("rename", path, &error)),
        }
        fs::remove_dir_all(&doomed).map_err(|error| failed("remove", &doomed, &error))
    }

    /// Removes what a process had no time to.
    pub(super) fn tidy(&self) -> Result<(), StorageError> {
        let list = fs::read_dir(&self.path).map_err(|error| failed("list", &self.path, &error))?;
        for entry in list.flatten() {
            let is_doomed = entry.file_name().to_str().is_some_and(|name| name.ends_with(DELETE));
            if is_doomed && entry.path().is_dir() {
                match fs::remove_dir_all(entry.path()) {
                    // The thread of an earlier cluster in this process may be at it.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", &entry.path(), &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether there are names that are not durable.
    pub(super) fn has_new_names(&self) -> bool {
        self.names_synced.load(Ordering::SeqCst) < self.names_version.load(Ordering::SeqCst)
    }

    /// Makes names durable: those of new partitions, and that a marker is gone.
    pub(super) fn sync_names(&self) -> Result<(), StorageError> {
        let version = self.names_version.load(Ordering::SeqCst);
        if self.names_synced.load(Ordering::SeqCst) < version {
            sync_directory(&self.path)?;
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
        changed.map_or(Ok(()), |cleaned| checkpoints::store_cleaned(&self.path, &cleaned))
    }

    /// Remembers offsets; a recovery point below that in the file is in the file when this returns.
    pub(super) fn set_checkpoint(
        &self,
        topic: &Arc<str>,
        partition: i32,
        checkpoint: Checkpoint,
    ) -> Result<(), StorageError> {
        let key = (topic.clone(), partition);
        let lowered = {
            let mut table = self.table.lock();
            let stored = table.stored.get(&key).map_or(0, |stored| stored.recovery_point);
            if table.offsets.insert(key, checkpoint) != Some(checkpoint) {
                self.changed.store(true, Ordering::SeqCst);
            }
            checkpoint.recovery_point < stored
        };
        if lowered { self.write_checkpoints() } else { Ok(()) }
    }

    /// Forgets the offsets of a partition that is no more.
    pub(super) fn forget(&self, topic: &str, partition: i32) {
        self.set_cleaned_until(&Arc::from(topic), partition, 0);
        if self.table.lock().offsets.remove(&(Arc::from(topic), partition)).is_some() {
            self.changed.store(true, Ordering::SeqCst);
        }
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
        let offsets = self.table.lock().offsets.clone();
        checkpoints::store(&self.path, &offsets)?;
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
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
        self.names_version.fetch_add(1, Ordering::SeqCst);
        Ok(Some(broker_epoch(&text).unwrap_or(-1)))
    }

    /// Says that everything is closed and durable.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn set_clean_shutdown(&self, epoch: i64) -> Result<(), StorageError> {
        self.sync_names()?;
        if self.metadata_only {
            return Ok(());
        }
        let text = format!("{{\"version\":0,\"brokerEpoch\":{epoch}}}");
        checkpoints::replace(&self.path.join(CLEAN_SHUTDOWN), &text)?;
        sync_directory(&self.path)
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
fn partitions(path: &Path) -> Result<BTreeSet<(Arc<str>, i32)>, StorageError> {
    let list = fs::read_dir(path).map_err(|error| failed("list", path, &error))?;
    let mut found = BTreeSet::new();
    for entry in list {
        let entry = entry.map_err(|error| failed("list", path, &error))?;
        if let Some((topic, partition)) = entry.file_name().to_str().and_then(|name| name.rsplit_once('-'))
            && let Ok(partition) = partition.parse()
            && !topic.is_empty()
            && entry.path().is_dir()
        {
            found.insert((Arc::from(topic), partition));
        }
    }
    Ok(found)
}

/// The topic that a partition's directory belongs to, if it says so.
fn topic_id(path: &Path) -> Result<Option<Uuid>, StorageError> {
    let path = path.join(PARTITION_METADATA);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().find_map(|line| from_base64(line.strip_prefix("topic_id:")?.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path, &error)),
    }
}

/// Durable with the first sync of the partition, as the name of its directory is.
fn write_topic_id(path: &Path, id: Uuid) -> Result<(), StorageError> {
    let path = path.join(PARTITION_METADATA);
    let text = format!("version: 0\ntopic_id: {}", base64(id));
    fs::write(&path, text).map_err(|error| failed("write", &path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_of_a_clean_shutdown_is_kafkas() {
        assert_eq!(broker_epoch(r#"{"version":0,"brokerEpoch":42}"#), Some(42));
        assert_eq!(broker_epoch(r#"{ "brokerEpoch" : -1, "version" : 0 }"#), Some(-1));
        assert_eq!(broker_epoch("0"), None);
    }
}
