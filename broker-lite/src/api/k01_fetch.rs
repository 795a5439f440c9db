//! Fetch (1): versions 4 to 18, of consumers and of followers, whole or in a session (KIP-227).
//!
//! In: what is wanted, by the request or by its session. Out: an answer at once if there is enough, or when there is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{FetchFrom, Fetched, Fetcher};
use broker_lite_core::session::{Due, Found, Opened, SessionPartition, SessionRequest, Wanted};
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, encode_fetch_response};
use klamm_wire::messages::fetch_response::PartitionData;
use klamm_wire::messages::{FetchRequest, FetchResponse};
use klamm_wire::seam::Frame;

use super::k01_fetch_answer::{add_leaders, answered, grouped, refused, refused_whole, unknown};
use super::k01_fetch_wanted::session_request;
use super::{Handled, encoded};
use crate::broker::{Bell, Broker, CopySide, Partition, Signal, TopicRef, Until};
use crate::node::{Answer, Reply};

/// First version with sessions.
pub(super) const SESSIONS: i16 = 7;
/// First version in which any replica may serve a consumer (KIP-392).
const ANY_REPLICA: i16 = 11;
/// First version in which a diverging log is told at once (KIP-595).
const DIVERGING: i16 = 12;
/// First version that names topics by id.
pub(super) const TOPIC_IDS: i16 = 13;
/// First version that carries the broker epoch of a follower (KIP-903).
const REPLICA_STATE: i16 = 15;
/// Last version whose clients take `KAFKA_STORAGE_ERROR` for something that is not to be tried again.
const STORAGE_ERROR_UNKNOWN: i16 = 5;
/// `isolation_level` of a consumer that asks for committed transactions only.
const READ_COMMITTED: i8 = 1;

/// One request, and how far its answer has come.
struct Plan {
    version: i16,
    follower: Option<(i32, i64)>,
    read_committed: bool,
    /// Live brokers in the consumer's rack, if it is to read from a replica nearby.
    nearby: Option<BTreeSet<i32>>,
    max_bytes: usize,
    /// A limit below 0, which nothing can be read within.
    negative_limit: bool,
    min_bytes: usize,
    scope: Scope,
}

/// Where it stands what is wanted.
enum Scope {
    /// In the request; the answer may open a session.
    Whole {
        request: SessionRequest,
        may_create: bool,
    },
    Session {
        id: i32,
        epoch: i32,
        bell: Arc<Bell>,
    },
}

/// One look at one partition.
pub(super) struct Look {
    pub(super) partition: SessionPartition,
    pub(super) found: Found,
    pub(super) data: PartitionData,
    pub(super) records: Vec<Bytes>,
    /// The replica, and what it has been read up to.
    replica: Option<(Arc<Partition>, i64)>,
}

/// What is there at the moment.
#[derive(Default)]
struct Harvest {
    looks: Vec<Look>,
    bytes: usize,
    /// Something that is to be told without waiting.
    urgent: bool,
    /// Partitions that nobody knows here. They are told, but a consumer that waits for others goes on waiting.
    unknown: usize,
}

/// Answers at once if there is enough, or waits for it.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FetchRequest>(frame)?;
    if !(0..=READ_COMMITTED).contains(&request.isolation_level) {
        let refused = refused_whole(version, &request, ErrorCode::UNKNOWN_SERVER_ERROR);
        return Ok(Answer::Now(encoded(encode_fetch_response(version, &refused, &[]))));
    }
    let wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let plan = match Plan::new(broker, version, &request) {
        Ok(plan) => plan,
        Err(code) => {
            let refused = FetchResponse::default().with_error_code(code.0);
            return Ok(Answer::Now(encoded(encode_fetch_response(version, &refused, &[]))));
        }
    };
    let harvest = plan.harvest(broker);
    if wait.is_zero() || plan.enough(broker, &harvest) {
        return Ok(Answer::Now(plan.finish(broker, harvest)));
    }
    plan.settle(broker, &harvest);
    let broker = broker.clone();
    let deadline = broker.rt.now() + wait;
    Ok(Answer::Later(Box::pin(async move {
        let mut watch = Watch { plan, signal: Signal::default(), replicas: Vec::new() };
        let mut harvest = harvest;
        loop {
            watch.until_news(&broker, &harvest, deadline).await;
            harvest = watch.plan.harvest(&broker);
            if broker.rt.now() >= deadline
                || watch.plan.enough(&broker, &harvest)
                || watch.plan.is_over(&broker)
            {
                return watch.plan.finish(&broker, harvest);
            }
            watch.plan.settle(&broker, &harvest);
        }
    })))
}

