//! klamm: `send`, every delivery awaited in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bench_common::{Error, Job, Pace, Stopwatch, Tally, WARM_UP};
use bytes::Bytes;
use klamm::{Delivery, Producer, Record};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

struct Bench {
    job: Job,
    producer: Producer,
    values: Vec<Bytes>,
}

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    let runtime = Builder::new_multi_thread().worker_threads(job.workers).enable_all().build()?;
    let producer = runtime.block_on(async {
        Producer::from_properties([
            ("bootstrap.servers", job.bootstrap.clone()),
            ("acks", "all".into()),
            ("enable.idempotence", "true".into()),
            ("linger.ms", job.linger.as_millis().to_string()),
            ("batch.size", job.batch_size.to_string()),
            ("compression.type", job.compression.clone()),
        ])?
        .build()
    })?;
    let values = job.values.iter().cloned().map(Bytes::from).collect();
    let bench = Bench { job, producer, values };
    let warm = runtime.block_on(bench.flood(WARM_UP))?;
    if let Some(failure) = warm.failure {
        return Err(failure.into());
    }
    let watch = Stopwatch::start(bench_common::locked_version(include_str!("../../../Cargo.lock"), "klamm"))?;
    let tally = match bench.job.rate {
        None if bench.job.mode == "idle" => idle(),
        None => runtime.block_on(bench.flood(bench.job.records))?,
        Some(rate) => bench.pace(&runtime, rate)?,
    };
    watch.finish(bench.job.records, tally)?;
    runtime.block_on(bench.producer.close(Duration::from_secs(30)))?;
    Ok(())
}

/// How long an idle producer is watched.
const IDLE: Duration = Duration::from_secs(10);

fn idle() -> Tally {
    std::thread::sleep(IDLE);
    Tally::default()
}

impl Bench {
    fn record(&self, i: usize) -> Record {
        Record::new(self.job.topic.clone()).value(self.values[i % self.values.len()].clone())
    }

    async fn flood(&self, records: usize) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let mut window: VecDeque<Delivery> = VecDeque::with_capacity(self.job.window);
        for i in 0..records {
            if window.len() == self.job.window
                && let Some(oldest) = window.pop_front()
            {
                tally.count(oldest.await);
            }
            window.push_back(self.producer.send(self.record(i)).await?);
        }
        for delivery in window {
            tally.count(delivery.await);
        }
        Ok(tally)
    }

    /// This thread sends, a task awaits in order.
    fn pace(&self, runtime: &Runtime, rate: usize) -> Result<Tally, Error> {
        let (sent, mut deliveries) = mpsc::unbounded_channel::<(Instant, Delivery)>();
        let awaiting = runtime.spawn(async move {
            let mut tally = Tally::default();
            while let Some((since, delivery)) = deliveries.recv().await {
                let outcome = delivery.await;
                tally.count_since(since, outcome);
            }
            tally
        });
        let mut pace = Pace::new(rate);
        for i in 0..self.job.records {
            pace.wait();
            let since = Instant::now();
            let delivery = runtime.block_on(self.producer.send(self.record(i)))?;
            sent.send((since, delivery)).map_err(|_| "nobody awaits")?;
        }
        drop(sent);
        Ok(runtime.block_on(awaiting)?)
    }
}
