//! klamm: `send`, every delivery awaited in order; `recv` in a group, or whole batches.

mod reading;

use std::time::Duration;

use bench_common::awaited::{self, Producer as _};
use bench_common::{Error, Job, Pace, Stopwatch, Tally, WARM_UP, consumed, locked_version};
use bytes::Bytes;
use klamm::{Delivery, Producer, Record};

struct Klamm<'a> {
    job: &'a Job,
    producer: Producer,
    values: Vec<Bytes>,
}

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    let version = locked_version(include_str!("../../../Cargo.lock"), "klamm");
    let runtime = awaited::runtime(&job)?;
    if job.mode.starts_with("consume") {
        let _guard = runtime.enter();
        return reading::run(&job, version, &runtime);
    }
    let klamm = {
        let _guard = runtime.enter();
        let properties = [
            ("bootstrap.servers", job.bootstrap.clone()),
            ("acks", "all".into()),
            ("enable.idempotence", "true".into()),
            ("linger.ms", job.linger.as_millis().to_string()),
            ("batch.size", job.batch_size.to_string()),
            ("compression.type", job.compression.clone()),
        ];
        let producer = Producer::from_properties(properties)?.build()?;
        Klamm { job: &job, producer, values: job.values.iter().cloned().map(Bytes::from).collect() }
    };
    if job.mode == "idle" {
        idle(&runtime, &klamm, version)?;
    } else if job.mode == "stamped" {
        stamped(&runtime, &klamm, version)?;
    } else {
        awaited::run(&job, version, &runtime, &klamm)?;
    }
    Ok(runtime.block_on(klamm.producer.close(Duration::from_secs(30)))?)
}

/// Ten seconds of a producer that has nothing to do but knows its topic.
fn idle(runtime: &tokio::runtime::Runtime, klamm: &Klamm<'_>, version: String) -> Result<(), Error> {
    for i in 0..WARM_UP {
        let delivery = runtime.block_on(klamm.send(i))?;
        runtime.block_on(Klamm::settle(delivery))?;
    }
    let watch = Stopwatch::start(version)?;
    std::thread::sleep(Duration::from_secs(10));
    watch.finish(0, Tally::default())
}

/// Sends at an even rate, each value with the time in it.
fn stamped(runtime: &tokio::runtime::Runtime, klamm: &Klamm<'_>, version: String) -> Result<(), Error> {
    let watch = Stopwatch::start(version)?;
    let mut pace = Pace::new(klamm.job.rate.unwrap_or(1));
    for i in 0..klamm.job.records {
        pace.wait();
        let mut value = klamm.job.value(i).to_vec();
        consumed::stamp(&mut value);
        let record = Record::new(klamm.job.topic.clone()).value(Bytes::from(value));
        drop(runtime.block_on(klamm.producer.send(record))?); // awaited by the flush
    }
    runtime.block_on(klamm.producer.flush())?;
    watch.finish(klamm.job.records, Tally::default())
}

impl awaited::Producer for Klamm<'_> {
    type Delivery = Delivery;

    async fn send(&self, i: usize) -> Result<Delivery, Error> {
        let value = self.values[i % self.values.len()].clone();
        Ok(self.producer.send(Record::new(self.job.topic.clone()).value(value)).await?)
    }

    async fn settle(delivery: Delivery) -> Result<(), String> {
        delivery.await.map(drop).map_err(|error| error.to_string())
    }
}
