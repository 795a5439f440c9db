//! A client of raw frames: no decisions, no retries.
#![allow(dead_code, missing_docs)]

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use broker_lite::{Cluster, Endpoint, Frame, Handle, Link, LinkError};
use bytes::{BufMut, Bytes, BytesMut};
use klamm_wire::codec::{self, ProduceHead, ProducePartition, ProduceTopic};
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_wire::messages::fetch_response::PartitionData;
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::produce_response::PartitionProduceResponse;
use klamm_wire::messages::{FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest, TopicName};
use klamm_wire::{BatchBuilder, Compression, ErrorCode, ProducerStamp, RawBatch, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service;

/// A conversation with one broker.
pub(crate) struct Talk(Link);

impl Talk {
    pub(crate) async fn to(cluster: &Cluster, broker: i32) -> Self {
        Self::dial(cluster, broker).await.unwrap()
    }

    pub(crate) async fn dial(cluster: &Cluster, broker: i32) -> Result<Self, LinkError> {
        let mut handle: Handle = cluster.handle();
        handle.call(endpoint(cluster, broker)).await.map(Self)
    }

    /// As the client with this id.
    pub(crate) async fn named(cluster: &Cluster, broker: i32, client_id: &str) -> Result<Self, LinkError> {
        let mut endpoint = endpoint(cluster, broker);
        endpoint.client_id = Some(client_id.into());
        let mut handle: Handle = cluster.handle();
        handle.call(endpoint).await.map(Self)
    }

    /// Sends a frame; the answer may be awaited later.
    pub(crate) async fn send(&mut self, frame: Frame) -> Result<Answer, LinkError> {
        std::future::poll_fn(|cx| self.0.poll_ready(cx)).await?;
        Ok(self.0.call(frame))
    }

    pub(crate) async fn try_ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, LinkError> {
        let frame = codec::encode_request(version, request).unwrap();
        let answer = self.send(frame).await?.await?;
        Ok(codec::decode_response::<R>(answer).unwrap())
    }

    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_ask(version, request).await.unwrap()
    }

    pub(crate) async fn metadata(&mut self, topic: Option<&str>) -> MetadataResponse {
        let topics =
            topic.map(|name| vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]);
        self.ask(12, &MetadataRequest::default().with_topics(topics)).await
    }

    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let answer = self.send(produce(topic, partition, -1, 10_000, batch)).await.unwrap().await.unwrap();
        produced(answer)
    }

    /// One fetch of one partition.
    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        wait_ms: i32,
    ) -> PartitionData {
        let response = self.ask(12, &fetch(topic, partition, offset, wait_ms)).await;
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].clone()
    }
}

pub(crate) fn endpoint(cluster: &Cluster, broker: i32) -> Endpoint {
    let bootstrap = cluster.bootstrap();
    let index = cluster.broker_ids().iter().position(|id| *id == broker).unwrap();
    let (host, port) = bootstrap.split(',').nth(index).unwrap().rsplit_once(':').unwrap();
    Endpoint::new(host, port.parse().unwrap())
}

pub(crate) type Answer = klamm_wire::seam::BoxFuture<Result<Frame, LinkError>>;

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(crate) fn produce(topic: &str, partition: i32, acks: i16, timeout_ms: i32, batch: Bytes) -> Frame {
    let head = ProduceHead { acks, timeout_ms, transactional_id: None };
    let topic = ProduceTopic {
        name: StrBytes::from_string(topic.to_owned()),
        id: Default::default(),
        partitions: vec![ProducePartition { index: partition, records: vec![batch] }],
    };
    codec::encode_produce(9, &head, &[topic]).unwrap()
}

pub(crate) fn produced(answer: Frame) -> PartitionProduceResponse {
    let response = codec::decode_response::<ProduceRequest>(answer).unwrap();
    response.responses[0].partition_responses[0].clone()
}

pub(crate) fn fetch(topic: &str, partition: i32, offset: i64, wait_ms: i32) -> FetchRequest {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Ms since the Unix epoch at which all records were made: brokers delete what is old, and refuse what is of the future.
pub(crate) static MADE_MS: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
});

/// A batch of the values given, from no producer in particular.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    stamped(values, -1, -1, -1)
}

/// A batch of an idempotent producer.
pub(crate) fn stamped(values: &[&str], producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for value in values {
        builder.append::<&[u8], &[u8]>(*MADE_MS, None, Some(value.as_bytes()), &[]);
    }
    let sealed = builder.seal(Compression::None, None).unwrap();
    let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence };
    let mut bytes = BytesMut::from(&sealed.header(stamp)[..]);
    bytes.extend_from_slice(sealed.records());
    bytes.freeze()
}

/// Values with their offsets.
pub(crate) fn values(data: &PartitionData) -> Vec<(i64, String)> {
    let mut bytes = data.records.clone().unwrap_or_default();
    let mut found = Vec::new();
    while let Some(batch) = RawBatch::split(&mut bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in batch.records(1 << 20).unwrap().iter() {
            let record = record.unwrap();
            found.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    found
}

pub(crate) fn code(raw: i16) -> ErrorCode {
    ErrorCode(raw)
}

/// A client over a socket, as far as it is needed here.
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) async fn connect(cluster: &Cluster, broker: i32) -> Self {
        let endpoint = endpoint(cluster, broker);
        Self(TcpStream::connect((&*endpoint.host, endpoint.port)).await.unwrap())
    }

    pub(crate) async fn send(&mut self, correlation_id: i32, frame: Frame) {
        let header =
            codec::encode_request_header(frame.api_key, frame.api_version, correlation_id, Some("socket"));
        let body = frame.into_contiguous();
        let mut bytes = BytesMut::new();
        bytes.put_u32((header.len() + body.len()) as u32);
        bytes.put_slice(&header);
        bytes.put_slice(&body);
        self.0.write_all(&bytes).await.unwrap();
    }

    /// The offset that a Produce was given, `None` if the connection was closed instead.
    pub(crate) async fn produced(&mut self, correlation_id: i32) -> Option<i64> {
        let length = self.0.read_u32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await.unwrap();
        let mut body = Bytes::from(body);
        assert_eq!(codec::decode_response_header(0, 9, &mut body), Ok(correlation_id));
        Some(produced(Frame::new(0, 9, body)).base_offset)
    }

    /// Waits for something to read.
    pub(crate) async fn peek(&self) -> std::io::Result<usize> {
        self.0.peek(&mut [0]).await
    }
}
