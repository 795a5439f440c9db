//! Where the files of one replica live: a directory with a few synchronous methods, and one in memory.
//!
//! In: names, bytes, positions. Out: the same bytes. The log is built on top (`log`); the binary brings a directory on
//! a real disk.
//!
//! ```text
//! create, append, rename ──▶ written: survives a kill
//! begin_sync ──▶ whoever owns the disk makes it durable ──▶ mark_synced: survives a loss of power
//! ```
//!
//! Invariant: what was not made durable may be lost, as a whole or in part: bytes at the end of a file, a length that
//! was cut, the name of a new file, a renaming, a removal.

mod memory;
mod pieces;

pub use memory::{MemoryAside, MemoryDirectory};

use std::fmt;

use bytes::{Bytes, BytesMut};

/// Why storage refused. A failed write takes the replica offline; it is never tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The bytes are not (or no longer) there.
    #[error("no {len} B at position {position}: the file ends at {end}")]
    OutOfRange {
        /// First byte asked for.
        position: u64,
        /// How many.
        len: usize,
        /// Byte after the last one held.
        end: u64,
    },
    /// There is no such file.
    #[error("there is no file {0}")]
    Missing(String),
    /// A file beside the log does not hold what belongs there.
    #[error("{file} is malformed: {reason}")]
    Malformed {
        /// Its name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The medium failed.
    #[error("storage failed: {0}")]
    Failed(String),
}

/// Offsets that are remembered beside the log, as Kafka does in the checkpoint files of a log directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// High watermark; may lag behind the true one.
    pub high_watermark: i64,
    /// First offset that may be read.
    pub log_start_offset: i64,
    /// Everything before this offset is durable; what follows is looked through when the log is opened.
    pub recovery_point: i64,
}

/// An open file of a [`Directory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// What has been written to a directory and is not durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsynced {
    /// Tells one beginning from another.
    pub number: u64,
    /// Files, and how long they were.
    pub files: Vec<(FileId, u64)>,
    /// Files to be renamed once their bytes are durable; see [`Directory::replace_later`].
    pub renames: Vec<(String, String)>,
    /// Whether names have changed; a number that tells one state of the names from another.
    pub names: Option<u64>,
}

impl Unsynced {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.renames.is_empty() && self.names.is_none()
    }
}

/// A file away from its directory: to be read, or to be filled, on another thread while the directory goes on. Whoever
/// comes back looks whether it still counts.
///
/// Errors are those of [`Directory`]; this one fails alone.
pub trait Aside: fmt::Debug + Send {
    /// Its size: that which it had when it was taken aside, and what was appended here.
    fn size(&self) -> u64;

    /// As [`Directory::read`].
    ///
    /// # Errors
    ///
    /// [`StorageError::OutOfRange`], or if the medium fails.
    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError>;

    /// Appends a chunk. The directory knows of it once it was given back.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn append(&mut self, chunk: Bytes) -> Result<(), StorageError>;

    /// Makes what it holds durable, and waits for that.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn sync(&mut self) -> Result<(), StorageError>;
}

/// The directory of one replica.
///
/// Every method returns at once, but for those that say otherwise. Only making bytes durable may take long on a disk, so
/// it is split: whoever owns the disk is told by [`Self::begin_sync`] what to make durable, and says with
/// [`Self::mark_synced`] that it has.
///
/// Errors are [`StorageError::Failed`] if the medium fails; nothing may be assumed about what was written then.
pub trait Directory: fmt::Debug + Send {
    /// One of its files away from it.
    type Aside: Aside;

    /// Names of all files, sorted.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn names(&self) -> Result<Vec<String>, StorageError>;

    /// Opens an existing file; a second time it is the same one.
    ///
    /// # Errors
    ///
    /// [`StorageError::Missing`], or if the medium fails.
    fn open(&mut self, name: &str) -> Result<FileId, StorageError>;

    /// Makes an empty file, in place of what had that name.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn create(&mut self, name: &str) -> Result<FileId, StorageError>;

