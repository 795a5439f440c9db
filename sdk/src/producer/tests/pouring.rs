//! The producer as a `futures::Sink`.

use futures::{SinkExt, StreamExt, stream};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_is_poured_in_order_through_a_buffer_that_is_too_small_for_it() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(200).buffer_memory(400).build().unwrap();
    let lines = stream::iter(0..500).map(|i| Ok(line(format!("{i}"))));
    lines.forward(producer.sink()).await.unwrap();
    let expected: Vec<_> = (0..500).map(|i| i.to_string()).collect();
    assert_eq!(broker.values(0), expected);
    assert_eq!(producer.send_and_wait(line("and on")).await.unwrap().offset, Some(500), "it is not closed");
    check_memory(&producer).await;
}

#[tokio::test(start_paused = true)]
async fn flushing_does_not_wait_for_the_linger_and_feeding_does() {
    let broker = Broker::default();
    let producer: Producer =
        builder(&broker).linger_ms(100 * S).delivery_timeout_ms(200 * S).build().unwrap();
    let mut sink = Box::pin(producer.sink());
    let began = now(&producer);
    for i in 0..10 {
        sink.feed(line(format!("{i}"))).await.unwrap();
    }
    Rt::current().unwrap().sleep(S).await;
    assert!(broker.values(0).is_empty(), "they linger");
    sink.flush().await.unwrap();
    assert_eq!(broker.values(0).len(), 10);
    assert!(now(&producer) - began < 2 * S);
    sink.close().await.unwrap();
    assert!(matches!(sink.feed(line("x")).await, Err(SendError::Closed { maybe_written: false })));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_reported_once_and_the_sink_goes_on() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).batch_size(0).max_request_size(1000).build().unwrap();
    let mut sink = Box::pin(producer.sink());
    sink.send(line("good")).await.unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::INVALID_RECORD));
    let refused = sink.send(line("bad")).await.unwrap_err();
    assert!(matches!(refused, SendError::Rejected { code: ErrorCode::INVALID_RECORD, .. }), "{refused}");
    let refused = sink.send(line("x".repeat(2000))).await.unwrap_err();
    assert!(matches!(refused, SendError::TooLarge { .. }), "{refused}");
    sink.send(line("good again")).await.unwrap();
    assert_eq!(broker.values(0), ["good", "good again"]);
}

#[tokio::test(start_paused = true)]
async fn a_send_dropped_while_it_waits_for_the_acknowledgement_loses_nothing() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let mut sink = Box::pin(producer.sink());
    assert!(sink.send(line("taken")).now_or_never().is_none());
    sink.send(line("next")).await.unwrap();
    assert_eq!(broker.values(0), ["taken", "next"]);
    // What is accepted is sent, also if nobody asks any more.
    assert!(sink.send(line("accepted")).now_or_never().is_none());
    drop(sink);
    producer.close(S).await.unwrap();
    assert_eq!(broker.values(0), ["taken", "next", "accepted"]);
}
