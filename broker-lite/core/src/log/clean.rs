//! The part of a compaction that is done away from the log: closed segments never change.
//!
//! ```text
//! segments ──keys──▶ last offset of each ──segment by segment──▶ batches that stay ──▶ .cleaned, durable
//! ```
//!
//! In: the closed segments, and files to fill, both away from their directory. Out: those files. Memory is bounded: by
//! the keys' share of it, and a batch or two.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use klamm_wire::{BatchHeader, Compression, RawBatch};

use super::LogError;
use super::index::Added;
use super::scan::{Cause, Damage};
use super::segment::Segment;
use crate::storage::{Aside, joined};

/// Bit of the attributes that says that the base timestamp is the time until which tombstones stay.
const DELETE_HORIZON: i16 = 0x40;
const HEADER_BYTES: usize = klamm_wire::batch::HEADER_BYTES;
/// Where the bytes begin that the CRC covers.
const SUMMED_FROM: usize = 21;
/// What a key costs beside its own bytes.
const KEY_OVERHEAD_BYTES: usize = 64;

/// What a compaction has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that were written anew.
    pub segments: usize,
    /// Bytes before and after.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
    /// Everything before this offset is compacted now.
    pub until: i64,
}

/// The last offset of each key.
type Latest = BTreeMap<Box<[u8]>, i64>;

/// A compaction under way: [`Self::step`] away from the log, `Log::go_on_cleaning` with it, in turn.
#[derive(Debug)]
pub struct Cleaning<A> {
    /// Of the log when this began: cut since, it is another log.
    pub(super) generation: u64,
    /// From the first segment on; the last one is cleaned as far as `until`.
    pub(super) segments: Vec<Old<A>>,
    /// The segment that is read, and where.
    pub(super) number: usize,
    position: u64,
    /// Keys are noted from here on.
    from: i64,
    pub(super) output: Option<Output<A>>,
    index_interval: u64,
    /// Memory for keys that is left.
    room: usize,
    has_keys: bool,
    keep: Keep,
    pub(super) done: Compacted,
}

/// A closed segment, away from its log.
#[derive(Debug)]
pub(super) struct Old<A> {
    pub(super) base: i64,
    /// Where the next one begins.
    pub(super) next: i64,
    pub(super) file: A,
}

/// A segment that is written anew.
#[derive(Debug)]
pub(super) struct Output<A> {
    pub(super) segment: Segment,
    pub(super) file: A,
    /// `.index` and `.timeindex`, and what belongs there.
    pub(super) indexes: Option<[(A, BytesMut); 2]>,
    /// It is not what it was.
    pub(super) changed: bool,
}

/// When, and with how much memory.
#[derive(Debug, Clone, Copy)]
pub struct CleaningLimits {
    /// The time of records, in ms since the epoch.
    pub wall_ms: i64,
    /// Nothing behind it is touched.
    pub high_watermark: i64,
    /// Bytes for keys at a time (`log.cleaner.dedupe.buffer.size`); what does not fit is left for the next time.
    pub key_memory_bytes: usize,
    /// Most that a batch may become when it is decompressed.
    pub decompression_limit_bytes: usize,
}

/// What is to be kept as long as it is the last of its producer: that producer's last offset.
pub(super) type LastOfProducers = BTreeMap<i64, i64>;

impl<A: Aside> Cleaning<A> {
    pub(super) fn new(
        generation: u64,
        segments: Vec<Old<A>>,
        (from, until): (i64, i64),
        index_interval: u64,
        delete_retention_ms: i64,
        last_of_producers: LastOfProducers,
        limits: CleaningLimits,
    ) -> Self {
        let keep = Keep {
            latest: Latest::new(),
            until,
            last_of_producers,
            wall_ms: limits.wall_ms,
            horizon: limits.wall_ms.saturating_add(delete_retention_ms),
            limit_bytes: limits.decompression_limit_bytes,
        };
        Self {
            generation,
            segments,
            number: 0,
            position: 0,
            from,
            output: None,
            index_interval,
            room: limits.key_memory_bytes,
            has_keys: false,
            keep,
            done: Compacted::default(),
        }
    }

    /// Everything before this offset will be compacted. Not final before the first step has returned `false`.
    pub fn until(&self) -> i64 {
        self.keep.until
    }

    /// Whether the last step has ended with a segment that was made durable.
    pub fn has_synced(&self) -> bool {
        self.output.as_ref().is_some_and(|output| output.changed)
    }

