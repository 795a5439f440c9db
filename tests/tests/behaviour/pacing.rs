//! A broker that asks for a pause (KIP-219), and clients that grant it.

use std::time::Duration;

use futures::FutureExt;
use klamm::fault::Fault;
use klamm::{ApiKey, Consumer, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::Instant;

use crate::tools::SOON;

const PAUSE: Duration = Duration::from_millis(1_500);

pub(crate) async fn a_producer_obeys_a_brokers_throttle_time(backend: &Backend) -> Outcome {
    let topic = backend.topic("throttled", 1).await?;
    let (builder, faults) = backend.faulty_client_builder();
    let producer: Producer =
        Producer::builder().client(&builder.build()?).linger_ms(Duration::ZERO).build()?;
    let rule = faults.on(ApiKey::Produce).times(1).then(Fault::Throttle(PAUSE));
    let begun = Instant::now();
    producer.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    assert_eq!(rule.hits(), 1);
    producer.send_and_wait(Record::new(topic.as_str()).value("1")).await?;
    assert!(begun.elapsed() >= PAUSE, "sent on after {:?}", begun.elapsed());
    // The pause was asked for once.
    producer.send_and_wait(Record::new(topic.as_str()).value("2")).await?;
    producer.close(SOON).await?;
    Ok(())
}

pub(crate) async fn a_throttled_broker_holds_up_no_other_one(backend: &Backend) -> Outcome {
    let topic = backend.topic("one-throttled", 3).await?;
    let leaders = [backend.leader_of(&topic, 0).await?, backend.leader_of(&topic, 1).await?];
    assert_ne!(leaders[0], leaders[1], "leaders are spread over the brokers");
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let slow = brokers.iter().find(|broker| broker.id == leaders[0]).ok_or("the leader's address")?;
    let (builder, faults) = backend.faulty_client_builder();
    let producer: Producer =
        Producer::builder().client(&builder.build()?).linger_ms(Duration::ZERO).build()?;
    let record = |partition| Record::new(topic.as_str()).partition(partition).value("v");
    let to = format!("{}:{}", slow.host, slow.port);
    // Longer than anybody waits.
    let rule = faults.on(ApiKey::Produce).to(to).times(1).then(Fault::Throttle(Duration::from_secs(3600)));
    producer.send_and_wait(record(0)).await?;
    assert_eq!(rule.hits(), 1);
    let mut waiting = producer.send(record(0)).await?;
    for offset in 0..3 {
        let written = tokio::time::timeout(SOON, producer.send_and_wait(record(1))).await??;
        assert_eq!(written.offset, Some(offset), "another broker's record is acknowledged meanwhile");
    }
    let early = (&mut waiting).now_or_never();
    assert!(early.is_none(), "{early:?} amid the pause");
    Ok(())
}

pub(crate) async fn a_consumer_obeys_a_brokers_throttle_time(backend: &Backend) -> Outcome {
    let topic = backend.topic("slow-reading", 1).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    producer.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    let (builder, faults) = backend.faulty_client_builder();
    let rule = faults.on(ApiKey::Fetch).then(Fault::Throttle(PAUSE));
    let begun = Instant::now();
    let consumer: Consumer =
        Consumer::builder().client(&builder.build()?).fetch_max_wait_ms(Duration::from_millis(10)).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    assert_eq!(consumer.recv().await?.value.as_deref(), Some(&b"0"[..]));
    rule.until_hits(3).await;
    assert!(begun.elapsed() >= 2 * PAUSE, "asked three times in {:?}", begun.elapsed());
    Ok(())
}
