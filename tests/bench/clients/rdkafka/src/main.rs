//! rdkafka: delivery callbacks (`mode=callback`), or a future per record (`mode=future`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bench_common::{Error, Job, Pace, Stopwatch, Tally, WARM_UP};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext, Message};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    match (job.mode.as_str(), job.rate) {
        ("future", _) => futures(&job),
        (_, None) => callbacks(&job),
        (_, Some(rate)) => paced_callbacks(&job, rate),
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
    format!("{} (librdkafka {})", bench_common::locked_version(include_str!("../../../Cargo.lock"), "rdkafka"), rdkafka::util::get_rdkafka_version().1)
}

/// Counts in the callback; the opaque value is the time of the send in nanoseconds, or 0.
#[derive(Clone)]
struct Counting {
    base: Instant,
    done: Arc<AtomicUsize>,
    tally: Arc<Mutex<Tally>>,
}

impl Counting {
    fn new() -> Self {
        Self { base: Instant::now(), done: Arc::default(), tally: Arc::default() }
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
        self.done.fetch_add(1, Ordering::Release);
    }
}

/// The sending thread polls: the callbacks' cheapest way.
fn callbacks(job: &Job) -> Result<(), Error> {
    let context = Counting::new();
    let producer: BaseProducer<_> = config(job).create_with_context(context.clone())?;
    flood_callbacks(job, &producer, &context, WARM_UP)?;
    refuse_failed(&context.take())?;
    let watch = Stopwatch::start(version())?;
    flood_callbacks(job, &producer, &context, job.records)?;
    watch.finish(job.records, context.take())?;
    Ok(producer.flush(LIMIT)?)
}

fn flood_callbacks(
    job: &Job,
    producer: &BaseProducer<Counting>,
    context: &Counting,
    records: usize,
) -> Result<(), Error> {
    let before = context.done.load(Ordering::Acquire);
    let in_flight = |sent: usize| sent - (context.done.load(Ordering::Acquire) - before);
    let poll_to = |sent: usize, limit: usize| {
        while in_flight(sent) >= limit {
            producer.poll(Duration::ZERO); // one event if there is one
            if in_flight(sent) >= limit {
                producer.poll(Duration::from_micros(500)); // this one always takes its time
            }
        }
    };
    for i in 0..records {
        poll_to(i, job.window);
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&job.topic, 0).payload(job.value(i));
        producer.send(record).map_err(|(error, _)| error)?;
    }
    poll_to(records, 1);
    Ok(())
}

/// A thread of the producer's polls; this one sends at an even rate.
fn paced_callbacks(job: &Job, rate: usize) -> Result<(), Error> {
    let context = Counting::new();
    let producer: ThreadedProducer<_> = config(job).create_with_context(context.clone())?;
    let send = |i: usize, opaque: usize| {
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&job.topic, opaque).payload(job.value(i));
        producer.send(record).map_err(|(error, _)| error)
    };
    for i in 0..WARM_UP {
        send(i, 0)?;
    }
    producer.flush(LIMIT)?;
    refuse_failed(&context.take())?;
    let watch = Stopwatch::start(version())?;
    let mut pace = Pace::new(rate);
    for i in 0..job.records {
        pace.wait();
        send(i, context.base.elapsed().as_nanos() as usize)?;
    }
    producer.flush(LIMIT)?;
    watch.finish(job.records, context.take())
}

fn refuse_failed(tally: &Tally) -> Result<(), Error> {
    tally.failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
}

/// A future per record, awaited in order.
fn futures(job: &Job) -> Result<(), Error> {
    let runtime = Builder::new_multi_thread().worker_threads(job.workers).enable_all().build()?;
    let producer: FutureProducer = config(job).create()?;
    refuse_failed(&runtime.block_on(flood_futures(job, &producer, WARM_UP))?)?;
    let watch = Stopwatch::start(version())?;
    let tally = match job.rate {
        None => runtime.block_on(flood_futures(job, &producer, job.records))?,
        Some(rate) => pace_futures(job, &producer, &runtime, rate)?,
    };
    watch.finish(job.records, tally)?;
    Ok(producer.flush(LIMIT)?)
}

fn send_future(job: &Job, producer: &FutureProducer, i: usize) -> Result<DeliveryFuture, Error> {
    let record = FutureRecord::<(), [u8]>::to(&job.topic).payload(job.value(i));
    producer.send_result(record).map_err(|(error, _)| error.into())
}

async fn settle(delivery: DeliveryFuture) -> Result<i64, String> {
    match delivery.await {
        Ok(Ok(delivery)) => Ok(delivery.offset),
        Ok(Err((error, _))) => Err(error.to_string()),
        Err(_) => Err("dropped".into()),
    }
}

async fn flood_futures(job: &Job, producer: &FutureProducer, records: usize) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut window: VecDeque<DeliveryFuture> = VecDeque::with_capacity(job.window);
    for i in 0..records {
        if window.len() == job.window
            && let Some(oldest) = window.pop_front()
        {
            tally.count(settle(oldest).await);
        }
        window.push_back(send_future(job, producer, i)?);
    }
    for delivery in window {
        tally.count(settle(delivery).await);
    }
    Ok(tally)
}

fn pace_futures(job: &Job, producer: &FutureProducer, runtime: &Runtime, rate: usize) -> Result<Tally, Error> {
    let (sent, mut deliveries) = mpsc::unbounded_channel::<(Instant, DeliveryFuture)>();
    let awaiting = runtime.spawn(async move {
        let mut tally = Tally::default();
        while let Some((since, delivery)) = deliveries.recv().await {
            let outcome = settle(delivery).await;
            tally.count_since(since, outcome);
        }
        tally
    });
    let mut pace = Pace::new(rate);
    for i in 0..job.records {
        pace.wait();
        sent.send((Instant::now(), send_future(job, producer, i)?)).map_err(|_| "nobody awaits")?;
    }
    drop(sent);
    Ok(runtime.block_on(awaiting)?)
}
