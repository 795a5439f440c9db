//! Bytes from a hostile peer: an error or a message, never a panic, and memory only in proportion.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::alloc::System;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;
use klamm_wire::Request;
use klamm_wire::codec::{CodecError, decode_any_request, decode_any_response};
use klamm_wire::schema::{Kind, api_keys, versions};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// All that decoding one byte may reserve. The dearest is a tagged field that nobody knows: two
/// bytes become an entry of a B-tree of some 60 bytes, as its nodes are half full.
const PER_BYTE: usize = 64;
/// The error's text, the shared buffer's count.
const PER_MESSAGE: usize = 1024;

/// Decodes and returns the bytes reserved on the way, those given back included.
fn decode(kind: Kind, key: i16, version: i16, body: &[u8]) -> (Result<(), CodecError>, usize) {
    let body = Bytes::copy_from_slice(body);
    let region = Region::new(MEMORY);
    let result = match kind {
        Kind::Request => decode_any_request(key, version, body),
        Kind::Response => decode_any_response(key, version, body),
    };
    (result, region.change().bytes_allocated)
}

struct Sample {
    kind: Kind,
    key: i16,
    version: i16,
    body: Bytes,
}

fn push<R: Request>(samples: &mut Vec<Sample>, request: &R, response: &R::Response) {
    add(samples, Kind::Request, R::KEY, R::VERSIONS.max, request);
    add(samples, Kind::Response, R::KEY, R::VERSIONS.max, response);
}

/// The message in every version that has room for it.
fn add(samples: &mut Vec<Sample>, kind: Kind, key: i16, last: i16, message: &impl Encodable) {
    let before = samples.len();
    for version in 0..=last {
        let mut body = BytesMut::new();
        if message.encode(&mut body, version).is_ok() {
            samples.push(Sample { kind, key, version, body: body.freeze() });
        }
    }
    assert!(samples.len() > before, "{kind:?} of api key {key} fits no version");
}

/// Messages with something in every corner, in many versions.
fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    data(&mut all);
    cluster(&mut all);
    all
}

fn data(all: &mut Vec<Sample>) {
    use kafka_protocol::messages::{fetch_request as fq, fetch_response as fr, list_offsets_request as lq};
    use kafka_protocol::messages::{
        list_offsets_response as lr, produce_request as pq, produce_response as pr,
    };

    let records = Bytes::from_static(&[7; 40]);
    let partition = pq::PartitionProduceData::default().with_records(Some(records.clone()));
    let topic = pq::TopicProduceData::default().with_partition_data(vec![partition; 3]);
    let failed = pr::BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some("bad".into()));
    let answer = pr::PartitionProduceResponse::default().with_record_errors(vec![failed; 2]);
    let answers = pr::TopicProduceResponse::default().with_partition_responses(vec![answer; 2]);
    push(
        all,
        &ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic; 2]),
        &ProduceResponse::default().with_responses(vec![answers; 2]),
    );

    let partitions = vec![fq::FetchPartition::default(); 3];
    let fetched = fr::PartitionData::default()
        .with_records(Some(records))
        .with_aborted_transactions(Some(vec![fr::AbortedTransaction::default(); 2]));
    push(
        all,
        &FetchRequest::default().with_topics(vec![fq::FetchTopic::default().with_partitions(partitions); 2]),
        &FetchResponse::default().with_responses(vec![
            fr::FetchableTopicResponse::default()
                .with_partitions(vec![fetched; 3]);
            2
        ]),
    );
    let diverging = fr::EpochEndOffset::default().with_epoch(3).with_end_offset(9);
    let diverging = fr::PartitionData::default().with_diverging_epoch(diverging);
    let diverging = fr::FetchableTopicResponse::default().with_partitions(vec![diverging]);
    let endpoint = fr::NodeEndpoint::default().with_host("h".into());
    push(
        all,
        &FetchRequest::default(),
        &FetchResponse::default().with_responses(vec![diverging]).with_node_endpoints(vec![endpoint; 2]),
    );

    let asked = lq::ListOffsetsTopic::default().with_partitions(vec![Default::default(); 3]);
    let told = lr::ListOffsetsTopicResponse::default().with_partitions(vec![Default::default(); 3]);
    push(
        all,
        &ListOffsetsRequest::default().with_topics(vec![asked; 2]),
        &ListOffsetsResponse::default().with_topics(vec![told; 2]),
    );
}

