//! Brokers: registration, heartbeats, fencing.
//!
//! ```text
//! registered, fenced ──caught up──▶ unfenced ──wants to shut down──▶ controlled shutdown
//!     ▲    ▲                           │                                  │ others know the new leaders
//!     │    └──── silent, or asks ──────┘                                  ▼
//!     └──────────────────── new incarnation ◀────────────────────── fenced, may stop
//! ```

use klamm_wire::ErrorCode;
use klamm_wire::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
};
use klamm_wire::metadata_records::{
    BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, RegisterBrokerRecord,
};

use super::{Controller, Outcome};
use std::time::Duration;

use crate::Tick;
use crate::metadata::BrokerRegistration;

/// What the controller knows of a broker's process beyond its registration.
#[derive(Debug)]
pub(super) struct Session {
    /// When the broker is fenced unless it reports.
    ends: Tick,
    /// Whether the broker has reported to this controller.
    heard: bool,
    /// Metadata offset the broker has applied, as of its last heartbeat.
    offset: i64,
    /// Offset of the last record that moved leaderships away for its shutdown.
    shutdown_offset: Option<i64>,
}

impl Session {
    pub(super) fn new(ends: Tick) -> Self {
        Self { ends, heard: false, offset: -1, shutdown_offset: None }
    }
}

/// What a heartbeat leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    Unfence,
    Fence,
    StartShutdown,
    ShutDown,
}

impl Controller {
    /// BrokerRegistration (62).
    ///
    /// A broker that does not name the epoch of its last registration has died uncleanly: what it had
    /// not synced may be lost, so it leaves ISR and ELR of all its partitions (KIP-966).
    pub fn register_broker(
        &mut self,
        now: Tick,
        request: &BrokerRegistrationRequest,
    ) -> Outcome<BrokerRegistrationResponse> {
        let response = BrokerRegistrationResponse::default();
        let response = match self.register(now, request) {
            Ok(epoch) => response.with_broker_epoch(epoch),
            Err(code) => response.with_broker_epoch(-1).with_error_code(code.0),
        };
        self.outcome(response)
    }

    fn register(&mut self, now: Tick, request: &BrokerRegistrationRequest) -> Result<i64, ErrorCode> {
        let id = request.broker_id.0;
        if request.cluster_id.as_str() != self.cluster_id {
            return Err(ErrorCode::INCONSISTENT_CLUSTER_ID);
        }
        if request.is_migrating_zk_broker {
            return Err(ErrorCode::BROKER_ID_NOT_REGISTERED);
        }
        let mut directories = request.log_dirs.clone();
        directories.sort_unstable();
        directories.dedup();
        let directories = directories.first().is_some_and(|least| !least.is_nil())
            && directories.len() == request.log_dirs.len();
        let levelled = request.features.iter().any(|feature| feature.name.as_str() == "metadata.version");
        if id < 0 || request.incarnation_id.is_nil() || !directories || !levelled {
            return Err(ErrorCode::INVALID_REGISTRATION);
        }
        let levels = self.image.features();
        let unread = request.features.iter().any(|feature| {
            let supported = feature.min_supported_version..=feature.max_supported_version;
            levels.get(feature.name.as_str()).is_some_and(|level| !supported.contains(level))
        });
        if unread {
            return Err(ErrorCode::UNSUPPORTED_VERSION);
        }
        let mut record = registration(request, self.image.next_offset());
        let known = self.image.broker(id);
        let clean = known.is_some_and(|known| known.epoch == request.previous_broker_epoch);
        match known {
            Some(known) if known.incarnation_id == request.incarnation_id => {
                record.broker_epoch = known.epoch;
                record.fenced = known.fenced;
                record.in_controlled_shutdown = known.in_controlled_shutdown;
                self.emit(record);
                self.touch(now, id, None);
                return Ok(self.image.broker(id).map_or(-1, |broker| broker.epoch));
            }
            Some(known) if self.has_session(now, known) => {
                return Err(ErrorCode::DUPLICATE_BROKER_REGISTRATION);
            }
            _ => {}
        }
        let epoch = record.broker_epoch;
        self.emit(record);
        self.leave(&[id], (!clean).then_some(id));
        let session = Session { heard: true, ..Session::new(now + self.session_timeout) };
        self.sessions.insert(id, session);
        Ok(epoch)
    }

