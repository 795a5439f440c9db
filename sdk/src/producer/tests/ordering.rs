//! What order costs, and what it costs not to have it.

use super::*;

/// What the log holds of five records of which the first is refused once, each a batch of its own.
async fn logged(builder: ProducerBuilder, broker: &Broker) -> Vec<String> {
    let producer: Producer = builder.batch_size(0).linger_ms(Duration::ZERO).build().unwrap();
    producer.send_and_wait(line("0")).await.unwrap();
    broker.0.lock().script.push_back(Produced::Refused(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let mut deliveries = Vec::new();
    for number in 1..=5 {
        deliveries.push(producer.send(line(number.to_string())).await.unwrap());
    }
    producer.flush().await.unwrap();
    check_memory(&producer).await;
    broker.values(0)
}

/// Goal: the presets' explanation of order is true.
#[tokio::test(start_paused = true)]
async fn a_retry_changes_the_order_unless_one_request_is_in_flight_or_batches_are_numbered() {
    let plain = |broker: &Broker| builder(broker).enable_idempotence(false);
    let broker = Broker::default();
    assert_eq!(logged(plain(&broker), &broker).await, ["0", "2", "3", "4", "5", "1"], "five in flight");
    let broker = Broker::default();
    assert_eq!(logged(plain(&broker).ordered(), &broker).await, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(broker.0.lock().requests, 7, "one request for each record, and one again");
    let broker = Broker::default();
    assert_eq!(logged(plain(&broker).retries(0), &broker).await, ["0", "2", "3", "4", "5"], "a gap");
    let broker = Broker::default();
    assert_eq!(
        logged(plain(&broker).ordered().retries(0), &broker).await,
        ["0", "2", "3", "4", "5"],
        "a gap"
    );
}
