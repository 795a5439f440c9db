//! The directory of one replica on a real disk.
//!
//! Invariant: nothing is read or written behind this struct's back, so sizes are known without asking.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_lite_core::log::PARTITION_METADATA;
use broker_lite_core::storage::{Aside, Checkpoint, Directory, FileId, StorageError, Unsynced};
use bytes::{Bytes, BytesMut};
use klamm_wire::planted::{Bug, planted};
use parking_lot::Mutex;

use super::descriptors::Slot;
use super::fs::{Fs, Moment, OpenFile};
use super::log_dir::LogDir;
use crate::rt::side_by_side;

/// Chunks of an append below this size are written in one piece.
const JOIN_BELOW_BYTES: usize = 64 << 10;
/// Read at once while somebody goes from header to header.
const WINDOW_BYTES: usize = 8 << 10;
/// Files that are synced at the same time.
const MOST_AT_ONCE: usize = 8;
/// What the name of a segment ends with.
pub(super) const SEGMENT: &str = ".log";
/// Whoever reads less than this looks at a header.
const HEADER_BYTES: usize = 128;

/// The directory of one replica.
#[derive(Debug)]
pub(crate) struct DiskDirectory {
    path: PathBuf,
    log_dir: Arc<LogDir>,
    topic: Arc<str>,
    partition: i32,
    files: Vec<Option<DiskFile>>,
    /// Counts changes of names; those up to `names_synced` are durable.
    names_version: u64,
    names_synced: u64,
    renames: Vec<(String, String)>,
    temporaries: u64,
    syncs: u64,
    was_closed: bool,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct DiskFile {
    name: String,
    slot: Arc<Slot>,
    len: u64,
    synced: u64,
    /// It was cut, and no sync has begun since that has ended.
    cut: bool,
    /// Only syncs that begin after so many others vouch for it: it was made, cut, or renamed.
    vouched_after: u64,
    lazy: bool,
}

/// A piece of a file that was read last.
#[derive(Debug, Default)]
struct Window {
    file: Option<FileId>,
    position: u64,
    bytes: Vec<u8>,
}

/// What an fsync has to do, away from the replica's lock.
#[derive(Debug)]
pub(crate) struct Job {
    /// When it was asked for: what is changed later is not to be covered.
    then: Moment,
    files: Vec<Arc<Slot>>,
    renames: Vec<(PathBuf, PathBuf)>,
    directory: Option<PathBuf>,
    log_dir: Arc<LogDir>,
}

impl DiskDirectory {
    /// Opens a directory that exists.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn new(
        log_dir: Arc<LogDir>,
        topic: Arc<str>,
        partition: i32,
        was_closed: bool,
    ) -> Result<Self, StorageError> {
        let mut directory = Self {
            path: log_dir.path_of(&topic, partition),
            log_dir,
            topic,
            partition,
            files: Vec::new(),
            // A process that was killed may have left names that are not durable.
            names_version: u64::from(!was_closed),
            names_synced: 0,
            renames: Vec::new(),
            temporaries: 0,
            syncs: 0,
            was_closed,
            window: Mutex::default(),
        };
        // It is synced before anything else is made here. That of the metadata says nothing which its place does not say.
        if !directory.log_dir.is_metadata_only() {
            directory.open(PARTITION_METADATA)?;
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For the next process on these files.
    pub(super) fn reopen(&mut self, was_closed: bool) {
        self.was_closed = was_closed;
        self.names_version += u64::from(!was_closed);
    }

    /// Forgets the offsets remembered for this replica.
    pub(super) fn forget(&self) {
        self.log_dir.forget(&self.topic, self.partition);
    }

    /// What is to be done for a sync that has begun.
    pub(super) fn job(&self, unsynced: &Unsynced) -> Job {
        let slot = |(id, _): &(FileId, u64)| Some(self.file(*id).ok()?.slot.clone());
        let path = |name: &String| self.path.join(name);
        Job {
            then: self.log_dir.fs().now(),
            files: unsynced.files.iter().filter_map(slot).collect(),
            renames: unsynced.renames.iter().map(|(from, to)| (path(from), path(to))).collect(),
            directory: unsynced.names.is_some().then(|| self.path.clone()),
            log_dir: self.log_dir.clone(),
        }
    }

    /// Inverts the bits of one byte, as a failing disk would.
    pub(super) fn corrupt_byte(&mut self, name: &str, position: u64) -> Result<(), StorageError> {
        let file = self.open(name)?;
        let mut byte = [0];
        self.fill(file, position, &mut byte)?;
        self.window.get_mut().file = None;
        let slot = &self.file(file)?.slot;
        let written = slot.open().and_then(|opened| opened.write_all_at(&[!byte[0]], position));
        written.map_err(|error| failed("write to", slot.path(), &error))
    }

    /// No record may outlive the mark that says of which topic it is.
    fn settle_topic_id(&mut self) -> Result<(), StorageError> {
        let Some(id) = self.known(PARTITION_METADATA) else { return Ok(()) };
        let mark = self.file(id)?;
        if mark.synced == mark.len {
            return Ok(());
        }
        let fs = self.log_dir.fs();
        let then = fs.now();
        let sync_mark = || {
            let synced = mark.slot.open().and_then(|file| file.sync(then));
            synced.map_err(|error| failed("fsync", mark.slot.path(), &error))
        };
        at_once(fs, &[0, 1, 2], |part| match part {
            0 => sync_mark(),
            1 => sync_directory(fs, &self.path, then),
            _ => self.log_dir.sync_names(),
        })?;
        let mark = self.file_mut(id)?;
        mark.synced = mark.len;
        Ok(())
    }

    fn file(&self, file: FileId) -> Result<&DiskFile, StorageError> {
        let found = self.files.get(file.0 as usize).and_then(Option::as_ref);
        found.ok_or_else(|| StorageError::Missing(format!("{file:?} in {}", self.path.display())))
    }

    fn file_mut(&mut self, file: FileId) -> Result<&mut DiskFile, StorageError> {
        let missing = || StorageError::Missing(format!("{file:?}"));
        self.files.get_mut(file.0 as usize).and_then(Option::as_mut).ok_or_else(missing)
    }

    fn known(&self, name: &str) -> Option<FileId> {
        let is = |file: &Option<DiskFile>| file.as_ref().is_some_and(|file| file.name == name);
        self.files.iter().position(is).map(|at| FileId(at as u32))
    }

    fn forget_file(&mut self, name: &str) {
        if let Some(known) = self.known(name)
            && let Some(file) = self.files.get_mut(known.0 as usize)
        {
            *file = None;
        }
        self.window.get_mut().file = None;
    }

    fn add(&mut self, name: &str, len: u64, file: Option<Arc<dyn OpenFile>>) -> FileId {
        let slot = self.log_dir.descriptors().slot(self.path.join(name), file);
        let (name, cut) = (name.to_owned(), false);
        // What was asked for before knew another file by this id.
        let added = DiskFile { name, slot, len, synced: 0, cut, vouched_after: self.syncs, lazy: false };
        let free = self.files.iter().position(Option::is_none).unwrap_or(self.files.len());
        if free == self.files.len() {
            self.files.push(None);
        }
        if let Some(place) = self.files.get_mut(free) {
            *place = Some(added);
        }
        FileId(free as u32)
    }

    fn fill(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let found = self.file(file)?;
        let len = buf.len();
        if position.checked_add(len as u64).is_none_or(|to| to > found.len) {
            return Err(StorageError::OutOfRange { position, len, end: found.len });
        }
        let opened = found.slot.open().map_err(|error| failed("open", found.slot.path(), &error))?;
        opened.read_exact_at(buf, position).map_err(|error| failed("read", found.slot.path(), &error))
    }
}

/// One sentence about what the operating system refused.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> StorageError {
    StorageError::Failed(format!("cannot {what} {}: {error}", path.display()))
}

impl Job {
    /// Makes it durable, and waits for that: first what files hold, all of them side by side, then their names.
    pub(crate) fn run(self) -> Result<(), StorageError> {
        let log_dir = self.log_dir.clone();
        self.carry_out().inspect_err(|_| log_dir.fail())
    }

