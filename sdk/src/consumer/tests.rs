//! The whole consumer against brokers in this process, under virtual time.

pub(super) mod cluster;
mod reading;
mod storing;

use futures::{FutureExt, StreamExt};
use klamm_core::Tick;
use klamm_wire::{Compression, ErrorCode};

use super::*;
use crate::deserializer::Plain;
use crate::error::Recovery;
use cluster::Cluster;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

pub(super) fn builder(cluster: &Cluster) -> ConsumerBuilder {
    Consumer::builder().bootstrap_servers("here:1,here:2").connector(cluster.connector())
}

fn reading(cluster: &Cluster) -> Consumer {
    let consumer = builder(cluster).build().unwrap();
    consumer.assign([(("t", 0), StartOffset::Beginning)]);
    consumer
}

pub(super) fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn now<K: 'static, V: 'static>(consumer: &Consumer<K, V>) -> Tick {
    consumer.shared.now()
}

fn text(record: &ConsumerRecord) -> String {
    String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()
}

/// Reads until the value, which is the offset, is `last`, and checks that nothing is missing or doubled.
async fn read(consumer: &Consumer, range: std::ops::Range<i64>) {
    for expected in range {
        let record = consumer.recv().await.unwrap();
        assert_eq!((record.offset, text(&record)), (expected, expected.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_handed_out_as_written_with_null_and_empty_kept_apart() {
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4] {
        let cluster = Cluster::default();
        cluster.append(0, codec, &[(None, None), (Some(b""), Some(b"")), (Some(b"k"), Some(b"v"))]);
        let consumer = reading(&cluster);
        let (null, empty, full) =
            (consumer.recv().await.unwrap(), consumer.recv().await.unwrap(), consumer.recv().await.unwrap());
        assert_eq!((null.key, null.value, null.headers.len()), (None, None, 0));
        assert_eq!((empty.key, empty.value), (Some(Bytes::new()), Some(Bytes::new())));
        assert_eq!((full.key.as_deref(), full.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!((&*full.topic, full.partition, full.offset, full.timestamp_ms), ("t", 0, 2, 1_002));
        assert_eq!((full.timestamp_type, full.leader_epoch), (TimestampType::Create, 0));
        let headers: Vec<_> = full.headers.iter().map(|h| (h.name_str().unwrap(), h.value.clone())).collect();
        assert_eq!(headers, [("h", Some(Bytes::new())), ("n", None)]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_position_moves_when_a_record_is_handed_out() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let consumer = reading(&cluster);
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 0);
    read(&consumer, 0..7).await;
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 7, "though all of them are here");
    consumer.seek(&tp(0), StartOffset::Offset(25)).unwrap();
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 25);
    read(&consumer, 25..30).await;
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 30);
    let other = consumer.position(&tp(1)).await;
    assert!(matches!(other, Err(ConsumerError::NotAssigned { .. })));
    assert!(matches!(consumer.seek(&tp(1), StartOffset::End), Err(ConsumerError::NotAssigned { .. })));
}

#[tokio::test(start_paused = true)]
async fn every_start_is_found() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let consumer = reading(&cluster);
    for (start, position) in [
        (StartOffset::Beginning, 0),
        (StartOffset::End, 30),
        (StartOffset::Offset(12), 12),
        (StartOffset::Timestamp(1_009), 9),
        (StartOffset::Timestamp(99_999), 30),
    ] {
        consumer.assign([(tp(0), start)]);
        assert_eq!(consumer.position(&tp(0)).await.unwrap(), position, "{start:?}");
        if position < 30 {
            read(&consumer, position..30).await;
        }
    }
    cluster.count(0, 30..31);
    read(&consumer, 30..31).await;
}

#[tokio::test(start_paused = true)]
async fn offsets_are_listed_without_an_assignment() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let consumer = builder(&cluster).build().unwrap();
    cluster.move_leader(1, 1);
    let both = [tp(0), tp(1)];
    let ends: Vec<_> = consumer.end_offsets(&both).await.unwrap().into_values().collect();
    let starts: Vec<_> = consumer.beginning_offsets(&both).await.unwrap().into_values().collect();
    assert_eq!((ends, starts), (vec![30, 0], vec![0, 0]));
    cluster.move_leader(0, 2);
    let times = consumer.offsets_for_times([(tp(0), 1_007), (tp(1), 5)]).await.unwrap();
    assert_eq!((times[&tp(0)], times[&tp(1)]), (Some((7, 1_007)), None), "after asking the former leader");
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_keeps_its_place_even_within_a_batch() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    cluster.count(1, 0..1);
    let consumer = reading(&cluster);
    read(&consumer, 0..5).await;
    consumer.pause(&[tp(0)]);
    assert_eq!(consumer.poll(100, 5 * S).await.unwrap(), []);
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 5);
    consumer.resume(&[tp(0)]);
    read(&consumer, 5..30).await;
}

