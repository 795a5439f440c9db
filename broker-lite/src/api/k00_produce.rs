//! Produce (0): versions 3 to 13.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{Appended, Produce, Replica};
use klamm_wire::codec::{decode_request, encode_response};
use klamm_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_wire::messages::{BrokerId, ProduceRequest, ProduceResponse, TopicName};
use klamm_wire::seam::Frame;
use klamm_wire::{BatchHeader, ErrorCode};
use uuid::Uuid;

use super::k03_metadata::INTERNAL;
use super::{Handled, Refusal, encoded, text};
use crate::broker::{Broker, Partition, Signal, TopicRef, Until, to_keep};
use crate::disk::Stored;
use crate::node::{Answer, Reply};
use crate::rt::Tick;

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version that tells the current leader (KIP-951).
const LEADER_HINTS: i16 = 10;
/// `acks` of a producer that waits for the in-sync replicas.
const ACKS_ALL: i16 = -1;

/// One partition whose records are appended but may not be acknowledged yet.
struct Due {
    topic: usize,
    partition: usize,
    acks: i16,
    replica: Arc<Partition>,
    appended: Appended,
}

/// Appends at once; with `acks=all` the answer waits for the high watermark, and with `acks=1` for the disk if
/// `flush.messages` is 1.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let (version, frame_bytes) = (frame.api_version, frame.len_bytes());
    let request = decode_request::<ProduceRequest>(frame)?;
    let acks = request.acks;
    let deadline = broker.rt.now() + Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let signal = Signal::default();
    let refused = refusal(&request);
    let mut response = ProduceResponse::default();
    let mut due = Vec::new();
    for (t, topic) in each_partition_once(request.topic_data).into_iter().enumerate() {
        let name =
            if version >= TOPIC_IDS { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(&topic.name) };
        let mut answers = Vec::with_capacity(topic.partition_data.len());
        for (p, mut data) in topic.partition_data.into_iter().enumerate() {
            let index = data.index;
            data.records = data.records.map(|records| to_keep(records, frame_bytes));
            let appended = match refused {
                Some(code) => Err(Box::new(failed(index, refused_first(broker, name, index, code)))),
                None => append(broker, name, acks, version, data, &signal),
            };
            match appended {
                Ok((replica, appended, settled)) => {
                    answers.push(succeeded(index, &appended));
                    if !settled {
                        due.push(Due { topic: t, partition: p, acks, replica, appended });
                    }
                }
                Err(answer) => answers.push(*answer),
            }
        }
        let topic = TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(answers);
        response.responses.push(topic);
    }
    if acks == 0 {
        return unanswered(&response);
    }
    if due.is_empty() {
        return Ok(Answer::Now(finish(broker, version, response)));
    }
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        until_settled(&broker, due, &signal, deadline, &mut response).await;
        finish(&broker, version, response)
    })))
}

/// What is named more than once counts as it was named last, and topics without partitions are left out.
fn each_partition_once(topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    if let [one] = &topics[..]
        && one.partition_data.len() == 1
    {
        return topics;
    }
    let mut places: BTreeMap<(TopicName, Uuid), (usize, BTreeMap<i32, usize>)> = BTreeMap::new();
    let mut once: Vec<TopicProduceData> = Vec::with_capacity(topics.len());
    for mut topic in topics {
        let partitions = std::mem::take(&mut topic.partition_data);
        if partitions.is_empty() {
            continue;
        }
        let place = places.entry((topic.name.clone(), topic.topic_id)).or_insert_with(|| {
            once.push(topic);
            (once.len() - 1, BTreeMap::new())
        });
        let Some(known) = once.get_mut(place.0) else { continue };
        for data in partitions {
            match place.1.get(&data.index).and_then(|at| known.partition_data.get_mut(*at)) {
                Some(before) => *before = data,
                None => {
                    place.1.insert(data.index, known.partition_data.len());
                    known.partition_data.push(data);
                }
            }
        }
    }
    once
}

/// What is wrong with the request as a whole.
fn refusal(request: &ProduceRequest) -> Option<ErrorCode> {
    let partitions = || request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    if partitions().any(is_transactional) {
        return Some(match request.transactional_id {
            // as Kafka does with whoever may not
            None => ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            Some(_) => ErrorCode::INVALID_TXN_STATE,
        });
    }
    (!(-1..=1).contains(&request.acks)).then_some(ErrorCode::INVALID_REQUIRED_ACKS)
}

