//! Fetch (1) of the metadata log: voters and brokers fetch it from the leader of the quorum.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::METADATA_TOPIC_ID;
use broker_lite_core::quorum::{Fetch, Fetched, Head, Replica, Response, SnapshotId};
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_fetch_response, encode_request};
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use klamm_wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    SnapshotId as WireId,
};
use klamm_wire::messages::{BrokerId, FetchRequest, FetchResponse};
use klamm_wire::seam::Frame;
use uuid::Uuid;

use crate::api::quorum::{head, head_with, leader_endpoint, leader_id, only};
use crate::api::{Handled, encoded, text};
use crate::broker::Signal;
use crate::cluster_id::ClusterId;
use crate::controller::{Answered, ControllerNode, Seat};
use crate::node::{Answer, Reply};

const VERSION: i16 = 18;
/// First version that tells where the leader of the quorum listens (KIP-853).
const LEADER_ENDPOINTS: i16 = 17;
/// First version in which the replica's id stands in a structure of its own.
const REPLICA_STATE: i16 = 15;
/// Most bytes of metadata at a time.
const MAX_BYTES: i32 = 8 << 20;

/// One replica's wish.
struct Wanted {
    version: i16,
    replica: Replica,
    fetch: Fetch,
    max_bytes: usize,
}

/// Who fetches. A voter has no directory of its own while the set of voters is fixed, so that a broker of the same id in
/// the same process is told from it.
pub(in crate::api) fn replica(controller: &ControllerNode, id: i32, directory: Uuid) -> Replica {
    if controller.seat.voters.contains(&id) && directory.is_nil() {
        Replica::Voter(id)
    } else {
        Replica::Observer(id)
    }
}

/// The request of a voter.
pub(in crate::api) fn request(seat: &Seat, fetch: &Fetch, wait: Duration) -> Result<Frame, CodecError> {
    encode(&seat.cluster_id, seat.id, Uuid::nil(), fetch, wait)
}

/// The request of a voter or of a broker, which names its log directory.
pub(crate) fn encode(
    cluster_id: &ClusterId,
    id: i32,
    directory: Uuid,
    fetch: &Fetch,
    wait: Duration,
) -> Result<Frame, CodecError> {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(fetch.offset)
        .with_current_leader_epoch(fetch.epoch)
        .with_last_fetched_epoch(fetch.last_epoch)
        .with_partition_max_bytes(MAX_BYTES)
        .with_replica_directory_id(directory)
        .with_high_watermark(fetch.high_watermark);
    let topic = FetchTopic::default().with_topic_id(METADATA_TOPIC_ID).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_cluster_id(cluster_id.field())
        .with_replica_state(ReplicaState::default().with_replica_id(BrokerId(id)))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(MAX_BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    encode_request(VERSION, &request)
}

/// What came.
pub(crate) fn response(frame: Frame) -> Result<Answered, CodecError> {
    let answer = decode_response::<FetchRequest>(frame)?;
    let data = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
    let inner = data
        .as_ref()
        .map(|data| (data.error_code, data.current_leader.leader_id, data.current_leader.leader_epoch));
    let head = head(answer.error_code, inner);
    let data = data.unwrap_or_default();
    let fetched = if head.error != ErrorCode::NONE {
        Fetched::Refused
    } else if data.snapshot_id.end_offset >= 0 && data.snapshot_id.epoch >= 0 {
        Fetched::Snapshot(SnapshotId {
            end_offset: data.snapshot_id.end_offset,
            epoch: data.snapshot_id.epoch,
        })
    } else if data.diverging_epoch.epoch >= 0 && data.diverging_epoch.end_offset >= 0 {
        Fetched::Diverging { epoch: data.diverging_epoch.epoch, end_offset: data.diverging_epoch.end_offset }
    } else {
        Fetched::Records(data.records.into_iter().collect())
    };
    Ok(Response::Fetch { head, high_watermark: data.high_watermark, fetched })
}

/// Answers when there is something new, or the wait is over.
pub(in crate::api) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FetchRequest>(frame)?;
    let refused = |code: ErrorCode| {
        let refused = FetchResponse::default().with_error_code(code.0);
        Ok(Answer::Now(encoded(encode_fetch_response(version, &refused, &[]))))
    };
    if !controller.seat.cluster_id.fits(request.cluster_id.as_deref()) {
        return refused(ErrorCode::INCONSISTENT_CLUSTER_ID);
    }
    // By id only, as Kafka has it: versions that name topics cannot ask for this one.
    let log = only(&request.topics).filter(|topic| topic.topic_id == METADATA_TOPIC_ID);
    let Some(partition) = log.and_then(|topic| only(&topic.partitions)).filter(|p| p.partition == 0) else {
        return refused(ErrorCode::INVALID_REQUEST);
    };
    // A broker that knows nothing yet names no epoch.
    let newest = partition.current_leader_epoch;
    let ahead = newest >= 0 && partition.last_fetched_epoch > newest;
    if request.max_wait_ms < 0 || partition.fetch_offset < 0 || partition.last_fetched_epoch < 0 || ahead {
        let head = head_with(controller, ErrorCode::INVALID_REQUEST);
        let reply = answer(controller, version, &head, (-1, 0), Fetched::Refused);
        return Ok(Answer::Now(reply));
    }
    let id = if version >= REPLICA_STATE { request.replica_state.replica_id.0 } else { request.replica_id.0 };
    let wanted = Wanted {
        version,
        replica: replica(controller, id, partition.replica_directory_id),
        fetch: Fetch {
            epoch: partition.current_leader_epoch,
            offset: partition.fetch_offset,
            last_epoch: partition.last_fetched_epoch,
            high_watermark: partition.high_watermark,
        },
        max_bytes: usize::try_from(request.max_bytes.min(partition.partition_max_bytes)).unwrap_or(0),
    };
    let wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let signal = Signal::default();
    let (ready, reply) = wanted.read(controller, &signal);
    if ready || wait.is_zero() {
        controller.forget(&signal);
        return Ok(Answer::Now(reply));
    }
    let waiting = Waiting { controller: controller.clone(), signal };
    Ok(Answer::Later(Box::pin(async move {
        let controller = &waiting.controller;
        let deadline = controller.rt().now() + wait;
        let mut over = false;
        loop {
            tokio::select! {
                biased;
                () = waiting.signal.notified() => {}
                () = controller.rt().sleep_until(deadline) => over = true,
            }
            let (ready, reply) = wanted.read(controller, &waiting.signal);
            if ready || over {
                return reply;
            }
        }
    })))
}

