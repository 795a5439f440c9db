//! Brokers leave for good and new ones take their places, while klamm's producers write: nothing is lost, doubled or
//! out of order, as the history and the logs of all replicas say.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_lite::sim;
use broker_lite::{Cluster, ClusterBuilder, ClusterError};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use klamm::{Admin, Client, Election, NewTopic, Producer, Reassignment, Record, RecordMetadata, SendError};
use klamm_tests::history::{History, Log, LogRecord, Op, Partition, ProducerSettings, Promises, check};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 12;
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

struct World {
    began: Instant,
    history: Mutex<History>,
    partitions: Vec<Partition>,
    over: AtomicBool,
}

impl World {
    fn new() -> Arc<Self> {
        let mut history = History::new();
        let partitions = (0..PARTITIONS).map(|index| history.partition(TOPIC, index)).collect();
        let (history, over) = (Mutex::new(history), AtomicBool::new(false));
        Arc::new(Self { began: Instant::now(), history, partitions, over })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn mark(&self, text: &str) {
        self.history.lock().mark(self.now(), text);
    }

    fn place(&self, partition: i32) -> Partition {
        self.partitions[partition as usize]
    }
}

/// Writes into one partition after the other, five requests in flight, until it is over. Gives how many records were
/// acknowledged: all of them.
async fn write(world: Arc<World>, client: Client, name: &'static str) -> u64 {
    let producer: Producer = Producer::builder().client(&client).reliable().build().expect("a producer");
    let me = world.history.lock().producer(name, ProducerSettings::default());
    let tell = |(op, partition, told): (Op, i32, Result<RecordMetadata, SendError>)| {
        let written = told.unwrap_or_else(|error| panic!("{name}: {error}"));
        world.history.lock().acked(world.now(), me, op, world.place(partition), written.offset);
    };
    let (mut waiting, mut sent) = (FuturesUnordered::new(), 0);
    while !world.over.load(Ordering::SeqCst) {
        let partition = (sent % PARTITIONS as u64) as i32;
        let op = world.history.lock().invoke(world.now(), me, Some(world.place(partition)));
        let record = Record::new(TOPIC).partition(partition).value(op.value().to_vec());
        let delivery = producer.send(record).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        world.history.lock().accepted(world.now(), me, op, world.place(partition));
        waiting.push(async move { (op, partition, delivery.await) });
        sent += 1;
        sleep(Duration::from_millis(1)).await;
        while let Some(Some(told)) = waiting.next().now_or_never() {
            tell(told);
        }
    }
    while let Some(told) = waiting.next().await {
        tell(told);
    }
    producer.close(Duration::from_secs(30)).await.expect("everything is acknowledged");
    sent
}

async fn replicas(admin: &Admin) -> Vec<Vec<i32>> {
    let described =
        admin.describe_topics([TOPIC]).await.expect("an answer").all().expect("the topic is there");
    described[0].partitions.iter().map(|partition| partition.replicas.clone()).collect()
}

async fn registered(admin: &Admin) -> Vec<i32> {
    let cluster = admin.describe_cluster_with_fenced().await.expect("an answer");
    cluster.brokers.iter().map(|broker| broker.id).collect()
}

/// Drains a broker, stops it, unregisters it, takes it away; then one comes with an empty disk, gets every second
/// partition, and leads it.
async fn renew(cluster: &Cluster, admin: &Admin, world: &World, leaving: i32) -> i32 {
    world.mark(&format!("broker {leaving} is drained"));
    let refused = cluster.remove_broker(leaving).await.expect_err("it holds replicas");
    assert!(matches!(refused, ClusterError::NotDrained { .. }), "{refused}");
    let drain = admin.drain(leaving).at_once(4).poll_interval(LOOK);
    let drained = drain.run(|_| ControlFlow::Continue(())).await.expect("there is room");
    assert!(drained.moved > 0);
    assert!(replicas(admin).await.iter().all(|on| on.len() == 3 && !on.contains(&leaving)));
    cluster.shutdown_broker(leaving).await.expect("it stops");
    admin.unregister_broker(leaving).await.expect("it is unregistered");
    while registered(admin).await.contains(&leaving) {
        sleep(LOOK).await;
    }
    cluster.remove_broker(leaving).await.expect("it is drained");

    let new = cluster.add_broker().await.expect("there is room for it");
    world.mark(&format!("broker {new} has come"));
    while !registered(admin).await.contains(&new) {
        sleep(LOOK).await;
    }
    let moves = (0..).zip(replicas(admin).await).filter(|(partition, _)| partition % 2 == 0);
    let moves = moves.map(|(partition, on)| Reassignment::to((TOPIC, partition), [new, on[0], on[1]]));
    admin.reassign_partitions(moves).await.expect("an answer").all().expect("they may move");
    while !admin.list_reassignments().await.expect("an answer").is_empty() {
        sleep(LOOK).await;
    }
    admin.elect_all_leaders(Election::Preferred).await.expect("an answer").all().expect("all are in sync");
    assert_eq!(cluster.leader_of(TOPIC, 0), Some(new));
    new
}

fn log(cluster: &Cluster, broker: i32, partition: i32) -> Log {
    let records = cluster.log(broker, TOPIC, partition).unwrap_or_default();
    let records: Vec<_> = (records.iter())
        .map(|record| LogRecord {
            offset: record.offset,
            op: record.value.as_deref().map_or(Op::ALIEN, Op::of_value),
            leader_epoch: record.leader_epoch,
        })
        .collect();
    Log { start: 0, end: records.last().map_or(0, |record| record.offset + 1), records }
}

/// Waits until all replicas have everything, and holds what was seen against what they hold.
async fn judge(cluster: &Cluster, admin: &Admin, world: &World) {
    let placed = replicas(admin).await;
    for (partition, on) in (0..).zip(&placed) {
        cluster.until_isr(TOPIC, partition, |isr| isr.len() == on.len()).await;
        let all = || {
            let end = cluster.log_end_offset(cluster.leader_of(TOPIC, partition)?, TOPIC, partition)?;
            (cluster.high_watermark(TOPIC, partition)? == end).then_some(())
        };
        while all().is_none() {
            sleep(LOOK).await;
        }
        let mut history = world.history.lock();
        for broker in on {
            let log = log(cluster, *broker, partition);
            if cluster.leader_of(TOPIC, partition) == Some(*broker) {
                history.final_log(world.place(partition), log.clone());
            }
            history.replica_log(world.place(partition), *broker, log);
        }
    }
    let report = check(&world.history.lock(), &Promises::default());
    assert!(report.is_ok(), "{report}");
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}

async fn brokers_are_renewed(builder: ClusterBuilder, client: impl Fn(&Cluster) -> Client) {
    let cluster = builder.brokers(4).controllers(3).start().await.expect("the cluster starts");
    let admin = client(&cluster).admin();
    let topic = NewTopic::reliable(TOPIC).partitions(PARTITIONS);
    admin.create_topics([topic]).await.expect("an answer").all().expect("created");
    let world = World::new();
    let writers = ["first", "second"].map(|name| tokio::spawn(write(world.clone(), client(&cluster), name)));
    sleep(Duration::from_millis(300)).await;
    // The second one to leave is the one that has come, and the one after it gets the same id, with another disk.
    let new = renew(&cluster, &admin, &world, 2).await;
    assert_eq!(renew(&cluster, &admin, &world, new).await, new);
    sleep(Duration::from_millis(300)).await;
    world.over.store(true, Ordering::SeqCst);
    for writer in writers {
        let sent = writer.await.expect("every record is acknowledged");
        assert!(sent > 100, "{sent} records are no load");
    }
    judge(&cluster, &admin, &world).await;
}

#[test]
fn brokers_are_renewed_under_load_in_virtual_time() {
    for seed in sim::seeds([7]) {
        sim::run(seed, |sim| {
            brokers_are_renewed(sim.cluster(), |cluster| {
                let builder =
                    Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
                builder.build().expect("a client")
            })
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_renewed_under_load_over_tcp() {
    brokers_are_renewed(Cluster::builder().tcp(true), |cluster| {
        Client::builder().bootstrap_servers(cluster.bootstrap()).build().expect("a client")
    })
    .await;
}
