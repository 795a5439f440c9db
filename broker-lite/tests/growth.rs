//! A cluster grows, moves its partitions and shrinks while it is written to, and loses nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use broker_lite::{Cluster, ClusterError};
use klamm_wire::ErrorCode;
use klamm_wire::StrBytes;
use klamm_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use klamm_wire::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use klamm_wire::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreatePartitionsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest, TopicName,
};
use parking_lot::Mutex;
use support::{Talk, batch, code, topic_name, values};

const TOPIC: &str = "t";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What was acknowledged, by partition.
#[derive(Default)]
struct Written {
    stop: AtomicBool,
    partitions: AtomicUsize,
    acknowledged: Mutex<BTreeMap<i32, Vec<String>>>,
}

/// Writes a record into one partition after another, each again until it is acknowledged.
async fn write(cluster: Arc<Cluster>, written: Arc<Written>) {
    let (mut number, mut talks) = (0, BTreeMap::<i32, Talk>::new());
    while !written.stop.load(Ordering::SeqCst) {
        // Virtual time passes only while everybody waits.
        tokio::time::sleep(Duration::from_millis(1)).await;
        number += 1;
        let partition = (number % written.partitions.load(Ordering::SeqCst)) as i32;
        let value = format!("{partition}-{number}");
        loop {
            if let Some(leader) = cluster.leader_of(TOPIC, partition)
                && let Some(true) = try_write(&cluster, &mut talks, leader, partition, &value).await
            {
                written.acknowledged.lock().entry(partition).or_default().push(value);
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn try_write(
    cluster: &Cluster,
    talks: &mut BTreeMap<i32, Talk>,
    leader: i32,
    partition: i32,
    value: &str,
) -> Option<bool> {
    if let Entry::Vacant(free) = talks.entry(leader) {
        free.insert(Talk::dial(cluster, leader).await.ok()?);
    }
    let frame = support::produce(TOPIC, partition, -1, 5_000, batch(&[value]));
    let answer = match talks.get_mut(&leader)?.send(frame).await {
        Ok(answer) => answer.await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => Some(code(support::produced(answer).error_code) == ErrorCode::NONE),
        Err(_) => {
            talks.remove(&leader);
            None
        }
    }
}

/// Asks for these replicas of each partition.
async fn reassign(cluster: &Cluster, broker: i32, targets: impl Fn(i32) -> Vec<i32>, partitions: i32) {
    let partitions = (0..partitions).map(|partition| {
        let replicas = targets(partition).into_iter().map(BrokerId).collect();
        ReassignablePartition::default().with_partition_index(partition).with_replicas(Some(replicas))
    });
    let topic =
        ReassignableTopic::default().with_name(topic_name(TOPIC)).with_partitions(partitions.collect());
    let request =
        AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
    let response = Talk::to(cluster, broker).await.ask(1, &request).await;
    for partition in &response.responses[0].partitions {
        assert_eq!(code(partition.error_code), ErrorCode::NONE, "{:?}", partition.error_message);
    }
}

async fn under_way(cluster: &Cluster, broker: i32) -> usize {
    let request = ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(5_000);
    let response = Talk::to(cluster, broker).await.ask(0, &request).await;
    response.topics.iter().map(|topic| topic.partitions.len()).sum()
}

async fn until_complete(cluster: &Cluster, broker: i32) {
    while under_way(cluster, broker).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn set(cluster: &Cluster, kind: i8, resource: &str, key: &str, value: Option<&str>) {
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let named = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let broker = resource.parse().unwrap_or(1);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![named]);
    let response = Talk::to(cluster, broker).await.ask(1, &request).await;
    assert_eq!(code(response.responses[0].error_code), ErrorCode::NONE, "{:?}", response.responses[0]);
}

/// Everything a partition holds, from its leader.
async fn read(cluster: &Cluster, partition: i32) -> BTreeSet<String> {
    let leader = cluster.leader_of(TOPIC, partition).unwrap();
    let end = cluster.high_watermark(TOPIC, partition).unwrap();
    let (mut talk, mut found, mut next) = (Talk::to(cluster, leader).await, BTreeSet::new(), 0);
    while next < end {
        let data = talk.fetch(TOPIC, partition, next, 100).await;
        assert_eq!(code(data.error_code), ErrorCode::NONE);
        for (offset, value) in values(&data) {
            next = offset + 1;
            found.insert(value);
        }
    }
    found
}

/// Goal: 6 to 60 partitions, 1 to 3 replicas, everything moved off a broker, that one removed, a new one filled: under
/// load, and every acknowledged record is there afterwards.
#[tokio::test(start_paused = true)]
async fn a_cluster_grows_and_moves_under_load_and_loses_nothing() {
    const PARTITIONS: i32 = 60;
    let builder = Cluster::builder().seed(11).topic(TOPIC, Some(6), Some(1));
    let cluster = Arc::new(builder.start().await.unwrap());
    let written = Arc::new(Written::default());
    written.partitions.store(6, Ordering::SeqCst);
    let writers: Vec<_> = (0..8).map(|_| tokio::spawn(write(cluster.clone(), written.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let topic = CreatePartitionsTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_count(PARTITIONS)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
    let response = Talk::to(&cluster, 2).await.ask(3, &request).await;
    assert_eq!(code(response.results[0].error_code), ErrorCode::NONE, "{:?}", response.results[0]);
    written.partitions.store(PARTITIONS as usize, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;

    let ring = |brokers: &'static [i32]| {
        move |partition: i32| (0..3).map(|i| brokers[(partition as usize + i) % brokers.len()]).collect()
    };
    reassign(&cluster, 1, ring(&[1, 2, 3]), PARTITIONS).await;
    until_complete(&cluster, 1).await;
    set(&cluster, 2, TOPIC, "min.insync.replicas", Some("2")).await;

    assert_eq!(cluster.add_broker().await.unwrap(), 4);
    let refused = cluster.remove_broker(3).await.unwrap_err();
    assert!(matches!(refused, ClusterError::NotDrained { broker: 3, replicas: 60 }), "{refused}");
    reassign(&cluster, 1, ring(&[1, 2, 4]), PARTITIONS).await;
    until_complete(&cluster, 1).await;
    cluster.remove_broker(3).await.unwrap();
    assert_eq!(cluster.broker_ids(), [1, 2, 4]);

    assert_eq!(cluster.add_broker().await.unwrap(), 5);
    reassign(&cluster, 4, ring(&[5, 2, 1, 4]), PARTITIONS).await;
    until_complete(&cluster, 4).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    written.stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }

    for partition in 0..PARTITIONS {
        cluster.until_isr(TOPIC, partition, |isr| isr.len() == 3).await;
    }
    let elect = ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(5_000);
    let elected = Talk::to(&cluster, 5).await.ask(2, &elect).await;
    assert_eq!(code(elected.error_code), ErrorCode::NONE);
    cluster.until_leader(TOPIC, 0, |leader| leader == Some(5)).await;
    let counts = cluster.leader_counts();
    assert_eq!(counts, BTreeMap::from([(1, 15), (2, 15), (4, 15), (5, 15)]), "the preferred replicas lead");

    let acknowledged = written.acknowledged.lock().clone();
    assert_eq!(acknowledged.len(), PARTITIONS as usize, "every partition was written to");
    let mut records = 0;
    for (partition, values) in acknowledged {
        let found = read(&cluster, partition).await;
        records += values.len();
        for value in values {
            assert!(found.contains(&value), "{value} was acknowledged");
        }
    }
    println!("{records} acknowledged records");
    let report = cluster.check();
    assert!(report.violations.is_empty(), "{report}");
}

/// Goal: KIP-455: what cannot be copied is not called complete, and goes on when it can.
#[tokio::test(start_paused = true)]
async fn a_reassignment_to_a_paused_broker_waits_for_it() {
    let cluster = Cluster::builder().seed(3).start().await.unwrap();
    cluster.create_topic(TOPIC, 1, 1, &[]).await.unwrap();
    let first = cluster.leader_of(TOPIC, 0).unwrap();
    let target = first % 3 + 1;
    let answer = Talk::to(&cluster, first).await.produce(TOPIC, 0, batch(&["a"])).await;
    assert_eq!(code(answer.error_code), ErrorCode::NONE);
    cluster.pause(target).unwrap();
    reassign(&cluster, first, |_| vec![target], 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(under_way(&cluster, first).await, 1);
    assert_eq!(cluster.leader_of(TOPIC, 0), Some(first));
    cluster.resume(target).unwrap();
    until_complete(&cluster, first).await;
    cluster.until_leader(TOPIC, 0, |leader| leader == Some(target)).await;
    assert_eq!(cluster.log_end_offset(target, TOPIC, 0), Some(1));
    while cluster.log_end_offset(first, TOPIC, 0).is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await; // its data goes when it has heard
    }
}

/// Goal: what was moved away while a broker was down does not stay on its disk, nor count as its replica.
#[tokio::test(start_paused = true)]
async fn a_replica_that_moved_away_while_its_broker_was_down_is_gone_when_it_is_back() {
    let cluster = Cluster::builder().seed(5).start().await.unwrap();
    cluster.create_topic(TOPIC, 1, 2, &[]).await.unwrap();
    let first = cluster.leader_of(TOPIC, 0).unwrap();
    let second = *cluster.isr_of(TOPIC, 0).iter().find(|id| **id != first).unwrap();
    let third = 6 - first - second;
    let answer = Talk::to(&cluster, first).await.produce(TOPIC, 0, batch(&["a", "b"])).await;
    assert_eq!(code(answer.error_code), ErrorCode::NONE);
    cluster.kill(second).unwrap();
    cluster.until_isr(TOPIC, 0, |isr| isr == [first]).await;
    reassign(&cluster, first, |_| vec![first, third], 1).await;
    until_complete(&cluster, first).await;
    cluster.restart(second).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.log_end_offset(second, TOPIC, 0), None);
    let report = cluster.check();
    assert!(report.violations.is_empty(), "{report}");
}

/// Goal: a throttled move takes the time that its rate says, and the throttle touches nobody else.
#[tokio::test(start_paused = true)]
async fn a_throttled_reassignment_copies_at_its_rate() {
    for throttled in [false, true] {
        let cluster = Cluster::builder().seed(9).start().await.unwrap();
        cluster.create_topic(TOPIC, 1, 1, &[]).await.unwrap();
        let first = cluster.leader_of(TOPIC, 0).unwrap();
        let target = first % 3 + 1;
        let mut talk = Talk::to(&cluster, first).await;
        let value = "x".repeat(100_000);
        for _ in 0..20 {
            let answer = talk.produce(TOPIC, 0, batch(&[&value])).await;
            assert_eq!(code(answer.error_code), ErrorCode::NONE);
        }
        if throttled {
            for broker in 1..=3 {
                set(&cluster, 4, &broker.to_string(), "leader.replication.throttled.rate", Some("200000"))
                    .await;
                set(&cluster, 4, &broker.to_string(), "follower.replication.throttled.rate", Some("200000"))
                    .await;
            }
            let (leader, follower) = (format!("0:{first}"), format!("0:{target}"));
            set(&cluster, 2, TOPIC, "leader.replication.throttled.replicas", Some(&leader)).await;
            set(&cluster, 2, TOPIC, "follower.replication.throttled.replicas", Some(&follower)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let began = tokio::time::Instant::now();
        reassign(&cluster, first, |_| vec![first, target], 1).await;
        until_complete(&cluster, first).await;
        let took = began.elapsed();
        let slow = Duration::from_secs(4)..Duration::from_secs(20);
        assert_eq!(slow.contains(&took), throttled, "2 MB at 200 kB/s: {took:?}");
    }
}
