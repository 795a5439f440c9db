//! Fetch responses whose records are never copied.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::Encodable;

use super::CodecError;
use super::chunks::{Chunks, put_uvarint};
use crate::seam::Frame;
use crate::varint::len_unsigned;

/// Api key of Fetch.
const FETCH: i16 = 1;

/// Record chunks of the partitions of one topic, in the order of the response's partitions.
pub type PartitionChunks = Vec<Vec<Bytes>>;

/// Encodes a Fetch response (versions 4 to 18), splicing records in as chunks of the frame.
///
/// `records[t][p]` are the chunks for `response.responses[t].partitions[p]`, whose own `records`
/// field is ignored. Missing entries are sent as empty records.
///
/// # Errors
///
/// Returns [`CodecError`] if the version is unknown or cannot carry one of the values set.
pub fn encode_fetch_response(
    version: i16,
    response: &FetchResponse,
    records: &[PartitionChunks],
) -> Result<Frame, CodecError> {
    if !(4..=18).contains(&version) {
        return Err(CodecError::UnsupportedVersion { api_key: FETCH, version });
    }
    let mut out = Chunks::new(FETCH, version, version >= 12, room(response));
    out.raw().put_i32(response.throttle_time_ms);
    if version >= 7 {
        out.raw().put_i16(response.error_code);
        out.raw().put_i32(response.session_id);
    } else if response.session_id != 0 {
        return Err(out.invalid("a fetch session"));
    }
    out.count(response.responses.len())?;
    for (index, topic) in response.responses.iter().enumerate() {
        let chunks = records.get(index).map_or(&[][..], Vec::as_slice);
        put_topic(&mut out, version, topic, chunks)?;
    }
    put_end(&mut out, version, response)?;
    Ok(out.finish())
}

fn put_topic(
    out: &mut Chunks,
    version: i16,
    topic: &FetchableTopicResponse,
    records: &[Vec<Bytes>],
) -> Result<(), CodecError> {
    if version >= 13 {
        out.raw().put_slice(topic.topic_id.as_bytes());
    } else {
        out.text(Some(&topic.topic))?;
    }
    out.count(topic.partitions.len())?;
    for (index, partition) in topic.partitions.iter().enumerate() {
        put_partition(out, version, partition)?;
        out.records(records.get(index).map_or(&[][..], Vec::as_slice))?;
        put_partition_tags(out, version, partition)?;
    }
    put_tags(out, version, &topic.unknown_tagged_fields, 0)
}

/// Everything in front of the records.
fn put_partition(out: &mut Chunks, version: i16, partition: &PartitionData) -> Result<(), CodecError> {
    out.raw().put_i32(partition.partition_index);
    out.raw().put_i16(partition.error_code);
    out.raw().put_i64(partition.high_watermark);
    out.raw().put_i64(partition.last_stable_offset);
    if version >= 5 {
        out.raw().put_i64(partition.log_start_offset);
    }
    match &partition.aborted_transactions {
        Some(aborted) => {
            out.count(aborted.len())?;
            for transaction in aborted {
                out.structure(transaction)?;
            }
        }
        None if version >= 12 => out.raw().put_u8(0),
        None => out.raw().put_i32(-1),
    }
    if version >= 11 {
        out.raw().put_i32(partition.preferred_read_replica.0);
    } else if partition.preferred_read_replica.0 != -1 {
        return Err(out.invalid("a preferred read replica"));
    }
    Ok(())
}

/// Everything after the records.
fn put_partition_tags(out: &mut Chunks, version: i16, partition: &PartitionData) -> Result<(), CodecError> {
    let diverging = partition.diverging_epoch != Default::default();
    let leader = partition.current_leader != Default::default();
    let snapshot = partition.snapshot_id != Default::default();
    let known = usize::from(diverging) + usize::from(leader) + usize::from(snapshot);
    if version < 12 {
        return if known == 0 { Ok(()) } else { Err(out.invalid("an epoch, leader or snapshot")) };
    }
    put_tag_count(out, known, &partition.unknown_tagged_fields, 3)?;
    if diverging {
        out.tagged(0, &partition.diverging_epoch)?;
    }
    if leader {
        out.tagged(1, &partition.current_leader)?;
    }
    if snapshot {
        out.tagged(2, &partition.snapshot_id)?;
    }
    put_unknown(out, &partition.unknown_tagged_fields, 3)
}

fn put_end(out: &mut Chunks, version: i16, response: &FetchResponse) -> Result<(), CodecError> {
    let endpoints = &response.node_endpoints;
    // Ignorable: a client of an older version finds the leader by Metadata.
    if version < 16 || endpoints.is_empty() {
        return put_tags(out, version, &response.unknown_tagged_fields, 1);
    }
    put_tag_count(out, 1, &response.unknown_tagged_fields, 1)?;
    put_uvarint(out.raw(), 0);
    let mut sizes = 0;
    for endpoint in endpoints {
        sizes += endpoint.compute_size(version).map_err(|e| out.invalid(&e))?;
    }
    let count = u32::try_from(endpoints.len() + 1).map_err(|_| out.invalid("too many endpoints"))?;
    let size =
        u32::try_from(sizes + len_unsigned(count.into())).map_err(|_| out.invalid("too many endpoints"))?;
    put_uvarint(out.raw(), size);
    put_uvarint(out.raw(), count);
    for endpoint in endpoints {
        out.structure(endpoint)?;
    }
    put_unknown(out, &response.unknown_tagged_fields, 1)
}

type Unknown = BTreeMap<i32, Bytes>;

/// Tagged fields of a structure that knows none, or has none of those it knows.
fn put_tags(out: &mut Chunks, version: i16, unknown: &Unknown, from: i32) -> Result<(), CodecError> {
    if version < 12 {
        return Ok(());
    }
    put_tag_count(out, 0, unknown, from)?;
    put_unknown(out, unknown, from)
}

fn put_tag_count(out: &mut Chunks, known: usize, unknown: &Unknown, from: i32) -> Result<(), CodecError> {
    let count = known + unknown.range(from..).count();
    let count = u32::try_from(count).map_err(|_| out.invalid("too many tagged fields"))?;
    put_uvarint(out.raw(), count);
    Ok(())
}

fn put_unknown(out: &mut Chunks, unknown: &Unknown, from: i32) -> Result<(), CodecError> {
    for (tag, content) in unknown.range(from..) {
        let size = u32::try_from(content.len()).map_err(|_| out.invalid("tagged field over 4 GiB"))?;
        put_uvarint(out.raw(), tag.unsigned_abs());
        put_uvarint(out.raw(), size);
        out.raw().put_slice(content);
    }
    Ok(())
}

/// Enough for everything but the records, in the usual case.
fn room(response: &FetchResponse) -> usize {
    let topics = response.responses.iter();
    32 + topics.map(|t| 24 + t.topic.len() + 64 * t.partitions.len()).sum::<usize>()
}
