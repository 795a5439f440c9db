//! Where records go that name no partition.

use super::*;
use crate::partitioner::{Librdkafka, Partitioner, PartitionerError, Placement, RoundRobin, Unplaced};

const ALL: std::ops::Range<i32> = 0..broker::PARTITIONS;

/// Does what the value says.
struct Obedient;

impl Partitioner for Obedient {
    fn partition(&self, record: &Unplaced<'_>) -> Placement {
        assert_eq!((record.topic(), record.partitions(), &*record.available()), ("t", 3, &[0, 1, 2][..]));
        match std::str::from_utf8(record.value().unwrap_or_default()).unwrap_or_default() {
            "key" => Placement::Partition(record.key().map_or(0, |key| i32::from(key[0]))),
            "sticky" => Placement::Sticky,
            "random" => Placement::Random,
            "panic" => std::panic::resume_unwind(Box::new("on purpose")), // without printing it
            number => Placement::Partition(number.parse().unwrap()),
        }
    }
}

fn record(value: &'static str) -> Record {
    Record::new("t").value(value)
}

#[tokio::test(start_paused = true)]
async fn a_partitioner_of_the_users_sees_key_value_and_partitions_and_is_obeyed() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).partitioner_class(Obedient).build().unwrap();
    for partition in ALL {
        let key = vec![u8::try_from(partition).unwrap()];
        assert_eq!(producer.send(record("key").key(key)).await.unwrap().partition(), partition);
    }
    assert_eq!(producer.send(record("2")).await.unwrap().partition(), 2);
    assert_eq!(
        producer.send(record("0").partition(1)).await.unwrap().partition(),
        1,
        "the record's own goes first"
    );
    let mut seen = [0; 3];
    for _ in 0..300 {
        seen[producer.send(record("random")).await.unwrap().partition() as usize] += 1;
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    let first = producer.send(record("sticky")).await.unwrap().partition();
    for _ in 0..20 {
        assert_eq!(producer.send(record("sticky")).await.unwrap().partition(), first);
    }
    producer.flush().await.unwrap();
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_partitioner_that_panics_or_names_an_impossible_partition_fails_that_record_only() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).partitioner_class(Obedient).build().unwrap();
    for (value, said) in [
        (
            "3",
            "partitioner for topic \"t\": named partition 3 of 3; it must be at least 0 and less than that",
        ),
        (
            "-1",
            "partitioner for topic \"t\": named partition -1 of 3; it must be at least 0 and less than that",
        ),
        ("panic", "partitioner for topic \"t\": panicked: on purpose"),
    ] {
        let error = producer.send(record(value)).await.unwrap_err();
        assert_eq!(error.to_string(), said);
        assert_eq!((error.recovery(), error.maybe_written()), (Recovery::Fix, false));
        let error = producer.try_send(record(value)).unwrap_err();
        assert!(matches!(error.reason, SendError::Partitioner { .. }), "{error:?}");
        producer.send_and_wait(record("1")).await.unwrap();
    }
    let error = producer.send(record("4")).await.unwrap_err();
    let source = PartitionerError::NoSuchPartition { partition: 4, partitions: 3 };
    assert!(matches!(error, SendError::Partitioner { source: told, .. } if told == source));
    assert_eq!(broker.values(1), ["1"; 3]);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn partitioners_of_other_clients_are_chosen_by_name() {
    let broker = Broker::default();
    let named = |name: &str, value: &str| -> Producer {
        let named = Producer::from_properties([(name, value)]).unwrap();
        named.bootstrap_servers("here:1").connector(broker.connector()).build().unwrap()
    };
    let robin = named("partitioner.class", "org.apache.kafka.clients.producer.RoundRobinPartitioner");
    let by_hand: Producer = builder(&broker).partitioner_class(RoundRobin::new()).build().unwrap();
    for partition in ALL.chain(ALL) {
        for producer in [&robin, &by_hand] {
            let delivery = producer.send(Record::new("t").key("same")).await.unwrap();
            assert_eq!(delivery.partition(), partition);
        }
    }
    for known in Librdkafka::ALL {
        let producer = named("partitioner", known.name());
        let unplaced = Unplaced::new("t", 3).with_key(b"kafka");
        let told = producer.send(Record::new("t").key("kafka")).await.unwrap().partition();
        match known.partition(&unplaced) {
            Placement::Partition(partition) => assert_eq!(told, partition, "{known:?}"),
            other => assert_eq!((known, other), (Librdkafka::Random, Placement::Random)),
        }
    }
    for (pairs, said) in [
        (
            &[("partitioner.class", "com.example.Mine")][..],
            "partitioner.class=com.example.Mine: must be empty for the default, or \
             org.apache.kafka.clients.producer.RoundRobinPartitioner; other classes cannot be loaded, write a \
             Partitioner and give it to the builder",
        ),
        (
            &[("partitioner", "crc")],
            "partitioner=crc: must be one of random, consistent, consistent_random, murmur2, murmur2_random, fnv1a, \
             fnv1a_random",
        ),
        (
            &[("partitioner", "fnv1a"), ("partitioner.class", "RoundRobinPartitioner")],
            "partitioner.class=RoundRobinPartitioner: must be left out, because partitioner is given, too",
        ),
    ] {
        assert_eq!(Producer::from_properties(pairs.iter().copied()).unwrap_err().to_string(), said);
    }
}

