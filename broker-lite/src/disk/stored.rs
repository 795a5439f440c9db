//! The directory of one replica on a broker's disk.

use std::sync::Arc;

use broker_lite_core::storage::{Checkpoint, Directory, FileId, MemoryDirectory, StorageError, Unsynced};
use bytes::Bytes;

use super::PowerLoss;
use super::faults::Medium;

/// The directory of one replica on a broker's disk.
#[derive(Debug)]
pub(crate) struct Stored {
    files: MemoryDirectory,
    medium: Arc<Medium>,
}

impl Stored {
    pub(super) fn new(medium: Arc<Medium>) -> Self {
        Self { files: MemoryDirectory::new(), medium }
    }

    pub(super) fn lose_power(&mut self, loss: PowerLoss, chance: &mut fastrand::Rng) {
        match loss {
            PowerLoss::Unsynced => self.files.power_off(),
            PowerLoss::Torn => self.files.power_off_torn(&mut |unsynced| chance.u64(0..=unsynced)),
        }
    }

    /// See [`MemoryDirectory::corrupt_byte`].
    pub(crate) fn corrupt_byte(&mut self, name: &str, position: u64) -> Result<(), StorageError> {
        self.files.corrupt_byte(name, position)
    }
}

impl Directory for Stored {
    fn names(&self) -> Result<Vec<String>, StorageError> {
        self.files.names()
    }

    fn open(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.files.open(name)
    }

    fn create(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.files.create(name)
    }

    fn len(&self, file: FileId) -> u64 {
        self.files.len(file)
    }

    fn synced_len(&self, file: FileId) -> u64 {
        self.files.synced_len(file)
    }

    fn append(&mut self, file: FileId, chunks: &[Bytes]) -> Result<u64, StorageError> {
        self.medium.room()?;
        self.files.append(file, chunks)
    }

    fn read(
        &self,
        file: FileId,
        position: u64,
        len: usize,
        out: &mut Vec<Bytes>,
    ) -> Result<(), StorageError> {
        self.files.read(file, position, len, out)
    }

    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.files.read_exact(file, position, buf)
    }

    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError> {
        self.files.set_len(file, len)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        self.files.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        self.files.remove(name)
    }

    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError> {
        self.files.replace_later(name, content)
    }

    fn begin_sync(&mut self) -> Unsynced {
        self.files.begin_sync()
    }

    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        self.files.mark_synced(done)
    }

    fn sync_now(&mut self) -> Result<(), StorageError> {
        self.files.sync_now()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.files.checkpoint()
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.files.set_checkpoint(checkpoint)
    }

    fn was_closed(&self) -> bool {
        self.files.was_closed()
    }

    fn keeps_derived(&self) -> bool {
        self.files.keeps_derived()
    }
}
