//! What a producer's presets and the topics that go with them promise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm::fault::Fault;
use klamm::{Acks, ApiKey, Delivery, ErrorCode, NewTopic, Producer, ProducerBuilder, Record, SendError};
use klamm_tests::backend::Backend;
use klamm_tests::raw;
use klamm_tests::suite::Outcome;
use klamm_wire::StrBytes;
use klamm_wire::messages::DescribeConfigsRequest;
use klamm_wire::messages::describe_configs_request::DescribeConfigsResource;
use klamm_wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use tokio::time::sleep;

use crate::tools::{SOON, number, read, read_all};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Records on either side of a fault.
const SOME: i64 = 60;
/// Between records: virtual time passes only while everybody waits.
const BREATH: Duration = Duration::from_millis(2);

async fn create(backend: &Backend, topic: NewTopic) -> Outcome {
    backend.client()?.admin().create_topics([topic]).await?.all()?;
    Ok(())
}

fn producer(backend: &Backend) -> Result<ProducerBuilder, Error> {
    Ok(Producer::builder().client(&backend.impatient_client()?))
}

/// Sends the numbers of a range, each in a batch of its own.
async fn send(
    producer: &Producer,
    topic: &str,
    numbers: std::ops::Range<i64>,
) -> Result<Vec<Delivery>, SendError> {
    let mut deliveries = Vec::new();
    for index in numbers {
        let record = Record::new(topic).key("same").value(index.to_string());
        deliveries.push(producer.send(record).await?);
        sleep(BREATH).await;
    }
    Ok(deliveries)
}

/// The numbers in the one partition that they are in.
async fn stored(backend: &Backend, topic: &str, partition: i32) -> Result<Vec<i64>, Error> {
    let records = read_all(backend, topic, partition).await?;
    records.iter().map(|record| Ok(number(record)?)).collect()
}

pub(crate) async fn topics_have_the_settings_of_their_preset(backend: &Backend) -> Outcome {
    let cluster = backend.client()?.admin().describe_cluster().await?;
    let address = cluster.brokers.first().map(|broker| format!("{}:{}", broker.host, broker.port));
    let address = address.ok_or("a broker")?;
    let never = "9223372036854775807";
    for (preset, replicas, in_sync, flush) in [
        (NewTopic::high_throughput as fn(String) -> NewTopic, 2, "1", never),
        (NewTopic::reliable, 3, "2", never),
        (NewTopic::highly_reliable, 3, "2", "1"),
    ] {
        let name = backend.fresh_topic("preset");
        create(backend, preset(name.clone())).await?;
        let shape = |topic: &klamm::TopicDescription| {
            topic.partitions.iter().map(|partition| partition.replicas.len()).collect::<Vec<_>>()
        };
        let shape = backend.until_described(&name, |told| told.ok().map(shape)).await?;
        assert_eq!(shape, [replicas; 3]);
        let told = configs(&address, &name).await?;
        let told = ["min.insync.replicas", "flush.messages"].map(|name| told.get(name).map(String::as_str));
        assert_eq!(told, [Some(in_sync), Some(flush)]);
    }
    let name = backend.fresh_topic("preset");
    create(backend, NewTopic::highly_reliable(&name).partitions(1).config("min.insync.replicas", "3"))
        .await?;
    backend.until_described(&name, |told| (told.ok()?.partitions.len() == 1).then_some(())).await?;
    let told = configs(&address, &name).await?;
    assert_eq!(told.get("min.insync.replicas").map(String::as_str), Some("3"), "what is set later counts");
    Ok(())
}

