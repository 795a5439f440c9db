//! Records that survive the loss of a broker: its leader dies while they are sent.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, NewTopic, Producer, Record};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    // 3 partitions x 3 replicas, of which two must have a record (min.insync.replicas=2).
    client.admin().create_topics([NewTopic::reliable("orders")]).await?.all()?;

    let producer: Producer = Producer::builder().client(&client).reliable().build()?;
    let mut deliveries = Vec::new();
    for number in 0..300 {
        if number == 100 {
            let leader = cluster.leader_of("orders", 0).ok_or("partition 0 has a leader")?;
            cluster.kill(leader)?; // what follows waits for the next leader, for delivery.timeout.ms at most
        }
        let record = Record::new("orders").partition(0).value(format!("order {number}"));
        deliveries.push(producer.send(record).await?);
    }
    for (number, delivery) in (0..).zip(deliveries) {
        let written = delivery.await?;
        assert!(written.offset.is_none_or(|offset| offset == number)); // once each, in order
    }
    producer.close(Duration::from_secs(30)).await?;
    println!("300 records acknowledged, although their leader died");
    Ok(())
}
