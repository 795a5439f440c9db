//! Whether the numbers of a producer add up.

use std::collections::{BTreeMap, BTreeSet};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

use super::*;

/// A recorder that keeps everything.
#[derive(Default, Clone)]
struct Numbers {
    described: Arc<Mutex<BTreeSet<String>>>,
    series: Arc<Mutex<BTreeMap<String, Arc<Series>>>>,
}

#[derive(Default)]
struct Series(Mutex<Vec<f64>>);

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.0.lock().push(value as f64);
    }

    fn absolute(&self, value: u64) {
        *self.0.lock() = vec![value as f64];
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        let last = self.0.lock().last().copied().unwrap_or_default();
        self.set(last + value);
    }

    fn decrement(&self, value: f64) {
        GaugeFn::increment(self, -value);
    }

    fn set(&self, value: f64) {
        self.0.lock().push(value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.0.lock().push(value);
    }
}

impl Numbers {
    fn of(&self, key: &Key) -> Arc<Series> {
        let labels: String =
            key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
        self.series.lock().entry(format!("{}{labels}", key.name())).or_default().clone()
    }

    /// All values of a series; `name` may lack its first word.
    fn all(&self, name: &str) -> Vec<f64> {
        let series = self.series.lock();
        let found = series.get(&format!("klamm_producer_{name}"));
        found.unwrap_or_else(|| panic!("no {name} among {:?}", series.keys())).0.lock().clone()
    }

    fn sum(&self, name: &str) -> f64 {
        self.all(name).iter().sum()
    }

    fn last(&self, name: &str) -> f64 {
        *self.all(name).last().unwrap()
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().insert(key.as_str().to_owned());
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().insert(key.as_str().to_owned());
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().insert(key.as_str().to_owned());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.of(key))
    }
}

#[tokio::test(start_paused = true)]
async fn records_batches_requests_and_errors_add_up_and_the_buffer_is_empty_in_the_end() {
    let numbers = Numbers::default();
    let _recording = ::metrics::set_default_local_recorder(&numbers);
    let broker = Broker::default();
    let small = builder(&broker).client_id("me").batch_size(1000).compression_type(Compression::Lz4);
    let producer: Producer = small.build().unwrap();
    let total = producer.inner.accumulator.memory.total() as f64;
    producer.send_and_wait(line("known")).await.unwrap();
    let codes = [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::INVALID_RECORD];
    broker.0.lock().script.extend(codes.map(Produced::Refused));
    broker.0.lock().script.push_back(Produced::Lost);
    let mut deliveries = Vec::new();
    for i in 0..499 {
        deliveries.push(producer.send(line("x".repeat(90)).partition(i % 2)).await.unwrap());
    }
    let (mut acknowledged, mut failed) = (1.0, 0.0);
    for delivery in deliveries {
        *if delivery.await.is_ok() { &mut acknowledged } else { &mut failed } += 1.0;
    }
    producer.flush().await.unwrap();
    check_memory(&producer).await;

    assert!(failed > 0.0);
    let of_topic = |name: &str| format!("{name} client_id=me topic=t");
    assert_eq!(numbers.sum(&of_topic("acknowledged_records_total")), acknowledged);
    assert_eq!(numbers.sum(&of_topic("failed_records_total")), failed);
    assert_eq!(numbers.sum(&of_topic("batch_records")), 500.0);
    let batches = numbers.all(&of_topic("batch_bytes"));
    assert!(batches.iter().all(|bytes| (61.0..400.0).contains(bytes)), "{batches:?}");
    let ratios = numbers.all(&of_topic("compression_ratio"));
    assert!(ratios[1..].iter().all(|ratio| (0.01..0.5).contains(ratio)), "{ratios:?}");
    assert_eq!((numbers.all(&of_topic("batch_records")).len(), ratios.len()), (batches.len(), batches.len()));
    let queued = numbers.all(&of_topic("batch_queue_seconds"));
    assert!(queued.len() == batches.len() && (0.005..0.1).contains(&queued[0]), "{queued:?}");

    let requests = broker.0.lock().requests as f64;
    assert_eq!(numbers.all("request_bytes client_id=me broker=1").len() as f64, requests);
    let answered = numbers.all("request_seconds client_id=me broker=1");
    assert_eq!(answered.len() as f64, requests - 1.0, "one of them was lost");
    assert!(answered.iter().all(|seconds| (0.001..0.01).contains(seconds)), "{answered:?}");
    assert_eq!(numbers.sum("retries_total client_id=me"), producer.retries() as f64);
    assert!(producer.retries() >= 2);
    for code in ["NOT_ENOUGH_REPLICAS", "INVALID_RECORD", "NO_ANSWER"] {
        assert!(numbers.sum(&format!("errors_total client_id=me code={code}")) >= 1.0, "{code}");
    }

    assert_eq!(numbers.last("buffer_total_bytes client_id=me"), total);
    let available = numbers.all("buffer_available_bytes client_id=me");
    assert!(available.iter().any(|bytes| *bytes < total));
    assert_eq!(available.last(), Some(&total));
    let in_flight = numbers.all("requests_in_flight client_id=me");
    assert!(in_flight.contains(&1.0) && in_flight.last() == Some(&0.0));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_is_counted_and_what_is_given_up_as_failed() {
    let numbers = Numbers::default();
    let _recording = ::metrics::set_default_local_recorder(&numbers);
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).buffer_memory(400).build().unwrap();
    producer.send_and_wait(line("known")).await.unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    drop(producer.send(line("in flight")).await.unwrap());
    producer.inner.accumulator.client.rt().sleep(S).await;
    for _ in 0..3 {
        let told = |_| ();
        producer.send_with_callback(line("open").partition(1), told).await.unwrap();
    }
    let mut waits = Box::pin(producer.send(line("waits").partition(2)));
    assert!((&mut waits).now_or_never().is_none());
    producer.inner.accumulator.client.rt().sleep(MS).await;
    assert_eq!(numbers.last("buffer_waiters client_id="), 1.0);
    assert_eq!(numbers.last("buffer_available_bytes client_id="), 0.0);
    drop(waits);
    assert!(producer.close(Duration::ZERO).await.is_err());
    assert_eq!(numbers.sum("failed_records_total client_id= topic=t"), 4.0);
    assert_eq!(numbers.sum("acknowledged_records_total client_id= topic=t"), 1.0);
    assert_eq!(numbers.last("buffer_available_bytes client_id="), 400.0);
    assert_eq!(
        (numbers.last("buffer_waiters client_id="), numbers.last("requests_in_flight client_id=")),
        (0.0, 0.0)
    );
}

