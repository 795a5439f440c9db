//! Compaction: of each key only the last record stays.
//!
//! ```text
//! ──────── cleaned before ────────│──────── dirty ────────│ active, uncommitted, or too young
//!      keys that occur again later go         keys noted ─┘
//! ```
//!
//! Offsets stay, and so do batches that tell what an idempotent producer wrote last, if need be without records. A
//! tombstone stays until `delete.retention.ms` after it was first met here; from when on is noted in its batch.
//!
//! Invariant: a segment is replaced as a whole by one with the same base, and everything before the recovery point that
//! is remembered; so a crash at any moment leaves the old one or the new one.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use klamm_wire::{BatchHeader, Compression, RawBatch};

use super::files::{self, CLEANED, INDEX, LOG, SWAP, TIME_INDEX};
use super::scan::{self, Before, Cause, Damage};
use super::segment::Segment;
use super::{Log, LogError};
use crate::storage::Directory;

/// Bit of the attributes that says that the base timestamp is the time until which tombstones stay.
const DELETE_HORIZON: i16 = 0x40;
const HEADER_BYTES: usize = klamm_wire::batch::HEADER_BYTES;
/// Where the bytes begin that the CRC covers.
const SUMMED_FROM: usize = 21;
/// Memory for keys at a time, as Kafka's `log.cleaner.dedupe.buffer.size`; what does not fit is left for the next time.
const KEY_MEMORY_BYTES: usize = 128 << 20;
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
}

/// The last offset of each key.
type Latest = BTreeMap<Bytes, i64>;

impl<D: Directory> Log<D> {
    /// Compacts what is worth it; `None` if nothing is, or if that is not the topic's policy.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`], [`LogError::Storage`].
    pub fn compact(
        &mut self,
        wall_ms: i64,
        high_watermark: i64,
        decompression_limit_bytes: usize,
    ) -> Result<Option<Compacted>, LogError> {
        let Some(mut until) = self.dirty_until(wall_ms, high_watermark) else { return Ok(None) };
        let (latest, reached) = self.latest_offsets(until, decompression_limit_bytes)?;
        until = reached;
        let last_of_producers = self.last_of_producers();
        // What is replaced must be durable, and be known as such: gaps behind the recovery point would be taken for losses.
        self.write_epochs()?;
        self.directory.sync_now()?;
        self.recovery_point = self.end_offset;
        self.checkpoint(self.directory.checkpoint().high_watermark)?;
        self.directory.sync_now()?;
        let mut done = Compacted::default();
        for number in 0..self.segments.len() {
            let Some(segment) = self.segments.get(number).filter(|segment| segment.base < until) else {
                break;
            };
            let before = segment.len(&self.directory);
            done.before += before;
            let keep = Keep { latest: &latest, until, last_of_producers: &last_of_producers, wall_ms };
            if let Some(cleaned) = self.clean_segment(number, &keep, decompression_limit_bytes)? {
                self.replace(number, cleaned)?;
                done.segments += 1;
            }
            done.after += self.segments.get(number).map_or(0, |segment| segment.len(&self.directory));
        }
        self.cleaned_until = until;
        self.drop_empty()?;
        Ok(Some(done))
    }

    /// Where compaction has to end if it is worth it now.
    fn dirty_until(&self, wall_ms: i64, high_watermark: i64) -> Option<i64> {
        let settings = &self.settings;
        if !settings.compact {
            return None;
        }
        let young = |segment: &Segment| {
            let newest = segment.index.max_timestamp().unwrap_or(i64::MIN);
            settings.min_compaction_lag_ms > 0
                && wall_ms.saturating_sub(newest) < settings.min_compaction_lag_ms
        };
        let (mut clean, mut dirty, mut until, mut oldest) = (0, 0, None, None);
        for (number, segment) in self.segments.iter().enumerate() {
            let Some(next) = self.segments.get(number + 1).map(|next| next.base) else { break };
            let len = segment.len(&self.directory);
            if segment.base < self.cleaned_until {
                clean += len;
            } else if next <= high_watermark && !young(segment) {
                dirty += len;
                until = Some(next);
                oldest = oldest.or(segment.first_timestamp);
            } else {
                break;
            }
        }
        let late = oldest.is_some_and(|first| {
            first >= 0 && wall_ms.saturating_sub(first) > settings.max_compaction_lag_ms
        });
        let worth = u128::from(dirty) * 1_000_000
            >= u128::from(clean + dirty) * u128::from(settings.min_cleanable_dirty_millionths);
        until.filter(|_| dirty > 0 && (worth || late))
    }

    /// Notes the keys of the dirty segments before `until`; returns how far memory has sufficed, which is at least one
    /// segment.
    fn latest_offsets(&self, until: i64, limit_bytes: usize) -> Result<(Latest, i64), LogError> {
        let (mut latest, mut room) = (Latest::new(), KEY_MEMORY_BYTES);
        for (number, segment) in self.segments.iter().enumerate() {
            if segment.base < self.cleaned_until {
                continue;
            }
            if segment.base >= until {
                break;
            }
            self.each_batch(segment, |batch| {
                if batch.header().is_control() || batch.header().count == 0 {
                    return Ok(());
                }
                for record in &batch.records(limit_bytes)? {
                    let record = record?;
                    let Some(key) = record.key else { continue };
                    match latest.get_mut(key) {
                        Some(offset) => *offset = record.offset,
                        None => {
                            room = room.saturating_sub(key.len() + KEY_OVERHEAD_BYTES);
                            latest.insert(Bytes::copy_from_slice(key), record.offset);
                        }
                    }
                }
                Ok(())
            })?;
            if room == 0 {
                let next = self.segments.get(number + 1).map_or(until, |next| next.base);
                return Ok((latest, next));
            }
        }
        Ok((latest, until))
    }

