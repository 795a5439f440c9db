//! No network at all: code that takes a `RecordSource` and a `RecordSink`, with mocks in their place.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use klamm::mock::{MockConsumer, MockProducer, answer};
use klamm::{ConsumerError, ConsumerRecord, Record, RecordMetadata, RecordSink, RecordSource, SendError};

/// Under test: pays every order, and never pays one twice. Returns those that a person has to look at.
async fn pay_all(orders: &dyn RecordSource, payments: &dyn RecordSink) -> Result<Vec<i64>, SendError> {
    let mut doubtful = Vec::new();
    while let Ok(order) = orders.recv().await {
        match payments.send_and_wait(Record::new("payments").value(order.value.unwrap_or_default())).await {
            Ok(_) => {}
            Err(error) if error.maybe_written() => doubtful.push(order.offset),
            Err(error) => return Err(error),
        }
    }
    Ok(doubtful)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut orders: MockConsumer = MockConsumer::new();
    for offset in [7, 8] {
        let order = ConsumerRecord::new("orders", 0, offset).value("3 apples");
        orders.expect_recv().times(1).returning(move || answer(Ok(order.clone())));
    }
    orders.expect_recv().times(1).returning(|| answer(Err(ConsumerError::Closed)));

    let mut payments: MockProducer = MockProducer::new();
    let paid = |record: Record| answer(Ok(RecordMetadata::new(record.topic(), 0, 42)));
    payments.expect_send_and_wait().times(1).returning(paid);
    let lost = SendError::RetriesExhausted { at: None, maybe_written: true, last: None };
    payments.expect_send_and_wait().times(1).returning(move |_| answer(Err(lost.clone())));

    assert_eq!(pay_all(&orders, &payments).await?, [8]);
    println!("two orders, two attempts; the one that may have been paid was not paid again");
    Ok(())
}
