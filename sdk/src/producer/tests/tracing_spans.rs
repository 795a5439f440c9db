//! One span for each Produce request, and a report for each panic.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::AtomicU64;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Fields};
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::producer::guard::guarded;

/// Keeps the fields of spans and of errors.
#[derive(Clone, Default)]
struct Listener {
    spans: Arc<Mutex<BTreeMap<u64, Seen>>>,
    errors: Arc<Mutex<Vec<Seen>>>,
    next: Arc<AtomicU64>,
}

type Seen = BTreeMap<&'static str, String>;

struct Into<'a>(&'a mut Seen);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("klamm")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut seen = Seen::from([("name", span.metadata().name().to_owned())]);
        span.record(&mut Into(&mut seen));
        self.spans.lock().insert(id, seen);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Fields<'_>) {
        if let Some(seen) = self.spans.lock().get_mut(&span.into_u64()) {
            values.record(&mut Into(seen));
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() == tracing::Level::ERROR {
            let mut seen = Seen::new();
            event.record(&mut Into(&mut seen));
            self.errors.lock().push(seen);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn each_request_has_a_span_that_tells_how_it_ended_and_records_have_none() {
    let listener = Listener::default();
    let _listening = tracing::subscriber::set_default(listener.clone());
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let deliveries = (0..100).map(|i| producer.send(line("x").partition(i % 2)));
    drop(futures::future::try_join_all(deliveries).await.unwrap());
    producer.flush().await.unwrap();
    broker.0.lock().script.extend([Produced::Refused(ErrorCode::NOT_ENOUGH_REPLICAS), Produced::Lost]);
    producer.send_and_wait(line("y")).await.unwrap();
    let all: Vec<Seen> = listener.spans.lock().values().cloned().collect();
    assert!(all.iter().all(|span| span["name"] == "kafka.request"), "{all:#?}");
    let spans: Vec<Seen> = all.into_iter().filter(|span| span["api.key"] == "0").collect();
    assert_eq!(spans.len(), broker.0.lock().requests, "{spans:#?}");
    let told = |span: &Seen, name| span.get(name).cloned().unwrap_or_default();
    assert!(spans.iter().all(|span| told(span, "broker.id") == "1" && !told(span, "api.version").is_empty()));
    assert!(spans.iter().all(|span| told(span, "bytes").parse::<u32>().unwrap() > 61));
    let ends: Vec<_> =
        spans.iter().map(|span| ["partitions", "outcome", "refused"].map(|name| told(span, name))).collect();
    let end = |partitions: &str, outcome: &str, refused: &str| {
        [partitions.to_owned(), format!("{outcome:?}"), refused.to_owned()]
    };
    assert_eq!(
        ends,
        [
            end("2", "answered", "0"),
            end("1", "answered", "1"),
            end("1", "no answer", ""),
            end("1", "answered", "0"),
        ]
    );
}

#[test]
fn a_panic_is_reported_with_whose_it_is_and_what_it_says() {
    let listener = Listener::default();
    let _listening = tracing::subscriber::set_default(listener.clone());
    let outcome = guarded("on_send", "my::Interceptor", || {
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(outcome.is_none());
    let errors = listener.errors.lock();
    let told = ["what", "whose", "panic"].map(|name| errors[0][name].as_str());
    assert_eq!(told, ["\"on_send\"", "\"my::Interceptor\"", "\"on purpose\""]);
}
