//! Producers and consumers that follow a topic's growth, and tell the history what they see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use klamm::{
    Client, ClientBuilder, Compression, Consumer, Delivery, OffsetReset, Producer, Record, StartOffset,
    TopicPartition,
};
use klamm_tests::chaos::{SILENCE, read_log};
use klamm_tests::history::{self, History, Log, LogRecord, Op, Partition, ProducerSettings};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Error, System};

pub(crate) const TOPIC: &str = "grow";
/// Records of one producer that may wait for their acknowledgement.
const WINDOW: usize = 100_000;
/// Time between two bursts of a producer.
const BURST: Duration = Duration::from_millis(10);
/// How often a consumer looks for more partitions.
const LOOK: Duration = Duration::from_millis(200);

/// Where each partition's log ends.
type Ends = BTreeMap<i32, i64>;

/// What everybody shares.
pub(crate) struct World {
    seed: u64,
    /// Records in one burst of one producer.
    burst: u32,
    began: Instant,
    pub(crate) history: Mutex<History>,
    /// Partitions that the controller has made.
    pub(crate) partitions: AtomicI32,
    pub(crate) over: AtomicBool,
    pub(crate) retries: AtomicU64,
    sent: AtomicU64,
    pub(crate) read: AtomicU64,
    ends: watch::Sender<Option<Arc<Ends>>>,
}

impl World {
    pub(crate) fn new(seed: u64, rate: u32) -> Self {
        let bursts = Style::ALL.len() as u128 * (1000 / BURST.as_millis());
        Self {
            seed,
            burst: (rate / bursts as u32).max(1),
            began: Instant::now(),
            history: Mutex::new(History::new()),
            partitions: AtomicI32::new(0),
            over: AtomicBool::new(false),
            retries: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            read: AtomicU64::new(0),
            ends: watch::Sender::new(None),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn place(&self, partition: i32) -> Partition {
        self.history.lock().partition(TOPIC, partition)
    }

    pub(crate) fn mark(&self, text: &str) {
        let (at, sent) = (self.now(), self.sent.load(Ordering::Relaxed));
        println!("{:7.1} s {sent:>9} sent  {text}", at.as_secs_f64());
        self.history.lock().mark(at, text);
    }

    /// Lets consumers end when they have read so far.
    pub(crate) fn tell_ends(&self, ends: Ends) {
        self.ends.send_replace(Some(Arc::new(ends)));
    }
}

/// How a producer chooses partitions, and how it packs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    /// Any partition by number, the newest among them.
    Explicit,
    /// By key, in small batches without linger: many requests, several in flight.
    KeyedSmall,
    /// Neither partition nor key, compressed.
    UnkeyedLz4,
}

impl Style {
    pub(crate) const ALL: [Self; 3] = [Self::Explicit, Self::KeyedSmall, Self::UnkeyedLz4];

