//! Our consumer shares groups with those that others wrote, on broker-lite over TCP and on Apache Kafka; and theirs are alone
//! in a group at broker-lite. `tests/src/members.rs` says who they are.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klamm::{AssignmentStrategy, Client, Consumer, NewTopic, OffsetReset, Producer, Record};
use klamm_tests::members::{Member, Peer};
use klamm_tests::process::{ApacheKafka, BrokerLite};
use klamm_tests::skipped;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

const PARTITIONS: i32 = 12;
/// Only turns a hang into a failure.
const SOON: Duration = Duration::from_secs(240);

/// Who read which record, by its value.
type Read = BTreeMap<String, Vec<String>>;

/// A member of ours that reads all the time.
struct Ours {
    name: String,
    consumer: Arc<Consumer>,
    read: Arc<Mutex<Vec<String>>>,
    reading: JoinHandle<()>,
}

impl Ours {
    fn join(bootstrap: &str, topic: &str, strategy: &str, name: String) -> Self {
        let assignor = match strategy {
            "range" => AssignmentStrategy::Range,
            _ => AssignmentStrategy::CooperativeSticky,
        };
        let builder = Consumer::builder()
            .bootstrap_servers(bootstrap)
            .group_id(topic)
            .auto_offset_reset(OffsetReset::Earliest)
            .heartbeat_interval_ms(Duration::from_millis(300))
            .partition_assignment_strategy([assignor]);
        let consumer: Arc<Consumer> = Arc::new(builder.build().expect("a consumer"));
        consumer.subscribe([topic]);
        let read = Arc::new(Mutex::new(Vec::new()));
        let (reader, noted) = (consumer.clone(), read.clone());
        let reading = tokio::spawn(async move {
            while let Ok(record) = reader.recv().await {
                let value = record.value.expect("a value");
                noted.lock().push(String::from_utf8(value.to_vec()).expect("text"));
            }
        });
        Self { name, consumer, read, reading }
    }

    async fn leave(self) -> Vec<String> {
        self.consumer.close().await.expect("closed");
        self.reading.await.expect("the reader ends");
        self.read.lock().clone()
    }
}

/// A group and what was written for it.
struct Group {
    bootstrap: String,
    /// Also the name of the group.
    topic: String,
    strategy: &'static str,
    producer: Producer,
    ours: Vec<Ours>,
    foreign: Vec<Member>,
    /// What members read that have left, and who.
    left: Vec<(String, String)>,
    /// What else they said.
    said: Vec<String>,
    joined: usize,
    written: usize,
    /// Written while the group was at rest: whoever has the partition reads it, and nobody else does.
    at_rest: BTreeSet<String>,
    settled: usize,
}

impl Group {
    async fn new(bootstrap: &str, topic: &str, strategy: &'static str) -> Self {
        let client = Client::builder().bootstrap_servers(bootstrap).build().expect("a client");
        let topics = [NewTopic::new(topic).partitions(PARTITIONS).replicas(1)];
        client.admin().create_topics(topics).await.expect("answered").all().expect("created");
        Self {
            bootstrap: bootstrap.to_owned(),
            topic: topic.to_owned(),
            strategy,
            producer: Producer::builder().client(&client).build().expect("a producer"),
            ours: Vec::new(),
            foreign: Vec::new(),
            left: Vec::new(),
            said: Vec::new(),
            joined: 0,
            written: 0,
            at_rest: BTreeSet::new(),
            settled: 0,
        }
    }

    fn our_own_joins(&mut self) {
        self.joined += 1;
        let name = format!("ours {}", self.joined);
        self.ours.push(Ours::join(&self.bootstrap, &self.topic, self.strategy, name));
    }

    fn joins(&mut self, peer: Peer) {
        let member = Member::join(peer, &self.bootstrap, &self.topic, &self.topic, self.strategy);
        self.foreign.push(member.expect("it starts"));
    }

