use super::*;
use uuid::Uuid;

/// Goal: the layout is Kafka's, byte by byte.
#[test]
fn a_topic_record_is_laid_out_as_kafka_lays_it_out() {
    let topic = TopicRecord { name: "ab".to_owned(), topic_id: Uuid::from_u128(1) };
    let mut expected = vec![1, 2, 0, 3, b'a', b'b'];
    expected.extend_from_slice(&1u128.to_be_bytes());
    expected.push(0);
    assert_eq!(MetadataRecord::from(topic).encode(), expected);
}