    /// Goes on by about so many bytes, at least one batch; `false` when the log is needed.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`]; give it up with `Log::give_up_cleaning` then.
    pub fn step(&mut self, bytes: u64) -> Result<bool, LogError> {
        let mut left = bytes;
        while left > 0 {
            if self.has_keys && self.output.is_none() {
                return Ok(false);
            }
            let Some(old) = self.segments.get(self.number) else { return Ok(self.end_keys(self.keep.until)) };
            let skipped = !self.has_keys && old.next <= self.from;
            if skipped || self.position >= old.file.size() {
                match &mut self.output {
                    Some(output) => {
                        output.complete()?;
                        return Ok(false);
                    }
                    None => (self.number, self.position) = (self.number + 1, 0),
                }
                continue;
            }
            let batch = batch_at(&old.file, self.position).map_err(|damage| damage.of(old.base))?;
            let size = batch.header().size_bytes() as u64;
            let (base, position) = (old.base, self.position);
            self.position += size;
            left = left.saturating_sub(size);
            let offset = batch.header().base_offset;
            let unreadable = |error| Damage::new(position, offset, Cause::Batch(error)).of(base);
            match &mut self.output {
                None => {
                    if let Some(reached) = self.note_keys(&batch).map_err(unreadable)? {
                        return Ok(self.end_keys(reached));
                    }
                }
                Some(output) => {
                    let kept = match self.keep.of(&batch).map_err(unreadable)? {
                        Left::All => Some(batch.bytes().clone()),
                        Left::Some(bytes) => Some(bytes).inspect(|_| output.changed = true),
                        Left::Nothing => None,
                    };
                    match kept {
                        Some(bytes) => output.put(bytes, self.index_interval)?,
                        None => output.changed = true,
                    }
                }
            }
        }
        Ok(true)
    }

    /// Keys are known as far as memory has reached; the log is needed next.
    fn end_keys(&mut self, reached: i64) -> bool {
        self.keep.until = reached;
        self.done.until = reached;
        self.has_keys = true;
        (self.number, self.position) = (0, 0);
        false
    }

    /// Begins with the segment at `number`.
    pub(super) fn fill(&mut self, number: usize, output: Output<A>) {
        (self.number, self.position) = (number, 0);
        self.output = Some(output);
    }

    /// Notes the keys of a batch; returns the first offset that memory has not sufficed for.
    fn note_keys(&mut self, batch: &RawBatch) -> Result<Option<i64>, klamm_wire::BatchError> {
        let header = batch.header();
        if header.is_control() || header.count == 0 || header.last_offset() < self.from {
            return Ok(None);
        }
        for record in &batch.records(self.keep.limit_bytes)? {
            let record = record?;
            let Some(key) = record.key.filter(|_| record.offset >= self.from) else { continue };
            let latest = &mut self.keep.latest;
            // however little memory there is, it goes on
            let is_full = self.room == 0 && !latest.is_empty();
            match latest.get_mut(key) {
                Some(offset) => *offset = record.offset,
                None if is_full => return Ok(Some(record.offset)),
                None => {
                    self.room = self.room.saturating_sub(key.len() + KEY_OVERHEAD_BYTES);
                    latest.insert(key.into(), record.offset);
                }
            }
        }
        Ok(None)
    }
}

/// The batch at `position`, its CRC checked.
fn batch_at(file: &impl Aside, position: u64) -> Result<RawBatch, Damage> {
    let have = usize::try_from(file.size().saturating_sub(position)).unwrap_or(usize::MAX);
    let fail = |cause: Cause| Damage::new(position, -1, cause);
    let read = |len: usize| {
        let mut chunks = Vec::with_capacity(1);
        let need = len.max(HEADER_BYTES);
        if need > have {
            return Err(fail(klamm_wire::BatchError::Truncated { need, have }.into()));
        }
        file.read(position, need, &mut chunks).map_err(|error| fail(error.into()))?;
        Ok(joined(chunks))
    };
    let header = BatchHeader::parse(&read(HEADER_BYTES)?).map_err(|error| fail(error.into()))?;
    let batch = RawBatch::parse(read(header.size_bytes())?).map_err(|error| fail(error.into()))?;
    batch.verify_crc().map_err(|error| fail(error.into()))?;
    Ok(batch)
}

impl<A: Aside> Output<A> {
    fn put(&mut self, bytes: Bytes, interval: u64) -> Result<(), LogError> {
        let base = self.segment.base;
        let header =
            BatchHeader::parse(&bytes).map_err(|error| Damage::new(0, base, Cause::Batch(error)).of(base))?;
        let position = self.file.size();
        self.file.append(bytes)?;
        let added = self.segment.noted(&header, position, interval);
        self.add(added);
        Ok(())
    }

    fn add(&mut self, added: Added) {
        if let Some([(_, offsets), (_, times)]) = &mut self.indexes {
            offsets.extend_from_slice(added.offset.as_ref().map_or(&[], |entry| &entry[..]));
            times.extend_from_slice(added.time.as_ref().map_or(&[], |entry| &entry[..]));
        }
    }

    /// Nothing more comes: all of it is made durable, if it is needed.
    fn complete(&mut self) -> Result<(), LogError> {
        if !self.changed {
            return Ok(());
        }
        let time = self.segment.index.add_time();
        self.add(Added { offset: None, time });
        self.file.sync()?;
        for (file, bytes) in self.indexes.iter_mut().flatten() {
            file.append(bytes.split().freeze())?;
            file.sync()?;
        }
        Ok(())
    }
}

