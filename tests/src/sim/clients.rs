//! Producers and consumers of a run, each a task that tells the history what it sees.

use std::sync::Arc;
use std::time::Duration;

use broker_lite::Cluster;
use broker_lite::sim::Sim;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use klamm::fault::{Fault, FaultLayer, Layer};
use klamm::{
    Acks, ApiKey, Client, Consumer, ConsumerError, OffsetReset, Producer, Record, StartOffset, TopicPartition,
};
use parking_lot::Mutex;

use super::scenario::{Scenario, Workload};
use crate::history::{self, History, Op, Partition, ProducerSettings};

/// The one topic of a run.
pub(super) const TOPIC: &str = "t";

/// A producer that cannot deliver gives up after this time; long after the last fault.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);

/// Pause of a consumer that was told that its position does not exist.
const AGAIN: Duration = Duration::from_millis(50);

/// What all clients of a run share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) sim: Sim,
    pub(super) scenario: Arc<Scenario>,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) partitions: Arc<[Partition]>,
    pub(super) topic: Arc<str>,
}

impl Shared {
    pub(super) fn client(&self, cluster: &Cluster, name: &str) -> Result<Client, String> {
        let builder = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
        builder
            .client_id(name)
            .request_timeout_ms(Duration::from_secs(2))
            .build()
            .map_err(|error| error.to_string())
    }

    /// As [`Self::client`], and brokers ask it for a pause now and then, if the scenario says so.
    pub(super) fn throttled_client(&self, cluster: &Cluster, name: &str) -> Result<Client, String> {
        let pause = self.scenario.producing.as_ref().map_or(0, |producing| producing.throttle_ms);
        if pause == 0 {
            return self.client(cluster, name);
        }
        let layer = FaultLayer::new(self.sim.seed_for(&format!("{name}.faults")));
        let fault = Fault::Throttle(Duration::from_millis(pause));
        layer.handle().on(ApiKey::Produce).probability(0.05).then(fault).keep();
        let builder = Client::builder().bootstrap_servers(cluster.bootstrap());
        builder
            .connector(layer.layer(cluster.handle()))
            .client_id(name)
            .request_timeout_ms(Duration::from_secs(2))
            .build()
            .map_err(|error| error.to_string())
    }

    pub(super) fn place(&self, partition: i32) -> Partition {
        self.partitions[usize::try_from(partition).unwrap_or_default()]
    }

    /// A stream of chance for one client.
    pub(super) fn chance(&self, name: &str) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.sim.seed_for(name))
    }
}

/// What a producer's task has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) operations: u64,
    pub(super) retries: u64,
    /// Records that were not acknowledged.
    pub(super) failed: u64,
}

/// What became of one record.
type Told = (history::Client, Op, i32, Result<klamm::RecordMetadata, klamm::SendError>);

/// One producer after the other, and what is said of each.
pub(super) struct Writer {
    shared: Shared,
    client: Client,
    name: String,
    me: history::Client,
    producer: Producer,
    /// `buffer.memory`
    room: usize,
    chance: fastrand::Rng,
    sent: Sent,
}

impl Writer {
    pub(super) fn start(shared: Shared, client: Client, name: String) -> Result<Self, String> {
        let (me, producer) = Self::producer(&shared, &client, &name)?;
        let chance = shared.chance(&name);
        let room = producer.buffer_available();
        Ok(Self { shared, client, name, me, producer, room, chance, sent: Sent::default() })
    }

    fn producer(shared: &Shared, client: &Client, name: &str) -> Result<(history::Client, Producer), String> {
        let Scenario { workload, linger_ms, producing, .. } = &*shared.scenario;
        let idempotent = *workload != Workload::Plain;
        let settings =
            ProducerSettings { acks: history::Acks::All, idempotent, ordered: true, retries: true };
        let mut builder = Producer::builder()
            .client(client)
            .acks(Acks::All)
            .enable_idempotence(idempotent)
            .max_in_flight_requests_per_connection(if idempotent { 5 } else { 1 })
            .linger_ms(Duration::from_millis(*linger_ms))
            .batch_size(200)
            .delivery_timeout_ms(DELIVERY_LIMIT);
        if let Some(producing) = producing {
            let codec = producing.compression.parse().map_err(|error| format!("{error:?}"))?;
            builder = builder
                .batch_size(producing.batch_bytes)
                .compression_type(codec)
                .delivery_timeout_ms(Duration::from_millis(producing.delivery_ms));
        }
        let producer = builder.build().map_err(|error| error.to_string())?;
        Ok((shared.history.lock().producer(name, settings), producer))
    }

    /// A record for this partition, or wherever the producer finds it belongs.
    fn record(&mut self, op: Op, explicit: i32) -> Record {
        let mut record = Record::new(self.shared.topic.clone());
        let mut value = op.value().to_vec();
        let Some(producing) = &self.shared.scenario.producing else {
            return record.partition(explicit).value(value);
        };
        match self.chance.u8(0..3) {
            0 => record = record.partition(explicit),
            1 => record = record.key(self.chance.u8(0..5).to_string()),
            _ => {}
        }
        let too_large = self.chance.u8(0..50) == 0;
        let most = if too_large { producing.limit_bytes * 2 } else { producing.value_bytes };
        // Half of it noise, so that codecs have something to do and not too much.
        value.extend(
            (0..self.chance.usize(0..=most)).map(|at| if at % 2 == 0 { b'.' } else { self.chance.u8(..) }),
        );
        record.value(value)
    }

