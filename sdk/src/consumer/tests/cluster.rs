//! Two brokers in this process over one set of logs, with long polls and without sessions (`klamm-core` tries
//! those), which do as they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::NO_PRODUCER;
use klamm_wire::codec::{decode_request, encode_response};
use klamm_wire::messages::api_versions_response::ApiVersion;
use klamm_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use klamm_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use klamm_wire::negotiation::CLIENT_RANGES;
use klamm_wire::{
    BatchBuilder, BoxConnector, Compression, Connector, Endpoint, ErrorCode, Frame, Link, LinkError,
    RawBatch, StrBytes,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower::service_fn;
use uuid::Uuid;

use crate::rt::Rt;

pub(super) const PARTITIONS: i32 = 2;

/// Id of the topic as it is created for the n-th time.
pub(super) fn topic_id(times: u128) -> Uuid {
    Uuid::from_u128(5 + times)
}

/// Key and value of a record.
pub(super) type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Batches with the offset behind them.
    logs: BTreeMap<i32, Vec<(i64, Bytes)>>,
    /// Where logs were cut the last time.
    cut: BTreeMap<i32, i64>,
    /// First offset that is still there.
    pub(super) log_start: i64,
    /// Leader and epoch; partition p begins with broker p + 1.
    leaders: BTreeMap<i32, (i32, i32)>,
    /// Brokers that refuse connections and break those they have.
    pub(super) down: Vec<i32>,
    pub(super) fetches: usize,
    /// How often the topic was created again.
    created_again: u128,
}

/// A handle on the brokers; clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(in crate::consumer) struct Cluster(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    news: Notify,
}