/// Waits for a plan; leaves no signal behind when the client goes away.
struct Watch {
    plan: Plan,
    signal: Signal,
    replicas: Vec<Arc<Partition>>,
}

impl Watch {
    async fn until_news(&mut self, broker: &Broker, harvest: &Harvest, deadline: crate::rt::Tick) {
        let sleep = broker.rt.sleep_until(deadline);
        match &self.plan.scope {
            Scope::Session { id, epoch, bell } => {
                let rung = bell.rung();
                tokio::pin!(rung);
                rung.as_mut().enable();
                if !broker.sessions.is_current(*id, *epoch) {
                    return;
                }
                tokio::select! {
                    biased;
                    () = rung => {}
                    () = sleep => {}
                }
            }
            Scope::Whole { request, .. } => {
                self.replicas.clear();
                for (look, (_, wanted, _)) in harvest.looks.iter().zip(&request.wanted) {
                    let Some((replica, seen)) = &look.replica else { continue };
                    let next = wanted.fetch_offset.max(*seen).saturating_add(1);
                    let until = match self.plan.follower {
                        Some(_) => Until::Appended(next),
                        None => Until::Committed(next),
                    };
                    replica.wait(until, &self.signal);
                    self.replicas.push(replica.clone());
                }
                tokio::select! {
                    biased;
                    () = self.signal.notified() => {}
                    () = sleep => {}
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.replicas.iter().for_each(|replica| replica.forget(&self.signal));
    }
}

impl Plan {
    fn new(broker: &Broker, version: i16, request: &FetchRequest) -> Result<Self, ErrorCode> {
        let (id, epoch) = if version >= REPLICA_STATE {
            (request.replica_state.replica_id.0, request.replica_state.replica_epoch)
        } else {
            (request.replica_id.0, -1)
        };
        let asked = usize::try_from(request.max_bytes).unwrap_or(0);
        let most = broker.config.int("fetch.max.bytes").and_then(|most| usize::try_from(most).ok());
        let max_bytes = most.map_or(asked, |most| asked.min(most));
        let consumer = id < 0;
        let nearby = (consumer && version >= ANY_REPLICA && broker.reads_nearby())
            .then(|| broker.in_rack(&request.rack_id))
            .flatten();
        let negative_limit = request.max_bytes < 0;
        let (min_bytes, read_committed) = (request.min_bytes, request.isolation_level == READ_COMMITTED);
        let request = session_request(broker, version, !consumer, request);
        let scope = match broker.sessions.open(broker.rt.now(), &request) {
            (Opened::Refused(code), _) => return Err(code),
            (Opened::Incremental { id, epoch }, Some(bell)) => Scope::Session { id, epoch, bell },
            (Opened::Incremental { .. }, None) => return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            (Opened::Whole { may_create }, _) => Scope::Whole { request, may_create },
        };
        Ok(Self {
            version,
            follower: (!consumer).then_some((id, epoch)),
            read_committed,
            nearby,
            max_bytes,
            negative_limit,
            // More than fits into an answer cannot be waited for.
            min_bytes: usize::try_from(min_bytes).unwrap_or(0).min(max_bytes),
            scope,
        })
    }

    fn enough(&self, broker: &Broker, harvest: &Harvest) -> bool {
        if harvest.urgent || harvest.bytes >= self.min_bytes {
            return true;
        }
        // nothing to wait for
        match &self.scope {
            Scope::Whole { request, .. } => request.wanted.len() == harvest.unknown,
            Scope::Session { id, .. } => {
                harvest.unknown > 0 && broker.sessions.partitions(*id) == harvest.unknown
            }
        }
    }

    /// Whether a later request of the session has come: this one ends without an answer that counts.
    fn is_over(&self, broker: &Broker) -> bool {
        matches!(&self.scope, Scope::Session { id, epoch, .. } if !broker.sessions.is_current(*id, *epoch))
    }

    /// Reads what is there, within the limits.
    fn harvest(&self, broker: &Broker) -> Harvest {
        let mut harvest = Harvest::default();
        match &self.scope {
            Scope::Whole { request, .. } => {
                harvest.looks.reserve(request.wanted.len());
                for (partition, wanted, _) in &request.wanted {
                    self.look(broker, partition, wanted, None, &mut harvest);
                }
            }
            Scope::Session { id, bell, .. } => {
                for due in broker.sessions.due(*id, bell) {
                    self.look(broker, &due.partition, &due.wanted, Some((bell, &due)), &mut harvest);
                }
            }
        }
        harvest
    }

    fn look(
        &self,
        broker: &Broker,
        name: &SessionPartition,
        wanted: &Wanted,
        session: Option<(&Arc<Bell>, &Due)>,
        harvest: &mut Harvest,
    ) {
        let topic =
            if self.version >= TOPIC_IDS { TopicRef::Id(name.topic_id) } else { TopicRef::Name(&name.topic) };
        let found = broker.partition(topic, name.partition);
        let look = match found {
            Ok(partition) => {
                if let Some((bell, _)) = session {
                    partition.listen(bell, name);
                }
                self.read(broker, name, wanted, &partition, harvest)
            }
            Err(code) => {
                let was_named = session.and_then(|(_, due)| due.topic.as_deref());
                let code = match (code, was_named) {
                    (ErrorCode::UNKNOWN_TOPIC_ID, Some(topic)) => gone(broker, topic),
                    (code, _) => code,
                };
                let data = match code {
                    ErrorCode::NOT_LEADER_OR_FOLLOWER => refused(name.partition, code),
                    code => unknown(name.partition, code),
                };
                failed(name, data)
            }
        };
        let code = ErrorCode(look.data.error_code);
        let unknown = is_unknown(code);
        harvest.unknown += usize::from(unknown);
        harvest.urgent |= match look.found.failed {
            // a follower has only heard of the partition earlier than its leader
            true => !unknown || self.follower.is_some(),
            false => look.found.telling && look.records.is_empty(),
        };
        harvest.bytes += look.records.iter().map(Bytes::len).sum::<usize>();
        harvest.looks.push(look);
    }

    fn read(
        &self,
        broker: &Broker,
        name: &SessionPartition,
        wanted: &Wanted,
        partition: &Arc<Partition>,
        harvest: &Harvest,
    ) -> Look {
        // A throttled follower that is not in sync waits until the throttle lets more pass.
        let held_up = self.follower.is_some_and(|(id, _)| {
            partition.is_throttled(CopySide::Leader)
                && broker.throttled_until(CopySide::Leader).is_some()
                && partition.look(|replica| !replica.isr().contains(&id)).unwrap_or(false)
        });
        let room = if held_up { 0 } else { self.max_bytes.saturating_sub(harvest.bytes) };
        let from = FetchFrom {
            fetcher: match self.follower {
                Some((id, epoch)) => {
                    Fetcher::Replica { id, epoch, log_start_offset: wanted.log_start_offset }
                }
                None => Fetcher::Consumer { follower_ok: self.version >= ANY_REPLICA },
            },
            offset: wanted.fetch_offset,
            last_fetched_epoch: epoch(wanted.last_fetched_epoch).filter(|_| self.version >= DIVERGING),
            current_leader_epoch: epoch(wanted.current_leader_epoch),
            max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0).min(room),
            min_one: harvest.bytes == 0 && !held_up,
        };
        let now = broker.rt.now();
        let read = partition.with(broker, |replica, fx| match &self.nearby {
            Some(nearby) => replica.read_nearby(now, &from, &|id| nearby.contains(&id), fx),
            None => replica.read(now, &from, fx),
        });
        match read.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)) {
            Ok(fetched) if self.cannot_hold(wanted, &fetched) => {
                failed(name, refused(name.partition, ErrorCode::UNKNOWN_SERVER_ERROR))
            }
            Ok(fetched) => self.answer(name, wanted, partition, fetched),
            Err(code) => {
                let code = match code {
                    ErrorCode::KAFKA_STORAGE_ERROR if self.version <= STORAGE_ERROR_UNKNOWN => {
                        ErrorCode::NOT_LEADER_OR_FOLLOWER
                    }
                    code => code,
                };
                let look = failed(name, refused(name.partition, code));
                Look { replica: Some((partition.clone(), -1)), ..look }
            }
        }
    }

