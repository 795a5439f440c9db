//! Clusters that keep what they have on a real disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use broker_lite::{Cluster, ClusterBuilder, Event, NodeEvent};
use bytes::{Bytes, BytesMut};
use klamm_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::describe_configs_request::DescribeConfigsResource;
use klamm_wire::messages::{
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
};
use klamm_wire::{BatchBuilder, Compression, ErrorCode, ProducerStamp};
use support::{Talk, stamped, topic_name, values};

fn builder(path: &Path) -> ClusterBuilder {
    Cluster::builder().brokers(3).data_dir(path).topic("t", Some(1), Some(3))
}

async fn started(path: &Path) -> Cluster {
    builder(path).start().await.unwrap()
}

/// Deletes topic `t`. A controller that is elected meanwhile, because the disks stand still, is asked for it again when it is
/// done, and answers that there is no such topic: see quorum.rs.
async fn delete(cluster: &Cluster, talk: &mut Talk) {
    let elected = || {
        let events = cluster.events();
        events.iter().filter(|event| matches!(event, Event::ControllerElected { .. })).count()
    };
    let before = elected();
    let topic = DeleteTopicState::default().with_name(Some(topic_name("t")));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
    let code = ErrorCode(talk.ask(6, &request).await.responses[0].error_code);
    let again = code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && elected() > before;
    assert!(code == ErrorCode::NONE || again, "{code}: {:?}", cluster.events());
}

async fn leader(cluster: &Cluster) -> Talk {
    cluster.until_leader("t", 0, |leader| leader.is_some()).await;
    Talk::to(cluster, cluster.leader_of("t", 0).unwrap()).await
}

/// Reads until there are so many records: the high watermark is learned again after a start.
async fn read(cluster: &Cluster, wanted: usize) -> Vec<String> {
    loop {
        let mut talk = leader(cluster).await;
        let read: Vec<String> =
            values(&talk.fetch("t", 0, 0, 500).await).into_iter().map(|(_, value)| value).collect();
        if read.len() >= wanted {
            return read;
        }
    }
}

/// A batch that no other is taken for: [`write`] may send it twice.
fn batch(values: &[&str]) -> Bytes {
    static PRODUCER: AtomicI64 = AtomicI64::new(1_000);
    stamped(values, PRODUCER.fetch_add(1, Ordering::Relaxed), 0, 0)
}