    /// Only once the group is at rest: librdkafka that is closed amid a rebalance may be refused its last commit (it says so:
    /// ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID; at Apache Kafka, too), and what it read comes again.
    async fn leaves(&mut self, peer: Peer) {
        self.until("the one before has left", Self::is_settled).await;
        let place = self.foreign.iter().position(|member| member.peer() == peer).expect("it is a member");
        let member = self.foreign.remove(place);
        let left = tokio::task::spawn_blocking(move || member.leave()).await.expect("no panic");
        let said = left.expect("it leaves");
        self.said.extend(said.other.into_iter().map(|line| format!("{}: {line}", peer.name())));
        self.left.extend(said.read.into_iter().map(|(_, _, value)| (peer.name().to_owned(), value)));
    }

    async fn one_of_ours_leaves(&mut self) {
        let ours = self.ours.pop().expect("there is one");
        let name = ours.name.clone();
        self.left.extend(ours.leave().await.into_iter().map(|value| (name.clone(), value)));
    }

    /// Two records for each partition.
    async fn write(&mut self) -> Vec<String> {
        let values: Vec<_> = (0..2 * PARTITIONS).map(|number| format!("{}-{number}", self.written)).collect();
        for (value, number) in values.iter().zip(0..) {
            let record = Record::new(self.topic.as_str()).partition(number % PARTITIONS).value(value.clone());
            drop(self.producer.send(record).await.expect("taken"));
        }
        self.producer.flush().await.expect("written");
        self.written += 1;
        values
    }

    /// What each member owns.
    fn owned(&self) -> Vec<BTreeSet<i32>> {
        let ours = self.ours.iter().map(|ours| {
            ours.consumer.assignment().into_iter().map(|name| name.partition).collect::<BTreeSet<_>>()
        });
        ours.chain(self.foreign.iter().map(|member| member.said().owned)).collect()
    }

    fn read(&self) -> Read {
        let mut read = Read::new();
        for (reader, value) in &self.left {
            read.entry(value.clone()).or_default().push(reader.clone());
        }
        for member in &self.foreign {
            for (_, _, value) in member.said().read {
                read.entry(value).or_default().push(member.peer().name().to_owned());
            }
        }
        for ours in &self.ours {
            for value in ours.read.lock().iter() {
                read.entry(value.clone()).or_default().push(ours.name.clone());
            }
        }
        read
    }

    /// Each member has its share, and together they have everything once.
    fn is_settled(&self) -> bool {
        let owned = self.owned();
        let (least, most) = (PARTITIONS as usize / owned.len(), (PARTITIONS as usize).div_ceil(owned.len()));
        let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
        owned.iter().map(BTreeSet::len).sum::<usize>() == all.len()
            && all.len() == PARTITIONS as usize
            && owned.iter().all(|each| (least..=most).contains(&each.len()))
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < SOON, "{}: not within {SOON:?}: {what}: {self}", self.topic);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Records that are written while members come and go are read, and those that are written when they have are read once.
    async fn settles(&mut self, what: &str) {
        let unsettled = self.write().await;
        self.until(what, Self::is_settled).await;
        let values = self.write().await;
        let expected: Vec<_> = unsettled.into_iter().chain(values.iter().cloned()).collect();
        self.until("everything is read", |group| {
            let read = group.read();
            expected.iter().all(|value| read.contains_key(value))
        })
        .await;
        self.at_rest.extend(values);
        assert!(self.is_settled(), "{}: {what}: it did not stay so: {self}", self.topic);
        self.settled += 1;
    }

