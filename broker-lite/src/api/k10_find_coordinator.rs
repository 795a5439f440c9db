//! FindCoordinator (10): versions 0 to 6. Who coordinates a group is the leader of its partition of `__consumer_offsets`,
//! which comes into being when it is first asked for. Nobody coordinates transactions yet.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::Image;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::find_coordinator_response::Coordinator;
use klamm_wire::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, StrBytes};

use super::k03_metadata::live_leader;
use super::{Handled, now, reply, text};
use crate::broker::{Broker, LISTENER};
use crate::group::{self, TOPIC};
use crate::node::Answer;

/// First version that asks for several at once.
const BATCHED: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
const KINDS: std::ops::RangeInclusive<i8> = GROUP..=SHARE;

/// Where a coordinator is.
struct Place {
    id: i32,
    host: StrBytes,
    port: i32,
}

/// How long whoever is first to look for a coordinator waits for the topic of offsets. Kafka refuses at once, and its clients pause
/// before they ask again, for longer than it takes to create the topic; after this time they are refused here, too.
const CREATION: Duration = Duration::from_millis(500);

/// Answers from the image, at once if the topic of offsets is there.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FindCoordinatorRequest>(frame)?;
    let asks = version < BATCHED || !request.coordinator_keys.is_empty();
    if request.key_type != GROUP || !asks || broker.image(|image| image.topic(TOPIC).is_some()) {
        return now::<FindCoordinatorRequest>(version, &answer(broker, version, &request));
    }
    group::create_topic(broker);
    // Answers wait for one another: from now, that several do not add up.
    let until = broker.rt.now() + CREATION;
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        tokio::select! {
            biased;
            () = broker.until_told(|image| image.topic(TOPIC).map(drop)) => {}
            () = broker.rt.sleep_until(until) => {}
        }
        reply::<FindCoordinatorRequest>(version, &answer(&broker, version, &request))
    })))
}

fn answer(broker: &Arc<Broker>, version: i16, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
    if version >= BATCHED {
        let found = request.coordinator_keys.iter().map(|key| one(broker, request.key_type, key));
        return FindCoordinatorResponse::default().with_coordinators(found.collect());
    }
    let found = find(broker, request.key_type, &request.key);
    let message = match &found {
        Ok(_) => "NONE".to_owned(),
        Err(code) => message(*code).to_owned(),
    };
    let (code, place) = settled(found);
    FindCoordinatorResponse::default()
        .with_error_code(code.0)
        .with_error_message(Some(text(&message)))
        .with_node_id(BrokerId(place.id))
        .with_host(place.host)
        .with_port(place.port)
}

fn one(broker: &Arc<Broker>, kind: i8, key: &StrBytes) -> Coordinator {
    let message = if KINDS.contains(&kind) { "" } else { message(ErrorCode::INVALID_REQUEST) };
    let (code, place) = settled(find(broker, kind, key));
    Coordinator::default()
        .with_key(key.clone())
        .with_error_code(code.0)
        .with_error_message(Some(text(message)))
        .with_node_id(BrokerId(place.id))
        .with_host(place.host)
        .with_port(place.port)
}

fn settled(found: Result<Place, ErrorCode>) -> (ErrorCode, Place) {
    match found {
        Ok(place) => (ErrorCode::NONE, place),
        Err(code) => (code, Place { id: -1, host: StrBytes::default(), port: -1 }),
    }
}

fn message(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::COORDINATOR_NOT_AVAILABLE => "The coordinator is not available.",
        _ => "There is no coordinator of this kind.",
    }
}

fn find(broker: &Arc<Broker>, kind: i8, key: &str) -> Result<Place, ErrorCode> {
    match kind {
        GROUP => {}
        TRANSACTION => return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
        SHARE => return Err(ErrorCode::INVALID_REQUEST),
        _ => return Err(ErrorCode::INVALID_REQUEST),
    }
    let exists = broker.image(|image| image.topic(TOPIC).is_some());
    if !exists {
        group::create_topic(broker);
        return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
    }
    broker.image(|image| place(image, key)).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
}

fn place(image: &Image, group: &str) -> Option<Place> {
    let partition = group::partition_in(image, group)?;
    let leader = live_leader(image, image.topic(TOPIC)?.partitions.get(&partition)?)?;
    let listener = image.broker(leader)?.listener(LISTENER)?;
    Some(Place { id: leader, host: text(&listener.host), port: i32::from(listener.port) })
}
