//! Records of which some may be lost: as many as possible, acknowledged by the leader alone.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Acks, Client, NewTopic, Producer, Record};
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    client.admin().create_topics([NewTopic::high_throughput("clicks")]).await?.all()?; // 3 partitions x 2 replicas

    let producer: Producer = Producer::builder().client(&client).high_throughput(Acks::Leader).build()?;
    let begun = Instant::now();
    let mut deliveries = Vec::new();
    for number in 0..50_000 {
        let record = Record::new("clicks").value(format!("click {number}"));
        deliveries.push(producer.send(record).await?); // no key: batches fill up, partition by partition
    }
    let mut lost = 0;
    for delivery in deliveries {
        lost += usize::from(delivery.await.is_err()); // counted, not sent again
    }
    println!("50000 records in {:?}, {lost} lost", begun.elapsed());
    producer.close(Duration::from_secs(30)).await?;
    Ok(())
}
