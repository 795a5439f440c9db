//! Reads stored batches and checks them.
//!
//! In: a storage and a position. Out: the batch there, or what is wrong with it.

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::HEADER_BYTES;
use klamm_wire::{BatchError, BatchHeader, RawBatch};

use crate::storage::{Storage, StorageError};

/// A place in the log that is not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {position}, offset {offset}: {cause}")]
pub struct Damage {
    /// Position of the batch in the storage.
    pub position: u64,
    /// Base offset of the batch, as far as it can be told, else -1.
    pub offset: i64,
    /// What is wrong.
    pub cause: Cause,
}

impl Damage {
    pub(super) fn new(position: u64, offset: i64, cause: Cause) -> Self {
        Self { position, offset, cause }
    }
}

/// What is wrong with a batch in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// It is no whole batch, or its CRC is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// It does not continue the batch before it.
    #[error("the batch before it ends at offset {expected}")]
    Offset {
        /// Offset it should have.
        expected: i64,
    },
    /// Its leader epoch is older than that of the batch before it, or not the one it was appended with.
    #[error("leader epoch {epoch} instead of {expected}")]
    Epoch {
        /// Its epoch.
        epoch: i32,
        /// Epoch before it, or the one it was appended with.
        expected: i32,
    },
    /// The storage cannot return it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The header at `position`, which must lie before the end; the whole batch is there, but not checked.
pub(super) fn header(storage: &impl Storage, position: u64) -> Result<BatchHeader, Damage> {
    let have = usize::try_from(storage.end().saturating_sub(position)).unwrap_or(usize::MAX);
    let fail = |cause: Cause| Damage::new(position, -1, cause);
    if have < HEADER_BYTES {
        return Err(fail(BatchError::Truncated { need: HEADER_BYTES, have }.into()));
    }
    let mut bytes = [0; HEADER_BYTES];
    storage.read_exact(position, &mut bytes).map_err(|error| fail(error.into()))?;
    let header = BatchHeader::parse(&bytes).map_err(|error| fail(error.into()))?;
    let need = header.size_bytes();
    if need > have {
        return Err(fail(BatchError::Truncated { need, have }.into()));
    }
    Ok(header)
}

/// The batch at `position`, its CRC checked; also its place in the row, where what comes before it is given.
pub(super) fn batch(
    storage: &impl Storage,
    position: u64,
    expected_offset: Option<i64>,
    epoch_before: Option<i32>,
) -> Result<RawBatch, Damage> {
    let header = header(storage, position)?;
    let fail = |cause: Cause| Damage::new(position, header.base_offset, cause);
    let batch = whole(storage, position, header.size_bytes()).map_err(&fail)?;
    batch.verify_crc().map_err(|error| fail(error.into()))?;
    if let Some(expected) = expected_offset
        && (header.base_offset != expected || header.last_offset_delta < 0)
    {
        return Err(fail(Cause::Offset { expected }));
    }
    let epoch = header.partition_leader_epoch;
    if let Some(expected) = epoch_before
        && epoch < expected
    {
        return Err(fail(Cause::Epoch { epoch, expected }));
    }
    Ok(batch)
}

fn whole(storage: &impl Storage, position: u64, len: usize) -> Result<RawBatch, Cause> {
    let mut chunks = Vec::with_capacity(1);
    storage.read(position, len, &mut chunks)?;
    Ok(RawBatch::parse(joined(chunks))?)
}

/// The chunks in one piece; copies only if there is more than one.
pub(super) fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() <= 1 {
        return chunks.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}

/// Iterator over the batches of a log, each with its position; CRC checked.
#[derive(Debug)]
pub struct Batches<'a, S> {
    storage: &'a S,
    position: u64,
}

impl<'a, S: Storage> Batches<'a, S> {
    pub(super) fn new(storage: &'a S, position: u64) -> Self {
        Self { storage, position }
    }
}

impl<S: Storage> Iterator for Batches<'_, S> {
    type Item = Result<(u64, RawBatch), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let position = self.position;
        if position >= self.storage.end() {
            return None;
        }
        let found = batch(self.storage, position, None, None);
        self.position = match &found {
            Ok(batch) => position + batch.header().size_bytes() as u64,
            Err(_) => self.storage.end(),
        };
        Some(found.map(|batch| (position, batch)))
    }
}