/// Goal: nothing is measured that the table does not name, and nothing named that is not measured.
#[tokio::test(start_paused = true)]
async fn the_table_names_what_there_is() {
    let numbers = Numbers::default();
    let _recording = ::metrics::set_default_local_recorder(&numbers);
    let broker = Broker::default();
    broker.0.lock().throttle_ms = 7;
    let producer: Producer = builder(&broker).build().unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::NOT_ENOUGH_REPLICAS));
    producer.send_and_wait(line("x")).await.unwrap();
    assert_eq!(numbers.last("throttle_seconds client_id= broker=1"), 0.007);
    let table = include_str!("../../metrics.rs");
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    let named: BTreeSet<String> = rows.map(str::to_owned).collect();
    let measured: BTreeSet<String> =
        numbers.series.lock().keys().map(|key| key.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(named, measured);
    assert_eq!(named, *numbers.described.lock());
}

#[tokio::test(start_paused = true)]
async fn what_callbacks_held_is_seen_to_come_back_and_what_lingers_at_a_drop_is_counted() {
    let numbers = Numbers::default();
    let _recording = ::metrics::set_default_local_recorder(&numbers);
    let broker = Broker::default();
    let producer: Producer = builder(&broker).linger_ms(60 * S).build().unwrap();
    let total = producer.inner.accumulator.memory.total() as f64;
    producer.send_with_callback(line("told"), |_| ()).await.unwrap();
    producer.flush().await.unwrap();
    check_memory(&producer).await;
    assert_eq!(numbers.last("buffer_available_bytes client_id="), total);
    for _ in 0..2 {
        drop(producer.send(line("lingers")).await.unwrap());
    }
    drop(producer);
    Rt::current().unwrap().sleep(MS).await;
    assert_eq!(numbers.sum("failed_records_total client_id= topic=t"), 2.0);
    assert_eq!(numbers.last("buffer_available_bytes client_id="), total);
}
