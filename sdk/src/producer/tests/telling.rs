//! What callbacks and interceptors are told, and when.

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc as blocking;

use super::*;
use crate::interceptor::{Extensions, Interceptor, Refusal};

type Heard = Arc<Mutex<Vec<String>>>;

/// A callback that notes the record's name and what became of it.
fn note(
    heard: &Heard,
    name: impl Into<String>,
) -> impl FnOnce(Result<RecordMetadata, SendError>) + Send + 'static {
    let (heard, name) = (heard.clone(), name.into());
    move |outcome| {
        let outcome = outcome.map(|metadata| (metadata.partition, metadata.offset));
        heard.lock().push(format!("{name}: {outcome:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn callbacks_hear_of_every_record_in_order_and_memory_comes_back() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).build().unwrap();
    let heard = Heard::default();
    for i in 0..50 {
        producer.send_with_callback(line(format!("{i:>30}")), note(&heard, i.to_string())).await.unwrap();
        // A record that asks for nothing stands between the others.
        drop(producer.send(line("between")).await.unwrap());
    }
    producer.flush().await.unwrap();
    producer.try_send_with_callback(line("last"), note(&heard, "last")).unwrap();
    producer.clone().close(S).await.unwrap();
    let mut expected: Vec<_> = (0..50).map(|i| format!("{i}: Ok((0, Some({})))", 2 * i)).collect();
    expected.push("last: Ok((0, Some(100)))".into());
    assert_eq!(*heard.lock(), expected);
    check_memory(&producer).await;
}

/// Goal: this is a runtime with one thread, which a callback must not keep.
#[tokio::test]
async fn a_callback_that_blocks_delays_no_batch_only_its_share_of_the_buffer() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).buffer_memory(400).build().unwrap();
    let (go_on, wait) = blocking::channel::<()>();
    let heard = Heard::default();
    producer.send_with_callback(line("blocks"), move |_| wait.recv().unwrap_or(())).await.unwrap();
    producer.send_with_callback(line("waits").partition(1), note(&heard, "waits")).await.unwrap();
    assert!(
        Rt::current().unwrap().before(100 * MS, producer.flush()).await.is_none(),
        "flush waits for callbacks"
    );
    while broker.values(0).is_empty() || broker.values(1).is_empty() {
        Rt::current().unwrap().sleep(MS).await;
    }
    // Both batches are written, but what callbacks have not heard holds all of the buffer.
    assert_eq!((broker.values(0).len(), broker.values(1).len()), (1, 1));
    assert_eq!((producer.buffer_available(), heard.lock().len()), (0, 0));
    let refused = producer.try_send(line("no room").partition(2)).unwrap_err();
    assert!(matches!(refused.reason, SendError::BufferFull { .. }), "{refused}");
    go_on.send(()).unwrap();
    producer.send_and_wait(line("room").partition(2)).await.unwrap();
    producer.clone().close(S).await.unwrap();
    assert_eq!(*heard.lock(), ["waits: Ok((1, Some(0)))"]);
    check_memory(&producer).await;
}

#[tokio::test]
async fn records_without_a_callback_go_on_while_one_blocks() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).buffer_memory(800).build().unwrap();
    let (go_on, wait) = blocking::channel::<()>();
    producer.send_with_callback(line("blocks"), move |_| wait.recv().unwrap_or(())).await.unwrap();
    for i in 0..100 {
        producer.send_and_wait(line("x".repeat(100)).partition(i % 3)).await.unwrap();
    }
    go_on.send(()).unwrap();
    producer.clone().close(S).await.unwrap();
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_callback_that_panics_the_next_ones_run() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let heard = Heard::default();
    for name in ["a", "b"] {
        producer.send_with_callback(line(name), note(&heard, name)).await.unwrap();
        let panics = |_| std::panic::resume_unwind(Box::new("on purpose"));
        producer.send_with_callback(line("panics"), panics).await.unwrap();
    }
    producer.clone().close(S).await.unwrap();
    assert_eq!(*heard.lock(), ["a: Ok((0, Some(0)))", "b: Ok((0, Some(2)))"]);
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn callbacks_hear_of_a_close_in_haste_a_drop_and_a_time_limit() {
    let broker = Broker::default();
    broker.0.lock().always = Some(Produced::Silence);
    let heard = Heard::default();
    let lazy = || builder(&broker).request_timeout_ms(2 * S).delivery_timeout_ms(3 * S);

    let producer: Producer = lazy().build().unwrap();
    producer.send_with_callback(line("in flight"), note(&heard, "closed")).await.unwrap();
    producer.inner.accumulator.client.rt().sleep(S).await;
    producer.send_with_callback(line("open"), note(&heard, "open")).await.unwrap();
    assert!(producer.close(MS).await.is_err());
    let closed = |maybe| format!("Err(Closed {{ maybe_written: {maybe} }})");
    assert_eq!(*heard.lock(), [format!("closed: {}", closed(true)), format!("open: {}", closed(false))]);

    heard.lock().clear();
    let producer: Producer = lazy().linger_ms(S).build().unwrap();
    producer.send_with_callback(line("lingers"), note(&heard, "dropped")).await.unwrap();
    drop(producer);
    Rt::current().unwrap().sleep(S).await;
    assert_eq!(*heard.lock(), [format!("dropped: {}", closed(false))]);

    heard.lock().clear();
    let producer: Producer = lazy().build().unwrap();
    producer.send_with_callback(line("late"), note(&heard, "late")).await.unwrap();
    producer.inner.accumulator.client.rt().sleep(8 * S).await;
    assert!(heard.lock()[0].starts_with("late: Err(TimedOut"), "{heard:?}");
    check_memory(&producer).await;
}

