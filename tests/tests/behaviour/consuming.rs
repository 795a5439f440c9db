//! What a consumer promises.

use std::time::Duration;

use futures::StreamExt;
use klamm::{Consumer, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::tools::{next, number, write_numbers};

pub(crate) async fn reading_starts_at_the_beginning_the_end_an_offset_or_a_time(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("starts", 1).await?;
    write_numbers(backend, &topic, 100).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let client = backend.client()?;
    let starts = [
        (StartOffset::Beginning, 0),
        (StartOffset::Offset(42), 42),
        (StartOffset::Timestamp(1_300), 30),
        (StartOffset::Timestamp(1_301), 31),
    ];
    for (start, first) in starts {
        let consumer: Consumer = Consumer::builder().client(&client).build()?;
        consumer.assign([(partition.clone(), start)]);
        let record = consumer.recv().await?;
        assert_eq!((record.offset, number(&record).ok()), (first, Some(first)), "{start:?}");
        assert_eq!(consumer.position(&partition).await?, first + 1, "{start:?}");
    }
    let consumer: Consumer = Consumer::builder().client(&client).build()?;
    consumer.assign([(partition.clone(), StartOffset::End)]);
    assert_eq!(consumer.position(&partition).await?, 100);
    assert!(
        consumer.poll(10, Duration::from_millis(300)).await?.is_empty(),
        "nothing before the end is handed out"
    );
    let producer: Producer = Producer::builder().client(&client).build()?;
    producer.send_and_wait(Record::new(topic.as_str()).partition(0).value("100")).await?;
    assert_eq!(number(&consumer.recv().await?)?, 100);
    Ok(())
}

pub(crate) async fn the_stream_hands_out_each_record_once(backend: &Backend) -> Outcome {
    let topic = backend.topic("stream", 1).await?;
    write_numbers(backend, &topic, 1_000).await?;
    let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    let mut stream = std::pin::pin!(consumer.stream());
    for expected in 0..1_000 {
        let record = stream.next().await.ok_or("the stream goes on")??;
        assert_eq!(number(&record).ok(), Some(expected));
    }
    Ok(())
}

pub(crate) async fn a_paused_partition_is_silent_until_resumed(backend: &Backend) -> Outcome {
    let topic = backend.topic("paused", 1).await?;
    write_numbers(backend, &topic, 20).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    consumer.assign([(partition.clone(), StartOffset::Beginning)]);
    assert_eq!(consumer.recv().await?.offset, 0);
    consumer.pause([&partition]);
    assert!(consumer.poll(100, Duration::from_millis(300)).await?.is_empty());
    consumer.resume([&partition]);
    assert_eq!(consumer.recv().await?.offset, 1, "nothing is skipped by a pause");
    consumer.seek(&partition, StartOffset::Offset(15))?;
    assert_eq!(consumer.recv().await?.offset, 15);
    Ok(())
}

pub(crate) async fn a_batch_larger_than_the_fetch_limit_still_makes_progress(backend: &Backend) -> Outcome {
    let topic = backend.topic("large", 1).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for size in [10, 200_000, 10] {
        producer.send_and_wait(Record::new(topic.as_str()).value(vec![7; size])).await?;
    }
    let consumer: Consumer = Consumer::builder()
        .client(&client)
        .max_partition_fetch_bytes(1_000)
        .fetch_max_bytes(1_000)
        .build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    for size in [10, 200_000, 10] {
        assert_eq!(consumer.recv().await?.value.map(|value| value.len()), Some(size));
    }
    Ok(())
}

pub(crate) async fn a_new_assignment_hands_out_nothing_of_the_old_one(backend: &Backend) -> Outcome {
    let (old, new) = (backend.topic("old", 1).await?, backend.topic("new", 1).await?);
    write_numbers(backend, &old, 100).await?;
    write_numbers(backend, &new, 10).await?;
    let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    for read_before in [0, 1, 50] {
        consumer.assign([(TopicPartition::new(old.as_str(), 0), StartOffset::Beginning)]);
        assert_eq!(next(&consumer, read_before).await?.len(), read_before);
        consumer.assign([(TopicPartition::new(new.as_str(), 0), StartOffset::Offset(3))]);
        for (expected, record) in (3..).zip(next(&consumer, 7).await?) {
            assert_eq!((&*record.topic, record.offset), (new.as_str(), expected));
        }
        consumer.unassign();
        assert!(consumer.assignment().is_empty());
    }
    // The same partition, elsewhere.
    for start in [90, 10, 50] {
        consumer.assign([(TopicPartition::new(old.as_str(), 0), StartOffset::Offset(start))]);
        assert_eq!(next(&consumer, 1).await?[0].offset, start);
    }
    Ok(())
}

pub(crate) async fn every_partition_is_read_however_many_there_are(backend: &Backend) -> Outcome {
    const PARTITIONS: i32 = 40;
    let topic = backend.topic("many", PARTITIONS).await?;
    let client = backend.client()?;
    // Without keys, records move on to another partition with each batch.
    let producer: Producer = Producer::builder().client(&client).batch_size(200).build()?;
    for index in 0..4_000 {
        drop(producer.send(Record::new(topic.as_str()).value(index.to_string())).await?); // flushed below
    }
    producer.flush().await?;
    // Too small a share of each answer for all of them: they must take turns.
    let consumer: Consumer =
        Consumer::builder().client(&client).fetch_max_bytes(2_000).max_partition_fetch_bytes(500).build()?;
    let all = (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition));
    consumer.assign(all.map(|partition| (partition, StartOffset::Beginning)));
    let mut seen = vec![false; 4_000];
    let mut offsets = vec![0; PARTITIONS as usize];
    for record in next(&consumer, 4_000).await? {
        let due = &mut offsets[record.partition as usize];
        assert_eq!(record.offset, *due, "partition {}", record.partition);
        *due += 1;
        assert!(!std::mem::replace(&mut seen[number(&record)? as usize], true), "{record:?} a second time");
    }
    let reached = offsets.iter().filter(|end| **end > 0).count();
    assert!(reached > PARTITIONS as usize / 2, "records without keys do not stay together: {offsets:?}");
    Ok(())
}
