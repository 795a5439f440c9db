use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerHeartbeatRequest, FetchRequest, FetchResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, ProduceRequest, RequestHeader,
};
use kafka_protocol::protocol::Message;
use proptest::prelude::*;

use super::any::{Visit, dispatch};
use super::*;
use crate::schema::generate::{Entropy, TagsToWrite, body};

/// Decodes by kafka-protocol alone, and encodes again.
struct Again {
    kind: Kind,
    version: i16,
    body: Bytes,
}

impl Visit for Again {
    type Out = Bytes;

    fn visit<R: Request>(self) -> Bytes {
        match self.kind {
            Kind::Request => again::<R>(R::KEY, self.version, self.body),
            Kind::Response => again::<R::Response>(R::KEY, self.version, self.body),
        }
    }
}

fn again<M: Message + Encodable + Decodable>(api_key: i16, version: i16, mut body: Bytes) -> Bytes {
    let version = layout_version::<M>(api_key, version).unwrap();
    let message = M::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "kafka-protocol left {} B", body.len());
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.freeze()
}

/// The versions in the schema that can be decoded here.
struct Known(Kind);

impl Visit for Known {
    type Out = Vec<i16>;

    fn visit<R: Request>(self) -> Vec<i16> {
        let (min, max) = schema::versions(self.0, R::KEY).unwrap();
        let known = |version: &i16| match self.0 {
            Kind::Request => layout_version::<R>(R::KEY, *version).is_ok(),
            Kind::Response => layout_version::<R::Response>(R::KEY, *version).is_ok(),
        };
        (min..=max).filter(known).collect()
    }
}

/// Every message that both sides know, in every version.
fn messages() -> Vec<(Kind, i16, i16)> {
    let mut all = Vec::new();
    for key in schema::api_keys() {
        for kind in [Kind::Request, Kind::Response] {
            let versions = dispatch(key, Known(kind)).unwrap_or_default();
            all.extend(versions.into_iter().map(|version| (kind, key, version)));
        }
    }
    all
}

#[test]
fn what_this_project_speaks_is_covered() {
    let all = messages();
    for &(key, min, max) in crate::negotiation::CLIENT_RANGES {
        for version in min..=max {
            assert!(all.contains(&(Kind::Request, key, version)), "{key} {version}");
            assert!(all.contains(&(Kind::Response, key, version)), "{key} {version}");
        }
    }
    assert!(all.len() > 550, "{}", all.len());
}

fn entropy() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

/// Splits a piece of bytes at a place that the piece itself decides.
fn pieces(whole: &Bytes) -> Vec<Bytes> {
    let cut = whole.first().map_or(0, |first| usize::from(*first) % whole.len());
    vec![whole.slice(..cut), whole.slice(cut..)]
}

fn produce_parts(request: &ProduceRequest) -> (ProduceHead, Vec<ProduceTopic>) {
    let head = ProduceHead {
        acks: request.acks,
        timeout_ms: request.timeout_ms,
        transactional_id: request.transactional_id.as_ref().map(|id| id.0.clone()),
    };
    let topics = request.topic_data.iter().map(|topic| ProduceTopic {
        name: topic.name.0.clone(),
        id: topic.topic_id,
        partitions: (topic.partition_data.iter())
            .map(|partition| ProducePartition {
                index: partition.index,
                records: pieces(partition.records.as_ref().unwrap()),
            })
            .collect(),
    });
    (head, topics.collect())
}

