//! The brokers and topics that a mock pretends to be, and what it answers by itself.
//!
//! In: requests that no script took. Out: ApiVersions, Metadata, DescribeTopicPartitions and InitProducerId are always
//! answered; Produce, Fetch, ListOffsets and OffsetForLeaderEpoch once the test has asked for it. All else is refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::codec::{self, CodecError};
use klamm_wire::messages::api_versions_response::ApiVersion;
use klamm_wire::messages::describe_topic_partitions_response::{
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use klamm_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use klamm_wire::messages::produce_response::{
    LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, FetchRequest, FetchResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, ProducerId,
    TopicName,
};
use klamm_wire::negotiation::CLIENT_RANGES;
use klamm_wire::{Endpoint, ErrorCode, Frame, Request, StrBytes};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::log::{Log, MockRecord};
use super::responder::{Action, Head};
use crate::refusal;
use crate::rt::Rt;

const PORT: u16 = 9092;
const DOMAIN: &str = ".mock";
const FIRST_PRODUCER_ID: i64 = 1000;
/// The newest version of Produce and Fetch in which requests name topics: tests match and read names, not ids.
const NAMED: [(i16, i16); 2] = [(ProduceRequest::KEY, 12), (FetchRequest::KEY, 12)];

#[derive(Debug)]
pub(super) struct Cluster {
    brokers: i32,
    offered: BTreeMap<i16, (i16, i16)>,
    state: Mutex<State>,
    /// Something was written, or a leader has moved.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Partition>>,
    producer_ids: i64,
    accepts_produce: bool,
    serves_logs: bool,
}

#[derive(Debug)]
struct Partition {
    leader: Option<i32>,
    epoch: i32,
    log: Log,
}

impl Cluster {
    pub(super) fn new(brokers: u16, offered: &BTreeMap<i16, (i16, i16)>) -> Self {
        let mut ranges: BTreeMap<_, _> =
            CLIENT_RANGES.iter().map(|&(key, min, max)| (key, (min, max))).collect();
        for (key, max) in NAMED {
            ranges.entry(key).and_modify(|range| range.1 = max);
        }
        ranges.extend(offered);
        Self {
            brokers: brokers.max(1).into(),
            offered: ranges,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn add_topic(&self, name: &str, partitions: i32) {
        self.state.lock().grow(name, partitions, self.brokers);
    }

    pub(super) fn bootstrap(&self) -> String {
        let servers: Vec<_> = (1..=self.brokers).map(|id| format!("{}:{PORT}", host(id))).collect();
        servers.join(",")
    }

    /// The broker that has this address.
    pub(super) fn broker(&self, endpoint: &Endpoint) -> Option<i32> {
        (1..=self.brokers).find(|id| endpoint.host == host(*id) && endpoint.port == PORT)
    }

    pub(super) fn endpoint(&self, broker: i32) -> Endpoint {
        Endpoint::new(host(broker), PORT)
    }

    pub(super) fn accept_produce(&self) {
        let mut state = self.state.lock();
        state.accepts_produce = true;
        state.serves_logs = true;
    }

    pub(super) fn write(&self, topic: &str, partition: i32, records: &[MockRecord]) {
        let mut state = self.state.lock();
        state.serves_logs = true;
        state.grow(topic, partition.saturating_add(1), self.brokers);
        if let Some(partition) = state.partition_mut(topic, partition) {
            partition.log.write(records, partition.epoch);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn written(&self, topic: &str, partition: i32) -> Vec<MockRecord> {
        let mut state = self.state.lock();
        state.partition_mut(topic, partition).map(|partition| partition.log.records()).unwrap_or_default()
    }

    pub(super) fn move_leader(&self, topic: &str, partition: i32, to: Option<i32>) {
        if let Some(partition) = self.state.lock().partition_mut(topic, partition) {
            partition.leader = to;
            partition.epoch += 1;
        }
        self.changed.notify_waiters();
    }

    pub(super) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.state.lock().partition_mut(topic, partition)?.leader
    }

    /// What happens to a request that no script took; `None` if that has to be scripted.
    pub(super) fn respond(self: &Arc<Self>, rt: &Rt, head: &Head, frame: Frame) -> Option<Action> {
        let answered = match head.api_key {
            ApiVersionsRequest::KEY => Ok(self.api_versions(head)),
            MetadataRequest::KEY => self.metadata(head, frame),
            DescribeTopicPartitionsRequest::KEY => self.topic_partitions(head, frame),
            InitProducerIdRequest::KEY => Ok(self.init_producer_id(head)),
            ProduceRequest::KEY if self.state.lock().accepts_produce => self.produce(head, frame),
            FetchRequest::KEY if self.state.lock().serves_logs => self.fetch(rt, head, frame),
            ListOffsetsRequest::KEY if self.state.lock().serves_logs => self.list_offsets(head, frame),
            OffsetForLeaderEpochRequest::KEY if self.state.lock().serves_logs => self.epoch_ends(head, frame),
            _ => return None,
        };
        Some(answered.unwrap_or_else(|error| Action::DropConnection { reason: error.to_string() }))
    }

    /// Puts the brokers into a Metadata answer that refuses; without them the client would know none.
    pub(super) fn refuse(&self, head: &Head, request: Frame, code: ErrorCode) -> Action {
        let refused = match head.api_key {
            MetadataRequest::KEY => {
                let known = codec::encode_response::<MetadataRequest>(head.api_version, &self.brokers());
                known.ok().and_then(|known| refusal::refuse_metadata(request, known, code))
            }
            _ => refusal::refuse(request, code, None),
        };
        let unknown = || Action::DropConnection { reason: format!("{head} cannot be refused with {code}") };
        refused.map_or_else(unknown, Action::Answer)
    }

    fn api_versions(&self, head: &Head) -> Action {
        let range = |(&key, &(min, max)): (&i16, &(i16, i16))| {
            ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
        };
        let response = ApiVersionsResponse::default().with_api_keys(self.offered.iter().map(range).collect());
        Action::answer::<ApiVersionsRequest>(head, &response)
    }

    fn brokers(&self) -> MetadataResponse {
        let broker = |id: i32| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_string(host(id)))
                .with_port(PORT.into())
        };
        MetadataResponse::default()
            .with_brokers((1..=self.brokers).map(broker).collect())
            .with_cluster_id(Some(StrBytes::from_static_str("mock")))
            .with_controller_id(BrokerId(1))
    }

    fn metadata(&self, head: &Head, frame: Frame) -> Result<Action, CodecError> {
        let asked = codec::decode_request::<MetadataRequest>(frame)?;
        let state = self.state.lock();
        let name = |name: &str| TopicName(StrBytes::from_string(name.to_owned()));
        let names: Vec<TopicName> = match asked.topics {
            Some(topics) if head.api_version > 0 || !topics.is_empty() => {
                topics.into_iter().filter_map(|topic| topic.name).collect()
            }
            _ => state.topics.keys().map(|topic| name(topic)).collect(),
        };
        let topics = names.into_iter().map(|name| {
            let partitions = state.topics.get(name.as_str());
            let topic = MetadataResponseTopic::default().with_name(Some(name));
            match partitions {
                Some(partitions) => {
                    let partitions = (0..).zip(partitions);
                    let described = partitions.map(|(index, partition)| self.describe(index, partition));
                    topic.with_partitions(described.collect())
                }
                None => topic.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0),
            }
        });
        Ok(Action::answer::<MetadataRequest>(head, &self.brokers().with_topics(topics.collect())))
    }

    fn describe(&self, index: i32, partition: &Partition) -> MetadataResponsePartition {
        let code = match partition.leader {
            Some(_) => ErrorCode::NONE,
            None => ErrorCode::LEADER_NOT_AVAILABLE,
        };
        let all: Vec<_> = (1..=self.brokers).map(BrokerId).collect();
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code.0)
            .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
            .with_leader_epoch(partition.epoch)
            .with_replica_nodes(all.clone())
            .with_isr_nodes(all)
    }

    /// All on one page.
    fn topic_partitions(&self, head: &Head, frame: Frame) -> Result<Action, CodecError> {
        let asked = codec::decode_request::<DescribeTopicPartitionsRequest>(frame)?;
        let state = self.state.lock();
        let topics = asked.topics.into_iter().map(|topic| {
            let partitions = state.topics.get(topic.name.as_str());
            let code =
                if partitions.is_some() { ErrorCode::NONE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
            let partitions = (0..).zip(partitions.into_iter().flatten()).map(|(index, partition)| {
                let told = self.describe(index, partition);
                DescribeTopicPartitionsResponsePartition::default()
                    .with_partition_index(told.partition_index)
                    .with_error_code(told.error_code)
                    .with_leader_id(told.leader_id)
                    .with_leader_epoch(told.leader_epoch)
                    .with_replica_nodes(told.replica_nodes)
                    .with_isr_nodes(told.isr_nodes)
                    .with_eligible_leader_replicas(Some(Vec::new()))
                    .with_last_known_elr(Some(Vec::new()))
            });
            DescribeTopicPartitionsResponseTopic::default()
                .with_error_code(code.0)
                .with_name(Some(topic.name))
                .with_partitions(partitions.collect())
        });
        let response = DescribeTopicPartitionsResponse::default().with_topics(topics.collect());
        Ok(Action::answer::<DescribeTopicPartitionsRequest>(head, &response))
    }

    fn init_producer_id(&self, head: &Head) -> Action {
        let mut state = self.state.lock();
        let id = FIRST_PRODUCER_ID + state.producer_ids;
        state.producer_ids += 1;
        let response = InitProducerIdResponse::default().with_producer_id(ProducerId(id));
        Action::answer::<InitProducerIdRequest>(head, &response)
    }

    fn produce(&self, head: &Head, frame: Frame) -> Result<Action, CodecError> {
        let request = codec::decode_request::<ProduceRequest>(frame)?;
        let mut state = self.state.lock();
        let topics = request.topic_data.into_iter().map(|topic| {
            let partitions = topic.partition_data.into_iter().map(|data| {
                let answer = PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1);
                let partition = match state.led(&topic.name, data.index, head.broker) {
                    Ok(partition) => partition,
                    Err((code, hint)) => return answer.with_error_code(code.0).with_current_leader(hint),
                };
                match partition.log.produce(data.records.unwrap_or_default(), partition.epoch) {
                    Ok(offset) => answer.with_base_offset(offset),
                    Err(code) => answer.with_error_code(code.0),
                }
            });
            let partitions = partitions.collect();
            TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions)
        });
        let mut response = ProduceResponse::default().with_responses(topics.collect());
        drop(state);
        if head.api_version < LEADER_HINTS {
            let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
            partitions.for_each(|partition| partition.current_leader = LeaderIdAndEpoch::default());
        }
        self.changed.notify_waiters();
        Ok(Action::answer::<ProduceRequest>(head, &response))
    }

    /// Waits for records as a broker does: at most as long as the request says.
    fn fetch(self: &Arc<Self>, rt: &Rt, head: &Head, frame: Frame) -> Result<Action, CodecError> {
        let request = codec::decode_request::<FetchRequest>(frame)?;
        let wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
        let until = rt.now().saturating_add(wait);
        let (cluster, rt, head) = (self.clone(), rt.clone(), head.clone());
        Ok(Action::Later(Box::pin(async move {
            loop {
                let changed = cluster.changed.notified();
                let (response, ready) = cluster.harvest(&head, &request);
                if ready || rt.before(until, changed).await.is_none() {
                    return Action::answer::<FetchRequest>(&head, &response);
                }
            }
        })))
    }

    /// What there is at the moment, and whether it is worth an answer at once.
    fn harvest(&self, head: &Head, request: &FetchRequest) -> (FetchResponse, bool) {
        let mut state = self.state.lock();
        let (mut bytes, mut failed) = (0, false);
        let most = usize::try_from(request.max_bytes).unwrap_or_default();
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let data = PartitionData::default()
                    .with_partition_index(wanted.partition)
                    .with_aborted_transactions(None)
                    .with_preferred_read_replica(BrokerId(-1))
                    .with_records(Some(bytes::Bytes::new()));
                let refused = |code: ErrorCode| data.clone().with_error_code(code.0).with_high_watermark(-1);
                let partition = match state.led(&topic.topic, wanted.partition, head.broker) {
                    Ok(partition) => partition,
                    Err((code, _)) => {
                        failed = true;
                        return refused(code);
                    }
                };
                let end = partition.log.end();
                if !(0..=end).contains(&wanted.fetch_offset) {
                    failed = true;
                    return refused(ErrorCode::OFFSET_OUT_OF_RANGE);
                }
                let room = most.saturating_sub(bytes);
                let limit = usize::try_from(wanted.partition_max_bytes).unwrap_or_default().min(room);
                let records = partition.log.read(wanted.fetch_offset, limit, bytes == 0).concat();
                bytes += records.len();
                data.with_high_watermark(end)
                    .with_last_stable_offset(end)
                    .with_log_start_offset(0)
                    .with_records(Some(records.into()))
            });
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions.collect())
        });
        let response = FetchResponse::default().with_responses(topics.collect());
        let enough = usize::try_from(request.min_bytes).unwrap_or_default().min(most);
        (response, failed || bytes >= enough || request.topics.is_empty())
    }

    fn list_offsets(&self, head: &Head, frame: Frame) -> Result<Action, CodecError> {
        let request = codec::decode_request::<ListOffsetsRequest>(frame)?;
        let mut state = self.state.lock();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index)
                    .with_timestamp(-1);
                let partition = match state.led(&topic.name, wanted.partition_index, head.broker) {
                    Ok(partition) => partition,
                    Err((code, _)) => return answer.with_error_code(code.0).with_offset(-1),
                };
                let (offset, timestamp) = match wanted.timestamp {
                    EARLIEST => (0, -1),
                    LATEST => (partition.log.end(), -1),
                    timestamp => partition.log.find(timestamp).unwrap_or((-1, -1)),
                };
                answer.with_offset(offset).with_timestamp(timestamp).with_leader_epoch(partition.epoch)
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        });
        let response = ListOffsetsResponse::default().with_topics(topics.collect());
        Ok(Action::answer::<ListOffsetsRequest>(head, &response))
    }

    fn epoch_ends(&self, head: &Head, frame: Frame) -> Result<Action, CodecError> {
        let request = codec::decode_request::<OffsetForLeaderEpochRequest>(frame)?;
        let mut state = self.state.lock();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let answer = EpochEndOffset::default().with_partition(wanted.partition);
                let partition = match state.led(&topic.topic, wanted.partition, head.broker) {
                    Ok(partition) => partition,
                    Err((code, _)) => return answer.with_error_code(code.0),
                };
                let (epoch, end) = partition.log.end_of_epoch(wanted.leader_epoch);
                answer.with_leader_epoch(epoch).with_end_offset(end)
            });
            let partitions = partitions.collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
        });
        let response = OffsetForLeaderEpochResponse::default().with_topics(topics.collect());
        Ok(Action::answer::<OffsetForLeaderEpochRequest>(head, &response))
    }
}