    /// Last offset of the last batch of each idempotent producer.
    fn last_of_producers(&self) -> BTreeMap<i64, i64> {
        let last = self.producers.iter();
        last.filter_map(|(id, entry)| Some((id, entry.batches.back()?.last_offset))).collect()
    }

    fn each_batch(
        &self,
        segment: &Segment,
        mut each: impl FnMut(&RawBatch) -> Result<(), klamm_wire::BatchError>,
    ) -> Result<(), LogError> {
        let mut position = 0;
        while position < segment.len(&self.directory) {
            let batch = scan::batch(&self.directory, segment.log, position, Before::default())
                .map_err(|damage| damage.of(segment.base))?;
            let offset = batch.header().base_offset;
            each(&batch)
                .map_err(|error| Damage::new(position, offset, Cause::Batch(error)).of(segment.base))?;
            position += batch.header().size_bytes() as u64;
        }
        Ok(())
    }

    /// What is left of the batches of a segment; `None` if that is all of them.
    fn clean_segment(
        &self,
        number: usize,
        keep: &Keep<'_>,
        limit_bytes: usize,
    ) -> Result<Option<Vec<Bytes>>, LogError> {
        let Some(segment) = self.segments.get(number) else { return Ok(None) };
        let (mut left, mut changed) = (Vec::new(), false);
        let horizon = keep.wall_ms.saturating_add(self.settings.delete_retention_ms);
        self.each_batch(segment, |batch| {
            match keep.of(batch, horizon, limit_bytes)? {
                Left::All => left.push(batch.bytes().clone()),
                Left::Some(bytes) => {
                    changed = true;
                    left.push(bytes);
                }
                Left::Nothing => changed = true,
            }
            Ok(())
        })?;
        Ok(changed.then_some(left))
    }

    /// Puts cleaned batches in a segment's place.
    fn replace(&mut self, number: usize, batches: Vec<Bytes>) -> Result<(), LogError> {
        let Some(base) = self.segments.get(number).map(|segment| segment.base) else { return Ok(()) };
        let mut cleaned = Segment::create_as(&mut self.directory, base, CLEANED)?;
        let interval = self.settings.index_interval_bytes;
        for bytes in batches {
            let header = BatchHeader::parse(&bytes)
                .map_err(|error| Damage::new(0, base, Cause::Batch(error)).of(base))?;
            let position = self.directory.append(cleaned.log, &[bytes])?;
            cleaned.note(&mut self.directory, &header, position, interval)?;
        }
        cleaned.close(&mut self.directory)?;
        self.directory.sync_now()?;
        let extensions: &[&str] =
            if self.directory.keeps_derived() { &[INDEX, TIME_INDEX, LOG] } else { &[LOG] };
        for step in [(CLEANED, Some(SWAP)), (SWAP, None)] {
            for extension in extensions {
                let name = files::of_offset(base, extension);
                let to = step.1.map_or(name.clone(), |suffix| format!("{name}.{suffix}"));
                self.directory.rename(&format!("{name}.{}", step.0), &to)?;
            }
            self.directory.sync_now()?;
        }
        if let Some(segment) = self.segments.get_mut(number) {
            *segment = cleaned;
        }
        self.has_gaps = true;
        Ok(())
    }

    /// Removes segments of which nothing is left, but for the first, which tells where the log begins, and the last.
    fn drop_empty(&mut self) -> Result<(), LogError> {
        let mut number = 1;
        while number + 1 < self.segments.len() {
            if self.segments.get(number).is_some_and(|segment| segment.len(&self.directory) == 0) {
                let empty = self.segments.remove(number);
                self.remove_segment(&empty)?;
            } else {
                number += 1;
            }
        }
        Ok(())
    }
}

/// What decides about a record.
struct Keep<'a> {
    latest: &'a Latest,
    until: i64,
    last_of_producers: &'a BTreeMap<i64, i64>,
    wall_ms: i64,
}

/// What is left of a batch.
enum Left {
    All,
    Some(Bytes),
    Nothing,
}

impl Keep<'_> {
    fn of(&self, batch: &RawBatch, horizon: i64, limit_bytes: usize) -> Result<Left, klamm_wire::BatchError> {
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
        let records = batch.records(limit_bytes)?;
        let mut kept = Vec::new();
        let mut tombstones = false;
        for record in &records {
            let record = record?;
            let Some(key) = record.key else { continue };
            let overtaken = self.latest.get(key).is_some_and(|latest| record.offset < *latest);
            let over = record.value.is_none() && own.is_some_and(|until| self.wall_ms >= until);
            if !overtaken && !over {
                tombstones |= record.value.is_none();
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
        let base_timestamp = if marks { horizon } else { header.base_timestamp };
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