fn cluster(all: &mut Vec<Sample>) {
    use kafka_protocol::messages::{
        api_versions_response as av, create_topics_request as ct, metadata_response as mr,
    };

    let partition = mr::MetadataResponsePartition::default()
        .with_replica_nodes(vec![1.into(), 2.into(), 3.into()])
        .with_isr_nodes(vec![1.into(); 3]);
    let topic = mr::MetadataResponseTopic::default()
        .with_name(Some(TopicName("t".into())))
        .with_partitions(vec![partition; 3]);
    let broker = mr::MetadataResponseBroker::default().with_host("localhost".into());
    push(
        all,
        &MetadataRequest::default().with_topics(Some(vec![Default::default(); 3])),
        &MetadataResponse::default().with_topics(vec![topic; 2]).with_brokers(vec![broker; 3]),
    );
    push(
        all,
        &ApiVersionsRequest::default(),
        &ApiVersionsResponse::default().with_api_keys(vec![av::ApiVersion::default(); 9]),
    );
    let assignment = ct::CreatableReplicaAssignment::default().with_broker_ids(vec![1.into(); 3]);
    let new = ct::CreatableTopic::default()
        .with_assignments(vec![assignment; 2])
        .with_configs(vec![ct::CreatableTopicConfig::default().with_value(Some("v".into())); 2]);
    push(
        all,
        &CreateTopicsRequest::default().with_topics(vec![new; 2]),
        &CreateTopicsResponse::default().with_topics(vec![Default::default(); 2]),
    );
    push(
        all,
        &AlterPartitionRequest::default().with_topics(vec![Default::default(); 2]),
        &AlterPartitionResponse::default().with_topics(vec![Default::default(); 2]),
    );
    push(
        all,
        &DescribeTopicPartitionsRequest::default().with_cursor(Some(Default::default())),
        &DescribeTopicPartitionsResponse::default().with_topics(vec![Default::default(); 2]),
    );
}

/// One change to a body.
#[derive(Debug, Clone)]
enum Change {
    Set(u8),
    Insert(u8),
    Remove,
    Cut,
    /// A length in the plain or the compact form.
    Length(i32),
    Compact(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any::<u8>().prop_map(Change::Set),
        1 => any::<u8>().prop_map(Change::Insert),
        1 => Just(Change::Remove),
        1 => Just(Change::Cut),
        2 => prop_oneof![Just(i32::MAX), Just(i32::MIN), Just(-1), 0i32..4000].prop_map(Change::Length),
        2 => (0u8..=0x1f).prop_map(Change::Compact),
    ]
}

fn apply(body: &mut Vec<u8>, at: usize, change: &Change) {
    let write = |body: &mut Vec<u8>, bytes: &[u8]| {
        for (place, byte) in body.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    match change {
        Change::Set(byte) => write(body, &[*byte]),
        Change::Insert(byte) => body.insert(at, *byte),
        Change::Remove if at < body.len() => drop(body.remove(at)),
        Change::Remove => {}
        Change::Cut => body.truncate(at),
        Change::Length(length) => write(body, &length.to_be_bytes()),
        Change::Compact(last) => write(body, &[0xff, 0xff, 0xff, 0xff, *last]),
    }
}

/// The counter sees all threads, so everything runs on the one thread of one test.
#[test]
fn hostile_bytes_do_no_harm() {
    unbent_messages_pass();
    four_bad_bytes_reserve_nothing();
    the_dearest_bytes_stay_in_proportion();
    large_messages_of_next_to_nothing_are_refused();
    bent_messages_do_no_harm();
    random_bytes_do_no_harm();
}

fn within_bounds(kind: Kind, key: i16, version: i16, body: &[u8]) -> Result<(), TestCaseError> {
    let (result, reserved) = decode(kind, key, version, body);
    prop_assert!(!matches!(result, Err(CodecError::Invalid { .. })), "passed the walk: {result:?}");
    let bound = PER_BYTE * body.len() + PER_MESSAGE;
    prop_assert!(reserved <= bound, "{kind:?} {key} {version}: {reserved} B reserved for {} B", body.len());
    Ok(())
}

/// Messages of what this project speaks, changed in a few places.
fn bent_messages_do_no_harm() {
    let samples = samples();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), change()), 1..4);
    let bend = |changes: Vec<(prop::sample::Index, Change)>| {
        for Sample { kind, key, version, body } in &samples {
            let mut body = body.to_vec();
            for (at, change) in &changes {
                let at = at.index(body.len() + 1);
                apply(&mut body, at, change);
            }
            within_bounds(*kind, *key, *version, &body)?;
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(256)).run(&changes, bend).unwrap();
}