    async fn ends(mut self) {
        while !self.ours.is_empty() {
            self.one_of_ours_leaves().await;
        }
        let read = self.read();
        assert_eq!(read.len(), self.written * 2 * PARTITIONS as usize, "{}: nothing is lost", self.topic);
        let again: Vec<_> = read
            .iter()
            .filter(|(value, readers)| self.at_rest.contains(*value) && readers.len() != 1)
            .collect();
        let said = self.said.join("\n    ");
        assert!(
            again.is_empty(),
            "{}: written at rest, and read more than once: {again:?}; they said:\n    {said}",
            self.topic
        );
        let twice = read.values().filter(|readers| readers.len() > 1).count();
        let said = format!(
            "{}: settled {} times, {} records, {} of them at rest and read once each, {twice} others read again\n",
            self.topic,
            self.settled,
            read.len(),
            self.at_rest.len(),
        );
        // Not `print!`, which the test runner keeps to itself.
        let _ = std::io::stderr().write_all(said.as_bytes());
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let read = self.read();
        writeln!(f, "{} records read of {} written", read.len(), self.written * 2 * PARTITIONS as usize)?;
        for ours in &self.ours {
            writeln!(f, "ours: {:?}", ours.consumer.assignment())?;
        }
        for member in &self.foreign {
            let said = member.said();
            writeln!(f, "{}: {:?}, {} read", member.peer().name(), said.owned, said.read.len())?;
            let from = said.other.len().saturating_sub(20);
            said.other[from..].iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}

/// One member of each and two of ours: they come, some go, some come back, all go.
async fn share(bootstrap: &str, name: &str, strategy: &'static str, peers: &[Peer]) {
    let begun = Instant::now();
    let mut group = Group::new(bootstrap, &format!("{name}-{strategy}"), strategy).await;
    group.our_own_joins();
    group.settles("ours is alone").await;
    peers.iter().filter(|peer| peer.knows(strategy)).for_each(|peer| group.joins(*peer));
    group.our_own_joins();
    group.settles("all are members").await;
    group.leaves(Peer::Confluent).await;
    group.leaves(Peer::Kcat).await;
    group.settles("two have left").await;
    group.joins(Peer::Confluent);
    group.one_of_ours_leaves().await;
    group.settles("one is back, and one of ours has left").await;
    group.one_of_ours_leaves().await;
    group.settles("foreign members are among themselves").await;
    group.our_own_joins();
    group.settles("ours is back").await;
    while let Some(member) = group.foreign.first() {
        group.leaves(member.peer()).await;
    }
    group.settles("ours is alone again").await;
    group.ends().await;
    let _ = writeln!(std::io::stderr(), "{name}-{strategy}: {:.1} s", begun.elapsed().as_secs_f64());
}

/// Whether all peers are here.
fn complete() -> bool {
    let missing = Peer::ALL.into_iter().filter_map(|peer| Some((peer, peer.missing()?))).next();
    if let Some((peer, reason)) = &missing {
        skipped(peer.name(), reason);
    }
    missing.is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_each_shares_a_group_with_ours_on_broker_lite() {
    if !complete() {
        return;
    }
    let cluster = BrokerLite::up(&["--config", "group.initial.rebalance.delay.ms=0"]);
    let cluster = cluster.expect("broker-lite starts");
    for strategy in ["range", "cooperative-sticky"] {
        share(cluster.bootstrap(), "lite", strategy, &Peer::ALL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_each_shares_a_group_with_ours_on_apache_kafka() {
    if !complete() {
        return;
    }
    let cluster = ApacheKafka::start(1).expect("Apache Kafka starts");
    for strategy in ["range", "cooperative-sticky"] {
        share(cluster.bootstrap(), "kafka", strategy, &Peer::ALL).await;
    }
}

/// Foreign members alone: they read, commit when they leave, and go on there.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_consumers_alone_go_on_where_they_committed_on_broker_lite() {
    if !complete() {
        return;
    }
    go_on_alone(&Peer::ALL).await;
}

async fn go_on_alone(peers: &[Peer]) {
    let cluster = BrokerLite::up(&["--config", "group.initial.rebalance.delay.ms=0"]);
    let cluster = cluster.expect("broker-lite starts");
    for &peer in peers {
        for strategy in ["range", "cooperative-sticky"].into_iter().filter(|strategy| peer.knows(strategy)) {
            let name = format!("{}-{strategy}", peer.name());
            let mut group = Group::new(cluster.bootstrap(), &name, strategy).await;
            for _ in 0..2 {
                group.joins(peer);
                group.settles("it is alone").await;
                group.leaves(peer).await;
            }
            assert!(
                group.read().values().all(|readers| readers.len() == 1),
                "{name}: read again what was committed"
            );
            group.ends().await;
        }
    }
}