/// A chunk of a frame that is the very memory of `records`.
fn holds(frame: &Frame, records: &Bytes) -> bool {
    frame.body.iter().any(|chunk| chunk.as_ptr() == records.as_ptr() && chunk.len() == records.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever kafka-protocol encodes, of any api in any version, passes the walk; and whatever the
    /// tables say a message looks like, kafka-protocol reads to the last byte and writes back alike.
    #[test]
    fn tables_and_kafka_protocol_agree_on_every_version(entropy in entropy()) {
        for (kind, key, version) in messages() {
            for tags in [TagsToWrite::None, TagsToWrite::Unknown, TagsToWrite::Known] {
                let original = body(kind, key, version, tags, &mut Entropy(&entropy)).freeze();
                prop_assert_eq!(schema::walk(kind, key, version, &original), Ok(()), "{:?} {} {}", kind, key, version);
                let first = dispatch(key, Again { kind, version, body: original.clone() }).unwrap();
                prop_assert_eq!(schema::walk(kind, key, version, &first), Ok(()), "{:?} {} {}", kind, key, version);
                if tags == TagsToWrite::Known {
                    // Tagged defaults are left out when written again.
                    let second = dispatch(key, Again { kind, version, body: first.clone() }).unwrap();
                    prop_assert_eq!(first, second, "{:?} {} {}", kind, key, version);
                } else {
                    prop_assert_eq!(&first, &original, "{:?} {} {}", kind, key, version);
                }
            }
        }
    }

    /// Cut anywhere, no message passes the walk.
    #[test]
    fn a_cut_message_is_refused(entropy in entropy(), cut in any::<prop::sample::Index>()) {
        for (kind, key, version) in messages() {
            let whole = body(kind, key, version, TagsToWrite::Known, &mut Entropy(&entropy));
            if !whole.is_empty() {
                let part = &whole[..cut.index(whole.len())];
                prop_assert!(schema::walk(kind, key, version, part).is_err(), "{:?} {} {}", kind, key, version);
            }
        }
    }

    /// The encoder that shares records writes what kafka-protocol writes, without copying them.
    #[test]
    fn produce_is_encoded_as_kafka_protocol_does(entropy in entropy(), version in 3i16..=13) {
        let mut bytes = body(Kind::Request, 0, version, TagsToWrite::None, &mut Entropy(&entropy)).freeze();
        let mut request = ProduceRequest::decode(&mut bytes, version).unwrap();
        for partition in request.topic_data.iter_mut().flat_map(|topic| &mut topic.partition_data) {
            partition.records.get_or_insert_default();
        }
        let (head, topics) = produce_parts(&request);
        let frame = encode_produce(version, &head, &topics).unwrap();
        prop_assert_eq!(frame.expects_reply, request.acks != 0);
        for records in topics.iter().flat_map(|t| &t.partitions).flat_map(|p| &p.records) {
            prop_assert!(records.is_empty() || holds(&frame, records));
        }
        let expected = encode_request(version, &request).unwrap();
        prop_assert_eq!(frame.into_contiguous(), expected.into_contiguous());
    }

    /// The same for the other direction, tagged fields included.
    #[test]
    fn fetch_responses_are_encoded_as_kafka_protocol_does(entropy in entropy(), version in 4i16..=18) {
        let mut bytes = body(Kind::Response, 1, version, TagsToWrite::Known, &mut Entropy(&entropy)).freeze();
        let mut response = FetchResponse::decode(&mut bytes, version).unwrap();
        let mut records = Vec::new();
        for topic in &mut response.responses {
            let chunks = topic.partitions.iter_mut().map(|p| pieces(p.records.get_or_insert_default()));
            records.push(chunks.collect::<Vec<_>>());
        }
        let expected = encode_response::<FetchRequest>(version, &response).unwrap();
        for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.records = None;
        }
        let frame = encode_fetch_response(version, &response, &records).unwrap();
        for chunk in records.iter().flatten().flatten() {
            prop_assert!(chunk.is_empty() || holds(&frame, chunk));
        }
        prop_assert_eq!(frame.into_contiguous(), expected.into_contiguous());
    }

    /// Headers survive, whatever follows them; the walk's flexibility is kafka-protocol's.
    #[test]
    fn headers_survive(id in any::<i32>(), client in prop::option::of("[a-zü]{0,20}"), rest in any::<[u8; 3]>()) {
        for (kind, key, version) in messages() {
            match kind {
                Kind::Request => {
                    let header = encode_request_header(key, version, id, client.as_deref());
                    let flexible = ApiKey::try_from(key).unwrap().request_header_version(version);
                    let mut theirs = header.clone();
                    let decoded = RequestHeader::decode(&mut theirs, flexible).unwrap();
                    prop_assert!(theirs.is_empty() && decoded.correlation_id == id, "{} {}", key, version);
                    let mut frame = Bytes::from([&header[..], &rest].concat());
                    let head = decode_request_header(&mut frame).unwrap();
                    prop_assert_eq!((head.api_key, head.api_version, head.correlation_id), (key, version, id));
                    prop_assert_eq!(head.client_id.as_deref(), client.as_deref());
                    prop_assert_eq!(&frame[..], &rest);
                }
                Kind::Response => {
                    let header = encode_response_header(key, version, id);
                    let flexible = ApiKey::try_from(key).unwrap().response_header_version(version);
                    prop_assert_eq!(header.len(), 4 + flexible as usize, "{} {}", key, version);
                    prop_assert_eq!(peek_correlation_id(&header), Some(id));
                    let mut frame = Bytes::from([&header[..], &rest].concat());
                    prop_assert_eq!(decode_response_header(key, version, &mut frame), Ok(id));
                    prop_assert_eq!(&frame[..], &rest);
                }
            }
        }
    }
}

