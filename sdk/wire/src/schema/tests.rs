use super::table::Shape;
use super::tables::STRUCTS;
use super::*;

fn fault(result: Result<(), WalkError>) -> Fault {
    match result {
        Err(WalkError::Malformed(malformed)) => malformed.fault,
        other => panic!("expected malformed bytes, got {other:?}"),
    }
}

/// Goal: the four bytes that make kafka-protocol reserve 2^31 elements never reach it.
#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused() {
    let metadata = walk(Kind::Request, 3, 1, &i32::MAX.to_be_bytes());
    assert_eq!(fault(metadata), Fault::Count { claimed: i32::MAX as u32, left: 0 });

    let compact = walk(Kind::Request, 3, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(fault(compact), Fault::Count { claimed: u32::MAX - 1, left: 0 });
}

#[test]
fn a_varint_over_32_bits_is_refused() {
    assert_eq!(fault(walk(Kind::Request, 3, 9, &[0xff, 0xff, 0xff, 0xff, 0x1f])), Fault::Varint);
    assert_eq!(fault(walk(Kind::Request, 3, 9, &[0x80; 5])), Fault::Varint);
}

#[test]
fn bytes_after_the_end_are_refused_in_answers_and_left_alone_in_requests() {
    let answer = [0, 0, 0, 0, 0, 0];
    assert_eq!(walk(Kind::Response, 18, 0, &answer), Ok(()));
    assert_eq!(fault(walk(Kind::Response, 18, 0, &[&answer[..], &[0]].concat())), Fault::Trailing(1));
    assert_eq!(walk(Kind::Request, 18, 0, &[]), Ok(()));
    assert_eq!(walk(Kind::Request, 18, 0, &[0]), Ok(()));
}

#[test]
fn null_is_refused_where_the_version_does_not_allow_it() {
    // Metadata: a null list of topics means all of them, from version 1.
    assert_eq!(fault(walk(Kind::Request, 3, 0, &(-1i32).to_be_bytes())), Fault::Null);
    assert_eq!(walk(Kind::Request, 3, 1, &(-1i32).to_be_bytes()), Ok(()));
    assert_eq!(fault(walk(Kind::Request, 3, 1, &(-2i32).to_be_bytes())), Fault::Negative);
}

#[test]
fn tagged_fields_rise_and_fill_their_size() {
    // ApiVersions 3: two empty strings, then tagged fields.
    let tagged = |tail: &[u8]| walk(Kind::Request, 18, 3, &[&[1, 1], tail].concat());
    assert_eq!(tagged(&[2, 5, 1, 0, 6, 0]), Ok(()));
    assert_eq!(fault(tagged(&[2, 5, 1, 0, 5, 0])), Fault::TagOrder(5));
    assert_eq!(fault(tagged(&[2, 6, 0, 5, 0])), Fault::TagOrder(5));
    assert_eq!(fault(tagged(&[1, 5, 9, 0])), Fault::Length { claimed: 9, left: 1 });
    assert_eq!(fault(tagged(&[3, 5, 0])), Fault::Count { claimed: 3, left: 2 });

    // BrokerHeartbeat 1, tag 0: a list of ids of 16 bytes each.
    let heartbeat = |tail: &[u8]| walk(Kind::Request, 63, 1, &[&[0; 22], tail].concat());
    assert_eq!(heartbeat(&[1, 0, 1, 1]), Ok(()));
    assert_eq!(fault(heartbeat(&[1, 1, 1, 1])), Fault::TagVersion(1));
    assert_eq!(fault(heartbeat(&[1, 0, 2, 1, 0])), Fault::Trailing(1));
    assert_eq!(fault(heartbeat(&[1, 0, 2, 2, 0])), Fault::Count { claimed: 1, left: 1 });
}

#[test]
fn a_marker_other_than_one_and_minus_one_is_refused() {
    // DescribeTopicPartitions: no topics, limit, cursor.
    let with =
        |marker: u8, tail: &[u8]| walk(Kind::Request, 75, 0, &[&[1, 0, 0, 0, 0, marker], tail].concat());
    assert_eq!(with(0xff, &[0]), Ok(()));
    assert_eq!(with(1, &[1, 0, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(fault(with(0, &[0])), Fault::Marker(0));
    assert_eq!(fault(with(2, &[0])), Fault::Marker(2));
}

#[test]
fn a_string_that_is_not_utf8_is_refused() {
    assert_eq!(walk(Kind::Request, 3, 0, &[0, 0, 0, 1, 0, 2, 0xc3, 0xbc]), Ok(()));
    assert_eq!(fault(walk(Kind::Request, 3, 0, &[0, 0, 0, 1, 0, 2, 0xc3, 0x28])), Fault::Utf8);
}

#[test]
fn unknown_apis_and_versions_are_told_apart() {
    assert_eq!(walk(Kind::Request, 999, 0, &[]), Err(WalkError::UnknownApi { api_key: 999 }));
    assert_eq!(walk(Kind::Request, -1, 0, &[]), Err(WalkError::UnknownApi { api_key: -1 }));
    assert_eq!(walk(Kind::Request, 0, 2, &[]), Err(WalkError::UnknownVersion { api_key: 0, version: 2 }));
    assert_eq!(walk(Kind::Request, 18, 5, &[]), Err(WalkError::UnknownVersion { api_key: 18, version: 5 }));
}

/// Goal: a count is bounded by the bytes only if an element takes at least one.
#[test]
fn every_element_of_an_array_takes_bytes() {
    for Api(key, request, response) in &APIS {
        for message in [request, response] {
            for version in i16::from(message.0)..=i16::from(message.1) {
                check_elements(*key, version, message.flexible(version), message.3, 0);
            }
        }
    }
}

/// Also shows that the depth of the walk is small.
fn check_elements(key: i16, version: i16, flexible: bool, number: u16, depth: usize) {
    assert!(depth < 8, "api key {key}");
    for field in STRUCTS[usize::from(number)].iter().filter(|field| field.exists(version)) {
        if let Shape::Structs(element) | Shape::Struct(element) = field.0 {
            assert!(
                Walk { version, flexible, elements: &Elements::of(0) }.least_size(element) > 0,
                "api key {key} version {version}"
            );
            check_elements(key, version, flexible, element, depth + 1);
        }
    }
}

/// Goal: the tables are right by Kafka's own serializers, also where kafka-protocol lags behind.
#[test]
fn what_kafka_itself_writes_passes_in_every_version() {
    let mut seen = Vec::new();
    for golden in crate::golden::all() {
        let Some(kind) = golden.kind else { continue };
        let walked = walk(kind, golden.key, golden.version, &golden.bytes);
        assert_eq!(walked, Ok(()), "{kind:?} {} {}", golden.key, golden.version);
        seen.push((kind, golden.key, golden.version));
    }
    for key in api_keys() {
        for kind in [Kind::Request, Kind::Response] {
            let (min, max) = versions(kind, key).unwrap();
            for version in min..=max {
                assert!(seen.contains(&(kind, key, version)), "{kind:?} {key} {version} was not recorded");
            }
        }
    }
}
