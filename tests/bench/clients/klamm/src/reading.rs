//! Reading by group subscribe: records one by one (`mode=consume`), as a stream (`consume-stream`), or batches where they lie
//! (`consume-batches`).

use std::collections::BTreeMap;
use std::pin::pin;

use bench_common::consumed::Reading;
use bench_common::{Error, Job};
use futures::StreamExt;
use klamm::Consumer;
use tokio::runtime::Runtime;

pub(crate) fn run(job: &Job, version: String, runtime: &Runtime) -> Result<(), Error> {
    let properties = [
        ("bootstrap.servers", job.bootstrap.as_str()),
        ("group.id", job.group.as_str()),
        ("auto.offset.reset", "earliest"),
    ];
    let consumer = Consumer::from_properties(properties)?.build()?;
    let reading = Reading::start(job, version)?;
    consumer.subscribe([job.topic.clone()]);
    let reading = runtime.block_on(async {
        match job.mode.as_str() {
            "consume-batches" => batches(&consumer, reading).await,
            "consume-stream" => stream(&consumer, reading).await,
            "consume-size" => size(&consumer, job, reading).await,
            _ => records(&consumer, reading).await,
        }
    })?;
    reading.finish()?;
    Ok(runtime.block_on(consumer.close())?)
}

async fn records(consumer: &Consumer, mut reading: Reading) -> Result<Reading, Error> {
    loop {
        let record = consumer.recv().await?;
        if !reading.see(record.value.as_deref().unwrap_or_default()) {
            return Ok(reading);
        }
    }
}

async fn stream(consumer: &Consumer, mut reading: Reading) -> Result<Reading, Error> {
    let mut records = pin!(consumer.stream());
    while let Some(record) = records.next().await {
        if !reading.see(record?.value.as_deref().unwrap_or_default()) {
            return Ok(reading);
        }
    }
    Err("the stream ended".into())
}

async fn batches(consumer: &Consumer, mut reading: Reading) -> Result<Reading, Error> {
    loop {
        for record in &consumer.recv_batch().await? {
            if !reading.see(record?.value().unwrap_or_default()) {
                return Ok(reading);
            }
        }
    }
}

/// Bytes of the batches that hold the records, told as `bytes`: what a reader needs.
async fn size(consumer: &Consumer, job: &Job, mut reading: Reading) -> Result<Reading, Error> {
    let (mut bytes, mut seen) = (BTreeMap::new(), 0);
    while seen < job.records {
        let batch = consumer.recv_batch().await?;
        *bytes.entry(batch.partition()).or_insert(0) += batch.size_bytes();
        for record in &batch {
            reading.see(record?.value().unwrap_or_default());
            seen += 1;
        }
    }
    println!("bytes={}", bytes.values().sum::<usize>());
    Ok(reading)
}