/// Goal: a runtime that ends takes the tasks along, but no callback.
#[test]
fn a_callback_runs_even_if_the_runtime_ends_first() {
    let heard = Heard::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let producer = runtime.block_on(async {
        let broker = Broker::default();
        let producer: Producer = builder(&broker).linger_ms(60 * S).build().unwrap();
        producer.send_with_callback(line("x"), note(&heard, "x")).await.unwrap();
        producer
    });
    drop(runtime);
    drop(producer);
    assert_eq!(heard.lock().len(), 1, "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn the_callback_of_a_record_that_is_not_accepted_is_dropped_uncalled() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).max_block_ms(S).build().unwrap();
    let heard = Heard::default();
    let alive = Arc::new(());
    let callback = || {
        let (note, alive) = (note(&heard, "never"), alive.clone());
        move |outcome| {
            drop(alive);
            note(outcome);
        }
    };
    let refused = producer.try_send_with_callback(line("early"), callback()).unwrap_err();
    assert!(matches!(refused.reason, SendError::NotReady { .. }));
    producer.send_with_callback(line("nowhere").partition(7), callback()).await.unwrap_err();
    assert!(producer.send_with_callback(Record::new("u").value("x"), callback()).now_or_never().is_none());
    producer.close(S).await.unwrap();
    assert_eq!((heard.lock().len(), Arc::strong_count(&alive)), (0, 1));
}

/// Goal: the second batch fails for good while the first one is still being retried.
#[tokio::test(start_paused = true)]
async fn callbacks_of_a_partition_keep_its_order_although_batches_end_in_another() {
    let broker = Broker::default();
    let producer: Producer =
        builder(&broker).enable_idempotence(false).batch_size(0).linger_ms(Duration::ZERO).build().unwrap();
    let heard = Heard::default();
    producer.send_and_wait(line("known")).await.unwrap();
    let script =
        [Produced::Refused(ErrorCode::NOT_ENOUGH_REPLICAS), Produced::Refused(ErrorCode::INVALID_RECORD)];
    broker.0.lock().script.extend(script);
    producer.send_with_callback(line("first"), note(&heard, "first")).await.unwrap();
    producer.send_with_callback(line("second"), note(&heard, "second")).await.unwrap();
    producer.send_with_callback(line("third"), note(&heard, "third")).await.unwrap();
    producer.clone().close(10 * S).await.unwrap();
    let names: Vec<_> =
        heard.lock().iter().map(|heard| heard.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert_eq!(broker.values(0), ["known", "third", "first"], "they did end in another order");
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn callbacks_of_a_batch_that_is_split_hear_of_their_own_records() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(2000).build().unwrap();
    let heard = Heard::default();
    producer.send_and_wait(line("known")).await.unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::MESSAGE_TOO_LARGE));
    for i in 0..9 {
        producer.send_with_callback(line("x".repeat(150)), note(&heard, i.to_string())).await.unwrap();
    }
    producer.flush().await.unwrap();
    let expected: Vec<_> = (0..9).map(|i| format!("{i}: Ok((0, Some({})))", i + 1)).collect();
    assert_eq!(*heard.lock(), expected);
    assert!(broker.batches(0).len() > 2, "it was split");
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_behind_a_pointer_runs_callbacks_too() {
    use crate::sink::RecordSink;
    let broker = Broker::default();
    let heard = Heard::default();
    let sink: Arc<dyn RecordSink> = Arc::new(builder(&broker).build().unwrap());
    sink.send_with_callback(line("x"), Box::new(note(&heard, "x"))).await.unwrap();
    sink.close(S).await.unwrap();
    assert_eq!(*heard.lock(), ["x: Ok((0, Some(0)))"]);
}

// ---- interceptors

struct Tagging(&'static str, Heard);

/// What `Tagging` remembers of a record; the last one of a chain stands.
struct Tag(&'static str);

impl Interceptor for Tagging {
    fn on_send(&self, record: &mut Record, extensions: &mut Extensions) -> Result<(), Refusal> {
        self.1.lock().push(format!("{} sees {:?}", self.0, record.topic()));
        if record.value_ref().is_some_and(|value| value == "forbidden") {
            return Err("not this one".into());
        }
        record.headers_mut().push((self.0.to_owned(), None));
        extensions.insert(Tag(self.0));
        Ok(())
    }

    fn on_acknowledgement(
        &self,
        topic: &str,
        partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        extensions: &mut Extensions,
    ) {
        let outcome = outcome.map(|metadata| metadata.offset).map_err(ToString::to_string);
        let tag = extensions.get::<Tag>().map_or("-", |tag| tag.0);
        self.1.lock().push(format!("{} {topic}-{partition} {tag} {outcome:?}", self.0));
    }

    fn close(&self) {
        self.1.lock().push(format!("{} closes", self.0));
    }

    fn name(&self) -> &str {
        self.0
    }
}

/// Panics, but not before it has spoilt the record.
struct Panicking;

impl Interceptor for Panicking {
    fn on_send(&self, record: &mut Record, _: &mut Extensions) -> Result<(), Refusal> {
        *record = Record::new("spoilt");
        std::panic::resume_unwind(Box::new("on purpose"))
    }

    fn on_acknowledgement(
        &self,
        _: &str,
        _: i32,
        _: Result<&RecordMetadata, &SendError>,
        _: &mut Extensions,
    ) {
        std::panic::resume_unwind(Box::new("on purpose"))
    }

    fn close(&self) {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

fn chain(broker: &Broker, heard: &Heard) -> ProducerBuilder {
    let chain = builder(broker).interceptor(Tagging("a", heard.clone())).interceptor(Panicking);
    chain.interceptor(Tagging("b", heard.clone()))
}

#[tokio::test(start_paused = true)]
async fn interceptors_change_refuse_and_hear_of_every_record_even_behind_one_that_panics() {
    let broker = Broker::default();
    let heard = Heard::default();
    let producer: Producer = chain(&broker, &heard).build().unwrap();
    producer.send_and_wait(line("fine")).await.unwrap();
    producer.flush().await.unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::INVALID_RECORD));
    assert!(producer.send_and_wait(line("bad")).await.is_err());
    let headers = |name: &str| (name.as_bytes().to_vec(), None);
    assert_eq!(broker.records(0)[0].2, [headers("a"), headers("b")]);
    check_memory(&producer).await;
    producer.close(S).await.unwrap();
    let refused = "t-0 b Err(\"record of t-0 refused by the broker: INVALID_RECORD (87)\")";
    assert_eq!(
        *heard.lock(),
        [
            "a sees \"t\"",
            "b sees \"t\"",
            "a t-0 b Ok(Some(0))",
            "b t-0 b Ok(Some(0))",
            "a sees \"t\"",
            "b sees \"t\"",
            &format!("a {refused}"),
            &format!("b {refused}"),
            "a closes",
            "b closes",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_records_of_a_batch_that_is_split_keep_their_offsets_timestamps_and_interceptors() {
    let broker = Broker::default();
    let heard = Heard::default();
    let producer: Producer = builder(&broker).interceptor(Tagging("a", heard.clone())).build().unwrap();
    for _ in 0..2 {
        broker.0.lock().script.push_back(Produced::Refused(ErrorCode::MESSAGE_TOO_LARGE));
    }
    let mut deliveries = Vec::new();
    for i in 0..5 {
        let value = format!("{i} {}", "x".repeat(100));
        deliveries.push(producer.send(line(value).timestamp(70 + i)).await.unwrap());
    }
    // Dropped before it resolves: only its answer is lost.
    drop(deliveries.remove(3));
    for (delivery, i) in deliveries.into_iter().zip([0, 1, 2, 4]) {
        let written = delivery.await.unwrap();
        assert_eq!((written.offset, written.timestamp), (Some(i), 70 + i));
    }
    let values = broker.values(0);
    let numbers: Vec<_> = values.iter().map(|value| &value[..1]).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
    check_memory(&producer).await;
    producer.close(S).await.unwrap();
    let told = heard.lock()[5..10].to_vec();
    let expected: Vec<_> = (0..5).map(|i| format!("a t-0 a Ok(Some({i}))")).collect();
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn whoever_saw_a_record_that_is_not_accepted_hears_of_it() {
    let broker = Broker::default();
    let heard = Heard::default();
    let producer: Producer = chain(&broker, &heard).max_block_ms(S).build().unwrap();
    let error = producer.send(line("forbidden")).await.unwrap_err();
    assert_eq!(error.to_string(), "refused by interceptor a: not this one");
    let said = "Err(\"refused by interceptor a: not this one\")";
    assert_eq!(std::mem::take(&mut *heard.lock()), ["a sees \"t\"", &format!("a t-0 - {said}")]);

    let unknown = || Record::new("t").key("k");
    assert!(producer.try_send(unknown()).is_err());
    let said = "t--1 b Err(\"topic \\\"t\\\" is not known yet\")";
    let both = |said: &str| {
        vec!["a sees \"t\"".into(), "b sees \"t\"".into(), format!("a {said}"), format!("b {said}")]
    };
    assert_eq!(std::mem::take(&mut *heard.lock()), both(said));

    producer.send_and_wait(line("known")).await.unwrap();
    producer.flush().await.unwrap();
    heard.lock().clear();
    assert!(producer.send(line("x").partition(5)).now_or_never().is_none());
    let said = "t-5 b Err(\"nobody waits for the record to be accepted any more\")";
    assert_eq!(std::mem::take(&mut *heard.lock()), both(said));

    producer.clone().close(S).await.unwrap();
    heard.lock().clear();
    assert!(producer.send(line("late")).await.is_err());
    assert!(heard.lock().is_empty(), "closed interceptors see nothing");
}

#[tokio::test(start_paused = true)]
async fn a_record_goes_where_an_interceptor_sends_it() {
    struct Redirecting;
    impl Interceptor for Redirecting {
        fn on_send(&self, record: &mut Record, _: &mut Extensions) -> Result<(), Refusal> {
            *record.topic_mut() = "t".into();
            *record.partition_mut() = Some(2);
            *record.key_mut() = None;
            *record.value_mut() = Some("changed".into());
            *record.timestamp_mut() = Some(99);
            Ok(())
        }
    }
    let broker = Broker::default();
    let producer: Producer = builder(&broker).interceptor(Redirecting).build().unwrap();
    let written = producer.send_and_wait(Record::new("elsewhere").key("k").value("v")).await.unwrap();
    assert_eq!((written.partition, written.timestamp), (2, 99));
    assert_eq!(broker.records(2), [(None, Some(b"changed".to_vec()), vec![])]);
}

#[tokio::test(start_paused = true)]
async fn interceptors_are_closed_once_on_close_and_on_drop() {
    struct Closing(Arc<AtomicUsize>);
    impl Interceptor for Closing {
        fn close(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let broker = Broker::default();
    let closes = Arc::<AtomicUsize>::default();
    let producer: Producer = builder(&broker).interceptor(Closing(closes.clone())).build().unwrap();
    let (clone, another) = (producer.clone(), producer.clone());
    producer.close(S).await.unwrap();
    assert_eq!(closes.load(Ordering::SeqCst), 1);
    let _ = clone.close(S).await;
    drop(another);
    Rt::current().unwrap().sleep(S).await;
    assert_eq!(closes.load(Ordering::SeqCst), 1);

    let producer: Producer = builder(&broker).interceptor(Closing(closes.clone())).build().unwrap();
    drop(producer);
    Rt::current().unwrap().sleep(S).await;
    assert_eq!(closes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_acknowledgement_that_blocks_an_interceptor_delays_nothing() {
    struct Blocking(Mutex<blocking::Receiver<()>>);
    impl Interceptor for Blocking {
        fn on_acknowledgement(
            &self,
            _: &str,
            _: i32,
            _: Result<&RecordMetadata, &SendError>,
            _: &mut Extensions,
        ) {
            let _ = self.0.lock().recv();
        }
    }
    let broker = Broker::default();
    let (go_on, wait) = blocking::channel::<()>();
    let producer: Producer = builder(&broker).interceptor(Blocking(Mutex::new(wait))).build().unwrap();
    for i in 0..20 {
        producer.send_and_wait(line("x").partition(i % 3)).await.unwrap();
    }
    let told = producer.clone().close(Duration::ZERO).await;
    assert!(matches!(told, Err(SendError::TimedOut { .. })), "close does not wait for ever: {told:?}");
    drop(go_on);
    Rt::current().unwrap().sleep(MS).await;
}
