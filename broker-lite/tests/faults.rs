//! Idempotent producers that retry for ever, while brokers die, stop and come back: at the end every
//! partition holds each record exactly once and in order.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_lite::Cluster;
use klamm_wire::ErrorCode;
use support::{Talk, batch, code, produce, produced, stamped, values};

const PARTITIONS: i32 = 3;

/// Asks the leader of the moment, until somebody answers.
async fn talk_to_leader(cluster: &Cluster, partition: i32) -> Talk {
    loop {
        if let Some(leader) = cluster.leader_of("t", partition)
            && let Ok(talk) = Talk::dial(cluster, leader).await
        {
            return talk;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes 0, 1, 2… until it is stopped; returns how many were acknowledged.
async fn write(cluster: Arc<Cluster>, partition: i32, stop: Arc<AtomicBool>) -> i32 {
    let mut talk = talk_to_leader(&cluster, partition).await;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch = stamped(&[&sequence.to_string()], i64::from(partition), 0, sequence);
        let sent = talk.send(produce("t", partition, -1, 500, batch)).await;
        let answer = match sent {
            Ok(answer) => tokio::time::timeout(Duration::from_secs(2), answer).await.ok(),
            Err(error) => Some(Err(error)),
        };
        match answer {
            Some(Ok(answer)) if code(produced(answer.clone()).error_code) == ErrorCode::NONE => {
                assert_eq!(produced(answer).base_offset, i64::from(sequence), "partition {partition}");
                sequence += 1;
                // Virtual time passes only while everybody waits.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            _ => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                talk = talk_to_leader(&cluster, partition).await;
            }
        }
    }
    sequence
}

async fn run(seed: u64, rounds: u32) {
    let cluster = Cluster::builder().seed(seed).start().await.unwrap();
    cluster.create_topic("t", PARTITIONS, 3, &[("min.insync.replicas", "2")]).await.unwrap();
    let cluster = Arc::new(cluster);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..PARTITIONS).map(|p| tokio::spawn(write(cluster.clone(), p, stop.clone()))).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(rng.u64(20..300))).await;
        let victim = rng.i32(1..=3);
        if rng.bool() {
            if cluster.leader_counts()[&victim] > 0 {
                cluster.kill_when_produce_in_flight(victim).await.unwrap();
            } else {
                cluster.kill(victim).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(0..1_500))).await;
            cluster.restart(victim).await.unwrap();
        } else {
            cluster.pause(victim).unwrap();
            tokio::time::sleep(Duration::from_millis(rng.u64(0..1_500))).await;
            cluster.resume(victim).unwrap();
        }
        for partition in 0..PARTITIONS {
            cluster.until_isr("t", partition, |isr| isr.len() == 3).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await.unwrap());
    }
    // One more acknowledged record each: followers then know the high watermark of all before it.
    for partition in 0..PARTITIONS {
        let mut talk = talk_to_leader(&cluster, partition).await;
        while talk.produce("t", partition, batch(&["end"])).await.error_code != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            talk = talk_to_leader(&cluster, partition).await;
        }
    }
    let report = cluster.check();
    assert!(report.is_ok(), "seed {seed}: {report}");
    for (partition, acknowledged) in (0..).zip(acknowledged) {
        read_back(&cluster, partition, acknowledged, seed).await;
    }
}

async fn read_back(cluster: &Cluster, partition: i32, acknowledged: i32, seed: u64) {
    let mut talk = talk_to_leader(cluster, partition).await;
    let mut read = Vec::new();
    loop {
        let data = talk.fetch("t", partition, read.len() as i64, 0).await;
        let found = values(&data);
        if found.is_empty() {
            break;
        }
        for (offset, value) in found {
            assert_eq!(offset, read.len() as i64, "seed {seed}");
            read.push(value);
        }
    }
    read.retain(|value| value != "end");
    let expected: Vec<_> = (0..read.len()).map(|number| number.to_string()).collect();
    assert_eq!(read, expected, "seed {seed} partition {partition}");
    assert!(
        read.len() >= acknowledged as usize,
        "seed {seed}: acknowledged {acknowledged}, read {}",
        read.len()
    );
}

#[test]
fn no_fault_loses_doubles_or_reorders_a_record() {
    for seed in 0..8 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(seed, 5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_on_several_threads_and_a_real_clock() {
    run(1, 3).await;
}