/// Writes when the leader knows that it is one; returns the offset. Who loses the leadership has refused what it may have
/// written, so that `records` must be stamped.
async fn write(cluster: &Cluster, records: Bytes) -> i64 {
    loop {
        let mut talk = leader(cluster).await;
        let answer = talk.produce("t", 0, records.clone()).await;
        if answer.error_code == 0 {
            return answer.base_offset;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Waits, and says what is there instead if that takes so long that it will not come any more.
async fn until(holds: impl Fn() -> bool, found: impl Fn() -> String) {
    let began = tokio::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", found());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Goal: the same cluster, its topics and its records, whether it was stopped in order or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_with_what_its_directory_holds() {
    let temp = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for (round, in_order) in [true, false, true, false].into_iter().enumerate() {
        let cluster = started(temp.path()).await;
        if round > 0 {
            assert_eq!(read(&cluster, written.len()).await, written);
        }
        for value in [format!("{round}a"), format!("{round}b")] {
            write(&cluster, batch(&[&value])).await;
            written.push(value);
        }
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        let report = cluster.check();
        assert!(report.is_ok() && report.replicas == 3, "{report}");
        if in_order {
            cluster.shutdown().await;
        }
        let marker = temp.path().join("broker-1/.kafka_cleanshutdown");
        assert_eq!(marker.exists(), in_order);
    }
}

/// Goal: a retry is known as such although the broker that took the original is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_are_known_after_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let cluster = started(temp.path()).await;
        for sequence in 0..4 {
            let offset = write(&cluster, stamped(&["x"], 7, 0, sequence)).await;
            assert_eq!(offset, i64::from(sequence), "round {round}");
        }
        cluster.shutdown().await;
    }
}

/// A record so large that each has its own segment.
fn keyed(key: &str, value: &str, base_sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(BytesMut::new());
    let value = value.repeat(700_000 / value.len());
    builder.append::<&[u8], &[u8]>(*support::MADE_MS, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    let sealed = builder.seal(Compression::None, None).unwrap();
    let stamp = ProducerStamp { producer_id: 7, producer_epoch: 0, base_sequence };
    [&sealed.header(stamp)[..], sealed.records()].concat().into()
}

fn kept(cluster: &Cluster, broker: i32) -> Vec<i64> {
    cluster.log(broker, "t", 0).unwrap_or_default().iter().map(|record| record.offset).collect()
}

/// Goal: gaps that compaction leaves are not taken for losses after a kill, however soon that comes, and how far it has come
/// is known to the next process, in Kafka's file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_log_outlives_a_kill_and_says_how_far_it_is_compacted() {
    let temp = tempfile::tempdir().unwrap();
    let compacting = |checkpoints_every_ms: &'static str| {
        let checkpoints = ("replica.high.watermark.checkpoint.interval.ms", checkpoints_every_ms);
        let compact = [("log.cleanup.policy", "compact"), ("log.segment.bytes", "1048576")];
        let often = [("log.cleaner.backoff.ms", "50"), ("log.cleaner.min.cleanable.ratio", "0"), checkpoints];
        let all = compact.into_iter().chain(often);
        all.fold(builder(temp.path()), |builder, (name, value)| builder.config(name, value))
    };
    let never = "3600000";
    // From now on there is a recovery point, 0, in its file.
    compacting(never).start().await.unwrap().shutdown().await;
    let cluster = compacting(never).start().await.unwrap();
    for (sequence, key) in (0..).zip(["x", "a", "b", "a", "b", "z"]) {
        write(&cluster, keyed(key, &sequence.to_string(), sequence)).await;
    }
    for broker in [1, 2, 3] {
        until(
            || kept(&cluster, broker) == [0, 3, 4, 5],
            || format!("broker {broker} keeps {:?}; {}", kept(&cluster, broker), cluster.check()),
        )
        .await;
    }
    drop(cluster);
    let cluster = compacting("50").start().await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    for broker in [1, 2, 3] {
        assert_eq!(kept(&cluster, broker), [0, 3, 4, 5], "broker {broker}");
    }
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
    // The kill may have come before that was known, and then it is done again.
    let file = temp.path().join("broker-1/cleaner-offset-checkpoint");
    let known = || std::fs::read_to_string(&file).unwrap_or_default();
    until(|| known() == "0\n1\nt 0 5\n", || format!("known is {:?}", known())).await;
    cluster.shutdown().await;
    assert_eq!(known(), "0\n1\nt 0 5\n");
}

/// Goal: as in Kafka, a partition may lie on another disk behind a link. It goes with its topic, and what is behind the link
/// is not touched.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_behind_a_link_is_one_of_the_directorys() {
    let (temp, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cluster = started(temp.path()).await;
    write(&cluster, batch(&["a", "b"])).await;
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    cluster.shutdown().await;
    let link = temp.path().join("broker-1/t-0");
    let target = elsewhere.path().join("t-0");
    let mut copied = std::process::Command::new("cp");
    assert!(copied.arg("-a").args([&link, &target]).status().unwrap().success());
    std::fs::remove_dir_all(&link).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();

    let cluster = started(temp.path()).await;
    assert_eq!(read(&cluster, 2).await, ["a", "b"]);
    write(&cluster, batch(&["c"])).await;
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let report = cluster.check();
    assert!(report.is_ok() && report.replicas == 3, "{report}");
    // The next process hears that it is gone.
    cluster.kill(1).unwrap();
    delete(&cluster, &mut Talk::to(&cluster, 2).await).await;
    cluster.shutdown().await;
    let _cluster = Cluster::builder().brokers(3).data_dir(temp.path()).start().await.unwrap();
    while std::fs::symlink_metadata(&link).is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(target.join("00000000000000000000.log").exists());
}