    /// Leaves a file out of every sync, or takes it in again: what can be derived anew need not be durable.
    fn set_lazy(&mut self, file: FileId, lazy: bool);

    /// Size of a file; 0 if it is gone.
    fn size(&self, file: FileId) -> u64;

    /// How many bytes of a file are known to survive a loss of power.
    fn synced_len(&self, file: FileId) -> u64;

    /// Appends the chunks, one after the other, as one piece; returns the position of its first byte.
    ///
    /// # Errors
    ///
    /// If the medium fails, or has no room.
    fn append(&mut self, file: FileId, chunks: &[Bytes]) -> Result<u64, StorageError>;

    /// Appends to `out` the `len` bytes from `position` on, in as many chunks as suits the storage.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutOfRange`] if any of them is not held; `out` is then unchanged.
    fn read(&self, file: FileId, position: u64, len: usize, out: &mut Vec<Bytes>)
    -> Result<(), StorageError>;

    /// Copies the bytes from `position` on into `buf` and fills it.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutOfRange`] if any of them is not held.
    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError>;

    /// A file as it is now, away from the directory. If it is to be filled there, nobody does so here meanwhile.
    ///
    /// # Errors
    ///
    /// [`StorageError::Missing`].
    fn aside(&self, file: FileId) -> Result<Self::Aside, StorageError>;

    /// Takes a file back that was filled and made durable away from here.
    ///
    /// # Errors
    ///
    /// [`StorageError::Missing`] if it was removed meanwhile.
    fn take_back(&mut self, file: FileId, aside: Self::Aside) -> Result<(), StorageError>;

    /// Cuts a file. A length at or beyond its end changes nothing.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError>;

    /// Gives a file another name, in place of what had that.
    ///
    /// # Errors
    ///
    /// [`StorageError::Missing`], or if the medium fails.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn remove(&mut self, name: &str) -> Result<(), StorageError>;

    /// Writes a small file that takes its place under `name` with the next sync, all or nothing. Until then, and if the
    /// process dies before, the old one stays.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError>;

    /// What is not durable now.
    fn begin_sync(&mut self) -> Unsynced;

    /// Notes that what [`Self::begin_sync`] told has been made durable, in the order files, renames, names. What was written
    /// since is not, nor is any file that was cut since.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError>;

    /// Makes everything durable, and waits for that. For what happens seldom.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn sync_now(&mut self) -> Result<(), StorageError>;

    /// The offsets last remembered; after a kill it may be those before.
    fn checkpoint(&self) -> Checkpoint;

    /// Remembers these offsets. A recovery point below the one before is durable when this returns: what lies behind is
    /// about to be overwritten.
    ///
    /// # Errors
    ///
    /// If the medium fails.
    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError>;

    /// Everything before this offset was compacted, as last remembered; 0 if nothing is known. After a kill it may be an
    /// earlier one.
    fn cleaned_until(&self) -> i64;

    /// Remembers how far the log was compacted. Nothing depends on it but how much is done again.
    fn set_cleaned_until(&mut self, offset: i64);

    /// Whether the last process has closed its logs in order: then nothing needs to be looked through.
    fn was_closed(&self) -> bool;

    /// Whether the log keeps beside its segments what could be derived from them: indexes, epochs, producers. In memory
    /// that would only cost room.
    fn keeps_derived(&self) -> bool;
}

/// The whole of a file.
///
/// # Errors
///
/// As [`Directory::open`] and [`Directory::read`].
pub fn read_file(directory: &mut impl Directory, name: &str) -> Result<Bytes, StorageError> {
    let file = directory.open(name)?;
    let mut chunks = Vec::new();
    let len = usize::try_from(directory.size(file)).unwrap_or(usize::MAX);
    directory.read(file, 0, len, &mut chunks)?;
    Ok(joined(chunks))
}

/// The chunks in one piece; copies only if there is more than one.
pub(crate) fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() <= 1 {
        return chunks.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}

#[cfg(test)]
mod tests;
