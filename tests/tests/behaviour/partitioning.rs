//! Where records go that name no partition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use klamm::partitioner::{Partitioner, Placement, Unplaced};
use klamm::{Acks, Delivery, Producer, ProducerBuilder, Record, SendError};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::sleep;

use crate::tools::{SOON, read};

/// Between twenty records: virtual time passes only while everybody waits.
const BREATH: Duration = Duration::from_millis(4);

pub(crate) async fn keys_land_where_the_named_client_puts_them(backend: &Backend) -> Outcome {
    // Answers of Java's murmur2, and of librdkafka's own functions.
    let keys = ["a", "kafka", "foobar", "123456789"];
    for (partitioner, expected) in [
        (None, [4, 4, 0, 0]),
        (Some("consistent"), [3, 5, 5, 2]),
        (Some("consistent_random"), [3, 5, 5, 2]),
        (Some("murmur2_random"), [4, 4, 0, 0]),
        (Some("fnv1a_random"), [0, 5, 0, 0]),
    ] {
        let topic = backend.topic("by-name", 6).await?;
        let named = partitioner.map(|name| ("partitioner", name));
        let producer: Producer = Producer::from_properties(named)?.client(&backend.client()?).build()?;
        for key in keys {
            producer.send_and_wait(Record::new(topic.as_str()).key(key).value("v")).await?;
        }
        producer.close(SOON).await?;
        let found: BTreeMap<_, _> = read(backend, &topic, 6, keys.len())
            .await?
            .into_iter()
            .map(|record| (record.key.unwrap_or_default(), record.partition))
            .collect();
        for (key, partition) in keys.iter().zip(expected) {
            assert_eq!(found.get(key.as_bytes()), Some(&partition), "{key} by {partitioner:?}");
        }
    }
    Ok(())
}

/// Places every other record on partition 1, and fails as the value says.
struct Mine(AtomicI32);

impl Partitioner for Mine {
    fn partition(&self, record: &Unplaced<'_>) -> Placement {
        match record.value() {
            Some(b"impossible") => Placement::Partition(record.partitions()),
            Some(b"panic") => std::panic::resume_unwind(Box::new("on purpose")), // without printing it
            _ if self.0.fetch_add(1, Ordering::SeqCst) % 2 == 0 => Placement::Partition(1),
            _ => Placement::Sticky,
        }
    }
}

pub(crate) async fn a_partitioner_that_panics_or_errs_fails_its_record_only(backend: &Backend) -> Outcome {
    let topic = backend.topic("by-hand", 3).await?;
    let producer: Producer =
        Producer::builder().client(&backend.client()?).partitioner_class(Mine(AtomicI32::new(0))).build()?;
    for value in ["impossible", "panic"] {
        let placed = producer.send_and_wait(Record::new(topic.as_str()).key("k").value("v")).await?;
        assert_eq!(placed.partition, 1);
        producer.send_and_wait(Record::new(topic.as_str()).key("k").value("v")).await?;
        let failed = producer.send(Record::new(topic.as_str()).key("k").value(value)).await;
        let error = failed.err().ok_or("it must fail")?;
        assert!(matches!(error, SendError::Partitioner { .. }), "{error:?}");
        assert!(error.to_string().contains(&topic) && !error.maybe_written(), "{error}");
    }
    producer.close(SOON).await?;
    assert_eq!(read(backend, &topic, 3, 4).await?.len(), 4);
    Ok(())
}

/// Sends records without a key in batches of a few, at an even pace.
async fn stream(producer: &Producer, topic: &str, count: usize) -> Result<Vec<Delivery>, SendError> {
    let mut deliveries = Vec::with_capacity(count);
    for index in 0..count {
        deliveries.push(producer.send(Record::new(topic).value("x".repeat(100))).await?);
        if index % 20 == 0 {
            sleep(BREATH).await;
        }
    }
    Ok(deliveries)
}

fn spread(backend: &Backend) -> Result<ProducerBuilder, Box<dyn std::error::Error + Send + Sync>> {
    // With acks=1 a paused follower holds nobody up, only a paused leader does.
    let builder = Producer::builder().client(&backend.impatient_client()?).acks(Acks::Leader);
    Ok(builder.batch_size(400).linger_ms(Duration::ZERO))
}

pub(crate) async fn records_without_a_key_spread_evenly(backend: &Backend) -> Outcome {
    let topic = backend.topic("even", 3).await?;
    let mut builders = vec![
        spread(backend)?.partitioner_adaptive_partitioning_enable(false),
        spread(backend)?.partitioner_class(klamm::partitioner::RoundRobin::new()),
    ];
    for builder in builders.drain(..) {
        let producer: Producer = builder.build()?;
        let mut counts = [0; 3];
        for delivery in stream(&producer, &topic, 1_200).await? {
            counts[delivery.await?.partition as usize] += 1;
        }
        assert!(counts.iter().all(|count| (250..550).contains(count)), "{counts:?}");
        producer.close(SOON).await?;
    }
    Ok(())
}

/// Pauses the leader of one of three partitions; how many of 1,500 records without a key go to that broker.
async fn sent_to_a_paused_leader(
    backend: &Backend,
    builder: ProducerBuilder,
) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let topic = backend.topic("adaptive", 3).await?;
    let mut leaders = Vec::new();
    for partition in 0..3 {
        backend.until_in_sync(&topic, partition, 3).await?;
        leaders.push(backend.leader_of(&topic, partition).await?);
    }
    assert!(leaders.iter().any(|leader| *leader != leaders[0]), "one broker leads all: {leaders:?}");
    let slow: Vec<usize> = (0..3).filter(|partition| leaders[*partition] == leaders[0]).collect();
    let producer: Producer = builder.build()?;
    for partition in 0..3 {
        producer.send_and_wait(Record::new(topic.as_str()).partition(partition).value("first")).await?;
    }
    backend.pause(leaders[0]).await?;
    let before = stream(&producer, &topic, 500).await?; // what is found out about the broker, it is by these
    let after = stream(&producer, &topic, 1_500).await?;
    let sent = after.iter().filter(|delivery| slow.contains(&(delivery.partition() as usize))).count();
    backend.mend().await?;
    for delivery in before.into_iter().chain(after) {
        delivery.await?;
    }
    producer.close(SOON).await?;
    // As if one partition of three were led by it.
    Ok(sent / slow.len())
}

pub(crate) async fn records_without_a_key_go_mostly_to_leaders_that_are_not_paused(
    backend: &Backend,
) -> Outcome {
    let sent = sent_to_a_paused_leader(backend, spread(backend)?).await?;
    assert!(sent < 150, "{sent} of 1500 went to a leader that takes nothing");
    Ok(())
}

pub(crate) async fn without_adaption_records_without_a_key_go_to_a_paused_leader_as_well(
    backend: &Backend,
) -> Outcome {
    let builder = spread(backend)?.partitioner_adaptive_partitioning_enable(false);
    let sent = sent_to_a_paused_leader(backend, builder).await?;
    assert!(sent > 300, "only {sent} of 1500, where a third is due");
    Ok(())
}

pub(crate) async fn a_leader_that_takes_nothing_for_the_availability_timeout_gets_nothing(
    backend: &Backend,
) -> Outcome {
    let builder = spread(backend)?.partitioner_availability_timeout_ms(Duration::from_millis(20));
    let sent = sent_to_a_paused_leader(backend, builder).await?;
    assert_eq!(sent, 0, "of 1500");
    Ok(())
}
