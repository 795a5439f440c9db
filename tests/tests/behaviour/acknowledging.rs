//! What an acknowledgement means, and what is lost with the one who waits for it.

use std::time::Duration;

use futures::FutureExt;
use klamm::fault::Fault;
use klamm::{ApiKey, Consumer, Producer, Record, SendError, StartOffset, TopicPartition};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::tools::{SOON, number, read, read_all};

pub(crate) async fn flush_returns_once_everything_accepted_before_is_acknowledged(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("flushed", 3).await?;
    // Nothing but the flush would send anything within an hour.
    let producer: Producer =
        Producer::builder().client(&backend.client()?).linger_ms(Duration::from_secs(3600)).build()?;
    for round in 0..3 {
        let mut deliveries = Vec::new();
        for index in 0..300 {
            let record = Record::new(topic.as_str()).partition(index % 3).value(format!("{round} {index}"));
            deliveries.push(producer.send(record).await?);
        }
        assert!((&mut deliveries[299]).now_or_never().is_none(), "it lingers");
        producer.flush().await?;
        for delivery in deliveries {
            let fate = delivery.now_or_never().ok_or("flush returned before the acknowledgement")?;
            fate?;
        }
    }
    producer.flush().await?;
    producer.close(SOON).await?;
    Ok(())
}

/// The broker may miss the sequence numbers of the record that was given up; a new epoch begins without them (KIP-360).
pub(crate) async fn after_a_record_that_was_given_up_amid_attempts_the_next_ones_are_written_once_each(
    backend: &Backend,
) -> Outcome {
    for (fault, written) in [(Fault::CutBefore, false), (Fault::CutAfter, true)] {
        let topic = backend.topic("given-up", 1).await?;
        let first: Producer = Producer::builder().client(&backend.client()?).build()?;
        first.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
        let (builder, faults) = backend.faulty_client_builder();
        let producer: Producer = Producer::builder()
            .client(&builder.build()?)
            .batch_size(0)
            .linger_ms(Duration::ZERO)
            .retries(2)
            .build()?;
        producer.send_and_wait(Record::new(topic.as_str()).value("1")).await?;
        let rule = faults.on(ApiKey::Produce).times(3).then(fault.clone());
        match producer.send_and_wait(Record::new(topic.as_str()).value("2")).await {
            Err(SendError::RetriesExhausted { maybe_written, .. }) => assert!(maybe_written || !written),
            other => return Err(format!("every attempt is cut off by {fault:?}: {other:?}").into()),
        }
        assert_eq!(rule.hits(), 3);
        let mut deliveries = Vec::new();
        for index in 3..20 {
            deliveries.push(producer.send(Record::new(topic.as_str()).value(index.to_string())).await?);
        }
        for delivery in deliveries {
            delivery.await?;
        }
        let found = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        let expected: Vec<i64> = (0..20).filter(|number| written || *number != 2).collect();
        assert_eq!(found, expected, "{fault:?}");
    }
    Ok(())
}

pub(crate) async fn close_sends_what_lingers(backend: &Backend) -> Outcome {
    let topic = backend.topic("closed", 1).await?;
    let producer: Producer =
        Producer::builder().client(&backend.client()?).linger_ms(Duration::from_secs(3600)).build()?;
    let another = producer.clone();
    let delivery = producer.send(Record::new(topic.as_str()).value("0")).await?;
    producer.close(SOON).await?;
    let fate = delivery.now_or_never().ok_or("close returned before the acknowledgement")?;
    fate?;
    let refused = another.send(Record::new(topic.as_str()).value("1")).await;
    assert!(matches!(refused, Err(SendError::Closed { maybe_written: false })), "{refused:?}");
    Ok(())
}

pub(crate) async fn send_and_wait_dropped_before_it_is_accepted_is_never_sent_and_after_that_is_sent(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("dropped", 1).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let send = |value: &str| producer.send_and_wait(Record::new(topic.as_str()).value(value.to_owned()));
    // Nobody has told the topic's metadata yet: the first look ends in waiting for them.
    assert!(send("100").now_or_never().is_none());
    send("0").await?;
    // Now the record is accepted at the first look, and the second one would wait for the broker.
    assert!(send("1").now_or_never().is_none());
    send("2").await?;
    producer.flush().await?;
    let values = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(values, [0, 1, 2]);
    Ok(())
}

pub(crate) async fn what_was_acknowledged_to_a_client_that_vanishes_is_kept(backend: &Backend) -> Outcome {
    let topic = backend.topic("vanished", 1).await?;
    let client = backend.client()?;
    let producer: Producer =
        Producer::builder().client(&client).batch_size(300).linger_ms(Duration::ZERO).build()?;
    let mut deliveries = Vec::new();
    for index in 0..2_000_i64 {
        deliveries.push(producer.send(Record::new(topic.as_str()).value(index.to_string())).await?);
    }
    let mut fates = Vec::new();
    for delivery in deliveries.drain(..500) {
        fates.push(delivery.await);
    }
    drop(producer);
    drop(client);
    for delivery in deliveries {
        fates.push(delivery.await); // every one of them is told something
    }
    let found = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert!(found.is_sorted_by(|a, b| a < b), "in order and none twice");
    for (index, fate) in (0_i64..).zip(&fates) {
        let there = found.binary_search(&index).is_ok();
        match fate {
            Ok(written) => assert_eq!(written.offset, Some(index), "{there}"),
            Err(SendError::Closed { maybe_written: true }) => {}
            Err(SendError::Closed { maybe_written: false }) => assert!(!there, "{index} was called lost"),
            Err(other) => return Err(format!("record {index}: {other}").into()),
        }
        assert!(there || fate.is_err(), "{index} was acknowledged and is gone");
    }
    assert!(fates[..500].iter().all(Result::is_ok));
    Ok(())
}

pub(crate) async fn two_consumers_of_one_partition_both_read_everything(backend: &Backend) -> Outcome {
    let topic = backend.topic("twice-read", 2).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    for index in 0..400 {
        let record = Record::new(topic.as_str()).partition(index % 2).value((index / 2).to_string());
        drop(producer.send(record).await?); // flushed below
    }
    producer.flush().await?;
    let (one, other) = futures::try_join!(read(backend, &topic, 2, 400), read(backend, &topic, 2, 400))?;
    for records in [one, other] {
        let mut next = [0, 0];
        for record in records {
            let expected = &mut next[record.partition as usize];
            assert_eq!((record.offset, number(&record)?), (*expected, *expected));
            *expected += 1;
        }
        assert_eq!(next, [200, 200]);
    }
    Ok(())
}

pub(crate) async fn a_consumer_at_the_end_hears_of_new_records_in_the_middle_of_its_long_poll(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("long-poll", 1).await?;
    let client = backend.client()?;
    // Were the poll to end by itself, this behaviour would hang for an hour.
    let consumer: Consumer =
        Consumer::builder().client(&client).fetch_max_wait_ms(Duration::from_secs(3600)).build()?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    consumer.assign([(partition.clone(), StartOffset::End)]);
    assert_eq!(consumer.position(&partition).await?, 0);
    let producer: Producer = Producer::builder().client(&client).linger_ms(Duration::ZERO).build()?;
    for index in 0..20 {
        producer.send_and_wait(Record::new(topic.as_str()).value(index.to_string())).await?;
        let record = consumer.recv().await?;
        assert_eq!((record.offset, number(&record)?), (index, index));
    }
    Ok(())
}