/// What decides about a record.
#[derive(Debug)]
struct Keep {
    latest: Latest,
    until: i64,
    last_of_producers: LastOfProducers,
    wall_ms: i64,
    /// Until when tombstones stay that are met for the first time.
    horizon: i64,
    limit_bytes: usize,
}

/// What is left of a batch.
enum Left {
    All,
    Some(Bytes),
    Nothing,
}

impl Keep {
    fn of(&self, batch: &RawBatch) -> Result<Left, klamm_wire::BatchError> {
        let header = *batch.header();
        if header.is_control() || header.base_offset >= self.until {
            return Ok(Left::All);
        }
        let is_last = header.has_producer()
            && self.last_of_producers.get(&header.producer_id) == Some(&header.last_offset());
        if header.count == 0 {
            return Ok(if is_last { Left::All } else { Left::Nothing });
        }
        let own = (header.attributes & DELETE_HORIZON != 0).then_some(header.base_timestamp);
        let records = batch.records(self.limit_bytes)?;
        let mut kept = Vec::new();
        let mut tombstones = false;
        for record in &records {
            let record = record?;
            let Some(key) = record.key else { continue };
            let overtaken = self.latest.get(key).is_some_and(|latest| record.offset < *latest);
            let before = record.offset < self.until;
            let over = before && record.value.is_none() && own.is_some_and(|until| self.wall_ms >= until);
            if !overtaken && !over {
                tombstones |= before && record.value.is_none();
                kept.push(record);
            }
        }
        let marks = tombstones && own.is_none();
        if kept.len() == records.count() as usize && !marks {
            return Ok(Left::All);
        }
        if kept.is_empty() {
            return Ok(if is_last { Left::Some(without_records(&header)) } else { Left::Nothing });
        }
        let base_timestamp = if marks { self.horizon } else { header.base_timestamp };
        let mut body = BytesMut::new();
        kept.iter().for_each(|record| put_record(&mut body, record, header.base_offset, base_timestamp));
        let compression = header.compression()?;
        let body = match compression {
            Compression::None => body.freeze(),
            compression => compression.compress(None, &body)?.into(),
        };
        let append_time = header.timestamp_type() == klamm_wire::batch::TimestampType::LogAppendTime;
        let newest = kept.iter().map(|record| record.timestamp).max().unwrap_or(header.max_timestamp);
        let header = BatchHeader {
            attributes: if marks { header.attributes | DELETE_HORIZON } else { header.attributes },
            base_timestamp,
            max_timestamp: if append_time { header.max_timestamp } else { newest },
            count: kept.len() as i32,
            ..header
        };
        Ok(Left::Some(sealed(header, &body)))
    }
}

/// A batch that only tells what its producer wrote last.
fn without_records(header: &BatchHeader) -> Bytes {
    let codec_and_horizon = 0x07 | DELETE_HORIZON;
    let header = BatchHeader {
        attributes: header.attributes & !codec_and_horizon,
        base_timestamp: header.max_timestamp,
        count: 0,
        ..*header
    };
    sealed(header, &[])
}

/// Header and records, with length and CRC that fit.
fn sealed(mut header: BatchHeader, body: &[u8]) -> Bytes {
    header.length = (HEADER_BYTES - 12 + body.len()) as i32;
    header.crc = klamm_wire::crc::crc32c_of_two(&header.encode()[SUMMED_FROM..], body);
    let mut whole = BytesMut::with_capacity(HEADER_BYTES + body.len());
    whole.extend_from_slice(&header.encode());
    whole.extend_from_slice(body);
    whole.freeze()
}

fn put_record(out: &mut BytesMut, record: &klamm_wire::RecordRef<'_>, base_offset: i64, base_timestamp: i64) {
    let mut body = BytesMut::new();
    body.extend_from_slice(&[0]);
    put_number(&mut body, record.timestamp.wrapping_sub(base_timestamp));
    put_number(&mut body, record.offset - base_offset);
    put_field(&mut body, record.key);
    put_field(&mut body, record.value);
    put_number(&mut body, record.headers().count() as i64);
    for header in record.headers() {
        put_field(&mut body, Some(header.name));
        put_field(&mut body, header.value);
    }
    put_number(out, body.len() as i64);
    out.extend_from_slice(&body);
}

fn put_number(out: &mut BytesMut, value: i64) {
    let mut bytes = [0; 10];
    let len = klamm_wire::varint::put_signed(&mut bytes, value).unwrap_or(0);
    out.extend_from_slice(&bytes[..len]);
}

fn put_field(out: &mut BytesMut, field: Option<&[u8]>) {
    put_number(out, field.map_or(-1, |field| field.len() as i64));
    out.extend_from_slice(field.unwrap_or_default());
}
