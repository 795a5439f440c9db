//! confluent-kafka (the Rust crate): `send` of byte slices, every future awaited in order; `poll` in a group.

mod reading;

use std::collections::HashMap;

use bench_common::{Error, Job, awaited, locked_version};
use confluent_kafka::common::KafkaFuture;
use confluent_kafka::common::serialization::ByteArraySerializer;
use confluent_kafka::producer::{KafkaProducer, Producer, ProducerConfig, ProducerRecord, RecordMetadata};

struct Confluent<'a> {
    job: &'a Job,
    producer: KafkaProducer<Vec<u8>, Vec<u8>>,
}

fn main() -> Result<(), Error> {
    let job = Job::from_args()?;
    let version = locked_version(include_str!("../../../Cargo.lock"), "confluent-kafka");
    let runtime = awaited::runtime(&job)?;
    if job.mode == "consume" {
        let _guard = runtime.enter();
        return reading::run(&job, version, &runtime);
    }
    let properties = [
        ("bootstrap.servers", job.bootstrap.clone()),
        ("acks", "all".into()),
        ("enable.idempotence", "true".into()),
        ("linger.ms", job.linger.as_millis().to_string()),
        ("batch.size", job.batch_size.to_string()),
        ("compression.type", job.compression.clone()),
    ];
    let properties: HashMap<_, _> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let producer = {
        let _guard = runtime.enter();
        let config = ProducerConfig::new(&properties)?;
        KafkaProducer::new(config, ByteArraySerializer::default(), ByteArraySerializer::default())?
    };
    let confluent = Confluent { job: &job, producer };
    awaited::run(&job, version, &runtime, &confluent)?;
    Ok(runtime.block_on(confluent.producer.close())?)
}

impl awaited::Producer for Confluent<'_> {
    type Delivery = KafkaFuture<RecordMetadata>;

    async fn send(&self, i: usize) -> Result<Self::Delivery, Error> {
        let record = ProducerRecord::new(self.job.topic.to_string(), Some(self.job.value(i)));
        Ok(self.producer.send(record, None).await?)
    }

    async fn settle(delivery: Self::Delivery) -> Result<(), String> {
        delivery.get().await.map(drop).map_err(|error| error.to_string())
    }
}
