//! kacrab: `send`, every future awaited in order; `poll` in a group.

mod reading;

use bench_common::{Error, Job, awaited, locked_version};
use bytes::Bytes;
use kacrab::producer::{Producer, ProducerRecord, SendFuture};

struct Kacrab<'a> {
    job: &'a Job,
    producer: Producer,
    values: Vec<Bytes>,
}

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    let version = locked_version(include_str!("../../../Cargo.lock"), "kacrab");
    let runtime = awaited::runtime(&job)?;
    if job.mode == "consume" {
        return reading::run(&job, version, &runtime);
    }
    let producer = Producer::builder()
        .set("bootstrap.servers", job.bootstrap.as_str())
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", job.linger.as_millis().to_string())
        .set("batch.size", job.batch_size.to_string())
        .set("compression.type", job.compression.as_str());
    let producer = runtime.block_on(producer.build())?;
    let values = job.values.iter().cloned().map(Bytes::from).collect();
    let kacrab = Kacrab { job: &job, producer, values };
    awaited::run(&job, version, &runtime, &kacrab)?;
    Ok(runtime.block_on(kacrab.producer.close())?)
}

impl awaited::Producer for Kacrab<'_> {
    type Delivery = SendFuture;

    async fn send(&self, i: usize) -> Result<SendFuture, Error> {
        let value = self.values[i % self.values.len()].clone();
        Ok(self.producer.send(ProducerRecord::topic_value(self.job.topic.clone(), value))?)
    }

    async fn settle(delivery: SendFuture) -> Result<(), String> {
        delivery.await.map(drop).map_err(|error| error.to_string())
    }
}