    /// Whether there is something to read and its limit is below 0, which Kafka fails over.
    fn cannot_hold(&self, wanted: &Wanted, fetched: &Fetched) -> bool {
        let told = fetched.diverging.is_some() || fetched.preferred_read_replica.is_some();
        let negative = self.negative_limit || wanted.max_bytes < 0;
        negative && !told && fetched.limit > wanted.fetch_offset
    }

    fn answer(
        &self,
        name: &SessionPartition,
        wanted: &Wanted,
        partition: &Arc<Partition>,
        fetched: Fetched,
    ) -> Look {
        let told = fetched.diverging.is_some() || fetched.preferred_read_replica.is_some();
        let found = Found {
            high_watermark: fetched.high_watermark,
            log_start_offset: fetched.log_start_offset,
            telling: told || !fetched.records.is_empty(),
            failed: false,
            more: fetched.ask_again || (fetched.records.is_empty() && fetched.limit > wanted.fetch_offset),
        };
        let replica = Some((partition.clone(), fetched.limit));
        let aborted = self.read_committed && !told;
        let (data, records) = answered(name.partition, fetched, aborted);
        Look { partition: name.clone(), found, data, records, replica }
    }

    /// Before waiting: a session does not look again at what has nothing to tell.
    fn settle(&self, broker: &Broker, harvest: &Harvest) {
        if let Scope::Session { id, .. } = &self.scope {
            let looked: Vec<_> =
                harvest.looks.iter().map(|look| (look.partition.clone(), look.found)).collect();
            broker.sessions.settle(*id, &looked);
        }
    }

