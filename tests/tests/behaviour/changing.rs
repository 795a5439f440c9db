//! Topics that are deleted, and created again under the same name.

use std::time::Duration;

use futures::FutureExt;
use klamm::{
    Consumer, ErrorCode, MetadataError, NewTopic, OffsetReset, Producer, Record, RecordMetadata, Recovery,
    SendError, StartOffset, TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend};
use klamm_tests::suite::Outcome;
use tokio::time::Instant;

use crate::tools::{SOON, next, number, read_all};

/// Deletes a topic. Apache Kafka names any broker as the controller, which may be the one that is paused: then another one
/// has to be asked.
pub(crate) async fn delete(backend: &Backend, topic: &str) -> Outcome {
    let mut asked = 0;
    loop {
        // A new client asks a broker that answers who the controller is.
        let deleted = backend.impatient_client()?.admin().delete_topics([topic]).await;
        asked += 1;
        match deleted.map(|results| results.of(topic).cloned()) {
            Ok(Some(Ok(_))) => return Ok(()),
            // An attempt that was not answered in time was carried out.
            Ok(Some(Err(refused))) if asked > 1 && refused.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                return Ok(());
            }
            Ok(refused) => return Err(format!("{topic}: {refused:?}").into()),
            Err(silent) if asked < 20 => drop(silent),
            Err(silent) => return Err(silent.into()),
        }
    }
}

/// Creates a topic again and waits until a broker knows the new one.
pub(crate) async fn create_again(backend: &Backend, topic: &str, partitions: i32) -> Outcome {
    let again = NewTopic::new(topic).partitions(partitions).replicas(BROKERS as i16);
    let created = backend.client()?.admin().create_topics([again]).await?.all()?.remove(0);
    let led = |told: Result<&klamm::TopicDescription, ErrorCode>| {
        let found = told.ok().filter(|found| found.id == created.id)?;
        found.partitions.iter().all(|partition| partition.leader.is_some()).then_some(())
    };
    Ok(backend.until_described(topic, led).await?)
}