    fn producer(self, client: &Client) -> Result<Producer, Error> {
        let builder = Producer::builder().client(client);
        Ok(match self {
            Self::Explicit => builder,
            Self::KeyedSmall => builder.batch_size(1000).linger_ms(Duration::ZERO),
            Self::UnkeyedLz4 => {
                builder.compression_type(Compression::Lz4).linger_ms(Duration::from_millis(10))
            }
        }
        .build()?)
    }
}

/// Writes until the run is over, and tells the history of every record.
pub(crate) async fn produce(
    world: Arc<World>,
    client: ClientBuilder,
    number: u64,
    style: Style,
) -> Result<(), Error> {
    let producer = style.producer(&client.build()?)?;
    let me = world.history.lock().producer(&format!("{style:?}"), ProducerSettings::default());
    let (open, settling) = mpsc::channel(WINDOW);
    let settling = tokio::spawn(settle(world.clone(), me, settling));
    let mut chance = fastrand::Rng::with_seed(world.seed ^ (number << 32));
    let mut tick = interval(BURST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !world.over.load(Ordering::SeqCst) {
        tick.tick().await;
        for _ in 0..world.burst {
            let partition = chance.i32(0..world.partitions.load(Ordering::SeqCst).max(1));
            let partition = matches!(style, Style::Explicit).then_some(partition);
            let place = partition.map(|partition| world.place(partition));
            let op = world.history.lock().invoke(world.now(), me, place);
            let mut value = op.value().to_vec();
            value.resize(value.len() + chance.usize(20..200), chance.u8(b'a'..=b'z'));
            let mut record = Record::new(TOPIC).value(value);
            record = partition.into_iter().fold(record, Record::partition);
            if matches!(style, Style::KeyedSmall) {
                record = record.key(format!("key {}", chance.u32(0..1000)));
            }
            match producer.send(record).await {
                Ok(delivery) => {
                    let place = world.place(delivery.partition());
                    world.history.lock().accepted(world.now(), me, op, place);
                    world.sent.fetch_add(1, Ordering::Relaxed);
                    open.send((op, delivery)).await?;
                }
                Err(error) => {
                    world.history.lock().failed(world.now(), me, op, error.maybe_written());
                    println!("{:7.1} s  {op} refused: {error}", world.now().as_secs_f64());
                }
            }
        }
    }
    drop(open);
    producer.flush().await?;
    settling.await?;
    world.retries.fetch_add(producer.retries(), Ordering::SeqCst);
    producer.close(SILENCE).await?;
    Ok(())
}

/// Waits for one delivery after the other.
async fn settle(world: Arc<World>, me: history::Client, mut open: mpsc::Receiver<(Op, Delivery)>) {
    while let Some((op, delivery)) = open.recv().await {
        match delivery.await {
            Ok(written) => {
                let place = world.place(written.partition);
                world.history.lock().acked(world.now(), me, op, place, written.offset);
            }
            Err(error) => {
                world.history.lock().failed(world.now(), me, op, error.maybe_written());
                println!("{:7.1} s  {op} failed: {error}", world.now().as_secs_f64());
            }
        }
    }
}

/// Reads every partition from its beginning, new ones as they come, until it has read what is told to be all.
pub(crate) async fn consume(world: Arc<World>, client: ClientBuilder, number: u64) -> Result<(), Error> {
    let consumer: Consumer =
        Consumer::builder().client(&client.build()?).auto_offset_reset(OffsetReset::None).build()?;
    let me = world.history.lock().consumer(&format!("consumer-{number}"), None);
    let mut ends = world.ends.subscribe();
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut look = interval(LOOK);
    let mut heard = Instant::now();
    loop {
        let all = ends.borrow_and_update().clone();
        let read_all = |all: &Arc<Ends>| all.iter().all(|(partition, end)| next.get(partition) >= Some(end));
        if all.as_ref().is_some_and(read_all) {
            break;
        }
        if all.is_some() && heard.elapsed() > SILENCE {
            return Err(format!(
                "consumer-{number} falls silent; it has read {next:?}, the ends are {all:?}"
            )
            .into());
        }
        tokio::select! {
            biased;
            _ = ends.changed() => heard = Instant::now(),
            _ = look.tick() => {
                let known = world.partitions.load(Ordering::SeqCst);
                if known as usize > next.len() {
                    for partition in 0..known {
                        if let std::collections::btree_map::Entry::Vacant(new) = next.entry(partition) {
                            new.insert(0);
                            let place = world.place(partition);
                            world.history.lock().assigned(world.now(), me, place, Some(0), None);
                        }
                    }
                    let here = |(partition, offset): (&i32, &i64)| {
                        (TopicPartition::new(TOPIC, *partition), StartOffset::Offset(*offset))
                    };
                    consumer.assign(next.iter().map(here));
                }
            }
            record = consumer.recv() => {
                let record = record.map_err(|error| format!("consumer-{number}: {error}"))?;
                let op = record.value.as_deref().map_or(Op::ALIEN, Op::of_value);
                let place = world.place(record.partition);
                let mut history = world.history.lock();
                history.read(world.now(), me, place, record.offset, op, record.leader_epoch);
                next.insert(record.partition, record.offset + 1);
                world.read.fetch_add(1, Ordering::Relaxed);
                heard = Instant::now();
            }
        }
    }
    consumer.close().await?;
    Ok(())
}

/// Reads every partition to its end, and tells the history; where replicas can be seen, of each of them.
pub(crate) async fn read_logs(world: &World, system: &System) -> Result<Ends, Error> {
    let mut ends = Ends::new();
    for partition in 0..world.partitions.load(Ordering::SeqCst) {
        let log = read_log(&system.client().build()?, TOPIC, partition).await?;
        ends.insert(partition, log.end);
        let place = world.place(partition);
        let mut history = world.history.lock();
        for broker in system.cluster().map(broker_lite::Cluster::broker_ids).unwrap_or_default() {
            let held = system.cluster().and_then(|cluster| cluster.log(broker, TOPIC, partition));
            let in_sync = |cluster: &broker_lite::Cluster| cluster.isr_of(TOPIC, partition).contains(&broker);
            if let Some(held) = held.filter(|_| system.cluster().is_some_and(in_sync)) {
                let record = |record: &broker_lite::LoggedRecord| LogRecord {
                    offset: record.offset,
                    op: record.value.as_deref().map_or(Op::ALIEN, Op::of_value),
                    leader_epoch: record.leader_epoch,
                };
                let records: Vec<_> = held.iter().map(record).collect();
                history.replica_log(place, broker, Log { start: 0, end: log.end, records });
            }
        }
        history.final_log(place, log);
    }
    Ok(ends)
}
