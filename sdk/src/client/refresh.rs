//! The task that keeps the metadata fresh. It decides nothing: `klamm_core::metadata::Refresh` does.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use klamm_core::metadata::{Effect, Event, Query};
use klamm_core::reconnect::Peer;
use klamm_wire::codec;
use klamm_wire::messages::{MetadataRequest, MetadataResponse};
use klamm_wire::seam::Endpoint;

use super::Lane;
use super::shared::Shared;

/// What became of a query.
enum Outcome {
    Answered(Option<i32>, Box<MetadataResponse>),
    Failed,
    Unreachable,
}

/// Runs until it is aborted, when the last client is dropped.
pub(super) async fn drive(shared: Arc<Shared>) {
    let mut asking: Option<BoxFuture<'static, Outcome>> = None;
    let max_idle = shared.settings.connections_max_idle;
    let sweep_every = max_idle.map(|idle| idle / 4);
    let mut sweep_at = sweep_every;
    loop {
        let (effects, deadline) = shared.on_deadline();
        carry_out(&shared, effects, &mut asking);
        let rt = shared.rt();
        if sweep_at.is_some_and(|at| at <= rt.now()) {
            shared.sweep(max_idle.and_then(|idle| rt.now().checked_sub(idle)));
            sweep_at = sweep_every.map(|every| rt.now() + every);
        }
        let wake_at = deadline.into_iter().chain(sweep_at).min();
        tokio::select! {
            biased;
            outcome = answer(&mut asking) => {
                asking = None;
                let effects = match &outcome {
                    Outcome::Answered(from, response) => shared.step(Event::Answered(*from, response)),
                    Outcome::Failed => shared.step(Event::Failed),
                    Outcome::Unreachable => shared.step(Event::Unreachable),
                };
                carry_out(&shared, effects, &mut asking);
                if matches!(outcome, Outcome::Answered(..)) {
                    shared.sweep(None);
                }
            }
            () = shared.doubted.notified() => {}
            () = rt.sleep_until_some(wake_at) => {}
        }
    }
}

fn carry_out(shared: &Arc<Shared>, effects: Vec<Effect>, asking: &mut Option<BoxFuture<'static, Outcome>>) {
    for effect in effects {
        match effect {
            Effect::Ask(query) => *asking = Some(ask(shared.clone(), query).boxed()),
            Effect::Rebootstrap => {
                *asking = None;
                shared.rebootstrap();
            }
            Effect::Publish(_) => {}
        }
    }
}

async fn answer(asking: &mut Option<BoxFuture<'static, Outcome>>) -> Outcome {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Sends a query to the broker that is to be asked, or the first one that can be reached.
async fn ask(shared: Arc<Shared>, query: Query) -> Outcome {
    let deadline = shared.rt().now().saturating_add(shared.settings.request_timeout);
    let patience = shared.rt().now().saturating_add(shared.settings.connection_setup_timeout / 10);
    let known = match query.of {
        Some(id) => shared.connect(Peer::Broker(id), Lane::Main, deadline.min(patience)).await.ok(),
        None => None,
    };
    let connected = match known {
        Some(connected) => Ok(connected),
        None => shared.connect_any(Lane::Main, deadline, true).await,
    };
    let Ok(connected) = connected else { return Outcome::Unreachable };
    let request = query.request();
    let encode = |version| match (version, &request.topics) {
        // Null is not known yet there, and an empty list means all.
        (0, None) => codec::encode_request(version, &request.clone().with_topics(Some(Vec::new()))),
        _ => codec::encode_request(version, &request),
    };
    match connected.call::<MetadataRequest>(&encode, deadline).await {
        Ok(response) => {
            shared.forget_causes();
            let from = connected.connection.broker();
            let at = connected.connection.endpoint();
            Outcome::Answered(from.or_else(|| listed_at(&response, at)), Box::new(response))
        }
        Err(error) => {
            tracing::debug!(peer = %connected.connection.label(), cause = %error, "no metadata");
            shared.keep_cause(&connected.connection, error);
            Outcome::Failed
        }
    }
}

/// Id of the broker that has an address of the bootstrap list, by its own answer.
fn listed_at(response: &MetadataResponse, at: &Endpoint) -> Option<i32> {
    let there = |host: &str, port: i32| host == at.host && port == i32::from(at.port);
    response
        .brokers
        .iter()
        .find(|broker| there(broker.host.as_str(), broker.port))
        .map(|broker| broker.node_id.0)
}
