//! A producer that never waits: `max.block.ms=0`, which old clients call `block.on.buffer.full=false`.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_time_to_block_sending_fails_at_once_where_it_would_wait() {
    let broker = Broker::default();
    let old =
        Producer::from_properties([("block.on.buffer.full", "false"), ("buffer.memory", "1000")]).unwrap();
    let old = old.bootstrap_servers("here:1").connector(broker.connector()).batch_size(0);
    let producer: Producer = old.request_timeout_ms(S).build().unwrap();
    let begun = now(&producer);
    let error = producer.send(line("the topic is not known")).await.unwrap_err();
    assert!(matches!(error, SendError::Metadata(_)), "{error:?}");
    assert_eq!((error.recovery(), now(&producer)), (Recovery::Retry, begun));

    producer.inner.accumulator.client.rt().sleep(100 * MS).await;
    producer.send_and_wait(line("it was asked for")).await.unwrap();
    broker.0.lock().always = Some(Produced::Silence);
    let mut open = Vec::new();
    let (begun, error) = loop {
        let begun = now(&producer);
        match producer.send(line("x".repeat(200))).await {
            Ok(delivery) => open.push(delivery),
            Err(error) => break (begun, error),
        }
    };
    assert!(matches!(error, SendError::BufferFull { waited: Duration::ZERO }), "{error:?}");
    assert_eq!((error.recovery(), now(&producer)), (Recovery::Retry, begun));
    assert!(!open.is_empty());
    broker.0.lock().always = None;
    for delivery in open {
        delivery.await.unwrap();
    }
    producer.send_and_wait(line("there is room again")).await.unwrap();
    check_memory(&producer).await;
}