    fn finish(&self, broker: &Broker, mut harvest: Harvest) -> Reply {
        let mut response = FetchResponse::default();
        match &self.scope {
            Scope::Whole { request, may_create } => {
                if *may_create && self.version >= SESSIONS && !request.wanted.is_empty() {
                    let told: Vec<Found> = harvest.looks.iter().map(|look| look.found).collect();
                    response.session_id = broker.sessions.create(broker.rt.now(), request, &told);
                }
            }
            Scope::Session { id, epoch, .. } => {
                response.session_id = *id;
                let looked: Vec<_> =
                    harvest.looks.iter().map(|look| (look.partition.clone(), look.found)).collect();
                match broker.sessions.tell(*id, *epoch, &looked) {
                    Ok(told) => {
                        let mut told = told.into_iter();
                        harvest.looks.retain(|_| told.next().unwrap_or(false));
                    }
                    Err(code) => {
                        response.error_code = code.0;
                        harvest.looks.clear();
                    }
                }
            }
        }
        if self.follower.is_some() {
            for look in &harvest.looks {
                let partition = look.replica.as_ref().map(|(partition, _)| partition);
                if partition.is_some_and(|partition| partition.is_throttled(CopySide::Leader)) {
                    broker.copied(CopySide::Leader, look.records.iter().map(Bytes::len).sum());
                }
            }
        }
        // as Kafka does: those that nobody knows come last
        harvest.looks.sort_by_key(|look| is_unknown(ErrorCode(look.data.error_code)));
        let records = grouped(self.version, &mut response, harvest.looks);
        if harvest.urgent {
            add_leaders(broker, self.version, self.follower.is_some(), &mut response);
        }
        encoded(encode_fetch_response(self.version, &response, &records))
    }
}

fn failed(name: &SessionPartition, data: PartitionData) -> Look {
    let found = Found { high_watermark: -1, log_start_offset: -1, telling: false, failed: true, more: false };
    Look { partition: name.clone(), found, data, records: Vec::new(), replica: None }
}

fn is_unknown(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UNKNOWN_TOPIC_ID | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

/// What a session hears of a topic that was known by this name when it was named, and whose id is gone.
fn gone(broker: &Broker, topic: &str) -> ErrorCode {
    let again = broker.image(|image| image.topic(topic).is_some());
    if again { ErrorCode::INCONSISTENT_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION }
}

fn epoch(value: i32) -> Option<i32> {
    (value >= 0).then_some(value)
}
