//! How news of a record's fate reaches the application: callbacks, interceptors, sinks; and what it is told at once.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt, stream};
use klamm::interceptor::{Extensions, Interceptor, Refusal};
use klamm::{
    Acks, Consumer, Json, Plain, Producer, ProducerBuilder, Record, RecordMetadata, Recovery, SendError,
    StartOffset, TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend};
use klamm_tests::suite::Outcome;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::tools::{SOON, number, read, read_all};

const HOUR: Duration = Duration::from_secs(3600);

type Fate = Result<RecordMetadata, SendError>;

/// What was told of each record, in the order of telling.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(usize, Fate)>>>);

impl Heard {
    fn note(&self, index: usize) -> impl FnOnce(Fate) + Send + 'static {
        let heard = self.clone();
        move |outcome| heard.0.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome))
    }

    fn take(&self) -> Vec<(usize, Result<RecordMetadata, SendError>)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is told.
    async fn wait(&self) -> Vec<(usize, Result<RecordMetadata, SendError>)> {
        loop {
            let told = self.take();
            if !told.is_empty() {
                return told;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn builder(backend: &Backend) -> Result<ProducerBuilder, std::io::Error> {
    Ok(Producer::builder().client(&backend.client()?))
}

pub(crate) async fn a_callback_runs_once_for_every_record_in_the_order_of_its_partition(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("called-back", 3).await?;
    let producer = builder(backend)?.batch_size(1_000).build()?;
    let heard = Heard::default();
    for index in 0..1_500 {
        let record = Record::new(topic.as_str()).partition(index % 3).value(index.to_string());
        producer.send_with_callback(record, heard.note(index as usize)).await?;
    }
    producer.flush().await?;
    let told = heard.take();
    assert_eq!(told.len(), 1_500, "flush returns when the callbacks have run");
    let mut next = [0; 3];
    for (index, outcome) in told {
        let written = outcome?;
        let next = &mut next[written.partition as usize];
        assert_eq!((index % 3, index / 3), (written.partition as usize, *next as usize));
        assert_eq!(written.offset, Some(*next), "record {index}");
        *next += 1;
    }
    for record in read(backend, &topic, 3, 1_500).await? {
        assert_eq!(number(&record)?, record.offset * 3 + i64::from(record.partition));
    }
    producer.close(SOON).await?;
    Ok(())
}

pub(crate) async fn a_callback_that_blocks_delays_no_batch_but_holds_its_share_of_the_buffer(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("blocked", 2).await?;
    let producer = builder(backend)?.batch_size(1_000).buffer_memory(4_000).build()?;
    let (go_on, wait) = mpsc::channel::<()>();
    let record = |index: i32| Record::new(topic.as_str()).partition(index % 2).value(format!("{index:>100}"));
    producer.send_with_callback(record(0), move |_| wait.recv().unwrap_or_default()).await?;
    // A hundred times what the buffer holds.
    for index in 1..2_000 {
        drop(producer.send(record(index)).await?);
    }
    // Not by `flush`, which would wait for the callback.
    producer.send_and_wait(record(2_000)).await?;
    while producer.requests_in_flight() > 0 || producer.buffer_available() < 3_000 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(producer.buffer_available(), 3_000, "one batch is held for the callback");
    go_on.send(())?;
    producer.flush().await?;
    while producer.buffer_available() < 4_000 {
        sleep(Duration::from_millis(1)).await;
    }
    producer.close(SOON).await?;
    Ok(())
}

pub(crate) async fn after_a_callback_that_panics_the_next_ones_run(backend: &Backend) -> Outcome {
    let topic = backend.topic("panicked", 1).await?;
    let producer = builder(backend)?.batch_size(200).build()?;
    let heard = Heard::default();
    for index in 0..100 {
        let (record, note) = (Record::new(topic.as_str()).value(index.to_string()), heard.note(index));
        let callback = move |outcome| {
            note(outcome);
            std::panic::resume_unwind(Box::new("a callback of the user's panics on purpose")) // without printing it
        };
        producer.send_with_callback(record, callback).await?;
    }
    producer.close(SOON).await?;
    let told: Vec<_> = heard.take().into_iter().map(|(index, outcome)| (index, outcome.is_ok())).collect();
    assert_eq!(told, (0..100).map(|index| (index, true)).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn callbacks_hear_of_time_limits_a_close_in_haste_and_a_drop(backend: &Backend) -> Outcome {
    let topic = backend.topic("given-up", 1).await?;
    let client = backend.impatient_client()?;
    let builder = || Producer::builder().client(&client);
    let record = |index: usize| Record::new(topic.as_str()).value(index.to_string());
    let heard = Heard::default();
    // What has all the time it needs finds out about the topic for those that have not.
    let hasty = builder().build()?;
    hasty.send_and_wait(record(0)).await?;
    let late = builder().delivery_timeout_ms(backend.patience() + Duration::from_secs(1)).build()?;
    let lingering = builder().linger_ms(HOUR).delivery_timeout_ms(2 * HOUR).build()?;
    backend.freeze().await?;

    late.send_with_callback(record(1), heard.note(1)).await?;
    late.flush().await?;
    let told = heard.take();
    assert!(matches!(told[..], [(1, Err(SendError::TimedOut { .. }))]), "{told:?}");

    hasty.send_with_callback(record(2), heard.note(2)).await?;
    assert!(hasty.close(Duration::from_millis(100)).await.is_err());
    let told = heard.wait().await;
    assert!(matches!(told[..], [(2, Err(SendError::Closed { .. }))]), "{told:?}");

    lingering.send_with_callback(record(3), heard.note(3)).await?;
    drop(lingering);
    let told = heard.wait().await;
    assert!(matches!(told[..], [(3, Err(SendError::Closed { maybe_written: false }))]), "{told:?}");

    backend.thaw().await?;
    late.close(SOON).await?;
    assert!(heard.take().is_empty(), "nobody is called twice");
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    for record in read_all(backend, &topic, 0).await? {
        assert_ne!(number(&record)?, 3, "what was not written is not there");
    }
    Ok(())
}

/// Gives each record a number, and notes what it has in hand when it hears of it.
#[derive(Clone, Default)]
struct Numbering(Arc<Mutex<Numbered>>);

#[derive(Default)]
struct Numbered {
    next: u64,
    told: BTreeMap<u64, String>,
    closed: u32,
}

struct Number(u64);

impl Numbering {
    fn with<T>(&self, look: impl FnOnce(&mut Numbered) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Interceptor for Numbering {
    fn on_send(&self, _: &mut Record, extensions: &mut Extensions) -> Result<(), Refusal> {
        extensions.insert(Number(self.with(|numbered| {
            numbered.next += 1;
            numbered.next
        })));
        Ok(())
    }

    fn on_acknowledgement(
        &self,
        _: &str,
        partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        extensions: &mut Extensions,
    ) {
        let told = match outcome {
            Ok(written) => format!("{partition} at {:?}", written.offset),
            Err(error) => error.to_string(),
        };
        let number = extensions.get::<Number>().map_or(0, |number| number.0);
        self.with(|numbered| numbered.told.insert(number, told));
    }

    fn close(&self) {
        self.with(|numbered| numbered.closed += 1);
    }
}

/// Spoils every record that it sees, and panics.
struct Spoiling;

impl Interceptor for Spoiling {
    fn on_send(&self, record: &mut Record, _: &mut Extensions) -> Result<(), Refusal> {
        *record = Record::new("spoilt");
        std::panic::resume_unwind(Box::new("an interceptor of the user's panics on purpose"))
    }

    fn close(&self) {
        std::panic::resume_unwind(Box::new("an interceptor of the user's panics on purpose"))
    }
}

pub(crate) async fn interceptors_remember_each_record_until_its_fate_is_known_and_are_closed_once(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("remembered", 2).await?;
    let numbering = Numbering::default();
    let chain = builder(backend)?.interceptor(Spoiling).interceptor(numbering.clone());
    let producer = chain.max_request_size(10_000).build()?;
    let clone = producer.clone();
    for index in 0..100 {
        let record = Record::new(topic.as_str()).partition(index % 2).value(index.to_string());
        drop(producer.send(record).await?);
    }
    let too_large = Record::new(topic.as_str()).partition(1).value(vec![0; 20_000]);
    assert!(matches!(producer.send(too_large).await, Err(SendError::TooLarge { .. })));
    producer.close(SOON).await?;
    drop(clone);
    numbering.with(|numbered| {
        assert_eq!((numbered.next, numbered.told.len(), numbered.closed), (101, 101, 1));
        for (number, told) in &numbered.told {
            let index = number - 1;
            let expected = match index {
                100 => "exceeds the limit".to_owned(),
                _ => format!("{} at Some({})", index % 2, index / 2),
            };
            assert!(told.contains(&expected), "record {index}: {told}");
        }
    });
    let records = read(backend, &topic, 2, 100).await?;
    assert_eq!(records.len(), 100, "the one that panics left no trace in them");
    Ok(())
}

/// Sends records elsewhere by their value.
struct Router {
    other: String,
}

impl Interceptor for Router {
    fn on_send(&self, record: &mut Record, _: &mut Extensions) -> Result<(), Refusal> {
        match record.value_ref().map(|value| &value[..]) {
            Some(b"2") => *record.partition_mut() = Some(1),
            Some(b"3") => *record.topic_mut() = self.other.as_str().into(),
            Some(b"4") => return Err("4 is not sent".into()),
            _ => {}
        }
        Ok(())
    }
}

pub(crate) async fn a_record_goes_where_an_interceptor_sends_it_and_nowhere_if_it_is_refused(
    backend: &Backend,
) -> Outcome {
    let (topic, other) = (backend.topic("routed", 2).await?, backend.topic("elsewhere", 1).await?);
    let producer = builder(backend)?.interceptor(Router { other: other.clone() }).build()?;
    for value in 1..=4 {
        let sent =
            producer.send_and_wait(Record::new(topic.as_str()).partition(0).value(value.to_string())).await;
        match (value, sent) {
            (4, Err(error)) => {
                assert_eq!(error.recovery(), Recovery::Fix);
                assert!(error.to_string().contains("4 is not sent") && error.to_string().contains("Router"));
            }
            (_, sent) => assert_eq!(sent?.partition, i32::from(value == 2)),
        }
    }
    let mut values = Vec::new();
    for (topic, partition) in [(&topic, 0), (&topic, 1), (&other, 0)] {
        values.push(
            read_all(backend, topic, partition).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?,
        );
    }
    assert_eq!(values, [[1], [2], [3]]);
    Ok(())
}

pub(crate) async fn a_stream_is_poured_into_a_sink_and_each_failure_reported_once(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("poured", 1).await?;
    let small =
        builder(backend)?.batch_size(500).buffer_memory(1_000).linger_ms(HOUR).delivery_timeout_ms(2 * HOUR);
    let producer = small.build()?;
    let mut sink = Box::pin(producer.sink());
    let record = |index: i64| Record::new(topic.as_str()).partition(0).value(index.to_string());
    // Much more than the buffer holds, and only flushing ends the linger.
    sink.send_all(&mut stream::iter(0..1_000).map(|index| Ok(record(index)))).await?;
    let values = |records: Vec<_>| records.iter().map(number).collect::<Result<Vec<_>, _>>();
    assert_eq!(values(read_all(backend, &topic, 0).await?)?, (0..1_000).collect::<Vec<_>>());

    let refused = sink.send(Record::new(topic.as_str()).value(vec![0; 2_000])).await;
    assert!(matches!(refused, Err(SendError::TooLarge { .. })), "{refused:?}");
    sink.send(record(1_000)).await?;
    // What the sink has taken is not lost with the future, which mostly is not over at the first look.
    drop(sink.send(record(1_001)).now_or_never());
    sink.close().await?;
    assert!(matches!(sink.send(record(1_002)).await, Err(SendError::Closed { maybe_written: false })));
    assert_eq!(values(read_all(backend, &topic, 0).await?)?, (0..1_002).collect::<Vec<_>>());
    // The producer is not closed with it.
    drop(producer.send(record(1_002)).await?);
    producer.close(SOON).await?;
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    fruit: Option<String>,
    /// As a map of JSON only with textual keys.
    counts: BTreeMap<Key, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Text(String),
    Pair(u8, u8),
}

pub(crate) async fn json_comes_back_as_it_was_sent_and_what_has_no_json_is_kept_out(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("json", 1).await?;
    let client = backend.client()?;
    let producer: Producer<String, Order> =
        Producer::builder().client(&client).key_serializer(Json).value_serializer(Json).build()?;
    let good = |fruit: Option<&str>| Order {
        fruit: fruit.map(str::to_owned),
        counts: [(Key::Text("ripe \"ü\"".into()), 3)].into(),
    };
    let bad = Order { fruit: None, counts: [(Key::Pair(1, 2), 3)].into() };
    let record = |order: Order| Record::new(topic.as_str()).key("k").value(order);
    producer.send_and_wait(record(good(Some("apple")))).await?;
    let refused = producer.send(record(bad)).await.err().ok_or("a key that is no text was taken")?;
    let said = refused.to_string();
    assert!(said.contains("value") && said.contains("Order") && said.contains(&topic), "{said}");
    assert_eq!((refused.recovery(), refused.maybe_written()), (Recovery::Fix, false));
    producer.send_and_wait(record(good(None))).await?;
    producer.send_and_wait(Record::new(topic.as_str())).await?;
    producer.close(SOON).await?;
    let plain: Producer = Producer::builder().client(&client).build()?;
    plain.send_and_wait(Record::new(topic.as_str()).value("{\"fruit\":")).await?;

    let consumer: Consumer<String, Order> =
        Consumer::builder().client(&client).key_deserializer(Json).value_deserializer(Json).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    for expected in [Some(good(Some("apple"))), Some(good(None)), None] {
        let record = consumer.recv().await?;
        assert_eq!(record.key, expected.as_ref().map(|_| "k".to_owned()));
        assert_eq!(record.value, expected);
    }
    let said = consumer.recv().await.err().ok_or("half an order was taken")?.to_string();
    assert!(said.contains("value") && said.contains("Order") && said.contains(&topic), "{said}");
    Ok(())
}

pub(crate) async fn without_room_try_send_gives_the_record_back_and_send_waits_as_long_as_max_block(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("no-room", 1).await?;
    let limit = Duration::from_millis(500);
    let client = backend.client()?;
    let record = |index: i64| Record::new(topic.as_str()).value(format!("{index} {}", "x".repeat(200)));
    // The limit is for room only: the topic is known by then.
    let patient: Producer = Producer::builder().client(&client).build()?;
    patient.send_and_wait(record(0)).await?;
    let small = Producer::builder().client(&client).batch_size(300).buffer_memory(600);
    let producer = small.linger_ms(Duration::ZERO).max_block_ms(limit).build()?;
    backend.freeze().await?;
    let held = [producer.send(record(1)).await?, producer.send(record(2)).await?];

    let refused = producer.try_send(record(100)).err().ok_or("there is no room")?;
    assert!(matches!(refused.reason, SendError::BufferFull { waited: Duration::ZERO }), "{refused}");
    let begun = Instant::now();
    let late = producer.send(*refused.record).await.err().ok_or("there is no room")?;
    assert!(matches!(late, SendError::BufferFull { waited } if waited >= limit), "{late}");
    assert!(begun.elapsed() >= limit);
    assert_eq!((late.recovery(), late.maybe_written()), (Recovery::Retry, false));
    let heard = Heard::default();
    assert!(producer.try_send_with_callback(record(101), heard.note(101)).is_err());
    assert!(producer.send_with_callback(record(102), heard.note(102)).await.is_err());

    backend.thaw().await?;
    for delivery in held {
        delivery.await?;
    }
    while producer.buffer_available() < 600 {
        sleep(Duration::from_millis(1)).await; // their memory comes back right after the news
    }
    producer.try_send_with_callback(record(3), heard.note(3)).map_err(|refused| refused.reason)?;
    producer.flush().await?;
    let told = heard.take();
    assert!(matches!(&told[..], [(3, Ok(_))]), "only callbacks of accepted records run: {told:?}");
    let values = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(values, [0, 1, 2, 3]);
    Ok(())
}

pub(crate) async fn try_send_asks_for_a_topic_that_is_not_known_and_takes_the_record_later(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("asked-for", 1).await?;
    let producer: Producer<String, i64> = Producer::builder()
        .client(&backend.client()?)
        .key_serializer(Plain)
        .value_serializer(Plain)
        .acks(Acks::Leader)
        .enable_idempotence(false)
        .build()?;
    let mut record = Record::new(topic.as_str()).key("k").value(7_i64);
    let mut asked = 0;
    let delivery = loop {
        match producer.try_send(record) {
            Ok(delivery) => break delivery,
            Err(refused) if matches!(refused.reason, SendError::NotReady { .. }) => {
                record = *refused.record;
                asked += 1;
            }
            Err(refused) => return Err(refused.reason.into()),
        }
        sleep(Duration::from_millis(1)).await;
    };
    assert!(asked > 0, "nobody had told the topic");
    assert_eq!(delivery.await?.offset, Some(0));
    let again =
        producer.try_send(Record::new(topic.as_str()).value(8_i64)).map_err(|refused| refused.reason)?;
    assert_eq!(again.await?.offset, Some(1));
    Ok(())
}