impl Cluster {
    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Appends one batch.
    pub(super) fn append(&self, partition: i32, compression: Compression, records: &[Pair<'_>]) {
        let mut builder = BatchBuilder::new(BytesMut::new());
        for (index, (key, value)) in records.iter().enumerate() {
            let headers = [(b"h".as_slice(), Some(b"".as_slice())), (b"n", None)];
            builder.append(1_000 + index as i64, *key, *value, &headers[..index % 3]);
        }
        let sealed = builder.seal(compression, None).unwrap();
        let raw = Bytes::from([&sealed.header(NO_PRODUCER)[..], sealed.records()].concat());
        let mut state = self.state();
        let log = state.logs.entry(partition).or_default();
        let base = log.last().map_or(0, |(end, _)| *end);
        let [header, body] = RawBatch::parse(raw).unwrap().assigned(base, 0);
        log.push((base + records.len() as i64, Bytes::from([header, body].concat())));
        drop(state);
        self.0.news.notify_waiters();
    }

    /// Appends numbers as text, a batch for each ten.
    pub(in crate::consumer) fn count(&self, partition: i32, numbers: std::ops::Range<i64>) {
        let numbers: Vec<_> = numbers.map(|number| number.to_string()).collect();
        for ten in numbers.chunks(10) {
            let records: Vec<Pair<'_>> = ten.iter().map(|number| (None, Some(number.as_bytes()))).collect();
            self.append(partition, Compression::None, &records);
        }
    }

    /// Changes one byte in the records of a batch.
    pub(super) fn flip(&self, partition: i32, batch: usize) {
        let mut state = self.state();
        let (_, bytes) = &mut state.logs.get_mut(&partition).unwrap()[batch];
        let mut changed = bytes.to_vec();
        *changed.last_mut().unwrap() ^= 0x40;
        *bytes = Bytes::from(changed);
    }

    /// Drops the batches behind the first few, and moves the partition to a leader that never had them.
    pub(super) fn cut(&self, partition: i32, batches: usize, to: i32) {
        let mut state = self.state();
        state.logs.get_mut(&partition).unwrap().truncate(batches);
        let end = state.end(partition);
        state.cut.insert(partition, end);
        drop(state);
        self.move_leader(partition, to);
    }

    /// Makes a marker of a batch, as ends of transactions are; its checksum is wrong then.
    pub(super) fn mark(&self, partition: i32, batch: usize) {
        let mut state = self.state();
        let (_, bytes) = &mut state.logs.get_mut(&partition).unwrap()[batch];
        let mut changed = bytes.to_vec();
        changed[22] |= 0x20;
        *bytes = Bytes::from(changed);
    }

    /// Deletes the topic, and creates another one of its name.
    pub(super) fn create_again(&self) {
        let mut state = self.state();
        state.created_again += 1;
        state.logs.clear();
        state.cut.clear();
        state.leaders.clear();
        drop(state);
        self.0.news.notify_waiters();
    }

    pub(super) fn move_leader(&self, partition: i32, to: i32) {
        let mut state = self.state();
        let (_, epoch) = state.leader(partition);
        state.leaders.insert(partition, (to, epoch + 1));
        drop(state);
        self.0.news.notify_waiters();
    }

    pub(super) fn set_down(&self, brokers: &[i32]) {
        self.state().down = brokers.to_vec();
        self.0.news.notify_waiters();
    }

    pub(super) fn connector(&self) -> BoxConnector {
        let cluster = self.clone();
        let connect = move |endpoint: Endpoint| {
            let cluster = cluster.clone();
            async move {
                let id = i32::from(endpoint.port);
                match cluster.state().down.contains(&id) {
                    true => Err(LinkError::NoBroker { endpoint: Box::new(endpoint) }),
                    false => Ok::<_, LinkError>(cluster.link(id)),
                }
            }
        };
        service_fn(connect).erase()
    }

    fn link(&self, id: i32) -> Link {
        let cluster = self.clone();
        Link::new(service_fn(move |frame: Frame| {
            let cluster = cluster.clone();
            async move {
                let rt = Rt::current().map_err(|_| LinkError::closed())?;
                rt.sleep(Duration::from_millis(1)).await;
                cluster.answer(&rt, id, frame).await
            }
        }))
    }

    async fn answer(&self, rt: &Rt, id: i32, frame: Frame) -> Result<Frame, LinkError> {
        let version = frame.api_version;
        if self.state().down.contains(&id) {
            return Err(LinkError::closed());
        }
        let answer = match frame.api_key {
            1 => return self.fetch(rt, id, frame).await,
            2 => encode_response::<ListOffsetsRequest>(version, &self.state().list(id, frame)),
            3 => encode_response::<MetadataRequest>(version, &self.state().metadata(frame)),
            23 => encode_response::<OffsetForLeaderEpochRequest>(version, &self.state().ends(id, frame)),
            18 => encode_response::<ApiVersionsRequest>(version, &versions()),
            key => panic!("unexpected api key {key}"),
        };
        Ok(answer.unwrap())
    }

    async fn fetch(&self, rt: &Rt, id: i32, frame: Frame) -> Result<Frame, LinkError> {
        let version = frame.api_version;
        let request = decode_request::<FetchRequest>(frame).unwrap();
        self.state().fetches += 1;
        let until = rt.now() + Duration::from_millis(request.max_wait_ms as u64);
        loop {
            let news = self.0.news.notified();
            if self.state().down.contains(&id) {
                return Err(LinkError::closed());
            }
            let (response, ready) = self.state().fetch(id, &request);
            if ready || rt.before(until, news).await.is_none() {
                return Ok(encode_response::<FetchRequest>(version, &response).unwrap());
            }
        }
    }
}

impl State {
    fn topic_id(&self) -> Uuid {
        topic_id(self.created_again)
    }

    fn leader(&self, partition: i32) -> (i32, i32) {
        self.leaders.get(&partition).copied().unwrap_or((partition + 1, 0))
    }

    fn end(&self, partition: i32) -> i64 {
        self.logs.get(&partition).and_then(|log| log.last()).map_or(0, |(end, _)| *end)
    }

