//! A directory in memory, with the durability of a disk: a kill loses nothing, a loss of power what was not synced,
//! names and renamings included.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::pieces::Pieces;
use super::{Aside, Checkpoint, Directory, FileId, StorageError, Unsynced};

type Names = BTreeMap<Box<str>, FileId>;

/// A directory in memory. Empty, it takes no memory beyond itself.
#[derive(Debug, Default)]
pub struct MemoryDirectory {
    files: Vec<Option<MemoryFile>>,
    names: Names,
    /// What a loss of power would leave of the names, while that is something else.
    durable_names: Option<Names>,
    /// Counts changes of names.
    names_version: u64,
    /// The names when the last sync began, if they were not durable.
    begun: Option<(u64, Names)>,
    /// Temporary names, and those they get with the next sync.
    renames: Vec<(String, String)>,
    next_temporary: u64,
    /// Syncs that have begun.
    syncs: u64,
    checkpoint: Checkpoint,
    cleaned_until: i64,
    keeps_derived: bool,
    was_closed: bool,
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: Pieces,
    synced: u64,
    lazy: bool,
    /// Only syncs that begin after so many others vouch for it: it was made, or cut.
    vouched_after: u64,
    /// What a loss of power would bring back: the durable bytes from before a cut that is not durable itself.
    before_cut: Option<Box<Pieces>>,
}

impl MemoryDirectory {
    /// An empty directory, whose log keeps nothing beside its segments.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty directory whose log keeps indexes and the like, as on a disk.
    pub fn with_derived_files() -> Self {
        Self { keeps_derived: true, ..Self::default() }
    }

    /// Says whether the last process has closed its log in order, and everything is durable.
    pub fn set_closed(&mut self, closed: bool) {
        self.was_closed = closed;
    }

    /// Inverts the bits of one byte, as a failing disk would. Slices handed out before keep the old byte.
    ///
    /// # Errors
    ///
    /// [`StorageError::Missing`], [`StorageError::OutOfRange`].
    pub fn corrupt_byte(&mut self, name: &str, position: u64) -> Result<(), StorageError> {
        let file = self.open(name)?;
        self.file_mut(file)?.bytes.corrupt_byte(position)
    }

    /// What a loss of power leaves: everything that was made durable, and nothing else.
    pub fn power_off(&mut self) {
        self.power_off_torn(&mut |_| 0);
    }

    /// As [`Self::power_off`], but parts of the rest had reached the medium: `kept` is asked, for each file with unsynced
    /// bytes, how many of so many were, and once, of one, whether names and cuts had been.
    pub fn power_off_torn(&mut self, kept: &mut dyn FnMut(u64) -> u64) {
        self.renames.clear();
        self.begun = None;
        let lost_names = self.durable_names.take();
        let unsynced_cut = self.files.iter().flatten().any(|file| file.before_cut.is_some());
        let names_reached = (lost_names.is_some() || unsynced_cut) && kept(1) > 0;
        if let Some(names) = lost_names.filter(|_| !names_reached) {
            self.names = names;
        }
        for file in self.files.iter_mut().flatten() {
            let before_cut = file.before_cut.take();
            if let Some(before) = before_cut.filter(|_| !names_reached) {
                file.bytes = *before;
            } else {
                let unsynced = file.bytes.end() - file.synced;
                let left = if unsynced > 0 { kept(unsynced).min(unsynced) } else { 0 };
                file.bytes.truncate(file.synced + left);
            }
            file.synced = file.bytes.end();
        }
        self.names_version += 1;
        self.drop_nameless();
    }

    fn file(&self, file: FileId) -> Option<&MemoryFile> {
        self.files.get(file.0 as usize).and_then(Option::as_ref)
    }

    fn file_mut(&mut self, file: FileId) -> Result<&mut MemoryFile, StorageError> {
        let found = self.files.get_mut(file.0 as usize).and_then(Option::as_mut);
        found.ok_or_else(|| StorageError::Missing(format!("{file:?}")))
    }

    /// Call it before names change.
    fn names_change(&mut self) {
        self.names_version += 1;
        if self.durable_names.is_none() {
            self.durable_names = Some(self.names.clone());
        }
    }

    /// Frees what no name stands for any more, neither now nor after a loss of power.
    fn drop_nameless(&mut self) {
        let named = |id: u32| {
            let has = |names: &Names| names.values().any(|file| file.0 == id);
            has(&self.names) || self.durable_names.as_ref().is_some_and(has)
        };
        let gone: Vec<u32> = (0..self.files.len() as u32).filter(|id| !named(*id)).collect();
        for id in gone {
            if let Some(file) = self.files.get_mut(id as usize) {
                *file = None;
            }
        }
    }

    fn add(&mut self, name: &str) -> FileId {
        let free = self.files.iter().position(Option::is_none).unwrap_or(self.files.len());
        if free == self.files.len() {
            self.files.push(None);
        }
        if let Some(slot) = self.files.get_mut(free) {
            // What was asked for before knew another file by this id.
            *slot = Some(MemoryFile { vouched_after: self.syncs, ..MemoryFile::default() });
        }
        let file = FileId(free as u32);
        self.names.insert(name.into(), file);
        file
    }
}

/// A file of a [`MemoryDirectory`] away from it.
#[derive(Debug)]
pub struct MemoryAside(Pieces);