    async fn send(&mut self) -> Option<impl Future<Output = Told> + use<>> {
        let shared = self.shared.clone();
        let explicit = self.chance.i32(0..shared.scenario.partitions);
        let known = shared.scenario.producing.is_none().then(|| shared.place(explicit));
        let op = shared.history.lock().invoke(shared.sim.now(), self.me, known);
        self.sent.operations += 1;
        let record = self.record(op, explicit);
        match self.producer.send(record).await {
            Ok(delivery) => {
                let (me, partition) = (self.me, delivery.partition());
                shared.history.lock().accepted(shared.sim.now(), me, op, shared.place(partition));
                Some(async move { (me, op, partition, delivery.await) })
            }
            Err(error) => {
                self.sent.failed += 1;
                shared.history.lock().failed(shared.sim.now(), self.me, op, error.maybe_written());
                None
            }
        }
    }

    fn tell(&mut self, (me, op, partition, outcome): Told) {
        let (at, place) = (self.shared.sim.now(), self.shared.place(partition));
        let mut history = self.shared.history.lock();
        match outcome {
            Ok(written) => history.acked(at, me, op, place, written.offset),
            Err(error) => {
                self.sent.failed += 1;
                history.failed(at, me, op, error.maybe_written());
            }
        }
    }

    /// Sends so many records with pauses between them, waits for what comes of each, and tells the history.
    pub(super) async fn burst(&mut self, records: u32, pause_ms: u64) {
        let mut waiting = FuturesUnordered::new();
        for _ in 0..records {
            waiting.extend(self.send().await);
            tokio::time::sleep(Duration::from_millis(self.chance.u64(0..=pause_ms))).await;
        }
        while let Some(told) = waiting.next().await {
            self.tell(told);
        }
    }

    /// Closes the producer, and gives what was counted.
    pub(super) async fn finish(mut self) -> Result<Sent, String> {
        let (me, last) = (self.name.clone(), self.producer.clone());
        match self.end(last, Duration::from_secs(30)).await? {
            true => Ok(self.sent),
            false => Err(format!("{me}: nothing is left, and the close takes too long")),
        }
    }

    /// A flush, or another producer in the place of this one, which may have too little time to end.
    async fn restart(&mut self) -> Result<(), String> {
        if self.chance.bool() {
            return self.producer.flush().await.map_err(|error| format!("{}: flush: {error}", self.name));
        }
        let (me, producer) = Self::producer(&self.shared, &self.client, &self.name)?;
        self.me = me;
        let old = std::mem::replace(&mut self.producer, producer);
        let limit = Duration::from_millis(self.chance.u64(0..2_000));
        self.end(old, limit).await.map(drop)
    }

    /// Closes a producer, and counts what it holds. `false` if it had too little time.
    async fn end(&mut self, producer: Producer, limit: Duration) -> Result<bool, String> {
        self.sent.retries += producer.retries();
        let ended = producer.clone();
        let closed = producer.close(limit).await;
        let (free, all) = (ended.buffer_available(), self.room);
        match free == all {
            true => Ok(closed.is_ok()),
            false => Err(format!("{}: {free} of {all} B are free after the end", self.name)),
        }
    }
}

/// Sends the scenario's records, waits for all of them, and tells the history of each.
pub(super) async fn produce(shared: Shared, client: Client, name: String) -> Result<Sent, String> {
    let Scenario { records, pause_ms, .. } = *shared.scenario;
    let (burst, restart_every) =
        shared.scenario.producing.as_ref().map_or((1, 0), |p| (p.burst, p.restart_every));
    let mut writer = Writer::start(shared, client, name)?;
    let mut waiting = FuturesUnordered::new();
    let mut left_of_burst = 0;
    for number in 1..=records {
        waiting.extend(writer.send().await);
        if restart_every > 0 && number % restart_every == 0 {
            writer.restart().await?;
        }
        if left_of_burst > 0 {
            left_of_burst -= 1;
            continue;
        }
        left_of_burst = if burst > 1 { writer.chance.u32(0..burst) } else { 0 };
        let pause = tokio::time::sleep(Duration::from_millis(writer.chance.u64(0..=pause_ms)));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                Some(told) = waiting.next() => writer.tell(told),
                () = &mut pause => break,
            }
        }
    }
    while let Some(told) = waiting.next().await {
        writer.tell(told);
    }
    writer.finish().await
}

