//! Sending one record at a time: the next one goes out when the last one is known to be safe.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Producer, Record, Recovery};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).topic("orders", Some(1), Some(3)).start().await?;
    let producer: Producer = Producer::builder()
        .bootstrap_servers(cluster.bootstrap())
        .connector(cluster.handle())
        .linger_ms(Duration::ZERO) // nothing else would come to fill the batch
        .build()?;

    for number in 0..20 {
        let written = producer.send_and_wait(Record::new("orders").value(format!("order {number}"))).await?;
        assert_eq!(written.offset, Some(number));
    }

    // An error says what to do about it, and whether the record may be in the log all the same.
    let too_large = Record::new("orders").value(vec![0; 2_000_000]);
    match producer.send_and_wait(too_large).await {
        Err(error) if error.recovery() == Recovery::Fix && !error.maybe_written() => println!("{error}"),
        other => return Err(format!("2 MB were not refused: {other:?}").into()),
    }
    producer.close(Duration::from_secs(30)).await?;
    println!("20 records, one after the other");
    Ok(())
}
