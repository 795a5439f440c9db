//! Reading by group subscribe: `BaseConsumer::poll` on this thread (`mode=consume`), or `StreamConsumer::recv`
//! (`consume-stream`). `fetch.queue.backoff.ms` is 1: with its 1,000 a full queue stops fetching for a second.

use std::time::Duration;

use bench_common::consumed::Reading;
use bench_common::{Error, Job, awaited};
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::{ClientConfig, Message};

pub(crate) fn run(job: &Job, version: String) -> Result<(), Error> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.bootstrap)
        .set("group.id", &job.group)
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "1");
    if job.mode == "consume-stream" {
        let runtime = awaited::runtime(job)?;
        let _guard = runtime.enter();
        let consumer: StreamConsumer = config.create()?;
        let reading = Reading::start(job, version)?;
        consumer.subscribe(&[&job.topic])?;
        return runtime.block_on(stream(&consumer, reading))?.finish();
    }
    let consumer: BaseConsumer = config.create()?;
    let mut reading = Reading::start(job, version)?;
    consumer.subscribe(&[&job.topic])?;
    loop {
        let Some(record) = consumer.poll(Duration::from_secs(1)) else { continue };
        if !reading.see(record?.payload().unwrap_or_default()) {
            return reading.finish();
        }
    }
}

async fn stream(consumer: &StreamConsumer, mut reading: Reading) -> Result<Reading, Error> {
    loop {
        if !reading.see(consumer.recv().await?.payload().unwrap_or_default()) {
            return Ok(reading);
        }
    }
}
