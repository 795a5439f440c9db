//! Sending at full speed: records are accepted at once, and their deliveries are awaited later.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Producer, Record};
use std::{sync::Arc, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).topic("orders", Some(3), Some(3)).start().await?;
    let producer: Producer =
        Producer::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;

    let orders: Arc<str> = "orders".into(); // named once, not once for each record
    let mut deliveries = Vec::new();
    for number in 0..1_000 {
        let record = Record::new(orders.clone()).key(format!("customer {}", number % 10)).value("3 apples");
        deliveries.push(producer.send(record).await?); // waits only for room in buffer.memory
    }
    let mut written = [0; 3];
    for delivery in deliveries {
        written[delivery.await?.partition as usize] += 1; // here it is known that the record is safe
    }
    producer.close(Duration::from_secs(30)).await?;

    assert_eq!(written.iter().sum::<i32>(), 1_000);
    println!("1000 records acknowledged, by partition: {written:?}");
    Ok(())
}
