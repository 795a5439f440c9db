//! Our consumer shares a group with foreign ones, at `broker-lite up`: Kafka's Java consumer, and kcat (librdkafka).
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use klamm::{AssignmentStrategy, Consumer, OffsetReset, Producer, Record};
use klamm_tests::process::{ApacheKafka, BrokerLite, find_program};
use klamm_tests::{skipped, workspace};

const CONSUME: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const PARTITIONS: i32 = 6;
const SOON: Duration = Duration::from_secs(60);

fn strategies() -> [(&'static str, AssignmentStrategy); 2] {
    [("range", AssignmentStrategy::Range), ("cooperative-sticky", AssignmentStrategy::CooperativeSticky)]
}

async fn write(bootstrap: &str, topic: &str, numbers: std::ops::Range<i32>) {
    let producer: Producer = Producer::builder().bootstrap_servers(bootstrap).build().expect("a producer");
    for number in numbers {
        let record = Record::new(topic).partition(number % PARTITIONS).value(number.to_string());
        drop(producer.send(record).await.expect("taken"));
    }
    producer.flush().await.expect("written");
}

/// Reads until it has so many records and so many partitions.
async fn read(consumer: &Consumer, seen: &mut Vec<i32>, count: usize, partitions: usize) {
    let reading = async {
        while seen.len() < count || consumer.assignment().len() != partitions {
            for record in consumer.poll(100, Duration::from_millis(50)).await.expect("records") {
                let value = record.value.expect("a value");
                seen.push(std::str::from_utf8(&value).expect("text").parse().expect("a number"));
            }
        }
    };
    let read = tokio::time::timeout(SOON, reading).await;
    let now = consumer.assignment().len();
    read.unwrap_or_else(|_| panic!("{} of {count} records, {now} of {partitions} partitions", seen.len()));
}

/// `foreign` joins the group, reads thirty records, and leaves.
async fn share(
    cluster: &BrokerLite,
    group: &str,
    strategy: AssignmentStrategy,
    topic: &str,
    foreign: Command,
) {
    let builder = Consumer::builder()
        .bootstrap_servers(cluster.bootstrap())
        .group_id(group)
        .auto_offset_reset(OffsetReset::Earliest)
        .heartbeat_interval_ms(Duration::from_millis(300))
        .partition_assignment_strategy([strategy]);
    let consumer: Consumer = builder.build().expect("a consumer");
    consumer.subscribe([topic]);
    let mut ours = Vec::new();
    write(cluster.bootstrap(), topic, 0..60).await;
    read(&consumer, &mut ours, 60, 6).await;
    consumer.commit().await.expect("committed");

    let mut foreign = foreign;
    let running = tokio::task::spawn_blocking(move || foreign.output().expect("it runs"));
    read(&consumer, &mut ours, 60, 3).await;
    write(cluster.bootstrap(), topic, 60..120).await;
    read(&consumer, &mut ours, 90, 6).await;
    let output = running.await.expect("it ends");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let theirs: Vec<i32> = printed.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!((ours.len(), theirs.len()), (90, 30), "{group}: {}", String::from_utf8_lossy(&output.stderr));
    let all: BTreeSet<i32> = ours.into_iter().chain(theirs).collect();
    assert_eq!(all, (0..120).collect(), "{group}: each record went to exactly one member");
    consumer.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_consumer_and_ours_share_a_group() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Kafka's Java consumer", &reason);
    }
    for (name, strategy) in strategies() {
        let up = ["--topic", "t:6:3", "--config", "group.initial.rebalance.delay.ms=0"];
        let cluster = BrokerLite::up(&up).expect("broker-lite starts");
        let mut java = Command::new(workspace().join("tests/kafka/kafka-cluster"));
        let property = format!("partition.assignment.strategy={}", class(name));
        java.args([
            "tool",
            CONSUME,
            "--bootstrap-server",
            cluster.bootstrap(),
            "--topic",
            "t",
            "--group",
            name,
        ]);
        java.args(["--from-beginning", "--max-messages", "30", "--timeout-ms", "60000"]);
        java.args(["--consumer-property", &property, "--consumer-property", "heartbeat.interval.ms=300"]);
        share(&cluster, name, strategy, "t", java).await;
    }
}

fn class(name: &str) -> &'static str {
    match name {
        "range" => "org.apache.kafka.clients.consumer.RangeAssignor",
        _ => "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_and_our_consumer_share_a_group() {
    if find_program("kcat").is_none() {
        return skipped("kcat", "it is not installed (Debian: apt-get install kcat)");
    }
    for (name, strategy) in strategies() {
        let up = ["--topic", "t:6:3", "--config", "group.initial.rebalance.delay.ms=0"];
        let cluster = BrokerLite::up(&up).expect("broker-lite starts");
        let mut kcat = Command::new("kcat");
        let property = format!("partition.assignment.strategy={name}");
        kcat.args(["-b", cluster.bootstrap(), "-G", name, "-c", "30", "-X", &property]);
        kcat.args(["-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=300", "t"]);
        share(&cluster, name, strategy, "t", kcat).await;
    }
}
