//! Front doors: any bytes on a connection to the broker, or to the voter, of a running cluster of one broker and one voter.
//!
//! In: bytes. The first chooses between a raw stream and frames that are put together here, with proper headers and
//! correlation ids, so that the fuzzer gets past the header. Out: a panic if the broker panicked, hung, answered
//! something that is not an answer, or is no longer there for others.
//!
//! The connection is the one that a socket would carry, on an in-memory stream. The runtime has a paused clock, so that
//! long polls take no time. The cluster is made anew every [`KEPT`] inputs, so a finding may need its predecessors.
#![allow(clippy::panic, reason = "this is how a fuzz target reports")]

use std::cell::{Cell, RefCell};
use std::sync::Once;
use std::time::Duration;

use broker_lite::Cluster;
use bytes::Bytes;
use klamm_wire::codec::{self, CodecError};
use klamm_wire::framing::{FrameSplitter, length_prefix};
use klamm_wire::messages::create_topics_request::CreatableTopic;
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use klamm_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_wire::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, ApiVersionsRequest, BeginQuorumEpochRequest,
    BrokerHeartbeatRequest, BrokerId, BrokerRegistrationRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeQuorumRequest, EndQuorumEpochRequest, FetchRequest, FetchSnapshotRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    TopicName, VoteRequest, alter_partition_request, begin_quorum_epoch_request, broker_registration_request,
    describe_quorum_request, end_quorum_epoch_request, fetch_snapshot_request, vote_request,
};
use klamm_wire::schema::{self, Kind};
use klamm_wire::{Compression, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::runtime::Runtime;

use super::corpus::batch;
use super::groups;

/// First byte of an input whose rest is the stream: its lowest bit says that, the upper half how the stream is torn.
pub const STREAM: u8 = 0xf0;
/// First byte of an input whose rest is frames, as [`frame`] makes them.
pub const FRAMES: u8 = 0xf1;

/// What one input may make the broker and its cluster allocate.
///
/// The largest part is CreateTopics with the 10,000 partitions that one request may ask for: 7.1 kB for each, of which 3.4 kB stay.
pub(super) const FIXED_BYTES: usize = 80 << 20;
pub(super) const BYTES_PER_BYTE: usize = 4096;

/// Inputs for one cluster.
const KEPT: u32 = 64;
/// A connection takes in 64 requests at a time. Behind that many, a long poll holds up what follows, rightly.
const MOST_FRAMES: usize = 60;
const MOST_STREAM_BYTES: usize = 800;
/// Virtual time for one conversation.
const PATIENCE: Duration = Duration::from_secs(60);
const BROKER: i32 = 1;
const VOTER: i32 = 3001;
const TOPIC: &str = "orders";
const API_VERSIONS: i16 = 18;
const API_VERSIONS_LATEST: i16 = 4;
const PRODUCE: i16 = 0;

/// A frame within an input: api key, version, length and body.
pub fn frame(api_key: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(u16::MAX.into())];
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&[api_key, version], &length.to_be_bytes()[..], body].concat()
}

/// Knocks with this input.
///
/// # Panics
///
/// If anything is wrong with how the broker takes it.
pub fn knock(input: &[u8]) {
    HOUSE.with_borrow_mut(|house| House::answer(house, BROKER, input));
}

/// As [`knock`], at the door of the voter.
///
/// # Panics
///
/// If anything is wrong with how the voter takes it, or it does not lead any more.
pub fn knock_at_voter(input: &[u8]) {
    VOTERS_HOUSE.with_borrow_mut(|house| House::answer(house, VOTER, input));
}

/// Ends this thread's clusters, if it has any.
pub fn leave() {
    HOUSE.take();
    VOTERS_HOUSE.take();
}

std::thread_local! {
    static HOUSE: RefCell<Option<House>> = const { RefCell::new(None) };
    static VOTERS_HOUSE: RefCell<Option<House>> = const { RefCell::new(None) };
}

