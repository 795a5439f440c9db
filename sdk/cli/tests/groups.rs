//! `klamm groups` as a process of its own, beside Kafka's ConsumerGroupCommand.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::process::Stdio;
use std::time::Duration;

use broker_lite::Cluster;
use klamm::{Client, Consumer, GroupState, NewTopic, OffsetReset, Producer, Record};
use klamm_tests::process::{ApacheKafka, kafka_tool, signal};
use klamm_tests::skipped;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const TOPIC: &str = "orders";
const JAVA: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
/// Only turns a hang into a failure.
const HANG: Duration = Duration::from_secs(60);

async fn cluster() -> Cluster {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(true)
        .config("group.initial.rebalance.delay.ms", "0")
        .topic(TOPIC, Some(2), Some(3))
        .start();
    cluster.await.expect("three brokers start")
}

fn klamm(bootstrap: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.arg("groups").args(arguments).args(["-b", bootstrap]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_remove("RUST_LOG");
    command
}

/// Status, standard output and standard error.
async fn groups(bootstrap: &str, arguments: &[&str]) -> (i32, String, String) {
    let ended = tokio::time::timeout(HANG, klamm(bootstrap, arguments).output()).await;
    let output = ended.expect("it does not hang").expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// The objects that it prints.
async fn objects(bootstrap: &str, arguments: &[&str]) -> Vec<Value> {
    let (status, out, said) = groups(bootstrap, &[arguments, &["--json"]].concat()).await;
    assert_eq!(status, 0, "{arguments:?}: {said}");
    out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// So many records into each partition of the topic.
async fn write(bootstrap: &str, each: usize) {
    let producer: Producer = Producer::builder().bootstrap_servers(bootstrap).build().expect("a producer");
    for index in 0..each {
        for partition in 0..2 {
            let record = Record::new(TOPIC).partition(partition).timestamp(1_000 + index as i64);
            producer.send_and_wait(record.value("x")).await.expect("it is written");
        }
    }
    producer.close(HANG).await.expect("it is closed");
}

/// A member of the group that has read and committed everything.
async fn member(bootstrap: &str, group: &str, count: usize) -> Consumer {
    let builder = Consumer::builder().bootstrap_servers(bootstrap).group_id(group).client_id("reader");
    let consumer: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().expect("a consumer");
    consumer.subscribe([TOPIC]);
    let mut read = 0;
    while read < count {
        read += consumer.poll(count - read, HANG).await.expect("records").len();
    }
    consumer.commit().await.expect("it is committed");
    consumer
}

async fn until_empty(bootstrap: &str, group: &str) {
    let client = Client::builder().bootstrap_servers(bootstrap).build().expect("a client");
    loop {
        let described = client.admin().describe_groups([group]).await.expect("an answer").all();
        if described.is_ok_and(|described| described[0].state == GroupState::Empty) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn figures(shown: &Value) -> Vec<Value> {
    let partitions = shown["partitions"].as_array().expect("a list");
    partitions.iter().map(|p| json!([p["partition"], p["committed"], p["end"], p["lag"]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_listed_shown_reset_and_deleted() {
    let cluster = cluster().await;
    let bootstrap = cluster.bootstrap();
    write(&bootstrap, 10).await;
    let consumer = member(&bootstrap, "billing", 20).await;
    write(&bootstrap, 5).await;

    let listed = objects(&bootstrap, &["list"]).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["group"], &listed[0]["type"]), (&json!("billing"), &json!("classic")));
    assert!(objects(&bootstrap, &["list", "--state", "empty", "--type", "classic"]).await.is_empty());
    let (_, table, _) = groups(&bootstrap, &["list"]).await;
    assert!(table.starts_with("GROUP    TYPE     STATE"), "{table}");

    let shown = objects(&bootstrap, &["show", "billing"]).await.remove(0);
    assert_eq!(figures(&shown), [json!([0, 10, 15, 5]), json!([1, 10, 15, 5])]);
    assert_eq!(
        (&shown["lag"], &shown["assignor"], &shown["state"]),
        (&json!(10), &json!("range"), &json!("Stable"))
    );
    assert_eq!(shown["members"][0]["client"], "reader");
    assert_eq!(shown["partitions"][0]["member"], shown["members"][0]["id"]);
    let (_, table, _) = groups(&bootstrap, &["show", "billing"]).await;
    assert!(table.contains("TOPIC   PARTITION  COMMITTED  END  LAG  MEMBER"), "{table}");
    assert!(table.contains("orders  0          10         15   5    reader-"), "{table}");

    let (status, out, said) = groups(&bootstrap, &["reset", "billing", "--to-earliest", "--execute"]).await;
    assert_eq!((status, out.as_str()), (1, ""));
    let active = "klamm: group \"billing\" is Stable with 1 member (reader at ";
    assert!(said.starts_with(active) && said.ends_with("remove them, and ask again\n"), "{said}");
    let (status, _, said) = groups(&bootstrap, &["delete", "billing"]).await;
    assert_eq!(status, 1);
    assert!(said.contains("NON_EMPTY_GROUP") && said.contains("stop its members"), "{said}");
    let (status, _, said) = groups(&bootstrap, &["delete-offsets", "billing", "-t", TOPIC]).await;
    assert_eq!((status, said.contains("GROUP_SUBSCRIBED_TO_TOPIC")), (1, true), "{said}");
    consumer.close().await.expect("it leaves");
    until_empty(&bootstrap, "billing").await;

    let committed = async || figures(&objects(&bootstrap, &["show", "billing"]).await[0]);
    let before = committed().await;
    let (status, out, said) = groups(&bootstrap, &["reset", "billing", "--shift", "-4"]).await;
    assert_eq!((status, said.as_str()), (0, "klamm: nothing was changed; --execute does it\n"));
    assert!(out.contains("orders  0          10      6"), "{out}");
    assert_eq!(committed().await, before, "a dry run changes nothing");
    let all: &[(&[&str], [i64; 2])] = &[
        (&["--shift", "-4"], [6, 6]),
        (&["--shift", "-400", "-t", "orders:1"], [6, 0]),
        (&["--to-latest"], [15, 15]),
        (&["--to-offset", "7", "-t", "orders:0"], [7, 15]),
        (&["--to-offset", "99", "-t", TOPIC], [15, 15]),
        (&["--to-timestamp", "1003"], [3, 3]),
        (&["--to-timestamp", "99999"], [15, 15]),
        (&["--to-earliest"], [0, 0]),
    ];
    for (how, expected) in all {
        let changes = objects(&bootstrap, &[&["reset", "billing", "--execute"], *how].concat()).await;
        assert!(changes.iter().all(|change| change["executed"] == true), "{changes:?}");
        let now: Vec<_> = committed().await.iter().map(|p| p[1].as_i64().expect("a number")).collect();
        assert_eq!(now, expected, "{how:?}");
    }
    let (status, _, said) =
        groups(&bootstrap, &["reset", "billing", "-t", "orders:0,9", "--to-latest"]).await;
    assert_eq!((status, said.contains("klamm: orders-9: it does not exist\n")), (1, true), "{said}");

    objects(&bootstrap, &["delete-offsets", "billing", "-t", "orders:1"]).await;
    assert_eq!(committed().await, [json!([0, 0, 15, 15])]);
    let (status, out, said) = groups(&bootstrap, &["delete", "billing"]).await;
    assert_eq!((status, out.as_str(), said.as_str()), (0, "", "klamm: 1 groups deleted\n"));
    for missing in [&["show", "billing"][..], &["delete", "billing"], &["remove-members", "billing", "--all"]]
    {
        let (status, _, said) = groups(&bootstrap, missing).await;
        assert_eq!((status, said.lines().count()), (1, 1), "{missing:?}: {said}");
    }
    let (status, _, said) = groups(&bootstrap, &["reset", "new", "--to-latest"]).await;
    assert!(status == 1 && said.contains("has committed nothing: say which --topic"), "{said}");
    objects(&bootstrap, &["reset", "new", "--to-latest", "-t", TOPIC, "--execute"]).await;
    assert_eq!(objects(&bootstrap, &["show", "new"]).await[0]["lag"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_watched_live_and_members_are_removed() {
    let cluster = cluster().await;
    let bootstrap = cluster.bootstrap();
    write(&bootstrap, 1).await;
    let consumer = member(&bootstrap, "billing", 2).await;
    let mut watch =
        klamm(&bootstrap, &["show", "billing", "--watch", "0.1", "--json"]).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut lag = async || {
        let line = tokio::time::timeout(HANG, lines.next_line()).await.expect("in time");
        let line = line.expect("text").expect("a line");
        serde_json::from_str::<Value>(&line).expect("an object")["lag"].as_i64().expect("a number")
    };
    assert_eq!(lag().await, 0);
    write(&bootstrap, 3).await;
    while lag().await != 6 {}
    signal(watch.id().expect("it runs"), "INT").expect("it runs");
    let status = tokio::time::timeout(HANG, watch.wait()).await.expect("it ends").expect("a status");
    assert!(status.success(), "{status}");

    let shown = objects(&bootstrap, &["show", "billing"]).await.remove(0);
    let id = shown["members"][0]["id"].as_str().expect("an id").to_owned();
    let removed = objects(&bootstrap, &["remove-members", "billing", "--member", &id]).await;
    assert_eq!((&removed[0]["member"], &removed[0]["done"]), (&json!(id), &json!(true)));
    let unknown = ["remove-members", "billing", "--instance", "nobody", "--json"];
    let (status, out, said) = groups(&bootstrap, &unknown).await;
    assert_eq!((status, out.contains("\"done\":false")), (1, true), "{said}");
    assert!(said.contains("UNKNOWN_MEMBER_ID"), "{said}");
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_before_anybody_is_asked() {
    let all: &[(&[&str], &str)] = &[
        (&["reset", "g"], "--to-earliest"),
        (&["reset", "g", "--to-earliest", "--to-latest"], "cannot be used with"),
        (&["reset", "g", "--to-offset", "-1"], "-1"),
        (&["reset", "g", "--to-latest", "-t", "t:x"], "is not a list of partitions"),
        (&["delete"], "GROUPS"),
        (&["delete-offsets", "g"], "--topic"),
        (&["remove-members", "g"], "--all"),
        (&["list", "--state", "asleep"], "known are Empty"),
        (&["list", "--type", "large"], "known are classic"),
        (&["list", "-X", "retires=5"], "unknown setting retires"),
        (&["list", "-X", "acks=1"], "acks is a setting of producers"),
        (&["list", "-X", "bootstrap.servers=x:1"], "bootstrap.servers is given by -b"),
        (&["show", "g", "--watch", "0"], "at least 0.05"),
    ];
    for (arguments, expected) in all {
        let (status, out, said) = groups("127.0.0.1:9", arguments).await;
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let (status, _, said) = groups(
        "127.0.0.1:9",
        &["list", "-X", "request.timeout.ms=1000", "-X", "default.api.timeout.ms=2000"],
    )
    .await;
    assert_eq!((status, said.lines().count()), (1, 1), "{said}");
}

/// What Java's tool prints of a group: partition, committed, end, lag.
async fn javas_figures(bootstrap: &str, group: &str) -> Vec<Value> {
    let arguments = ["--bootstrap-server", bootstrap, "--describe", "--group", group].map(str::to_owned);
    let run = move || kafka_tool(JAVA, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let output = tokio::task::spawn_blocking(run).await.expect("no panic").expect("java runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |text: &str| text.parse::<i64>().map_or(Value::Null, Value::from);
    let mut rows: Vec<_> = printed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.first() == Some(&group) && row.len() > 5)
        .map(|row| json!([number(row[2]), number(row[3]), number(row[4]), number(row[5])]))
        .collect();
    rows.sort_by_key(|row| row[0].as_i64());
    rows
}

/// Compares what both say of a group with a member, and without.
async fn compare_with_java(bootstrap: &str) {
    write(bootstrap, 10).await;
    let consumer = member(bootstrap, "billing", 20).await;
    write(bootstrap, 7).await;
    for active in [true, false] {
        if !active {
            consumer.close().await.expect("it leaves");
            until_empty(bootstrap, "billing").await;
            objects(bootstrap, &["reset", "billing", "-t", "orders:1", "--to-offset", "3", "--execute"])
                .await;
        }
        let ours = figures(&objects(bootstrap, &["show", "billing"]).await[0]);
        assert_eq!(ours, javas_figures(bootstrap, "billing").await, "with members: {active}");
        assert_eq!(ours.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_are_those_of_javas_consumer_group_command() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Kafka's Java tools", &reason);
    }
    let cluster = cluster().await;
    compare_with_java(&cluster.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_apache_kafka_too_and_groups_of_the_new_protocol_are_shown_with_their_type() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Apache Kafka", &reason);
    }
    let started = tokio::task::spawn_blocking(|| ApacheKafka::start(1)).await.expect("no panic");
    let kafka = started.expect("Apache Kafka starts");
    let bootstrap = kafka.bootstrap().to_owned();
    let client = Client::builder().bootstrap_servers(&bootstrap).build().expect("a client");
    let topic = NewTopic::new(TOPIC).partitions(2).replicas(1).config("retention.ms", "-1");
    client.admin().create_topics([topic]).await.expect("an answer").all().expect("it is created");
    compare_with_java(&bootstrap).await;

    // A member of KIP-848's protocol, Kafka's own; it stays until it is stopped.
    let consume = {
        let bootstrap = bootstrap.clone();
        move || {
            let options =
                ["--topic", TOPIC, "--group", "modern", "--from-beginning", "--timeout-ms", "15000"];
            let protocol = ["--consumer-property", "group.protocol=consumer"];
            let all = [&["--bootstrap-server", &bootstrap][..], &options, &protocol].concat();
            kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &all)
        }
    };
    let consuming = tokio::task::spawn_blocking(consume);
    let shown = loop {
        let (_, out, _) = groups(&bootstrap, &["show", "modern", "--json"]).await;
        let shown: Value = serde_json::from_str(&out).unwrap_or(Value::Null);
        if shown["members"][0]["assignment"].as_array().is_some_and(|reads| reads.len() == 2) {
            break shown;
        }
        assert!(!consuming.is_finished(), "it ended before it was seen: {out}");
    };
    assert_eq!((&shown["type"], &shown["assignor"]), (&json!("consumer"), &json!("uniform")));
    let listed = objects(&bootstrap, &["list", "--type", "consumer"]).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["group"], &listed[0]["type"]), (&json!("modern"), &json!("consumer")));
    let (status, _, said) =
        groups(&bootstrap, &["reset", "modern", "-t", TOPIC, "--to-latest", "--execute"]).await;
    assert!(status == 1 && said.contains("group \"modern\" is ") && said.contains("1 member"), "{said}");
    let refused = client.admin().alter_group_offsets("modern", [((TOPIC, 0), 1)]).await.expect_err("active");
    assert!(matches!(refused, klamm::AdminError::GroupActive { .. }), "{refused}");
    consuming.await.expect("no panic").expect("java runs");
    let (status, _, said) = groups(&bootstrap, &["delete", "modern"]).await;
    assert_eq!(status, 0, "{said}");
}
