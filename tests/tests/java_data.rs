//! Kafka's own Java tools for what is in a log, against a running `broker-lite up`: what is written, read and deleted, and where it
//! begins and ends.
//!
//! The lines looked for are those that the same tool prints for Apache Kafka 4.3.0.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::BTreeMap;

use klamm_tests::java::{self, expect};
use klamm_tests::process::BrokerLite;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const DELETE: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";

/// Keys and values; murmur2 puts the last three into partition 0 of two.
const LINES: &str = "k1\tone\nk2\ttwo\nk3\tthree\nk4\tfour\nk5\tfive\n";

fn tool(cluster: &BrokerLite, class: &str, arguments: &[&str]) -> String {
    java::tool(cluster, class, arguments).expect("java runs")
}

/// A cluster with `LINES` in topic `t`, whose partitions 0 and 1 are led by brokers 1 and 2.
fn filled() -> Option<BrokerLite> {
    let cluster = java::cluster(&[]).expect("broker-lite starts")?;
    let created = tool(&cluster, TOPICS, &["--create", "--topic", "t", "--replica-assignment", "1:2,2:3"]);
    expect(&created, &["Created topic t."]);
    assert_eq!(write(&cluster, &["--reader-property", "parse.key=true"], LINES), "");
    Some(cluster)
}

/// What the console producer prints besides its prompts.
fn write(cluster: &BrokerLite, arguments: &[&str], lines: &str) -> String {
    let all = [&["--topic", "t", "--command-property", "acks=all"], arguments].concat();
    let printed = java::tool_with_input(cluster, PRODUCER, &all, lines).expect("java runs");
    printed.replace('>', "")
}

/// What the console consumer finds, a record a line; it fails if that takes more than a minute.
fn read(cluster: &BrokerLite, partition: &str, offset: &str, count: &str) -> Vec<String> {
    let mut arguments = vec!["--topic", "t", "--partition", partition, "--offset", offset];
    arguments.extend(["--max-messages", count, "--timeout-ms", "60000"]);
    for shown in ["print.partition=true", "print.offset=true", "print.key=true"] {
        arguments.extend(["--formatter-property", shown]);
    }
    let printed = tool(cluster, CONSUMER, &arguments);
    expect(&printed, &[&format!("Processed a total of {count} messages")]);
    printed.lines().filter(|line| line.starts_with("Partition:")).map(str::to_owned).collect()
}

#[test]
fn what_javas_console_producer_writes_its_console_consumer_reads() {
    let Some(cluster) = filled() else { return };
    let first = ["Partition:0\tOffset:0\tk3\tthree", "Partition:0\tOffset:1\tk4\tfour"];
    let last = "Partition:0\tOffset:2\tk5\tfive";
    assert_eq!(read(&cluster, "0", "earliest", "3"), [&first[..], &[last]].concat());
    assert_eq!(read(&cluster, "0", "2", "1"), [last]);
    let other = ["Partition:1\tOffset:0\tk1\tone", "Partition:1\tOffset:1\tk2\ttwo"];
    assert_eq!(read(&cluster, "1", "earliest", "2"), other);

    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let line = format!("k3\t{codec} {}\n", "a".repeat(500));
        let compressed = ["--reader-property", "parse.key=true", "--compression-codec", codec];
        assert_eq!(write(&cluster, &compressed, &line), "");
    }
    let read = read(&cluster, "0", "3", "4");
    let codecs: Vec<_> = read.iter().filter_map(|line| line.split(['\t', ' ']).nth(3)).collect();
    assert_eq!(codecs, ["gzip", "snappy", "lz4", "zstd"]);

    // More than the broker takes: the tool tells its log only, which is not shown here.
    let large = format!("k3\t{}\n", "x".repeat(2_000_000));
    let keyed = ["--reader-property", "parse.key=true", "--command-property", "max.request.size=3000000"];
    write(&cluster, &keyed, &large);
    assert_eq!(tool(&cluster, OFFSETS, &["--topic-partitions", "t:0"]), "t:0:7\n");
}

