//! `klamm produce` as a process of its own, against a cluster over TCP.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::process::{Output, Stdio};
use std::time::Duration;

use broker_lite::Cluster;
use klamm::{Client, Consumer, ConsumerRecord, StartOffset};
use klamm_tests::process::{ApacheKafka, find_program, signal};
use klamm_tests::skipped;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

const TOPIC: &str = "lines";
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Only turns a hang into a failure.
const HANG: Duration = Duration::from_secs(60);

/// A producer that gives up in the end, but not on a cluster that is only busy.
const IMPATIENT: &[&str] =
    &["delivery.timeout.ms=10000", "request.timeout.ms=5000", "linger.ms=0", "max.block.ms=10000"];

fn properties(all: &'static [&str]) -> Vec<&'static str> {
    all.iter().flat_map(|property| ["-X", property]).collect()
}

/// Three brokers on sockets, and a topic.
async fn cluster(partitions: i32) -> Cluster {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(true)
        .config("auto.create.topics.enable", "false")
        .topic(TOPIC, Some(partitions), Some(3))
        .start();
    cluster.await.expect("three brokers start")
}

fn klamm(bootstrap: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.args(["produce", "-b", bootstrap, "-t", TOPIC]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_remove("RUST_LOG");
    command
}

fn start(cluster: &Cluster, arguments: &[&str]) -> Child {
    klamm(&cluster.bootstrap(), arguments).spawn().expect("klamm starts")
}

async fn write(child: &mut Child, input: &[u8]) {
    let stdin = child.stdin.as_mut().expect("its standard input is open");
    stdin.write_all(input).await.expect("it reads");
    stdin.flush().await.expect("it reads");
}

/// Status and standard error, once it has ended by itself.
async fn end(mut child: Child) -> (i32, String) {
    drop(child.stdin.take());
    end_by_itself(child).await
}

/// As [`end`], of one whose standard input stays as it is.
async fn end_by_itself(child: Child) -> (i32, String) {
    let ended = tokio::time::timeout(HANG, child.wait_with_output()).await.expect("it does not hang");
    told(ended.expect("it ends"))
}

fn told(output: Output) -> (i32, String) {
    assert_eq!(output.stdout, b"", "nothing on standard output");
    let said = String::from_utf8(output.stderr).expect("text");
    (output.status.code().unwrap_or(-1), said)
}

/// Runs it with this input.
async fn produce(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> (i32, String) {
    let mut child = start(cluster, arguments);
    write(&mut child, input).await;
    end(child).await
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if reached() {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    panic!("not within a minute: {what}");
}

/// Waits until this many records of partition 0 are committed.
async fn until_committed(cluster: &Cluster, records: i64) {
    until(&format!("{records} records"), || cluster.high_watermark(TOPIC, 0) == Some(records)).await;
}

/// All records of the topic, by partition and offset.
async fn read(cluster: &Cluster, partitions: i32, count: usize) -> Vec<ConsumerRecord> {
    let consumer: Consumer =
        Consumer::builder().bootstrap_servers(cluster.bootstrap()).build().expect("a consumer");
    consumer.assign((0..partitions).map(|partition| ((TOPIC, partition), StartOffset::Beginning)));
    let mut records = Vec::new();
    while records.len() < count {
        records.push(consumer.recv().await.expect("a record"));
    }
    let committed = (0..partitions).map(|partition| cluster.high_watermark(TOPIC, partition).unwrap_or(0));
    assert_eq!(committed.sum::<i64>(), count as i64, "no more than that was written");
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn value(record: &ConsumerRecord) -> &[u8] {
    record.value.as_deref().expect("no value is null")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_a_record_byte_by_byte() {
    let cluster = cluster(1).await;
    let input = b"first\n\n\xff\xfe\0\x01\ncrlf\r\nlast without newline";
    let (status, said) = produce(&cluster, &[], input).await;
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("klamm: 5 records acknowledged in "), "{said}");
    let records = read(&cluster, 1, 5).await;
    let values: Vec<_> = records.iter().map(value).collect();
    assert_eq!(values, [&b"first"[..], b"", b"\xff\xfe\0\x01", b"crlf\r", b"last without newline"]);
    assert!(records.iter().all(|record| record.key.is_none() && record.headers.is_empty()));

    let (status, said) = produce(&cluster, &["-q"], b"").await;
    assert_eq!((status, said.as_str()), (0, ""), "nothing to do, nothing said");
    read(&cluster, 1, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_stands_before_the_first_delimiter() {
    let cluster = cluster(6).await;
    let (status, said) = produce(&cluster, &["-q", "-k", r"\t"], b"a\t1\nb\t2\na\t3\tx\n\t4\n5\na\t\n").await;
    assert_eq!((status, said.as_str()), (0, ""));
    let records = read(&cluster, 6, 6).await;
    let of_key = |key: Option<&[u8]>| -> Vec<_> {
        let alike = records.iter().filter(|record| record.key.as_deref() == key);
        alike.map(|record| (value(record), record.partition)).collect()
    };
    let a = of_key(Some(b"a"));
    assert!(a.iter().all(|(_, partition)| *partition == a[0].1), "one key, one partition: {a:?}");
    assert_eq!(a.iter().map(|(value, _)| *value).collect::<Vec<_>>(), [&b"1"[..], b"3\tx", b""]);
    assert_eq!(of_key(Some(b"b"))[0].0, b"2");
    assert_eq!(of_key(Some(b""))[0].0, b"4", "an empty key is not a null one");
    assert_eq!(of_key(None)[0].0, b"5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_can_be_chosen_and_one_that_is_not_there_is_named() {
    let cluster = cluster(3).await;
    let (status, said) = produce(&cluster, &["-p", "2", "-k", ":"], b"a:1\nb:2\nc:3\n").await;
    assert_eq!(status, 0, "{said}");
    assert!(read(&cluster, 3, 3).await.iter().all(|record| record.partition == 2));

    let (status, said) = produce(&cluster, &["-p", "7", "-X", "max.block.ms=10000"], b"1\n2\n3\n").await;
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("stopped reading: topic \"lines\" has no partition 7, only 3"), "{said}");
    assert!(said.contains("1 of 1 record was not acknowledged"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_before_anything_is_sent() {
    // Nobody listens there, and nobody is asked.
    let all: &[(&[&str], &str)] = &[
        (&["-X", "lingr.ms=5"], "unknown setting lingr.ms; did you mean linger.ms?"),
        (&["-X", "acks=2"], "acks=2: must be one of all, -1, 1, 0"),
        (&["-X", "fetch.min.bytes=1"], "fetch.min.bytes is a setting of consumers"),
        (&["-X", "security.protocol=SSL"], "security.protocol is not supported yet"),
        (&["-X", "bootstrap.servers=a:1"], "bootstrap.servers is given by -b"),
        (&["-X", "acks"], "is not KEY=VALUE"),
        (&["-p", "-1"], "-1"),
        (&["-k", ""], "must not be empty"),
        (&["--nonsense"], "--nonsense"),
        (&["-t", "another"], "cannot be used multiple times"),
    ];
    for (arguments, expected) in all {
        let child = klamm("127.0.0.1:9", arguments).spawn().expect("klamm starts");
        let (status, said) = end(child).await;
        assert_eq!(status, 2, "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let child = klamm("nonsense", &[]).spawn().expect("klamm starts");
    let (status, said) = end(child).await;
    assert_eq!((status, said.contains("HOST:PORT; the port is missing")), (2, true), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_is_named_after_max_block_ms() {
    // A port on which nobody listens any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port").to_string();
    drop(listener);
    let mut child = klamm(&address, &["-X", "max.block.ms=3000"]).spawn().expect("klamm starts");
    write(&mut child, b"1\n2\n3\n").await;
    // Its standard input stays open: it must end all the same.
    let (status, said) = end_by_itself(child).await;
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(&address) && said.contains("refused"), "{said}");
    assert!(said.contains("stopped reading: no metadata for topic \"lines\" within "), "{said}");
    assert!(said.contains("1 of 1 record was not acknowledged"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_over_max_request_size_fails_alone() {
    let cluster = cluster(1).await;
    let mut input = b"before\n".to_vec();
    input.extend(vec![b'x'; 3 << 20]); // more than is kept of a line
    input.extend(b"\nmiddle\n");
    input.extend(vec![b'y'; 19_990]); // a line that may be, as a record that may not
    input.extend(b"\nafter\n");
    let (status, said) = produce(&cluster, &["-X", "max.request.size=20000"], &input).await;
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("2 of 5 records were not acknowledged: a line exceeds the limit of 20000 B"),
        "{said}"
    );
    assert!(said.contains("record of 20"), "{said}");
    let records = read(&cluster, 1, 3).await;
    assert_eq!(records.iter().map(value).collect::<Vec<_>>(), [&b"before"[..], b"middle", b"after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_on_the_way_ends_it_with_a_count() {
    let cluster = cluster(1).await;
    let client = Client::builder().bootstrap_servers(cluster.bootstrap()).build().expect("a client");
    let mut child = start(&cluster, &properties(IMPATIENT));
    write(&mut child, b"1\n2\n3\n").await;
    until_committed(&cluster, 3).await;
    client.admin().delete_topics([TOPIC]).await.expect("an answer").all().expect("it is deleted");
    write(&mut child, b"4\n5\n").await;
    let (status, said) = end(child).await;
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("2 of 5 records were not acknowledged"), "{said}");
    assert!(said.contains("UNKNOWN_TOPIC"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_dies_on_the_way_leaves_a_count() {
    let cluster = cluster(1).await;
    let mut child = start(&cluster, &properties(IMPATIENT));
    write(&mut child, b"1\n2\n3\n4\n5\n6\n7\n").await;
    until_committed(&cluster, 7).await;
    for broker in cluster.broker_ids() {
        cluster.kill(broker).expect("it is killed");
    }
    write(&mut child, b"8\n9\n10\n").await;
    let (status, said) = end(child).await;
    assert_eq!(status, 1, "{said}");
    // The broker may have died with the acknowledgement on its lips.
    let unheard = "10 of 10 records were not acknowledged (7 of them may be in the log all the same)";
    assert!(said.contains("3 of 10 records were not acknowledged") || said.contains(unheard), "{said}");
    assert!(said.contains("record of lines-0 not acknowledged within "), "{said}");
}

/// Partitions of the keys `a` and `d`, of two.
const OF_A: i32 = 0;
const OF_D: i32 = 1;

/// Starts it so that two lines with the key `a` linger for ever, and of two with the key `d` the first is sent when the
/// second comes; returns when that is so: all four are read. With its process id.
async fn start_lingering(cluster: &Cluster, arguments: &[&str], rest: &[u8]) -> (Child, u32) {
    let properties =
        ["-k", ":", "-X", "linger.ms=1000000", "-X", "delivery.timeout.ms=2000000", "-X", "batch.size=500"];
    let mut child = start(cluster, &[&properties[..], arguments].concat());
    let large = "x".repeat(600);
    write(&mut child, &[format!("a:1\na:2\nd:{large}\nd:{large}\n").as_bytes(), rest].concat()).await;
    until("the large one is written", || cluster.high_watermark(TOPIC, OF_D) == Some(1)).await;
    assert_eq!(cluster.high_watermark(TOPIC, OF_A), Some(0), "the small ones linger");
    let pid = child.id().expect("it runs");
    (child, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_the_reading_and_sends_what_was_read() {
    for name in ["INT", "TERM"] {
        let cluster = cluster(2).await;
        let (mut child, pid) = start_lingering(&cluster, &[], b"").await;
        let stdin = child.stdin.take(); // stays open
        signal(pid, name).expect("it runs");
        let (status, said) = end_by_itself(child).await;
        drop(stdin);
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("interrupted: waiting") && said.contains("4 records acknowledged"), "{said}");
        read(&cluster, 2, 4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_line_is_not_sent_when_interrupted() {
    let cluster = cluster(2).await;
    let (mut child, pid) = start_lingering(&cluster, &["-q"], b"a:ha").await;
    let stdin = child.stdin.take(); // stays open
    signal(pid, "INT").expect("it runs");
    let (status, said) = end_by_itself(child).await;
    drop(stdin);
    assert_eq!(said, "klamm: stopped reading: interrupted in the middle of a line, which is not sent\n");
    assert_eq!(status, 1);
    read(&cluster, 2, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_gives_up_at_once() {
    let cluster = cluster(2).await;
    let (mut child, pid) = start_lingering(&cluster, &[], b"").await;
    for broker in cluster.broker_ids() {
        cluster.pause(broker).expect("it is paused");
    }
    let stderr = child.stderr.take().expect("piped");
    let mut said = BufReader::new(stderr).lines();
    signal(pid, "INT").expect("it runs");
    let first = said.next_line().await.expect("text").expect("a line");
    assert!(first.contains("interrupted: waiting for what was sent; interrupt again"), "{first}");
    signal(pid, "INT").expect("it runs");
    let second = said.next_line().await.expect("text").expect("a line");
    let expected =
        "3 of 4 records were not acknowledged (3 of them may be in the log all the same): given up";
    assert!(second.contains(expected), "{second}");
    let status = child.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(1));
}

/// Peak memory of a process in bytes.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_arrive_in_order_in_little_memory() {
    const LINES: usize = 1_000_000;
    let cluster = cluster(1).await;
    let properties = ["-X", "buffer.memory=1000000", "-X", "compression.type=lz4"];
    let mut child = start(&cluster, &properties);
    let line = |index: usize| format!("{index:07} {}", "x".repeat(index % 90));
    let input: String = (0..LINES).flat_map(|index| [line(index), "\n".to_owned()]).collect();
    assert!(input.len() > 50_000_000);
    write(&mut child, input.as_bytes()).await;
    until_committed(&cluster, LINES as i64).await;
    let peak = peak_bytes(child.id().expect("it runs"));
    let (status, said) = end(child).await;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("1000000 records acknowledged"), "{said}");
    // The input would not fit in there.
    assert!(peak < 48_000_000, "{peak} bytes");

    let consumer: Consumer =
        Consumer::builder().bootstrap_servers(cluster.bootstrap()).build().expect("a consumer");
    consumer.assign([((TOPIC, 0), StartOffset::Beginning)]);
    for index in 0..LINES {
        let record = consumer.recv().await.expect("a record");
        assert_eq!(value(&record), line(index).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_without_end_waits_for_a_silent_cluster_in_little_memory() {
    let cluster = cluster(1).await;
    let mut child = start(&cluster, &["-X", "buffer.memory=1000000"]);
    write(&mut child, b"first\n").await;
    until_committed(&cluster, 1).await;
    for broker in cluster.broker_ids() {
        cluster.pause(broker).expect("it is paused");
    }
    // Written until the buffer is full and nobody has read any of it for a while: the pipe is full as well.
    let stdin = child.stdin.as_mut().expect("its standard input is open");
    let lines = ["x".repeat(999), "\n".to_owned()].concat().repeat(100);
    let (mut taken, mut stuck) = (0_u64, false);
    while !stuck && taken < 200_000_000 {
        match tokio::time::timeout(Duration::from_millis(500), stdin.write(lines.as_bytes())).await {
            Ok(written) => taken += written.expect("it reads") as u64,
            Err(_) => stuck = taken >= 1_000_000,
        }
    }
    assert!(stuck, "it has read {taken} bytes");
    let peak = peak_bytes(child.id().expect("it runs"));
    assert!(peak < 48_000_000, "{peak} bytes");
    for broker in cluster.broker_ids() {
        cluster.resume(broker).expect("it is resumed");
    }
    // It goes on where it waited; half a line more may be there than the count says.
    write(&mut child, b"\nlast").await;
    let (status, said) = end(child).await;
    assert_eq!(status, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_what_was_produced() {
    if find_program("kcat").is_none() {
        return skipped("kcat", "it is not installed (Debian: apt-get install kcat)");
    }
    let cluster = cluster(1).await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let codec = format!("compression.type={codec}");
        let (status, said) = produce(&cluster, &["-k", ":", "-X", &codec], b"key:value\nno key\n:\n\n").await;
        assert_eq!(status, 0, "{said}");
    }
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-b", &cluster.bootstrap(), "-t", TOPIC, "-o", "beginning", "-e", "-q"]);
    kcat.args(["-f", "%o %K %k %S %s|"]).kill_on_drop(true);
    let output = kcat.output().await.expect("kcat runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: String = (0..5)
        .map(|round| 4 * round)
        .map(|at| format!("{at} 3 key 5 value|{} -1  6 no key|{} 0  0 |{} -1  0 |", at + 1, at + 2, at + 3))
        .collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_kafka_takes_what_is_produced() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Apache Kafka", &reason);
    }
    if find_program("kcat").is_none() {
        return skipped("kcat", "it is not installed (Debian: apt-get install kcat)");
    }
    let started = tokio::task::spawn_blocking(|| ApacheKafka::start(1)).await;
    let kafka = started.expect("no panic").expect("Kafka starts");
    // It creates the topic when it is asked for it.
    let arguments = ["-p", "0", "-k", ":", "-X", "compression.type=zstd", "-X", "batch.size=1000"];
    let mut child = klamm(kafka.bootstrap(), &arguments).spawn().expect("klamm starts");
    let input: String = (0..10_000).map(|index| format!("{index}:line {index}\n")).collect();
    write(&mut child, input.as_bytes()).await;
    let (status, said) = end(child).await;
    assert_eq!(status, 0, "{said}");
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-b", kafka.bootstrap(), "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q"]);
    let output = kcat.args(["-f", "%k:%s\n"]).kill_on_drop(true).output().await.expect("kcat runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == input.as_bytes(), "what came back differs from what was sent");
}
