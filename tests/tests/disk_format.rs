//! What broker-lite keeps on disk is what Apache Kafka keeps: Kafka's own tool reads ours, Kafka goes on with ours, and we
//! go on with Kafka's.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests report by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_lite::Cluster;
use broker_lite_core::epoch::EpochCache;
use broker_lite_core::log::{Log, LogSettings};
use broker_lite_core::producer_state::ProducerStates;
use broker_lite_core::storage::{Directory, MemoryDirectory};
use bytes::Bytes;
use klamm::{Client, Consumer, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::process::{ApacheKafka, kafka_tool};
use klamm_tests::skipped;

const TOPIC: &str = "t";
const RECORDS: usize = 20_000;
const SOON: Duration = Duration::from_secs(30);

/// Writes so much that the log has more than one segment of 1 MiB.
async fn write(client: &Client) {
    let producer: Producer = Producer::builder().client(client).batch_size(3_000).build().unwrap();
    for index in 0..RECORDS {
        let value = format!("{index:08} {}", "abcdefghij".repeat(8));
        let record = Record::new(TOPIC).partition(0).key(index.to_string()).value(value);
        drop(producer.send(record).await.unwrap()); // flushed below
    }
    producer.flush().await.unwrap();
    producer.close(SOON).await.unwrap();
}

async fn read(client: &Client) -> Vec<Option<Bytes>> {
    let consumer: Consumer = Consumer::builder().client(client).build().unwrap();
    consumer.assign([(TopicPartition::new(TOPIC, 0), StartOffset::Beginning)]);
    let mut values = Vec::new();
    while values.len() < RECORDS {
        let more = consumer.poll(RECORDS, SOON).await.unwrap();
        assert!(!more.is_empty(), "silence after {} records", values.len());
        values.extend(more.into_iter().map(|record| record.value));
    }
    values
}

/// A directory of our own with [`RECORDS`] records in `broker-1/t-0`.
async fn ours() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().brokers(1).data_dir(temp.path()).start().await.unwrap();
    let settings = [("segment.bytes", "1048576"), ("index.interval.bytes", "4096")];
    cluster.create_topic(TOPIC, 1, 1, &settings).await.unwrap();
    let client = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
    write(&client.build().unwrap()).await;
    cluster.shutdown().await;
    temp
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    assert!(!found.is_empty(), "no .{extension} in {}", directory.display());
    found
}

fn dump(files: &[PathBuf], arguments: &[&str]) -> String {
    let files = files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",");
    let all = [&["--files", &files], arguments].concat();
    let output = kafka_tool("org.apache.kafka.tools.DumpLogSegments", &all).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for complaint in ["isvalid: false", "Mismatches", "out of order", "not found", "Exception"] {
        assert!(!text.contains(complaint), "{complaint}: {text}");
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkas_own_tool_reads_what_we_write() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Kafka's Java tools", &reason);
    }
    let temp = ours().await;
    let partition = temp.path().join("broker-1/t-0");
    let logs = files(&partition, "log");
    assert!(logs.len() > 1);
    let text = dump(&logs, &["--print-data-log"]);
    assert_eq!(text.lines().filter(|line| line.starts_with("| offset: ")).count(), RECORDS);
    let indexes = [files(&partition, "index"), files(&partition, "timeindex")].concat();
    let text = dump(&indexes, &["--index-sanity-check"]);
    assert_eq!(text.matches("passed sanity check").count(), indexes.len(), "{text}");
    dump(&indexes, &["--verify-index-only"]);
    let text = dump(&files(&partition, "snapshot"), &[]);
    assert!(
        text.contains("producerId: ") && text.contains(&format!("lastOffset: {}", RECORDS - 1)),
        "{text}"
    );
    let metadata = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path());
    let metadata = metadata.map(|path| path.join("__cluster_metadata-0")).find(|path| path.exists()).unwrap();
    let text = dump(&files(&metadata, "log"), &["--cluster-metadata-decoder"]);
    assert!(text.contains("\"TOPIC_RECORD\"") && text.contains("\"REGISTER_BROKER_RECORD\""), "{text}");
}

fn partition_of(kafka: &Path) -> PathBuf {
    let mut waiting = vec![kafka.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
        {
            if entry.file_name().is_some_and(|name| name == "t-0") {
                return entry;
            }
            waiting.push(entry);
        }
    }
    panic!("no t-0 below {}", kafka.display());
}

/// The files of a partition, in memory.
fn loaded(partition: &Path) -> MemoryDirectory {
    let mut directory = MemoryDirectory::with_derived_files();
    for entry in
        fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        let file = directory.create(entry.file_name().unwrap().to_str().unwrap()).unwrap();
        directory.append(file, &[fs::read(&entry).unwrap().into()]).unwrap();
    }
    directory
}

fn content(directory: &mut MemoryDirectory, path: &Path) -> Bytes {
    broker_lite_core::storage::read_file(directory, path.file_name().unwrap().to_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_goes_on_with_what_the_other_has_written() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Apache Kafka", &reason);
    }
    let settings = ["log.segment.bytes=1048576", "num.partitions=1", "auto.create.topics.enable=true"];
    let kafka =
        tokio::task::spawn_blocking(move || ApacheKafka::start_with(1, &settings)).await.unwrap().unwrap();
    let client = || Client::builder().bootstrap_servers(kafka.bootstrap());
    write(&client().build().unwrap()).await;
    let written = read(&client().build().unwrap()).await;
    kafka.kill(1).unwrap();

    let partition = partition_of(kafka.dir());
    let before = loaded(&partition);
    // Nothing is known of it: every byte is looked through, every index made anew.
    let (log, damage) = Log::open(before, LogSettings::default()).unwrap();
    assert_eq!((damage, log.end_offset()), (None, RECORDS as i64));
    assert_eq!(log.verify(), []);
    let mut ours_of_theirs = log.into_directory();
    let closed = |extension: &str| files(&partition, extension)[0].clone();
    for path in [closed("index"), closed("timeindex")] {
        let theirs = fs::read(&path).unwrap();
        assert!(!theirs.is_empty());
        assert_eq!(content(&mut ours_of_theirs, &path), theirs, "{}", path.display());
    }
    assert!(EpochCache::decode(&fs::read(partition.join("leader-epoch-checkpoint")).unwrap()).is_some());
    for path in files(&partition, "snapshot") {
        assert!(ProducerStates::decode(&fs::read(&path).unwrap()).is_some(), "{}", path.display());
    }

    let temp = ours().await;
    for extension in ["log", "index", "timeindex", "snapshot"] {
        files(&partition, extension).iter().for_each(|path| fs::remove_file(path).unwrap());
        for path in files(&temp.path().join("broker-1/t-0"), extension) {
            fs::copy(&path, partition.join(path.file_name().unwrap())).unwrap();
        }
    }
    kafka.revive(1).unwrap();
    let again = read(&client().build().unwrap()).await;
    assert_eq!(again, written, "the same values, written by broker-lite and read by Kafka");
}
