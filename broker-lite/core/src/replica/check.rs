//! What a leader demands of a producer's batch before it enters the log.
//!
//! In: the bytes of one partition of a Produce request. Out: the one batch in them, or Kafka's error code.
//!
//! Invariant: what passes here can be read by every consumer: sound lengths, CRC, codec, offsets and timestamps.

use bytes::Bytes;
use klamm_wire::batch::{HEADER_BYTES, TimestampType};
use klamm_wire::crc::crc32c_of_two;
use klamm_wire::{BatchError, BatchHeader, Compression, CompressionError, ErrorCode, RawBatch, Records};

use super::types::{AppendError, Produce, ReplicaSettings};

/// First version of Produce in which zstd may be used.
const ZSTD_FROM: i16 = 7;
/// Timestamp of a record without any.
const NO_TIMESTAMP: i64 = -1;
/// Bytes before the field `length` ends, which it does not count.
const LENGTH_PREFIX: usize = 12;
/// The bits of `attributes` that name the codec.
const CODEC_BITS: i16 = 7;
/// The bit of `attributes` that says whose timestamps these are.
const APPEND_TIME_BIT: i16 = 8;
/// Where the bytes begin that the CRC covers.
const SUMMED_FROM: usize = 21;

/// A batch that may be appended.
#[derive(Debug)]
pub(super) struct Checked {
    batch: RawBatch,
    /// Largest timestamp of the records, which the producer may have stated wrongly.
    max_timestamp: i64,
}

/// Takes the one batch a Produce request may hold for a partition: what is wrong here is wrong at any broker.
pub(super) fn one_batch(produce: &Produce) -> Result<RawBatch, AppendError> {
    let batch = split_one(produce)?;
    if produce.api_version < ZSTD_FROM {
        check_codec_of_old(batch.header(), produce.api_version)?;
    }
    Ok(batch)
}

/// Checks everything but the sequence.
pub(super) fn check(
    batch: RawBatch,
    wall_ms: i64,
    settings: &ReplicaSettings,
) -> Result<Checked, AppendError> {
    check_place_and_size(batch.header(), settings)?;
    batch.verify_crc().map_err(|error| AppendError::new(ErrorCode::CORRUPT_MESSAGE, error.to_string()))?;
    codec_of(batch.header())?;
    check_kind(batch.header())?;
    let (records, max_timestamp) = check_records(&batch, wall_ms, settings)?;
    let batch = compressed_as_set(batch, &records, settings)?;
    Ok(Checked { batch, max_timestamp })
}

/// The batch with the topic's codec (`compression.type`), if that is another one than the producer's.
fn compressed_as_set(
    batch: RawBatch,
    records: &Records,
    settings: &ReplicaSettings,
) -> Result<RawBatch, AppendError> {
    let Some(codec) = settings.compression.filter(|codec| batch.header().compression() != Ok(*codec)) else {
        return Ok(batch);
    };
    let refused = |reason: String| {
        let message = format!("compression.type of the topic is {}: {reason}", codec.name());
        AppendError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message)
    };
    let packed = codec.compress(settings.compression_level, records.body());
    let packed = packed.map_err(|error| refused(error.to_string()))?;
    let length = i32::try_from(packed.len() + HEADER_BYTES - LENGTH_PREFIX);
    let mut header = BatchHeader {
        attributes: (batch.header().attributes & !CODEC_BITS) | codec.id(),
        length: length.map_err(|error| refused(error.to_string()))?,
        ..*batch.header()
    };
    header.crc = crc32c_of_two(&header.encode()[SUMMED_FROM..], &packed);
    let bytes = [&header.encode()[..], &packed].concat();
    check_place_and_size(&header, settings)?;
    RawBatch::parse(bytes.into()).map_err(|error| refused(error.to_string()))
}

impl Checked {
    pub(super) fn header(&self) -> &BatchHeader {
        self.batch.header()
    }

    /// The batch at its place in the log, as header and bytes.
    ///
    /// As Kafka does, a max timestamp that the records contradict is put right, and so is a claim that the times were the
    /// broker's.
    pub(super) fn place(
        &self,
        base_offset: i64,
        leader_epoch: i32,
        append_time: Option<i64>,
    ) -> (BatchHeader, [Bytes; 2]) {
        let mut header = *self.batch.header();
        header.base_offset = base_offset;
        header.partition_leader_epoch = leader_epoch;
        let claims_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        if claims_append_time && append_time.is_none() {
            header.attributes &= !APPEND_TIME_BIT;
        }
        let unchanged = header.max_timestamp == self.max_timestamp && !claims_append_time;
        header.max_timestamp = append_time.unwrap_or(self.max_timestamp);
        let chunks = match append_time {
            Some(time) => self.batch.assigned_with_append_time(base_offset, leader_epoch, time),
            None if unchanged => self.batch.assigned(base_offset, leader_epoch),
            None => {
                let [_, records] = self.batch.assigned(base_offset, leader_epoch);
                header.crc = crc32c_of_two(&header.encode()[SUMMED_FROM..], &records);
                [Bytes::copy_from_slice(&header.encode()), records]
            }
        };
        (BatchHeader::parse(&chunks[0]).unwrap_or(header), chunks)
    }
}

fn invalid(message: impl Into<String>) -> AppendError {
    AppendError::new(ErrorCode::INVALID_RECORD, message)
}

