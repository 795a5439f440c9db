//! Reading by group subscribe: `poll` (`mode=consume`), or record by record (`consume-recv`).

use std::time::Duration;

use bench_common::consumed::Reading;
use bench_common::{Error, Job};
use krafka::Kafka;
use krafka::consumer::{AutoOffsetReset, Consumer};
use tokio::runtime::Runtime;

pub(crate) fn run(job: &Job, version: String, runtime: &Runtime) -> Result<(), Error> {
    let consumer = runtime.block_on(async {
        let kafka = Kafka::builder(job.bootstrap.clone()).connect().await?;
        kafka.consumer(job.group.clone()).auto_offset_reset(AutoOffsetReset::Earliest).build().await
    })?;
    let reading = Reading::start(job, version)?;
    let reading = runtime.block_on(async {
        consumer.subscribe([&*job.topic]).await?;
        if job.mode == "consume-recv" {
            one_by_one(&consumer, reading).await
        } else {
            polls(&consumer, reading).await
        }
    })?;
    reading.finish()?;
    runtime.block_on(consumer.close())?;
    Ok(())
}

async fn polls(consumer: &Consumer, mut reading: Reading) -> Result<Reading, Error> {
    loop {
        for record in consumer.poll(Duration::from_secs(1)).await? {
            if !reading.see(record.value.as_deref().unwrap_or_default()) {
                return Ok(reading);
            }
        }
    }
}

async fn one_by_one(consumer: &Consumer, mut reading: Reading) -> Result<Reading, Error> {
    while let Some(record) = consumer.recv().await? {
        if !reading.see(record.value.as_deref().unwrap_or_default()) {
            return Ok(reading);
        }
    }
    Err("the consumer was closed".into())
}