#[test]
fn an_unknown_api_key_still_gives_the_correlation_id() {
    let whole = encode_request_header(999, 7, 42, Some("me"));
    let head = RequestHead { api_key: 999, api_version: 7, correlation_id: 42, client_id: None };
    for length in 0..8 {
        assert_eq!(decode_request_header(&mut whole.slice(..length)), Err(CodecError::Header));
    }
    for length in 8..whole.len() {
        assert_eq!(decode_request_header(&mut whole.slice(..length)), Ok(head.clone()));
    }
    let named = RequestHead { client_id: Some("me".into()), ..head };
    let mut whole = whole;
    assert_eq!(decode_request_header(&mut whole), Ok(named));
}

#[test]
fn a_cut_header_of_a_known_api_is_refused() {
    let whole = encode_request_header(3, 12, 42, Some("me"));
    for length in 0..whole.len() {
        assert_eq!(decode_request_header(&mut whole.slice(..length)), Err(CodecError::Header), "{length}");
    }
}

/// Goal: a client that is newer than this code is told so, in the layout that any client can read.
#[test]
fn api_versions_from_the_future_has_a_readable_header() {
    let mut frame = encode_request_header(18, 99, 5, Some("new"));
    let head = decode_request_header(&mut frame).unwrap();
    assert_eq!((head.api_version, head.correlation_id), (99, 5));
    assert!(frame.is_empty(), "header 2, like every version since 3");
    assert_eq!(encode_response_header(18, 4, 5).len(), 4);
}

#[test]
fn a_client_id_that_is_too_long_is_cut_between_characters() {
    let long = "ü".repeat(20_000);
    let mut frame = encode_request_header(3, 12, 1, Some(&long));
    let head = decode_request_header(&mut frame).unwrap();
    assert_eq!(head.client_id.unwrap().len(), 32_766);
    assert!(frame.is_empty());
}

#[test]
fn a_frame_of_another_api_is_refused() {
    let frame = encode_request(0, &ApiVersionsRequest::default()).unwrap();
    let error = decode_request::<MetadataRequest>(frame).unwrap_err();
    assert_eq!(error, CodecError::WrongApi { expected: 3, found: 18 });
}

/// Goal: versions that kafka-protocol does not know go out and come in as Kafka 4.3 lays them out.
#[test]
fn list_offsets_11_and_heartbeat_2_pass_in_the_layout_before() {
    let offsets = ListOffsetsRequest::default().with_replica_id((-1).into()).with_timeout_ms(7);
    let frame = encode_request(11, &offsets).unwrap();
    assert_eq!((frame.api_version, &frame.body), (11, &encode_request(10, &offsets).unwrap().body));
    assert_eq!(decode_request::<ListOffsetsRequest>(frame).unwrap(), offsets);
    let answer = encode_response::<ListOffsetsRequest>(11, &ListOffsetsResponse::default()).unwrap();
    assert!(decode_response::<ListOffsetsRequest>(answer).is_ok());

    // One cordoned log directory, in the field that version 2 adds.
    let directories = Bytes::from([&[2u8], &[9u8; 16][..]].concat());
    let beat = BrokerHeartbeatRequest::default().with_unknown_tagged_field(1, directories);
    let frame = encode_request(2, &beat).unwrap();
    assert_eq!(decode_request::<BrokerHeartbeatRequest>(frame).unwrap(), beat);
    let torn = BrokerHeartbeatRequest::default().with_unknown_tagged_field(1, Bytes::from_static(&[9]));
    assert!(decode_request::<BrokerHeartbeatRequest>(encode_request(2, &torn).unwrap()).is_err());
}

/// Goal: a version without room for a value says so; nothing is left out silently.
#[test]
fn a_value_without_room_in_the_version_is_an_error() {
    let session = FetchResponse::default().with_session_id(1);
    assert!(matches!(encode_fetch_response(6, &session, &[]), Err(CodecError::Invalid { .. })));
    let unsupported = CodecError::UnsupportedVersion { api_key: 0, version: 2 };
    let head = ProduceHead { acks: 1, timeout_ms: 0, transactional_id: None };
    assert_eq!(encode_produce(2, &head, &[]), Err(unsupported));
}

/// Goal: what Kafka's own classes write is read to the last byte, and written back byte by byte.
#[test]
fn what_kafka_itself_writes_survives() {
    let known = messages();
    let mut count = 0;
    for golden in crate::golden::all() {
        let Some(kind) = golden.kind.filter(|kind| known.contains(&(*kind, golden.key, golden.version)))
        else {
            continue;
        };
        let body = Bytes::from(golden.bytes);
        let back = dispatch(golden.key, Again { kind, version: golden.version, body: body.clone() }).unwrap();
        assert_eq!(back, body, "{kind:?} {} {}", golden.key, golden.version);
        count += 1;
    }
    assert!(count > 500, "{count}");
}