fn split_one(produce: &Produce) -> Result<RawBatch, AppendError> {
    let mut rest = produce.records.clone();
    let batch = match RawBatch::split(&mut rest) {
        Some(Ok(batch)) => batch,
        Some(Err(error @ BatchError::UnsupportedMagic { magic: 0 | 1 })) => {
            return Err(invalid(error.to_string()));
        }
        Some(Err(error)) => return Err(AppendError::new(ErrorCode::CORRUPT_MESSAGE, error.to_string())),
        None => return Err(invalid("a Produce request must hold a whole record batch for every partition")),
    };
    match RawBatch::split(&mut rest) {
        // a piece of another batch is left out, as Kafka does
        None | Some(Err(BatchError::Truncated { .. })) => Ok(batch),
        Some(Err(error)) => Err(AppendError::new(ErrorCode::CORRUPT_MESSAGE, error.to_string())),
        Some(Ok(_)) => Err(invalid("a Produce request may hold only one record batch for every partition")),
    }
}

fn check_place_and_size(header: &BatchHeader, settings: &ReplicaSettings) -> Result<(), AppendError> {
    if header.base_offset != 0 {
        return Err(invalid(format!("the base offset of a produced batch is 0, not {}", header.base_offset)));
    }
    let (size, limit) = (header.size_bytes(), settings.max_message_bytes);
    if size > limit {
        let message = format!("batch of {size} B exceeds max.message.bytes, {limit} B");
        return Err(AppendError::new(ErrorCode::MESSAGE_TOO_LARGE, message));
    }
    Ok(())
}

fn codec_of(header: &BatchHeader) -> Result<Compression, AppendError> {
    let unknown =
        |error: BatchError| AppendError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, error.to_string());
    header.compression().map_err(unknown)
}

fn check_codec_of_old(header: &BatchHeader, api_version: i16) -> Result<(), AppendError> {
    match codec_of(header)? {
        Compression::Zstd => {
            let message = format!("zstd needs Produce {ZSTD_FROM}, this is version {api_version}");
            Err(AppendError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message))
        }
        _ => Ok(()),
    }
}

fn check_kind(header: &BatchHeader) -> Result<(), AppendError> {
    if header.is_control() {
        return Err(invalid("clients may not write control batches"));
    }
    // an epoch of -1 is taken for one, as Kafka does
    if header.has_producer() && header.base_sequence < 0 {
        return Err(invalid("a batch with a producer id needs a sequence"));
    }
    if header.is_transactional() {
        return Err(AppendError::new(ErrorCode::INVALID_TXN_STATE, "transactions are not supported yet"));
    }
    if header.count < 1 || i64::from(header.last_offset_delta) != i64::from(header.count) - 1 {
        return Err(invalid(format!(
            "the batch claims {} records and a last offset delta of {}",
            header.count, header.last_offset_delta
        )));
    }
    Ok(())
}

/// Checks record by record; returns them, and the largest timestamp.
fn check_records(
    batch: &RawBatch,
    wall_ms: i64,
    settings: &ReplicaSettings,
) -> Result<(Records, i64), AppendError> {
    let records = batch.records(settings.decompression_limit_bytes).map_err(|error| match error {
        BatchError::Compression(CompressionError::Limit { .. }) => {
            AppendError::new(ErrorCode::MESSAGE_TOO_LARGE, error.to_string())
        }
        // the CRC was right: the producer made it so, and would only send it again
        error => invalid(error.to_string()),
    })?;
    let create_time = settings.message_timestamp_type == TimestampType::CreateTime;
    let claims_append_time = batch.header().timestamp_type() == TimestampType::LogAppendTime;
    let earliest = wall_ms.saturating_sub(settings.message_timestamp_before_max_ms);
    let latest = wall_ms.saturating_add(settings.message_timestamp_after_max_ms);
    let mut max_timestamp = NO_TIMESTAMP;
    let mut refused: Option<AppendError> = None;
    for (index, record) in (0i32..).zip(&records) {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        if record.offset != i64::from(index) {
            return Err(invalid(format!("record {index} has the offset delta {}", record.offset)));
        }
        let out_of_time =
            record.timestamp != NO_TIMESTAMP && !(earliest..=latest).contains(&record.timestamp);
        let (code, reason) = if settings.require_key && record.key.is_none() {
            (ErrorCode::INVALID_RECORD, "a record of a compacted topic needs a key".to_owned())
        } else if claims_append_time && !(create_time && record.timestamp != NO_TIMESTAMP) {
            let reason = "a producer may not set the timestamp type LogAppendTime";
            (ErrorCode::INVALID_TIMESTAMP, reason.to_owned())
        } else if create_time && out_of_time {
            let reason = format!("timestamp {} is not in {earliest}..={latest}", record.timestamp);
            (ErrorCode::INVALID_TIMESTAMP, reason)
        } else {
            max_timestamp = max_timestamp.max(record.timestamp);
            continue;
        };
        let error = refused.get_or_insert_with(|| AppendError::new(code, ""));
        if code == ErrorCode::INVALID_TIMESTAMP {
            error.code = code;
        }
        error.record_errors.push((index, reason));
    }
    match refused {
        Some(mut error) => {
            error.message = rejected(&error);
            Err(error)
        }
        None => Ok((records, max_timestamp)),
    }
}

/// As Kafka says it, so that clients in other languages print what they always print.
fn rejected(error: &AppendError) -> String {
    if error.code == ErrorCode::INVALID_TIMESTAMP {
        return "One or more records have been rejected due to invalid timestamp".to_owned();
    }
    let count = error.record_errors.len();
    let first = error.record_errors.iter().take(3).map(|(index, reason)| format!("{index}: {reason}"));
    let first = first.collect::<Vec<_>>().join("; ");
    format!(
        "One or more records have been rejected due to {count} record errors in total, the first of them: {first}"
    )
}