    fn fetch(&self, id: i32, request: &FetchRequest) -> (FetchResponse, bool) {
        let mut response = FetchResponse::default();
        let mut ready = false;
        for topic in &request.topics {
            assert_ne!(topic.topic_id, Uuid::nil(), "Fetch v13 names topics by id");
            let mut partitions = vec![];
            for wanted in &topic.partitions {
                let index = wanted.partition;
                let (leader, epoch) = self.leader(index);
                let data = PartitionData::default().with_partition_index(index);
                let data = if topic.topic_id != self.topic_id() {
                    data.with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.0)
                } else if leader != id {
                    data.with_error_code(ErrorCode::NOT_LEADER_OR_FOLLOWER.0)
                } else if wanted.current_leader_epoch != epoch {
                    data.with_error_code(ErrorCode::FENCED_LEADER_EPOCH.0)
                } else if !(self.log_start..=self.end(index)).contains(&wanted.fetch_offset) {
                    data.with_error_code(ErrorCode::OFFSET_OUT_OF_RANGE.0)
                } else {
                    data.with_records(Some(self.read(index, wanted.fetch_offset, wanted.partition_max_bytes)))
                };
                ready |= data.error_code != 0 || data.records.as_ref().is_some_and(|r| !r.is_empty());
                partitions.push(data);
            }
            let entry = FetchableTopicResponse::default().with_topic_id(topic.topic_id);
            response.responses.push(entry.with_partitions(partitions));
        }
        (response, ready)
    }

    /// Batches from the one that holds `offset`, the last one cut off as Kafka does it.
    fn read(&self, partition: i32, offset: i64, limit: i32) -> Bytes {
        let log = self.logs.get(&partition).map_or(&[][..], |log| log);
        let batches: Vec<&Bytes> =
            log.iter().filter(|(end, _)| *end > offset).map(|(_, bytes)| bytes).collect();
        let whole = batches.first().map_or(0, |first| first.len());
        let mut bytes: Vec<u8> = batches.into_iter().flatten().copied().collect();
        bytes.truncate(whole.max(limit as usize));
        Bytes::from(bytes)
    }

    /// Every batch is of the epoch before the first change of leaders.
    fn ends(&self, id: i32, frame: Frame) -> OffsetForLeaderEpochResponse {
        let request = decode_request::<OffsetForLeaderEpochRequest>(frame).unwrap();
        let topics = request.topics.into_iter().map(|topic| {
            let ends = topic.partitions.iter().map(|wanted| {
                let wrong = self.leader(wanted.partition).0 != id;
                EpochEndOffset::default()
                    .with_partition(wanted.partition)
                    .with_error_code(if wrong { ErrorCode::NOT_LEADER_OR_FOLLOWER.0 } else { 0 })
                    .with_leader_epoch(wanted.leader_epoch)
                    .with_end_offset(self.cut.get(&wanted.partition).copied().unwrap_or(i64::MAX))
            });
            let ends = ends.collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(ends)
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }

    fn list(&self, id: i32, frame: Frame) -> ListOffsetsResponse {
        let request = decode_request::<ListOffsetsRequest>(frame).unwrap();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let index = wanted.partition_index;
                let offset = match wanted.timestamp {
                    -1 => self.end(index),
                    -2 => self.log_start,
                    ms if self.end(index) > (ms - 1_000).max(0) => (ms - 1_000).max(0),
                    _ => -1,
                };
                let wrong = self.leader(index).0 != id;
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(index)
                    .with_error_code(if wrong { ErrorCode::NOT_LEADER_OR_FOLLOWER.0 } else { 0 })
                    .with_timestamp(wanted.timestamp)
                    .with_offset(offset)
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn metadata(&self, frame: Frame) -> MetadataResponse {
        let asked = decode_request::<MetadataRequest>(frame).unwrap();
        let partition = |index| {
            let (leader, epoch) = self.leader(index);
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(leader))
                .with_leader_epoch(epoch)
        };
        let names = asked.topics.unwrap_or_default().into_iter().filter_map(|topic| topic.name);
        let topics = names.map(|name| {
            let known = &**name == "t";
            let topic = MetadataResponseTopic::default().with_name(Some(name));
            match known {
                true => {
                    let partitions = (0..PARTITIONS).map(partition).collect();
                    topic.with_topic_id(self.topic_id()).with_partitions(partitions)
                }
                false => topic.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0),
            }
        });
        let broker = |id: i32| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str("here"))
                .with_port(id)
        };
        MetadataResponse::default()
            .with_brokers((1..=2).map(broker).collect())
            .with_controller_id(BrokerId(1))
            .with_topics(topics.collect())
    }
}

fn versions() -> ApiVersionsResponse {
    let range = |&(api_key, min, max): &(i16, i16, i16)| {
        ApiVersion::default().with_api_key(api_key).with_min_version(min).with_max_version(max)
    };
    ApiVersionsResponse::default().with_api_keys(CLIENT_RANGES.iter().map(range).collect())
}