    /// Whether the registered process may still be alive, and is not about to leave.
    fn has_session(&self, now: Tick, broker: &BrokerRegistration) -> bool {
        let ends = self.sessions.get(&broker.id).map(|session| session.ends);
        !broker.in_controlled_shutdown && ends.is_some_and(|ends| now < ends)
    }

    /// Whether a broker has registered or sent a heartbeat since this controller took over.
    pub fn has_heard_from(&self, id: i32) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.heard)
    }

    fn touch(&mut self, now: Tick, id: i32, offset: Option<i64>) {
        let ends = now + self.session_timeout;
        let session = self.sessions.entry(id).or_insert_with(|| Session::new(ends));
        session.ends = session.ends.max(ends);
        session.heard = true;
        session.offset = offset.unwrap_or(session.offset);
    }

    /// BrokerHeartbeat (63).
    pub fn heartbeat(
        &mut self,
        now: Tick,
        request: &BrokerHeartbeatRequest,
    ) -> Outcome<BrokerHeartbeatResponse> {
        let (id, epoch) = (request.broker_id.0, request.broker_epoch);
        let response = BrokerHeartbeatResponse::default();
        if let Err(code) = self.check_epoch(id, epoch) {
            return self.outcome(response.with_error_code(code.0));
        }
        self.touch(now, id, Some(request.current_metadata_offset));
        let next = self.next_state(request);
        match next {
            Next::Stay => {}
            Next::Unfence => self.unfence(id, epoch),
            Next::Fence => self.fence(&[(id, epoch)]),
            Next::StartShutdown => self.start_shutdown(id, epoch),
            Next::ShutDown => {
                if self.image.live_epoch(id).is_some() {
                    self.fence(&[(id, epoch)]);
                }
                // whoever comes next under this id need not wait for a session to run out
                self.sessions.remove(&id);
            }
        }
        let response = response
            .with_is_caught_up(request.current_metadata_offset >= epoch)
            .with_is_fenced(self.image.live_epoch(id).is_none())
            .with_should_shut_down(next == Next::ShutDown);
        self.outcome(response)
    }

    fn next_state(&self, request: &BrokerHeartbeatRequest) -> Next {
        let id = request.broker_id.0;
        let Some(broker) = self.image.broker(id) else { return Next::Stay };
        if broker.fenced {
            let caught_up = request.current_metadata_offset >= broker.epoch;
            return match (request.want_shut_down, request.want_fence) {
                (true, _) => Next::ShutDown,
                (false, false) if caught_up => Next::Unfence,
                (false, _) => Next::Stay,
            };
        }
        if broker.in_controlled_shutdown {
            return if self.leads(id) || !self.others_know(id) { Next::Stay } else { Next::ShutDown };
        }
        match (request.want_shut_down, request.want_fence) {
            (true, true) => Next::ShutDown,
            (false, true) => Next::Fence,
            (true, false) if self.leads(id) => Next::StartShutdown,
            (true, false) => Next::ShutDown,
            (false, false) => Next::Stay,
        }
    }

    fn leads(&self, id: i32) -> bool {
        self.image.topics().any(|topic| topic.partitions.values().any(|p| p.leader == Some(id)))
    }

    /// Whether every broker that may lead has applied the records that moved the leaderships of `id`.
    fn others_know(&self, id: i32) -> bool {
        let Some(moved) = self.sessions.get(&id).and_then(|session| session.shutdown_offset) else {
            return true;
        };
        let active = self.sessions.iter().filter(|(other, _)| self.image.is_active(**other));
        active.map(|(_, session)| session.offset).min().is_none_or(|lowest| lowest >= moved)
    }

    fn unfence(&mut self, id: i32, epoch: i64) {
        self.emit(registration_change(id, epoch, -1, 0));
        for (topic, partition) in self.partitions_where(|p| p.leader.is_none() && p.replicas.contains(&id)) {
            self.reconsider(topic, partition, |_| {});
        }
    }

    /// Fences all at once, so that no leadership moves from one of them to another.
    fn fence(&mut self, brokers: &[(i32, i64)]) {
        for (id, epoch) in brokers {
            self.emit(registration_change(*id, *epoch, 1, 0));
        }
        let ids: Vec<i32> = brokers.iter().map(|(id, _)| *id).collect();
        self.leave(&ids, None);
    }

    /// Fences all brokers at once, and ends their sessions: none of the processes that the log knows of runs any more.
    pub fn end_sessions(&mut self) -> Outcome<()> {
        let all: Vec<_> = self.image.live_brokers().map(|broker| (broker.id, broker.epoch)).collect();
        self.fence(&all);
        self.sessions.clear();
        self.outcome(())
    }

    fn start_shutdown(&mut self, id: i32, epoch: i64) {
        self.emit(registration_change(id, epoch, 0, 1));
        self.leave(&[id], None);
        let moved = self.image.next_offset() - 1;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.shutdown_offset = Some(moved);
        }
    }

    /// Takes brokers that are no longer active out of the ISRs, and the one that may have lost records
    /// out of the eligible replicas too.
    pub(super) fn leave(&mut self, brokers: &[i32], unclean: Option<i32>) {
        let touched = self.partitions_where(|p| {
            let has = |among: &[i32], id: &i32| among.contains(id);
            brokers.iter().any(|id| has(&p.isr, id)) || unclean.is_some_and(|id| has(&p.elr, &id))
        });
        for (topic, partition) in touched {
            self.reconsider(topic, partition, |proposal| proposal.unclean_shutdown = unclean);
        }
    }

    /// Returns when [`Self::on_deadline`] wants to run: the first end of a session, or the next look at the leaders.
    pub fn deadline(&self) -> Option<Tick> {
        let sessions = self.session_deadline();
        Some(sessions.map_or(self.rebalance.deadline(), |at| at.min(self.rebalance.deadline())))
    }

    pub(super) fn session_deadline(&self) -> Option<Tick> {
        self.live_sessions().map(|(_, session)| session.ends).min()
    }

    /// The process did nothing for this long: what brokers reported meanwhile waits unread, so their silence proves
    /// nothing. Every session gets the time back.
    pub fn deaf(&mut self, time: Duration) {
        for session in self.sessions.values_mut() {
            session.ends += time;
        }
    }

    /// Fences brokers that have been silent for `broker.session.timeout.ms`, and balances leaders if that is due. Where the
    /// process may have been held up, tell it so first: see [`Self::deaf`].
    pub fn on_deadline(&mut self, now: Tick) -> Outcome<()> {
        let dead: Vec<(i32, i64)> = self
            .live_sessions()
            .filter(|(_, session)| session.ends <= now)
            .map(|(broker, _)| (broker.id, broker.epoch))
            .collect();
        self.fence(&dead);
        self.rebalance(now);
        self.outcome(())
    }

    fn live_sessions(&self) -> impl Iterator<Item = (&BrokerRegistration, &Session)> {
        self.image.live_brokers().filter_map(|broker| Some((broker, self.sessions.get(&broker.id)?)))
    }
}

fn registration(request: &BrokerRegistrationRequest, epoch: i64) -> RegisterBrokerRecord {
    let end_points = request.listeners.iter().map(|listener| BrokerEndpoint {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = request.features.iter().map(|feature| BrokerFeature {
        name: feature.name.to_string(),
        min_supported_version: feature.min_supported_version,
        max_supported_version: feature.max_supported_version,
    });
    RegisterBrokerRecord {
        broker_id: request.broker_id.0,
        incarnation_id: request.incarnation_id,
        broker_epoch: epoch,
        end_points: end_points.collect(),
        features: features.collect(),
        rack: request.rack.as_ref().map(|rack| rack.to_string()),
        log_dirs: request.log_dirs.clone(),
        ..RegisterBrokerRecord::default()
    }
}

fn registration_change(
    broker_id: i32,
    broker_epoch: i64,
    fenced: i8,
    shutdown: i8,
) -> BrokerRegistrationChangeRecord {
    let in_controlled_shutdown = shutdown;
    BrokerRegistrationChangeRecord {
        broker_id,
        broker_epoch,
        fenced,
        in_controlled_shutdown,
        ..Default::default()
    }
}
