//! Where records go that name no partition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use klamm::fault::Fault;
use klamm::partitioner::{Partitioner, Placement, Unplaced};
use klamm::{ApiKey, Client, Delivery, Producer, ProducerBuilder, Record, SendError};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::sleep;

use crate::tools::{SOON, read};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Records between two waits.
const ROUND: usize = 20;
/// Records of which it is looked where they go.
const COUNTED: usize = 600;
/// Of the tests of it. A healthy broker takes something within this time, however busy the machine is.
const AVAILABILITY_TIMEOUT: Duration = Duration::from_secs(3);

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

/// Sends records without a key in batches of a few. Goes on whenever those are acknowledged that are not for a slow
/// partition, so that batches wait for no other, however busy the machine is.
async fn stream(
    producer: &Producer,
    topic: &str,
    count: usize,
    slow: &[usize],
) -> Result<Vec<Delivery>, SendError> {
    let (mut stuck, mut all) = (Vec::new(), Vec::with_capacity(count));
    for _ in 0..count.div_ceil(ROUND) {
        let mut round = Vec::with_capacity(ROUND);
        for _ in 0..ROUND {
            round.push(producer.send(Record::new(topic).value("x".repeat(100))).await?);
        }
        for delivery in round {
            match slow.contains(&(delivery.partition() as usize)) {
                true => stuck.push(delivery),
                false => all.push(Delivery::acknowledged(delivery.await?)),
            }
        }
    }
    all.append(&mut stuck);
    Ok(all)
}

fn spread(client: &Client) -> ProducerBuilder {
    Producer::builder().client(client).batch_size(400).linger_ms(Duration::ZERO)
}

pub(crate) async fn records_without_a_key_spread_evenly(backend: &Backend) -> Outcome {
    let topic = backend.topic("even", 3).await?;
    let client = backend.client()?;
    for builder in [
        spread(&client).partitioner_adaptive_partitioning_enable(false),
        spread(&client).partitioner_class(klamm::partitioner::RoundRobin::new()),
    ] {
        let producer: Producer = builder.build()?;
        let mut counts = [0; 3];
        for delivery in stream(&producer, &topic, 1_200, &[]).await? {
            counts[delivery.await?.partition as usize] += 1;
        }
        assert!(counts.iter().all(|count| (250..550).contains(count)), "{counts:?}");
        producer.close(SOON).await?;
    }
    Ok(())
}

/// Batches that are more than five requests hold.
const ENOUGH_TO_STALL: usize = 8;

/// Takes the answers of a broker away that leads one of three partitions; how many of [`COUNTED`] records without a key
/// go to it once it has been silent for this time with more waiting for it than may be on its way.
async fn sent_to_a_silent_leader(
    backend: &Backend,
    silence: Duration,
    settings: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
) -> Result<usize, Error> {
    let topic = backend.topic("adaptive", 3).await?;
    let mut leaders = Vec::new();
    for partition in 0..3 {
        leaders.push(backend.leader_of(&topic, partition).await?);
    }
    assert!(leaders.iter().any(|leader| *leader != leaders[0]), "one broker leads all: {leaders:?}");
    let slow: Vec<usize> = (0..3).filter(|partition| leaders[*partition] == leaders[0]).collect();
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let silent = brokers.iter().find(|broker| broker.id == leaders[0]).ok_or("the leader's address")?;
    let (builder, faults) = backend.faulty_client_builder();
    // Nobody gives up on the broker while records are counted.
    let client = builder.request_timeout_ms(Duration::from_secs(100)).build()?;
    let producer: Producer = settings(spread(&client)).build()?;
    for partition in 0..3 {
        producer.send_and_wait(Record::new(topic.as_str()).partition(partition).value("first")).await?;
    }
    let to = format!("{}:{}", silent.host, silent.port);
    let rule = faults.on(ApiKey::Produce).to(to).then(Fault::DropAnswer);
    // What can be found out about the broker, it is by these. The last ones take leave of the partition they are for.
    let mut before = Vec::new();
    for _ in 0..ENOUGH_TO_STALL {
        let alone = Record::new(topic.as_str()).partition(slow[0] as i32).value("x".repeat(300));
        before.push(producer.send(alone).await?);
    }
    sleep(silence).await;
    let leave = stream(&producer, &topic, ROUND, &slow).await?;
    let counted = stream(&producer, &topic, COUNTED, &slow).await?;
    assert!(rule.hits() > 0);
    drop((before, leave)); // these are not to be acknowledged
    // As if one partition of three were led by it.
    let sent = counted.iter().filter(|delivery| slow.contains(&(delivery.partition() as usize))).count();
    Ok(sent / slow.len())
}

pub(crate) async fn records_without_a_key_go_mostly_to_leaders_that_answer(backend: &Backend) -> Outcome {
    let sent = sent_to_a_silent_leader(backend, Duration::ZERO, |builder| builder).await?;
    assert!(sent < COUNTED / 6, "{sent} of {COUNTED} went to a leader that takes nothing");
    Ok(())
}

pub(crate) async fn without_adaption_records_without_a_key_go_to_a_silent_leader_as_well(
    backend: &Backend,
) -> Outcome {
    let uniform = |builder: ProducerBuilder| builder.partitioner_adaptive_partitioning_enable(false);
    let sent = sent_to_a_silent_leader(backend, Duration::ZERO, uniform).await?;
    assert!(sent > COUNTED / 5, "only {sent} of {COUNTED}, where a third is due");
    Ok(())
}

pub(crate) async fn a_leader_that_takes_nothing_for_the_availability_timeout_gets_nothing(
    backend: &Backend,
) -> Outcome {
    let limited =
        |builder: ProducerBuilder| builder.partitioner_availability_timeout_ms(AVAILABILITY_TIMEOUT);
    let sent = sent_to_a_silent_leader(backend, 2 * AVAILABILITY_TIMEOUT, limited).await?;
    assert_eq!(sent, 0, "of {COUNTED}");
    Ok(())
}
