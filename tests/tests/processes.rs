//! `broker-lite node`: what a cluster of processes does as a whole, and what each says when it cannot run.
//!
//! The behaviour suite runs on such a cluster, too (`--backend processes`): what holds while nodes die is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use klamm::{Client, Consumer, NewTopic, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::nodes::{Nodes, Plan};
use klamm_tests::process::ApacheKafka;
use klamm_tests::skipped;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Turns a hang into a failure.
const LIMIT: Duration = Duration::from_secs(60);
/// A dead node is noticed in a second or two.
const QUICK: &[&str] =
    &["broker.heartbeat.interval.ms=200", "broker.session.timeout.ms=1500", "replica.lag.time.max.ms=3000"];

fn client(nodes: &Nodes) -> Client {
    let builder = Client::builder().bootstrap_servers(nodes.bootstrap());
    builder.request_timeout_ms(Duration::from_secs(1)).build().unwrap()
}

async fn blocking<T: Send + 'static>(
    nodes: &Arc<Nodes>,
    work: impl FnOnce(&Nodes) -> T + Send + 'static,
) -> T {
    let nodes = nodes.clone();
    spawn_blocking(move || work(&nodes)).await.unwrap()
}

async fn start(plan: Plan) -> Arc<Nodes> {
    Arc::new(spawn_blocking(|| Nodes::start(plan)).await.unwrap().unwrap())
}

async fn create(nodes: &Nodes, topic: &str, partitions: i32, replicas: i16) {
    let created = NewTopic::new(topic).partitions(partitions).replicas(replicas);
    let created = created.config("min.insync.replicas", "2");
    // Patient: a second attempt, after one that came to its end all the same, would hear that the topic exists.
    let client = Client::builder().bootstrap_servers(nodes.bootstrap()).build().unwrap();
    client.admin().create_topics([created]).await.unwrap().all().unwrap();
}

/// Waits until every partition has a leader and so many replicas in sync.
async fn until_in_sync(nodes: &Nodes, topic: &str, count: usize) {
    let admin = client(nodes).admin();
    let mut last = String::new();
    for _ in 0..LIMIT.as_millis() / LOOK_AGAIN.as_millis() {
        if let Ok(Ok(told)) = admin.describe_topics([topic]).await.map(|told| told.all()) {
            if told[0].partitions.iter().all(|p| p.leader.is_some() && p.isr.len() == count) {
                return;
            }
            last = format!("{told:?}");
        }
        sleep(LOOK_AGAIN).await;
    }
    panic!("{topic} has not {count} replicas in sync: {last}");
}

/// Everything in a partition, in order.
async fn read(nodes: &Nodes, topic: &str, partition: i32) -> Vec<i64> {
    let consumer: Consumer = Consumer::builder().client(&client(nodes)).build().unwrap();
    let place = TopicPartition::new(topic, partition);
    let end = consumer.end_offsets(std::slice::from_ref(&place)).await.unwrap()[&place];
    consumer.assign([(place, StartOffset::Beginning)]);
    let mut values = Vec::new();
    while (values.len() as i64) < end {
        let record =
            tokio::time::timeout(LIMIT, consumer.recv()).await.expect("silent before the end").unwrap();
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap().parse().unwrap());
    }
    values
}

/// Writes 0, 1, 2, … to partition 0 until told to stop; every one must be acknowledged. Returns how many there were.
async fn write_until(nodes: &Nodes, topic: &str, stop: &AtomicBool, acknowledged: &AtomicI64) -> i64 {
    let producer: Producer =
        Producer::builder().client(&client(nodes)).linger_ms(Duration::ZERO).build().unwrap();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let records = (0..20).map(|next| Record::new(topic).partition(0).value((number + next).to_string()));
        let mut open = Vec::new();
        for record in records {
            open.push(producer.send(record).await.unwrap());
        }
        for delivery in open {
            let written = delivery.await.unwrap_or_else(|error| panic!("record {number}: {error}"));
            assert_eq!(written.offset, Some(number));
            number += 1;
        }
        acknowledged.store(number, Ordering::SeqCst);
        sleep(Duration::from_millis(2)).await;
    }
    producer.close(LIMIT).await.unwrap();
    number
}