#[tokio::test(start_paused = true)]
async fn a_moved_leader_and_broken_connections_lose_and_double_nothing() {
    let cluster = Cluster::default();
    cluster.count(0, 0..20);
    let consumer = builder(&cluster).max_partition_fetch_bytes(150).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    read(&consumer, 0..5).await;
    cluster.move_leader(0, 2);
    cluster.count(0, 20..40);
    read(&consumer, 5..40).await;
    let started = now(&consumer);
    cluster.set_down(&[2]);
    cluster.count(0, 40..60);
    assert_eq!(consumer.poll(1, 3 * S).await.unwrap(), [], "its leader is down");
    cluster.move_leader(0, 1);
    read(&consumer, 40..60).await;
    assert!(now(&consumer) - started < 8 * S, "took {:?}", now(&consumer) - started);
}

#[tokio::test(start_paused = true)]
async fn an_offset_out_of_range_is_told_until_the_application_seeks_or_follows_the_policy() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    cluster.state().log_start = 10;
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::None).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Offset(3))]);
    for _ in 0..2 {
        let error = consumer.recv().await.unwrap_err();
        assert!(matches!(error, ConsumerError::OutOfRange { offset: 3, .. }), "{error}");
    }
    consumer.seek(&tp(0), StartOffset::Offset(10)).unwrap();
    read(&consumer, 10..30).await;

    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::Earliest).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Offset(3))]);
    read(&consumer, 10..30).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_told_and_read_once_it_is_whole_again() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    cluster.flip(0, 1);
    let consumer = reading(&cluster);
    read(&consumer, 0..10).await;
    for _ in 0..2 {
        let error = consumer.recv().await.unwrap_err();
        assert!(matches!(error, ConsumerError::Corrupt { offset: 10, .. }), "{error}");
        assert_eq!(error.recovery(), Recovery::Retry);
        assert!(error.to_string().starts_with("batch of t-0 at offset 10: "), "{error}");
    }
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 10);
    cluster.flip(0, 1);
    while consumer.position(&tp(0)).await.unwrap() < 11 {
        drop(consumer.recv().await); // one more may have been on its way
    }
    read(&consumer, 11..30).await;
}

#[tokio::test(start_paused = true)]
async fn a_compressed_bomb_is_an_error_and_not_memory() {
    let cluster = Cluster::default();
    cluster.append(0, Compression::Gzip, &[(None, Some(&vec![0; 1 << 20]))]);
    let consumer = builder(&cluster).decompressed_batch_max_bytes(1 << 16).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    assert!(matches!(consumer.recv().await, Err(ConsumerError::Corrupt { offset: 0, .. })));
}

