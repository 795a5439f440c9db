//! The directory of one replica on a broker's disk.

use std::sync::Arc;

use broker_lite_core::storage::{
    Aside, Checkpoint, Directory, FileId, MemoryAside, MemoryDirectory, StorageError, Unsynced,
};
use bytes::Bytes;

use super::PowerLoss;
use super::directory::{DiskAside, DiskDirectory, Job};
use super::faults::Medium;

/// The directory of one replica on a broker's disk.
#[derive(Debug)]
pub(crate) struct Stored {
    files: Files,
    medium: Arc<Medium>,
}

#[derive(Debug)]
pub(super) enum Files {
    Memory(MemoryDirectory),
    Disk(DiskDirectory),
}

/// Does the same with either.
macro_rules! either {
    ($files:expr, $directory:ident => $does:expr) => {
        match $files {
            Files::Memory($directory) => $does,
            Files::Disk($directory) => $does,
        }
    };
}

impl Stored {
    pub(super) fn new(files: Files, medium: Arc<Medium>) -> Self {
        Self { files, medium }
    }

    /// A loss of power. Nobody can take from a real disk what the operating system has taken over.
    pub(super) fn lose_power(&mut self, loss: PowerLoss, chance: &mut fastrand::Rng) {
        let Files::Memory(directory) = &mut self.files else { return };
        match loss {
            PowerLoss::Unsynced => directory.power_off(),
            PowerLoss::Torn => directory.power_off_torn(&mut |unsynced| chance.u64(0..=unsynced)),
        }
    }

    /// The directory on a real disk, if it is one.
    pub(super) fn on_disk(&mut self) -> Option<&mut DiskDirectory> {
        match &mut self.files {
            Files::Memory(_) => None,
            Files::Disk(directory) => Some(directory),
        }
    }

    /// Makes everything durable, for the next process to find.
    pub(super) fn close(&mut self) -> Result<(), StorageError> {
        self.medium.sync()?;
        self.sync_now()
    }

    /// What a real disk has to do for a sync that has begun.
    pub(crate) fn job(&self, unsynced: &Unsynced) -> Option<Job> {
        match &self.files {
            Files::Memory(_) => None,
            Files::Disk(directory) => Some(directory.job(unsynced)),
        }
    }

    /// Inverts the bits of one byte, as a failing disk would.
    pub(crate) fn corrupt_byte(&mut self, name: &str, position: u64) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.corrupt_byte(name, position))
    }
}

/// A file of a replica away from its directory.
#[derive(Debug)]
pub(crate) struct StoredAside {
    file: AsideFile,
    medium: Arc<Medium>,
}

#[derive(Debug)]
enum AsideFile {
    Memory(MemoryAside),
    Disk(DiskAside),
}

impl Aside for StoredAside {
    fn size(&self) -> u64 {
        match &self.file {
            AsideFile::Memory(file) => file.size(),
            AsideFile::Disk(file) => file.size(),
        }
    }

    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        match &self.file {
            AsideFile::Memory(file) => file.read(position, len, out),
            AsideFile::Disk(file) => file.read(position, len, out),
        }
    }

    fn append(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        self.medium.room()?;
        match &mut self.file {
            AsideFile::Memory(file) => file.append(chunk),
            AsideFile::Disk(file) => file.append(chunk),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        match &mut self.file {
            AsideFile::Memory(file) => file.sync(),
            AsideFile::Disk(file) => file.sync(),
        }
    }
}

impl Directory for Stored {
    type Aside = StoredAside;

    fn names(&self) -> Result<Vec<String>, StorageError> {
        either!(&self.files, directory => directory.names())
    }

    fn open(&mut self, name: &str) -> Result<FileId, StorageError> {
        either!(&mut self.files, directory => directory.open(name))
    }

    fn create(&mut self, name: &str) -> Result<FileId, StorageError> {
        either!(&mut self.files, directory => directory.create(name))
    }

    fn set_lazy(&mut self, file: FileId, lazy: bool) {
        either!(&mut self.files, directory => directory.set_lazy(file, lazy));
    }

    fn size(&self, file: FileId) -> u64 {
        either!(&self.files, directory => directory.size(file))
    }

    fn synced_len(&self, file: FileId) -> u64 {
        either!(&self.files, directory => directory.synced_len(file))
    }

    fn append(&mut self, file: FileId, chunks: &[Bytes]) -> Result<u64, StorageError> {
        self.medium.room()?;
        either!(&mut self.files, directory => directory.append(file, chunks))
    }

    fn read(
        &self,
        file: FileId,
        position: u64,
        len: usize,
        out: &mut Vec<Bytes>,
    ) -> Result<(), StorageError> {
        either!(&self.files, directory => directory.read(file, position, len, out))
    }

    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        either!(&self.files, directory => directory.read_exact(file, position, buf))
    }

    fn aside(&self, file: FileId) -> Result<StoredAside, StorageError> {
        let file = match &self.files {
            Files::Memory(directory) => AsideFile::Memory(directory.aside(file)?),
            Files::Disk(directory) => AsideFile::Disk(directory.aside(file)?),
        };
        Ok(StoredAside { file, medium: self.medium.clone() })
    }

    fn take_back(&mut self, file: FileId, aside: StoredAside) -> Result<(), StorageError> {
        match (&mut self.files, aside.file) {
            (Files::Memory(directory), AsideFile::Memory(aside)) => directory.take_back(file, aside),
            (Files::Disk(directory), AsideFile::Disk(aside)) => directory.take_back(file, aside),
            _ => Err(StorageError::Failed("a file of another directory".into())),
        }
    }

    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.set_len(file, len))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.rename(from, to))
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.remove(name))
    }

    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.replace_later(name, content))
    }

    fn begin_sync(&mut self) -> Unsynced {
        either!(&mut self.files, directory => directory.begin_sync())
    }

    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.mark_synced(done))
    }

    fn sync_now(&mut self) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.sync_now())
    }

    fn checkpoint(&self) -> Checkpoint {
        either!(&self.files, directory => directory.checkpoint())
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        either!(&mut self.files, directory => directory.set_checkpoint(checkpoint))
    }

    fn cleaned_until(&self) -> i64 {
        either!(&self.files, directory => directory.cleaned_until())
    }

    fn set_cleaned_until(&mut self, offset: i64) {
        either!(&mut self.files, directory => directory.set_cleaned_until(offset));
    }

    fn was_closed(&self) -> bool {
        either!(&self.files, directory => directory.was_closed())
    }

    fn keeps_derived(&self) -> bool {
        either!(&self.files, directory => directory.keeps_derived())
    }
}
