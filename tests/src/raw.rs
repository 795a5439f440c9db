//! Requests over a plain socket, without the client under test: what a broker stores, byte for byte.

use std::collections::BTreeMap;
use std::io::{Error, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use klamm_wire::codec;
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_wire::messages::{FetchRequest, MetadataRequest, TopicName};
use klamm_wire::{Frame, RawBatch, Request, StrBytes};

/// Sends one request and reads its answer, on a connection of its own.
///
/// # Errors
///
/// The peer is not there, or does not speak the protocol.
pub fn exchange<R: Request>(address: &str, version: i16, request: &R) -> Result<R::Response, Error> {
    let frame = codec::encode_request(version, request).map_err(Error::other)?;
    let header = codec::encode_request_header(R::KEY, version, 1, Some("raw"));
    let length = u32::try_from(header.len() + frame.len_bytes()).map_err(Error::other)?;
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&header)?;
    stream.write_all(&frame.into_contiguous())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    let mut answer = Bytes::from(answer);
    codec::decode_response_header(R::KEY, version, &mut answer).map_err(Error::other)?;
    codec::decode_response::<R>(Frame::new(R::KEY, version, answer)).map_err(Error::other)
}

/// Address of the leader of each partition.
///
/// # Errors
///
/// As [`exchange`]; or a partition has no leader.
pub fn leaders(bootstrap: &str, topic: &str) -> Result<BTreeMap<i32, String>, Error> {
    use klamm_wire::messages::metadata_request::MetadataRequestTopic;
    let first = bootstrap.split(',').next().unwrap_or(bootstrap);
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]));
    let answer = exchange(first, 4, &request)?;
    let mut leaders = BTreeMap::new();
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let broker = answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id);
        let broker = broker.ok_or_else(|| Error::other(format!("{partition:?} has no leader")))?;
        leaders.insert(partition.partition_index, format!("{}:{}", broker.host, broker.port));
    }
    Ok(leaders)
}

/// The active controller of a KRaft cluster and its epoch, as a broker hears it from the quorum.
///
/// # Errors
///
/// As [`exchange`]; or there is no leader now.
pub fn quorum_leader(bootstrap: &str) -> Result<(i32, i32), Error> {
    use klamm_wire::messages::DescribeQuorumRequest;
    use klamm_wire::messages::describe_quorum_request::{PartitionData, TopicData};
    let first = bootstrap.split(',').next().unwrap_or(bootstrap);
    let topic = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str("__cluster_metadata")))
        .with_partitions(vec![PartitionData::default()]);
    let answer = exchange(first, 0, &DescribeQuorumRequest::default().with_topics(vec![topic]))?;
    let told = answer.topics.first().and_then(|topic| topic.partitions.first());
    let leader = told.filter(|told| told.error_code == 0).map(|told| (told.leader_id.0, told.leader_epoch));
    leader
        .filter(|(leader, _)| *leader >= 0)
        .ok_or_else(|| Error::other(format!("no quorum leader: {answer:?}")))
}

/// Every batch of a partition, as its leader sends it.
///
/// # Errors
///
/// As [`exchange`]; or the broker answers with an error code, or with bytes that are no batches.
pub fn batches(address: &str, topic: &str, partition: i32) -> Result<Vec<RawBatch>, Error> {
    let (mut offset, mut found) = (0, Vec::new());
    loop {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(8 << 20);
        let topic_name = TopicName(StrBytes::from_string(topic.to_owned()));
        let request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(0)
            .with_max_bytes(16 << 20)
            .with_topics(vec![FetchTopic::default().with_topic(topic_name).with_partitions(vec![wanted])]);
        let answer = exchange(address, 11, &request)?;
        let data = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let data = data.ok_or_else(|| Error::other("an empty Fetch answer"))?;
        if data.error_code != 0 {
            return Err(Error::other(format!("Fetch of {topic}-{partition}: error {}", data.error_code)));
        }
        let mut records = data.records.unwrap_or_default();
        while let Some(batch) = RawBatch::split(&mut records) {
            let batch = batch.map_err(Error::other)?;
            batch.verify_crc().map_err(Error::other)?;
            offset = batch.header().last_offset() + 1;
            found.push(batch);
        }
        if offset >= data.high_watermark {
            return Ok(found);
        }
    }
}

/// Records of a topic by the codec that its stored batches have.
///
/// # Errors
///
/// As [`batches`].
pub fn stored_codecs(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<String, usize>, Error> {
    let mut counts = BTreeMap::new();
    let leaders = leaders(bootstrap, topic)?;
    for partition in 0..partitions {
        let address =
            leaders.get(&partition).ok_or_else(|| Error::other(format!("no partition {partition}")))?;
        for batch in batches(address, topic, partition)? {
            let codec = batch.header().compression().map_err(Error::other)?;
            *counts.entry(format!("{codec:?}")).or_default() += batch.header().count as usize;
        }
    }
    Ok(counts)
}
