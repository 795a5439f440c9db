//! What a producer promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm::{
    Acks, Compression, Consumer, Extensions, Interceptor, Plain, Producer, Record, RecordMetadata, SendError,
    StartOffset, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::raw;

use klamm_tests::suite::Outcome;

use crate::tools::{SOON, read};

pub(crate) async fn what_is_sent_comes_back_with_null_and_empty_kept_apart(backend: &Backend) -> Outcome {
    let topic = backend.topic("null-and-empty", 1).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let null = Record::new(topic.as_str());
    let empty = Record::new(topic.as_str()).key("").value("").header("empty", "").null_header("null");
    let full =
        Record::new(topic.as_str()).key("k").value("v").header("h", "1").header("h", "2").timestamp(1_234);
    for (offset, record) in [null, empty, full].into_iter().enumerate() {
        let written = producer.send_and_wait(record).await?;
        assert_eq!(written.offset, Some(offset as i64));
        assert_eq!((written.topic(), written.partition), (topic.as_str(), 0));
    }
    producer.close(SOON).await?;

    let records = read(backend, &topic, 1, 3).await?;
    assert_eq!((&records[0].key, &records[0].value), (&None, &None));
    assert!(records[0].headers.is_empty());
    assert_eq!((&records[1].key, &records[1].value), (&Some(Bytes::new()), &Some(Bytes::new())));
    let headers: Vec<_> = records[1].headers.iter().map(|h| (h.name.as_ref(), h.value.as_deref())).collect();
    assert_eq!(headers, [(&b"empty"[..], Some(&b""[..])), (&b"null"[..], None)]);
    assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(records[2].timestamp_ms, 1_234);
    let values: Vec<_> = records[2].headers.iter().map(|h| h.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"1"[..]), Some(&b"2"[..])], "equal header names are kept in order");
    Ok(())
}

pub(crate) async fn every_codec_round_trips(backend: &Backend) -> Outcome {
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for codec in codecs {
        let topic = backend.topic("codec", 2).await?;
        let producer: Producer =
            Producer::builder().client(&backend.client()?).compression_type(codec).build()?;
        let mut deliveries = Vec::new();
        for index in 0..500 {
            let record = Record::new(topic.as_str())
                .partition(index % 2)
                .value(format!("line {index} {}", "x".repeat(100)));
            deliveries.push(producer.send(record).await?);
        }
        for delivery in deliveries {
            delivery.await?;
        }
        producer.close(SOON).await?;
        let mut seen = [0, 1];
        for record in read(backend, &topic, 2, 500).await? {
            let next = &mut seen[record.partition as usize];
            let expected = format!("line {next} {}", "x".repeat(100));
            assert_eq!(record.value.as_deref(), Some(expected.as_bytes()), "{codec:?}");
            *next += 2;
        }
    }
    Ok(())
}

pub(crate) async fn topics_are_stored_by_the_codec_of_each(backend: &Backend) -> Outcome {
    let topics = [
        (backend.topic("as-type", 1).await?, Compression::Snappy),
        (backend.topic("plain", 1).await?, Compression::None),
        (backend.topic("gzip", 1).await?, Compression::Gzip),
        (backend.topic("zstd", 1).await?, Compression::Zstd),
    ];
    let builder =
        topics[1..].iter().fold(Producer::builder(), |b, (topic, codec)| b.topic_compression(topic, *codec));
    let builder = builder.compression_type(topics[0].1).compression_gzip_level(1).compression_zstd_level(19);
    let producer: Producer = builder.client(&backend.client()?).build()?;
    for index in 0..200 {
        let record =
            Record::new(topics[index % 4].0.as_str()).value(format!("line {index} {}", "x".repeat(100)));
        drop(producer.send(record).await?); // flushed below
    }
    producer.flush().await?;
    producer.close(SOON).await?;
    let cluster = backend.client()?.admin().describe_cluster().await?;
    let broker = cluster.brokers.first().ok_or("a broker")?;
    for (topic, codec) in topics {
        let (address, name) = (format!("{}:{}", broker.host, broker.port), topic.clone());
        let stored = tokio::task::spawn_blocking(move || raw::stored_codecs(&address, &name, 1)).await??;
        assert_eq!(stored, [(format!("{codec:?}"), 50)].into(), "{topic}");
        assert_eq!(read(backend, &topic, 1, 50).await?.len(), 50);
    }
    Ok(())
}

