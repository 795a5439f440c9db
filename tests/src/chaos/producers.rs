//! Idempotent producers that write until the run is over, each in its own style.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm::{Compression, Delivery, Producer, Record, RecordMetadata, SendError};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{Error, Run, SILENCE};
use crate::backend::Backend;
use crate::history::{Client, Op, ProducerSettings};

/// Records of one producer that may wait for their acknowledgement.
const WINDOW: usize = 100_000;
/// Time between two bursts of a producer.
const BURST: Duration = Duration::from_millis(10);
/// What cannot be delivered in this time fails; longer than any outage.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);
/// Failed records whose reasons are printed; all are counted.
const FAILURES_TOLD: u64 = 20;

/// Records in one burst of one of all producers, which together write so many in a second.
pub(super) fn burst(rate: u32) -> u32 {
    let bursts = Style::ALL.len() as u128 * (1000 / BURST.as_millis());
    (rate / bursts as u32).max(1)
}

/// How a producer chooses partitions, and how it packs.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    /// Partitions in turn.
    Explicit,
    /// By key, in small batches without linger: many requests, several in flight.
    KeyedSmall,
    /// By key, compressed.
    KeyedLz4,
    /// Neither partition nor key, compressed.
    UnkeyedZstd,
}

impl Style {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Explicit, Self::KeyedSmall, Self::KeyedLz4, Self::UnkeyedZstd];

    fn producer(self, backend: &Backend) -> Result<Producer, Error> {
        let client = backend.impatient_client()?;
        let builder = Producer::builder().client(&client).delivery_timeout_ms(DELIVERY_LIMIT);
        Ok(match self {
            Self::Explicit => builder,
            Self::KeyedSmall => builder.batch_size(1000).linger_ms(Duration::ZERO),
            Self::KeyedLz4 => builder.compression_type(Compression::Lz4),
            Self::UnkeyedZstd => {
                builder.compression_type(Compression::Zstd).linger_ms(Duration::from_millis(20))
            }
        }
        .build()?)
    }

    /// Partition and key of the next record.
    fn target(
        self,
        number: u32,
        partitions: u32,
        chance: &mut fastrand::Rng,
    ) -> (Option<i32>, Option<String>) {
        match self {
            Self::Explicit => (Some((number % partitions) as i32), None),
            Self::KeyedSmall | Self::KeyedLz4 => (None, Some(format!("key {}", chance.u32(0..1000)))),
            Self::UnkeyedZstd => (None, None),
        }
    }
}

/// Writes until the run is over, and tells the history of every record.
///
/// # Errors
///
/// There is no producer, or it cannot be flushed and closed.
pub async fn produce(run: Arc<Run>, backend: Arc<Backend>, number: u64, style: Style) -> Result<(), Error> {
    let producer = style.producer(&backend)?;
    let me = run.history.lock().producer(&format!("{style:?}"), ProducerSettings::default());
    let (open, settling) = mpsc::channel(WINDOW);
    let settling = tokio::spawn(settle(run.clone(), me, settling));
    let mut chance = fastrand::Rng::with_seed(run.seed ^ (number << 32));
    let mut tick = interval(BURST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0;
    while !run.over.load(Ordering::SeqCst) {
        tick.tick().await;
        for _ in 0..run.burst {
            let (partition, key) = style.target(sent, run.partitions.len() as u32, &mut chance);
            sent += 1;
            let place = partition.map(|partition| run.place(partition));
            let op = run.history.lock().invoke(run.now(), me, place);
            let mut value = op.value().to_vec();
            value.resize(value.len() + chance.usize(20..200), b'a' + (sent % 26) as u8);
            let mut record = Record::new(run.topic.clone()).value(value);
            record = partition.into_iter().fold(record, Record::partition);
            record = key.into_iter().fold(record, Record::key);
            match producer.send(record).await {
                Ok(delivery) => {
                    let place = run.place(delivery.partition());
                    run.history.lock().accepted(run.now(), me, op, place);
                    open.send((op, delivery)).await?;
                }
                Err(error) => run.history.lock().failed(run.now(), me, op, error.maybe_written()),
            }
        }
    }
    drop(open);
    producer.flush().await?;
    settling.await?;
    run.retries.fetch_add(producer.retries(), Ordering::SeqCst);
    producer.close(SILENCE).await?;
    Ok(())
}

/// Waits for one delivery after the other.
async fn settle(run: Arc<Run>, me: Client, mut open: mpsc::Receiver<(Op, Delivery)>) {
    while let Some((op, delivery)) = open.recv().await {
        let outcome: Result<RecordMetadata, SendError> = delivery.await;
        let mut history = run.history.lock();
        match outcome {
            Ok(written) => history.acked(run.now(), me, op, run.place(written.partition), written.offset),
            Err(error) => {
                history.failed(run.now(), me, op, error.maybe_written());
                drop(history);
                if run.failures.fetch_add(1, Ordering::SeqCst) < FAILURES_TOLD {
                    println!("{:7.1} s  {op} failed: {error}", run.now().as_secs_f64());
                }
            }
        }
    }
}