async fn until_acknowledged(acknowledged: &AtomicI64, count: i64) {
    while acknowledged.load(Ordering::SeqCst) < count {
        sleep(LOOK_AGAIN).await;
    }
}

fn until_logged(nodes: &Nodes, id: i32, part: &str) {
    for _ in 0..LIMIT.as_millis() / LOOK_AGAIN.as_millis() {
        if nodes.log(id).contains(part) {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    panic!("node {id} does not say {part:?}:\n{}", nodes.log(id));
}

/// Runs a node that is to end by itself; gives its status, standard output and the last line of its log.
fn refused(nodes: &Nodes, id: i32, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = nodes.command(id, more).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let status = child.wait().unwrap();
    (status.code(), out, err.lines().last().unwrap_or_default().to_owned())
}

/// Goal: nobody has to make up an id, whichever node comes first, and it stays for good.
#[test]
fn the_first_controller_chooses_the_id_of_the_cluster_and_all_keep_it() {
    let nodes = Nodes::new(Plan { brokers_only: 1, ..Plan::voters(3, QUICK) }).unwrap();
    // A broker that must learn the id from somebody is first of all.
    nodes.launch(4, &[]).unwrap();
    nodes.launch(2, &[]).unwrap();
    until_logged(&nodes, 2, "cannot be reached");
    nodes.start_node(3).unwrap();
    nodes.until_ready(2).unwrap();
    nodes.until_ready(4).unwrap();
    nodes.start_node(1).unwrap();
    let ids: BTreeSet<_> = nodes.ids().map(|id| nodes.meta(id, "cluster.id").unwrap()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let id = ids.first().unwrap();
    assert_eq!(id.len(), 22, "{id}");
    let directories: BTreeSet<_> = nodes.ids().map(|id| nodes.meta(id, "directory.id").unwrap()).collect();
    assert_eq!(directories.len(), 4);
    nodes.ids().for_each(|id| nodes.kill(id).unwrap());
    let (status, out, told) = refused(&nodes, 2, &["--cluster-id", "another"]);
    assert_eq!((status, &*out), (Some(1), ""));
    assert!(told.ends_with(&format!("belongs to cluster {id}, not to another")), "{told}");
    nodes.start_all().unwrap();
    assert_eq!(nodes.meta(3, "cluster.id").as_ref(), Some(id));
}

#[test]
fn a_node_says_in_one_sentence_why_it_does_not_start() {
    let nodes = Nodes::new(Plan { cluster_id: Some("one".into()), ..Plan::voters(3, &[]) }).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("letter.txt"), "dear").unwrap();
    let foreign = foreign.path().to_str().unwrap();
    let other = "1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:3";
    let cases: [(&[&str], &str); 8] = [
        (&["--listen", &taken], &format!("cannot listen on {taken}: ")),
        (&["--data-dir", foreign], "is not empty and has no meta.properties"),
        (&["--voters", other], "node 1 is a voter at 127.0.0.1:1 by --voters, but --controller-listen is "),
        (
            &["--config", "num.partition=1"],
            "unknown setting \"num.partition\"; did you mean \"num.partitions\"?",
        ),
        (&["--config", "node.id=7"], "node.id is set by broker-lite itself"),
        (&["--listen", "0.0.0.0:0"], "say by --advertise HOST:PORT which one others dial"),
        (&["--data-dir", "/dev/null/x"], "cannot create data directory /dev/null/x"),
        (&["--listen", "no.such.host.invalid:0"], "cannot listen on no.such.host.invalid:0"),
    ];
    for (more, part) in cases {
        // The last of two equal options counts.
        let (status, out, told) = refused(&nodes, 1, more);
        assert_eq!((status, &*out), (Some(1), ""), "{more:?}: {told}");
        assert!(told.starts_with("broker-lite: ") && told.contains(part), "{more:?}: {told}");
    }
    // What the command line itself refuses has clap's status.
    for voters in ["1@127.0.0.1:1,2@127.0.0.1:2", "nobody", "1@127.0.0.1:1,1@127.0.0.1:2,3@127.0.0.1:3"] {
        assert_eq!(refused(&nodes, 1, &["--voters", voters]).0, Some(2));
    }
}

#[test]
fn a_data_directory_serves_one_process() {
    let nodes = Nodes::start(Plan::voters(1, &[])).unwrap();
    let (status, out, told) = refused(&nodes, 1, &["--listen", "127.0.0.1:0"]);
    assert_eq!((status, &*out), (Some(1), ""));
    assert!(told.contains("is held by another process"), "{told}");
    nodes.kill(1).unwrap();
    nodes.start_node(1).unwrap();
}

#[test]
fn a_node_of_another_cluster_is_turned_away() {
    let nodes = Nodes::new(Plan { brokers_only: 1, ..Plan::voters(1, &[]) }).unwrap();
    nodes.start_node(1).unwrap();
    let (status, out, told) = refused(&nodes, 2, &["--cluster-id", "another"]);
    assert_eq!((status, &*out), (Some(1), ""), "{told}");
    assert!(told.contains("another") && told.contains(&nodes.meta(1, "cluster.id").unwrap()), "{told}");
}

/// Goal: also one whose directory is empty and who would vote, so that the others refuse whatever it asks.
#[test]
fn a_voter_of_another_cluster_is_turned_away() {
    let nodes = Nodes::new(Plan::voters(3, QUICK)).unwrap();
    nodes.launch(1, &[]).unwrap();
    nodes.launch(3, &[]).unwrap();
    nodes.until_ready(1).unwrap();
    nodes.until_ready(3).unwrap();
    let (status, out, told) = refused(&nodes, 2, &["--cluster-id", "another"]);
    assert_eq!((status, &*out), (Some(1), ""), "{told}");
    assert!(told.contains("another") && told.contains(&nodes.meta(1, "cluster.id").unwrap()), "{told}");
    // Its directory is that cluster's from then on, as one that Kafka has formatted for it.
    assert_eq!(refused(&nodes, 2, &[]), (status, out, told));
    std::fs::remove_dir_all(nodes.data_dir(2)).unwrap();
    nodes.start_node(2).unwrap();
}

#[test]
fn voters_that_cannot_be_reached_are_named_and_waited_for() {
    let nodes = Nodes::new(Plan::voters(3, QUICK)).unwrap();
    nodes.launch(1, &[]).unwrap();
    for other in [2, 3] {
        until_logged(&nodes, 1, &format!("127.0.0.1:{}", nodes.ports(other).controller));
    }
    nodes.start_node(3).unwrap();
    nodes.until_ready(1).unwrap();
}

/// Goal: who restarts one node after the other loses nothing, and no producer notices more than a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_nothing() {
    let nodes = start(Plan::voters(3, QUICK)).await;
    create(&nodes, "t", 1, 3).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let writing = {
        let (nodes, stop, acknowledged) = (nodes.clone(), stop.clone(), acknowledged.clone());
        tokio::spawn(async move { write_until(&nodes, "t", &stop, &acknowledged).await })
    };
    for id in 1..=3 {
        until_acknowledged(&acknowledged, acknowledged.load(Ordering::SeqCst) + 200).await;
        let (status, rest) = blocking(&nodes, move |nodes| nodes.terminate(id).unwrap()).await;
        assert!(status.success(), "node {id}: {status}");
        assert_eq!(rest, "", "one line on standard output");
        blocking(&nodes, move |nodes| nodes.start_node(id).unwrap()).await;
        until_in_sync(&nodes, "t", 3).await;
    }
    until_acknowledged(&acknowledged, acknowledged.load(Ordering::SeqCst) + 200).await;
    stop.store(true, Ordering::SeqCst);
    let written = writing.await.unwrap();
    assert_eq!(read(&nodes, "t", 0).await, (0..written).collect::<Vec<_>>());
}

/// Goal: also if the node was the active controller, and led everything.
#[tokio::test(flavor = "multi_thread")]
async fn every_node_may_be_killed_under_load() {
    let nodes = start(Plan::voters(3, QUICK)).await;
    create(&nodes, "t", 1, 3).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let writing = {
        let (nodes, stop, acknowledged) = (nodes.clone(), stop.clone(), acknowledged.clone());
        tokio::spawn(async move { write_until(&nodes, "t", &stop, &acknowledged).await })
    };
    for id in 1..=3 {
        until_acknowledged(&acknowledged, acknowledged.load(Ordering::SeqCst) + 200).await;
        blocking(&nodes, move |nodes| nodes.kill(id).unwrap()).await;
        until_acknowledged(&acknowledged, acknowledged.load(Ordering::SeqCst) + 200).await;
        blocking(&nodes, move |nodes| nodes.start_node(id).unwrap()).await;
        until_in_sync(&nodes, "t", 3).await;
    }
    stop.store(true, Ordering::SeqCst);
    let written = writing.await.unwrap();
    assert_eq!(read(&nodes, "t", 0).await, (0..written).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_no_voter_joins_later_and_holds_replicas() {
    let nodes = Arc::new(Nodes::new(Plan { brokers_only: 2, ..Plan::voters(1, QUICK) }).unwrap());
    blocking(&nodes, |nodes| nodes.start_node(1).unwrap()).await;
    blocking(&nodes, |nodes| nodes.start_all().unwrap()).await;
    create(&nodes, "t", 3, 3).await;
    until_in_sync(&nodes, "t", 3).await;
    let producer: Producer = Producer::builder().client(&client(&nodes)).build().unwrap();
    for number in 0..30 {
        producer
            .send_and_wait(Record::new("t").partition(number % 3).value(number.to_string()))
            .await
            .unwrap();
    }
    blocking(&nodes, |nodes| nodes.kill(3).unwrap()).await;
    until_in_sync(&nodes, "t", 2).await;
    for partition in 0..3 {
        assert_eq!(read(&nodes, "t", partition).await.len(), 10);
    }
}

/// Goal: a new disk is no reason to lose anything, nor to make anybody else lose anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_its_directory_comes_back_empty_and_catches_up() {
    let nodes = start(Plan::voters(3, QUICK)).await;
    create(&nodes, "t", 2, 3).await;
    let producer: Producer = Producer::builder().client(&client(&nodes)).build().unwrap();
    for number in 0..40 {
        producer
            .send_and_wait(Record::new("t").partition(number % 2).value(number.to_string()))
            .await
            .unwrap();
    }
    blocking(&nodes, |nodes| {
        let cluster = nodes.meta(1, "cluster.id");
        nodes.kill(2).unwrap();
        std::fs::remove_dir_all(nodes.data_dir(2)).unwrap();
        nodes.start_node(2).unwrap();
        assert_eq!(nodes.meta(2, "cluster.id"), cluster, "it has learned the id again");
    })
    .await;
    until_in_sync(&nodes, "t", 3).await;
    // Whoever leads now, what it holds is all there is.
    blocking(&nodes, |nodes| nodes.kill(1).unwrap()).await;
    until_in_sync(&nodes, "t", 2).await;
    for partition in 0..2 {
        let expected: Vec<_> = (0..40).filter(|number| number % 2 == i64::from(partition)).collect();
        assert_eq!(read(&nodes, "t", partition).await, expected);
    }
}

/// Goal: the handshake is Kafka's, and an address that was mixed up is named.
#[test]
fn a_listener_of_apache_kafka_is_known_for_what_it_is() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Apache Kafka", &reason);
    }
    let kafka = ApacheKafka::start(1).unwrap();
    let broker: u16 = kafka.bootstrap().rsplit_once(':').unwrap().1.parse().unwrap();
    for (port, part) in [(broker, "is not a controller's listener"), (broker + 1, "connected peer=")] {
        let nodes = Nodes::new(Plan { voters: 0, brokers_only: 1, ..Plan::default() }).unwrap();
        let mut command = nodes.command(1, &["--voters", &format!("9@127.0.0.1:{port}")]).unwrap();
        let mut child = command.env("RUST_LOG", "debug").stdout(Stdio::null()).spawn().unwrap();
        let found = std::panic::catch_unwind(|| until_logged(&nodes, 1, part));
        child.kill().unwrap();
        child.wait().unwrap();
        found.unwrap();
    }
}
