//! One broker in this process that writes what it is sent, or does as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_wire::codec::{decode_request, encode_response};
use klamm_wire::messages::api_versions_response::ApiVersion;
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, InitProducerIdRequest, InitProducerIdResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use klamm_wire::negotiation::CLIENT_RANGES;
use klamm_wire::{BoxConnector, Connector, Endpoint, ErrorCode, Frame, Link, LinkError, RawBatch, StrBytes};
use parking_lot::Mutex;
use tower::service_fn;
use uuid::Uuid;

use crate::rt::Rt;

pub(super) const PARTITIONS: i32 = 3;

/// What the broker does with a Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Produced {
    /// Appends and answers.
    Written,
    /// Answers with a code and appends nothing.
    Refused(ErrorCode),
    /// Says that broker 2, which the metadata do not list, leads now, and where that is.
    Moved,
    /// Appends, then breaks the connection.
    Lost,
    /// Says nothing.
    Silence,
}

#[derive(Debug)]
pub(super) struct State {
    /// What to do with the next requests; later ones are written.
    pub(super) script: VecDeque<Produced>,
    /// What to do with all requests, if anything is set.
    pub(super) always: Option<Produced>,
    pub(super) logs: BTreeMap<i32, Vec<RawBatch>>,
    /// The first answers to Metadata know no topic.
    pub(super) ignorant: usize,
    /// What every other topic than `t` is refused with.
    pub(super) refused: Option<ErrorCode>,
    pub(super) partitions: i32,
    /// Id of the topic; another one after it was created again.
    pub(super) topic_id: u128,
    pub(super) requests: usize,
    /// Hosts that were connected to.
    pub(super) dialled: Vec<String>,
    /// What answers to Produce ask for.
    pub(super) throttle_ms: i32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            script: VecDeque::new(),
            always: None,
            logs: BTreeMap::new(),
            ignorant: 0,
            refused: None,
            partitions: PARTITIONS,
            topic_id: 5,
            requests: 0,
            dialled: Vec::new(),
            throttle_ms: 0,
        }
    }
}

/// A handle on the broker; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Broker(pub(super) Arc<Mutex<State>>);

