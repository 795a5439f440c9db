//! DescribeLogDirs (35): versions 1 to 5.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_response};
use klamm_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use klamm_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use klamm_wire::seam::Frame;

use super::{Handled, text};
use crate::broker::Broker;
use crate::node::{Answer, Reply};

/// First version that says whether a directory is cordoned (KIP-1066).
const CORDONED: i16 = 5;
/// Size of a volume that cannot be told, as in memory (KIP-827).
const UNKNOWN: i64 = -1;
/// Last version of `kafka-protocol`.
const KNOWN: i16 = 4;

/// Answers from the replicas held here.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request =
        decode_request::<DescribeLogDirsRequest>(Frame { api_version: version.min(KNOWN), ..frame })?;
    // a topic may be named more than once
    let asked: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        topics
            .iter()
            .flat_map(|of| of.partitions.iter().map(|partition| (of.topic.as_str(), *partition)))
            .collect()
    });
    let mut topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for held in broker.partitions() {
        let identity = &held.identity;
        if asked.as_ref().is_some_and(|asked| !asked.contains(&(&*identity.topic, identity.partition))) {
            continue;
        }
        let Some((size, lag)) = held.look(|replica| {
            let lag = replica.high_watermark().saturating_sub(replica.log_end_offset()).max(0);
            (replica.log().len_bytes(), lag)
        }) else {
            continue;
        };
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(identity.partition)
            .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX))
            .with_offset_lag(lag);
        topics.entry(identity.topic.clone()).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        DescribeLogDirsTopic::default().with_name(TopicName(text(&topic))).with_partitions(partitions)
    });
    let (total, usable) = broker.volume().unwrap_or((UNKNOWN, UNKNOWN));
    let result = DescribeLogDirsResult::default()
        .with_log_dir(text(&broker.log_dir()))
        .with_topics(topics.collect())
        .with_total_bytes(total)
        .with_usable_bytes(usable);
    let response = DescribeLogDirsResponse::default().with_results(vec![result]);
    Ok(Answer::Now(Reply::Frame(encode(version, &response)?)))
}

/// What a rule that refuses the request answers.
pub(crate) fn refused(code: i16) -> DescribeLogDirsResponse {
    let result = DescribeLogDirsResult::default()
        .with_error_code(code)
        .with_log_dir(text(""))
        .with_total_bytes(-1)
        .with_usable_bytes(-1);
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// Encodes an answer with one log directory.
pub(crate) fn encode(version: i16, response: &DescribeLogDirsResponse) -> Result<Frame, CodecError> {
    let frame = encode_response::<DescribeLogDirsRequest>(version.min(KNOWN), response)?;
    if version < CORDONED {
        return Ok(frame);
    }
    // Version 5 is version 4 with one more truth value at the end of each result: here, of the only one. Behind it are
    // the tagged fields of the result and of the whole, none of either, a byte each.
    let api_key = frame.api_key;
    let body = frame.into_contiguous();
    let (front, tags) = body.split_at(body.len().saturating_sub(2));
    let mut longer = BytesMut::with_capacity(body.len() + 1);
    longer.put_slice(front);
    longer.put_u8(0);
    longer.put_slice(tags);
    Ok(Frame::new(api_key, version, longer.freeze()))
}

/// Decodes what [`encode`] has made.
pub(crate) fn decode(frame: Frame) -> Result<DescribeLogDirsResponse, CodecError> {
    let (api_key, version) = (frame.api_key, frame.api_version);
    if version < CORDONED {
        return decode_response::<DescribeLogDirsRequest>(frame);
    }
    let body = frame.into_contiguous();
    let (front, tags) = body.split_at(body.len().saturating_sub(2));
    let mut shorter = BytesMut::from(front.get(..front.len().saturating_sub(1)).unwrap_or_default());
    shorter.put_slice(tags);
    decode_response::<DescribeLogDirsRequest>(Frame::new(api_key, KNOWN, shorter.freeze()))
}
