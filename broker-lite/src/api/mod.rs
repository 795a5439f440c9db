//! One file per API, named by key and name. The tables below are what is advertised, and all of it.
//! Produce 0 to 2 are there for librdkafka, which chooses compression by them, and are refused.
//!
//! In: a request frame. Out: an answer now or later, or a refusal that closes the connection.
//! What must happen in order of arrival happens before a handler returns.

mod alter_configs;
mod groups;
mod k00_produce;
pub(crate) mod k01_fetch;
mod k02_list_offsets;
mod k03_metadata;
mod k08_offset_commit;
mod k09_offset_fetch;
mod k10_find_coordinator;
mod k11_join_group;
mod k12_heartbeat;
mod k13_leave_group;
mod k14_sync_group;
mod k15_describe_groups;
mod k16_list_groups;
mod k18_api_versions;
mod k19_create_topics;
mod k20_delete_topics;
mod k21_delete_records;
mod k22_init_producer_id;
mod k23_offset_for_leader_epoch;
mod k32_describe_configs;
mod k33_alter_configs;
pub(crate) mod k35_describe_log_dirs;
mod k37_create_partitions;
mod k42_delete_groups;
mod k43_elect_leaders;
mod k44_incremental_alter_configs;
mod k45_alter_partition_reassignments;
mod k46_list_partition_reassignments;
mod k47_offset_delete;
mod k52_vote;
mod k53_begin_quorum_epoch;
mod k54_end_quorum_epoch;
mod k55_describe_quorum;
mod k56_alter_partition;
mod k57_update_features;
pub(crate) mod k59_fetch_snapshot;
mod k60_describe_cluster;
mod k61_describe_producers;
mod k62_broker_registration;
mod k63_broker_heartbeat;
mod k64_unregister_broker;
mod k67_allocate_producer_ids;
mod k74_list_config_resources;
mod k75_describe_topic_partitions;
pub(crate) mod quorum;

use std::sync::Arc;

use broker_lite_core::controller::{Controller, Outcome};
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_request, encode_response};
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, Request, StrBytes};

pub(crate) use self::k03_metadata::create_internal;
use crate::broker::{Broker, GivenUp};
use crate::controller::{Answered, ControllerNode};
use crate::node::{Answer, Peer, Reply};
use crate::rt::Tick;
use crate::rules::refusal;

/// One API and the versions of it that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) api_key: i16,
    pub(crate) min: i16,
    pub(crate) max: i16,
}

const fn api(api_key: i16, min: i16, max: i16) -> Advertised {
    Advertised { api_key, min, max }
}

/// Produce is advertised from 0 on, as Kafka does, because librdkafka chooses compression by it;
/// versions below 3 are refused nevertheless.
const PRODUCE_MIN: i16 = 3;

/// APIs of a broker, by key.
pub(crate) const BROKER: &[Advertised] = &[
    api(0, 0, 13),
    api(1, 4, 18),
    api(2, 1, 11),
    api(3, 0, 13),
    api(8, 2, 10),
    api(9, 1, 10),
    api(10, 0, 6),
    api(11, 0, 9),
    api(12, 0, 4),
    api(13, 0, 5),
    api(14, 0, 5),
    api(15, 0, 6),
    api(16, 0, 5),
    api(18, 0, 4),
    api(19, 2, 7),
    api(20, 1, 6),
    api(21, 0, 2),
    api(22, 0, 5),
    api(23, 2, 4),
    api(32, 1, 4),
    api(33, 0, 2),
    api(35, 1, 5),
    api(37, 0, 3),
    api(42, 0, 2),
    api(43, 0, 2),
    api(44, 0, 1),
    api(45, 0, 1),
    api(46, 0, 0),
    api(47, 0, 0),
    api(55, 0, 2),
    api(57, 0, 2),
    api(60, 0, 2),
    api(61, 0, 0),
    api(64, 0, 0),
    api(74, 0, 1),
    api(75, 0, 0),
];

/// APIs of the controller, by key.
pub(crate) const CONTROLLER: &[Advertised] = &[
    api(1, 4, 18),
    api(18, 0, 4),
    api(19, 2, 7),
    api(20, 1, 6),
    api(32, 1, 4),
    api(33, 0, 2),
    api(37, 0, 3),
    api(43, 0, 2),
    api(44, 0, 1),
    api(45, 0, 1),
    api(46, 0, 0),
    api(52, 0, 2),
    api(53, 0, 1),
    api(54, 0, 1),
    api(55, 0, 2),
    api(56, 2, 3),
    api(57, 0, 2),
    api(59, 0, 1),
    api(60, 0, 2),
    api(62, 0, 4),
    api(63, 0, 2),
    api(64, 0, 0),
    api(67, 0, 0),
];

