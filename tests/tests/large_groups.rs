//! A hundred members of one group, cooperatively, in virtual time: whoever comes or goes costs two generations, and what
//! stays where it was is read all the while.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker_lite::sim::{self, Sim};
use broker_lite::{Cluster, Fault, RequestJournal};
use klamm::{ApiKey, AssignmentStrategy, Client, Consumer, OffsetReset, Producer, Record};
use klamm_wire::messages::SyncGroupRequest;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const S: Duration = Duration::from_secs(1);
const MEMBERS: usize = 100;
const PARTITIONS: i32 = 200;
const TOPIC: &str = "t";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Who read how many records of which partition.
type Seen = Arc<Mutex<BTreeMap<i32, Vec<usize>>>>;

struct Member {
    number: usize,
    consumer: Arc<Consumer>,
    reading: JoinHandle<()>,
}

impl Member {
    fn join(cluster: &Cluster, number: usize, seen: &Seen) -> Result<Self> {
        let client = Client::builder()
            .bootstrap_servers(cluster.bootstrap())
            .connector(cluster.handle())
            .client_id(format!("member-{number}"))
            .build()?;
        let consumer: Arc<Consumer> = Arc::new(
            Consumer::builder()
                .client(&client)
                .group_id("g")
                .auto_offset_reset(OffsetReset::Earliest)
                .partition_assignment_strategy([AssignmentStrategy::CooperativeSticky])
                .build()?,
        );
        consumer.subscribe([TOPIC]);
        let (reader, seen) = (consumer.clone(), seen.clone());
        let reading = tokio::spawn(async move {
            while let Ok(record) = reader.recv().await {
                seen.lock().entry(record.partition).or_default().push(number);
            }
        });
        Ok(Self { number, consumer, reading })
    }

    fn owned(&self) -> BTreeSet<i32> {
        self.consumer.assignment().into_iter().map(|name| name.partition).collect()
    }
}

fn is_settled(members: &[Member]) -> bool {
    let owned: Vec<_> = members.iter().map(Member::owned).collect();
    let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
    let (least, most) = (PARTITIONS as usize / members.len(), (PARTITIONS as usize).div_ceil(members.len()));
    owned.iter().map(BTreeSet::len).sum::<usize>() == all.len()
        && all.len() == PARTITIONS as usize
        && owned.iter().all(|each| (least..=most).contains(&each.len()))
}

async fn settled(members: &[Member]) {
    let waited = timeout(120 * S, async {
        while !is_settled(members) {
            sleep(S / 100).await;
        }
    });
    assert!(waited.await.is_ok(), "{} members do not settle within two minutes", members.len());
}

/// Generations that were synced.
fn generations(journal: &RequestJournal) -> BTreeSet<i32> {
    let syncs = journal.of(ApiKey::SyncGroup);
    syncs
        .iter()
        .filter_map(|entry| entry.request::<SyncGroupRequest>())
        .map(|sync| sync.generation_id)
        .collect()
}

/// The group goes over to `after`, begun by `change`; the rebalance is held open, and records that are written
/// meanwhile are read. Returns the generations that it took.
async fn changes(
    cluster: &Cluster,
    producer: &Producer,
    members: &mut Vec<Member>,
    seen: &Seen,
    change: impl AsyncFnOnce(&mut Vec<Member>) -> Result<()>,
) -> Result<BTreeSet<i32>> {
    let journal = cluster.record_requests(100_000);
    let slow = cluster.on(ApiKey::JoinGroup).client("member-7").times(1).then(Fault::Delay(5 * S));
    let before: BTreeMap<_, _> = members.iter().map(|member| (member.number, member.owned())).collect();
    change(members).await?;
    // All are on the way into the next generation but one.
    let begun = timeout(60 * S, async {
        while journal.of(ApiKey::JoinGroup).len() < members.len() - 2 {
            sleep(S / 100).await;
        }
    });
    assert!(begun.await.is_ok(), "the rebalance does not begin");
    slow.hit().await;
    assert!(generations(&journal).is_empty(), "the rebalance is still open");
    seen.lock().clear();
    let asked = Instant::now();
    let kept = |member: &Member| &member.owned() & before.get(&member.number).unwrap_or(&BTreeSet::new());
    let stays: BTreeSet<i32> = members.iter().flat_map(kept).collect();
    assert!(
        stays.len() >= PARTITIONS as usize - 2,
        "cooperatively everybody keeps what it has: {}",
        stays.len()
    );
    for partition in &stays {
        drop(producer.send(Record::new(TOPIC).partition(*partition).value("v")).await?);
    }
    producer.flush().await?;
    let read = timeout(S, async {
        while seen.lock().len() < stays.len() {
            sleep(S / 100).await;
        }
    });
    assert!(
        read.await.is_ok(),
        "{} of {} partitions are read during the rebalance",
        seen.lock().len(),
        stays.len()
    );
    assert!(
        generations(&journal).is_empty(),
        "that was read before anybody had an assignment, in {:?}",
        asked.elapsed()
    );
    settled(members).await;
    assert!(seen.lock().values().all(|readers| readers.len() == 1), "each record once");
    Ok(generations(&journal))
}

async fn come_and_go(sim: Sim) -> Result<()> {
    let cluster = sim.cluster().brokers(3).topic(TOPIC, Some(PARTITIONS), Some(1));
    let cluster = cluster.config("group.initial.rebalance.delay.ms", "1000");
    let cluster = cluster.config("offsets.topic.num.partitions", "1").start().await?;
    let producer: Producer =
        Producer::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let seen = Seen::default();
    let mut members =
        (0..MEMBERS).map(|number| Member::join(&cluster, number, &seen)).collect::<Result<Vec<_>>>()?;
    settled(&members).await;

    let came = changes(&cluster, &producer, &mut members, &seen, async |members| {
        members.push(Member::join(&cluster, MEMBERS, &seen)?);
        Ok(())
    });
    let came = came.await?;
    assert!(came.len() <= 2, "one more member took generations {came:?}");
    let gone = changes(&cluster, &producer, &mut members, &seen, async |members| {
        let member = members.remove(50);
        member.consumer.close().await?;
        member.reading.await?;
        Ok(())
    });
    let gone = gone.await?;
    assert!(gone.len() <= 2, "one member fewer took generations {gone:?}");
    for member in members {
        member.reading.abort();
    }
    Ok(())
}

#[test]
fn a_hundred_members_take_two_generations_and_what_stays_is_read_throughout() {
    sim::run(1, come_and_go).expect("it runs");
}
