//! Registration with the controller, heartbeats from then on, and the way out: a controlled shutdown, in which the
//! controller moves the leaderships away before the broker stops.
//!
//! Invariant: a heartbeat is sent as soon as it can change something (registered, caught up, about to leave), and
//! otherwise every `broker.heartbeat.interval.ms`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::broker_registration_request::{Feature, Listener};
use klamm_wire::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerId, BrokerRegistrationRequest,
    BrokerRegistrationResponse,
};
use klamm_wire::{Request, StrBytes};
use tokio::sync::Notify;
use uuid::Uuid;

use super::controllers::{GivenUp, KeptLink};
use super::{Broker, LISTENER, Registration};

const REGISTRATION_VERSION: i16 = 4;
const HEARTBEAT_VERSION: i16 = 1;
/// First and longest pause between attempts to register.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Pause before a heartbeat that was not answered is sent again.
const AGAIN: Duration = Duration::from_millis(20);
/// Levels of the features this broker can work with, as the controller must find them.
pub(crate) const FEATURES: &[(&str, i16, i16)] =
    &[("metadata.version", 7, 30), ("eligible.leader.replicas.version", 0, 1)];

/// How far a broker that wants to stop has come.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    wanted: AtomicBool,
    asked: Notify,
    allowed: AtomicBool,
    answered: Notify,
}

impl Leaving {
    /// Asks the controller to move the leaderships away; returns when it has, and this broker may stop.
    pub(crate) async fn until_allowed(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.asked.notify_one();
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if self.allowed.load(Ordering::SeqCst) {
                return;
            }
            answered.await;
        }
    }

    fn allow(&self) {
        self.allowed.store(true, Ordering::SeqCst);
        self.answered.notify_waiters();
    }
}

/// Registers, and again whenever the controller has forgotten or replaced this registration.
pub(crate) async fn live(broker: Arc<Broker>) {
    let mut kept = KeptLink::default();
    // It goes along with the registration.
    broker.identity.cluster_id.until_known().await;
    // Replicas are opened when this broker is registered, and whose directory it is stands in the registration.
    if let Err(error) = broker.disk.settle().await {
        return broker.go_offline(&error.to_string());
    }
    loop {
        let epoch = register(&broker, &mut kept).await;
        tracing::debug!(broker = broker.id(), epoch, "registered");
        *broker.registration.lock() = Registration { epoch, unfenced: false };
        beat(&broker, &mut kept, epoch).await;
    }
}

async fn register(broker: &Broker, kept: &mut KeptLink) -> i64 {
    let mut pause = PAUSES.0;
    loop {
        match call(broker, kept, REGISTRATION_VERSION, &registration(broker)).await {
            Ok(BrokerRegistrationResponse { error_code: 0, broker_epoch, .. }) => return broker_epoch,
            Ok(refused) => {
                let code = ErrorCode(refused.error_code);
                tracing::debug!(broker = broker.id(), %code, "registration refused");
            }
            Err(cause) => tracing::debug!(broker = broker.id(), cause, "cannot register"),
        }
        tokio::select! {
            biased;
            () = broker.controllers.changed() => {}
            () = broker.rt.sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn registration(broker: &Broker) -> BrokerRegistrationRequest {
    let identity = &broker.identity;
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let listener = Listener::default()
        .with_name(text(LISTENER))
        .with_host(text(&identity.host))
        .with_port(identity.port);
    let feature = |&(name, min, max): &(&'static str, i16, i16)| {
        Feature::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_supported_version(min)
            .with_max_supported_version(max)
    };
    BrokerRegistrationRequest::default()
        .with_broker_id(BrokerId(identity.id))
        .with_cluster_id(identity.cluster_id.field().unwrap_or_default())
        .with_incarnation_id(identity.incarnation)
        .with_listeners(vec![listener])
        .with_features(FEATURES.iter().map(feature).collect())
        .with_rack(identity.rack.as_deref().map(text))
        .with_log_dirs(vec![identity.log_dir])
        .with_previous_broker_epoch(identity.previous_epoch)
}

/// Id of the log directory of a broker in memory.
pub(crate) fn log_dir(broker: i32) -> Uuid {
    Uuid::from_u128(0x6b6c_616d_6d00_0000_0000_0000_0000_0000 | broker.unsigned_abs() as u128)
}

/// Sends heartbeats until the controller wants another registration.
async fn beat(broker: &Broker, kept: &mut KeptLink, epoch: i64) {
    let interval = broker.config.millis("broker.heartbeat.interval.ms").unwrap_or(Duration::from_secs(2));
    // Before it knows of its own registration a heartbeat would change nothing, and the one that does would wait behind it.
    tokio::select! {
        biased;
        () = broker.until_image(|_| (broker.told() > epoch).then_some(())) => {}
        () = broker.rt.sleep(interval.min(AGAIN)) => {}
    }
    loop {
        let seen = broker.told();
        let leaves = broker.leaving.wanted.load(Ordering::SeqCst);
        let request = BrokerHeartbeatRequest::default()
            .with_want_shut_down(leaves)
            .with_broker_id(BrokerId(broker.id()))
            .with_broker_epoch(epoch)
            .with_current_metadata_offset(seen - 1);
        let (mut fenced, mut heard) = (true, true);
        match call(broker, kept, HEARTBEAT_VERSION, &request).await {
            Ok(BrokerHeartbeatResponse { error_code: 0, is_fenced, should_shut_down, .. }) => {
                fenced = is_fenced;
                broker.registration.lock().unfenced = !is_fenced;
                broker.image_changed.notify_waiters();
                if should_shut_down {
                    broker.leaving.allow();
                    // Another heartbeat would begin another session.
                    return std::future::pending().await;
                }
            }
            Ok(refused) => {
                let code = ErrorCode(refused.error_code);
                tracing::info!(broker = broker.id(), %code, "heartbeat refused");
                if matches!(code, ErrorCode::STALE_BROKER_EPOCH | ErrorCode::BROKER_ID_NOT_REGISTERED) {
                    return;
                }
            }
            Err(cause) => {
                heard = false;
                tracing::debug!(broker = broker.id(), cause, "no answer to heartbeat");
            }
        }
        // Whoever leads next should hear of this broker before it counts as silent.
        let pause = if heard { interval } else { interval.min(AGAIN) };
        let newer = broker.until_image(|_| (fenced && broker.told() > seen).then_some(()));
        tokio::select! {
            biased;
            () = broker.rt.sleep(pause) => {}
            () = newer => {}
            () = broker.controllers.changed() => {}
            () = broker.leaving.asked.notified() => {}
        }
    }
}

/// Asks the controller once, over a connection that is kept.
async fn call<R: Request>(
    broker: &Broker,
    kept: &mut KeptLink,
    version: i16,
    request: &R,
) -> Result<R::Response, String> {
    let frame = encode_request(version, request).map_err(|e| e.to_string())?;
    // A heartbeat that is never answered must not be the last one.
    let limit = broker.config.millis("broker.session.timeout.ms").unwrap_or(Duration::from_secs(9)) / 2;
    let answer =
        broker.network.within(limit, broker.ask_once(Some(kept), "lifecycle", GivenUp::WhenDoubted, frame));
    decode_response::<R>(answer.await.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}
