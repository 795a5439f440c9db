//! What several behaviours do on the way.

use std::io::Error;
use std::time::Duration;

use klamm::{Consumer, ConsumerRecord, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

/// Long enough for whatever comes at once; only turns silence into a failure.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Reads `count` records of a topic from its beginning.
pub(crate) async fn read(
    backend: &Backend,
    topic: &str,
    partitions: i32,
    count: usize,
) -> Result<Vec<ConsumerRecord>, Box<dyn std::error::Error + Send + Sync>> {
    let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    consumer.assign((0..partitions).map(|index| (TopicPartition::new(topic, index), StartOffset::Beginning)));
    let records = next(&consumer, count).await?;
    consumer.close().await?;
    Ok(records)
}

/// The next `count` records of a consumer.
pub(crate) async fn next(
    consumer: &Consumer,
    count: usize,
) -> Result<Vec<ConsumerRecord>, Box<dyn std::error::Error + Send + Sync>> {
    let mut records = Vec::new();
    while records.len() < count {
        let more = consumer.poll(count - records.len(), SOON).await?;
        if more.is_empty() {
            return Err(format!("{} of {count} records after {SOON:?} of silence", records.len()).into());
        }
        records.extend(more);
    }
    Ok(records)
}

/// Everything a partition holds, from its beginning to its end at this moment.
pub(crate) async fn read_all(
    backend: &Backend,
    topic: &str,
    partition: i32,
) -> Result<Vec<ConsumerRecord>, Box<dyn std::error::Error + Send + Sync>> {
    let consumer: Consumer = Consumer::builder().client(&backend.impatient_client()?).build()?;
    let partition = TopicPartition::new(topic, partition);
    let end = consumer.end_offsets(std::slice::from_ref(&partition)).await?[&partition];
    consumer.assign([(partition, StartOffset::Beginning)]);
    next(&consumer, usize::try_from(end)?).await
}

/// Writes `0`, `1`, … with timestamps 1000, 1010, … into partition 0.
pub(crate) async fn write_numbers(backend: &Backend, topic: &str, count: i64) -> Outcome {
    let producer: Producer = Producer::builder().client(&backend.client()?).batch_size(200).build()?;
    for index in 0..count {
        let record = Record::new(topic).partition(0).value(index.to_string()).timestamp(1_000 + index * 10);
        drop(producer.send(record).await?); // flushed below
    }
    producer.flush().await?;
    producer.close(SOON).await?;
    Ok(())
}

/// The number in a record's value.
pub(crate) fn number(record: &ConsumerRecord) -> Result<i64, Error> {
    let value = record.value.as_deref().unwrap_or_default();
    let text = std::str::from_utf8(value).map_err(Error::other)?;
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().map_err(|_| Error::other(format!("{text:?} at offset {} is no number", record.offset)))
}
