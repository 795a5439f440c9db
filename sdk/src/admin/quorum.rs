//! The quorum that keeps the cluster's metadata (KRaft).

use klamm_wire::codec;
use klamm_wire::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_wire::messages::describe_quorum_response::{Node, ReplicaState};
use klamm_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use uuid::Uuid;

use super::Admin;
use super::call::{How, Verdict, api, verdict};
use super::cluster::NOT_NOW;
use super::error::AdminError;
use super::topics::topic_name;

const METADATA_LOG: &str = "__cluster_metadata";

/// The quorum, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumDescription {
    /// Node id of the leader: the active controller.
    pub leader: i32,
    /// Epoch of the leader.
    pub leader_epoch: i32,
    /// End of what is committed.
    pub high_watermark: i64,
    /// Those that vote, by id.
    pub voters: Vec<QuorumReplica>,
    /// Those that only read along, the brokers among them, by id.
    pub observers: Vec<QuorumReplica>,
    /// Where voters listen; empty if the broker is too old to tell (KIP-853).
    pub nodes: Vec<QuorumNode>,
}

/// One replica of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumReplica {
    /// Node id.
    pub id: i32,
    /// Id of its log directory; nil if it is not known.
    pub directory: Uuid,
    /// End of its log.
    pub log_end_offset: i64,
    /// When it last fetched, in milliseconds since the Unix epoch by the leader's clock, if the leader tells.
    pub last_fetch_ms: Option<i64>,
    /// When it last had everything, in the same measure, if the leader tells.
    pub last_caught_up_ms: Option<i64>,
}

/// Where a voter listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuorumNode {
    /// Node id.
    pub id: i32,
    /// Name of the listener, its host, and its port.
    pub listeners: Vec<(String, String, u16)>,
}

impl Admin {
    /// Describes the quorum that keeps the cluster's metadata.
    ///
    /// DescribeQuorum, api key 55, to any broker, which hands it on to the quorum's leader.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time, or the broker refuses.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, AdminError> {
        let partition = PartitionData::default().with_partition_index(0);
        let topic =
            TopicData::default().with_topic_name(topic_name(METADATA_LOG)).with_partitions(vec![partition]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let encode = |version| codec::encode_request(version, &request);
        let how = How { again: NOT_NOW, ..How::any() };
        let answer = self.attempts().ask_whole::<DescribeQuorumRequest>(&how, &encode, refusal).await?;
        let log = answer.topics.iter().find(|topic| topic.topic_name.as_str() == METADATA_LOG);
        let partition = log.and_then(|topic| topic.partitions.iter().find(|told| told.partition_index == 0));
        let Some(partition) = partition else {
            let reason = "it does not name the metadata log";
            return Err(AdminError::Senseless { api: api::<DescribeQuorumRequest>(), reason });
        };
        Ok(QuorumDescription {
            leader: partition.leader_id.0,
            leader_epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: replicas(&partition.current_voters),
            observers: replicas(&partition.observers),
            nodes: answer.nodes.iter().map(node).collect(),
        })
    }
}

fn refusal(answer: &DescribeQuorumResponse) -> Verdict<()> {
    verdict(answer.error_code, answer.error_message.as_ref())?;
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.try_for_each(|partition| verdict(partition.error_code, partition.error_message.as_ref()))
}

fn replicas(told: &[ReplicaState]) -> Vec<QuorumReplica> {
    let known = |ms: i64| Some(ms).filter(|ms| *ms >= 0);
    let replica = |told: &ReplicaState| QuorumReplica {
        id: told.replica_id.0,
        directory: told.replica_directory_id,
        log_end_offset: told.log_end_offset,
        last_fetch_ms: known(told.last_fetch_timestamp),
        last_caught_up_ms: known(told.last_caught_up_timestamp),
    };
    let mut replicas: Vec<_> = told.iter().map(replica).collect();
    replicas.sort_by_key(|replica| replica.id);
    replicas
}

fn node(told: &Node) -> QuorumNode {
    let listener = |l: &klamm_wire::messages::describe_quorum_response::Listener| {
        (l.name.as_str().to_owned(), l.host.as_str().to_owned(), l.port)
    };
    QuorumNode { id: told.node_id.0, listeners: told.listeners.iter().map(listener).collect() }
}
