use std::sync::LazyLock;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::schema::Fault;

/// Goal: the layout is Kafka's, byte by byte, seen by eye.
#[test]
fn a_topic_record_is_laid_out_as_kafka_lays_it_out() {
    let topic = TopicRecord { name: "ab".to_owned(), topic_id: Uuid::from_u128(1) };
    let mut expected = vec![1, 2, 0, 3, b'a', b'b'];
    expected.extend_from_slice(&1u128.to_be_bytes());
    expected.push(0);
    assert_eq!(MetadataRecord::from(topic).encode(), expected);
}

/// Records as Kafka's own classes wrote them, with the version they are in.
static RECORDED: LazyLock<Vec<(i16, Vec<u8>)>> = LazyLock::new(|| {
    let records = crate::golden::all().into_iter().filter(|golden| golden.kind.is_none());
    records.map(|golden| (golden.version, golden.bytes)).collect()
});

#[test]
fn what_kafka_itself_writes_survives() {
    let mut known = 0;
    for (version, bytes) in RECORDED.iter() {
        match MetadataRecord::decode(bytes) {
            Ok(record) => {
                assert_eq!(record.encode_as(*version), bytes, "{record:?}");
                assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
                known += 1;
            }
            Err(RecordError::UnknownType(_)) => {}
            Err(error) => panic!("{error} in {bytes:02x?}"),
        }
    }
    assert_eq!(known, 5 + 1 + 1 + 3 + 1 + 3 + 1 + 1 + 1 + 4 + 1, "every version of the eleven types");
}

/// Goal: "unchanged" and "now empty" are different things in a partition change.
#[test]
fn null_and_empty_are_kept_apart() {
    let unchanged = PartitionChangeRecord::default();
    assert_eq!((unchanged.leader, unchanged.leader_recovery_state, &unchanged.isr), (-2, -1, &None));
    let emptied = PartitionChangeRecord { isr: Some(vec![]), ..unchanged.clone() };
    for record in [unchanged, emptied] {
        let record = MetadataRecord::from(record);
        assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
    }
}

#[test]
fn an_unknown_frame_type_or_version_is_named() {
    assert_eq!(MetadataRecord::decode(&[0, 2, 0]), Err(RecordError::Frame(0)));
    assert_eq!(MetadataRecord::decode(&[1, 99, 0]), Err(RecordError::UnknownType(99)));
    let unknown = RecordError::UnknownVersion { kind: 20, version: 1 };
    assert_eq!(MetadataRecord::decode(&[1, 20, 1, 0]), Err(unknown));
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused() {
    // PartitionRecord 0: id, topic id, then the replicas.
    let mut bytes = vec![1, 3, 0];
    bytes.extend([0; 20]);
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    let fault = Fault::Count { claimed: u32::MAX - 1, left: 0 };
    assert_eq!(MetadataRecord::decode(&bytes), Err(Malformed { at: 28, fault }.into()));
}

proptest! {
    /// Cut or changed records give an error or another record, never a panic.
    #[test]
    fn bent_records_do_no_harm(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for (_, bytes) in RECORDED.iter() {
            let at = place.index(bytes.len());
            prop_assert!(MetadataRecord::decode(&bytes[..at]).is_err());
            let mut bent = bytes.clone();
            bent[at] = byte;
            if let Ok(record) = MetadataRecord::decode(&bent) {
                prop_assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
            }
        }
    }
}
