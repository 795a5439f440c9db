//! Groups do not share: each of them gets every record.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, Consumer, OffsetReset, Producer, Record};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder()
        .brokers(3)
        .topic("prices", Some(2), Some(3))
        .config("group.initial.rebalance.delay.ms", "0")
        .start()
        .await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for price in 0..50 {
        drop(producer.send(Record::new("prices").value(price.to_string())).await?); // flushed by close
    }
    producer.close(Duration::from_secs(30)).await?;

    for group in ["website", "app", "reports"] {
        let builder = Consumer::builder().client(&client).group_id(group);
        let consumer: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build()?;
        consumer.subscribe(["prices"]);
        let mut prices = Vec::new();
        while prices.len() < 50 {
            prices.push(consumer.recv().await?.value);
        }
        prices.sort_unstable();
        prices.dedup();
        assert_eq!(prices.len(), 50);
        consumer.close().await?;
        println!("{group} has all 50 prices");
    }
    Ok(())
}