/// Why a connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// As Kafka does with what it cannot read or does not offer.
    #[error("api key {api_key} in version {version} is not offered")]
    NotOffered {
        /// Api key asked for.
        api_key: i16,
        /// Version asked for.
        version: i16,
    },
    /// The bytes are not what they claim to be, or an answer cannot be expressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Produce with `acks=0` has no other way to report an error.
    #[error("Produce with acks=0 failed: {0}")]
    Unanswerable(klamm_wire::ErrorCode),
}

/// What a handler returns.
pub(crate) type Handled = Result<Answer, Refusal>;

fn offered(table: &[Advertised], frame: &Frame) -> Result<(), Refusal> {
    let (api_key, version) = (frame.api_key, frame.api_version);
    let mut of_key = table.iter().filter(|entry| entry.api_key == api_key);
    match of_key.next() {
        Some(entry)
            if (entry.min..=entry.max).contains(&version) && (api_key != 0 || version >= PRODUCE_MIN) =>
        {
            Ok(())
        }
        _ => Err(Refusal::NotOffered { api_key, version }),
    }
}

/// Handles one request at a broker.
pub(crate) fn broker(broker: &Arc<Broker>, frame: Frame, peer: &Peer) -> Handled {
    if frame.api_key == k18_api_versions::KEY {
        let finalized = broker.image(|image| (image.features().clone(), image.next_offset() - 1));
        return k18_api_versions::handle(BROKER, frame, &finalized.0, finalized.1);
    }
    offered(BROKER, &frame)?;
    match frame.api_key {
        0 => k00_produce::handle(broker, frame),
        1 => k01_fetch::handle(broker, frame),
        2 => k02_list_offsets::handle(broker, frame),
        3 => k03_metadata::handle(broker, frame),
        8 => k08_offset_commit::handle(broker, frame),
        9 => k09_offset_fetch::handle(broker, frame),
        10 => k10_find_coordinator::handle(broker, frame),
        11 => k11_join_group::handle(broker, frame, peer),
        12 => k12_heartbeat::handle(broker, frame),
        13 => k13_leave_group::handle(broker, frame),
        14 => k14_sync_group::handle(broker, frame),
        15 => k15_describe_groups::handle(broker, frame),
        16 => k16_list_groups::handle(broker, frame),
        19 => k19_create_topics::forward(broker, frame),
        20 => k20_delete_topics::forward(broker, frame),
        21 => k21_delete_records::handle(broker, frame),
        22 => k22_init_producer_id::handle(broker, frame),
        23 => k23_offset_for_leader_epoch::handle(broker, frame),
        32 => k32_describe_configs::handle(broker, frame),
        33 => k33_alter_configs::forward(broker, frame),
        35 => k35_describe_log_dirs::handle(broker, frame),
        37 => k37_create_partitions::forward(broker, frame),
        42 => k42_delete_groups::handle(broker, frame),
        43 => k43_elect_leaders::forward(broker, frame),
        44 => k44_incremental_alter_configs::forward(broker, frame),
        45 => k45_alter_partition_reassignments::forward(broker, frame),
        46 => k46_list_partition_reassignments::forward(broker, frame),
        47 => k47_offset_delete::handle(broker, frame),
        55 => k55_describe_quorum::forward(broker, frame),
        57 => k57_update_features::forward(broker, frame),
        60 => k60_describe_cluster::handle(broker, frame),
        61 => k61_describe_producers::handle(broker, frame),
        64 => k64_unregister_broker::forward(broker, frame),
        74 => k74_list_config_resources::handle(broker, frame),
        75 => k75_describe_topic_partitions::handle(broker, frame),
        api_key => Err(Refusal::NotOffered { api_key, version: frame.api_version }),
    }
}

/// Handles one request at the controller.
pub(crate) fn controller(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    if frame.api_key == k18_api_versions::KEY {
        let (finalized, at) = controller.finalized();
        return k18_api_versions::handle(CONTROLLER, frame, &finalized, at);
    }
    offered(CONTROLLER, &frame)?;
    match frame.api_key {
        1 => k01_fetch::metadata::handle(controller, frame),
        19 => k19_create_topics::handle(controller, frame),
        20 => k20_delete_topics::handle(controller, frame),
        32 => k32_describe_configs::handle_at_controller(controller, frame),
        33 => k33_alter_configs::handle(controller, frame),
        37 => k37_create_partitions::handle(controller, frame),
        43 => k43_elect_leaders::handle(controller, frame),
        44 => k44_incremental_alter_configs::handle(controller, frame),
        45 => k45_alter_partition_reassignments::handle(controller, frame),
        46 => k46_list_partition_reassignments::handle(controller, frame),
        52 => k52_vote::handle(controller, frame),
        53 => k53_begin_quorum_epoch::handle(controller, frame),
        54 => k54_end_quorum_epoch::handle(controller, frame),
        55 => k55_describe_quorum::handle(controller, frame),
        56 => k56_alter_partition::handle(controller, frame),
        57 => k57_update_features::handle(controller, frame),
        59 => k59_fetch_snapshot::handle(controller, frame),
        60 => k60_describe_cluster::handle_at_controller(controller, frame),
        62 => k62_broker_registration::handle(controller, frame),
        63 => k63_broker_heartbeat::handle(controller, frame),
        64 => k64_unregister_broker::handle(controller, frame),
        67 => k67_allocate_producer_ids::handle(controller, frame),
        api_key => Err(Refusal::NotOffered { api_key, version: frame.api_version }),
    }
}

