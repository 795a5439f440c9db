//! `klamm consume` as a process of its own, beside kcat, over the same topic.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::process::{Output, Stdio};
use std::time::Duration;

use broker_lite::Cluster;
use klamm::{Client, GroupState, Producer, Record};
use klamm_tests::process::{ApacheKafka, find_program, signal};
use klamm_tests::skipped;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const TOPIC: &str = "lines";
/// Only turns a hang into a failure.
const HANG: Duration = Duration::from_secs(60);

async fn cluster(partitions: i32) -> Cluster {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(true)
        .config("auto.create.topics.enable", "false")
        .config("group.initial.rebalance.delay.ms", "0")
        .topic(TOPIC, Some(partitions), Some(3))
        .start();
    cluster.await.expect("three brokers start")
}

fn klamm(bootstrap: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.args(["consume", "-b", bootstrap]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_remove("RUST_LOG");
    command
}

fn start(bootstrap: &str, arguments: &[&str]) -> Child {
    klamm(bootstrap, &[&["-t", TOPIC], arguments].concat()).spawn().expect("klamm starts")
}

async fn ended(mut command: Command) -> Output {
    let child = command.spawn().expect("it starts");
    tokio::time::timeout(HANG, child.wait_with_output()).await.expect("it does not hang").expect("it ends")
}

/// Status, standard output and standard error of one that ends by itself.
async fn consume(bootstrap: &str, arguments: &[&str]) -> (i32, Vec<u8>, String) {
    let output = ended(klamm(bootstrap, arguments)).await;
    let said = String::from_utf8(output.stderr).expect("text");
    (output.status.code().unwrap_or(-1), output.stdout, said)
}

/// What it prints of the topic.
async fn printed(bootstrap: &str, arguments: &[&str]) -> Vec<u8> {
    let (status, out, said) = consume(bootstrap, &[&["-t", TOPIC], arguments].concat()).await;
    assert_eq!((status, said.as_str()), (0, ""), "{arguments:?}");
    out
}

async fn write(bootstrap: &str, records: impl IntoIterator<Item = Record>) {
    let producer: Producer = Producer::builder().bootstrap_servers(bootstrap).build().expect("a producer");
    for record in records {
        producer.send_and_wait(record).await.expect("it is written");
    }
    producer.close(HANG).await.expect("it is closed");
}

async fn write_numbers(bootstrap: &str, partition: i32, numbers: std::ops::Range<u32>) {
    write(bootstrap, numbers.map(|n| Record::new(TOPIC).partition(partition).value(n.to_string()))).await;
}

/// Everything a record can have: null and empty, binary, headers of all kinds.
fn odd_records() -> Vec<Record> {
    let record = || Record::new(TOPIC).partition(0).timestamp(1_600_000_000_123);
    vec![
        record().key("k1").value("v1"),
        record().value("no key"),
        record().key("no value"),
        record(),
        record().key("").value(""),
        record().key(&b"\xff\0\n\t\x80"[..]).value(&b"\0\x01\xfe\r\nx\0"[..]),
        record().value("%s \\n % %% \\x41"),
        record().value("headers").header("a", "1").header("b", "").header("a", "x,y=z"),
        record().key("ключ").value("значение").header("имя", "\u{1F980}").timestamp(0),
        record().value("null header").null_header("none").header("after", "it"),
        record().value("x".repeat(100_000)),
    ]
}

const FORMATS: &[&str] = &[
    "%s\\n",
    "%t [%p] at %o: key %k: %s\\n",
    "%k|%K|%s|%S|%T|%h|\\n",
    "%o",
    "%R%s",
    "\\t%h\\r\\n",
    "100%% %%s \\q\\\\ \\x41\\x7e \\65\\101\\012%o;",
    "%s%s%k%k%o%o",
    "é %t ü\\n",
    "only text",
    "\\%p%%",
];

/// Compares with kcat on a cluster that has the topic.
async fn compare_with_kcat(bootstrap: &str) {
    write(bootstrap, odd_records()).await;
    for format in FORMATS {
        let mut kcat = Command::new("kcat");
        kcat.args([
            "-C",
            "-b",
            bootstrap,
            "-t",
            TOPIC,
            "-p",
            "0",
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            format,
        ]);
        kcat.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let theirs = ended(kcat).await;
        assert!(theirs.status.success(), "{format}: {}", String::from_utf8_lossy(&theirs.stderr));
        let ours = printed(bootstrap, &["-p", "0", "-o", "beginning", "-e", "-f", format]).await;
        assert!(!ours.is_empty());
        assert!(
            ours == theirs.stdout,
            "{format}:\n{}\n--- kcat:\n{}",
            ours[..ours.len().min(2000)].escape_ascii(),
            theirs.stdout[..theirs.stdout.len().min(2000)].escape_ascii()
        );
    }
    let places: &[&[&str]] = &[
        &["-o", "-3"],
        &["-o", "-300"],
        &["-o", "4"],
        &["-o", "0", "-c", "2"],
        &["-o", "end"],
        &["-o", "-0"],
        &[],
    ];
    for place in places {
        let mut kcat = Command::new("kcat");
        kcat.args(["-C", "-b", bootstrap, "-t", TOPIC, "-p", "0", "-e", "-q"]).args(*place);
        if place.is_empty() {
            // Its own default is the beginning.
            kcat.args(["-o", "end"]);
        }
        kcat.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let theirs = ended(kcat).await;
        let ours = printed(bootstrap, &[&["-p", "0", "-e"], *place].concat()).await;
        assert!(ours == theirs.stdout, "{place:?}: {}", ours[..ours.len().min(500)].escape_ascii());
    }
}

fn kcat_is_here() -> bool {
    let here = find_program("kcat").is_some();
    if !here {
        skipped("kcat", "it is not installed (Debian: apt-get install kcat)");
    }
    here
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_is_what_kcat_prints_byte_by_byte() {
    if kcat_is_here() {
        let cluster = cluster(1).await;
        compare_with_kcat(&cluster.bootstrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_apache_kafka_too_what_is_printed_is_what_kcat_prints() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Apache Kafka", &reason);
    }
    if !kcat_is_here() {
        return;
    }
    let started = tokio::task::spawn_blocking(|| ApacheKafka::start(1)).await.expect("no panic");
    let kafka = started.expect("Apache Kafka starts");
    let client = Client::builder().bootstrap_servers(kafka.bootstrap()).build().expect("a client");
    let topic = klamm::NewTopic::new(TOPIC).partitions(1).replicas(1).config("retention.ms", "-1");
    client.admin().create_topics([topic]).await.expect("an answer").all().expect("it is created");
    compare_with_kcat(kafka.bootstrap()).await;
    let group = ["-g", "readers", "-o", "beginning", "-e", "-f", "%o "];
    assert_eq!(printed(kafka.bootstrap(), &group).await, b"0 1 2 3 4 5 6 7 8 9 10 ");
    assert_eq!(printed(kafka.bootstrap(), &group).await, b"", "all of it is committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_partitions_are_read_to_their_ends() {
    let cluster = cluster(3).await;
    let bootstrap = cluster.bootstrap();
    for partition in 0..3 {
        write_numbers(&bootstrap, partition, 0..2_000).await;
    }
    let printed = printed(&bootstrap, &["-o", "beginning", "-e", "-f", "%p %s\\n"]).await;
    let printed = String::from_utf8(printed).expect("text");
    for partition in 0..3 {
        let start = format!("{partition} ");
        let numbers: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix(&start)).collect();
        assert_eq!(numbers, (0..2_000).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    let last = self::printed(&bootstrap, &["-o", "-2", "-e"]).await;
    assert_eq!(last.iter().filter(|byte| **byte == b'\n').count(), 6, "two of each partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_at_the_end_and_prints_what_comes_at_once() {
    let cluster = cluster(1).await;
    let bootstrap = cluster.bootstrap();
    write_numbers(&bootstrap, 0, 0..5).await;
    let mut child = start(&bootstrap, &["-c", "2"]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // Written until it has begun: what it prints is one of these.
    let first = loop {
        write_numbers(&bootstrap, 0, 100..101).await;
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(300), lines.next_line()).await {
            break line.expect("text").expect("a line");
        }
    };
    assert_eq!(first, "100", "nothing from before");
    write_numbers(&bootstrap, 0, 100..101).await;
    assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("100"));
    let status = tokio::time::timeout(HANG, child.wait()).await.expect("it ends").expect("a status");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_an_interrupt_ended_it_and_is_left_at_once() {
    let cluster = cluster(2).await;
    let bootstrap = cluster.bootstrap();
    write_numbers(&bootstrap, 0, 0..10).await;
    let client = Client::builder().bootstrap_servers(&bootstrap).build().expect("a client");
    for (name, from) in [("INT", 0), ("TERM", 10)] {
        let mut child = start(&bootstrap, &["-g", "readers", "-o", "beginning"]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for number in from..from + 10 {
            let line = tokio::time::timeout(HANG, lines.next_line()).await.expect("in time");
            assert_eq!(line.expect("text"), Some(number.to_string()));
        }
        signal(child.id().expect("it runs"), name).expect("it runs");
        let status = tokio::time::timeout(HANG, child.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}");
        let group = client.admin().describe_groups(["readers"]).await.expect("an answer").all();
        let group = group.expect("it exists").remove(0);
        assert_eq!((group.state, group.members.len()), (GroupState::Empty, 0), "it has left");
        write_numbers(&bootstrap, 0, from + 10..from + 20).await;
    }
    let rest = printed(&bootstrap, &["-g", "readers", "-e"]).await;
    assert_eq!(String::from_utf8_lossy(&rest).lines().next(), Some("20"));
    let uncommitted = ["-g", "others", "-o", "beginning", "-e", "-X", "enable.auto.commit=false"];
    let first = printed(&bootstrap, &uncommitted).await;
    assert_eq!(printed(&bootstrap, &uncommitted).await, first, "nothing is committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_reading_ends_it_quietly() {
    let cluster = cluster(1).await;
    let bootstrap = cluster.bootstrap();
    write(&bootstrap, (0..200).map(|_| Record::new(TOPIC).value("x".repeat(10_000)))).await;
    let mut child = start(&bootstrap, &["-g", "readers", "-o", "beginning"]);
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 100]).await.expect("it prints");
    drop(stdout);
    let output = tokio::time::timeout(HANG, child.wait_with_output()).await.expect("it ends");
    let output = output.expect("a status");
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    let again = printed(&bootstrap, &["-g", "readers", "-o", "beginning", "-e", "-f", "%o\\n"]).await;
    assert!(again.starts_with(b"0\n"), "what nobody read is not committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_ends_it_while_nobody_reads() {
    let cluster = cluster(1).await;
    let bootstrap = cluster.bootstrap();
    write(&bootstrap, (0..200).map(|_| Record::new(TOPIC).value("x".repeat(10_000)))).await;
    let mut child = start(&bootstrap, &["-o", "beginning"]);
    let mut stdout = child.stdout.take().expect("piped"); // stays open
    stdout.read_exact(&mut [0; 100]).await.expect("it prints");
    let pid = child.id().expect("it runs");
    let status = loop {
        signal(pid, "INT").expect("it runs");
        if let Ok(status) = tokio::time::timeout(Duration::from_millis(200), child.wait()).await {
            break status.expect("a status");
        }
    };
    assert_eq!(status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_before_anybody_is_asked() {
    let all: &[(&[&str], &str)] = &[
        (&["-X", "fetch.min.byte=5"], "unknown setting fetch.min.byte; did you mean fetch.min.bytes?"),
        (&["-X", "isolation.level=x"], "isolation.level=x"),
        (&["-X", "acks=1"], "acks is a setting of producers"),
        (&["-X", "security.protocol=SSL"], "security.protocol is not supported yet"),
        (&["-X", "bootstrap.servers=a:1"], "bootstrap.servers is given by -b"),
        (&["-X", "group.id=g"], "group.id is given by -g"),
        (&["-X", "heartbeat.interval.ms=50000"], "heartbeat.interval.ms=50000"),
        (&["-X", "nothing"], "is not KEY=VALUE"),
        (&["-o", "middle"], "must be beginning, end, an offset, or -N"),
        (&["-g", "g", "-o", "5"], "with -g, -o is beginning or end"),
        (&["-g", "g", "-o", "end", "-X", "auto.offset.reset=latest"], "give one of them"),
        (&["-g", "g", "-p", "0"], "cannot be used with"),
        (&["-c", "0"], "0"),
        (&["-f", "%z"], "%z is not known"),
        (&["-f", "%"], "single %"),
    ];
    for (arguments, expected) in all {
        let (status, out, said) = consume("127.0.0.1:9", &[&["-t", TOPIC], *arguments].concat()).await;
        assert_eq!((status, out), (2, Vec::new()), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let cluster = cluster(2).await;
    let bootstrap = cluster.bootstrap();
    for group in [&[][..], &["-g", "g"]] {
        let (status, _, said) = consume(&bootstrap, &[&["-t", "nowhere"], group].concat()).await;
        assert_eq!((status, said.as_str()), (1, "klamm: topic \"nowhere\" does not exist\n"));
    }
    let (status, _, said) = consume(&bootstrap, &["-t", TOPIC, "-p", "7"]).await;
    assert_eq!((status, said.as_str()), (1, "klamm: topic \"lines\" has no partition 7, only 2\n"));
    let unreachable = ["-t", TOPIC, "-X", "request.timeout.ms=1000", "-X", "default.api.timeout.ms=2000"];
    let (status, _, said) = consume("127.0.0.1:9", &unreachable).await;
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("127.0.0.1:9"), "{said}");
}
