//! Batches as they lie, poison records, interceptors, and partitions with a reader of their own.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// 7, something that is no number, 7.
fn with_poison() -> Cluster {
    let cluster = Cluster::default();
    let good = 7i32.to_be_bytes();
    cluster.append(0, Compression::None, &[(None, Some(&good)), (None, Some(b"no")), (None, Some(&good))]);
    cluster.append(1, Compression::None, &[(None, Some(&good))]);
    cluster
}

fn of_numbers(cluster: &Cluster, policy: PoisonPolicy) -> Consumer<Bytes, i32> {
    let builder = builder(cluster).value_deserializer::<i32>(Plain).poison_policy(policy);
    let consumer = builder.build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    consumer
}

#[tokio::test(start_paused = true)]
async fn a_poison_record_stops_its_partition_until_the_application_seeks_behind_it() {
    let cluster = with_poison();
    let consumer = of_numbers(&cluster, PoisonPolicy::Fail);
    let first = consumer.poll(10, S).await.unwrap();
    assert_eq!(first.iter().map(|r| r.value).collect::<Vec<_>>(), [Some(7)]);
    let error = consumer.poll(10, S).await.unwrap_err();
    let text = "value (i32) of t-0 at offset 1: 2 bytes where i32 needs 4; seek to 2 to leave it out";
    assert_eq!((error.to_string().as_str(), error.recovery()), (text, Recovery::Fix));
    assert_eq!(error.poison().unwrap().value.as_deref(), Some(&b"no"[..]));
    assert_eq!(consumer.position(&tp(0)).await.unwrap(), 1, "nothing was passed over");

    // Told again and again, but not at full speed.
    let begun = now(&consumer);
    for _ in 0..8 {
        assert!(matches!(consumer.recv().await, Err(ConsumerError::Deserialize { offset: 1, .. })));
    }
    let waited = now(&consumer) - begun;
    assert!(waited > 3 * S, "more and more slowly: {waited:?}");
    consumer.seek(&tp(0), StartOffset::Offset(2)).unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, 2);
}

#[tokio::test(start_paused = true)]
async fn a_partition_held_up_by_poison_holds_up_no_other() {
    let cluster = with_poison();
    let consumer = of_numbers(&cluster, PoisonPolicy::Fail);
    consumer.assign([(tp(0), StartOffset::Offset(1)), (tp(1), StartOffset::Beginning)]);
    let mut other = None;
    while other.is_none() {
        other = consumer.recv().await.ok();
    }
    assert_eq!(other.map(|record| record.partition), Some(1));
}

