//! Disks that lose what was not synced, are slow, full, or fail.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_lite::{Cluster, ClusterError, Event, LinkError, PowerLoss};
use klamm_wire::ErrorCode;
use support::{Talk, batch, code, produce, produced, stamped, values};

const MS: Duration = Duration::from_millis(1);

/// Every message is synced before it is acknowledged.
const FLUSH: (&str, &str) = ("flush.messages", "1");

/// Three brokers and one topic of one partition on all of them; returns its leader, too.
async fn cluster(seed: u64, topic: &[(&str, &str)]) -> (Cluster, i32) {
    let cluster = Cluster::builder().seed(seed).start().await.unwrap();
    cluster.create_topic("t", 1, 3, topic).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

fn others(cluster: &Cluster, broker: i32) -> Vec<i32> {
    cluster.broker_ids().into_iter().filter(|id| *id != broker).collect()
}

fn is_down(cluster: &Cluster, broker: i32) -> bool {
    matches!(cluster.resume(broker), Err(ClusterError::Broker { state: "down", .. }))
}

fn log_values(cluster: &Cluster, broker: i32) -> Vec<String> {
    let records = cluster.log(broker, "t", 0).unwrap();
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

/// Restarts all at once, as after a power failure.
async fn restart_all(cluster: &Cluster, brokers: &[i32]) {
    let restarts = brokers.iter().map(|broker| cluster.restart(*broker));
    for restarted in futures::future::join_all(restarts).await {
        restarted.unwrap();
    }
}

/// Virtual time that a produce request takes, and its answer.
async fn timed(talk: &mut Talk, acks: i16, value: &str) -> (Duration, ErrorCode) {
    let before = tokio::time::Instant::now();
    let answer = talk.send(produce("t", 0, acks, 60_000, batch(&[value]))).await.unwrap().await.unwrap();
    (before.elapsed(), code(produced(answer).error_code))
}

async fn talk_to_leader(cluster: &Cluster) -> Talk {
    loop {
        if let Some(leader) = cluster.leader_of("t", 0)
            && let Ok(talk) = Talk::dial(cluster, leader).await
        {
            return talk;
        }
        tokio::time::sleep(5 * MS).await;
    }
}

/// Reads everything committed.
async fn read(cluster: &Cluster) -> Vec<String> {
    let mut talk = talk_to_leader(cluster).await;
    let mut read: Vec<String> = Vec::new();
    loop {
        let found = values(&talk.fetch("t", 0, read.len() as i64, 0).await);
        if found.is_empty() {
            return read;
        }
        read.extend(found.into_iter().map(|(_, value)| value));
    }
}

/// Goal: a broker that opens replicas for longer than its session lasts is heard of all the same, and serves what it has.
#[tokio::test(start_paused = true)]
async fn a_broker_that_opens_replicas_on_a_slow_disk_is_not_fenced() {
    let (cluster, _) = cluster(7, &[]).await;
    let since = cluster.event_count() as usize;
    let slow = cluster.disk(1).unwrap().slow(500 * MS);
    let begun = tokio::time::Instant::now();
    let watch = async {
        let mut talk = Talk::to(&cluster, 1).await;
        tokio::time::sleep(1_000 * MS).await;
        for _ in 0..30 {
            let asked = tokio::time::Instant::now();
            let shown = talk.metadata(Some("many")).await.topics[0].partitions.len();
            assert!(shown == 20 && asked.elapsed() < 300 * MS, "{shown} after {:?}", asked.elapsed());
            let fetched = talk.fetch("t", 0, 0, 0).await;
            assert!(asked.elapsed() < 300 * MS, "{fetched:?} after {:?}", asked.elapsed());
            tokio::time::sleep(200 * MS).await;
        }
    };
    let (created, ()) = tokio::join!(cluster.create_topic("many", 20, 3, &[]), watch);
    created.unwrap();
    assert!(begun.elapsed() >= 10_000 * MS, "{:?}", begun.elapsed());
    drop(slow);
    let fenced = |event: &&Event| matches!(event, Event::Fenced { .. });
    assert_eq!(cluster.events()[since..].iter().find(fenced), None);
}

/// Goal: a broker leads nothing, and counts as back for nobody, before it has opened what it holds.
#[tokio::test(start_paused = true)]
async fn a_broker_that_looks_through_its_logs_is_unfenced_when_it_has() {
    let (cluster, _) = cluster(7, &[]).await;
    cluster.create_topic("many", 20, 3, &[]).await.unwrap();
    cluster.kill(1).unwrap();
    let _slow = cluster.disk(1).unwrap().slow(500 * MS);
    let begun = tokio::time::Instant::now();
    cluster.restart(1).await.unwrap();
    assert!(begun.elapsed() >= 10_000 * MS, "{:?}", begun.elapsed());
    for partition in 0..20 {
        assert!(cluster.log_end_offset(1, "many", partition).is_some(), "{partition}");
    }
}

/// A producer with one request in flight that sends each record until somebody acknowledges it. Returns how many were.
async fn write(cluster: Arc<Cluster>, stop: Arc<AtomicBool>) -> usize {
    let mut talk = talk_to_leader(&cluster).await;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let records = stamped(&[&sequence.to_string()], 7, 0, sequence);
        let answer = async { talk.send(produce("t", 0, -1, 500, records)).await?.await };
        let answer: Result<_, LinkError> =
            tokio::time::timeout(2_000 * MS, answer).await.unwrap_or_else(|_| Err(LinkError::closed()));
        if answer.is_ok_and(|answer| produced(answer).error_code == 0) {
            sequence += 1;
            tokio::time::sleep(2 * MS).await;
        } else {
            tokio::time::sleep(5 * MS).await;
            talk = talk_to_leader(&cluster).await;
        }
    }
    sequence as usize
}

/// Goal: each record once and in order, none that was acknowledged is missing, and the replicas agree.
async fn assert_written(cluster: &Cluster, acknowledged: usize) {
    let mut talk = talk_to_leader(cluster).await;
    while talk.produce("t", 0, batch(&["end"])).await.error_code != 0 {
        tokio::time::sleep(5 * MS).await;
        talk = talk_to_leader(cluster).await;
    }
    let mut read = read(cluster).await;
    assert_eq!(read.pop().as_deref(), Some("end"));
    read.retain(|value| value != "end");
    let expected: Vec<_> = (0..read.len()).map(|number| number.to_string()).collect();
    assert_eq!(read, expected);
    assert!(read.len() >= acknowledged, "acknowledged {acknowledged}, read {}", read.len());
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}

// ---- loss of power -------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_kill_keeps_what_was_written_and_a_loss_of_power_only_what_was_synced() {
    for (topic, left) in [(&[][..], 0), (&[FLUSH][..], 2)] {
        let (cluster, leader) = cluster(7, topic).await;
        let mut talk = Talk::to(&cluster, leader).await;
        talk.produce("t", 0, batch(&["a", "b"])).await;
        let [first, second] = others(&cluster, leader)[..] else { panic!() };
        cluster.kill(first).unwrap();
        assert_eq!(log_values(&cluster, first), ["a", "b"]);
        cluster.power_off(second).unwrap();
        assert_eq!(log_values(&cluster, second).len(), left, "{topic:?}");
        assert!(matches!(cluster.power_off(second), Err(ClusterError::Broker { state: "down", .. })));
        assert!(matches!(cluster.power_off(9), Err(ClusterError::NoSuchBroker(9))));
        restart_all(&cluster, &[first, second]).await;
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        while log_values(&cluster, first).len() + log_values(&cluster, second).len() < 4 {
            tokio::time::sleep(5 * MS).await;
        }
        assert!(cluster.check().is_ok(), "{}", cluster.check());
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_power_of_all_takes_what_a_killed_broker_had_left_unsynced() {
    let (cluster, leader) = cluster(7, &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["a"])).await;
    cluster.kill(leader).unwrap();
    assert_eq!(log_values(&cluster, leader), ["a"]);
    assert_eq!(cluster.power_off_all(), others(&cluster, leader));
    assert_eq!(log_values(&cluster, leader), [""; 0]);
}

/// Goal: the loss that the setting is for can happen, and be seen.
#[tokio::test(start_paused = true)]
async fn without_flush_messages_1_an_acknowledged_record_is_lost_when_all_lose_power() {
    let (cluster, leader) = cluster(7, &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0);
    let victims = cluster.power_off_all();
    assert_eq!(victims, [1, 2, 3]);
    restart_all(&cluster, &victims).await;
    cluster.until_leader("t", 0, |leader| leader.is_some()).await;
    assert_eq!(cluster.committed_offset("t", 0), Some(1));
    assert_eq!(read(&cluster).await, [""; 0]);
    assert!(!cluster.check().is_ok(), "the loss is found: {}", cluster.check());
}

/// Goal: whenever it falls between the leader's append and the answer, what was answered is there afterwards. Disks take
/// 2 to 9 ms, so that each moment meets them in another state.
#[test]
fn all_may_lose_power_at_any_moment_after_the_append_and_nothing_acknowledged_is_lost() {
    let mut acknowledged = [0; 2];
    for after_ms in 0..30 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (cluster, leader) = cluster(after_ms, &[FLUSH, ("min.insync.replicas", "2")]).await;
            let _slow: Vec<_> = cluster
                .broker_ids()
                .into_iter()
                .map(|broker| cluster.disk(broker).unwrap().sync_latency(2 * MS..=9 * MS))
                .collect();
            let mut talk = Talk::to(&cluster, leader).await;
            talk.produce("t", 0, batch(&["before"])).await;
            let before = tokio::time::Instant::now();
            let answer = talk.send(produce("t", 0, -1, 60_000, batch(&["a"]))).await.unwrap();
            let answer = tokio::time::timeout_at(before + Duration::from_millis(after_ms), answer).await;
            let was = matches!(answer, Ok(Ok(answer)) if produced(answer.clone()).error_code == 0);
            acknowledged[usize::from(was)] += 1;
            let loss = if after_ms % 2 == 0 { PowerLoss::Unsynced } else { PowerLoss::Torn };
            let victims = cluster.power_off_all_with(loss);
            restart_all(&cluster, &victims).await;
            assert_written_once(&cluster, was).await;
        });
    }
    assert!(
        acknowledged.iter().all(|count| *count >= 5),
        "power went too early or too late: {acknowledged:?}"
    );
}

