//! Fetch (1): versions 4 to 18, of consumers and of followers.
//!
//! Sessions (KIP-227) are declined: the answer carries session id 0, so that every request is a full one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{FetchFrom, Fetched, Fetcher};
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, encode_fetch_response};
use klamm_wire::messages::fetch_request::FetchPartition;
use klamm_wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use klamm_wire::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use klamm_wire::seam::Frame;
use uuid::Uuid;

use super::{Handled, encoded, text};
use crate::broker::{Broker, LeaderHint, Partition, Signal, TopicRef, Until};
use crate::node::{Answer, Reply};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version in which a diverging log is told at once (KIP-595).
const DIVERGING: i16 = 12;
/// First version in which any replica may serve a consumer (KIP-392).
const ANY_REPLICA: i16 = 11;
/// First version that carries the broker epoch of a follower (KIP-903).
const REPLICA_STATE: i16 = 15;
/// First version that tells where the leader is (KIP-951).
const NODE_ENDPOINTS: i16 = 16;

/// What is wanted, with the replicas already found.
struct Plan {
    version: i16,
    follower: Option<(i32, i64)>,
    max_bytes: usize,
    min_bytes: usize,
    topics: Vec<PlannedTopic>,
}

struct PlannedTopic {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(FetchPartition, Result<Arc<Partition>, ErrorCode>)>,
}

/// What is there at the moment.
struct Harvest {
    response: FetchResponse,
    records: Vec<Vec<Vec<Bytes>>>,
    bytes: usize,
    /// What could be read, by replica in the order of [`Plan::replicas`].
    limits: Vec<i64>,
    /// Something that is to be told without waiting.
    urgent: bool,
}

/// Answers at once if there is enough, or waits for it.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FetchRequest>(frame)?;
    if request.session_epoch > 0 {
        let code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND;
        let refused = FetchResponse::default().with_error_code(code.0);
        return Ok(Answer::Now(encoded(encode_fetch_response(version, &refused, &[]))));
    }
    let wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let plan = Plan::new(broker, version, request);
    let harvest = plan.harvest(broker);
    if wait.is_zero() || plan.enough(&harvest) {
        return Ok(Answer::Now(plan.finish(broker, harvest)));
    }
    let broker = broker.clone();
    let deadline = broker.rt.now() + wait;
    Ok(Answer::Later(Box::pin(async move {
        let watch = Watch { plan, signal: Signal::default() };
        let mut limits = harvest.limits;
        loop {
            watch.plan.watch(&limits, &watch.signal);
            tokio::select! {
                biased;
                () = watch.signal.notified() => {}
                () = broker.rt.sleep_until(deadline) => {}
            }
            let harvest = watch.plan.harvest(&broker);
            if broker.rt.now() >= deadline || watch.plan.enough(&harvest) {
                return watch.plan.finish(&broker, harvest);
            }
            limits = harvest.limits;
        }
    })))
}

/// Leaves no signal behind when the client goes away.
struct Watch {
    plan: Plan,
    signal: Signal,
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (partition, _) in self.plan.replicas() {
            partition.forget(&self.signal);
        }
    }
}

impl Plan {
    fn new(broker: &Broker, version: i16, request: FetchRequest) -> Self {
        let (id, epoch) = if version >= REPLICA_STATE {
            (request.replica_state.replica_id.0, request.replica_state.replica_epoch)
        } else {
            (request.replica_id.0, -1)
        };
        let find = |topic: &klamm_wire::messages::fetch_request::FetchTopic, partition: i32| {
            if version >= TOPIC_IDS {
                broker.partition(TopicRef::Id(topic.topic_id), partition)
            } else {
                broker.partition(TopicRef::Name(&topic.topic), partition)
            }
        };
        let asked = usize::try_from(request.max_bytes).unwrap_or(0);
        let most = broker.config.int("fetch.max.bytes").and_then(|most| usize::try_from(most).ok());
        let max_bytes = most.filter(|_| id < 0).map_or(asked, |most| asked.min(most));
        let topics = request.topics.into_iter().map(|mut topic| {
            let wanted = std::mem::take(&mut topic.partitions);
            let partitions = wanted.into_iter().map(|wanted| {
                let found = find(&topic, wanted.partition);
                (wanted, found)
            });
            PlannedTopic { partitions: partitions.collect(), name: topic.topic.clone(), id: topic.topic_id }
        });
        Self {
            version,
            follower: (id >= 0).then_some((id, epoch)),
            max_bytes,
            // More than fits into an answer cannot be waited for.
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            topics: topics.collect(),
        }
    }

    /// Replicas held here, each with the offset wanted.
    fn replicas(&self) -> impl Iterator<Item = (&Arc<Partition>, i64)> {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.filter_map(|(wanted, found)| Some((found.as_ref().ok()?, wanted.fetch_offset)))
    }

    fn enough(&self, harvest: &Harvest) -> bool {
        harvest.urgent || harvest.bytes >= self.min_bytes || self.topics.is_empty()
    }