#[tokio::test(start_paused = true)]
async fn kept_records_use_up_the_budget_but_a_waiting_reader_is_served() {
    let cluster = Cluster::default();
    cluster.count(0, 0..300);
    let consumer = builder(&cluster).prefetch_max_bytes(500).max_partition_fetch_bytes(300).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    let mut kept = vec![];
    for _ in 0..300 {
        kept.push(consumer.recv().await.unwrap());
    }
    assert_eq!(kept.iter().map(|r| r.offset).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
    assert!(consumer.shared.budget.held() > 500);
    let copies: Vec<_> = kept.into_iter().map(ConsumerRecord::detach).collect();
    consumer.unassign();
    assert_eq!(consumer.shared.budget.held(), 0, "copies hold nothing");
    assert_eq!(text(&copies[299]), "299");
}

#[tokio::test(start_paused = true)]
async fn a_record_of_other_types_holds_the_answer_by_its_headers_only() {
    let cluster = Cluster::default();
    cluster.count(0, 0..3);
    let consumer = builder(&cluster);
    let consumer: Consumer<Bytes, String> = consumer.value_deserializer(Plain).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    let mut kept = vec![];
    for _ in 0..3 {
        kept.push(consumer.recv().await.unwrap());
    }
    consumer.unassign();
    assert_eq!(kept[2].headers.len(), 2);
    assert!(consumer.shared.budget.held() > 0);
    let headers = kept[2].headers.clone();
    let copies: Vec<_> = kept.into_iter().map(ConsumerRecord::detach_headers).collect();
    assert_eq!((&copies[2].headers, &copies[2].value), (&headers, &Some("2".to_owned())));
    drop(headers);
    assert_eq!(consumer.shared.budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_budget_is_fetched_ahead() {
    // What is being read counts, too; more than two answers ahead of that would only need more memory.
    for (budget, answer, fetched) in [(2_000, 1_500, 1_000..=2_000), (20_000, 400, 900..=1_200)] {
        let cluster = Cluster::default();
        cluster.count(0, 0..1_000);
        let builder = builder(&cluster).prefetch_max_bytes(budget).max_partition_fetch_bytes(answer);
        let consumer = builder.build().unwrap();
        consumer.assign([(tp(0), StartOffset::Beginning)]);
        read(&consumer, 0..1).await;
        consumer.shared.client.rt().sleep(5 * S).await;
        let held = consumer.shared.budget.held();
        assert!(fetched.contains(&held), "{held}");
        read(&consumer, 1..1_000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_asks_twice_a_second_and_not_more() {
    let cluster = Cluster::default();
    let consumer = reading(&cluster);
    assert_eq!(consumer.poll(1, 20 * S).await.unwrap(), []);
    let fetches = cluster.state().fetches;
    assert!((35..=41).contains(&fetches), "{fetches}");
    cluster.count(0, 0..1);
    let started = now(&consumer);
    read(&consumer, 0..1).await;
    assert!(now(&consumer) - started < 5 * MS, "a long poll answers at once");
}

#[tokio::test(start_paused = true)]
async fn dropping_recv_loses_nothing() {
    let cluster = Cluster::default();
    let consumer = reading(&cluster);
    let mut seen = vec![];
    for number in 0..40 {
        // Polled once and dropped, unless there was a record.
        seen.extend(consumer.recv().now_or_never().map(|record| record.unwrap().offset));
        cluster.count(0, number..number + 1);
        let wait = number as u32 % 4 * MS;
        if let Some(record) = consumer.shared.client.rt().before(now(&consumer) + wait, consumer.recv()).await
        {
            seen.push(record.unwrap().offset);
        }
    }
    while seen.len() < 40 {
        seen.push(consumer.recv().await.unwrap().offset);
    }
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_read_together_get_different_records() {
    let cluster = Cluster::default();
    cluster.count(0, 0..100);
    let consumer = reading(&cluster);
    let half = || async {
        let mut seen = vec![];
        while let Some(record) = consumer.poll(3, S).await.unwrap().pop() {
            seen.push(record.offset);
        }
        seen
    };
    let (one, other) = tokio::join!(half(), half());
    assert!(one.iter().all(|offset| !other.contains(offset)));
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 100);
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_readers_and_ends_streams() {
    let cluster = Cluster::default();
    cluster.count(0, 0..15);
    let consumer = reading(&cluster);
    let values = consumer.stream().take(5).map(|record| record.unwrap().offset).collect::<Vec<_>>().await;
    assert_eq!(values, [0, 1, 2, 3, 4]);
    let read = consumer.batches().map(|batch| batch.unwrap().len()).collect::<Vec<_>>();
    let close = async {
        consumer.shared.client.rt().sleep(S).await;
        consumer.close().await.unwrap();
    };
    let (sizes, ()) = tokio::join!(read, close);
    assert_eq!(sizes.iter().sum::<usize>(), 10);
    assert!(matches!(consumer.recv().await, Err(ConsumerError::Closed)));
    assert_eq!(ConsumerError::Closed.recovery(), Recovery::Rebuild);
    let fetches = cluster.state().fetches;
    consumer.shared.client.rt().sleep(10 * S).await;
    assert!(cluster.state().fetches <= fetches + 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_consumer_stops_fetching_and_its_records_stay_valid() {
    let cluster = Cluster::default();
    cluster.count(0, 0..5);
    let consumer = reading(&cluster);
    let (record, rt) = (consumer.recv().await.unwrap(), consumer.shared.client.rt().clone());
    drop(consumer);
    let fetches = cluster.state().fetches;
    rt.sleep(10 * S).await;
    assert_eq!(cluster.state().fetches, fetches);
    assert_eq!(text(&record), "0");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_and_an_unreachable_cluster_are_told_within_the_limit() {
    let cluster = Cluster::default();
    let consumer = builder(&cluster).default_api_timeout_ms(30 * S).build().unwrap();
    consumer.assign([(("nowhere", 0), StartOffset::Beginning)]);
    let error = consumer.recv().await.unwrap_err();
    assert!(
        error.to_string().contains("no leader of nowhere-0 within 30s: UNKNOWN_TOPIC_OR_PARTITION"),
        "{error}"
    );
    assert!(now(&consumer) < 31 * S);

    cluster.set_down(&[1, 2]);
    let consumer = builder(&cluster).default_api_timeout_ms(30 * S).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    let error = consumer.recv().await.unwrap_err().to_string();
    assert!(error.contains("here:1") && error.contains("here:2"), "{error}");
    assert!(now(&consumer) < 31 * S);
    cluster.set_down(&[]);
    cluster.count(0, 0..1);
    read(&consumer, 0..1).await;

    let missing = consumer.end_offsets(&[TopicPartition::new("nowhere", 3)]).await.unwrap_err();
    assert!(matches!(missing, ConsumerError::NoLeader { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, .. }));
}

/// Goal: calls without time of their own fail, as Java's consumer has it; records are read all the same.
#[tokio::test(start_paused = true)]
async fn calls_may_have_less_time_than_a_request() {
    let cluster = Cluster::default();
    cluster.count(0, 0..5);
    let consumer = builder(&cluster).default_api_timeout_ms(Duration::ZERO).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    read(&consumer, 0..5).await;
    assert!(consumer.end_offsets(&[tp(0)]).await.is_err());
}
