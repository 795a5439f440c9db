//! Golden bytes of Apache Kafka 4.3.0, made by `tests/tools/record_golden`: what we decode, and that we
//! encode the same bytes again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use std::fs;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use klamm_wire::batch::{HeaderRef, NO_HEADERS, TimestampType};
use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_request, encode_response};
use klamm_wire::messages::*;
use klamm_wire::{BatchBuilder, Compression, ErrorCode, Frame, ProducerStamp, RawBatch, Request, StrBytes};

const LIMIT: usize = 1 << 20;
const CODECS: [Compression; 5] = Compression::ALL;

fn golden(name: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Bytes::from(fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// One line of a `.hex` file.
struct Line {
    api: String,
    version: i16,
    what: String,
    body: Bytes,
}

impl Line {
    fn name(&self) -> String {
        format!("{} v{} {}", self.api, self.version, self.what)
    }

    fn frame<R: Request>(&self) -> Frame {
        Frame::new(R::KEY, self.version, self.body.clone())
    }

    fn response<R: Request>(&self) -> R::Response {
        decode_response::<R>(self.frame::<R>()).unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }
}

fn lines(file: &str) -> Vec<Line> {
    let text = String::from_utf8(golden(file).to_vec()).unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let (api, version, what) = (word().to_owned(), word().parse().unwrap(), word().to_owned());
            Line { api, version, what, body: unhex(word()) }
        })
        .collect()
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn request_again<R: Request>(line: &Line) -> Result<Bytes, CodecError> {
    let message = decode_request::<R>(line.frame::<R>())?;
    Ok(encode_request(line.version, &message)?.into_contiguous())
}

fn response_again<R: Request>(line: &Line) -> Result<Bytes, CodecError> {
    let message = decode_response::<R>(line.frame::<R>())?;
    Ok(encode_response::<R>(line.version, &message)?.into_contiguous())
}

/// Calls `$function::<R>(line)` for the request type that the line names.
macro_rules! by_api {
    ($function:ident, $line:expr) => {
        match $line.api.as_str() {
            "Produce" => $function::<ProduceRequest>($line),
            "Fetch" => $function::<FetchRequest>($line),
            "ListOffsets" => $function::<ListOffsetsRequest>($line),
            "Metadata" => $function::<MetadataRequest>($line),
            "ApiVersions" => $function::<ApiVersionsRequest>($line),
            "CreateTopics" => $function::<CreateTopicsRequest>($line),
            "DeleteTopics" => $function::<DeleteTopicsRequest>($line),
            "InitProducerId" => $function::<InitProducerIdRequest>($line),
            "OffsetForLeaderEpoch" => $function::<OffsetForLeaderEpochRequest>($line),
            "AlterPartition" => $function::<AlterPartitionRequest>($line),
            "DescribeConfigs" => $function::<DescribeConfigsRequest>($line),
            "DescribeCluster" => $function::<DescribeClusterRequest>($line),
            "BrokerRegistration" => $function::<BrokerRegistrationRequest>($line),
            "BrokerHeartbeat" => $function::<BrokerHeartbeatRequest>($line),
            "AllocateProducerIds" => $function::<AllocateProducerIdsRequest>($line),
            other => panic!("unknown api {other} in the golden file"),
        }
    };
}

/// Checks every line and reports all that differ at once.
fn check_all(lines: &[Line], again: impl Fn(&Line) -> Result<Bytes, CodecError>) {
    let wrong: Vec<String> = lines
        .iter()
        .filter_map(|line| match again(line) {
            Ok(bytes) if bytes == line.body => None,
            Ok(bytes) => Some(format!("{}: {:x}, not {:x}", line.name(), bytes, line.body)),
            Err(error) => Some(format!("{}: {error}", line.name())),
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

#[test]
fn requests_of_kafkas_own_classes_are_decoded_and_encoded_alike() {
    let lines = lines("requests.hex");
    assert!(lines.len() > 250, "{}", lines.len());
    check_all(&lines, |line| by_api!(request_again, line));
}

#[test]
fn responses_of_kafkas_own_classes_are_decoded_and_encoded_alike() {
    let lines = lines("responses.hex");
    assert!(lines.len() > 250, "{}", lines.len());
    check_all(&lines, |line| by_api!(response_again, line));
}

#[test]
fn answers_of_a_live_broker_are_decoded_and_encoded_alike() {
    check_all(&lines("answers.hex"), |line| by_api!(response_again, line));
}

#[test]
fn a_live_broker_tells_its_versions() {
    for line in lines("answers.hex").iter().filter(|l| l.api == "ApiVersions" && l.what == "live") {
        let answer = line.response::<ApiVersionsRequest>();
        let range = |key| {
            let api = answer.api_keys.iter().find(|api| api.api_key == key).unwrap();
            (api.min_version, api.max_version)
        };
        assert_eq!((range(0), range(1), range(18)), ((0, 13), (4, 18), (0, 4)), "{}", line.name());
        assert_eq!(answer.finalized_features.is_empty(), line.version < 3);
    }
}

#[test]
fn an_unknown_version_is_answered_in_version_0() {
    let lines = lines("answers.hex");
    let line = lines.iter().find(|l| l.what == "to-version-99").unwrap();
    let answer = line.response::<ApiVersionsRequest>();
    assert_eq!(ErrorCode(answer.error_code), ErrorCode::UNSUPPORTED_VERSION);
    let [only] = &answer.api_keys[..] else { panic!("{:?}", answer.api_keys) };
    assert_eq!((only.api_key, only.min_version, only.max_version), (18, 0, 4));
}

#[test]
fn a_live_brokers_metadata_names_the_topics() {
    for line in lines("answers.hex").iter().filter(|l| l.api == "Metadata") {
        let answer = line.response::<MetadataRequest>();
        assert_eq!(answer.brokers.len(), 1);
        let name = |name: &'static str| Some(TopicName(StrBytes::from_static_str(name)));
        if line.what == "live" {
            let topic = answer.topics.iter().find(|t| t.name == name("golden-zstd")).unwrap();
            assert!(!topic.topic_id.is_nil());
            assert_eq!(topic.partitions[0].leader_id, answer.brokers[0].node_id);
        } else {
            assert_eq!(answer.topics[0].name, name("no-such-topic"));
            assert_eq!(ErrorCode(answer.topics[0].error_code), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
    }
}

/// Record as the recorder makes it.
#[derive(Debug, PartialEq, Eq)]
struct Owned {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn expected(i: i64) -> Owned {
    let key = match i % 3 {
        0 => None,
        1 => Some(vec![]),
        _ => Some(format!("key-{i}").into_bytes()),
    };
    let value = match i % 4 {
        0 => None,
        1 => Some(vec![]),
        2 => Some(format!("value-{i};").repeat(40).into_bytes()),
        _ => Some(format!("value-{i};").into_bytes()),
    };
    let headers = match i % 5 {
        1 => vec![(b"null".to_vec(), None)],
        2 => vec![(vec![], Some(vec![]))],
        3 => vec![(b"twice".to_vec(), Some(vec![i as u8])), (b"twice".to_vec(), Some(vec![0xff, 0]))],
        _ => vec![],
    };
    Owned { offset: i, timestamp: 1_700_000_000_000 + 7 * i - (i % 2) * 1000, key, value, headers }
}

fn batches(mut bytes: Bytes) -> Vec<RawBatch> {
    let mut found = vec![];
    while let Some(batch) = RawBatch::split(&mut bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        found.push(batch);
    }
    found
}

fn read(batch: &RawBatch) -> Vec<Owned> {
    let records = batch.records(LIMIT).unwrap();
    let owned = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
    let header = |h: HeaderRef<'_>| (h.name.to_vec(), owned(h.value));
    records
        .iter()
        .map(|record| {
            let r = record.unwrap();
            let (key, value) = (owned(r.key), owned(r.value));
            Owned {
                offset: r.offset,
                timestamp: r.timestamp,
                key,
                value,
                headers: r.headers().map(header).collect(),
            }
        })
        .collect()
}

/// Our own encoding of the same records, uncompressed.
fn build(records: &[Owned]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for r in records {
        builder.append(r.timestamp, r.key.as_deref(), r.value.as_deref(), &r.headers);
    }
    builder
}

#[test]
fn stored_batches_of_every_codec_hold_the_records() {
    for codec in CODECS {
        let stored = batches(golden(&format!("batch-{codec}.bin")));
        let [first, second] = &stored[..] else { panic!("{codec}: {} batches", stored.len()) };
        for batch in &stored {
            assert_eq!(batch.header().compression(), Ok(codec));
            assert_eq!(batch.header().partition_leader_epoch, 0);
            batch.validate_records(LIMIT).unwrap();
        }
        assert_eq!(read(first), (0..20).map(expected).collect::<Vec<_>>(), "{codec}");
        assert_eq!(read(second), (20..23).map(expected).collect::<Vec<_>>(), "{codec}");
    }
}

#[test]
fn our_encoder_writes_the_very_bytes_that_kafka_stored() {
    for codec in CODECS {
        for batch in batches(golden(&format!("batch-{codec}.bin"))) {
            let records = read(&batch);
            let sealed = build(&records).seal(Compression::None, None).unwrap();
            // compressed bytes differ from one encoder to the next, what is inside must not
            assert_eq!(batch.records(LIMIT).unwrap().body(), sealed.records(), "{codec}");
            if codec != Compression::None {
                continue;
            }
            let header = batch.header();
            let stamp = ProducerStamp {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                base_sequence: header.base_sequence,
            };
            let produced = Bytes::from([&sealed.header(stamp)[..], sealed.records()].concat());
            let placed = RawBatch::parse(produced).unwrap();
            let placed = placed.assigned(header.base_offset, header.partition_leader_epoch).concat();
            assert_eq!(placed, batch.bytes()[..], "the whole batch");
        }
    }
}

#[test]
fn batches_of_several_blocks_are_read() {
    for codec in &CODECS[1..] {
        let stored = batches(golden(&format!("batch-large-{codec}.bin")));
        let [batch] = &stored[..] else { panic!("{codec}: {} batches", stored.len()) };
        assert_eq!(batch.header().compression(), Ok(*codec));
        let values: Vec<_> = (0..4).map(|i| Some(format!("value-{i};").repeat(7000).into_bytes())).collect();
        assert_eq!(read(batch).into_iter().map(|r| r.value).collect::<Vec<_>>(), values, "{codec}");
        assert!(batch.records(200_000).is_err(), "{codec}: the limit holds");
    }
}

#[test]
fn log_append_time_is_told_and_given_to_every_record() {
    for batch in batches(golden("batch-log-append-time.bin")) {
        assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
        let time = batch.header().max_timestamp;
        assert!(time > 1_700_000_001_000);
        for record in read(&batch) {
            assert_eq!(Owned { timestamp: time, ..expected(record.offset) }, record);
        }
    }
}

#[test]
fn our_broker_stamps_append_time_as_kafka_does() {
    let produced = batches(golden("batch-lz4.bin"));
    for (ours, theirs) in produced.iter().zip(batches(golden("batch-log-append-time.bin"))) {
        let header = theirs.header();
        let stamped = ours.assigned_with_append_time(
            header.base_offset,
            header.partition_leader_epoch,
            header.max_timestamp,
        );
        let stamped = RawBatch::parse(Bytes::from(stamped.concat())).unwrap();
        stamped.verify_crc().unwrap();
        assert_eq!(stamped.header().attributes, header.attributes);
        assert_eq!(stamped.header().base_timestamp, header.base_timestamp);
        assert_eq!(read(&stamped), read(&theirs));
    }
}

#[test]
fn transactions_and_their_markers_are_told_apart() {
    let stored = batches(golden("batch-transaction.bin"));
    let kinds: Vec<_> =
        stored.iter().map(|b| (b.header().is_transactional(), b.header().is_control())).collect();
    assert_eq!(kinds, [(true, false), (true, true), (true, false), (true, true)]);
    // key of a marker: version 0, then 1 for commit and 0 for abort
    assert_eq!(read(&stored[1])[0].key, Some(vec![0, 0, 0, 1]));
    assert_eq!(read(&stored[3])[0].key, Some(vec![0, 0, 0, 0]));
}

#[test]
fn fetched_records_are_the_stored_ones() {
    let lines = lines("answers.hex");
    let fetches: Vec<_> = lines.iter().filter(|l| l.api == "Fetch").collect();
    assert_eq!(
        fetches.iter().map(|l| l.version).min().zip(fetches.iter().map(|l| l.version).max()),
        Some((4, 18))
    );
    for line in fetches {
        let answer = line.response::<FetchRequest>();
        let partition = &answer.responses[0].partitions[0];
        let records = partition.records.clone().unwrap_or_default();
        match line.what.as_str() {
            "out-of-range" => {
                assert_eq!(ErrorCode(partition.error_code), ErrorCode::OFFSET_OUT_OF_RANGE);
                assert!(records.is_empty());
            }
            "cut" => {
                let stored = golden("batch-none.bin");
                assert!(records.len() < stored.len() && stored.starts_with(&records));
                assert_eq!(batches(records).len(), 1, "a batch cut short is left out");
            }
            codec => {
                assert_eq!(partition.error_code, 0, "{}", line.name());
                assert_eq!(records, golden(&format!("batch-{codec}.bin")), "{}", line.name());
            }
        }
    }
}

#[test]
fn an_aborted_transaction_is_named_by_its_first_offset() {
    let lines = lines("answers.hex");
    let line = lines.iter().find(|l| l.what == "transaction").unwrap();
    let answer = line.response::<FetchRequest>();
    let aborted = answer.responses[0].partitions[0].aborted_transactions.as_ref().unwrap();
    assert_eq!(aborted.iter().map(|a| a.first_offset).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_record_without_headers_needs_no_types() {
    let mut builder = BatchBuilder::new(BytesMut::new());
    builder.append(1_700_000_000_000, None, None, NO_HEADERS);
    let first = batches(golden("batch-none.bin")).remove(0);
    assert!(first.bytes()[61..].starts_with(builder.seal(Compression::None, None).unwrap().records()));
}

/// The other direction: Kafka's classes read these in `tests/tools/record_golden/record --read-ours`.
#[test]
#[ignore = "writes files for Kafka's classes to read, into the directory named by GOLDEN_OURS"]
fn write_batches_for_kafka_to_read() {
    let place = PathBuf::from(std::env::var_os("GOLDEN_OURS").unwrap());
    for codec in CODECS.into_iter().filter(|codec| codec.check_level(None).is_ok()) {
        let mut builder = build(&(0..23).map(expected).collect::<Vec<_>>());
        for i in 0..4 {
            let value = format!("value-{i};").repeat(7000);
            builder.append(1_700_000_000_000, None, Some(value.as_bytes()), NO_HEADERS);
        }
        let sealed = builder.seal(codec, None).unwrap();
        let stamp = ProducerStamp { producer_id: 5, producer_epoch: 6, base_sequence: 7 };
        let bytes = [&sealed.header(stamp)[..], sealed.records()].concat();
        fs::write(place.join(format!("{codec}.bin")), bytes).unwrap();
    }
}