/// One record as it stands in the log.
pub(super) type Logged = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Broker {
    pub(super) fn connector(&self) -> BoxConnector {
        let broker = self.clone();
        let connect = move |endpoint: Endpoint| {
            let broker = broker.clone();
            broker.0.lock().dialled.push(endpoint.host);
            async move { Ok::<_, LinkError>(broker.link()) }
        };
        service_fn(connect).erase()
    }

    fn link(&self) -> Link {
        let broker = self.clone();
        Link::new(service_fn(move |frame: Frame| {
            let broker = broker.clone();
            // Decided in the order of the calls, answered after a millisecond.
            let answer = broker.answer(frame);
            async move {
                let rt = Rt::current().map_err(|_| LinkError::closed())?;
                rt.sleep(Duration::from_millis(1)).await;
                match answer {
                    Some(answer) => answer,
                    None => match std::future::pending::<Infallible>().await {},
                }
            }
        }))
    }

    fn answer(&self, frame: Frame) -> Option<Result<Frame, LinkError>> {
        let version = frame.api_version;
        match frame.api_key {
            0 => self.produce(frame),
            3 => Some(Ok(encode_response::<MetadataRequest>(version, &self.metadata(frame)).unwrap())),
            18 => Some(Ok(encode_response::<ApiVersionsRequest>(version, &versions()).unwrap())),
            22 => {
                let given = InitProducerIdResponse::default().with_producer_id(ProducerId(7));
                Some(Ok(encode_response::<InitProducerIdRequest>(version, &given).unwrap()))
            }
            key => panic!("unexpected api key {key}"),
        }
    }

    fn metadata(&self, frame: Frame) -> MetadataResponse {
        let asked = decode_request::<MetadataRequest>(frame).unwrap();
        let mut state = self.0.lock();
        let unknown = state.ignorant > 0;
        state.ignorant = state.ignorant.saturating_sub(1);
        let partition = |index| {
            MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(1))
        };
        let topic = |name: TopicName| {
            let refused = state.refused.filter(|_| name.0.as_str() != "t");
            let known = MetadataResponseTopic::default().with_name(Some(name));
            match refused.or(unknown.then_some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)) {
                Some(code) => known.with_error_code(code.0),
                None => known
                    .with_topic_id(Uuid::from_u128(state.topic_id))
                    .with_partitions((0..state.partitions).map(partition).collect()),
            }
        };
        let names = asked.topics.unwrap_or_default().into_iter().filter_map(|topic| topic.name);
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("here"))
            .with_port(1);
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(BrokerId(1))
            .with_topics(names.map(topic).collect())
    }

    fn produce(&self, frame: Frame) -> Option<Result<Frame, LinkError>> {
        let (version, answered) = (frame.api_version, frame.expects_reply);
        let frame = Frame::new(frame.api_key, version, frame.into_contiguous());
        let request = decode_request::<ProduceRequest>(frame).unwrap();
        let mut state = self.0.lock();
        state.requests += 1;
        let act = state.always.or_else(|| state.script.pop_front()).unwrap_or(Produced::Written);
        let mut response = ProduceResponse::default().with_throttle_time_ms(state.throttle_ms);
        for topic in request.topic_data {
            let mut answers = Vec::new();
            for data in topic.partition_data {
                let log = state.logs.entry(data.index).or_default();
                let base_offset = log.iter().map(|batch| i64::from(batch.header().count)).sum();
                if matches!(act, Produced::Written | Produced::Lost) {
                    let batch = RawBatch::parse(data.records.unwrap_or_default()).unwrap();
                    batch.verify_crc().unwrap();
                    batch.validate_records(1 << 20).unwrap();
                    log.push(batch);
                }
                let answer = PartitionProduceResponse::default().with_index(data.index);
                answers.push(match act {
                    Produced::Moved => {
                        answer.with_error_code(ErrorCode::NOT_LEADER_OR_FOLLOWER.0).with_current_leader(
                            LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(9),
                        )
                    }
                    Produced::Refused(code) => answer.with_error_code(code.0).with_base_offset(-1),
                    _ => answer.with_base_offset(base_offset),
                });
            }
            let answer = TopicProduceResponse::default().with_topic_id(topic.topic_id).with_name(topic.name);
            response.responses.push(answer.with_partition_responses(answers));
        }
        if act == Produced::Moved {
            let at = NodeEndpoint::default().with_node_id(BrokerId(2)).with_host("moved".into()).with_port(9);
            response.node_endpoints.push(at);
        }
        match act {
            Produced::Silence => None,
            Produced::Lost => Some(Err(LinkError::closed())),
            _ if !answered => Some(Ok(Frame::new(0, version, Bytes::new()))),
            _ => Some(Ok(encode_response::<ProduceRequest>(version, &response).unwrap())),
        }
    }

    /// All records of one partition.
    pub(super) fn records(&self, partition: i32) -> Vec<Logged> {
        let state = self.0.lock();
        let batches = state.logs.get(&partition).map_or(&[][..], |batches| batches);
        let mut all = Vec::new();
        for batch in batches {
            for record in batch.records(1 << 20).unwrap().iter() {
                let record = record.unwrap();
                let headers = record.headers().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec)));
                all.push((
                    record.key.map(<[u8]>::to_vec),
                    record.value.map(<[u8]>::to_vec),
                    headers.collect(),
                ));
            }
        }
        all
    }

    /// The values of one partition, as text.
    pub(super) fn values(&self, partition: i32) -> Vec<String> {
        let text = |(_, value, _): Logged| String::from_utf8(value.unwrap_or_default()).unwrap();
        self.records(partition).into_iter().map(text).collect()
    }

    pub(super) fn batches(&self, partition: i32) -> Vec<RawBatch> {
        self.0.lock().logs.get(&partition).cloned().unwrap_or_default()
    }
}

fn versions() -> ApiVersionsResponse {
    let range = |&(api_key, min, max): &(i16, i16, i16)| {
        ApiVersion::default().with_api_key(api_key).with_min_version(min).with_max_version(max)
    };
    ApiVersionsResponse::default().with_api_keys(CLIENT_RANGES.iter().map(range).collect())
}
