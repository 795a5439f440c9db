//! FetchSnapshot (59): versions 0 and 1; voters and brokers that are far behind fetch a snapshot from the leader.

use std::sync::Arc;

use broker_lite_core::metadata::METADATA_TOPIC;
use broker_lite_core::quorum::{Head, Response, SnapshotId};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_request};
use klamm_wire::messages::fetch_snapshot_request::{PartitionSnapshot, SnapshotId as WireId, TopicSnapshot};
use klamm_wire::messages::{
    BrokerId, FetchSnapshotRequest, FetchSnapshotResponse, TopicName, fetch_snapshot_response,
};
use klamm_wire::seam::Frame;
use uuid::Uuid;

use super::k01_fetch::metadata::replica;
use super::quorum::{head, head_with, leader_endpoint, leader_id, topic};
use super::{Handled, now, text};
use crate::cluster_id::ClusterId;
use crate::controller::{Answered, ControllerNode};

const VERSION: i16 = 1;
/// Bytes asked for at a time, as Kafka does (`controller.quorum.fetch.snapshot.max.bytes`).
const MAX_BYTES: i32 = 1 << 20;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    /// A voter.
    Voter(i32),
    /// A broker, with its log directory.
    Broker(i32, Uuid),
}

/// Asks for the part of a snapshot from `position` on.
pub(crate) fn request(
    cluster_id: &ClusterId,
    asker: Asker,
    epoch: i32,
    id: SnapshotId,
    position: u64,
) -> Result<Frame, CodecError> {
    let (replica, directory) = match asker {
        Asker::Voter(id) => (id, Uuid::nil()),
        Asker::Broker(id, directory) => (id, directory),
    };
    let snapshot = WireId::default().with_end_offset(id.end_offset).with_epoch(id.epoch);
    let partition = PartitionSnapshot::default()
        .with_current_leader_epoch(epoch)
        .with_snapshot_id(snapshot)
        .with_position(i64::try_from(position).unwrap_or(i64::MAX))
        .with_replica_directory_id(directory);
    let topic = TopicSnapshot::default().with_name(topic()).with_partitions(vec![partition]);
    let request = FetchSnapshotRequest::default()
        .with_cluster_id(cluster_id.field())
        .with_replica_id(BrokerId(replica))
        .with_max_bytes(MAX_BYTES)
        .with_topics(vec![topic]);
    encode_request(VERSION, &request)
}

/// What came.
pub(crate) fn response(frame: Frame) -> Result<Answered, CodecError> {
    let answer = decode_response::<FetchSnapshotRequest>(frame)?;
    let found = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let inner = found
        .as_ref()
        .map(|found| (found.error_code, found.current_leader.leader_id, found.current_leader.leader_epoch));
    let head = head(answer.error_code, inner);
    let found = found.unwrap_or_default();
    let id = SnapshotId { end_offset: found.snapshot_id.end_offset, epoch: found.snapshot_id.epoch };
    let count = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let (size, position) = (count(found.size), count(found.position));
    Ok(Response::Snapshot { head, id, size, position, bytes: found.unaligned_records })
}

/// At a voter.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FetchSnapshotRequest>(frame)?;
    if !controller.seat.cluster_id.fits(request.cluster_id.as_deref()) {
        let code = ErrorCode::INCONSISTENT_CLUSTER_ID;
        return now::<FetchSnapshotRequest>(
            version,
            &FetchSnapshotResponse::default().with_error_code(code.0),
        );
    }
    let topic = request.topics.iter().find(|topic| &**topic.name == METADATA_TOPIC);
    let asked = topic.and_then(|topic| topic.partitions.iter().find(|found| found.partition == 0));
    let Some(asked) = asked else {
        let first = request.topics.first().and_then(|topic| Some((topic, topic.partitions.first()?)));
        let Some((topic, partition)) = first else {
            let code = ErrorCode::INVALID_REQUEST;
            let refused = FetchSnapshotResponse::default().with_error_code(code.0);
            return now::<FetchSnapshotRequest>(version, &refused);
        };
        let head = head_with(controller, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let unknown = fetch_snapshot_response::PartitionSnapshot::default()
            .with_index(partition.partition)
            .with_error_code(head.error.0);
        return now::<FetchSnapshotRequest>(
            version,
            &answer(controller, version, &head, topic.name.clone(), unknown),
        );
    };
    let id = SnapshotId { end_offset: asked.snapshot_id.end_offset, epoch: asked.snapshot_id.epoch };
    let position = u64::try_from(asked.position).unwrap_or(u64::MAX);
    let who = replica(controller, request.replica_id.0, asked.replica_directory_id);
    let max_bytes = usize::try_from(request.max_bytes.min(MAX_BYTES)).unwrap_or(0);
    let part = controller.snapshot_part(who, asked.current_leader_epoch, id, position, max_bytes);
    let head: &Head = match &part {
        Ok((.., head)) | Err(head) => head,
    };
    let leader = fetch_snapshot_response::LeaderIdAndEpoch::default()
        .with_leader_id(leader_id(head))
        .with_leader_epoch(head.epoch);
    let mut partition = fetch_snapshot_response::PartitionSnapshot::default()
        .with_error_code(head.error.0)
        .with_current_leader(leader);
    if let Ok((size, bytes, _)) = &part {
        let snapshot = fetch_snapshot_response::SnapshotId::default();
        partition = partition
            .with_snapshot_id(snapshot.with_end_offset(id.end_offset).with_epoch(id.epoch))
            .with_size(i64::try_from(*size).unwrap_or(i64::MAX))
            .with_position(asked.position)
            .with_unaligned_records(bytes.clone());
    }
    now::<FetchSnapshotRequest>(version, &answer(controller, version, head, self::topic(), partition))
}

fn answer(
    controller: &ControllerNode,
    version: i16,
    head: &Head,
    topic: TopicName,
    partition: fetch_snapshot_response::PartitionSnapshot,
) -> FetchSnapshotResponse {
    let topic =
        fetch_snapshot_response::TopicSnapshot::default().with_name(topic).with_partitions(vec![partition]);
    let endpoint = leader_endpoint(controller, head).filter(|_| version >= 1).map(|(leader, at)| {
        let endpoint = fetch_snapshot_response::NodeEndpoint::default().with_node_id(leader);
        endpoint.with_host(text(&at.host)).with_port(at.port)
    });
    FetchSnapshotResponse::default()
        .with_topics(vec![topic])
        .with_node_endpoints(endpoint.into_iter().collect())
}