async fn assert_written_once(cluster: &Cluster, was_acknowledged: bool) {
    let mut talk = talk_to_leader(cluster).await;
    while talk.produce("t", 0, batch(&["end"])).await.error_code != 0 {
        tokio::time::sleep(5 * MS).await;
        talk = talk_to_leader(cluster).await;
    }
    let read = read(cluster).await;
    let with: &[&str] = &["before", "a", "end"];
    let expected = if was_acknowledged || read.len() == 3 { with } else { &["before", "end"] };
    assert_eq!(read, expected);
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

#[tokio::test(start_paused = true)]
async fn a_torn_tail_is_cut_and_fetched_again() {
    let mut torn = 0;
    for seed in 0..12 {
        let (cluster, leader) = cluster(seed, &[]).await;
        let mut talk = Talk::to(&cluster, leader).await;
        for value in ["a", "b", "c"] {
            talk.produce("t", 0, batch(&[value])).await;
        }
        let victim = others(&cluster, leader)[0];
        cluster.power_off_with(victim, PowerLoss::Torn).unwrap();
        torn += usize::from((1..3).contains(&log_values(&cluster, victim).len()));
        cluster.restart(victim).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        while log_values(&cluster, victim).len() < 3 {
            tokio::time::sleep(5 * MS).await;
        }
        assert!(cluster.check().is_ok(), "{}", cluster.check());
    }
    assert!(torn > 0, "no tail was torn within");
}

/// Goal: what a checkpoint remembers of a log that is gone says nothing about the logs that are there.
#[tokio::test(start_paused = true)]
async fn a_check_does_not_take_an_emptied_log_for_the_measure_of_the_others() {
    let (cluster, leader) = cluster(7, &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["a"])).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    for victim in cluster.broker_ids() {
        for broker in cluster.broker_ids() {
            if broker == victim { cluster.power_off(broker) } else { cluster.kill(broker) }.unwrap();
        }
        cluster.until_leader("t", 0, |now| now.is_none()).await;
        assert!(cluster.check().is_ok(), "{}", cluster.check());
        restart_all(&cluster, &cluster.broker_ids()).await;
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        if read(&cluster).await.is_empty() {
            // Whoever led last leads again, and has lost it.
            return;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    panic!("one of them was the leader");
}

async fn lose_power_again_and_again(seed: u64, rounds: u32) {
    let (cluster, _) = cluster(seed, &[FLUSH, ("min.insync.replicas", "2")]).await;
    let cluster = Arc::new(cluster);
    let disks = cluster.broker_ids().into_iter().map(|broker| cluster.disk(broker).unwrap());
    let _slow: Vec<_> = disks.map(|disk| disk.sync_latency(Duration::ZERO..=20 * MS)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(cluster.clone(), stop.clone()));
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..rounds {
        tokio::time::sleep(MS * rng.u32(20..300)).await;
        let loss = if rng.bool() { PowerLoss::Unsynced } else { PowerLoss::Torn };
        let victims = if round % 2 == 0 {
            cluster.power_off_all_with(loss)
        } else {
            let leader = cluster.leader_of("t", 0).unwrap();
            cluster.power_off_with(leader, loss).unwrap();
            vec![leader]
        };
        tokio::time::sleep(MS * rng.u32(0..900)).await;
        restart_all(&cluster, &victims).await;
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.unwrap();
    assert!(acknowledged > 3 * rounds as usize, "{acknowledged} acknowledged");
    assert_written(&cluster, acknowledged).await;
}

#[test]
fn power_may_be_lost_again_and_again_under_load() {
    for seed in 0..4 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(lose_power_again_and_again(seed, 6));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_on_several_threads_and_a_real_clock() {
    lose_power_again_and_again(1, 3).await;
}

// ---- slow, full and failing disks ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_waits_for_the_disks_it_relies_on() {
    let (cluster, leader) = cluster(7, &[FLUSH]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(timed(&mut talk, 1, "a").await, (Duration::ZERO, ErrorCode::NONE));
    let slow = cluster.disk(leader).unwrap().slow(100 * MS);
    assert_eq!(timed(&mut talk, 1, "b").await, (100 * MS, ErrorCode::NONE));
    assert_eq!(timed(&mut talk, -1, "c").await, (100 * MS, ErrorCode::NONE));
    drop(slow);
    let follower = others(&cluster, leader)[0];
    let slow = cluster.disk(follower).unwrap().slow(300 * MS);
    assert_eq!(
        timed(&mut talk, 1, "d").await,
        (Duration::ZERO, ErrorCode::NONE),
        "acks=1 is the leader's only"
    );
    let (time, error) = timed(&mut talk, -1, "e").await;
    assert_eq!(error, ErrorCode::NONE);
    // The sync of "d" comes first, and "e" with the next one.
    assert_eq!(time, 600 * MS);
    drop(slow);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(timed(&mut talk, -1, "f").await, (Duration::ZERO, ErrorCode::NONE));
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_makes_no_difference_without_flush_messages_1() {
    let (cluster, leader) = cluster(7, &[]).await;
    let _slow: Vec<_> =
        cluster.broker_ids().into_iter().map(|id| cluster.disk(id).unwrap().slow(100 * MS)).collect();
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(timed(&mut talk, 1, "a").await, (Duration::ZERO, ErrorCode::NONE));
    assert_eq!(timed(&mut talk, -1, "b").await, (Duration::ZERO, ErrorCode::NONE));
}

/// Goal: the brokers' own setting works as the topic's does.
#[tokio::test(start_paused = true)]
async fn log_flush_interval_messages_1_is_for_all_topics() {
    let builder = Cluster::builder().seed(7).config("log.flush.interval.messages", "1");
    let cluster = builder.topic("t", Some(1), Some(3)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let _slow = cluster.disk(leader).unwrap().slow(100 * MS);
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(timed(&mut talk, 1, "a").await, (100 * MS, ErrorCode::NONE));
}

/// Goal: many writers share the syncs of a slow disk instead of queueing for one each.
#[tokio::test(start_paused = true)]
async fn writers_share_a_sync() {
    let (cluster, leader) = cluster(7, &[FLUSH]).await;
    let _slow = cluster.disk(leader).unwrap().slow(100 * MS);
    let before = tokio::time::Instant::now();
    let mut answers = Vec::new();
    for _ in 0..10 {
        let mut talk = Talk::to(&cluster, leader).await;
        answers.push(talk.send(produce("t", 0, 1, 60_000, batch(&["a"]))).await.unwrap());
    }
    for answer in answers {
        assert_eq!(produced(answer.await.unwrap()).error_code, 0);
    }
    assert_eq!(before.elapsed(), 200 * MS, "the first one's, and one for all that came meanwhile");
}

#[tokio::test(start_paused = true)]
async fn an_acks_1_that_outlasts_its_time_is_told_so() {
    let (cluster, leader) = cluster(7, &[FLUSH]).await;
    let _slow = cluster.disk(leader).unwrap().slow(500 * MS);
    let mut talk = Talk::to(&cluster, leader).await;
    let answer = talk.send(produce("t", 0, 1, 200, batch(&["a"]))).await.unwrap().await.unwrap();
    assert_eq!(code(produced(answer).error_code), ErrorCode::REQUEST_TIMED_OUT);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_leader_and_another_one_takes_over() {
    let (cluster, leader) = cluster(7, &[("min.insync.replicas", "2")]).await;
    let cluster = Arc::new(cluster);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(cluster.clone(), stop.clone()));
    tokio::time::sleep(100 * MS).await;
    let before = log_values(&cluster, leader).len();
    assert!(before > 5);
    let full = cluster.disk(leader).unwrap().full();
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    assert!(is_down(&cluster, leader));
    assert_eq!(log_values(&cluster, leader).len(), before, "nothing was written, and nothing lost");
    // Started again, it has to write at once as a follower, and stops before or after it is unfenced.
    let again = cluster.restart(leader).await;
    assert!(matches!(again, Ok(()) | Err(ClusterError::Broker { state: "down", .. })), "{again:?}");
    while !is_down(&cluster, leader) {
        tokio::time::sleep(MS).await;
    }
    drop(full);
    cluster.restart(leader).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    tokio::time::sleep(100 * MS).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.unwrap();
    assert!(acknowledged > before + 5, "{acknowledged} acknowledged, {before} of them before");
    assert_written(&cluster, acknowledged).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_fsync_stops_the_broker_and_what_was_not_synced_is_gone() {
    let (cluster, leader) = cluster(7, &[FLUSH, ("min.insync.replicas", "2")]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0);
    let failing = cluster.disk(leader).unwrap().fail_sync();
    let answer = talk.send(produce("t", 0, 1, 60_000, batch(&["b"]))).await.unwrap().await;
    match answer {
        Err(_) => {}
        Ok(answer) => assert_eq!(code(produced(answer).error_code), ErrorCode::KAFKA_STORAGE_ERROR),
    }
    assert_eq!(log_values(&cluster, leader), ["a"], "the leader has lost what it could not sync");
    assert!(is_down(&cluster, leader));
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    drop(failing);
    cluster.restart(leader).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let mut talk = talk_to_leader(&cluster).await;
    assert_eq!(talk.produce("t", 0, batch(&["c"])).await.error_code, 0);
    let read = read(&cluster).await;
    assert!(read == ["a", "c"] || read == ["a", "b", "c"], "{read:?}");
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: a follower's disk is watched as the leader's is.
#[tokio::test(start_paused = true)]
async fn a_follower_whose_fsync_fails_leaves_and_the_producer_sees_nothing_of_it() {
    let (cluster, leader) = cluster(7, &[FLUSH, ("min.insync.replicas", "2")]).await;
    let follower = others(&cluster, leader)[0];
    let failing = cluster.disk(follower).unwrap().fail_sync();
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0);
    assert!(!cluster.isr_of("t", 0).contains(&follower), "acknowledged only without it");
    assert_eq!(log_values(&cluster, follower), [""; 0]);
    drop(failing);
    cluster.restart(follower).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: a slow disk holds back one follower, not the cluster: it leaves the ISR, and comes back when it can.
#[tokio::test(start_paused = true)]
async fn a_follower_with_too_slow_a_disk_leaves_the_isr() {
    let (cluster, leader) = cluster(7, &[FLUSH, ("min.insync.replicas", "2")]).await;
    let follower = others(&cluster, leader)[0];
    let slow = cluster.disk(follower).unwrap().slow(Duration::from_secs(10));
    let mut talk = Talk::to(&cluster, leader).await;
    let (time, error) = timed(&mut talk, -1, "a").await;
    assert_eq!(error, ErrorCode::NONE);
    assert!(time < Duration::from_secs(4), "{time:?}");
    assert!(!cluster.isr_of("t", 0).contains(&follower));
    drop(slow);
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: a fetcher that waits for the disk under one partition goes on for all, also when leaders change meanwhile.
#[tokio::test(start_paused = true)]
async fn many_partitions_share_fetchers_and_slow_disks() {
    const PARTITIONS: i32 = 6;
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    cluster.create_topic("t", PARTITIONS, 3, &[FLUSH, ("min.insync.replicas", "2")]).await.unwrap();
    let disks = cluster.broker_ids().into_iter().map(|broker| cluster.disk(broker).unwrap());
    let _slow: Vec<_> = disks.map(|disk| disk.sync_latency(MS..=30 * MS)).collect();
    let write = async |partition: i32, value: String| {
        loop {
            let leader = cluster.leader_of("t", partition);
            if let Some(leader) = leader
                && let Ok(mut talk) = Talk::dial(&cluster, leader).await
                && let Ok(answer) = talk.send(produce("t", partition, -1, 1_000, batch(&[&value]))).await
                && answer.await.is_ok_and(|answer| produced(answer).error_code == 0)
            {
                return;
            }
            tokio::time::sleep(5 * MS).await;
        }
    };
    for round in 0..12 {
        let before = tokio::time::Instant::now();
        let all = (0..PARTITIONS).map(|partition| write(partition, round.to_string()));
        let faults = async {
            tokio::time::sleep(7 * MS).await;
            if round % 3 == 2 {
                cluster.shutdown_broker(1 + round / 3 % 3).await.unwrap();
            } else if round % 3 == 0 && round > 0 {
                cluster.restart(1 + (round / 3 - 1) % 3).await.unwrap();
            }
        };
        tokio::join!(futures::future::join_all(all), faults);
        assert!(before.elapsed() < Duration::from_secs(2), "round {round}: {:?}", before.elapsed());
    }
    cluster.restart(1).await.unwrap();
    for partition in 0..PARTITIONS {
        cluster.until_isr("t", partition, |isr| isr.len() == 3).await;
    }
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_draws_the_same_latencies_and_the_same_torn_tails() {
    let run = |seed| async move {
        let (cluster, leader) = cluster(seed, &[FLUSH]).await;
        let _slow: Vec<_> = cluster
            .broker_ids()
            .into_iter()
            .map(|broker| cluster.disk(broker).unwrap().sync_latency(MS..=90 * MS))
            .collect();
        let mut talk = Talk::to(&cluster, leader).await;
        let mut history = Vec::new();
        for value in ["a", "b", "c", "d"] {
            history.push(timed(&mut talk, -1, value).await.0);
        }
        history
    };
    let first = run(3).await;
    assert_eq!(first, run(3).await);
    assert_ne!(first, run(4).await);
}
