//! Kafka's formats.

use proptest::prelude::*;

use super::*;

fn offset(expires: Option<i64>, topic_id: u128) -> GroupRecord {
    GroupRecord::Offset {
        group: "g".into(),
        topic: "orders".into(),
        partition: 7,
        value: Some(CommittedOffset {
            offset: 42,
            leader_epoch: if expires.is_some() { -1 } else { 3 },
            metadata: "note".into(),
            commit_timestamp_ms: 1000,
            expire_timestamp_ms: expires,
            topic_id: uuid::Uuid::from_u128(topic_id),
        }),
    }
}

/// Goal: the bytes that Kafka 4.3.0 writes, by its schemas.
#[test]
fn records_have_kafkas_bytes() {
    let (key, value) = offset(None, 0).encode();
    assert_eq!(&key[..], b"\0\x01\0\x01g\0\x06orders\0\0\0\x07");
    let expected = b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x03\x05note\0\0\0\0\0\0\x03\xe8\0";
    assert_eq!(&value.unwrap()[..], expected);
    let (_, value) = offset(Some(2000), 0).encode();
    let expected = b"\0\x01\0\0\0\0\0\0\0\x2a\0\x04note\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\x07\xd0";
    assert_eq!(&value.unwrap()[..], expected);
    let (_, value) = offset(None, 1).encode();
    assert!(value.unwrap().ends_with(b"\x01\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"));
    let gone = GroupRecord::Group { group: "g".into(), value: None };
    assert_eq!(gone.encode(), (Bytes::from_static(b"\0\x02\0\x01g"), None));
}

#[test]
fn types_that_are_not_used_are_passed_over_and_unknown_versions_are_not() {
    assert_eq!(GroupRecord::decode(b"\0\x03\0\x01g", Some(b"\0\0")), Ok(None));
    assert_eq!(GroupRecord::decode(b"\0\x02\0\x01g", Some(b"\0\x05")), Err(Malformed));
    assert_eq!(GroupRecord::decode(b"", None), Err(Malformed));
}

fn group() -> impl Strategy<Value = GroupRecord> {
    let member = (any::<u8>(), proptest::option::of("[a-z]{0,4}"), any::<i32>(), any::<Vec<u8>>()).prop_map(
        |(number, instance_id, ms, bytes)| MemberMetadata {
            id: format!("m-{number}"),
            instance_id,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: ms.max(0),
            session_timeout_ms: ms,
            subscription: bytes.clone().into(),
            assignment: bytes.into(),
        },
    );
    let members = proptest::collection::vec(member, 0..4);
    (members, any::<i32>(), proptest::option::of("[a-z]{0,4}")).prop_map(|(members, generation, protocol)| {
        let value = GroupMetadata {
            protocol_type: "consumer".into(),
            generation,
            leader: protocol.clone(),
            protocol,
            state_since_ms: 5,
            members,
        };
        GroupRecord::Group { group: "g".into(), value: Some(value) }
    })
}

fn record() -> impl Strategy<Value = GroupRecord> {
    let offset = (proptest::option::of(0..i64::MAX), any::<u128>())
        .prop_map(|(expires, id)| offset(expires, if expires.is_some() { 0 } else { id }));
    prop_oneof![offset, group()]
}

proptest! {
    #[test]
    fn what_was_written_is_read(record in record()) {
        let (key, value) = record.encode();
        prop_assert_eq!(GroupRecord::decode(&key, value.as_deref()), Ok(Some(record)));
    }

    #[test]
    fn damaged_records_are_refused_or_read_and_never_more(
        record in record(), at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>(),
    ) {
        let (key, value) = record.encode();
        let mut value = value.unwrap().to_vec();
        let length = value.len();
        value[at % length] = byte;
        value.truncate(length - cut % 3);
        let _ = GroupRecord::decode(&key, Some(&value));
    }
}
