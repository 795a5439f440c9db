//! Reads stored batches and checks them.
//!
//! In: a file and a position. Out: the batch there, or what is wrong with it.

use klamm_wire::batch::HEADER_BYTES;
use klamm_wire::{BatchError, BatchHeader, RawBatch};

use super::Log;
use crate::storage::{Directory, FileId, StorageError, joined};

/// A place in the log that is not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {position} of segment {segment}, offset {offset}: {cause}")]
pub struct Damage {
    /// Base offset of the segment.
    pub segment: i64,
    /// Position of the batch in the segment.
    pub position: u64,
    /// Base offset of the batch, as far as it can be told, else -1.
    pub offset: i64,
    /// What is wrong.
    pub cause: Cause,
}

impl Damage {
    pub(super) fn new(position: u64, offset: i64, cause: Cause) -> Self {
        Self { segment: 0, position, offset, cause }
    }

    pub(super) fn of(self, segment: i64) -> Self {
        Self { segment, ..self }
    }
}

/// What is wrong with a batch in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// It is no whole batch, or its CRC is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// It does not come behind the batch before it, or lies outside its segment.
    #[error("offsets go on at {expected}")]
    Offset {
        /// Offset it should have at least, or the end of the log.
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
pub(super) fn header(directory: &impl Directory, file: FileId, position: u64) -> Result<BatchHeader, Damage> {
    let have = usize::try_from(directory.size(file).saturating_sub(position)).unwrap_or(usize::MAX);
    let fail = |cause: Cause| Damage::new(position, -1, cause);
    if have < HEADER_BYTES {
        return Err(fail(BatchError::Truncated { need: HEADER_BYTES, have }.into()));
    }
    let mut bytes = [0; HEADER_BYTES];
    directory.read_exact(file, position, &mut bytes).map_err(|error| fail(error.into()))?;
    let header = BatchHeader::parse(&bytes).map_err(|error| fail(error.into()))?;
    let need = header.size_bytes();
    if need > have {
        return Err(fail(BatchError::Truncated { need, have }.into()));
    }
    Ok(header)
}

/// What comes before a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// Least offset it may begin at.
    pub(super) end: Option<i64>,
    pub(super) epoch: Option<i32>,
}

/// The batch at `position`, its CRC checked; also its place in the row, where what comes before it is given.
pub(super) fn batch(
    directory: &impl Directory,
    file: FileId,
    position: u64,
    before: Before,
) -> Result<RawBatch, Damage> {
    let header = header(directory, file, position)?;
    let fail = |cause: Cause| Damage::new(position, header.base_offset, cause);
    let batch = whole(directory, file, position, header.size_bytes()).map_err(&fail)?;
    batch.verify_crc().map_err(|error| fail(error.into()))?;
    check_place(&header, before).map_err(fail)?;
    Ok(batch)
}

/// Whether a batch may follow what is before it. Offsets may be left out: compaction does that.
pub(super) fn check_place(header: &BatchHeader, before: Before) -> Result<(), Cause> {
    if let Some(expected) = before.end
        && (header.base_offset < expected || header.last_offset_delta < 0)
    {
        return Err(Cause::Offset { expected });
    }
    let epoch = header.partition_leader_epoch;
    match before.epoch {
        Some(expected) if epoch < expected => Err(Cause::Epoch { epoch, expected }),
        _ => Ok(()),
    }
}

fn whole(directory: &impl Directory, file: FileId, position: u64, len: usize) -> Result<RawBatch, Cause> {
    let mut chunks = Vec::with_capacity(1);
    directory.read(file, position, len, &mut chunks)?;
    Ok(RawBatch::parse(joined(chunks))?)
}

/// A place in a log: index of the segment, position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: usize,
    pub(super) position: u64,
}

/// Iterator over the batches of a log, each with the base of its segment and its position there; CRC checked. Ends after
/// the first damage.
#[derive(Debug)]
pub struct Batches<'a, D> {
    log: &'a Log<D>,
    place: Option<Place>,
}

impl<'a, D: Directory> Batches<'a, D> {
    pub(super) fn new(log: &'a Log<D>, place: Place) -> Self {
        Self { log, place: Some(place) }
    }
}

impl<D: Directory> Iterator for Batches<'_, D> {
    type Item = Result<(u64, RawBatch), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.log.at_batch(self.place?)?;
        let segment = self.log.segments.get(place.segment)?;
        let found = batch(&self.log.directory, segment.log, place.position, Before::default());
        self.place = found
            .as_ref()
            .ok()
            .map(|batch| Place { position: place.position + batch.header().size_bytes() as u64, ..place });
        Some(found.map(|batch| (place.position, batch)).map_err(|damage| damage.of(segment.base)))
    }
}