struct House {
    /// Whose door it is.
    door: i32,
    /// Before the runtime: a cluster stops its tasks when dropped.
    cluster: Cluster,
    runtime: Runtime,
    inputs: u32,
    /// Id of the member of the samples' group; inputs name it by [`groups::MEMBER`].
    member: String,
}

/// Panics on this thread so far; the first call begins to count. A runtime catches those of its tasks, and all that is
/// seen from outside is a closed connection.
fn panics() -> u32 {
    static COUNTING: Once = Once::new();
    std::thread_local! {
        static PANICS: Cell<u32> = const { Cell::new(0) };
    }
    COUNTING.call_once(|| {
        let reported = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            reported(panic);
        }));
    });
    PANICS.get()
}

/// What was asked, in order.
struct Asked {
    stream: Vec<u8>,
    /// Api key and version by correlation id; empty if the fuzzer made its own frames.
    frames: Vec<(i16, i16)>,
    /// Into pieces of this size.
    tear: usize,
}

impl House {
    fn answer(house: &mut Option<Self>, door: i32, input: &[u8]) {
        if house.as_ref().is_none_or(|house| house.inputs >= KEPT) {
            *house = Some(Self::new(door));
        }
        if let Some(house) = house {
            house.inputs += 1;
            house.knock(input);
        }
    }

    fn new(door: i32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        let cluster = Cluster::builder().brokers(1).seed(1).topic(TOPIC, Some(2), Some(1));
        let cluster = cluster.config("offsets.topic.num.partitions", "1");
        let cluster = cluster.config("group.initial.rebalance.delay.ms", "0").start();
        let cluster = runtime.block_on(cluster).unwrap_or_else(|error| panic!("no cluster: {error}"));
        let mut house = Self { door, cluster, runtime, inputs: 0, member: String::new() };
        if door == BROKER {
            house.member = groups::found(|frames| house.converse(&Asked::frames(frames, 64)));
        }
        house
    }

    fn knock(&self, input: &[u8]) {
        let Some(asked) = Asked::of(&groups::named(input, &self.member)) else { return };
        let before = panics();
        let answers = self.converse(&asked);
        assert_eq!(panics(), before, "a task of the cluster panicked");
        if !asked.frames.is_empty() {
            check_answers(&asked.frames, answers);
        }
        let alive = Asked::frames(&[], 64);
        assert_eq!(self.converse(&alive).len(), 1, "others are answered no more");
        assert_eq!(self.cluster.controller(), Some(VOTER), "the only voter leads no more");
        let report = self.cluster.check();
        assert!(report.is_ok(), "{report}");
    }

    /// Everything that comes back until the connection is closed.
    fn converse(&self, asked: &Asked) -> Vec<Bytes> {
        let conversation = async {
            let (client, server) = duplex(4096);
            let (read, write) = split(server);
            let served = self.cluster.serve_stream(self.door, "fuzzer", read, write);
            served.unwrap_or_else(|error| panic!("{error}"));
            let (mut read, mut write) = split(client);
            let ask = async {
                for piece in asked.stream.chunks(asked.tear) {
                    if write.write_all(piece).await.is_err() {
                        return; // closed
                    }
                }
                let _ = write.shutdown().await;
            };
            let mut came = Vec::new();
            let (_, ended) = tokio::join!(ask, read.read_to_end(&mut came));
            ended.map(|_| came)
        };
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, conversation).await });
        let came = ended.unwrap_or_else(|_| panic!("neither answered nor closed within {PATIENCE:?}"));
        let came = came.unwrap_or_else(|error| panic!("an in-memory stream fails: {error}"));
        let mut splitter = FrameSplitter::new(1 << 30);
        splitter.push(&came);
        let answers = std::iter::from_fn(|| splitter.next_frame().unwrap_or_else(|error| panic!("{error}")));
        let answers: Vec<_> = answers.collect();
        assert_eq!(splitter.pending_bytes(), 0, "an answer is cut off");
        answers
    }
}

