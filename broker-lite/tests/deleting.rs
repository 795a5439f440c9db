//! Records that go: DeleteRecords, retention, compaction.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::Cluster;
use bytes::{Bytes, BytesMut};
use klamm_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_wire::messages::delete_records_response::DeleteRecordsPartitionResult;
use klamm_wire::messages::{DeleteRecordsRequest, TopicName};
use klamm_wire::{BatchBuilder, Compression, ErrorCode, ProducerStamp, StrBytes};
use support::{MADE_MS, Talk, batch, code, values};

async fn delete(
    talk: &mut Talk,
    partition: i32,
    offset: i64,
    timeout_ms: i32,
) -> DeleteRecordsPartitionResult {
    let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms);
    talk.ask(2, &request).await.topics[0].partitions[0].clone()
}

fn answered(result: &DeleteRecordsPartitionResult) -> (ErrorCode, i64) {
    (code(result.error_code), result.low_watermark)
}

#[tokio::test(start_paused = true)]
async fn deleted_records_are_gone_on_all_replicas_when_the_answer_comes() {
    let cluster = Cluster::builder().seed(7).topic("t", Some(1), Some(3)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["a", "b", "c"])).await;
    talk.produce("t", 0, batch(&["d"])).await;
    assert_eq!(answered(&delete(&mut talk, 0, 2, 10_000).await), (ErrorCode::NONE, 2));
    for broker in cluster.broker_ids() {
        let offsets: Vec<_> =
            cluster.log(broker, "t", 0).unwrap().iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [2, 3], "broker {broker}");
    }
    assert_eq!(code(talk.fetch("t", 0, 1, 0).await.error_code), ErrorCode::OFFSET_OUT_OF_RANGE);
    assert_eq!(answered(&delete(&mut talk, 0, 1, 10_000).await), (ErrorCode::NONE, 2), "gone already");
    assert_eq!(answered(&delete(&mut talk, 0, 5, 10_000).await), (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
    assert_eq!(answered(&delete(&mut talk, 0, -2, 10_000).await), (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
    assert_eq!(answered(&delete(&mut talk, 9, 1, 0).await), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1));
    assert_eq!(
        answered(&delete(&mut talk, 0, -1, 10_000).await),
        (ErrorCode::NONE, 4),
        "all that is committed"
    );
    let follower = cluster.broker_ids().into_iter().find(|id| *id != leader).unwrap();
    let mut other = Talk::to(&cluster, follower).await;
    assert_eq!(answered(&delete(&mut other, 0, 4, 0).await), (ErrorCode::NOT_LEADER_OR_FOLLOWER, -1));
    cluster.pause(follower).unwrap();
    talk.produce("t", 0, batch(&["e"])).await;
    cluster.until_isr("t", 0, |isr| isr.len() == 2).await;
    let late = delete(&mut talk, 0, 5, 100).await;
    assert!(matches!(answered(&late), (ErrorCode::REQUEST_TIMED_OUT, -1) | (ErrorCode::NONE, 5)), "{late:?}");
    cluster.resume(follower).unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

#[tokio::test(start_paused = true)]
async fn records_of_a_topic_that_is_only_compacted_are_not_deleted_on_request() {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    cluster.create_topic("t", 1, 3, &[("cleanup.policy", "compact")]).await.unwrap();
    let mut talk = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    assert_eq!(answered(&delete(&mut talk, 0, 0, 0).await), (ErrorCode::POLICY_VIOLATION, -1));
}

/// 1.5 MB under one key, so that a segment of 1 MiB is full.
fn keyed(key: &str, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(BytesMut::new());
    let value = value.repeat(700_000 / value.len());
    builder.append::<&[u8], &[u8]>(*MADE_MS, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    let sealed = builder.seal(Compression::None, None).unwrap();
    let stamp = ProducerStamp { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
    [&sealed.header(stamp)[..], sealed.records()].concat().into()
}

#[tokio::test(start_paused = true)]
async fn old_segments_go_by_retention_on_every_replica() {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    let settings = [("retention.bytes", "1000000"), ("segment.bytes", "1048576")];
    cluster.create_topic("t", 1, 3, &settings).await.unwrap();
    let mut talk = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    for _ in 0..6 {
        assert_eq!(talk.produce("t", 0, keyed("k", "v")).await.error_code, 0);
    }
    tokio::time::sleep(Duration::from_secs(301)).await;
    for broker in cluster.broker_ids() {
        let log = cluster.log(broker, "t", 0).unwrap();
        assert!(log.len() < 6 && log.last().unwrap().offset == 5, "broker {broker} holds {}", log.len());
    }
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: replicas clean each for itself, followers fetch across the gaps, and nothing is taken for a loss.
#[tokio::test(start_paused = true)]
async fn a_compacted_topic_keeps_the_last_record_of_each_key_and_replicates() {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    cluster.create_topic("t", 1, 3, &settings).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let mut talk = Talk::to(&cluster, leader).await;
    let follower = cluster.broker_ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.kill(follower).unwrap();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("a", "5"), ("c", "6")] {
        while talk.produce("t", 0, keyed(key, value)).await.error_code != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let kept = |broker| {
        let log = cluster.log(broker, "t", 0).unwrap();
        log.iter().map(|record| record.offset).collect::<Vec<_>>()
    };
    assert_eq!(kept(leader), [3, 4, 5]);
    cluster.restart(follower).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(kept(follower), [3, 4, 5]);
    assert!(cluster.check().is_ok(), "{}", cluster.check());
    let read = values(&talk.fetch("t", 0, 0, 0).await);
    assert_eq!(read[0].0, 3, "from the first offset that is left");
}
