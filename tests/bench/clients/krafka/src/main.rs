//! krafka: `enqueue`, every handle awaited in order; `poll` or `recv` in a group.

mod reading;

use bench_common::{Error, Job, awaited, locked_version};
use bytes::Bytes;
use krafka::producer::{Acks, DeliveryHandle, Producer};
use krafka::{Compression, Kafka, Record};

struct Krafka<'a> {
    job: &'a Job,
    producer: Producer,
    values: Vec<Bytes>,
}

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    let version = locked_version(include_str!("../../../Cargo.lock"), "krafka");
    let runtime = awaited::runtime(&job)?;
    if job.mode.starts_with("consume") {
        return reading::run(&job, version, &runtime);
    }
    let compression = if job.compression == "lz4" { Compression::Lz4 } else { Compression::None };
    // Five requests in flight are its default.
    let producer = runtime.block_on(async {
        let kafka = Kafka::builder(job.bootstrap.clone()).connect().await?;
        let producer = kafka.producer().acks(Acks::All).idempotent(true).linger(job.linger);
        producer.batch_size(job.batch_size).compression(compression).build().await
    })?;
    let values = job.values.iter().cloned().map(Bytes::from).collect();
    let krafka = Krafka { job: &job, producer, values };
    awaited::run(&job, version, &runtime, &krafka)?;
    Ok(runtime.block_on(krafka.producer.close())?)
}

impl awaited::Producer for Krafka<'_> {
    type Delivery = DeliveryHandle;

    async fn send(&self, i: usize) -> Result<DeliveryHandle, Error> {
        let value = self.values[i % self.values.len()].clone();
        Ok(self.producer.enqueue(Record::new(&*self.job.topic, value)).await?)
    }

    async fn settle(delivery: DeliveryHandle) -> Result<(), String> {
        delivery.await.map(drop).map_err(|error| error.to_string())
    }
}
