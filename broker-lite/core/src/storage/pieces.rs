//! The bytes of one file in memory.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::StorageError;

/// Size of the first chunk of memory; each further one is twice the last.
const FIRST_CHUNK_BYTES: usize = 1 << 10;
/// Largest chunk of memory.
const LAST_CHUNK_BYTES: usize = 1 << 20;
/// Appends below this size are joined by copying when they are read together: many tiny chunks cost more than that.
const JOIN_BELOW_BYTES: usize = 2 << 10;

/// Chunks of this size on are kept as they are, not copied: touching so much fresh memory costs more than anything else
/// that is done with a batch. Whoever appends them hands over memory that is nobody else's log.
const KEPT_FROM_BYTES: usize = 64 << 10;

/// A row of bytes that grows at its end. Holds its own copy of them, but for large chunks; reads hand out slices of it.
#[derive(Debug)]
pub(super) struct Pieces {
    /// In order.
    pieces: VecDeque<Piece>,
    /// Free memory behind the last piece.
    open: BytesMut,
    next_chunk_bytes: usize,
    end: u64,
}

#[derive(Debug, Clone)]
struct Piece {
    position: u64,
    bytes: Bytes,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), open: BytesMut::new(), next_chunk_bytes: FIRST_CHUNK_BYTES, end: 0 }
    }
}

impl Pieces {
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The same bytes, in the same memory.
    pub(super) fn share(&self) -> Self {
        Self { pieces: self.pieces.clone(), end: self.end, ..Self::default() }
    }

    pub(super) fn append(&mut self, chunks: &[Bytes]) -> u64 {
        let position = self.end;
        let mut rest = chunks;
        while let Some(first) = rest.first() {
            if first.len() >= KEPT_FROM_BYTES {
                self.push(first.clone());
                rest = &rest[1..];
            } else {
                let small = rest.iter().take_while(|chunk| chunk.len() < KEPT_FROM_BYTES).count();
                let (together, behind) = rest.split_at(small);
                let len = together.iter().map(Bytes::len).sum();
                if len > 0 {
                    let bytes = self.write(together, len);
                    self.push(bytes);
                }
                rest = behind;
            }
        }
        position
    }

    fn push(&mut self, bytes: Bytes) {
        let position = self.end;
        self.end += bytes.len() as u64;
        self.pieces.push_back(Piece { position, bytes });
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

    pub(super) fn read(&self, position: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
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

    pub(super) fn read_exact(&self, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.check_range(position, buf.len())?;
        let mut filled = 0;
        for (bytes, range) in self.parts(position, buf.len()) {
            let part = &bytes[range];
            buf[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, position: u64) {
        while self.pieces.back().is_some_and(|piece| piece.position >= position) {
            self.pieces.pop_back();
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.bytes.truncate((position - piece.position) as usize);
        }
        self.end = self.end.min(position);
    }

    /// Inverts the bits of one byte. Slices handed out before keep the old one.
    pub(super) fn corrupt_byte(&mut self, position: u64) -> Result<(), StorageError> {
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

    fn check_range(&self, position: u64, len: usize) -> Result<(), StorageError> {
        if position.checked_add(len as u64).is_some_and(|to| to <= self.end) {
            return Ok(());
        }
        Err(StorageError::OutOfRange { position, len, end: self.end })
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
}

#[cfg(test)]
impl Pieces {
    /// What the first piece stands on in memory, and what is set aside.
    pub(super) fn memory(&self) -> (Option<*const u8>, usize) {
        (self.pieces.front().map(|piece| piece.bytes.as_ptr()), self.open.capacity() + self.pieces.capacity())
    }
}
