//! Sizes and times at the edge of what is allowed.

use std::time::Duration;

use klamm::consumer::TimestampType;
use klamm::{
    Compression, Consumer, ErrorCode, Producer, Record, Recovery, SendError, StartOffset, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::tools::{SOON, next, number, read};

pub(crate) async fn the_largest_record_allowed_arrives_and_one_byte_more_is_refused(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("largest", 1).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let of = |bytes: usize| Record::new(topic.as_str()).value(vec![b'x'; bytes]);
    let far_too_large = producer.send(of(2_000_000)).await;
    let Err(SendError::TooLarge { size_bytes, limit_bytes }) = far_too_large else {
        return Err(format!("two megabytes: {far_too_large:?}").into());
    };
    assert_eq!(limit_bytes, 1_048_576);
    let largest = limit_bytes - (size_bytes - 2_000_000);
    let refused = producer.send(of(largest + 1)).await;
    assert!(matches!(refused, Err(SendError::TooLarge { .. })), "{refused:?}");
    assert_eq!(producer.send_and_wait(of(largest)).await?.offset, Some(0));
    let records = read(backend, &topic, 1, 1).await?;
    assert_eq!(records[0].value.as_ref().map(|value| value.len()), Some(largest));
    Ok(())
}

pub(crate) async fn a_record_over_the_topics_limit_is_refused_and_the_next_one_goes_through(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic_with("narrow", 1, &[("max.message.bytes", "10000")]).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let refused = producer.send_and_wait(Record::new(topic.as_str()).value(vec![0; 20_000])).await;
    let error = refused.err().ok_or("20,000 bytes do not fit into 10,000")?;
    assert!(matches!(error, SendError::Rejected { code: ErrorCode::MESSAGE_TOO_LARGE, .. }), "{error:?}");
    assert_eq!((error.recovery(), error.maybe_written()), (Recovery::Fix, false), "{error}");
    let said = error.to_string();
    for part in [&format!("{topic}-0"), "20", "max.message.bytes"] {
        assert!(said.contains(part), "{said} names topic, partition, size and cure");
    }
    assert_eq!(producer.send_and_wait(Record::new(topic.as_str()).value("fits")).await?.offset, Some(0));
    Ok(())
}

pub(crate) async fn a_batch_over_the_topics_limit_is_split_and_all_of_it_arrives_in_order(
    backend: &Backend,
) -> Outcome {
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let topic = backend.topic_with("full", 1, &[("max.message.bytes", "5000")]).await?;
        let producer: Producer = Producer::builder()
            .client(&backend.client()?)
            .linger_ms(Duration::from_secs(3600))
            .compression_type(codec)
            .build()?;
        let all = producer.buffer_available();
        let (mut sent, mut split) = (0, 0);
        for round in 0..2 {
            let mut deliveries = Vec::new();
            for index in sent..sent + 15_u32 {
                let value = format!("{index} {}", noise(index, 1_000));
                let record = Record::new(topic.as_str()).value(value).timestamp(1_000 + i64::from(index));
                deliveries.push(producer.send(record.header("index", index.to_string())).await?);
            }
            producer.flush().await?;
            for (offset, delivery) in (i64::from(sent)..).zip(deliveries) {
                let written = delivery.await?;
                assert_eq!((written.offset, written.timestamp), (Some(offset), 1_000 + offset), "{codec:?}");
            }
            sent += 15;
            match round {
                0 => split = producer.retries(),
                _ => assert_eq!(
                    producer.retries(),
                    split,
                    "{codec:?}: what is known to be too large is made again"
                ),
            }
        }
        assert_ne!(split, 0, "{codec:?}: the first batch was too large");
        // The sender gives memory back just after it has told what became of the records.
        while producer.buffer_available() < all {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(producer.buffer_available(), all, "{codec:?}: no more than all memory is free");
        for (expected, record) in (0..).zip(read(backend, &topic, 1, 30).await?) {
            assert_eq!((record.offset, number(&record)?), (expected, expected), "{codec:?}");
            assert_eq!(record.timestamp_ms, 1_000 + expected, "{codec:?}");
            assert_eq!(
                record.headers[0].value.as_deref(),
                Some(expected.to_string().as_bytes()),
                "{codec:?}"
            );
        }
    }
    Ok(())
}

/// Text that no codec makes much smaller.
fn noise(seed: u32, bytes: usize) -> String {
    let mut state = seed.wrapping_add(1).wrapping_mul(2_654_435_761);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'!' + (state % 90) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

pub(crate) async fn create_time_is_the_producers_and_log_append_time_the_brokers(
    backend: &Backend,
) -> Outcome {
    let ours = backend.topic("create-time", 1).await?;
    let theirs = backend.topic_with("append-time", 1, &[("message.timestamp.type", "LogAppendTime")]).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let begun = backend.wall_ms();
    for (topic, kind) in [(&ours, TimestampType::Create), (&theirs, TimestampType::Append)] {
        let mut told = Vec::new();
        for record in [Record::new(topic.as_str()).timestamp(1_000), Record::new(topic.as_str())] {
            told.push(producer.send_and_wait(record.value("0")).await?.timestamp);
        }
        let records = read(backend, topic, 1, 2).await?;
        let stored: Vec<_> = records.iter().map(|record| record.timestamp_ms).collect();
        assert_eq!(told, stored, "{topic}: the acknowledgement names the stored time");
        assert!(records.iter().all(|record| record.timestamp_type == kind), "{topic}");
        let now = begun..=backend.wall_ms();
        assert!(now.contains(&stored[1]), "{topic}: {} in {now:?}", stored[1]);
        match kind {
            TimestampType::Create => assert_eq!(stored[0], 1_000),
            _ => assert!(now.contains(&stored[0]), "{topic}: {} in {now:?}", stored[0]),
        }
        let partition = TopicPartition::new(topic.as_str(), 0);
        let consumer: Consumer = Consumer::builder().client(&backend.client()?).build()?;
        let found = consumer.offsets_for_times([(partition.clone(), stored[1])]).await?;
        let first = i64::from(stored[0] < stored[1]);
        assert_eq!(found[&partition], Some((first, stored[1])), "{topic}");
        let later = consumer.offsets_for_times([(partition.clone(), stored[1] + 1)]).await?;
        assert_eq!(later[&partition], None, "{topic}");
    }
    Ok(())
}

pub(crate) async fn a_timestamp_too_far_in_the_future_is_refused(backend: &Backend) -> Outcome {
    let topic = backend.topic_with("future", 1, &[("message.timestamp.after.max.ms", "3600000")]).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let day = 86_400_000;
    let tomorrow = Record::new(topic.as_str()).timestamp(backend.wall_ms() + day).value("tomorrow");
    let refused = producer.send_and_wait(tomorrow).await.err().ok_or("an hour is the limit")?;
    assert!(matches!(refused, SendError::Rejected { code: ErrorCode::INVALID_TIMESTAMP, .. }), "{refused:?}");
    assert_eq!(producer.send_and_wait(Record::new(topic.as_str()).value("now")).await?.offset, Some(0));
    Ok(())
}

pub(crate) async fn reading_can_start_in_the_middle_of_a_compressed_batch(backend: &Backend) -> Outcome {
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let client = backend.client()?;
    for codec in codecs {
        let topic = backend.topic("middle", 1).await?;
        let producer: Producer = Producer::builder()
            .client(&client)
            .compression_type(codec)
            .batch_size(1_000_000)
            .linger_ms(Duration::from_secs(3600))
            .build()?;
        for index in 0..1_000_i64 {
            let value = format!("{index} {}", "klamm ".repeat(20));
            let record = Record::new(topic.as_str()).value(value).timestamp(1_000 + index);
            drop(producer.send(record.header("codec", format!("{codec:?}"))).await?); // flushed below
        }
        producer.flush().await?;
        producer.close(SOON).await?;
        let partition = TopicPartition::new(topic.as_str(), 0);
        for (start, first) in [
            (StartOffset::Offset(700), 700),
            (StartOffset::Timestamp(1_900), 900),
            (StartOffset::Offset(0), 0),
        ] {
            let consumer: Consumer =
                Consumer::builder().client(&client).max_partition_fetch_bytes(100).build()?;
            consumer.assign([(partition.clone(), start)]);
            for (expected, record) in (first..).zip(next(&consumer, (1_000 - first) as usize).await?) {
                assert_eq!((record.offset, number(&record)?), (expected, expected), "{codec:?} {start:?}");
                assert_eq!(record.headers.len(), 1, "{codec:?}");
            }
            if first == 0 {
                // Back to the middle, out of the long poll at the end.
                consumer.seek(&partition, StartOffset::Offset(500))?;
                assert_eq!(next(&consumer, 1).await?[0].offset, 500, "{codec:?}");
            }
        }
    }
    Ok(())
}

pub(crate) async fn headers_come_back_as_they_were_sent(backend: &Backend) -> Outcome {
    let topic = backend.topic("headers", 1).await?;
    let producer: Producer =
        Producer::builder().client(&backend.client()?).compression_type(Compression::Lz4).build()?;
    let mut record =
        Record::new(topic.as_str()).null_header("null").header("empty", "").header("", "no name");
    for index in 0..300 {
        record = record.header(format!("name {}", index % 7), vec![index as u8; index]);
    }
    let sent = record.headers().clone();
    producer.send_and_wait(record).await?;
    let records = read(backend, &topic, 1, 1).await?;
    let came: Vec<_> =
        records[0].headers.iter().map(|h| (h.name_str().map(str::to_owned), h.value.clone())).collect();
    let sent: Vec<_> = sent.into_iter().map(|(name, value)| (Some(name), value)).collect();
    assert_eq!(came, sent);
    Ok(())
}
