//! Replication seen from outside: nothing here looks into a broker but `check()` and the waits.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::Cluster;
use klamm_wire::ErrorCode;
use support::{Talk, batch, code, produce, produced, stamped, values};

/// A cluster with one topic of one partition on three brokers; returns its leader, too.
async fn cluster(settings: &[(&str, &str)], topic: &[(&str, &str)]) -> (Cluster, i32) {
    let mut builder = Cluster::builder().seed(7);
    for (name, value) in settings {
        builder = builder.config(*name, *value);
    }
    let cluster = builder.start().await.unwrap();
    cluster.create_topic("t", 1, 3, topic).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

fn others(cluster: &Cluster, leader: i32) -> Vec<i32> {
    cluster.broker_ids().into_iter().filter(|id| *id != leader).collect()
}

/// Every replica comes to hold just these records, the cluster's check agrees, and its leader hands them out in order.
async fn assert_all_hold(cluster: &Cluster, talk: &mut Talk, expected: &[&str]) {
    until_all_hold(cluster, expected.len() as i64).await;
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
    let read: Vec<_> = values(&talk.fetch("t", 0, 0, 0).await).into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, expected);
}

async fn until_all_hold(cluster: &Cluster, end: i64) {
    while !cluster.broker_ids().iter().all(|id| cluster.log_end_offset(*id, "t", 0) == Some(end)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_by_all_is_on_every_broker_and_can_be_read() {
    let (cluster, leader) = cluster(&[], &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    for (index, value) in ["a", "b", "c"].into_iter().enumerate() {
        let answer = talk.produce("t", 0, batch(&[value, value])).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, 2 * index as i64));
    }
    for broker in cluster.broker_ids() {
        assert_eq!(cluster.log_end_offset(broker, "t", 0), Some(6), "broker {broker}");
    }
    let read = values(&talk.fetch("t", 0, 0, 0).await);
    let text: String = read.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(text, "aabbcc");
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.partitions, report.replicas, report.batches), (1, 3, 9));
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_in_one_replica_is_reported_with_its_place() {
    let (cluster, leader) = cluster(&[], &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    for value in ["a", "b", "c"] {
        talk.produce("t", 0, batch(&[value])).await;
    }
    let follower = others(&cluster, leader)[0];
    cluster.corrupt(follower, "t", 0, 1).unwrap();
    let report = cluster.check();
    assert!(!report.is_ok());
    for violation in &report.violations {
        let place = (violation.broker, &*violation.topic, violation.partition, violation.offset);
        assert_eq!(place, (Some(follower), "t", 0, 1), "{report}");
    }
    assert_eq!(report.violations.len(), 2, "its CRC, and that it differs from the leader's: {report}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_follower_holds_back_the_high_watermark_until_it_leaves_the_isr() {
    // Heartbeats do not matter here: the leader itself has to notice.
    let (cluster, leader) = cluster(&[("broker.session.timeout.ms", "600000")], &[]).await;
    let follower = others(&cluster, leader)[0];
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["before"])).await;
    cluster.pause(follower).unwrap();
    let waiting = talk.send(produce("t", 0, -1, 60_000, batch(&["after"]))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(cluster.log_end_offset(leader, "t", 0), Some(2));
    assert_eq!(cluster.high_watermark("t", 0), Some(1), "held back");
    assert!(cluster.isr_of("t", 0).contains(&follower));
    assert_eq!(produced(waiting.await.unwrap()).error_code, 0);
    assert!(!cluster.isr_of("t", 0).contains(&follower), "acknowledged only without the paused one");
    assert_eq!(cluster.high_watermark("t", 0), Some(2));
    cluster.resume(follower).unwrap();
    cluster.until_isr("t", 0, |isr| isr.contains(&follower)).await;
    until_all_hold(&cluster, 2).await;
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_produce_that_is_not_replicated_in_its_time_is_told_so() {
    let (cluster, leader) = cluster(&[("broker.session.timeout.ms", "600000")], &[]).await;
    cluster.pause(others(&cluster, leader)[0]).unwrap();
    let mut talk = Talk::to(&cluster, leader).await;
    let before = tokio::time::Instant::now();
    let answer = talk.send(produce("t", 0, -1, 200, batch(&["a"]))).await.unwrap().await.unwrap();
    assert_eq!(code(produced(answer).error_code), ErrorCode::REQUEST_TIMED_OUT);
    assert_eq!(before.elapsed().as_millis(), 200);
    let answer = talk.send(produce("t", 0, 1, 200, batch(&["b"]))).await.unwrap().await.unwrap();
    assert_eq!(produced(answer).base_offset, 1, "acks=1 does not wait, and both are in the log");
}

#[tokio::test(start_paused = true)]
async fn too_few_in_sync_replicas_refuse_before_the_append() {
    let (cluster, leader) = cluster(&[], &[("min.insync.replicas", "2")]).await;
    for other in others(&cluster, leader) {
        cluster.kill(other).unwrap();
    }
    cluster.until_isr("t", 0, |isr| isr == [leader]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let answer = talk.produce("t", 0, batch(&["a"])).await;
    assert_eq!(code(answer.error_code), ErrorCode::NOT_ENOUGH_REPLICAS);
    assert_eq!(cluster.log_end_offset(leader, "t", 0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn after_the_leader_dies_another_one_has_everything_and_knows_what_is_a_retry() {
    let (cluster, first) = cluster(&[], &[("min.insync.replicas", "2")]).await;
    let mut talk = Talk::to(&cluster, first).await;
    talk.produce("t", 0, stamped(&["a"], 1000, 0, 0)).await;
    let waiting = talk.send(produce("t", 0, -1, 10_000, stamped(&["b"], 1000, 0, 1))).await.unwrap();
    assert_eq!(produced(waiting.await.unwrap()).base_offset, 1);
    cluster.kill(first).unwrap();
    assert!(Talk::dial(&cluster, first).await.is_err(), "nobody answers at a dead broker");
    cluster.until_leader("t", 0, |leader| leader.is_some_and(|id| id != first)).await;
    assert_eq!(cluster.elections(), 1);
    let second = cluster.leader_of("t", 0).unwrap();
    let mut talk = Talk::to(&cluster, second).await;
    let retry = loop {
        let answer = talk.produce("t", 0, stamped(&["b"], 1000, 0, 1)).await;
        if code(answer.error_code) != ErrorCode::NOT_LEADER_OR_FOLLOWER {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((retry.error_code, retry.base_offset), (0, 1), "not appended twice");
    assert_eq!(talk.produce("t", 0, stamped(&["c"], 1000, 0, 2)).await.base_offset, 2);
    cluster.restart(first).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert_all_hold(&cluster, &mut talk, &["a", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_only_a_dead_leader_had_are_cut_off_when_it_returns() {
    let (cluster, first) = cluster(&[], &[]).await;
    let mut talk = Talk::to(&cluster, first).await;
    talk.produce("t", 0, batch(&["kept"])).await;
    let paused = others(&cluster, first);
    paused.iter().for_each(|id| cluster.pause(*id).unwrap());
    // Still answers the fetches that were waiting when the followers stopped.
    talk.send(produce("t", 0, 1, 1_000, batch(&["on its way"]))).await.unwrap().await.unwrap();
    let lonely = talk.send(produce("t", 0, 1, 1_000, batch(&["lost", "lost"]))).await.unwrap();
    assert_eq!(produced(lonely.await.unwrap()).base_offset, 2);
    cluster.kill(first).unwrap();
    paused.iter().for_each(|id| cluster.resume(*id).unwrap());
    cluster.until_leader("t", 0, |leader| leader.is_some_and(|id| id != first)).await;
    let second = cluster.leader_of("t", 0).unwrap();
    let mut talk = Talk::to(&cluster, second).await;
    while code(talk.produce("t", 0, batch(&["new"])).await.error_code) != ErrorCode::NONE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.restart(first).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert_all_hold(&cluster, &mut talk, &["kept", "on its way", "new"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_on_produce_leaves_at_least_one_request_unanswered() {
    let (cluster, leader) = cluster(&[], &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let killed = cluster.kill_when_produce_in_flight(leader);
    let producing = async {
        let mut answered = 0;
        loop {
            let Ok(answer) = talk.send(produce("t", 0, -1, 10_000, batch(&["a"]))).await else {
                return answered;
            };
            if answer.await.is_err() {
                return answered;
            }
            answered += 1;
        }
    };
    let (unanswered, _) = tokio::join!(killed, producing);
    assert_eq!(unanswered.unwrap(), 1);
    assert_eq!(cluster.in_flight_produce(leader), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let mut histories = Vec::new();
    for _ in 0..2 {
        let (cluster, leader) = cluster(&[], &[]).await;
        cluster.kill(leader).unwrap();
        cluster.until_leader("t", 0, |new| new.is_some_and(|id| id != leader)).await;
        histories.push(cluster.leader_changes());
        cluster.shutdown().await;
    }
    assert_eq!(histories[0], histories[1]);
    assert_eq!(histories[0].len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_killed_broker_finds_its_bytes_again_where_no_other_has_them() {
    let cluster = Cluster::builder().brokers(1).topic("t", Some(1), None).start().await.unwrap();
    Talk::to(&cluster, 1).await.produce("t", 0, batch(&["a", "b"])).await;
    cluster.kill(1).unwrap();
    assert_eq!(cluster.check().batches, 1, "the check looks at dead brokers, too");
    cluster.restart(1).await.unwrap();
    cluster.until_leader("t", 0, |leader| leader == Some(1)).await;
    let mut talk = Talk::to(&cluster, 1).await;
    assert_eq!(talk.produce("t", 0, batch(&["c"])).await.base_offset, 2);
    assert_eq!(values(&talk.fetch("t", 0, 0, 0).await).len(), 3);
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}

/// Goal: the leader's own clock for slow followers runs from the append on, however quiet it was before.
#[tokio::test(start_paused = true)]
async fn a_follower_that_stops_after_a_long_silence_leaves_the_isr_in_its_time() {
    let (cluster, leader) = cluster(&[("broker.session.timeout.ms", "600000")], &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["before"])).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.pause(others(&cluster, leader)[0]).unwrap();
    let before = tokio::time::Instant::now();
    let answer = talk.send(produce("t", 0, -1, 30_000, batch(&["after"]))).await.unwrap().await.unwrap();
    assert_eq!(code(produced(answer).error_code), ErrorCode::NONE);
    // replica.lag.time.max.ms is 1500 here
    assert!(before.elapsed() <= Duration::from_millis(1_700), "{:?}", before.elapsed());
}

/// Goal: a byte that rots in the leader's log is the leader's, and nobody else is blamed for it.
#[tokio::test(start_paused = true)]
async fn a_flipped_byte_at_the_leader_is_blamed_on_the_leader_only() {
    let (cluster, leader) = cluster(&[], &[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    for value in ["a", "b", "c"] {
        talk.produce("t", 0, batch(&[value])).await;
    }
    cluster.corrupt(leader, "t", 0, 1).unwrap();
    let report = cluster.check();
    assert!(!report.is_ok());
    for found in &report.violations {
        assert_eq!((found.broker, found.offset), (Some(leader), 1), "{report}");
    }
}

/// Goal: what a broker did before its death is history. Started again before anybody has noticed, it reads metadata in
/// which it leads; it must not take a single record by it.
#[tokio::test(start_paused = true)]
async fn a_broker_that_restarts_unnoticed_does_not_lead_by_old_metadata() {
    let (cluster, leader) = cluster(&[], &[("min.insync.replicas", "2")]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["a"])).await;
    cluster.kill(leader).unwrap();
    let taken = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Ok(mut talk) = Talk::dial(&cluster, leader).await else { continue };
            let answer = talk.send(produce("t", 0, 1, 100, batch(&["stray"]))).await.unwrap().await.unwrap();
            let answer = produced(answer);
            if answer.error_code == 0 {
                return answer;
            }
        }
    };
    tokio::select! {
        biased;
        answer = taken => panic!("took a record without being leader: {answer:?}"),
        restarted = cluster.restart(leader) => restarted.unwrap(),
    }
    assert!(cluster.leader_of("t", 0).is_some_and(|now| now != leader));
}

/// Goal: a leader that slept through its own replacement acknowledges nothing that its successor does not have.
#[tokio::test(start_paused = true)]
async fn a_leader_that_wakes_after_its_replacement_acknowledges_nothing_to_all() {
    let (cluster, first) = cluster(&[], &[("min.insync.replicas", "2")]).await;
    let mut old = Talk::to(&cluster, first).await;
    assert_eq!(old.produce("t", 0, batch(&["kept"])).await.error_code, 0);
    cluster.pause(first).unwrap();
    let pending = old.send(produce("t", 0, -1, 10_000, stamped(&["stray"], 9, 0, 0))).await.unwrap();
    cluster.until_leader("t", 0, |leader| leader.is_some_and(|id| id != first)).await;
    let mut new = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    while new.produce("t", 0, stamped(&["stray"], 9, 0, 0)).await.error_code != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.resume(first).unwrap();
    let answer = produced(pending.await.unwrap());
    assert_eq!(code(answer.error_code), ErrorCode::NOT_LEADER_OR_FOLLOWER);
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    until_all_hold(&cluster, 2).await;
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
    let read: Vec<_> = values(&new.fetch("t", 0, 0, 0).await).into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, ["kept", "stray"], "once");
}

/// Goal: with every process gone at the same moment, the bytes that were acknowledged are still all there.
#[tokio::test(start_paused = true)]
async fn when_all_brokers_die_and_return_nothing_acknowledged_is_lost() {
    let (cluster, leader) = cluster(&[], &[("min.insync.replicas", "2")]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    for (sequence, value) in (0..).zip(["a", "b", "c"]) {
        assert_eq!(talk.produce("t", 0, stamped(&[value], 9, 0, sequence)).await.error_code, 0);
    }
    for broker in cluster.broker_ids() {
        cluster.kill(broker).unwrap();
    }
    for broker in cluster.broker_ids() {
        cluster.restart(broker).await.unwrap();
    }
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let mut talk = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    let retry = loop {
        let answer = talk.produce("t", 0, stamped(&["c"], 9, 0, 2)).await;
        if code(answer.error_code) != ErrorCode::NOT_LEADER_OR_FOLLOWER {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((retry.error_code, retry.base_offset), (0, 2), "known as a retry after the restart");
    let read: Vec<_> = values(&talk.fetch("t", 0, 0, 0).await).into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, ["a", "b", "c"]);
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}