/// Batches that wait for each partition.
fn waiting(producer: &Producer) -> Vec<u32> {
    let topic = producer.inner.accumulator.topics.get(&"t".into()).unwrap();
    topic.slots.iter().map(|slot| slot.waiting()).collect()
}

/// Goal: what the chances of partitions depend on is right at any moment, and nothing is left of it in the end.
#[tokio::test(start_paused = true)]
async fn batches_wait_from_when_they_are_opened_until_they_are_sent_or_given_up() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker)
        .batch_size(0)
        .linger_ms(Duration::ZERO)
        .request_timeout_ms(S)
        .delivery_timeout_ms(5 * S)
        .build()
        .unwrap();
    producer.send_and_wait(line("first")).await.unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(producer.send(line("silence")).await.unwrap());
    }
    assert_eq!(waiting(&producer), [8, 0, 0]);
    producer.inner.accumulator.client.rt().sleep(10 * MS).await;
    assert_eq!(waiting(&producer), [3, 0, 0], "five are under way");
    for delivery in open {
        assert!(delivery.await.is_err());
    }
    assert_eq!(waiting(&producer), [0, 0, 0]);
    broker.0.lock().always = None;
    producer.send_and_wait(line("last")).await.unwrap();
    assert_eq!(waiting(&producer), [0, 0, 0]);
    check_memory(&producer).await;
}

/// How many of 3,000 records of a batch each go to partition 0, where 20 batches wait already.
async fn to_the_slow_one(builder: ProducerBuilder, broker: &Broker) -> usize {
    let producer: Producer = builder
        .batch_size(0)
        .linger_ms(Duration::from_secs(3600))
        .max_in_flight_requests_per_connection(1)
        .build()
        .unwrap();
    producer.send_and_wait(line("first")).await.unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    for _ in 0..20 {
        drop(producer.send(line("slow")).await.unwrap());
    }
    let mut slow = 0;
    for _ in 0..300 {
        // Nobody else runs meanwhile, so that all of it still waits.
        slow += usize::from(producer.send(Record::new("t").value("any")).await.unwrap().partition() == 0);
    }
    slow
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_prefer_partitions_with_few_batches_waiting() {
    let broker = Broker::default();
    let even =
        to_the_slow_one(builder(&broker).partitioner_adaptive_partitioning_enable(false), &broker).await;
    assert!((75..125).contains(&even), "{even} of 300, without adaption");
    broker.0.lock().always = None;
    // All partitions fill up alike but for the twenty that the first is ahead.
    let slow = to_the_slow_one(builder(&broker), &broker).await;
    assert!((60..94).contains(&slow), "{slow} of 300, where {} would make all queues equal", (320 / 3) - 20);
}