impl Aside for MemoryAside {
    fn size(&self) -> u64 {
        self.0.end()
    }

    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        self.0.read(position, len, out)
    }

    fn append(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        self.0.append(&[chunk]);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Directory for MemoryDirectory {
    type Aside = MemoryAside;

    fn names(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.names.keys().map(|name| name.to_string()).collect())
    }

    fn open(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.names.get(name).copied().ok_or_else(|| StorageError::Missing(name.to_owned()))
    }

    fn create(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.names_change();
        self.names.remove(name);
        self.drop_nameless();
        Ok(self.add(name))
    }

    fn set_lazy(&mut self, file: FileId, lazy: bool) {
        if let Ok(file) = self.file_mut(file) {
            file.lazy = lazy;
        }
    }

    fn size(&self, file: FileId) -> u64 {
        self.file(file).map_or(0, |file| file.bytes.end())
    }

    fn synced_len(&self, file: FileId) -> u64 {
        let named = self.durable_names.as_ref().is_none_or(|names| names.values().any(|id| *id == file));
        self.file(file).filter(|_| named).map_or(0, |file| file.synced)
    }

    fn append(&mut self, file: FileId, chunks: &[Bytes]) -> Result<u64, StorageError> {
        Ok(self.file_mut(file)?.bytes.append(chunks))
    }

    fn read(
        &self,
        file: FileId,
        position: u64,
        len: usize,
        out: &mut Vec<Bytes>,
    ) -> Result<(), StorageError> {
        let found = self.file(file).ok_or_else(|| StorageError::Missing(format!("{file:?}")))?;
        found.bytes.read(position, len, out)
    }

    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let found = self.file(file).ok_or_else(|| StorageError::Missing(format!("{file:?}")))?;
        found.bytes.read_exact(position, buf)
    }

    fn aside(&self, file: FileId) -> Result<MemoryAside, StorageError> {
        let found = self.file(file).ok_or_else(|| StorageError::Missing(format!("{file:?}")))?;
        Ok(MemoryAside(found.bytes.share()))
    }

    fn take_back(&mut self, file: FileId, aside: MemoryAside) -> Result<(), StorageError> {
        let file = self.file_mut(file)?;
        file.synced = aside.size();
        file.bytes = aside.0;
        Ok(())
    }

    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError> {
        let syncs = self.syncs;
        let file = self.file_mut(file)?;
        if len >= file.bytes.end() {
            return Ok(());
        }
        file.vouched_after = syncs;
        if len < file.synced && file.before_cut.is_none() {
            let mut before = file.bytes.share();
            before.truncate(file.synced);
            file.before_cut = Some(Box::new(before));
        }
        file.bytes.truncate(len);
        file.synced = file.synced.min(len);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        let file = self.open(from)?;
        self.names_change();
        self.names.remove(from);
        self.names.insert(to.into(), file);
        self.drop_nameless();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        if self.names.contains_key(name) {
            self.names_change();
            self.names.remove(name);
            self.drop_nameless();
        }
        Ok(())
    }

    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError> {
        let temporary = format!("{name}.{}.tmp", self.next_temporary);
        self.next_temporary += 1;
        let file = self.create(&temporary)?;
        self.append(file, &[content])?;
        self.renames.push((temporary, name.to_owned()));
        Ok(())
    }

    fn begin_sync(&mut self) -> Unsynced {
        self.syncs += 1;
        let names = self.durable_names.is_some().then_some(self.names_version);
        self.begun = names.map(|version| (version, self.names.clone()));
        let files = (0..).map(FileId).zip(&self.files).filter_map(|(id, file)| {
            let file = file.as_ref()?;
            let due = file.synced < file.bytes.end() || file.before_cut.is_some();
            (due && !file.lazy).then(|| (id, file.bytes.end()))
        });
        Unsynced { number: self.syncs, files: files.collect(), renames: self.renames.clone(), names }
    }

    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        for (id, len) in &done.files {
            if let Ok(file) = self.file_mut(*id)
                && done.number > file.vouched_after
            {
                file.synced = file.synced.max((*len).min(file.bytes.end()));
                file.before_cut = None;
            }
        }
        // a later one may have begun since, which then says what this one would
        let begun = self.begun.take_if(|(version, _)| done.names == Some(*version));
        if done.names == Some(self.names_version) {
            self.durable_names = None;
        } else if let Some((_, names)) = begun {
            self.durable_names = Some(names);
        }
        for (from, to) in &done.renames {
            self.renames.retain(|(waiting, _)| waiting != from);
            if let Some(file) = self.names.remove(from.as_str()) {
                self.names.insert(to.as_str().into(), file);
            }
            if let Some(durable) = &mut self.durable_names
                && let Some(file) = durable.remove(from.as_str())
            {
                durable.insert(to.as_str().into(), file);
            }
        }
        self.drop_nameless();
        Ok(())
    }

    fn sync_now(&mut self) -> Result<(), StorageError> {
        let unsynced = self.begin_sync();
        self.mark_synced(&unsynced)
    }

    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.checkpoint = checkpoint;
        Ok(())
    }

    fn cleaned_until(&self) -> i64 {
        self.cleaned_until
    }

    fn set_cleaned_until(&mut self, offset: i64) {
        self.cleaned_until = offset;
    }

    fn was_closed(&self) -> bool {
        self.was_closed
    }

    fn keeps_derived(&self) -> bool {
        self.keeps_derived
    }
}

#[cfg(test)]
impl MemoryDirectory {
    /// See [`Pieces::memory`].
    pub(super) fn memory(&self, file: FileId) -> (Option<*const u8>, usize) {
        self.file(file).map_or((None, 0), |file| file.bytes.memory())
    }
}
