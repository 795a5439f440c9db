//! Requests in versions whose layout `kafka-protocol` does not have: OffsetCommit 10 and OffsetFetch 10, which name topics by
//! id (KIP-848).

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{CodecError, decode_request};
use crate::schema::{self, Cursor, Fault, Kind, Malformed, WalkError};
use crate::seam::Frame;

const TOPIC_IDS: i16 = 10;

/// Decodes OffsetCommit, also in version 10.
///
/// # Errors
///
/// Returns [`CodecError`] if the frame is of another api or its bytes contradict the schema.
pub fn decode_offset_commit(frame: Frame) -> Result<OffsetCommitRequest, CodecError> {
    decode(frame, 8, |bytes| {
        let mut request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(bytes)?))
            .with_generation_id_or_member_epoch(i32::from_be_bytes(bytes.array()?))
            .with_member_id(text(bytes)?)
            .with_group_instance_id(nullable_text(bytes)?)
            .with_retention_time_ms(-1);
        request.topics = list(bytes, |bytes| {
            let id = Uuid::from_bytes(bytes.array()?);
            let partitions = list(bytes, |bytes| {
                let part = OffsetCommitRequestPartition::default()
                    .with_partition_index(i32::from_be_bytes(bytes.array()?))
                    .with_committed_offset(i64::from_be_bytes(bytes.array()?))
                    .with_committed_leader_epoch(i32::from_be_bytes(bytes.array()?))
                    .with_committed_metadata(nullable_text(bytes)?);
                skip_tags(bytes)?;
                Ok(part)
            })?;
            skip_tags(bytes)?;
            let topic = OffsetCommitRequestTopic::default().with_topic_id(id);
            Ok(topic.with_partitions(partitions.unwrap_or_default()))
        })?
        .unwrap_or_default();
        skip_tags(bytes)?;
        Ok(request)
    })
}

/// Decodes OffsetFetch, also in version 10.
///
/// # Errors
///
/// Returns [`CodecError`] if the frame is of another api or its bytes contradict the schema.
pub fn decode_offset_fetch(frame: Frame) -> Result<OffsetFetchRequest, CodecError> {
    decode(frame, 9, |bytes| {
        let groups = list(bytes, |bytes| {
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text(bytes)?))
                .with_member_id(nullable_text(bytes)?)
                .with_member_epoch(i32::from_be_bytes(bytes.array()?));
            let topics = list(bytes, |bytes| {
                let id = Uuid::from_bytes(bytes.array()?);
                let numbers = list(bytes, |bytes| bytes.array().map(i32::from_be_bytes))?;
                skip_tags(bytes)?;
                let topic = OffsetFetchRequestTopics::default().with_topic_id(id);
                Ok(topic.with_partition_indexes(numbers.unwrap_or_default()))
            })?;
            skip_tags(bytes)?;
            Ok(group.with_topics(topics))
        })?;
        let [stable] = bytes.array()?;
        skip_tags(bytes)?;
        Ok(OffsetFetchRequest::default()
            .with_groups(groups.unwrap_or_default())
            .with_require_stable(stable != 0))
    })
}

fn decode<R: kafka_protocol::protocol::Request>(
    frame: Frame,
    expected: i16,
    read: impl FnOnce(&mut Cursor<'_>) -> Result<R, Malformed>,
) -> Result<R, CodecError> {
    if frame.api_key != expected || frame.api_version != TOPIC_IDS {
        return decode_request(frame);
    }
    let body: Bytes = frame.into_contiguous();
    schema::walk(Kind::Request, expected, TOPIC_IDS, &body)?;
    let mut bytes = Cursor::new(&body);
    Ok(read(&mut bytes).map_err(WalkError::from)?)
}

fn nullable_text(bytes: &mut Cursor<'_>) -> Result<Option<StrBytes>, Malformed> {
    let Some(length) = bytes.compact_length()? else { return Ok(None) };
    bytes.text(length).map(|text| Some(StrBytes::from_string(text.to_owned())))
}

fn text(bytes: &mut Cursor<'_>) -> Result<StrBytes, Malformed> {
    let start = bytes.clone();
    nullable_text(bytes)?.map_or_else(|| start.fail(Fault::Null), Ok)
}

fn list<T>(
    bytes: &mut Cursor<'_>,
    mut element: impl FnMut(&mut Cursor<'_>) -> Result<T, Malformed>,
) -> Result<Option<Vec<T>>, Malformed> {
    let Some(claimed) = bytes.compact_length()? else { return Ok(None) };
    let count = bytes.count(claimed, 1)?;
    (0..count).map(|_| element(bytes)).collect::<Result<_, _>>().map(Some)
}

fn skip_tags(bytes: &mut Cursor<'_>) -> Result<(), Malformed> {
    let mut tags = bytes.tags()?;
    while tags.next(bytes)?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn put_text(out: &mut BytesMut, text: &str) {
        out.put_u8(text.len() as u8 + 1);
        out.put_slice(text.as_bytes());
    }

    #[test]
    fn a_commit_by_topic_id_is_read_and_one_that_is_cut_off_is_not() {
        let id = Uuid::from_u128(7);
        let mut out = BytesMut::new();
        put_text(&mut out, "g");
        out.put_i32(3);
        put_text(&mut out, "member");
        out.put_u8(0);
        out.put_u8(2);
        out.put_slice(id.as_bytes());
        out.put_u8(2);
        out.put_i32(5);
        out.put_i64(42);
        out.put_i32(9);
        put_text(&mut out, "note");
        out.put_slice(&[0, 0, 0]);
        let body = out.freeze();
        let request = decode_offset_commit(Frame::new(8, 10, body.clone())).unwrap();
        assert_eq!((&*request.group_id.0, &*request.member_id), ("g", "member"));
        assert_eq!((request.generation_id_or_member_epoch, request.retention_time_ms), (3, -1));
        let topic = &request.topics[0];
        assert_eq!(topic.topic_id, id);
        let part = &topic.partitions[0];
        assert_eq!((part.partition_index, part.committed_offset, part.committed_leader_epoch), (5, 42, 9));
        assert_eq!(part.committed_metadata.as_deref(), Some("note"));
        for length in 0..body.len() {
            assert!(decode_offset_commit(Frame::new(8, 10, body.slice(..length))).is_err());
        }
    }

    #[test]
    fn a_fetch_by_topic_id_is_read_and_null_topics_mean_all() {
        let mut out = BytesMut::new();
        out.put_u8(3);
        put_text(&mut out, "g");
        out.put_u8(0);
        out.put_i32(-1);
        out.put_u8(0);
        out.put_u8(0);
        put_text(&mut out, "h");
        out.put_u8(0);
        out.put_i32(-1);
        out.put_u8(2);
        out.put_slice(Uuid::from_u128(7).as_bytes());
        out.put_u8(3);
        out.put_i32(0);
        out.put_i32(4);
        out.put_slice(&[0, 0, 1, 0]);
        let body = out.freeze();
        let request = decode_offset_fetch(Frame::new(9, 10, body.clone())).unwrap();
        assert!(request.require_stable && request.groups[0].topics.is_none());
        let topic = &request.groups[1].topics.as_ref().unwrap()[0];
        assert_eq!((topic.topic_id, &topic.partition_indexes[..]), (Uuid::from_u128(7), &[0, 4][..]));
        for length in 0..body.len() {
            assert!(decode_offset_fetch(Frame::new(9, 10, body.slice(..length))).is_err());
        }
    }
}