/// A topic's settings as a broker tells them, once it knows the topic.
async fn configs(address: &str, topic: &str) -> Result<BTreeMap<String, String>, Error> {
    let named = StrBytes::from_string(topic.to_owned());
    let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(named);
    let request = DescribeConfigsRequest::default().with_resources(vec![topic.with_configuration_keys(None)]);
    loop {
        let (address, request) = (address.to_owned(), request.clone());
        let answer = tokio::task::spawn_blocking(move || raw::exchange(&address, 1, &request)).await??;
        let told = answer.results.into_iter().next().ok_or("one result")?;
        if told.error_code == 0 {
            let text = |text: StrBytes| text.as_str().to_owned();
            let pair = |one: DescribeConfigsResourceResult| {
                (text(one.name), one.value.map(text).unwrap_or_default())
            };
            return Ok(told.configs.into_iter().map(pair).collect());
        }
        sleep(BREATH).await;
    }
}

pub(crate) async fn high_throughput_is_acknowledged_by_the_leader_alone_or_by_nobody(
    backend: &Backend,
) -> Outcome {
    let name = backend.fresh_topic("fast");
    // A third replica, so that there is a follower that is not the active controller.
    create(backend, NewTopic::high_throughput(&name).partitions(1).replicas(3)).await?;
    backend.until_in_sync(&name, 0, 3).await?;
    backend.pause(backend.follower_of(&name, 0).await?).await?;
    for acks in [Acks::Leader, Acks::None] {
        let producer: Producer = producer(backend)?.high_throughput(acks).build()?;
        for delivery in send(&producer, &name, 0..SOME).await? {
            assert_eq!(delivery.await?.offset.is_some(), acks == Acks::Leader, "{acks:?}");
        }
        producer.close(SOON).await?;
    }
    backend.mend().await?;
    // Shown only when the follower has them, which nobody waited for until now.
    let records = read(backend, &name, 1, 2 * SOME as usize).await?;
    let numbers: BTreeSet<i64> = records.iter().map(number).collect::<Result<_, _>>()?;
    assert_eq!(numbers.len() as i64, SOME, "nothing was lost, as no broker was");
    Ok(())
}

