//! Where the bytes of one replica live: a trait of a few synchronous methods, and storage in memory.
//!
//! In: whole record batches, byte positions. Out: the same bytes.
//! A position counts bytes since the replica was created; cutting either end never renumbers the rest.
//!
//! ```text
//! start ──────────── synced ─────────── end
//!   │ survives power-off │ survives kill  │ next append
//! ```
//!
//! Invariant: `start <= synced <= end`, and what was read once at a position is read there again, unless it was cut
//! off or damaged on purpose.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

/// Why storage refused. A failed write takes the replica offline; it is never tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The bytes are not (or no longer) there.
    #[error("no {len} B at position {position}: the storage holds {start}..{end}")]
    OutOfRange {
        /// First byte asked for.
        position: u64,
        /// How many.
        len: usize,
        /// First byte held.
        start: u64,
        /// Byte after the last one held.
        end: u64,
    },
    /// The medium failed.
    #[error("storage failed: {0}")]
    Failed(String),
}

/// Offsets that are remembered beside the log, as Kafka does in its checkpoint files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// High watermark; may lag behind the true one.
    pub high_watermark: i64,
    /// First offset that may be read.
    pub log_start_offset: i64,
}

/// The bytes of one replica.
///
/// Every method returns at once. Only making bytes durable may take long on a disk, so it is split: whoever owns the
/// disk begins it and waits, and says with [`Self::mark_synced`] how far the bytes are durable once it is done.
pub trait Storage: fmt::Debug + Send {
    /// Position of the first byte held.
    fn start(&self) -> u64;

    /// Position of the next append.
    fn end(&self) -> u64;

    /// Everything before this position survives a loss of power.
    fn synced(&self) -> u64;

    /// Appends the chunks, one after the other, as one piece; returns the position of its first byte.
    ///
    /// # Errors
    ///
    /// [`StorageError::Failed`]: nothing may be assumed about what was written.
    fn append(&mut self, chunks: &[Bytes]) -> Result<u64, StorageError>;

    /// Appends to `out` the `len` bytes from `position` on, in as many chunks as suits the storage.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutOfRange`] if any of them is not held; `out` is then unchanged.
    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError>;

    /// Copies the bytes from `position` on into `buf` and fills it.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutOfRange`] if any of them is not held.
    fn read_exact(&self, position: u64, buf: &mut [u8]) -> Result<(), StorageError>;

    /// Drops everything from `position` on. A position at or beyond the end changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::append`].
    fn truncate_to(&mut self, position: u64) -> Result<(), StorageError>;

    /// Allows the storage to drop what lies before `position`; it may keep some of it.
    ///
    /// # Errors
    ///
    /// As [`Self::append`].
    fn truncate_prefix(&mut self, position: u64) -> Result<(), StorageError>;

    /// Notes that everything before `position` has been made durable. What was written since that began is not, so
    /// `position` is where the end was then; nothing may have been cut off meanwhile.
    fn mark_synced(&mut self, position: u64);

    /// The offsets last remembered.
    fn checkpoint(&self) -> Checkpoint;

    /// Remembers these offsets.
    ///
    /// # Errors
    ///
    /// As [`Self::append`].
    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError>;
}

/// Size of the first chunk of memory; each further one is twice the last.
const FIRST_CHUNK_BYTES: usize = 1 << 10;
/// Largest chunk of memory.
const LAST_CHUNK_BYTES: usize = 1 << 20;
/// Appends below this size are joined by copying when they are read together: many tiny chunks cost more than that.
const JOIN_BELOW_BYTES: usize = 2 << 10;

/// Storage in memory, with the durability of a disk: a kill loses nothing, a power-off what was not synced.
///
/// Holds its own copy of the bytes. Reads hand out slices of it.
#[derive(Debug)]
pub struct MemoryStorage {
    /// One piece per append, in order.
    pieces: VecDeque<Piece>,
    /// Free memory behind the last piece.
    open: BytesMut,
    next_chunk_bytes: usize,
    start: u64,
    end: u64,
    synced: u64,
    checkpoint: Checkpoint,
}

#[derive(Debug)]
struct Piece {
    position: u64,
    bytes: Bytes,
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            open: BytesMut::new(),
            next_chunk_bytes: FIRST_CHUNK_BYTES,
            start: 0,
            end: 0,
            synced: 0,
            checkpoint: Checkpoint::default(),
        }
    }
}

impl MemoryStorage {
    /// Empty storage; takes no memory until the first append.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inverts the bits of one byte, as a failing disk would. Slices handed out before keep the old byte.
    ///
    /// # Errors
    ///
    /// [`StorageError::OutOfRange`] if that byte is not held.
    pub fn corrupt_byte(&mut self, position: u64) -> Result<(), StorageError> {
        self.check_range(position, 1)?;
        let index = self.piece_at(position);
        if let Some(piece) = self.pieces.get_mut(index) {
            let mut copy = BytesMut::from(&piece.bytes[..]);
            if let Some(byte) = copy.get_mut((position - piece.position) as usize) {
                *byte = !*byte;
            }
            piece.bytes = copy.freeze();
        }
        Ok(())
    }

