//! One span for each Produce request, and a report for each panic.

use super::*;
use crate::listener::{Listener, Seen};
use crate::producer::guard::guarded;

#[tokio::test(start_paused = true)]
async fn each_request_has_a_span_that_tells_how_it_ended_and_records_have_none() {
    let (listener, _listening) = Listener::start();
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
    let (listener, _listening) = Listener::start();
    let outcome = guarded("on_send", "my::Interceptor", || {
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(outcome.is_none());
    let errors = listener.errors.lock();
    let told = ["what", "whose", "panic"].map(|name| errors[0][name].as_str());
    assert_eq!(told, ["\"on_send\"", "\"my::Interceptor\"", "\"on purpose\""]);
}