/// First version of Produce that tells where the leader is (KIP-951).
const LEADER_HINTS: i16 = 10;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

impl State {
    fn grow(&mut self, topic: &str, partitions: i32, brokers: i32) {
        let known = self.topics.entry(topic.to_owned()).or_default();
        let have = i32::try_from(known.len()).unwrap_or(i32::MAX);
        known.extend((have..partitions).map(|index| Partition {
            leader: Some(1 + index % brokers),
            epoch: 0,
            log: Log::default(),
        }));
    }

    fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.get_mut(usize::try_from(partition).ok()?)
    }

    /// A partition, if this broker leads it; else what to say, and who does.
    fn led(
        &mut self,
        topic: &TopicName,
        partition: i32,
        broker: i32,
    ) -> Result<&mut Partition, (ErrorCode, LeaderIdAndEpoch)> {
        let unknown = (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, LeaderIdAndEpoch::default());
        let partition = self.partition_mut(topic.as_str(), partition).ok_or(unknown)?;
        match partition.leader {
            Some(leader) if leader == broker => Ok(partition),
            leader => {
                let hint = leader.map_or_else(LeaderIdAndEpoch::default, |leader| {
                    LeaderIdAndEpoch::default()
                        .with_leader_id(BrokerId(leader))
                        .with_leader_epoch(partition.epoch)
                });
                Err((ErrorCode::NOT_LEADER_OR_FOLLOWER, hint))
            }
        }
    }
}

fn host(broker: i32) -> String {
    format!("broker-{broker}{DOMAIN}")
}