/// What a producer that soon gives up says of records for a deleted topic, once it has heard of it: until then the leader
/// may take them, and a busy cluster may say nothing in time.
async fn refusal(producer: &Producer, topic: &str) -> SendError {
    loop {
        let fate = match producer.send(Record::new(topic).value("refused")).await {
            Ok(delivery) => delivery.await.err(),
            Err(error) => Some(error),
        };
        match fate {
            None
            | Some(
                SendError::TimedOut { last: None, .. } | SendError::Metadata(MetadataError::TimedOut { .. }),
            ) => {}
            Some(error) => return error,
        }
    }
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

/// Reads `before` of ten records; then the topic is created again and gets so many. All of them have to come, from the first one.
async fn begin_anew(backend: &Backend, before: usize, after: i64, as_member: bool) -> Outcome {
    let topic = backend.topic("anew", 1).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for index in 0..10 {
        producer.send_and_wait(Record::new(topic.as_str()).value(index.to_string())).await?;
    }
    let consumer: Consumer = Consumer::builder()
        .client(&client)
        .group_id(backend.fresh_topic("group"))
        .auto_offset_reset(if as_member { OffsetReset::Earliest } else { OffsetReset::Latest })
        .auto_commit_interval_ms(Duration::from_millis(100))
        .build()?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    if as_member {
        consumer.subscribe([topic.as_str()]);
    } else {
        consumer.assign([(partition.clone(), StartOffset::Beginning)]);
    }
    assert_eq!(next(&consumer, before).await?.len(), before);
    delete(backend, &topic).await?;
    create_again(backend, &topic, 1).await?;
    for index in 100..100 + after {
        producer.send_and_wait(Record::new(topic.as_str()).value(index.to_string())).await?;
    }
    let mut old = before as i64..10;
    for expected in 0..after {
        let mut record = tokio::time::timeout(3 * SOON, consumer.recv()).await??;
        // What was fetched before anybody knew may still come.
        while expected == 0 && number(&record)? < 100 {
            assert_eq!(Some(number(&record)?), old.next());
            record = tokio::time::timeout(3 * SOON, consumer.recv()).await??;
        }
        assert_eq!((record.offset, number(&record)?), (expected, 100 + expected));
    }
    // Asks for more: everything is done.
    let asking = async { consumer.recv().await.map(|record| record.offset) };
    let committed = async {
        loop {
            let found = consumer.committed(std::slice::from_ref(&partition)).await?;
            if found[&partition].as_ref().is_some_and(|at| at.offset == after) {
                return Ok::<_, klamm::CommitError>(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        biased;
        done = tokio::time::timeout(3 * SOON, committed) => done??,
        more = asking => return Err(format!("nothing more was written: {more:?}").into()),
    }
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn a_consumer_begins_anew_in_a_topic_that_was_created_again(backend: &Backend) -> Outcome {
    begin_anew(backend, 10, 3, false).await?;
    begin_anew(backend, 10, 25, false).await?;
    begin_anew(backend, 5, 25, false).await
}

pub(crate) async fn a_member_begins_anew_in_a_topic_that_was_created_again(backend: &Backend) -> Outcome {
    begin_anew(backend, 10, 3, true).await?;
    begin_anew(backend, 10, 25, true).await?;
    begin_anew(backend, 5, 25, true).await
}

pub(crate) async fn producing_to_a_deleted_topic_fails_by_name_and_other_topics_go_on(
    backend: &Backend,
) -> Outcome {
    let (gone, other) = (backend.topic("gone", 1).await?, backend.topic("other", 1).await?);
    let limit = backend.patience() * 3 / 2;
    let client = backend.impatient_client()?;
    // Finds out about both topics for the one that does not wait as long.
    let patient: Producer = Producer::builder().client(&client).build()?;
    for topic in [&gone, &other] {
        patient.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    }
    let producer: Producer =
        Producer::builder().client(&client).max_block_ms(limit).delivery_timeout_ms(limit).build()?;
    delete(backend, &gone).await?;
    // Accepted on the strength of old metadata, or refused for want of new ones.
    let refused = refusal(&producer, &gone).await;
    // Sooner or later the metadata say so.
    let waited = loop {
        let begun = Instant::now();
        let refused = refusal(&producer, &gone).await;
        if matches!(refused, SendError::Metadata(_)) {
            assert!(begun.elapsed() >= limit, "max.block.ms, as it may be about to be created: {refused}");
            break refused;
        }
        assert!(matches!(refused, SendError::TimedOut { .. }), "{refused:?}");
    };
    for refused in [refused, waited] {
        let said = refused.to_string();
        assert!(said.contains("UNKNOWN_TOPIC") && said.contains(&gone), "{said}");
        assert!(!refused.maybe_written(), "{refused:?}");
        assert_ne!(refused.recovery(), Recovery::Rebuild, "the producer is as good as before");
    }
    assert_eq!(patient.send_and_wait(Record::new(other.as_str()).value("1")).await?.offset, Some(1));
    // The one that was refused is as good as before, too.
    while let Err(late) = producer.send_and_wait(Record::new(other.as_str()).value("2")).await {
        assert!(matches!(late, SendError::TimedOut { last: None, .. }), "{late:?}");
    }
    Ok(())
}

pub(crate) async fn records_accepted_for_a_topic_that_is_deleted_fail_by_name_and_later_ones_reach_the_new_one(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("accepted", 1).await?;
    let client = backend.impatient_client()?;
    let producer: Producer = Producer::builder()
        .client(&client)
        .linger_ms(Duration::from_secs(3600))
        .delivery_timeout_ms(Duration::from_secs(7200))
        .build()?;
    let patient: Producer = Producer::builder().client(&client).linger_ms(Duration::ZERO).build()?;
    let hurried: Producer = Producer::builder()
        .client(&client)
        .linger_ms(Duration::ZERO)
        .delivery_timeout_ms(backend.patience() * 3)
        .max_block_ms(backend.patience())
        .build()?;
    // All know the topic.
    patient.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    let lingering = producer.send(Record::new(topic.as_str()).value("1")).await?;
    delete(backend, &topic).await?;
    let error = refusal(&hurried, &topic).await;
    let said = error.to_string();
    assert!(said.contains("UNKNOWN_TOPIC"), "{error:?}");
    match error {
        SendError::TimedOut { .. } => assert!(said.contains(&format!("{topic}-0")), "{said}"),
        SendError::Metadata(_) => assert!(said.contains(&topic), "{said}"),
        other => return Err(format!("neither too late nor refused for want of metadata: {other:?}").into()),
    }
    // Whoever looks for a partition hears that the topic is gone, once the metadata say so.
    loop {
        match hurried.send(Record::new(topic.as_str()).partition(9).value("9")).await {
            Err(SendError::Metadata(MetadataError::UnknownTopic { .. })) => break,
            Err(SendError::NoSuchPartition { .. } | SendError::Metadata(MetadataError::TimedOut { .. })) => {}
            looked => return Err(format!("the topic is gone: {looked:?}").into()),
        }
    }
    create_again(backend, &topic, 1).await?;
    // What still has time goes into the new topic, and so does what comes later.
    let behind = producer.send(Record::new(topic.as_str()).value("3")).await?;
    producer.flush().await?;
    assert_eq!((lingering.await?.offset, behind.await?.offset), (Some(0), Some(1)));
    assert_eq!(patient.send_and_wait(Record::new(topic.as_str()).value("4")).await?.offset, Some(2));
    let found = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found, [1, 3, 4]);
    Ok(())
}

/// The fate of a record that waits for a follower while its topic is deleted, within this time.
async fn fate_of_waiting(
    backend: &Backend,
    limit: Duration,
) -> Result<Result<RecordMetadata, SendError>, Box<dyn std::error::Error + Send + Sync>> {
    let topic = backend.topic("waiting", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let client = backend.impatient_client()?;
    let patient: Producer = Producer::builder().client(&client).build()?;
    patient.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    let producer: Producer =
        Producer::builder().client(&client).linger_ms(Duration::ZERO).delivery_timeout_ms(limit).build()?;
    let follower = backend.follower_of(&topic, 0).await?;
    backend.pause(follower).await?;
    let mut delivery = producer.send(Record::new(topic.as_str()).value("1")).await?;
    let mut fate = None;
    while producer.requests_in_flight() == 0 && fate.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        fate = (&mut delivery).now_or_never();
    }
    delete(backend, &topic).await?;
    let fate = match fate {
        Some(fate) => fate,
        None => delivery.await,
    };
    producer.close(SOON).await?;
    backend.mend().await?;
    Ok(fate)
}

pub(crate) async fn a_record_that_waits_for_replicas_fails_when_its_topic_is_deleted(
    backend: &Backend,
) -> Outcome {
    // A record is tried until its time is up, which must be after the deletion, however long that takes.
    let mut limit = backend.patience() * 2;
    loop {
        match fate_of_waiting(backend, limit).await? {
            // The follower was given up before the topic was.
            Ok(written) => {
                assert_eq!(written.offset, Some(1));
                return Ok(());
            }
            Err(SendError::TimedOut { last: Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), .. }) => {
                return Ok(());
            }
            Err(SendError::TimedOut { .. }) if limit < SOON => limit *= 3,
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) async fn a_topic_deleted_and_created_again_under_a_stream_of_records_takes_the_later_ones(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("replaced", 1).await?;
    let producer: Producer = Producer::builder()
        .client(&backend.impatient_client()?)
        .batch_size(100)
        .linger_ms(Duration::ZERO)
        .build()?;
    let replaced = std::cell::Cell::new(false);
    let write = async {
        let (mut deliveries, mut sent, mut last) = (Vec::new(), 0_i64, i64::MAX);
        while sent < last {
            deliveries.push(producer.send(Record::new(topic.as_str()).value(sent.to_string())).await?);
            sent += 1;
            if sent % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            if last == i64::MAX && replaced.get() {
                last = sent + 200;
            }
        }
        let mut fates = Vec::new();
        for delivery in deliveries {
            fates.push(delivery.await);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(fates)
    };
    let replace = async {
        tokio::time::sleep(Duration::from_millis(40 + backend.chance(20))).await;
        delete(backend, &topic).await?;
        create_again(backend, &topic, 1).await?;
        replaced.set(true);
        Ok(())
    };
    let (fates, ()) = futures::try_join!(write, replace)?;
    let found = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert!(found.is_sorted_by(|a, b| a < b), "in order and none twice: {found:?}");
    // Whatever lies in the new topic was acknowledged there, and from the first one on all of it.
    let first = usize::try_from(*found.first().ok_or("the later records reach the new topic")?)?;
    assert_eq!(found.len(), fates.len() - first, "none is missing behind the first");
    for (offset, fate) in (0..).zip(&fates[first..]) {
        match fate {
            Ok(written) => {
                assert!(written.offset.is_none_or(|told| told == offset), "{written:?} at {offset}");
            }
            Err(error) => return Err(format!("record at offset {offset}: {error}").into()),
        }
    }
    Ok(())
}