/// Goal: what the checkpoint files say of a topic that is gone is not taken for the next one of its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_again_keeps_its_records_when_the_process_is_killed() {
    let temp = tempfile::tempdir().unwrap();
    // Nothing is written down between a start and a shutdown in order.
    let lazy = builder(temp.path()).config("replica.high.watermark.checkpoint.interval.ms", "3600000");
    let cluster = lazy.clone().start().await.unwrap();
    for _ in 0..3 {
        write(&cluster, batch(&["old"; 10])).await;
    }
    let partition = DeleteRecordsPartition::default().with_offset(20);
    let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
    let answer = leader(&cluster).await.ask(2, &request).await;
    assert_eq!(answer.topics[0].partitions[0].low_watermark, 20);
    cluster.shutdown().await;

    let cluster = lazy.clone().start().await.unwrap();
    delete(&cluster, &mut leader(&cluster).await).await;
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    assert_eq!(write(&cluster, batch(&["new"; 3])).await, 0);
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    drop(cluster);

    let cluster = lazy.start().await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let held = |broker| cluster.log_end_offset(broker, "t", 0);
    assert_eq!([held(1), held(2), held(3)], [Some(3); 3]);
    assert_eq!(read(&cluster, 3).await, ["new"; 3]);
}

/// Goal: a leader that was stopped in order tells its followers where each epoch ends, so that none of them cuts off what is
/// committed. Without a flush per message nothing but the shutdown writes the epochs down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_truncated_after_starts_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let unflushed = builder(temp.path()).config("log.flush.interval.messages", "1000000");
    let mut written = 0;
    for round in 0..4 {
        let cluster = unflushed.clone().start().await.unwrap();
        for value in ["a", "b"] {
            write(&cluster, batch(&[value])).await;
            written += 1;
        }
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        assert_eq!(
            (read(&cluster, written).await.len(), cluster.truncations()),
            (written, 0),
            "round {round}"
        );
        assert!(cluster.check().is_ok(), "{}", cluster.check());
        cluster.shutdown().await;
        let epochs = |broker: i32| {
            let path = temp.path().join(format!("broker-{broker}/t-0/leader-epoch-checkpoint"));
            std::fs::read_to_string(path).unwrap()
        };
        assert_eq!(epochs(1).lines().count(), 2 + round + 1, "{}", epochs(1));
        assert_eq!((epochs(1), epochs(1)), (epochs(2), epochs(3)));
    }
}

/// Goal: a leader whose epochs are wrong does not have its followers cut and copy as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_told_to_diverge_at_the_same_place_again_pauses() {
    let temp = tempfile::tempdir().unwrap();
    let pause = std::time::Duration::from_millis(200);
    // An answer holds one batch, so that a follower ends in each of the epochs.
    let builder = Cluster::builder().brokers(2).data_dir(temp.path()).topic("t", Some(1), Some(2));
    let builder = builder.config("replica.fetch.max.bytes", "1").config("replica.fetch.backoff.ms", "200");
    let mut last = 0;
    for _ in 0..3 {
        let cluster = builder.clone().start().await.unwrap();
        for _ in 0..6 {
            last = write(&cluster, batch(&["x".repeat(1_000).as_str()])).await;
        }
        cluster.until_isr("t", 0, |isr| isr.len() == 2).await;
        cluster.shutdown().await;
    }
    // Whoever leads has forgotten an epoch, and whoever follows has lost everything.
    let cluster = builder.clone().start().await.unwrap();
    cluster.until_leader("t", 0, |leader| leader.is_some()).await;
    let leader = cluster.leader_of("t", 0).unwrap();
    cluster.shutdown().await;
    let path = |broker: i32| temp.path().join(format!("broker-{broker}/t-0"));
    let file = path(leader).join("leader-epoch-checkpoint");
    let known = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<_> = known.lines().collect();
    assert!(lines.len() >= 2 + 3, "{known}");
    lines.remove(3);
    let count = (lines.len() - 2).to_string();
    lines[1] = &count;
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    std::fs::remove_dir_all(path(3 - leader)).unwrap();

    let cluster = builder.start().await.unwrap();
    let mut cuts: Vec<std::time::Duration> = Vec::new();
    while cuts.len() < 4 {
        let since = cuts.last().copied().unwrap_or_default();
        let next = cluster.until_event(|event| is_cut(event) && event.at() > since).await;
        cuts.push(next.at());
    }
    assert!(last > 0 && cuts[3] - cuts[0] >= 2 * pause, "{cuts:?}");
}

fn is_cut(event: &Event) -> bool {
    matches!(event, Event::Node { what: NodeEvent::Truncated { .. }, .. })
}

