//! When and where a batch is sent again, against a mock of two brokers.

use klamm_wire::messages::{MetadataRequest, ProduceRequest};

use super::*;
use crate::mock::MockConnector;

/// Longer than anything else takes here.
const BACKOFF: Duration = Duration::from_secs(5);

fn producer(mock: &MockConnector) -> Producer {
    let builder = Producer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone());
    builder.retry_backoff_ms(BACKOFF).retry_backoff_max_ms(BACKOFF).linger_ms(Duration::ZERO).build().unwrap()
}

/// Brokers that were sent batches, in that order.
fn asked(mock: &MockConnector) -> Vec<i32> {
    let produce = |entry: &crate::mock::Entry| entry.head.is::<ProduceRequest>();
    mock.journal().iter().filter(|entry| produce(entry)).map(|entry| entry.head.broker).collect()
}

/// Goal: KIP-951. A broker that knows its successor names it, and nobody waits: not for the pause between retries, and not
/// for metadata, which no broker tells here any more.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_named_in_an_answer_is_sent_to_at_once() {
    let mock = MockConnector::builder().brokers(2).topic("t", 1).build();
    mock.accept_produce();
    let producer = producer(&mock);
    producer.send_and_wait(line("0")).await.unwrap();
    let old = mock.leader("t", 0).unwrap();
    let new = 3 - old;
    mock.move_leader("t", 0, new);
    let _silent = mock.on::<MetadataRequest>().silence();
    let begun = now(&producer);
    producer.send_and_wait(line("1")).await.unwrap();
    assert!(now(&producer) - begun < BACKOFF / 10, "{:?}", now(&producer) - begun);
    assert_eq!(asked(&mock), [old, old, new]);
    assert_eq!(producer.retries(), 1);
}

/// Goal: without a name in the answer (before version 10) the metadata tell it, after a pause.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_named_is_found_in_the_metadata() {
    let mock = MockConnector::builder().brokers(2).topic("t", 1).offer::<ProduceRequest>(3, 9).build();
    mock.accept_produce();
    let producer = producer(&mock);
    producer.send_and_wait(line("0")).await.unwrap();
    let old = mock.leader("t", 0).unwrap();
    mock.move_leader("t", 0, 3 - old);
    producer.send_and_wait(line("1")).await.unwrap();
    // Whether the next attempt or the next metadata come first, chance decides.
    let asked = asked(&mock);
    assert_eq!((asked[..2].to_vec(), asked.last()), (vec![old, old], Some(&(3 - old))), "{asked:?}");
}

/// Goal: with `retries` used up, the error says how it ended; with none, there is one attempt.
#[tokio::test(start_paused = true)]
async fn attempts_are_one_more_than_retries() {
    for retries in [0, 3] {
        let mock = MockConnector::builder().brokers(2).topic("t", 1).build();
        let refused = mock.on::<ProduceRequest>().error(ErrorCode::NOT_ENOUGH_REPLICAS);
        let builder = Producer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone());
        let producer: Producer = builder.retries(retries).build().unwrap();
        let error = producer.send_and_wait(line("v")).await.unwrap_err();
        assert_eq!((refused.used(), producer.retries()), (retries as usize + 1, u64::from(retries)));
        let said = error.to_string();
        assert!(matches!(error, SendError::RetriesExhausted { maybe_written: false, .. }), "{error:?}");
        assert!(said.contains("t-0") && said.contains("NOT_ENOUGH_REPLICAS"), "{said}");
    }
}