    /// What a loss of power leaves: everything up to [`Storage::synced`].
    pub fn power_off(&mut self) {
        self.power_off_torn(0);
    }

    /// As [`Self::power_off`], but the first `kept` unsynced bytes had reached the medium, wherever they end.
    pub fn power_off_torn(&mut self, kept: u64) {
        self.cut_end(self.synced.saturating_add(kept));
    }

    fn check_range(&self, position: u64, len: usize) -> Result<(), StorageError> {
        let inside =
            position >= self.start && position.checked_add(len as u64).is_some_and(|to| to <= self.end);
        if inside {
            return Ok(());
        }
        Err(StorageError::OutOfRange { position, len, start: self.start, end: self.end })
    }

    /// Index of the piece that holds `position`, which must be held.
    fn piece_at(&self, position: u64) -> usize {
        self.pieces.partition_point(|piece| piece.position <= position).saturating_sub(1)
    }

    /// The parts of the pieces that make up a range, in order.
    fn parts(&self, position: u64, len: usize) -> impl Iterator<Item = (&Bytes, std::ops::Range<usize>)> {
        let to = position + len as u64;
        let first = if len == 0 { self.pieces.len() } else { self.piece_at(position) };
        self.pieces.range(first..).take_while(move |piece| piece.position < to).map(move |piece| {
            let from = position.saturating_sub(piece.position) as usize;
            let until = piece.bytes.len().min((to - piece.position) as usize);
            (&piece.bytes, from..until)
        })
    }

    /// Makes room for a piece: behind the last one, in a new chunk, or, when it is large, in memory of its own.
    fn write(&mut self, chunks: &[Bytes], len: usize) -> Bytes {
        let room = self.open.capacity() - self.open.len();
        if room < len && len <= self.next_chunk_bytes / 4 {
            self.open = BytesMut::with_capacity(self.next_chunk_bytes);
            self.next_chunk_bytes = (self.next_chunk_bytes * 2).min(LAST_CHUNK_BYTES);
        }
        if self.open.capacity() - self.open.len() < len {
            self.next_chunk_bytes = (self.next_chunk_bytes * 2).min(LAST_CHUNK_BYTES);
            let mut own = BytesMut::with_capacity(len);
            chunks.iter().for_each(|chunk| own.extend_from_slice(chunk));
            return own.freeze();
        }
        chunks.iter().for_each(|chunk| self.open.extend_from_slice(chunk));
        self.open.split().freeze()
    }

    fn cut_end(&mut self, position: u64) {
        while self.pieces.back().is_some_and(|piece| piece.position >= position) {
            self.pieces.pop_back();
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.bytes.truncate((position - piece.position) as usize);
        }
        self.end = self.end.min(position).max(self.start);
        self.synced = self.synced.min(self.end);
    }
}

impl Storage for MemoryStorage {
    fn start(&self) -> u64 {
        self.start
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn synced(&self) -> u64 {
        self.synced
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<u64, StorageError> {
        let position = self.end;
        let len = chunks.iter().map(Bytes::len).sum();
        if len > 0 {
            let bytes = self.write(chunks, len);
            self.pieces.push_back(Piece { position, bytes });
            self.end += len as u64;
        }
        Ok(position)
    }

    fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        self.check_range(position, len)?;
        let mut joined = BytesMut::new();
        let mut parts = self.parts(position, len).peekable();
        while let Some((bytes, range)) = parts.next() {
            let small = |len: usize| len < JOIN_BELOW_BYTES;
            let next_small = parts.peek().is_some_and(|(_, next)| small(next.len()));
            if small(range.len()) && (next_small || !joined.is_empty()) {
                joined.extend_from_slice(&bytes[range]);
                if !next_small {
                    out.push(joined.split().freeze());
                }
            } else {
                out.push(bytes.slice(range));
            }
        }
        Ok(())
    }

    fn read_exact(&self, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.check_range(position, buf.len())?;
        let mut filled = 0;
        for (bytes, range) in self.parts(position, buf.len()) {
            let part = &bytes[range];
            buf[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        Ok(())
    }

    fn truncate_to(&mut self, position: u64) -> Result<(), StorageError> {
        if position < self.end {
            self.cut_end(position.max(self.start));
        }
        Ok(())
    }

    fn truncate_prefix(&mut self, position: u64) -> Result<(), StorageError> {
        let position = position.min(self.end);
        while self.pieces.front().is_some_and(|piece| piece.position + piece.bytes.len() as u64 <= position) {
            self.pieces.pop_front();
        }
        self.start = self.pieces.front().map_or(self.end, |piece| piece.position);
        self.synced = self.synced.max(self.start);
        Ok(())
    }

    fn mark_synced(&mut self, position: u64) {
        self.synced = self.synced.max(position.min(self.end));
    }

    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.checkpoint = checkpoint;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