impl Asked {
    fn of(input: &[u8]) -> Option<Self> {
        let (&mode, rest) = input.split_first()?;
        // From one byte at a time to everything at once.
        let tear = 1 << (mode >> 4);
        if mode & 1 == 0 {
            let stream = rest[..rest.len().min(MOST_STREAM_BYTES)].to_vec();
            return Some(Self { stream, frames: Vec::new(), tear });
        }
        Some(Self::frames(rest, tear))
    }

    /// The last frame asks for versions: if that is answered, no answer before it is still to come.
    fn frames(mut rest: &[u8], tear: usize) -> Self {
        let mut asked = Self { stream: Vec::new(), frames: Vec::new(), tear };
        while asked.frames.len() < MOST_FRAMES
            && let Some((&[api_key, version, high, low], body)) = rest.split_first_chunk::<4>()
        {
            let (body, left) = body.split_at(body.len().min(u16::from_be_bytes([high, low]).into()));
            rest = left;
            asked.push(api_key.into(), version.into(), body);
        }
        asked.push(API_VERSIONS, 0, &[]);
        asked
    }

    fn push(&mut self, api_key: i16, version: i16, body: &[u8]) {
        let id = i32::try_from(self.frames.len()).unwrap_or(i32::MAX);
        let head = codec::encode_request_header(api_key, version, id, Some("fuzzer"));
        self.frames.push((api_key, version));
        self.stream.extend(length_prefix(head.len() + body.len()).unwrap_or_default());
        self.stream.extend_from_slice(&head);
        self.stream.extend_from_slice(body);
    }
}

/// Answers come in order, each in the version asked for; only `acks=0` leaves one out.
fn check_answers(frames: &[(i16, i16)], answers: Vec<Bytes>) {
    let mut next = 0;
    for mut answer in answers {
        let id = codec::peek_correlation_id(&answer).and_then(|id| usize::try_from(id).ok());
        let id = id.filter(|id| (next..frames.len()).contains(id));
        let id = id.unwrap_or_else(|| panic!("an answer to nothing that is due: {answer:02x?}"));
        let left_out = frames[next..id].iter().find(|(api_key, _)| *api_key != PRODUCE);
        assert!(left_out.is_none(), "no answer to {left_out:?}");
        let (api_key, mut version) = frames[id];
        if api_key == API_VERSIONS && version > API_VERSIONS_LATEST {
            version = 0;
        }
        codec::decode_response_header(api_key, version, &mut answer)
            .unwrap_or_else(|error| panic!("{error}"));
        let walked = schema::walk(Kind::Response, api_key, version, &answer);
        walked.unwrap_or_else(|error| panic!("answer to api {api_key} in version {version}: {error}"));
        // There are versions that Kafka's schemas have and our codec has not.
        let decoded = match codec::decode_any_response(api_key, version, answer) {
            Err(CodecError::UnsupportedVersion { .. }) => Ok(()),
            decoded => decoded,
        };
        decoded.unwrap_or_else(|error| panic!("answer to api {api_key} in version {version}: {error}"));
        next = id + 1;
    }
}

/// Requests that make sense to this cluster, alone and one after the other.
pub(super) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let name = || TopicName(StrBytes::from_static_str(TOPIC));
    let records = batch(Compression::None).map(Bytes::from).ok();
    let partition = PartitionProduceData::default().with_records(records);
    let produce = ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![
        TopicProduceData::default().with_name(name()).with_partition_data(vec![partition]),
    ]);
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let fetch = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![FetchTopic::default().with_topic(name()).with_partitions(vec![partition])]);
    let offsets = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(name())
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]),
    ]);
    let epochs = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        OffsetForLeaderTopic::default()
            .with_topic(name())
            .with_partitions(vec![OffsetForLeaderPartition::default().with_leader_epoch(0)]),
    ]);
    let other = || TopicName(StrBytes::from_static_str("other"));
    let create = CreateTopicsRequest::default().with_timeout_ms(1_000).with_topics(vec![
        CreatableTopic::default().with_name(other()).with_num_partitions(2).with_replication_factor(1),
    ]);
    let delete = DeleteTopicsRequest::default().with_timeout_ms(1_000).with_topic_names(vec![other()]);
    let metadata = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name()))]))
        .with_allow_auto_topic_creation(false);
    let mut single = vec![
        ("produce", request(9, &produce)),
        ("produce-unanswered", request(9, &produce.clone().with_acks(0))),
        ("fetch", request(12, &fetch)),
        ("list-offsets", request(7, &offsets)),
        ("epochs", request(4, &epochs)),
        ("create", request(5, &create)),
        ("delete", request(5, &delete)),
        ("metadata", request(9, &metadata)),
        ("producer-id", request(4, &InitProducerIdRequest::default().with_transaction_timeout_ms(1_000))),
        ("versions", request(3, &ApiVersionsRequest::default())),
        ("cluster", request(1, &DescribeClusterRequest::default())),
    ];
    single.extend(groups::samples());
    let whole = single.iter().flat_map(|(_, frame)| frame.iter().copied()).collect();
    let all = single.into_iter().chain([("one-after-the-other", whole)]);
    all.map(|(name, frames)| (name, [&[FRAMES], &frames[..]].concat())).collect()
}