/// Leaves no signal behind when the other end goes away.
struct Waiting {
    controller: Arc<ControllerNode>,
    signal: Signal,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.controller.forget(&self.signal);
    }
}

impl Wanted {
    /// The answer as of now, and whether it is worth sending.
    fn read(&self, controller: &Arc<ControllerNode>, signal: &Signal) -> (bool, Reply) {
        let Some((ready, fetched, start)) =
            controller.fetch(self.replica, &self.fetch, self.max_bytes, signal)
        else {
            return (true, Reply::Close);
        };
        let Response::Fetch { head, high_watermark, fetched } = fetched else { return (true, Reply::Close) };
        (ready, answer(controller, self.version, &head, (high_watermark, start), fetched))
    }
}

/// The answer, with high watermark and start of the log.
fn answer(
    controller: &ControllerNode,
    version: i16,
    head: &Head,
    (high_watermark, start): (i64, i64),
    fetched: Fetched<Vec<Bytes>>,
) -> Reply {
    let leader = LeaderIdAndEpoch::default().with_leader_id(leader_id(head)).with_leader_epoch(head.epoch);
    let mut data = PartitionData::default()
        .with_error_code(head.error.0)
        .with_high_watermark(high_watermark)
        .with_last_stable_offset(-1)
        .with_log_start_offset(start)
        .with_current_leader(leader)
        .with_aborted_transactions(Some(Vec::new()))
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Bytes::new()));
    let records = match fetched {
        Fetched::Records(records) => records,
        Fetched::Refused => Vec::new(),
        Fetched::Diverging { epoch, end_offset } => {
            data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset);
            Vec::new()
        }
        Fetched::Snapshot(id) => {
            data.snapshot_id = WireId::default().with_end_offset(id.end_offset).with_epoch(id.epoch);
            Vec::new()
        }
    };
    let topic =
        FetchableTopicResponse::default().with_topic_id(METADATA_TOPIC_ID).with_partitions(vec![data]);
    let endpoint =
        leader_endpoint(controller, head).filter(|_| version >= LEADER_ENDPOINTS).map(|(leader, at)| {
            NodeEndpoint::default().with_node_id(leader).with_host(text(&at.host)).with_port(at.port.into())
        });
    let response = FetchResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(endpoint.into_iter().collect());
    encoded(encode_fetch_response(version, &response, &[vec![records]]))
}