/// A partition that is not known is told before invalid acks.
fn refused_first(broker: &Broker, topic: TopicRef<'_>, index: i32, code: ErrorCode) -> ErrorCode {
    let partition = broker.partition(topic, index);
    match (&partition, code) {
        (Err(other), ErrorCode::INVALID_REQUIRED_ACKS) if is_unknown(&partition) => *other,
        _ => code,
    }
}

fn is_unknown(partition: &Result<Arc<Partition>, ErrorCode>) -> bool {
    let unknown = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID];
    partition.as_ref().is_err_and(|code| unknown.contains(code))
}

/// The topic's name, if it is there and one that only brokers write to.
fn internal_topic(
    broker: &Broker,
    topic: TopicRef<'_>,
    partition: &Result<Arc<Partition>, ErrorCode>,
) -> Option<&'static str> {
    let named = |name: &str| INTERNAL.into_iter().find(|internal| *internal == name);
    match (partition, topic) {
        (Ok(partition), _) => named(&partition.identity.topic),
        (Err(_), _) if is_unknown(partition) => None,
        (Err(_), TopicRef::Name(name)) => named(name),
        (Err(_), TopicRef::Id(id)) => broker.image(|image| named(&image.topic_by_id(id)?.name)),
    }
}

/// Whether the first batch belongs to a transaction.
fn is_transactional(data: &PartitionProduceData) -> bool {
    let header = data.records.as_deref().map(BatchHeader::parse);
    header.is_some_and(|header| header.is_ok_and(|header| header.is_transactional()))
}

type AppendedTo = (Arc<Partition>, Appended, bool);

fn append(
    broker: &Arc<Broker>,
    topic: TopicRef<'_>,
    acks: i16,
    api_version: i16,
    data: PartitionProduceData,
    signal: &Signal,
) -> Result<AppendedTo, Box<PartitionProduceResponse>> {
    let index = data.index;
    let replica = broker.partition(topic, index);
    if let Some(name) = internal_topic(broker, topic, &replica) {
        let message = format!("{name} is the cluster's own: only brokers write to it");
        let answer =
            failed(index, ErrorCode::INVALID_TOPIC_EXCEPTION).with_error_message(Some(text(&message)));
        return Err(Box::new(answer));
    }
    let replica = replica.map_err(|code| Box::new(failed(index, code)))?;
    let produce = Produce { records: data.records.unwrap_or_default(), acks, api_version };
    let (now, wall_ms) = (broker.rt.now(), broker.rt.wall_ms());
    let done = replica.with_waiting(broker, |machine, fx| {
        let appended = match machine.append(now, wall_ms, &produce, fx) {
            Ok(appended) => appended,
            Err(error) => return (Err(error), None),
        };
        let settled = acks == 0 || may_acknowledge(machine, acks, &appended) == Ok(true);
        let wait = (!settled).then(|| (until(acks, &appended), signal.clone()));
        (Ok((appended, settled)), wait)
    });
    match done {
        Some(Ok((appended, settled))) => Ok((replica, appended, settled)),
        Some(Err(error)) => {
            if error.code == ErrorCode::CORRUPT_MESSAGE {
                tracing::info!(replica = %replica.identity, %error, "corrupt batch refused");
            } else {
                tracing::debug!(replica = %replica.identity, %error, "append refused");
            }
            let records = error.record_errors.iter().map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*index)
                    .with_batch_index_error_message(Some(text(message)))
            });
            let answer = failed(index, error.code)
                .with_log_start_offset(error.log_start_offset)
                .with_error_message(Some(text(&error.message)))
                .with_record_errors(records.collect());
            Err(Box::new(answer))
        }
        None => Err(Box::new(failed(index, ErrorCode::NOT_LEADER_OR_FOLLOWER))),
    }
}

