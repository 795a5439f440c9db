//! What a consumer promises.

use std::time::Duration;

use futures::StreamExt;
use klamm::deserializer::Plain;
use klamm::{
    Consumer, ConsumerError, Isolation, PoisonPolicy, Producer, Record, StartOffset, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::tools::{SOON, next, number, write_numbers};

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

pub(crate) async fn batches_are_read_where_they_lie(backend: &Backend) -> Outcome {
    let topic = backend.topic("views", 1).await?;
    write_numbers(backend, &topic, 1_000).await?;
    let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Offset(7))]);
    let (mut expected, mut batches, mut kept) = (7, 0, Vec::new());
    while expected < 1_000 {
        let batch = consumer.recv_batch().await?;
        batches += 1;
        assert_eq!((batch.topic(), batch.first_offset()), (topic.as_str(), expected));
        for record in &batch {
            let record = record?;
            assert_eq!(record.value(), Some(expected.to_string().as_bytes()));
            assert_eq!((record.offset(), record.timestamp_ms()), (expected, 1_000 + expected * 10));
            if expected % 100 == 0 {
                kept.push(record.keep());
                kept.push(record.detach());
            }
            expected += 1;
        }
        assert_eq!(batch.next_offset(), expected);
    }
    assert!(batches > 1, "the writer made small batches");
    for record in kept {
        assert_eq!(number(&record)?, record.offset);
    }
    Ok(())
}

pub(crate) async fn partitions_are_read_by_tasks_of_their_own_and_a_slow_one_holds_up_no_other(
    backend: &Backend,
) -> Outcome {
    const PARTITIONS: i32 = 4;
    const EACH: i64 = 2_000;
    let topic = backend.topic("apart", PARTITIONS).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for index in 0..EACH {
        for partition in 0..PARTITIONS {
            let record = Record::new(topic.as_str()).partition(partition).value(format!("{index:050}"));
            drop(producer.send(record).await?); // flushed below
        }
    }
    producer.flush().await?;
    // Less than what lies in one partition, so that whoever waits for the slow one waits for ever.
    let builder = Consumer::builder().client(&client).prefetch_max_bytes(40_000);
    let consumer: Consumer = builder.max_partition_fetch_bytes(5_000).build()?;
    let all = (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition));
    consumer.assign(all.map(|partition| (partition, StartOffset::Beginning)));
    let mut streams = std::pin::pin!(consumer.partition_streams());
    let slow = streams.next().await.ok_or("no stream")??;
    assert_eq!(slow.recv().await?.offset, 0);
    let mut reading = tokio::task::JoinSet::new();
    for _ in 1..PARTITIONS {
        let mut stream = streams.next().await.ok_or("no stream")??;
        reading.spawn(async move {
            for expected in 0..EACH {
                let record = stream.next().await.ok_or("it ended")?.map_err(|error| error.to_string())?;
                if record.offset != expected {
                    return Err(format!("{} where {expected} is due", record.offset));
                }
            }
            Ok::<_, String>(stream)
        });
    }
    let mut done = Vec::new();
    while let Some(read) = tokio::time::timeout(SOON, reading.join_next()).await? {
        done.push(read??);
    }
    assert_eq!(done.len(), 3);
    // What the slow one leaves is read together with the others, of which nothing is left.
    drop((slow, done));
    for expected in 1..EACH {
        assert_eq!(consumer.recv().await?.offset, expected);
    }
    Ok(())
}

pub(crate) async fn a_poison_record_does_what_the_policy_says(backend: &Backend) -> Outcome {
    let topic = backend.topic("poison", 1).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for value in ["one", "\u{1}", "three"] {
        let value = if value == "\u{1}" { vec![0xff] } else { value.into() };
        producer.send_and_wait(Record::new(topic.as_str()).partition(0).value(value)).await?;
    }
    let partition = TopicPartition::new(topic.as_str(), 0);
    let reading = |policy| -> Result<Consumer<klamm::Bytes, String>, klamm::ConfigError> {
        let builder = Consumer::builder().client(&client).poison_policy(policy);
        let consumer = builder.value_deserializer::<String>(Plain).build()?;
        consumer.assign([(partition.clone(), StartOffset::Beginning)]);
        Ok(consumer)
    };
    let consumer = reading(PoisonPolicy::Fail)?;
    assert_eq!(consumer.recv().await?.value.as_deref(), Some("one"));
    for _ in 0..3 {
        let error = consumer.recv().await.err().ok_or("the record is no text")?;
        let text = error.to_string();
        assert!(text.contains(&format!("{topic}-0 at offset 1")) && text.contains("seek to 2"), "{text}");
    }
    consumer.seek(&partition, StartOffset::Offset(2))?;
    assert_eq!(consumer.recv().await?.value.as_deref(), Some("three"));

    let consumer = reading(PoisonPolicy::Skip)?;
    assert_eq!((consumer.recv().await?.offset, consumer.recv().await?.offset), (0, 2));

    let consumer = reading(PoisonPolicy::HandOver)?;
    assert_eq!(consumer.recv().await?.offset, 0);
    let error = consumer.recv().await.err().ok_or("the record is no text")?;
    let raw = error.poison().ok_or("no raw record")?;
    assert_eq!((raw.offset, raw.value.as_deref()), (1, Some(&[0xff][..])));
    assert_eq!(consumer.recv().await?.offset, 2);
    Ok(())
}

pub(crate) async fn lag_and_watermarks_are_those_of_the_last_fetch(backend: &Backend) -> Outcome {
    let topic = backend.topic("lagging", 2).await?;
    write_numbers(backend, &topic, 10).await?;
    let [zero, one] = [0, 1].map(|index| TopicPartition::new(topic.as_str(), index));
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        let builder = Consumer::builder().client(&backend.client()?).isolation_level(isolation);
        let consumer: Consumer = builder.build()?;
        let told = consumer.lag(&zero);
        assert!(matches!(told, Err(ConsumerError::NotAssigned { .. })), "{told:?}");
        consumer.assign([(zero.clone(), StartOffset::Offset(2))]);
        assert_eq!((consumer.lag(&zero)?, consumer.watermarks(&zero)?), (None, None), "nobody has told yet");
        for left in (0..8).rev() {
            assert_eq!(consumer.recv().await?.offset, 9 - left);
            assert_eq!(consumer.lag(&zero)?, Some(left), "of ten records");
        }
        let marks = consumer.watermarks(&zero)?.ok_or("told by now")?;
        assert_eq!((marks.low, marks.high, marks.last_stable), (Some(0), 10, Some(10)));

        // An empty partition has been read to its end as well.
        consumer.assign([(zero.clone(), StartOffset::End), (one.clone(), StartOffset::Beginning)]);
        while consumer.lag(&one)?.is_none() || consumer.lag(&zero)?.is_none() {
            assert!(consumer.poll(1, Duration::from_millis(20)).await?.is_empty());
        }
        assert_eq!((consumer.lag(&zero)?, consumer.lag(&one)?), (Some(0), Some(0)));
        consumer.close().await?;
    }
    Ok(())
}