/// Reads everything from the beginning until `ends` are reached, and tells the history of every record. With the
/// workload [`Workload::Consume`] it seeks, pauses, and is replaced on the way.
pub(super) async fn consume(
    shared: Shared,
    client: Client,
    name: String,
    mut ends: tokio::sync::broadcast::Receiver<Arc<[i64]>>,
) -> Result<u64, String> {
    let restless = shared.scenario.workload == Workload::Consume;
    let mut chance = shared.chance(&name);
    let mut reader = Reader::start(&shared, &client, &name, None)?;
    let (mut read, mut until): (u64, Option<Arc<[i64]>>) = (0, None);
    loop {
        if until.as_ref().is_some_and(|ends| reader.has_reached(ends)) {
            return Ok(read);
        }
        tokio::select! {
            biased;
            told = ends.recv(), if until.is_none() => {
                until = Some(told.map_err(|_| format!("{name}: the run ended early"))?);
            }
            record = reader.consumer.recv() => match record {
                Ok(record) => {
                    reader.tell(&shared, &record);
                    read += 1;
                }
                // A consumer that has just been made knows no leader epoch: a leader that was deposed without
                // hearing of it may tell it so. With another policy than `none` it would jump.
                Err(ConsumerError::OutOfRange { partition, .. }) => {
                    reader.insist(&partition)?;
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(format!("{name}: {error}")),
            }
        }
        // Undisturbed once everything is written, or the end might never be reached.
        if restless && until.is_none() && chance.u8(0..25) == 0 {
            match chance.u8(0..3) {
                0 => reader.seek_somewhere(&shared, &mut chance)?,
                1 => reader.pause_for_a_while(&mut chance).await,
                _ => reader = reader.replaced(&shared, &client, &name)?,
            }
        }
    }
}

/// One consumer and where it is.
struct Reader {
    me: history::Client,
    consumer: Consumer,
    /// Next offset of each partition.
    next: Vec<i64>,
}

impl Reader {
    fn start(shared: &Shared, client: &Client, name: &str, from: Option<Vec<i64>>) -> Result<Self, String> {
        let next = from.unwrap_or_else(|| vec![0; shared.partitions.len()]);
        // One that stays knows the leaders' epochs, and no leader that is deposed can make it jump.
        let policy = match shared.scenario.workload {
            Workload::Consume => OffsetReset::None,
            Workload::Idempotent | Workload::Plain | Workload::Produce | Workload::Groups => {
                OffsetReset::Latest
            }
        };
        let consumer: Consumer = Consumer::builder()
            .client(client)
            .auto_offset_reset(policy)
            .fetch_max_wait_ms(Duration::from_millis(200))
            .build()
            .map_err(|error| error.to_string())?;
        let mut history = shared.history.lock();
        let me = history.consumer(name, None);
        let starts = (0..).zip(&next);
        for (partition, offset) in starts.clone() {
            history.assigned(shared.sim.now(), me, shared.place(partition), Some(*offset), None);
        }
        let starts = starts
            .map(|(partition, offset)| (TopicPartition::new(TOPIC, partition), StartOffset::Offset(*offset)));
        consumer.assign(starts);
        drop(history);
        Ok(Self { me, consumer, next })
    }

    fn has_reached(&self, ends: &[i64]) -> bool {
        self.next.iter().zip(ends).all(|(next, end)| next >= end)
    }

    fn tell(&mut self, shared: &Shared, record: &klamm::ConsumerRecord) {
        let op = record.value.as_deref().map_or(Op::ALIEN, Op::of_value);
        let place = shared.place(record.partition);
        let epoch = record.leader_epoch;
        shared.history.lock().read(shared.sim.now(), self.me, place, record.offset, op, epoch);
        if let Some(next) = self.next.get_mut(usize::try_from(record.partition).unwrap_or_default()) {
            *next = record.offset + 1;
        }
    }

    fn seek_somewhere(&mut self, shared: &Shared, chance: &mut fastrand::Rng) -> Result<(), String> {
        let index = chance.usize(..self.next.len());
        let to = chance.i64(0..=self.next[index]);
        let partition = i32::try_from(index).unwrap_or_default();
        shared.history.lock().seek(shared.sim.now(), self.me, shared.partitions[index], Some(to));
        let place = TopicPartition::new(TOPIC, partition);
        self.consumer.seek(&place, StartOffset::Offset(to)).map_err(|error| error.to_string())?;
        self.next[index] = to;
        Ok(())
    }

    /// Goes on where it was.
    fn insist(&self, partition: &TopicPartition) -> Result<(), String> {
        let next = self.next.get(usize::try_from(partition.partition).unwrap_or_default());
        let to = StartOffset::Offset(next.copied().unwrap_or_default());
        self.consumer.seek(partition, to).map_err(|error| error.to_string())
    }

    async fn pause_for_a_while(&self, chance: &mut fastrand::Rng) {
        let all = self.consumer.assignment();
        self.consumer.pause(&all);
        tokio::time::sleep(Duration::from_millis(chance.u64(1..=300))).await;
        self.consumer.resume(&all);
    }

    /// Another consumer that goes on where this one was; this one is dropped without a word.
    fn replaced(self, shared: &Shared, client: &Client, name: &str) -> Result<Self, String> {
        {
            let mut history = shared.history.lock();
            for place in shared.partitions.iter() {
                history.revoked(shared.sim.now(), self.me, *place);
            }
        }
        let next = self.next.clone();
        drop(self);
        Self::start(shared, client, name, Some(next))
    }
}