/// Writes to a topic, before and after its leader is killed that has records which no follower has heard of; each record
/// must be there once and in order.
async fn survives_a_kill(
    backend: &Backend,
    topic: NewTopic,
    name: &str,
    builder: ProducerBuilder,
) -> Outcome {
    create(backend, topic).await?;
    let producer: Producer = builder.build()?;
    let partition = send(&producer, name, 0..1).await?.remove(0).await?.partition;
    backend.until_in_sync(name, partition as usize, 3).await?;
    let mut deliveries = send(&producer, name, 1..SOME).await?;
    let leader = backend.leader_of(name, partition as usize).await?;
    let replicas = backend
        .until_described(name, |told| Some(told.ok()?.partitions.get(partition as usize)?.replicas.clone()));
    let followers: Vec<i32> = replicas.await?.into_iter().filter(|replica| *replica != leader).collect();
    for follower in &followers {
        backend.pause(*follower).await?;
    }
    deliveries.extend(send(&producer, name, SOME..2 * SOME).await?);
    backend.kill(leader).await?;
    for follower in followers {
        backend.resume(follower).await?;
    }
    deliveries.extend(send(&producer, name, 2 * SOME..3 * SOME).await?);
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(SOON).await?;
    assert_ne!(backend.leader_of(name, partition as usize).await?, leader);
    assert_eq!(stored(backend, name, partition).await?, (0..3 * SOME).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn reliable_survives_the_kill_of_a_leader(backend: &Backend) -> Outcome {
    let name = backend.fresh_topic("reliable");
    survives_a_kill(backend, NewTopic::reliable(&name), &name, producer(backend)?.reliable()).await
}

pub(crate) async fn highly_reliable_survives_the_kill_of_a_leader(backend: &Backend) -> Outcome {
    let name = backend.fresh_topic("synced");
    let topic = NewTopic::highly_reliable(&name);
    survives_a_kill(backend, topic, &name, producer(backend)?.highly_reliable()).await
}

pub(crate) async fn highly_reliable_survives_a_loss_of_power_of_all(backend: &Backend) -> Outcome {
    let name = backend.fresh_topic("power");
    create(backend, NewTopic::highly_reliable(&name)).await?;
    let producer: Producer = producer(backend)?.highly_reliable().build()?;
    let mut partition = 0;
    for delivery in send(&producer, &name, 0..SOME).await? {
        partition = delivery.await?.partition;
    }
    backend.power_off_all().await?;
    backend.mend().await?;
    for delivery in send(&producer, &name, SOME..2 * SOME).await? {
        delivery.await?;
    }
    producer.close(SOON).await?;
    assert_eq!(stored(backend, &name, partition).await?, (0..2 * SOME).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn ordered_keeps_order_over_a_leader_change_even_without_idempotence(
    backend: &Backend,
) -> Outcome {
    for idempotent in [true, false] {
        let name = backend.fresh_topic("ordered");
        create(backend, NewTopic::reliable(&name)).await?;
        let builder = producer(backend)?.reliable().ordered().enable_idempotence(idempotent);
        let producer: Producer = builder.batch_size(100).build()?;
        let partition = send(&producer, &name, 0..1).await?.remove(0).await?.partition;
        backend.until_in_sync(&name, partition as usize, 3).await?;
        let leader = backend.leader_of(&name, partition as usize).await?;
        let mut deliveries = send(&producer, &name, 1..SOME).await?;
        // Paused amid writes: it may have taken what it has not acknowledged.
        let (paused, more) = tokio::join!(backend.pause(leader), send(&producer, &name, SOME..2 * SOME));
        paused?;
        deliveries.extend(more?);
        backend.until_leader(&name, partition as usize, |now| now != leader).await?;
        deliveries.extend(send(&producer, &name, 2 * SOME..3 * SOME).await?);
        for delivery in deliveries {
            delivery.await?;
        }
        producer.close(SOON).await?;
        // Read while the old leader is still paused: awake, it would show what it had until it hears of its successor.
        let mut seen = BTreeSet::new();
        let mut first = stored(backend, &name, partition).await?;
        backend.mend().await?;
        let all = first.len() as i64;
        first.retain(|number| seen.insert(*number));
        assert_eq!(first, (0..3 * SOME).collect::<Vec<_>>(), "idempotent: {idempotent}");
        assert!(!idempotent || all == 3 * SOME, "{all} records, some twice");
    }
    Ok(())
}

/// Goal: a request that fails is the only one whose records are missing, and the rest is in order.
pub(crate) async fn without_retries_order_is_kept_by_leaving_out_what_failed(backend: &Backend) -> Outcome {
    for ordered in [true, false] {
        let topic = backend.topic("no-retries", 1).await?;
        // With retries, as a leader may not have heard yet that it is one.
        let first: Producer = producer(backend)?.build()?;
        first.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
        first.close(SOON).await?;
        let (builder, faults) = backend.faulty_client_builder();
        let builder = Producer::builder().client(&builder.build()?);
        let builder = if ordered { builder.ordered() } else { builder };
        let producer: Producer = builder.retries(0).batch_size(0).linger_ms(Duration::ZERO).build()?;
        let refusal = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let rule = faults.on(ApiKey::Produce).skip(2).times(1).then(refusal);
        let mut failed = Vec::new();
        for (index, delivery) in (1..).zip(send(&producer, &topic, 1..SOME).await?) {
            match delivery.await {
                Ok(_) => {}
                Err(SendError::RetriesExhausted { .. }) => failed.push(index),
                Err(other) => return Err(other.into()),
            }
        }
        producer.close(SOON).await?;
        assert_eq!(rule.hits(), 1);
        // Each request has one record.
        assert_eq!(failed, [3], "the third one was refused");
        let written = SOME as usize - failed.len();
        let records = read(backend, &topic, 1, written).await?;
        let numbers: Vec<i64> = records.iter().map(number).collect::<Result<_, _>>()?;
        let expected: Vec<i64> = (0..SOME).filter(|number| !failed.contains(number)).collect();
        assert_eq!(numbers, expected, "ordered: {ordered}");
    }
    Ok(())
}