/// An answer that is there already.
fn now<R: Request>(version: i16, response: &R::Response) -> Handled {
    Ok(Answer::Now(Reply::Frame(encode_response::<R>(version, response)?)))
}

/// Turns a response into a reply where no refusal can be returned any more.
fn reply<R: Request>(version: i16, response: &R::Response) -> Reply {
    encoded(encode_response::<R>(version, response))
}

fn encoded(frame: Result<Frame, CodecError>) -> Reply {
    match frame {
        Ok(frame) => Reply::Frame(frame),
        Err(error) => {
            tracing::warn!(%error, "cannot encode an answer");
            Reply::Close
        }
    }
}

/// Lets the controller decide, and answers when the decision is committed. A controller that is not the active one, or is
/// no more before that, refuses.
fn decide<R: Request>(
    controller: &Arc<ControllerNode>,
    frame: Frame,
    decision: impl FnOnce(&mut Controller, Tick, &R) -> Outcome<R::Response>,
) -> Handled
where
    R::Response: Send + 'static,
{
    let version = frame.api_version;
    let asked = frame.clone();
    let request = decode_request::<R>(frame)?;
    let Some(decided) = controller.decide(|machine, now| decision(machine, now, &request)) else {
        return Ok(Answer::Now(not_controller(&asked)));
    };
    let Some(wait) = decided.wait else { return now::<R>(version, &decided.response) };
    let controller = controller.clone();
    Ok(Answer::Later(Box::pin(async move {
        match controller.committed(&wait).await {
            true => reply::<R>(version, &decided.response),
            false => not_controller(&asked),
        }
    })))
}

fn not_controller(request: &Frame) -> Reply {
    match refusal(request, ErrorCode::NOT_CONTROLLER, None) {
        Ok(Some(frame)) => Reply::Frame(frame),
        // Whoever asked tries another one when the connection is gone.
        _ => Reply::Close,
    }
}

/// Answers a request about the quorum when what it led to is durable.
fn reply_when_durable<R: Request>(
    controller: &Arc<ControllerNode>,
    version: i16,
    request: &broker_lite_core::quorum::Request,
    answer: impl FnOnce(Answered) -> R::Response,
) -> Handled {
    let Some((answered, asked)) = controller.answer(request) else { return Ok(Answer::Now(Reply::Close)) };
    let reply = reply::<R>(version, &answer(answered));
    if controller.is_durable(asked) {
        return Ok(Answer::Now(reply));
    }
    let controller = controller.clone();
    Ok(Answer::Later(Box::pin(async move {
        controller.durable(asked).await;
        reply
    })))
}

/// Passes a request on to the controller as it is, and its answer back after `follow` is done.
fn forward(
    broker: &Arc<Broker>,
    frame: Frame,
    follow: impl FnOnce(Arc<Broker>, Frame) -> Follow + Send + 'static,
) -> Handled {
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        match broker.ask_controller("forward", GivenUp::WhenDeposed, frame).await {
            Ok(answer) => {
                follow(broker, answer.clone()).await;
                Reply::Frame(answer)
            }
            Err(error) => {
                tracing::info!(broker = broker.id(), %error, "cannot forward to the controller");
                Reply::Close
            }
        }
    })))
}

/// Makes the controller's answer to a part of a request into the answer to all of it.
type Merge<R> = Box<dyn FnOnce(<R as Request>::Response) -> <R as Request>::Response + Send>;

/// Passes on what is left of a request when this broker has refused its part.
fn forward_rest<R: Request + Send + 'static>(
    broker: &Arc<Broker>,
    version: i16,
    rest: &R,
    merge: Merge<R>,
) -> Handled
where
    R::Response: Send,
{
    let frame = encode_request(version, rest)?;
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        let answer = broker
            .ask_controller("forward", GivenUp::WhenDeposed, frame)
            .await
            .map_err(|error| error.to_string());
        match answer.and_then(|answer| decode_response::<R>(answer).map_err(|error| error.to_string())) {
            Ok(response) => reply::<R>(version, &merge(response)),
            Err(error) => {
                tracing::info!(broker = broker.id(), error, "cannot forward to the controller");
                Reply::Close
            }
        }
    })))
}

/// What a broker waits for before it passes an answer of the controller on.
type Follow = klamm_wire::seam::BoxFuture<()>;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