/// Requests that make sense to the voter of this cluster, alone and one after the other.
pub(super) fn voter_samples() -> Vec<(&'static str, Vec<u8>)> {
    let log = || TopicName(StrBytes::from_static_str("__cluster_metadata"));
    let vote = vote_request::PartitionData::default().with_replica_id(BrokerId(2)).with_replica_epoch(1);
    let vote = VoteRequest::default().with_voter_id(BrokerId(VOTER)).with_topics(vec![
        vote_request::TopicData::default().with_topic_name(log()).with_partitions(vec![vote]),
    ]);
    let begun =
        begin_quorum_epoch_request::PartitionData::default().with_leader_id(BrokerId(2)).with_leader_epoch(1);
    let begun = BeginQuorumEpochRequest::default().with_voter_id(BrokerId(VOTER)).with_topics(vec![
        begin_quorum_epoch_request::TopicData::default().with_topic_name(log()).with_partitions(vec![begun]),
    ]);
    let ended =
        end_quorum_epoch_request::PartitionData::default().with_leader_id(BrokerId(2)).with_leader_epoch(1);
    let ended = EndQuorumEpochRequest::default().with_topics(vec![
        end_quorum_epoch_request::TopicData::default().with_topic_name(log()).with_partitions(vec![ended]),
    ]);
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(1);
    let fetch = FetchRequest::default()
        .with_replica_id(BrokerId(9))
        .with_max_wait_ms(500)
        .with_max_bytes(1 << 20)
        .with_topics(vec![FetchTopic::default().with_topic(log()).with_partitions(vec![partition])]);
    let snapshot = fetch_snapshot_request::SnapshotId::default().with_end_offset(5).with_epoch(1);
    let snapshot = fetch_snapshot_request::PartitionSnapshot::default()
        .with_current_leader_epoch(1)
        .with_snapshot_id(snapshot);
    let snapshot =
        FetchSnapshotRequest::default().with_replica_id(BrokerId(9)).with_max_bytes(100).with_topics(vec![
            fetch_snapshot_request::TopicSnapshot::default().with_name(log()).with_partitions(vec![snapshot]),
        ]);
    let described = describe_quorum_request::PartitionData::default();
    let described = DescribeQuorumRequest::default().with_topics(vec![
        describe_quorum_request::TopicData::default().with_topic_name(log()).with_partitions(vec![described]),
    ]);
    let listener = broker_registration_request::Listener::default()
        .with_name(StrBytes::from_static_str("PLAINTEXT"))
        .with_host(StrBytes::from_static_str("localhost"))
        .with_port(9);
    let feature = broker_registration_request::Feature::default()
        .with_name(StrBytes::from_static_str("metadata.version"))
        .with_min_supported_version(7)
        .with_max_supported_version(30);
    let registered = BrokerRegistrationRequest::default()
        .with_broker_id(BrokerId(7))
        .with_listeners(vec![listener])
        .with_features(vec![feature]);
    let heartbeat = BrokerHeartbeatRequest::default().with_broker_id(BrokerId(7)).with_broker_epoch(1);
    let ids = AllocateProducerIdsRequest::default().with_broker_id(BrokerId(7)).with_broker_epoch(1);
    let altered = alter_partition_request::PartitionData::default().with_leader_epoch(0);
    let altered = AlterPartitionRequest::default()
        .with_broker_id(BrokerId(BROKER))
        .with_topics(vec![alter_partition_request::TopicData::default().with_partitions(vec![altered])]);
    let single = [
        ("vote", request(2, &vote)),
        ("pre-vote", request(2, &pre_vote(vote.clone()))),
        ("begin-epoch", request(1, &begun)),
        ("end-epoch", request(1, &ended)),
        ("fetch", request(12, &fetch)),
        ("snapshot", request(1, &snapshot)),
        ("quorum", request(2, &described)),
        ("registration", request(4, &registered)),
        ("heartbeat", request(1, &heartbeat)),
        ("producer-ids", request(0, &ids)),
        ("alter-partition", request(3, &altered)),
        ("controllers", request(1, &DescribeClusterRequest::default().with_endpoint_type(2))),
    ];
    let whole = single.iter().flat_map(|(_, frame)| frame.iter().copied()).collect();
    let all = single.into_iter().chain([("one-after-the-other", whole)]);
    all.map(|(name, frames)| (name, [&[FRAMES], &frames[..]].concat())).collect()
}