#[tokio::test(start_paused = true)]
async fn poison_is_left_out_or_handed_over_once_as_the_policy_says() {
    let cluster = with_poison();
    let consumer = of_numbers(&cluster, PoisonPolicy::Skip);
    let offsets: Vec<_> = consumer.poll(10, S).await.unwrap().iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [0, 2]);

    let consumer = of_numbers(&cluster, PoisonPolicy::HandOver);
    assert_eq!(consumer.recv().await.unwrap().offset, 0);
    let error = consumer.recv().await.unwrap_err();
    assert_eq!(error.to_string(), "value (i32) of t-0 at offset 1: 2 bytes where i32 needs 4");
    let raw = error.poison().unwrap().clone().detach();
    assert_eq!((raw.offset, raw.value.as_deref()), (1, Some(&b"no"[..])));
    assert_eq!(consumer.recv().await.unwrap().offset, 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_looked_at_where_it_lies_and_gives_back_its_memory() {
    for codec in [Compression::None, Compression::Lz4] {
        let cluster = Cluster::default();
        cluster.append(0, codec, &[(None, None), (Some(b""), Some(b"")), (Some(b"k"), Some(b"v"))]);
        cluster.count(0, 0..30);
        let consumer = reading(&cluster);
        let batch = consumer.recv_batch().await.unwrap();
        assert_eq!((batch.topic(), batch.partition(), batch.leader_epoch()), ("t", 0, 0));
        assert_eq!((batch.first_offset(), batch.next_offset()), (0, 3));
        assert_eq!(consumer.position(&tp(0)).await.unwrap(), 3);
        let views: Vec<_> = batch.iter().map(|record| record.unwrap()).collect();
        let pairs: Vec<_> = views.iter().map(|record| (record.key(), record.value())).collect();
        assert_eq!(pairs, [(None, None), (Some(&b""[..]), Some(&b""[..])), (Some(b"k"), Some(b"v"))]);
        assert_eq!(views[2].headers().collect::<Vec<_>>(), [(&b"h"[..], Some(&b""[..])), (b"n", None)]);
        assert_eq!((views[2].offset(), views[2].timestamp_ms()), (2, 1_002));
        assert_eq!(views[2].keep(), views[2].detach());
        assert_eq!(batch.keep().unwrap().len(), 3);

        // One kept record keeps all of it, a detached one nothing.
        let (kept, detached) = (views[2].keep(), views[2].detach());
        drop(views);
        drop(batch);
        // By record and by batch in turn.
        assert_eq!(consumer.recv().await.unwrap().offset, 3);
        let rest = consumer.recv_batch().await.unwrap();
        let offsets: Vec<_> = rest.iter().map(|record| record.unwrap().offset()).collect();
        assert_eq!(offsets, (4..13).collect::<Vec<_>>());
        drop(rest);
        while consumer.recv_batch().await.unwrap().next_offset() < 33 {}
        assert!(consumer.poll(1, MS).await.unwrap().is_empty());
        assert!(consumer.shared.budget.held() > 0);
        drop(kept);
        assert_eq!(consumer.shared.budget.held(), 0);
        assert_eq!(detached.value.as_deref(), Some(&b"v"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_begins_where_the_position_is() {
    let cluster = Cluster::default();
    cluster.count(0, 0..20);
    let consumer = builder(&cluster).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Offset(7))]);
    let mut views = std::pin::pin!(consumer.batch_views());
    let batch = views.next().await.unwrap().unwrap();
    let offsets: Vec<_> = batch.iter().map(|record| record.unwrap().offset()).collect();
    assert_eq!((offsets, batch.first_offset()), (vec![7, 8, 9], 7));
    consumer.close().await.unwrap();
    assert!(views.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_named_with_the_way_behind_it_and_told_ever_more_slowly() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    cluster.flip(0, 1);
    let consumer = reading(&cluster);
    assert_eq!(consumer.recv_batch().await.unwrap().next_offset(), 10);
    let begun = now(&consumer);
    let fetches = cluster.state().fetches;
    for _ in 0..8 {
        let error = consumer.recv_batch().await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("batch of t-0 at offset 10: "), "{text}");
        assert!(text.ends_with("; seek to 20 to give it up"), "{text}");
    }
    assert!(now(&consumer) - begun > 3 * S);
    assert!(cluster.state().fetches - fetches < 20, "no spin");
    consumer.seek(&tp(0), StartOffset::Offset(20)).unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, 20);
}

struct Marks;

impl ConsumerInterceptor for Marks {
    fn on_consume(&self, record: &mut ConsumerRecord) {
        record.headers.push(RecordHeader { name: Bytes::from_static(b"seen"), value: None });
        assert_ne!(record.offset, 1, "it panics in the middle");
    }
}

struct Counts(Arc<AtomicUsize>);

impl ConsumerInterceptor for Counts {
    fn on_consume(&self, record: &mut ConsumerRecord) {
        self.0.fetch_add(record.headers.iter().filter(|h| h.name == "seen").count(), Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_see_every_record_and_one_that_panics_leaves_no_trace() {
    let cluster = Cluster::default();
    cluster.count(0, 0..3);
    let seen = Arc::new(AtomicUsize::new(0));
    let builder = builder(&cluster).interceptor(Marks).interceptor(Counts(seen.clone()));
    let consumer = builder.build().unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    let records = consumer.poll(10, S).await.unwrap();
    let marks: Vec<_> = records.iter().map(|r| r.headers.iter().any(|h| h.name == "seen")).collect();
    assert_eq!((marks, seen.load(Ordering::Relaxed)), (vec![true, false, true], 2));
}

fn assign_both(consumer: &Consumer) {
    consumer.assign([(tp(0), StartOffset::Beginning), (tp(1), StartOffset::Beginning)]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_read_apart_comes_in_its_stream_only_and_what_is_left_goes_on_when_it_is_dropped() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    cluster.count(1, 0..30);
    let consumer = builder(&cluster).build().unwrap();
    assign_both(&consumer);
    let mut apart = consumer.partition_stream(&tp(1)).unwrap();
    assert!(matches!(consumer.partition_stream(&tp(1)), Err(ConsumerError::ReadApart { .. })));
    let nobody = TopicPartition::new("t", 7);
    assert!(matches!(consumer.partition_stream(&nobody), Err(ConsumerError::NotAssigned { .. })));
    for expected in 0..30 {
        assert_eq!(consumer.recv().await.unwrap().topic_partition(), tp(0));
        if expected < 13 {
            let record = apart.next().await.unwrap().unwrap();
            assert_eq!((record.topic_partition(), record.offset), (tp(1), expected));
        }
    }
    assert_eq!(consumer.position(&tp(1)).await.unwrap(), 13);
    assert!(consumer.recv().now_or_never().is_none());
    drop(apart);
    for expected in 13..30 {
        assert_eq!(consumer.recv().await.unwrap().offset, expected);
    }
    // The other way round, with a chunk open.
    consumer.seek(&tp(1), StartOffset::Beginning).unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, 0);
    let apart = consumer.partition_stream(&tp(1)).unwrap();
    assert_eq!(apart.recv().await.unwrap().offset, 1);
    assert_eq!(apart.recv_batch().await.unwrap().next_offset(), 10);
    consumer.pause([&tp(1)]);
    assert!(apart.recv().now_or_never().is_none());
    consumer.resume([&tp(1)]);
    assert_eq!(apart.recv().await.unwrap().offset, 10);
    consumer.seek(&tp(1), StartOffset::Offset(25)).unwrap();
    assert_eq!(apart.recv().await.unwrap().offset, 25);
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_their_assignment_and_with_the_consumer() {
    let cluster = Cluster::default();
    let consumer = builder(&cluster).build().unwrap();
    assign_both(&consumer);
    let mut waiting = consumer.partition_stream(&tp(1)).unwrap();
    let rt = consumer.shared.client.rt().clone();
    let ended = rt.spawn(async move { waiting.next().await.is_none() });
    tokio::task::yield_now().await;
    assign_both(&consumer);
    assert!(ended.await.unwrap(), "another assignment, though of the same partition");
    let mut first = consumer.partition_stream(&tp(0)).unwrap();
    let second = consumer.partition_stream(&tp(1)).unwrap();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    assert!(matches!(second.recv().await, Err(ConsumerError::NotAssigned { .. })));
    drop(second);
    drop(consumer);
    assert!(first.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn each_assigned_partition_gets_a_stream_now_and_later() {
    let cluster = Cluster::default();
    cluster.count(0, 0..10);
    cluster.count(1, 0..10);
    let consumer = builder(&cluster).build().unwrap();
    let mut streams = std::pin::pin!(consumer.partition_streams());
    assert!(streams.next().now_or_never().is_none());
    assign_both(&consumer);
    let first = streams.next().await.unwrap().unwrap();
    let second = streams.next().await.unwrap().unwrap();
    assert_eq!((first.topic_partition(), second.topic_partition()), (&tp(0), &tp(1)));
    assert_eq!(second.recv().await.unwrap().offset, 0);
    assert!(streams.next().now_or_never().is_none());
    drop(second);
    let again = streams.next().await.unwrap().unwrap();
    assert_eq!(again.recv().await.unwrap().offset, 1, "offered again, where it stood");
    consumer.close().await.unwrap();
    assert!(streams.next().await.is_none());
}

/// Goal: with one reader that stands still, the other one of the same leader reads everything, at full speed, and what waits
/// stays within the budget.
#[tokio::test(start_paused = true)]
async fn a_slow_partition_holds_up_its_own_fetches_only() {
    const BUDGET: usize = 40_000;
    let cluster = Cluster::default();
    cluster.move_leader(1, 1);
    for partition in 0..2 {
        cluster.count(partition, 0..20_000);
    }
    let builder = builder(&cluster).prefetch_max_bytes(BUDGET).max_partition_fetch_bytes(4_000);
    let consumer = builder.build().unwrap();
    assign_both(&consumer);
    let [slow, fast] = [0, 1].map(|partition| consumer.partition_stream(&tp(partition)).unwrap());
    assert_eq!(slow.recv().await.unwrap().offset, 0);
    let begun = now(&consumer);
    for expected in 0..20_000 {
        assert_eq!(fast.recv().await.unwrap().offset, expected);
        let held = consumer.shared.budget.held();
        assert!(held <= BUDGET + 8_000, "{held} bytes are held");
    }
    let elapsed = now(&consumer) - begun;
    assert!(elapsed < 2 * S, "nobody waited for the slow one: {elapsed:?}");
    for expected in 1..20_000 {
        assert_eq!(slow.recv().await.unwrap().offset, expected);
    }
}

/// Goal: no silent gap after an unclean election: reading goes on where the logs differ (KIP-320).
#[tokio::test(start_paused = true)]
async fn after_the_log_was_cut_reading_goes_on_where_it_differs() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let consumer = reading(&cluster);
    read(&consumer, 0..30).await;
    cluster.cut(0, 1, 2);
    cluster.count(0, 10..40);
    read(&consumer, 10..40).await;

    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::None).build().unwrap();
    consumer.assign([(tp(0), StartOffset::Offset(0))]);
    read(&consumer, 0..40).await;
    cluster.cut(0, 2, 1);
    let error = consumer.recv().await.unwrap_err();
    let text = "the log of t-0 was cut before offset 40, and auto.offset.reset is none; it differs from offset 20 on: \
                seek there";
    assert_eq!((error.to_string().as_str(), error.recovery()), (text, Recovery::Fix));
    assert!(matches!(consumer.recv().await, Err(ConsumerError::Truncated { diverges: Some(20), .. })));
    consumer.seek(&tp(0), StartOffset::Offset(20)).unwrap();
    cluster.count(0, 20..25);
    read(&consumer, 20..25).await;
}

/// Goal: what is cut off is not handed out any more, though it is here, and what lies before it is neither lost nor doubled.
#[tokio::test(start_paused = true)]
async fn a_cut_reaches_what_is_being_read() {
    for (read_before, apart) in [(5, false), (5, true), (15, false), (15, true)] {
        let cluster = Cluster::default();
        cluster.count(0, 0..30);
        let consumer = reading(&cluster);
        let stream = apart.then(|| consumer.partition_stream(&tp(0)).unwrap());
        let next = async || match &stream {
            Some(stream) => stream.recv().await.unwrap(),
            None => consumer.recv().await.unwrap(),
        };
        for expected in 0..read_before {
            assert_eq!(next().await.offset, expected);
        }
        cluster.cut(0, 1, 2);
        cluster.count(0, 110..130);
        let rt = consumer.shared.client.rt();
        rt.sleep(5 * S).await; // it hears of the new leader, and what that lacks
        for expected in read_before.min(10)..30 {
            let record = next().await;
            let value = if expected < 10 { expected } else { 100 + expected };
            assert_eq!((record.offset, text(&record)), (expected, value.to_string()), "apart: {apart}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn out_of_range_may_go_back_by_a_duration() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let properties = |reset| [("bootstrap.servers", "here:1"), ("auto.offset.reset", reset)];
    // Records are from 1970, so that the last so many years hold all of them or none.
    for (reset, position) in [("by_duration:P36500D", 0), ("by_duration:PT1H", 30)] {
        let builder = Consumer::from_properties(properties(reset)).unwrap();
        let consumer = builder.connector(cluster.connector()).build().unwrap();
        consumer.assign([(tp(0), StartOffset::Offset(99))]);
        let deadline = now(&consumer) + 10 * S;
        while consumer.position(&tp(0)).await.unwrap() != position {
            assert!(now(&consumer) < deadline, "{reset}");
            let _ = consumer.poll(1, MS).now_or_never();
            consumer.shared.client.rt().sleep(MS).await;
        }
    }
    let error = Consumer::from_properties(properties("by_duration:1h")).unwrap_err().to_string();
    assert!(error.contains("by_duration:PT1H"), "{error}");
}

/// Behind what is done, and behind what was handed out.
fn stands(consumer: &Consumer) -> (i64, i64) {
    let of = std::collections::BTreeSet::from([tp(0)]);
    let [done, handed] = [true, false].map(|done| consumer.shared.committable(&of, done)[&tp(0)].offset);
    (done, handed)
}

/// Goal: lag reaches 0 behind a transaction, whose marker is not for the application.
#[tokio::test(start_paused = true)]
async fn what_is_not_for_the_application_is_done_with_what_lies_before_it() {
    let cluster = Cluster::default();
    cluster.count(0, 0..20);
    cluster.append(0, Compression::None, &[(None, None)]);
    cluster.mark(0, 2);
    let consumer = builder(&cluster).check_crcs(false).build().unwrap();
    consumer.shared.count_turns();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    read(&consumer, 0..20).await;
    assert_eq!(stands(&consumer), (19, 20));
    assert!(consumer.recv().now_or_never().is_none());
    assert_eq!(stands(&consumer), (21, 21));
    cluster.append(0, Compression::None, &[(None, None)]);
    cluster.mark(0, 3);
    assert!(consumer.poll(1, S).await.unwrap().is_empty());
    assert_eq!(stands(&consumer), (22, 22), "also when it comes alone");
}

/// Goal: what a reader is at work on is not done because others ask, and a dropped stream's last record is its task's.
#[tokio::test(start_paused = true)]
async fn turns_of_streams_end_with_themselves() {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let consumer = builder(&cluster).build().unwrap();
    consumer.shared.count_turns();
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    let [mut one, mut two] = [Box::pin(consumer.stream()), Box::pin(consumer.stream())];
    assert_eq!(one.next().await.unwrap().unwrap().offset, 0);
    for expected in 1..5 {
        assert_eq!(two.next().await.unwrap().unwrap().offset, expected);
    }
    assert_eq!(stands(&consumer), (0, 5));
    assert_eq!(one.next().await.unwrap().unwrap().offset, 5);
    assert_eq!(stands(&consumer), (4, 6));
    drop(two);
    assert_eq!(stands(&consumer), (4, 6), "that says nothing of its last record");
    let mut apart = consumer.partition_stream(&tp(0)).unwrap();
    assert_eq!(stands(&consumer), (5, 6), "its task asked for more");
    assert_eq!(apart.next().await.unwrap().unwrap().offset, 6);
    assert_eq!(stands(&consumer), (5, 7), "the first stream has one still");
    drop(one);
    consumer.recv().now_or_never();
    assert_eq!(stands(&consumer), (6, 7));
    let rt = consumer.shared.client.rt().clone();
    rt.spawn(async move { drop(apart) }).await.unwrap();
    assert_eq!(consumer.recv().await.unwrap().offset, 7);
    assert_eq!(stands(&consumer), (6, 8), "the task that dropped it never came back");
    consumer.seek(&tp(0), StartOffset::Offset(20)).unwrap();
    assert_eq!(stands(&consumer), (20, 20));
}
