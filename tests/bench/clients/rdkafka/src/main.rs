//! rdkafka: delivery callbacks (`mode=callback`), or a future per record (`mode=future`); reading in a group.

mod reading;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bench_common::{Error, Job, Pace, Stopwatch, Tally, WARM_UP, awaited};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext, Message};

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    match job.mode.as_str() {
        "future" => futures(&job),
        mode if mode.starts_with("consume") => reading::run(&job, version()),
        _ => callbacks(&job),
    }
}

fn config(job: &Job) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", job.linger.as_millis().to_string())
        .set("batch.size", job.batch_size.to_string())
        // Its own limits are 10,000 records a batch and 1,000,000 bytes a request.
        .set("batch.num.messages", "1000000")
        .set("message.max.bytes", "1048576")
        .set("compression.type", &job.compression);
    config
}

fn version() -> String {
    format!(
        "{} (librdkafka {})",
        bench_common::locked_version(include_str!("../../../Cargo.lock"), "rdkafka"),
        rdkafka::util::get_rdkafka_version().1
    )
}

/// Counts in the callback; the opaque value is the time of the send in nanoseconds, or 0.
#[derive(Clone)]
struct Counting {
    base: Instant,
    done: Arc<AtomicUsize>,
    tally: Arc<Mutex<Tally>>,
    /// The thread that sends, and at how many records it wants to be woken.
    sender: Thread,
    wanted: Arc<AtomicUsize>,
}

impl Counting {
    fn new() -> Self {
        Self {
            base: Instant::now(),
            done: Arc::default(),
            tally: Arc::default(),
            sender: thread::current(),
            wanted: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    fn await_done(&self, wanted: usize) {
        while self.done.load(Ordering::SeqCst) < wanted {
            self.wanted.store(wanted, Ordering::SeqCst);
            if self.done.load(Ordering::SeqCst) < wanted {
                thread::park();
            }
        }
    }

    fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        if sent != 0 || result.is_err() {
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            if sent != 0 {
                tally.latencies.push(self.base.elapsed() - Duration::from_nanos(sent as u64));
            }
            tally.count(result.as_ref().map(|message| message.offset()).map_err(|(error, _)| error));
        }
        let done = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        if done >= self.wanted.load(Ordering::SeqCst) {
            self.wanted.store(usize::MAX, Ordering::SeqCst);
            self.sender.unpark();
        }
    }
}

/// A thread of the producer's polls and calls back, this one sends: `BaseProducer::poll` with a short limit would spin
/// away the last millisecond of it.
fn callbacks(job: &Job) -> Result<(), Error> {
    let context = Counting::new();
    let producer: ThreadedProducer<_> = config(job).create_with_context(context.clone())?;
    flood_callbacks(job, &producer, &context, WARM_UP)?;
    refuse_failed(&context.take())?;
    let watch = Stopwatch::start(version())?;
    match job.rate {
        None => flood_callbacks(job, &producer, &context, job.records)?,
        Some(rate) => pace_callbacks(job, &producer, &context, rate)?,
    }
    watch.finish(job.records, context.take())
}

fn send(job: &Job, producer: &ThreadedProducer<Counting>, i: usize, opaque: usize) -> Result<(), Error> {
    let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&job.topic, opaque).payload(job.value(i));
    producer.send(record).map_err(|(error, _)| error.into())
}

fn flood_callbacks(
    job: &Job,
    producer: &ThreadedProducer<Counting>,
    context: &Counting,
    records: usize,
) -> Result<(), Error> {
    let before = context.done.load(Ordering::Acquire);
    for i in 0..records {
        // Waits for a tenth of the window at a time: waking up for each record would cost more than the record.
        if i >= job.window && i.is_multiple_of(job.window / 10) {
            context.await_done(before + i - job.window + job.window / 10);
        }
        send(job, producer, i, 0)?;
    }
    context.await_done(before + records);
    Ok(())
}

fn pace_callbacks(
    job: &Job,
    producer: &ThreadedProducer<Counting>,
    context: &Counting,
    rate: usize,
) -> Result<(), Error> {
    let before = context.done.load(Ordering::Acquire);
    let mut pace = Pace::new(rate);
    for i in 0..job.records {
        pace.wait();
        send(job, producer, i, context.base.elapsed().as_nanos() as usize)?;
    }
    context.await_done(before + job.records);
    Ok(())
}

fn refuse_failed(tally: &Tally) -> Result<(), Error> {
    tally.failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
}

/// A future per record, awaited in order.
struct Futures<'a> {
    job: &'a Job,
    producer: FutureProducer,
}

fn futures(job: &Job) -> Result<(), Error> {
    let runtime = awaited::runtime(job)?;
    let producer = Futures { job, producer: config(job).create()? };
    awaited::run(job, version(), &runtime, &producer)?;
    Ok(producer.producer.flush(LIMIT)?)
}

impl awaited::Producer for Futures<'_> {
    type Delivery = DeliveryFuture;

    async fn send(&self, i: usize) -> Result<DeliveryFuture, Error> {
        let record = FutureRecord::<(), [u8]>::to(&self.job.topic).payload(self.job.value(i));
        self.producer.send_result(record).map_err(|(error, _)| error.into())
    }

    async fn settle(delivery: DeliveryFuture) -> Result<(), String> {
        match delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(error.to_string()),
            Err(_) => Err("dropped".into()),
        }
    }
}
