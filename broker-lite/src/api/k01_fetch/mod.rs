//! Fetch (1): versions 4 to 18, of consumers and of followers, whole or in a session (KIP-227).
//!
//! In: what is wanted, by the request or by its session. Out: an answer at once if there is enough, or when there is.

mod answer;
pub(crate) mod metadata;
mod read;
mod wait;
mod wanted;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::session::{Opened, SessionRequest};
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, encode_fetch_response};
use klamm_wire::messages::{FetchRequest, FetchResponse};
use klamm_wire::seam::Frame;

use self::answer::{add_leaders, grouped, refused_whole};
use self::read::Harvest;
use self::wait::Watch;
use self::wanted::session_request;
use super::{Handled, encoded};
use crate::broker::{Bell, Broker, CopySide};
use crate::node::{Answer, Reply};

/// First version with sessions.
const SESSIONS: i16 = 7;
/// First version in which any replica may serve a consumer (KIP-392).
const ANY_REPLICA: i16 = 11;
/// First version in which a diverging log is told at once (KIP-595).
const DIVERGING: i16 = 12;
/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version that carries the broker epoch of a follower (KIP-903).
const REPLICA_STATE: i16 = 15;
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
    Ok(Answer::Later(Box::pin(
        async move { Watch::new(plan).until_enough(&broker, harvest, deadline).await },
    )))
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

    /// Before waiting: a session does not look again at what has nothing to tell.
    fn settle(&self, broker: &Broker, harvest: &Harvest) {
        if let Scope::Session { id, .. } = &self.scope {
            broker.sessions.settle(*id, &harvest.found());
        }
    }

    fn finish(&self, broker: &Broker, mut harvest: Harvest) -> Reply {
        let mut response = FetchResponse::default();
        harvest.arrange(self.follower.is_some());
        match &self.scope {
            Scope::Whole { request, may_create } => {
                if *may_create && self.version >= SESSIONS && !request.wanted.is_empty() {
                    let now = broker.rt.now();
                    response.session_id = broker.sessions.create(now, request, &harvest.found());
                }
            }
            Scope::Session { id, epoch, .. } => {
                response.session_id = *id;
                match broker.sessions.tell(*id, *epoch, &harvest.found()) {
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
        let records = grouped(self.version, &mut response, harvest.looks);
        if harvest.urgent {
            add_leaders(broker, self.version, self.follower.is_some(), &mut response);
        }
        encoded(encode_fetch_response(self.version, &response, &records))
    }
}