fn pre_vote(mut vote: VoteRequest) -> VoteRequest {
    vote.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|asked| asked.pre_vote = true);
    vote
}

/// A request as a [`frame`]; empty if this version cannot say it.
pub(super) fn request<R: Request>(version: u8, request: &R) -> Vec<u8> {
    let body = codec::encode_request(version.into(), request).map(|frame| frame.into_contiguous());
    let api_key = u8::try_from(R::KEY).unwrap_or(u8::MAX);
    body.map(|body| frame(api_key, version, &body)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_make_sense_are_all_answered() {
        let house = House::new(BROKER);
        for (name, input) in samples() {
            let asked = Asked::of(&groups::named(&input, &house.member)).unwrap();
            assert!(asked.frames.len() > 1, "{name}");
            let answers = house.converse(&asked);
            let unanswered = usize::from(name == "produce-unanswered" || name == "one-after-the-other");
            assert_eq!(answers.len() + unanswered, asked.frames.len(), "{name}");
            check_answers(&asked.frames, answers);
        }
        // Three times twenty records, of which the idempotent producer's retries are no new ones.
        assert_eq!(house.cluster.high_watermark(TOPIC, 0), Some(20));
    }

    #[test]
    fn requests_that_make_sense_to_a_voter_are_all_answered() {
        let house = House::new(VOTER);
        for (name, input) in voter_samples() {
            let asked = Asked::of(&input).unwrap();
            assert!(asked.frames.len() > 1, "{name}");
            let answers = house.converse(&asked);
            assert_eq!(answers.len(), asked.frames.len(), "{name}");
            check_answers(&asked.frames, answers);
        }
    }

    #[test]
    #[should_panic(expected = "no answer to Some((3, 1))")]
    fn an_answer_left_out_is_a_finding() {
        let version = codec::encode_response_header(18, 0, 1);
        let body = [&version[..], &[0; 6]].concat();
        check_answers(&[(3, 1), (18, 0)], vec![body.into()]);
    }

    #[test]
    #[should_panic(expected = "an answer to nothing that is due")]
    fn an_answer_twice_is_a_finding() {
        let version = codec::encode_response_header(18, 0, 0);
        let body = Bytes::from([&version[..], &[0; 6]].concat());
        check_answers(&[(18, 0)], vec![body.clone(), body]);
    }

    #[test]
    #[should_panic(expected = "answer to api 18 in version 0")]
    fn an_answer_that_cannot_be_read_is_a_finding() {
        let version = codec::encode_response_header(18, 0, 0);
        check_answers(&[(18, 0)], vec![[&version[..], &[0; 5]].concat().into()]);
    }
}