/// Whether the answer may be given that `acks` asks for.
fn may_acknowledge(machine: &Replica<Stored>, acks: i16, appended: &Appended) -> Result<bool, ErrorCode> {
    let end = appended.last_offset + 1;
    if acks == ACKS_ALL {
        machine.acked(appended.leader_epoch, end)
    } else {
        machine.is_durable(appended.leader_epoch, end)
    }
}

/// What has to be waited for until then.
fn until(acks: i16, appended: &Appended) -> Until {
    let end = appended.last_offset + 1;
    if acks == ACKS_ALL { Until::Committed(end) } else { Until::Synced(end) }
}

fn succeeded(index: i32, appended: &Appended) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(appended.base_offset)
        .with_log_append_time_ms(appended.log_append_time)
        .with_log_start_offset(appended.log_start_offset)
}

fn failed(index: i32, code: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code.0)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}

/// With `acks=0` an error can only be told by closing the connection, as Kafka does.
fn unanswered(response: &ProduceResponse) -> Handled {
    let mut codes = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match codes.find(|answer| answer.error_code != 0) {
        Some(answer) => Err(Refusal::Unanswerable(ErrorCode(answer.error_code))),
        None => Ok(Answer::Now(Reply::Nothing)),
    }
}

/// Waits until everything due may be acknowledged or has failed, at most until `deadline`.
async fn until_settled(
    broker: &Arc<Broker>,
    due: Vec<Due>,
    signal: &Signal,
    deadline: Tick,
    response: &mut ProduceResponse,
) {
    let mut waiting = Waiting { due, signal };
    loop {
        let timed_out = broker.rt.now() >= deadline;
        let mut settle = |due: &mut Due| {
            let state = due.replica.look(|replica| may_acknowledge(replica, due.acks, &due.appended));
            let code = match state {
                Some(Ok(true)) => ErrorCode::NONE,
                Some(Ok(false)) if timed_out => ErrorCode::REQUEST_TIMED_OUT,
                Some(Ok(false)) => {
                    due.replica.wait(until(due.acks, &due.appended), signal);
                    return false;
                }
                Some(Err(code)) => code,
                None => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            };
            if !code.is_ok() {
                tracing::debug!(replica = %due.replica.identity, %code, "append not acknowledged");
                // it was appended all the same: where stays told
                response.responses[due.topic].partition_responses[due.partition].error_code = code.0;
            }
            true
        };
        waiting.due.retain_mut(|due| !settle(due));
        if waiting.due.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            () = signal.notified() => {}
            () = broker.rt.sleep_until(deadline) => {}
        }
    }
}

/// Leaves no signal behind when the client goes away.
struct Waiting<'a> {
    due: Vec<Due>,
    signal: &'a Signal,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for due in &self.due {
            due.replica.forget(self.signal);
        }
    }
}

fn finish(broker: &Broker, version: i16, mut response: ProduceResponse) -> Reply {
    if version >= LEADER_HINTS {
        add_leaders(broker, version, &mut response);
    }
    encoded(encode_response::<ProduceRequest>(version, &response))
}

/// Tells a client that is at the wrong broker where the right one is (KIP-951).
fn add_leaders(broker: &Broker, version: i16, response: &mut ProduceResponse) {
    let misled = |answer: &PartitionProduceResponse| {
        let code = ErrorCode(answer.error_code);
        code == ErrorCode::NOT_LEADER_OR_FOLLOWER
    };
    let answers = || response.responses.iter().flat_map(|topic| &topic.partition_responses);
    if !answers().any(misled) {
        return;
    }
    let mut endpoints = BTreeMap::new();
    for topic in &mut response.responses {
        let name =
            if version >= TOPIC_IDS { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(&topic.name) };
        for answer in topic.partition_responses.iter_mut().filter(|answer| misled(answer)) {
            let Some(leader) = broker.leader_hint(name, answer.index) else { continue };
            answer.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader.id))
                .with_leader_epoch(leader.epoch);
            if let Some(at) = leader.endpoint {
                endpoints.insert(leader.id, at);
            }
        }
    }
    let endpoint = |(id, at): (i32, crate::broker::LeaderEndpoint)| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(id))
            .with_host(text(&at.host))
            .with_port(at.port)
            .with_rack(at.rack.as_deref().map(text))
    };
    response.node_endpoints = endpoints.into_iter().map(endpoint).collect();
}
