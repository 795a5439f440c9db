//! Foreign consumers share groups at `broker-lite up`: Kafka's own Java consumer and tools, and kcat (librdkafka).
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::process::{Command, Output};

use klamm_tests::java::{self, expect};
use klamm_tests::process::{BrokerLite, find_program, run_with_input};
use klamm_tests::skipped;

const CONSUME: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const PRODUCE: &str = "org.apache.kafka.tools.ConsoleProducer";
const DUMP: &str = "org.apache.kafka.tools.DumpLogSegments";

fn tool(cluster: &BrokerLite, class: &str, arguments: &[&str]) -> String {
    java::tool(cluster, class, arguments).expect("java runs")
}

/// Six records, three in each partition or so.
fn fill(cluster: &BrokerLite, first: u32) -> Vec<String> {
    let lines: Vec<_> = (first..first + 6).map(|number| format!("record-{number}")).collect();
    let keyed: Vec<_> = lines.iter().map(|line| format!("{line}:{line}")).collect();
    let options = ["--topic", "t", "--property", "parse.key=true", "--property", "key.separator=:"];
    let input = keyed.join("\n") + "\n";
    java::tool_with_input(cluster, PRODUCE, &options, &input).expect("java runs");
    lines
}

/// What a Java consumer of the group reads until it has so many records.
fn consume(cluster: &BrokerLite, group: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let printed = tool(
        cluster,
        CONSUME,
        &[
            "--topic",
            "t",
            "--group",
            group,
            "--from-beginning",
            "--max-messages",
            &count,
            "--timeout-ms",
            "30000",
        ],
    );
    let mut lines: Vec<_> =
        printed.lines().filter(|line| line.starts_with("record-")).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn javas_consumers_go_on_where_their_group_was_and_its_tools_see_reset_and_delete_it() {
    let up = ["--topic", "t:2:3", "--config", "group.initial.rebalance.delay.ms=0"];
    let Some(cluster) = java::cluster(&up).expect("broker-lite starts") else { return };
    let groups = |arguments: &[&str]| tool(&cluster, GROUPS, arguments);
    let first = fill(&cluster, 10);
    assert_eq!(consume(&cluster, "readers", 6), first);
    let second = fill(&cluster, 20);
    assert_eq!(consume(&cluster, "readers", 6), second, "the first six are committed");

    expect(&groups(&["--list"]), &["readers"]);
    let state = groups(&["--describe", "--group", "readers", "--state"]);
    expect(&state, &["Empty"]);
    let described = groups(&["--describe", "--group", "readers"]);
    expect(&described, &["Consumer group 'readers' has no active members."]);
    let rows = described.lines().filter(|line| line.starts_with("readers"));
    let row = |row: &str| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG: nothing is left to read
    let rows: Vec<_> = rows.map(row).collect();
    assert_eq!(rows.len(), 2, "{described}");
    assert!(rows.iter().all(|row| row[3] == row[4] && row[5] == "0"), "{described}");

    let reset =
        groups(&["--reset-offsets", "--group", "readers", "--topic", "t", "--to-earliest", "--execute"]);
    expect(&reset, &["readers"]);
    assert_eq!(consume(&cluster, "readers", 12), [first, second].concat());
    let deleted = groups(&["--delete-offsets", "--group", "readers", "--topic", "t"]);
    expect(&deleted, &["Successful"]);
    let deleted = groups(&["--delete", "--group", "readers"]);
    expect(&deleted, &["Deletion of requested consumer groups ('readers') was successful."]);
    let gone = groups(&["--describe", "--group", "readers"]);
    expect(&gone, &["readers"]);
    assert!(!groups(&["--list"]).contains("readers"));
}

#[test]
fn what_groups_write_kafkas_own_tool_reads() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().to_string_lossy().into_owned();
    let up = [
        "--data-dir",
        &path,
        "--topic",
        "t:2:3",
        "--config",
        "group.initial.rebalance.delay.ms=0",
        "--config",
        "offsets.topic.num.partitions=1",
    ];
    let Some(cluster) = java::cluster(&up).expect("broker-lite starts") else { return };
    fill(&cluster, 10);
    consume(&cluster, "readers", 6);
    let log = home.path().join("broker-1/__consumer_offsets-0/00000000000000000000.log");
    let log = log.to_string_lossy().into_owned();
    let output = klamm_tests::process::kafka_tool(DUMP, &["--offsets-decoder", "--files", &log]);
    let output = output.expect("java runs");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    expect(
        &printed,
        &[
            r#"key: {"type":"2","data":{"group":"readers"}}"#,
            r#""protocolType":"consumer","generation":1,"protocol":"range""#,
            r#"key: {"type":"1","data":{"group":"readers","topic":"t","partition":0}}"#,
            r#"payload: {"version":"4","data":{"offset":"#,
        ],
    );
}

fn kcat(cluster: &BrokerLite, arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-b", cluster.bootstrap()]).args(arguments);
    command
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn kcats_group_reads_everything_once_and_goes_on_where_it_was() {
    if find_program("kcat").is_none() {
        return skipped("kcat", "it is not installed (Debian: apt-get install kcat)");
    }
    let up = ["--topic", "t:4:3", "--config", "group.initial.rebalance.delay.ms=0"];
    let cluster = BrokerLite::up(&up).expect("broker-lite starts");
    let write = |first: u32| {
        let lines: Vec<_> = (first..first + 100).map(|number| format!("record-{number}")).collect();
        let input = (lines.join("\n") + "\n").into_bytes();
        succeeded(run_with_input(&mut kcat(&cluster, &["-P", "-t", "t"]), input).expect("kcat runs"));
        lines
    };
    let read = || {
        let options = ["-X", "auto.offset.reset=earliest", "-c", "100", "-q", "-G", "readers", "t"];
        let output = kcat(&cluster, &options).output().expect("kcat runs");
        let mut lines: Vec<_> = succeeded(output).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let first = write(1_000);
    assert_eq!(read(), first);
    let second = write(2_000);
    assert_eq!(read(), second);
}
