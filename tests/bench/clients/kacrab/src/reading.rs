//! Reading by group subscribe: `poll` and its records.

use std::time::Duration;

use bench_common::consumed::Reading;
use bench_common::{Error, Job};
use kacrab::consumer::Consumer;
use tokio::runtime::Runtime;

pub(crate) fn run(job: &Job, version: String, runtime: &Runtime) -> Result<(), Error> {
    let properties = [
        ("bootstrap.servers", job.bootstrap.as_str()),
        ("group.id", job.group.as_str()),
        ("auto.offset.reset", "earliest"),
    ];
    let mut consumer = runtime.block_on(Consumer::from_map(properties))?;
    let reading = Reading::start(job, version)?;
    consumer.subscribe([job.topic.to_string()])?;
    runtime.block_on(records(&mut consumer, reading))?.finish()?;
    runtime.block_on(consumer.close());
    Ok(())
}

async fn records(consumer: &mut Consumer, mut reading: Reading) -> Result<Reading, Error> {
    loop {
        for record in &consumer.poll(Duration::from_secs(1)).await? {
            if !reading.see(record.value.as_deref().unwrap_or_default()) {
                return Ok(reading);
            }
        }
    }
}