    /// Asks to be woken when more can be read than was seen, or at all.
    fn watch(&self, limits: &[i64], signal: &Signal) {
        for ((partition, position), seen) in self.replicas().zip(limits) {
            let next = position.max(*seen).saturating_add(1);
            let until = match self.follower {
                Some(_) => Until::Appended(next),
                None => Until::Committed(next),
            };
            partition.wait(until, signal);
        }
    }

    fn fetcher(&self, wanted: &FetchPartition) -> Fetcher {
        match self.follower {
            Some((id, epoch)) => Fetcher::Replica { id, epoch, log_start_offset: wanted.log_start_offset },
            None => Fetcher::Consumer { follower_ok: self.version >= ANY_REPLICA },
        }
    }

    /// Reads what is there, within the limits.
    fn harvest(&self, broker: &Broker) -> Harvest {
        let mut harvest = Harvest {
            response: FetchResponse::default(),
            records: Vec::new(),
            bytes: 0,
            limits: Vec::new(),
            urgent: false,
        };
        for topic in &self.topics {
            let mut answers = Vec::with_capacity(topic.partitions.len());
            let mut records = Vec::with_capacity(topic.partitions.len());
            for (wanted, found) in &topic.partitions {
                let (answer, chunks) = self.read(broker, wanted, found, &mut harvest);
                answers.push(answer);
                records.push(chunks);
            }
            let answer = FetchableTopicResponse::default()
                .with_topic(topic.name.clone())
                .with_topic_id(topic.id)
                .with_partitions(answers);
            harvest.response.responses.push(answer);
            harvest.records.push(records);
        }
        harvest
    }

    fn read(
        &self,
        broker: &Broker,
        wanted: &FetchPartition,
        found: &Result<Arc<Partition>, ErrorCode>,
        harvest: &mut Harvest,
    ) -> (PartitionData, Vec<Bytes>) {
        let room = self.max_bytes.saturating_sub(harvest.bytes);
        let from = FetchFrom {
            fetcher: self.fetcher(wanted),
            offset: wanted.fetch_offset,
            last_fetched_epoch: epoch(wanted.last_fetched_epoch).filter(|_| self.version >= DIVERGING),
            current_leader_epoch: epoch(wanted.current_leader_epoch),
            max_bytes: usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(room),
            min_one: harvest.bytes == 0,
        };
        let now = broker.rt.now();
        let read = found.as_ref().map_err(|code| *code).and_then(|partition| {
            let read = partition.with(broker, |replica, fx| replica.read(now, &from, fx));
            read.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
        });
        if found.is_ok() {
            harvest.limits.push(read.as_ref().map_or(-1, |fetched| fetched.limit));
        }
        match read {
            Ok(fetched) => {
                harvest.bytes += fetched.len_bytes();
                harvest.urgent |= fetched.diverging.is_some();
                answer(wanted.partition, fetched)
            }
            Err(code) => {
                harvest.urgent = true;
                (refused(wanted.partition, code), Vec::new())
            }
        }
    }

    fn finish(&self, broker: &Broker, mut harvest: Harvest) -> Reply {
        if self.version >= DIVERGING && harvest.urgent {
            self.add_leaders(broker, &mut harvest.response);
        }
        encoded(encode_fetch_response(self.version, &harvest.response, &harvest.records))
    }

    /// Tells a client that is at the wrong broker where the right one is (KIP-951).
    fn add_leaders(&self, broker: &Broker, response: &mut FetchResponse) {
        let mut endpoints = BTreeMap::new();
        for topic in &mut response.responses {
            let name = if self.version >= TOPIC_IDS {
                TopicRef::Id(topic.topic_id)
            } else {
                TopicRef::Name(&topic.topic)
            };
            for answer in &mut topic.partitions {
                let code = ErrorCode(answer.error_code);
                if !matches!(code, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH) {
                    continue;
                }
                let Some(leader) = broker.leader_hint(name, answer.partition_index) else { continue };
                answer.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(leader.id))
                    .with_leader_epoch(leader.epoch);
                endpoints.insert(leader.id, leader);
            }
        }
        if self.version >= NODE_ENDPOINTS {
            response.node_endpoints = endpoints.values().map(endpoint).collect();
        }
    }
}

fn epoch(value: i32) -> Option<i32> {
    (value >= 0).then_some(value)
}

fn endpoint(leader: &LeaderHint) -> NodeEndpoint {
    NodeEndpoint::default()
        .with_node_id(BrokerId(leader.id))
        .with_host(text(&leader.host))
        .with_port(leader.port)
        .with_rack(leader.rack.as_deref().map(text))
}

fn answer(partition: i32, fetched: Fetched) -> (PartitionData, Vec<Bytes>) {
    let diverging = fetched.diverging.map_or_else(EpochEndOffset::default, |end| {
        EpochEndOffset::default().with_epoch(end.epoch).with_end_offset(end.end_offset)
    });
    let data = PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(fetched.high_watermark)
        .with_last_stable_offset(fetched.last_stable_offset)
        .with_log_start_offset(fetched.log_start_offset)
        .with_diverging_epoch(diverging)
        .with_aborted_transactions(None)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Bytes::new()));
    (data, fetched.records)
}

fn refused(partition: i32, code: ErrorCode) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code.0)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(None)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Bytes::new()))
}
