//! Foreign clients against `broker-lite up`: kcat (librdkafka) and Kafka's own Java tools.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::BTreeMap;
use std::process::{Command, Output};

use klamm_tests::process::{ApacheKafka, BrokerLite, find_program, kafka_tool, run_with_input};
use klamm_tests::{raw, skipped};
use klamm_wire::Compression;

const RECORDS: usize = 100_000;

fn kcat(arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(arguments);
    command
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn kcat_is_here() -> bool {
    let here = find_program("kcat").is_some();
    if !here {
        skipped("kcat", "it is not installed (Debian: apt-get install kcat)");
    }
    here
}

/// Lines of 99 bytes and a terminator, all different: a number and thirty letters three times over, so that even
/// a batch of one record shrinks; librdkafka sends a batch that does not as it is.
fn lines() -> Vec<String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 59) % 20) as u8)
    };
    (0..RECORDS)
        .map(|index| {
            let letters: String = (0..30).map(|_| letter()).collect();
            format!("{index:08} {}", letters.repeat(3))
        })
        .collect()
}

#[test]
fn kcat_lists_three_brokers_and_the_controller() {
    if !kcat_is_here() {
        return;
    }
    let cluster = BrokerLite::up(&["--topic", "orders:6:3"]).expect("broker-lite starts");
    let listing = succeeded(kcat(&["-b", cluster.bootstrap(), "-L"]).output().expect("kcat runs"));
    assert!(listing.contains("3 brokers:"), "{listing}");
    assert_eq!(listing.matches("(controller)").count(), 1, "{listing}");
    assert!(listing.contains("topic \"orders\" with 6 partitions:"), "{listing}");
    for partition in 0..6 {
        let line = listing
            .lines()
            .find(|line| line.contains(&format!("partition {partition}, leader")))
            .unwrap_or_else(|| panic!("partition {partition} has a leader:\n{listing}"));
        let isr = line.split("isrs: ").nth(1).expect("kcat prints the ISR");
        assert_eq!(isr.split(',').count(), 3, "{line}");
    }
}

fn round_trip(codec: &str, stored: Compression) {
    if !kcat_is_here() {
        return;
    }
    let cluster = BrokerLite::up(&["--topic", "lines:6:3"]).expect("broker-lite starts");
    let mut sent = lines();
    let mut input = sent.join("\n").into_bytes();
    input.push(b'\n');
    let arguments =
        ["-P", "-b", cluster.bootstrap(), "-t", "lines", "-z", codec, "-X", "acks=all", "-X", "linger.ms=20"];
    succeeded(run_with_input(&mut kcat(&arguments), input).expect("kcat runs"));

    let output =
        kcat(&["-C", "-b", cluster.bootstrap(), "-t", "lines", "-o", "beginning", "-e", "-q"]).output();
    let mut received: Vec<String> =
        succeeded(output.expect("kcat runs")).lines().map(str::to_owned).collect();
    received.sort_unstable();
    sent.sort_unstable();
    assert_eq!(received.len(), RECORDS);
    assert!(received == sent, "what came back differs from what was sent");

    let codecs = raw::stored_codecs(cluster.bootstrap(), "lines", 6).expect("the topic is read raw");
    let total: usize = codecs.values().sum();
    assert_eq!(total, RECORDS, "{codecs:?}");
    assert_eq!(codecs, BTreeMap::from([(format!("{stored:?}"), RECORDS)]), "records by stored codec");
    let (status, rest) = cluster.terminate().expect("SIGTERM is sent");
    assert!(status.success(), "{status}");
    assert_eq!(rest, "", "exactly one line on standard output");
}

#[test]
fn kcat_gets_back_what_it_sent_uncompressed() {
    round_trip("none", Compression::None);
}

#[test]
fn kcat_gets_back_what_it_sent_with_gzip() {
    round_trip("gzip", Compression::Gzip);
}

#[test]
fn kcat_gets_back_what_it_sent_with_snappy() {
    round_trip("snappy", Compression::Snappy);
}

#[test]
fn kcat_gets_back_what_it_sent_with_lz4() {
    round_trip("lz4", Compression::Lz4);
}

#[test]
fn kcat_gets_back_what_it_sent_with_zstd() {
    round_trip("zstd", Compression::Zstd);
}

#[test]
fn kcat_creates_topics_by_asking_for_them_unless_that_is_off() {
    if !kcat_is_here() {
        return;
    }
    let cluster = BrokerLite::up(&[]).expect("broker-lite starts");
    let produce = |cluster: &BrokerLite| {
        let arguments = ["-P", "-b", cluster.bootstrap(), "-t", "fresh", "-X", "message.timeout.ms=5000"];
        run_with_input(&mut kcat(&arguments), b"one\n".to_vec()).expect("kcat runs")
    };
    assert!(produce(&cluster).status.success());
    let listing =
        succeeded(kcat(&["-b", cluster.bootstrap(), "-L", "-t", "fresh"]).output().expect("kcat runs"));
    assert!(listing.contains("topic \"fresh\" with 4 partitions:"), "{listing}");

    let strict =
        BrokerLite::up(&["--config", "auto.create.topics.enable=false"]).expect("broker-lite starts");
    assert!(!produce(&strict).status.success(), "the topic must not be created");
}

#[test]
fn javas_topic_command_creates_and_describes() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Kafka's Java tools", &reason);
    }
    let cluster = BrokerLite::up(&[]).expect("broker-lite starts");
    let topics = |arguments: &[&str]| {
        let mut all = vec!["--bootstrap-server", cluster.bootstrap()];
        all.extend_from_slice(arguments);
        kafka_tool("org.apache.kafka.tools.TopicCommand", &all).expect("java runs")
    };
    let create = ["--create", "--topic", "java", "--partitions", "5", "--replication-factor", "3"];
    let config = ["--config", "min.insync.replicas=2"];
    let created = succeeded(topics(&[&create[..], &config[..]].concat()));
    assert!(created.contains("Created topic java."), "{created}");
    let described = succeeded(topics(&["--describe", "--topic", "java"]));
    assert!(described.contains("PartitionCount: 5"), "{described}");
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
    assert!(described.contains("min.insync.replicas=2"), "{described}");
    assert_eq!(described.matches("Leader: ").count(), 5, "{described}");
    let again = topics(&create);
    let said = [again.stdout, again.stderr].concat();
    assert!(
        String::from_utf8_lossy(&said).contains("topic java exists"),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn kafkas_quorum_command_reads_the_three_voters_and_the_brokers_that_follow_them() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Kafka's Java tools", &reason);
    }
    let cluster = BrokerLite::up(&[]).expect("broker-lite starts");
    let describe = |what: &str| {
        let arguments = ["--bootstrap-server", cluster.bootstrap(), "describe", what];
        succeeded(kafka_tool("org.apache.kafka.tools.MetadataQuorumCommand", &arguments).expect("java runs"))
    };
    let status = describe("--status");
    for line in ["LeaderId:", "LeaderEpoch:", "HighWatermark:", "MaxFollowerLag:", "CurrentVoters:"] {
        assert!(status.contains(line), "{status}");
    }
    for voter in ["3001", "3002", "3003"] {
        assert!(status.contains(voter), "{status}");
    }
    let replication = describe("--replication");
    assert_eq!(replication.matches("Leader").count(), 1, "{replication}");
    assert_eq!(replication.matches("Follower").count(), 2, "{replication}");
    assert_eq!(replication.matches("Observer").count(), 3, "{replication}");
}