/// Anything at all, for every api in every version.
fn random_bytes_do_no_harm() {
    let few = prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), Just(0x7f)];
    let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(few, 0..200)];
    let offer = |body: Vec<u8>| {
        for key in api_keys() {
            for kind in [Kind::Request, Kind::Response] {
                let (min, max) = versions(kind, key).unwrap();
                for version in min..=max {
                    within_bounds(kind, key, version, &body)?;
                }
            }
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(128)).run(&bytes, offer).unwrap();
}

fn unbent_messages_pass() {
    let samples = samples();
    assert!(samples.len() > 100, "{}", samples.len());
    for Sample { kind, key, version, body } in samples {
        assert_eq!(decode(kind, key, version, &body).0, Ok(()), "{kind:?} {key} {version}");
    }
}

/// Goal: kafka-protocol alone reserves room for 2^31 topics here, which ends the process.
fn four_bad_bytes_reserve_nothing() {
    for version in 0..=8 {
        let (result, reserved) = decode(Kind::Request, 3, version, &i32::MAX.to_be_bytes());
        assert!(matches!(result, Err(CodecError::Malformed(_))), "{result:?}");
        assert!(reserved <= 64, "the frame's list of chunks, but {reserved} B");
    }
}

/// Goal: the cheapest elements, as many as fit, stay within the bound.
fn the_dearest_bytes_stay_in_proportion() {
    // ApiVersions 3: two empty strings and 60 unknown tagged fields without content.
    let mut body = vec![1, 1, 60];
    body.extend((0..60).flat_map(|tag| [tag, 0]));
    let (result, reserved) = decode(Kind::Request, 18, 3, &body);
    assert_eq!(result, Ok(()));
    assert!(reserved <= PER_BYTE * body.len(), "{reserved}");

    // Produce 13: 100 topics without partitions; 18 bytes each.
    let mut body = vec![0, 0, 1, 0, 0, 0, 1, 101];
    body.extend([0; 16].into_iter().chain([1, 0]).cycle().take(1800));
    body.push(0);
    let (result, reserved) = decode(Kind::Request, 0, 13, &body);
    assert_eq!(result, Ok(()));
    assert!(reserved <= PER_BYTE * body.len(), "{reserved}");
}

/// Goal: the dearest bytes do not multiply by the size of the largest request.
fn large_messages_of_next_to_nothing_are_refused() {
    // DescribeConfigs 4: one resource with a million empty names of settings; 32 B of memory for each byte.
    let mut body = vec![2, 2, 2, b't', 0xc1, 0x84, 0x3d];
    body.extend(std::iter::repeat_n(1, 1_000_000));
    body.extend([0, 0, 0, 0]);
    // ApiVersions 3: a million unknown tagged fields, in order.
    let mut tags = vec![1, 1, 0xc0, 0x84, 0x3d];
    for tag in 0_u32..1_000_000 {
        let mut rest = tag;
        while rest >= 0x80 {
            tags.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        tags.extend([rest as u8, 0]);
    }
    for (key, version, body) in [(32, 4, body), (18, 3, tags)] {
        let (result, reserved) = decode(Kind::Request, key, version, &body);
        assert!(matches!(result, Err(CodecError::Malformed(_))), "{key}: {result:?}");
        assert!(reserved <= PER_MESSAGE, "{reserved}");
    }
    // A Metadata request for 100,000 topics is unusual, but meant.
    let mut body = vec![0xa1, 0x8d, 6];
    body.extend([0; 16].into_iter().chain([2, b't', 0]).cycle().take(19 * 100_000));
    body.extend([0, 0, 0]);
    assert_eq!(decode(Kind::Request, 3, 12, &body).0, Ok(()));
}
