//! Bad input, and what it gets.

use std::time::Duration;

use klamm::{
    Consumer, ErrorCode, NewTopic, OffsetReset, Producer, Record, Recovery, StartOffset, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::Instant;

pub(crate) async fn an_unknown_topic_is_named_when_auto_creation_is_not_asked_for(
    backend: &Backend,
) -> Outcome {
    let name = backend.fresh_topic("nowhere");
    let described = backend.client()?.admin().describe_topics([name.as_str()]).await?.all();
    let error = described.err().ok_or("it must not exist")?;
    assert_eq!(error.code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(error.to_string().contains(&name), "{error}");
    Ok(())
}

pub(crate) async fn an_invalid_topic_name_is_refused_at_once(backend: &Backend) -> Outcome {
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let asked = Instant::now();
    let refused = producer.send(Record::new("no blanks allowed").value("v")).await;
    let error = refused.err().ok_or("the name is invalid")?;
    assert!(error.to_string().contains("no blanks allowed"), "{error}");
    assert_eq!(error.recovery(), Recovery::Fix);
    assert!(!error.maybe_written());
    assert!(asked.elapsed() < Duration::from_secs(50), "not after max.block.ms");
    let created = backend.client()?.admin().create_topics([NewTopic::new("no blanks allowed")]).await?.all();
    assert_eq!(created.err().map(|error| error.code), Some(ErrorCode::INVALID_TOPIC_EXCEPTION));
    Ok(())
}

pub(crate) async fn a_record_over_max_request_size_is_refused_and_the_next_one_goes_through(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("oversize", 1).await?;
    let producer: Producer =
        Producer::builder().client(&backend.client()?).max_request_size(10_000).build()?;
    let refused = producer.send(Record::new(topic.as_str()).value(vec![0; 20_000])).await;
    let error = refused.err().ok_or("20,000 bytes do not fit into 10,000")?;
    assert!(error.to_string().contains("10000") && error.recovery() == Recovery::Fix, "{error}");
    assert_eq!(producer.send_and_wait(Record::new(topic.as_str()).value("fits")).await?.offset, Some(0));
    Ok(())
}

pub(crate) async fn a_topic_cannot_be_created_twice(backend: &Backend) -> Outcome {
    let name = backend.topic("twice", 1).await?;
    let admin = backend.client()?.admin();
    let again = admin.create_topics([NewTopic::new(&name).partitions(1).replicas(1)]).await?.all();
    assert_eq!(again.err().map(|error| error.code), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
    let too_many = admin.create_topics([NewTopic::new(backend.fresh_topic("many")).replicas(9)]).await?.all();
    assert_eq!(too_many.err().map(|error| error.code), Some(ErrorCode::INVALID_REPLICATION_FACTOR));
    let strange = NewTopic::new(backend.fresh_topic("strange")).config("no.such.config", "1");
    let strange = admin.create_topics([strange]).await?.all();
    assert_eq!(strange.err().map(|error| error.code), Some(ErrorCode::INVALID_CONFIG));
    Ok(())
}

pub(crate) async fn an_offset_out_of_range_follows_the_policy(backend: &Backend) -> Outcome {
    let topic = backend.topic("range", 1).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    producer.send_and_wait(Record::new(topic.as_str()).value("first")).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);

    let strict: Consumer =
        Consumer::builder().client(&client).auto_offset_reset(OffsetReset::None).build()?;
    strict.assign([(partition.clone(), StartOffset::Offset(1_000))]);
    let said = strict.recv().await.err().ok_or("offset 1000 does not exist")?.to_string();
    assert!(said.contains("1000") && said.contains(&topic), "{said}");

    let earliest: Consumer =
        Consumer::builder().client(&client).auto_offset_reset(OffsetReset::Earliest).build()?;
    earliest.assign([(partition, StartOffset::Offset(1_000))]);
    assert_eq!(earliest.recv().await?.offset, 0);
    Ok(())
}