/// Goal: logs that could not be closed are looked through at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_close_its_logs_does_not_say_that_it_has() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = started(temp.path()).await;
    write(&cluster, batch(&["a"])).await;
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let full = cluster.disk(1).unwrap().full();
    cluster.shutdown().await;
    drop(full);
    let marked = |broker| temp.path().join(format!("broker-{broker}/.kafka_cleanshutdown")).exists();
    assert_eq!([marked(1), marked(2), marked(3)], [false, true, true]);
    assert_eq!(read(&started(temp.path()).await, 1).await, ["a"]);
}

#[tokio::test]
async fn a_directory_that_is_held_or_foreign_is_refused_in_one_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = started(temp.path()).await;
    let told = builder(temp.path()).start().await.unwrap_err().to_string();
    assert!(told.contains("is held by another process") && !told.contains('\n'), "{told}");
    cluster.shutdown().await;
    std::fs::write(temp.path().join("letter.txt"), "dear").unwrap();
    let told = builder(temp.path()).start().await.unwrap_err().to_string();
    assert!(told.contains("\"letter.txt\", which is none of broker-lite's"), "{told}");
    std::fs::remove_file(temp.path().join("letter.txt")).unwrap();
    let meta = temp.path().join("broker-2/meta.properties");
    let changed = std::fs::read_to_string(&meta).unwrap().replace("cluster.id=", "cluster.id=x");
    std::fs::write(meta, changed).unwrap();
    let told = builder(temp.path()).start().await.unwrap_err().to_string();
    assert!(told.contains("belongs to cluster x"), "{told}");
}

/// Goal: as in Kafka, where the log directory is offline and a broker without another one stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_stops_where_a_replica_cannot_be_opened() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = started(temp.path()).await;
    write(&cluster, batch(&["a"])).await;
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    cluster.shutdown().await;
    // Root may read everything, but nothing is below a file.
    let replica = temp.path().join("broker-2/t-0");
    std::fs::remove_dir_all(&replica).unwrap();
    std::fs::write(&replica, "").unwrap();

    let cluster = started(temp.path()).await;
    let failed = |event: &Event| match event {
        Event::Node { node: 2, what: NodeEvent::DiskFailed { cause }, .. } => Some(cause.clone()),
        _ => None,
    };
    let cause = failed(&cluster.until_event(|event| failed(event).is_some()).await).unwrap();
    assert!(cause.starts_with("cannot open replica t-0: ") && cause.contains("broker-2/t-0"), "{cause}");
    assert_eq!(read(&cluster, 1).await, ["a"], "the others serve on");
}

#[tokio::test]
async fn a_broker_on_a_disk_names_its_directory_id_and_listener() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = started(temp.path()).await;
    let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name("2".into());
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = Talk::to(&cluster, 2).await.ask(4, &request).await;
    let value = |name: &str| {
        let found = answer.results[0].configs.iter().find(|config| &*config.name == name).unwrap();
        (found.value.as_deref().unwrap_or_default().to_owned(), found.config_source)
    };
    let home = temp.path().join("broker-2").canonicalize().unwrap().display().to_string();
    // 4 is STATIC_BROKER_CONFIG.
    assert_eq!(value("node.id"), ("2".into(), 4));
    assert_eq!(value("log.dirs"), (home.clone(), 4));
    assert_eq!(value("listeners"), ("PLAINTEXT://broker-2.lite:9092".into(), 4));
    let answer = Talk::to(&cluster, 2).await.ask(4, &DescribeLogDirsRequest::default()).await;
    assert_eq!(&*answer.results[0].log_dir, home);
}

/// Goal: the size is that of the volume on which the directory is, and what is left of it what `df` says (KIP-827).
#[tokio::test]
async fn the_size_of_the_disk_is_told_as_df_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = started(directory.path()).await;
    let mut talk = leader(&cluster).await;
    let told = talk.ask(4, &DescribeLogDirsRequest::default().with_topics(None)).await;
    let told = &told.results[0];
    let mut df = std::process::Command::new("df");
    let df = df.args(["-B1", "--output=size,avail"]).arg(directory.path()).output().unwrap();
    let line = String::from_utf8(df.stdout).unwrap().lines().last().unwrap().to_owned();
    let [size, left] =
        line.split_whitespace().map(|word| word.parse::<i64>().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{line}")
    };
    assert_eq!(told.total_bytes, size);
    // Others write meanwhile.
    assert!((told.usable_bytes - left).abs() < 1 << 30, "{} of {line}", told.usable_bytes);
}
