//! Topics that are deleted, and created again under the same name.

use std::time::Duration;

use klamm::{
    Consumer, ErrorCode, NewTopic, OffsetReset, Producer, Record, Recovery, StartOffset, TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend};
use klamm_tests::suite::Outcome;

use crate::tools::{SOON, next, number, read_all};

async fn delete(backend: &Backend, topic: &str) -> Outcome {
    backend.client()?.admin().delete_topics([topic]).await?.all()?;
    Ok(())
}

/// Creates a topic again and waits until a broker knows the new one.
async fn create_again(backend: &Backend, topic: &str, partitions: i32) -> Outcome {
    let again = NewTopic::new(topic).partitions(partitions).replicas(BROKERS as i16);
    let created = backend.client()?.admin().create_topics([again]).await?.all()?.remove(0);
    let led = |told: Result<&klamm::TopicDescription, ErrorCode>| {
        let found = told.ok().filter(|found| found.id == created.id)?;
        found.partitions.iter().all(|partition| partition.leader.is_some()).then_some(())
    };
    Ok(backend.until_described(topic, led).await?)
}

pub(crate) async fn a_producer_goes_on_in_a_topic_that_was_created_again(backend: &Backend) -> Outcome {
    let topic = backend.topic("again", 1).await?;
    let producer: Producer =
        Producer::builder().client(&backend.client()?).linger_ms(Duration::ZERO).build()?;
    for index in 0..10 {
        producer.send_and_wait(Record::new(topic.as_str()).partition(0).value(index.to_string())).await?;
    }
    delete(backend, &topic).await?;
    create_again(backend, &topic, 2).await?;
    let mut deliveries = Vec::new();
    for index in 100..120 {
        let record = Record::new(topic.as_str()).partition(0).value(index.to_string());
        deliveries.push(producer.send(record).await?);
    }
    for (offset, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await?.offset, Some(offset), "the new topic begins at 0");
    }
    // The new topic has a partition that the old one had not.
    let other = producer.send_and_wait(Record::new(topic.as_str()).partition(1).value("7")).await?;
    assert_eq!((other.partition, other.offset), (1, Some(0)));
    let found = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found, (100..120).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn a_consumer_begins_anew_in_a_topic_that_was_created_again(backend: &Backend) -> Outcome {
    let topic = backend.topic("anew", 1).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for index in 0..10 {
        producer.send_and_wait(Record::new(topic.as_str()).value(index.to_string())).await?;
    }
    let consumer: Consumer =
        Consumer::builder().client(&client).auto_offset_reset(OffsetReset::Earliest).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    assert_eq!(next(&consumer, 10).await?.len(), 10);
    delete(backend, &topic).await?;
    create_again(backend, &topic, 1).await?;
    for index in 100..103 {
        producer.send_and_wait(Record::new(topic.as_str()).value(index.to_string())).await?;
    }
    for expected in 0..3 {
        let record = tokio::time::timeout(SOON, consumer.recv()).await??;
        assert_eq!((record.offset, number(&record)?), (expected, 100 + expected));
    }
    Ok(())
}

pub(crate) async fn producing_to_a_deleted_topic_fails_by_name_and_other_topics_go_on(
    backend: &Backend,
) -> Outcome {
    let (gone, other) = (backend.topic("gone", 1).await?, backend.topic("other", 1).await?);
    let limit = Duration::from_secs(3);
    let producer: Producer = Producer::builder()
        .client(&backend.impatient_client()?)
        .max_block_ms(limit)
        .delivery_timeout_ms(limit)
        .build()?;
    producer.send_and_wait(Record::new(gone.as_str()).value("0")).await?;
    delete(backend, &gone).await?;
    // Twice, because the first answer may change what the client knows.
    for value in ["1", "2"] {
        // Accepted on the strength of old metadata, or refused for want of new ones.
        let refused = match producer.send(Record::new(gone.as_str()).value(value)).await {
            Ok(delivery) => delivery.await.err(),
            Err(error) => Some(error),
        };
        let refused = refused.ok_or("the topic is gone")?;
        assert!(refused.to_string().contains("UNKNOWN_TOPIC"), "{refused}");
        assert!(!refused.maybe_written(), "{refused:?}");
        assert_ne!(refused.recovery(), Recovery::Rebuild, "the producer is as good as before");
    }
    assert_eq!(producer.send_and_wait(Record::new(other.as_str()).value("0")).await?.offset, Some(0));
    Ok(())
}
