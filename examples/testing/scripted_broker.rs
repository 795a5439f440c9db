//! Scripted answers: a real producer, and a broker that does what the test says.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use klamm::mock::MockConnector;
use klamm::mock::messages::ProduceRequest;
use klamm::{ErrorCode, Producer, Record};
use std::time::Duration;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mock = MockConnector::builder().brokers(3).topic("orders", 6).build();
    mock.accept_produce();
    mock.on::<ProduceRequest>()
        .topic("orders")
        .times(1)
        .error(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        .then() // the second attempt is written, and its answer lost
        .times(1)
        .lose_answer()
        .then() // the third one is answered after 20 s, which a paused clock does not wait for
        .times(1)
        .delay(Duration::from_secs(20))
        .as_usual();

    let producer: Producer =
        Producer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build()?;
    let written = producer.send_and_wait(Record::new("orders").partition(0).value("3 apples")).await?;

    for entry in mock.journal() {
        println!("{:>6} ms  {}", entry.head.at.as_millis(), entry.head);
    }
    assert_eq!(mock.requests::<ProduceRequest>().len(), 3);
    assert_eq!(mock.written("orders", 0).len(), 1);
    mock.verify()?; // every script was used, and nothing else was asked
    println!("three attempts, one record, at offset {:?}", written.offset);
    Ok(())
}