#[test]
fn javas_get_offset_shell_tells_where_partitions_begin_and_end() {
    let Some(cluster) = filled() else { return };
    let offsets = |arguments: &[&str]| tool(&cluster, OFFSETS, arguments);
    assert_eq!(offsets(&["--topic", "t"]), "t:0:3\nt:1:2\n");
    assert_eq!(offsets(&["--topic-partitions", "t:1-2", "--time", "-1"]), "t:1:2\n");
    assert_eq!(offsets(&["--topic", "t", "--time", "earliest"]), "t:0:0\nt:1:0\n");
    assert_eq!(offsets(&["--topic", "t", "--time", "1"]), "t:0:0\nt:1:0\n");
    // Of the year 2100, and of what is stored elsewhere, there is no record, and the tool shows no line.
    assert_eq!(offsets(&["--topic", "t", "--time", "4102444800000"]), "");
    assert_eq!(offsets(&["--topic", "t", "--time", "latest-tiered"]), "");
    assert_eq!(write(&cluster, &["--reader-property", "parse.key=true"], "k4\tlater\n"), "");
    expect(&offsets(&["--topic", "t", "--time", "max-timestamp"]), &["t:0:3\n"]);
    expect(&offsets(&["--topic", "unheard-of"]), &["Could not match any topic-partitions"]);
}

#[test]
fn javas_delete_records_command_moves_the_beginning_of_logs() {
    let Some(cluster) = filled() else { return };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_string_lossy().into_owned();
    let delete = |partitions: &str| {
        let json = format!("{{\"version\":1,\"partitions\":[{partitions}]}}");
        std::fs::write(&path, json).expect("written");
        tool(&cluster, DELETE, &["--offset-json-file", &path])
    };
    let one = |partition: i32, offset: i64| {
        format!("{{\"topic\":\"t\",\"partition\":{partition},\"offset\":{offset}}}")
    };
    let deleted = delete(&[one(0, 2), one(1, 99)].join(","));
    let refused = "partition: t-1\terror: org.apache.kafka.common.errors.OffsetOutOfRangeException: The requested offset \
                   is not within the range of offsets maintained by the server.";
    expect(&deleted, &["Records delete operation completed:", "partition: t-0\tlow_watermark: 2\n", refused]);
    let earliest = ["--topic", "t", "--time", "earliest"];
    assert_eq!(tool(&cluster, OFFSETS, &earliest), "t:0:2\nt:1:0\n");
    assert_eq!(read(&cluster, "0", "earliest", "1"), ["Partition:0\tOffset:2\tk5\tfive"]);
    // Up to its end, and nothing that is gone comes back.
    expect(&delete(&one(1, -1)), &["partition: t-1\tlow_watermark: 2\n"]);
    expect(&delete(&one(0, 1)), &["partition: t-0\tlow_watermark: 2\n"]);
    assert_eq!(tool(&cluster, OFFSETS, &earliest), "t:0:2\nt:1:2\n");
    assert_eq!(tool(&cluster, OFFSETS, &["--topic", "t"]), "t:0:3\nt:1:2\n");
}

/// Which versions ours has Kafka has, too, is for the fidelity suite to see; here, that Java's client takes the newest of each.
#[test]
fn javas_broker_api_versions_command_can_use_the_newest_version_of_every_api() {
    let Some(cluster) = java::cluster(&[]).expect("broker-lite starts") else { return };
    let printed = tool(&cluster, VERSIONS, &[]);
    let mut usable: BTreeMap<String, usize> = BTreeMap::new();
    for line in printed.lines().filter(|line| line.contains("[usable: ")) {
        let (versions, used) = line.trim_end_matches([',', ']']).split_once(" [usable: ").expect("two parts");
        let (api, range) = versions.trim().split_once(": ").expect("a name and versions");
        assert_eq!(range.rsplit(' ').next(), Some(used), "{line}");
        *usable.entry(api.to_owned()).or_default() += 1;
    }
    for broker in 1..=3 {
        expect(&printed, &[&format!("(id: {broker} rack: RACK{broker} isFenced: false) -> (\n")]);
    }
    assert!(usable.values().all(|brokers| *brokers == 3), "{printed}");
    for api in
        ["Produce(0)", "Fetch(1)", "ListOffsets(2)", "DescribeQuorum(55)", "DescribeTopicPartitions(75)"]
    {
        assert!(usable.contains_key(api), "{printed}");
    }
    assert!(!printed.contains("ERROR"), "{printed}");
    assert!(usable.len() >= 26, "{printed}");
}
