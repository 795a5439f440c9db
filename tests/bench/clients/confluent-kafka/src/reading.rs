//! Reading by group subscribe: `poll` and its records. It knows the new group protocol (KIP-848) only.

use std::collections::HashMap;
use std::time::Duration;

use bench_common::consumed::Reading;
use bench_common::{Error, Job};
use confluent_kafka::common::serialization::ByteArrayDeserializer;
use confluent_kafka::consumer::{Consumer, ConsumerConfig, KafkaConsumer};
use tokio::runtime::Runtime;

pub(crate) fn run(job: &Job, version: String, runtime: &Runtime) -> Result<(), Error> {
    let properties = [
        ("bootstrap.servers", job.bootstrap.as_str()),
        ("group.id", job.group.as_str()),
        ("group.protocol", "consumer"),
        ("auto.offset.reset", "earliest"),
    ];
    let properties: HashMap<_, _> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut consumer: KafkaConsumer<Vec<u8>, Vec<u8>> = KafkaConsumer::new(
        ConsumerConfig::new(&properties)?,
        ByteArrayDeserializer::default(),
        ByteArrayDeserializer::default(),
    )?;
    let reading = Reading::start(job, version)?;
    let reading = runtime.block_on(async {
        consumer.subscribe_with_topics(vec![job.topic.to_string()]).await?;
        records(&mut consumer, reading).await
    })?;
    reading.finish()?;
    Ok(runtime.block_on(consumer.close())?)
}

async fn records(
    consumer: &mut KafkaConsumer<Vec<u8>, Vec<u8>>,
    mut reading: Reading,
) -> Result<Reading, Error> {
    loop {
        for record in consumer.poll(Duration::from_secs(1)).await? {
            if !reading.see(record.value().map_or(&[][..], Vec::as_slice)) {
                return Ok(reading);
            }
        }
    }
}