pub(crate) async fn records_of_one_key_stay_in_order_in_one_partition(backend: &Backend) -> Outcome {
    let topic = backend.topic("keys", 6).await?;
    // A small batch and no linger: many requests, several in flight.
    let producer: Producer =
        Producer::builder().client(&backend.client()?).batch_size(1_000).linger_ms(Duration::ZERO).build()?;
    let mut deliveries = Vec::new();
    for index in 0..2_000_u32 {
        let key = format!("key {}", index % 10);
        deliveries.push(producer.send(Record::new(topic.as_str()).key(key).value(index.to_string())).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let mut last = std::collections::BTreeMap::new();
    for record in read(backend, &topic, 6, 2_000).await? {
        let value: u32 = std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse()?;
        let key = record.key.clone().ok_or("a key")?;
        if let Some((partition, before)) = last.insert(key.clone(), (record.partition, value)) {
            assert_eq!(partition, record.partition, "{key:?}");
            assert_eq!(value, before + 10, "{key:?}: in order, none missing, none twice");
        }
    }
    // As Java places them: murmur2 of `key 0` over six partitions.
    assert_eq!(last.len(), 10);
    Ok(())
}

pub(crate) async fn acks_none_and_leader_deliver_as_well(backend: &Backend) -> Outcome {
    for acks in [Acks::None, Acks::Leader] {
        let topic = backend.topic("acks", 1).await?;
        // Apache Kafka names the leader of a new partition before that leader knows of it, and what nobody acknowledges is
        // lost until then.
        let client = backend.client()?;
        let ready: Producer = Producer::builder().client(&client).build()?;
        ready.send_and_wait(Record::new(topic.as_str()).value("ready")).await?;
        let producer: Producer =
            Producer::builder().client(&client).acks(acks).enable_idempotence(false).build()?;
        for index in 0..100 {
            let written =
                producer.send_and_wait(Record::new(topic.as_str()).value(index.to_string())).await?;
            assert_eq!(
                written.offset.is_some(),
                acks == Acks::Leader,
                "the offset is unknown without an answer"
            );
        }
        producer.close(SOON).await?;
        let values: Vec<_> =
            read(backend, &topic, 1, 101).await?.into_iter().filter_map(|record| record.value).collect();
        let sent = (0..100).map(|index| Bytes::from(index.to_string()));
        assert_eq!(values, std::iter::once(Bytes::from("ready")).chain(sent).collect::<Vec<_>>());
    }
    Ok(())
}

pub(crate) async fn an_explicit_partition_is_obeyed(backend: &Backend) -> Outcome {
    let topic = backend.topic("explicit", 3).await?;
    let client = backend.client()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for partition in [2, 0, 1, 2] {
        let record = Record::new(topic.as_str()).key("same").value("v").partition(partition);
        assert_eq!(producer.send_and_wait(record).await?.partition, partition);
    }
    let second = Duration::from_secs(1);
    let impatient: Producer = Producer::builder().client(&client).max_block_ms(second).build()?;
    let refused = impatient.send(Record::new(topic.as_str()).value("v").partition(9)).await;
    let said = refused.err().ok_or("partition 9 of 3 must be refused")?.to_string();
    assert!(said.contains('9') && said.contains(&topic), "{said}");
    Ok(())
}

#[derive(Default)]
struct Counter {
    sent: AtomicU32,
    acknowledged: AtomicU32,
}

struct Counting(Arc<Counter>);

impl Interceptor for Counting {
    fn on_send(&self, record: &mut Record, _: &mut Extensions) -> Result<(), klamm::Refusal> {
        self.0.sent.fetch_add(1, Ordering::SeqCst);
        record.headers_mut().push(("seen".into(), Some(Bytes::from("yes"))));
        Ok(())
    }

    fn on_acknowledgement(
        &self,
        _topic: &str,
        _partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        _extensions: &mut Extensions,
    ) {
        if outcome.is_ok() {
            self.0.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Panicking;

impl Interceptor for Panicking {
    fn on_send(&self, _record: &mut Record, _: &mut Extensions) -> Result<(), klamm::Refusal> {
        std::panic::resume_unwind(Box::new("an interceptor of the user's panics on purpose")) // without printing it
    }

    fn on_acknowledgement(
        &self,
        _topic: &str,
        _partition: i32,
        _outcome: Result<&RecordMetadata, &SendError>,
        _extensions: &mut Extensions,
    ) {
        std::panic::resume_unwind(Box::new("an interceptor of the user's panics on purpose")) // without printing it
    }
}

pub(crate) async fn interceptors_see_every_record_twice_even_if_one_panics(backend: &Backend) -> Outcome {
    let topic = backend.topic("intercepted", 1).await?;
    let counter = Arc::new(Counter::default());
    let producer: Producer = Producer::builder()
        .client(&backend.client()?)
        .interceptor(Panicking)
        .interceptor(Counting(counter.clone()))
        .build()?;
    for _ in 0..10 {
        producer.send_and_wait(Record::new(topic.as_str()).value("v")).await?;
    }
    producer.close(SOON).await?;
    assert_eq!(counter.sent.load(Ordering::SeqCst), 10);
    assert_eq!(counter.acknowledged.load(Ordering::SeqCst), 10);
    let records = read(backend, &topic, 1, 10).await?;
    assert!(records.iter().all(|record| record.headers.len() == 1));
    Ok(())
}

pub(crate) async fn typed_records_are_serialized_and_deserialized(backend: &Backend) -> Outcome {
    let topic = backend.topic("typed", 1).await?;
    let client = backend.client()?;
    let producer: Producer<i64, String> =
        Producer::builder().client(&client).key_serializer(Plain).value_serializer(Plain).build()?;
    producer.send_and_wait(Record::new(topic.as_str()).key(42).value("forty-two")).await?;
    producer.close(SOON).await?;
    let consumer: Consumer<i64, String> =
        Consumer::builder().client(&client).key_deserializer(Plain).value_deserializer(Plain).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    let record = consumer.recv().await?;
    assert_eq!((record.key, record.value.as_deref()), (Some(42), Some("forty-two")));
    Ok(())
}