    fn carry_out(self) -> Result<(), StorageError> {
        // What is gone meanwhile was deleted on purpose, or was given its name by another sync.
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let sync_file = |slot: &Arc<Slot>| match slot.open().and_then(|file| file.sync(self.then)) {
            Err(error) if !gone(&error) => Err(failed("fsync", slot.path(), &error)),
            _ => Ok(()),
        };
        let fs = self.log_dir.fs();
        let mut all: Vec<Option<&Arc<Slot>>> = self.files.iter().map(Some).collect();
        all.extend(self.log_dir.has_new_names().then_some(None));
        at_once(fs, &all, |file| file.map_or_else(|| self.log_dir.sync_names(), sync_file))?;
        for (from, to) in &self.renames {
            match fs.rename(from, to) {
                Err(error) if !gone(&error) => return Err(failed("rename", from, &error)),
                _ => {}
            }
        }
        // It begins after the renames, if there are any.
        let then = if self.renames.is_empty() { self.then } else { fs.now() };
        match &self.directory {
            Some(directory) => sync_directory(fs, directory, then),
            None => Ok(()),
        }
    }
}

/// Does what waits for the disk for each of the items, some of them at a time.
fn at_once<T: Sync>(
    fs: &dyn Fs,
    items: &[T],
    sync: impl Fn(&T) -> Result<(), StorageError> + Sync,
) -> Result<(), StorageError> {
    for few in items.chunks(MOST_AT_ONCE) {
        let done = match few {
            [one] => vec![sync(one)],
            _ if fs.is_simulated() => few.iter().map(&sync).collect(),
            // Without a thread to be had, one after the other; what was done already costs nothing.
            _ => side_by_side(few.iter(), &sync).unwrap_or_else(|_| few.iter().map(&sync).collect()),
        };
        done.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Makes the names durable that a directory had then.
pub(super) fn sync_directory(fs: &dyn Fs, path: &Path, then: Moment) -> Result<(), StorageError> {
    if planted(Bug::NoDirectoryFsync) {
        return Ok(());
    }
    fs.sync_dir(path, then).map_err(|error| failed("fsync", path, &error))
}

/// A file away from its directory.
#[derive(Debug)]
pub(crate) struct DiskAside {
    log_dir: Arc<LogDir>,
    slot: Arc<Slot>,
    len: u64,
    synced: u64,
}

impl Aside for DiskAside {
    fn size(&self) -> u64 {
        self.len
    }

    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        if position.checked_add(len as u64).is_none_or(|to| to > self.len) {
            return Err(StorageError::OutOfRange { position, len, end: self.len });
        }
        let mut bytes = BytesMut::zeroed(len);
        let read = self.slot.open().and_then(|opened| opened.read_exact_at(&mut bytes, position));
        read.map_err(|error| failed("read", self.slot.path(), &error))?;
        out.push(bytes.freeze());
        Ok(())
    }

    fn append(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        let written = self.slot.open().and_then(|opened| opened.write_all_at(&chunk, self.len));
        written.map_err(|error| failed("write to", self.slot.path(), &error))?;
        self.len += chunk.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let then = self.log_dir.fs().now();
        let synced = self.slot.open().and_then(|opened| opened.sync(then));
        synced.map_err(|error| failed("fsync", self.slot.path(), &error))?;
        self.synced = self.len;
        Ok(())
    }
}

impl Directory for DiskDirectory {
    type Aside = DiskAside;

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let list = self.log_dir.fs().list(&self.path);
        let list = list.map_err(|error| failed("list", &self.path, &error))?;
        Ok(list.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect())
    }

    fn open(&mut self, name: &str) -> Result<FileId, StorageError> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let path = self.path.join(name);
        match self.log_dir.fs().len(&path) {
            Ok(len) => {
                let id = self.add(name, len, None);
                // Closed in order means durable.
                let synced = if self.was_closed { len } else { 0 };
                self.file_mut(id)?.synced = synced;
                Ok(id)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StorageError::Missing(path.display().to_string()))
            }
            Err(error) => Err(failed("open", &path, &error)),
        }
    }

    fn create(&mut self, name: &str) -> Result<FileId, StorageError> {
        if name.ends_with(SEGMENT) {
            self.settle_topic_id()?;
        }
        let (fs, path) = (self.log_dir.fs(), self.path.join(name));
        // What was in its place is back after a loss of power until this one is synced, empty or not.
        let cut = fs.exists(&path);
        let file = fs.create(&path).map_err(|error| failed("create", &path, &error))?;
        self.forget_file(name);
        self.names_version += 1;
        let added = self.add(name, 0, Some(file));
        self.file_mut(added)?.cut = cut;
        Ok(added)
    }

    fn set_lazy(&mut self, file: FileId, lazy: bool) {
        if let Ok(file) = self.file_mut(file) {
            file.lazy = lazy;
        }
    }

    fn size(&self, file: FileId) -> u64 {
        self.file(file).map_or(0, |file| file.len)
    }

    fn synced_len(&self, file: FileId) -> u64 {
        self.file(file).map_or(0, |file| file.synced)
    }

    fn append(&mut self, file: FileId, chunks: &[Bytes]) -> Result<u64, StorageError> {
        let found = self.file_mut(file)?;
        let (position, total) = (found.len, chunks.iter().map(Bytes::len).sum::<usize>());
        let opened = found.slot.open();
        let written = opened.and_then(|opened| {
            if chunks.len() > 1 && total < JOIN_BELOW_BYTES {
                return opened.write_all_at(&chunks.concat(), position);
            }
            let mut at = position;
            for chunk in chunks {
                opened.write_all_at(chunk, at)?;
                at += chunk.len() as u64;
            }
            Ok(())
        });
        written.map_err(|error| failed("write to", found.slot.path(), &error))?;
        found.len += total as u64;
        Ok(position)
    }

    fn read(
        &self,
        file: FileId,
        position: u64,
        len: usize,
        out: &mut Vec<Bytes>,
    ) -> Result<(), StorageError> {
        if len == 0 {
            return Ok(());
        }
        // before so much memory is asked for
        let end = self.file(file)?.len;
        if position.checked_add(len as u64).is_none_or(|to| to > end) {
            return Err(StorageError::OutOfRange { position, len, end });
        }
        out.push(self.log_dir.read_buffers().filled(len, |bytes| self.fill(file, position, bytes))?);
        Ok(())
    }

    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        if buf.len() > HEADER_BYTES {
            return self.fill(file, position, buf);
        }
        let mut window = self.window.lock();
        let from = position.checked_sub(window.position).and_then(|from| usize::try_from(from).ok());
        if window.file == Some(file)
            && let Some(held) = from.and_then(|from| window.bytes.get(from..from + buf.len()))
        {
            buf.copy_from_slice(held);
            return Ok(());
        }
        let end = self.file(file)?.len;
        let ahead = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        if ahead < buf.len() {
            return Err(StorageError::OutOfRange { position, len: buf.len(), end });
        }
        window.file = None;
        window.bytes.resize(ahead, 0);
        self.fill(file, position, &mut window.bytes)?;
        (window.file, window.position) = (Some(file), position);
        buf.copy_from_slice(&window.bytes[..buf.len()]);
        Ok(())
    }

    fn aside(&self, file: FileId) -> Result<DiskAside, StorageError> {
        let found = self.file(file)?;
        let (log_dir, slot) = (self.log_dir.clone(), found.slot.clone());
        Ok(DiskAside { log_dir, slot, len: found.len, synced: found.synced })
    }

    fn take_back(&mut self, file: FileId, aside: DiskAside) -> Result<(), StorageError> {
        let found = self.file_mut(file)?;
        (found.len, found.synced) = (aside.len, aside.synced);
        Ok(())
    }

    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError> {
        let syncs = self.syncs;
        let found = self.file_mut(file)?;
        if len >= found.len {
            return Ok(());
        }
        let cut = found.slot.open().and_then(|opened| opened.set_len(len));
        cut.map_err(|error| failed("cut", found.slot.path(), &error))?;
        found.len = len;
        found.synced = found.synced.min(len);
        (found.cut, found.vouched_after) = (true, syncs);
        self.window.get_mut().file = None;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        let (old, new) = (self.path.join(from), self.path.join(to));
        match self.log_dir.fs().rename(&old, &new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StorageError::Missing(old.display().to_string()));
            }
            Err(error) => return Err(failed("rename", &old, &error)),
        }
        self.names_version += 1;
        self.forget_file(to);
        if let Some(known) = self.known(from)
            && let Some(file) = self.files.get_mut(known.0 as usize).and_then(Option::as_mut)
        {
            // A sync under way may not find it any more.
            file.vouched_after = self.syncs;
            file.name = to.to_owned();
            file.slot = self.log_dir.descriptors().slot(new, None);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        let path = self.path.join(name);
        match self.log_dir.fs().remove_file(&path) {
            Ok(()) => self.names_version += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &path, &error)),
        }
        self.forget_file(name);
        Ok(())
    }

    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError> {
        // A rename may be under way on another thread: no two of them have the same source.
        let temporary = format!("{name}.{}.tmp", self.temporaries);
        self.temporaries += 1;
        let file = self.create(&temporary)?;
        self.append(file, &[content])?;
        self.renames.push((temporary, name.to_owned()));
        Ok(())
    }

    fn begin_sync(&mut self) -> Unsynced {
        self.syncs += 1;
        let files = (0..).map(FileId).zip(&self.files).filter_map(|(id, file)| {
            let file = file.as_ref()?;
            let due = file.synced < file.len || file.cut;
            (due && !file.lazy).then_some((id, file.len))
        });
        let names = (self.names_synced < self.names_version).then_some(self.names_version);
        Unsynced { number: self.syncs, files: files.collect(), renames: self.renames.clone(), names }
    }

    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        for (id, len) in &done.files {
            if let Ok(file) = self.file_mut(*id)
                && done.number > file.vouched_after
            {
                file.synced = file.synced.max((*len).min(file.len));
                file.cut = false;
            }
        }
        for (from, to) in &done.renames {
            // Another sync may have done so before, and there may be new files of these names.
            if let Some(at) = self.renames.iter().position(|(waiting, _)| waiting == from) {
                self.renames.remove(at);
                self.forget_file(from);
                self.forget_file(to);
            }
        }
        let names = match planted(Bug::NamesAfterTheirFsync) {
            true => self.names_version,
            false => done.names.unwrap_or(0),
        };
        self.names_synced = self.names_synced.max(names);
        Ok(())
    }

    fn sync_now(&mut self) -> Result<(), StorageError> {
        let unsynced = self.begin_sync();
        self.job(&unsynced).run()?;
        self.mark_synced(&unsynced)
    }

    fn checkpoint(&self) -> Checkpoint {
        self.log_dir.checkpoint(&self.topic, self.partition)
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.log_dir.set_checkpoint(&self.topic, self.partition, checkpoint)
    }

    fn cleaned_until(&self) -> i64 {
        self.log_dir.cleaned_until(&self.topic, self.partition)
    }

    fn set_cleaned_until(&mut self, offset: i64) {
        self.log_dir.set_cleaned_until(&self.topic, self.partition, offset);
    }

    fn was_closed(&self) -> bool {
        self.was_closed
    }

    fn keeps_derived(&self) -> bool {
        true
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests;
